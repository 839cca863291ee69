//! When windows are open: cron schedules read in their time zones, with the days on which clocks change, and the
//! times at which several windows coincide.
//!
//! A schedule names wall-clock times. A start that the clocks skip opens at the first instant after the skip; one
//! that they show twice opens at the first. Lengths are elapsed time: a window of two hours lasts two hours on such
//! days too. Starts of one schedule that lie no further apart than its length are one continuous window, so
//! `* 1-4 * * *` covers an hour that is shown twice both times.

use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use keyturn_api::window::Window;

/// Longest window, in days. A longer one is no window but a year of them.
const LONGEST_DAYS: i64 = 366;
/// How far ahead an opening is looked for. 29 February comes within eight years, over the year 2100 too.
const HORIZON_DAYS: u64 = 9 * 366;
/// Windows that must coincide are compared opening by opening: for at least a year, and for as long after that as it
/// takes no more steps than two daily ones need for that year. Windows of minutes get this many steps in all.
const STEPS_OF_A_YEAR: usize = 2 * 366;
const MAX_STEPS: usize = 4 * STEPS_OF_A_YEAR;
const HOURS_A_DAY: u32 = 24;
const MINUTES_AN_HOUR: u32 = 60;
/// Widest change of a zone's offset that has happened (Samoa skipped a day), with room.
const WIDEST_SKIP: TimeDelta = TimeDelta::hours(26);

/// What is wrong with a window; its own words for whoever wrote the object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error(
        "the window's schedule {schedule:?} is not a cron expression of five fields (minute, hour, day of month, \
         month, day of week): {detail}"
    )]
    Schedule { schedule: String, detail: String },
    #[error("the window's duration {0:?} is not a length such as 30m, 2h or 1d, of at most 366 days")]
    Duration(String),
    #[error("the window's time zone {0:?} is not an IANA name such as Europe/Berlin")]
    TimeZone(String),
}

/// A span of time in which something may start: from `start`, before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
}

/// One window, parsed.
struct Recurrence {
    cron: Cron,
    /// First and last start of each continuous run, in minutes of the wall-clock day, in order.
    runs: Vec<(u32, u32)>,
    length: TimeDelta,
    zone: Tz,
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

    /// The earliest span that ends after `at`: the one `at` lies in, or else the next.
    fn open_at_or_after(&self, at: DateTime<Utc>) -> Option<Span> {
        let lead = u64::try_from(self.length.num_days()).unwrap_or(0) + 2;
        let mut date = at.with_timezone(&self.zone).date_naive().checked_sub_days(Days::new(lead))?;
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

    /// The first span that begins on this day of the zone and ends after `at`.
    fn open_on(&self, date: NaiveDate, at: DateTime<Utc>) -> Option<Span> {
        let end = |last: u32| self.instant(date, last)?.checked_add_signed(self.length);
        // Both ends grow from run to run: where the last one is over, all are, and the first that is not can be
        // searched for.
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
        pattern.month_match(date.month()).unwrap_or(false)
            && pattern.day_match(date.year(), date.month(), date.day()).unwrap_or(false)
    }

    fn instant(&self, date: NaiveDate, minute: u32) -> Option<DateTime<Utc>> {
        instant(self.zone, date.and_hms_opt(minute / MINUTES_AN_HOUR, minute % MINUTES_AN_HOUR, 0)?)
    }
}

/// The starts of a day, joined where one begins before or as the one before it ends.
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

/// The first instant at which the clocks of a zone show this time or, where they skip it, have passed it.
fn instant(zone: Tz, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(at) => Some(at.to_utc()),
        LocalResult::Ambiguous(first, second) => Some(first.min(second).to_utc()),
        LocalResult::None => {
            let shows = |seconds: i64| {
                DateTime::from_timestamp(seconds, 0)
                    .is_some_and(|at| at.with_timezone(&zone).naive_local() >= wall)
            };
            let mut before = wall.and_utc().checked_sub_signed(WIDEST_SKIP)?.timestamp();
            let mut after = wall.and_utc().checked_add_signed(WIDEST_SKIP)?.timestamp();
            while after - before > 1 {
                let middle = before + (after - before) / 2;
                if shows(middle) { after = middle } else { before = middle }
            }
            DateTime::from_timestamp(after, 0)
        }
    }
}

/// The times at which a secret and all hosts that run it are open.
pub struct Calendar {
    /// Open when every group is; a group is open when one of its windows is.
    groups: Vec<Vec<Recurrence>>,
}

impl Calendar {
    /// Parses the windows of everyone concerned. An empty group is always open and counts for nothing.
    ///
    /// # Errors
    /// Whatever is wrong with the first window that is.
    pub fn new<'a>(groups: impl IntoIterator<Item = &'a [Window]>) -> Result<Self, WindowError> {
        let groups = groups
            .into_iter()
            .filter(|windows| !windows.is_empty())
            .map(|windows| windows.iter().map(Recurrence::parse).collect())
            .collect::<Result<_, _>>()?;
        Ok(Self { groups })
    }

    /// Whether there is no window at all.
    pub fn always_open(&self) -> bool {
        self.groups.is_empty()
    }

    /// The first span at or after `at`; it begins at `at` where that lies in a window. `None` where none opens within
    /// about nine years, or where windows that must coincide do not within a year.
    ///
    /// The span may be followed by another without a break; [`Calendar::span_until`] joins those.
    pub fn next(&self, at: DateTime<Utc>) -> Option<Span> {
        self.next_before(at, DateTime::<Utc>::MAX_UTC)
    }

    /// As [`Calendar::next`], for spans that open by `last` only.
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

    /// As [`Calendar::next`], with all that follows without a break, until it ends or reaches `enough`.
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

/// The span of a group that `at` lies in, begun at `at`, or else the first that opens after.
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
