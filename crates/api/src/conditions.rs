//! Condition types, and the one function that sets a condition.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::time::to_kubernetes;

pub const READY: &str = "Ready";
pub const ROTATING: &str = "Rotating";
pub const DEPLOYED: &str = "Deployed";
pub const OVERDUE: &str = "Overdue";
pub const DRIFTED: &str = "Drifted";
pub const COMPROMISED: &str = "Compromised";
pub const CONTAINED: &str = "Contained";
pub const AUDIT_COMPLETE: &str = "AuditComplete";
pub const LOGS_COLLECTED: &str = "LogsCollected";
pub const PREFLIGHT: &str = "Preflight";
pub const RECONCILING: &str = "Reconciling";
pub const STALLED: &str = "Stalled";
pub const DEPLOYING: &str = "Deploying";
pub const IMAGES_CLEAN: &str = "ImagesClean";

/// Maximum length of a condition message in characters; longer messages are cut.
pub const MAX_MESSAGE: usize = 1024;

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
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
pub type Said = (&'static str, Truth, String, String);

/// Sets the condition of this type. `lastTransitionTime` changes only when the status itself changes, so writing the
/// same facts twice is idempotent.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    truth: Truth,
    reason: &str,
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
        reason: reason.to_owned(),
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

pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind)
}

pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == "True")
}
