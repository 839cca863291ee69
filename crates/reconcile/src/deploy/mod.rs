//! Deployment to docker hosts: the Job that does it, and what runs inside the Job.

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
