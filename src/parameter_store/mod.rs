//! The adapter for AWS SSM Parameter Store.

mod answers;
pub mod aws;
mod failure;
mod filters;
pub mod ssm;

pub use keyturn_reconcile::parameter_store::*;
