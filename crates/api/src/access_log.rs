//! Log lines of docker hosts: the script that an incident runs to find who authenticated with a secret, and its result.

use chrono::TimeDelta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::rules;

/// Time limit of the script when the spec sets none.
pub const DEFAULT_TIMEOUT: TimeDelta = TimeDelta::minutes(2);

/// Script that searches a host's logs for requests that authenticated with the secret. A SecretIncident runs it once
/// the secret is contained or `revokeWithin` is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.timeout) || self.timeout.matches('^([1-9]|[1-5][0-9]|60)m$')",
    "accessLog.timeout must be a number of minutes, at most 60m"
))]
pub struct AccessLogSpec {
    /// POSIX shell script that prints the log lines of all requests that authenticated with the secret, from
    /// `$KEYTURN_SINCE` to `$KEYTURN_UNTIL` (such as 2026-11-23T12:00:00Z). It runs on every host of the secret, as the
    /// account of the DockerHost's ssh. It must exit 0 even when it finds no lines, as `sed -n /…/p` does and grep does
    /// not. Its whole output stays on the host; the SecretIncident shows the first and last lines, with known values
    /// and tokens removed.
    #[schemars(length(min = 1, max = 16384))]
    #[x_kube(validation = rules::SCRIPT)]
    pub script: String,
    /// Time limit of the script in minutes, at most `60m`; 2m when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

impl AccessLogSpec {
    /// Returns the time limit of the script: [`DEFAULT_TIMEOUT`] where the spec sets none or a malformed one.
    pub fn timeout(&self) -> TimeDelta {
        self.timeout.as_ref().and_then(Duration::to_delta).unwrap_or(DEFAULT_TIMEOUT)
    }
}

/// Log lines that a host collected for an incident, kept here until the SecretIncident has them in its own status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostAccessLog {
    /// Name of the SecretIncident.
    pub incident: String,
    /// UID of the SecretIncident.
    pub incident_uid: String,
    /// Name of the ManagedSecret.
    pub secret: String,
    /// Start of the requested time window.
    pub since: Time,
    /// End of the requested time window.
    pub until: Time,
    /// Time when the last attempt ended.
    pub at: Time,
    /// Job of the last attempt.
    pub job: String,
    /// Hash of the window and the script of the last attempt. When either changes, the next attempt starts at once.
    pub revision: String,
    /// Number of attempts for this revision.
    pub attempt: i32,
    /// Consecutive failures of this revision; 0 after a success.
    #[serde(default)]
    pub failures: i32,
    /// Earliest time of the next attempt after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Time>,
    /// Reason why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Lines that were found in the window; absent until an attempt succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<LogLines>,
}

/// Log lines on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLines {
    /// Number of lines.
    pub lines: i64,
    /// Size of the lines in bytes.
    pub bytes: i64,
    /// True when the script printed more than keyturn keeps.
    #[serde(default)]
    pub cut: bool,
    /// SHA-256 of the file, in hexadecimal digits.
    pub digest: String,
    /// Path of the file on the host that holds all lines.
    pub file: String,
    /// First and last lines, with known values and tokens removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub excerpt: Vec<String>,
}

/// Log lines of one host about one secret, shown in a SecretIncident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentLog {
    /// Name of the DockerHost.
    pub host: String,
    /// Name of the ManagedSecret.
    pub secret: String,
    /// Start of the requested time window.
    pub since: Time,
    /// End of the requested time window.
    pub until: Time,
    /// Time when the lines were collected; absent until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected_at: Option<Time>,
    /// Lines that were found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<LogLines>,
    /// Reason why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
