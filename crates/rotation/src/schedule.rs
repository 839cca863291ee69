//! Decides when a secret is due: pure functions of the spec, the published value and the time.
//!
//! Without windows a value is due when its age reaches the period. With windows it is due in the last window before
//! that time, so that it never becomes overdue because of its windows; if there is no window before that time, it is
//! due in the first one after it. A rotation that was missed (the controller was down, or the start was refused for a
//! while) happens in the next window, or at once without windows. Secrets that were overdue when keyturn adopted them,
//! and those that missed their window, are spread by a stable hash, so that a backlog does not rotate within one
//! minute.
//!
//! The schedule keeps no state: every controller that sees the same facts at the same time comes to the same answer.

use aws_lc_rs::digest;
use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::window::Window;

use super::window::{Calendar, Span, WindowError};

/// Longest lead of a start. In a window that has been open for longer, a rotation starts at most this long before the
/// end of the window or of the period, whichever comes first, and at most a tenth of the period before it.
const LONGEST_LEAD: TimeDelta = TimeDelta::days(1);
const LEAD_PER_PERIOD: i32 = 10;
/// First distance by which the search for the last window goes back; it doubles each time it finds too little.
const FIRST_LOOK_BACK: TimeDelta = TimeDelta::hours(1);
/// Longest time over which a backlog is spread.
const LONGEST_SPREAD: TimeDelta = TimeDelta::days(30);
/// Limits for times (years 0 and 9000): times beyond them are clamped, so that arithmetic cannot overflow.
const EARLIEST: DateTime<Utc> =
    DateTime::from_timestamp(-62_167_219_200, 0).expect("the year 0 can be written");
const LATEST: DateTime<Utc> =
    DateTime::from_timestamp(221_845_392_000, 0).expect("the year 9000 can be written");

/// Everything that decides when the next rotation may start.
#[derive(Clone, Copy, Debug)]
pub struct Schedule<'a> {
    /// Greatest age of a value; `None` rotates on demand only.
    pub period: Option<TimeDelta>,
    /// The secret's windows; without windows it may start at any time.
    pub windows: &'a [Window],
    /// The windows of each host that must run the secret; a host without windows is always open. A start has to lie in
    /// a window of the secret and of every host.
    pub host_windows: &'a [&'a [Window]],
    /// Time when the published value was made.
    pub made_at: DateTime<Utc>,
    /// Creation time of the object, if the value is older than keyturn's first rotation of it. Nothing starts before
    /// this time plus `first_rotation_delay`.
    pub adopted_at: Option<DateTime<Utc>>,
    /// Minimum time from `adopted_at` to the next start; without effect if `adopted_at` is `None`.
    pub first_rotation_delay: TimeDelta,
    /// Length of time over which a backlog starts, at most thirty days; zero starts all of it at once.
    pub spread: TimeDelta,
    /// `<namespace>/<name>`; its hash decides the secret's place in the spread.
    pub identity: &'a str,
}

/// The time at which the next rotation may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Only on demand.
    Never,
    /// At this time. While a rotation that may start waits, this stays the time from which it may start.
    At(DateTime<Utc>),
    /// The windows do not coincide within the years that are searched.
    NoWindow,
}

/// The schedule's answer for one point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The time at which the next rotation may start.
    pub next: Due,
    /// The time at which the age reached the period, if that has passed.
    pub overdue_since: Option<DateTime<Utc>>,
    /// True when a rotation may start now.
    pub start_now: bool,
}

/// Returns the schedule's answer for `now`.
///
/// # Errors
/// A window of the secret or of a host cannot be parsed.
pub fn look(schedule: &Schedule<'_>, now: DateTime<Utc>) -> Result<Verdict, WindowError> {
    let calendar =
        Calendar::new(std::iter::once(schedule.windows).chain(schedule.host_windows.iter().copied()))?;
    let Some(period) = schedule.period else {
        return Ok(Verdict { next: Due::Never, overdue_since: None, start_now: false });
    };
    let now = now.clamp(EARLIEST, LATEST);
    let made_at = schedule.made_at.clamp(EARLIEST, LATEST);
    let deadline = later(made_at, period);
    let not_before = schedule.adopted_at.map_or(EARLIEST, |at| later(at, schedule.first_rotation_delay));
    let life = Life { made_at, deadline, not_before };
    let (next, start_now) = if calendar.always_open() {
        let start = if not_before > deadline {
            later(not_before, share(schedule.identity, spread(schedule)))
        } else {
            deadline
        };
        (Due::At(start), now >= start)
    } else {
        within_windows(schedule, &calendar, life, now)
    };
    Ok(Verdict { next, overdue_since: (now >= deadline).then_some(deadline), start_now })
}

/// The times that limit the life of the published value.
#[derive(Clone, Copy)]
struct Life {
    made_at: DateTime<Utc>,
    /// Time when its age reaches the period.
    deadline: DateTime<Utc>,
    /// Earliest time at which a rotation may start.
    not_before: DateTime<Utc>,
}

fn within_windows(
    schedule: &Schedule<'_>,
    calendar: &Calendar,
    life: Life,
    now: DateTime<Utc>,
) -> (Due, bool) {
    let Life { made_at, deadline, not_before } = life;
    let spread = spread(schedule);
    let planned = last_window(calendar, made_at, deadline, spread);
    if let Some(window) = planned
        && window.start >= not_before
        && now < window.end
    {
        return (Due::At(window.start), now >= window.start);
    }
    // The planned window was missed, or the start was held back: search the windows that follow, each with a place in
    // the spread. A window that has been open for longer than the spread is past every such place, so the search need
    // not go further back.
    let floor = planned.map_or(deadline, |window| window.start).max(not_before);
    let look_from = floor.max(later(now, -spread));
    let mut from = look_from;
    while let Some(opening) = calendar.next(from).map(|span| span.start)
        && let Some(window) = calendar.span_until(opening, later(opening, spread * 2))
    {
        if now < window.end {
            let passed_all = look_from > floor && window.start == look_from;
            let room = spread.min((window.end - window.start) / 2);
            let start = later(window.start, share(schedule.identity, room));
            if passed_all || now >= start {
                return (Due::At(floor), true);
            }
            return (Due::At(start), false);
        }
        from = window.end;
    }
    (Due::NoWindow, false)
}

/// Returns the last window before the deadline, starting at the time from which it should be used and ending where it
/// closes, or well past the deadline.
fn last_window(
    calendar: &Calendar,
    made_at: DateTime<Utc>,
    deadline: DateTime<Utc>,
    spread: TimeDelta,
) -> Option<Span> {
    let period = (deadline - made_at).max(TimeDelta::zero());
    let lead = LONGEST_LEAD.min(period / LEAD_PER_PERIOD);
    let mut look_back = FIRST_LOOK_BACK;
    loop {
        let from = later(deadline, -look_back).max(made_at).min(deadline);
        let mut last: Option<Span> = None;
        let mut at = from;
        while let Some(opening) = calendar.next_before(at, deadline).map(|span| span.start)
            && let Some(window) = calendar.span_until(opening, later(deadline, spread))
        {
            last = Some(window);
            if window.end > deadline {
                break;
            }
            at = window.end;
        }
        let reached_start = from <= made_at;
        if let Some(window) = last {
            let use_from = window.start.max(later(window.end.min(deadline), -lead));
            if window.start > from || (use_from > from && !reached_start) {
                return Some(Span { start: use_from, ..window });
            }
            if reached_start {
                // This is the window in which the value was made. It counts again only if it is long enough: otherwise
                // each rotation would cause the next one in the same window.
                return (use_from - made_at >= period / 2).then_some(Span { start: use_from, ..window });
            }
        } else if reached_start {
            return None;
        }
        look_back = look_back * 2;
    }
}

fn spread(schedule: &Schedule<'_>) -> TimeDelta {
    schedule.spread.clamp(TimeDelta::zero(), LONGEST_SPREAD)
}

/// Returns this identity's place within `room`, in whole seconds: always the same one, and evenly distributed over many
/// identities.
fn share(identity: &str, room: TimeDelta) -> TimeDelta {
    let digest = digest::digest(&digest::SHA256, identity.as_bytes());
    let place = digest.as_ref().iter().take(8).fold(0_u64, |place, byte| place << 8 | u64::from(*byte));
    let seconds = u128::from(room.num_seconds().unsigned_abs());
    let seconds = (u128::from(place) * seconds) >> 64;
    TimeDelta::seconds(i64::try_from(seconds).unwrap_or(0))
}

fn later(at: DateTime<Utc>, by: TimeDelta) -> DateTime<Utc> {
    let end = if by < TimeDelta::zero() { EARLIEST } else { LATEST };
    at.clamp(EARLIEST, LATEST).checked_add_signed(by).unwrap_or(end).clamp(EARLIEST, LATEST)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
