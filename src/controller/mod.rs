//! The controller: observes the cluster, asks `rotation` what is next, acts through the ports, records the status.

pub mod config;
pub mod deploy_jobs;
pub mod objects;
pub mod settings;
