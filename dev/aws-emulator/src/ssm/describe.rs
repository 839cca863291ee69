//! DescribeParameters: metadata by filters and pages.

use serde::Deserialize;
use serde_json::{Value, json};

use super::names;
use super::store::{Parameter, Parameters, Settings};
use crate::error::AwsError;

const MAX_PAGE: usize = 50;
const MAX_VALUES: usize = 50;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct DescribeParameters {
    #[serde(default)]
    parameter_filters: Vec<Filter>,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Filter {
    key: String,
    option: Option<String>,
    #[serde(default)]
    values: Vec<String>,
}

pub(crate) fn describe(
    parameters: &Parameters,
    region: &str,
    settings: &Settings,
    request: &DescribeParameters,
) -> Result<Value, AwsError> {
    let page = page_size(request.max_results, MAX_PAGE)?;
    for filter in &request.parameter_filters {
        filter.check()?;
    }
    let token = request.next_token.as_deref().unwrap_or("full:");
    let Some((form, after)) = token.split_once(':') else { return Err(invalid_token()) };
    if settings.empty_pages && form == "full" {
        return Ok(json!({"Parameters": [], "NextToken": format!("real:{after}")}));
    }
    let mut matching = parameters
        .values()
        .filter(|parameter| parameter.name.as_str() > after)
        .filter(|parameter| request.parameter_filters.iter().all(|filter| filter.takes(parameter)));
    let listed: Vec<&Parameter> = matching.by_ref().take(page).map(AsRef::as_ref).collect();
    let mut answer =
        json!({"Parameters": listed.iter().map(|parameter| metadata(parameter, region)).collect::<Vec<_>>()});
    if let (Some(_), Some(last)) = (matching.next(), listed.last()) {
        answer["NextToken"] = json!(format!("full:{}", last.name));
    }
    Ok(answer)
}

pub(crate) fn page_size(wanted: Option<usize>, max: usize) -> Result<usize, AwsError> {
    match wanted {
        None => Ok(max),
        Some(page) if (1..=max).contains(&page) => Ok(page),
        Some(page) => Err(AwsError::validation(format!(
            "1 validation error detected: Value '{page}' at 'maxResults' failed to satisfy constraint: Member must have \
             value between 1 and {max}"
        ))),
    }
}

pub(crate) fn invalid_token() -> AwsError {
    AwsError::new("InvalidNextToken", "The specified token isn't valid.")
}

impl Filter {
    fn option(&self) -> &str {
        match (&self.option, self.key.as_str()) {
            (Some(option), _) => option,
            (None, "Path") => "OneLevel",
            (None, _) => "Equals",
        }
    }

    fn check(&self) -> Result<(), AwsError> {
        let options: &[&str] = match self.key.as_str() {
            "Name" => &["Equals", "BeginsWith", "Contains"],
            "Path" => &["Recursive", "OneLevel"],
            "Type" | "KeyId" | "Tier" => &["Equals"],
            key => {
                return Err(AwsError::new(
                    "InvalidFilterKey",
                    format!("The emulator knows no filter with the key {key}"),
                ));
            }
        };
        if !options.contains(&self.option()) {
            return Err(AwsError::new(
                "InvalidFilterOption",
                format!("The filter option {} isn't valid for {}", self.option(), self.key),
            ));
        }
        let bad_path = self.key == "Path" && self.values.iter().any(|value| !value.starts_with('/'));
        if self.values.is_empty() || self.values.len() > MAX_VALUES || bad_path {
            return Err(AwsError::new(
                "InvalidFilterValue",
                format!("The filter {} takes 1 to {MAX_VALUES} values; paths begin with a slash", self.key),
            ));
        }
        Ok(())
    }

    fn takes(&self, parameter: &Parameter) -> bool {
        let latest = parameter.latest();
        self.values.iter().any(|value| match (self.key.as_str(), self.option()) {
            ("Name", "BeginsWith") => parameter.name.starts_with(value.as_str()),
            ("Name", "Contains") => parameter.name.contains(value.as_str()),
            ("Name", _) => parameter.name == *value,
            ("Path", option) => is_below(&parameter.name, value, option == "Recursive"),
            ("Type", _) => json!(latest.kind) == json!(value),
            ("KeyId", _) => latest.key_id.as_ref() == Some(value),
            (_, _) => json!(latest.tier) == json!(value),
        })
    }
}

/// True if a parameter lies below a path. A parameter with exactly that name does not.
pub(crate) fn is_below(name: &str, path: &str, recursive: bool) -> bool {
    name.strip_prefix(path.trim_end_matches('/'))
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|rest| recursive || !rest.contains('/'))
}

fn metadata(parameter: &Parameter, region: &str) -> Value {
    let latest = parameter.latest();
    let mut metadata = json!({
        "Name": parameter.name,
        "ARN": names::arn(region, &parameter.name),
        "Type": latest.kind,
        "LastModifiedDate": seconds(latest.modified),
        "LastModifiedUser": latest.modified_by,
        "Version": latest.number,
        "Tier": latest.tier,
        "Policies": [],
        "DataType": "text",
    });
    for (field, text) in [
        ("Description", &latest.description),
        ("KeyId", &latest.key_id),
        ("AllowedPattern", &latest.allowed_pattern),
    ] {
        if let Some(text) = text {
            metadata[field] = json!(text);
        }
    }
    metadata
}

/// Formats a time as the protocol does: seconds, with milliseconds as the fraction.
pub(crate) fn seconds(at: chrono::DateTime<chrono::Utc>) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds fit for the next 200,000 years")]
    let seconds = at.timestamp_millis() as f64 / 1000.0;
    json!(seconds)
}
