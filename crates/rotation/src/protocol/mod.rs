//! The rotation protocol of one secret: Record, Install, Promote, Deploy, Retire, Close.
//!
//! [`next`] is a pure function of the desired state, the evidence and the time. It keeps no state: a controller that
//! has lost its status, or a second one that runs at the same time, comes to the same answer, and every act is safe
//! when both perform it. `docs/protocol.md` has the rules and the reasons for them.
//!
//! Random values need neither Install nor Retire: only the hosts have to accept them, and a value that is no longer
//! deployed opens nothing. If a target has to accept the value, `target.rs` adds both steps.

mod deployment;
mod desired;
mod finish;
mod incident;
#[cfg(test)]
mod incident_tests;
mod issued;
#[cfg(test)]
mod issued_tests;
mod preflight;
mod publishable;
mod start;
mod step;
mod suspicion;
mod target;
#[cfg(test)]
mod target_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
pub use desired::{Desired, Incident, Request, Retirement, Strategy, Timing};
pub use finish::has_come_back;
pub use incident::{Revocation, revocation};
pub use start::unhandled_request;
pub use step::{Act, Lacking, Next, Stalled, Step, Waiting};
pub use suspicion::{is_rotated, is_suspected, made_at, reported_at};
pub use target::{has_left_the_old, installed_at, published_is_dead, unretired};

use self::deployment::{Deployment, deployment};
use super::observed::{Author, Observed, Record, RotationId, Seen};
use super::schedule::{self, Schedule, Verdict};
use super::window::WindowError;

/// Returns the one next step. `grace` is longer than any request of keyturn can live.
pub fn next(desired: &Desired<'_>, observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Next {
    if let Some((path, owner)) = owned_by_other(observed) {
        return Next::Stall(Stalled::OwnedByOther { path, owner });
    }
    if let Some(id) = expired_marker(observed, now, grace) {
        return Next::Act { step: Step::Abort, act: Act::SweepMarker { id } };
    }
    match observed.records.last_key_value() {
        Some((_, record)) => finish::go_on(desired, observed, record, now, grace),
        None if desired.deleting.is_some() => start::delete(desired, observed, now, grace),
        None => start::start_or_rest(desired, observed, now, grace),
    }
}

fn owned_by_other(observed: &Observed) -> Option<(String, String)> {
    observed.parameters.iter().find_map(|p| match &p.latest()?.author {
        Author::OtherOwner(owner) => Some((p.path.clone(), owner.clone())),
        _ => None,
    })
}

/// Finds an abort marker without a record that is older than the grace period. A marker is kept longer than its record,
/// so that a record created late finds it.
fn expired_marker(observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Option<RotationId> {
    let stray =
        observed.aborts.iter().find(|(id, at)| !observed.records.contains_key(id) && **at + grace <= now);
    stray.map(|(id, _)| *id)
}

/// Returns the current step of a rotation according to the evidence, even if something delays the next step.
pub fn step_of(desired: &Desired<'_>, observed: &Observed, record: &Record) -> Step {
    let to_be_installed =
        desired.strategy.is_some() && record.credential.is_some() && !target::is_accepted(observed);
    // For a rollback, the value may already be published while the role still needs that password again.
    let is_left = to_be_installed && !record.kept.is_empty();
    if observed.is_published(record) && !is_left {
        return match deployment(desired, observed, record) {
            Deployment::Proven => Step::Close,
            _ => Step::Deploy,
        };
    }
    if to_be_installed { Step::Install } else { Step::Promote }
}

/// Compares the age of the published value with the period and the windows.
///
/// # Errors
/// A window cannot be parsed.
pub fn evaluate_schedule(
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
) -> Result<Option<Verdict>, WindowError> {
    let timing = &desired.timing;
    let Some(made_at) = observed.parameters.iter().filter_map(|p| p.latest()).map(Seen::made_at).min() else {
        return Ok(None);
    };
    let rotated_before = observed
        .parameters
        .iter()
        .all(|p| p.latest().is_some_and(|seen| matches!(seen.author, Author::Ours(_) | Author::Foreign)));
    // After a rollback the next scheduled attempt is delayed: a host has just rejected a new value.
    let brought_back = observed.parameters.iter().filter_map(|p| p.latest()?.brought_back_at()).max();
    // A login that its target expires has to be replaced before that, even if the spec has a longer period or none.
    let own_end = replace_by(observed).map(|at| (at - made_at).max(TimeDelta::zero()));
    schedule::look(
        &Schedule {
            period: timing.period.into_iter().chain(own_end).min(),
            windows: timing.windows,
            host_windows: timing.host_windows,
            made_at,
            adopted_at: (!rotated_before)
                .then_some(timing.created_at)
                .max(timing.rolled_back_at)
                .max(brought_back),
            first_rotation_delay: timing.first_rotation_delay,
            spread: timing.spread,
            identity: timing.identity,
        },
        now,
    )
    .map(Some)
}

/// Returns the latest time to replace the published login, if its target expires it.
fn replace_by(observed: &Observed) -> Option<DateTime<Utc>> {
    observed.target.as_ref()?.lifetime.map(|lifetime| lifetime.replace_by())
}

/// Returns the time until which the youngest published version is younger than the grace period; `None` once that has
/// passed.
fn young_until(observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Option<DateTime<Utc>> {
    observed.published_at().map(|at| at + grace).filter(|until| *until > now)
}

fn base(observed: &Observed) -> BTreeMap<String, i64> {
    observed.parameters.iter().map(|p| (p.path.clone(), p.latest_number())).collect()
}
