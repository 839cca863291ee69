//! Decides which values are suspected because of an incident, and by when they have to stop working.
//!
//! Only the times at which values were made decide, never the status of the incident: a SecretIncident that is applied
//! again, or whose status is lost, has no effect if the values are younger than its `reportedAt`.

use chrono::{DateTime, Utc};

use super::Desired;
use crate::observed::{Author, Observed, Parameter, Record, Seen, Trigger};

/// Returns the `reportedAt` of the youngest incident.
pub fn reported_at(desired: &Desired<'_>) -> Option<DateTime<Utc>> {
    desired.incidents.iter().map(|incident| incident.reported_at).max()
}

/// Returns true when somebody may have read a value made at that time.
pub(super) fn taints(desired: &Desired<'_>, made_at: DateTime<Utc>) -> bool {
    reported_at(desired).is_some_and(|reported_at| made_at < reported_at)
}

/// Returns the creation time of the oldest value (or key of a ring) that may work while the present versions are
/// published; `None` if nothing is published.
fn published_made_at(desired: &Desired<'_>, observed: &Observed) -> Option<DateTime<Utc>> {
    let has_target = desired.strategy.is_some();
    let values = observed.parameters.iter().filter_map(|p| oldest_live(p, p.latest_number(), has_target));
    values.chain(observed.oldest_key_made_at()).min()
}

/// Returns the creation time of the oldest value that may work while this version is published. A target only ever gets
/// keyturn's values, so a foreign version does not make it refuse the last one of ours: that one counts too.
fn oldest_live(parameter: &Parameter, version: i64, has_target: bool) -> Option<DateTime<Utc>> {
    let from_it_down =
        || parameter.versions.iter().rev().skip_while(move |seen| seen.version.number > version);
    let published = from_it_down().next().filter(|seen| seen.version.number == version)?;
    if !has_target {
        return Some(published.made_at());
    }
    let is_somebody_s = |seen: &&Seen| !matches!(seen.author, Author::Ours(_));
    let last_of_ours = from_it_down().find(|seen| !is_somebody_s(seen));
    from_it_down().take_while(is_somebody_s).chain(last_of_ours).map(Seen::made_at).min()
}

/// Returns true when the published value has to be rotated because of an incident.
pub fn is_suspected(desired: &Desired<'_>, observed: &Observed) -> bool {
    published_made_at(desired, observed).is_some_and(|made_at| taints(desired, made_at))
}

/// Returns true when everything that is published was made after the youngest report.
pub fn is_rotated(desired: &Desired<'_>, observed: &Observed) -> bool {
    let keys_are_known = !desired.rings || observed.keys.is_some();
    let published = observed.parameters.iter().all(|p| !p.versions.is_empty());
    published && keys_are_known && !is_suspected(desired, observed)
}

/// Returns the time at which the value of a record was made. A value that a rollback restores keeps its old age.
pub fn made_at(observed: &Observed, record: &Record) -> DateTime<Utc> {
    let failed = observed.records.values().rev().find(|other| other.id < record.id);
    match (record.trigger, failed) {
        (Trigger::RollBack, Some(failed)) => replaced_made_at(observed, failed).unwrap_or(record.at),
        _ => record.at,
    }
}

/// Returns the time at which the value that a record replaces was made; `None` if there was none.
fn replaced_made_at(observed: &Observed, record: &Record) -> Option<DateTime<Utc>> {
    oldest_replaced(observed, record, false)
}

fn oldest_replaced(observed: &Observed, record: &Record, has_target: bool) -> Option<DateTime<Utc>> {
    let replaced = observed.parameters.iter().filter_map(|parameter| {
        let base = record.base.get(&parameter.path).copied().filter(|base| *base > 0)?;
        // SSM keeps 100 versions; a value that is no longer among them was made before this rotation began.
        let unseen = if record.trigger == Trigger::Incident { DateTime::UNIX_EPOCH } else { record.at };
        Some(oldest_live(parameter, base, has_target).unwrap_or(unseen))
    });
    replaced.min()
}

/// Returns the latest time at which the credential that this rotation replaces has to be revoked; `None` if it is not
/// suspected.
pub(super) fn revoke_at(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
) -> Option<DateTime<Utc>> {
    let made_at = oldest_replaced(observed, record, record.credential.is_some())?;
    let about_it = desired.incidents.iter().filter(|incident| made_at < incident.reported_at);
    about_it.map(|incident| incident.revoke_at).min()
}

/// Returns true when the time that hosts had to stop using the old credential is over.
pub(super) fn is_due(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
) -> bool {
    revoke_at(desired, observed, record).is_some_and(|at| at <= now)
}
