//! Puts the objects that a change concerns into their queues; [`links`] decides which objects those are.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use keyturn_reconcile::links::{self, Key, Neighbours};
use kube::api::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use super::notifications::HoldsNotifications;
use super::queue::Queue;
use crate::api::{DockerHost, GROUP, ManagedSecret, SecretIncident};
use crate::cluster::cache::{Cache, decoded};
use crate::cluster::guarded::Guarded;
use crate::cluster::objects::OwnWrites;
use crate::cluster::watches::Change;

/// The queues of one namespace, or of all.
#[derive(Clone)]
pub struct Queues {
    /// The namespace; `None` means all namespaces.
    pub namespace: Option<String>,
    /// ManagedSecrets to reconcile.
    pub secrets: Queue<ManagedSecret>,
    /// DockerHosts to reconcile.
    pub hosts: Queue<DockerHost>,
    /// Objects with notifications to send.
    pub telling: Telling,
    /// SecretIncidents to reconcile.
    pub incidents: Queue<SecretIncident>,
}

/// The queues of objects with pending notifications.
#[derive(Clone)]
pub struct Telling {
    /// ManagedSecrets with notifications to send.
    pub secrets: Queue<ManagedSecret>,
    /// DockerHosts with notifications to send.
    pub hosts: Queue<DockerHost>,
    /// SecretIncidents with notifications to send.
    pub incidents: Queue<SecretIncident>,
}

/// Converts changes into queue entries.
#[derive(Clone)]
pub struct Links {
    /// The cached objects, among which the related ones are found.
    pub cache: Cache,
    /// The queues of each scope of the cache.
    pub queues: Vec<Queues>,
    /// The writes of this process, by which changes of its own are recognised.
    pub own: OwnWrites,
    /// Called when the set of parameters of all ManagedSecrets may have changed.
    pub desires_changed: Arc<dyn Fn() + Send + Sync>,
    /// The namespaces whose Jobs have to be watched.
    pub jobs_in: watch::Sender<BTreeSet<String>>,
}

impl Links {
    /// Queues a ManagedSecret. Does nothing in a namespace in which the controller does not work.
    pub fn push_secret(&self, namespace: &str, name: &str) {
        if let Some(queues) = self.queues(namespace) {
            queues.secrets.push(namespace, name);
        }
    }

    /// Queues a DockerHost. Does nothing in a namespace in which the controller does not work.
    pub fn push_host(&self, namespace: &str, name: &str) {
        if let Some(queues) = self.queues(namespace) {
            queues.hosts.push(namespace, name);
        }
    }

    /// Queues a SecretIncident. Does nothing in a namespace in which the controller does not work.
    pub fn push_incident(&self, namespace: &str, name: &str) {
        if let Some(queues) = self.queues(namespace) {
            queues.incidents.push(namespace, name);
        }
    }

    /// Opens the queues, and queues every existing object.
    pub fn open(&self) {
        for queues in &self.queues {
            queues.secrets.open();
            queues.hosts.open();
            queues.telling.secrets.open();
            queues.telling.hosts.open();
            queues.telling.incidents.open();
            queues.incidents.open();
        }
        self.everything();
    }

    /// Handles a grant that was added, removed or changed.
    pub fn grant(&self) {
        self.cache.grants_changed();
        (self.desires_changed)();
        self.jobs_in.send_if_modified(|known| self.changes_jobs(known));
        self.everything();
    }

    fn changes_jobs(&self, known: &mut BTreeSet<String>) -> bool {
        let now = self.cache.namespaces_with_jobs();
        let changed = *known != now;
        *known = now;
        changed
    }

    /// Queues an object if it has pending notifications.
    fn tell<K: HoldsNotifications>(&self, object: &Guarded<K>, queue: fn(&Queues) -> &Queue<K>) {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        if let (Ok(holder), Some(queues)) = (&object.0, self.queues(&namespace))
            && !holder.pending().is_empty()
        {
            queue(queues).push(&namespace, &object.name_any());
        }
    }

    fn everything(&self) {
        for scope in &self.cache.scopes {
            for secret in scope.secrets.state() {
                self.tell(&secret, |queues| &queues.telling.secrets);
                self.push_secret(&secret.namespace().unwrap_or_default(), &secret.name_any());
            }
            for host in scope.hosts.state() {
                self.tell(&host, |queues| &queues.telling.hosts);
                self.push_host(&host.namespace().unwrap_or_default(), &host.name_any());
            }
            for incident in scope.incidents.state() {
                self.tell(&incident, |queues| &queues.telling.incidents);
                self.push_incident(&incident.namespace().unwrap_or_default(), &incident.name_any());
            }
        }
    }

    /// Handles a change of a ManagedSecret: updates the claims, and queues the objects that it concerns.
    pub fn secret(&self, object: &Guarded<ManagedSecret>, change: Change) {
        match change {
            Change::Listed | Change::Applied => self.cache.claims.note(object),
            Change::Deleted => self.cache.claims.forget(object),
        }
        let Some(changed) = self.whose(object, change) else { return };
        self.tell_if_applied(object, change, |queues| &queues.telling.secrets);
        (self.desires_changed)();
        self.push_all(object, |neighbours| {
            links::of_secret(&object.name_any(), object.0.as_ref().ok(), changed, neighbours)
        });
    }

    /// Handles a change of a DockerHost: queues the objects that it concerns, and updates `jobs_in`.
    pub fn host(&self, object: &Guarded<DockerHost>, change: Change) {
        let Some(changed) = self.whose(object, change) else { return };
        self.tell_if_applied(object, change, |queues| &queues.telling.hosts);
        self.jobs_in.send_if_modified(|known| {
            let namespace = object.namespace().unwrap_or_default();
            let nothing_new = change == Change::Applied && known.contains(&namespace);
            !nothing_new && self.changes_jobs(known)
        });
        self.push_all(object, |neighbours| {
            links::of_host(&object.name_any(), object.0.as_ref().ok(), changed, neighbours)
        });
    }

    /// Handles a change of a SecretIncident: queues the objects that it concerns.
    pub fn incident(&self, object: &Guarded<SecretIncident>, change: Change) {
        let Some(changed) = self.whose(object, change) else { return };
        self.tell_if_applied(object, change, |queues| &queues.telling.incidents);
        self.push_all(object, |neighbours| {
            links::of_incident(&object.name_any(), object.0.as_ref().ok(), changed, neighbours)
        });
    }

    fn tell_if_applied<K: HoldsNotifications>(
        &self,
        object: &Guarded<K>,
        change: Change,
        queue: fn(&Queues) -> &Queue<K>,
    ) {
        if change == Change::Applied {
            self.tell(object, queue);
        }
    }

    /// Marks changes that this process wrote itself and that the watch delivers. `None` if the cache does not have the
    /// object yet.
    fn whose(&self, object: &impl ResourceExt, change: Change) -> Option<links::Change> {
        Some(match change {
            Change::Listed => return None,
            Change::Applied if self.own.wrote(object) => links::Change::Written,
            Change::Applied => links::Change::Applied,
            Change::Deleted => {
                self.own.forget(object);
                links::Change::Deleted
            }
        })
    }

    fn push_all(&self, changed: &impl ResourceExt, concerned: impl FnOnce(&Cached<'_>) -> BTreeSet<Key>) {
        let namespace = changed.namespace().unwrap_or_default();
        for key in concerned(&Cached::new(&self.cache, &namespace)) {
            match key {
                Key::Secret(name) => self.push_secret(&namespace, &name),
                Key::Host(name) => self.push_host(&namespace, &name),
                Key::Incident(name) => self.push_incident(&namespace, &name),
            }
        }
    }

    /// Handles a change of a Job: queues the DockerHost that controls it, if one does.
    pub fn job(&self, job: &PartialObjectMeta<Job>) {
        let owner = job.owner_references().iter().find(|owner| {
            owner.controller == Some(true)
                && owner.kind == "DockerHost"
                && owner.api_version.split('/').next() == Some(GROUP)
        });
        if let Some(owner) = owner {
            self.push_host(&job.namespace().unwrap_or_default(), &owner.name);
        }
    }

    fn queues(&self, namespace: &str) -> Option<&Queues> {
        self.queues.iter().find(|queues| queues.namespace.as_deref().is_none_or(|own| own == namespace))
    }
}

/// The cached objects of one namespace, each kind read when it is first needed.
struct Cached<'a> {
    cache: &'a Cache,
    namespace: &'a str,
    secrets: OnceCell<Vec<Arc<Guarded<ManagedSecret>>>>,
    hosts: OnceCell<Vec<Arc<Guarded<DockerHost>>>>,
    incidents: OnceCell<Vec<Arc<Guarded<SecretIncident>>>>,
}

impl<'a> Cached<'a> {
    fn new(cache: &'a Cache, namespace: &'a str) -> Self {
        let (secrets, hosts, incidents) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { cache, namespace, secrets, hosts, incidents }
    }
}

impl Neighbours for Cached<'_> {
    fn secrets(&self) -> impl Iterator<Item = &ManagedSecret> {
        decoded(self.secrets.get_or_init(|| self.cache.secrets(self.namespace)))
    }

    fn hosts(&self) -> impl Iterator<Item = &DockerHost> {
        decoded(self.hosts.get_or_init(|| self.cache.hosts(self.namespace)))
    }

    fn incidents(&self) -> impl Iterator<Item = &SecretIncident> {
        decoded(self.incidents.get_or_init(|| self.cache.incidents(self.namespace)))
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::cache::Scope;
    use crate::cluster::mirror::mirror;
    use crate::process::queue::{Requests, queue};

    fn host() -> DockerHost {
        object(json!({
            "kind": "DockerHost",
            "metadata": {"name": "web", "namespace": "prod"},
            "spec": {
                "ssh": {
                    "host": "web.example", "user": "deploy", "keySecretRef": {"name": "web-key", "key": "id.pem"},
                    "knownHosts": []
                },
                "docker": {"composeProject": "app", "sudo": true},
                "deploy": {"script": "deploy.sh"},
                "verify": {"script": "curl -sf https://localhost/"}
            }
        }))
    }

    /// A secret that no longer names a host, while its rotation is under way on one.
    fn secret_that_left_its_host() -> ManagedSecret {
        object(json!({
            "kind": "ManagedSecret",
            "metadata": {"name": "token", "namespace": "prod", "uid": "u", "resourceVersion": "7"},
            "spec": {
                "ssm": {"parameters": [{"path": "/app/TOKEN"}]},
                "generate": {"hex": {"bytes": 32}},
                "rotation": {"period": "90d"}
            },
            "status": {
                "rotation": {
                    "id": 1, "trigger": "Period", "step": "Deploy", "startedAt": "1970-01-01T00:00:00Z"
                },
                "hosts": [{"name": "web", "proven": false}]
            }
        }))
    }

    fn object<K: DeserializeOwned>(mut json: Value) -> K {
        json["apiVersion"] = "keyturn.dev/v1alpha1".into();
        serde_json::from_value(json).unwrap()
    }

    struct Rig {
        links: Links,
        secrets: Requests<ManagedSecret>,
        hosts: Requests<DockerHost>,
    }

    /// Creates links over a cache with this secret.
    fn rig(known: &ManagedSecret) -> Rig {
        let (cached, mut writer) = mirror();
        writer.apply(&Event::Init);
        writer.apply(&Event::InitApply(Guarded(Ok(known.clone()))));
        writer.apply(&Event::InitDone);
        let scope = Scope { namespace: None, secrets: cached, hosts: mirror().0, incidents: mirror().0 };
        let (secrets, secret_requests) = queue();
        let (hosts, host_requests) = queue();
        secrets.open();
        hosts.open();
        let telling = Telling { secrets: queue().0, hosts: queue().0, incidents: queue().0 };
        let queues = Queues { namespace: None, secrets, hosts, telling, incidents: queue().0 };
        let links = Links {
            cache: Cache::new(vec![scope], mirror().0),
            queues: vec![queues],
            own: OwnWrites::default(),
            desires_changed: Arc::new(|| {}),
            jobs_in: watch::Sender::default(),
        };
        Rig { links, secrets: secret_requests, hosts: host_requests }
    }

    #[test]
    fn whoever_a_change_concerns_comes_into_a_queue_and_a_write_of_this_process_does_not_concern_itself() {
        let moved = secret_that_left_its_host();
        let mut rig = rig(&moved);
        rig.links.secret(&Guarded(Ok(moved.clone())), Change::Applied);
        assert_eq!(rig.hosts.try_recv().unwrap().name, "web");
        assert_eq!(rig.secrets.try_recv().unwrap().name, "token");
        rig.links.host(&Guarded(Ok(host())), Change::Applied);
        assert_eq!(rig.hosts.try_recv().unwrap().name, "web");
        assert_eq!(rig.secrets.try_recv().unwrap().name, "token");
        rig.links.own.remember(&moved);
        rig.links.secret(&Guarded(Ok(moved)), Change::Applied);
        assert_eq!(rig.hosts.try_recv().unwrap().name, "web");
        assert!(rig.secrets.try_recv().is_err(), "this very version was written here");
    }
}
