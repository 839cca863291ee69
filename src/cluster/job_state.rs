//! Derives the state of a run from its Job and pods in the API server.

use chrono::{DateTime, Utc};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod};
use keyturn_reconcile::deploy_jobs::{DeployJob, JobParameter, JobState};
use kube::ResourceExt;

use crate::api::docker_host::RunMode;
use crate::api::time::from_kubernetes;
use crate::deploy::job::{
    ABOUT, ATTEMPT, AUDIT, CONTAINER, GENERATION, LAYERS, MODE, PARAMETERS, REVISION, TARGET, TASK_DELETED,
};
use crate::deploy::report::{Report, UNDER_WAY};

/// Converts a Job for the reconciler; `None` if keyturn did not create it.
pub fn deploy_job(job: &Job, pods: &[&Pod], trouble: Option<String>) -> Option<DeployJob> {
    let annotation = |key: &str| job.annotations().get(key).map(String::as_str);
    Some(DeployJob {
        name: job.name_any(),
        mode: match annotation(MODE)? {
            "Deploy" => RunMode::Deploy,
            "Verify" => RunMode::Verify,
            "Collect" => RunMode::Collect,
            _ => return None,
        },
        revision: annotation(REVISION)?.to_owned(),
        attempt: annotation(ATTEMPT)?.parse().ok()?,
        parameters: annotation(PARAMETERS)?.lines().map(parameter).collect::<Option<_>>()?,
        generation: annotation(GENERATION)?.parse().ok()?,
        target: annotation(TARGET)?.to_owned(),
        // A Job of an earlier release has no such annotation.
        audit: annotation(AUDIT).unwrap_or_default().to_owned(),
        about: annotation(ABOUT).and_then(|about| serde_json::from_str(about).ok()),
        layers: annotation(LAYERS) == Some("true"),
        holds_task: holds_task(job),
        created: created(job),
        state: state(job, pods, trouble),
    })
}

/// Parses `<path>=<version>@<seconds since 1970>`.
fn parameter(line: &str) -> Option<JobParameter> {
    let (path, version) = line.rsplit_once('=')?;
    let (version, published_at) = version.split_once('@')?;
    Some(JobParameter {
        path: path.to_owned(),
        version: version.parse().ok()?,
        published_at: published_at.parse().ok()?,
    })
}

fn created(job: &Job) -> DateTime<Utc> {
    job.metadata.creation_timestamp.as_ref().map_or(DateTime::UNIX_EPOCH, from_kubernetes)
}

/// Returns true when the Job is neither over nor still suspended.
pub fn is_active(job: &Job) -> bool {
    !is_suspended(job) && end(job).is_none()
}

/// Returns true when the Job is over and the Secret with its task may still exist.
pub fn holds_task(job: &Job) -> bool {
    end(job).is_some() && !job.annotations().contains_key(TASK_DELETED)
}

/// Returns true for a suspended Job: its start was interrupted before its task existed.
pub fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)) && end(job).is_none()
}

/// Returns the condition that shows that the Job is over and its pods have ended.
fn end(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().find(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
}

fn state(job: &Job, pods: &[&Pod], trouble: Option<String>) -> JobState {
    if is_suspended(job) {
        return JobState::Unstarted;
    }
    let Some(end) = end(job) else {
        return pods.last().and_then(|pod| ended_beside_others(pod)).unwrap_or(JobState::Running { trouble });
    };
    let last = pods
        .iter()
        .filter_map(|pod| Some((*pod, terminated(pod)?)))
        .max_by_key(|(_, terminated)| terminated.finished_at.as_ref().map(|time| time.0));
    let finished = last
        .and_then(|(_, terminated)| terminated.finished_at.as_ref())
        .or(end.last_transition_time.as_ref())
        .map_or_else(|| created(job), from_kubernetes);
    let report = last.and_then(|(_, terminated)| report(terminated));
    match report {
        Some(report) if report.outcome != UNDER_WAY => JobState::Ended { report, finished },
        unfinished => {
            let pod = last.map(|(pod, terminated)| (pod, Some(terminated)));
            let pod = pod.or_else(|| pods.last().map(|pod| (*pod, None)));
            JobState::Lost { reason: how_it_was_lost(end, pod, unfinished.as_ref()), finished }
        }
    }
}

/// Returns the result of our container if it has ended while its pod still runs: a webhook may have added another
/// container that never ends.
fn ended_beside_others(pod: &Pod) -> Option<JobState> {
    let is_running = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    let terminated = terminated(pod).filter(|_| is_running)?;
    let finished = from_kubernetes(terminated.finished_at.as_ref()?);
    let report = report(terminated).filter(|report| report.outcome != UNDER_WAY)?;
    Some(JobState::Ended { report, finished })
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    container_state(pod)?.terminated.as_ref()
}

fn container_state(pod: &Pod) -> Option<&ContainerState> {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.into_iter().find(|container| container.name == CONTAINER)?.state.as_ref()
}

fn report(terminated: &ContainerStateTerminated) -> Option<Report> {
    serde_json::from_str(terminated.message.as_deref()?).ok()
}

/// Describes, for a person, what the cluster says about a pod that left no result.
fn how_it_was_lost(
    end: &JobCondition,
    pod: Option<(&Pod, Option<&ContainerStateTerminated>)>,
    unfinished: Option<&Report>,
) -> String {
    let said = |reason: Option<&str>, message: Option<&str>| {
        [reason, message].into_iter().flatten().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(": ")
    };
    let mut facts = vec![match pod {
        None => "the pod is gone and left no result".to_owned(),
        Some((pod, terminated)) => {
            let status = pod.status.as_ref();
            let of_the_pod =
                said(status.and_then(|s| s.reason.as_deref()), status.and_then(|s| s.message.as_deref()));
            let of_the_container = terminated.map_or_else(String::new, |terminated| {
                let reason = terminated.reason.as_deref().unwrap_or("terminated");
                format!("{reason}, exit code {}", terminated.exit_code)
            });
            let facts: Vec<_> =
                [of_the_pod, of_the_container].into_iter().filter(|fact| !fact.is_empty()).collect();
            format!("the pod ended without a result ({})", facts.join("; "))
        }
    }];
    let of_the_job = said(end.reason.as_deref(), end.message.as_deref());
    if end.type_ == "Failed" && !of_the_job.is_empty() {
        facts.push(format!("the Job failed with {of_the_job}"));
    }
    if let Some(report) = unfinished.filter(|report| !report.message.is_empty()) {
        facts.push(format!("its last report was: {}", report.message));
    }
    facts.join("; ")
}

/// Returns the reason why a pending pod does not start, if the pod itself shows it. `Err` if it does not: its Events
/// may.
pub fn pod_trouble(pod: &Pod) -> Result<Option<String>, NotSaid> {
    let status = pod.status.as_ref();
    if status.and_then(|s| s.phase.as_deref()) != Some("Pending") {
        return Ok(None);
    }
    let waiting = container_state(pod).and_then(|state| state.waiting.as_ref());
    if let Some(reason) = waiting.and_then(|waiting| waiting.reason.as_deref())
        && !matches!(reason, "ContainerCreating" | "PodInitializing")
    {
        let message = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
        return Ok(Some(format!("{reason}: {message}")));
    }
    let unscheduled = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let reason = condition.reason.as_deref().unwrap_or("Unschedulable");
        return Ok(Some(format!("{reason}: {}", condition.message.as_deref().unwrap_or_default())));
    }
    Err(NotSaid)
}

/// The pod is pending and does not show why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSaid;

#[cfg(test)]
#[path = "job_state_tests.rs"]
mod tests;
