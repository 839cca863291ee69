//! Events and notifications about the conditions of an object. A Kubernetes Event reports that a condition has turned
//! bad. A notification reports that trouble has begun or has ended. Each kind of object has one table of the conditions
//! to report.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyturn_api::Reason;
use keyturn_api::conditions;
use keyturn_api::notification::Topic;

use crate::notification::Notification;
use crate::objects::Event;

/// A condition to report: a row of the table of a kind.
pub(crate) struct Watched {
    /// Type of the condition, such as `Stalled`.
    pub condition: &'static str,
    /// Status of the condition that means trouble, `True` or `False`.
    pub bad: &'static str,
    /// Reason of the Warning Event that reports the condition; `None` if no Event reports it.
    pub event: Option<Reason>,
    /// Topic of the notification about the trouble; `None` if no notification reports it.
    pub topic: Option<Topic>,
}

impl Watched {
    /// Returns the condition if it means trouble.
    fn bad_among<'a>(&self, conditions: &'a [Condition]) -> Option<&'a Condition> {
        conditions::find(conditions, self.condition).filter(|found| found.status == self.bad)
    }
}

/// A condition that has turned bad, or is now bad for another reason than before.
pub(crate) struct Turned<'a> {
    /// Reason of the Event.
    pub reason: Reason,
    /// The condition as it is now.
    pub now: &'a Condition,
    /// True if the condition was bad before too, for another reason.
    pub was_bad: bool,
}

impl Turned<'_> {
    /// Returns a Warning Event with the message of the condition.
    pub(crate) fn event(&self, action: &'static str) -> Event {
        Event { warning: true, reason: self.reason, action, note: self.now.message.clone() }
    }
}

/// Returns the conditions that need an Event after a change from one status to another, in the order of the table.
pub(crate) fn turned<'a>(
    watched: &'a [Watched],
    before: &'a [Condition],
    after: &'a [Condition],
) -> impl Iterator<Item = Turned<'a>> {
    watched.iter().filter_map(move |row| {
        let (reason, now) = (row.event?, row.bad_among(after)?);
        let was = row.bad_among(before);
        let is_told = was.is_some_and(|was| was.reason == now.reason);
        (!is_told).then(|| Turned { reason, now, was_bad: was.is_some() })
    })
}

/// A problem that the status of one object shows. Sinks are notified when it appears, and when no problem of the object
/// is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alert {
    pub topic: Topic,
    /// Reason of the condition or the failure; it distinguishes the alerts of one topic.
    pub cause: String,
    pub message: String,
}

/// Returns the conditions with a topic that mean trouble, in the order of the table.
pub(crate) fn bad_conditions<'a>(
    watched: &'a [Watched],
    conditions: &'a [Condition],
) -> impl Iterator<Item = (Topic, &'a Condition)> {
    watched.iter().filter_map(move |row| Some((row.topic?, row.bad_among(conditions)?)))
}

/// Converts a condition to an alert, with the condition's reason as the cause.
pub(crate) fn alert((topic, condition): (Topic, &Condition)) -> Alert {
    Alert { topic, cause: condition.reason.clone(), message: condition.message.clone() }
}

/// Returns the notifications about a change from one set of alerts to another. The key of a notification contains `now`
/// in whole seconds, as times in a status are, so that two occurrences of the same alert have different keys.
pub(crate) fn turns(before: &[Alert], after: &[Alert], now: DateTime<Utc>) -> Vec<Notification> {
    let known =
        |alert: &Alert| before.iter().any(|old| (old.topic, &old.cause) == (alert.topic, &alert.cause));
    let mut notifications: Vec<Notification> = after
        .iter()
        .filter(|alert| !known(alert))
        .map(|Alert { topic, cause, message }| Notification {
            topic: *topic,
            key: format!("{cause}.{}", now.timestamp()),
            message: message.clone(),
        })
        .collect();
    if after.is_empty() && !before.is_empty() {
        let over: Vec<String> =
            before.iter().map(|alert| format!("{} ({})", alert.topic.as_str(), alert.cause)).collect();
        notifications.push(Notification {
            topic: Topic::Recovered,
            key: now.timestamp().to_string(),
            message: format!("Resolved: {}", over.join(", ")),
        });
    }
    notifications
}

#[cfg(test)]
mod tests {
    use keyturn_api::conditions::{COMPROMISED, STALLED, Truth};

    use super::*;

    const WATCHED: [Watched; 2] = [
        Watched { condition: COMPROMISED, bad: "True", event: Some(Reason::Compromised), topic: None },
        Watched { condition: STALLED, bad: "True", event: None, topic: Some(Topic::Stalled) },
    ];

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn an_alert(cause: &str, message: &str) -> Alert {
        Alert { topic: Topic::Stalled, cause: cause.to_owned(), message: message.to_owned() }
    }

    fn with(kind: &str, truth: Truth, reason: Reason) -> Vec<Condition> {
        let mut all = Vec::new();
        conditions::set(&mut all, kind, truth, reason, "why", None, at(0));
        all
    }

    #[test]
    fn an_event_is_due_when_a_condition_turns_bad_or_is_bad_for_another_reason() {
        let due = |before: &[Condition], after: &[Condition]| {
            turned(&WATCHED, before, after).map(|turned| (turned.reason, turned.was_bad)).collect::<Vec<_>>()
        };
        let is = |truth, reason| with(COMPROMISED, truth, reason);
        let (read, leaked) = (is(Truth::True, Reason::Rotating), is(Truth::True, Reason::Revoking));
        assert_eq!(due(&[], &read), [(Reason::Compromised, false)]);
        assert_eq!(due(&is(Truth::False, Reason::Rotating), &read), [(Reason::Compromised, false)]);
        assert_eq!(due(&read, &read), []);
        assert_eq!(due(&read, &leaked), [(Reason::Compromised, true)]);
        assert_eq!(due(&read, &is(Truth::False, Reason::Contained)), []);
        assert_eq!(due(&read, &[]), []);
        assert_eq!(due(&[], &with(STALLED, Truth::True, Reason::Conflict)), [], "its row names no Event");
        let event = turned(&WATCHED, &[], &read).next().unwrap().event("Reconcile");
        assert_eq!((event.warning, event.action, event.note.as_str()), (true, "Reconcile", "why"));
    }

    #[test]
    fn a_condition_without_a_topic_is_not_alerted_of() {
        let found = |all: &[Condition]| bad_conditions(&WATCHED, all).map(alert).collect::<Vec<_>>();
        let stalled = an_alert("Conflict", "why");
        assert_eq!(found(&with(STALLED, Truth::True, Reason::Conflict)), [stalled]);
        assert_eq!(found(&with(STALLED, Truth::False, Reason::Conflict)), []);
        assert_eq!(found(&with(COMPROMISED, Truth::True, Reason::Rotating)), []);
    }

    #[test]
    fn an_alert_is_told_when_it_comes_or_changes_and_its_end_once() {
        let stalled = an_alert("Conflict", "two objects");
        let other = an_alert("Denied", "no grant");
        let told = |before: &[Alert], after: &[Alert]| {
            turns(before, after, at(5)).into_iter().map(|n| (n.topic, n.key)).collect::<Vec<_>>()
        };
        let both = [stalled.clone(), other.clone()];
        assert_eq!(told(&[], &both[..1]), [(Topic::Stalled, "Conflict.5".to_owned())]);
        assert_eq!(told(&both[..1], &both[..1]), []);
        assert_eq!(told(&both[..1], &both[1..]), [(Topic::Stalled, "Denied.5".to_owned())]);
        assert_eq!(told(&both, &both[..1]), []);
        assert_eq!(told(&both, &[]), [(Topic::Recovered, "5".to_owned())]);
        assert_eq!(told(&[], &[]), []);
    }
}
