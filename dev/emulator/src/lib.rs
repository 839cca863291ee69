//! What keyturn's emulators have in common: which request a fault hits, the administration of faults and call log, and
//! an HTTP server that can close a connection instead of answering. What a fault is, and what it does, is theirs.

mod administration;
mod faults;
mod server;

pub use administration::Administration;
pub use faults::{Faults, Rule};
pub use server::{Server, no_answer};
