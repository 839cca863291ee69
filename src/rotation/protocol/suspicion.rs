//! Which values are suspected, and by when they have to be dead.
//!
//! Only the times at which values were made decide, never what an incident's own status says: an object that is applied
//! again, or whose status is lost, does nothing where the values are younger than its `reportedAt`.

use chrono::{DateTime, Utc};

use super::Desired;
use crate::rotation::observed::{Observed, Record, Seen, Trigger};

/// The youngest report.
pub fn reported_at(desired: &Desired<'_>) -> Option<DateTime<Utc>> {
    desired.incidents.iter().map(|incident| incident.reported_at).max()
}

/// Whether somebody may have read a value that was made then.
pub(super) fn taints(desired: &Desired<'_>, made_at: DateTime<Utc>) -> bool {
    reported_at(desired).is_some_and(|reported_at| made_at < reported_at)
}

/// When the oldest published value, or key of a ring, was made; `None` where nothing is published.
fn published_made_at(observed: &Observed) -> Option<DateTime<Utc>> {
    let values = observed.parameters.iter().filter_map(|p| p.latest()).map(Seen::made_at);
    values.chain(observed.oldest_key_made_at()).min()
}

/// Whether what is published has to be rotated.
pub fn is_suspected(desired: &Desired<'_>, observed: &Observed) -> bool {
    published_made_at(observed).is_some_and(|made_at| taints(desired, made_at))
}

/// Whether everything that is published was made after the youngest report.
pub fn is_rotated(desired: &Desired<'_>, observed: &Observed) -> bool {
    let keys_are_known = !desired.rings || observed.keys.is_some();
    let published = observed.parameters.iter().all(|p| !p.versions.is_empty());
    published && keys_are_known && !is_suspected(desired, observed)
}

/// When the value of a record was made. One that was brought back is as old as it was before.
pub fn made_at(observed: &Observed, record: &Record) -> DateTime<Utc> {
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
