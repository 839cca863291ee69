//! Renders the status of a ManagedSecret as a whole, from the evidence and the progress of the pass.

mod compromise;
mod conditions;
pub(super) mod progress;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keyturn_api::conditions::{self as c, Said, Truth};
use keyturn_api::docker_host::Proof;
use keyturn_api::managed_secret::{
    FailureStatus, LastRotation, ManagedSecretStatus, OnDrift, Origin, PendingRetirement, PublishedParameter,
    RotationResult, RotationStatus, SecretOnHost, TargetStatus,
};
use keyturn_api::time::{from_kubernetes, to_kubernetes, to_text};
use keyturn_api::{ManagedSecret, Reason};
use keyturn_rotation::observed::{
    Acceptance, Author, Observed, Parameter, Record, Seen, TargetEvidence, Trigger,
};
use keyturn_rotation::protocol::{self, Desired, Request, Step};
use keyturn_rotation::request;
use keyturn_rotation::schedule::Due;

use self::conditions::{evaluate_schedule, facts, held_by_suspend, ready, rotating};
use self::progress::Progress;
use super::desired;

/// Maximum age of a creation that the status still reports if only the published version shows it.
const NEWS: TimeDelta = TimeDelta::days(1);
/// Maximum difference between the clocks of the controller and of the API server.
const SKEW: TimeDelta = TimeDelta::minutes(1);
/// Maximum number of entries in `status.history`.
const MAX_HISTORY: usize = 10;
/// Maximum number of entries in `status.handledRequests`.
const MAX_REQUESTS: usize = 20;
/// Maximum number of entries in `status.target.notes`.
const MAX_NOTES: usize = 32;
/// Maximum number of entries in `pendingRetirements`; the schema allows no more.
const MAX_PENDING: usize = 32;
/// Maximum number of entries in `status.target.setUp`, and maximum number of characters of one.
const MAX_STATEMENTS: usize = 100;
const MAX_STATEMENT: usize = 512;

/// Renders the status. If `observed` is `None`, the evidence could not be read, and everything that depends on it stays
/// as it was.
pub(super) fn render(
    object: &ManagedSecret,
    desired: &Desired<'_>,
    observed: Option<&Observed>,
    progress: &Progress,
    region: &str,
    now: DateTime<Utc>,
) -> ManagedSecretStatus {
    let generation = object.metadata.generation;
    let mut status = object.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    status.region.get_or_insert_with(|| region.to_owned());
    status.preflight = progress.preflight.clone();
    status.failure = progress
        .failure
        .clone()
        .map(|failure| FailureStatus { message: c::cut(&failure.message), ..failure });
    match (observed, &desired.request) {
        (Some(observed), _) => mirror(&mut status, object, desired, observed, progress, now),
        // A request that came with the object counts as handled, even if no evidence could be read yet.
        (None, Some(request)) if desired::is_first_sight(object) => {
            remember_request(&mut status, request.hash.clone());
        }
        (None, _) => {}
    }
    let set = |conditions: &mut Vec<_>, (kind, truth, reason, message): Said| {
        c::set(conditions, kind, truth, reason, &message, generation, now);
    };
    let unusable = || desired::unusable_request(object).map(|message| (Reason::InvalidRequest, message));
    let held = held_by_suspend(&status, desired, observed).map(|message| (Reason::Suspended, message));
    let held = held.or_else(unusable);
    let mut said = vec![
        ready(&status, desired, observed, progress, held.as_ref().map(|(_, why)| why.as_str())),
        rotating(&status, progress, held),
    ];
    if let Some(observed) = observed {
        said.extend(facts(object, desired, observed, progress, now));
        if object.spec.hosts.is_empty() {
            c::clear(&mut status.conditions, c::DEPLOYED);
            c::clear(&mut status.conditions, c::PREFLIGHT);
        }
        let bootstrap = observed.parameters.iter().any(|p| p.versions.is_empty());
        if bootstrap && !progress.blocked.as_ref().is_some_and(|blocked| blocked.trouble.is_permanent()) {
            let message = "The value is being created".into();
            said.push((c::RECONCILING, Truth::True, Reason::Creating, message));
        } else {
            c::clear(&mut status.conditions, c::RECONCILING);
        }
    }
    status.compromise = compromise::follow(object, &status, desired, observed, progress, now);
    match compromise::said(status.compromise.as_ref(), desired, observed, progress) {
        Some(one) => said.push(one),
        None => c::clear(&mut status.conditions, c::COMPROMISED),
    }
    match progress.stalled() {
        Some(trouble) => said.push((c::STALLED, Truth::True, trouble.reason, trouble.message)),
        None => c::clear(&mut status.conditions, c::STALLED),
    }
    for one in said {
        set(&mut status.conditions, one);
    }
    status.conditions.sort_by_key(|condition| order(&condition.type_));
    status
}

fn order(kind: &str) -> usize {
    let known = [
        c::READY,
        c::ROTATING,
        c::DEPLOYED,
        c::OVERDUE,
        c::DRIFTED,
        c::COMPROMISED,
        c::PREFLIGHT,
        c::RECONCILING,
        c::STALLED,
    ];
    known.iter().position(|k| *k == kind).unwrap_or(known.len())
}

fn mirror(
    status: &mut ManagedSecretStatus,
    object: &ManagedSecret,
    desired: &Desired<'_>,
    observed: &Observed,
    progress: &Progress,
    now: DateTime<Utc>,
) {
    let adopt = desired.on_drift == OnDrift::Adopt;
    status.parameters = observed.parameters.iter().filter_map(|p| published(p, adopt)).collect();
    let made = observed.parameters.iter().filter_map(|p| p.latest()).map(Seen::made_at).min();
    status.last_rotation_time = made.map(to_kubernetes);
    status.next_rotation_time =
        evaluate_schedule(desired, observed, now).and_then(|verdict| match verdict.next {
            Due::At(at) if !desired.suspended => Some(to_text(at)),
            _ => None,
        });
    // While a rotation runs, hosts that have left the spec are listed too: they still have to prove the new version.
    let counts = |name: &String| desired.hosts.contains(name) || !observed.records.is_empty();
    status.hosts = observed
        .hosts
        .iter()
        .filter(|h| counts(&h.name))
        .map(|host| {
            let proven = |p: &Parameter| host.proof_of(p, p.latest()) == Some(Proof::Proven);
            let version =
                observed.parameters.iter().filter_map(|p| host.proofs.get(&p.path)).map(|p| p.version).max();
            SecretOnHost { name: host.name.clone(), version, proven: observed.parameters.iter().all(proven) }
        })
        .collect();
    status.rotation = observed.records.values().next_back().map(|record| RotationStatus {
        id: i64::try_from(record.id).unwrap_or(i64::MAX),
        trigger: record.trigger,
        step: step(desired, observed, record, progress),
        request: record.request.clone(),
        started_at: to_kubernetes(record.at),
        installed_at: before(object, record)
            .and_then(|r| r.installed_at.clone())
            .or(progress.installed_at.map(to_kubernetes))
            .or_else(|| protocol::installed_at(desired, observed, record).map(to_kubernetes)),
        proven_at: before(object, record).and_then(|r| r.proven_at.clone()).or_else(|| {
            // A host whose object is not there counts too, since a cache may just not show it yet.
            let mut hosts = observed.hosts.iter().filter(|host| counts(&host.name));
            let proven = observed.is_published(record)
                && hosts.all(|host| protocol::has_left_the_old(host, desired, observed, record));
            (proven && record.credential.is_some()).then(|| to_kubernetes(now))
        }),
        attempts: progress.failure.as_ref().map_or(0, |f| f.attempts),
        message: c::cut(&progress.message()),
    });
    status.pending_retirements = pending_retirements(desired, observed, status, progress);
    if let Some(target) = &observed.target {
        status.target = mirrored_target(status.target.as_ref(), target, observed, now);
    }
    let found = [
        ended_untold(object, desired, observed, now),
        ended_unseen(object, observed, now),
        created_untold(object, desired, observed, now),
    ];
    let is_known = |found: &LastRotation| progress.untold.iter().any(|untold| untold.id == found.id);
    let found = found.into_iter().flatten().filter(|found| !is_known(found));
    for ended in progress.untold.iter().cloned().chain(found).chain(progress.ended.iter().cloned()) {
        remember(status, ended);
    }
    answer_request(status, desired, observed, desired::is_first_sight(object), now);
}

/// Returns the step that a rotation is in. Hosts depend on it, so it follows from the evidence. Only the steps after
/// the deployment, and an abort, come from the protocol's answer.
fn step(desired: &Desired<'_>, observed: &Observed, record: &Record, progress: &Progress) -> Step {
    match progress.step() {
        Some(step @ (Step::Retire | Step::Close | Step::Abort)) => step,
        _ => protocol::step_of(desired, observed, record),
    }
}

/// True when the status reports the end of the rotation with this id and start time. The time counts too, since an id
/// is used again if no published version shows the earlier rotation.
pub(super) fn is_told(status: &ManagedSecretStatus, id: i64, begun: &Time) -> bool {
    let since = |ended: &LastRotation| ended.finished_at.as_ref().is_none_or(|at| at >= begun);
    status.history.iter().any(|ended| ended.id == Some(id) && since(ended))
}

/// Returns the end of a rotation that the status still shows as running: a controller died after it deleted the record
/// and before it wrote the status. Only a rollback and a rotation whose value is published are recognised, since an
/// aborted rotation cannot be distinguished from a lost record.
fn ended_unseen(object: &ManagedSecret, observed: &Observed, now: DateTime<Utc>) -> Option<LastRotation> {
    let status = object.status.as_ref()?;
    let rotation = status.rotation.as_ref()?;
    let id = u64::try_from(rotation.id).ok()?;
    let told = is_told(status, rotation.id, &rotation.started_at);
    // A rollback is never given up. If the failed rotation had published nothing, the rollback publishes nothing
    // either.
    let rolled_back = rotation.trigger == Trigger::RollBack;
    let ended = observed.ends_with(id) || rolled_back && observed.records.is_empty();
    if told || observed.records.contains_key(&id) || !ended {
        return None;
    }
    let result = if rolled_back { RotationResult::RolledBack } else { RotationResult::Succeeded };
    Some(LastRotation {
        id: Some(rotation.id),
        request: rotation.request.clone(),
        trigger: Some(rotation.trigger),
        result,
        finished_at: Some(to_kubernetes(now)),
        window_seconds: None,
    })
}

/// Returns the rotation that published the present value, if it began and ended while no status could be written.
/// Returns `None` while the finalizer is set, since a record may then exist that reads do not show yet.
fn ended_untold(
    object: &ManagedSecret,
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
) -> Option<LastRotation> {
    let status = object.status.as_ref()?;
    let told = status.last_rotation.as_ref()?.id?;
    let published = observed.parameters.first()?.latest()?;
    let Author::Ours(id) = published.author else { return None };
    let is_settled = observed.records.is_empty() && !desired.finalizer;
    let is_news = i64::try_from(id).is_ok_and(|id| id > told);
    (is_news && is_settled && observed.ends_with(id)).then(|| LastRotation {
        id: i64::try_from(id).ok(),
        request: None,
        trigger: None,
        result: if published.brought_back_at().is_some() {
            RotationResult::RolledBack
        } else {
            RotationResult::Succeeded
        },
        finished_at: Some(to_kubernetes(now)),
        window_seconds: None,
    })
}

/// Returns the creation that published the present value. It has no record, so only this version shows it. A creation
/// that is older than a day is not reported, for example after the status was lost.
fn created_untold(
    object: &ManagedSecret,
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
) -> Option<LastRotation> {
    let [Parameter { versions, .. }] = &observed.parameters[..] else { return None };
    let Some(Seen { version, author: Author::Ours(id), .. }) = versions.last() else { return None };
    let stamp = version.stamp.as_ref().filter(|stamp| stamp.version == 1 && version.number == 1)?;
    let status = object.status.as_ref();
    let since = |at: &Time| from_kubernetes(at).timestamp() >= stamp.at.timestamp();
    let last = status.and_then(|status| status.last_rotation.as_ref());
    let is_told = last.is_some_and(|last| last.finished_at.as_ref().is_none_or(since));
    let has_a_record = !observed.records.is_empty() || status.is_some_and(|status| status.rotation.is_some());
    if is_told || has_a_record || desired.concerns_others() || stamp.at + NEWS <= now {
        return None;
    }
    // A request that came with the object is recorded before any evidence can be read. The first value still answers
    // it, unless that value was made for an earlier object.
    let came_first =
        last.is_none() && stamp.request.is_none() && stamp.at + SKEW >= desired.timing.created_at;
    let is_answered = |request: &&Request<'_>| {
        stamp.request.as_ref() == Some(&request.hash) || came_first && request.handled
    };
    let request = desired.request.as_ref().filter(is_answered);
    Some(LastRotation {
        id: i64::try_from(*id).ok(),
        request: request.map(|request| request.token.to_owned()),
        trigger: Some(Trigger::Missing),
        result: RotationResult::Succeeded,
        finished_at: Some(to_kubernetes(version.modified.max(stamp.at))),
        window_seconds: None,
    })
}

/// Returns the earlier status of this rotation.
fn before<'a>(object: &'a ManagedSecret, record: &Record) -> Option<&'a RotationStatus> {
    let rotation = object.status.as_ref()?.rotation.as_ref()?;
    (u64::try_from(rotation.id).ok() == Some(record.id)).then_some(rotation)
}

fn pending_retirements(
    desired: &Desired<'_>,
    observed: &Observed,
    status: &ManagedSecretStatus,
    progress: &Progress,
) -> Vec<PendingRetirement> {
    let Some(record) = observed.records.values().next_back() else { return Vec::new() };
    let proven = status.rotation.as_ref().and_then(|r| r.proven_at.as_ref()).map(from_kubernetes);
    let Some(proven) = proven else { return Vec::new() };
    let pending = |credential| PendingRetirement {
        credential,
        not_before: to_kubernetes(proven + desired.retirement.after),
        message: progress.message(),
    };
    protocol::unretired(desired, observed, record).into_iter().take(MAX_PENDING).map(pending).collect()
}

/// Returns the target's answer about the published login. If the target was asked only about the login that will
/// replace it, the status stays as it was. The login of a record that had reappeared does not count as the published
/// one.
fn mirrored_target(
    before: Option<&TargetStatus>,
    target: &TargetEvidence,
    observed: &Observed,
    now: DateTime<Utc>,
) -> Option<TargetStatus> {
    let is_published =
        |record: &Record| observed.is_published(record) && !protocol::has_come_back(observed, record);
    let published = observed.records.values().next_back().is_none_or(is_published);
    // Once the recorded login is published, the answer about the login before it does not matter.
    let superseded = published && !observed.records.is_empty();
    let answer = target.published.as_ref().filter(|_| !superseded);
    let answer = answer.or(target.recorded.as_ref().filter(|_| published));
    let (accepts, message) = match answer {
        Some(Acceptance::Accepted) => (true, String::new()),
        Some(Acceptance::Refused(problem)) => (false, c::cut(&problem.message)),
        Some(Acceptance::Unknown(_)) | None => return before.cloned(),
    };
    let seen = TargetStatus {
        accepts,
        checked_at: to_kubernetes(target.at),
        fenced: if target.unseen.is_some() { before.is_some_and(|b| b.fenced) } else { target.fenced },
        message,
        notes: target.notes.iter().take(MAX_NOTES).cloned().collect(),
        set_up: shown(&target.set_up),
    };
    // A check with the same result is written at most once an hour.
    let unchanged = before.filter(|before| {
        let same = TargetStatus { checked_at: seen.checked_at.clone(), ..(*before).clone() } == seen;
        same && now - from_kubernetes(&before.checked_at) < TimeDelta::hours(1)
    });
    Some(unchanged.cloned().unwrap_or(seen))
}

/// Returns as many statements as the status may hold, each cut to its maximum length.
fn shown(statements: &[String]) -> Vec<String> {
    let short = |statement: &String| statement.chars().take(MAX_STATEMENT).collect::<String>();
    let mut shown: Vec<String> = statements.iter().take(MAX_STATEMENTS).map(short).collect();
    if statements.len() > shown.len() {
        shown.truncate(MAX_STATEMENTS - 1);
        shown.push(format!("-- and {} more", statements.len() - shown.len()));
    }
    shown
}

/// Returns the number of seconds in which the hosts had no working password, if a role was changed in place; otherwise
/// `None`.
pub(super) fn window_seconds(
    object: &ManagedSecret,
    observed: &Observed,
    record: &Record,
    progress: &Progress,
) -> Option<i64> {
    let installed = before(object, record)
        .and_then(|r| r.installed_at.as_ref().map(from_kubernetes))
        .or(progress.installed_at)?;
    let proofs = observed.hosts.iter().flat_map(|host| {
        observed.parameters.iter().filter_map(|p| {
            let proof = host.proofs.get(&p.path)?;
            record.version_in(p).filter(|seen| proof.is_of(seen)).map(|_| proof.at)
        })
    });
    let known = before(object, record).and_then(|r| r.proven_at.as_ref().map(from_kubernetes));
    let proven = proofs.max().map(|last| known.map_or(last, |known| known.min(last)))?;
    Some((proven - installed).num_seconds().max(0))
}

fn published(parameter: &Parameter, adopt: bool) -> Option<PublishedParameter> {
    let latest = parameter.latest()?;
    let origin = match latest.author {
        Author::Ours(_) => Origin::Rotated,
        Author::Original => Origin::Adopted,
        Author::Foreign if adopt => Origin::Adopted,
        Author::Foreign | Author::OtherOwner(_) => Origin::Foreign,
    };
    let version = latest.version.number;
    let published_at = to_kubernetes(latest.published_at());
    Some(PublishedParameter { path: parameter.path.clone(), version, origin, published_at })
}

fn remember(status: &mut ManagedSecretStatus, ended: LastRotation) {
    if let Some(token) = ended.request.as_deref() {
        remember_request(status, request::hash(token));
    }
    status.history.retain(|entry| entry.id != ended.id || entry.id.is_none());
    status.history.insert(0, ended.clone());
    status.history.truncate(MAX_HISTORY);
    status.last_rotation = Some(ended);
}

fn remember_request(status: &mut ManagedSecretStatus, hash: String) {
    if !status.handled_requests.contains(&hash) {
        status.handled_requests.insert(0, hash);
        status.handled_requests.truncate(MAX_REQUESTS);
    }
}

/// Answers the request in the annotation. If the status has lost the answer, it is derived from the published versions.
/// A request that came with a new object is recorded and not executed.
fn answer_request(
    status: &mut ManagedSecretStatus,
    desired: &Desired<'_>,
    observed: &Observed,
    first_sight: bool,
    now: DateTime<Utc>,
) {
    let Some(request) = &desired.request else { return };
    let known = request.handled || status.handled_requests.contains(&request.hash);
    if known {
        remember_request(status, request.hash.clone());
    }
    // A request that was recorded before any evidence could be read still has to be reported.
    let told = known && status.last_rotation.is_some();
    if told || observed.records.values().any(|r| r.request.as_deref() == Some(request.token)) {
        return;
    }
    let published = observed.ids_of_request(&request.hash);
    if let Some(id) = published.last() {
        remember_request(status, request.hash.clone());
        // A later rotation has ended since, but the status was lost. The earlier one must not be reported as the last.
        if observed.highest_id_in_store(desired.owner) > *id {
            return;
        }
        let id = i64::try_from(*id).ok();
        // Two published values for one request mean a rollback, except in an incident: there the second value is a new
        // one.
        let rolled_back = published.len() > 1 && desired.incidents.is_empty();
        let result = if rolled_back { RotationResult::RolledBack } else { RotationResult::Succeeded };
        let ended = LastRotation {
            id,
            request: Some(request.token.to_owned()),
            trigger: Some(Trigger::Request),
            result,
            finished_at: Some(to_kubernetes(now)),
            window_seconds: None,
        };
        remember(status, ended);
    } else if (first_sight || known) && observed.parameters.iter().any(|p| !p.versions.is_empty()) {
        // The request is added to the history too, since a running rotation will soon replace it in `lastRotation`.
        remember(
            status,
            LastRotation {
                id: None,
                request: Some(request.token.to_owned()),
                trigger: None,
                result: RotationResult::Recorded,
                finished_at: Some(to_kubernetes(now)),
                window_seconds: None,
            },
        );
    }
}

/// Returns the end of the rotation of a record, for status and Event.
pub(super) fn ended(record: &Record, superseded: bool, now: DateTime<Utc>) -> LastRotation {
    let result = match record.trigger {
        _ if superseded => RotationResult::Aborted,
        Trigger::RollBack => RotationResult::RolledBack,
        _ => RotationResult::Succeeded,
    };
    LastRotation {
        id: i64::try_from(record.id).ok(),
        request: record.request.clone(),
        trigger: Some(record.trigger),
        result,
        finished_at: Some(to_kubernetes(now)),
        window_seconds: None,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
