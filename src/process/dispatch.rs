//! Reconciles one object: calls the reconciler of its kind, and returns the time until the next reconciliation.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::api::core::v1::ObjectReference;
use keyturn_reconcile::docker_host::DockerHosts;
use keyturn_reconcile::managed_secret::ManagedSecrets;
use keyturn_reconcile::objects::Event;
use keyturn_reconcile::ports::Requeue;
use keyturn_reconcile::secret_incident::SecretIncidents;
use kube::{Resource, ResourceExt};

use super::notifications::{HoldsNotifications, Notifications};
use crate::api::{DockerHost, ManagedSecret, Reason, SecretIncident, time};
use crate::cluster::guarded::{Guarded, Undecodable};
use crate::cluster::objects::KubeObjects;
use crate::parameter_store::budget::{Urgency, with_urgency};

/// Shortest time between two reconciliations of an object, so that a mistake cannot cause a busy loop.
const SOONEST: Duration = Duration::from_millis(50);
/// Result for objects with nothing to do; the queue shortens it to its resync interval.
const NEVER: Duration = Duration::MAX;

/// The reconcilers.
pub struct Reconcilers {
    secrets: ManagedSecrets,
    hosts: DockerHosts,
    incidents: SecretIncidents,
    notifications: Notifications,
    objects: Arc<KubeObjects>,
    /// UID and resourceVersion of undecodable objects that were reported.
    reported: Mutex<HashSet<(String, String)>>,
}

impl Reconcilers {
    /// Puts the reconcilers together. No undecodable object counts as reported yet.
    pub fn new(
        secrets: ManagedSecrets,
        hosts: DockerHosts,
        incidents: SecretIncidents,
        notifications: Notifications,
        objects: Arc<KubeObjects>,
    ) -> Self {
        Self { secrets, hosts, incidents, notifications, objects, reported: Mutex::default() }
    }

    /// Sends the notifications that are pending in the object's status.
    pub async fn send_notifications<K: HoldsNotifications>(
        self: Arc<Self>,
        object: Arc<Guarded<K>>,
    ) -> Result<Duration, String> {
        let metadata = object.meta();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        self.notifications.of::<K>(namespace, metadata.name.as_deref().unwrap_or_default()).await
    }

    /// Reconciles a ManagedSecret. An error is a failure that its status does not show; the queue retries it.
    pub async fn secret(self: Arc<Self>, object: Arc<Guarded<ManagedSecret>>) -> Result<Duration, String> {
        if let Err(undecodable) = &object.0 {
            return Ok(self.undecodable::<ManagedSecret>(undecodable).await);
        }
        // The longer a secret is overdue, the earlier its turn in the request budget.
        let overdue = due_since(&object).map_or(0, |since| (Utc::now() - since).num_seconds().max(0));
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let ended = with_urgency(Urgency(overdue), self.secrets.reconcile(&namespace, &name)).await;
        tracing::debug!(namespace, name, ?ended, "looked at the ManagedSecret");
        ended.map(again).map_err(|error| error.to_string())
    }

    /// Reconciles a DockerHost. An error is a failure that its status does not show; the queue retries it.
    pub async fn host(self: Arc<Self>, object: Arc<Guarded<DockerHost>>) -> Result<Duration, String> {
        if let Err(undecodable) = &object.0 {
            return Ok(self.undecodable::<DockerHost>(undecodable).await);
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let ended = self.hosts.reconcile(&namespace, &name).await;
        tracing::debug!(namespace, name, ?ended, "looked at the DockerHost");
        ended.map(again).map_err(|error| error.to_string())
    }

    /// Reconciles a SecretIncident. An error is a failure that its status does not show; the queue retries it.
    pub async fn incident(self: Arc<Self>, object: Arc<Guarded<SecretIncident>>) -> Result<Duration, String> {
        if let Err(undecodable) = &object.0 {
            return Ok(self.undecodable::<SecretIncident>(undecodable).await);
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let ended = self.incidents.reconcile(&namespace, &name).await;
        tracing::debug!(namespace, name, ?ended, "looked at the SecretIncident");
        ended.map(again).map_err(|error| error.to_string())
    }

    /// Reports, in the log and by an Event, an object that this version of keyturn cannot decode.
    async fn undecodable<K: Resource<DynamicType = ()>>(&self, object: &Undecodable) -> Duration {
        let metadata = &object.metadata;
        let seen =
            (metadata.uid.clone().unwrap_or_default(), metadata.resource_version.clone().unwrap_or_default());
        if !self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(seen) {
            return NEVER;
        }
        let kind = K::kind(&());
        tracing::warn!(
            kind = %kind,
            namespace = metadata.namespace,
            name = metadata.name,
            error = object.error,
            "keyturn cannot decode the object and ignores it"
        );
        let about = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(kind.into_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            field_path: None,
        };
        let note = format!(
            "keyturn {} cannot decode this object and ignores it: {}. It was admitted under another version \
             of the custom resource; write it again as `kubectl explain` describes it",
            env!("CARGO_PKG_VERSION"),
            object.error
        );
        let event = Event { warning: true, reason: Reason::Undecodable, action: "Read", note };
        self.objects.write_event_of_undecodable(&about, event).await;
        NEVER
    }
}

fn again(requeue: Requeue) -> Duration {
    match requeue {
        Requeue::After(delta) => delta.max(TimeDelta::zero()).to_std().unwrap_or(NEVER).max(SOONEST),
        Requeue::Never => NEVER,
    }
}

/// Returns the time since which a secret has been waiting for its rotation; if somebody may have read its value, the
/// earliest possible time.
pub fn due_since(object: &Guarded<ManagedSecret>) -> Option<DateTime<Utc>> {
    if is_compromised(object) { Some(DateTime::<Utc>::MIN_UTC) } else { due(object) }
}

/// Returns the time at which a secret's next rotation may start, if its status has it.
fn due(secret: &Guarded<ManagedSecret>) -> Option<DateTime<Utc>> {
    time::from_text(secret.0.as_ref().ok()?.status.as_ref()?.next_rotation_time.as_ref()?)
}

/// Returns true while somebody may be using a value that the secret published; such secrets come before all others.
fn is_compromised(object: &Guarded<ManagedSecret>) -> bool {
    let status = object.0.as_ref().ok().and_then(|secret| secret.status.as_ref());
    status.and_then(|status| status.compromise.as_ref()).is_some_and(|c| c.contained_at.is_none())
}
