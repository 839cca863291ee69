//! The task of a deploy Job: one JSON document in a Secret that the Job owns. It holds keyed fingerprints, never a value.

use keyturn_api::docker_host::RunMode;
use keyturn_image_audit::Allowances;
use keyturn_image_audit::managed::ManagedValues;
use serde::{Deserialize, Serialize};

use super::collection::About;

/// Folder of the task Secret in the pod; the file is [`TASK_FILE`].
pub const TASK_DIR: &str = "/run/keyturn/task";
/// File with the task, as JSON.
pub const TASK_FILE: &str = "/run/keyturn/task/task.json";
/// Private key of the host's account, mounted from the user's Secret.
pub const KEY_FILE: &str = "/run/keyturn/ssh/key";
/// Private key of the jump host's account.
pub const JUMP_KEY_FILE: &str = "/run/keyturn/jump/key";
/// File from which Kubernetes reads the report.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// The work of one pod. The pod mounts the SSH keys from Secrets of the user; they are not part of the task.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Kind of the run: deployment, verification or collection.
    pub mode: RunMode,
    /// Hash of the sorted `path=version` lines and the script, 16 hexadecimal digits.
    pub revision: String,
    /// Number of this attempt of the revision, from 1.
    pub attempt: i32,
    /// SSH endpoint of the host.
    pub ssh: Endpoint,
    /// SSH endpoint of the jump host; `None` to connect directly.
    pub jump: Option<Endpoint>,
    /// Lines of known_hosts for the host and the jump host.
    pub known_hosts: Vec<String>,
    /// True to call docker through `sudo -n`.
    pub sudo: bool,
    /// Path of docker on the host; keyturn searches for docker when `None`.
    #[serde(default)]
    pub docker_path: Option<String>,
    /// Compose project whose containers run the parameters.
    pub compose_project: String,
    /// POSIX shell script of `deploy.script`. Only a deployment runs it.
    pub deploy_script: String,
    /// Time limit of the deploy script in seconds.
    pub deploy_timeout_seconds: u64,
    /// POSIX shell script of `verify.script`; `None` if the DockerHost has none.
    pub verify_script: Option<String>,
    /// Time in seconds within which the verify script has to succeed; it is retried until then.
    pub verify_timeout_seconds: u64,
    /// Parameters to deploy or compare; empty in a collection.
    pub parameters: Vec<TaskParameter>,
    /// Values that are redacted from all output and searched for in images. The task has keyed fingerprints of every form
    /// in which a value is written, and not the value.
    pub managed: ManagedValues,
    /// Settings of the search for secrets in the images that the containers run; `None` for no search.
    #[serde(default)]
    pub audit: Option<TaskAudit>,
    /// The log lines to collect; `None` if the run is not a collection.
    #[serde(default)]
    pub collection: Option<TaskCollection>,
}

impl Task {
    /// Maximum time of the image audit in seconds: 60 for the configurations of the images, and 600 more for the files of
    /// their layers.
    pub fn audit_seconds(&self) -> u64 {
        match &self.audit {
            None => 0,
            Some(audit) if audit.layers == Layers::Look => 60 + 600,
            Some(_) => 60,
        }
    }
}

/// The log lines that a collection collects.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskCollection {
    /// Incident, secret and window of the lines.
    pub about: About,
    /// POSIX shell script of `accessLog.script`, which prints the lines.
    pub script: String,
    /// Time limit of the script in seconds.
    pub timeout_seconds: u64,
}

/// Settings of the image audit.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskAudit {
    /// Variables and findings that the DockerHost accepts.
    pub allowances: Allowances,
    /// Treatment of the files of the layers in this run.
    #[serde(default)]
    pub layers: Layers,
}

/// Treatment of the files of the images' layers in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layers {
    /// The DockerHost does not ask for the layers.
    #[default]
    Ignore,
    /// Another run reads the layers. This one only reports which images exist, so that keyturn can drop the findings of
    /// images that are gone.
    Skip,
    /// This run reads the layers.
    Look,
}

/// SSH endpoint of a host or of a jump host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account to log in as.
    pub user: String,
}

/// A parameter that the containers must run, with the keyed fingerprint of its value.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskParameter {
    /// Path of the parameter.
    pub path: String,
    /// The published version.
    pub version: i64,
    /// Time at which the value of this version was made, in seconds since 1970.
    ///
    /// The host's journal rejects a parameter only when both its version and this time are lower than those of the last
    /// deployment. The version alone would reject a parameter that was deleted and created again, since its versions
    /// start again from 1. The time alone would reject every new version after a clock was set back.
    pub published_at: i64,
    /// Names of the environment variable in the containers.
    pub env: Vec<String>,
    /// Fresh random key of this run, 64 hexadecimal digits.
    pub key: String,
    /// HMAC-SHA256 of the value under that key, 64 hexadecimal digits.
    pub mac: String,
    /// The same for the value without its trailing newlines, which env files cannot hold; `None` if the value has none.
    pub trimmed_mac: Option<String>,
}
