//! Tests the report of an incident, which reads CloudTrail with the credentials of the person who runs it.

use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use keyturn::api::{ManagedSecret, SecretIncident};
use keyturn::cli::incident::{Format, Patience, Search, write_calls};
use keyturn_aws_emulator::{Emulator, Fault, Rule};
use serde_json::{Value, json};

use super::{PATH, event, trail};

const IMPATIENT: Patience =
    Patience { first: Duration::from_millis(1), longest: Duration::from_millis(1), attempts: 3 };

fn incident(status: Value) -> SecretIncident {
    let at = |days| (Utc::now() - TimeDelta::days(days)).to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut incident = json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
        "metadata": {"name": "leak", "namespace": "musehub"},
        "spec": {
            "allSecrets": true, "reportedAt": at(0), "suspectedSince": at(10),
            "expectedReaders": [
                {"principal": "arn:aws:iam::123456789012:role/web", "networks": ["10.0.0.0/8"]},
                {"principal": "arn:aws:iam::123456789012:role/ci"},
            ],
        },
    });
    incident["status"] = json!({"audit": {"staging": "/keyturn/world"}});
    if let (Some(known), Some(more)) = (incident["status"].as_object_mut(), status.as_object()) {
        known.extend(more.clone());
    }
    serde_json::from_value(incident).unwrap()
}

fn secret(name: &str, path: &str, region: &str) -> ManagedSecret {
    serde_json::from_value(json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
        "metadata": {"name": name, "namespace": "musehub"},
        "spec": {
            "ssm": {"region": region, "parameters": [{"path": path}]}, "generate": {"hex": {"bytes": 32}},
            "rotation": {},
        },
    }))
    .unwrap()
}

fn by_role(role: &str, address: &str, mut event: Value) -> Value {
    event["sourceIPAddress"] = json!(address);
    let arn = format!("arn:aws:iam::123456789012:role/{role}");
    event["userIdentity"]["arn"] = json!(format!("arn:aws:sts::123456789012:assumed-role/{role}/ada"));
    event["userIdentity"]["sessionContext"]["sessionIssuer"]["arn"] = json!(arn);
    event
}

fn read(id: &str, minutes_ago: i64) -> Value {
    event(id, minutes_ago, "GetParameter", json!({"name": PATH}))
}

/// Returns the report of these secrets, and a list of what is missing in it.
async fn report(
    emulator: &Emulator,
    format: Format,
    incident: &SecretIncident,
    secrets: &[ManagedSecret],
) -> (String, Vec<String>) {
    let mut out = Vec::new();
    let search = Search::of(incident, secrets, Utc::now());
    let missing = write_calls(&mut out, format, &search, &trail(emulator).await, IMPATIENT).await.unwrap();
    (String::from_utf8(out).unwrap(), missing)
}

#[tokio::test]
async fn the_report_has_every_call_of_every_region_however_many_there_are() {
    let emulator = Emulator::start().await.unwrap();
    for number in 0..330 {
        let mut refused = read(&format!("refused-{number}"), 20 + number);
        refused["errorCode"] = json!("AccessDenied");
        emulator.add_event(by_role(&format!("noise-{number}"), "203.0.113.9", refused));
    }
    emulator.add_event(by_role("quiet", "203.0.113.77", read("theft", 5000)));
    let mut elsewhere = event("elsewhere", 30, "GetParameters", json!({"names": ["/eu/TOKEN"]}));
    elsewhere["awsRegion"] = json!("eu-central-1");
    emulator.add_event(elsewhere);
    let secrets = [secret("db-password", PATH, "us-east-1"), secret("token", "/eu/TOKEN", "eu-central-1")];
    let (report, missing) = report(&emulator, Format::Markdown, &incident(json!({})), &secrets).await;
    assert_eq!(missing, Vec::<String>::new());
    assert_eq!(report.matches("| **no**, refused |").count(), 330);
    for id in ["`theft`", "`elsewhere`", "`refused-0`", "`refused-329`"] {
        assert_eq!(report.matches(id).count(), 1, "{id}");
    }
    assert!(report.ends_with("\n330 refused reads, 2 unexpected reads.\n"), "{report}");
}

#[tokio::test]
async fn an_expected_role_is_told_apart_by_the_address_that_it_calls_from() {
    let emulator = Emulator::start().await.unwrap();
    for event in [
        by_role("web", "10.1.2.3", read("host", 30)),
        by_role("web", "203.0.113.9", read("theft", 31)),
        by_role("ci", "192.0.2.1", read("build", 32)),
        by_role("ci", "192.0.2.66", read("stolen", 33)),
        by_role("ci", "192.0.2.1", event("earlier", 12 * 24 * 60, "GetParameter", json!({"name": "/other"}))),
    ] {
        emulator.add_event(event);
    }
    let secrets = [secret("db-password", PATH, "us-east-1")];
    let (report, missing) = report(&emulator, Format::Markdown, &incident(json!({})), &secrets).await;
    assert_eq!(missing, Vec::<String>::new());
    for (id, says) in
        [("host", "yes"), ("theft", "**unexpected network**"), ("build", "yes"), ("stolen", "yes")]
    {
        let row = report.lines().find(|line| line.ends_with(&format!("| `{id}` |"))).expect(id);
        assert!(row.starts_with(&format!("| {says} | ")), "{row}");
    }
    let new = "in the week before the search:\n\n- `arn:aws:iam::123456789012:role/ci at 192.0.2.66`\n";
    assert!(report.ends_with(new), "{report}");
}

#[tokio::test]
async fn what_could_not_be_read_is_said_and_the_rest_is_printed() {
    let emulator = Emulator::start().await.unwrap();
    emulator.add_event(read("theft", 30));
    emulator.add_fault(Rule::once("LookupEvents", Fault::AccessDenied).skipping(2).always()).unwrap();
    let gone = json!({"secrets": [{"name": "gone", "state": "Missing"}]});
    let secrets = [secret("db-password", PATH, "us-east-1")];
    let (said, missing) = report(&emulator, Format::Markdown, &incident(gone.clone()), &secrets).await;
    assert!(said.contains("`theft`") && said.contains("**This list of calls is incomplete.**"), "{said}");
    assert_eq!(
        missing,
        [
            "the ManagedSecret gone does not exist any more, so its parameters are unknown",
            "these AWS credentials may not read CloudTrail in us-east-1 (cloudtrail:LookupEvents)"
        ]
    );
    let (json, _) = report(&emulator, Format::Json, &incident(gone), &secrets).await;
    let json: Value = serde_json::from_str(&format!("{{\"status\": {{}}{json}")).unwrap();
    assert_eq!(json["calls"], json!([]));
    assert_eq!(json["trail"]["missing"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_throttled_trail_is_asked_again_and_nothing_is_told_twice() {
    let emulator = Emulator::start().await.unwrap();
    for number in 0..60 {
        emulator.add_event(read(&format!("event-{number}"), 30 + number));
    }
    emulator.add_fault(Rule::once("LookupEvents", Fault::Throttle).skipping(1).times(2)).unwrap();
    let secrets = [secret("db-password", PATH, "us-east-1")];
    let (json, missing) = report(&emulator, Format::Json, &incident(json!({})), &secrets).await;
    assert_eq!(missing, Vec::<String>::new());
    let json: Value = serde_json::from_str(&format!("{{\"status\": {{}}{json}")).unwrap();
    let calls = json["calls"].as_array().unwrap();
    assert_eq!((calls.len(), &calls[0]["eventId"]), (60, &json!("event-0")));
    assert_eq!(json["trail"]["counts"], json!({"unexpected reads": 60}));
}

#[tokio::test]
async fn credentials_of_another_account_do_not_say_that_nobody_read_anything() {
    let emulator = Emulator::start().await.unwrap();
    let reader = json!({
        "principal": "arn:aws:iam::123456789012:role/laptop", "address": "203.0.113.9", "expected": false,
        "calls": ["GetParameter"], "count": 1, "first": "2026-11-22T12:00:00Z", "last": "2026-11-22T12:00:00Z",
        "secrets": ["db-password"],
    });
    let secrets = [secret("db-password", PATH, "us-east-1")];
    let incident = incident(json!({"readers": [reader]}));
    let (report, missing) = report(&emulator, Format::Markdown, &incident, &secrets).await;
    assert!(report.contains("The search found no call."), "{report}");
    assert!(
        missing[0].contains("role/laptop at 203.0.113.9. Either the AWS credentials belong to another"),
        "{missing:?}"
    );
}
