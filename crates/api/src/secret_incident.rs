//! SecretIncident: secrets that somebody may have read, and keyturn's response.

// The printer columns repeat their types, which clippy reports as duplicated attributes.
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
use super::reason::Reason;
use super::rules::{self, CelRule};
use super::words::words;

/// Default time until old credentials are revoked although hosts still use them.
pub const DEFAULT_REVOKE_WITHIN: TimeDelta = TimeDelta::minutes(15);

const ONE_SELECTION: CelRule = (
    "[has(self.managedSecretRefs), has(self.selector), has(self.hostRef), has(self.allSecrets)]\
     .filter(given, given).size() == 1",
    "set exactly one of managedSecretRefs, selector, hostRef and allSecrets: true to select the suspected secrets",
);
const REPORTED_AT_IS_FIXED: CelRule = (
    "self == oldSelf",
    "reportedAt cannot be changed: it decides which values are replaced. Create another SecretIncident for a later \
     suspicion",
);
const REVOKE_WITHIN: CelRule = (
    "self.matches('^(0m|[1-9][0-9]{0,3}[mhd])$')",
    "must be 0m (revoke first), or one number of at most four digits and one unit, m, h or d: 15m, 2h",
);
const SINCE_BEFORE_REPORT: CelRule = (
    "!has(self.suspectedSince) || self.suspectedSince <= self.reportedAt",
    "suspectedSince must not be later than reportedAt",
);
/// Secrets that somebody without permission may have read. Creating this object starts the response.
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
    doc = "Secrets that somebody without permission may have read. keyturn rotates them at once, revokes the old credentials, and searches CloudTrail for their readers.",
    validation = rules::SHORT_NAME,
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.state",
        description = "State of the response"
    ),
    printcolumn(
        name = "Secrets",
        type_ = "string",
        json_path = ".status.containedSecrets",
        description = "Number of contained secrets and of suspected secrets"
    ),
    printcolumn(
        name = "Unexpected",
        type_ = "integer",
        json_path = ".status.unexpectedReaders",
        description = "Number of unexpected readers in CloudTrail; absent until it was read"
    ),
    printcolumn(
        name = "Contained",
        type_ = "string",
        json_path = ".status.timeToContainment",
        description = "Time from the report to containment: since then nobody can use the values that may have been read"
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
        description = "Result of the search in CloudTrail, and the time up to which it is complete"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Contained\")].message",
        priority = 1,
        description = "Work that is left to do"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ONE_SELECTION)]
#[x_kube(validation = SINCE_BEFORE_REPORT)]
pub struct SecretIncidentSpec {
    /// Names of the suspected ManagedSecrets. Set exactly one of managedSecretRefs, selector, hostRef and allSecrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub managed_secret_refs: Option<Vec<ObjectRef>>,
    /// Labels of the suspected ManagedSecrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// DockerHost that an attacker may have broken into: all secrets that it runs are suspected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ref: Option<ObjectRef>,
    /// Suspects all ManagedSecrets of the namespace when true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self", "allSecrets can only be true: leave it out to select secrets in another way"))]
    pub all_secrets: Option<bool>,
    /// Time of the report, as `date -u +%Y-%m-%dT%H:%M:%SZ` prints it. Every value generated before this time is
    /// rotated. A time in the future counts as the creation time of this object. The field cannot be changed.
    #[x_kube(validation = REPORTED_AT_IS_FIXED)]
    pub reported_at: Time,
    /// Earliest time at which somebody may have read the values; the search in CloudTrail starts here. When absent, the
    /// search starts when the oldest of the values was generated. CloudTrail keeps events for 90 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspected_since: Option<Time>,
    /// Description of what happened, for the report. It must never contain a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub reason: Option<String>,
    /// Principals and networks that may read these parameters. List keyturn's own role and the roles of the hosts, with
    /// the networks that they call from. The incident reports all other readers as unexpected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub expected_readers: Vec<ExpectedReader>,
    /// Time after the creation of this object during which old credentials may keep working while hosts still use them;
    /// 15m when absent. They are revoked when every host has stopped using them, or when this time is over, whichever
    /// is first. 0m revokes them before anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = REVOKE_WITHIN)]
    pub revoke_within: Option<String>,
}

/// Reference to an object of this namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,
}

/// Labels that an object must have; all of them must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels and their values.
    #[schemars(length(min = 1, max = 16))]
    pub match_labels: BTreeMap<String, String>,
}

/// Results and progress of the response. If it is lost, the controller rebuilds it, except events that CloudTrail no
/// longer keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretIncidentStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Contained, AuditComplete, LogsCollected, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// State of the response: Responding, Contained or Stalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<IncidentState>,
    /// Number of contained secrets and of suspected secrets, such as `1/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_secrets: Option<String>,
    /// Time when the last suspected secret was contained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_at: Option<Time>,
    /// Time from the report to containment, such as `4m12s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_to_containment: Option<String>,
    /// Suspected secrets, and the progress for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub secrets: Vec<SuspectedSecret>,
    /// Number of unexpected readers in CloudTrail; absent until CloudTrail was read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexpected_readers: Option<i64>,
    /// Progress of reading CloudTrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditStatus>,
    /// Callers that read the values, unexpected ones first. At most 60 unexpected, 20 expected and 20 denied callers
    /// are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub readers: Vec<Reader>,
    /// Callers that changed or deleted the parameters, with the same order and limits as `readers`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tampering: Vec<Reader>,
    /// Log lines of the docker hosts about requests that authenticated with the secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub logs: Vec<IncidentLog>,
    /// Events of the incident, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub timeline: Vec<TimelineEntry>,
    /// Notifications that a sink of `notifications` in the chart's values has not accepted yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub pending_notifications: Vec<PendingNotification>,
}

words! {
    /// State of the response to an incident.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    pub enum IncidentState {
        /// Every suspected secret is contained.
        Contained,
        /// A person has to act.
        Stalled,
        // A state of another version of keyturn, which this one does not know, is read as this one until the next pass.
        /// The suspected secrets are being rotated and revoked.
        #[serde(other)]
        Responding,
    }
}

words! {
    /// State of one suspected secret.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    pub enum SuspectState {
        /// The replacement is published, and a host has not proven it yet.
        Deploying,
        /// The hosts run the replacement, and the old login still works.
        Revoking,
        /// The value that may have been read can no longer be used.
        Contained,
        /// A person has to act.
        Stalled,
        /// No ManagedSecret has this name.
        Missing,
        // A state of another version of keyturn, which this one does not know, is read as this one until the next pass.
        /// The replacement is not published yet.
        #[serde(other)]
        Rotating,
    }
}

impl From<SuspectState> for Reason {
    fn from(state: SuspectState) -> Self {
        match state {
            SuspectState::Rotating => Self::Rotating,
            SuspectState::Deploying => Self::Deploying,
            SuspectState::Revoking => Self::Revoking,
            SuspectState::Contained => Self::Contained,
            SuspectState::Stalled => Self::Stalled,
            SuspectState::Missing => Self::Missing,
        }
    }
}

/// Progress of the response for one secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspectedSecret {
    /// Name of the ManagedSecret.
    pub name: String,
    /// State of the secret: Rotating, Deploying, Revoking, Contained, Stalled or Missing.
    pub state: SuspectState,
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
    /// Time when the suspected value was generated, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspected_value_from: Option<Time>,
    /// Work that is left to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Progress of reading CloudTrail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// Start of the searched time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Time up to which the search is complete, since events reach CloudTrail with a delay. Absent until CloudTrail was
    /// read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_until: Option<Time>,
    /// Number of events that were examined.
    #[serde(default)]
    pub events: i64,
    /// Number of reads and changes that AWS denied.
    #[serde(default)]
    pub denied: i64,
    /// Number of events that could not be attributed to a parameter.
    #[serde(default)]
    pub unattributed: i64,
    /// Reasons why the search is incomplete or cannot be completed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub gaps: Vec<String>,
    /// Time of the next reading of CloudTrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_reading_time: Option<Time>,
    /// Number of consecutive failures to read CloudTrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,
    /// Number of consecutive readings that found no new caller. The pause before the next reading grows with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_readings: Option<i32>,
    /// Numbers of calls whose callers are not listed, by kind, since a status has limited room. `keyturn incident
    /// report` prints every call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["kind".into()]))]
    pub not_shown: Vec<NotShown>,
    /// Path below which the controller stores the records of rotations. The records contain values, so reads of them
    /// are searched too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<String>,
    /// Expected readers from the controller's configuration, which count in addition to those of the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub expected_readers: Vec<ExpectedReader>,
    /// Reading in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<ReadingStatus>,
}

/// Calls that are counted, but whose callers are not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotShown {
    /// Kind of the calls: UnexpectedReads, ExpectedReads, RefusedReads, UnexpectedChanges, ExpectedChanges or
    /// RefusedChanges.
    pub kind: String,
    /// Number of calls.
    #[serde(default)]
    pub calls: i64,
    /// Number of these calls that the next reading counts again.
    #[serde(default)]
    pub recent: i64,
}

/// Reading of CloudTrail in progress, with the position at which the next pass continues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadingStatus {
    /// Start of the time range to read, in seconds since 1970.
    pub from: i64,
    /// End of the time range to read, in seconds since 1970.
    pub to: i64,
    /// Region and event name of the current query.
    pub query: String,
    /// Position of the current query, in seconds since 1970: all later events were read, since CloudTrail returns the
    /// latest events first.
    pub down_to: i64,
    /// Number of callers that were listed when the reading started.
    #[serde(default)]
    pub listed: i64,
    /// True while the week before the search is read, to find the addresses that expected principals used then.
    #[serde(default)]
    pub before: bool,
    /// Ids of the events with exactly the time `downTo` that were already counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub seen: Vec<String>,
}

/// Calls of one principal from one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    /// ARN of the role or user; for a session of a role, the ARN of the role.
    pub principal: String,
    /// Names of the role's sessions that called, chosen by the caller who assumed the role: a person of IAM Identity
    /// Center, or the id of an instance. At most 20 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub sessions: Vec<String>,
    /// Address of the caller, or the AWS service that called on its behalf.
    pub address: String,
    /// User agents of the calls, as the caller reports them; at most 4 are listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub user_agents: Vec<String>,
    /// Number of calls made with user agents that are not listed.
    #[serde(default)]
    pub by_other_agents: i64,
    /// Number of these calls that the next reading counts again.
    #[serde(default)]
    pub recent_by_other_agents: i64,
    /// True when spec.expectedReaders or the controller's own list includes the caller.
    pub expected: bool,
    /// Match of an expected principal's address with the networks listed for this principal. Listed: the address is in
    /// one of them. NotListed: it is in none, so the call is unexpected. Known and New: no networks are listed. Known:
    /// the principal also called from this address in the week before the search. New: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_is: Option<AddressIs>,
    /// True when AWS denied the calls.
    #[serde(default)]
    pub denied: bool,
    /// Names of the API calls.
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub calls: Vec<String>,
    /// Number of calls. One call may concern several secrets. While CloudTrail is being read again, the `recent` calls
    /// are not included.
    pub count: i64,
    /// Number of recent calls, to which CloudTrail may still add; the next reading counts them again.
    #[serde(default)]
    pub recent: i64,
    /// Time of the first call.
    pub first: Time,
    /// Time of the last call.
    pub last: Time,
    /// Names of the ManagedSecrets that the calls concern; at most 20 are listed.
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub secrets: Vec<String>,
}

/// Match of an expected principal's address with the networks listed for this principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum AddressIs {
    Listed,
    NotListed,
    Known,
    New,
}

/// Event in the timeline of an incident.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// Time of the event, in RFC 3339.
    pub at: String,
    /// Description of the event.
    pub what: String,
}

impl SecretIncidentSpec {
    /// Returns the time after the object's creation during which old credentials may keep working.
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
