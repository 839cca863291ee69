//! Deployment to docker hosts: the decision to deploy, the Job that does it, the Job's task and its report.

pub mod audits;
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
