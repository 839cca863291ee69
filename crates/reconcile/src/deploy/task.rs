//! What the controller tells a deploy Job: one JSON document in a Secret that the Job owns. It holds keyed
//! fingerprints, never a value.

use keyturn_api::docker_host::RunMode;
use keyturn_image_audit::Allowances;
use keyturn_image_audit::managed::ManagedValues;
use serde::{Deserialize, Serialize};

use super::collection::About;

/// Folder of the task Secret in the pod; the file is [`TASK_FILE`].
pub const TASK_DIR: &str = "/run/keyturn/task";
/// The task as JSON.
pub const TASK_FILE: &str = "/run/keyturn/task/task.json";
/// Private key of the host's account, mounted from the user's Secret.
pub const KEY_FILE: &str = "/run/keyturn/ssh/key";
/// Private key of the jump host's account.
pub const JUMP_KEY_FILE: &str = "/run/keyturn/jump/key";
/// Where Kubernetes reads the result.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    pub mode: RunMode,
    /// Hash of the sorted `path=version` lines and the script, 16 hexadecimal digits.
    pub revision: String,
    /// Try of this revision, from 1.
    pub attempt: i32,
    pub ssh: Endpoint,
    pub jump: Option<Endpoint>,
    /// Lines of known_hosts for the host and the jump host.
    pub known_hosts: Vec<String>,
    /// Call docker through `sudo -n`.
    pub sudo: bool,
    /// Where docker lies on the host; looked for when `None`.
    #[serde(default)]
    pub docker_path: Option<String>,
    pub compose_project: String,
    pub deploy_script: String,
    pub deploy_timeout_seconds: u64,
    pub verify_script: Option<String>,
    pub verify_timeout_seconds: u64,
    pub parameters: Vec<TaskParameter>,
    /// Values that are taken out of what is shown to anybody, and searched for in images, by keyed fingerprints of every
    /// form in which they are written.
    pub managed: ManagedValues,
    /// How the images that the containers run are searched for secrets; not at all when `None`.
    #[serde(default)]
    pub audit: Option<TaskAudit>,
    /// What a collection is to collect.
    #[serde(default)]
    pub collection: Option<TaskCollection>,
}

impl Task {
    /// How long the images may be looked at, in seconds: as configurations, and beyond that into the files of their layers.
    pub fn audit_seconds(&self) -> u64 {
        match &self.audit {
            None => 0,
            Some(audit) if audit.layers == Layers::Look => 60 + 600,
            Some(_) => 60,
        }
    }
}

/// Log lines to be collected.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskCollection {
    pub about: About,
    pub script: String,
    pub timeout_seconds: u64,
}

/// What the audit of the images has to know.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskAudit {
    pub allowances: Allowances,
    /// What to do about the files of the layers.
    #[serde(default)]
    pub layers: Layers,
}

/// What a run does about the files of the images' layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layers {
    /// Nobody asked.
    #[default]
    Ignore,
    /// They are looked into, but not by this run: it tells which images there are, so that what was found in others is
    /// known to be gone.
    Skip,
    /// They are looked into.
    Look,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub user: String,
}

/// A parameter that the containers must run, by its keyed fingerprint.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskParameter {
    pub path: String,
    pub version: i64,
    /// When the value of this version was made, in seconds since 1970. The host's journal refuses what is lower than
    /// what it deployed last in both, version and time: the version alone would refuse a parameter that was deleted
    /// and created again, since its versions count from 1 anew; the time alone would refuse every new version after a
    /// clock was set back.
    pub published_at: i64,
    /// Names of the variable in the containers.
    pub env: Vec<String>,
    /// Fresh random key of this run, 64 hexadecimal digits.
    pub key: String,
    /// HMAC-SHA256 of the value under that key, 64 hexadecimal digits.
    pub mac: String,
    /// The same for the value without its trailing newlines, where it has any: env files cannot carry them.
    pub trimmed_mac: Option<String>,
}
