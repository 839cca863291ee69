//! Events and notifications about a DockerHost. Kubernetes Events report that a run began or ended, that an image
//! contains a secret, and that the host is stalled. Notifications report the conditions that need a person.

use chrono::{DateTime, Utc};
use keyturn_api::access_log::HostAccessLog;
use keyturn_api::conditions::{self, IMAGES_CLEAN, STALLED};
use keyturn_api::docker_host::{DockerHostStatus, HostRun, ImageFinding, RunMode, RunResult};
use keyturn_api::notification::Topic;
use keyturn_api::{DockerHost, Reason};

use super::status::describe_finding;
use crate::deploy::plan::{self, Decision};
use crate::notification::Notification;
use crate::objects::Event;
use crate::telling::{self, Alert, Watched, turns};

/// The conditions to report. The Events about images do not come from the condition ImagesClean but from the findings,
/// since another secret may be found while the condition stays False.
const WATCHED: [Watched; 2] = [
    Watched { condition: STALLED, bad: "True", event: Some(Reason::Stalled), topic: Some(Topic::Stalled) },
    Watched { condition: IMAGES_CLEAN, bad: "False", event: None, topic: Some(Topic::ImagesNotClean) },
];

/// Returns the notifications about a change from one status of a host to another. Failed deployments are reported by
/// the secrets that wait for them.
pub(super) fn notifications(
    before: &DockerHostStatus,
    after: &DockerHostStatus,
    now: DateTime<Utc>,
) -> Vec<Notification> {
    turns(&alerts(before), &alerts(after), now)
}

fn alerts(status: &DockerHostStatus) -> Vec<Alert> {
    telling::bad_conditions(&WATCHED, &status.conditions).map(telling::alert).collect()
}

/// Returns the Events for the changes between the status before and the host as it is now.
pub(super) fn events(before: &DockerHostStatus, host: &DockerHost, decision: &Decision) -> Vec<Event> {
    let Some(status) = &host.status else { return Vec::new() };
    let ended = status.last_run.as_ref().filter(|run| !is_known(before.last_run.as_ref(), run));
    let started = match decision {
        Decision::Start(run) if status.run.is_some() => Some(event_of_start(run, status)),
        _ => None,
    };
    let images = event_of_images(before, status);
    let mut events: Vec<Event> =
        [ended.and_then(event_of_end), started, images].into_iter().flatten().collect();
    let turned = telling::turned(&WATCHED, &before.conditions, &status.conditions);
    events.extend(turned.map(|turned| {
        let note = format!("{}: {}", turned.now.reason, turned.now.message);
        Event { note, ..turned.event("Deploy") }
    }));
    events.extend(status.access_logs.iter().filter_map(|log| event_of_collection(before, log)));
    events
}

/// Returns the Event for log lines that were collected or could not be collected; `None` if `before` shows this result
/// already.
fn event_of_collection(before: &DockerHostStatus, log: &HostAccessLog) -> Option<Event> {
    if before.access_logs.iter().any(|known| known.job == log.job && known.at == log.at) {
        return None;
    }
    let about = format!("SecretIncident {}, ManagedSecret {}", log.incident, log.secret);
    let (warning, reason, note) = match (&log.problem, &log.found) {
        (Some(problem), _) => (true, RunResult::CollectFailed.into(), format!("{about}: {problem}")),
        (None, Some(found)) => (false, Reason::LogsCollected, format!("{about}: {} log lines", found.lines)),
        (None, None) => return None,
    };
    Some(Event { warning, reason, action: "Collect", note })
}

/// Returns the Event about images: a secret was newly found in an image of this name, or the images do not contain
/// secrets any more. A new build of the image with the same secret is not reported again.
fn event_of_images(before: &DockerHostStatus, status: &DockerHostStatus) -> Option<Event> {
    let same = |a: &ImageFinding, b: &ImageFinding| a.image == b.image && a.fingerprint == b.fingerprint;
    let known = |finding: &&ImageFinding| before.image_findings.iter().any(|known| same(known, finding));
    let new: Vec<&ImageFinding> = status.image_findings.iter().filter(|finding| !known(finding)).collect();
    if let Some(first) = new.first() {
        let more = if new.len() > 1 { format!(", and {} more", new.len() - 1) } else { String::new() };
        return Some(Event {
            warning: true,
            reason: Reason::SecretInImage,
            action: "Audit",
            note: format!(
                "{}{more}; rotate each secret, and remove it from the Dockerfile",
                describe_finding(first)
            ),
        });
    }
    let is_clean = |status: &DockerHostStatus| conditions::is_true(&status.conditions, IMAGES_CLEAN);
    (!before.image_findings.is_empty() && is_clean(status)).then(|| Event {
        warning: false,
        reason: Reason::ImagesClean,
        action: "Audit",
        note: "the images that the containers run hold no secrets any more, except those in spec.audit.allow"
            .to_owned(),
    })
}

fn is_known(before: Option<&HostRun>, run: &HostRun) -> bool {
    before.is_some_and(|before| before.job == run.job)
}

fn event_of_start(run: &plan::Run, status: &DockerHostStatus) -> Event {
    let job = status.run.as_ref().map_or("", |run| run.job.as_str());
    let reason = match run.mode {
        RunMode::Deploy => Reason::DeployStarted,
        RunMode::Verify => Reason::VerifyStarted,
        RunMode::Collect => Reason::CollectStarted,
    };
    let note = format!("Job {job}: {}", plan::describe(run));
    Event { warning: false, reason, action: action(run.mode), note }
}

/// Returns the Event for a run that ended. A successful verification gets none.
fn event_of_end(run: &HostRun) -> Option<Event> {
    let result = run.result.unwrap_or(RunResult::Lost);
    let message = run.message.as_deref().unwrap_or_default();
    if result == RunResult::Succeeded {
        let note = format!("Job {} deployed {}. {message}", run.job, run.parameters.join(", "));
        return (run.mode == RunMode::Deploy).then(|| Event {
            warning: false,
            reason: Reason::DeploySucceeded,
            action: action(run.mode),
            note: note.trim_end().to_owned(),
        });
    }
    let note = format!("Job {}, attempt {}: {message}", run.job, run.attempt);
    let reason = if result == RunResult::Lost { Reason::RunLost } else { result.into() };
    Some(Event { warning: true, reason, action: action(run.mode), note })
}

fn action(mode: RunMode) -> &'static str {
    match mode {
        RunMode::Deploy => "Deploy",
        RunMode::Verify => "Verify",
        RunMode::Collect => "Collect",
    }
}
