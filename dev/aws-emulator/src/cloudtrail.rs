//! CloudTrail's LookupEvents over the calls that the emulator received, in the format of AWS's own events, newest
//! first, fifty per page. An event never has a value; the event of a refused call has the name only in its message.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::error::AwsError;
use crate::wire::Request;

const ACCOUNT: &str = "123456789012";
const MAX_PAGE: usize = 50;

/// Events with the number of their call; events that were added from outside have no number.
#[derive(Default)]
pub(crate) struct Trail(Vec<(Option<u64>, Value)>);

impl Trail {
    /// Adds a call. [`Trail::ended`] adds its result later.
    pub(crate) fn enter(&mut self, number: u64, at: DateTime<Utc>, request: &Request) {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let arn = format!("arn:aws:iam::{ACCOUNT}:user/{}", request.access_key);
        let reads = ["Describe", "Get", "List"];
        let read_only = reads.iter().any(|verb| request.operation.starts_with(verb));
        let event = json!({
            "eventVersion": "1.11",
            "eventID": format!("00000000-0000-4000-8000-{number:012}"),
            "eventTime": at.to_rfc3339_opts(SecondsFormat::Secs, true),
            "eventSource": "ssm.amazonaws.com",
            "eventName": request.operation,
            "awsRegion": request.region,
            "sourceIPAddress": "127.0.0.1",
            "userAgent": request.headers.get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or_default(),
            "userIdentity": {"type": "IAMUser", "arn": arn, "accessKeyId": request.access_key, "accountId": ACCOUNT},
            "requestParameters": parameters(&request.operation, &body),
            "readOnly": read_only,
            "eventType": "AwsApiCall", "managementEvent": true, "recipientAccountId": ACCOUNT,
        });
        self.0.push((Some(number), event));
    }

    /// Records the result of a call: `ok` or AWS's error code.
    pub(crate) fn ended(&mut self, number: u64, outcome: &str) {
        let Some((_, event)) = self.0.iter_mut().rev().find(|(of, _)| *of == Some(number)) else { return };
        if outcome != "ok" {
            event["errorCode"] = json!(outcome.trim_end_matches("Exception"));
        }
        if outcome.starts_with("AccessDenied") {
            let request = event["requestParameters"].take();
            let named =
                request["name"].as_str().or(request["path"].as_str()).or(request["names"][0].as_str());
            event["errorMessage"] = json!(format!(
                "User: {} is not authorized to perform: ssm:{} on resource: arn:aws:ssm:{}:{ACCOUNT}:parameter{} because \
                 no identity-based policy allows it",
                event["userIdentity"]["arn"].as_str().unwrap_or_default(),
                event["eventName"].as_str().unwrap_or_default(),
                event["awsRegion"].as_str().unwrap_or_default(),
                named.unwrap_or_default()
            ));
        }
    }

    /// Adds an event unchanged, for actions of others and for other services.
    pub(crate) fn add(&mut self, event: Value) {
        self.0.push((None, event));
    }

    /// Calls `look` on a trail with some more events.
    pub(crate) fn with<T>(&mut self, more: Vec<Value>, look: impl FnOnce(&Self) -> T) -> T {
        let own = self.0.len();
        self.0.extend(more.into_iter().map(|event| (None, event)));
        let seen = look(self);
        self.0.truncate(own);
        seen
    }

    pub(crate) fn lookup(&self, region: &str, body: &[u8]) -> Result<Value, AwsError> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let attributes = body["LookupAttributes"].as_array().cloned().unwrap_or_default();
        let [attribute] = attributes.as_slice() else {
            return Err(AwsError::new(
                "InvalidLookupAttributesException",
                "exactly one lookup attribute is taken here",
            ));
        };
        if attribute["AttributeKey"] != "EventName" {
            return Err(AwsError::new(
                "InvalidLookupAttributesException",
                "the emulator looks up by EventName",
            ));
        }
        let size = usize::try_from(body["MaxResults"].as_u64().unwrap_or(50)).unwrap_or(usize::MAX);
        if !(1..=MAX_PAGE).contains(&size) {
            return Err(AwsError::new("InvalidMaxResultsException", "MaxResults is 1 to 50"));
        }
        let (from, to) = (body["StartTime"].as_f64(), body["EndTime"].as_f64());
        let mut found: Vec<(i64, &Value)> = self
            .0
            .iter()
            .map(|(_, event)| (seconds(event), event))
            .filter(|(at, event)| {
                event["eventName"] == attribute["AttributeValue"]
                    && event["awsRegion"] == region
                    && from.is_none_or(|from| *at as f64 >= from)
                    && to.is_none_or(|to| *at as f64 <= to)
            })
            .collect();
        found.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        let start = match body["NextToken"].as_str() {
            None => 0,
            Some(token) => token
                .parse()
                .map_err(|_| AwsError::new("InvalidNextTokenException", "Invalid token or expired token"))?,
        };
        let page: Vec<Value> =
            found.iter().skip(start).take(size).map(|(at, event)| entry(*at, event)).collect();
        let mut answer = json!({ "Events": page });
        if start + size < found.len() {
            answer["NextToken"] = json!((start + size).to_string());
        }
        Ok(answer)
    }
}

fn seconds(event: &Value) -> i64 {
    let at = event["eventTime"].as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    at.map_or(0, |at| at.timestamp())
}

fn entry(at: i64, event: &Value) -> Value {
    json!({
        "EventId": event["eventID"], "EventName": event["eventName"], "EventTime": at,
        "EventSource": event["eventSource"], "Username": event["userIdentity"]["userName"].as_str().unwrap_or("unknown"),
        "ReadOnly": (event["readOnly"] != false).to_string(), "Resources": [], "CloudTrailEvent": event.to_string(),
    })
}

/// Returns the parameters of a request that AWS shows.
fn parameters(operation: &str, body: &Value) -> Value {
    let mut shown = serde_json::Map::new();
    for (field, name) in [
        ("Name", "name"),
        ("Names", "names"),
        ("Path", "path"),
        ("Recursive", "recursive"),
        ("WithDecryption", "withDecryption"),
    ] {
        if !body[field].is_null() {
            shown.insert(name.to_owned(), body[field].clone());
        }
    }
    if operation == "PutParameter" {
        shown.insert("value".to_owned(), json!("HIDDEN_DUE_TO_SECURITY_REASONS"));
    }
    Value::Object(shown)
}

/// Converts moto's `GET /world/calls` into events.
pub(crate) fn of_world(calls: &Value) -> Vec<Value> {
    let calls = calls["calls"].as_array().cloned().unwrap_or_default();
    let event = |(number, call): (usize, Value)| {
        let at = DateTime::from_timestamp(call["at"].as_f64().unwrap_or(0.0) as i64, 0).unwrap_or_default();
        let operation = call["operation"].as_str().unwrap_or_default().to_owned();
        let names = call["names"].as_array().cloned().unwrap_or_default();
        let request = match operation.as_str() {
            "GetParameters" | "DeleteParameters" => json!({ "names": names }),
            "GetParametersByPath" => json!({"path": names.first(), "recursive": true}),
            _ => json!({"name": names.first()}),
        };
        let key = call["accessKey"].as_str().unwrap_or("world");
        let mut event = json!({
            "eventVersion": "1.11", "eventID": format!("00000000-0000-4000-9000-{number:012}"),
            "eventTime": at.to_rfc3339_opts(SecondsFormat::Secs, true), "eventSource": "ssm.amazonaws.com",
            "eventName": operation, "awsRegion": call["region"],
            "sourceIPAddress": call["address"].as_str().unwrap_or("127.0.0.1"), "userAgent": call["userAgent"],
            "userIdentity": {"type": "IAMUser", "arn": format!("arn:aws:iam::{ACCOUNT}:user/{key}"), "accountId": ACCOUNT},
            "requestParameters": request,
        });
        if call["status"].as_u64().unwrap_or(200) >= 300 {
            event["errorCode"] = json!("ParameterNotFound");
        }
        event
    };
    calls.into_iter().enumerate().map(event).collect()
}
