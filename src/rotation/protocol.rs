//! What happens next to one secret: Record, Install, Promote, Deploy, Retire, Close.
//!
//! [`next`] is a pure function of what is wanted, the evidence and the time. It has no memory: a controller that has
//! lost its status, or a second one that runs beside it, comes to the same answer, and every act is one that both may
//! perform. The rules and why they are needed: `docs/protocol.md`.
//!
//! Random values need neither Install nor Retire: nothing but the hosts has to accept them, and a value that is not
//! deployed any more opens nothing. Sources that do need them get their steps here.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::observed::{Author, HostEvidence, Observed, Parameter, Record, RotationId, Trigger};
use super::schedule::{self, Due, Schedule, Verdict};
use super::window::WindowError;
use crate::api::docker_host::Proof;
use crate::api::managed_secret::{IfMissing, OnDrift, OnFailure};
use crate::api::window::Window;

/// What is wanted of one secret.
pub struct Desired<'a> {
    /// `<cluster>/<namespace>/<name>`.
    pub owner: &'a str,
    /// When the object was asked to be deleted.
    pub deleting: Option<DateTime<Utc>>,
    /// `deletionPolicy: Delete`.
    pub delete_parameters: bool,
    pub suspended: bool,
    /// Whether the object carries keyturn's finalizer.
    pub finalizer: bool,
    pub if_missing: IfMissing,
    pub on_failure: OnFailure,
    pub on_drift: OnDrift,
    /// DockerHosts that must run it.
    pub hosts: Vec<String>,
    pub request: Option<Request<'a>>,
    pub timing: Timing<'a>,
    /// When the hosts were last asked to show that a rotation may start.
    pub preflight_requested: Option<DateTime<Utc>>,
}

/// The annotation that asks for a rotation.
pub struct Request<'a> {
    pub token: &'a str,
    /// Its hash, as published descriptions carry it.
    pub hash: String,
    /// Whether status already says that it was dealt with.
    pub handled: bool,
    /// Whether this is the first time that keyturn looks at the object (its status is empty): a token that came with
    /// the object, as in re-applied YAML, is an old one unless the parameter is missing too.
    pub first_sight: bool,
}

/// When a rotation may start.
pub struct Timing<'a> {
    /// `None`: on demand only.
    pub period: Option<TimeDelta>,
    pub windows: &'a [Window],
    pub host_windows: &'a [&'a [Window]],
    pub first_rotation_delay: TimeDelta,
    pub spread: TimeDelta,
    pub created_at: DateTime<Utc>,
    pub identity: &'a str,
}

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Preflight,
    Record,
    Promote,
    Deploy,
    Close,
    /// An abort marker lies beside the record.
    Abort,
}

/// One effect on the world outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Add the finalizer.
    Hold,
    /// Ask the hosts for a fresh proof.
    AskPreflight,
    /// Draw the values and create the record.
    Record {
        id: RotationId,
        trigger: Trigger,
        request: Option<String>,
        base: BTreeMap<String, i64>,
        hosts: Vec<String>,
    },
    /// Create a record that publishes again what rotation `failed` replaced.
    RecordRollBack {
        id: RotationId,
        failed: RotationId,
        base: BTreeMap<String, i64>,
        hosts: Vec<String>,
    },
    /// Publish the recorded value. `expected` is the number that the version should get; 1 creates the parameter.
    Promote {
        id: RotationId,
        path: String,
        expected: i64,
    },
    /// Write the abort marker of this id.
    MarkAbort {
        id: RotationId,
    },
    DeleteRecord {
        id: RotationId,
    },
    SweepMarker {
        id: RotationId,
    },
    /// `deletionPolicy: Delete`.
    DeleteParameter {
        path: String,
    },
    /// Remove the finalizer.
    Release,
    /// Remove the finalizer although the rotation could not be finished in time after the object was deleted.
    Abandon,
}

/// Why nothing is done at the moment although something is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The published version, the marker or the request before it is younger than the grace.
    Grace,
    /// Hosts have been asked for a fresh proof.
    Preflight,
    /// Hosts do not answer, fail verify, or run another value than the published one.
    PreflightFailed { host: String, reason: String, message: String },
    /// Hosts have not proven the new version yet.
    Deploy { host: String },
    /// A deployment failed; `for_good` when enough attempts did.
    DeployFailed { host: String, reason: String, message: String, for_good: bool },
    /// Somebody else wrote the parameter and a person has to say what counts.
    Drift { path: String, version: i64 },
}

/// Why nothing will happen until a person acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    #[error(
        "parameter {path} belongs to {owner}: its description says so. Let that object manage it, or remove the text \
         from `keyturn owner=` on from the description"
    )]
    OwnedByOther { path: String, owner: String },
    #[error(
        "parameter {path} does not exist and ssm.ifMissing is Stall: check the path, put the value that is in use, or \
         set ifMissing: Create"
    )]
    ParameterMissing { path: String },
    #[error(
        "parameter {path} does not exist while others of this object do: put it, or set the annotation \
         keyturn.dev/rotate-requested-at to a new value to publish a new value in all of them"
    )]
    PartlyMissing { path: String },
    #[error("DockerHost {host} does not exist in this namespace: create it, or take it out of spec.hosts")]
    HostMissing { host: String },
    #[error(
        "the record of rotation {id} is about other parameters than spec.ssm.parameters: it was begun for an object of \
         this name that published {paths}. Apply that object again to finish it, or delete the record in SSM"
    )]
    OtherParameters { id: RotationId, paths: String },
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error(
        "the windows of the secret and of its hosts never open together within a year: change one of them"
    )]
    NoWindow,
}

impl Stalled {
    pub fn reason(&self) -> &'static str {
        match self {
            Stalled::OwnedByOther { .. } => "OwnedByOther",
            Stalled::ParameterMissing { .. } => "ParameterMissing",
            Stalled::PartlyMissing { .. } => "ParameterMissing",
            Stalled::HostMissing { .. } => "HostMissing",
            Stalled::OtherParameters { .. } => "OtherParameters",
            Stalled::Window(_) => "InvalidWindow",
            Stalled::NoWindow => "NoWindow",
        }
    }
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is wanted before `at` (never: on demand only, or suspended).
    Rest {
        at: Option<DateTime<Utc>>,
    },
    /// Something is under way; look again at `until`, or when a host says something.
    Wait {
        step: Step,
        until: Option<DateTime<Utc>>,
        why: Waiting,
    },
    Act {
        step: Step,
        act: Act,
    },
    Stall(Stalled),
}

/// How long a deleted object is held, at the most, to finish its rotation.
pub const DELETION_DEADLINE: TimeDelta = TimeDelta::hours(1);

/// The one next step. `grace` is longer than any request of ours can live.
pub fn next(desired: &Desired<'_>, observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Next {
    if let Some((path, owner)) = owned_by_other(observed) {
        return Next::Stall(Stalled::OwnedByOther { path, owner });
    }
    if let Some(id) = expired_marker(observed, now, grace) {
        return Next::Act { step: Step::Abort, act: Act::SweepMarker { id } };
    }
    match observed.records.last_key_value() {
        Some((_, record)) => go_on(desired, observed, record, now, grace),
        None if desired.deleting.is_some() => delete(desired, observed, now, grace),
        None => start_or_rest(desired, observed, now, grace),
    }
}

fn owned_by_other(observed: &Observed) -> Option<(String, String)> {
    observed.parameters.iter().find_map(|p| match &p.latest()?.author {
        Author::OtherOwner(owner) => Some((p.path.clone(), owner.clone())),
        _ => None,
    })
}

/// A marker outlives its record, so that a late create of that record finds it, and is swept after the grace.
fn expired_marker(observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Option<RotationId> {
    let stray =
        observed.aborts.iter().find(|(id, at)| !observed.records.contains_key(id) && **at + grace <= now);
    stray.map(|(id, _)| *id)
}

/// Where the age of the published value stands against the period and the windows.
///
/// # Errors
/// A window that cannot be read.
pub fn look_at_schedule(
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
) -> Result<Option<Verdict>, WindowError> {
    let timing = &desired.timing;
    let Some(made_at) = observed.parameters.iter().filter_map(made_at).min() else { return Ok(None) };
    let rotated_before = observed
        .parameters
        .iter()
        .all(|p| p.latest().is_some_and(|seen| matches!(seen.author, Author::Ours(_) | Author::Foreign)));
    schedule::look(
        &Schedule {
            period: timing.period,
            windows: timing.windows,
            host_windows: timing.host_windows,
            made_at,
            adopted_at: (!rotated_before).then_some(timing.created_at),
            first_rotation_delay: timing.first_rotation_delay,
            spread: timing.spread,
            identity: timing.identity,
        },
        now,
    )
    .map(Some)
}

/// When the latest value of a parameter was made: what our stamp says, else when SSM took it.
pub fn made_at(parameter: &Parameter) -> Option<DateTime<Utc>> {
    let latest = parameter.latest()?;
    match (&latest.author, &latest.version.stamp) {
        (Author::Ours(_), Some(stamp)) => Some(stamp.at),
        _ => Some(latest.version.modified),
    }
}

fn delete(desired: &Desired<'_>, observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Next {
    if !desired.finalizer {
        return Next::Rest { at: None };
    }
    if let Some(at) = observed.aborts.values().max() {
        return Next::Wait { step: Step::Abort, until: Some(*at + grace), why: Waiting::Grace };
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

/// The end of the grace over the youngest published version, where that lies ahead.
fn young_until(observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Option<DateTime<Utc>> {
    observed.published_at().map(|at| at + grace).filter(|until| *until > now)
}

fn start_or_rest(desired: &Desired<'_>, observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Next {
    let request = unhandled_request(desired, observed);
    let missing: Vec<&Parameter> = observed.parameters.iter().filter(|p| p.versions.is_empty()).collect();
    let all_missing = missing.len() == observed.parameters.len();
    if all_missing && desired.if_missing == IfMissing::Create {
        if desired.suspended {
            return Next::Rest { at: None };
        }
        return start(desired, observed, Trigger::Missing, now, grace);
    }
    if let Some(parameter) = missing.first()
        && (all_missing || request.is_none())
    {
        let path = parameter.path.clone();
        return Next::Stall(if all_missing {
            Stalled::ParameterMissing { path }
        } else {
            Stalled::PartlyMissing { path }
        });
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
    let verdict = match look_at_schedule(desired, observed, now) {
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

/// Keeps the finalizer in step with what it is for, where nothing else is to be done.
fn release_or(
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
    grace: TimeDelta,
    rest: Next,
) -> Next {
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
        _ => Next::Act { step: Step::Close, act: Act::Release },
    }
}

/// A request is handled when status or any published description says so; one that came with the object is not new.
pub fn unhandled_request<'a>(desired: &'a Desired<'_>, observed: &Observed) -> Option<&'a Request<'a>> {
    let request = desired.request.as_ref()?;
    let published = !observed.ids_of_request(&request.hash).is_empty();
    (!request.handled && !request.first_sight && !published).then_some(request)
}

fn exists(observed: &Observed, host: &str) -> bool {
    observed.hosts.iter().any(|h| h.name == host && h.exists)
}

/// The first path whose latest version somebody else wrote.
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
    // A record behind a young version might still be invisible to this reader.
    if let Some(until) = young_until(observed, now, grace) {
        return Next::Wait { step: Step::Record, until: Some(until), why: Waiting::Grace };
    }
    if matches!(trigger, Trigger::Period | Trigger::Request) {
        match preflight(desired, observed) {
            Preflight::Passed => {}
            Preflight::NotAsked => return Next::Act { step: Step::Preflight, act: Act::AskPreflight },
            Preflight::Pending => {
                return Next::Wait { step: Step::Preflight, until: None, why: Waiting::Preflight };
            }
            Preflight::Failed { host, reason, message } => {
                let why = Waiting::PreflightFailed { host, reason, message };
                return Next::Wait { step: Step::Preflight, until: None, why };
            }
        }
    }
    if !desired.finalizer {
        return Next::Act { step: Step::Record, act: Act::Hold };
    }
    Next::Act {
        step: Step::Record,
        act: Act::Record {
            id: observed.highest_id(desired.owner) + 1,
            trigger,
            request: desired.request.as_ref().filter(|r| !r.handled).map(|r| r.token.to_owned()),
            base: base(observed),
            hosts: desired.hosts.clone(),
        },
    }
}

fn base(observed: &Observed) -> BTreeMap<String, i64> {
    observed.parameters.iter().map(|p| (p.path.clone(), p.latest_number())).collect()
}

enum Preflight {
    NotAsked,
    Pending,
    Passed,
    Failed { host: String, reason: String, message: String },
}

/// The published value must be what the hosts run, and they must work, before anything is touched.
fn preflight(desired: &Desired<'_>, observed: &Observed) -> Preflight {
    if desired.hosts.is_empty() {
        return Preflight::Passed;
    }
    let Some(requested) = desired.preflight_requested else { return Preflight::NotAsked };
    let mut pending = false;
    for host in observed.hosts.iter().filter(|h| desired.hosts.contains(&h.name)) {
        if let Some(failure) = host.failure.as_ref().filter(|f| f.finished_at >= requested) {
            return Preflight::Failed {
                host: host.name.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
            };
        }
        for parameter in &observed.parameters {
            match host.proofs.get(&parameter.path) {
                Some(proof) if proof.at >= requested && proof.version == parameter.latest_number() => {
                    if proof.proof == Proof::Differs {
                        return Preflight::Failed {
                            host: host.name.clone(),
                            reason: "ValueDiffers".to_owned(),
                            message: format!(
                                "a running container does not hold version {} of {}: deploy what is published, or put \
                                 what is in use, and the rotation goes on by itself",
                                proof.version, parameter.path
                            ),
                        };
                    }
                }
                _ => pending = true,
            }
        }
    }
    if pending { Preflight::Pending } else { Preflight::Passed }
}

fn go_on(
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
    let drift = foreign_since(observed, record);
    if let Some(marked) = observed.aborts.get(&id)
        && record.trigger != Trigger::RollBack
    {
        if *marked + grace > now {
            return Next::Wait { step: Step::Abort, until: Some(*marked + grace), why: Waiting::Grace };
        }
        if let Some(act) = aborted(desired, observed, record, drift.is_some()) {
            return Next::Act { step: Step::Abort, act };
        }
        // void: what the marker was for has passed, so the rotation goes on
    }
    if superseded(observed, id) {
        return Next::Act { step: Step::Close, act: Act::DeleteRecord { id } };
    }
    if let Some((path, version)) = drift {
        match desired.on_drift {
            OnDrift::Alert => {
                return Next::Wait {
                    step: Step::Promote,
                    until: None,
                    why: Waiting::Drift { path, version },
                };
            }
            OnDrift::Adopt if observed.is_partly_published_by(id) => return close(observed, now, grace),
            OnDrift::Adopt if observed.aborts.contains_key(&id) => {}
            OnDrift::Adopt => return Next::Act { step: Step::Abort, act: Act::MarkAbort { id } },
            OnDrift::Rotate => {}
        }
    }
    if let Some(parameter) = observed.parameters.iter().find(|p| !p.is_published_by(id)) {
        return Next::Act {
            step: Step::Promote,
            act: Act::Promote { id, path: parameter.path.clone(), expected: parameter.latest_number() + 1 },
        };
    }
    match deployment(desired, observed, record) {
        Deployment::Proven => close(observed, now, grace),
        Deployment::Missing { host } => Next::Stall(Stalled::HostMissing { host }),
        Deployment::Pending { host } => {
            Next::Wait { step: Step::Deploy, until: None, why: Waiting::Deploy { host } }
        }
        Deployment::Failed { host, reason, message, for_good } => {
            let roll_back = for_good
                && desired.on_failure == OnFailure::RollBack
                && record.trigger != Trigger::RollBack
                && record.base.values().all(|base| *base > 0)
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
        let roll_back = failed && desired.on_failure == OnFailure::RollBack && !drifted;
        return roll_back.then(|| Act::RecordRollBack {
            id: observed.highest_id(desired.owner) + 1,
            failed: id,
            base: base(observed),
            hosts: record.hosts.clone(),
        });
    }
    // Not published, so nobody runs it. It is dropped where somebody else's value was adopted in its place, or the
    // object goes away; otherwise nothing speaks against it any more.
    let dropped = desired.deleting.is_some() || drifted && desired.on_drift == OnDrift::Adopt;
    dropped.then_some(Act::DeleteRecord { id })
}

/// A record that a late create brought back: a newer rotation is published, or another draw of the same id.
fn superseded(observed: &Observed, id: RotationId) -> bool {
    let newer =
        |p: &Parameter| p.latest().is_some_and(|s| matches!(s.author, Author::Ours(other) if other > id));
    observed.parameters.iter().any(newer) || !observed.mismatched.is_empty()
}

/// The first path that somebody else wrote after this rotation began, and is the latest.
fn foreign_since(observed: &Observed, record: &Record) -> Option<(String, i64)> {
    let drifted = observed.parameters.iter().find(|p| {
        let base = record.base.get(&p.path).copied().unwrap_or(0);
        p.latest().is_some_and(|s| {
            s.version.number > base && matches!(s.author, Author::Foreign | Author::Original)
        })
    })?;
    Some((drifted.path.clone(), drifted.latest_number()))
}

enum Deployment {
    Proven,
    Pending { host: String },
    Missing { host: String },
    Failed { host: String, reason: String, message: String, for_good: bool },
}

fn deployment(desired: &Desired<'_>, observed: &Observed, record: &Record) -> Deployment {
    let mut pending = None;
    for host in &observed.hosts {
        let wanted = desired.hosts.contains(&host.name);
        if !host.exists {
            // A host that was taken out of the spec and deleted can prove nothing any more.
            if wanted {
                return Deployment::Missing { host: host.name.clone() };
            }
            continue;
        }
        if (wanted || record.hosts.contains(&host.name)) && !has_adopted(host, observed, record.id) {
            match host.failed_deploy.as_ref().filter(|f| is_about(f, observed, record.id)) {
                Some(failure) => {
                    return Deployment::Failed {
                        host: host.name.clone(),
                        reason: failure.reason.clone(),
                        message: failure.message.clone(),
                        for_good: failure.for_good,
                    };
                }
                None => pending = pending.or(Some(host.name.clone())),
            }
        }
    }
    pending.map_or(Deployment::Proven, |host| Deployment::Pending { host })
}

fn has_adopted(host: &HostEvidence, observed: &Observed, id: RotationId) -> bool {
    observed.parameters.iter().all(|parameter| {
        let version = parameter.published_by(id).map(|seen| seen.version.number);
        host.proofs.get(&parameter.path).is_some_and(|proof| {
            Some(proof.version) == version && matches!(proof.proof, Proof::Proven | Proof::Incomparable)
        })
    })
}

fn is_about(failure: &super::observed::HostFailure, observed: &Observed, id: RotationId) -> bool {
    observed.parameters.iter().any(|parameter| {
        let version = parameter.published_by(id).map(|seen| seen.version.number);
        version.is_some() && failure.versions.get(&parameter.path).copied() == version
    })
}

/// Deletes the oldest record, once nothing that could bring it back is alive.
fn close(observed: &Observed, now: DateTime<Utc>, grace: TimeDelta) -> Next {
    if let Some(until) = young_until(observed, now, grace) {
        return Next::Wait { step: Step::Close, until: Some(until), why: Waiting::Grace };
    }
    match observed.records.first_key_value() {
        Some((id, _)) => Next::Act { step: Step::Close, act: Act::DeleteRecord { id: *id } },
        None => Next::Rest { at: None },
    }
}
