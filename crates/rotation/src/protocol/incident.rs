//! What a suspicion changes: nothing that was made before it was reported may live on.

use chrono::{DateTime, TimeDelta, Utc};

use super::suspicion::{is_due, is_rotated, made_at, revoke_at, taints};
use super::{Act, Desired, Next, Step, Strategy, base, issued, target};
use crate::observed::{Observed, Record, Trigger};

/// The rotation under way has done its work, and the value that it published is suspected too: another one follows
/// without waiting for its close.
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

/// The same, where hosts do not run yet what it published. Where the next rotation takes the login from those that have
/// not followed, they are given until the time of the revocation, and that is done first: whoever is logged in would stay so,
/// since the next rotation knows that login as its own only.
pub(super) fn supersede_unproven(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Option<Next> {
    let may_follow = match desired.strategy {
        // Logins that the target makes do not take the place of each other.
        None | Some(Strategy::Issued) => true,
        Some(Strategy::InPlace) => target::is_accepted(observed),
        Some(Strategy::Alternating) => {
            is_due(desired, observed, record, now)
                && target::retire(desired, observed, record, now, grace).is_none()
        }
    };
    if may_follow { supersede(desired, observed, record) } else { None }
}

/// How far the revocation of what the youngest record replaces has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// No system has to accept the value, so there is nothing to revoke.
    None,
    Open,
    Done,
}

/// Whether the target refuses what is suspected, and nobody is logged in with it any more. A record is closed only after
/// that, and what the newest one replaces and gives is all that may still work.
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
