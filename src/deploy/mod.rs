//! Deployments: what is decided about them, and the program that does them in a pod.

pub mod runner;
pub mod ssh;

pub use keyturn_reconcile::deploy::*;
