use super::*;
use crate::incident::event::READS;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn call(id: &str, seconds: i64, name: &str) -> Call {
    Call {
        id: id.into(),
        at: at(seconds),
        name: name.into(),
        principal: "arn:aws:iam::1:role/thief".into(),
        session: None,
        address: "203.0.113.9".into(),
        user_agent: "curl".into(),
        answer: Answer::Done,
        about: About::Parameters(vec!["/app/TOKEN".into()]),
    }
}

fn watched() -> Vec<Watched> {
    let folder = "/keyturn/prod/shop/token/".to_owned();
    let (secret, region) = ("token".to_owned(), "us-east-1".to_owned());
    vec![Watched { secret, region, paths: vec!["/app/TOKEN".into()], folder: Some(folder) }]
}

const DELAY: TimeDelta = TimeDelta::seconds(900);

fn answer(status: &mut SecretIncidentStatus, calls: Vec<Call>, last: bool) {
    answer_expecting(status, calls, last, &[]);
}

fn answer_expecting(
    status: &mut SecretIncidentStatus,
    calls: Vec<Call>,
    last: bool,
    expected: &[ExpectedReader],
) {
    let calls: Vec<Option<Call>> = calls.into_iter().map(Some).collect();
    take(status, &calls, last, &watched(), expected, DELAY);
}

fn principal(pattern: &str) -> ExpectedReader {
    ExpectedReader { principal: Some(pattern.to_owned()), networks: Vec::new() }
}

/// Reads these calls, as the answer to a single query, and nothing else.
fn read(status: &mut SecretIncidentStatus, calls: Vec<Call>, expected: &[ExpectedReader]) {
    begin(status, &watched(), at(-10_000), at(0));
    answer_expecting(status, calls, true, expected);
    finish(status);
}

/// Answers every remaining query with an empty page.
fn finish(status: &mut SecretIncidentStatus) -> usize {
    let mut asked = 0;
    while query(status).is_some() {
        answer(status, Vec::new(), true);
        asked += 1;
    }
    asked
}

#[test]
fn a_reading_that_is_taken_up_again_counts_nothing_twice() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    answer(&mut status, vec![call("a", -2000, "GetParameter"), call("b", -3000, "GetParameter")], false);
    // Another process continues with the query in the status: up to and including that second.
    assert_eq!(query(&status).unwrap().to, at(-3000));
    let again = vec![call("c", -3000, "GetParameter"), call("b", -3000, "GetParameter")];
    answer(&mut status, again, true);
    assert_eq!(finish(&mut status), READS.len() + CHANGES.len());
    assert_eq!((status.readers.len(), status.readers[0].count), (1, 3));
    assert_eq!(
        (status.readers[0].first.clone(), status.unexpected_readers),
        (to_kubernetes(at(-3000)), Some(1))
    );
}

#[test]
fn what_may_come_late_is_counted_anew_by_the_next_reading() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    answer(&mut status, vec![call("new", -100, "GetParameter"), call("old", -5000, "GetParameter")], true);
    finish(&mut status);
    assert_eq!((status.readers[0].count, status.readers[0].recent), (2, 1));
    assert_eq!(status.audit.as_ref().unwrap().complete_until, Some(to_kubernetes(at(-900))));
    begin(&mut status, &watched(), at(-10_000), at(3600));
    assert_eq!(query(&status).unwrap().from, at(-899));
    answer(&mut status, vec![call("new", -100, "GetParameter"), call("late", -200, "GetParameter")], true);
    finish(&mut status);
    assert_eq!((status.readers[0].count, status.readers[0].recent), (3, 0));
}

#[test]
fn kms_confirms_a_reader_and_adds_one_that_nothing_else_shows() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    answer(&mut status, vec![call("a", -2000, "GetParameter")], true);
    while query(&status).is_some_and(|query| query.event != DECRYPT) {
        answer(&mut status, Vec::new(), true);
    }
    let by_service = |id: &str, principal: &str| Call {
        address: "AWS Internal".into(),
        user_agent: "AWS Internal".into(),
        principal: principal.into(),
        ..call(id, -2000, DECRYPT)
    };
    let calls =
        vec![by_service("k1", "arn:aws:iam::1:role/thief"), by_service("k2", "arn:aws:iam::1:role/other")];
    answer(&mut status, calls, true);
    let seen: Vec<(&str, i64, usize)> =
        status.readers.iter().map(|r| (r.principal.as_str(), r.count, r.calls.len())).collect();
    assert_eq!(seen, [("arn:aws:iam::1:role/other", 1, 1), ("arn:aws:iam::1:role/thief", 1, 2)]);
}

#[test]
fn refused_reads_and_changes_are_told_apart() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    let refused = Call { answer: Answer::Denied, ..call("a", -2000, "GetParameter") };
    answer(
        &mut status,
        vec![refused, call("b", -2100, "GetParameter"), call("c", -2200, "PutParameter")],
        true,
    );
    finish(&mut status);
    assert_eq!(status.readers.iter().map(|r| r.denied).collect::<Vec<_>>(), [false, true]);
    assert_eq!((status.tampering.len(), status.audit.unwrap().denied), (1, 1));
}

#[test]
fn calls_that_failed_for_whoever_calls_are_no_readers() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    let failed = |id: &str, name: &str| Call { answer: Answer::Failed, ..call(id, -2000, name) };
    answer(&mut status, vec![failed("a", "GetParameter"), failed("b", "PutParameter")], true);
    finish(&mut status);
    assert_eq!((status.readers.len(), status.tampering.len(), status.unexpected_readers), (0, 0, Some(0)));
    let audit = status.audit.unwrap();
    assert_eq!((audit.events, audit.denied), (2, 0));
}

#[test]
fn sessions_of_a_role_are_named_beside_it() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    let by = |id: String, name: &str, session: &str| Call {
        session: Some(session.into()),
        ..call(&id, -2000, name)
    };
    let read = |session: &str| by(format!("read-{session}"), "GetParameter", session);
    answer(&mut status, vec![read("ada@example.com"), read("i-0abc"), read("ada@example.com")], true);
    while query(&status).is_some_and(|query| query.event != DECRYPT) {
        answer(&mut status, Vec::new(), true);
    }
    let decrypt = |session: &str| Call {
        address: "AWS Internal".into(),
        ..by(format!("kms-{session}"), DECRYPT, session)
    };
    answer(&mut status, vec![decrypt("i-0abc"), decrypt("eve@example.com")], true);
    let mut seen: Vec<(Vec<&str>, usize)> = Vec::new();
    for reader in &status.readers {
        seen.push((reader.sessions.iter().map(String::as_str).collect(), reader.calls.len()));
    }
    assert_eq!(seen, [(vec!["ada@example.com", "i-0abc"], 2), (vec!["eve@example.com"], 1)]);
}

#[test]
fn that_more_sessions_were_found_than_are_named_is_said() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    let by =
        |n: usize| Call { session: Some(format!("s{n}")), ..call(&format!("{n}"), -2000, "GetParameter") };
    answer(&mut status, (0..=MAX_SESSIONS).map(by).collect(), true);
    finish(&mut status);
    assert_eq!((status.readers.len(), status.readers[0].sessions.len()), (1, MAX_SESSIONS));
    assert_eq!(status.readers[0].count, 21);
    assert!(status.audit.unwrap().gaps[0].contains("more than 20 sessions"));
}

#[test]
fn a_session_that_nobody_expects_does_not_hide_behind_one_that_is_expected() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    let by =
        |id: &str, session: &str| Call { session: Some(session.into()), ..call(id, -2000, "GetParameter") };
    let expected = [principal("arn:aws:sts::1:assumed-role/thief/ada")];
    answer_expecting(&mut status, vec![by("a", "ada"), by("b", "eve")], true, &expected);
    finish(&mut status);
    assert_eq!(status.readers.iter().map(|r| r.expected).collect::<Vec<_>>(), [false, true]);
    assert_eq!(status.unexpected_readers, Some(1));
}

fn by(id: &str, role: &str, seconds: i64) -> Call {
    Call { principal: format!("arn:aws:iam::1:role/{role}"), ..call(id, seconds, "GetParameter") }
}

/// Three hundred calls that are meant to flood the lists, with principals, addresses and clients that nobody
/// can foresee.
fn flood(answer: Answer) -> Vec<Call> {
    let one = |n: i64| Call {
        answer,
        address: format!("198.51.100.{}", n % 250),
        user_agent: format!("agent {n}"),
        ..by(&format!("flood-{n}"), &format!("noise-{n}"), -1000 - n)
    };
    (0..300).map(one).collect()
}

fn of_role<'a>(status: &'a SecretIncidentStatus, role: &str) -> Option<&'a Reader> {
    status.readers.iter().find(|reader| reader.principal.ends_with(&format!("/{role}")))
}

#[test]
fn neither_refused_nor_expected_reads_push_out_one_that_nobody_expected() {
    let expected = [principal("*/noise-*")];
    for (kind, flood, expected) in [
        ("RefusedReads", flood(Answer::Denied), &[][..]),
        ("ExpectedReads", flood(Answer::Done), &expected[..]),
    ] {
        let mut status = SecretIncidentStatus::default();
        let calls = [flood, vec![by("theft", "quiet", -9000)]].concat();
        read(&mut status, calls, expected);
        let first = &status.readers[0];
        assert!(first.principal.ends_with("/quiet") && !first.expected && !first.denied, "{first:?}");
        assert_eq!(status.readers.len(), 21);
        let not_shown = &status.audit.as_ref().unwrap().not_shown;
        assert_eq!((not_shown[0].kind.as_str(), not_shown[0].calls, not_shown.len()), (kind, 280, 1));
    }
}

#[test]
fn whoever_was_found_keeps_his_place_while_late_events_are_counted_anew() {
    let mut status = SecretIncidentStatus::default();
    read(&mut status, vec![by("theft", "quiet", -800)], &[]);
    begin(&mut status, &watched(), at(-10_000), at(3600));
    assert_eq!(of_role(&status, "quiet").map(|reader| reader.count), Some(0));
    let younger = |call: Call| Call { at: call.at + TimeDelta::seconds(2000), ..call };
    let mut newest_first: Vec<Call> = flood(Answer::Done).into_iter().map(younger).collect();
    newest_first.push(by("theft", "quiet", -800));
    answer(&mut status, newest_first, true);
    finish(&mut status);
    assert_eq!(of_role(&status, "quiet").map(|reader| reader.count), Some(1));
    assert_eq!(status.readers.len(), 60);
}

#[test]
fn a_principal_with_many_addresses_leaves_room_for_others() {
    let mut status = SecretIncidentStatus::default();
    let from = |n: i64| Call { address: format!("2001:db8::{n:x}"), ..by(&n.to_string(), "loud", -1000 - n) };
    let calls = [(0..200).map(from).collect(), vec![by("theft", "quiet", -9000)]].concat();
    read(&mut status, calls, &[]);
    assert_eq!((status.readers.len(), of_role(&status, "quiet").is_some()), (16, true));
    let text = said(&status, DELAY);
    let expected = "16 unexpected readers from ";
    assert!(text.starts_with(expected), "{text}");
    assert!(
        text.contains("Not listed here: 185 unexpected reads by others; `keyturn incident report`"),
        "{text}"
    );
}

#[test]
fn clients_that_a_caller_makes_up_are_one_reader() {
    let mut status = SecretIncidentStatus::default();
    let with =
        |n: i64, seconds| Call { user_agent: format!("agent {n}"), ..by(&format!("{n}"), "loud", seconds) };
    let calls = (0..50).map(|n| with(n, -10 - n)).chain((50..120).map(|n| with(n, -5000 - n))).collect();
    read(&mut status, calls, &[]);
    let reader = &status.readers[0];
    assert_eq!((status.readers.len(), reader.user_agents.len(), reader.count), (1, 4, 120));
    assert_eq!((reader.by_other_agents, reader.recent_by_other_agents), (116, 46));
    begin(&mut status, &watched(), at(-10_000), at(0));
    assert_eq!((status.readers[0].count, status.readers[0].by_other_agents), (70, 70));
}

#[test]
fn a_status_holds_no_more_than_the_schema_takes_whatever_is_found() {
    let mut status = SecretIncidentStatus::default();
    let expected = [principal("*/noise-1*")];
    read(&mut status, [flood(Answer::Denied), flood(Answer::Done)].concat(), &expected);
    begin(&mut status, &watched(), at(-10_000), at(0));
    let again = |call: Call| Call { id: format!("again {}", call.id), name: "GetParameters".into(), ..call };
    let both = flood(Answer::Done).into_iter().chain(flood(Answer::Denied)).map(again).collect();
    answer_expecting(&mut status, both, true, &expected);
    reconsider(&mut status, &[]);
    assert!(status.readers.len() <= 100, "{}", status.readers.len());
    reconsider(&mut status, &[principal("*")]);
    assert_eq!(status.readers.iter().filter(|reader| !reader.denied).count(), 20);
}

#[test]
fn the_stolen_role_of_a_host_is_unexpected_where_the_host_is_not() {
    let networks = vec!["10.0.0.0/8".to_owned()];
    let expected = [ExpectedReader { networks, ..principal("arn:aws:iam::1:role/web") }];
    let mut status = SecretIncidentStatus::default();
    let host = Call { address: "10.1.2.3".into(), ..by("host", "web", -2000) };
    let decrypt =
        Call { address: "ssm.amazonaws.com".into(), name: DECRYPT.into(), ..by("kms", "web", -2000) };
    read(&mut status, vec![by("theft", "web", -1000), host, decrypt], &expected);
    let seen: Vec<_> =
        status.readers.iter().map(|r| (r.address.as_str(), r.expected, r.address_is)).collect();
    assert_eq!(
        seen,
        [("203.0.113.9", false, Some(AddressIs::NotListed)), ("10.1.2.3", true, Some(AddressIs::Listed))]
    );
    let text = said(&status, DELAY);
    assert!(text.contains(", 1 of them are expected principals at an address that is not listed"), "{text}");
}

#[test]
fn a_value_that_somebody_decrypts_himself_is_not_told_as_the_hosts_own() {
    let mut status = SecretIncidentStatus::default();
    let host = Call { address: "10.1.2.3".into(), ..by("host", "web", -2000) };
    read(&mut status, vec![Call { name: DECRYPT.into(), ..by("theft", "web", -1000) }, host], &[]);
    let seen: Vec<_> = status.readers.iter().map(|r| (r.address.as_str(), r.count)).collect();
    assert_eq!(seen, [("10.1.2.3", 1), ("203.0.113.9", 1)]);
}

#[test]
fn an_address_that_an_expected_principal_did_not_use_before_the_suspicion_is_marked() {
    let mut status = SecretIncidentStatus::default();
    let expected = [principal("*/web")];
    let from = |id: &str, address: &str, seconds| Call { address: address.into(), ..by(id, "web", seconds) };
    begin(&mut status, &watched(), at(-10_000), at(0));
    let calls = vec![from("a", "10.1.2.3", -1000), from("b", "10.1.2.4", -1001), by("theft", "web", -1002)];
    answer_expecting(&mut status, calls, true, &expected);
    while query(&status).is_some_and(|query| query.event != READS[0]) {
        answer(&mut status, Vec::new(), true);
    }
    let asked = query(&status).expect("the week before is read");
    assert_eq!((asked.from, asked.to), (at(-10_000) - TimeDelta::days(7), at(-10_001)));
    assert!(status.audit.as_ref().unwrap().complete_until.is_some(), "nobody waits for it");
    let about_another = About::Parameters(vec!["/other".into()]);
    answer(&mut status, vec![Call { about: about_another, ..from("c", "10.1.2.3", -20_000) }], false);
    let refused = Call { answer: Answer::Denied, ..by("tried", "web", -21_000) };
    answer(&mut status, vec![refused, from("d", "10.1.2.4", -22_000)], true);
    assert_eq!(finish(&mut status), READS.len() - 1);
    let seen: Vec<_> = status.readers.iter().map(|r| (r.address.as_str(), r.address_is, r.count)).collect();
    assert_eq!(
        seen,
        [
            ("203.0.113.9", Some(AddressIs::New), 1),
            ("10.1.2.3", Some(AddressIs::Known), 1),
            ("10.1.2.4", Some(AddressIs::Known), 1),
        ]
    );
    let text = said(&status, DELAY);
    assert!(
        text.contains(", 1 expected readers at an address that they did not use in the week before"),
        "{text}"
    );
}

#[test]
fn the_week_before_is_read_no_further_than_to_the_last_address_that_is_looked_for() {
    let mut status = SecretIncidentStatus::default();
    let expected = [principal("*/thief")];
    begin(&mut status, &watched(), at(-10_000), at(0));
    answer_expecting(&mut status, vec![call("a", -1000, "GetParameter")], true, &expected);
    while query(&status).is_some_and(|query| query.event != READS[0]) {
        answer(&mut status, Vec::new(), true);
    }
    answer(&mut status, vec![call("b", -20_000, "GetParameter")], false);
    assert_eq!(query(&status), None);
    assert_eq!(status.readers[0].address_is, Some(AddressIs::Known));
}

#[test]
fn whoever_is_listed_is_judged_by_the_list_as_it_is_now() {
    let mut status = SecretIncidentStatus::default();
    let with = |id: &str, session: &str| Call { session: Some(session.into()), ..by(id, "ci", -2000) };
    read(&mut status, vec![with("a", "ada"), with("b", "eve"), by("c", "web", -2000)], &[]);
    assert_eq!(status.unexpected_readers, Some(2));
    reconsider(&mut status, &[principal("*/web"), principal("arn:aws:sts::1:assumed-role/ci/ada")]);
    assert_eq!(status.unexpected_readers, Some(1), "one of its sessions is still nobody's");
    reconsider(&mut status, &[principal("*/web"), principal("arn:aws:sts::1:assumed-role/ci/*")]);
    assert_eq!(status.unexpected_readers, Some(0));
}

/// Counts the readings in one day of an incident, when each reading finds these calls.
fn readings_of_a_day(responding: bool, found: impl Fn(i64) -> Vec<Call>) -> i64 {
    let mut status = SecretIncidentStatus::default();
    let (mut now, mut readings) = (at(0), 0);
    while now < at(86_400) {
        begin(&mut status, &watched(), at(-10_000), now);
        answer(&mut status, found((now - at(0)).num_seconds()), true);
        finish(&mut status);
        readings += 1;
        now = next_reading(status.audit.as_mut().unwrap(), responding, DELAY, now);
    }
    readings
}

#[test]
fn an_incident_that_stays_open_reads_the_trail_less_and_less_often() {
    let known = |now: i64| vec![call(&format!("{now}"), now - 1, "GetParameter")];
    let always_new = |now: i64| vec![by(&format!("{now}"), &format!("role-{}", now / 300 % 10_000), now - 1)];
    assert_eq!(readings_of_a_day(true, |_| Vec::new()), 288);
    assert_eq!(readings_of_a_day(false, |_| Vec::new()), 26);
    assert_eq!(readings_of_a_day(false, known), 27);
    assert_eq!(readings_of_a_day(false, always_new), 288);
}

#[test]
fn an_empty_answer_never_says_that_nobody_read_it() {
    let mut status = SecretIncidentStatus::default();
    begin(&mut status, &watched(), at(-10_000), at(0));
    finish(&mut status);
    let text = said(&status, DELAY);
    assert!(text.starts_with("0 unexpected readers from ") && text.contains("late"), "{text}");
}
