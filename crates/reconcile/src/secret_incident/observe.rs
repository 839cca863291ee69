//! Reads CloudTrail for an incident, for a bounded time in each pass.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::conditions::{self as c, Truth};
use keyturn_api::grants::Grants;
use keyturn_api::readers::{ExpectedReader, parse_network};
use keyturn_api::secret_incident::{SecretIncidentStatus, SuspectState, SuspectedSecret};
use keyturn_api::time::{from_kubernetes, to_kubernetes};
use keyturn_api::{ManagedSecret, Reason, SecretIncident};
use kube::ResourceExt;

use super::SecretIncidents;
use super::status;
use crate::incident::audit;
use crate::incident::reading::{Query, Watched};
use crate::incident::scope;
use crate::incident::trail::TrailError;
use crate::objects::{ObjectError, Source};
use crate::settings::{Settings, doubling};

/// Maximum time that one pass reads; the next pass reads the rest.
const TIME_BOX: Duration = Duration::from_secs(10);
/// Pause after a failure. It doubles with each further failure, up to `LONGEST_PAUSE`.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(1);
const LONGEST_PAUSE: TimeDelta = TimeDelta::minutes(5);
/// Maximum number of gaps (descriptions of failed reads) that a status lists.
const MAX_GAPS: usize = 16;

/// The suspected secrets, divided by the grants: CloudTrail may be searched for calls about the first, and not about
/// the others.
struct Covered {
    watched: Vec<Watched>,
    /// Names of suspected secrets that no grant covers.
    left_out: Vec<String>,
}

impl Covered {
    /// Splits the suspected secrets by the grants of the namespace. A grant in mode Observe is enough, since a search
    /// changes nothing.
    fn by(given: &Grants, concerned: &[&ManagedSecret], settings: &Settings) -> Self {
        let (mut watched, mut left_out) = (Vec::new(), Vec::new());
        for secret in concerned {
            let region = settings.region_of(secret);
            if settings.verdict(given, secret, region).allows_reads() {
                watched.push(Watched::of(secret, region, Some(&settings.staging)));
            } else {
                left_out.push(secret.name_any());
            }
        }
        Self { watched, left_out }
    }

    fn is_about(&self, region: &str) -> bool {
        self.watched.iter().any(|watched| watched.region == region)
    }
}

impl SecretIncidents {
    /// Continues the search if there is something to read. Returns the time of the next check; `None` if none is
    /// planned.
    ///
    /// # Errors
    /// The grants could not be read.
    pub(super) async fn audit(
        &self,
        incident: &SecretIncident,
        concerned: &[&ManagedSecret],
        status: &mut SecretIncidentStatus,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, ObjectError> {
        if concerned.is_empty() || !self.ports.leadership.is_leader() {
            return Ok(None);
        }
        self.say_how_it_reads(status);
        audit::reconsider(status, &self.expected(incident));
        let covered = self.covered(concerned).await?;
        let generation = incident.metadata.generation;
        if covered.watched.is_empty() {
            let text = not_granted(&covered.left_out);
            let (kind, truth) = (c::AUDIT_COMPLETE, Truth::False);
            c::set(&mut status.conditions, kind, truth, Reason::NotGranted, &text, generation, now);
            return Ok(None);
        }
        let next = self.read(incident, concerned, &covered.watched, status, now).await?;
        let complete = status.audit.as_ref().is_some_and(|audit| audit.complete_until.is_some());
        let mut text = audit::said(status, self.settings.trail_delay);
        if !covered.left_out.is_empty() {
            text = format!("{text}; {}", not_granted(&covered.left_out));
        }
        let networks = incident.spec.expected_readers.iter().flat_map(|reader| &reader.networks);
        for wrong in networks.filter(|network| parse_network(network).is_none()) {
            text = format!(
                "{text}; spec.expectedReaders: `{wrong}` is not an address or network, and matches no reader"
            );
        }
        let (truth, reason) = match (complete, is_over(status)) {
            (_, true) => (Truth::True, Reason::Complete),
            (false, false) => (Truth::False, Reason::Reading),
            (true, false) => (Truth::False, Reason::NotComplete),
        };
        c::set(&mut status.conditions, c::AUDIT_COMPLETE, truth, reason, &text, generation, now);
        status.timeline = status::timeline(incident, status);
        Ok(next)
    }

    /// Copies the settings of the search into the status. The command that prints the report does not know the
    /// controller's settings.
    fn say_how_it_reads(&self, status: &mut SecretIncidentStatus) {
        let audit = status.audit.get_or_insert_default();
        audit.staging = Some(self.settings.staging.clone());
        audit.expected_readers.clone_from(&self.settings.expected_readers);
    }

    fn expected(&self, incident: &SecretIncident) -> Vec<ExpectedReader> {
        incident.spec.expected_readers.iter().chain(&self.settings.expected_readers).cloned().collect()
    }

    async fn covered(&self, concerned: &[&ManagedSecret]) -> Result<Covered, ObjectError> {
        let given = self.ports.objects.grants(Source::ApiServer).await?;
        Ok(Covered::by(&given, concerned, &self.settings))
    }

    async fn read(
        &self,
        incident: &SecretIncident,
        concerned: &[&ManagedSecret],
        watched: &[Watched],
        status: &mut SecretIncidentStatus,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, ObjectError> {
        let since = audit::since(incident, status, now);
        forget_what_begins_too_late(status, since);
        if status.audit.as_ref().is_none_or(|audit| audit.reading.is_none()) && is_over(status) {
            return Ok(None);
        }
        if let Some(at) = self.planned(status).filter(|at| *at > now) {
            return Ok(Some(at));
        }
        if status.audit.as_ref().is_none_or(|audit| audit.reading.is_none()) {
            audit::begin(status, watched, since, now);
            forget_failures(status);
        }
        let expected = self.expected(incident);
        let began = Instant::now();
        // A page token is valid only for the query that returned it.
        let mut going_on: Option<(Query, String)> = None;
        while let Some(fresh) = audit::query(status) {
            if began.elapsed() > TIME_BOX || !self.ports.leadership.is_leader() {
                return Ok(Some(now));
            }
            let (query, token) = match going_on.take() {
                Some((query, token)) => (query, Some(token)),
                None => (fresh, None),
            };
            // Checks the grants again for every page, since a page holds the calls of everybody in the account.
            let covered = self.covered(concerned).await?;
            if !covered.is_about(&query.region) {
                status.audit.get_or_insert_default().reading = None;
                return Ok(Some(now));
            }
            let page = match self.ports.trail.page(&query, token.as_deref()).await {
                Ok(page) => page,
                Err(error) => return Ok(Some(self.failed(status, &error, now))),
            };
            let last = page.next.is_none();
            going_on = page.next.map(|token| (query, token));
            let (calls, delay) = (&page.calls, self.settings.trail_delay);
            audit::take(status, calls, last, &covered.watched, &expected, delay);
            // The pause grows only while nothing can be read. A page that was read resets it, even if CloudTrail
            // throttles.
            status.audit.get_or_insert_default().failures = None;
        }
        forget_failures(status);
        let audit = status.audit.get_or_insert_default();
        audit.next_reading_time = None;
        if is_over(status) {
            return Ok(None);
        }
        let (delay, responding) = (self.settings.trail_delay, is_responding(incident, status, now));
        let next = audit::next_reading(status.audit.get_or_insert_default(), responding, delay, now);
        let at = audit::last_reading(status, delay).unwrap_or(next).max(now + delay / 3);
        let audit = status.audit.get_or_insert_default();
        audit.next_reading_time = Some(to_kubernetes(at));
        Ok(Some(at))
    }

    /// Returns the time of the next reading; `None` if none is planned. If the incident was contained in the meantime,
    /// the last reading does not wait for the long pause of an open incident.
    fn planned(&self, status: &SecretIncidentStatus) -> Option<DateTime<Utc>> {
        let audit = status.audit.as_ref()?;
        let planned = audit.next_reading_time.as_ref().map(from_kubernetes)?;
        let last = audit::last_reading(status, self.settings.trail_delay);
        Some(last.filter(|_| audit.failures.is_none()).map_or(planned, |last| planned.min(last)))
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

/// Returns a message about the secrets that are not searched for. A namespace must not learn who read parameters that
/// no grant gives it.
fn not_granted(secrets: &[String]) -> String {
    format!(
        "CloudTrail is not searched for {}: no RotationGrant covers their parameters; their own conditions say what \
         is missing",
        secrets.join(", ")
    )
}

/// Drops the progress of the search if the suspicion now begins earlier than the search did.
fn forget_what_begins_too_late(status: &mut SecretIncidentStatus, since: DateTime<Utc>) {
    let Some(audit) = &mut status.audit else { return };
    let begin = audit.since.as_ref().map(from_kubernetes);
    if begin.is_some_and(|begin| since.timestamp() < begin.timestamp()) {
        (audit.complete_until, audit.reading, audit.next_reading_time) = (None, None, None);
    }
}

/// Removes the gaps of failed reads and the number of failures, before a new reading and after a complete one.
fn forget_failures(status: &mut SecretIncidentStatus) {
    if let Some(audit) = &mut status.audit {
        audit.gaps.retain(|gap| !gap.contains("CloudTrail in "));
        audit.failures = None;
    }
}

/// True while a response is under way: a secret is being rotated, deployed or revoked, and `revokeWithin` has not
/// passed.
fn is_responding(incident: &SecretIncident, status: &SecretIncidentStatus, now: DateTime<Utc>) -> bool {
    let is_on_its_way = |secret: &SuspectedSecret| {
        matches!(secret.state, SuspectState::Rotating | SuspectState::Deploying | SuspectState::Revoking)
    };
    now < scope::revoke_at(incident) && status.secrets.iter().any(is_on_its_way)
}

/// True when the search covers the time at which the last secret was contained.
fn is_over(status: &SecretIncidentStatus) -> bool {
    let until = status.audit.as_ref().and_then(|audit| audit.complete_until.as_ref()).map(from_kubernetes);
    let contained = status.contained_at.as_ref().map(from_kubernetes);
    until.zip(contained).is_some_and(|(until, contained)| until >= contained)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use keyturn_api::RotationGrant;

    fn secret(name: &str, path: &str) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ssm": {"parameters": [{"path": path}]}, "generate": {"hex": {"bytes": 32}}, "rotation": {}},
        }))
        .unwrap()
    }

    fn grant(spec: Value) -> RotationGrant {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationGrant", "metadata": {"name": "one"}, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn nobody_is_told_who_reads_what_no_grant_gives_him() {
        let (own, others) = (secret("own", "/shop/TOKEN"), secret("others", "/payroll/TOKEN"));
        let settings = Settings::new("prod", "eu-central-1");
        let covered = |grants: &[RotationGrant]| {
            let covered = Covered::by(&grants.iter().cloned().collect(), &[&own, &others], &settings);
            assert_eq!(covered.is_about("eu-central-1"), !covered.watched.is_empty());
            let watched: Vec<String> = covered.watched.into_iter().map(|watched| watched.secret).collect();
            (watched.join(" "), covered.left_out.join(" "))
        };
        let expect = |watched: &str, left_out: &str| (watched.to_owned(), left_out.to_owned());
        assert_eq!(covered(&[]), expect("", "own others"));
        let of = |mode: &str, namespace: &str, prefix: &str| {
            grant(json!({"mode": mode, "namespaces": [namespace], "parameters": [{"prefix": prefix}]}))
        };
        assert_eq!(covered(&[of("Rotate", "shop", "/shop/")]), expect("own", "others"));
        assert_eq!(covered(&[of("Observe", "shop", "/shop/")]), expect("own", "others"));
        assert_eq!(covered(&[of("Rotate", "payroll", "/payroll/")]), expect("", "own others"));
    }
}
