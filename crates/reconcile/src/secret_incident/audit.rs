//! Reads CloudTrail for an incident, for a bounded time in each pass.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::conditions::{self as c, Truth};
use keyturn_api::grants::Grants;
use keyturn_api::secret_incident::SecretIncidentStatus;
use keyturn_api::time::{from_kubernetes, to_kubernetes};
use keyturn_api::{ManagedSecret, SecretIncident};
use kube::ResourceExt;

use super::SecretIncidents;
use super::status;
use crate::incident::audit::{self, Query, Watched};
use crate::incident::scope;
use crate::incident::trail::TrailError;
use crate::objects::ObjectError;
use crate::parameter_store::records;
use crate::settings::{Settings, doubling};

/// How long one pass reads; what is left is read by the next.
const TIME_BOX: Duration = Duration::from_secs(10);
/// Pause after a failure; doubles with each further one up to the longest.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(1);
const LONGEST_PAUSE: TimeDelta = TimeDelta::minutes(5);
/// Most gaps that a status names.
const MAX_GAPS: usize = 16;

/// Whose calls may be looked for, and whose may not.
struct Covered {
    watched: Vec<Watched>,
    /// Names of concerned secrets that no grant covers.
    left_out: Vec<String>,
}

impl Covered {
    /// What the grants let the namespace know. One that only observes is enough: nothing is changed.
    fn by(
        given: &Grants,
        incident: &SecretIncident,
        concerned: &[&ManagedSecret],
        settings: &Settings,
    ) -> Self {
        let namespace = incident.namespace().unwrap_or_default();
        let (mut watched, mut left_out) = (Vec::new(), Vec::new());
        for secret in concerned {
            let (name, region) = (secret.name_any(), settings.region_of(secret));
            if !settings.verdict(given, secret, region).allows_looks() {
                left_out.push(name);
                continue;
            }
            let folder = records::folder(&settings.staging, &namespace, &name);
            watched.push(Watched {
                secret: name,
                region: region.to_owned(),
                paths: secret.spec.ssm.parameters.iter().map(|p| p.path.clone()).collect(),
                folder: format!("{}/", folder.trim_end_matches('/')),
            });
        }
        Self { watched, left_out }
    }

    fn is_about(&self, region: &str) -> bool {
        self.watched.iter().any(|watched| watched.region == region)
    }
}

impl SecretIncidents {
    /// Goes on with the search where there is something to read; answers when to look again.
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
        let covered = self.covered(incident, concerned).await?;
        let generation = incident.metadata.generation;
        if covered.watched.is_empty() {
            let text = not_granted(&covered.left_out);
            let (kind, truth) = (c::AUDIT_COMPLETE, Truth::False);
            c::set(&mut status.conditions, kind, truth, "NotGranted", &text, generation, now);
            return Ok(None);
        }
        let next = self.read(incident, concerned, &covered.watched, status, now).await?;
        let audit = status.audit.clone().unwrap_or_default();
        let mut text =
            audit::said(&audit, status.unexpected_readers.unwrap_or_default(), self.settings.trail_delay);
        if !covered.left_out.is_empty() {
            text = format!("{text}; {}", not_granted(&covered.left_out));
        }
        let (truth, reason) = match (&audit.complete_until, is_over(status)) {
            (_, true) => (Truth::True, "Complete"),
            (None, false) => (Truth::False, "Reading"),
            (Some(_), false) => (Truth::False, "NotComplete"),
        };
        c::set(&mut status.conditions, c::AUDIT_COMPLETE, truth, reason, &text, generation, now);
        status.timeline = status::timeline(incident, status);
        Ok(next)
    }

    async fn covered(
        &self,
        incident: &SecretIncident,
        concerned: &[&ManagedSecret],
    ) -> Result<Covered, ObjectError> {
        let given = self.ports.objects.grants().await?;
        Ok(Covered::by(&given, incident, concerned, &self.settings))
    }

    async fn read(
        &self,
        incident: &SecretIncident,
        concerned: &[&ManagedSecret],
        watched: &[Watched],
        status: &mut SecretIncidentStatus,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, ObjectError> {
        if status.audit.as_ref().is_none_or(|audit| audit.reading.is_none()) && is_over(status) {
            return Ok(None);
        }
        let planned =
            status.audit.as_ref().and_then(|audit| audit.next_reading_time.as_ref()).map(from_kubernetes);
        if let Some(at) = planned.filter(|at| *at > now) {
            return Ok(Some(at));
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
                return Ok(Some(now));
            }
            let (query, token) = match going_on.take() {
                Some((query, token)) => (query, Some(token)),
                None => (fresh, None),
            };
            // As of this moment: a page holds what everybody in the account has done.
            let covered = self.covered(incident, concerned).await?;
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
            // The pause grows while nothing can be read, not while CloudTrail only asks for slowness.
            status.audit.get_or_insert_default().failures = None;
        }
        forget_failures(status);
        let audit = status.audit.get_or_insert_default();
        audit.next_reading_time = None;
        if is_over(status) {
            return Ok(None);
        }
        // Often while it is new, since people wait for it; and once everything about the containment can be seen.
        let delay = self.settings.trail_delay;
        let soon = now + delay / 3;
        let contained = status.contained_at.as_ref().map(from_kubernetes);
        let at = contained.map_or(soon, |contained| soon.max(contained + delay + TimeDelta::seconds(1)));
        let audit = status.audit.get_or_insert_default();
        audit.next_reading_time = Some(to_kubernetes(at));
        Ok(Some(at))
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

/// Who read them is known to nobody who may not read them.
fn not_granted(secrets: &[String]) -> String {
    format!(
        "CloudTrail is not searched for {}: no RotationGrant covers what they name; their own conditions say what is lacking",
        secrets.join(", ")
    )
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
        let incident: SecretIncident = serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
            "metadata": {"name": "leak", "namespace": "shop"},
            "spec": {"allSecrets": true, "reportedAt": "2026-01-01T00:00:00Z"},
        }))
        .unwrap();
        let (own, others) = (secret("own", "/shop/TOKEN"), secret("others", "/payroll/TOKEN"));
        let settings = Settings::new("prod", "eu-central-1");
        let covered = |grants: &[RotationGrant]| {
            let covered =
                Covered::by(&grants.iter().cloned().collect(), &incident, &[&own, &others], &settings);
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
