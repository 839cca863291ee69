//! A model of everything around keyturn's rotation protocol, searched exhaustively.
//!
//! The protocol itself is not modelled: [`evidence`] converts a small [`world`] into the controller's observations, and
//! `keyturn::rotation::protocol::next` decides. [`moves`] are the possible next events in a world, including late and
//! duplicated requests of the controller; [`creation`] has those of a first value without a record. [`invariants`] must
//! hold in every reachable world. [`search`] reaches all of them breadth first, so the first violation found is one of
//! the shortest. [`stories`] say what may happen in one search, and [`seeds`] are deliberate bugs, which show that the
//! search can fail. `docs/model.md` describes the model.

pub mod creation;
pub mod decision;
mod deeds;
pub mod effects;
pub mod evidence;
pub mod hosts;
pub mod invariants;
pub mod moves;
pub mod search;
pub mod seeds;
pub mod stories;
pub mod world;
