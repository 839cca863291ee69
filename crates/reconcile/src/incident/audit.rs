//! The search in CloudTrail: what is asked for, how far it has come, and who was found. Pure: every answer is put in.
//!
//! Everything that a later pass or another leader needs lies in the incident's status. Events younger than CloudTrail's
//! delay are counted as `recent` and counted anew by the next reading, so that none is missed or counted twice.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::secret_incident::{AuditStatus, Reader, ReadingStatus, SecretIncidentStatus};
use keyturn_api::time::{from_kubernetes, to_kubernetes, to_text};

use super::event::{Answer, CHANGES, Call, DECRYPT, READS};

/// CloudTrail's LookupEvents answers nothing older.
pub const KEPT: TimeDelta = TimeDelta::days(90);
/// Most readers that a status lists.
const MAX_READERS: usize = 100;
const MAX_SECRETS: usize = 20;
const MAX_SESSIONS: usize = 20;
const MAX_SEEN: usize = 500;
const MAX_AGENT: usize = 128;
/// Path of the roles that IAM Identity Center makes; a region follows where it is not in us-east-1.
const SSO_PATH: &str = "aws-reserved/sso.amazonaws.com/";

/// One suspected secret, as CloudTrail knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub secret: String,
    pub region: String,
    pub paths: Vec<String>,
    /// Where the records of its rotations lie, with its closing slash.
    pub folder: String,
}

/// What is asked of CloudTrail next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub region: String,
    pub event: String,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

/// Every region and event name, in the order in which they are asked.
fn queries(watched: &[Watched]) -> Vec<(String, &'static str)> {
    let mut regions: Vec<&str> = watched.iter().map(|w| w.region.as_str()).collect();
    regions.sort_unstable();
    regions.dedup();
    let names = || READS.into_iter().chain(CHANGES).chain([DECRYPT]);
    regions.iter().flat_map(|region| names().map(|name| ((*region).to_owned(), name))).collect()
}

fn key(query: &(String, &'static str)) -> String {
    format!("{} {}", query.0, query.1)
}

/// Begins a reading: from the start, or from where the last one is complete.
pub fn begin(
    status: &mut SecretIncidentStatus,
    watched: &[Watched],
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) {
    let audit = status.audit.get_or_insert_default();
    let from = match audit.complete_until.as_ref().map(from_kubernetes) {
        Some(until) => until + TimeDelta::seconds(1),
        None => {
            audit.since = Some(to_kubernetes(since));
            audit.gaps.retain(|_| false);
            since
        }
    };
    let Some(first) = queries(watched).first().map(key) else { return };
    for readers in [&mut status.readers, &mut status.tampering] {
        for reader in readers.iter_mut() {
            reader.count -= std::mem::take(&mut reader.recent);
        }
        readers.retain(|reader| reader.count > 0);
    }
    let to = now.timestamp();
    let reading = ReadingStatus { from: from.timestamp(), to, query: first, down_to: to, seen: Vec::new() };
    audit.reading = Some(reading);
}

/// What the reading under way asks for; `None` where there is none.
pub fn query(status: &SecretIncidentStatus) -> Option<Query> {
    let reading = status.audit.as_ref()?.reading.as_ref()?;
    let (region, event) = reading.query.split_once(' ')?;
    let at = |seconds| DateTime::from_timestamp(seconds, 0);
    Some(Query {
        region: region.to_owned(),
        event: event.to_owned(),
        from: at(reading.from)?,
        to: at(reading.down_to)?,
    })
}

/// Takes one page of answers, the latest first. `last` says that no page follows.
pub fn take(
    status: &mut SecretIncidentStatus,
    calls: &[Option<Call>],
    last: bool,
    watched: &[Watched],
    expected: &[String],
    delay: TimeDelta,
) {
    let Some(mut reading) = status.audit.as_mut().and_then(|audit| audit.reading.take()) else { return };
    for call in calls {
        let audit = status.audit.get_or_insert_default();
        let Some(call) = call else {
            audit.unattributed += 1;
            continue;
        };
        let at = call.at.timestamp();
        if at > reading.down_to || reading.seen.contains(&call.id) {
            continue;
        }
        if at < reading.down_to {
            reading.down_to = at;
            reading.seen.clear();
        }
        if reading.seen.len() < MAX_SEEN {
            reading.seen.push(call.id.clone());
        }
        let recent = at > reading.to - delay.num_seconds();
        count(status, call, recent, watched, expected);
    }
    if !last {
        status.audit.get_or_insert_default().reading = Some(reading);
        return;
    }
    let all = queries(watched);
    let next = all.iter().position(|query| key(query) == reading.query).and_then(|at| all.get(at + 1));
    let audit = status.audit.get_or_insert_default();
    if let Some(next) = next {
        reading.query = key(next);
        reading.down_to = reading.to;
        reading.seen.clear();
        audit.reading = Some(reading);
        return;
    }
    let until = DateTime::from_timestamp(reading.to, 0).unwrap_or_default() - delay;
    let since = audit.since.as_ref().map_or(until, from_kubernetes);
    audit.complete_until = Some(to_kubernetes(until.max(since)));
    audit.failures = None;
    sort(&mut status.readers);
    sort(&mut status.tampering);
    let unexpected = status.readers.iter().filter(|reader| !reader.expected).count();
    status.unexpected_readers = i64::try_from(unexpected).ok();
}

fn sort(readers: &mut [Reader]) {
    readers.sort_by(|a, b| {
        (a.expected, a.denied, &a.principal, &a.address).cmp(&(
            b.expected,
            b.denied,
            &b.principal,
            &b.address,
        ))
    });
}

fn count(
    status: &mut SecretIncidentStatus,
    call: &Call,
    recent: bool,
    watched: &[Watched],
    expected: &[String],
) {
    let audit = status.audit.get_or_insert_default();
    if !recent {
        audit.events += 1;
    }
    let changes = CHANGES.contains(&call.name.as_str());
    let concerned: Vec<&str> = watched
        .iter()
        .filter(|w| {
            w.paths.iter().any(|path| call.about.covers(path)) || !changes && call.about.touches(&w.folder)
        })
        .map(|w| w.secret.as_str())
        .collect();
    if call.about == super::event::About::Unknown && call.name != DECRYPT && !recent {
        audit.unattributed += 1;
    }
    // What failed for whoever calls has shown nobody anything.
    if concerned.is_empty() || call.answer == Answer::Failed {
        return;
    }
    let caller = caller(call, expected);
    if caller.denied && !recent {
        audit.denied += 1;
    }
    let readers = if changes { &mut status.tampering } else { &mut status.readers };
    // KMS sees Parameter Store call, not the reader's address: it confirms what was found, and adds who was not.
    let found = readers.iter().position(|reader| is_call_of(reader, call, &caller));
    let reader = match found {
        Some(at) => &mut readers[at],
        None if readers.len() >= MAX_READERS => {
            note(audit, format!("more than {MAX_READERS} readers were found; only the first are listed"));
            return;
        }
        None => {
            readers.push(caller);
            let at = readers.len() - 1;
            &mut readers[at]
        }
    };
    if call.name != DECRYPT || found.is_none() || reader.calls == [DECRYPT] {
        reader.count += 1;
        reader.recent += i64::from(recent);
    }
    if !reader.calls.contains(&call.name) {
        reader.calls.push(call.name.clone());
    }
    if let Some(session) = call.session.as_ref().filter(|session| !reader.sessions.contains(session)) {
        if reader.sessions.len() < MAX_SESSIONS {
            reader.sessions.push(session.clone());
        } else {
            note(
                audit,
                format!("more than {MAX_SESSIONS} sessions of a role were found; only the first are named"),
            );
        }
    }
    reader.first = to_kubernetes(from_kubernetes(&reader.first).min(call.at));
    reader.last = to_kubernetes(from_kubernetes(&reader.last).max(call.at));
    for secret in concerned {
        if reader.secrets.len() < MAX_SECRETS && !reader.secrets.iter().any(|known| known == secret) {
            reader.secrets.push(secret.to_owned());
        }
    }
}

/// A reader who has called nothing yet.
fn caller(call: &Call, expected: &[String]) -> Reader {
    Reader {
        principal: call.principal.clone(),
        sessions: Vec::new(),
        address: call.address.clone(),
        user_agent: call.user_agent.chars().filter(|c| !c.is_control()).take(MAX_AGENT).collect(),
        expected: is_expected(call, expected),
        denied: call.answer == Answer::Denied,
        calls: Vec::new(),
        count: 0,
        recent: 0,
        first: to_kubernetes(call.at),
        last: to_kubernetes(call.at),
        secrets: Vec::new(),
    }
}

fn is_call_of(reader: &Reader, call: &Call, caller: &Reader) -> bool {
    let from_the_same_place = reader.address == caller.address
        && reader.user_agent == caller.user_agent
        && reader.expected == caller.expected;
    let same = if call.name == DECRYPT { may_be_session_of(reader, call) } else { from_the_same_place };
    reader.principal == caller.principal && reader.denied == caller.denied && same
}

fn note(audit: &mut AuditStatus, gap: String) {
    if !audit.gaps.contains(&gap) {
        audit.gaps.push(gap);
    }
}

/// Whether the session of a call is among those of a reader, as far as both are known.
fn may_be_session_of(reader: &Reader, call: &Call) -> bool {
    let Some(session) = &call.session else { return true };
    let unknown = reader.sessions.is_empty() || reader.sessions.len() >= MAX_SESSIONS;
    unknown || reader.sessions.contains(session)
}

fn is_expected(call: &Call, expected: &[String]) -> bool {
    let names = names(call);
    expected.iter().any(|pattern| {
        if pattern.starts_with("arn:") {
            names.iter().any(|name| matches(pattern, name))
        } else {
            call.address.parse().is_ok_and(|address| in_network(pattern, address))
        }
    })
}

/// The ARNs under which people know a caller: CloudTrail's own, which has the role's or user's path; without the path, since
/// a name occurs once in an account; of a role of IAM Identity Center without the region in that path; and the session's, as
/// `aws sts get-caller-identity` prints it.
fn names(call: &Call) -> Vec<String> {
    let mut names = vec![call.principal.clone()];
    let mut fields = call.principal.splitn(6, ':');
    let (Some("arn"), Some(partition), Some(service), Some(_), Some(account), Some(resource)) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return names;
    };
    let Some((kind, path)) = resource.split_once('/') else { return names };
    let iam = |resource: String| format!("arn:{partition}:iam::{account}:{resource}");
    let sts = |resource: String| format!("arn:{partition}:sts::{account}:{resource}");
    let name = path.rsplit('/').next().unwrap_or(path);
    match (service, kind) {
        ("iam", "role") => {
            names.push(iam(format!("role/{name}")));
            if path.starts_with(SSO_PATH) {
                names.push(iam(format!("role/{SSO_PATH}{name}")));
            }
            names.push(sts(format!("assumed-role/{name}")));
            names.extend(call.session.iter().map(|session| sts(format!("assumed-role/{name}/{session}"))));
        }
        ("iam", "user") => {
            names.push(iam(format!("user/{name}")));
            names.extend(call.session.iter().map(|session| sts(format!("federated-user/{session}"))));
        }
        // The event does not say who issued the session.
        ("sts", "assumed-role") => {
            let role = path.split('/').next().unwrap_or(path);
            names.push(sts(format!("assumed-role/{role}")));
            names.push(iam(format!("role/{role}")));
        }
        _ => {}
    }
    names
}

/// `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn in_network(network: &str, address: IpAddr) -> bool {
    let (base, length) = match network.split_once('/') {
        Some((base, length)) => (base, length.parse::<u32>().ok()),
        None => (network, Some(128)),
    };
    let (Ok(base), Some(length)) = (base.parse::<IpAddr>(), length) else { return false };
    let same = |a: u128, b: u128, bits: u32| {
        let length = length.min(bits);
        length == 0 || (a ^ b) >> (bits - length) == 0
    };
    match (base, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

/// What a person may take from the search: never that nobody read anything.
pub fn said(audit: &AuditStatus, unexpected: i64, delay: TimeDelta) -> String {
    let Some(until) = audit.complete_until.as_ref().map(|at| to_text(from_kubernetes(at))) else {
        return match audit.gaps.first() {
            Some(gap) => format!("CloudTrail was not read to the end yet: {gap}"),
            None => "CloudTrail is being read".to_owned(),
        };
    };
    let since = audit.since.as_ref().map(|at| to_text(from_kubernetes(at))).unwrap_or_default();
    let gaps = if audit.gaps.is_empty() { String::new() } else { format!(". {}", audit.gaps.join(". ")) };
    let unattributed = match audit.unattributed {
        0 => String::new(),
        count => format!(". {count} events do not say which parameter they are about"),
    };
    format!(
        "{unexpected} unexpected readers from {since} to {until}; CloudTrail shows events up to {} minutes late, and \
         management events of these regions only{gaps}{unattributed}",
        delay.num_minutes()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::event::About;

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
        vec![Watched { secret, region, paths: vec!["/app/TOKEN".into()], folder }]
    }

    const DELAY: TimeDelta = TimeDelta::seconds(900);

    fn answer(status: &mut SecretIncidentStatus, calls: Vec<Call>, last: bool) {
        let calls: Vec<Option<Call>> = calls.into_iter().map(Some).collect();
        take(status, &calls, last, &watched(), &[], DELAY);
    }

    /// Answers nothing to whatever is still asked.
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
        // Another process asks again from where the status says: up to and including that second.
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
        answer(
            &mut status,
            vec![call("new", -100, "GetParameter"), call("old", -5000, "GetParameter")],
            true,
        );
        finish(&mut status);
        assert_eq!((status.readers[0].count, status.readers[0].recent), (2, 1));
        assert_eq!(status.audit.as_ref().unwrap().complete_until, Some(to_kubernetes(at(-900))));
        begin(&mut status, &watched(), at(-10_000), at(3600));
        assert_eq!(query(&status).unwrap().from, at(-899));
        answer(
            &mut status,
            vec![call("new", -100, "GetParameter"), call("late", -200, "GetParameter")],
            true,
        );
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
        let calls = vec![
            by_service("k1", "arn:aws:iam::1:role/thief"),
            by_service("k2", "arn:aws:iam::1:role/other"),
        ];
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
        assert_eq!(
            (status.readers.len(), status.tampering.len(), status.unexpected_readers),
            (0, 0, Some(0))
        );
        let audit = status.audit.unwrap();
        assert_eq!((audit.events, audit.denied), (2, 0));
    }

    #[test]
    fn readers_are_expected_by_pattern_or_network() {
        let known = |pattern: &str| is_expected(&call("a", 0, "GetParameter"), &[pattern.to_owned()]);
        for pattern in
            ["arn:aws:iam::1:role/thief", "arn:aws:iam::*:role/th*", "arn:*", "203.0.113.9", "203.0.113.0/24"]
        {
            assert!(known(pattern), "{pattern}");
        }
        for pattern in
            ["arn:aws:iam::1:role/thie", "arn:aws:iam::2:*", "203.0.113.8", "10.0.0.0/8", "2001:db8::/32"]
        {
            assert!(!known(pattern), "{pattern}");
        }
    }

    #[test]
    fn a_reader_is_expected_by_any_arn_that_people_know_it_by() {
        let sso = "AWSReservedSSO_Admin_0123456789abcdef";
        let caller = |principal: String, session: Option<&str>| Call {
            principal,
            session: session.map(str::to_owned),
            ..call("a", 0, "GetParameter")
        };
        let role = caller("arn:aws:iam::1:role/service-role/ci".to_owned(), Some("i-0abc"));
        let person =
            caller(format!("arn:aws:iam::1:role/{SSO_PATH}eu-west-1/{sso}"), Some("ada@example.com"));
        let user = caller("arn:aws:iam::1:user/people/ada".to_owned(), Some("ada"));
        let unissued = caller("arn:aws:sts::1:assumed-role/ci/i-0abc".to_owned(), Some("i-0abc"));
        for (caller, pattern) in [
            (&role, "arn:aws:iam::1:role/service-role/ci".to_owned()),
            (&role, "arn:aws:iam::1:role/ci".to_owned()),
            (&role, "arn:aws:sts::1:assumed-role/ci/*".to_owned()),
            (&role, "arn:aws:sts::1:assumed-role/ci/i-0abc".to_owned()),
            (&role, "arn:aws:sts::1:assumed-role/ci".to_owned()),
            (&person, format!("arn:aws:iam::1:role/{sso}")),
            (&person, format!("arn:aws:iam::1:role/{SSO_PATH}{sso}")),
            (&person, format!("arn:aws:sts::1:assumed-role/{sso}/ada@example.com")),
            (&user, "arn:aws:iam::1:user/ada".to_owned()),
            (&user, "arn:aws:sts::1:federated-user/ada".to_owned()),
            (&unissued, "arn:aws:iam::1:role/ci".to_owned()),
            (&unissued, "arn:aws:sts::1:assumed-role/ci/*".to_owned()),
        ] {
            assert!(is_expected(caller, std::slice::from_ref(&pattern)), "{pattern}");
        }
        for (caller, pattern) in [
            (&role, "arn:aws:iam::1:role/other/ci"),
            (&role, "arn:aws:sts::1:assumed-role/ci/i-0abd"),
            (&role, "arn:aws:sts::2:assumed-role/ci/*"),
            (&role, "arn:aws:iam::1:user/ci"),
            (&person, "arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin_0123456789abcdef/eve@example.com"),
            (&user, "arn:aws:iam::1:role/ada"),
        ] {
            assert!(!is_expected(caller, &[pattern.to_owned()]), "{pattern}");
        }
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
        let by = |n: usize| Call {
            session: Some(format!("s{n}")),
            ..call(&format!("{n}"), -2000, "GetParameter")
        };
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
        let by = |id: &str, session: &str| {
            Some(Call { session: Some(session.into()), ..call(id, -2000, "GetParameter") })
        };
        let expected = ["arn:aws:sts::1:assumed-role/thief/ada".to_owned()];
        take(&mut status, &[by("a", "ada"), by("b", "eve")], true, &watched(), &expected, DELAY);
        finish(&mut status);
        assert_eq!(status.readers.iter().map(|r| r.expected).collect::<Vec<_>>(), [false, true]);
        assert_eq!(status.unexpected_readers, Some(1));
    }

    #[test]
    fn an_empty_answer_never_says_that_nobody_read_it() {
        let mut status = SecretIncidentStatus::default();
        begin(&mut status, &watched(), at(-10_000), at(0));
        finish(&mut status);
        let text = said(status.audit.as_ref().unwrap(), 0, DELAY);
        assert!(text.starts_with("0 unexpected readers from ") && text.contains("late"), "{text}");
    }
}
