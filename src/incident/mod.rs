//! Adapters for the ports of incidents.

pub mod cloudtrail;

pub use keyturn_reconcile::incident::*;
