//! The port to deploy Jobs: start one, see how those of a host are doing.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keyturn_api::DockerHost;
use keyturn_api::docker_host::RunMode;

use super::objects::ObjectError;
use crate::deploy::collection::About;
use crate::deploy::plan::Run;
use crate::deploy::report::Report;
use crate::deploy::task::Task;

/// A deploy Job of one host, as the cluster shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployJob {
    pub name: String,
    pub mode: RunMode,
    pub revision: String,
    pub attempt: i32,
    /// What the run deploys or compares.
    pub parameters: Vec<JobParameter>,
    /// Generation of the DockerHost that the Job was made from.
    pub generation: i64,
    /// Hash of the endpoint and compose project that the Job goes to, see `deploy::plan::target`.
    pub target: String,
    /// Hash of the DockerHost's `audit` that the Job was made from, see `deploy::plan::audit_settings`.
    pub audit: String,
    /// What a collection is about.
    pub about: Option<About>,
    /// Whether it looks into the files of the images' layers.
    pub layers: bool,
    /// The Job is over, and the Secret with its task is not known to be deleted.
    pub holds_task: bool,
    pub created: DateTime<Utc>,
    pub state: JobState,
}

/// One version of a parameter. The time tells it from the same number of a parameter that was deleted and created
/// again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobParameter {
    pub path: String,
    pub version: i64,
    /// When the value of this version was made, in seconds since 1970.
    pub published_at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Created, but never released to run: whoever started it stopped half-way. It has no pod and is to be deleted.
    Unstarted,
    /// Not ended. `trouble` says why its pod does not come up, where that is known (image, missing Secret, quota).
    Running { trouble: Option<String> },
    /// Ended, with the report of its last pod.
    Ended { report: Report, finished: DateTime<Utc> },
    /// Ended without a report: evicted, out of memory, deadline, deleted pod.
    Lost { reason: String, finished: DateTime<Utc> },
}

#[async_trait]
pub trait DeployJobs: Send + Sync {
    /// The Jobs that this DockerHost (by UID) controls, oldest first, read from the API server itself.
    async fn of_host(&self, host: &DockerHost) -> Result<Vec<DeployJob>, ObjectError>;
    /// Creates the Job of a run and the Secret with its task, and answers the Job's name. A Job of that name that this
    /// very DockerHost controls is a success: it is adopted.
    async fn start(&self, host: &DockerHost, run: &Run, task: &Task) -> Result<String, ObjectError>;
    /// Deletes the Secret with the task of a Job that is over: fingerprints of values, and their keys. One that is not there
    /// is a success.
    async fn delete_task(&self, host: &DockerHost, job: &str) -> Result<(), ObjectError>;
    /// Deletes a Job, its pods and its Secret. It stays listed until its pods are gone. One that is not there is a
    /// success.
    async fn delete(&self, host: &DockerHost, job: &str) -> Result<(), ObjectError>;
}
