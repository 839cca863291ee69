//! Tests complete scenarios in the world: the chart as installed, a real API server, a real docker host, an SSM.
//!
//! Run them in the world: `dev/world up`, `eval "$(dev/world env)"`, then `cargo test --test end_to_end -- --ignored`.
//! Every test has its own namespace, folder of parameters and compose project on the docker host. Tests that take down
//! what all others need have the world to themselves and are in `alone`. Tests begin in the order of their names, so
//! long ones have names that do not come last.

mod adoption;
mod alone;
mod cloudflare_r2;
mod cluster_upheavals;
mod consent;
mod controller;
mod crashes;
mod deletions;
mod examples;
mod failures;
mod faults;
mod forgers;
mod hijackers;
mod host_keys;
mod image_audit;
mod incidents;
mod kills;
mod notifications;
mod objects;
mod postgres;
mod project;
mod publishing;
mod rotations;
mod ssm;
mod world;
