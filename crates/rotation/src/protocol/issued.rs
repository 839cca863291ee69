//! Install, Retire and the sweep of orphans, for credentials that only their target can make.
//!
//! Making such a credential is not idempotent, and happens just before its record is created. A crash, a lost answer or
//! a second controller can therefore leave an orphan: a login without a record. Its name contains the id of its
//! rotation, and it is deleted once no record for it can appear any more, unless something still refers to it.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::docker_host::Proof;

use super::suspicion::{self, is_rotated};
use super::{Act, Desired, Next, Step, Strategy, Waiting};
use crate::observed::{Acceptance, KnownLogin, Observed, Record, TargetEvidence, Trigger};

/// Longest time that a target may take to apply a new or a deleted login before that counts as a failure.
pub(super) const PROPAGATION: TimeDelta = TimeDelta::minutes(5);
/// Polling interval during that time.
const PROPAGATION_POLL: TimeDelta = TimeDelta::seconds(5);
/// Age at which a recorded login is replaced by another one, if the target still refuses it and it was never published.
const GIVEN_UP_AFTER: TimeDelta = TimeDelta::minutes(20);
/// Limit for logins without a record: no further one is made until some have been swept or are old enough.
const MOST_UNRECORDED: usize = 4;
/// Time for which an orphan that cannot be swept counts towards that limit, if the sweep's own age limit is not longer.
const RECENT: TimeDelta = TimeDelta::hours(1);
/// Interval after which the target is asked again if its logins could not be listed.
const UNSEEN_POLL: TimeDelta = TimeDelta::hours(1);

/// Returns true when the target makes the credentials of this secret.
pub(super) fn is_issued(desired: &Desired<'_>) -> bool {
    desired.strategy == Some(Strategy::Issued)
}

/// The next step before the target accepts the recorded login (in most cases a wait), or `None` once it does.
pub(super) fn prove(
    observed: &Observed,
    record: &Record,
    target: &TargetEvidence,
    now: DateTime<Utc>,
) -> Option<Next> {
    let wait = |until, why| Some(Next::Wait { step: Step::Install, until, why });
    let published = observed.is_partly_published_by(record.id);
    match &target.recorded {
        None => wait(None, Waiting::TargetUnseen),
        Some(Acceptance::Accepted) => None,
        Some(Acceptance::Unknown(_)) if published => None,
        Some(Acceptance::Unknown(problem)) => wait(None, Waiting::Target(problem.clone())),
        Some(Acceptance::Refused(_)) if record.at + PROPAGATION > now => {
            wait(Some(now + PROPAGATION_POLL), Waiting::Propagation { retired: false })
        }
        Some(Acceptance::Refused(problem)) => {
            let redraw = !published
                && record.trigger != Trigger::RollBack
                && record.at + GIVEN_UP_AFTER <= now
                && !observed.aborts.contains_key(&record.id);
            if redraw {
                return Some(Next::Act { step: Step::Abort, act: Act::MarkAbort { id: record.id } });
            }
            wait(None, Waiting::Target(problem.clone()))
        }
    }
}

/// Returns the logins that were published when the open records began, except the one that the newest record
/// introduces. A rotation may begin before the previous one has retired its own old login, so all open records count.
fn replaced<'a>(observed: &'a Observed, newest: &'a Record) -> impl Iterator<Item = &'a String> {
    let given = newest.credential.as_ref().map(|credential| &credential.username);
    let credentials = observed.records.values().filter_map(|record| record.credential.as_ref());
    let published = credentials.flat_map(|credential| credential.replaces.iter().chain(&credential.accepted));
    published.filter(move |old| Some(*old) != given)
}

/// Returns the logins that the target lists as made for earlier rotations, even after foreign writes. A login of an
/// earlier object with the same name may be published elsewhere; unless it is suspected, it is left to expire.
fn older<'a>(
    desired: &'a Desired<'_>,
    newest: &'a Record,
    target: &'a TargetEvidence,
) -> impl Iterator<Item = &'a String> {
    let given = newest.credential.as_ref().map(|credential| &credential.username);
    let issued = target.issued.iter().flatten().filter(move |known| Some(&known.login.username) != given);
    let is_older = |known: &&KnownLogin| {
        let of_this_object = known.was_published || known.login.at >= desired.timing.created_at;
        // Ids prove nothing across a deletion of the parameter: they start again from the beginning.
        known.login.id < newest.id && of_this_object || is_from_before_the_report(desired, known)
    };
    issued.filter(is_older).map(|known| &known.login.username)
}

/// Returns true when somebody may have read this login, no matter who published it and where.
fn is_from_before_the_report(desired: &Desired<'_>, known: &KnownLogin) -> bool {
    suspicion::taints(desired, known.login.at)
}

/// Returns the logins made before the youngest report that are neither published nor introduced by the open rotation.
fn suspected<'a>(
    desired: &'a Desired<'_>,
    observed: &'a Observed,
    issued: &'a [KnownLogin],
) -> impl Iterator<Item = &'a KnownLogin> {
    let newest = observed.records.values().next_back().and_then(|record| record.credential.as_ref());
    let is_given =
        move |known: &KnownLogin| newest.is_some_and(|given| given.username == known.login.username);
    let is_left = move |known: &&KnownLogin| !known.is_published && !is_given(known);
    issued.iter().filter(is_left).filter(|known| is_from_before_the_report(desired, known))
}

/// Returns true when the target lists no login from before the youngest report except the published one. Without a list
/// the answer is false, since such a login may exist.
pub(super) fn none_is_suspected(desired: &Desired<'_>, observed: &Observed) -> bool {
    let issued = observed.target.as_ref().and_then(|target| target.issued.as_deref());
    !is_issued(desired) || issued.is_some_and(|issued| suspected(desired, observed, issued).next().is_none())
}

/// Returns true when the target may hold a login that this rotation replaces; also when its logins were not listed.
pub(super) fn may_hold_an_old_one(desired: &Desired<'_>, observed: &Observed, record: &Record) -> bool {
    let listed = observed.target.as_ref().filter(|target| target.issued.is_some());
    listed.is_none_or(|target| outdated(desired, observed, record, target).next().is_some())
}

fn outdated<'a>(
    desired: &'a Desired<'_>,
    observed: &'a Observed,
    record: &'a Record,
    target: &'a TargetEvidence,
) -> impl Iterator<Item = &'a String> {
    replaced(observed, record).chain(older(desired, record, target))
}

/// Returns the logins that this rotation has to retire and that still exist.
pub(super) fn remaining<'a>(
    desired: &'a Desired<'_>,
    observed: &'a Observed,
    record: &'a Record,
    target: &'a TargetEvidence,
) -> impl Iterator<Item = &'a String> {
    outdated(desired, observed, record, target).filter(|old| target.can_log_in.contains(*old))
}

/// Returns true when keyturn may retire this login: the target made it for this secret, or accepted it as it was
/// published. The published name alone is not enough: anybody who may write the parameter can put any name there.
fn may_be_retired(observed: &Observed, target: &TargetEvidence, username: &String) -> bool {
    let is_ours = target.issued.iter().flatten().any(|known| known.login.username == *username);
    is_ours || observed.has_accepted(username)
}

/// The next step before the target refuses the replaced logins, or `None` once it does. `due` is the time at which they
/// were to be retired.
pub(super) fn retire(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    due: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<Next> {
    let wait = |until, why| Some(Next::Wait { step: Step::Retire, until, why });
    let Some(target) = observed.target.as_ref().filter(|target| target.issued.is_some()) else {
        return wait(None, Waiting::TargetUnseen);
    };
    let mut remaining: Vec<_> = remaining(desired, observed, record, target).collect();
    if let Some(old) = remaining.iter().find(|old| may_be_retired(observed, target, old)) {
        let act = Act::Retire { id: record.id, username: (*old).clone() };
        return Some(Next::Act { step: Step::Retire, act });
    }
    if let Some(old) = remaining.pop() {
        return wait(None, Waiting::OutOfReach { username: old.clone() });
    }
    replaced(observed, record).find_map(|old| match target.replaced.get(old) {
        None | Some(Acceptance::Refused(_)) => None,
        Some(Acceptance::Unknown(problem)) => wait(None, Waiting::Target(problem.clone())),
        Some(Acceptance::Accepted) if due + PROPAGATION > now => {
            wait(Some(now + PROPAGATION_POLL), Waiting::Propagation { retired: true })
        }
        Some(Acceptance::Accepted) => wait(None, Waiting::OutOfReach { username: old.clone() }),
    })
}

/// Returns true when the target has none of the replaced logins left. Without a list the answer is false.
pub(super) fn are_gone(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    target: &TargetEvidence,
) -> bool {
    let none_is_older =
        !is_issued(desired) || target.issued.is_some() && older(desired, record, target).next().is_none();
    let are_refused = replaced(observed, record).all(|old| {
        !target.can_log_in.contains(old)
            && target.replaced.get(old).is_none_or(|answer| matches!(answer, Acceptance::Refused(_)))
    });
    none_is_older && are_refused
}

/// Next action for orphans (logins without a record), while no record is open.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sweep {
    /// Nothing to sweep, as far as the evidence shows.
    Nothing,
    /// The target has to be asked first.
    Unseen,
    Now(Act),
    /// No login may be swept before this time: the oldest possible orphan is too young, or its logins could not be
    /// listed.
    At(DateTime<Utc>),
}

pub(super) fn sweep(desired: &Desired<'_>, observed: &Observed, now: DateTime<Utc>) -> Sweep {
    if !is_issued(desired) || !observed.records.is_empty() {
        return Sweep::Nothing;
    }
    let Some(target) = &observed.target else { return Sweep::Unseen };
    let Some(issued) = &target.issued else {
        let again = target.at + UNSEEN_POLL;
        return if target.unseen.is_some() && again > now { Sweep::At(again) } else { Sweep::Unseen };
    };
    let mut suspected = suspected(desired, observed, issued).filter(|_| is_rotated(desired, observed));
    if let Some(known) = suspected.next() {
        return Sweep::Now(Act::SweepOrphan { id: known.login.id, username: known.login.username.clone() });
    }
    let orphans = || issued.iter().filter(|known| is_orphan(desired, observed, known));
    let old_enough = |known: &&KnownLogin| known.login.at + desired.retirement.orphans_after <= now;
    if let Some(known) = orphans().find(old_enough) {
        return Sweep::Now(Act::SweepOrphan { id: known.login.id, username: known.login.username.clone() });
    }
    let next = orphans().map(|known| known.login.at + desired.retirement.orphans_after).min();
    next.map_or(Sweep::Nothing, Sweep::At)
}

/// Returns the step that must come before another login is made; `None` if nothing is in the way.
pub(super) fn before_issue(desired: &Desired<'_>, observed: &Observed, now: DateTime<Utc>) -> Option<Next> {
    match sweep(desired, observed, now) {
        Sweep::Unseen => Some(Next::Wait { step: Step::Record, until: None, why: Waiting::TargetUnseen }),
        Sweep::Now(act) => Some(Next::Act { step: Step::Record, act }),
        Sweep::At(_) | Sweep::Nothing => {
            let target = observed.target.as_ref().filter(|_| is_issued(desired))?;
            if let Some(problem) = &target.unseen {
                return Some(Next::Wait {
                    step: Step::Record,
                    until: None,
                    why: Waiting::Target(problem.clone()),
                });
            }
            let memory = desired.retirement.orphans_after.max(RECENT);
            let issued = target.issued.iter().flatten();
            let recent: Vec<_> = issued
                .filter(|l| !l.was_published && l.login.at + memory > now)
                .map(|l| l.login.at)
                .collect();
            let first = recent.iter().min().filter(|_| recent.len() >= MOST_UNRECORDED)?;
            // Orphans are swept as soon as they are old enough, and then no longer count towards the limit.
            let until = match sweep(desired, observed, now) {
                Sweep::At(at) => at,
                _ => *first + memory,
            };
            let why = Waiting::Orphans { count: recent.len() };
            Some(Next::Wait { step: Step::Record, until: Some(until), why })
        }
    }
}

/// Returns true when nothing refers to a login: no version that SSM keeps ever published it; it was made for this very
/// object; and either every host has proven that it runs the published value, or the parameters and their history are
/// older than the login.
///
/// The last two conditions are needed because an earlier object with the same name may have published the login
/// elsewhere, and because the history is gone if a person deleted the parameter, while hosts may still run its old
/// value.
fn is_orphan(desired: &Desired<'_>, observed: &Observed, known: &KnownLogin) -> bool {
    let of_this_object = known.login.at >= desired.timing.created_at;
    let published =
        !observed.parameters.is_empty() && observed.parameters.iter().all(|p| !p.versions.is_empty());
    let remembered = observed.parameters.iter().all(|parameter| {
        parameter.versions.first().is_some_and(|first| first.version.modified <= known.login.at)
    });
    !known.was_published && of_this_object && published && (remembered || all_hosts_proven(desired, observed))
}

fn all_hosts_proven(desired: &Desired<'_>, observed: &Observed) -> bool {
    let proven = |name: &String| {
        observed.hosts.iter().find(|host| host.name == *name && host.exists).is_some_and(|host| {
            observed.parameters.iter().all(|p| host.proof_of(p, p.latest()) == Some(Proof::Proven))
        })
    };
    !desired.hosts.is_empty() && desired.hosts.iter().all(proven)
}
