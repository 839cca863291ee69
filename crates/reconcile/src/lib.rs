//! The reconcilers of the three kinds, with all that they decide on, and the ports that they act through. What lies behind a
//! port (AWS, SSH, a database, Cloudflare, the API server) is not here, so that tests can put a world of their own there.

pub mod deploy;
pub mod deploy_jobs;
pub mod docker_host;
pub mod generator;
pub mod incident;
pub mod links;
pub mod managed_secret;
pub mod notification;
pub mod objects;
pub mod parameter_store;
pub mod secret_incident;
pub mod settings;
pub mod target;
