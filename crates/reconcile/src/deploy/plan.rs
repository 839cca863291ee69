//! Decides whether a docker host needs a run, which kind of run, and what the run has to wait for. The functions are
//! pure: they depend on what the ManagedSecrets want, what the host has proven, and the time.
//!
//! There are three kinds of run. A deployment changes the host: it runs the user's script, then compares. A
//! verification only compares. A collection reads logs for an incident; it starts only if no other run can start, and
//! is stopped when a deployment could start.
//!
//! Nothing is deployed without evidence. If no rotation waits for its hosts, a verification comes first. A deployment
//! follows only if the verification did not confirm the versions that keyturn published.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::docker_host::{DockerHostStatus, HostParameter, HostRun, Proof, RunMode};
use keyturn_api::grants::Verdict;
use keyturn_api::managed_secret::Origin;
use keyturn_api::time::{from_kubernetes, to_text};
use keyturn_api::{DockerHost, Reason, Trouble};
use keyturn_rotation::adoption::has_adopted;
use kube::ResourceExt;

use super::audits::{audit_due, layers_due};
use super::collection::Collection;
use super::revision::revision;
use super::wish::{Arrival, Wish};

/// Maximum time, as a multiple of [`Input::coalesce`], for which a deployment waits for secrets that are published one
/// after another, or for another host to start first.
const LONGEST_WAIT: i32 = 4;

/// Maximum number of log collections in the status of a host; the schema allows no more.
pub const MOST_COLLECTIONS: usize = 256;

/// Input of the decision.
#[derive(Clone)]
pub struct Input<'a> {
    /// The host. Its status already includes the state of its Jobs.
    pub host: &'a DockerHost,
    /// The published parameters that the grants allow on the host.
    pub wishes: &'a [Wish],
    /// Secrets of the host that are about to be published.
    pub arrivals: &'a [Arrival],
    /// Log lines that the host has to collect.
    pub collections: &'a [Collection],
    /// All DockerHosts of the namespace.
    pub hosts: &'a [DockerHost],
    /// The runs of all Jobs of the host that still exist.
    pub tried: &'a [HostRun],
    /// The verdict of the RotationGrants about the host's endpoints.
    pub verdict: Verdict,
    /// Problems of the host's spec that the schema cannot reject.
    pub problems: Vec<String>,
    /// State of the host's own deployment windows at `now`.
    pub window: WindowGate,
    /// Time that a deployment waits for secrets that are about to be published.
    pub coalesce: TimeDelta,
    /// Time of this pass, by the controller's clock.
    pub now: DateTime<Utc>,
}

/// State of the host's own deployment windows at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowGate {
    /// A window is open, or the host has no windows.
    Open,
    /// No window is open; the next one opens at this time.
    OpensAt(DateTime<Utc>),
    /// The windows cannot be read, or none of them ever opens. The text is the reason.
    Unusable(String),
}

/// The one next thing to do for a host, as [`decide`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is left to do.
    Settled,
    /// A Job of the host is running; wait for it.
    Watch,
    /// Delete this Job to make room for another one. Either its pod cannot start and the spec has changed since, or it
    /// only collects log lines while a deployment could start.
    Abandon {
        /// Name of the Job.
        job: String,
    },
    /// Start this run now.
    Start(Run),
    /// A run is needed, but not now.
    Hold {
        /// Mode of the run that is needed.
        mode: RunMode,
        /// The reason why the run does not start, and the time of the next check.
        hold: Hold,
    },
}

/// A run to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Kind of the run: deployment, verification or collection.
    pub mode: RunMode,
    /// Hash of the versions and the deploy script, or [`Collection::revision`]; 16 hexadecimal digits.
    pub revision: String,
    /// Number of this attempt: one more than the highest known attempt of this mode and revision.
    pub attempt: i32,
    /// The parameters that are published for the host, by path, without versions that somebody else wrote. Empty in a
    /// collection.
    pub parameters: Vec<Wish>,
    /// The parameters and other causes that made the run necessary, for people.
    pub because: Vec<String>,
    /// The collection to do; `None` in the other modes.
    pub collection: Option<Collection>,
    /// True when the run reads the files of the images' layers.
    pub layers: bool,
}

/// The reason why a run that is needed does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Why the run waits, and what to do if a person has to act.
    pub trouble: Trouble,
    /// Time of the next check; `None` to wait until something changes.
    pub until: Option<DateTime<Utc>>,
    /// True when the hold is short. Then no verification and no collection is started meanwhile.
    pub brief: bool,
}

impl Hold {
    /// Creates a hold that may end without a person.
    fn new(reason: Reason, message: String) -> Self {
        Self { trouble: Trouble::passing(reason, message), until: None, brief: false }
    }

    /// Creates a hold that only a person can end.
    fn stalled(reason: Reason, message: String) -> Self {
        Self { trouble: Trouble::permanent(reason, message), until: None, brief: false }
    }

    fn until(self, at: DateTime<Utc>) -> Self {
        Self { until: Some(at), ..self }
    }

    fn brief(self) -> Self {
        Self { brief: true, ..self }
    }
}

/// The run that one parameter needs on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// No run: the host runs the version as far as keyturn can know, or somebody else wrote the version.
    Nothing,
    /// A verification, which compares and changes nothing.
    Verify,
    /// A deployment: a rotation waits for the host, or the last comparison did not confirm the version.
    Deploy,
}

/// A check that returns a reason not to start a run now.
type Check = fn(&Input, &Run) -> Option<Hold>;

const BEFORE_ANY_RUN: &[Check] = &[
    the_host_is_suspended,
    the_spec_cannot_be_used,
    no_grant_covers_it,
    the_grants_only_observe,
    the_deployment_that_it_prepares_could_not_start,
    the_same_run_failed_a_moment_ago,
];

const BEFORE_A_DEPLOYMENT: &[Check] = &[
    hosts_that_go_first_make_no_order,
    a_host_that_goes_first_has_not_proven_it,
    the_window_is_closed_and_no_rotation_waits,
    a_role_is_being_changed_in_place,
    another_secret_is_about_to_be_published,
    another_host_of_the_same_secrets_deploys,
];

/// Decides the one next thing to do for the host.
pub fn decide(input: &Input) -> Decision {
    let status = input.host.status.clone().unwrap_or_default();
    if let Some(run) = &status.run {
        return watch(input, &status, run);
    }
    let held = match candidate(input, &status, RunMode::Deploy) {
        Some(run) => match first_hold(input, &run, &[BEFORE_ANY_RUN, BEFORE_A_DEPLOYMENT]) {
            None => return Decision::Start(run),
            Some(hold) if hold.brief => return Decision::Hold { mode: run.mode, hold },
            Some(hold) => Some(Decision::Hold { mode: run.mode, hold }),
        },
        None => None,
    };
    let held = match candidate(input, &status, RunMode::Verify) {
        None => held,
        Some(run) => match first_hold(input, &run, &[BEFORE_ANY_RUN]) {
            None => return Decision::Start(run),
            Some(hold) => held.or(Some(Decision::Hold { mode: run.mode, hold })),
        },
    };
    // Log lines are collected even while another run is on hold, unless that hold is brief (see above) or a check of
    // `BEFORE_ANY_RUN` holds the collection too.
    match collection(input, &status).filter(|run| first_hold(input, run, &[BEFORE_ANY_RUN]).is_none()) {
        Some(run) => Decision::Start(run),
        None => held.unwrap_or(Decision::Settled),
    }
}

/// Decides whether to wait for a running Job or to delete it. It is deleted if its pod cannot start and the
/// DockerHost's spec has changed since, because it blocks the run that would repair the host. A Job that collects logs
/// is deleted as soon as a deployment could start.
fn watch(input: &Input, status: &DockerHostStatus, run: &HostRun) -> Decision {
    let chains = [BEFORE_ANY_RUN, BEFORE_A_DEPLOYMENT];
    let could_deploy = || {
        candidate(input, status, RunMode::Deploy)
            .is_some_and(|run| first_hold(input, &run, &chains).is_none())
    };
    if run.mode == RunMode::Collect && could_deploy() {
        return Decision::Abandon { job: run.job.clone() };
    }
    let outdated = input.host.metadata.generation.is_some_and(|generation| generation != run.generation);
    match &run.message {
        Some(_trouble) if outdated => Decision::Abandon { job: run.job.clone() },
        _ => Decision::Watch,
    }
}

fn first_hold(input: &Input, run: &Run, chains: &[&[Check]]) -> Option<Hold> {
    chains.iter().flat_map(|chain| chain.iter()).find_map(|check| check(input, run))
}

/// Returns the run of this mode; `None` if nothing needs one. The run covers all parameters that are published for the
/// host, except versions that somebody else wrote. So one run serves everything that is unproven, and the script can
/// pin every version.
fn candidate(input: &Input, status: &DockerHostStatus, mode: RunMode) -> Option<Run> {
    let parameters: Vec<Wish> =
        input.wishes.iter().filter(|wish| wish.origin != Origin::Foreign).cloned().collect();
    let revision = revision(&parameters, &input.host.spec.deploy.script);
    let wanted = if mode == RunMode::Deploy { Need::Deploy } else { Need::Verify };
    let needs: Vec<Need> = parameters.iter().map(|wish| need(wish, known(status, wish))).collect();
    let mut because: Vec<String> = parameters
        .iter()
        .zip(&needs)
        .filter(|(_, need)| **need == wanted)
        .map(|(wish, _)| format!("{} (ManagedSecret {})", wish.line(), wish.secret))
        .collect();
    if mode == RunMode::Verify && !needs.is_empty() && needs.iter().all(|need| *need == Need::Nothing) {
        because.extend(the_last_run_failed(status, &revision));
    }
    let audit_is_due = || audit_due(input.host, status).is_some_and(|due| due <= input.now);
    // A deployment that is about to start audits the images too.
    if mode == RunMode::Verify && input.arrivals.is_empty() && audit_is_due() {
        because.push("the audit of the images".to_owned());
    }
    let attempt = 1 + last_attempt(input, status, mode, &revision);
    // A deployment must not wait until the layers are read.
    let layers =
        mode == RunMode::Verify && layers_due(input.host, status).is_some_and(|due| due <= input.now);
    (!because.is_empty()).then_some(Run {
        mode,
        revision,
        attempt,
        parameters,
        because,
        collection: None,
        layers,
    })
}

/// Returns the run of the first collection that is not done, that may be tried now, and that has room in the host's
/// status.
fn collection(input: &Input, status: &DockerHostStatus) -> Option<Run> {
    let known = &status.access_logs;
    let open = input.collections.iter().find(|wanted| {
        !wanted.is_done(known)
            && wanted.retry_at(known).is_none_or(|retry| retry <= input.now)
            && (known.len() < MOST_COLLECTIONS || wanted.known(known).is_some())
    })?;
    let revision = open.revision();
    let recorded =
        open.known(known).filter(|known| known.revision == revision).map_or(0, |known| known.attempt);
    Some(Run {
        mode: RunMode::Collect,
        attempt: 1 + last_attempt(input, status, RunMode::Collect, &revision).max(recorded),
        revision,
        parameters: Vec::new(),
        because: vec![format!(
            "SecretIncident {} (log lines about ManagedSecret {})",
            open.about.incident, open.about.secret
        )],
        collection: Some(open.clone()),
        layers: false,
    })
}

/// The earliest time at which a failed collection is retried.
pub fn next_collection(status: &DockerHostStatus, wanted: &[Collection]) -> Option<DateTime<Utc>> {
    let known = &status.access_logs;
    wanted.iter().filter(|one| !one.is_done(known)).filter_map(|one| one.retry_at(known)).min()
}

/// Decides the run that this parameter needs, from what the host has shown of it.
pub fn need(wish: &Wish, known: Option<&HostParameter>) -> Need {
    let adopted = known.is_some_and(|known| has_adopted(known.proof, known.deployed));
    let needed = match (wish.origin, known.map(|known| known.proof)) {
        // A value that somebody else wrote is neither compared nor deployed.
        (Origin::Foreign, _) => return Need::Nothing,
        (Origin::Rotated, Some(_)) if adopted => Need::Nothing,
        // A rotation waits for this host.
        (Origin::Rotated, _) if wish.rotation_since.is_some() => Need::Deploy,
        // The status was lost, or the host is new: compare before restarting anything.
        (Origin::Rotated, None) => Need::Verify,
        (Origin::Rotated, Some(_)) => Need::Deploy,
        // Adopting a parameter never deploys. Containers that run another value are reported, and compared again until
        // somebody has corrected them.
        (Origin::Adopted, None | Some(Proof::Differs)) => Need::Verify,
        (Origin::Adopted, Some(Proof::Proven | Proof::Incomparable)) => Need::Nothing,
    };
    let stale = match (wish.preflight, known) {
        (Some(requested), Some(known)) => from_kubernetes(&known.at) < requested,
        _ => false,
    };
    if needed == Need::Nothing && stale { Need::Verify } else { needed }
}

/// Returns the entry of the host's status about the published version of a parameter; `None` if no run has reported on
/// it.
pub fn known<'a>(status: &'a DockerHostStatus, wish: &Wish) -> Option<&'a HostParameter> {
    let speaks_of_it = |known: &&HostParameter| {
        known.path == wish.path
            && known.version == wish.version
            && from_kubernetes(&known.published_at) == wish.published_at
    };
    status.parameters.iter().find(speaks_of_it)
}

/// Returns the cause for another verification if the last run had this revision and failed. After such a failure it is
/// not known whether the product works, even if every version is proven.
fn the_last_run_failed(status: &DockerHostStatus, revision: &str) -> Option<String> {
    let last = status.last_run.as_ref().filter(|run| run.revision == revision && run.failures > 0)?;
    Some(format!("the failure of run {}", last.job))
}

fn last_attempt(input: &Input, status: &DockerHostStatus, mode: RunMode, revision: &str) -> i32 {
    let recorded = [&status.run, &status.last_run, &status.last_deploy];
    let tries = recorded.into_iter().flatten().chain(input.tried);
    let same = tries.filter(|run| run.mode == mode && run.revision == revision);
    same.map(|run| run.attempt).max().unwrap_or(0)
}

fn the_host_is_suspended(input: &Input, run: &Run) -> Option<Hold> {
    let message = || format!("spec.suspend is set; not started: {}", describe(run));
    input.host.spec.suspend.then(|| Hold::new(Reason::Suspended, message()))
}

fn the_spec_cannot_be_used(input: &Input, _run: &Run) -> Option<Hold> {
    (!input.problems.is_empty()).then(|| Hold::stalled(Reason::InvalidSpec, input.problems.join("; ")))
}

fn no_grant_covers_it(input: &Input, _run: &Run) -> Option<Hold> {
    match &input.verdict {
        Verdict::Denied(missing) => Some(Hold::stalled(Reason::NotGranted, missing.clone())),
        Verdict::Rotate | Verdict::Observe(_) => None,
    }
}

fn the_grants_only_observe(input: &Input, run: &Run) -> Option<Hold> {
    let Verdict::Observe(why) = &input.verdict else { return None };
    Some(Hold::new(
        Reason::Observe,
        format!("{why}, so nothing was changed. The next run would be: {}", describe(run)),
    ))
}

/// Holds a run until the retry time after its last failure. The failure counts only for the same mode, revision and
/// spec. So a new rotation or an edit starts without backoff. A preflight that was requested after the failure starts
/// without backoff, too.
fn the_same_run_failed_a_moment_ago(input: &Input, run: &Run) -> Option<Hold> {
    let last = last_failure(input.host, run.mode, &run.revision)?;
    let ended = last.finished_at.as_ref().map(from_kubernetes);
    let asked_since = run.mode == RunMode::Verify
        && run.parameters.iter().any(|wish| wish.preflight.is_some() && wish.preflight > ended);
    let retry = from_kubernetes(last.retry_after.as_ref()?);
    let message =
        format!("attempt {} failed ({}); the next one starts at {}", last.attempt, last.job, to_text(retry));
    (!asked_since && input.now < retry).then(|| Hold::new(Reason::BackingOff, message).until(retry))
}

/// Returns the last deployment, or for other modes the last run. `None` unless it had this mode, this revision and the
/// present spec, and failed.
pub fn last_failure<'a>(host: &'a DockerHost, mode: RunMode, revision: &str) -> Option<&'a HostRun> {
    let status = host.status.as_ref()?;
    let last = if mode == RunMode::Deploy { &status.last_deploy } else { &status.last_run };
    last.as_ref().filter(|run| {
        run.mode == mode
            && run.revision == revision
            && run.failures > 0
            && host.metadata.generation.is_none_or(|generation| generation == run.generation)
    })
}

/// Holds a preflight while `deploy.after` names a missing host or is a circle. After a preflight has passed, a rotation
/// may begin, and its deployment could not start.
fn the_deployment_that_it_prepares_could_not_start(input: &Input, run: &Run) -> Option<Hold> {
    let is_a_preflight =
        run.mode == RunMode::Verify && run.parameters.iter().any(|wish| wish.preflight.is_some());
    if is_a_preflight { hosts_that_go_first_make_no_order(input, run) } else { None }
}

fn hosts_that_go_first_make_no_order(input: &Input, run: &Run) -> Option<Hold> {
    if waits_for_no_host(run) {
        return None;
    }
    let find = |name: &str| input.hosts.iter().find(|host| host.name_any() == name);
    if let Some(missing) = input.host.spec.deploy.after.iter().find(|name| find(name).is_none()) {
        let message = format!(
            "spec.deploy.after names DockerHost {missing}, which does not exist in this namespace: create it or \
             remove it from the list"
        );
        return Some(Hold::stalled(Reason::AfterNotFound, message));
    }
    let own_name = input.host.name_any();
    let mut reached: Vec<&str> = Vec::new();
    let mut open: Vec<&str> = input.host.spec.deploy.after.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        if name == own_name {
            let message = format!(
                "spec.deploy.after leads back to {own_name} through {}, so no host can be the first: break the circle",
                if reached.is_empty() { "itself".to_owned() } else { reached.join(", ") },
            );
            return Some(Hold::stalled(Reason::AfterIsACircle, message));
        }
        if !reached.contains(&name) {
            reached.push(name);
            open.extend(find(name).iter().flat_map(|host| host.spec.deploy.after.iter().map(String::as_str)));
        }
    }
    None
}

fn a_host_that_goes_first_has_not_proven_it(input: &Input, run: &Run) -> Option<Hold> {
    if waits_for_no_host(run) {
        return None;
    }
    let status = input.host.status.clone().unwrap_or_default();
    let wanted = run.parameters.iter().filter(|wish| need(wish, known(&status, wish)) == Need::Deploy);
    for wish in wanted {
        for first in input.hosts.iter().filter(|host| input.host.spec.deploy.after.contains(&host.name_any()))
        {
            let serves = wish.hosts.contains(&first.name_any());
            if serves && !has_proven(first, wish) {
                let message =
                    format!("waits until DockerHost {} has proven {}", first.name_any(), wish.line());
                return Some(Hold::new(Reason::WaitingForHost, message));
            }
        }
    }
    None
}

fn has_proven(host: &DockerHost, wish: &Wish) -> bool {
    let known = host.status.as_ref().and_then(|status| known(status, wish));
    known.is_some_and(|known| has_adopted(known.proof, known.deployed))
}

/// Windows limit the start of a rotation; a rotation that has begun is always finished. So closed windows delay only
/// deployments that no rotation waits for, such as the first deployment to a new host.
fn the_window_is_closed_and_no_rotation_waits(input: &Input, run: &Run) -> Option<Hold> {
    if since(run).is_some() {
        return None;
    }
    match &input.window {
        WindowGate::Open => None,
        WindowGate::OpensAt(at) => {
            let message = format!("waits for the host's window, which opens at {}", to_text(*at));
            Some(Hold::new(Reason::WaitingForWindow, message).until(*at))
        }
        WindowGate::Unusable(why) => {
            Some(Hold::stalled(Reason::WindowUnusable, format!("spec.deploy.windows: {why}")))
        }
    }
}

/// Holds a deployment while a rotation changes the password of a role in place. A container that starts after the
/// change and before the publication would get a password that does not work.
fn a_role_is_being_changed_in_place(input: &Input, run: &Run) -> Option<Hold> {
    if is_urgent(run) {
        return None;
    }
    let holds = |arrival: &Arrival| arrival.holds_until.filter(|until| input.now < *until);
    let (secret, until) = input.arrivals.iter().find_map(|a| Some((&a.secret, holds(a)?)))?;
    let message = format!(
        "waits until ManagedSecret {secret} has published the new password of its role, at most until {}",
        to_text(until)
    );
    Some(Hold::new(Reason::WaitingForSecret, message).until(until))
}

/// Secrets that are rotated together are deployed together. The wait counts from the start of their rotations,
/// including the rotation that waits for this deployment, and not from the first check. So a restart of the controller
/// neither lengthens nor skips the wait.
fn another_secret_is_about_to_be_published(input: &Input, run: &Run) -> Option<Hold> {
    if waits_for_no_host(run) {
        return None;
    }
    let last = input.arrivals.iter().map(|arrival| arrival.since).max()?;
    let until = match since(run) {
        Some(began) => (last.max(began) + input.coalesce).min(began + input.coalesce * LONGEST_WAIT),
        None => last + input.coalesce,
    };
    let names: Vec<&str> = input.arrivals.iter().map(|arrival| arrival.secret.as_str()).collect();
    let message = format!(
        "waits until {} for secrets that are about to be published: {}",
        to_text(until),
        names.join(", ")
    );
    (input.now < until).then(|| Hold::new(Reason::Coalescing, message).until(until).brief())
}

/// The hosts of one secret are deployed to one after another. So a value that breaks the product breaks it on one host
/// only. Of two hosts that could start at the same moment, the first by name starts.
fn another_host_of_the_same_secrets_deploys(input: &Input, run: &Run) -> Option<Hold> {
    if waits_for_no_host(run) {
        return None;
    }
    let own_name = input.host.name_any();
    let shares = |name: &String| run.parameters.iter().any(|wish| wish.hosts.contains(name));
    let goes_first_until = since(run).map(|began| began + input.coalesce * LONGEST_WAIT);
    for other in input.hosts.iter().filter(|host| host.name_any() != own_name && shares(&host.name_any())) {
        let name = other.name_any();
        let status = other.status.clone().unwrap_or_default();
        if status.run.as_ref().is_some_and(|run| run.mode == RunMode::Deploy) {
            let message = format!("waits for the deployment on DockerHost {name} to end");
            return Some(Hold::new(Reason::WaitingForHost, message).brief());
        }
        let is_free = !other.spec.suspend
            && other.spec.deploy.after.is_empty()
            && !input.host.spec.deploy.after.contains(&name)
            && other.metadata.deletion_timestamp.is_none();
        let waits_too = run.parameters.iter().any(|wish| {
            wish.rotation_since.is_some()
                && wish.hosts.contains(&name)
                && !has_proven(other, wish)
                && !status.last_deploy.iter().any(|run| run.parameters.contains(&wish.line()))
        });
        if let Some(until) =
            goes_first_until.filter(|until| name < own_name && is_free && waits_too && input.now < *until)
        {
            let message =
                format!("waits for DockerHost {name}, which deploys first, at most until {}", to_text(until));
            return Some(Hold::new(Reason::WaitingForHost, message).until(until).brief());
        }
    }
    None
}

/// True when the run replaces a value that an incident suspects and that somebody may be using. Then hosts wait neither
/// for each other nor for other secrets.
pub fn is_urgent(run: &Run) -> bool {
    run.parameters.iter().any(|wish| wish.urgent && wish.rotation_since.is_some())
}

/// True when the run is urgent, or when a role that is changed in place already has its new password. In the second
/// case the host has no working password. Such a run waits neither for other hosts nor for secrets that could be
/// deployed with it.
fn waits_for_no_host(run: &Run) -> bool {
    is_urgent(run) || run.parameters.iter().any(|wish| wish.in_place && wish.rotation_since.is_some())
}

/// Returns the start of the earliest rotation that waits for this run; `None` if none waits.
fn since(run: &Run) -> Option<DateTime<Utc>> {
    run.parameters.iter().filter_map(|wish| wish.rotation_since).min()
}

/// Describes a run in a few words.
pub fn describe(run: &Run) -> String {
    let what = match run.mode {
        RunMode::Deploy => "deployment",
        RunMode::Verify => "verification",
        RunMode::Collect => "collection of log lines",
    };
    format!("{what} {} (attempt {}) because of {}", run.revision, run.attempt, run.because.join(", "))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
