//! Kubernetes as the reconcilers see it: a client, the caches that watches fill, the objects and Jobs behind the ports, Events,
//! the leader election and metrics.

pub mod cache;
mod claims;
pub mod client;
pub mod client_config;
pub mod deploy_jobs;
pub mod events;
pub mod guarded;
pub mod job_state;
pub mod lease;
pub mod metrics;
pub mod mirror;
pub mod objects;
mod refusal;
pub mod user_secrets;
pub mod watches;
