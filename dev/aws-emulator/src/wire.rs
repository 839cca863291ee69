//! Parses a request of AWS's JSON 1.1 protocol, as far as routing, faults and the log need it.

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde_json::Value;

use crate::error::AwsError;

/// A request as it was received.
#[derive(Clone)]
pub struct Request {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The operation, such as `PutParameter`.
    pub operation: String,
    /// The region from the signature's scope; every region has its own state.
    pub region: String,
    pub access_key: String,
    pub path: String,
}

impl Request {
    /// True for a Put that may replace an existing parameter.
    pub fn overwrites(&self) -> bool {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["Overwrite"] == true
    }
}

/// An answer as it is sent.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl From<AwsError> for Answer {
    fn from(error: AwsError) -> Self {
        Self { status: error.status, body: error.body().into() }
    }
}

const SSM_TARGET: &str = "AmazonSSM.";
const CLOUDTRAIL_TARGET: &str = "CloudTrail_20131101.";
pub(crate) const LOOKUP_EVENTS: &str = "LookupEvents";

impl Request {
    /// Parses a request. The signature itself is not checked.
    pub fn new(headers: HeaderMap, body: Bytes) -> Result<Self, AwsError> {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let target = header("x-amz-target");
        let operation = target
            .strip_prefix(SSM_TARGET)
            .or_else(|| target.split_once(CLOUDTRAIL_TARGET).map(|(_, operation)| operation))
            .ok_or_else(|| {
                AwsError::new("UnknownOperationException", format!("no service takes {target:?}"))
            })?
            .to_owned();
        let (access_key, region) = scope(header("authorization")).ok_or_else(|| {
            AwsError::new("MissingAuthenticationTokenException", "Missing Authentication Token")
        })?;
        let path = path(&body);
        Ok(Self { headers, body, operation, region, access_key, path })
    }
}

/// Returns access key and region from `AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/ssm/aws4_request,
/// …`.
fn scope(authorization: &str) -> Option<(String, String)> {
    let credential = authorization.split("Credential=").nth(1)?.split(',').next()?;
    let mut parts = credential.split('/');
    let (access_key, _date, region) = (parts.next()?, parts.next()?, parts.next()?);
    Some((access_key.to_owned(), region.to_owned()))
}

/// Returns the subject of the request: a name, names, a path, or the values of a list's filters.
fn path(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if let Some(name) = body["Name"].as_str().or(body["Path"].as_str()) {
        return name.to_owned();
    }
    let filters = body["ParameterFilters"].as_array().into_iter().flatten();
    let values = filters.flat_map(|filter| strings(&filter["Values"]));
    strings(&body["Names"]).into_iter().chain(values).collect::<Vec<_>>().join(",")
}

/// Returns the version in an answer.
pub(crate) fn version(answer: &Answer) -> Option<i64> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    body["Version"].as_i64().or(body["Parameter"]["Version"].as_i64())
}

/// Returns AWS's error code of an answer, or `ok`.
pub(crate) fn outcome(answer: &Answer) -> String {
    if answer.status < 300 {
        return "ok".to_owned();
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = body["__type"].as_str().and_then(|code| code.rsplit('#').next());
    code.map_or_else(|| format!("HTTP {}", answer.status), str::to_owned)
}
