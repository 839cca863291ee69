//! The common part of keyturn's emulators: the rules that select the requests that a fault hits, the administration of
//! faults and call log, and an HTTP server that can close a connection instead of answering. Each emulator defines its
//! own faults.

mod administration;
mod faults;
mod server;

pub use administration::Administration;
pub use faults::{Faults, Rule};
pub use server::{Server, no_answer};
