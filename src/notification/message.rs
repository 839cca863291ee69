//! Formats a notification for a sink.

use serde_json::{Value, json};

use super::Format;
use crate::api::notification::PendingNotification;
use crate::api::text::is_visible;
use crate::api::time::{from_kubernetes, to_text};

/// The object that a notification is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name of the installation (the chart value `cluster`).
    pub cluster: String,
    /// Kind of the object, such as `ManagedSecret`.
    pub kind: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

/// Returns content type and body.
pub(super) fn render(format: Format, subject: &Subject, told: &PendingNotification) -> (&'static str, Value) {
    let message = defanged(&told.message);
    match format {
        Format::CloudEvents => {
            ("application/cloudevents+json; charset=utf-8", cloud_event(subject, told, &message))
        }
        Format::Slack => ("application/json; charset=utf-8", slack(subject, told, &message)),
    }
}

/// Makes a message harmless for every receiver. It quotes texts that others wrote, such as names of containers, so no
/// URL in it may be clicked or fetched, no text may act as markup, and nobody may be mentioned.
fn defanged(message: &str) -> String {
    let visible: String = message.chars().filter(|c| *c == '\n' || is_visible(*c)).collect();
    let dead = visible.replace("://", "[:]//").replace("](", "] (");
    without_calls(&without_bare_names(&dead))
}

/// Breaks `www.`, which alone is a link in some chats.
fn without_bare_names(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find("www.") {
        kept.push_str(&rest[..at + 3]);
        kept.push_str("[.]");
        rest = &rest[at + 4..];
    }
    kept + rest
}

/// Breaks mentions such as `@channel`, which notify everybody in a room.
fn without_calls(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        kept.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let word: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
        let calls = ["channel", "here", "all", "everyone"].iter().any(|name| word.eq_ignore_ascii_case(name));
        kept.push_str(if calls { "(at)" } else { "@" });
    }
    kept + rest
}

/// Formats as CloudEvents 1.0, JSON format. `source` and `id` together are unique, as the specification requires.
fn cloud_event(subject: &Subject, told: &PendingNotification, message: &str) -> Value {
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
            "message": message,
        },
    })
}

/// Formats for Slack: the message is a code block, in which chats do not format or link, and it cannot end that block.
fn slack(subject: &Subject, told: &PendingNotification, message: &str) -> Value {
    let Subject { cluster, kind, namespace, name } = subject;
    // The three characters with a meaning in Slack's markup have to be escaped in a code block too.
    let message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "'");
    let topic = told.topic.as_str();
    json!({ "text": format!("*{topic}*: {kind} {namespace}/{name} ({cluster})\n```\n{message}\n```") })
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

    /// A name that somebody may give to a container, an image or a session, so that a message quotes it.
    const MARKUP: &str = "in web [log in](https://evil.example/a) ![](http://evil.example/b.png) <!channel> @channel \
                          @Here <https://evil.example|x> www.evil.example `code` ```\n@all \u{1b}[31m\u{202e}x\u{200b}y";

    #[test]
    fn what_others_wrote_links_to_nothing_shows_no_picture_and_calls_nobody_in_any_format() {
        let (subject, told) = told();
        let told = PendingNotification { message: MARKUP.to_owned(), ..told };
        for format in [Format::CloudEvents, Format::Slack] {
            let (_, body) = render(format, &subject, &told);
            let text = body["text"].as_str().or(body["data"]["message"].as_str()).unwrap().to_owned();
            for live in ["://", "](", "@channel", "@Here", "@all", "www.", "\u{1b}", "\u{202e}", "\u{200b}"] {
                assert!(!text.contains(live), "{format:?}: {live:?} in {text}");
            }
            assert!(text.contains("evil.example"), "it is still told: {text}");
        }
    }

    #[test]
    fn a_chat_shows_the_message_as_it_is_written_since_nothing_ends_its_block() {
        let (subject, told) = told();
        let told = PendingNotification { message: MARKUP.to_owned(), ..told };
        let (_, body) = render(Format::Slack, &subject, &told);
        let text = body["text"].as_str().unwrap();
        assert_eq!(text.matches('`').count(), 6, "{text}");
        assert!(text.ends_with("\n```") && !text.contains('<'), "{text}");
    }

    #[test]
    fn a_chat_is_told_in_a_sentence_and_its_markup_is_escaped() {
        let (subject, told) = told();
        let (_, body) = render(Format::Slack, &subject, &told);
        assert_eq!(
            body["text"],
            "*Stalled*: ManagedSecret musehub/db-password (prod)\n```\na &lt; b &amp; c\n```"
        );
    }
}
