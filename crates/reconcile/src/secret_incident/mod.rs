//! The SecretIncident reconciler. It reports the progress of the response, and searches CloudTrail for the callers
//! that read the suspected secrets. It rotates nothing itself: the ManagedSecret reconciler rotates every suspected
//! value that is older than the report.

mod observe;
mod status;
mod tell;

use std::sync::Arc;

use chrono::TimeDelta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyturn_api::SecretIncident;

use self::status::logs;
use super::objects::{ObjectError, Objects, Source, Subject};
use super::ports::{Clock, Leadership, Requeue};
use super::settings::Settings;
use crate::incident::scope;
use crate::incident::trail::Trail;
use crate::notification;

/// Longest requeue interval of a contained incident.
const RESYNC: TimeDelta = TimeDelta::hours(1);
/// Requeue interval of an open incident, in case an event is missed.
const OPEN_POLL: TimeDelta = TimeDelta::seconds(30);

/// The ports that the reconciler acts through.
pub struct Ports {
    /// Source of the time of each pass.
    pub clock: Arc<dyn Clock>,
    /// keyturn's objects in the API server.
    pub objects: Arc<dyn Objects>,
    /// CloudTrail, which shows the callers that read a suspected secret.
    pub trail: Arc<dyn Trail>,
    /// Leadership. Only the leader reads CloudTrail.
    pub leadership: Arc<dyn Leadership>,
}

/// The SecretIncident reconciler. It keeps nothing in memory from one pass to the next.
pub struct SecretIncidents {
    ports: Ports,
    settings: Settings,
}

impl SecretIncidents {
    /// Makes the reconciler; each call of [`Self::reconcile`] does one pass.
    pub fn new(ports: Ports, settings: Settings) -> Self {
        Self { ports, settings }
    }

    /// Does one pass over one incident.
    ///
    /// # Errors
    /// The API server could not be read or written, or the object was changed at the same time.
    pub async fn reconcile(&self, namespace: &str, name: &str) -> Result<Requeue, ObjectError> {
        let objects = &self.ports.objects;
        let Some(mut incident) = objects.secret_incident(namespace, name).await? else {
            return Ok(Requeue::Never);
        };
        if incident.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::Never);
        }
        let now = self.ports.clock.now();
        let secrets = objects.managed_secrets(namespace).await?;
        let concerned: Vec<_> = secrets.iter().filter(|secret| scope::concerns(&incident, secret)).collect();
        let before = incident.status.clone().unwrap_or_default();
        let mut after = status::render(&incident, &concerned, now);
        let hosts = objects.docker_hosts(namespace, Source::Cache).await?.decoded;
        logs::take_over(&incident, &concerned, &hosts, &mut after, now);
        after.timeline = status::timeline(&incident, &after);
        let notifications = tell::notifications(&before, &after, now);
        let pending = &mut after.pending_notifications;
        notification::enqueue(pending, &self.settings.sinks, &incident.metadata, notifications, now);
        // The search takes long. So the first status is written before it, and people see at once that the response
        // has begun.
        let first_sight = before.observed_generation.is_none_or(|generation| generation < 0);
        let next =
            if first_sight { Some(now) } else { self.audit(&incident, &concerned, &mut after, now).await? };
        let open = after.contained_at.is_none();
        if after != before {
            incident.status = Some(after);
            incident = objects.write_incident_status(&incident).await?;
            self.tell(&before.conditions, &incident).await;
        }
        let wait = if open { OPEN_POLL } else { RESYNC };
        let audit = next.map(|at| (at - self.ports.clock.now()).max(TimeDelta::milliseconds(100)));
        Ok(Requeue::After(audit.map_or(wait, |audit| audit.min(wait))))
    }

    async fn tell(&self, before: &[Condition], incident: &SecretIncident) {
        for event in tell::events(before, incident) {
            self.ports.objects.write_event(Subject::Incident(incident), event).await;
        }
    }
}
