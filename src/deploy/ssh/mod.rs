//! The SSH client: strict host keys by our own parser of known_hosts, client keys in every format of a `.pem` file,
//! commands with their exit status, and tunnels.

pub mod client_key;
pub mod connection;
mod host_certificate;
pub mod known_hosts;
mod modulo;
