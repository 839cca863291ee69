//! Install, Retire and the sweep for credentials that only their target can make.
//!
//! Making one is not repeatable, and happens just before its record is created: one that a crash, a lost answer or a
//! second controller left without a record is nobody's. It carries the id of its rotation in its name, and is deleted
//! once no record of it can appear any more, unless anything speaks for it.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::docker_host::Proof;

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

/// The logins that the open records replace, but for the one that the newest gives: a rotation may have begun before the
/// one before it had retired its own.
fn replaced<'a>(observed: &'a Observed, newest: &'a Record) -> impl Iterator<Item = &'a String> {
    let given = newest.credential.as_ref().map(|credential| &credential.username);
    let credentials = observed.records.values().filter_map(|record| record.credential.as_ref());
    credentials.filter_map(|credential| credential.replaces.as_ref()).filter(move |old| Some(*old) != given)
}

/// What is left to do before the target refuses the logins that were replaced. `due` is when they were to be retired.
pub(super) fn retire(
    observed: &Observed,
    record: &Record,
    target: &TargetEvidence,
    due: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<Next> {
    let wait = |until, why| Some(Next::Wait { step: Step::Retire, until, why });
    if let Some(old) = replaced(observed, record).find(|old| target.can_log_in.contains(*old)) {
        let act = Act::Retire { id: record.id, username: old.clone() };
        return Some(Next::Act { step: Step::Retire, act });
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

/// Whether nothing is left of the logins that were replaced.
pub(super) fn are_gone(observed: &Observed, record: &Record, target: &TargetEvidence) -> bool {
    replaced(observed, record).all(|old| {
        !target.can_log_in.contains(old)
            && target.replaced.get(old).is_none_or(|answer| matches!(answer, Acceptance::Refused(_)))
    })
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
