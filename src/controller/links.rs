//! What a change of one object means to others: who has to be looked at again.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use k8s_openapi::api::batch::v1::Job;
use kube::api::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use super::cache::{Cache, Guarded};
use super::docker_host::hosts_of;
use super::kube_objects::OwnWrites;
use super::notifications::Announces;
use super::queue::Queue;
use super::watches::Change;
use crate::api::{DockerHost, GROUP, ManagedSecret, SecretIncident, time};
use crate::deploy::wish::names_host;
use crate::incident::scope;

/// The queues of one namespace, or of all.
#[derive(Clone)]
pub struct Queues {
    pub namespace: Option<String>,
    pub secrets: Queue<ManagedSecret>,
    pub hosts: Queue<DockerHost>,
    pub telling: Telling,
    pub incidents: Queue<SecretIncident>,
}

/// The queues of objects with something to tell.
#[derive(Clone)]
pub struct Telling {
    pub secrets: Queue<ManagedSecret>,
    pub hosts: Queue<DockerHost>,
    pub incidents: Queue<SecretIncident>,
}

/// Turns changes into entries of queues.
#[derive(Clone)]
pub struct Links {
    pub cache: Cache,
    pub queues: Vec<Queues>,
    pub own: OwnWrites,
    /// Called when the set of parameters that ManagedSecrets are about may have changed.
    pub desires_changed: Arc<dyn Fn() + Send + Sync>,
    /// Namespaces whose Jobs are to be watched.
    pub jobs_in: watch::Sender<BTreeSet<String>>,
}

impl Links {
    pub fn push_secret(&self, namespace: &str, name: &str) {
        if let Some(queues) = self.queues(namespace) {
            queues.secrets.push(namespace, name);
        }
    }

    pub fn push_host(&self, namespace: &str, name: &str) {
        if let Some(queues) = self.queues(namespace) {
            queues.hosts.push(namespace, name);
        }
    }

    pub fn push_incident(&self, namespace: &str, name: &str) {
        if let Some(queues) = self.queues(namespace) {
            queues.incidents.push(namespace, name);
        }
    }

    /// Lets the queues take entries, and puts in everything that exists: the most overdue secrets first.
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

    /// A grant has come, gone or changed.
    pub fn grant(&self) {
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

    /// Queues an object that has something to tell.
    fn tell<K: Announces>(&self, object: &Guarded<K>, queue: fn(&Queues) -> &Queue<K>) {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        if let (Ok(announcing), Some(queues)) = (&object.0, self.queues(&namespace))
            && !announcing.pending().is_empty()
        {
            queue(queues).push(&namespace, &object.name_any());
        }
    }

    fn everything(&self) {
        for scope in &self.cache.scopes {
            let mut secrets = scope.secrets.state();
            secrets.sort_by_key(|secret| due(secret));
            for secret in secrets {
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

    pub fn secret(&self, object: &Guarded<ManagedSecret>, change: Change) {
        let namespace = object.namespace().unwrap_or_default();
        if change == Change::Applied {
            self.tell(object, |queues| &queues.telling.secrets);
        }
        (self.desires_changed)();
        // Hosts run what the secret's status says is published; deleted ones no longer ask for anything.
        if let Ok(secret) = &object.0 {
            for host in hosts_of(secret) {
                self.push_host(&namespace, &host);
            }
            for incident in self.cache.incidents(&namespace) {
                if incident.0.as_ref().is_ok_and(|incident| scope::concerns(incident, secret)) {
                    self.push_incident(&namespace, &incident.name_any());
                }
            }
        }
        match change {
            Change::Applied if self.own.wrote(object) => {}
            Change::Applied => self.push_secret(&namespace, &object.name_any()),
            Change::Deleted => {
                self.own.forget(object);
                // One that waited for the parameters of this one may have them now.
                for other in self.cache.secrets(&namespace) {
                    if shares_a_parameter(object, &other) {
                        self.push_secret(&namespace, &other.name_any());
                    }
                }
            }
        }
    }

    pub fn host(&self, object: &Guarded<DockerHost>, change: Change) {
        let namespace = object.namespace().unwrap_or_default();
        let name = object.name_any();
        if change == Change::Applied {
            self.tell(object, |queues| &queues.telling.hosts);
        }
        self.jobs_in.send_if_modified(|known| {
            let nothing_new = change == Change::Applied && known.contains(&namespace);
            !nothing_new && self.changes_jobs(known)
        });
        for secret in self.cache.secrets(&namespace) {
            if secret.0.as_ref().is_ok_and(|secret| names_host(secret, &name)) {
                self.push_secret(&namespace, &secret.name_any());
            }
        }
        // They take over the log lines that it collected for them.
        if object.0.as_ref().is_ok_and(|host| host.status.iter().any(|status| !status.access_logs.is_empty()))
        {
            for incident in self.cache.incidents(&namespace) {
                self.push_incident(&namespace, &incident.name_any());
            }
        }
        for other in self.cache.hosts(&namespace) {
            if other.0.as_ref().is_ok_and(|other| other.spec.deploy.after.contains(&name)) {
                self.push_host(&namespace, &other.name_any());
            }
        }
        match change {
            Change::Applied if self.own.wrote(object) => {}
            Change::Applied => self.push_host(&namespace, &name),
            Change::Deleted => self.own.forget(object),
        }
    }

    pub fn incident(&self, object: &Guarded<SecretIncident>, change: Change) {
        let namespace = object.namespace().unwrap_or_default();
        if change == Change::Applied {
            self.tell(object, |queues| &queues.telling.incidents);
        }
        // What it says of containment makes hosts collect log lines.
        if let Ok(incident) = &object.0 {
            for secret in self.cache.secrets(&namespace) {
                if let Ok(secret) = &secret.0
                    && secret.spec.access_log.is_some()
                    && scope::concerns(incident, secret)
                {
                    hosts_of(secret).iter().for_each(|host| self.push_host(&namespace, host));
                }
            }
        }
        if change == Change::Applied && self.own.wrote(object) {
            return;
        }
        if let Ok(incident) = &object.0 {
            for secret in self.cache.secrets(&namespace) {
                if secret.0.as_ref().is_ok_and(|secret| scope::concerns(incident, secret)) {
                    self.push_secret(&namespace, &secret.name_any());
                }
            }
        }
        match change {
            Change::Applied => self.push_incident(&namespace, &object.name_any()),
            Change::Deleted => self.own.forget(object),
        }
    }

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

/// When a secret's next rotation may start, as far as its status says so.
pub fn due(secret: &Guarded<ManagedSecret>) -> Option<DateTime<Utc>> {
    time::from_text(secret.0.as_ref().ok()?.status.as_ref()?.next_rotation_time.as_ref()?)
}

fn shares_a_parameter(one: &Guarded<ManagedSecret>, other: &Guarded<ManagedSecret>) -> bool {
    let (Ok(one), Ok(other)) = (&one.0, &other.0) else { return false };
    let theirs = &other.spec.ssm.parameters;
    one.spec.ssm.parameters.iter().any(|mine| theirs.iter().any(|their| their.path == mine.path))
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::controller::cache::Scope;
    use crate::controller::queue::{Requests, queue};

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

    /// It names no host any more, and its rotation is under way on one.
    fn secret_that_left_its_host() -> ManagedSecret {
        object(json!({
            "kind": "ManagedSecret",
            "metadata": {"name": "token", "namespace": "prod"},
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

    /// Links over a cache that knows this secret.
    fn rig(known: &ManagedSecret) -> Rig {
        let (cached, mut writer) = reflector::store();
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(DeserializeGuard(Ok(known.clone()))));
        writer.apply_watcher_event(&Event::InitDone);
        let scope = Scope {
            namespace: None,
            secrets: cached,
            hosts: reflector::store().0,
            incidents: reflector::store().0,
        };
        let (secrets, secret_requests) = queue();
        let (hosts, host_requests) = queue();
        secrets.open();
        hosts.open();
        let telling = Telling { secrets: queue().0, hosts: queue().0, incidents: queue().0 };
        let queues = Queues { namespace: None, secrets, hosts, telling, incidents: queue().0 };
        let links = Links {
            cache: Cache { scopes: vec![scope], grants: reflector::store().0 },
            queues: vec![queues],
            own: OwnWrites::default(),
            desires_changed: Arc::new(|| {}),
            jobs_in: watch::Sender::default(),
        };
        Rig { links, secrets: secret_requests, hosts: host_requests }
    }

    #[test]
    fn a_host_that_left_the_spec_in_mid_rotation_and_its_secret_are_looked_at_when_the_other_changes() {
        let moved = secret_that_left_its_host();
        let mut rig = rig(&moved);
        rig.links.secret(&DeserializeGuard(Ok(moved)), Change::Applied);
        assert_eq!(rig.hosts.try_recv().unwrap().name, "web");
        assert_eq!(rig.secrets.try_recv().unwrap().name, "token");
        rig.links.host(&DeserializeGuard(Ok(host())), Change::Applied);
        assert_eq!(rig.secrets.try_recv().unwrap().name, "token");
    }
}
