//! Time window in which a rotation or deployment may start: a cron schedule, a length and a time zone.

use std::sync::LazyLock;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;

/// The time zones, as they were when keyturn was built: the image has no files of zones, and those of a machine may be
/// older. Rules of zones change several times a year.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// Recurring time window in which a rotation or a deployment may start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Start of the window as a cron expression of five fields: minute, hour, day of month, month, day of week.
    #[schemars(length(max = 100))]
    #[x_kube(validation = (
        r"self.matches('^[0-9*,/-]+( [0-9*,/-]+)( [0-9*,/LW?-]+)( [0-9A-Za-z*,/-]+)( [0-9A-Za-z*,/#?-]+)$')",
        "must be a cron expression of five fields separated by single spaces (minute, hour, day of month, month, \
         day of week), such as 0 3 * * 1-4"
    ))]
    pub schedule: String,
    /// Length of the window, such as `2h`.
    pub duration: Duration,
    /// IANA time zone of the schedule, such as `Europe/Berlin`; UTC when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = (
        // The API server evaluates this in Go, which also accepts `02:00` and `Local`, and raises an error for an
        // unknown name.
        r"self != 'Local' && !self.matches('^[+-]?[0-9]') && timestamp('2026-01-01T00:00:00Z').getFullYear(self) > 0",
        "must be an IANA time zone such as Europe/Berlin or UTC"
    ))]
    pub time_zone: Option<String>,
}

impl Window {
    /// Parses the schedule.
    ///
    /// # Errors
    /// Reason why it is not a cron expression.
    pub fn cron(&self) -> Result<Cron, String> {
        CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            // `5/15` is known from Kubernetes' CronJobs.
            .sloppy_ranges(true)
            .build()
            .parse(&self.schedule)
            .map_err(|error| error.to_string())
    }

    /// Returns the time zone, UTC when none is set; `None` if the name is unknown.
    pub fn zone(&self) -> Option<TimeZone> {
        let Some(name) = self.time_zone.as_deref() else { return Some(TimeZone::UTC) };
        // Of `europe/berlin` other readers of the object would make nothing.
        ZONES.get(name).ok().filter(|zone| zone.iana_name() == Some(name) && !zone.is_unknown())
    }
}
