//! The CloudTrail search of an incident, as its status holds it: the progress, and the callers that were found. The
//! functions are pure: the caller passes in every answer.
//!
//! Everything that a later pass, or another replica of the controller, needs is in the incident's status. Events
//! younger than CloudTrail's delay are counted as `recent`. The next reading counts them again, so that none is missed
//! or counted twice.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::SecretIncident;
use keyturn_api::readers::ExpectedReader;
use keyturn_api::secret_incident::{AddressIs, AuditStatus, Reader, SecretIncidentStatus};
use keyturn_api::time::{from_kubernetes, to_kubernetes, to_text};

use super::event::{About, Answer, CHANGES, Call, DECRYPT};
use super::readers::{self, MAX_SECRETS, MAX_SESSIONS};
use super::reading::{self, KEPT, Query, Watched, concerned};
use super::scope;
use crate::settings::doubling;

/// The longest pause between two readings of an incident that stays open.
const LONGEST_PAUSE: TimeDelta = TimeDelta::hours(1);

/// Start of the search, at most as far back as CloudTrail keeps events.
pub fn since(incident: &SecretIncident, status: &SecretIncidentStatus, now: DateTime<Utc>) -> DateTime<Utc> {
    let made =
        status.secrets.iter().filter_map(|s| s.suspected_value_from.as_ref().map(from_kubernetes)).min();
    let said = incident.spec.suspected_since.as_ref().map(from_kubernetes);
    said.or(made).unwrap_or(scope::reported_at(incident) - KEPT).max(now - KEPT)
}

/// Begins a reading: from the start of the search, or from the time up to which the last reading is complete.
pub fn begin(
    status: &mut SecretIncidentStatus,
    watched: &[Watched],
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) {
    let audit = status.audit.get_or_insert_default();
    let complete_until = audit.complete_until.as_ref().map(from_kubernetes);
    let from = complete_until.map_or(since, |until| until + TimeDelta::seconds(1));
    let Some(mut reading) = reading::start(watched, from, now, false) else { return };
    if complete_until.is_none() {
        audit.since = Some(to_kubernetes(since));
        audit.gaps.clear();
        (audit.events, audit.denied, audit.unattributed) = (0, 0, 0);
    }
    // Callers that an earlier reading found keep their places in the lists, even if this reading finds many other
    // callers first.
    readers::recount(status, complete_until.is_none());
    reading.listed = listed(status);
    status.audit.get_or_insert_default().reading = Some(reading);
}

/// Returns the query of the reading under way; `None` if there is none.
pub fn query(status: &SecretIncidentStatus) -> Option<Query> {
    reading::query(status.audit.as_ref()?.reading.as_ref()?)
}

/// Processes one page of events, the latest first. `last` is true if no page follows.
pub fn take(
    status: &mut SecretIncidentStatus,
    calls: &[Option<Call>],
    last: bool,
    watched: &[Watched],
    expected: &[ExpectedReader],
    delay: TimeDelta,
) {
    let Some(mut reading) = status.audit.as_mut().and_then(|audit| audit.reading.take()) else { return };
    for call in calls {
        let Some(call) = call else {
            status.audit.get_or_insert_default().unattributed += i64::from(!reading.before);
            continue;
        };
        if !reading::is_fresh(&mut reading, call) {
            continue;
        }
        if reading.before {
            readers::known_address(&mut status.readers, call);
        } else {
            let recent = call.at.timestamp() > reading.to - delay.num_seconds();
            count(status, call, recent, watched, expected);
        }
    }
    let (before, listed_then, to) = (reading.before, reading.listed, reading.to);
    let open = before && readers::address_is_open(&status.readers);
    let going_on = match last {
        _ if before && !open => None,
        true => reading::next(reading, watched),
        false => Some(reading),
    };
    let over = going_on.is_none();
    status.audit.get_or_insert_default().reading = going_on;
    if over && before {
        readers::new_addresses(&mut status.readers);
    } else if over {
        complete(status, to, listed_then, watched, delay);
    }
    readers::sort(status);
}

/// Ends a reading of the search. If the lists do not decide about the address of an expected principal, a reading of
/// the time before the search follows.
fn complete(
    status: &mut SecretIncidentStatus,
    to: i64,
    listed_then: i64,
    watched: &[Watched],
    delay: TimeDelta,
) {
    let found = listed(status) > listed_then;
    let open = readers::address_is_open(&status.readers);
    let audit = status.audit.get_or_insert_default();
    let until = DateTime::from_timestamp(to, 0).unwrap_or_default() - delay;
    let since = audit.since.as_ref().map_or(until, from_kubernetes);
    audit.complete_until = Some(to_kubernetes(until.max(since)));
    audit.failures = None;
    audit.quiet_readings = (!found).then(|| audit.quiet_readings.unwrap_or(0).saturating_add(1));
    if open {
        audit.reading = reading::before(watched, since, DateTime::from_timestamp(to, 0).unwrap_or_default());
    }
    status.unexpected_readers = Some(unexpected(status));
}

/// Counts the listed callers, and the calls of unexpected callers that are not listed. A higher number means that a new
/// caller was found.
fn listed(status: &SecretIncidentStatus) -> i64 {
    let lists = status.readers.len() + status.tampering.len();
    let not_shown = status.audit.iter().flat_map(|audit| &audit.not_shown);
    let others = not_shown.filter(|one| one.kind.starts_with("Unexpected")).map(|one| one.calls);
    i64::try_from(lists).unwrap_or(i64::MAX).saturating_add(others.sum())
}

fn unexpected(status: &SecretIncidentStatus) -> i64 {
    let unexpected = status.readers.iter().filter(|reader| !reader.expected).count();
    i64::try_from(unexpected).unwrap_or(i64::MAX)
}

/// Compares all listed callers again with the present lists of expected readers.
pub fn reconsider(status: &mut SecretIncidentStatus, expected: &[ExpectedReader]) {
    readers::reconsider(status, expected);
    if status.unexpected_readers.is_some() {
        status.unexpected_readers = Some(unexpected(status));
    }
}

fn count(
    status: &mut SecretIncidentStatus,
    call: &Call,
    recent: bool,
    watched: &[Watched],
    expected: &[ExpectedReader],
) {
    let audit = status.audit.get_or_insert_default();
    if !recent {
        audit.events += 1;
    }
    let concerned = concerned(call, watched);
    if call.about == About::Unknown && call.name != DECRYPT && !recent {
        audit.unattributed += 1;
    }
    // A call that failed for reasons other than rights has shown nothing to its caller.
    if concerned.is_empty() || call.answer == Answer::Failed {
        return;
    }
    if call.answer == Answer::Denied && !recent {
        audit.denied += 1;
    }
    let changes = CHANGES.contains(&call.name.as_str());
    let listed = if changes { &mut status.tampering } else { &mut status.readers };
    match readers::place(listed, call, expected) {
        Ok(at) => {
            let cut = readers::add(&mut listed[at], call, recent, &concerned);
            if cut.sessions {
                note(audit, format!("more than {MAX_SESSIONS} sessions of a role were found, {NAMED}"));
            }
            if cut.secrets {
                note(audit, format!("more than {MAX_SECRETS} secrets were read by one caller, {NAMED}"));
            }
        }
        Err(kind) => readers::leave_out(audit, kind, changes, recent),
    }
}

const NAMED: &str = "of which only the first are named; `keyturn incident report` names all";

fn note(audit: &mut AuditStatus, gap: String) {
    if !audit.gaps.contains(&gap) {
        audit.gaps.push(gap);
    }
}

/// Returns the time of the next reading, after a reading that is over. The pauses are short while the incident is being
/// contained, since people wait for it. Afterwards they grow for as long as no new caller is found.
pub fn next_reading(
    audit: &mut AuditStatus,
    responding: bool,
    delay: TimeDelta,
    now: DateTime<Utc>,
) -> DateTime<Utc> {
    if responding {
        audit.quiet_readings = None;
    }
    let first = delay / 3;
    now + doubling(first, LONGEST_PAUSE.max(first), audit.quiet_readings.unwrap_or(0) + 1)
}

/// Time from which CloudTrail shows all events up to the containment; `None` if the incident is not contained.
pub fn last_reading(status: &SecretIncidentStatus, delay: TimeDelta) -> Option<DateTime<Utc>> {
    let contained = status.contained_at.as_ref().map(from_kubernetes)?;
    Some(contained + delay + TimeDelta::seconds(1))
}

/// Summarises the search for a person. The text never claims that nobody read anything.
pub fn said(status: &SecretIncidentStatus, delay: TimeDelta) -> String {
    let audit = status.audit.clone().unwrap_or_default();
    let Some(until) = audit.complete_until.as_ref().map(|at| to_text(from_kubernetes(at))) else {
        return match audit.gaps.first() {
            Some(gap) => format!("CloudTrail has not been read to the end yet: {gap}"),
            None => "CloudTrail is being read".to_owned(),
        };
    };
    let since = audit.since.as_ref().map(|at| to_text(from_kubernetes(at))).unwrap_or_default();
    let mut text = format!("{} unexpected readers from {since} to {until}", unexpected(status));
    let conspicuous =
        |is| status.readers.iter().filter(|reader: &&Reader| reader.address_is == Some(is)).count();
    for (count, which) in [
        (
            conspicuous(AddressIs::NotListed),
            "of them are expected principals at an address that is not listed for them",
        ),
        (
            conspicuous(AddressIs::New),
            "expected readers at an address that they did not use in the week before",
        ),
    ] {
        if count > 0 {
            text = format!("{text}, {count} {which}");
        }
    }
    if let Some(left_out) = readers::left_out(&audit) {
        text = format!("{text}. Not listed here: {left_out}; `keyturn incident report` lists them all");
    }
    text = format!(
        "{text}. CloudTrail shows events up to {} minutes late, and management events of these regions only",
        delay.num_minutes()
    );
    for gap in &audit.gaps {
        text = format!("{text}. {gap}");
    }
    match audit.unattributed {
        0 => text,
        count => format!("{text}. {count} events do not say which parameter they are about"),
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
