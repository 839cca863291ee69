//! Events about a DockerHost: one for each thing that began, ended or stalled.

use keyturn_api::DockerHost;
use keyturn_api::access_log::HostAccessLog;
use keyturn_api::conditions::{self, IMAGES_CLEAN, STALLED};
use keyturn_api::docker_host::{DockerHostStatus, HostRun, ImageFinding, RunMode};

use super::conditions::describe_finding;
use super::runs::{LOST, SUCCEEDED};
use crate::deploy::plan::{self, Decision};
use crate::deploy::report::Outcome;
use crate::objects::Notice;

/// Returns the Events for the changes between the status before and the host as it is now.
pub(super) fn notices(before: &DockerHostStatus, host: &DockerHost, decision: &Decision) -> Vec<Notice> {
    let Some(status) = &host.status else { return Vec::new() };
    let ended = status.last_run.as_ref().filter(|run| !is_known(before.last_run.as_ref(), run));
    let started = match decision {
        Decision::Start(run) if status.run.is_some() => Some(started(run, status)),
        _ => None,
    };
    let images = images(before, status);
    let mut notices: Vec<Notice> = [ended.and_then(ended_notice), started, images, stalled(before, status)]
        .into_iter()
        .flatten()
        .collect();
    notices.extend(status.access_logs.iter().filter_map(|log| collected(before, log)));
    notices
}

/// Returns the Event for log lines that were collected or could not be collected.
fn collected(before: &DockerHostStatus, log: &HostAccessLog) -> Option<Notice> {
    if before.access_logs.iter().any(|known| known.job == log.job && known.at == log.at) {
        return None;
    }
    let about = format!("SecretIncident {}, ManagedSecret {}", log.incident, log.secret);
    let (warning, reason, note) = match (&log.problem, &log.found) {
        (Some(problem), _) => (true, "CollectFailed", format!("{about}: {problem}")),
        (None, Some(found)) => (false, "LogsCollected", format!("{about}: {} log lines", found.lines)),
        (None, None) => return None,
    };
    Some(Notice { warning, reason, action: "Collect", note })
}

/// Returns the Event for a secret that is new in an image of this name. A new build of the image with the same secret
/// is not reported again.
fn images(before: &DockerHostStatus, status: &DockerHostStatus) -> Option<Notice> {
    let same = |a: &ImageFinding, b: &ImageFinding| a.image == b.image && a.fingerprint == b.fingerprint;
    let known = |finding: &&ImageFinding| before.image_findings.iter().any(|known| same(known, finding));
    let news: Vec<&ImageFinding> = status.image_findings.iter().filter(|finding| !known(finding)).collect();
    if let Some(first) = news.first() {
        let more = if news.len() > 1 { format!(", and {} more", news.len() - 1) } else { String::new() };
        return Some(Notice {
            warning: true,
            reason: "SecretInImage",
            action: "Audit",
            note: format!(
                "{}{more}; rotate what is in an image, and take it out of the Dockerfile",
                describe_finding(first)
            ),
        });
    }
    let is_clean = |status: &DockerHostStatus| conditions::is_true(&status.conditions, IMAGES_CLEAN);
    (!before.image_findings.is_empty() && is_clean(status)).then(|| Notice {
        warning: false,
        reason: "ImagesClean",
        action: "Audit",
        note: "the images that the containers run carry none of the secrets that were found before"
            .to_owned(),
    })
}

fn is_known(before: Option<&HostRun>, run: &HostRun) -> bool {
    before.is_some_and(|before| before.job == run.job)
}

fn started(run: &plan::Run, status: &DockerHostStatus) -> Notice {
    let job = status.run.as_ref().map_or("", |run| run.job.as_str());
    let reason = match run.mode {
        RunMode::Deploy => "DeployStarted",
        RunMode::Verify => "VerifyStarted",
        RunMode::Collect => "CollectStarted",
    };
    let note = format!("Job {job}: {}", plan::describe(run));
    Notice { warning: false, reason, action: action(run.mode), note }
}

/// Returns the Event for a run that ended. A successful verification gets none.
fn ended_notice(run: &HostRun) -> Option<Notice> {
    let result = run.result.as_deref().unwrap_or(LOST);
    let message = run.message.as_deref().unwrap_or_default();
    if result == SUCCEEDED {
        let note = format!("Job {} deployed {}. {message}", run.job, run.parameters.join(", "));
        return (run.mode == RunMode::Deploy).then(|| Notice {
            warning: false,
            reason: "DeploySucceeded",
            action: action(run.mode),
            note: note.trim_end().to_owned(),
        });
    }
    let note = format!("Job {}, attempt {}: {message}", run.job, run.attempt);
    Some(Notice { warning: true, reason: reason(result), action: action(run.mode), note })
}

fn stalled(before: &DockerHostStatus, status: &DockerHostStatus) -> Option<Notice> {
    let now = conditions::find(&status.conditions, STALLED)?;
    let was = conditions::find(&before.conditions, STALLED);
    let news = was.is_none_or(|was| was.reason != now.reason);
    news.then(|| Notice {
        warning: true,
        reason: "Stalled",
        action: "Deploy",
        note: format!("{}: {}", now.reason, now.message),
    })
}

fn action(mode: RunMode) -> &'static str {
    match mode {
        RunMode::Deploy => "Deploy",
        RunMode::Verify => "Verify",
        RunMode::Collect => "Collect",
    }
}

/// Returns the result as the reason of an Event.
fn reason(result: &str) -> &'static str {
    const FAILURES: [(Outcome, &str); 14] = [
        (Outcome::Unreachable, "Unreachable"),
        (Outcome::ConnectionLost, "ConnectionLost"),
        (Outcome::Busy, "Busy"),
        (Outcome::HostKeyRefused, "HostKeyRefused"),
        (Outcome::AuthenticationFailed, "AuthenticationFailed"),
        (Outcome::BadInput, "BadInput"),
        (Outcome::HostUnfit, "HostUnfit"),
        (Outcome::Outdated, "Outdated"),
        (Outcome::DeployFailed, "DeployFailed"),
        (Outcome::DeployTimedOut, "DeployTimedOut"),
        (Outcome::DeployInterrupted, "DeployInterrupted"),
        (Outcome::VerifyFailed, "VerifyFailed"),
        (Outcome::NotAdopted, "NotAdopted"),
        (Outcome::CollectFailed, "CollectFailed"),
    ];
    FAILURES.iter().find(|(_, name)| *name == result).map_or("RunLost", |(_, name)| name)
}
