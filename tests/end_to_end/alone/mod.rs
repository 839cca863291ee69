//! What takes down, changes or counts something that all tests need: each of these has the world to itself
//! ([`Project::alone`](super::project::Project::alone)).
//!
//! They stand in one module so that, by their names, they begin one after another near the beginning. Between others each
//! of them would first wait for all that runs, with nothing beside it.

mod current_cluster;
mod host_faults;
mod leaks;
mod quotas;
mod readme;
