//! SecretIncident: secrets that somebody may have read, and what is done about it.

// The columns repeat their types, which the lint takes for a slip.
#![allow(clippy::duplicated_attributes)]

use std::collections::BTreeMap;

use chrono::TimeDelta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access_log::IncidentLog;
use super::notification::PendingNotification;
use super::readers::ExpectedReader;
use super::rules::{self, CelRule};

/// How long hosts may take to leave the old credential, where the spec does not say.
pub const DEFAULT_REVOKE_WITHIN: TimeDelta = TimeDelta::minutes(15);

const ONE_SELECTION: CelRule = (
    "[has(self.managedSecretRefs), has(self.selector), has(self.hostRef), has(self.allSecrets)]\
     .filter(given, given).size() == 1",
    "say which secrets are suspected by exactly one of managedSecretRefs, selector, hostRef and allSecrets: true",
);
const REPORTED_AT_IS_FIXED: CelRule = (
    "self == oldSelf",
    "reportedAt cannot be changed: it decides which values have to go. Create another SecretIncident for a later suspicion",
);
const REVOKE_WITHIN: CelRule = (
    "self.matches('^(0m|[1-9][0-9]{0,3}[mhd])$')",
    "must be 0m (revoke first), or one number of at most four digits and one unit, m, h or d: 15m, 2h",
);
const SINCE_BEFORE_REPORT: CelRule = (
    "!has(self.suspectedSince) || self.suspectedSince <= self.reportedAt",
    "suspectedSince must not be later than reportedAt",
);
/// Secrets that are suspected of having been read by somebody who should not have: applying one is the response.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyturn.dev",
    version = "v1alpha1",
    kind = "SecretIncident",
    plural = "secretincidents",
    shortname = "sinc",
    category = "keyturn",
    namespaced,
    status = "SecretIncidentStatus",
    doc = "Secrets that may have been read by somebody who should not have: they are rotated at once, the old credentials revoked, and CloudTrail is read for who read them.",
    validation = rules::SHORT_NAME,
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "How far the response has come"
    ),
    printcolumn(
        name = "Secrets",
        type_ = "string",
        json_path = ".status.containedSecrets",
        description = "Secrets that are contained, of those that are suspected"
    ),
    printcolumn(
        name = "Unexpected",
        type_ = "integer",
        json_path = ".status.unexpectedReaders",
        description = "Readers in CloudTrail that were not expected; absent until it has been read"
    ),
    printcolumn(
        name = "Contained",
        type_ = "string",
        json_path = ".status.timeToContainment",
        description = "Time from the report to the moment at which nobody could use what may have been read"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Age of this object"
    ),
    printcolumn(
        name = "Audit",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"AuditComplete\")].message",
        priority = 1,
        description = "What CloudTrail was read for, and up to when it is complete"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Contained\")].message",
        priority = 1,
        description = "What is left to do"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ONE_SELECTION)]
#[x_kube(validation = SINCE_BEFORE_REPORT)]
pub struct SecretIncidentSpec {
    /// The suspected ManagedSecrets, by name. Exactly one of managedSecretRefs, selector, hostRef and allSecrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub managed_secret_refs: Option<Vec<ObjectRef>>,
    /// The suspected ManagedSecrets, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// A DockerHost that may have been broken into: all secrets that it runs are suspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ref: Option<ObjectRef>,
    /// All ManagedSecrets of the namespace are suspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self", "allSecrets can only be true: leave it out to name secrets otherwise"))]
    pub all_secrets: Option<bool>,
    /// When the suspicion was reported, as `date -u +%Y-%m-%dT%H:%M:%SZ` prints it. Every value that was made before it is
    /// rotated; a time in the future counts as the creation of this object. It cannot be changed.
    #[x_kube(validation = REPORTED_AT_IS_FIXED)]
    pub reported_at: Time,
    /// Since when the values may have been read, for the search in CloudTrail; when absent since the oldest of them was
    /// made. CloudTrail keeps 90 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspected_since: Option<Time>,
    /// What happened, for the report. Never a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub reason: Option<String>,
    /// Who may read these parameters. List keyturn's own role and those of the hosts, with the networks that they call from.
    /// All other readers are reported as unexpected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub expected_readers: Vec<ExpectedReader>,
    /// How long after the creation of this object the old credentials may live on while hosts still use them; 15m when
    /// absent. They are revoked as soon as every host has left them, or then; 0m revokes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = REVOKE_WITHIN)]
    pub revoke_within: Option<String>,
}

/// An object of this namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,
}

/// Labels that an object must carry, all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels and their values.
    #[schemars(length(min = 1, max = 16))]
    pub match_labels: BTreeMap<String, String>,
}

/// What was found and done. Losing it loses nothing but what CloudTrail has forgotten since.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretIncidentStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Contained, AuditComplete, LogsCollected, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Responding, Contained or Stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Secrets that are contained, of those that are suspected: `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_secrets: Option<String>,
    /// When the last of them was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_at: Option<Time>,
    /// From the report to containment, such as `4m12s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_containment: Option<String>,
    /// The suspected secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub secrets: Vec<SuspectedSecret>,
    /// Readers in CloudTrail that were not expected; absent until it has been read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexpected_readers: Option<i64>,
    /// How far CloudTrail was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditStatus>,
    /// Who read the values, the unexpected ones first; at most 60 unexpected ones, 20 expected ones and 20 who were refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub readers: Vec<Reader>,
    /// Who changed or deleted the parameters, in the same order and number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tampering: Vec<Reader>,
    /// What the logs of the docker hosts say about who authenticated with the secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub logs: Vec<IncidentLog>,
    /// What happened when, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub timeline: Vec<TimelineEntry>,
    /// What people are to be told and a sink of `notifications` in the chart's values has not taken yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub pending_notifications: Vec<PendingNotification>,
}

/// How far one secret is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspectedSecret {
    /// Name of the ManagedSecret.
    pub name: String,
    /// Rotating, Deploying, Revoking, Contained, Stalled or Missing.
    pub state: String,
    /// When the value was made that is published instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Time>,
    /// When every host was seen to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_at: Option<Time>,
    /// When the old login was seen to be refused, with no session of it left; absent where no system has to accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
    /// Since when nobody can use what may have been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_at: Option<Time>,
    /// When the suspected value was made, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspected_value_from: Option<Time>,
    /// What is left to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How far CloudTrail was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// Begin of what was searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Up to when the search is complete; events reach CloudTrail with a delay. Absent until it was read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_until: Option<Time>,
    /// Events that were looked at.
    #[serde(default)]
    pub events: i64,
    /// Reads and changes that were refused to whoever tried.
    #[serde(default)]
    pub denied: i64,
    /// Events that could not be attributed to a parameter.
    #[serde(default)]
    pub unattributed: i64,
    /// Why the search is not complete, or cannot be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub gaps: Vec<String>,
    /// When CloudTrail is read next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_reading_time: Option<Time>,
    /// Consecutive failures to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,
    /// Consecutive readings that found nobody new. The pause until the next one grows with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_readings: Option<i32>,
    /// Calls whose callers are not listed, by kind: more were found than a status can hold. `keyturn incident report` prints
    /// them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into()]))]
    pub not_shown: Vec<NotShown>,
    /// Path below which the controller keeps the records of rotations, which hold values too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<String>,
    /// The controller's own list of expected readers, which counts beside that of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub expected_readers: Vec<ExpectedReader>,
    /// The reading under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<ReadingStatus>,
}

/// Calls that are counted, but not named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotShown {
    /// UnexpectedReads, ExpectedReads, RefusedReads, UnexpectedChanges, ExpectedChanges or RefusedChanges.
    pub kind: String,
    /// How many calls.
    #[serde(default)]
    pub calls: i64,
    /// How many of them are counted anew by the next reading.
    #[serde(default)]
    pub recent: i64,
}

/// A reading of CloudTrail under way: where the next pass goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadingStatus {
    /// Begin of what is read.
    pub from: i64,
    /// End of what is read, in seconds since 1970 as all its times.
    pub to: i64,
    /// Region and name of the event that is asked for.
    pub query: String,
    /// What was read of it: everything that is younger. CloudTrail answers the latest first.
    pub down_to: i64,
    /// How many callers were listed when it began.
    #[serde(default)]
    pub listed: i64,
    /// Whether the week before the search is read, for the addresses that expected principals used then.
    #[serde(default)]
    pub before: bool,
    /// Ids of the events of that very second that were counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub seen: Vec<String>,
}

/// Calls of one principal from one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    /// ARN of the role or user; of a role's session the role.
    pub principal: String,
    /// Names of the role's sessions that called, as whoever assumed it chose them: a person of IAM Identity Center, an
    /// instance's id. At most 20 are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub sessions: Vec<String>,
    /// Address from which it called, or the AWS service that called for it.
    pub address: String,
    /// What it called with, as it says itself; at most 4 are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub user_agents: Vec<String>,
    /// How many calls were made with others than are named.
    #[serde(default)]
    pub by_other_agents: i64,
    /// How many of these are counted anew by the next reading.
    #[serde(default)]
    pub recent_by_other_agents: i64,
    /// Whether spec.expectedReaders or the controller's own list names it.
    pub expected: bool,
    /// How the address of an expected principal stands. Listed: it lies in the networks listed with the principal.
    /// NotListed: it does not, which makes the call unexpected. No networks are listed with it: Known, if it called from
    /// there in the week before the search too; New, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_is: Option<AddressIs>,
    /// Whether AWS refused it.
    #[serde(default)]
    pub denied: bool,
    /// Names of the calls.
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub calls: Vec<String>,
    /// How many calls. One call may be about several secrets. While CloudTrail is read again, `recent` ones are missing.
    pub count: i64,
    /// How many of them CloudTrail may still add to; they are counted anew by the next reading.
    #[serde(default)]
    pub recent: i64,
    /// The first of them.
    pub first: Time,
    /// The last of them.
    pub last: Time,
    /// The ManagedSecrets they were about; at most 20 are named.
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub secrets: Vec<String>,
}

/// How the address of an expected principal stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AddressIs {
    Listed,
    NotListed,
    Known,
    New,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// When, in RFC 3339.
    pub at: String,
    /// What.
    pub what: String,
}

impl SecretIncidentSpec {
    /// How long after the object's creation old credentials may live on.
    pub fn revoke_within(&self) -> TimeDelta {
        match self.revoke_within.as_deref() {
            Some("0m") => TimeDelta::zero(),
            Some(text) => {
                super::duration::Duration(text.to_owned()).to_delta().unwrap_or(DEFAULT_REVOKE_WITHIN)
            }
            None => DEFAULT_REVOKE_WITHIN,
        }
    }
}
