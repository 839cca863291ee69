//! keyturn rotates the secrets a fleet of docker hosts runs on.
//!
//! Data flows one way: the [`controller`] observes the cluster, the [`parameter_store`] and the hosts, the pure
//! functions of [`rotation`] decide the one next step, an adapter acts, and the status records what happened.
//! Dependencies point inwards: `controller` → (`parameter_store`, `target`, `deploy`, `incident`, `notification`) →
//! `rotation` → `api`.

pub mod api;
pub mod audit;
pub mod cli;
pub mod controller;
pub mod deploy;
pub mod generator;
pub mod incident;
pub mod notification;
pub mod parameter_store;
pub mod rotation;
pub mod secret_value;
pub mod target;
