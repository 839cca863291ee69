use serde_json::{Value, json};

use super::*;
use crate::api::docker_host::RunResult;

fn job(status: Value) -> Job {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-abc-d1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {
                "keyturn.dev/mode": "Deploy", "keyturn.dev/revision": "abc", "keyturn.dev/attempt": "1",
                "keyturn.dev/generation": "4", "keyturn.dev/target": "def",
                "keyturn.dev/parameters": "/app/A=3@1700000000\n/app/B=C=1@1700000001"
            }
        },
        "spec": {"suspend": false, "template": {}},
        "status": status
    }))
    .unwrap()
}

fn failed_job(reason: &str, message: &str) -> Job {
    job(json!({"conditions": [
        {"type": "FailureTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:09:00Z"},
        {"type": "Failed", "status": "True", "reason": reason, "message": message,
         "lastTransitionTime": "2026-01-01T00:10:00Z"}
    ]}))
}

/// Builds a pod whose container ended in this minute.
fn ended_pod(minute: u32, exit: i32, message: &str) -> Pod {
    pod(json!({"phase": "Failed", "containerStatuses": [{
        "name": "deploy-host", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {
            "exitCode": exit, "reason": if exit == 137 {"OOMKilled"} else {"Error"}, "message": message,
            "finishedAt": format!("2026-01-01T00:{minute:02}:00Z")
        }}
    }]}))
}

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
}

fn waiting_pod(reason: &str, message: &str) -> Pod {
    pod(json!({"phase": "Pending", "containerStatuses": [{
        "name": "deploy-host", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}}
    }]}))
}

fn report_json(outcome: &str, message: &str) -> String {
    json!({"outcome": outcome, "message": message}).to_string()
}

fn state_of(job: &Job, pods: &[&Pod]) -> JobState {
    deploy_job(job, pods, None).unwrap().state
}

fn minute(minute: u32) -> DateTime<Utc> {
    format!("2026-01-01T00:{minute:02}:00Z").parse().unwrap()
}

#[test]
fn a_job_says_what_it_is_about() {
    let read = deploy_job(&job(json!({})), &[], None).unwrap();
    assert_eq!((read.mode, read.revision.as_str(), read.attempt), (RunMode::Deploy, "abc", 1));
    assert_eq!((read.generation, read.target.as_str()), (4, "def"));
    let parameter =
        |path: &str, version, published_at| JobParameter { path: path.into(), version, published_at };
    assert_eq!(
        read.parameters,
        [parameter("/app/A", 3, 1_700_000_000), parameter("/app/B=C", 1, 1_700_000_001)]
    );
    let mut foreign = job(json!({}));
    foreign.annotations_mut().remove(MODE);
    assert_eq!(deploy_job(&foreign, &[], None), None);
}

#[test]
fn the_report_of_the_pod_that_ended_last_counts() {
    let first = ended_pod(3, 11, &report_json("ConnectionLost", "cut"));
    let last = ended_pod(5, 30, &report_json("DeployFailed", "exit code 3"));
    for pods in [[&first, &last], [&last, &first]] {
        let JobState::Ended { report, finished } = state_of(&failed_job("PodFailurePolicy", ""), &pods)
        else {
            panic!("not ended")
        };
        assert_eq!((report.outcome, finished), (RunResult::DeployFailed, minute(5)));
    }
}

#[test]
fn a_result_that_was_told_counts_however_the_pod_ended_afterwards() {
    for reason in ["BackoffLimitExceeded", "DeadlineExceeded"] {
        let pod = ended_pod(5, 137, &report_json("Succeeded", "1 of 1 parameters are proven"));
        let JobState::Ended { report, finished } = state_of(&failed_job(reason, ""), &[&pod]) else {
            panic!("not ended")
        };
        assert_eq!((report.outcome, finished), (RunResult::Succeeded, minute(5)));
    }
}

#[test]
fn a_job_that_is_over_holds_its_task_until_that_is_known_to_be_deleted() {
    let holds_task = |job: &Job| deploy_job(job, &[], None).unwrap().holds_task;
    assert!(!holds_task(&job(json!({}))), "its pod needs it");
    let mut over = failed_job("BackoffLimitExceeded", "");
    assert!(holds_task(&over));
    over.annotations_mut().insert(TASK_DELETED.into(), "true".into());
    assert!(!holds_task(&over));
}

#[test]
fn a_job_goes_on_until_its_pods_have_ended() {
    let pod = ended_pod(5, 30, &report_json("DeployFailed", ""));
    let ending = job(json!({"conditions": [
        {"type": "FailureTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:09:00Z"}]}));
    assert_eq!(state_of(&ending, &[&pod]), JobState::Running { trouble: None });
}

#[test]
fn a_result_counts_although_a_sidecar_goes_on() {
    let mut pod = ended_pod(5, 0, &report_json("Succeeded", ""));
    pod.status.as_mut().unwrap().phase = Some("Running".into());
    let JobState::Ended { report, finished } = state_of(&job(json!({})), &[&pod]) else {
        panic!("not ended")
    };
    assert_eq!((report.outcome, finished), (RunResult::Succeeded, minute(5)));
    let mut unfinished = ended_pod(5, 137, &report_json("Running", "deploying"));
    unfinished.status.as_mut().unwrap().phase = Some("Running".into());
    assert_eq!(state_of(&job(json!({})), &[&unfinished]), JobState::Running { trouble: None });
}

#[test]
fn a_suspended_job_was_never_started() {
    let mut suspended = job(json!({}));
    suspended.spec.as_mut().unwrap().suspend = Some(true);
    assert_eq!(state_of(&suspended, &[]), JobState::Unstarted);
    assert!(!is_active(&suspended));
}

#[test]
fn a_pod_without_a_final_report_is_lost_with_what_the_cluster_says() {
    let lost = |job: &Job, pods: &[&Pod]| match state_of(job, pods) {
        JobState::Lost { reason, finished } => (reason, finished),
        other => panic!("not lost: {other:?}"),
    };
    let deadline = failed_job("DeadlineExceeded", "Job was active longer than specified deadline");
    let (reason, finished) = lost(&deadline, &[]);
    assert!(reason.contains("gone") && reason.contains("DeadlineExceeded"), "{reason}");
    assert_eq!(finished, minute(10));

    let killed = ended_pod(5, 137, &report_json("Lost", "deploy script runs"));
    let (reason, finished) = lost(&failed_job("BackoffLimitExceeded", ""), &[&killed]);
    assert!(reason.contains("OOMKilled, exit code 137") && reason.contains("deploy script runs"), "{reason}");
    assert_eq!(finished, minute(5));

    let garbled = ended_pod(5, 1, "{\"outcome\": \"Succ");
    assert!(lost(&failed_job("BackoffLimitExceeded", ""), &[&garbled]).0.contains("exit code 1"));

    let evicted =
        pod(json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}));
    assert!(
        lost(&failed_job("BackoffLimitExceeded", ""), &[&evicted]).0.contains("Evicted: The node was low")
    );
}

#[test]
fn a_pending_pod_says_what_it_waits_for_or_leaves_it_to_its_events() {
    let trouble = |pod: &Pod| pod_trouble(pod).unwrap().unwrap();
    assert_eq!(
        trouble(&waiting_pod("ImagePullBackOff", "Back-off pulling image")),
        "ImagePullBackOff: Back-off pulling image"
    );
    assert_eq!(pod_trouble(&waiting_pod("ContainerCreating", "")), Err(NotSaid));
    let unscheduled = pod(json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}));
    assert_eq!(trouble(&unscheduled), "Unschedulable: 0/1 nodes");
    assert_eq!(pod_trouble(&pod(json!({"phase": "Running"}))), Ok(None));
}
