use std::collections::{BTreeMap, BTreeSet};

use keyturn_api::ROTATE_REQUESTED_AT;
use keyturn_rotation::observed::{Stamp, Version};
use keyturn_rotation::protocol::Incident;
use keyturn_rotation::request;
use serde_json::json;

use super::super::desired;
use super::*;
use crate::settings::Settings;

const OWNER: &str = "production/shop/token";
const PATH: &str = "/shop/TOKEN";

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// A secret that keyturn has seen before, with this request, if any.
fn secret(suspend: bool, request: Option<&str>) -> ManagedSecret {
    let annotations: BTreeMap<&str, &str> =
        request.map(|token| (ROTATE_REQUESTED_AT, token)).into_iter().collect();
    serde_json::from_value(json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": "token", "namespace": "shop", "generation": 1, "annotations": annotations},
        "spec": {
            "ssm": {"parameters": [{"path": PATH}]}, "generate": {"hex": {"bytes": 32}},
            "rotation": {"period": "90d"}, "suspend": suspend,
        },
        "status": {"observedGeneration": 1},
    }))
    .unwrap()
}

/// Renders the status where keyturn published the value an hour ago, or where nothing is published.
fn status(object: &ManagedSecret, published: bool, incidents: Vec<Incident>) -> ManagedSecretStatus {
    let versions = published.then(|| version(1, None));
    status_beside(object, versions.into_iter().collect(), incidents)
}

/// A version that was published an hour ago, by the rotation of the same number.
fn version(number: u64, request: Option<&str>) -> Version {
    let at = now() - TimeDelta::hours(1);
    let request = request.map(request::hash);
    let version = i64::try_from(number).unwrap();
    let stamp = Stamp { owner: OWNER.into(), id: number, version, at, request, made: None };
    Version { number: version, modified: at, text: String::new(), stamp: Some(stamp), claim: None }
}

fn status_beside(
    object: &ManagedSecret,
    versions: Vec<Version>,
    incidents: Vec<Incident>,
) -> ManagedSecretStatus {
    let settings = Settings::new("production", "us-east-1");
    let desired = desired::desired(object, OWNER, "shop/token", &[], incidents, &settings);
    let parameter = Parameter::classify(PATH, OWNER, versions, None, &BTreeSet::new());
    let observed = Observed { parameters: vec![parameter], ..Observed::default() };
    let progress = Progress {
        next: Some(protocol::next(&desired, &observed, now(), settings.grace)),
        ..Progress::default()
    };
    render(object, &desired, Some(&observed), &progress, "us-east-1", now())
}

fn said(status: &ManagedSecretStatus, kind: &str) -> (String, String, String) {
    let condition = c::find(&status.conditions, kind).unwrap();
    (condition.status.clone(), condition.reason.clone(), condition.message.clone())
}

#[test]
fn what_a_failure_says_is_cut_as_conditions_are() {
    let object = secret(false, None);
    let failure = FailureStatus {
        step: Step::Install,
        reason: Reason::SSMDenied,
        message: "ö".repeat(100_000),
        attempts: 1,
        permanent: true,
        next_attempt_time: to_kubernetes(now()),
        generation: 1,
        incident: None,
        request: None,
    };
    let settings = Settings::new("production", "us-east-1");
    let desired = desired::desired(&object, OWNER, "shop/token", &[], Vec::new(), &settings);
    let progress = Progress { failure: Some(failure), ..Progress::default() };
    let status = render(&object, &desired, None, &progress, "us-east-1", now());
    assert_eq!(status.failure.unwrap().message.chars().count(), c::MAX_MESSAGE);
}

#[test]
fn a_request_that_waits_for_the_end_of_a_suspension_is_told() {
    let status = status(&secret(true, Some("2026-05-07T10:00:00Z")), true, vec![]);
    let waits =
        "The request \"2026-05-07T10:00:00Z\" waits, since spec.suspend is true: set it to false to rotate";
    assert_eq!(said(&status, c::ROTATING), ("False".into(), "Suspended".into(), waits.into()));
    let ready = ("True".into(), "Published".into(), format!("Version 1 is published. {waits}"));
    assert_eq!(said(&status, c::READY), ready);
    assert_eq!(status.last_rotation.and_then(|last| last.request), None, "it is not done");
}

#[test]
fn a_suspension_is_told_without_a_request_too_and_not_where_there_is_none() {
    let none = "No rotation starts while spec.suspend is true";
    let suspended = status(&secret(true, None), true, vec![]);
    assert_eq!(said(&suspended, c::ROTATING), ("False".into(), "Suspended".into(), none.into()));
    let missing = status(&secret(true, None), false, vec![]);
    assert_eq!(said(&missing, c::READY), ("False".into(), "Creating".into(), none.into()));
    let active = status(&secret(false, None), true, vec![]);
    assert_eq!(said(&active, c::ROTATING).1, "Idle");
    assert_eq!(said(&active, c::READY).2, "Version 1 is published");
}

#[test]
fn a_request_that_was_answered_waits_for_nothing() {
    let mut object = secret(true, Some("done"));
    let answered = json!({"request": "done", "result": "Succeeded"});
    object.status.as_mut().unwrap().last_rotation = Some(serde_json::from_value(answered).unwrap());
    assert_eq!(
        said(&status(&object, true, vec![]), c::ROTATING).2,
        "No rotation starts while spec.suspend is true"
    );
}

#[test]
fn a_lost_status_tells_of_a_request_only_where_no_rotation_has_ended_since() {
    let object = secret(false, Some("done"));
    let last = status_beside(&object, vec![version(1, None), version(2, Some("done"))], vec![]);
    let told = last.last_rotation.expect("its version says so");
    assert_eq!((told.id, told.request.as_deref(), told.result.name()), (Some(2), Some("done"), "Succeeded"));

    let earlier = status_beside(&object, vec![version(1, Some("done")), version(2, None)], vec![]);
    assert_eq!(earlier.last_rotation, None, "another one has ended since");
    assert_eq!(earlier.handled_requests, [request::hash("done")]);
}

#[test]
fn a_rotation_that_began_and_ended_while_no_status_could_be_written_is_told() {
    let mut object = secret(false, Some("done"));
    let answered = json!({"id": 1, "request": "done", "result": "Succeeded"});
    object.status.as_mut().unwrap().last_rotation = Some(serde_json::from_value(answered).unwrap());
    let told = |object: &ManagedSecret| {
        let status = status_beside(object, vec![version(1, Some("done")), version(2, None)], vec![]);
        status.last_rotation.map(|last| (last.id, last.request))
    };
    assert_eq!(told(&object), Some((Some(2), None)));
    object.metadata.finalizers = Some(vec![keyturn_api::FINALIZER.to_owned()]);
    assert_eq!(told(&object), Some((Some(1), Some("done".to_owned()))), "its record may lie there still");
}

#[test]
fn a_first_value_that_took_no_record_is_told_once() {
    let mut object = secret(false, Some("first"));
    let created = |object: &ManagedSecret| status_beside(object, vec![version(1, Some("first"))], vec![]);
    let told = created(&object);
    let last = told.last_rotation.clone().expect("its version says so");
    assert_eq!(
        (last.id, last.request.as_deref(), last.trigger.map(Trigger::name), last.result.name()),
        (Some(1), Some("first"), Some("Missing"), "Succeeded")
    );
    assert_eq!(told.history.len(), 1);
    object.status = Some(told.clone());
    assert_eq!(created(&object).history, told.history);
}

#[test]
fn a_value_that_was_created_again_is_told_again() {
    let mut object = secret(false, None);
    let before = json!({"id": 7, "result": "Succeeded", "finishedAt": "2020-01-01T00:00:00Z"});
    object.status.as_mut().unwrap().last_rotation = Some(serde_json::from_value(before).unwrap());
    let told = status(&object, true, vec![]).last_rotation.expect("it is there");
    assert_eq!((told.id, told.trigger.map(Trigger::name)), (Some(1), Some("Missing")));
}

#[test]
fn a_long_request_is_cut() {
    let message = said(&status(&secret(true, Some(&"ä".repeat(128))), true, vec![]), c::ROTATING).2;
    assert!(
        message.contains(&format!("\"{}\"", "ä".repeat(64))) && message.ends_with("to rotate"),
        "{message}"
    );
}

#[test]
fn a_suspension_does_not_hold_an_incident() {
    let incident = Incident { reported_at: now(), revoke_at: now() + TimeDelta::minutes(15) };
    let rotating = said(&status(&secret(true, None), true, vec![incident]), c::ROTATING);
    assert_ne!(rotating.1, "Suspended", "{rotating:?}");
}

#[test]
fn a_request_that_no_record_could_hold_asks_for_nothing_and_says_so() {
    let longest = "x".repeat(256);
    let asked = secret(false, Some(&longest));
    assert_eq!(desired::request(&asked).map(|request| request.token.len()), Some(256));
    let too_long = secret(false, Some(&format!("{longest}x")));
    assert!(desired::request(&too_long).is_none());
    let status = status(&too_long, true, vec![]);
    let why = "The value of keyturn.dev/rotate-requested-at is longer than 256 bytes, so keyturn ignores it: set a shorter one, \
               such as a time";
    assert_eq!(said(&status, c::ROTATING), ("False".into(), "InvalidRequest".into(), why.into()));
    let ready = ("True".into(), "Published".into(), format!("Version 1 is published. {why}"));
    assert_eq!(said(&status, c::READY), ready);
}
