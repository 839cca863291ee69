//! Copies the log lines that docker hosts have collected for an incident into its status.

use chrono::{DateTime, Utc};
use keyturn_api::access_log::{HostAccessLog, IncidentLog};
use keyturn_api::conditions::{self as c, Truth};
use keyturn_api::docker_host::RunResult;
use keyturn_api::secret_incident::SecretIncidentStatus;
use keyturn_api::{DockerHost, ManagedSecret, Reason, SecretIncident};
use kube::ResourceExt;

/// Maximum number of entries in the status; the schema allows no more.
const MOST_LOGS: usize = 500;
/// Maximum number of bytes of log lines in the status. With more bytes, the object could not be written.
const MOST_SHOWN: usize = 256 * 1024;
/// Maximum number of hosts and secrets that a message names.
const NAMED: usize = 5;

/// Copies the lines that hosts have collected into the status, and sets the condition LogsCollected.
pub(in crate::secret_incident) fn take_over(
    incident: &SecretIncident,
    concerned: &[&ManagedSecret],
    hosts: &[DockerHost],
    status: &mut SecretIncidentStatus,
    now: DateTime<Utc>,
) {
    for host in hosts {
        for log in host.status.iter().flat_map(|status| &status.access_logs) {
            if incident.uid().is_some_and(|uid| uid == log.incident_uid) {
                take(&mut status.logs, &host.name_any(), log);
            }
        }
    }
    status.logs.sort_by(|a, b| (&a.secret, &a.host).cmp(&(&b.secret, &b.host)));
    status.logs.truncate(MOST_LOGS);
    let mut shown = 0;
    for found in status.logs.iter_mut().filter_map(|log| log.found.as_mut()) {
        shown += found.excerpt.iter().map(String::len).sum::<usize>();
        if shown > MOST_SHOWN {
            found.excerpt.clear();
        }
    }
    let (truth, reason, message) = said(concerned, hosts, status);
    let generation = incident.metadata.generation;
    c::set(&mut status.conditions, c::LOGS_COLLECTED, truth, reason, &message, generation, now);
}

fn take(logs: &mut Vec<IncidentLog>, host: &str, new: &HostAccessLog) {
    let known = logs.iter().position(|log| log.host == host && log.secret == new.secret);
    let before = known.map(|at| logs.remove(at));
    let collected = new.found.as_ref().map(|found| (found.clone(), new.at.clone(), new.problem.is_none()));
    let mut log = IncidentLog {
        host: host.to_owned(),
        secret: new.secret.clone(),
        since: new.since.clone(),
        until: new.until.clone(),
        collected_at: None,
        found: None,
        problem: new.problem.clone(),
    };
    match (collected, before.filter(|before| before.found.is_some())) {
        // The lines are from the last attempt, or from an earlier attempt whose lines this status does not have yet.
        (Some((found, at, true)), _) | (Some((found, at, false)), None) => {
            (log.found, log.collected_at) = (Some(found), Some(at));
        }
        (_, Some(before)) => {
            (log.since, log.until) = (before.since, before.until);
            (log.found, log.collected_at) = (before.found, before.collected_at);
        }
        (None, None) => {}
    }
    logs.push(log);
}

/// Returns the condition LogsCollected: True when, for every secret with `spec.accessLog`, each of its hosts has
/// collected lines. False too if no secret on a host has a `spec.accessLog`.
fn said(
    concerned: &[&ManagedSecret],
    hosts: &[DockerHost],
    status: &SecretIncidentStatus,
) -> (Truth, Reason, String) {
    let with_hosts = || concerned.iter().filter(|secret| !secret.spec.hosts.is_empty());
    let silent: Vec<String> =
        with_hosts().filter(|secret| secret.spec.access_log.is_none()).map(|s| s.name_any()).collect();
    let asked: Vec<&&ManagedSecret> =
        with_hosts().filter(|secret| secret.spec.access_log.is_some()).collect();
    let nobody_looked =
        format!("no log lines are collected for {}: set spec.accessLog of the ManagedSecret", named(&silent));
    if asked.is_empty() {
        let message = if silent.is_empty() { "no secret runs on a host".to_owned() } else { nobody_looked };
        return (Truth::False, Reason::NoCommand, message);
    }
    let (mut open, mut failed, mut collected, mut lines) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for secret in asked {
        let name = secret.name_any();
        for host in &secret.spec.hosts {
            let log = status.logs.iter().find(|log| log.host == host.name && log.secret == name);
            match log.map(|log| (&log.problem, &log.found)) {
                Some((Some(problem), _)) => failed.push(format!("{name} on {}: {problem}", host.name)),
                Some((None, Some(found))) => {
                    collected.push(format!("{name} on {}", host.name));
                    lines += found.lines;
                }
                _ => open.push(format!("{name} on {}{}", host.name, why(hosts, &host.name))),
            }
        }
    }
    let rest = if silent.is_empty() { String::new() } else { format!("; {nobody_looked}") };
    if !failed.is_empty() {
        return (Truth::False, RunResult::CollectFailed.into(), format!("{}{rest}", named(&failed)));
    }
    if !open.is_empty() {
        let message = format!("not collected yet: {}{rest}", named(&open));
        return (Truth::False, Reason::Collecting, message);
    }
    (Truth::True, Reason::Collected, format!("{lines} log lines were collected: {}{rest}", named(&collected)))
}

/// Returns the end of a message, with the reason why a host collects nothing: the DockerHost does not exist, or is
/// suspended. Empty if neither is the case.
fn why(hosts: &[DockerHost], name: &str) -> &'static str {
    match hosts.iter().find(|host| host.name_any() == name) {
        None => " (there is no such DockerHost)",
        Some(host) if host.spec.suspend => " (the DockerHost is suspended)",
        Some(_) => "",
    }
}

fn named(list: &[String]) -> String {
    let more = list.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", list.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::deploy::testing::{at, host, secret, with_status};

    fn incident() -> SecretIncident {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
            "metadata": {"name": "leak", "namespace": "prod", "uid": "uid"},
            "spec": {"allSecrets": true, "reportedAt": at(1000)},
        }))
        .unwrap()
    }

    /// Host `web` with a collection that ended at this second.
    fn web(seconds: i64, more: Value) -> DockerHost {
        let mut log = json!({
            "incident": "leak", "incidentUid": "uid", "secret": "token", "since": at(500), "until": at(1050),
            "at": at(seconds), "job": "web-1-c1", "revision": "1", "attempt": 1,
        });
        log.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let log: HostAccessLog = serde_json::from_value(log).unwrap();
        with_status(host("web"), |status| status.access_logs = vec![log])
    }

    fn found(lines: i64) -> Value {
        json!({"found": {"lines": lines, "bytes": 9, "digest": "0a", "file": "/leak.log", "excerpt": ["x"]}})
    }

    /// Returns the condition's reason and the status, after these hosts were taken over one after another.
    fn seen(command: bool, hosts: &[DockerHost]) -> (String, SecretIncidentStatus) {
        let mut token = secret("token", &["/app/TOKEN"]);
        token.spec.access_log = command.then(|| serde_json::from_value(json!({"script": "x"})).unwrap());
        let mut status = SecretIncidentStatus::default();
        for host in hosts {
            let now = DateTime::from_timestamp(2000, 0).unwrap();
            take_over(&incident(), &[&token], std::slice::from_ref(host), &mut status, now);
        }
        let condition = c::find(&status.conditions, c::LOGS_COLLECTED).unwrap();
        (format!("{} {}: {}", condition.status, condition.reason, condition.message), status)
    }

    #[test]
    fn the_condition_says_what_was_collected_and_what_is_missing() {
        let failure = json!({"failures": 1, "problem": "CollectFailed: no such container"});
        for (command, hosts, expected) in [
            (false, vec![host("web")], "False NoCommand: no log lines are collected for token: set"),
            (true, vec![host("web")], "False Collecting: not collected yet: token on web"),
            (
                true,
                vec![web(1100, failure)],
                "False CollectFailed: token on web: CollectFailed: no such container",
            ),
            (true, vec![web(1100, found(3))], "True Collected: 3 log lines were collected: token on web"),
        ] {
            let (said, _) = seen(command, &hosts);
            assert!(said.starts_with(expected), "{said}");
        }
    }

    #[test]
    fn what_was_collected_stays_when_the_host_lets_it_go_or_fails_to_collect_more() {
        let (said, status) = seen(true, &[web(1100, found(3)), host("web")]);
        assert!(said.starts_with("True"), "{said}");
        assert_eq!(status.logs[0].found.as_ref().unwrap().lines, 3);
        assert_eq!(status.logs[0].collected_at, Some(at(1100)));

        let failure = json!({"failures": 1, "problem": "Unreachable: no route", "since": at(400)});
        let (said, status) = seen(true, &[web(1100, found(3)), web(1200, failure)]);
        assert!(said.starts_with("False CollectFailed"), "{said}");
        assert_eq!(status.logs[0].found.as_ref().unwrap().lines, 3);
        assert_eq!((&status.logs[0].since, &status.logs[0].collected_at), (&at(500), &Some(at(1100))));

        let (said, status) = seen(true, &[web(1100, found(3)), web(1300, found(5))]);
        assert!(said.starts_with("True Collected: 5 log lines"), "{said}");
        assert_eq!(status.logs.len(), 1);
    }
}
