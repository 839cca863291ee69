//! What a suspicion changes: nothing that was made before it was reported may live on.
//!
//! Only the times at which values were made decide, never what an incident's own status says: an object that is applied
//! again, or whose status is lost, does nothing where the values are younger than its `reportedAt`.

use chrono::{DateTime, Utc};

use super::{Act, Desired, Next, Step, Strategy, base, target};
use crate::rotation::observed::{Observed, Record, Seen, Trigger};

/// The youngest report.
pub fn reported_at(desired: &Desired<'_>) -> Option<DateTime<Utc>> {
    desired.incidents.iter().map(|incident| incident.reported_at).max()
}

/// Whether somebody may have read a value that was made then.
fn taints(desired: &Desired<'_>, made_at: DateTime<Utc>) -> bool {
    reported_at(desired).is_some_and(|reported_at| made_at < reported_at)
}

/// When the oldest published value was made; `None` where nothing is published.
fn published_made_at(observed: &Observed) -> Option<DateTime<Utc>> {
    observed.parameters.iter().filter_map(|p| p.latest()).map(Seen::made_at).min()
}

/// Whether what is published has to be rotated.
pub(super) fn is_suspected(desired: &Desired<'_>, observed: &Observed) -> bool {
    published_made_at(observed).is_some_and(|made_at| taints(desired, made_at))
}

/// Whether everything that is published was made after the youngest report.
pub fn is_rotated(desired: &Desired<'_>, observed: &Observed) -> bool {
    observed.parameters.iter().all(|p| !p.versions.is_empty()) && !is_suspected(desired, observed)
}

/// When the value of a record was made. One that was brought back is as old as it was before.
fn made_at(observed: &Observed, record: &Record) -> DateTime<Utc> {
    let failed = observed.records.values().rev().find(|other| other.id < record.id);
    match (record.trigger, failed) {
        (Trigger::RollBack, Some(failed)) => replaced_made_at(observed, failed).unwrap_or(record.at),
        _ => record.at,
    }
}

/// When the value was made that a record replaces; `None` where there was none.
fn replaced_made_at(observed: &Observed, record: &Record) -> Option<DateTime<Utc>> {
    let replaced = observed.parameters.iter().filter_map(|parameter| {
        let base = record.base.get(&parameter.path).copied().filter(|base| *base > 0)?;
        let seen = parameter.versions.iter().find(|seen| seen.version.number == base);
        // SSM keeps a hundred versions; what is gone from there was made before this rotation began.
        let unseen = if record.trigger == Trigger::Incident { DateTime::UNIX_EPOCH } else { record.at };
        Some(seen.map_or(unseen, Seen::made_at))
    });
    replaced.min()
}

/// When the credential that this rotation replaces has to be dead at the latest; `None` where nobody suspects it.
pub(super) fn revoke_at(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
) -> Option<DateTime<Utc>> {
    let made_at = replaced_made_at(observed, record)?;
    let about_it = desired.incidents.iter().filter(|incident| made_at < incident.reported_at);
    about_it.map(|incident| incident.revoke_at).min()
}

/// Whether the time for hosts to leave the old credential is over.
pub(super) fn is_due(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
) -> bool {
    revoke_at(desired, observed, record).is_some_and(|at| at <= now)
}

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
    };
    Some(Next::Act { step: Step::Record, act })
}

/// The same, where hosts do not run yet what it published. Where the next rotation takes the login from those that have
/// not followed, they are given until the time of the revocation.
pub(super) fn supersede_unproven(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
) -> Option<Next> {
    let may_follow = match desired.strategy {
        // Logins that the target makes do not take the place of each other.
        None | Some(Strategy::Issued) => true,
        Some(Strategy::InPlace) => target::is_accepted(observed),
        Some(Strategy::Alternating) => is_due(desired, observed, record, now),
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
    let done =
        is_rotated(desired, observed) && open.is_none_or(|record| target::has_revoked(observed, record));
    if done { Revocation::Done } else { Revocation::Open }
}
