//! The adapter for AWS SSM Parameter Store.

pub mod aws;
mod failure;
pub mod ssm;

pub use keyturn_reconcile::parameter_store::*;
