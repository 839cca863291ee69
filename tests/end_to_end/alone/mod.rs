//! Tests that take down, change or count something that all tests need: each of them has the world to itself
//! ([`Project::alone`](super::project::Project::alone)).
//!
//! They are in one module so that, by their names, they run one after another near the beginning. Among the other
//! tests, each would first wait for all running tests, with nothing else running beside it.

mod current_cluster;
mod host_faults;
mod leaks;
mod quotas;
mod readme;
