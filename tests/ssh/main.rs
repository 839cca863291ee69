//! The SSH client against OpenSSH itself: a real sshd on a free port, with keys made by ssh-keygen and openssl.
//!
//! Needs `sshd`, `ssh`, `ssh-keygen` and `openssl` (Debian: openssh-server, openssh-client, openssl); a test that does
//! not find them fails.

mod client_keys;
mod connections;
mod known_hosts;
mod sshd;
