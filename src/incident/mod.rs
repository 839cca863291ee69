//! Incidents: what lies behind their ports.

pub mod cloudtrail;

pub use keyturn_reconcile::incident::*;
