//! The SSH client: strict host keys by our own reading of known_hosts, client keys in every form a `.pem` comes in,
//! commands with their exit status, and tunnels.

pub mod client_key;
pub mod connection;
mod host_certificate;
pub mod known_hosts;
mod modulo;
