//! Install and Retire: what a system that must accept the credential adds to a rotation.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Act, Desired, Next, Step, Strategy, Waiting, issued, suspicion, young_until};
use crate::api::docker_host::Proof;
use crate::rotation::observed::{Acceptance, Credential, HostEvidence, Observed, Record, TargetEvidence};

/// A login with the old password may have been under way while it was changed.
const LOGIN_MARGIN: TimeDelta = TimeDelta::seconds(5);

/// What is left to do before the target accepts the recorded credential; `None` where it does.
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
    // Once it is published the hosts are served first; what the target says is looked at again before the end.
    let published = observed.is_published_by(record.id);
    match &target.recorded {
        None => return wait(Waiting::TargetUnseen),
        Some(Acceptance::Unknown(_)) if published => return None,
        Some(Acceptance::Unknown(problem)) => return wait(Waiting::Target(problem.clone())),
        // A late request of an older rotation could still undo it where the fence is not this rotation's.
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
    Some(Next::Act { step: Step::Install, act: Act::Install { id: record.id } })
}

/// Every host runs the recorded credential and the target has not said yet that it accepts it: nothing is retired or
/// closed on a guess.
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

/// What is left to do before the target refuses the credential that was replaced; `None` where nothing is.
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
    let Some(old) = credential.replaces.as_ref().filter(|old| **old != credential.username) else {
        // Its only password was changed; whoever had logged in with the old one still is.
        return if hurry { end_older_sessions(observed, record, credential) } else { None };
    };
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
    if issued::is_issued(desired) {
        return issued::retire(observed, record, target, wanted_at, now);
    }
    if target.superusers.contains(old) {
        return None;
    }
    let theirs = target.sessions.iter().filter(|session| session.username == *old);
    let clients: Vec<String> = theirs.map(|session| session.client.clone()).collect();
    let fenced = !target.fenced || target.fences.get(old).is_some_and(|(id, _)| *id >= record.id);
    if !target.can_log_in.contains(old) && fenced {
        // Whoever logged in at the last moment.
        let end = || Act::EndSessions { username: old.clone(), opened_before: None };
        return if clients.is_empty() { None } else { act(end()) };
    }
    if !clients.is_empty() && !hurry {
        return wait(None, Waiting::Sessions { username: old.clone(), clients });
    }
    act(Act::Retire { id: record.id, username: old.clone() })
}

/// Whether the target was seen to refuse what the record replaces, with nobody logged in by it any more.
pub(super) fn has_revoked(observed: &Observed, record: &Record) -> bool {
    let Some(credential) = &record.credential else { return true };
    let Some(target) = observed.target.as_ref().filter(|target| target.unseen.is_none()) else {
        return false;
    };
    match credential.replaces.as_ref().filter(|old| **old != credential.username) {
        None => is_accepted(observed) && end_older_sessions(observed, record, credential).is_none(),
        Some(old) => {
            issued::are_gone(observed, record, target)
                && !target.can_log_in.contains(old)
                && target.sessions.iter().all(|session| session.username != *old)
        }
    }
}

/// Ends what was logged in before the password was changed in place. Without a fence nothing tells when that was.
fn end_older_sessions(observed: &Observed, record: &Record, credential: &Credential) -> Option<Next> {
    let target = observed.target.as_ref()?;
    let username = &credential.username;
    let (_, changed_at) = target.fences.get(username).filter(|(id, _)| *id == record.id)?;
    let opened_before = *changed_at + LOGIN_MARGIN;
    let older = target.sessions.iter().any(|session| {
        session.username == *username && session.since.is_some_and(|since| since < opened_before)
    });
    let act = Act::EndSessions { username: username.clone(), opened_before: Some(opened_before) };
    older.then_some(Next::Act { step: Step::Retire, act })
}

/// When the target was made to refuse what the record replaces, by its own clock.
pub(super) fn retired_at(observed: &Observed, record: &Record) -> Option<DateTime<Utc>> {
    let old = record.credential.as_ref()?.replaces.as_ref()?;
    observed.target.as_ref()?.fences.get(old).filter(|(id, _)| *id >= record.id).map(|(_, at)| *at)
}

/// Whether containers were seen to run the new value, or a person said that a passed verify script is enough.
fn has_left_the_old(
    host: &HostEvidence,
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
) -> bool {
    observed.parameters.iter().all(|parameter| {
        match host.proof_of(parameter, parameter.published_by(record.id)) {
            Some(Proof::Proven) => true,
            Some(Proof::Incomparable) => desired.retirement.verify_is_enough,
            _ => false,
        }
    })
}

fn last_proof(observed: &Observed) -> Option<DateTime<Utc>> {
    let proofs = observed.hosts.iter().flat_map(|host| host.proofs.values()).map(|proof| proof.at);
    proofs.chain(observed.published_at()).max()
}

/// Whether a role that has one password only has been given the recorded one.
pub(super) fn is_installed_in_place(desired: &Desired<'_>, observed: &Observed, record: &Record) -> bool {
    desired.strategy == Some(Strategy::InPlace) && record.credential.is_some() && is_accepted(observed)
}

/// Whether a host runs the recorded password of a role that has only one: rolling back would lock it out.
pub(super) fn is_adopted_in_place(desired: &Desired<'_>, observed: &Observed, record: &Record) -> bool {
    let proven = |host: &HostEvidence| {
        let mut parameters = observed.parameters.iter();
        parameters.any(|p| host.proof_of(p, p.published_by(record.id)) == Some(Proof::Proven))
    };
    desired.strategy == Some(Strategy::InPlace) && observed.hosts.iter().any(proven)
}

/// Whether giving the record up could leave a login behind whose password nobody knows.
pub(super) fn may_be_installed(observed: &Observed, record: &Record) -> bool {
    let refused = |target: &TargetEvidence| matches!(target.recorded, Some(Acceptance::Refused(_)));
    record.credential.is_some() && !observed.target.as_ref().is_some_and(refused)
}

pub(super) fn is_accepted(observed: &Observed) -> bool {
    observed.target.as_ref().is_some_and(|target| target.recorded == Some(Acceptance::Accepted))
}

/// A fence ahead of everything in Parameter Store is of a record that reads may not show yet: until when to wait.
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
