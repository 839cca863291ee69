//! When something may start: a cron schedule, a length and a time zone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;

/// A recurring span of time in which a rotation or a deployment may start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Start of the window as a cron expression of five fields: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 9, max = 100))]
    pub schedule: String,
    /// Length of the window, such as `2h`.
    pub duration: Duration,
    /// IANA time zone in which the schedule is read, such as `Europe/Berlin`. UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}
