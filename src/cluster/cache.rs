//! A cache of keyturn's objects, filled by watches, for the namespaces in which the controller works.
//!
//! A cached object may be stale by a moment. The cache is good for finding related objects and for metrics, never as
//! the last check before an external write. An object that cannot be decoded is kept as such and does not hide the
//! others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};

use super::claims::Claims;
use super::guarded::Guarded;
use super::mirror::Mirror;
use crate::api::grants::Grants;
use crate::api::{DockerHost, ManagedSecret, RotationGrant, SecretIncident};

/// Returns the objects that could be decoded.
pub fn decoded<K>(objects: &[Arc<Guarded<K>>]) -> impl Iterator<Item = &K> {
    objects.iter().filter_map(|object| object.0.as_ref().ok())
}

/// The objects of one namespace, or of all.
#[derive(Clone)]
pub struct Scope {
    /// The namespace; `None` means all namespaces.
    pub namespace: Option<String>,
    /// The ManagedSecrets in the namespace.
    pub secrets: Mirror<ManagedSecret>,
    /// The DockerHosts in the namespace.
    pub hosts: Mirror<DockerHost>,
    /// The SecretIncidents in the namespace.
    pub incidents: Mirror<SecretIncident>,
}

impl Scope {
    async fn ready(&self) {
        self.secrets.listed().await;
        self.hosts.listed().await;
        self.incidents.listed().await;
    }

    fn is_ready(&self) -> bool {
        self.secrets.is_listed() && self.hosts.is_listed() && self.incidents.is_listed()
    }
}

/// All cached objects.
#[derive(Clone)]
pub struct Cache {
    /// One scope for each namespace that the controller watches, or a single scope for all namespaces.
    pub scopes: Vec<Scope>,
    /// Index of the claims of the secrets in all scopes.
    pub claims: Claims,
    /// The RotationGrants of the cluster, which belong to no namespace.
    pub grants: Mirror<RotationGrant>,
    given: Arc<Mutex<Option<Arc<Grants>>>>,
}

impl Cache {
    /// Creates the cache from its mirrors. Watches have to fill the mirrors and to update `claims`.
    pub fn new(scopes: Vec<Scope>, grants: Mirror<RotationGrant>) -> Self {
        Self { scopes, claims: Claims::default(), grants, given: Arc::default() }
    }

    /// Returns all grants, combined once after each change. `None` if they have not been listed yet, or if one of them
    /// cannot be decoded: the cache does not know what that grant observes.
    pub fn given(&self) -> Option<Arc<Grants>> {
        if !self.grants.is_listed() {
            return None;
        }
        // The lock is held while the grants are read, so that a change afterwards discards what was combined from older
        // ones.
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.is_none() {
            let mut grants: Vec<RotationGrant> = self
                .grants
                .state()
                .iter()
                .map(|grant| grant.0.as_ref().ok().cloned())
                .collect::<Option<_>>()?;
            // Sorted by name like the API server's lists, since messages about grants must not depend on the cache's
            // own order.
            grants.sort_by_key(ResourceExt::name_any);
            *given = Some(Arc::new(grants.into_iter().collect()));
        }
        given.clone()
    }

    /// Discards the combined grants, after a grant in the cache was added, removed or changed.
    pub fn grants_changed(&self) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns a secret if it can be decoded.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Guarded<ManagedSecret>>> {
        let secret = self.scope(namespace)?.secrets.get(&ObjectRef::new(name).within(namespace))?;
        secret.0.is_ok().then_some(secret)
    }

    /// Returns the decoded secrets of a namespace; none if the controller does not work in it.
    pub fn secrets(&self, namespace: &str) -> Vec<Arc<Guarded<ManagedSecret>>> {
        self.scope(namespace).map_or_else(Vec::new, |scope| in_namespace(&scope.secrets, namespace))
    }

    /// Returns the secrets that claim the same path or role as this one, if they can be decoded.
    pub fn rivals(&self, object: &ManagedSecret) -> Vec<Arc<Guarded<ManagedSecret>>> {
        let named = self.claims.rivals(object);
        named.iter().filter_map(|name| self.secret(&name.0, &name.1)).collect()
    }

    /// Returns the decoded hosts of a namespace; none if the controller does not work in it.
    pub fn hosts(&self, namespace: &str) -> Vec<Arc<Guarded<DockerHost>>> {
        self.scope(namespace).map_or_else(Vec::new, |scope| in_namespace(&scope.hosts, namespace))
    }

    /// Returns the decoded incidents of a namespace; none if the controller does not work in it.
    pub fn incidents(&self, namespace: &str) -> Vec<Arc<Guarded<SecretIncident>>> {
        self.scope(namespace).map_or_else(Vec::new, |scope| in_namespace(&scope.incidents, namespace))
    }

    /// Returns the names of the hosts in a namespace that exist but cannot be decoded.
    pub fn undecodable_hosts(&self, namespace: &str) -> Vec<String> {
        let Some(scope) = self.scope(namespace) else { return Vec::new() };
        let undecodable = |host: &Arc<Guarded<DockerHost>>| {
            let metadata = &host.0.as_ref().err()?.metadata;
            metadata.name.clone().filter(|_| metadata.namespace.as_deref() == Some(namespace))
        };
        scope.hosts.state().iter().filter_map(undecodable).collect()
    }

    /// Returns the namespaces that have DockerHosts and are named by a grant. keyturn creates Jobs only there, and may
    /// watch them only there.
    pub fn namespaces_with_jobs(&self) -> BTreeSet<String> {
        let grants = self.grants.state();
        let granted: BTreeSet<&str> = grants
            .iter()
            .filter_map(|grant| grant.0.as_ref().ok())
            .flat_map(|grant| &grant.spec.namespaces)
            .map(String::as_str)
            .collect();
        let hosts = self.scopes.iter().flat_map(|scope| scope.hosts.state());
        let namespaces = hosts.filter_map(|host| host.meta().namespace.clone());
        namespaces.filter(|namespace| granted.contains(namespace.as_str())).collect()
    }

    /// Returns true once the objects of a namespace have been listed: before that, no object may count as absent.
    pub fn is_listed(&self, namespace: &str) -> bool {
        self.scope(namespace).is_none_or(Scope::is_ready)
    }

    /// Returns the lists for which this replica still has to wait before it can work: the grants, and at least one
    /// namespace. It does not have to wait for other namespaces, since a namespace that was deleted, or that the
    /// controller may not read, must not stop it from working on the rest.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.grants.is_listed() {
            missing.push("rotationgrants".to_owned());
        }
        if !self.scopes.iter().any(Scope::is_ready) {
            let namespaces =
                self.scopes.iter().map(|scope| scope.namespace.as_deref().unwrap_or("all namespaces"));
            let namespaces = namespaces.collect::<Vec<_>>().join(", ");
            missing.push(format!("managedsecrets, dockerhosts and secretincidents in {namespaces}"));
        }
        missing
    }

    /// Waits until nothing is missing, and then at most `patience` for the other namespaces.
    pub async fn ready(&self, patience: Duration) {
        self.grants.listed().await;
        let mut scopes: FuturesUnordered<_> = self.scopes.iter().map(Scope::ready).collect();
        scopes.next().await;
        let others = async { while scopes.next().await.is_some() {} };
        if tokio::time::timeout(patience, others).await.is_err() {
            let unread: Vec<&str> = self
                .scopes
                .iter()
                .filter(|scope| !scope.is_ready())
                .filter_map(|scope| scope.namespace.as_deref())
                .collect();
            tracing::warn!(
                namespaces = unread.join(","),
                "starting without namespaces that could not be listed yet"
            );
        }
    }

    fn scope(&self, namespace: &str) -> Option<&Scope> {
        self.scopes.iter().find(|scope| scope.namespace.as_deref().is_none_or(|own| own == namespace))
    }
}

fn in_namespace<K>(store: &Store<Guarded<K>>, namespace: &str) -> Vec<Arc<Guarded<K>>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store.state_filter(|object| {
        object.0.as_ref().is_ok_and(|k| k.meta().namespace.as_deref() == Some(namespace))
    })
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::cluster::mirror::mirror;

    #[tokio::test]
    async fn a_namespace_that_cannot_be_read_keeps_nobody_from_the_others() {
        let (grants, mut grants_writer) = mirror();
        let mut writers = Vec::new();
        let scopes = ["readable", "forbidden"].map(|namespace| {
            let (secrets, secrets_writer) = mirror();
            let (hosts, hosts_writer) = mirror();
            let (incidents, incidents_writer) = mirror();
            writers.push((secrets_writer, hosts_writer, incidents_writer));
            Scope { namespace: Some(namespace.to_owned()), secrets, hosts, incidents }
        });
        let cache = Cache::new(scopes.into(), grants);
        assert_eq!(
            cache.missing(),
            ["rotationgrants", "managedsecrets, dockerhosts and secretincidents in readable, forbidden"]
        );
        for event in [Event::Init, Event::InitDone] {
            grants_writer.apply(&event);
        }
        writers[0].0.apply(&Event::InitDone);
        assert_eq!(
            cache.missing(),
            ["managedsecrets, dockerhosts and secretincidents in readable, forbidden"]
        );
        assert!(!cache.is_listed("readable"), "its hosts and incidents may be there all the same");
        writers[0].1.apply(&Event::InitDone);
        writers[0].2.apply(&Event::InitDone);
        assert!(cache.is_listed("readable") && !cache.is_listed("forbidden"));
        assert_eq!(cache.missing(), Vec::<String>::new());
        cache.ready(Duration::from_millis(1)).await;
    }

    fn guarded<K: serde::de::DeserializeOwned>(json: serde_json::Value) -> Guarded<K> {
        Guarded(Ok(serde_json::from_value(json).unwrap()))
    }

    fn grant(name: &str, spec: serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationGrant", "metadata": {"name": name}, "spec": spec,
        })
    }

    #[test]
    fn grants_are_put_together_once_for_each_change_of_them_and_not_while_one_cannot_be_decoded() {
        let (grants, mut writer) = mirror();
        let cache = Cache::new(Vec::new(), grants);
        assert!(cache.given().is_none(), "they have not been listed");
        writer.apply(&Event::InitDone);
        let shown = || format!("{:?}", cache.given().unwrap());
        assert!(!shown().contains("shop"));
        let shop = grant("first", serde_json::json!({"namespaces": ["shop"]}));
        writer.apply(&Event::Apply(serde_json::from_value(shop).unwrap()));
        cache.grants_changed();
        let given = cache.given().unwrap();
        assert!(shown().contains("shop"));
        assert!(Arc::ptr_eq(&given, &cache.given().unwrap()));
        let broken = serde_json::from_value(grant("broken", serde_json::json!({"namespaces": 7}))).unwrap();
        writer.apply(&Event::Apply(broken));
        cache.grants_changed();
        assert!(cache.given().is_none());
    }

    #[test]
    fn jobs_are_watched_where_a_granted_namespace_has_docker_hosts() {
        let host = |namespace: &str| {
            guarded::<DockerHost>(serde_json::json!({
                "apiVersion": "keyturn.dev/v1alpha1",
                "kind": "DockerHost",
                "metadata": {"name": "web", "namespace": namespace},
                "spec": {
                    "ssh": {
                        "host": "web.example", "user": "deploy", "knownHosts": [],
                        "keySecretRef": {"name": "web-key", "key": "id.pem"},
                    },
                    "docker": {"composeProject": "app"},
                    "deploy": {"script": "deploy.sh"},
                },
            }))
        };
        let (grants, mut grants_writer) = mirror();
        let (hosts, mut hosts_writer) = mirror();
        let scope = Scope { namespace: None, secrets: mirror().0, hosts, incidents: mirror().0 };
        let cache = Cache::new(vec![scope], grants);
        for namespace in ["granted", "other"] {
            hosts_writer.apply(&Event::Apply(host(namespace)));
        }
        assert!(cache.namespaces_with_jobs().is_empty());
        grants_writer.apply(&Event::Apply(guarded(serde_json::json!({
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "RotationGrant",
            "metadata": {"name": "g"},
            "spec": {"namespaces": ["granted", "empty"]},
        }))));
        assert_eq!(cache.namespaces_with_jobs(), ["granted".to_owned()].into());
        hosts_writer.apply(&Event::Delete(host("granted")));
        assert!(cache.namespaces_with_jobs().is_empty());
    }
}
