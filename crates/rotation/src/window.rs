//! Calculates when windows are open: cron schedules in their time zones, including the days on which clocks change, and
//! the times at which several windows coincide.
//!
//! A schedule names wall-clock times. A start that the clocks skip opens at the first instant after the skip; a start
//! that they show twice opens the first time. Durations are elapsed time: a window of two hours lasts two hours on such
//! days too. Starts of one schedule that are no further apart than its duration form one continuous window, so
//! `* 1-4 * * *` covers both occurrences of an hour that is shown twice.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc};
use croner::Cron;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use keyturn_api::window::Window;

/// Longest duration of a window, in days. A longer window would be open all year.
const LONGEST_DAYS: i64 = 366;
/// Time span searched for the next opening, in days. 29 February comes within eight years, even across the year 2100.
const HORIZON_DAYS: u64 = 9 * 366;
/// Limit for the search of a time when several windows are open at once. The windows are compared opening by opening,
/// for at least a year; after that, until as many steps were taken as two daily windows need for a year. Windows of
/// minutes get `MAX_STEPS` steps in all.
const STEPS_OF_A_YEAR: usize = 2 * 366;
const MAX_STEPS: usize = 4 * STEPS_OF_A_YEAR;
const HOURS_A_DAY: u32 = 24;
const MINUTES_AN_HOUR: u32 = 60;

/// An error in a window, worded for the author of the object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The schedule is not a cron expression of five fields; `detail` says why.
    #[error(
        "the window's schedule {schedule:?} is not a cron expression of five fields (minute, hour, day of month, \
         month, day of week): {detail}"
    )]
    Schedule {
        /// The schedule, as written in the spec.
        schedule: String,
        /// The error of the parser.
        detail: String,
    },
    /// The duration, as written in the spec, is malformed or longer than 366 days.
    #[error("the window's duration {0:?} is not a duration of at most 366 days, such as 30m, 2h or 1d")]
    Duration(String),
    /// The name, as written in the spec, is no time zone of the IANA database.
    #[error("the window's time zone {0:?} is not an IANA name such as Europe/Berlin")]
    TimeZone(String),
}

/// A span of time in which a rotation or deployment may start: from `start` until just before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First instant of the span.
    pub start: DateTime<Utc>,
    /// First instant after the span.
    pub end: DateTime<Utc>,
}

/// A parsed window.
struct Recurrence {
    cron: Cron,
    /// First and last start of each continuous run, in minutes of the wall-clock day, in ascending order.
    runs: Vec<(u32, u32)>,
    length: TimeDelta,
    zone: TimeZone,
}

impl Recurrence {
    fn parse(window: &Window) -> Result<Self, WindowError> {
        let refused = |detail: String| WindowError::Schedule { schedule: window.schedule.clone(), detail };
        let fields = window.schedule.split_whitespace().count();
        if fields != 5 {
            return Err(refused(format!("it has {fields} fields")));
        }
        let cron = window.cron().map_err(refused)?;
        let length = window
            .duration
            .to_delta()
            .filter(|length| *length <= TimeDelta::days(LONGEST_DAYS))
            .ok_or_else(|| WindowError::Duration(window.duration.to_string()))?;
        let zone = window
            .zone()
            .ok_or_else(|| WindowError::TimeZone(window.time_zone.clone().unwrap_or_default()))?;
        let runs = runs(&cron, length).map_err(|e| refused(e.to_string()))?;
        Ok(Self { cron, runs, length, zone })
    }

    /// Returns the earliest span that ends after `at`: the one that contains `at` or, failing that, the next one.
    fn open_at_or_after(&self, at: DateTime<Utc>) -> Option<Span> {
        let lead = u64::try_from(self.length.num_days()).unwrap_or(0) + 2;
        let mut date = date_in(&self.zone, at)?.checked_sub_days(Days::new(lead))?;
        for _ in 0..HORIZON_DAYS + lead {
            if self.matches(date)
                && let Some(span) = self.open_on(date, at)
            {
                return Some(span);
            }
            date = date.succ_opt()?;
        }
        None
    }

    /// Returns the first span that begins on this date in the zone and ends after `at`.
    fn open_on(&self, date: NaiveDate, at: DateTime<Utc>) -> Option<Span> {
        let end = |last: u32| self.instant(date, last)?.checked_add_signed(self.length);
        // Both the starts and the ends of the runs are in ascending order: if the last run is over, all are; otherwise
        // a binary search finds the first that is not.
        let (_, latest) = self.runs.last()?;
        if end(*latest)? <= at {
            return None;
        }
        let over = self.runs.partition_point(|(_, last)| end(*last).is_some_and(|end| end <= at));
        let (first, last) = *self.runs.get(over)?;
        Some(Span { start: self.instant(date, first)?, end: end(last)? })
    }

    fn matches(&self, date: NaiveDate) -> bool {
        let pattern = &self.cron.pattern;
        let weekday = croner::Weekday::from_days_from_sunday(date.weekday().num_days_from_sunday());
        pattern.month_match(date.month()).unwrap_or(false)
            && pattern.day_match(date.year(), date.month(), date.day(), weekday).unwrap_or(false)
    }

    fn instant(&self, date: NaiveDate, minute: u32) -> Option<DateTime<Utc>> {
        instant(&self.zone, date, minute)
    }
}

/// Returns the starts of a day as runs: starts are joined where one begins before the previous one ends, or just then.
fn runs(cron: &Cron, length: TimeDelta) -> Result<Vec<(u32, u32)>, croner::errors::CronError> {
    let (mut hours, mut minutes) = (Vec::new(), Vec::new());
    for hour in 0..HOURS_A_DAY {
        if cron.pattern.hour_match(hour)? {
            hours.push(hour);
        }
    }
    for minute in 0..MINUTES_AN_HOUR {
        if cron.pattern.minute_match(minute)? {
            minutes.push(minute);
        }
    }
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for minute in
        hours.iter().flat_map(|hour| minutes.iter().map(move |minute| hour * MINUTES_AN_HOUR + minute))
    {
        match runs.last_mut() {
            Some((_, last)) if i64::from(minute - *last) <= length.num_minutes() => *last = minute,
            _ => runs.push((minute, minute)),
        }
    }
    Ok(runs)
}

/// Returns the date that the calendars of a zone show.
fn date_in(zone: &TimeZone, at: DateTime<Utc>) -> Option<NaiveDate> {
    let date = zone.to_datetime(Timestamp::from_second(at.timestamp()).ok()?).date();
    NaiveDate::from_ymd_opt(
        date.year().into(),
        date.month().unsigned_abs().into(),
        date.day().unsigned_abs().into(),
    )
}

/// Returns the first instant at which the clocks of a zone show this minute of a date or, where they skip it, have passed
/// it.
fn instant(zone: &TimeZone, date: NaiveDate, minute: u32) -> Option<DateTime<Utc>> {
    let small = |number: u32| i8::try_from(number).ok();
    let date = Date::new(i16::try_from(date.year()).ok()?, small(date.month())?, small(date.day())?).ok()?;
    let wall = date.at(small(minute / MINUTES_AN_HOUR)?, small(minute % MINUTES_AN_HOUR)?, 0, 0);
    let at = match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok()?,
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok()?,
        AmbiguousOffset::Gap { after, .. } => {
            // By the clocks that are already set forward, this is an instant before they were.
            let earlier = after.to_timestamp(wall).ok()?;
            zone.following(earlier).next()?.timestamp()
        }
    };
    DateTime::from_timestamp(at.as_second(), 0)
}

/// The times at which the windows of a secret, and of all hosts that run it, are open.
pub struct Calendar {
    /// The windows by owner. The calendar is open when every group is; a group is open when one of its windows is.
    groups: Vec<Vec<Recurrence>>,
}

impl Calendar {
    /// Parses the windows of the secret and its hosts. An empty group is always open and is ignored.
    ///
    /// # Errors
    /// The error of the first window that is not valid.
    pub fn new<'a>(groups: impl IntoIterator<Item = &'a [Window]>) -> Result<Self, WindowError> {
        let groups = groups
            .into_iter()
            .filter(|windows| !windows.is_empty())
            .map(|windows| windows.iter().map(Recurrence::parse).collect())
            .collect::<Result<_, _>>()?;
        Ok(Self { groups })
    }

    /// Returns true when there are no windows.
    pub fn always_open(&self) -> bool {
        self.groups.is_empty()
    }

    /// Returns the first span at or after `at`; it begins at `at` if `at` lies in a window. `None` where no window
    /// opens within about nine years, or where windows that must coincide do not do so within a year.
    ///
    /// Another span may follow without a break; [`Calendar::span_until`] joins those.
    pub fn next(&self, at: DateTime<Utc>) -> Option<Span> {
        self.next_before(at, DateTime::<Utc>::MAX_UTC)
    }

    /// Like [`Calendar::next`], but only for spans that open at or before `last`.
    pub fn next_before(&self, at: DateTime<Utc>, last: DateTime<Utc>) -> Option<Span> {
        let a_year_on = at.checked_add_days(Days::new(366)).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let mut at = at;
        for step in 0..MAX_STEPS {
            if at > last || (step > STEPS_OF_A_YEAR && at > a_year_on) {
                return None;
            }
            let mut start = at;
            let mut end = DateTime::<Utc>::MAX_UTC;
            for group in &self.groups {
                let span = open_group(group, at)?;
                start = start.max(span.start);
                end = end.min(span.end);
            }
            if start == at {
                return Some(Span { start, end });
            }
            at = start;
        }
        None
    }

    /// Like [`Calendar::next`], joined with all spans that follow without a break, until one ends or reaches `enough`.
    pub fn span_until(&self, at: DateTime<Utc>, enough: DateTime<Utc>) -> Option<Span> {
        let mut span = self.next(at)?;
        while span.end < enough {
            match self.next_before(span.end, span.end) {
                Some(following) if following.start == span.end => span.end = following.end,
                _ => break,
            }
        }
        Some(span)
    }
}

/// Returns the span of a group that contains `at`, cut to begin at `at`, or otherwise the first one that opens later.
fn open_group(group: &[Recurrence], at: DateTime<Utc>) -> Option<Span> {
    let mut found: Option<Span> = None;
    for span in group.iter().filter_map(|window| window.open_at_or_after(at)) {
        let span = Span { start: span.start.max(at), end: span.end };
        found = Some(match found {
            Some(best) if best.start < span.start => best,
            Some(best) if best.start == span.start => Span { start: best.start, end: best.end.max(span.end) },
            _ => span,
        });
    }
    found
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
