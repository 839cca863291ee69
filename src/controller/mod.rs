//! The controller: observes the cluster, asks `rotation` what is next, acts through the ports, records the status.

pub mod cache;
mod claims;
pub mod config;
pub mod events;
pub mod health;
pub mod inventories;
pub mod kube_client;
pub mod kube_config;
pub mod kube_deploy_jobs;
pub mod kube_job_state;
pub mod kube_objects;
pub mod lease;
pub mod links;
pub mod logging;
pub mod look;
pub mod metrics;
pub mod mirror;
pub mod notifications;
pub mod pace;
pub mod queue;
mod refusal;
pub mod run;
mod targets;
pub mod user_secrets;
pub mod watches;

pub use keyturn_reconcile::{deploy_jobs, docker_host, managed_secret, objects, secret_incident, settings};
