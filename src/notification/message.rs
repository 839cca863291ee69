//! A notification in the words of a sink.

use serde_json::{Value, json};

use super::Format;
use crate::api::notification::PendingNotification;
use crate::api::time::{from_kubernetes, to_text};

/// The object that a notification is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name of the installation.
    pub cluster: String,
    /// Kind of the object, such as `ManagedSecret`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// Content type and body.
pub fn render(format: Format, subject: &Subject, told: &PendingNotification) -> (&'static str, Value) {
    match format {
        Format::CloudEvents => ("application/cloudevents+json; charset=utf-8", cloud_event(subject, told)),
        Format::Slack => ("application/json; charset=utf-8", slack(subject, told)),
    }
}

/// CloudEvents 1.0, JSON format. `source` and `id` together are unique, as the specification asks.
fn cloud_event(subject: &Subject, told: &PendingNotification) -> Value {
    let Subject { cluster, kind, namespace, name } = subject;
    let topic = told.topic.as_str();
    json!({
        "specversion": "1.0",
        "id": told.id,
        "source": format!("/keyturn/{cluster}"),
        "type": format!("dev.keyturn.{}.{}", kind.to_lowercase(), topic.to_lowercase()),
        "subject": format!("{namespace}/{name}"),
        "time": to_text(from_kubernetes(&told.time)),
        "datacontenttype": "application/json",
        "data": {
            "cluster": cluster,
            "kind": kind,
            "namespace": namespace,
            "name": name,
            "topic": topic,
            "message": told.message,
        },
    })
}

fn slack(subject: &Subject, told: &PendingNotification) -> Value {
    let Subject { cluster, kind, namespace, name } = subject;
    // The three characters that Slack's markup has a meaning for.
    let message = told.message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let topic = told.topic.as_str();
    json!({ "text": format!("*{topic}*: {kind} {namespace}/{name} ({cluster})\n{message}") })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::api::notification::Topic;
    use crate::api::time::to_kubernetes;

    fn told() -> (Subject, PendingNotification) {
        let subject = Subject {
            cluster: "prod".into(),
            kind: "ManagedSecret".into(),
            namespace: "musehub".into(),
            name: "db-password".into(),
        };
        let told = PendingNotification {
            id: "u.Stalled.1".into(),
            topic: Topic::Stalled,
            time: to_kubernetes(DateTime::from_timestamp(0, 0).unwrap()),
            message: "a < b & c".into(),
            sinks: vec!["chat".into()],
        };
        (subject, told)
    }

    #[test]
    fn a_cloud_event_has_every_attribute_that_the_specification_requires() {
        let (subject, told) = told();
        let (content_type, event) = render(Format::CloudEvents, &subject, &told);
        assert!(content_type.starts_with("application/cloudevents+json"));
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["id"], "u.Stalled.1");
        assert_eq!(event["source"], "/keyturn/prod");
        assert_eq!(event["type"], "dev.keyturn.managedsecret.stalled");
        assert_eq!(event["subject"], "musehub/db-password");
        assert_eq!(event["time"], "1970-01-01T00:00:00Z");
        assert_eq!(event["data"]["message"], "a < b & c");
    }

    #[test]
    fn a_chat_is_told_in_a_sentence_and_its_markup_is_escaped() {
        let (subject, told) = told();
        let (_, body) = render(Format::Slack, &subject, &told);
        assert_eq!(body["text"], "*Stalled*: ManagedSecret musehub/db-password (prod)\na &lt; b &amp; c");
    }
}
