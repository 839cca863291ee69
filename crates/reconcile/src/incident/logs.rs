//! Decides which log lines the docker hosts have to collect: for every secret with `spec.accessLog`, from the start of
//! the suspicion to the containment.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::time::from_kubernetes;
use keyturn_api::{ManagedSecret, SecretIncident};
use kube::ResourceExt;

use super::scope;
use crate::deploy::collection::{About, Collection};
use crate::deploy::wish;

/// Length of the requested window before the report, if neither the start of the suspicion nor the time of the
/// suspected value is known.
const FURTHEST: TimeDelta = TimeDelta::days(90);

/// Returns the start and end of the time in which somebody may have used the secret. `None` until that time is over. It
/// is over when the secret is contained, or when `revokeWithin` has passed.
pub fn window(
    incident: &SecretIncident,
    secret: &str,
    now: DateTime<Utc>,
) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let suspected = incident.status.as_ref()?.secrets.iter().find(|suspected| suspected.name == secret)?;
    // The status has whole seconds, so the second of the containment is included.
    let contained = suspected.contained_at.as_ref().map(|at| from_kubernetes(at) + TimeDelta::seconds(1));
    let until = contained.or_else(|| Some(scope::revoke_at(incident)).filter(|by| *by <= now))?;
    let said = incident.spec.suspected_since.as_ref().or(suspected.suspected_value_from.as_ref());
    let since = said.map_or_else(|| scope::reported_at(incident) - FURTHEST, from_kubernetes);
    (since < until).then_some((since, until))
}

/// Returns the collections that this host has to do, oldest incident first. A collection is left out if the status of
/// its incident already has the lines of the whole window.
pub fn wanted(
    host: &str,
    incidents: &[SecretIncident],
    secrets: &[ManagedSecret],
    now: DateTime<Utc>,
) -> Vec<Collection> {
    let mut oldest_first: Vec<&SecretIncident> = incidents.iter().collect();
    oldest_first.sort_by_key(|incident| (scope::created_at(incident), incident.name_any()));
    let mut wanted = Vec::new();
    for incident in oldest_first {
        for secret in secrets.iter().filter(|secret| is_asked(incident, secret, host)) {
            let name = secret.name_any();
            let Some(spec) = &secret.spec.access_log else { continue };
            let Some((since, until)) = window(incident, &name, now) else { continue };
            if has_it(incident, host, &name, since, until) {
                continue;
            }
            wanted.push(Collection {
                about: About {
                    incident: incident.name_any(),
                    incident_uid: incident.uid().unwrap_or_default(),
                    secret: name,
                    since: since.timestamp(),
                    until: until.timestamp(),
                },
                script: spec.script.clone(),
                timeout_seconds: u64::try_from(spec.timeout().num_seconds()).unwrap_or_default(),
            });
        }
    }
    wanted
}

/// Returns the earliest future time at which `revokeWithin` ends, of the incidents that are not contained and that need
/// log lines from this host.
pub fn next_window(
    host: &str,
    incidents: &[SecretIncident],
    secrets: &[ManagedSecret],
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let open = |incident: &&SecretIncident| {
        incident.status.as_ref().is_none_or(|status| status.contained_at.is_none())
            && secrets.iter().any(|secret| is_asked(incident, secret, host))
    };
    incidents.iter().filter(open).map(scope::revoke_at).filter(|at| *at > now).min()
}

fn is_asked(incident: &SecretIncident, secret: &ManagedSecret, host: &str) -> bool {
    secret.spec.access_log.is_some() && scope::concerns(incident, secret) && wish::names_host(secret, host)
}

/// True when the incident's status has the lines of this whole window.
fn has_it(
    incident: &SecretIncident,
    host: &str,
    secret: &str,
    since: DateTime<Utc>,
    until: DateTime<Utc>,
) -> bool {
    let logs = incident.status.iter().flat_map(|status| &status.logs);
    logs.into_iter().any(|log| {
        log.host == host
            && log.secret == secret
            && log.found.is_some()
            && from_kubernetes(&log.since) <= since
            && from_kubernetes(&log.until) >= until
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn incident(suspected: serde_json::Value) -> SecretIncident {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
            "metadata": {"name": "leak", "namespace": "shop", "creationTimestamp": "2026-11-23T12:00:00Z"},
            "spec": {"allSecrets": true, "reportedAt": "2026-11-23T12:00:00Z", "revokeWithin": "30m"},
            "status": {"secrets": [suspected]},
        }))
        .unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        keyturn_api::time::from_text(text).unwrap()
    }

    #[test]
    fn the_window_ends_with_the_containment_or_with_the_time_that_hosts_had() {
        let open =
            json!({"name": "token", "state": "Deploying", "suspectedValueFrom": "2026-11-01T00:00:00Z"});
        let mut contained = open.clone();
        contained["containedAt"] = json!("2026-11-23T12:04:00Z");
        let made = at("2026-11-01T00:00:00Z");
        let early = at("2026-11-23T12:29:59Z");
        let window = |suspected: &serde_json::Value, now| window(&incident(suspected.clone()), "token", now);
        assert_eq!(window(&open, early), None);
        assert_eq!(window(&open, at("2026-11-23T12:30:00Z")), Some((made, at("2026-11-23T12:30:00Z"))));
        assert_eq!(window(&contained, early), Some((made, at("2026-11-23T12:04:01Z"))));
        let mut unknown = contained.clone();
        unknown["suspectedValueFrom"] = json!(null);
        assert_eq!(window(&unknown, early).unwrap().0, at("2026-08-25T12:00:00Z"));
        unknown["name"] = json!("other");
        assert_eq!(window(&unknown, early), None);
    }
}
