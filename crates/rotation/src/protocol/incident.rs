//! Effects of an incident on a rotation: nothing that was made before the report may stay in use.

use chrono::{DateTime, TimeDelta, Utc};

use super::suspicion::{is_due, is_rotated, made_at, revoke_at, taints};
use super::{Act, Desired, Next, Step, Strategy, base, issued, target};
use crate::observed::{Observed, Record, Trigger};

/// Starts another rotation when the current one has done its work and the value that it published is suspected too. It
/// does not wait for the current rotation to close.
pub(super) fn supersede(desired: &Desired<'_>, observed: &Observed, record: &Record) -> Option<Next> {
    if !taints(desired, made_at(observed, record)) || desired.deleting.is_some() {
        return None;
    }
    let others = record.hosts.iter().filter(|name| !desired.hosts.contains(name));
    let hosts = desired.hosts.iter().chain(others).cloned().collect();
    let id = observed.highest_id(desired.owner) + 1;
    let act = Act::Record {
        id,
        trigger: Trigger::Incident,
        request: record.request.clone(),
        base: base(observed),
        hosts,
        keep_previous: false,
    };
    Some(Next::Act { step: Step::Record, act })
}

/// Like [`supersede`], while hosts do not run the published value yet. If the next rotation disables the login of those
/// hosts, it waits for them until the time of the revocation. The revocation is done first: the next rotation treats
/// the older login as its own, so sessions that are open with it would otherwise stay open.
pub(super) fn supersede_unproven(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Option<Next> {
    let may_follow = match desired.strategy {
        // Logins that the target makes do not replace each other.
        None | Some(Strategy::Issued) => true,
        Some(Strategy::InPlace) => target::is_accepted(observed),
        Some(Strategy::Alternating) => {
            is_due(desired, observed, record, now)
                && target::retire(desired, observed, record, now, grace).is_none()
        }
    };
    if may_follow { supersede(desired, observed, record) } else { None }
}

/// Progress in revoking the logins that an incident suspects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// No system has to accept the value, so there is nothing to revoke.
    None,
    /// A suspected value is still published, or a suspected login or one of its sessions may still work.
    Open,
    /// The target refuses every suspected login, and nobody is logged in with one.
    Done,
}

/// Returns the state of the revocation: done when the target refuses every suspected login and nobody is logged in with
/// one. A record closes only after its own revocation, so only the logins that the newest record replaces and
/// introduces can still work.
pub fn revocation(desired: &Desired<'_>, observed: &Observed) -> Revocation {
    if desired.strategy.is_none() {
        return Revocation::None;
    }
    let newest = observed.records.values().next_back();
    let open = newest.filter(|record| revoke_at(desired, observed, record).is_some());
    let is_revoked = open.is_none_or(|record| target::has_revoked(desired, observed, record));
    let done = is_rotated(desired, observed) && is_revoked && issued::none_is_suspected(desired, observed);
    if done { Revocation::Done } else { Revocation::Open }
}
