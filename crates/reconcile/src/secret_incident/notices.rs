//! Events about a SecretIncident.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyturn_api::{SecretIncident, conditions};

use crate::objects::Notice;

/// Returns Events for conditions that have changed: opened, stalled, contained, and the end of the CloudTrail search
/// and of the collection of log lines.
pub(super) fn of_transition(before: &[Condition], incident: &SecretIncident) -> Vec<Notice> {
    let after = incident.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let turned = |kind: &str, status: &str| {
        let now = conditions::find(after, kind).filter(|c| c.status == status)?;
        let same = conditions::find(before, kind).is_some_and(|c| c.status == status);
        (!same).then(|| now.message.clone())
    };
    let mut notices = Vec::new();
    let mut add = |warning, reason, note: Option<String>| {
        notices.extend(note.map(|note| Notice { warning, reason, action: "Respond", note }));
    };
    add(true, "IncidentOpened", turned(conditions::CONTAINED, "False"));
    add(false, "IncidentContained", turned(conditions::CONTAINED, "True"));
    add(true, "Stalled", turned(conditions::STALLED, "True"));
    add(false, "AuditComplete", turned(conditions::AUDIT_COMPLETE, "True"));
    add(false, "LogsCollected", turned(conditions::LOGS_COLLECTED, "True"));
    notices
}
