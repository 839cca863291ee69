//! keyturn's objects: the API server, and the caches in front of it. ManagedSecrets are found by their name or by their
//! claims.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::grants::Grants;
use keyturn_api::time::to_kubernetes;
use keyturn_api::{DockerHost, FINALIZER, ManagedSecret, ROTATE_REQUESTED_AT, RotationGrant, SecretIncident};
use keyturn_reconcile::managed_secret::claims::{self, Claim};
use keyturn_reconcile::objects::{Event, Hosts, ObjectError, Objects, Source, Subject};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::world::{NAMESPACE, Planted, REGIONS, World, name, place};

pub(crate) struct Cluster {
    pub secrets: HashMap<String, ManagedSecret>,
    pub grants: Arc<Grants>,
    /// The names of the objects by claim. Specs never change here.
    claimants: HashMap<Claim, Vec<String>>,
    hosts: Vec<DockerHost>,
    incidents: Vec<SecretIncident>,
    revision: u64,
}

fn object<K: DeserializeOwned>(kind: &str, name: &str, at: DateTime<Utc>, spec: &Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": kind,
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "generation": 1,
            "creationTimestamp": to_kubernetes(at), "resourceVersion": "1",
        },
        "spec": spec,
    }))
    .unwrap()
}

fn secrets(size: usize, at: DateTime<Utc>) -> HashMap<String, ManagedSecret> {
    let spec = json!({
        "ssm": {"parameters": [{"path": "/shop/"}]}, "generate": {"hex": {"bytes": 32}}, "rotation": {"period": "90d"},
    });
    let one: ManagedSecret = object("ManagedSecret", "one", at, &spec);
    let mut secrets = HashMap::with_capacity(size);
    for number in 0..size {
        let (name, (region, path)) = (name(number), place(number));
        let mut secret = one.clone();
        secret.metadata.name = Some(name.clone());
        secret.metadata.uid = Some(format!("uid-{name}"));
        secret.spec.ssm.region = Some(region.to_owned());
        secret.spec.ssm.parameters[0].path = path;
        secrets.insert(name, secret);
    }
    secrets
}

impl Cluster {
    /// Creates `size` ManagedSecrets that were applied an hour ago, and the same number of every other kind as always.
    pub(crate) fn of(size: usize, now: DateTime<Utc>) -> Self {
        let at = now - TimeDelta::hours(1);
        let secrets = secrets(size, at);
        let mut claimants: HashMap<Claim, Vec<String>> = HashMap::new();
        for secret in secrets.values() {
            for claim in claims::of(secret) {
                claimants.entry(claim).or_default().push(secret.name_any());
            }
        }
        let granted = json!([{"prefix": "/shop/", "regions": REGIONS}]);
        let grant = json!({"namespaces": [NAMESPACE], "parameters": granted});
        let grant: RotationGrant = object("RotationGrant", "shop", at, &grant);
        let host = json!({
            "ssh": {
                "host": "web.example", "user": "deploy", "keySecretRef": {"name": "key", "key": "id"}, "knownHosts": [],
            },
            "docker": {"composeProject": "shop"}, "deploy": {"script": "true"},
        });
        let incident = json!({"managedSecretRefs": [{"name": "another"}], "reportedAt": to_kubernetes(at)});
        Self {
            secrets,
            grants: Arc::new([grant].into_iter().collect()),
            claimants,
            hosts: vec![object("DockerHost", "web", at, &host)],
            incidents: vec![object("SecretIncident", "leak", at, &incident)],
            revision: 1,
        }
    }

    /// Sets the annotation as a person does.
    pub(crate) fn request(&mut self, name: &str) {
        let secret = self.secrets.get_mut(name).expect("it was applied");
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(ROTATE_REQUESTED_AT.to_owned(), "now".to_owned());
        self.revision += 1;
        secret.metadata.resource_version = Some(self.revision.to_string());
    }

    /// Refuses the write if somebody has written since the read.
    fn write(
        &mut self,
        given: &ManagedSecret,
        change: impl FnOnce(&mut ManagedSecret),
    ) -> Result<ManagedSecret, ObjectError> {
        let name = given.name_any();
        let known = self.secrets.get_mut(&name).ok_or_else(|| ObjectError::Gone(name.clone()))?;
        if known.metadata.resource_version != given.metadata.resource_version {
            return Err(ObjectError::Conflict(name));
        }
        change(known);
        self.revision += 1;
        known.metadata.resource_version = Some(self.revision.to_string());
        Ok(known.clone())
    }

    /// Returns the other objects that claim something that this one claims.
    fn rivals(&self, object: &ManagedSecret, planted: Planted) -> Vec<ManagedSecret> {
        let own = object.name_any();
        let named: BTreeSet<&String> = match planted {
            Planted::Nothing => {
                claims::of(object).filter_map(|claim| self.claimants.get(&claim)).flatten().collect()
            }
            Planted::Scan => self.secrets.keys().collect(),
        };
        let others = named.into_iter().filter(|name| **name != own);
        others.filter_map(|name| self.secrets.get(name)).cloned().collect()
    }
}

#[async_trait]
impl Objects for World {
    async fn managed_secret(
        &self,
        _: &str,
        name: &str,
        source: Source,
    ) -> Result<Option<ManagedSecret>, ObjectError> {
        let mut state = self.lock();
        if source == Source::ApiServer {
            state.tally.asks_api("get ManagedSecret");
        }
        let found = state.cluster.secrets.get(name).cloned();
        state.tally.gives("ManagedSecrets", usize::from(found.is_some()));
        Ok(found)
    }

    async fn docker_host(&self, _: &str, _: &str) -> Result<Option<DockerHost>, ObjectError> {
        unreachable!("no secret here is reached through a host")
    }

    async fn secret_incident(&self, _: &str, _: &str) -> Result<Option<SecretIncident>, ObjectError> {
        unreachable!("a secret is decided on all incidents of its namespace")
    }

    async fn secret_incidents(&self, _: &str, source: Source) -> Result<Vec<SecretIncident>, ObjectError> {
        let mut state = self.lock();
        if source == Source::ApiServer {
            state.tally.asks_api("list SecretIncidents");
        }
        let incidents = state.cluster.incidents.clone();
        state.tally.gives("SecretIncidents", incidents.len());
        Ok(incidents)
    }

    async fn write_incident_status(&self, _: &SecretIncident) -> Result<SecretIncident, ObjectError> {
        unreachable!("a secret writes no incident's status")
    }

    async fn grants(&self, source: Source) -> Result<Arc<Grants>, ObjectError> {
        let mut state = self.lock();
        if source == Source::ApiServer {
            state.tally.asks_api("list RotationGrants");
        }
        state.tally.gives("all RotationGrants", 1);
        Ok(state.cluster.grants.clone())
    }

    async fn managed_secrets(&self, _: &str) -> Result<Vec<ManagedSecret>, ObjectError> {
        let mut state = self.lock();
        let secrets: Vec<ManagedSecret> = state.cluster.secrets.values().cloned().collect();
        state.tally.gives("ManagedSecrets", secrets.len());
        Ok(secrets)
    }

    async fn rivals(&self, object: &ManagedSecret) -> Result<Vec<ManagedSecret>, ObjectError> {
        let mut state = self.lock();
        let rivals = state.cluster.rivals(object, state.planted);
        state.tally.gives("ManagedSecrets", rivals.len());
        Ok(rivals)
    }

    async fn docker_hosts(&self, _: &str, source: Source) -> Result<Hosts, ObjectError> {
        let mut state = self.lock();
        if source == Source::ApiServer {
            state.tally.asks_api("list DockerHosts");
        }
        let decoded = state.cluster.hosts.clone();
        state.tally.gives("DockerHosts", decoded.len());
        Ok(Hosts { decoded, undecodable: Vec::new() })
    }

    async fn secret_labels(&self, _: &str, _: &str) -> Result<Option<BTreeMap<String, String>>, ObjectError> {
        unreachable!("no secret here needs another one to log in with")
    }

    async fn write_secret_status(&self, object: &ManagedSecret) -> Result<ManagedSecret, ObjectError> {
        let mut state = self.lock();
        state.tally.asks_api("replace status");
        state.tally.gives("ManagedSecrets", 1);
        state.cluster.write(object, |known| known.status.clone_from(&object.status))
    }

    async fn write_host_status(&self, _: &DockerHost) -> Result<DockerHost, ObjectError> {
        unreachable!("a secret writes no host's status")
    }

    async fn set_finalizer(
        &self,
        object: &ManagedSecret,
        present: bool,
    ) -> Result<ManagedSecret, ObjectError> {
        let mut state = self.lock();
        state.tally.asks_api("patch finalizers");
        state.tally.gives("ManagedSecrets", 1);
        let finalizers = present.then(|| vec![FINALIZER.to_owned()]);
        state.cluster.write(object, |known| known.metadata.finalizers = finalizers)
    }

    async fn write_event(&self, _: Subject<'_>, _: Event) {
        self.lock().tally.asks_api("create Event");
    }
}
