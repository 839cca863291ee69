//! Condition types, and the one function that sets a condition.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::reason::Reason;
use super::time::to_kubernetes;

/// ManagedSecret: a value is published and its target accepts it. DockerHost: the containers run what is published.
pub const READY: &str = "Ready";
/// ManagedSecret: a rotation is under way; the reason is its step.
pub const ROTATING: &str = "Rotating";
/// ManagedSecret: every host runs the published version. Absent where the spec names no host.
pub const DEPLOYED: &str = "Deployed";
/// ManagedSecret: the value is older than its period, or its login expires soon.
pub const OVERDUE: &str = "Overdue";
/// ManagedSecret: somebody else wrote a parameter, and `onDrift` is not Adopt.
pub const DRIFTED: &str = "Drifted";
/// ManagedSecret: an incident about it is open. False once it is contained; absent where no incident concerns it.
pub const COMPROMISED: &str = "Compromised";
/// SecretIncident: nobody can use a value from before the report any more.
pub const CONTAINED: &str = "Contained";
/// SecretIncident: the search of CloudTrail covers the time until the last secret was contained.
pub const AUDIT_COMPLETE: &str = "AuditComplete";
/// SecretIncident: every host has collected log lines for every secret with `spec.accessLog`.
pub const LOGS_COLLECTED: &str = "LogsCollected";
/// ManagedSecret: by the last check, the hosts run what is published and nothing keeps a rotation from starting.
pub const PREFLIGHT: &str = "Preflight";
/// ManagedSecret: its first value is being created. SecretIncident: it is in progress. Present only while True.
pub const RECONCILING: &str = "Reconciling";
/// ManagedSecret, DockerHost and SecretIncident: a person has to act. Present only while True.
pub const STALLED: &str = "Stalled";
/// DockerHost: a deployment is running.
pub const DEPLOYING: &str = "Deploying";
/// DockerHost: the images of its containers hold no secret that is not allowed. Unknown until all were searched.
pub const IMAGES_CLEAN: &str = "ImagesClean";

/// Maximum length of a condition message in characters; longer messages are cut.
pub const MAX_MESSAGE: usize = 1024;

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The evidence does not show if the condition holds.
    Unknown,
}

impl Truth {
    /// Returns the status as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Truth::True } else { Truth::False }
    }
}

/// Condition to set: its type, status, reason and message.
pub type Said = (&'static str, Truth, Reason, String);

/// Sets the condition of this type. `lastTransitionTime` changes only when the status itself changes, so writing the
/// same facts twice is idempotent.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    truth: Truth,
    reason: Reason,
    message: &str,
    generation: Option<i64>,
    now: DateTime<Utc>,
) {
    let message = cut(message);
    let since = conditions
        .iter()
        .find(|c| c.type_ == kind && c.status == truth.as_str())
        .map_or_else(|| to_kubernetes(now), |c| c.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: truth.as_str().to_owned(),
        reason: reason.name().to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(existing) => *existing = condition,
        None => conditions.push(condition),
    }
}

/// Cuts a message to the maximum length of a condition message.
pub fn cut(message: &str) -> String {
    message.chars().take(MAX_MESSAGE).collect()
}

/// Removes a condition that is present only while it is true.
pub fn clear(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|c| c.type_ != kind);
}

/// Returns the condition of this type; `None` where it was never set or has been cleared.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

/// Returns true when the condition of this type is present and its status is `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == "True")
}
