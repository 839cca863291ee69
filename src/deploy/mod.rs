//! Deployment to docker hosts: the Job that does it, and what runs inside the Job.

pub mod report;
pub mod task;
