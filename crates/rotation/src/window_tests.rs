use keyturn_api::duration::Duration;

use super::*;

fn window(schedule: &str, duration: &str, zone: &str) -> Window {
    Window {
        schedule: schedule.into(),
        duration: Duration(duration.into()),
        time_zone: (!zone.is_empty()).then(|| zone.into()),
    }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn calendar(groups: &[&[Window]]) -> Calendar {
    Calendar::new(groups.iter().copied()).unwrap()
}

fn text(span: Option<Span>) -> String {
    span.map_or("none".into(), |s| {
        format!("{} {}", s.start.format("%Y-%m-%dT%H:%MZ"), s.end.format("%Y-%m-%dT%H:%MZ"))
    })
}

/// Schedule, duration, zone, time at which the search begins, expected span.
const OPENINGS: &[(&str, &str, &str, &str, &str)] = &[
    // Simple schedules, and the numbering of weekdays.
    ("0 3 * * *", "2h", "", "2026-05-07T00:00:00Z", "2026-05-07T03:00Z 2026-05-07T05:00Z"),
    ("0 3 * * *", "2h", "", "2026-05-07T05:00:00Z", "2026-05-08T03:00Z 2026-05-08T05:00Z"),
    ("0 3 * * 1-4", "2h", "", "2026-05-07T06:00:00Z", "2026-05-11T03:00Z 2026-05-11T05:00Z"),
    ("0 3 * * MON-THU", "2h", "", "2026-05-07T06:00:00Z", "2026-05-11T03:00Z 2026-05-11T05:00Z"),
    ("0 3 * * 0", "2h", "", "2026-05-07T06:00:00Z", "2026-05-10T03:00Z 2026-05-10T05:00Z"),
    ("0 3 * * 7", "2h", "", "2026-05-07T06:00:00Z", "2026-05-10T03:00Z 2026-05-10T05:00Z"),
    ("30 22 1 * *", "90m", "", "2026-05-07T06:00:00Z", "2026-06-01T22:30Z 2026-06-02T00:00Z"),
    // British Columbia has kept its summer time since March 2026.
    ("0 3 * * *", "1h", "America/Vancouver", "2026-12-01T00:00:00Z", "2026-12-01T10:00Z 2026-12-01T11:00Z"),
    // With both day fields given, either one matches, as in every cron (7 May is a Thursday).
    ("0 3 13 * 5", "1h", "", "2026-05-07T06:00:00Z", "2026-05-08T03:00Z 2026-05-08T04:00Z"),
    ("0 3 13 * 5", "1h", "", "2026-05-09T06:00:00Z", "2026-05-13T03:00Z 2026-05-13T04:00Z"),
    // Inside an open window the span begins at the given time.
    ("0 3 * * *", "2h", "", "2026-05-07T04:30:00Z", "2026-05-07T04:30Z 2026-05-07T05:00Z"),
    // Windows across midnight, and longer than a day.
    ("0 23 * * 5", "4h", "", "2026-05-09T01:00:00Z", "2026-05-09T01:00Z 2026-05-09T03:00Z"),
    ("0 22 * * 5", "3d", "", "2026-05-11T12:00:00Z", "2026-05-11T12:00Z 2026-05-11T22:00Z"),
    // A time zone: 03:00 in Berlin is 02:00Z in winter and 01:00Z in summer.
    ("0 3 * * *", "2h", "Europe/Berlin", "2026-01-10T00:00:00Z", "2026-01-10T02:00Z 2026-01-10T04:00Z"),
    ("0 3 * * *", "2h", "Europe/Berlin", "2026-07-10T00:00:00Z", "2026-07-10T01:00Z 2026-07-10T03:00Z"),
    // The weekday is the zone's: Monday 08:00 in Auckland is Sunday in UTC.
    ("0 8 * * 1", "1h", "Pacific/Auckland", "2026-05-09T00:00:00Z", "2026-05-10T20:00Z 2026-05-10T21:00Z"),
    // 29 March 2026: Berlin's clocks go from 02:00 to 03:00 at 01:00Z. 02:30 opens at that moment, for its full
    // duration.
    ("30 2 * * *", "1h", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T01:00Z 2026-03-29T02:00Z"),
    ("30 2 * * *", "1h", "Europe/Berlin", "2026-03-29T02:00:00Z", "2026-03-30T00:30Z 2026-03-30T01:30Z"),
    ("30 1 * * *", "2h", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29T00:30Z 2026-03-29T02:30Z"),
    // 25 October 2026: Berlin's clocks go back from 03:00 to 02:00 at 01:00Z. 02:30 is shown at 00:30Z and 01:30Z, and
    // opens once.
    ("30 2 * * *", "30m", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25T00:30Z 2026-10-25T01:00Z"),
    ("30 2 * * *", "30m", "Europe/Berlin", "2026-10-25T01:00:00Z", "2026-10-26T01:30Z 2026-10-26T02:00Z"),
    // Starts that touch form one window, without a gap in the hour that is shown twice.
    ("*/10 1-3 * * *", "10m", "Europe/Berlin", "2026-10-24T23:00:00Z", "2026-10-24T23:00Z 2026-10-25T03:00Z"),
    // New York, both clock changes (8 March and 1 November 2026).
    ("15 2 * * *", "1h", "America/New_York", "2026-03-08T05:00:00Z", "2026-03-08T07:00Z 2026-03-08T08:00Z"),
    ("15 1 * * *", "1h", "America/New_York", "2026-11-01T04:00:00Z", "2026-11-01T05:15Z 2026-11-01T06:15Z"),
    // Lord Howe changes its clocks by half an hour (4 October 2026, 02:00 to 02:30 at 15:30Z).
    (
        "10 2 * * *",
        "1h",
        "Australia/Lord_Howe",
        "2026-10-03T12:00:00Z",
        "2026-10-03T15:30Z 2026-10-03T16:30Z",
    ),
    // Santiago skips midnight (6 September 2026): the day begins at 01:00 local time, 04:00Z.
    ("0 0 * * *", "1h", "America/Santiago", "2026-09-06T02:00:00Z", "2026-09-06T04:00Z 2026-09-06T05:00Z"),
    // Samoa had no 30 December 2011: the window of that day opens when the 31st begins.
    ("0 3 30 * *", "1h", "Pacific/Apia", "2011-12-30T00:00:00Z", "2011-12-30T10:00Z 2011-12-30T11:00Z"),
    // Leap days, including the year 2100, which has none.
    ("0 3 29 2 *", "1h", "", "2026-05-07T00:00:00Z", "2028-02-29T03:00Z 2028-02-29T04:00Z"),
    ("0 3 29 2 *", "1h", "", "2096-03-01T00:00:00Z", "2104-02-29T03:00Z 2104-02-29T04:00Z"),
    ("0 3 31 * *", "1h", "", "2026-05-31T12:00:00Z", "2026-07-31T03:00Z 2026-07-31T04:00Z"),
    ("0 3 L * *", "1h", "", "2028-02-01T00:00:00Z", "2028-02-29T03:00Z 2028-02-29T04:00Z"),
    // A date that never occurs.
    ("0 3 30 2 *", "1h", "", "2026-05-07T00:00:00Z", "none"),
];

#[test]
fn windows_open_when_their_clocks_say() {
    for (schedule, duration, zone, from, expected) in OPENINGS {
        let windows = [window(schedule, duration, zone)];
        let found = text(calendar(&[&windows]).next(utc(from)));
        assert_eq!(&found, expected, "{schedule} {duration} {zone} from {from}");
    }
}

#[test]
fn a_malformed_window_is_refused_with_what_is_wrong() {
    for (schedule, duration, zone, expected) in [
        ("0 3 * *", "2h", "", "it has 4 fields"),
        ("0 0 3 * * *", "2h", "", "it has 6 fields"),
        ("@daily", "2h", "", "it has 1 fields"),
        ("61 3 * * *", "2h", "", "not a cron expression"),
        ("0 24 * * *", "2h", "", "not a cron expression"),
        ("0 3 32 * *", "2h", "", "not a cron expression"),
        ("0 3 * 13 *", "2h", "", "not a cron expression"),
        ("0 3 * * 8", "2h", "", "not a cron expression"),
        ("a b c d e", "2h", "", "not a cron expression"),
        ("5-1 3 * * *", "2h", "", "not a cron expression"),
        ("*/0 3 * * *", "2h", "", "not a cron expression"),
        ("@ @ @ @ @", "2h", "", "not a cron expression"),
        ("ü 3 * * *", "2h", "", "not a cron expression"),
        ("0 3 * * *", "0h", "", "\"0h\""),
        ("0 3 * * *", "367d", "", "\"367d\""),
        ("0 3 * * *", "2h", "Europe/Atlantis", "\"Europe/Atlantis\""),
    ] {
        let windows = [window(schedule, duration, zone)];
        let Err(error) = Calendar::new([&windows[..]]) else {
            panic!("{schedule} {duration} {zone} is taken")
        };
        assert!(error.to_string().contains(expected), "{schedule} {duration} {zone}: {error}");
    }
}

#[test]
fn overlapping_windows_of_one_owner_are_one() {
    let windows =
        [window("0 3 * * *", "2h", ""), window("0 4 * * *", "3h", ""), window("0 7 * * *", "1h", "")];
    let calendar = calendar(&[&windows]);
    let from = utc("2026-05-07T00:00:00Z");
    let joined = calendar.span_until(from, utc("2026-05-08T00:00:00Z"));
    assert_eq!(text(joined), "2026-05-07T03:00Z 2026-05-07T08:00Z");
}

#[test]
fn a_window_longer_than_its_recurrence_never_closes() {
    let windows = [window("0 3 * * *", "36h", "")];
    let span =
        calendar(&[&windows]).span_until(utc("2026-05-07T00:00:00Z"), utc("2026-06-07T00:00:00Z")).unwrap();
    assert_eq!(span.start, utc("2026-05-07T00:00:00Z"));
    assert!(span.end >= utc("2026-06-07T00:00:00Z"), "{span:?}");
}

#[test]
fn windows_of_several_owners_are_open_only_where_all_are() {
    let secret = [window("0 2 * * *", "4h", "")];
    let one = [window("0 5 * * 6", "3h", ""), window("0 3 * * 0", "1h", "")];
    let other = [window("30 5 * * *", "30m", ""), window("0 1 * * 0", "150m", "")];
    let open = calendar(&[&secret, &one, &[], &other]);
    // Windows on Saturday, 9 May: 02–06, 05–08, 05:30–06. On Sunday: 02–06, 03–04, 01–03:30.
    let first = open.next(utc("2026-05-07T00:00:00Z")).unwrap();
    assert_eq!(text(Some(first)), "2026-05-09T05:30Z 2026-05-09T06:00Z");
    assert_eq!(text(open.next(first.end)), "2026-05-10T03:00Z 2026-05-10T03:30Z");
}

#[test]
fn rare_windows_that_coincide_are_found_among_frequent_ones() {
    let minutely = [window("*/2 * * * *", "1m", "")];
    let leap = [window("1 3 29 2 *", "2m", "Asia/Tokyo")];
    let found = calendar(&[&minutely, &leap]).next(utc("2026-05-07T00:00:00Z"));
    assert_eq!(text(found), "2028-02-28T18:02Z 2028-02-28T18:03Z");
}

#[test]
fn windows_that_never_coincide_are_given_up_on() {
    let even = [window("*/2 * * * *", "1m", "")];
    let odd = [window("1-59/2 * * * *", "1m", "")];
    assert_eq!(calendar(&[&even, &odd]).next(utc("2026-05-07T00:00:00Z")), None);
    let morning = [window("0 3 * * *", "1h", "")];
    let evening = [window("0 15 * * *", "1h", "")];
    assert_eq!(calendar(&[&morning, &evening]).next(utc("2026-05-07T00:00:00Z")), None);
}

#[test]
fn the_ends_of_time_are_no_panic() {
    let windows = [window("* * * * *", "366d", "Pacific/Apia")];
    let calendar = calendar(&[&windows]);
    for at in [utc("9999-12-31T23:59:59Z"), utc("1900-01-01T00:00:00Z"), utc("0001-01-01T00:00:00Z")] {
        let _ = calendar.span_until(at, at);
    }
}
