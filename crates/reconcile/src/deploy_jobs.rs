//! The port to deploy Jobs: starts a Job, and lists the Jobs of a host.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keyturn_api::DockerHost;
use keyturn_api::docker_host::RunMode;

use super::objects::ObjectError;
use crate::deploy::collection::About;
use crate::deploy::plan::Run;
use crate::deploy::report::Report;
use crate::deploy::task::Task;

/// A deploy Job of one host, as it is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployJob {
    /// Name of the Job.
    pub name: String,
    /// Kind of the run: deployment, verification or collection.
    pub mode: RunMode,
    /// Revision of the run, 16 hexadecimal digits.
    pub revision: String,
    /// Number of this attempt of the revision, from 1.
    pub attempt: i32,
    /// Parameters that the run deploys or compares.
    pub parameters: Vec<JobParameter>,
    /// Generation of the DockerHost that the Job was made from.
    pub generation: i64,
    /// Hash of the endpoint and compose project that the Job deploys to, see `deploy::revision::target`.
    pub target: String,
    /// Hash of the DockerHost's `audit` that the Job was made from, see `deploy::revision::audit_settings`.
    pub audit: String,
    /// Incident, secret and window of a collection; `None` in the other modes.
    pub about: Option<About>,
    /// True when the run reads the files of the images' layers.
    pub layers: bool,
    /// True when the Job is over and the Secret with its task is not known to be deleted.
    pub holds_task: bool,
    /// Creation time of the Job, by the API server's clock.
    pub created: DateTime<Utc>,
    /// Progress of the Job, from its conditions and its pods.
    pub state: JobState,
}

/// One version of a parameter, with the time of its value. The time distinguishes it from the same version number of a
/// parameter that was deleted and created again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobParameter {
    /// Path of the parameter.
    pub path: String,
    /// The version that the run deploys or compares.
    pub version: i64,
    /// Time at which the value of this version was made, in seconds since 1970.
    pub published_at: i64,
}

/// Progress of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Created, but never released to run: the controller stopped in the middle of the start. It has no pod, and
    /// keyturn deletes it.
    Unstarted,
    /// Not ended. `trouble` is the reason why its pod does not start, if that is known (image, missing Secret, quota).
    Running {
        /// The reason why the pod does not start; `None` if it is not known or there is none.
        trouble: Option<String>,
    },
    /// Ended, with the report of its last pod.
    Ended {
        /// The report of the last pod.
        report: Report,
        /// Time at which its container ended.
        finished: DateTime<Utc>,
    },
    /// Ended without a report: evicted, out of memory, deadline, deleted pod.
    Lost {
        /// Text for a person, from the state of the Job and its pods.
        reason: String,
        /// Time at which the container or, if it is gone, the Job ended.
        finished: DateTime<Utc>,
    },
}

/// The deploy Jobs in the cluster.
#[async_trait]
pub trait DeployJobs: Send + Sync {
    /// Lists the Jobs that this DockerHost (by UID) controls, oldest first. Reads from the API server itself.
    async fn of_host(&self, host: &DockerHost) -> Result<Vec<DeployJob>, ObjectError>;
    /// Creates the Job of a run and the Secret with its task, and returns the Job's name. Idempotent: an existing Job
    /// of that name is adopted if this DockerHost controls it, which is a success.
    async fn start(&self, host: &DockerHost, run: &Run, task: &Task) -> Result<String, ObjectError>;
    /// Deletes the Secret with the task of a Job that is over. The task contains fingerprints of values, and their
    /// keys. A Secret that does not exist is a success.
    async fn delete_task(&self, host: &DockerHost, job: &str) -> Result<(), ObjectError>;
    /// Deletes a Job, its pods and its Secret. The Job stays listed until its pods are gone. A Job that does not exist
    /// is a success.
    async fn delete(&self, host: &DockerHost, job: &str) -> Result<(), ObjectError>;
}
