//! A rotation is under way: it is finished, or given up by the rules of the abort marker.

use chrono::{DateTime, TimeDelta, Utc};

use super::deployment::{Deployment, deployment};
use super::{
    Act, DELETION_DEADLINE, Desired, Next, Stalled, Step, Waiting, base, incident, issued, suspicion, target,
    young_until,
};
use crate::api::managed_secret::{OnDrift, OnFailure};
use crate::rotation::observed::{Author, Observed, Parameter, Record, RotationId, Trigger};

pub(super) fn go_on(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Next {
    let id = record.id;
    if desired.finalizer && desired.deleting.is_some_and(|at| at + DELETION_DEADLINE.max(grace * 4) <= now) {
        return Next::Act { step: Step::Close, act: Act::Abandon };
    }
    if !observed.parameters.iter().all(|p| record.values.contains_key(&p.path)) {
        let paths = record.values.keys().cloned().collect::<Vec<_>>().join(", ");
        return Next::Stall(Stalled::OtherParameters { id, paths });
    }
    if !desired.finalizer && desired.deleting.is_none() {
        return Next::Act { step: Step::Record, act: Act::Hold };
    }
    let drift = foreign_since(observed, record, grace);
    if let Some(marked) = observed.aborts.get(&id)
        && record.trigger != Trigger::RollBack
    {
        if *marked + grace > now {
            return Next::Wait { step: Step::Abort, until: Some(*marked + grace), why: Waiting::Grace };
        }
        if let Some(act) = aborted(desired, observed, record, drift.is_some()) {
            // A roll back that was begun a moment ago may be there, and not be visible yet.
            if let Some(until) = target::fence_ahead_until(desired, observed, now, grace) {
                return Next::Wait { step: Step::Abort, until: Some(until), why: Waiting::Grace };
            }
            return Next::Act { step: Step::Abort, act };
        }
        // void: what the marker was for has passed, so the rotation goes on
    }
    if superseded(observed, id) {
        return Next::Act { step: Step::Close, act: Act::DeleteRecord { id } };
    }
    // What was promised for this time is done whoever wrote what meanwhile, and whether hosts follow or not.
    let due = suspicion::is_due(desired, observed, record, now);
    match due.then(|| target::retire(desired, observed, record, now, grace)).flatten() {
        None => serve(desired, observed, record, drift, now, grace),
        // While the target takes its time, or fails, hosts are given the new credential: the old one may die any moment.
        Some(revocation) if desired.retirement.failed || is_out_of_our_hands(&revocation) => {
            match serve(desired, observed, record, drift, now, grace) {
                Next::Act { step, act } => Next::Act { step, act },
                _ => revocation,
            }
        }
        Some(revocation) => revocation,
    }
}

/// Whether the target was told to refuse the old credential, and does not do so yet, or cannot be told.
fn is_out_of_our_hands(revocation: &Next) -> bool {
    matches!(revocation, Next::Wait { why: Waiting::Propagation { .. } | Waiting::OutOfReach { .. }, .. })
}

/// Install, Promote, Deploy, and what follows once every host has proven the new credential.
fn serve(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    drift: Option<(String, i64)>,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Next {
    let id = record.id;
    // A role whose only password has been changed is published whatever somebody else wrote: nothing else works.
    let drift = drift.filter(|_| {
        !target::is_installed_in_place(desired, observed, record) || observed.is_partly_published_by(id)
    });
    if let Some((path, version)) = drift {
        match desired.on_drift {
            // An installed login that is given up would live on with nobody knowing its password.
            OnDrift::Adopt if record.credential.is_some() => {
                return Next::Wait {
                    step: Step::Promote,
                    until: None,
                    why: Waiting::Drift { path, version },
                };
            }
            OnDrift::Alert => {
                return Next::Wait {
                    step: Step::Promote,
                    until: None,
                    why: Waiting::Drift { path, version },
                };
            }
            OnDrift::Adopt if observed.is_partly_published_by(id) => {
                return close(desired, observed, record, now, grace);
            }
            OnDrift::Adopt if observed.aborts.contains_key(&id) => {}
            OnDrift::Adopt => return Next::Act { step: Step::Abort, act: Act::MarkAbort { id } },
            OnDrift::Rotate => {}
        }
    }
    if (!is_bootstrap(record) || issued::is_issued(desired))
        && let Some(next) = target::install(desired, observed, record, now)
    {
        return next;
    }
    if let Some(parameter) = observed.parameters.iter().find(|p| !p.is_published_by(id)) {
        return Next::Act {
            step: Step::Promote,
            act: Act::Promote { id, path: parameter.path.clone(), expected: parameter.latest_number() + 1 },
        };
    }
    let deployment = deployment(desired, observed, record);
    if !matches!(deployment, Deployment::Proven)
        && let Some(next) = incident::supersede_unproven(desired, observed, record, now)
    {
        return next;
    }
    match deployment {
        Deployment::Proven => target::install(desired, observed, record, now)
            .or_else(|| target::unheard(desired, observed, record))
            .or_else(|| target::retire(desired, observed, record, now, grace))
            .or_else(|| incident::supersede(desired, observed, record))
            .unwrap_or_else(|| close(desired, observed, record, now, grace)),
        Deployment::Missing { host } => Next::Stall(Stalled::HostMissing { host }),
        Deployment::Pending { host } => {
            Next::Wait { step: Step::Deploy, until: None, why: Waiting::Deploy { host } }
        }
        Deployment::Failed { host, reason, message, for_good } => {
            let roll_back = for_good
                && desired.on_failure == OnFailure::RollBack
                && record.trigger != Trigger::RollBack
                && record.base.values().all(|base| *base > 0)
                && suspicion::revoke_at(desired, observed, record).is_none()
                && !target::is_adopted_in_place(desired, observed, record)
                && !observed.aborts.contains_key(&id);
            if roll_back {
                return Next::Act { step: Step::Abort, act: Act::MarkAbort { id } };
            }
            let why = Waiting::DeployFailed { host, reason, message, for_good };
            Next::Wait { step: Step::Deploy, until: None, why }
        }
    }
}

/// What a marker that has outlived the grace leads to; `None` where it is void.
fn aborted(desired: &Desired<'_>, observed: &Observed, record: &Record, drifted: bool) -> Option<Act> {
    let id = record.id;
    if observed.is_partly_published_by(id) {
        let failed = matches!(deployment(desired, observed, record), Deployment::Failed { .. });
        let roll_back = failed
            && desired.on_failure == OnFailure::RollBack
            && !drifted
            && suspicion::revoke_at(desired, observed, record).is_none()
            && !target::is_adopted_in_place(desired, observed, record);
        return roll_back.then(|| Act::RecordRollBack {
            id: observed.highest_id(desired.owner) + 1,
            failed: id,
            base: base(observed),
            hosts: record.hosts.clone(),
        });
    }
    if target::may_be_installed(observed, record) {
        return None;
    }
    // Not published, so nobody runs it. It is dropped where somebody else's value was adopted in its place, the object
    // goes away, or the target has withdrawn what it made; otherwise nothing speaks against it any more.
    let dropped = desired.deleting.is_some()
        || drifted && desired.on_drift == OnDrift::Adopt
        || issued::is_issued(desired);
    dropped.then_some(Act::DeleteRecord { id })
}

/// Whether nothing was published before, so that what initialises itself from the parameter has to be there first.
fn is_bootstrap(record: &Record) -> bool {
    record.base.values().all(|base| *base == 0)
}

/// A record that a late create brought back: a newer rotation is published, or another draw of the same id.
fn superseded(observed: &Observed, id: RotationId) -> bool {
    let newer =
        |p: &Parameter| p.latest().is_some_and(|s| matches!(s.author, Author::Ours(other) if other > id));
    observed.parameters.iter().any(newer) || !observed.mismatched.is_empty()
}

/// The first path that somebody else wrote after this rotation began, and is the latest.
fn foreign_since(observed: &Observed, record: &Record, grace: TimeDelta) -> Option<(String, i64)> {
    let drifted = observed.parameters.iter().find(|p| {
        p.latest().is_some_and(|s| {
            matches!(s.author, Author::Foreign | Author::Original)
                && !record.replaces(&p.path, &s.version, grace)
        })
    })?;
    Some((drifted.path.clone(), drifted.latest_number()))
}

/// Deletes the oldest record, once nothing that could bring it back is alive.
fn close(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Next {
    // After an incident the revocation is looked at once more when no late request is alive that could undo it.
    let revoked = suspicion::revoke_at(desired, observed, record)
        .and_then(|_| target::retired_at(observed, record))
        .map(|at| at + grace)
        .filter(|until| *until > now);
    if let Some(until) = young_until(observed, now, grace).max(revoked) {
        return Next::Wait { step: Step::Close, until: Some(until), why: Waiting::Grace };
    }
    match observed.records.first_key_value() {
        Some((id, _)) => Next::Act { step: Step::Close, act: Act::DeleteRecord { id: *id } },
        None => Next::Rest { at: None },
    }
}
