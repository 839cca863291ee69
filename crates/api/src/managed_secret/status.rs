//! The status of a ManagedSecret.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rotation::{RotationResult, Step, Trigger};
use crate::notification::PendingNotification;

/// State as observed in SSM, on the hosts and at the target. If it is lost, the controller rebuilds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSecretStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready, Rotating, Deployed, Overdue, Drifted, Compromised, Preflight, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// AWS region that holds the parameters, pinned when the controller first sees the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Published version of each parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub parameters: Vec<PublishedParameter>,
    /// Time when the published value was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_time: Option<Time>,
    /// Time when the next rotation may start, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<String>,
    /// Check of the hosts before a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<PreflightStatus>,
    /// Rotation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// Result of the last request or rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation: Option<LastRotation>,
    /// Hashes of the values of the annotation `keyturn.dev/rotate-requested-at` that were executed or recorded, newest
    /// first. If one of these values returns, in whatever order, it starts no rotation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub handled_requests: Vec<String>,
    /// Version of the secret on each host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hosts: Vec<SecretOnHost>,
    /// Result of the last check at the system that must accept the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// Response to the latest SecretIncident that concerns this secret; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromise: Option<CompromiseStatus>,
    /// Previous credentials that still work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["credential".into()]))]
    pub pending_retirements: Vec<PendingRetirement>,
    /// Consecutive failures of one step, kept in status so that a restart does not reset the backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureStatus>,
    /// Last ten rotations, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub history: Vec<LastRotation>,
    /// Notifications that a sink of `notifications` in the chart's values has not accepted yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub pending_notifications: Vec<PendingNotification>,
}

/// Published version of one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedParameter {
    /// Path of the parameter.
    pub path: String,
    /// Number of the version in SSM.
    pub version: i64,
    /// Author of this version.
    pub origin: Origin,
    /// Time when the value of this version was generated, or when SSM stored it if the value existed before keyturn
    /// managed it. Together with the version number it identifies the value, since a parameter that is deleted and
    /// created again starts at version 1.
    pub published_at: Time,
}

/// Author of a published version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Origin {
    /// Existed before keyturn managed the parameter, or was accepted with `onDrift: Adopt`.
    Adopted,
    /// Published by keyturn.
    Rotated,
    /// Written by somebody else, over a version that keyturn published.
    Foreign,
}

/// Request to the hosts to prove that they answer, pass verify and run the published version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightStatus {
    /// Earliest time of a proof that counts: older proofs are ignored.
    pub requested_at: Time,
}

/// Rotation in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// Number of the rotation.
    pub id: i64,
    /// Cause of the rotation.
    pub trigger: Trigger,
    /// Current step.
    pub step: Step,
    /// Value of the annotation that requested the rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub request: Option<String>,
    /// Time when the rotation's record was created.
    pub started_at: Time,
    /// Time when the role's password was changed in place. From then until the deployment, the hosts have no working
    /// password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_at: Option<Time>,
    /// Time when all hosts were first observed to have proven the new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Time>,
    /// Number of failed attempts of the step.
    #[serde(default)]
    pub attempts: i32,
    /// Current activity, or the event that the rotation waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Result of a request or a rotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRotation {
    /// Number of the rotation; absent when a request needed no rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Value of the annotation that requested the rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub request: Option<String>,
    /// Cause of the rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// Result of the rotation. Recorded means that the request already existed when the controller first saw the
    /// object, so it was not executed.
    pub result: RotationResult,
    /// Time when the rotation or request ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Number of seconds in which hosts had no password that worked for new connections, from the change of the role to
    /// the last proof. Only with generate.postgres.singleRole; absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<i64>,
}

/// Version of the secret on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretOnHost {
    /// Name of the DockerHost.
    pub name: String,
    /// Newest version that was compared with what the host's containers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// True when the host has proven that it runs the published version of every parameter.
    pub proven: bool,
}

/// Result of the last check at the system that must accept the published value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// True when the system accepted the published login at the last check.
    pub accepts: bool,
    /// Time of the last check. keyturn checks before and during rotations, when the object or the published version
    /// changes, once a day while the login is accepted, and every 5 minutes while it is refused. An unchanged result is
    /// written at most once an hour.
    pub checked_at: Time,
    /// True when the system refuses late requests of older rotations. Postgres does so if an administrator is named who
    /// can create the table `keyturn.fence`; Cloudflare cannot.
    pub fenced: bool,
    /// Reason why the system does not accept the login; empty when it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Notes for people about the roles or tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub notes: Vec<String>,
    /// SQL statements that create the owner and the pair from the role in use, where alternatingRoles.bootstrap asks
    /// for them and they were not run yet; at most 100 are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub set_up: Vec<String>,
}

/// Previous credential that still works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingRetirement {
    /// Name that identifies the credential; it is not secret.
    pub credential: String,
    /// Earliest time at which keyturn retires the credential.
    pub not_before: Time,
    /// Reason why the credential is not retired yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Progress of the response to an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompromiseStatus {
    /// Latest reportedAt of the incidents that concern this secret. Every value generated before this time must be
    /// replaced.
    pub reported_at: Time,
    /// Time by which the old login is revoked at the latest, where an external system has to accept it.
    pub revoke_by: Time,
    /// Time when the replacement value was generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Time>,
    /// Time when all hosts were observed to run the replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_at: Option<Time>,
    /// Time when the old login was observed to be refused, with no session of it left; absent where no external system
    /// has to accept the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
    /// Time of containment: since then nobody can use the value that may have been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_at: Option<Time>,
    /// Work that is left to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Step that fails repeatedly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// Step that failed.
    pub step: Step,
    /// Reason of the failure, as one CamelCase word.
    pub reason: crate::Reason,
    /// Cause of the failure, and what to do.
    pub message: String,
    /// Number of consecutive failures.
    pub attempts: i32,
    /// True when only a person can fix the cause; keyturn still retries.
    #[serde(default)]
    pub permanent: bool,
    /// Earliest time of the next attempt.
    pub next_attempt_time: Time,
    /// Generation of the spec for which the step failed. A new generation or a new request resets the backoff.
    pub generation: i64,
    /// Latest report of an incident at the time of the failure. A later report resets the backoff too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Time>,
    /// Value of the annotation at the time of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub request: Option<String>,
}
