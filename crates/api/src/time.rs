//! Conversions between the domain's time (chrono) and the time of Kubernetes' own types (jiff).

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Converts an instant to a Kubernetes `Time` in whole seconds, as the API server stores it.
pub fn to_kubernetes(at: DateTime<Utc>) -> Time {
    Time(jiff::Timestamp::from_second(at.timestamp()).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// Converts a Kubernetes `Time` to an instant.
pub fn from_kubernetes(at: &Time) -> DateTime<Utc> {
    DateTime::from_timestamp(at.0.as_second(), 0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Formats an instant in RFC 3339, UTC, with whole seconds, as status strings hold it.
pub fn to_text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Parses the output of [`to_text`]; `None` for text that is not RFC 3339.
pub fn from_text(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc))
}
