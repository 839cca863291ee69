//! Deployments: the decisions about them, and the program that runs them in a pod.

pub mod runner;
pub mod ssh;

pub use keyturn_reconcile::deploy::*;
