//! Whole journeys through the world: the chart as installed, a real API server, a real docker host, an SSM.
//!
//! Run against the world: `dev/world up`, `eval "$(dev/world env)"`, then `cargo test --test end_to_end -- --ignored`.
//! Every test has a namespace, a folder of parameters and a compose project on the docker host of its own. Those that
//! take down what all of them need have the world to themselves and stand in `alone`. Tests begin in the order of their names,
//! so what takes long does not come last.

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
