//! The logs of docker hosts: how they are asked, in an incident, for what authenticated with a secret, and what they said.

use chrono::TimeDelta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::rules;

/// How long the script may run, where the spec does not say.
pub const DEFAULT_TIMEOUT: TimeDelta = TimeDelta::minutes(2);

/// How a host's logs are asked for what authenticated with the secret. A SecretIncident does so once the secret is
/// contained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.timeout) || self.timeout.matches('^([1-9]|[1-5][0-9]|60)m$')",
    "accessLog.timeout must be a number of minutes, at most 60m"
))]
pub struct AccessLogSpec {
    /// POSIX shell script that prints the log lines of what authenticated with the secret, from `$KEYTURN_SINCE` to
    /// `$KEYTURN_UNTIL` (such as 2026-11-23T12:00:00Z). It runs on every host of the secret, as the account of the
    /// DockerHost's ssh, and must exit 0 where there are no such lines too, as `sed -n /…/p` does and grep does not. All
    /// that it prints is kept on the host; the first and last lines are shown in the SecretIncident, with known values
    /// and tokens taken out.
    #[schemars(length(min = 1, max = 16384))]
    #[x_kube(validation = rules::SCRIPT)]
    pub script: String,
    /// How long the script may run, in minutes, at most `60m`; 2m when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

impl AccessLogSpec {
    pub fn timeout(&self) -> TimeDelta {
        self.timeout.as_ref().and_then(Duration::to_delta).unwrap_or(DEFAULT_TIMEOUT)
    }
}

/// Log lines that a host was asked for in an incident, until the SecretIncident has them in its own status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostAccessLog {
    /// Name of the SecretIncident.
    pub incident: String,
    /// UID of the SecretIncident.
    pub incident_uid: String,
    /// Name of the ManagedSecret.
    pub secret: String,
    /// Begin of the window that was asked for.
    pub since: Time,
    /// End of the window.
    pub until: Time,
    /// When the last try ended.
    pub at: Time,
    /// Job of the last try.
    pub job: String,
    /// Hash of the window and the script of the last try. Another one is tried at once.
    pub revision: String,
    /// How often this revision was tried.
    pub attempt: i32,
    /// Consecutive failures of this revision; 0 after a success.
    #[serde(default)]
    pub failures: i32,
    /// After a failure, the earliest time of the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Time>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What was found in the window; absent until a try went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<LogLines>,
}

/// Log lines on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLines {
    /// How many lines there are.
    pub lines: i64,
    /// How many bytes they have.
    pub bytes: i64,
    /// Whether the script printed more than is kept.
    #[serde(default)]
    pub cut: bool,
    /// SHA-256 of the file, in hexadecimal digits.
    pub digest: String,
    /// The file on the host that has all of them.
    pub file: String,
    /// The first and the last of them, with known values and tokens taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub excerpt: Vec<String>,
}

/// The log lines of one host about one secret, in a SecretIncident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentLog {
    /// Name of the DockerHost.
    pub host: String,
    /// Name of the ManagedSecret.
    pub secret: String,
    /// Begin of the window that the host was asked for.
    pub since: Time,
    /// End of the window.
    pub until: Time,
    /// When the lines were collected; absent until they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected_at: Option<Time>,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<LogLines>,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
