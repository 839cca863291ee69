use keyturn_api::duration::Duration;

use super::*;

fn window(schedule: &str, duration: &str, zone: &str) -> Window {
    Window { schedule: schedule.into(), duration: Duration(duration.into()), time_zone: Some(zone.into()) }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn delta(text: &str) -> TimeDelta {
    Duration(text.into()).to_delta().unwrap_or_else(|| panic!("{text}"))
}

/// Builds a schedule with this period for a value that keyturn made, without windows; a backlog is spread over an hour.
fn schedule<'a>(period: &str, made_at: &str) -> Schedule<'a> {
    Schedule {
        period: Some(delta(period)),
        windows: &[],
        host_windows: &[],
        made_at: utc(made_at),
        adopted_at: None,
        first_rotation_delay: TimeDelta::days(1),
        spread: TimeDelta::hours(1),
        identity: "musehub/runner-token",
    }
}

/// Formats the verdict as `<next or never or no window>[ now][ overdue <since>]`, with times in minutes.
fn say(schedule: &Schedule<'_>, now: &str) -> String {
    let minutes = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%MZ").to_string();
    let verdict = look(schedule, utc(now)).unwrap();
    let mut said = match verdict.next {
        Due::Never => "never".to_owned(),
        Due::At(at) => minutes(at),
        Due::NoWindow => "no window".to_owned(),
    };
    if verdict.start_now {
        said += " now";
    }
    if let Some(since) = verdict.overdue_since {
        said += &format!(" overdue {}", minutes(since));
    }
    said
}

#[test]
fn without_windows_a_value_is_due_when_its_age_reaches_the_period() {
    let secret = schedule("90d", "2026-01-01T10:00:00Z");
    for (now, expected) in [
        ("2026-01-01T10:00:00Z", "2026-04-01T10:00Z"),
        ("2026-04-01T09:59:59Z", "2026-04-01T10:00Z"),
        ("2026-04-01T10:00:00Z", "2026-04-01T10:00Z now overdue 2026-04-01T10:00Z"),
        // The controller was down for a month: start at once.
        ("2026-05-01T00:00:00Z", "2026-04-01T10:00Z now overdue 2026-04-01T10:00Z"),
        // The clock was set back to a time before the value was made.
        ("2025-06-01T00:00:00Z", "2026-04-01T10:00Z"),
    ] {
        assert_eq!(say(&secret, now), expected, "{now}");
    }
}

#[test]
fn on_demand_is_never_due_whatever_its_age_and_windows() {
    let windows = [window("0 3 * * *", "2h", "UTC")];
    let secret = Schedule { period: None, windows: &windows, ..schedule("1d", "2001-01-01T00:00:00Z") };
    assert_eq!(say(&secret, "2026-05-07T03:30:00Z"), "never");
}

/// Period, windows of the secret, made at, now, expected. 7 May 2026 is a Thursday.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str, &'static str)],
    &'static str,
    &'static str,
    &'static str,
);

const NIGHTLY: &[(&str, &str, &str)] = &[("0 3 * * *", "2h", "UTC")];
const WEEKNIGHTS: &[(&str, &str, &str)] = &[("0 3 * * 1-4", "2h", "Europe/Berlin")];
const MONTHLY: &[(&str, &str, &str)] = &[("0 3 1 * *", "2h", "UTC")];
const YEARLY_LEAP: &[(&str, &str, &str)] = &[("0 3 29 2 *", "1h", "UTC")];
const ALWAYS: &[(&str, &str, &str)] = &[("0 0 * * *", "24h", "UTC")];
const OVERLAPPING: &[(&str, &str, &str)] = &[("0 3 * * *", "2h", "UTC"), ("0 4 * * *", "2h", "UTC")];
const WEEKEND: &[(&str, &str, &str)] = &[("0 18 * * 5", "60h", "UTC")];

const CASES: &[Case] = &[
    // The last window before the age reaches the period, for all of its length.
    ("90d", NIGHTLY, "2026-02-06T12:00:00Z", "2026-02-06T12:00:00Z", "2026-05-07T03:00Z"),
    ("90d", NIGHTLY, "2026-02-06T12:00:00Z", "2026-05-07T02:59:59Z", "2026-05-07T03:00Z"),
    ("90d", NIGHTLY, "2026-02-06T12:00:00Z", "2026-05-07T03:00:00Z", "2026-05-07T03:00Z now"),
    ("90d", NIGHTLY, "2026-02-06T12:00:00Z", "2026-05-07T04:59:59Z", "2026-05-07T03:00Z now"),
    // The period ends while a window is open, or exactly when it opens.
    ("90d", NIGHTLY, "2026-02-06T03:00:07Z", "2026-05-01T00:00:00Z", "2026-05-07T03:00Z"),
    ("90d", NIGHTLY, "2026-02-06T03:00:00Z", "2026-05-01T00:00:00Z", "2026-05-07T03:00Z"),
    ("90d", NIGHTLY, "2026-02-06T02:59:59Z", "2026-05-01T00:00:00Z", "2026-05-06T03:00Z"),
    (
        "90d",
        NIGHTLY,
        "2026-02-06T03:00:07Z",
        "2026-05-07T03:30:00Z",
        "2026-05-07T03:00Z now overdue 2026-05-07T03:00Z",
    ),
    // The 90 days end on Sunday, 10 May; the last weeknight before that is Thursday's, 01:00Z in summer.
    ("90d", WEEKNIGHTS, "2026-02-09T12:00:00Z", "2026-03-01T00:00:00Z", "2026-05-07T01:00Z"),
    // A period across a clock change: 03:00 local is an hour earlier in UTC than when the value was made.
    ("90d", WEEKNIGHTS, "2026-02-05T02:00:05Z", "2026-03-01T00:00:00Z", "2026-05-06T01:00Z"),
    // No window between the making and the deadline: the first one after it counts, and the value is overdue meanwhile.
    ("7d", MONTHLY, "2026-05-01T03:00:05Z", "2026-05-02T00:00:00Z", "2026-06-01T03:00Z"),
    (
        "7d",
        MONTHLY,
        "2026-05-01T03:00:05Z",
        "2026-05-09T00:00:00Z",
        "2026-06-01T03:00Z overdue 2026-05-08T03:00Z",
    ),
    // A value made within a window is not due again in the same window, however short its period.
    ("4h", NIGHTLY, "2026-05-07T03:00:05Z", "2026-05-07T04:59:00Z", "2026-05-08T03:00Z"),
    ("12h", OVERLAPPING, "2026-05-07T03:00:05Z", "2026-05-07T05:00:00Z", "2026-05-08T03:00Z"),
    // It is due again where the window lasts longer than the period: a tenth of the period before its end.
    ("10h", WEEKEND, "2026-05-08T18:00:00Z", "2026-05-08T18:00:00Z", "2026-05-09T03:00Z"),
    // Windows without a gap in between have no effect, except that the rotation starts a day before the deadline.
    ("90d", ALWAYS, "2026-02-06T12:00:00Z", "2026-03-01T00:00:00Z", "2026-05-06T12:00Z"),
    ("9999d", ALWAYS, "2026-02-06T12:00:00Z", "2026-03-01T00:00:00Z", "2053-06-22T12:00Z"),
    // A long window that closes before the deadline is used on its last day.
    ("30d", WEEKEND, "2026-04-14T12:00:00Z", "2026-05-01T00:00:00Z", "2026-05-10T06:00Z"),
    // Leap days: the last one before the period ends may be years away.
    ("2000d", YEARLY_LEAP, "2026-05-07T00:00:00Z", "2026-05-07T00:00:00Z", "2028-02-29T03:00Z"),
    ("90d", YEARLY_LEAP, "2026-05-07T00:00:00Z", "2026-05-07T00:00:00Z", "2028-02-29T03:00Z"),
    // The clock was set back to a time before the value was made.
    ("90d", NIGHTLY, "2026-02-06T12:00:00Z", "2025-01-01T03:30:00Z", "2026-05-07T03:00Z"),
];

#[test]
fn with_windows_a_value_is_due_in_the_last_one_before_its_age_reaches_the_period() {
    for (period, windows, made_at, now, expected) in CASES {
        let windows: Vec<Window> = windows.iter().map(|(s, d, z)| window(s, d, z)).collect();
        let secret = Schedule { windows: &windows, spread: TimeDelta::zero(), ..schedule(period, made_at) };
        assert_eq!(&say(&secret, now), expected, "{period} {windows:?} made {made_at}, now {now}");
    }
}

#[test]
fn a_missed_window_is_made_up_for_in_the_next_one() {
    let windows = [window("0 3 * * 1-4", "2h", "UTC")];
    let secret = Schedule {
        windows: &windows,
        spread: TimeDelta::zero(),
        ..schedule("90d", "2026-02-08T12:00:00Z") // due on Thursday, 7 May; the period ends on Saturday
    };
    for (now, expected) in [
        ("2026-05-07T04:00:00Z", "2026-05-07T03:00Z now"),
        ("2026-05-07T05:00:00Z", "2026-05-11T03:00Z"),
        ("2026-05-09T13:00:00Z", "2026-05-11T03:00Z overdue 2026-05-09T12:00Z"),
        ("2026-05-11T03:00:00Z", "2026-05-07T03:00Z now overdue 2026-05-09T12:00Z"),
        ("2026-05-11T05:00:00Z", "2026-05-12T03:00Z overdue 2026-05-09T12:00Z"),
        ("2027-05-12T04:30:00Z", "2026-05-07T03:00Z now overdue 2026-05-09T12:00Z"),
    ] {
        assert_eq!(say(&secret, now), expected, "{now}");
    }
}

#[test]
fn a_start_lies_in_a_window_of_the_secret_and_of_every_host() {
    let secret_windows = [window("0 2 * * *", "4h", "UTC")];
    let production = [window("0 5 * * 6", "3h", "UTC")];
    let canary = [window("30 5 * * *", "30m", "UTC")];
    let hosts: [&[Window]; 3] = [&production, &[], &canary];
    let secret = Schedule {
        windows: &secret_windows,
        host_windows: &hosts,
        ..schedule("30d", "2026-04-10T00:00:00Z")
    };
    assert_eq!(say(&secret, "2026-05-01T00:00:00Z"), "2026-05-09T05:30Z");
    // Only one of the windows is open, which is not enough.
    assert_eq!(say(&secret, "2026-05-09T05:15:00Z"), "2026-05-09T05:30Z");
    assert_eq!(say(&secret, "2026-05-09T05:45:00Z"), "2026-05-09T05:30Z now");
    // The hosts' windows also apply to a secret without windows of its own.
    let secret = Schedule { windows: &[], ..secret };
    assert_eq!(say(&secret, "2026-05-01T00:00:00Z"), "2026-05-09T05:30Z");
}

#[test]
fn windows_that_never_coincide_are_said_and_the_period_still_ends() {
    let secret_windows = [window("0 3 * * *", "1h", "UTC")];
    let host = [window("0 15 * * *", "1h", "UTC")];
    let hosts: [&[Window]; 1] = [&host];
    let secret = Schedule {
        windows: &secret_windows,
        host_windows: &hosts,
        ..schedule("30d", "2026-04-10T00:00:00Z")
    };
    assert_eq!(say(&secret, "2026-05-01T00:00:00Z"), "no window");
    assert_eq!(say(&secret, "2026-05-11T00:00:00Z"), "no window overdue 2026-05-10T00:00Z");
}

#[test]
fn a_window_that_cannot_be_read_is_an_error_of_whoever_wrote_it() {
    let host = [window("0 3 * * *", "1h", "Mars/Olympus")];
    let hosts: [&[Window]; 1] = [&host];
    for period in [Some(TimeDelta::days(1)), None] {
        let secret = Schedule { period, host_windows: &hosts, ..schedule("1d", "2026-05-01T00:00:00Z") };
        let error = look(&secret, utc("2026-05-07T00:00:00Z")).unwrap_err();
        assert_eq!(error, WindowError::TimeZone("Mars/Olympus".into()));
    }
}

#[test]
fn the_first_rotation_of_an_adopted_value_waits_for_its_delay() {
    let adopted = Some(utc("2026-05-07T10:00:00Z"));
    let at_once = TimeDelta::zero();
    // Overdue at its adoption: due a day later, and not before.
    let overdue =
        Schedule { adopted_at: adopted, spread: at_once, ..schedule("90d", "2025-01-01T00:00:00Z") };
    assert_eq!(say(&overdue, "2026-05-07T10:00:01Z"), "2026-05-08T10:00Z overdue 2025-04-01T00:00Z");
    assert_eq!(say(&overdue, "2026-05-08T10:00:00Z"), "2026-05-08T10:00Z now overdue 2025-04-01T00:00Z");
    // Younger than its period at its adoption: the delay changes nothing.
    let young = Schedule { adopted_at: adopted, ..schedule("90d", "2026-03-01T00:00:00Z") };
    assert_eq!(say(&young, "2026-05-07T10:00:01Z"), "2026-05-30T00:00Z");
    // With windows: a rotation starts as soon as the delay is over if a window is open then, and otherwise in the next
    // window.
    let windows = [window("0 9 * * *", "2h", "UTC")];
    let in_window = Schedule { windows: &windows, ..overdue };
    assert_eq!(say(&in_window, "2026-05-07T10:30:00Z"), "2026-05-08T10:00Z overdue 2025-04-01T00:00Z");
    assert_eq!(say(&in_window, "2026-05-08T09:30:00Z"), "2026-05-08T10:00Z overdue 2025-04-01T00:00Z");
    assert_eq!(say(&in_window, "2026-05-08T10:30:00Z"), "2026-05-08T10:00Z now overdue 2025-04-01T00:00Z");
    assert_eq!(say(&in_window, "2026-05-08T11:00:00Z"), "2026-05-09T09:00Z overdue 2025-04-01T00:00Z");
}

/// Counts how many of 200 overdue secrets start in each tenth of the hour after `from`.
fn starts_by_tenth(from: &str, windows: &[Window]) -> [usize; 10] {
    let mut tenths = [0; 10];
    for n in 0..200 {
        let identity = format!("musehub/secret-{n}");
        let secret = Schedule {
            adopted_at: Some(utc("2026-05-07T10:00:00Z")),
            identity: &identity,
            windows,
            ..schedule("90d", "2025-01-01T00:00:00Z")
        };
        let Due::At(at) = look(&secret, utc("2026-05-07T10:00:00Z")).unwrap().next else {
            panic!("{identity}")
        };
        let waits = at - utc(from);
        assert!(waits >= TimeDelta::zero() && waits < TimeDelta::hours(1), "{identity} starts at {at}");
        assert!(
            !look(&secret, at - TimeDelta::seconds(1)).unwrap().start_now,
            "{identity} starts before {at}"
        );
        for late in [0, 1, 60, 3600] {
            let now = at + TimeDelta::seconds(late);
            let verdict = look(&secret, now).unwrap();
            assert!(verdict.start_now, "{identity} was to start at {at}, but does not at {now}: {verdict:?}");
        }
        tenths[usize::try_from(waits.num_seconds() / 360).unwrap()] += 1;
    }
    tenths
}

#[test]
fn two_hundred_overdue_secrets_adopted_at_once_start_evenly_over_the_spread() {
    let tenths = starts_by_tenth("2026-05-08T10:00:00Z", &[]);
    assert!(tenths.iter().all(|count| (8..=35).contains(count)), "{tenths:?}");
    // The same within the next window, where there are windows.
    let tenths = starts_by_tenth("2026-05-09T03:00:00Z", &[window("0 3 * * *", "3h", "UTC")]);
    assert!(tenths.iter().all(|count| (8..=35).contains(count)), "{tenths:?}");
}

#[test]
fn a_backlog_in_a_window_shorter_than_the_spread_starts_in_its_first_half() {
    let windows = [window("0 3 * * *", "20m", "UTC")];
    for n in 0..50 {
        let identity = format!("musehub/secret-{n}");
        let secret =
            Schedule { windows: &windows, identity: &identity, ..schedule("1d", "2026-01-01T12:00:00Z") };
        let Due::At(at) = look(&secret, utc("2026-05-07T00:00:00Z")).unwrap().next else { panic!() };
        assert!(at >= utc("2026-05-07T03:00:00Z") && at < utc("2026-05-07T03:10:00Z"), "{at}");
    }
}

#[test]
fn absurd_times_are_no_panic() {
    let windows = [window("0 3 * * *", "366d", "Pacific/Apia"), window("0 3 29 2 *", "1m", "UTC")];
    let times = [
        DateTime::<Utc>::MIN_UTC,
        utc("0001-01-01T00:00:00Z"),
        utc("2026-05-07T00:00:00Z"),
        utc("9999-12-31T23:59:59Z"),
        DateTime::<Utc>::MAX_UTC,
    ];
    let spans = [
        TimeDelta::MIN,
        TimeDelta::zero(),
        TimeDelta::seconds(1),
        TimeDelta::days(3_652_059),
        TimeDelta::MAX,
    ];
    for now in times {
        for made_at in times {
            for span in spans {
                for windows in [&windows[..1], &windows[1..], &[]] {
                    let secret = Schedule {
                        period: Some(span),
                        windows,
                        host_windows: &[],
                        made_at,
                        adopted_at: Some(made_at),
                        first_rotation_delay: span,
                        spread: span,
                        identity: "",
                    };
                    look(&secret, now).unwrap();
                }
            }
        }
    }
}

/// A small pseudo-random generator of test inputs with a fixed seed (xorshift).
struct Inputs(u64);

impl Inputs {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn one_of<'a>(&mut self, options: &[&'a str]) -> &'a str {
        options[usize::try_from(self.below(options.len() as u64)).unwrap()]
    }
}

#[test]
fn whoever_looks_again_at_the_time_that_was_named_may_start_and_only_within_windows() {
    let mut inputs = Inputs(0x9e37_79b9_7f4a_7c15);
    for round in 0..120 {
        let some = |inputs: &mut Inputs| {
            window(
                inputs.one_of(&[
                    "0 3 * * *",
                    "0 3 * * 1-4",
                    "*/20 1-5 * * *",
                    "30 2 * * 0",
                    "0 23 1 * *",
                    "0 0 * * *",
                ]),
                inputs.one_of(&["20m", "2h", "5h", "24h"]),
                inputs.one_of(&["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
            )
        };
        let windows: Vec<Window> = (0..inputs.below(3)).map(|_| some(&mut inputs)).collect();
        let host: Vec<Window> = (0..inputs.below(2)).map(|_| some(&mut inputs)).collect();
        let made_at = utc("2026-01-01T00:00:00Z") + TimeDelta::seconds(inputs.below(365 * 86_400) as i64);
        let now = made_at + TimeDelta::seconds(inputs.below(200 * 86_400) as i64);
        let hosts: [&[Window]; 1] = [&host];
        let secret = Schedule {
            period: Some(delta(inputs.one_of(&["6h", "1d", "10d", "90d"]))),
            windows: &windows,
            host_windows: &hosts,
            made_at,
            adopted_at: (inputs.below(2) == 0).then(|| now - TimeDelta::hours(inputs.below(72) as i64)),
            first_rotation_delay: delta(inputs.one_of(&["1m", "1d"])),
            spread: delta(inputs.one_of(&["1m", "1h", "2d"])),
            identity: &format!("musehub/secret-{round}"),
        };
        let verdict = look(&secret, now).unwrap();
        let Due::At(next) = verdict.next else { continue };
        let start = if verdict.start_now { now } else { next };
        let told = format!("{secret:?} at {now}: {verdict:?}");
        assert!(start >= now, "{told}");
        assert!(look(&secret, start).unwrap().start_now, "not startable when told: {told}");
        assert!(
            secret.adopted_at.is_none_or(|at| start >= at + secret.first_rotation_delay),
            "too early: {told}"
        );
        let calendar = Calendar::new([&windows[..], &host[..]]).unwrap();
        assert!(
            calendar.always_open() || calendar.next(start).is_some_and(|span| span.start == start),
            "outside the windows: {told}"
        );
        if !verdict.start_now {
            let waits = next - now;
            for part in 0..8 {
                let earlier = now + waits * part / 8;
                assert!(!look(&secret, earlier).unwrap().start_now, "startable at {earlier}: {told}");
            }
        }
    }
}

#[test]
fn windows_no_further_apart_than_the_period_make_nothing_overdue() {
    let mut inputs = Inputs(7);
    let nightly = [window("30 2 * * *", "1h", "Europe/Berlin")];
    let weekly = [window("0 23 * * 5", "2h", "America/New_York")];
    for (windows, period) in [(&nightly, "2d"), (&nightly, "90d"), (&weekly, "8d"), (&weekly, "180d")] {
        for _ in 0..200 {
            let made_at = utc("2026-01-01T00:00:00Z") + TimeDelta::seconds(inputs.below(365 * 86_400) as i64);
            let secret = Schedule { windows, made_at, ..schedule(period, "2026-01-01T00:00:00Z") };
            let Due::At(next) = look(&secret, made_at).unwrap().next else { panic!("{made_at}") };
            assert!(next > made_at && next <= made_at + delta(period), "{period} made {made_at}: {next}");
        }
    }
}
