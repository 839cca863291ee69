//! Install, Retire and the sweep for credentials that only their target can make.
//!
//! Making one is not repeatable, and happens just before its record is created: one that a crash, a lost answer or a
//! second controller left without a record is nobody's. It carries the id of its rotation in its name, and is deleted
//! once no record of it can appear any more, unless anything speaks for it.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::docker_host::Proof;

use super::suspicion::{self, is_rotated};
use super::{Act, Desired, Next, Step, Strategy, Waiting};
use crate::observed::{Acceptance, IssuedLogin, Observed, Record, TargetEvidence, Trigger};

/// How long a target may take to hear of a new or a deleted login before that counts as a failure.
pub const PROPAGATION: TimeDelta = TimeDelta::minutes(5);
/// How soon to look again meanwhile.
const PROPAGATION_POLL: TimeDelta = TimeDelta::seconds(5);
/// A recorded login that the target refuses for so long, and that nobody has published, is given up for another.
const GIVEN_UP_AFTER: TimeDelta = TimeDelta::minutes(20);
/// So many logins without a record are enough: no further one is made until they are swept, or have become old.
const MOST_UNRECORDED: usize = 4;
/// How long one counts that cannot be swept.
const RECENT: TimeDelta = TimeDelta::hours(1);
/// How soon the target is asked again where its logins could not be listed.
const UNSEEN_POLL: TimeDelta = TimeDelta::hours(1);

/// Whether the credentials of this secret are made by their target.
pub(super) fn is_issued(desired: &Desired<'_>) -> bool {
    desired.strategy == Some(Strategy::Issued)
}

/// What is left to do before the target accepts the recorded login: it is waited for. `None` where it does.
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

/// The logins that were published when the open records began, but for the one that the newest gives: a rotation may have
/// begun before the one before it had retired its own.
fn replaced<'a>(observed: &'a Observed, newest: &'a Record) -> impl Iterator<Item = &'a String> {
    let given = newest.credential.as_ref().map(|credential| &credential.username);
    let credentials = observed.records.values().filter_map(|record| record.credential.as_ref());
    let published = credentials.flat_map(|credential| credential.replaces.iter().chain(&credential.accepted));
    published.filter(move |old| Some(*old) != given)
}

/// The logins that the target lists as made for earlier rotations, whatever anybody has written meanwhile. What an object of
/// the same name may have published elsewhere, before this one was made, is left to end by itself unless it is suspected.
fn older<'a>(
    desired: &'a Desired<'_>,
    newest: &'a Record,
    target: &'a TargetEvidence,
) -> impl Iterator<Item = &'a String> {
    let given = newest.credential.as_ref().map(|credential| &credential.username);
    let issued = target.issued.iter().flatten().filter(move |login| Some(&login.username) != given);
    let is_older = |login: &&IssuedLogin| {
        let of_this_object = login.was_published || login.at >= desired.timing.created_at;
        // Ids tell nothing of what was there before somebody deleted the parameter: they begin anew.
        login.id < newest.id && of_this_object || is_from_before_the_report(desired, login)
    };
    issued.filter(is_older).map(|login| &login.username)
}

/// Whether somebody may have read a login, whoever published it and wherever.
fn is_from_before_the_report(desired: &Desired<'_>, login: &IssuedLogin) -> bool {
    suspicion::taints(desired, login.at)
}

/// The logins from before the youngest report that neither are published nor given by the rotation under way.
fn suspected<'a>(
    desired: &'a Desired<'_>,
    observed: &'a Observed,
    issued: &'a [IssuedLogin],
) -> impl Iterator<Item = &'a IssuedLogin> {
    let newest = observed.records.values().next_back().and_then(|record| record.credential.as_ref());
    let is_given = move |login: &IssuedLogin| newest.is_some_and(|given| given.username == login.username);
    let is_left = move |login: &&IssuedLogin| !login.is_published && !is_given(login);
    issued.iter().filter(is_left).filter(|login| is_from_before_the_report(desired, login))
}

/// Whether the target lists no login from before the youngest report but what is published. What was not listed may be there.
pub(super) fn none_is_suspected(desired: &Desired<'_>, observed: &Observed) -> bool {
    let issued = observed.target.as_ref().and_then(|target| target.issued.as_deref());
    !is_issued(desired) || issued.is_some_and(|issued| suspected(desired, observed, issued).next().is_none())
}

/// Whether the target may hold a login that this rotation takes the place of. Without its list nobody can tell.
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

/// The logins that are to be retired and exist as yet.
pub(super) fn remaining<'a>(
    desired: &'a Desired<'_>,
    observed: &'a Observed,
    record: &'a Record,
    target: &'a TargetEvidence,
) -> impl Iterator<Item = &'a String> {
    outdated(desired, observed, record, target).filter(|old| target.can_log_in.contains(*old))
}

/// Whether keyturn may retire a login: the target made it for this secret, or has accepted it as it was published. Anybody
/// who may write the parameter can put a name there.
fn may_be_retired(observed: &Observed, target: &TargetEvidence, username: &String) -> bool {
    let is_ours = target.issued.iter().flatten().any(|login| login.username == *username);
    is_ours || observed.has_accepted(username)
}

/// What is left to do before the target refuses the logins of before. `due` is when they were to be retired.
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

/// Whether nothing is left of the logins of before: what was not listed may be there.
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

/// What is to be done about logins that no record holds, while none lies open.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sweep {
    /// Nothing, as far as can be told.
    Nothing,
    /// The target has to be asked first.
    Unseen,
    Now(Act),
    /// The oldest that may become one is too young.
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
    if let Some(login) = suspected.next() {
        return Sweep::Now(Act::SweepOrphan { id: login.id, username: login.username.clone() });
    }
    let orphans = || issued.iter().filter(|login| is_orphan(desired, observed, login));
    let old_enough = |login: &&IssuedLogin| login.at + desired.retirement.orphans_after <= now;
    if let Some(login) = orphans().find(old_enough) {
        return Sweep::Now(Act::SweepOrphan { id: login.id, username: login.username.clone() });
    }
    let next = orphans().map(|login| login.at + desired.retirement.orphans_after).min();
    next.map_or(Sweep::Nothing, Sweep::At)
}

/// What has to happen before another login is made; `None` where nothing has to.
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
            let recent: Vec<_> =
                issued.filter(|l| !l.was_published && l.at + memory > now).map(|l| l.at).collect();
            let first = recent.iter().min().filter(|_| recent.len() >= MOST_UNRECORDED)?;
            // Those that may be swept make room as soon as they are old enough.
            let until = match sweep(desired, observed, now) {
                Sweep::At(at) => at,
                _ => *first + memory,
            };
            let why = Waiting::Orphans { count: recent.len() };
            Some(Next::Wait { step: Step::Record, until: Some(until), why })
        }
    }
}

/// Whether nothing at all speaks for a login: no version that SSM keeps ever published it, it was made for this very
/// object, and either every host has proven that it runs what is published, or the parameters have been there, and
/// their history with them, since before the login was made.
///
/// An object of the same name that was there before may have published it elsewhere; and where a person deleted the
/// parameter its history is gone, while hosts still run what was in it.
fn is_orphan(desired: &Desired<'_>, observed: &Observed, login: &IssuedLogin) -> bool {
    let of_this_object = login.at >= desired.timing.created_at;
    let published =
        !observed.parameters.is_empty() && observed.parameters.iter().all(|p| !p.versions.is_empty());
    let remembered = observed
        .parameters
        .iter()
        .all(|parameter| parameter.versions.first().is_some_and(|first| first.version.modified <= login.at));
    !login.was_published && of_this_object && published && (remembered || all_hosts_proven(desired, observed))
}

fn all_hosts_proven(desired: &Desired<'_>, observed: &Observed) -> bool {
    let proven = |name: &String| {
        observed.hosts.iter().find(|host| host.name == *name && host.exists).is_some_and(|host| {
            observed.parameters.iter().all(|p| host.proof_of(p, p.latest()) == Some(Proof::Proven))
        })
    };
    !desired.hosts.is_empty() && desired.hosts.iter().all(proven)
}
