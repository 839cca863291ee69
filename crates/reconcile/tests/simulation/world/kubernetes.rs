//! The API server: objects with resourceVersion, generation, finalizers and deletion, Events, and a cache that may be
//! slightly stale.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use keyturn_api::consent::{self, Purpose};
use keyturn_api::docker_host::{HostParameter, Proof};
use keyturn_api::grants::Grants;
use keyturn_api::time::to_kubernetes;
use keyturn_api::{DockerHost, FINALIZER, ManagedSecret, ROTATE_REQUESTED_AT, RotationGrant, SecretIncident};
use keyturn_reconcile::incident::reading::Query;
use keyturn_reconcile::incident::trail::{Page, Trail, TrailError};
use keyturn_reconcile::links::{self, Change, Neighbours};
use keyturn_reconcile::managed_secret::claims::{self, Claim};
use keyturn_reconcile::objects::{Event, Hosts, ObjectError, Objects, Source, Subject};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::ssm::LISTED_AFTER;
use super::{Answer, At, KEY, Key, NAMESPACE, STALENESS, Sabotage, Sent, State, World};
use crate::faults::Kind;
use crate::invariants;

#[derive(Clone, Default)]
struct Objs {
    secrets: BTreeMap<String, Arc<ManagedSecret>>,
    hosts: BTreeMap<String, Arc<DockerHost>>,
}

#[derive(Default)]
pub(crate) struct Cluster {
    objects: Objs,
    pub grants: Vec<RotationGrant>,
    /// Grants that cannot be decoded.
    pub unreadable_grants: Vec<DynamicObject>,
    pub incidents: Vec<SecretIncident>,
    /// Objects that are reconciled when the next listing of Parameter Store shows a change.
    pub wake_later: Vec<(At, Key)>,
    pub events: Vec<(String, Event)>,
    revision: u64,
    before: Option<(At, Objs)>,
    lag: Option<(At, Objs)>,
    grants_before: Option<(At, Arc<Grants>)>,
    grants_lag: Option<(At, Arc<Grants>)>,
    /// The last version of each secret that the leading process has written itself.
    written: BTreeMap<String, (usize, u64)>,
    /// True if the cache shows no host.
    pub hides_hosts: bool,
    /// Labels of the Secrets with SSH keys, by name.
    pub key_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// Hosts of which only the name can be decoded.
    pub undecodable_hosts: BTreeSet<String>,
    /// The incidents that the cache shows, if they differ from the real ones.
    pub shown_incidents: Option<Vec<SecretIncident>>,
}

impl Cluster {
    pub(crate) fn secret(&self, name: &str) -> Option<&ManagedSecret> {
        self.objects.secrets.get(name).map(Arc::as_ref)
    }

    pub(crate) fn host(&self, name: &str) -> Option<&DockerHost> {
        self.objects.hosts.get(name).map(Arc::as_ref)
    }

    pub(crate) fn secrets(&self) -> impl Iterator<Item = &ManagedSecret> {
        self.objects.secrets.values().map(Arc::as_ref)
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &DockerHost> {
        self.objects.hosts.values().map(Arc::as_ref)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let secrets = self.objects.secrets.keys().cloned().map(Key::Secret);
        let hosts = self.objects.hosts.keys().cloned().map(Key::Host);
        let incidents = self.incidents.iter().map(|incident| Key::Incident(incident.name_any()));
        secrets.chain(hosts).chain(incidents).collect()
    }

    pub(crate) fn empty_every_status(&mut self, touched: &mut BTreeSet<Key>) {
        for secret in self.objects.secrets.values_mut() {
            self.revision += 1;
            let secret = Arc::make_mut(secret);
            secret.status = None;
            secret.metadata.resource_version = Some(self.revision.to_string());
        }
        for host in self.objects.hosts.values_mut() {
            self.revision += 1;
            let host = Arc::make_mut(host);
            host.status = None;
            host.metadata.resource_version = Some(self.revision.to_string());
        }
        for incident in &mut self.incidents {
            self.revision += 1;
            incident.status = None;
            incident.metadata.resource_version = Some(self.revision.to_string());
        }
        touched.extend(self.keys());
    }

    pub(crate) fn lag_behind_the_last_change(&mut self, now: At) {
        if let Some((changed, before)) = &self.before
            && *changed + STALENESS > now
        {
            let until = *changed + STALENESS;
            self.lag = Some((until, before.clone()));
            // The watch delivers the change at that time.
            self.wake_later.extend(self.keys().into_iter().map(|key| (until, key)));
        }
        if let Some((changed, before)) = &self.grants_before
            && *changed + STALENESS > now
        {
            let until = *changed + STALENESS;
            self.grants_lag = Some((until, before.clone()));
            self.wake_later.extend(self.keys().into_iter().map(|key| (until, key)));
        }
    }

    /// Sets the grants. Caches may show the previous ones for a while.
    pub(crate) fn give(&mut self, now: At, grants: Vec<RotationGrant>, unreadable: Vec<DynamicObject>) {
        self.grants_before = Some((now, Arc::new(self.given())));
        self.grants = grants;
        self.unreadable_grants = unreadable;
    }

    fn cached_grants(&self, now: At) -> Arc<Grants> {
        match &self.grants_lag {
            Some((until, before)) if now < *until => before.clone(),
            _ => Arc::new(self.given()),
        }
    }

    /// Returns the secret as a cache shows it, unless the cache is older than this process's own last write.
    fn cached_secret(&self, name: &str, process: usize, now: At) -> Option<&ManagedSecret> {
        let cached = self.cached(now).secrets.get(name)?;
        let version = cached.metadata.resource_version.as_ref()?.parse::<u64>().ok()?;
        let own =
            self.written.get(name).filter(|(writer, _)| *writer == process).map(|(_, version)| *version);
        own.is_none_or(|own| own <= version).then_some(cached)
    }

    /// Returns the grants as the API server lists them.
    pub(crate) fn given(&self) -> Grants {
        let mut given = Grants::of(self.unreadable_grants.clone());
        given.extend(self.grants.iter().cloned());
        given
    }

    fn is_shown(&self, host: &DockerHost) -> bool {
        !self.hides_hosts && !self.undecodable_hosts.contains(&host.name_any())
    }

    /// True if the last change is so recent that a cache may not show it.
    pub(crate) fn may_lag(&self, now: At) -> bool {
        self.before.as_ref().is_some_and(|(changed, _)| *changed + STALENESS > now)
    }

    /// Returns the objects that a cache of watches shows.
    fn cached(&self, now: At) -> &Objs {
        match &self.lag {
            Some((until, before)) if now < *until => before,
            _ => &self.objects,
        }
    }
}

impl Neighbours for Cluster {
    fn secrets(&self) -> impl Iterator<Item = &ManagedSecret> {
        self.objects.secrets.values().map(Arc::as_ref)
    }

    fn hosts(&self) -> impl Iterator<Item = &DockerHost> {
        self.objects.hosts.values().map(Arc::as_ref).filter(|host| self.is_shown(host))
    }

    fn incidents(&self) -> impl Iterator<Item = &SecretIncident> {
        self.incidents.iter()
    }
}

/// Returns an object as a person applies it: metadata and spec, in the format of YAML.
fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, annotations: Value, spec: Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "spec": spec,
    }))
    .unwrap_or_else(|error| panic!("{kind} {name} of the scenario: {error}"))
}

impl State {
    fn changing(&mut self) -> u64 {
        self.cluster.before = Some((self.now, self.cluster.objects.clone()));
        self.cluster.revision += 1;
        self.cluster.revision
    }

    /// Queues the objects that a change of a ManagedSecret concerns, as its watch does.
    fn secret_changed(&mut self, name: &str, change: Change) {
        let concerned = links::of_secret(name, self.cluster.secret(name), change, &self.cluster);
        self.touched.extend(concerned);
    }

    fn host_changed(&mut self, name: &str, change: Change) {
        let concerned = links::of_host(name, self.cluster.host(name), change, &self.cluster);
        self.touched.extend(concerned);
    }

    fn incident_changed(&mut self, name: &str, change: Change) {
        let incident = self.cluster.incidents.iter().find(|incident| incident.name_any() == name);
        let concerned = links::of_incident(name, incident, change, &self.cluster);
        self.touched.extend(concerned);
    }

    /// Distinguishes the leader's own writes, which are not news to it, from those of others.
    fn written_by(&self, sent: Sent) -> Change {
        if sent.process == self.leader { Change::Written } else { Change::Applied }
    }

    /// Sets or removes the label of the Secret with the SSH key, as a person does.
    pub(crate) fn label_key(&mut self, purpose: Option<Purpose>) {
        let labels = purpose.map(|purpose| (consent::USABLE_BY.to_owned(), purpose.as_str().to_owned()));
        self.cluster.key_labels.insert(KEY.to_owned(), labels.into_iter().collect());
    }

    /// Applies a ManagedSecret as a person does: creates it, or changes its spec and annotations.
    pub(crate) fn apply_secret(&mut self, name: &str, annotations: Value, spec: Value) {
        let mut applied: ManagedSecret = object("ManagedSecret", name, annotations, spec);
        let revision = self.changing();
        match self.cluster.objects.secrets.get(name) {
            Some(known) => {
                let mut changed = ManagedSecret::clone(known);
                if changed.spec != applied.spec {
                    changed.metadata.generation = changed.metadata.generation.map(|g| g + 1);
                }
                changed.metadata.annotations.get_or_insert_default().extend(applied.annotations().clone());
                changed.spec = applied.spec;
                applied = changed;
            }
            None => {
                applied.metadata.uid = Some(format!("uid-{revision}"));
                applied.metadata.generation = Some(1);
                applied.metadata.creation_timestamp = Some(to_kubernetes(self.now));
                self.cluster.wake_later.push((self.now + LISTED_AFTER, Key::Secret(name.to_owned())));
            }
        }
        applied.metadata.resource_version = Some(revision.to_string());
        self.cluster.objects.secrets.insert(name.to_owned(), Arc::new(applied));
        self.secret_changed(name, Change::Applied);
    }

    /// Edits the spec as a person does.
    pub(crate) fn edit_secret(&mut self, name: &str, edit: impl FnOnce(&mut ManagedSecret)) {
        let Some(mut secret) = self.cluster.secret(name).cloned() else { return };
        let before = secret.spec.clone();
        edit(&mut secret);
        if secret.spec != before {
            secret.metadata.generation = secret.metadata.generation.map(|g| g + 1);
        }
        let revision = self.changing();
        secret.metadata.resource_version = Some(revision.to_string());
        self.cluster.objects.secrets.insert(name.to_owned(), Arc::new(secret));
        self.secret_changed(name, Change::Applied);
    }

    pub(crate) fn request(&mut self, name: &str, token: &str) {
        let seen =
            |secret: &ManagedSecret| secret.status.as_ref().is_some_and(|s| s.observed_generation.is_some());
        self.memory.request_forgotten |= self.cluster.secret(name).is_some_and(|secret| !seen(secret));
        self.edit_secret(name, |secret| {
            secret.annotations_mut().insert(ROTATE_REQUESTED_AT.to_owned(), token.to_owned());
        });
    }

    /// Deletes the object as `kubectl delete` does; finalizers hold it.
    pub(crate) fn delete_secret(&mut self, name: &str) {
        let Some(mut secret) = self.cluster.secret(name).cloned() else { return };
        let revision = self.changing();
        if secret.finalizers().is_empty() {
            self.secret_changed(name, Change::Deleted);
            self.cluster.objects.secrets.remove(name);
            return;
        }
        if secret.metadata.deletion_timestamp.is_none() {
            secret.metadata.deletion_timestamp = Some(to_kubernetes(self.now));
            secret.metadata.generation = secret.metadata.generation.map(|g| g + 1);
            secret.metadata.resource_version = Some(revision.to_string());
            self.cluster.objects.secrets.insert(name.to_owned(), Arc::new(secret));
            self.secret_changed(name, Change::Applied);
        }
    }

    pub(crate) fn apply_host(&mut self, name: &str, spec: Value) {
        let mut host: DockerHost = object("DockerHost", name, json!({}), spec);
        let revision = self.changing();
        host.metadata.uid = Some(format!("uid-{revision}"));
        host.metadata.generation = Some(1);
        host.metadata.creation_timestamp = Some(to_kubernetes(self.now));
        host.metadata.resource_version = Some(revision.to_string());
        self.cluster.objects.hosts.insert(name.to_owned(), Arc::new(host));
        self.host_changed(name, Change::Applied);
    }

    /// Edits the spec of a host as a person does.
    pub(crate) fn edit_host(&mut self, name: &str, edit: impl FnOnce(&mut DockerHost)) {
        let Some(mut host) = self.cluster.host(name).cloned() else { return };
        edit(&mut host);
        host.metadata.generation = host.metadata.generation.map(|g| g + 1);
        let revision = self.changing();
        host.metadata.resource_version = Some(revision.to_string());
        self.cluster.objects.hosts.insert(name.to_owned(), Arc::new(host));
        self.host_changed(name, Change::Applied);
    }

    pub(crate) fn delete_host(&mut self, name: &str) {
        self.changing();
        self.host_changed(name, Change::Deleted);
        self.cluster.objects.hosts.remove(name);
    }

    /// Reports, as a person does, that somebody may have read these secrets up to now.
    pub(crate) fn suspect(&mut self, name: &str, selection: Value) {
        let now = to_kubernetes(self.now);
        self.suspect_since(name, selection, &serde_json::to_value(&now).unwrap());
    }

    /// Applies an incident with another time of report.
    pub(crate) fn suspect_since(&mut self, name: &str, selection: Value, reported_at: &Value) {
        let mut spec = json!({"reportedAt": reported_at});
        spec.as_object_mut().unwrap().extend(selection.as_object().unwrap().clone());
        let mut incident: SecretIncident = object("SecretIncident", name, json!({}), spec);
        let revision = self.changing();
        incident.metadata.resource_version = Some(revision.to_string());
        incident.metadata.generation = Some(1);
        incident.metadata.creation_timestamp = Some(to_kubernetes(self.now));
        self.cluster.incidents.retain(|known| known.name_any() != name);
        self.cluster.incidents.push(incident);
        self.incident_changed(name, Change::Applied);
    }

    pub(crate) fn delete_incidents(&mut self) {
        self.changing();
        let names: Vec<String> = self.cluster.incidents.iter().map(ResourceExt::name_any).collect();
        for name in names {
            self.incident_changed(&name, Change::Deleted);
        }
        self.cluster.incidents.clear();
    }

    pub(crate) fn set_grants(&mut self, grants: &[(&str, Value)]) {
        self.changing();
        let grant = |(name, spec): &(&str, Value)| {
            serde_json::from_value(json!({
                "apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationGrant",
                "metadata": {"name": name}, "spec": spec,
            }))
            .unwrap()
        };
        let unreadable = self.cluster.unreadable_grants.clone();
        self.cluster.give(self.now, grants.iter().map(grant).collect(), unreadable);
        let keys = self.cluster.keys();
        self.touched.extend(keys);
    }

    /// Loses the cluster. Later the script applies people's YAML to an empty one.
    pub(crate) fn lose_all_objects(&mut self) {
        self.changing();
        self.cluster.objects = Objs::default();
        self.jobs.clear();
    }
}

impl Answer for ObjectError {
    fn refused(what: &str) -> Self {
        Self::Api { object: what.to_owned(), detail: "503: try again".into() }
    }

    fn rejected(what: &str) -> Self {
        Self::Api { object: what.to_owned(), detail: "403: forbidden".into() }
    }

    fn no_answer(what: &str) -> Self {
        Self::Api { object: what.to_owned(), detail: "timed out".into() }
    }
}

/// Returns the object for a write, unless somebody has written it in the meantime.
fn current<'a, K: ResourceExt>(
    known: Option<&'a K>,
    given: &K,
    state_ignores_conflicts: bool,
) -> Result<&'a K, ObjectError> {
    let name = given.name_any();
    let known = known.ok_or_else(|| ObjectError::Gone(name.clone()))?;
    if known.uid() != given.uid() {
        return Err(ObjectError::Gone(name));
    }
    if known.resource_version() != given.resource_version() && !state_ignores_conflicts {
        return Err(ObjectError::Conflict(name));
    }
    Ok(known)
}

/// Only keyturn reads anything here.
#[async_trait]
impl Trail for World {
    async fn page(&self, query: &Query, _token: Option<&str>) -> Result<Page, TrailError> {
        invariants::trail_is_read(&mut self.lock(), query);
        Ok(Page::default())
    }
}

#[async_trait]
impl Objects for World {
    async fn managed_secret(
        &self,
        _namespace: &str,
        name: &str,
        source: Source,
    ) -> Result<Option<ManagedSecret>, ObjectError> {
        let state = self.lock();
        let cached = || state.cluster.cached_secret(name, self.process, state.now);
        let cached = (source == Source::Cache).then(cached).flatten();
        let mut found = cached.or_else(|| state.cluster.secret(name)).cloned();
        if state.sabotage == Some(Sabotage::RequestNeverHandled)
            && let Some(annotations) = found.as_mut().and_then(|s| s.metadata.annotations.as_mut())
            && let Some(token) = annotations.get_mut(ROTATE_REQUESTED_AT)
        {
            token.push_str(&state.now.to_rfc3339());
        }
        Ok(found)
    }

    async fn docker_host(&self, _namespace: &str, name: &str) -> Result<Option<DockerHost>, ObjectError> {
        Ok(self.lock().cluster.host(name).cloned())
    }

    async fn secret_incident(
        &self,
        _namespace: &str,
        name: &str,
    ) -> Result<Option<SecretIncident>, ObjectError> {
        Ok(self.lock().cluster.incidents.iter().find(|incident| incident.name_any() == name).cloned())
    }

    async fn secret_incidents(
        &self,
        _namespace: &str,
        source: Source,
    ) -> Result<Vec<SecretIncident>, ObjectError> {
        let state = self.lock();
        let cached = state.cluster.shown_incidents.as_ref().filter(|_| source == Source::Cache);
        Ok(cached.unwrap_or(&state.cluster.incidents).clone())
    }

    async fn write_incident_status(&self, object: &SecretIncident) -> Result<SecretIncident, ObjectError> {
        let (name, given) = (object.name_any(), object.clone());
        self.effect(Kind::IncidentStatus, format!("status of SecretIncident {name}"), move |state, sent| {
            let careless = state.sabotage == Some(Sabotage::NoFencing);
            let known = state.cluster.incidents.iter().position(|incident| incident.name_any() == name);
            let at = known.ok_or_else(|| ObjectError::Gone(name.clone()))?;
            let known = current(Some(&state.cluster.incidents[at]), &given, careless)?;
            let mut changed = SecretIncident { status: given.status.clone(), ..known.clone() };
            let revision = state.changing();
            changed.metadata.resource_version = Some(revision.to_string());
            invariants::incident_status(state, &changed);
            state.cluster.incidents[at] = changed.clone();
            state.incident_changed(&name, state.written_by(sent));
            Ok(changed)
        })
        .await
    }

    async fn grants(&self, source: Source) -> Result<Arc<Grants>, ObjectError> {
        let state = self.lock();
        Ok(match source {
            Source::Cache => state.cluster.cached_grants(state.now),
            Source::ApiServer => Arc::new(state.cluster.given()),
        })
    }

    async fn managed_secrets(&self, _namespace: &str) -> Result<Vec<ManagedSecret>, ObjectError> {
        let state = self.lock();
        let cached = state.cluster.cached(state.now);
        Ok(cached.secrets.values().map(|s| ManagedSecret::clone(s)).collect())
    }

    async fn rivals(&self, object: &ManagedSecret) -> Result<Vec<ManagedSecret>, ObjectError> {
        let claimed: BTreeSet<Claim> = claims::of(object).collect();
        let mut others = self.managed_secrets(NAMESPACE).await?;
        others.retain(|other| other.metadata.name != object.metadata.name);
        others.retain(|other| claims::of(other).any(|claim| claimed.contains(&claim)));
        Ok(others)
    }

    async fn docker_hosts(&self, _namespace: &str, source: Source) -> Result<Hosts, ObjectError> {
        let state = self.lock();
        let cluster = &state.cluster;
        let undecodable = cluster.undecodable_hosts.iter().cloned().collect();
        let believes_all = state.sabotage == Some(Sabotage::HostsAlwaysProven);
        if source == Source::ApiServer && !believes_all {
            let can_be_decoded = |host: &&DockerHost| !cluster.undecodable_hosts.contains(&host.name_any());
            return Ok(Hosts {
                decoded: cluster.hosts().filter(can_be_decoded).cloned().collect(),
                undecodable,
            });
        }
        let cached = cluster.cached(state.now);
        let mut decoded: Vec<DockerHost> = cached.hosts.values().map(|h| DockerHost::clone(h)).collect();
        decoded.retain(|host| cluster.is_shown(host));
        if believes_all {
            for host in &mut decoded {
                believe(&state, host);
            }
        }
        Ok(Hosts { decoded, undecodable })
    }

    async fn secret_labels(
        &self,
        _namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, ObjectError> {
        Ok(self.lock().cluster.key_labels.get(name).cloned())
    }

    async fn write_secret_status(&self, object: &ManagedSecret) -> Result<ManagedSecret, ObjectError> {
        let (name, given) = (object.name_any(), object.clone());
        self.effect(Kind::SecretStatus, format!("status of ManagedSecret {name}"), move |state, sent| {
            let careless = state.sabotage == Some(Sabotage::NoFencing);
            let known = current(state.cluster.secret(&name), &given, careless)?;
            let mut changed = ManagedSecret { status: given.status.clone(), ..known.clone() };
            if state.sabotage == Some(Sabotage::LeakInStatus)
                && let Some(condition) = changed.status.as_mut().and_then(|s| s.conditions.first_mut())
                && let Some(latest) = state.ssm.latest(&given.spec.ssm.parameters[0].path)
            {
                condition.message.push_str(&latest.value);
            }
            if changed.status == known.status {
                return Ok(changed);
            }
            let revision = state.changing();
            changed.metadata.resource_version = Some(revision.to_string());
            invariants::secret_status(state, sent, &changed);
            state.cluster.objects.secrets.insert(name.clone(), Arc::new(changed.clone()));
            state.cluster.written.insert(name.clone(), (sent.process, revision));
            state.secret_changed(&name, state.written_by(sent));
            Ok(changed)
        })
        .await
    }

    async fn write_host_status(&self, object: &DockerHost) -> Result<DockerHost, ObjectError> {
        let (name, given) = (object.name_any(), object.clone());
        self.effect(Kind::HostStatus, format!("status of DockerHost {name}"), move |state, sent| {
            let careless = state.sabotage == Some(Sabotage::NoFencing);
            let known = current(state.cluster.host(&name), &given, careless)?;
            let mut changed = DockerHost { status: given.status.clone(), ..known.clone() };
            if changed.status == known.status {
                return Ok(changed);
            }
            let revision = state.changing();
            changed.metadata.resource_version = Some(revision.to_string());
            let text = serde_json::to_string(&changed.status).unwrap_or_default();
            invariants::no_value_in(state, "the status of a DockerHost", &text);
            invariants::host_status(state, &changed);
            state.cluster.objects.hosts.insert(name.clone(), Arc::new(changed.clone()));
            state.host_changed(&name, state.written_by(sent));
            Ok(changed)
        })
        .await
    }

    async fn set_finalizer(
        &self,
        object: &ManagedSecret,
        present: bool,
    ) -> Result<ManagedSecret, ObjectError> {
        let (name, given) = (object.name_any(), object.clone());
        let what = format!("finalizer of {name} {}", if present { "on" } else { "off" });
        self.effect(Kind::Finalizer, what, move |state, sent| {
            let careless = state.sabotage == Some(Sabotage::NoFencing);
            let mut changed = current(state.cluster.secret(&name), &given, careless)?.clone();
            let mut finalizers = changed.metadata.finalizers.clone().unwrap_or_default();
            finalizers.retain(|f| f != FINALIZER);
            if present {
                if changed.metadata.deletion_timestamp.is_some() {
                    return Err(ObjectError::Api {
                        object: name.clone(),
                        detail: "422: is being deleted".into(),
                    });
                }
                finalizers.push(FINALIZER.to_owned());
            } else {
                invariants::released(state, &changed);
            }
            changed.metadata.finalizers = Some(finalizers.clone()).filter(|f| !f.is_empty());
            let revision = state.changing();
            changed.metadata.resource_version = Some(revision.to_string());
            if finalizers.is_empty() && changed.metadata.deletion_timestamp.is_some() {
                state.secret_changed(&name, Change::Deleted);
                state.cluster.objects.secrets.remove(&name);
            } else {
                state.cluster.objects.secrets.insert(name.clone(), Arc::new(changed.clone()));
                state.cluster.written.insert(name.clone(), (sent.process, revision));
                state.secret_changed(&name, state.written_by(sent));
            }
            Ok(changed)
        })
        .await
    }

    async fn write_event(&self, subject: Subject<'_>, event: Event) {
        let mut state = self.lock();
        let name = match subject {
            Subject::Secret(secret) => secret.name_any(),
            Subject::Host(host) => host.name_any(),
            Subject::Incident(incident) => incident.name_any(),
        };
        invariants::no_value_in(&mut state, "an Event", &event.note);
        invariants::said(&mut state, &event.note);
        state.cluster.events.push((name, event));
    }
}

/// Makes the host's status claim that it runs every published value.
fn believe(state: &State, host: &mut DockerHost) {
    let mut parameters = Vec::new();
    for secret in state.cluster.secrets() {
        for parameter in &secret.spec.ssm.parameters {
            if let Some(latest) = state.ssm.latest(&parameter.path) {
                let stamp = latest.said.stamp.as_ref();
                let made_at = stamp.map_or(latest.modified, |stamp| stamp.at);
                parameters.push(HostParameter {
                    path: parameter.path.clone(),
                    version: latest.number,
                    published_at: to_kubernetes(made_at),
                    proof: Proof::Proven,
                    at: to_kubernetes(state.now),
                    deployed: true,
                });
            }
        }
    }
    host.status.get_or_insert_default().parameters = parameters;
}
