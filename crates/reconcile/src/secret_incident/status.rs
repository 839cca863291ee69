//! Renders the status of a SecretIncident from the statuses of its secrets. A pure function.

pub(super) mod logs;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keyturn_api::conditions::{self as c, Truth};
use keyturn_api::managed_secret::CompromiseStatus;
use keyturn_api::secret_incident::{
    IncidentState, Reader, SecretIncidentStatus, SuspectState, SuspectedSecret, TimelineEntry,
};
use keyturn_api::time::{from_kubernetes, to_kubernetes, to_text};
use keyturn_api::{ManagedSecret, Reason, SecretIncident};
use kube::ResourceExt;

use crate::incident::scope;

/// Maximum number of secrets that a status names.
const MAX_SECRETS: usize = 500;
/// Maximum number of entries in the timeline.
const MAX_TIMELINE: usize = 200;
/// Maximum number of secrets that a message names.
const NAMED: usize = 5;

/// Renders everything except the results of the CloudTrail search and the collected log lines. These are kept as they
/// are.
pub(super) fn render(
    incident: &SecretIncident,
    concerned: &[&ManagedSecret],
    now: DateTime<Utc>,
) -> SecretIncidentStatus {
    let generation = incident.metadata.generation;
    let mut status = incident.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    let reported_at = scope::reported_at(incident);
    let known = std::mem::take(&mut status.secrets);
    let known = |name: &str| known.iter().find(|secret| secret.name == name);
    let mut secrets: Vec<SuspectedSecret> =
        concerned.iter().map(|secret| suspected(secret, reported_at, known(&secret.name_any()))).collect();
    for named in incident.spec.managed_secret_refs.iter().flatten() {
        if !secrets.iter().any(|secret| secret.name == named.name) {
            secrets.push(missing(&named.name));
        }
    }
    secrets.sort_by(|a, b| a.name.cmp(&b.name));
    secrets.truncate(MAX_SECRETS);
    let contained = secrets.iter().filter(|secret| secret.state == SuspectState::Contained).count();
    status.contained_secrets = Some(format!("{contained}/{}", secrets.len()));
    let all = !secrets.is_empty() && contained == secrets.len();
    let last = secrets.iter().filter_map(|secret| secret.contained_at.as_ref().map(from_kubernetes)).max();
    status.contained_at = last.filter(|_| all).map(to_kubernetes);
    status.time_to_containment = last.filter(|_| all).map(|at| span(at - reported_at));
    let stalled: Vec<&SuspectedSecret> =
        secrets.iter().filter(|s| matches!(s.state, SuspectState::Stalled | SuspectState::Missing)).collect();
    status.state = Some(if all {
        IncidentState::Contained
    } else if stalled.is_empty() {
        IncidentState::Responding
    } else {
        IncidentState::Stalled
    });

    let mut set = |kind, truth, reason: Reason, message: &str| {
        c::set(&mut status.conditions, kind, truth, reason, message, generation, now);
    };
    let open = secrets.iter().filter(|secret| secret.state != SuspectState::Contained).collect::<Vec<_>>();
    if secrets.is_empty() {
        let message = "No ManagedSecret of this namespace is selected: nothing is rotated";
        set(c::CONTAINED, Truth::False, Reason::NothingSelected, message);
        set(c::STALLED, Truth::True, Reason::NothingSelected, message);
    } else if all {
        let took = status.time_to_containment.clone().unwrap_or_default();
        let message =
            format!("No value from before the report can be used; containment took {took} from the report");
        set(c::CONTAINED, Truth::True, Reason::Contained, &message);
    } else {
        set(c::CONTAINED, Truth::False, open[0].state.into(), &sentence(&open));
        if !stalled.is_empty() {
            set(c::STALLED, Truth::True, stalled[0].state.into(), &sentence(&stalled));
        }
    }
    if all || !secrets.is_empty() && stalled.is_empty() {
        c::clear(&mut status.conditions, c::STALLED);
    }
    if all || !stalled.is_empty() || secrets.is_empty() {
        c::clear(&mut status.conditions, c::RECONCILING);
    } else {
        let message = "The suspected secrets are being rotated and revoked";
        c::set(
            &mut status.conditions,
            c::RECONCILING,
            Truth::True,
            Reason::Responding,
            message,
            generation,
            now,
        );
    }
    status.secrets = secrets;
    status.timeline = timeline(incident, &status);
    status
}

fn sentence(secrets: &[&SuspectedSecret]) -> String {
    let named = secrets.iter().take(NAMED).map(|s| format!("{}: {}", s.name, s.message));
    let more = secrets.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("{}{more}", named.collect::<Vec<_>>().join("; "))
}

fn missing(name: &str) -> SuspectedSecret {
    SuspectedSecret {
        name: name.to_owned(),
        state: SuspectState::Missing,
        rotated_at: None,
        adopted_at: None,
        revoked_at: None,
        contained_at: None,
        suspected_value_from: None,
        message: "there is no ManagedSecret of this name in the namespace: correct the name, or create it"
            .into(),
    }
}

/// Renders the entry of one secret. Times that the incident's status already shows are kept: the status of the secret
/// may not contain them any more, after a later incident or after it was lost.
fn suspected(
    secret: &ManagedSecret,
    reported_at: DateTime<Utc>,
    known: Option<&SuspectedSecret>,
) -> SuspectedSecret {
    let status = secret.status.as_ref();
    let compromise = status
        .and_then(|status| status.compromise.as_ref())
        .filter(|compromise| from_kubernetes(&compromise.reported_at) >= reported_at);
    let published = status.and_then(|status| status.last_rotation_time.as_ref());
    let old = published.filter(|made| from_kubernetes(made) < reported_at).cloned();
    let kept =
        |new: Option<&Time>, old: fn(&SuspectedSecret) -> Option<&Time>| known.and_then(old).or(new).cloned();
    let mut is = SuspectedSecret {
        name: secret.name_any(),
        state: SuspectState::Rotating,
        rotated_at: kept(compromise.and_then(|c| c.rotated_at.as_ref()), |s| s.rotated_at.as_ref()),
        adopted_at: kept(compromise.and_then(|c| c.adopted_at.as_ref()), |s| s.adopted_at.as_ref()),
        revoked_at: kept(compromise.and_then(|c| c.revoked_at.as_ref()), |s| s.revoked_at.as_ref()),
        contained_at: kept(compromise.and_then(|c| c.contained_at.as_ref()), |s| s.contained_at.as_ref()),
        suspected_value_from: known.and_then(|s| s.suspected_value_from.clone()).or(old),
        message: compromise.map(|c| c.message.clone()).unwrap_or_default(),
    };
    is.state = state(secret, compromise, &is);
    if is.state == SuspectState::Contained {
        is.message = match &is.adopted_at {
            None if !secret.spec.hosts.is_empty() => {
                "the old login is revoked, but a host does not run the new value yet".into()
            }
            _ => String::new(),
        };
    } else if is.message.is_empty() {
        is.message = "waiting for its turn".into();
    }
    is
}

fn state(
    secret: &ManagedSecret,
    compromise: Option<&CompromiseStatus>,
    is: &SuspectedSecret,
) -> SuspectState {
    let conditions = secret.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let observed_only = c::find(conditions, c::COMPROMISED)
        .is_some_and(|c| c.status == "True" && c.reason == Reason::Observe.name());
    if is.contained_at.is_some() {
        SuspectState::Contained
    } else if c::is_true(conditions, c::STALLED) || observed_only {
        SuspectState::Stalled
    } else if compromise.is_none() || is.rotated_at.is_none() {
        SuspectState::Rotating
    } else if is.adopted_at.is_none() {
        SuspectState::Deploying
    } else {
        SuspectState::Revoking
    }
}

/// Formats a span of time, as `4m12s`, `1h03m` or `2d04h`.
pub(super) fn span(delta: TimeDelta) -> String {
    let seconds = delta.num_seconds().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// Renders the timeline. It depends only on the incident and its status, so a repeated pass gives the same timeline.
/// If there is no room for all entries, refused calls are left out first, no matter how early they were.
pub(super) fn timeline(incident: &SecretIncident, status: &SecretIncidentStatus) -> Vec<TimelineEntry> {
    let spec = &incident.spec;
    let mut all = Vec::new();
    let mut add = |at: Option<DateTime<Utc>>, what: String| {
        all.extend(at.map(|at| TimelineEntry { at: to_text(at), what }));
    };
    add(spec.suspected_since.as_ref().map(from_kubernetes), "suspected since".into());
    add(Some(from_kubernetes(&spec.reported_at)), "reported".into());
    add(Some(scope::created_at(incident)), "response begun".into());
    add(status.contained_at.as_ref().map(from_kubernetes), "contained".into());
    calls(status, false, &mut add);
    for secret in &status.secrets {
        let name = &secret.name;
        let at = |time: &Option<Time>| time.as_ref().map(from_kubernetes);
        add(at(&secret.suspected_value_from), format!("{name}: the suspected value was made"));
        add(at(&secret.rotated_at), format!("{name}: a new value was made"));
        add(at(&secret.adopted_at), format!("{name}: every host runs the new value"));
        add(at(&secret.revoked_at), format!("{name}: the old login is refused and its sessions are ended"));
        add(at(&secret.contained_at), format!("{name}: contained"));
    }
    for log in &status.logs {
        let lines = log.found.as_ref().map_or(0, |found| found.lines);
        let what = format!("{}: {lines} log lines about it were collected from {}", log.secret, log.host);
        add(log.collected_at.as_ref().map(from_kubernetes), what);
    }
    calls(status, true, &mut add);
    let kept: BTreeSet<TimelineEntry> = all.into_iter().take(MAX_TIMELINE).collect();
    kept.into_iter().collect()
}

/// Adds the calls of unexpected readers: those that AWS executed, or with `denied` those that it refused.
fn calls(status: &SecretIncidentStatus, denied: bool, add: &mut impl FnMut(Option<DateTime<Utc>>, String)) {
    let called = |reader: &Reader| {
        format!("{} from {} ({})", reader.principal, reader.address, reader.calls.join(", "))
    };
    let unexpected = |reader: &&Reader| !reader.expected && reader.denied == denied;
    for reader in status.readers.iter().filter(unexpected) {
        let what = if denied { "was not allowed to read" } else { "read" };
        let about = reader.secrets.join(", ");
        add(Some(from_kubernetes(&reader.first)), format!("{} {what} {about} (first)", called(reader)));
        if reader.count > 1 {
            add(Some(from_kubernetes(&reader.last)), format!("{} {what} {about} (last)", called(reader)));
        }
    }
    for reader in status.tampering.iter().filter(unexpected) {
        let what = if denied { "was not allowed to change" } else { "changed" };
        let about = reader.secrets.join(", ");
        add(Some(from_kubernetes(&reader.first)), format!("{} {what} {about}", called(reader)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn refused_reads_push_nothing_out_of_the_timeline() {
        let incident: SecretIncident = serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
            "metadata": {"name": "leak", "namespace": "shop", "creationTimestamp": "2026-11-23T12:05:00Z"},
            "spec": {"allSecrets": true, "reportedAt": "2026-11-23T12:00:00Z"},
        }))
        .unwrap();
        let reader = |name: String, denied: bool, at: &str| -> Value {
            json!({
                "principal": name, "address": "203.0.113.9", "expected": false, "denied": denied, "count": 2,
                "calls": ["GetParameter"], "first": at, "last": at, "secrets": ["token"],
            })
        };
        let refused = (0..300).map(|n| reader(format!("noise-{n}"), true, "2026-11-20T00:00:00Z"));
        let stolen = reader("quiet".to_owned(), false, "2026-11-23T11:00:00Z");
        let readers: Vec<Value> = refused.chain([stolen]).collect();
        let contained = "2026-11-23T12:09:00Z";
        let status = json!({"readers": readers, "containedAt": contained});
        let timeline = timeline(&incident, &serde_json::from_value(status).unwrap());
        let of = |text: &str| timeline.iter().filter(|entry| entry.what.contains(text)).count();
        assert_eq!((timeline.len() <= MAX_TIMELINE, of("quiet"), of("noise") > 100), (true, 2, true));
        assert_eq!(timeline.last().unwrap().at, contained);
    }
}
