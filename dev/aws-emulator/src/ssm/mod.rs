//! Parameter Store in memory, with AWS's rules.

mod describe;
mod names;
mod operations;
mod put;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use operations::{Request, call};
pub use store::Settings;
pub(crate) use store::Ssm;

/// The account that owns everything.
pub(crate) const ACCOUNT: &str = "123456789012";

/// True for operations that never change anything, so that they may be answered from an older state.
pub(crate) fn is_read(operation: &str) -> bool {
    operation.starts_with("Get") || operation.starts_with("Describe")
}
