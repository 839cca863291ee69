//! Reads CloudTrail for an incident, for a bounded time in each pass.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::conditions::{self as c, Truth};
use keyturn_api::secret_incident::SecretIncidentStatus;
use keyturn_api::time::{from_kubernetes, to_kubernetes};
use keyturn_api::{ManagedSecret, SecretIncident};
use kube::ResourceExt;

use super::SecretIncidents;
use super::status;
use crate::incident::audit::{self, Query, Watched};
use crate::incident::scope;
use crate::incident::trail::TrailError;
use crate::parameter_store::records;
use crate::settings::doubling;

/// How long one pass reads; what is left is read by the next.
const TIME_BOX: Duration = Duration::from_secs(10);
/// Pause after a failure; doubles with each further one up to the longest.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(1);
const LONGEST_PAUSE: TimeDelta = TimeDelta::minutes(5);
/// Most gaps that a status names.
const MAX_GAPS: usize = 16;

impl SecretIncidents {
    /// Goes on with the search where there is something to read; answers when to look again.
    pub(super) async fn audit(
        &self,
        incident: &SecretIncident,
        concerned: &[&ManagedSecret],
        status: &mut SecretIncidentStatus,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let watched = self.watched(incident, concerned);
        if watched.is_empty() || !self.ports.leadership.is_leader() {
            return None;
        }
        let next = self.read(incident, &watched, status, now).await;
        let generation = incident.metadata.generation;
        let audit = status.audit.clone().unwrap_or_default();
        let text =
            audit::said(&audit, status.unexpected_readers.unwrap_or_default(), self.settings.trail_delay);
        let (truth, reason) = match (&audit.complete_until, is_over(status)) {
            (_, true) => (Truth::True, "Complete"),
            (None, false) => (Truth::False, "Reading"),
            (Some(_), false) => (Truth::False, "NotComplete"),
        };
        c::set(&mut status.conditions, c::AUDIT_COMPLETE, truth, reason, &text, generation, now);
        status.timeline = status::timeline(incident, status);
        next
    }

    fn watched(&self, incident: &SecretIncident, concerned: &[&ManagedSecret]) -> Vec<Watched> {
        let namespace = incident.namespace().unwrap_or_default();
        let watch = |secret: &&ManagedSecret| {
            let name = secret.name_any();
            let folder = records::folder(&self.settings.staging, &namespace, &name);
            Watched {
                secret: name,
                region: self.settings.region_of(secret).to_owned(),
                paths: secret.spec.ssm.parameters.iter().map(|p| p.path.clone()).collect(),
                folder: format!("{}/", folder.trim_end_matches('/')),
            }
        };
        concerned.iter().map(watch).collect()
    }

    async fn read(
        &self,
        incident: &SecretIncident,
        watched: &[Watched],
        status: &mut SecretIncidentStatus,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        if status.audit.as_ref().is_none_or(|audit| audit.reading.is_none()) && is_over(status) {
            return None;
        }
        let planned =
            status.audit.as_ref().and_then(|audit| audit.next_reading_time.as_ref()).map(from_kubernetes);
        if let Some(at) = planned.filter(|at| *at > now) {
            return Some(at);
        }
        if status.audit.as_ref().is_none_or(|audit| audit.reading.is_none()) {
            let since = self.since(incident, status, now);
            audit::begin(status, watched, since, now);
            forget_failures(status);
        }
        let mut expected = incident.spec.expected_readers.clone();
        expected.extend(self.settings.expected_readers.iter().cloned());
        let began = Instant::now();
        // A token belongs to the very query that it was given for.
        let mut going_on: Option<(Query, String)> = None;
        while let Some(fresh) = audit::query(status) {
            if began.elapsed() > TIME_BOX || !self.ports.leadership.is_leader() {
                return Some(now);
            }
            let (query, token) = match going_on.take() {
                Some((query, token)) => (query, Some(token)),
                None => (fresh, None),
            };
            let page = match self.ports.trail.page(&query, token.as_deref()).await {
                Ok(page) => page,
                Err(error) => return Some(self.failed(status, &error, now)),
            };
            let last = page.next.is_none();
            going_on = page.next.map(|token| (query, token));
            audit::take(status, &page.calls, last, watched, &expected, self.settings.trail_delay);
            // The pause grows while nothing can be read, not while CloudTrail only asks for slowness.
            status.audit.get_or_insert_default().failures = None;
        }
        forget_failures(status);
        let audit = status.audit.get_or_insert_default();
        audit.next_reading_time = None;
        if is_over(status) {
            return None;
        }
        // Often while it is new, since people wait for it; and once everything about the containment can be seen.
        let delay = self.settings.trail_delay;
        let soon = now + delay / 3;
        let contained = status.contained_at.as_ref().map(from_kubernetes);
        let at = contained.map_or(soon, |contained| soon.max(contained + delay + TimeDelta::seconds(1)));
        let audit = status.audit.get_or_insert_default();
        audit.next_reading_time = Some(to_kubernetes(at));
        Some(at)
    }

    /// Begin of the search, as far back as CloudTrail reaches.
    fn since(
        &self,
        incident: &SecretIncident,
        status: &SecretIncidentStatus,
        now: DateTime<Utc>,
    ) -> DateTime<Utc> {
        let made =
            status.secrets.iter().filter_map(|s| s.suspected_value_from.as_ref().map(from_kubernetes)).min();
        let said = incident.spec.suspected_since.as_ref().map(from_kubernetes);
        let oldest = now - audit::KEPT;
        said.or(made).unwrap_or(scope::reported_at(incident) - audit::KEPT).max(oldest)
    }

    fn failed(
        &self,
        status: &mut SecretIncidentStatus,
        error: &TrailError,
        now: DateTime<Utc>,
    ) -> DateTime<Utc> {
        let audit = status.audit.get_or_insert_default();
        let failures = audit.failures.unwrap_or(0).saturating_add(1);
        audit.failures = Some(failures);
        let gap = error.to_string();
        if !audit.gaps.contains(&gap) && audit.gaps.len() < MAX_GAPS {
            audit.gaps.push(gap);
        }
        let at = now + doubling(FIRST_PAUSE, LONGEST_PAUSE, failures);
        audit.next_reading_time = Some(to_kubernetes(at + TimeDelta::milliseconds(999)));
        at
    }
}

/// What could not be read was read in the end.
fn forget_failures(status: &mut SecretIncidentStatus) {
    if let Some(audit) = &mut status.audit {
        audit.gaps.retain(|gap| !gap.contains("CloudTrail in "));
        audit.failures = None;
    }
}

/// Whether the search covers the moment at which the last secret was contained.
fn is_over(status: &SecretIncidentStatus) -> bool {
    let until = status.audit.as_ref().and_then(|audit| audit.complete_until.as_ref()).map(from_kubernetes);
    let contained = status.contained_at.as_ref().map(from_kubernetes);
    until.zip(contained).is_some_and(|(until, contained)| until >= contained)
}
