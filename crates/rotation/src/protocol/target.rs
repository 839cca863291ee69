//! Install and Retire: the steps that a rotation needs if a target has to accept the credential.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::docker_host::Proof;

use super::{
    Act, Desired, Lacking, Next, Step, Strategy, Waiting, issued, publishable, suspicion, young_until,
};
use crate::observed::{
    Acceptance, Credential, HostEvidence, HostFailure, Observed, Parameter, Record, TargetEvidence, Trigger,
};

/// Margin for a login with the old password that was in progress while the password was changed.
const LOGIN_MARGIN: TimeDelta = TimeDelta::seconds(5);
/// Largest assumed difference between the clocks of the target and of SSM.
const CLOCK_MARGIN: TimeDelta = TimeDelta::minutes(5);

/// The next step of Install, or `None` once the target accepts the recorded credential.
pub(super) fn install(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
) -> Option<Next> {
    let strategy = desired.strategy?;
    let credential = record.credential.as_ref()?;
    let wait = |why| Some(Next::Wait { step: Step::Install, until: None, why });
    let Some(target) = &observed.target else { return wait(Waiting::TargetUnseen) };
    if strategy == Strategy::Issued {
        return issued::prove(observed, record, target, now);
    }
    // Once the value is published the hosts come first; the target's answer is checked again before the end.
    let published = observed.is_published(record);
    match &target.recorded {
        None => return wait(Waiting::TargetUnseen),
        Some(Acceptance::Unknown(_)) if published => return None,
        Some(Acceptance::Unknown(problem)) => return wait(Waiting::Target(problem.clone())),
        // If the fence is not this rotation's, a late request of an older rotation could still undo the change.
        Some(Acceptance::Accepted) if is_fenced_by(target, credential, record) || published => return None,
        Some(Acceptance::Accepted | Acceptance::Refused(_)) => {}
    }
    if let Some(problem) = &target.unseen {
        return wait(Waiting::Target(problem.clone()));
    }
    if strategy == Strategy::InPlace
        && !published
        && !suspicion::is_due(desired, observed, record, now)
        && let Some(busy) = observed.hosts.iter().find(|host| host.deploying)
    {
        return wait(Waiting::HostBusy { host: busy.name.clone() });
    }
    // Install makes the published password invalid, so SSM must be able to accept the new one. This is not required if
    // the password has to be revoked anyway, or if a rollback restores it.
    if strategy == Strategy::InPlace
        && !published
        && record.trigger != Trigger::RollBack
        && !suspicion::is_due(desired, observed, record, now)
        && let Some(why) = publishable::before_install(desired, observed, record)
    {
        return wait(why);
    }
    Some(Next::Act { step: Step::Install, act: Act::Install { id: record.id } })
}

/// Waits if every host runs the recorded credential but it is not known whether the target accepts it: without an
/// answer of the target nothing is retired or closed.
pub(super) fn unheard(desired: &Desired<'_>, observed: &Observed, record: &Record) -> Option<Next> {
    desired.strategy?;
    record.credential.as_ref()?;
    match &observed.target.as_ref()?.recorded {
        Some(Acceptance::Unknown(problem)) => {
            let why = Waiting::Target(problem.clone());
            Some(Next::Wait { step: Step::Install, until: None, why })
        }
        _ => None,
    }
}

fn is_fenced_by(target: &TargetEvidence, credential: &Credential, record: &Record) -> bool {
    let fence = target.fences.get(&credential.username).map(|(id, _)| *id);
    target.unseen.is_none() && (!target.fenced || fence == Some(record.id))
}

/// The next step of Retire, or `None` once the target refuses the replaced credential.
pub(super) fn retire(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Option<Next> {
    let credential = record.credential.as_ref()?;
    let revoke_at = suspicion::revoke_at(desired, observed, record);
    let hurry = revoke_at.is_some();
    let due = revoke_at.is_some_and(|at| at <= now);
    let wait = |until, why| Some(Next::Wait { step: Step::Retire, until, why });
    let act = |act| Some(Next::Act { step: Step::Retire, act });
    let made_by_it = issued::is_issued(desired);
    if made_by_it && !issued::may_hold_an_old_one(desired, observed, record) {
        return None;
    }
    let old = credential.replaces.as_ref().filter(|old| **old != credential.username);
    if old.is_none() && !made_by_it {
        // The role's only password was changed; sessions opened with the old one stay open until they are ended.
        return if hurry { end_older_sessions(observed, record, credential, now) } else { None };
    }
    let unproven = observed.hosts.iter().filter(|host| host.exists).find(|host| {
        let counts = desired.hosts.contains(&host.name) || record.hosts.contains(&host.name);
        counts && !has_left_the_old(host, desired, observed, record)
    });
    if let Some(host) = unproven.filter(|_| !due) {
        return wait(revoke_at, Waiting::Unproven { host: host.name.clone() });
    }
    let mut wanted_at = revoke_at.unwrap_or(now);
    if !hurry {
        let proven_at = desired.retirement.proven_since.or_else(|| last_proof(observed)).unwrap_or(now);
        wanted_at = proven_at + desired.retirement.after;
        if let Some(until) = Some(wanted_at).filter(|until| *until > now) {
            return wait(Some(until), Waiting::Retirement);
        }
        if let Some(until) = young_until(observed, now, grace) {
            return wait(Some(until), Waiting::Grace);
        }
    }
    let Some(target) = &observed.target else { return wait(None, Waiting::TargetUnseen) };
    if let Some(problem) = &target.unseen {
        return wait(None, Waiting::Target(problem.clone()));
    }
    if made_by_it {
        return issued::retire(desired, observed, record, wanted_at, now);
    }
    let old = old?;
    if target.superusers.contains(old) {
        return None;
    }
    let theirs = target.sessions.iter().filter(|session| session.username == *old);
    let clients: Vec<String> = theirs.map(|session| session.client.clone()).collect();
    let fenced = !target.fenced || target.fences.get(old).is_some_and(|(id, _)| *id >= record.id);
    if !target.can_log_in.contains(old) && fenced {
        // These clients opened their sessions just before the login was retired.
        let end = || Act::EndSessions { username: old.clone(), opened_before: None };
        return if clients.is_empty() { None } else { act(end()) };
    }
    if !clients.is_empty() && !hurry {
        return wait(None, Waiting::Sessions { username: old.clone(), clients });
    }
    act(Act::Retire { id: record.id, username: old.clone() })
}

/// Returns true when the target was observed to refuse the replaced credential, and no session of it is open any more.
pub(super) fn has_revoked(desired: &Desired<'_>, observed: &Observed, record: &Record) -> bool {
    let Some(credential) = &record.credential else { return true };
    let Some(target) = observed.target.as_ref().filter(|target| target.unseen.is_none()) else {
        return false;
    };
    if issued::is_issued(desired) {
        return issued::are_gone(desired, observed, record, target);
    }
    match credential.replaces.as_ref().filter(|old| **old != credential.username) {
        None => {
            !target.changed_since
                && is_accepted(observed)
                && end_older_sessions(observed, record, credential, target.at).is_none()
        }
        Some(old) => {
            issued::are_gone(desired, observed, record, target)
                && !target.can_log_in.contains(old)
                && target.sessions.iter().all(|session| session.username != *old)
        }
    }
}

/// Returns the usernames that have to be retired and can still log in, as far as was observed.
pub fn unretired(desired: &Desired<'_>, observed: &Observed, record: &Record) -> BTreeSet<String> {
    let Some(credential) = &record.credential else { return BTreeSet::new() };
    let Some(target) = observed.target.as_ref().filter(|target| target.unseen.is_none()) else {
        return credential.replaces.iter().filter(|old| **old != credential.username).cloned().collect();
    };
    if issued::is_issued(desired) {
        return issued::remaining(desired, observed, record, target).cloned().collect();
    }
    let old = credential.replaces.iter().filter(|old| **old != credential.username);
    old.filter(|old| target.can_log_in.contains(*old)).cloned().collect()
}

/// The next step to end sessions opened with the old password of a role that was changed in place; `None` once none is
/// open. Sessions that keyturn cannot see count as open.
fn end_older_sessions(
    observed: &Observed,
    record: &Record,
    credential: &Credential,
    now: DateTime<Utc>,
) -> Option<Next> {
    let wait = |until, why| Some(Next::Wait { step: Step::Retire, until, why });
    let Some(target) = &observed.target else { return wait(None, Waiting::TargetUnseen) };
    if !is_accepted(observed) {
        return None;
    }
    if let Some(problem) = &target.unseen {
        return wait(None, Waiting::Target(problem.clone()));
    }
    let username = &credential.username;
    let unseen = |lacking| wait(None, Waiting::SessionsUnseen { username: username.clone(), lacking });
    if !target.can_log_in.contains(username) {
        return unseen(Lacking::Login);
    }
    // Without a fence only the publication, which follows the change, gives an upper bound for the time of the change;
    // and that time is from SSM's clock.
    let (opened_before, sure_at) = match (changed_at(target, record), observed.published_at()) {
        (Some(changed_at), _) => (changed_at + LOGIN_MARGIN, now),
        (None, Some(at)) if observed.is_published(record) => {
            let sure_at = at + CLOCK_MARGIN;
            (if sure_at > now { at } else { sure_at }, sure_at)
        }
        (None, _) => return None,
    };
    let mut theirs = target.sessions.iter().filter(|session| session.username == *username);
    if theirs.clone().any(|session| session.since.is_some_and(|since| since < opened_before)) {
        let act = Act::EndSessions { username: username.clone(), opened_before: Some(opened_before) };
        return Some(Next::Act { step: Step::Retire, act });
    }
    if theirs.any(|session| session.since.is_none()) {
        return unseen(Lacking::Statistics);
    }
    if sure_at > now { wait(Some(sure_at), Waiting::Grace) } else { None }
}

/// Returns the time, by the target's clock, at which the target was made to refuse the replaced credential.
pub(super) fn retired_at(observed: &Observed, record: &Record) -> Option<DateTime<Utc>> {
    let old = record.credential.as_ref()?.replaces.as_ref()?;
    observed.target.as_ref()?.fences.get(old).filter(|(id, _)| *id >= record.id).map(|(_, at)| *at)
}

/// Returns true when nothing on the host uses the replaced credential any more.
pub fn has_left_the_old(
    host: &HostEvidence,
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
) -> bool {
    let enough = desired.retirement.verify_is_enough;
    let left = |p: &Parameter| record.keeps(p) || host.has_left_the_old(p, record.version_in(p), enough);
    observed.parameters.iter().all(left)
}

fn last_proof(observed: &Observed) -> Option<DateTime<Utc>> {
    let proofs = observed.hosts.iter().flat_map(|host| host.proofs.values()).map(|proof| proof.at);
    proofs.chain(observed.published_at()).max()
}

/// Returns true when the role has the recorded password, if it is changed in place and so has only one password.
pub(super) fn is_installed_in_place(desired: &Desired<'_>, observed: &Observed, record: &Record) -> bool {
    desired.strategy == Some(Strategy::InPlace) && record.credential.is_some() && is_accepted(observed)
}

/// Returns true when a host may run the recorded password of a role that has only one password; a rollback would then
/// lock that host out. Only a comparison after the deployment shows what the host runs.
pub(super) fn may_be_adopted_in_place(desired: &Desired<'_>, observed: &Observed, record: &Record) -> bool {
    let may_run_it = |host: &HostEvidence| {
        let parameter_may = |p: &Parameter| {
            let published = p.published_by(record.id);
            let Some(version) = published.map(|seen| seen.version.number) else { return false };
            let about_it = |f: &&HostFailure| f.versions.get(&p.path) == Some(&version);
            let failed_at = host.failed_deploy.as_ref().filter(about_it).map(|failure| failure.finished_at);
            match host.shown_of(p, published) {
                Some(shown) => shown.proof != Proof::Differs || failed_at.is_some_and(|at| shown.at < at),
                None => failed_at.is_some(),
            }
        };
        host.deploying || observed.parameters.iter().any(parameter_may)
    };
    desired.strategy == Some(Strategy::InPlace) && observed.hosts.iter().any(may_run_it)
}

/// Returns true when a login with a password that nobody knows could remain if the record is given up.
pub(super) fn may_be_installed(observed: &Observed, record: &Record) -> bool {
    let refused = |target: &TargetEvidence| matches!(target.recorded, Some(Acceptance::Refused(_)));
    record.credential.is_some() && !observed.target.as_ref().is_some_and(refused)
}

pub(super) fn is_accepted(observed: &Observed) -> bool {
    observed.target.as_ref().is_some_and(|target| target.recorded == Some(Acceptance::Accepted))
}

/// Returns true while the target does not exist yet, because it takes its first password from the deployment. A server
/// that answers exists, even if it refuses the login, and is given the password before the hosts. The same holds for a
/// server that does not answer until a person repairs it.
pub(super) fn is_not_there_yet(desired: &Desired<'_>, observed: &Observed) -> bool {
    let recorded = observed.target.as_ref().and_then(|target| target.recorded.as_ref());
    let silent = matches!(recorded, Some(Acceptance::Unknown(problem)) if !problem.is_permanent());
    silent && !issued::is_issued(desired)
}

/// Returns the time since which a role that has only one password has had the recorded one: the time of its fence or,
/// without a fence, of the observation that showed it.
pub fn installed_at(desired: &Desired<'_>, observed: &Observed, record: &Record) -> Option<DateTime<Utc>> {
    let target = observed.target.as_ref()?;
    if let Some(changed_at) = changed_at(target, record) {
        return (desired.strategy == Some(Strategy::InPlace)).then_some(changed_at);
    }
    is_installed_in_place(desired, observed, record).then_some(target.at)
}

/// Returns the time of this record's change of its role, from the fence that the same transaction wrote.
fn changed_at(target: &TargetEvidence, record: &Record) -> Option<DateTime<Utc>> {
    let credential = record.credential.as_ref()?;
    target.fences.get(&credential.username).filter(|(id, _)| *id == record.id).map(|(_, at)| *at)
}

/// Returns true when the published login no longer works: the target already accepts the recorded login, which is not
/// published yet. `None` if only the target could show this and it was not observed. The strategy of the record is used
/// as well as the spec's, since the spec may have been edited after the role was changed.
pub fn published_is_dead(desired: &Desired<'_>, observed: &Observed) -> Option<bool> {
    let newest = observed.records.values().next_back();
    let Some((record, credential)) = newest.and_then(|record| Some((record, record.credential.as_ref()?)))
    else {
        return Some(false);
    };
    let in_place = desired.strategy == Some(Strategy::InPlace)
        || credential.replaces.as_ref() == Some(&credential.username);
    let is_published = observed.is_published(record);
    if is_published && (!in_place || record.kept.is_empty()) {
        return Some(false);
    }
    let target = observed.target.as_ref().filter(|target| target.unseen.is_none())?;
    if is_published {
        // The rollback did not publish anything, but still has to give the role its published password again.
        return Some(!is_accepted(observed));
    }
    if issued::is_issued(desired) && matches!(target.published, Some(Acceptance::Refused(_))) {
        return Some(true);
    }
    Some(match &credential.replaces {
        _ if in_place => is_accepted(observed) || changed_at(target, record).is_some(),
        Some(old) if *old != credential.username => {
            let refused = |answer: Option<&Acceptance>| {
                answer.is_none_or(|answer| matches!(answer, Acceptance::Refused(_)))
            };
            !target.can_log_in.contains(old) && refused(target.replaced.get(old))
        }
        _ => false,
    })
}

/// Returns the time until which to wait if a fence has a higher id than everything in Parameter Store: it belongs to a
/// record that reads may not show yet (eventual consistency).
pub(super) fn fence_ahead_until(
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Option<DateTime<Utc>> {
    let target = observed.target.as_ref()?;
    let known = observed.highest_id_in_store(desired.owner);
    let ahead = target.fences.values().filter(|(id, _)| *id > known).map(|(_, at)| *at + grace).max();
    ahead.filter(|until| *until > now)
}
