//! Tests the search of an incident with an emulated CloudTrail: the real client, real pages, events in AWS's
//! format.

mod report;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use keyturn::api::readers::ExpectedReader;
use keyturn::api::secret_incident::SecretIncidentStatus;
use keyturn::incident::audit;
use keyturn::incident::cloudtrail::CloudTrail;
use keyturn::incident::event::{CHANGES, READS};
use keyturn::incident::reading::Watched;
use keyturn::incident::trail::{Trail, TrailError};
use keyturn_aws_emulator::{Emulator, Fault, Quota, Rule};
use serde_json::{Value, json};

const PATH: &str = "/musehub/production/DB_PASSWORD";
const DELAY: TimeDelta = TimeDelta::minutes(15);

fn watched() -> Vec<Watched> {
    let folder = "/keyturn/world/musehub/db-password/".to_owned();
    let (secret, region) = ("db-password".to_owned(), "us-east-1".to_owned());
    vec![Watched { secret, region, paths: vec![PATH.into()], folder: Some(folder) }]
}

async fn trail(emulator: &Emulator) -> CloudTrail {
    CloudTrail::new(
        aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("keyturn", "none", None, None, "test"))
            .endpoint_url(emulator.url())
            .load()
            .await,
    )
}

fn event(id: &str, minutes_ago: i64, name: &str, request: Value) -> Value {
    let at = Utc::now() - TimeDelta::minutes(minutes_ago);
    json!({
        "eventVersion": "1.11", "eventID": id, "eventTime": at.to_rfc3339_opts(SecondsFormat::Secs, true),
        "eventSource": "ssm.amazonaws.com", "eventName": name, "awsRegion": "us-east-1",
        "sourceIPAddress": "203.0.113.9", "userAgent": "aws-cli/2.31",
        "userIdentity": {
            "type": "AssumedRole", "arn": "arn:aws:sts::123456789012:assumed-role/laptop/mallory",
            "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::123456789012:role/laptop"}},
        },
        "requestParameters": request,
    })
}

/// Reads to the end, with retries. Returns the number of pages.
async fn read(
    trail: &CloudTrail,
    status: &mut SecretIncidentStatus,
    now: DateTime<Utc>,
    expected: &[&str],
) -> usize {
    let expected: Vec<ExpectedReader> = expected
        .iter()
        .map(|text| ExpectedReader { principal: Some((*text).to_owned()), networks: Vec::new() })
        .collect();
    audit::begin(status, &watched(), now - TimeDelta::days(10), now);
    let (mut pages, mut going_on) = (0, None);
    while let Some(fresh) = audit::query(status) {
        let (query, token): (_, Option<String>) = match going_on.take() {
            Some((query, token)) => (query, Some(token)),
            None => (fresh, None),
        };
        match trail.page(&query, token.as_deref()).await {
            Ok(page) => {
                pages += 1;
                let last = page.next.is_none();
                going_on = page.next.map(|token| (query, token));
                audit::take(status, &page.calls, last, &watched(), &expected, DELAY);
            }
            // Asks again without a token, as another process would.
            Err(TrailError::Throttled { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    pages
}

#[tokio::test]
async fn every_way_to_read_a_value_is_found_and_grouped_by_who_did_it() {
    let emulator = Emulator::start().await.unwrap();
    let mut refused = event("refused", 50, "GetParameter", Value::Null);
    refused["errorCode"] = json!("AccessDenied");
    refused["errorMessage"] = json!(format!(
        "User: x is not authorized to perform: ssm:GetParameter on resource: \
         arn:aws:ssm:us-east-1:123456789012:parameter{PATH} because no identity-based policy allows it"
    ));
    let mut host = event("host", 40, "GetParametersByPath", json!({"path": "/musehub/production"}));
    host["sourceIPAddress"] = json!("198.51.100.7");
    host["userIdentity"] = json!({"type": "IAMUser", "arn": "arn:aws:iam::123456789012:user/deploy"});
    let mut decrypt = event(
        "kms",
        45,
        "Decrypt",
        json!({"encryptionContext": {"PARAMETER_ARN": format!("arn:aws:ssm:us-east-1:123456789012:parameter{PATH}")}}),
    );
    decrypt["sourceIPAddress"] = json!("ssm.amazonaws.com");
    for event in [
        event("one", 60, "GetParameter", json!({"name": PATH, "withDecryption": true})),
        event("two", 59, "GetParameters", json!({"names": ["/other", PATH]})),
        event("three", 58, "GetParametersByPath", json!({"path": "/musehub", "recursive": true})),
        event("four", 57, "GetParameterHistory", json!({"name": PATH})),
        event("record", 56, "GetParameter", json!({"name": "/keyturn/world/musehub/db-password/3"})),
        event("other", 55, "GetParameter", json!({"name": "/musehub/production/OTHER"})),
        event("not-below", 54, "GetParametersByPath", json!({"path": "/musehub"})),
        event("put", 53, "PutParameter", json!({"name": PATH, "value": "HIDDEN_DUE_TO_SECURITY_REASONS"})),
        refused,
        host,
        decrypt,
    ] {
        emulator.add_event(event);
    }
    let mut status = SecretIncidentStatus::default();
    let trail = trail(&emulator).await;
    let pages = read(&trail, &mut status, Utc::now(), &["arn:aws:iam::*:user/deploy"]).await;
    assert_eq!(pages, READS.len() + CHANGES.len() + 1 + READS.len(), "all, and the reads of the week before");
    let seen: Vec<_> = status
        .readers
        .iter()
        .map(|r| (r.principal.rsplit('/').next().unwrap(), r.expected, r.denied, r.count))
        .collect();
    assert_eq!(seen, [("laptop", false, false, 5), ("laptop", false, true, 1), ("deploy", true, false, 1)]);
    let mut calls = status.readers[0].calls.clone();
    calls.sort();
    assert_eq!(
        calls,
        ["Decrypt", "GetParameter", "GetParameterHistory", "GetParameters", "GetParametersByPath"]
    );
    assert_eq!(status.tampering.iter().map(|r| r.calls.clone()).collect::<Vec<_>>(), [["PutParameter"]]);
    assert_eq!(status.unexpected_readers, Some(2));
}

#[tokio::test]
async fn pages_are_followed_and_a_throttled_search_counts_nothing_twice() {
    let emulator = Emulator::start().await.unwrap();
    for number in 0..120 {
        emulator.add_event(event(
            &format!("event-{number}"),
            20 + number / 3,
            "GetParameter",
            json!({"name": PATH}),
        ));
    }
    emulator.set_quotas([("LookupEvents".to_owned(), Quota { per_second: 2.0, burst: 2 })]);
    emulator.add_fault(Rule::once("LookupEvents", Fault::Throttle).skipping(1).times(2)).unwrap();
    emulator.add_fault(Rule::once("LookupEvents", Fault::Throttle).skipping(3)).unwrap();
    let mut status = SecretIncidentStatus::default();
    let pages = read(&trail(&emulator).await, &mut status, Utc::now(), &[]).await;
    assert!(pages >= 3 + READS.len() + CHANGES.len(), "{pages} pages");
    assert_eq!(status.readers.iter().map(|r| r.count).collect::<Vec<_>>(), [120]);
}

#[tokio::test]
async fn a_role_that_may_not_read_the_trail_is_told_what_it_lacks() {
    let emulator = Emulator::start().await.unwrap();
    emulator.add_fault(Rule::once("LookupEvents", Fault::AccessDenied).always()).unwrap();
    let mut status = SecretIncidentStatus::default();
    audit::begin(&mut status, &watched(), Utc::now() - TimeDelta::days(1), Utc::now());
    let query = audit::query(&status).unwrap();
    let error = trail(&emulator).await.page(&query, None).await.unwrap_err();
    assert_eq!(error, TrailError::Denied { region: "us-east-1".into() });
    assert!(error.to_string().contains("cloudtrail:LookupEvents"), "{error}");
}
