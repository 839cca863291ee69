//! What the watches know of keyturn's objects, by the namespaces that the controller works in.
//!
//! A cached object may be a moment old: it is good for finding related objects and for metrics, never as the last look
//! before an external write. One that cannot be decoded is kept as such and does not hide the others.

use std::sync::Arc;

use futures::FutureExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;

use crate::api::{DockerHost, ManagedSecret, RotationGrant};

/// An object as the watch delivered it, decoded or not.
pub type Guarded<K> = DeserializeGuard<K>;

/// Objects of one namespace, or of all.
#[derive(Clone)]
pub struct Scope {
    /// All namespaces when absent.
    pub namespace: Option<String>,
    pub secrets: Store<Guarded<ManagedSecret>>,
    pub hosts: Store<Guarded<DockerHost>>,
}

/// Everything that is cached.
#[derive(Clone)]
pub struct Cache {
    pub scopes: Vec<Scope>,
    pub grants: Store<Guarded<RotationGrant>>,
}

impl Cache {
    /// The decoded secrets of a namespace; none where the controller does not work in it.
    pub fn secrets(&self, namespace: &str) -> Vec<Arc<Guarded<ManagedSecret>>> {
        self.scope(namespace).map_or_else(Vec::new, |scope| in_namespace(&scope.secrets, namespace))
    }

    /// The decoded hosts of a namespace; none where the controller does not work in it.
    pub fn hosts(&self, namespace: &str) -> Vec<Arc<Guarded<DockerHost>>> {
        self.scope(namespace).map_or_else(Vec::new, |scope| in_namespace(&scope.hosts, namespace))
    }

    /// What has not been listed once yet.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut note = |what: &str, namespace: Option<&String>, ready: bool| {
            if !ready {
                missing.push(namespace.map_or_else(|| what.to_owned(), |ns| format!("{what} in {ns}")));
            }
        };
        for scope in &self.scopes {
            let namespace = scope.namespace.as_ref();
            note("managedsecrets", namespace, scope.secrets.wait_until_ready().now_or_never().is_some());
            note("dockerhosts", namespace, scope.hosts.wait_until_ready().now_or_never().is_some());
        }
        note("rotationgrants", None, self.grants.wait_until_ready().now_or_never().is_some());
        missing
    }

    /// Waits until everything has been listed once.
    pub async fn ready(&self) {
        // A wait fails only when its watch has ended, which ends the process.
        for scope in &self.scopes {
            let _ = scope.secrets.wait_until_ready().await;
            let _ = scope.hosts.wait_until_ready().await;
        }
        let _ = self.grants.wait_until_ready().await;
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
