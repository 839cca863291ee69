//! PutParameter. This file exists because moto does not have all of these rules.

use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::names;
use super::store::{
    DEFAULT_KEY, Kind, MAX_STANDARD_PARAMETERS, MAX_VERSIONS, Parameter, Region, Settings, Tier, Version,
};
use crate::error::AwsError;

const MAX_STANDARD: usize = 4096;
const MAX_ADVANCED: usize = 8192;
const MAX_DESCRIPTION: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct PutParameter {
    name: String,
    value: String,
    description: Option<String>,
    r#type: Option<Kind>,
    key_id: Option<String>,
    #[serde(default)]
    overwrite: bool,
    allowed_pattern: Option<String>,
    tags: Option<Vec<Value>>,
    tier: Option<Tier>,
    data_type: Option<String>,
}

/// The writer, and the time of the write.
pub(crate) struct Author {
    pub name: String,
    pub at: DateTime<Utc>,
}

pub(crate) fn put(
    region: &mut Region,
    settings: &Settings,
    author: &Author,
    request: PutParameter,
) -> Result<Value, AwsError> {
    names::check(&request.name)?;
    let existing = region.parameters.get(&request.name).cloned();
    check_shape(&request)?;
    if let Some(existing) = &existing {
        check_overwrite(&request, existing)?;
    }
    let Some(kind) = request.r#type.or(existing.as_ref().map(|existing| existing.latest().kind)) else {
        return Err(AwsError::validation("A parameter type is required when you create a parameter."));
    };
    let tier = tier(&request, existing.as_deref())?;
    let key_id = key(&request, kind, settings)?;
    check_pattern(&request, existing.as_deref())?;
    if existing.is_none() && tier == Tier::Standard && standard_parameters(region) >= MAX_STANDARD_PARAMETERS
    {
        return Err(AwsError::new(
            "ParameterLimitExceeded",
            "You have exceeded the number of parameters for this account and region.",
        ));
    }
    let before = existing.as_deref().map(Parameter::latest);
    let version = Version {
        number: before.map_or(1, |before| before.number + 1),
        kind,
        tier,
        key_id,
        // Both stay unchanged if an overwrite does not name them.
        description: request.description.or_else(|| before.and_then(|before| before.description.clone())),
        allowed_pattern: request
            .allowed_pattern
            .or_else(|| before.and_then(|before| before.allowed_pattern.clone())),
        value: request.value,
        modified: author.at,
        modified_by: author.name.clone(),
        labels: BTreeSet::new(),
    };
    let answer = json!({"Version": version.number, "Tier": tier});
    let versions = kept_versions(existing.as_deref(), &request.name)?;
    let parameter = Parameter {
        name: request.name.clone(),
        versions: versions.into_iter().chain(std::iter::once(version)).collect(),
    };
    region.write(&request.name, Some(parameter));
    Ok(answer)
}

fn check_shape(request: &PutParameter) -> Result<(), AwsError> {
    if request.value.is_empty() {
        return Err(AwsError::validation(
            "1 validation error detected: Value at 'value' failed to satisfy constraint: Member must have length \
             greater than or equal to 1.",
        ));
    }
    // AWS quotes the rejected text, and that is how values get into logs.
    if let Some(description) = &request.description
        && description.encode_utf16().count() > MAX_DESCRIPTION
    {
        return Err(AwsError::validation(format!(
            "1 validation error detected: Value '{description}' at 'description' failed to satisfy constraint: Member \
             must have length less than or equal to {MAX_DESCRIPTION}"
        )));
    }
    if request.overwrite && request.tags.is_some() {
        return Err(AwsError::validation(
            "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please \
             remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or \
             RemoveTagsFromResource.",
        ));
    }
    if request.data_type.as_deref().is_some_and(|data_type| data_type != "text") {
        return Err(AwsError::validation("The emulator knows the data type text only."));
    }
    Ok(())
}

fn check_overwrite(request: &PutParameter, existing: &Parameter) -> Result<(), AwsError> {
    if !request.overwrite {
        return Err(AwsError::new(
            "ParameterAlreadyExists",
            "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.",
        ));
    }
    if request.r#type.is_some_and(|kind| kind != existing.latest().kind) {
        return Err(AwsError::new(
            "HierarchyTypeMismatchException",
            "Parameter Store doesn't support changing a parameter type.",
        ));
    }
    Ok(())
}

fn tier(request: &PutParameter, existing: Option<&Parameter>) -> Result<Tier, AwsError> {
    let is_advanced = existing.is_some_and(|existing| existing.latest().tier == Tier::Advanced);
    let tier = match request.tier {
        Some(Tier::Standard) if is_advanced => {
            return Err(AwsError::validation(
                "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the \
                 advanced-parameter tier to the standard-parameter tier. If necessary, you can delete the advanced \
                 parameter and recreate it as a standard parameter.",
            ));
        }
        Some(Tier::Intelligent) if request.value.len() > MAX_STANDARD => Tier::Advanced,
        Some(Tier::Advanced) => Tier::Advanced,
        _ if is_advanced => Tier::Advanced,
        _ => Tier::Standard,
    };
    match tier {
        Tier::Advanced if request.value.len() > MAX_ADVANCED => Err(AwsError::validation(format!(
            "Advanced tier parameters support a maximum parameter value of {MAX_ADVANCED} characters."
        ))),
        Tier::Standard if request.value.len() > MAX_STANDARD => Err(AwsError::validation(format!(
            "Standard tier parameters support a maximum parameter value of {MAX_STANDARD} characters. To create a \
             larger parameter value, upgrade the parameter to use the advanced-parameter tier. For more information, \
             see https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-advanced-parameters.html"
        ))),
        tier => Ok(tier),
    }
}

fn key(request: &PutParameter, kind: Kind, settings: &Settings) -> Result<Option<String>, AwsError> {
    match (&request.key_id, kind) {
        (None, Kind::SecureString) => Ok(Some(DEFAULT_KEY.to_owned())),
        (None, _) => Ok(None),
        (Some(key), Kind::SecureString) if settings.kms_keys.contains(key) => Ok(Some(key.clone())),
        (Some(key), Kind::SecureString) => Err(AwsError::new("InvalidKeyId", format!("Invalid keyId {key}"))),
        (Some(_), _) => Err(AwsError::validation("KeyId is required for SecureString type parameter only.")),
    }
}

fn check_pattern(request: &PutParameter, existing: Option<&Parameter>) -> Result<(), AwsError> {
    let kept = existing.and_then(|existing| existing.latest().allowed_pattern.as_ref());
    let Some(pattern) = request.allowed_pattern.as_ref().or(kept) else { return Ok(()) };
    let regex = Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|_| AwsError::new("InvalidAllowedPatternException", "The pattern is not a valid regex."))?;
    if regex.is_match(&request.value) {
        return Ok(());
    }
    Err(AwsError::new(
        "ParameterPatternMismatchException",
        format!("Parameter value, cannot be validated against allowedPattern: {pattern}"),
    ))
}

fn standard_parameters(region: &Region) -> usize {
    region.parameters.values().filter(|parameter| parameter.latest().tier == Tier::Standard).count()
}

/// Returns the versions that remain when one more is added: the oldest of 100 is deleted, unless it has a
/// label.
fn kept_versions(existing: Option<&Parameter>, name: &str) -> Result<VecDeque<Version>, AwsError> {
    let mut versions = existing.map(|existing| existing.versions.clone()).unwrap_or_default();
    if versions.len() < MAX_VERSIONS {
        return Ok(versions);
    }
    if versions.front().is_some_and(|oldest| !oldest.labels.is_empty()) {
        return Err(AwsError::new(
            "ParameterMaxVersionLimitExceeded",
            format!(
                "You attempted to create a new version of {name} by calling the PutParameter API with the overwrite \
                 flag. Version 1, the oldest version, can't be deleted because it has a label associated with it. Move \
                 the label to another version of the parameter, and try again."
            ),
        ));
    }
    versions.pop_front();
    Ok(versions)
}
