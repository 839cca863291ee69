//! Implements the port [`Objects`] with a kube client and the watches' cache.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keyturn_reconcile::objects::{Event, Hosts, ObjectError, Objects, Source, Subject};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{NamespaceResourceScope, object::HasStatus};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cache::{Cache, decoded};
use super::events::Events;
use super::guarded::Guarded;
use super::lease::Leadership;
use super::metrics::Metrics;
use super::refusal::missing_right;
use super::user_secrets;
use crate::api::docker_host::{DockerHostStatus, RunResult};
use crate::api::grants::Grants;
use crate::api::managed_secret::ManagedSecretStatus;
use crate::api::{DockerHost, FINALIZER, ManagedSecret, RotationGrant, SecretIncident};

/// Longest total time of one call.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Number of objects read per page.
const PAGE: u32 = 500;

/// The adapter. It refuses writes once this replica no longer leads.
pub struct KubeObjects {
    client: Client,
    cache: Cache,
    events: Events,
    metrics: Metrics,
    leadership: Leadership,
    own: OwnWrites,
}

impl KubeObjects {
    /// Creates the adapter. `own` must be shared with the code that handles the changes which the watches deliver.
    pub fn new(
        client: Client,
        cache: Cache,
        events: Events,
        metrics: Metrics,
        leadership: Leadership,
        own: OwnWrites,
    ) -> Self {
        Self { client, cache, events, metrics, leadership, own }
    }

    /// Writes an Event about an object that could not be decoded.
    pub async fn write_event_of_undecodable(
        &self,
        about: &k8s_openapi::api::core::v1::ObjectReference,
        event: Event,
    ) {
        if self.leadership.is_leader() {
            self.events.publish(about, event).await;
        }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn get<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, ObjectError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let object = || describe::<K>(namespace, name);
        call(object, self.api::<K>(namespace).get_opt(name)).await
    }

    async fn write_status<K>(&self, object: &K) -> Result<K, ObjectError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize
            + HasStatus,
    {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let what = || describe::<K>(&namespace, &name);
        self.must_lead(what)?;
        let mut body = object.clone();
        body.meta_mut().managed_fields = None;
        let api = self.api::<K>(&namespace);
        let written: K = call(what, api.replace_status(&name, &PostParams::default(), &body)).await?;
        self.own.remember(&written);
        Ok(written)
    }

    /// Returns the cached secret, unless the cache is older than a write of this process.
    fn cached(&self, namespace: &str, name: &str) -> Option<ManagedSecret> {
        let cached = self.cache.secret(namespace, name)?;
        cached.0.as_ref().ok().filter(|cached| self.own.is_shown_by(*cached)).cloned()
    }

    /// Fails if the watches have not listed the namespace yet: an object that is not in the cache then need not be
    /// absent.
    fn must_be_listed(&self, namespace: &str) -> Result<(), ObjectError> {
        if self.cache.is_listed(namespace) {
            return Ok(());
        }
        Err(ObjectError::Api {
            object: format!("namespace {namespace}"),
            detail: "its objects have not been listed yet".to_owned(),
        })
    }

    fn must_lead(&self, object: impl Fn() -> String) -> Result<(), ObjectError> {
        if self.leadership.is_leader() {
            return Ok(());
        }
        Err(ObjectError::Api {
            object: object(),
            detail: "not written, since this replica does not lead any more".to_owned(),
        })
    }
}

#[async_trait]
impl Objects for KubeObjects {
    async fn managed_secret(
        &self,
        namespace: &str,
        name: &str,
        source: Source,
    ) -> Result<Option<ManagedSecret>, ObjectError> {
        let found = match self.cached(namespace, name).filter(|_| source == Source::Cache) {
            Some(cached) => Some(cached),
            None => self.get(namespace, name).await?,
        };
        if let Some(secret) = &found {
            self.own.first_sight(secret, || last_result(secret.status.as_ref()).map(|(key, _)| key));
        }
        Ok(found)
    }

    async fn docker_host(&self, namespace: &str, name: &str) -> Result<Option<DockerHost>, ObjectError> {
        let found: Option<DockerHost> = self.get(namespace, name).await?;
        if let Some(host) = &found {
            self.own.first_sight(host, || last_run(host.status.as_ref()).map(|(key, ..)| key));
        }
        Ok(found)
    }

    async fn secret_incident(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<SecretIncident>, ObjectError> {
        self.get(namespace, name).await
    }

    async fn secret_incidents(
        &self,
        namespace: &str,
        source: Source,
    ) -> Result<Vec<SecretIncident>, ObjectError> {
        if source == Source::Cache {
            self.must_be_listed(namespace)?;
            return Ok(decoded(&self.cache.incidents(namespace)).cloned().collect());
        }
        let incidents = list(&self.api::<Guarded<SecretIncident>>(namespace), "secretincidents").await?;
        Ok(incidents.into_iter().filter_map(|guarded| guarded.0.ok()).collect())
    }

    async fn write_incident_status(&self, object: &SecretIncident) -> Result<SecretIncident, ObjectError> {
        self.write_status(object).await
    }

    async fn grants(&self, source: Source) -> Result<Arc<Grants>, ObjectError> {
        if let Some(given) = self.cache.given().filter(|_| source == Source::Cache) {
            return Ok(given);
        }
        // Listed without decoding, since a grant that cannot be decoded counts too.
        let kind = ApiResource::erase::<RotationGrant>(&());
        let grants = list(&Api::<DynamicObject>::all_with(self.client.clone(), &kind), &kind.plural).await?;
        Ok(Arc::new(Grants::of(grants)))
    }

    async fn managed_secrets(&self, namespace: &str) -> Result<Vec<ManagedSecret>, ObjectError> {
        self.must_be_listed(namespace)?;
        Ok(decoded(&self.cache.secrets(namespace)).cloned().collect())
    }

    async fn managed_secrets_on(
        &self,
        namespace: &str,
        host: &str,
    ) -> Result<Vec<ManagedSecret>, ObjectError> {
        self.must_be_listed(namespace)?;
        Ok(decoded(&self.cache.secrets(namespace)).filter(|secret| secret.is_on(host)).cloned().collect())
    }

    async fn rivals(&self, object: &ManagedSecret) -> Result<Vec<ManagedSecret>, ObjectError> {
        self.must_be_listed(&object.namespace().unwrap_or_default())?;
        Ok(decoded(&self.cache.rivals(object)).cloned().collect())
    }

    async fn docker_hosts(&self, namespace: &str, source: Source) -> Result<Hosts, ObjectError> {
        if source == Source::Cache {
            self.must_be_listed(namespace)?;
            let decoded = decoded(&self.cache.hosts(namespace)).cloned().collect();
            return Ok(Hosts { decoded, undecodable: self.cache.undecodable_hosts(namespace) });
        }
        let mut read = Hosts::default();
        for guarded in list(&self.api::<Guarded<DockerHost>>(namespace), "dockerhosts").await? {
            match guarded.0 {
                Ok(host) => read.decoded.push(host),
                Err(undecodable) => read.undecodable.extend(undecodable.metadata.name),
            }
        }
        Ok(read)
    }

    async fn secret_labels(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, ObjectError> {
        user_secrets::labels(&self.client, namespace, name).await
    }

    async fn write_secret_status(&self, object: &ManagedSecret) -> Result<ManagedSecret, ObjectError> {
        let written = self.write_status(object).await?;
        if let Some((key, result)) = last_result(written.status.as_ref())
            && self.own.is_news(&written, &key)
        {
            self.metrics.rotation(&written.namespace().unwrap_or_default(), &result);
        }
        Ok(written)
    }

    async fn write_host_status(&self, object: &DockerHost) -> Result<DockerHost, ObjectError> {
        let written = self.write_status(object).await?;
        if let Some((key, mode, result)) = last_run(written.status.as_ref())
            && self.own.is_news(&written, &key)
        {
            self.metrics.deploy_run(&written.namespace().unwrap_or_default(), &mode, result);
        }
        Ok(written)
    }

    async fn set_finalizer(
        &self,
        object: &ManagedSecret,
        present: bool,
    ) -> Result<ManagedSecret, ObjectError> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let what = || describe::<ManagedSecret>(&namespace, &name);
        self.must_lead(what)?;
        let mut finalizers = object.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        if present {
            finalizers.push(FINALIZER.to_owned());
        }
        // With the resourceVersion, the API server refuses the patch if the object changed in between; with the UID, if
        // it is another object of the same name.
        let patch = serde_json::json!({
            "metadata": {
                "resourceVersion": object.resource_version(),
                "uid": object.uid(),
                "finalizers": finalizers,
            }
        });
        let api = self.api::<ManagedSecret>(&namespace);
        let written = call(what, api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await?;
        self.own.remember(&written);
        Ok(written)
    }

    async fn write_event(&self, subject: Subject<'_>, event: Event) {
        if !self.leadership.is_leader() {
            return;
        }
        let about = match subject {
            Subject::Secret(secret) => secret.object_ref(&()),
            Subject::Host(host) => host.object_ref(&()),
            Subject::Incident(incident) => incident.object_ref(&()),
        };
        self.events.publish(&about, event).await;
    }
}

/// The writes of this process. The watch also delivers these, but they need not be reconciled again.
#[derive(Clone, Default)]
pub struct OwnWrites(Arc<Mutex<HashMap<String, Known>>>);

#[derive(Default)]
struct Known {
    /// The last resourceVersions that this process wrote.
    versions: VecDeque<String>,
    /// The last ended rotation or run that the metrics have counted.
    counted: Option<Option<String>>,
}

impl OwnWrites {
    /// Returns true when this process wrote this version of the object.
    pub fn wrote<K: ResourceExt>(&self, object: &K) -> bool {
        let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) else { return false };
        self.lock().get(&uid).is_some_and(|known| known.versions.contains(&version))
    }

    /// Returns true when this version of the object is no older than any that this process wrote. Resource versions are
    /// numbers that grow with every write; a version that is not a number counts as old.
    pub(super) fn is_shown_by<K: ResourceExt>(&self, object: &K) -> bool {
        let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) else { return false };
        let all = self.lock();
        let number = |version: &String| version.parse::<u64>().ok();
        let Some(shown) = number(&version) else { return false };
        let own = all.get(&uid).map(|known| &known.versions);
        own.into_iter().flatten().all(|own| number(own).is_some_and(|own| own <= shown))
    }

    /// Removes an object that was deleted.
    pub fn forget<K: ResourceExt>(&self, object: &K) {
        if let Some(uid) = object.uid() {
            self.lock().remove(&uid);
        }
    }

    /// Notes a version that this process has just written.
    pub fn remember<K: ResourceExt>(&self, object: &K) {
        let (Some(uid), Some(version)) = (object.uid(), object.resource_version()) else { return };
        let mut all = self.lock();
        let versions = &mut all.entry(uid).or_default().versions;
        versions.push_back(version);
        if versions.len() > 8 {
            versions.pop_front();
        }
    }

    /// Remembers the rotation or run that had ended before this process started, so that the metrics do not count it.
    fn first_sight<K: ResourceExt>(&self, object: &K, ended: impl FnOnce() -> Option<String>) {
        if let Some(uid) = object.uid() {
            self.lock().entry(uid).or_default().counted.get_or_insert_with(ended);
        }
    }

    fn is_news<K: ResourceExt>(&self, object: &K, key: &str) -> bool {
        let Some(uid) = object.uid() else { return false };
        let mut all = self.lock();
        let counted = &mut all.entry(uid).or_default().counted;
        let news = counted.as_ref().is_some_and(|last| last.as_deref() != Some(key));
        *counted = Some(Some(key.to_owned()));
        news
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a key for the last ended rotation or request, and its result.
fn last_result(status: Option<&ManagedSecretStatus>) -> Option<(String, String)> {
    let last = status?.last_rotation.as_ref()?;
    let key = format!("{:?} {}", last.id, last.request.as_deref().unwrap_or_default());
    Some((key, last.result.to_string()))
}

/// Returns a key for the last ended run, its mode and its result.
fn last_run(status: Option<&DockerHostStatus>) -> Option<(String, String, &'static str)> {
    let last = status?.last_run.as_ref()?;
    Some((last.job.clone(), format!("{:?}", last.mode), last.result.map_or("", RunResult::name)))
}

fn describe<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> String {
    format!("{} {namespace}/{name}", K::kind(&()))
}

/// Lists all objects, page by page, whether they can be decoded or not.
async fn list<K>(api: &Api<K>, plural: &str) -> Result<Vec<K>, ObjectError>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = call(|| plural.to_owned(), api.list(&page)).await?;
        all.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(all),
        }
    }
}

/// Makes one call with a timeout, and converts its error to the port's.
pub(super) async fn call<T>(
    object: impl Fn() -> String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ObjectError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(ObjectError::Conflict(object())),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(ObjectError::Gone(object())),
        Ok(Err(error)) => Err(match missing_right(&error) {
            Some(right) => ObjectError::Forbidden(right),
            None => ObjectError::Api { object: object(), detail: error.to_string() },
        }),
        Err(_) => {
            let detail = format!("no answer within {}s", TIMEOUT.as_secs());
            Err(ObjectError::Api { object: object(), detail })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(version: &str) -> ManagedSecret {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "token", "namespace": "shop", "uid": "u", "resourceVersion": version},
            "spec": {"ssm": {"parameters": [{"path": "/shop/TOKEN"}]}, "generate": {}, "rotation": {}},
        }))
        .unwrap()
    }

    #[test]
    fn a_cache_that_lags_behind_what_this_process_wrote_does_not_show_it() {
        let own = OwnWrites::default();
        assert!(own.is_shown_by(&secret("7")), "nothing was written");
        own.remember(&secret("10"));
        own.remember(&secret("8"));
        let shown = |version: &str| own.is_shown_by(&secret(version));
        assert!(!shown("9") && shown("10") && shown("11"));
        assert!(!shown("later"), "versions that are no numbers are not compared");
        own.forget(&secret("12"));
        assert!(shown("9"));
    }
}
