//! The boundary between the domain's time (chrono) and that of Kubernetes' own types (jiff).

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The domain's instant as a Kubernetes `Time` (whole seconds, as the API server stores it).
pub fn to_kubernetes(at: DateTime<Utc>) -> Time {
    Time(jiff::Timestamp::from_second(at.timestamp()).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// A Kubernetes `Time` as the domain's instant.
pub fn from_kubernetes(at: &Time) -> DateTime<Utc> {
    DateTime::from_timestamp(at.0.as_second(), 0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// RFC 3339 in UTC with whole seconds, as status strings hold it.
pub fn to_text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Reads what [`to_text`] wrote; `None` for anything else.
pub fn from_text(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc))
}
