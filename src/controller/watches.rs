//! Follows one kind of object in the API server: keeps the cache and says what has changed.

use std::fmt::Debug;

use futures::{Stream, StreamExt, TryStreamExt, pin_mut};
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::cache::Guarded;
use super::metrics::Metrics;

/// The server ends a watch after this long, and the client a silent one a little later: load balancers that drop
/// idle connections without a word do so after four minutes.
const WATCH_SECONDS: u32 = 120;
/// Objects in one page of a list: two pages in memory are what a list costs beside the cache.
const PAGE: u32 = 100;
/// kubectl's copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new or differs from what was cached.
    Applied,
    Deleted,
}

/// Keeps `writer`'s cache current for as long as it is polled, and calls `changed` for every object that is new,
/// different or gone. Trouble is logged, counted and tried again with a growing pause.
pub async fn follow<K>(
    api: Api<Guarded<K>>,
    store: Store<Guarded<K>>,
    mut writer: Writer<Guarded<K>>,
    metrics: Metrics,
    mut changed: impl FnMut(&Guarded<K>, Change),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    let stream = resilient(watcher(api, config), K::kind(&()).into_owned(), metrics);
    pin_mut!(stream);
    // Objects of a list are announced when the cache holds the whole list, and only those that differ.
    let mut listed: Vec<ObjectRef<Guarded<K>>> = Vec::new();
    while let Some(event) = stream.next().await {
        let event = event.modify(prune);
        match &event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                let key = ObjectRef::from_obj(object);
                let cached = store.get(&key);
                if cached.is_none_or(|old| old.resource_version() != object.resource_version()) {
                    listed.push(key);
                }
            }
            _ => {}
        }
        writer.apply_watcher_event(&event);
        match &event {
            watcher::Event::Apply(object) => changed(object, Change::Applied),
            watcher::Event::Delete(object) => changed(object, Change::Deleted),
            watcher::Event::InitDone => {
                for object in listed.drain(..).filter_map(|key| store.get(&key)) {
                    changed(&object, Change::Applied);
                }
            }
            _ => {}
        }
    }
}

/// Calls `changed` with the metadata of every object of a kind that is new, different or gone; keeps no cache.
pub async fn follow_metadata<K>(
    api: Api<PartialObjectMeta<K>>,
    labels: &str,
    metrics: Metrics,
    mut changed: impl FnMut(&PartialObjectMeta<K>),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE).labels(labels);
    let stream = resilient(watcher(api, config), K::kind(&()).into_owned(), metrics);
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        if let watcher::Event::Apply(object)
        | watcher::Event::InitApply(object)
        | watcher::Event::Delete(object) = &event
        {
            changed(object);
        }
    }
}

/// The events of a watch that never ends; errors are logged and counted on the way.
fn resilient<K: Send + 'static>(
    watch: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    kind: String,
    metrics: Metrics,
) -> impl Stream<Item = watcher::Event<K>> + Send {
    watch
        .inspect_err(move |error| {
            metrics.watch_error(&kind);
            tracing::warn!(%error, kind, "a watch broke; starting it again");
        })
        .default_backoff()
        .filter_map(|event| std::future::ready(event.ok()))
}

/// Drops what nobody here reads.
fn prune<K: Resource<DynamicType = ()>>(object: &mut Guarded<K>) {
    object.managed_fields_mut().clear();
    object.annotations_mut().remove(LAST_APPLIED);
}
