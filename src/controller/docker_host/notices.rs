//! Events about a DockerHost: one for each thing that began, ended or got stuck.

use super::runs::{LOST, SUCCEEDED};
use crate::api::DockerHost;
use crate::api::conditions::{self, STALLED};
use crate::api::docker_host::{DockerHostStatus, HostRun, RunMode};
use crate::controller::objects::Notice;
use crate::deploy::plan::{self, Decision};
use crate::deploy::report::Outcome;

/// What has happened between the status before and the host as it is now.
pub fn notices(before: &DockerHostStatus, host: &DockerHost, decision: &Decision) -> Vec<Notice> {
    let Some(status) = &host.status else { return Vec::new() };
    let ended = status.last_run.as_ref().filter(|run| !is_known(before.last_run.as_ref(), run));
    let started = match decision {
        Decision::Start(run) if status.run.is_some() => Some(started(run, status)),
        _ => None,
    };
    [ended.and_then(ended_notice), started, stalled(before, status)].into_iter().flatten().collect()
}

fn is_known(before: Option<&HostRun>, run: &HostRun) -> bool {
    before.is_some_and(|before| before.job == run.job)
}

fn started(run: &plan::Run, status: &DockerHostStatus) -> Notice {
    let job = status.run.as_ref().map_or("", |run| run.job.as_str());
    let reason = match run.mode {
        RunMode::Deploy => "DeployStarted",
        RunMode::Verify => "VerifyStarted",
    };
    let note = format!("Job {job}: {}", plan::describe(run));
    Notice { warning: false, reason, action: action(run.mode), note }
}

/// A verification that went well is no news.
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
    }
}

/// The result as an Event's reason.
fn reason(result: &str) -> &'static str {
    const FAILURES: [(Outcome, &str); 13] = [
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
    ];
    FAILURES.iter().find(|(_, name)| *name == result).map_or("RunLost", |(_, name)| name)
}
