//! Watches one kind of object in the API server: fills the cache and reports changes.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt, pin_mut};
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::guarded::Guarded;
use super::metrics::Metrics;
use super::mirror::{Mirror, MirrorWriter};

/// Time after which the server ends a watch; the client ends a silent one a little later. Load balancers that silently
/// drop idle connections do so after four minutes.
const WATCH_SECONDS: u32 = 120;
/// Number of objects in one page of a list. A list costs two pages of memory in addition to the cache.
const PAGE: u32 = 250;

/// A change of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is in a list that is not yet complete in the cache.
    Listed,
    /// It is new or differs from the cached object.
    Applied,
    /// It was deleted, or is missing in a new list.
    Deleted,
}

/// Keeps `mirror` up to date while it is polled. Calls `changed` for every object that is new, different or gone, and
/// for every object of a list before the cache holds it. Errors are logged, counted and retried with a growing backoff.
pub async fn follow<K>(
    api: Api<Guarded<K>>,
    mirror: Mirror<K>,
    mut writer: MirrorWriter<K>,
    metrics: Metrics,
    mut changed: impl FnMut(&Guarded<K>, Change),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
    let stream = resilient(watcher(api, config), K::kind(&()).into_owned(), metrics);
    pin_mut!(stream);
    // Objects of a list are announced once the cache holds the whole list, and only those that differ.
    let mut listed: Vec<ObjectRef<Guarded<K>>> = Vec::new();
    let mut unlisted: HashMap<ObjectRef<Guarded<K>>, Arc<Guarded<K>>> = HashMap::new();
    while let Some(event) = stream.next().await {
        match &event {
            watcher::Event::Init => {
                listed.clear();
                unlisted = mirror.state().into_iter().map(|old| (ObjectRef::from_obj(&*old), old)).collect();
            }
            watcher::Event::InitApply(object) => {
                changed(object, Change::Listed);
                let key = ObjectRef::from_obj(object);
                let cached = unlisted.remove(&key);
                if cached.is_none_or(|old| old.resource_version() != object.resource_version()) {
                    listed.push(key);
                }
            }
            _ => {}
        }
        writer.apply(&event);
        match &event {
            watcher::Event::Apply(object) => changed(object, Change::Applied),
            watcher::Event::Delete(object) => changed(object, Change::Deleted),
            watcher::Event::InitDone => {
                for (_, object) in unlisted.drain() {
                    changed(&object, Change::Deleted);
                }
                for object in listed.drain(..).filter_map(|key| mirror.get(&key)) {
                    changed(&object, Change::Applied);
                }
            }
            _ => {}
        }
    }
}

/// Calls `changed` with the metadata of every object of a kind that is new, different or gone. Keeps no cache.
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

/// Returns the events of a watch that never ends; errors are logged and counted.
fn resilient<K: Send + 'static>(
    watch: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
    kind: String,
    metrics: Metrics,
) -> impl Stream<Item = watcher::Event<K>> + Send {
    watch
        .inspect_err(move |error| {
            metrics.watch_error(&kind);
            tracing::warn!(%error, kind, "a watch failed; restarting it");
        })
        .default_backoff()
        .filter_map(|event| std::future::ready(event.ok()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use axum::body::Body;
    use axum::extract::{RawQuery, State};
    use axum::response::IntoResponse;
    use kube::Client;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::RotationGrant;
    use crate::cluster::mirror::mirror;

    /// An API server that returns these lists one after another, and the last one for ever. Every watch except the last
    /// ends with "the resource version is too old"; the last watch is silent.
    struct Server {
        lists: Vec<Value>,
        answered: AtomicUsize,
    }

    async fn answer(
        State(server): State<Arc<Server>>,
        RawQuery(query): RawQuery,
    ) -> axum::response::Response {
        let last = server.lists.len() - 1;
        if query.unwrap_or_default().contains("watch=true") {
            if server.answered.load(Ordering::SeqCst) > last {
                return Body::from_stream(futures::stream::pending::<std::io::Result<String>>())
                    .into_response();
            }
            let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": ""});
            return axum::Json(json!({"type": "ERROR", "object": gone})).into_response();
        }
        let number = server.answered.fetch_add(1, Ordering::SeqCst).min(last);
        let list = json!({
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "RotationGrantList",
            "metadata": {"resourceVersion": "1"},
            "items": server.lists[number],
        });
        axum::Json(list).into_response()
    }

    fn grant(name: &str, version: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "RotationGrant",
            "metadata": {
                "name": name, "uid": name, "resourceVersion": version,
                "managedFields": [{"manager": "kubectl"}], "annotations": {"kept": "yes"},
            },
            "spec": spec,
        })
    }

    /// Follows a server with these lists until `enough` changes were announced.
    async fn announced(lists: Vec<Value>, enough: usize) -> (Vec<String>, Mirror<RotationGrant>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Server { lists, answered: AtomicUsize::new(0) });
        tokio::spawn(async move {
            axum::serve(listener, axum::Router::new().fallback(answer).with_state(server)).await
        });
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        let api = Api::all(Client::try_from(config).unwrap());
        let (store, writer) = mirror();
        let names: Arc<Mutex<Vec<String>>> = Arc::default();
        let follow = follow(api, store.clone(), writer, Metrics::default(), {
            let names = names.clone();
            move |object: &Guarded<RotationGrant>, change| {
                let gone = if change == Change::Deleted { "-" } else { "" };
                if change != Change::Listed {
                    names.lock().unwrap().push(format!("{gone}{}", object.name_any()));
                }
            }
        });
        let until = async {
            while names.lock().unwrap().len() < enough {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = follow => panic!("a watch never ends"),
            () = until => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("too few: {:?}", names.lock().unwrap()),
        }
        let names = names.lock().unwrap().clone();
        (names, store)
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_decoded_hides_no_other() {
        let list = json!([
            grant("first", "1", json!({"namespaces": ["a"]})),
            grant("broken", "2", json!({"namespaces": 7})),
            grant("last", "3", json!({"namespaces": ["b"]})),
        ]);
        let (names, store) = announced(vec![list], 3).await;
        assert_eq!(names, ["first", "broken", "last"]);
        let decoded = |name: &str| store.get(&ObjectRef::new(name)).unwrap().0.is_ok();
        assert!(decoded("first") && !decoded("broken") && decoded("last"));
    }

    #[tokio::test]
    async fn a_new_list_announces_only_what_differs_from_the_one_before() {
        let spec = || json!({"namespaces": ["a"]});
        let before = json!([grant("same", "1", spec()), grant("changed", "1", spec())]);
        let after =
            json!([grant("same", "1", spec()), grant("changed", "2", spec()), grant("new", "1", spec())]);
        let (names, _) = announced(vec![before, after], 4).await;
        assert_eq!(names, ["same", "changed", "changed", "new"]);
    }

    #[tokio::test]
    async fn what_a_new_list_does_not_have_any_more_is_announced_as_deleted() {
        let spec = || json!({"namespaces": ["a"]});
        let before = json!([grant("same", "1", spec()), grant("gone", "1", spec())]);
        let (names, store) = announced(vec![before, json!([grant("same", "1", spec())])], 3).await;
        assert_eq!(names, ["same", "gone", "-gone"]);
        assert!(store.get(&ObjectRef::new("gone")).is_none());
    }

    #[tokio::test]
    async fn the_cache_does_not_hold_what_nobody_reads() {
        let list = json!([grant("grant", "1", json!({"namespaces": ["a"]}))]);
        let (_, store) = announced(vec![list], 1).await;
        let cached = store.get(&ObjectRef::new("grant")).unwrap();
        assert!(cached.managed_fields().is_empty());
        assert_eq!(cached.annotations().keys().collect::<Vec<_>>(), ["kept"]);
    }
}
