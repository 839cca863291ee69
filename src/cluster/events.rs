//! Kubernetes Events for people. Repeats within a few minutes become a series of one Event, and a rate limit keeps an
//! object with endless failures from flooding its namespace.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use keyturn_reconcile::objects;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};

use super::refusal::missing_right;

/// `reportingController` of every Event.
const CONTROLLER: &str = "keyturn.dev/controller";
/// Namespace of Events about objects that are in no namespace.
const OF_CLUSTER: &str = "default";
/// Longest note that the API server accepts.
const MAX_NOTE: usize = 1024;
/// Time within which a repeat extends the series; client-go uses the same.
const SERIES: Duration = Duration::from_secs(360);
/// Number of Events that one object may cause at once, and the time after which it may cause one more.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes Events. One instance serves the whole process, since it remembers what it wrote.
pub struct Events {
    client: Client,
    instance: String,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    series: HashMap<Key, Written>,
    allowance: HashMap<String, (f64, Instant)>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    warning: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
}

#[derive(Clone)]
struct Written {
    name: String,
    count: i32,
    last: Instant,
}

/// What is done with an Event.
enum Plan {
    Create,
    Extend { name: String, count: i32 },
    Drop,
}

impl Events {
    /// Creates the writer; `instance` is the name of this replica.
    pub fn new(client: Client, instance: &str) -> Self {
        Self { client, instance: instance.to_owned(), memory: Mutex::default() }
    }

    /// Publishes an Event on a best-effort basis: an Event that cannot be written is logged and dropped.
    pub async fn publish(&self, about: &ObjectReference, event: objects::Event) {
        let note = cut(&event.note, MAX_NOTE).to_owned();
        let key = Key {
            uid: about.uid.clone().unwrap_or_default(),
            warning: event.warning,
            reason: event.reason.name(),
            action: event.action,
            note,
        };
        let plan = self.memory.lock().unwrap_or_else(PoisonError::into_inner).plan(&key, Instant::now());
        let namespace = about.namespace.clone().unwrap_or_else(|| OF_CLUSTER.to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let at = MicroTime(jiff::Timestamp::now());
        let write = async {
            match plan {
                Plan::Drop => Ok(None),
                Plan::Extend { name, count } => {
                    let series = EventSeries { count, last_observed_time: at };
                    let patch = serde_json::json!({ "series": series });
                    api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(|_| Some(name))
                }
                Plan::Create => self.create(about, &key, at).await.map(|event| event.metadata.name),
            }
        };
        let result = tokio::time::timeout(TIMEOUT, write).await;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(Ok(Some(name))) => memory.written(key, name, Instant::now()),
            Ok(Ok(None)) => {
                tracing::debug!(reason = key.reason, "too many Events for one object: left one out")
            }
            Ok(Err(error)) => {
                // The Event may be gone, since its time to live is an hour: the next repeat starts a new one.
                memory.series.remove(&key);
                tracing::warn!(%error, reason = key.reason, "an Event could not be written");
            }
            Err(_) => tracing::warn!(reason = key.reason, "an Event could not be written in time"),
        }
    }

    async fn create(&self, about: &ObjectReference, key: &Key, at: MicroTime) -> Result<Event, kube::Error> {
        let api = |namespace: &str| Api::<Event>::namespaced(self.client.clone(), namespace);
        let namespace = about.namespace.as_deref().unwrap_or(OF_CLUSTER);
        let created =
            api(namespace).create(&PostParams::default(), &self.event(about, key, at.clone())).await;
        match created {
            // The namespace accepts no Events any more, or keyturn's role is not bound there: the role binding is among
            // the first things that are deleted with a namespace.
            Err(error) if is_terminating(&error) || missing_right(&error).is_some() => {
                let (about, note) = about_namespace(about, namespace, &key.note);
                let event = self.event(&about, &Key { note, ..key.clone() }, at);
                api(OF_CLUSTER).create(&PostParams::default(), &event).await
            }
            created => created,
        }
    }

    fn event(&self, about: &ObjectReference, key: &Key, at: MicroTime) -> Event {
        let name = about.name.as_deref().unwrap_or("keyturn");
        Event {
            metadata: ObjectMeta {
                namespace: Some(about.namespace.clone().unwrap_or_else(|| OF_CLUSTER.to_owned())),
                name: Some(format!("{name}.{:x}", at.0.as_nanosecond())),
                ..ObjectMeta::default()
            },
            action: Some(key.action.to_owned()),
            reason: Some(key.reason.to_owned()),
            note: Some(key.note.clone()),
            type_: Some(if key.warning { "Warning" } else { "Normal" }.to_owned()),
            event_time: Some(at),
            regarding: Some(about.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(cut(&self.instance, 128).to_owned()),
            ..Event::default()
        }
    }
}

fn is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(refusal) = error else { return false };
    let causes = refusal.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Returns a reference to the namespace, and the note prefixed with the object's kind and name.
fn about_namespace(about: &ObjectReference, namespace: &str, note: &str) -> (ObjectReference, String) {
    let of = |field: &Option<String>| field.clone().unwrap_or_default();
    let note = format!("{} {}: {note}", of(&about.kind), of(&about.name));
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Namespace".to_owned()),
        name: Some(namespace.to_owned()),
        ..ObjectReference::default()
    };
    (about, cut(&note, MAX_NOTE).to_owned())
}

impl Memory {
    fn plan(&mut self, key: &Key, now: Instant) -> Plan {
        self.series.retain(|_, written| now.saturating_duration_since(written.last) < SERIES);
        let full = REFILL.mul_f64(BURST);
        self.allowance.retain(|_, (_, last)| now.saturating_duration_since(*last) < full);
        let (left, last) = self.allowance.entry(key.uid.clone()).or_insert((BURST, now));
        let earned = now.saturating_duration_since(*last).as_secs_f64() / REFILL.as_secs_f64();
        *left = (*left + earned).min(BURST);
        *last = now;
        if *left < 1.0 {
            return Plan::Drop;
        }
        *left -= 1.0;
        match self.series.get(key) {
            None => Plan::Create,
            Some(written) => {
                Plan::Extend { name: written.name.clone(), count: written.count.saturating_add(1) }
            }
        }
    }

    fn written(&mut self, key: Key, name: String, now: Instant) {
        let count = self.series.get(&key).map_or(1, |written| written.count.saturating_add(1));
        self.series.insert(key, Written { name, count, last: now });
    }
}

/// Returns the longest prefix of at most `bytes` bytes that ends at a character boundary.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uid: &str, note: &str) -> Key {
        Key { uid: uid.into(), warning: false, reason: "R", action: "A", note: note.into() }
    }

    #[test]
    fn a_repeat_extends_the_series_and_another_note_is_another_event() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        assert!(matches!(memory.plan(&key("u", "one"), start), Plan::Create));
        memory.written(key("u", "one"), "u.1".into(), start);
        let Plan::Extend { name, count } = memory.plan(&key("u", "one"), start) else { panic!() };
        assert_eq!((name.as_str(), count), ("u.1", 2));
        assert!(matches!(memory.plan(&key("u", "two"), start), Plan::Create));
        assert!(matches!(memory.plan(&key("u", "one"), start + SERIES), Plan::Create));
    }

    #[test]
    fn one_object_in_endless_trouble_is_silenced_and_others_are_not() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let written =
            (0..100).filter(|n| !matches!(memory.plan(&key("u", &n.to_string()), start), Plan::Drop)).count();
        assert_eq!(written, 25);
        assert!(matches!(memory.plan(&key("v", "x"), start), Plan::Create));
        assert!(matches!(memory.plan(&key("u", "x"), start + REFILL), Plan::Create));
        assert!(matches!(memory.plan(&key("u", "x"), start + REFILL), Plan::Drop));
    }

    #[test]
    fn notes_are_cut_between_characters() {
        assert_eq!(cut("aü", 2), "a");
        assert_eq!(cut("aü", 3), "aü");
        assert_eq!(cut("a", 9), "a");
    }
}
