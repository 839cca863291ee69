//! A model of everything around keyturn's rotation protocol, searched exhaustively.
//!
//! The protocol itself is not modelled: [`evidence`] makes of a small [`world`] what the controller would have observed, and
//! `keyturn::rotation::protocol::next` decides. [`moves`] are what the world may do next, late and duplicated requests of the
//! controller among them, and [`creation`] what belongs to a first value without a record; [`invariants`] is what must hold in
//! every world that can be reached; [`search`] reaches all of them, breadth first, so that the first violation is a shortest
//! one. [`stories`] say what may happen in one search, and [`seeds`] are bugs on purpose, which show that the search can fail.
//! `docs/model.md` is the page about it.

pub mod creation;
pub mod decision;
pub mod effects;
pub mod evidence;
pub mod hosts;
pub mod invariants;
pub mod moves;
pub mod search;
pub mod seeds;
pub mod stories;
pub mod world;
