//! Parsers of input from others, each as a function of bytes. Such a function may refuse the bytes, but must never
//! panic, hang, or read back something else than it wrote. libFuzzer searches for bytes that violate this (`make
//! fuzz`). Bytes that it found, and the first examples, are in `corpus/`, and the other tests parse them too.

use std::hint::black_box;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn::audit::layers::{self, Limits};
use keyturn::audit::{self, Allowances, Fingerprints, image};
use keyturn::deploy::report::Report;
use keyturn::deploy::runner::{self, termination};
use keyturn::deploy::ssh::client_key::ClientKey;
use keyturn::deploy::ssh::known_hosts::KnownHosts;
use keyturn::incident::event;
use keyturn::parameter_store::{description, records};
use keyturn::rotation::window::Calendar;
use keyturn::secret_value::SecretValue;
use keyturn_api::window::Window;

/// A function of bytes, with the name of its folder in `corpus/`.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("known_hosts", known_hosts),
    ("client_key", client_key),
    ("host_lines", host_lines),
    ("image", image),
    ("archive", archive),
    ("cloudtrail_event", cloudtrail_event),
    ("description", description),
    ("record", record),
    ("report", report),
    ("window", window),
    ("duration", duration),
];

/// Parses the `knownHosts` of a DockerHost.
pub fn known_hosts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let known = KnownHosts::parse(&text.lines().collect::<Vec<_>>());
    black_box(known.algorithms("web.example", 22));
    black_box(known.algorithms("::1", 2222));
}

/// Parses the key in a Secret.
pub fn client_key(data: &[u8]) {
    if let Ok(key) = ClientKey::parse(data) {
        assert!(key.fingerprint().starts_with("SHA256:"));
    }
}

/// Parses the answer of a docker host.
pub fn host_lines(data: &[u8]) {
    for line in runner::lines(&String::from_utf8_lossy(data)).into_iter().flatten() {
        assert!(format!("{line:?}").len() < 8192, "a host has no say in how much is shown");
    }
}

/// Parses `docker image inspect` and `docker history`, with a NUL between them.
pub fn image(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (inspect, history) = text.split_once('\0').unwrap_or((&text, ""));
    let read = image::parse(&SecretValue::new(inspect.to_owned()), &SecretValue::new(history.to_owned()));
    if let Ok(image) = read {
        black_box(audit::audit(&image, &Allowances::default(), &Fingerprints::default(), None));
    }
}

/// Parses `docker image save`: a tar of tars, compressed or not.
pub fn archive(data: &[u8]) {
    let limits = Limits { file: 1 << 20, total: 8 << 20, ..Limits::default() };
    let _ = black_box(layers::scan(data, None, limits));
}

/// Parses an event of CloudTrail.
pub fn cloudtrail_event(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(call) = event::read(text) {
        black_box(call.about.covers("/shop/TOKEN"));
    }
}

/// Parses the description of a parameter.
pub fn description(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    black_box(description::parse(text));
}

/// Parses a record or marker below the staging path.
pub fn record(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(read) = records::decode("/keyturn/prod/shop/token/7", &SecretValue::new(text.to_owned()))
        && let Ok(written) = records::encode(&read)
    {
        let again = records::decode("/keyturn/prod/shop/token/7", &written).expect("it was just written");
        let rewritten = records::encode(&again).expect("it was just written");
        assert!(rewritten.expose() == written.expose(), "a record is read as it was written");
    }
}

/// Parses a termination message.
pub fn report(data: &[u8]) {
    if let Ok(report) = serde_json::from_slice::<Report>(data) {
        assert!(termination::message(&report).len() <= termination::LIMIT);
    }
}

/// Parses a maintenance window: schedule, duration and time zone, one per line.
pub fn window(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let window = Window {
        schedule: line(),
        duration: keyturn_api::duration::Duration(line()),
        time_zone: Some(line()).filter(|zone| !zone.is_empty()),
    };
    let Ok(calendar) = Calendar::new([&[window][..]]) else { return };
    let now: DateTime<Utc> = DateTime::UNIX_EPOCH + Duration::from_secs(1_772_323_200);
    if let Some(span) = calendar.next(now) {
        assert!(span.end > now && span.end > span.start, "a window that opens lasts");
    }
}

/// Parses a period, a timeout, or the length of a window.
pub fn duration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(span) = keyturn_api::duration::Duration(text.to_owned()).to_delta() {
        assert!(span > TimeDelta::zero() && span <= TimeDelta::days(9999));
    }
}
