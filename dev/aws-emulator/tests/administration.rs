//! Tests the administration over HTTP, as a script uses it.

use keyturn_aws_emulator::{Call, Emulator, Rule};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends one request over its own connection. Returns status and body, or `None` if the connection was closed
/// without an answer.
async fn http(emulator: &Emulator, request: &str, headers: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(emulator.address()).await.unwrap();
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nhost: emulator\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some((status, body.to_owned()))
}

async fn post(emulator: &Emulator, path: &str, body: Value) -> (u16, String) {
    let headers = "content-type: application/json\r\n";
    http(emulator, &format!("POST /_emulator/{path}"), headers, &body.to_string()).await.unwrap()
}

async fn aws(emulator: &Emulator, operation: &str, body: Value) -> Option<(u16, String)> {
    let headers = format!(
        "x-amz-target: AmazonSSM.{operation}\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential=AKIATEST/20260101/us-east-1/ssm/aws4_request, SignedHeaders=host, Signature=0\r\n"
    );
    http(emulator, "POST /", &headers, &body.to_string()).await
}

async fn put(emulator: &Emulator, name: &str) -> Option<(u16, String)> {
    aws(emulator, "PutParameter", json!({"Name": name, "Value": "secret-canary", "Type": "SecureString"}))
        .await
}

async fn log(emulator: &Emulator) -> Vec<Call> {
    let (status, body) = http(emulator, "GET /_emulator/calls", "", "").await.unwrap();
    assert_eq!(status, 200);
    assert!(!body.contains("canary"));
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn faults_are_set_listed_and_cleared() {
    let emulator = Emulator::start().await.unwrap();
    let one = json!({"operation": "PutParameter", "times": null, "fault": {"kind": "throttle"}});
    let many = json!([
        {"path": "/x/", "fault": {"kind": "error", "code": "Odd", "status": 418}},
        {"operation": "GetParameter", "fault": {"kind": "hang", "applied": true}},
    ]);
    assert_eq!(post(&emulator, "faults", one).await.0, 204);
    assert_eq!(post(&emulator, "faults", many).await.0, 204);
    let (_, listed) = http(&emulator, "GET /_emulator/faults", "", "").await.unwrap();
    assert_eq!(serde_json::from_str::<Vec<Rule>>(&listed).unwrap().len(), 3);
    let (status, body) = put(&emulator, "/x/y").await.unwrap();
    assert!(
        status == 400 && body.contains("ThrottlingException"),
        "the first rule that matches hits: {body}"
    );
    assert_eq!(http(&emulator, "DELETE /_emulator/faults", "", "").await.unwrap().0, 204);
    assert_eq!(put(&emulator, "/x/y").await.unwrap().0, 200);
}

#[tokio::test]
async fn a_fault_that_is_misspelt_is_refused_with_those_that_exist() {
    let emulator = Emulator::start().await.unwrap();
    let (status, why) = post(&emulator, "faults", json!({"fault": {"kind": "thunder"}})).await;
    assert!(status == 400 && why.contains("tooManyUpdates"), "{why}");
    let (status, _) =
        post(&emulator, "faults", json!({"operaton": "x", "fault": {"kind": "throttle"}})).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_dropped_request_closes_the_connection_without_a_word() {
    let emulator = Emulator::start().await.unwrap();
    post(&emulator, "faults", json!({"fault": {"kind": "drop", "applied": true}})).await;
    assert_eq!(put(&emulator, "/a").await, None);
    let calls = log(&emulator).await;
    assert_eq!((calls[0].outcome.as_str(), calls[0].applied, calls[0].version), ("none", true, Some(1)));
    assert_eq!(calls[0].fault.as_deref(), Some("drop"));
}

#[tokio::test]
async fn held_requests_are_released() {
    let emulator = Emulator::start().await.unwrap();
    post(&emulator, "faults", json!({"fault": {"kind": "duplicate"}})).await;
    assert_eq!(put(&emulator, "/a").await.unwrap().0, 200);
    assert_eq!(post(&emulator, "release", json!({})).await, (200, json!({"released": 1}).to_string()));
    let outcomes: Vec<bool> = log(&emulator).await.iter().map(|call| call.applied).collect();
    assert_eq!(outcomes, [true, false], "a create that comes again finds the parameter there");
}

#[tokio::test]
async fn the_clock_can_be_set_so_that_parameters_are_old() {
    let emulator = Emulator::start().await.unwrap();
    post(&emulator, "clock", json!({"offsetSeconds": -8_640_000})).await;
    put(&emulator, "/a").await.unwrap();
    let (_, body) = aws(&emulator, "DescribeParameters", json!({})).await.unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let age =
        chrono::Utc::now().timestamp() - body["Parameters"][0]["LastModifiedDate"].as_f64().unwrap() as i64;
    assert!((8_640_000..8_640_600).contains(&age), "{age}");
    assert_eq!(post(&emulator, "clock", json!({"offsetSeconds": i64::MAX})).await.0, 400);
}

#[tokio::test]
async fn quotas_refuse_what_exceeds_them() {
    let emulator = Emulator::start().await.unwrap();
    post(&emulator, "quotas", json!({"PutParameter": {"perSecond": 0.001, "burst": 1}})).await;
    assert_eq!(put(&emulator, "/a").await.unwrap().0, 200);
    assert!(put(&emulator, "/b").await.unwrap().1.contains("Rate exceeded"));
    post(&emulator, "quotas", json!({})).await;
    assert_eq!(put(&emulator, "/b").await.unwrap().0, 200);
}

#[tokio::test]
async fn a_reset_leaves_nothing() {
    let emulator = Emulator::start().await.unwrap();
    put(&emulator, "/a").await.unwrap();
    post(&emulator, "faults", json!({"times": null, "fault": {"kind": "throttle"}})).await;
    assert_eq!(post(&emulator, "reset", json!({})).await.0, 204);
    assert_eq!(log(&emulator).await, []);
    assert_eq!(put(&emulator, "/a").await.unwrap().1, json!({"Version": 1, "Tier": "Standard"}).to_string());
}

#[tokio::test]
async fn what_is_no_request_to_ssm_is_refused() {
    let emulator = Emulator::start().await.unwrap();
    let unsigned = http(&emulator, "POST /", "x-amz-target: AmazonSSM.GetParameter\r\n", "{}").await.unwrap();
    assert!(unsigned.1.contains("MissingAuthenticationTokenException"), "{}", unsigned.1);
    let other = http(&emulator, "POST /", "x-amz-target: Kinesis.PutRecord\r\n", "{}").await.unwrap();
    assert!(other.1.contains("UnknownOperationException"), "{}", other.1);
    assert_eq!(http(&emulator, "GET /elsewhere", "", "").await.unwrap().0, 404);
}
