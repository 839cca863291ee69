//! Dispatches all operations, and implements all except PutParameter and DescribeParameters.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::describe::{self, describe, is_below, page_size, seconds};
use super::names::{self, Selector};
use super::put::{Author, put};
use super::store::{Kind, Parameter, Parameters, Region, Ssm, Version};
use super::{ACCOUNT, is_read};
use crate::error::AwsError;

/// A request to Parameter Store.
pub(crate) struct Request<'a> {
    pub operation: &'a str,
    pub region: &'a str,
    pub access_key: &'a str,
    pub body: &'a [u8],
    pub now: DateTime<Utc>,
    /// Number of latest writes that a read does not see.
    pub stale_by: usize,
}

/// Performs one operation.
pub(crate) fn call(ssm: &mut Ssm, request: &Request<'_>) -> Result<Value, AwsError> {
    if is_read(request.operation) {
        let empty = Region::default();
        let region = ssm.regions.get(request.region).unwrap_or(&empty);
        let past = (request.stale_by > 0).then(|| region.as_of(request.stale_by));
        let parameters = past.as_ref().unwrap_or(&region.parameters);
        return match request.operation {
            "GetParameter" => get_parameter(parameters, request.region, parse(request.body)?),
            "GetParameters" => get_parameters(parameters, request.region, &parse(request.body)?),
            "GetParametersByPath" => get_by_path(parameters, request.region, &parse(request.body)?),
            "GetParameterHistory" => history(parameters, &parse(request.body)?),
            "DescribeParameters" => {
                describe(parameters, request.region, &ssm.settings, &parse(request.body)?)
            }
            _ => Err(unknown(request.operation)),
        };
    }
    let region = ssm.regions.entry(request.region.to_owned()).or_default();
    let author =
        Author { name: format!("arn:aws:iam::{ACCOUNT}:user/{}", request.access_key), at: request.now };
    match request.operation {
        "PutParameter" => put(region, &ssm.settings, &author, parse(request.body)?),
        "DeleteParameter" => delete(region, &parse(request.body)?),
        "DeleteParameters" => delete_all(region, &parse(request.body)?),
        "LabelParameterVersion" => label(region, parse(request.body)?),
        _ => Err(unknown(request.operation)),
    }
}

fn unknown(operation: &str) -> AwsError {
    AwsError::new("UnknownOperationException", format!("The emulator does not know {operation}"))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, AwsError> {
    // The parser's own message would quote the request, including values.
    serde_json::from_slice(body).map_err(|error| {
        let class = error.classify();
        AwsError::new(
            "SerializationException",
            format!("the request is not of the expected form ({class:?})"),
        )
    })
}

fn not_found() -> AwsError {
    AwsError::new("ParameterNotFound", "")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GetParameter {
    name: String,
    #[serde(default)]
    with_decryption: bool,
}

#[expect(clippy::needless_pass_by_value, reason = "a request is used up by its answer")]
fn get_parameter(parameters: &Parameters, region: &str, request: GetParameter) -> Result<Value, AwsError> {
    let (parameter, version) = select(parameters, &request.name)?;
    Ok(json!({"Parameter": shown(parameter, version, region, request.with_decryption)}))
}

fn select<'a>(parameters: &'a Parameters, text: &str) -> Result<(&'a Parameter, &'a Version), AwsError> {
    let (name, selector) = names::parse(text);
    let parameter = parameters.get(&name).ok_or_else(not_found)?;
    let version = match &selector {
        Selector::Latest => Some(parameter.latest()),
        Selector::Number(number) => parameter.versions.iter().find(|version| version.number == *number),
        Selector::Label(label) => parameter.versions.iter().find(|version| version.labels.contains(label)),
    };
    version.map(|version| (parameter.as_ref(), version)).ok_or_else(|| {
        let wanted = text.rsplit(':').next().unwrap_or_default();
        AwsError::new(
            "ParameterVersionNotFound",
            format!(
                "Systems Manager could not find version {wanted} of {name}. Verify the version and try again."
            ),
        )
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GetParameters {
    names: Vec<String>,
    #[serde(default)]
    with_decryption: bool,
}

fn get_parameters(parameters: &Parameters, region: &str, request: &GetParameters) -> Result<Value, AwsError> {
    check_names(&request.names)?;
    let mut found = Vec::new();
    let mut invalid = Vec::new();
    for name in &request.names {
        match select(parameters, name) {
            Ok((parameter, version)) => {
                found.push(shown(parameter, version, region, request.with_decryption));
            }
            Err(_) => invalid.push(name),
        }
    }
    Ok(json!({"Parameters": found, "InvalidParameters": invalid}))
}

fn check_names(names: &[String]) -> Result<(), AwsError> {
    if (1..=10).contains(&names.len()) {
        return Ok(());
    }
    Err(AwsError::validation(
        "1 validation error detected: Value at 'names' failed to satisfy constraint: Member must have length less than \
         or equal to 10",
    ))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GetParametersByPath {
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    with_decryption: bool,
    max_results: Option<usize>,
    next_token: Option<String>,
}

fn get_by_path(
    parameters: &Parameters,
    region: &str,
    request: &GetParametersByPath,
) -> Result<Value, AwsError> {
    let page = page_size(request.max_results, 10)?;
    if !request.path.starts_with('/') {
        return Err(AwsError::validation("The parameter path must begin with a slash."));
    }
    let after = match request.next_token.as_deref() {
        None => "",
        Some(token) => token.strip_prefix("after:").ok_or_else(describe::invalid_token)?,
    };
    let mut matching = parameters
        .values()
        .filter(|parameter| parameter.name.as_str() > after)
        .filter(|parameter| is_below(&parameter.name, &request.path, request.recursive));
    let listed: Vec<_> = matching.by_ref().take(page).collect();
    let values: Vec<Value> = listed
        .iter()
        .map(|parameter| shown(parameter, parameter.latest(), region, request.with_decryption))
        .collect();
    let mut answer = json!({"Parameters": values});
    if let (Some(_), Some(last)) = (matching.next(), listed.last()) {
        answer["NextToken"] = json!(format!("after:{}", last.name));
    }
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct GetParameterHistory {
    name: String,
    #[serde(default)]
    with_decryption: bool,
    max_results: Option<usize>,
    next_token: Option<String>,
}

fn history(parameters: &Parameters, request: &GetParameterHistory) -> Result<Value, AwsError> {
    let page = page_size(request.max_results, 50)?;
    let (name, _) = names::parse(&request.name);
    let parameter = parameters.get(&name).ok_or_else(not_found)?;
    let after: i64 = match request.next_token.as_deref() {
        None => 0,
        Some(token) => token.parse().map_err(|_| describe::invalid_token())?,
    };
    let mut later = parameter.versions.iter().filter(|version| version.number > after);
    let listed: Vec<&Version> = later.by_ref().take(page).collect();
    let entries: Vec<Value> =
        listed.iter().map(|version| history_entry(parameter, version, request.with_decryption)).collect();
    let mut answer = json!({"Parameters": entries});
    if let (Some(_), Some(last)) = (later.next(), listed.last()) {
        answer["NextToken"] = json!(last.number.to_string());
    }
    Ok(answer)
}

fn history_entry(parameter: &Parameter, version: &Version, decrypt: bool) -> Value {
    let mut entry = json!({
        "Name": parameter.name,
        "Type": version.kind,
        "LastModifiedDate": seconds(version.modified),
        "LastModifiedUser": version.modified_by,
        "Value": value(version, decrypt),
        "Version": version.number,
        "Labels": version.labels,
        "Tier": version.tier,
        "Policies": [],
        "DataType": "text",
    });
    for (field, text) in [("Description", &version.description), ("KeyId", &version.key_id)] {
        if let Some(text) = text {
            entry[field] = json!(text);
        }
    }
    entry
}

fn shown(parameter: &Parameter, version: &Version, region: &str, decrypt: bool) -> Value {
    json!({
        "Name": parameter.name,
        "Type": version.kind,
        "Value": value(version, decrypt),
        "Version": version.number,
        "LastModifiedDate": seconds(version.modified),
        "ARN": names::arn(region, &parameter.name),
        "DataType": "text",
    })
}

/// Returns the value, or a replacement for the ciphertext, which reveals nothing of the value.
fn value(version: &Version, decrypt: bool) -> String {
    if version.kind == Kind::SecureString && !decrypt {
        return format!("AQICAHemulated{:04}", version.number);
    }
    version.value.clone()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DeleteParameter {
    name: String,
}

fn delete(region: &mut Region, request: &DeleteParameter) -> Result<Value, AwsError> {
    if !region.parameters.contains_key(&request.name) {
        return Err(not_found());
    }
    region.write(&request.name, None);
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DeleteParameters {
    names: Vec<String>,
}

fn delete_all(region: &mut Region, request: &DeleteParameters) -> Result<Value, AwsError> {
    check_names(&request.names)?;
    let (deleted, invalid): (Vec<&String>, Vec<&String>) =
        request.names.iter().partition(|name| region.parameters.contains_key(*name));
    for name in &deleted {
        region.write(name, None);
    }
    Ok(json!({"DeletedParameters": deleted, "InvalidParameters": invalid}))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct LabelParameterVersion {
    name: String,
    parameter_version: Option<i64>,
    labels: Vec<String>,
}

fn label(region: &mut Region, request: LabelParameterVersion) -> Result<Value, AwsError> {
    let mut parameter = region.parameters.get(&request.name).ok_or_else(not_found)?.as_ref().clone();
    let number = request.parameter_version.unwrap_or(parameter.latest().number);
    if !parameter.versions.iter().any(|version| version.number == number) {
        return Err(AwsError::new("ParameterVersionNotFound", ""));
    }
    let is_valid = |label: &String| {
        let lower = label.to_ascii_lowercase();
        (1..=100).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
            && !label.starts_with(|c: char| c.is_ascii_digit())
            && !lower.starts_with("aws")
            && !lower.starts_with("ssm")
    };
    let (valid, invalid): (Vec<String>, Vec<String>) = request.labels.into_iter().partition(is_valid);
    for version in &mut parameter.versions {
        for label in &valid {
            version.labels.remove(label);
        }
        if version.number == number {
            version.labels.extend(valid.iter().cloned());
            if version.labels.len() > 10 {
                return Err(AwsError::new("ParameterVersionLabelLimitExceeded", ""));
            }
        }
    }
    region.write(&request.name, Some(parameter));
    Ok(json!({"InvalidLabels": invalid, "ParameterVersion": number}))
}
