//! Delivers the notifications that are pending in an object's status to the sinks, and removes them from it.
//!
//! A notification is removed after the sink has accepted it. After a crash in between it is sent again, under the same
//! id.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use keyturn_reconcile::objects::{ObjectError, Objects, Source};
use kube::Resource;

use crate::api::consent::{self, Purpose};
use crate::api::notification::PendingNotification;
use crate::api::time::from_kubernetes;
use crate::api::{DockerHost, ManagedSecret, SecretIncident};
use crate::notification::{Courier, Sink, Subject};

/// Longest time for which keyturn retries a notification.
const PATIENCE: TimeDelta = TimeDelta::days(3);

/// Nothing to do until the object changes.
const NOTHING: Duration = Duration::MAX;

/// Number of attempts to remove a notification from a status that others write too.
const WRITES: usize = 5;

/// A kind of object whose status holds pending notifications.
#[async_trait]
pub trait HoldsNotifications: Resource<DynamicType = ()> + Send + Sync + Sized {
    /// Returns the notifications in the status that some sink has not accepted yet, oldest first.
    fn pending(&self) -> &[PendingNotification];
    /// Replaces the pending notifications; [`Self::write`] saves them. Does nothing if there is no status.
    fn keep_pending(&mut self, pending: Vec<PendingNotification>);
    /// Reads the object from the API server itself; `None` if it does not exist.
    async fn read(objects: &dyn Objects, namespace: &str, name: &str) -> Result<Option<Self>, ObjectError>;
    /// Writes the status. Fails with [`ObjectError::Conflict`] if the object has changed since it was read.
    async fn write(&self, objects: &dyn Objects) -> Result<(), ObjectError>;
}

/// The kinds differ only in the calls that read and write them.
macro_rules! holds_notifications {
    ($kind:ty, $read:ident($($source:expr)?), $write:ident) => {
        #[async_trait]
        impl HoldsNotifications for $kind {
            fn pending(&self) -> &[PendingNotification] {
                self.status.as_ref().map_or(&[], |status| &status.pending_notifications)
            }

            fn keep_pending(&mut self, pending: Vec<PendingNotification>) {
                if let Some(status) = &mut self.status {
                    status.pending_notifications = pending;
                }
            }

            async fn read(
                objects: &dyn Objects,
                namespace: &str,
                name: &str,
            ) -> Result<Option<Self>, ObjectError> {
                objects.$read(namespace, name $(, $source)?).await
            }

            async fn write(&self, objects: &dyn Objects) -> Result<(), ObjectError> {
                objects.$write(self).await.map(drop)
            }
        }
    };
}

holds_notifications!(ManagedSecret, managed_secret(Source::ApiServer), write_secret_status);
holds_notifications!(DockerHost, docker_host(), write_host_status);
holds_notifications!(SecretIncident, secret_incident(), write_incident_status);

/// Sends the pending notifications of objects.
pub struct Notifications {
    cluster: String,
    /// The controller's own namespace, which has the Secrets of the sinks.
    namespace: String,
    sinks: Vec<Sink>,
    courier: Courier,
    objects: Arc<dyn Objects>,
}

/// A notification that a sink has, or will never have: the notification's id and the sink's name.
type Settled = (String, String);

impl Notifications {
    /// Creates the sender for the installation `cluster`, whose controller runs in `namespace`.
    pub fn new(
        cluster: &str,
        namespace: &str,
        sinks: Vec<Sink>,
        courier: Courier,
        objects: Arc<dyn Objects>,
    ) -> Self {
        Self { cluster: cluster.to_owned(), namespace: namespace.to_owned(), sinks, courier, objects }
    }

    /// Sends one notification, if the sink's Secret consents to this use: the kubelet has mounted it without that
    /// check.
    async fn deliver(
        &self,
        sink: &Sink,
        subject: &Subject,
        told: &PendingNotification,
        now: DateTime<Utc>,
    ) -> Result<(), String> {
        let labels = self.objects.secret_labels(&self.namespace, &sink.secret).await;
        let labels = labels.map_err(|error| error.to_string())?;
        consent::check(&self.namespace, &sink.secret, labels.as_ref(), Purpose::NOTIFICATION)
            .map_err(|refusal| refusal.to_string())?;
        self.courier.deliver(sink, subject, told, now).await.map_err(|error| error.to_string())
    }

    /// Sends the notifications that are pending in one object's status. On an error the queue retries with a growing
    /// backoff.
    pub async fn of<K: HoldsNotifications>(&self, namespace: &str, name: &str) -> Result<Duration, String> {
        let read = || async { K::read(&*self.objects, namespace, name).await.map_err(|e| e.to_string()) };
        let Some(object) = read().await?.filter(|object| !object.pending().is_empty()) else {
            return Ok(NOTHING);
        };
        let subject = Subject {
            cluster: self.cluster.clone(),
            kind: K::kind(&()).into_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let (settled, failed) = self.carry(&subject, object.pending()).await;
        let mut object = Some(object);
        for _ in 0..WRITES {
            let Some(mut current) = object.take() else { break };
            let left = self.left(current.pending(), &settled);
            if left == current.pending() {
                break;
            }
            current.keep_pending(left);
            match current.write(&*self.objects).await {
                Err(ObjectError::Conflict(_)) => object = read().await?,
                Ok(()) | Err(ObjectError::Gone(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        failed.map_or(Ok(NOTHING), Err)
    }

    /// Returns the settled notifications, and the last error.
    async fn carry(
        &self,
        subject: &Subject,
        pending: &[PendingNotification],
    ) -> (Vec<Settled>, Option<String>) {
        let (mut settled, mut failed) = (Vec::new(), None);
        for sink in &self.sinks {
            for told in pending.iter().filter(|told| told.sinks.contains(&sink.name)) {
                let now = Utc::now();
                match self.deliver(sink, subject, told, now).await {
                    Ok(()) => tracing::info!(sink = sink.name, id = told.id, "notified"),
                    Err(error) if is_stale(told, now) => {
                        tracing::warn!(
                            sink = sink.name,
                            id = told.id,
                            %error,
                            "the sink has not accepted this notification for days; keyturn gives it up"
                        );
                    }
                    Err(error) => {
                        failed = Some(format!("notification sink {}: {error}", sink.name));
                        // Later notifications wait: a sink gets them in the order in which things happened.
                        break;
                    }
                }
                settled.push((told.id.clone(), sink.name.clone()));
            }
        }
        (settled, failed)
    }

    /// Returns the notifications that are still pending. Sinks that are no longer in the chart's values are left out.
    fn left(&self, pending: &[PendingNotification], settled: &[Settled]) -> Vec<PendingNotification> {
        let waits = |id: &str, sink: &String| {
            self.sinks.iter().any(|known| known.name == *sink)
                && !settled.iter().any(|(told, taker)| told == id && taker == sink)
        };
        let mut left = pending.to_vec();
        for told in &mut left {
            let id = told.id.clone();
            told.sinks.retain(|sink| waits(&id, sink));
        }
        left.retain(|told| !told.sinks.is_empty());
        left
    }
}

fn is_stale(told: &PendingNotification, now: DateTime<Utc>) -> bool {
    now - from_kubernetes(&told.time) > PATIENCE
}
