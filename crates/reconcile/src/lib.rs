//! The reconcilers of ManagedSecret, DockerHost and SecretIncident, the rules by which they decide, and the ports
//! (traits) through which they act. The implementations of the ports (AWS, SSH, a database, Cloudflare, the API
//! server) live elsewhere, so that tests can use a simulated world in their place.

pub mod deploy;
pub mod deploy_jobs;
pub mod docker_host;
pub mod incident;
pub mod links;
pub mod managed_secret;
pub mod notification;
pub mod objects;
pub mod parameter_store;
pub mod ports;
pub mod secret_incident;
pub mod settings;
pub mod source;
pub mod target;
mod telling;
