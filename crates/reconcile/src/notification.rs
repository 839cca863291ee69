//! Notifications for people. A notification waits in the object's status until every sink has accepted it. It is
//! written together with the change that it reports. So it is delivered at least once, unless more than
//! [`MAX_PENDING`] wait in one object: then the oldest are dropped. A repeated delivery has the same id.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keyturn_api::conditions;
use keyturn_api::notification::{MAX_PENDING, PendingNotification, Topic};
use keyturn_api::time::to_kubernetes;
use serde::Deserialize;

/// A destination of notifications, as an operator writes it in the chart's values. Address and signing key are
/// files of a Secret, since the address of a chat's webhook is secret too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sink {
    /// Name, unique among the sinks: 1 to 63 of a-z, 0-9 and `-`.
    pub name: String,
    /// Format of the messages to the sink.
    pub format: Format,
    /// Name of the Secret, in the controller's namespace, that holds address and signing key.
    pub secret: String,
    /// Topics that the sink gets; empty for all topics.
    #[serde(default)]
    pub topics: Vec<Topic>,
}

/// Format that a sink understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Format {
    /// A CloudEvent 1.0 in structured JSON mode, signed as Standard Webhooks describes.
    CloudEvents,
    /// A message for an incoming webhook of Slack, or of a chat with compatible webhooks, such as Mattermost.
    Slack,
}

impl Sink {
    fn takes(&self, topic: Topic) -> bool {
        self.topics.is_empty() || self.topics.contains(&topic)
    }
}

/// Parses the sinks of an operator's JSON. The error is a text for a person.
pub fn sinks(json: &str) -> Result<Vec<Sink>, String> {
    let sinks: Vec<Sink> = if json.trim().is_empty() {
        Vec::new()
    } else {
        serde_json::from_str(json).map_err(|error| error.to_string())?
    };
    for (place, sink) in sinks.iter().enumerate() {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if sink.name.is_empty() || sink.name.len() > 63 || !sink.name.bytes().all(valid) {
            return Err(format!(
                "the name of a sink must be 1 to 63 characters of a-z, 0-9 and `-`, not `{}`",
                sink.name
            ));
        }
        if sinks[..place].iter().any(|other| other.name == sink.name) {
            return Err(format!("two sinks are called {}", sink.name));
        }
    }
    if sinks.len() > 16 {
        return Err("at most 16 sinks are allowed".to_owned());
    }
    Ok(sinks)
}

/// A notification about an object, before it waits in the status for the sinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Subject, by which sinks choose.
    pub topic: Topic,
    /// Distinguishes it from other notifications of the topic about the same object. The same notification always has
    /// the same key.
    pub key: String,
    /// Text for a person; [`enqueue`] cuts it to [`conditions::MAX_MESSAGE`] characters.
    pub message: String,
}

/// Adds notifications to those that are pending in an object's status, for every sink that takes the topic. If more
/// than [`MAX_PENDING`] are pending then, drops the oldest.
pub fn enqueue(
    pending: &mut Vec<PendingNotification>,
    sinks: &[Sink],
    object: &ObjectMeta,
    notifications: Vec<Notification>,
    now: DateTime<Utc>,
) {
    let uid = object.uid.as_deref().unwrap_or_default();
    for Notification { topic, key, message } in notifications {
        let takers: Vec<String> = sinks.iter().filter(|s| s.takes(topic)).map(|s| s.name.clone()).collect();
        let id = format!("{uid}.{}.{key}", topic.as_str());
        if takers.is_empty() || pending.iter().any(|waiting| waiting.id == id) {
            continue;
        }
        let message = message.chars().take(conditions::MAX_MESSAGE).collect();
        pending.push(PendingNotification { id, topic, time: to_kubernetes(now), message, sinks: takers });
    }
    let surplus = pending.len().saturating_sub(MAX_PENDING);
    if surplus > 0 {
        tracing::warn!(surplus, "too many pending notifications: dropping the oldest of this object");
        pending.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(name: &str, topics: &[Topic]) -> Sink {
        Sink { name: name.into(), format: Format::Slack, secret: name.into(), topics: topics.to_vec() }
    }

    fn object() -> ObjectMeta {
        ObjectMeta { uid: Some("u".into()), ..ObjectMeta::default() }
    }

    fn one(topic: Topic, key: &str) -> Vec<Notification> {
        vec![Notification { topic, key: key.into(), message: "it happened".into() }]
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    #[test]
    fn a_sink_is_told_of_the_topics_it_names_and_of_all_where_it_names_none() {
        let sinks = [sink("all", &[]), sink("some", &[Topic::Stalled])];
        let mut pending = Vec::new();
        enqueue(&mut pending, &sinks, &object(), one(Topic::Stalled, "1"), at(0));
        enqueue(&mut pending, &sinks, &object(), one(Topic::Overdue, "1"), at(0));
        assert_eq!(pending[0].sinks, ["all", "some"]);
        assert_eq!(pending[1].sinks, ["all"]);
        enqueue(&mut Vec::new(), &[], &object(), one(Topic::Stalled, "1"), at(0));
    }

    #[test]
    fn the_same_notification_is_queued_once_and_the_queue_is_bounded() {
        let sinks = [sink("all", &[])];
        let mut pending = Vec::new();
        for _ in 0..2 {
            enqueue(&mut pending, &sinks, &object(), one(Topic::Rotated, "7"), at(0));
        }
        assert_eq!(pending.len(), 1);
        for n in 0..MAX_PENDING {
            enqueue(&mut pending, &sinks, &object(), one(Topic::Stalled, &n.to_string()), at(0));
        }
        assert_eq!(pending.len(), MAX_PENDING);
        assert!(pending.iter().all(|waiting| waiting.topic == Topic::Stalled));
    }

    #[test]
    fn sinks_that_cannot_be_meant_are_refused() {
        assert_eq!(sinks(""), Ok(Vec::new()));
        let good = r#"[{"name": "chat", "format": "Slack", "secret": "chat", "topics": ["Stalled"]}]"#;
        assert_eq!(sinks(good), Ok(vec![sink("chat", &[Topic::Stalled])]));
        for (bad, says) in [
            (r#"[{"name": "Chat", "format": "Slack", "secret": "s"}]"#, "a-z"),
            (
                r#"[{"name": "a", "format": "Slack", "secret": "s"}, {"name": "a", "format": "Slack", "secret": "s"}]"#,
                "two sinks",
            ),
            (r#"[{"name": "a", "format": "Slack"}]"#, "secret"),
            (r#"[{"name": "a", "format": "Pager", "secret": "s"}]"#, "Pager"),
            (r#"[{"name": "a", "format": "Slack", "secret": "s", "topics": ["Lost"]}]"#, "Lost"),
            (r#"[{"name": "a", "format": "Slack", "secret": "s", "url": "x"}]"#, "url"),
        ] {
            assert!(sinks(bad).unwrap_err().contains(says), "{bad}");
        }
    }
}
