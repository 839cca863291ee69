//! Reads the fields of SSM's answers.

use aws_sdk_ssm::primitives::DateTime as AwsDateTime;
use aws_sdk_ssm::types::{ParameterHistory, ParameterTier};
use chrono::{DateTime, Utc};

use super::{MOST_VERSIONS, StoreError};
use crate::rotation::observed::Shape;

/// SSM's data of one version.
pub(super) struct Shown {
    pub number: i64,
    pub modified: DateTime<Utc>,
    pub description: String,
}

pub(super) fn shown(number: i64, modified: Option<&AwsDateTime>, description: Option<&str>) -> Option<Shown> {
    let modified = modified.and_then(time)?;
    let description = description.unwrap_or_default().to_owned();
    (number > 0).then_some(Shown { number, modified, description })
}

pub(super) fn time(at: &AwsDateTime) -> Option<DateTime<Utc>> {
    DateTime::<Utc>::from_timestamp(at.secs(), at.subsec_nanos())
}

/// Returns the constraints that this version shows, with its own labels.
pub(super) fn shape(entry: &ParameterHistory) -> Shape {
    let tier = entry.tier();
    Shape {
        kind: entry.r#type().map_or_else(String::new, |kind| kind.as_str().to_owned()),
        key_id: entry.key_id().map(str::to_owned),
        pattern: entry.allowed_pattern().filter(|pattern| !pattern.is_empty()).map(str::to_owned),
        is_advanced: tier.is_some_and(|tier| *tier != ParameterTier::Standard),
        labels_in_the_way: entry.labels().to_vec(),
    }
}

/// Returns the constraints for the next Put. Labels matter only on the oldest version, and only once SSM has to drop
/// it.
pub(super) fn shape_of_the_latest(kept: &[(Shown, Shape)]) -> Option<Shape> {
    let labels = match kept.first() {
        Some((_, oldest)) if kept.len() >= MOST_VERSIONS => oldest.labels_in_the_way.clone(),
        _ => Vec::new(),
    };
    kept.last().map(|(_, latest)| Shape { labels_in_the_way: labels, ..latest.clone() })
}

/// Returns the error for an answer to a read that lacks fields which every SSM answer has.
pub(super) fn malformed(operation: &'static str, path: &str) -> StoreError {
    StoreError::Unavailable {
        operation,
        path: path.to_owned(),
        detail: "the answer lacks fields that SSM always sends".to_owned(),
    }
}
