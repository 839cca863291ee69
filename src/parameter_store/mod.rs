//! AWS SSM Parameter Store behind its port.

pub mod aws;
mod failure;
pub mod ssm;

pub use keyturn_reconcile::parameter_store::*;
