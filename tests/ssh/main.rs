//! Tests the SSH client with OpenSSH itself, and deployments over it: a real sshd on a free port, keys made by
//! ssh-keygen and openssl, the real script on the host, the world's docker.
//!
//! Needs `sshd`, `ssh`, `ssh-keygen`, `openssl` and `busybox` (Debian: openssh-server, openssh-client, openssl,
//! busybox), root, and for deployments `DOCKER_HOST` (`eval "$(dev/world env)"`); a test that does not find them fails.

mod client_keys;
mod connections;
mod deployments;
mod docker;
mod host;
mod images;
mod known_hosts;
mod logs;
mod proofs;
mod sshd;
mod world;
