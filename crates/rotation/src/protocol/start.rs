//! Decides, while no record is open, whether a rotation starts, and what else there is to do.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::{IfMissing, OnDrift};

use super::issued::Sweep;
use super::preflight::{Preflight, preflight};
use super::{
    Act, Desired, Next, Request, Stalled, Step, Waiting, base, evaluate_schedule, issued, publishable,
    suspicion, target, young_until,
};
use crate::observed::{Author, Observed, Parameter, Seen, Trigger};
use crate::schedule::{Due, Verdict};

pub(super) fn delete(
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Next {
    if !desired.finalizer {
        return Next::Rest { at: None };
    }
    if let Some(at) = observed.aborts.values().max() {
        return Next::Wait { step: Step::Abort, until: Some(*at + grace), why: Waiting::Grace };
    }
    if let Some(until) = unsettled_until(desired, now, grace) {
        return Next::Wait { step: Step::Close, until: Some(until), why: Waiting::Grace };
    }
    if desired.deleting.is_some_and(|at| at + desired.deletion_bound > now) {
        match issued::sweep(desired, observed, now) {
            Sweep::Now(act) => return Next::Act { step: Step::Close, act },
            Sweep::Unseen => {
                return Next::Wait { step: Step::Close, until: None, why: Waiting::TargetUnseen };
            }
            Sweep::At(at) => {
                return Next::Wait { step: Step::Close, until: Some(at), why: Waiting::Orphans { count: 1 } };
            }
            Sweep::Nothing => {}
        }
    }
    if desired.delete_parameters {
        if let Some(young) = young_until(observed, now, grace) {
            return Next::Wait { step: Step::Close, until: Some(young), why: Waiting::Grace };
        }
        if let Some(parameter) = observed.parameters.iter().find(|p| !p.versions.is_empty()) {
            return Next::Act {
                step: Step::Close,
                act: Act::DeleteParameter { path: parameter.path.clone() },
            };
        }
    }
    Next::Act { step: Step::Close, act: Act::Release }
}

pub(super) fn start_or_rest(
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Next {
    let request = unhandled_request(desired, observed);
    let missing: Vec<&Parameter> = observed.parameters.iter().filter(|p| p.versions.is_empty()).collect();
    let all_missing = missing.len() == observed.parameters.len();
    if all_missing && desired.if_missing == IfMissing::Create {
        if desired.suspended {
            return Next::Rest { at: None };
        }
        return start(desired, observed, Trigger::Missing, now, grace);
    }
    let suspected = suspicion::is_suspected(desired, observed);
    if let Some(parameter) = missing.first()
        && (all_missing || request.is_none() && !suspected)
    {
        let path = parameter.path.clone();
        return Next::Stall(if all_missing {
            Stalled::ParameterMissing { path }
        } else {
            Stalled::PartlyMissing { path }
        });
    }
    if suspected {
        return start(desired, observed, Trigger::Incident, now, grace);
    }
    if let Some(host) = desired.hosts.iter().find(|name| !exists(observed, name)) {
        return Next::Stall(Stalled::HostMissing { host: host.clone() });
    }
    if let Some((path, version)) = foreign(observed) {
        match desired.on_drift {
            OnDrift::Alert => {
                return Next::Wait { step: Step::Record, until: None, why: Waiting::Drift { path, version } };
            }
            OnDrift::Rotate if !desired.suspended => {
                return start(desired, observed, Trigger::Drift, now, grace);
            }
            OnDrift::Rotate | OnDrift::Adopt => {}
        }
    }
    let verdict = match evaluate_schedule(desired, observed, now) {
        Ok(verdict) => verdict,
        Err(error) => return Next::Stall(Stalled::Window(error)),
    };
    if desired.suspended {
        return release_or(desired, observed, now, grace, Next::Rest { at: None });
    }
    if request.is_some() {
        return start(desired, observed, Trigger::Request, now, grace);
    }
    match verdict {
        Some(Verdict { start_now: true, .. }) => start(desired, observed, Trigger::Period, now, grace),
        Some(Verdict { next: Due::NoWindow, .. }) => Next::Stall(Stalled::NoWindow),
        Some(Verdict { next: Due::At(at), .. }) => {
            release_or(desired, observed, now, grace, Next::Rest { at: Some(at) })
        }
        Some(Verdict { next: Due::Never, .. }) | None => {
            release_or(desired, observed, now, grace, Next::Rest { at: None })
        }
    }
}

/// Adds or removes the finalizer as needed, and sweeps orphans, if there is nothing else to do.
fn release_or(
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
    grace: TimeDelta,
    rest: Next,
) -> Next {
    match issued::sweep(desired, observed, now) {
        Sweep::Now(act) => return Next::Act { step: Step::Close, act },
        Sweep::Unseen => return Next::Wait { step: Step::Close, until: None, why: Waiting::TargetUnseen },
        // Orphans are swept before the finalizer is removed.
        Sweep::At(at) => return Next::Rest { at: Some(rest.wakes_at().map_or(at, |wakes| wakes.min(at))) },
        Sweep::Nothing => {}
    }
    if desired.delete_parameters && !desired.finalizer {
        return Next::Act { step: Step::Close, act: Act::Hold };
    }
    if desired.delete_parameters || !desired.finalizer {
        return rest;
    }
    match observed.aborts.values().max() {
        Some(at) if *at + grace > now => {
            Next::Wait { step: Step::Abort, until: Some(*at + grace), why: Waiting::Grace }
        }
        _ => match unsettled_until(desired, now, grace) {
            // Only the removal of the finalizer waits, so a person need not be told.
            Some(until) => Next::Rest { at: Some(rest.wakes_at().map_or(until, |at| at.min(until))) },
            None => Next::Act { step: Step::Close, act: Act::Release },
        },
    }
}

/// Returns the time until which an open record may exist that reads do not show yet (eventual consistency); `None` once
/// that has passed.
fn unsettled_until(desired: &Desired<'_>, now: DateTime<Utc>, grace: TimeDelta) -> Option<DateTime<Utc>> {
    let since = [desired.settled_since.unwrap_or(now), desired.deleting.unwrap_or(now)].into_iter().min()?;
    Some(since + grace).filter(|until| *until > now)
}

/// Returns the request unless it was handled, which either status or a published description shows.
fn unhandled<'a>(desired: &'a Desired<'_>, observed: &Observed) -> Option<&'a Request<'a>> {
    let request = desired.request.as_ref()?;
    let published = !observed.ids_of_request(&request.hash).is_empty();
    (!request.handled && !published).then_some(request)
}

/// Returns the request that has not led to a rotation yet. A request that was there when the object was first seen does
/// not count as new.
pub fn unhandled_request<'a>(desired: &'a Desired<'_>, observed: &Observed) -> Option<&'a Request<'a>> {
    unhandled(desired, observed).filter(|request| !request.first_sight)
}

/// Returns the request that a rotation with this trigger answers: the unhandled one, no matter why the rotation was
/// started. A request that was there when the object was first seen is answered only by the first value.
fn answers<'a>(desired: &'a Desired<'_>, observed: &Observed, trigger: Trigger) -> Option<&'a Request<'a>> {
    match trigger {
        Trigger::Missing => unhandled(desired, observed),
        _ => unhandled_request(desired, observed),
    }
}

fn exists(observed: &Observed, host: &str) -> bool {
    observed.hosts.iter().any(|h| h.name == host && h.exists)
}

/// Returns the first path whose latest version is foreign.
fn foreign(observed: &Observed) -> Option<(String, i64)> {
    let drifted =
        observed.parameters.iter().find(|p| p.latest().is_some_and(|s| s.author == Author::Foreign))?;
    Some((drifted.path.clone(), drifted.latest_number()))
}

fn start(
    desired: &Desired<'_>,
    observed: &Observed,
    trigger: Trigger,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Next {
    // A young version may have a record that reads do not show yet. An incident waits for it only if keyturn itself
    // published that version: then the record certainly exists, since it is kept while the version is young.
    let hurry = trigger == Trigger::Incident;
    let ours =
        || observed.parameters.iter().filter_map(|p| p.latest()).any(|seen| is_young(seen, now, grace));
    if let Some(until) = young_until(observed, now, grace).filter(|_| !hurry || ours()) {
        return Next::Wait { step: Step::Record, until: Some(until), why: Waiting::Grace };
    }
    if let Some(why) = publishable::before_the_start(desired, observed).filter(|_| !hurry) {
        return Next::Wait { step: Step::Preflight, until: None, why };
    }
    // The hosts are not asked if there is no good value that they could run.
    let asks = matches!(trigger, Trigger::Period | Trigger::Request);
    if trigger == Trigger::Drift
        && let Some(next) = publishable::prove(desired, observed)
    {
        return next;
    }
    if asks && let Some(next) = hosts_and_target_first(desired, observed) {
        return next;
    }
    if hurry && let Some(next) = roles_are_to_be_made(desired, observed) {
        return next;
    }
    // Here an incident waits too: the record exists, so the next reads will show it. Two records that each give the
    // role a password would leave hosts with the one that is not accepted.
    if let Some(until) = target::fence_ahead_until(desired, observed, now, grace) {
        return Next::Wait { step: Step::Record, until: Some(until), why: Waiting::Grace };
    }
    if let Some(next) = issued::before_issue(desired, observed, now).filter(|_| !hurry) {
        return next;
    }
    let id = observed.highest_id(desired.owner) + 1;
    let request = answers(desired, observed, trigger).map(|request| request.token.to_owned());
    let only = only_parameter_to_create(desired, observed).filter(|_| trigger == Trigger::Missing);
    // With `deletionPolicy: Delete` the object must not disappear while a Put that creates its parameter is in
    // progress.
    let is_held_first = only.is_none() || desired.delete_parameters;
    if !desired.finalizer && is_held_first {
        return Next::Act { step: Step::Record, act: Act::Hold };
    }
    if let Some(path) = only {
        return Next::Act { step: Step::Promote, act: Act::Create { id, path: path.to_owned(), request } };
    }
    Next::Act {
        step: Step::Record,
        act: Act::Record {
            id,
            trigger,
            request,
            base: base(observed),
            hosts: desired.hosts.clone(),
            keep_previous: !hurry && !suspicion::is_suspected(desired, observed),
        },
    }
}

/// Returns the parameter if its first value is all that has to be written, and neither a host nor a target has to take
/// it.
fn only_parameter_to_create<'a>(desired: &Desired<'_>, observed: &'a Observed) -> Option<&'a str> {
    let [only] = &observed.parameters[..] else { return None };
    (!desired.concerns_others()).then_some(&only.path)
}

/// Returns the step that the preflight of hosts and target needs; `None` once all have answered well. Only rotations
/// that can also start later need it.
fn hosts_and_target_first(desired: &Desired<'_>, observed: &Observed) -> Option<Next> {
    let wait = |why| Some(Next::Wait { step: Step::Preflight, until: None, why });
    let act = |act| Some(Next::Act { step: Step::Preflight, act });
    match preflight(desired, observed) {
        Preflight::Passed => publishable::prove(desired, observed),
        Preflight::NotAsked => publishable::prove(desired, observed).or_else(|| act(Act::AskPreflight)),
        Preflight::Pending => wait(Waiting::Preflight),
        Preflight::Failed { host, trouble } => wait(Waiting::PreflightFailed { host, trouble }),
        Preflight::SetUp { .. } if desired.may_set_up => act(Act::SetUp),
        Preflight::SetUp { statements } => Some(Next::Stall(Stalled::SetUpPlanned { statements })),
        Preflight::TargetUnseen => wait(Waiting::TargetUnseen),
        Preflight::Target(problem) => wait(Waiting::Target(problem)),
    }
}

/// Returns true when a rotation of keyturn published this version less than a grace period ago.
fn is_young(seen: &Seen, now: DateTime<Utc>, grace: TimeDelta) -> bool {
    matches!(seen.author, Author::Ours(_)) && seen.version.modified + grace > now
}

/// Requires the pair of roles to exist, even in an incident: roles that were never created cannot alternate.
fn roles_are_to_be_made(desired: &Desired<'_>, observed: &Observed) -> Option<Next> {
    let statements = observed.target.as_ref().map_or(0, |target| target.set_up.len());
    match statements {
        0 => None,
        _ if desired.may_set_up => Some(Next::Act { step: Step::Record, act: Act::SetUp }),
        statements => Some(Next::Stall(Stalled::SetUpPlanned { statements })),
    }
}
