//! Deployment to docker hosts: what is decided about it, the Job that does it, and what that is told and reports.

pub mod collection;
pub mod fingerprint;
pub mod job;
pub mod plan;
pub mod report;
pub mod revision;
pub mod task;
#[cfg(test)]
pub(crate) mod testing;
pub mod wish;
