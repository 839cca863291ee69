//! The bounded lists of callers in an incident's status. Each kind of caller has its own limit, so that many callers of
//! one kind cannot displace callers of another kind.
//!
//! Calls are grouped by principal and address. Text that a caller chooses freely, such as its user agent, does not
//! create a group.

use keyturn_api::readers::ExpectedReader;
use keyturn_api::secret_incident::{AddressIs, AuditStatus, NotShown, Reader, SecretIncidentStatus};
use keyturn_api::text::is_visible;
use keyturn_api::time::{from_kubernetes, to_kubernetes};

use super::event::{Answer, Call, DECRYPT};
use super::expected::{Caller, Expectation, expectation, is_by_kms};

/// Maximum number of addresses of one principal in each kind.
const MAX_ADDRESSES: usize = 15;
/// Maximum number of secrets that are named for one caller.
pub const MAX_SECRETS: usize = 20;
/// Maximum number of sessions that are named for one caller.
pub const MAX_SESSIONS: usize = 20;
const MAX_AGENTS: usize = 4;
const MAX_AGENT: usize = 128;

/// Kinds of callers. Each kind has its own limit in the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AWS executed the call of somebody who is not expected.
    Unexpected,
    /// AWS executed the call of somebody who is expected.
    Expected,
    /// AWS refused the call.
    Refused,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Unexpected, Self::Expected, Self::Refused];

    fn of(expected: bool, denied: bool) -> Self {
        match (denied, expected) {
            (true, _) => Self::Refused,
            (false, true) => Self::Expected,
            (false, false) => Self::Unexpected,
        }
    }

    fn of_reader(reader: &Reader) -> Self {
        Self::of(reader.expected, reader.denied)
    }

    /// Maximum number of callers of this kind in a list; the schema allows a hundred for all kinds together.
    fn room(self) -> usize {
        match self {
            Self::Unexpected => 60,
            Self::Expected | Self::Refused => 20,
        }
    }
}

/// Returns the position of the call's caller in the list. A new caller is added if there is room.
///
/// # Errors
/// The kind of the caller, if the list has no room for another one of that kind.
pub fn place(list: &mut Vec<Reader>, call: &Call, expected: &[ExpectedReader]) -> Result<usize, Kind> {
    let says = expectation(Caller::from(call), expected);
    let denied = call.answer == Answer::Denied;
    // A KMS event has the address of Parameter Store instead of the reader's. It confirms a reader in the list, or adds
    // a new one.
    let is_same = |reader: &Reader| {
        let same = if is_by_kms(call) {
            may_be_session_of(reader, call)
        } else {
            reader.address == call.address && reader.expected == says.is_met()
        };
        same && reader.principal == call.principal && reader.denied == denied
    };
    if let Some(at) = list.iter().position(is_same) {
        return Ok(at);
    }
    let kind = Kind::of(says.is_met(), denied);
    let of_kind = || list.iter().filter(|reader| Kind::of_reader(reader) == kind);
    let addresses = of_kind().filter(|reader| reader.principal == call.principal).count();
    if of_kind().count() >= kind.room() || addresses >= MAX_ADDRESSES {
        return Err(kind);
    }
    list.push(caller(call, says));
    Ok(list.len() - 1)
}

/// Returns a new entry for the caller of this call. Its calls are not counted yet.
fn caller(call: &Call, says: Expectation) -> Reader {
    Reader {
        principal: call.principal.clone(),
        sessions: Vec::new(),
        address: call.address.clone(),
        user_agents: Vec::new(),
        by_other_agents: 0,
        recent_by_other_agents: 0,
        expected: says.is_met(),
        address_is: says.address(),
        denied: call.answer == Answer::Denied,
        calls: Vec::new(),
        count: 0,
        recent: 0,
        first: to_kubernetes(call.at),
        last: to_kubernetes(call.at),
        secrets: Vec::new(),
    }
}

/// True when the call may belong to one of the reader's sessions. This includes calls without a session, and readers
/// whose sessions are not all known.
fn may_be_session_of(reader: &Reader, call: &Call) -> bool {
    let Some(session) = &call.session else { return true };
    let unknown = reader.sessions.is_empty() || reader.sessions.len() >= MAX_SESSIONS;
    unknown || reader.sessions.contains(session)
}

/// Shows which lists of a caller were full, so that a name was left out.
pub struct Cut {
    /// True when the call's session is not named, since the list is full.
    pub sessions: bool,
    /// True when a secret of the call is not named, since the list is full.
    pub secrets: bool,
}

/// Counts one more call of a reader.
pub fn add(reader: &mut Reader, call: &Call, recent: bool, secrets: &[&str]) -> Cut {
    let confirms = is_by_kms(call) && reader.calls.iter().any(|name| name != DECRYPT);
    if !confirms {
        reader.count += 1;
        reader.recent += i64::from(recent);
        add_agent(reader, call, recent);
    }
    if !reader.calls.contains(&call.name) {
        reader.calls.push(call.name.clone());
    }
    let sessions = call.session.iter().any(|session| is_cut(&mut reader.sessions, session, MAX_SESSIONS));
    reader.first = to_kubernetes(from_kubernetes(&reader.first).min(call.at));
    reader.last = to_kubernetes(from_kubernetes(&reader.last).max(call.at));
    let mut cut = Cut { sessions, secrets: false };
    for secret in secrets {
        cut.secrets |= is_cut(&mut reader.secrets, secret, MAX_SECRETS);
    }
    cut
}

fn add_agent(reader: &mut Reader, call: &Call, recent: bool) {
    let agent: String = call.user_agent.chars().filter(|c| is_visible(*c)).take(MAX_AGENT).collect();
    if !agent.is_empty() && is_cut(&mut reader.user_agents, &agent, MAX_AGENTS) {
        reader.by_other_agents += 1;
        reader.recent_by_other_agents += i64::from(recent);
    }
}

/// Adds a name to a list, unless the list has it already. Returns true if the name is left out because the list is
/// full.
fn is_cut(list: &mut Vec<String>, name: &str, most: usize) -> bool {
    let known = list.iter().any(|known| known == name);
    let full = list.len() >= most;
    if !known && !full {
        list.push(name.to_owned());
    }
    !known && full
}

fn kind_of(kind: Kind, changes: bool) -> String {
    format!("{kind:?}{}", if changes { "Changes" } else { "Reads" })
}

/// Counts a call of a caller that is not listed, since there is no room.
pub fn leave_out(audit: &mut AuditStatus, kind: Kind, changes: bool, recent: bool) {
    leave_out_calls(audit, &kind_of(kind, changes), 1, i64::from(recent));
}

fn leave_out_calls(audit: &mut AuditStatus, kind: &str, calls: i64, recent: i64) {
    let known = audit.not_shown.iter().position(|one| one.kind == kind).unwrap_or_else(|| {
        audit.not_shown.push(NotShown { kind: kind.to_owned(), calls: 0, recent: 0 });
        audit.not_shown.len() - 1
    });
    let not_shown = &mut audit.not_shown[known];
    not_shown.calls += calls;
    not_shown.recent += recent;
}

/// Describes the calls of callers that are not listed, such as
/// `120 refused reads by others, 3 expected reads by others`. `None` if there are none.
pub fn left_out(audit: &AuditStatus) -> Option<String> {
    let mut said = Vec::new();
    for (changes, what) in [(false, "reads"), (true, "changes")] {
        for kind in Kind::ALL {
            let of = kind_of(kind, changes);
            let calls: i64 = audit.not_shown.iter().filter(|one| one.kind == of).map(|one| one.calls).sum();
            if calls > 0 {
                said.push(format!("{calls} {} {what} by others", format!("{kind:?}").to_lowercase()));
            }
        }
    }
    (!said.is_empty()).then(|| said.join(", "))
}

/// Resets the numbers that the next reading counts again: all numbers if `all` is true, otherwise only those of recent
/// calls. Nobody is removed from the lists.
pub fn recount(status: &mut SecretIncidentStatus, all: bool) {
    for reader in status.readers.iter_mut().chain(&mut status.tampering) {
        let (recent, by_others) =
            (std::mem::take(&mut reader.recent), std::mem::take(&mut reader.recent_by_other_agents));
        reader.count = if all { 0 } else { reader.count - recent };
        reader.by_other_agents = if all { 0 } else { reader.by_other_agents - by_others };
    }
    if let Some(audit) = &mut status.audit {
        for one in &mut audit.not_shown {
            one.calls = if all { 0 } else { one.calls - one.recent };
            one.recent = 0;
        }
        audit.not_shown.retain(|one| one.calls > 0);
    }
}

/// Sorts unexpected callers before expected ones, then refused callers after the others, then callers at a new address
/// before the others.
pub fn sort(status: &mut SecretIncidentStatus) {
    fn order(reader: &Reader) -> (bool, bool, bool, &str, &str) {
        let usual = reader.address_is != Some(AddressIs::New);
        (reader.expected, reader.denied, usual, &reader.principal, &reader.address)
    }
    for list in [&mut status.readers, &mut status.tampering] {
        list.sort_by(|a, b| order(a).cmp(&order(b)));
    }
}

/// Compares all listed callers again with the lists of expected readers. A role is unexpected if one of its sessions
/// is.
pub fn reconsider(status: &mut SecretIncidentStatus, expected: &[ExpectedReader]) {
    for reader in status.readers.iter_mut().chain(&mut status.tampering) {
        let by_kms = reader.calls.iter().all(|name| name == DECRYPT);
        let says = |session| {
            let (principal, address) = (&reader.principal, &reader.address);
            expectation(Caller { principal, session, address, by_kms }, expected)
        };
        let all: Vec<Expectation> = match reader.sessions.as_slice() {
            [] => vec![says(None)],
            sessions => sessions.iter().map(|session| says(Some(session.as_str()))).collect(),
        };
        let worst = all.iter().find(|says| !says.is_met()).or(all.first());
        let Some(says) = worst.copied() else { continue };
        reader.expected = says.is_met();
        let seen = reader.address_is.filter(|is| matches!(is, AddressIs::Known | AddressIs::New));
        reader.address_is = if says == Expectation::Principal { seen } else { says.address() };
    }
    let Some(audit) = &mut status.audit else { return };
    for (list, changes) in [(&mut status.readers, false), (&mut status.tampering, true)] {
        for kind in Kind::ALL {
            while list.iter().filter(|reader| Kind::of_reader(reader) == kind).count() > kind.room() {
                let Some(at) = list.iter().rposition(|reader| Kind::of_reader(reader) == kind) else { break };
                let gone = list.remove(at);
                leave_out_calls(audit, &kind_of(kind, changes), gone.count, gone.recent);
            }
        }
    }
    sort(status);
}

/// True when the address of this expected reader still has to be compared with the addresses from before the search.
fn is_open(reader: &Reader) -> bool {
    let address = reader.address.parse::<std::net::IpAddr>();
    reader.expected && !reader.denied && reader.address_is.is_none() && address.is_ok()
}

/// True when an expected principal called from an address about which nothing is known yet.
pub fn address_is_open(readers: &[Reader]) -> bool {
    readers.iter().any(is_open)
}

/// Processes a call from the time before the search: its address counts as known for its principal.
pub fn known_address(readers: &mut [Reader], call: &Call) {
    let same = |reader: &&mut Reader| {
        call.answer != Answer::Denied
            && is_open(reader)
            && reader.principal == call.principal
            && reader.address == call.address
    };
    readers.iter_mut().filter(same).for_each(|reader| reader.address_is = Some(AddressIs::Known));
}

/// Ends the reading of the time before the search: the addresses that it did not find are new.
pub fn new_addresses(readers: &mut [Reader]) {
    readers.iter_mut().filter(|reader| is_open(reader)).for_each(|r| r.address_is = Some(AddressIs::New));
}
