//! Kubernetes Events and notifications about a SecretIncident.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyturn_api::conditions as c;
use keyturn_api::notification::Topic;
use keyturn_api::secret_incident::SecretIncidentStatus;
use keyturn_api::{Reason, SecretIncident};

use crate::notification::Notification;
use crate::objects::Event;
use crate::telling::{self, Alert, Watched, turns};

/// The conditions to report. Contained has no topic here. An incident is opened once and contained once, unlike
/// trouble that may end and begin again, so [`notifications`] handles both separately.
const WATCHED: [Watched; 2] = [
    Watched { condition: c::CONTAINED, bad: "False", event: Some(Reason::IncidentOpened), topic: None },
    Watched { condition: c::STALLED, bad: "True", event: Some(Reason::Stalled), topic: Some(Topic::Stalled) },
];

/// Returns Events for conditions that have changed: opened, stalled, contained, and the end of the CloudTrail search
/// and of the collection of log lines.
pub(super) fn events(before: &[Condition], incident: &SecretIncident) -> Vec<Event> {
    let after = incident.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    // The reasons of these conditions are states of the secrets, and these change during the response. So a new reason
    // alone gives no Event.
    let turned = telling::turned(&WATCHED, before, after).filter(|turned| !turned.was_bad);
    let mut events: Vec<Event> = turned.map(|turned| turned.event("Respond")).collect();
    let mut normal = |reason, kind: &str| {
        if let Some(now) = c::find(after, kind).filter(|now| now.status == "True")
            && !c::is_true(before, kind)
        {
            let note = now.message.clone();
            events.push(Event { warning: false, reason, action: "Respond", note });
        }
    };
    normal(Reason::IncidentContained, c::CONTAINED);
    normal(Reason::AuditComplete, c::AUDIT_COMPLETE);
    normal(Reason::LogsCollected, c::LOGS_COLLECTED);
    events
}

/// Returns the notifications about a change from one status of an incident to another: the incident was opened or
/// contained, or it stalled or recovered.
pub(super) fn notifications(
    before: &SecretIncidentStatus,
    after: &SecretIncidentStatus,
    now: DateTime<Utc>,
) -> Vec<Notification> {
    let message = |kind| c::find(&after.conditions, kind).map(|c| c.message.clone()).unwrap_or_default();
    let mut notifications = Vec::new();
    // An incident is opened once and contained once, so the keys of these two notifications are fixed. So the
    // notifications have the same ids again after the status was lost.
    if before.state.is_none() && after.state.is_some() {
        let message = message(c::CONTAINED);
        notifications.push(Notification { topic: Topic::Opened, key: "1".into(), message });
    }
    notifications.extend(turns(&alerts(before), &alerts(after), now));
    if before.contained_at.is_none() && after.contained_at.is_some() {
        let message = message(c::CONTAINED);
        notifications.push(Notification { topic: Topic::Contained, key: "1".into(), message });
    }
    notifications
}

fn alerts(status: &SecretIncidentStatus) -> Vec<Alert> {
    telling::bad_conditions(&WATCHED, &status.conditions).map(telling::alert).collect()
}

#[cfg(test)]
mod tests {
    use keyturn_api::secret_incident::IncidentState;
    use keyturn_api::time::to_kubernetes;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn status(state: IncidentState, contained: bool) -> SecretIncidentStatus {
        let mut status = SecretIncidentStatus { state: Some(state), ..Default::default() };
        status.contained_at = contained.then(|| to_kubernetes(now()));
        let stalled = c::Truth::from(state == IncidentState::Stalled);
        c::set(&mut status.conditions, c::STALLED, stalled, Reason::NotGranted, "no grant", None, now());
        status
    }

    fn told(before: &SecretIncidentStatus, after: &SecretIncidentStatus) -> Vec<(Topic, String)> {
        notifications(before, after, now()).into_iter().map(|told| (told.topic, told.key)).collect()
    }

    #[test]
    fn an_incident_is_told_when_it_is_opened_held_up_and_contained() {
        let none = SecretIncidentStatus::default();
        let (open, held, over) = (
            status(IncidentState::Responding, false),
            status(IncidentState::Stalled, false),
            status(IncidentState::Contained, true),
        );
        assert_eq!(told(&none, &open), [(Topic::Opened, "1".to_owned())]);
        assert_eq!(told(&open, &open), []);
        assert_eq!(told(&open, &held)[0].0, Topic::Stalled);
        assert_eq!(told(&held, &open)[0].0, Topic::Recovered);
        assert_eq!(told(&open, &over), [(Topic::Contained, "1".to_owned())]);
    }

    #[test]
    fn a_lost_status_tells_the_same_ids_again() {
        let none = SecretIncidentStatus::default();
        let over = status(IncidentState::Contained, true);
        let keys: Vec<_> = told(&none, &over);
        assert_eq!(keys, [(Topic::Opened, "1".to_owned()), (Topic::Contained, "1".to_owned())]);
    }
}
