//! Checks of what people and the schedule hold back: rotations that may not begin yet, deployments that may not start,
//! logins that may not end yet.

use chrono::TimeDelta;
use keyturn_api::conditions;
use keyturn_api::docker_host::RunMode;
use keyturn_api::grants::{self, Verdict};
use keyturn_api::managed_secret::{LastRotation, Origin, Step};
use keyturn_api::time::{from_kubernetes, to_kubernetes};
use keyturn_api::{DockerHost, ManagedSecret};
use keyturn_reconcile::deploy::task::{Task, TaskParameter};
use keyturn_reconcile::deploy::wish::names_host;
use keyturn_reconcile::incident::scope;
use keyturn_rotation::observed::{Record, Trigger};
use keyturn_rotation::window::Calendar;
use kube::ResourceExt;

use super::{is_of, is_suspected, open_records};
use crate::faults::{Fault, Plan};
use crate::harness::FIRST_ROTATION_DELAY;
use crate::world::ssm::Stored;
use crate::world::{At, Sent, State};

/// Shortest pause after a failed deployment.
const PAUSE: TimeDelta = TimeDelta::seconds(5);
/// Longest time for which a role that is being changed holds back other deployments.
const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(5);

fn made_at(version: &Stored) -> At {
    version.said.stamp.as_ref().map_or(version.modified, |stamp| stamp.at)
}

/// Checks that a rotation may begin: neither a person nor the schedule holds it back.
pub(super) fn rotation_begins(state: &mut State, name: &str, record: &Record) {
    state.memory.drawn.entry(name.to_owned()).or_default().insert((record.id, record.at));
    let Some(secret) = state.cluster.secret(name).cloned() else { return };
    let is_routine = !matches!(record.trigger, Trigger::Incident | Trigger::RollBack);
    if is_routine && secret.spec.suspend {
        state.violate(format!("hold: rotation {} of {name} began although it is suspended", record.id));
    }
    if record.trigger == Trigger::Period
        && let Some(why) = is_too_early(state, &secret, record)
    {
        state.violate(format!("hold: rotation {} of {name} came of age {why}", record.id));
    }
    let asked = record.request.iter().find(|token| {
        state.memory.taken_back.contains(&(name.to_owned(), (*token).clone()))
            && !matches!(record.trigger, Trigger::RollBack | Trigger::Incident)
    });
    if let Some(token) = asked {
        state.violate(format!("I3: request {token} of {name} was executed again after it was rolled back"));
    }
}

/// Returns id and end of a rotation that the status reports.
fn end_of(told: &LastRotation) -> Option<(u64, At)> {
    Some((u64::try_from(told.id?).ok()?, told.finished_at.as_ref().map(from_kubernetes).unwrap_or_default()))
}

fn last_told(secret: &ManagedSecret) -> Option<(u64, At)> {
    end_of(secret.status.as_ref()?.last_rotation.as_ref()?)
}

/// Returns the end, from the status, of the rotation with this id that began at this time. An id is used again if no
/// published version shows it.
fn told_at(secret: &ManagedSecret, id: u64, begun: At) -> Option<At> {
    let history = secret.status.iter().flat_map(|status| &status.history).filter_map(end_of);
    let mut ends = history.filter(|(told, at)| *told == id && at.timestamp() >= begun.timestamp());
    ends.next().map(|(_, at)| at)
}

/// Checks that the status never reports an earlier rotation as the last one, except for a controller that nothing
/// fences.
pub(super) fn ends_are_told_in_order(state: &mut State, sent: Sent, changed: &ManagedSecret) {
    let rotation = changed.status.as_ref().and_then(|status| status.rotation.as_ref());
    let uid = changed.uid().unwrap_or_default();
    if let Some((id, rotation)) = rotation.and_then(|r| Some((u64::try_from(r.id).ok()?, r))) {
        state.memory.under_way.insert(uid.clone(), (id, from_kubernetes(&rotation.started_at)));
    }
    let before = state.cluster.secret(&changed.name_any()).and_then(last_told);
    let Some(((before, ended), (now, _))) = before.zip(last_told(changed)) else { return };
    // A rotation may begin and end while no status can be written.
    let of_it = |(id, at): &(u64, At)| *id == now && at.timestamp() >= ended.timestamp();
    let begun_since = state.memory.under_way.get(&uid).is_some_and(of_it)
        || state.memory.drawn.get(&changed.name_any()).is_some_and(|drawn| drawn.iter().any(of_it));
    if now < before && !begun_since && sent.process == state.leader {
        let name = changed.name_any();
        state.violate(format!("told: rotation {now} of {name} is the last one, after {before} was"));
    }
}

/// Returns the rotations that a status reported as running, and that are published and closed although no status has
/// reported their end.
pub(super) fn untold(state: &State) -> Vec<String> {
    let untold = state.cluster.secrets().filter_map(|secret| {
        let (name, uid) = (secret.name_any(), secret.uid()?);
        let (id, begun) = *state.memory.under_way.get(&uid)?;
        let is_open = open_records(state).iter().any(|(of, record)| *of == name && record.id == id);
        let is_published =
            |path: &String| state.ssm.latest(path).is_some_and(|latest| is_of(latest, &name, id));
        let over = !is_open && secret.spec.ssm.parameters.iter().all(|p| is_published(&p.path));
        (over && told_at(secret, id, begun).is_none())
            .then(|| format!("told: nothing says that rotation {id} of {name} has ended"))
    });
    untold.collect()
}

/// Checks the deletion of a record at the end of its rotation. The end of a roll back also answers the request of the
/// rotation that it reversed.
pub(super) fn rotation_ends(state: &mut State, name: &str, record: &Record) {
    if record.trigger != Trigger::RollBack {
        return;
    }
    // The end may have been reported earlier, and times in a status are whole seconds.
    let secret = state.cluster.secret(name);
    let now = from_kubernetes(&to_kubernetes(state.now));
    let told_at = secret.and_then(|secret| told_at(secret, record.id, record.at));
    state.memory.rolled_back.insert(name.to_owned(), told_at.unwrap_or(now));
    state.memory.taken_back.extend(record.request.iter().map(|token| (name.to_owned(), token.clone())));
}

fn is_too_early(state: &State, secret: &ManagedSecret, record: &Record) -> Option<&'static str> {
    let now = state.now;
    let calendar = Calendar::new([secret.spec.rotation.windows.as_slice()]).ok()?;
    if calendar.next(now).is_none_or(|window| window.start > now) {
        return Some("outside its windows");
    }
    // A token that expires is replaced before that, whatever the period is.
    if secret.spec.generate.cloudflare_r2.is_some() {
        return None;
    }
    if state.memory.rolled_back.get(&secret.name_any()).is_some_and(|at| *at + FIRST_ROTATION_DELAY > now) {
        return Some("as soon as one was rolled back");
    }
    let replaced: Vec<&Stored> = record
        .base
        .iter()
        .filter_map(|(path, base)| state.ssm.versions(path).iter().find(|version| version.number == *base))
        .collect();
    let period = secret.spec.rotation.period.as_ref().and_then(|period| period.to_delta())?;
    let oldest = replaced.iter().map(|version| made_at(version)).min()?;
    if calendar.always_open() && oldest + period > now {
        return Some("before its period was over");
    }
    let adopted = replaced.iter().all(|version| version.said.stamp.is_none());
    let created = secret.metadata.creation_timestamp.as_ref().map(from_kubernetes)?;
    (adopted && created + FIRST_ROTATION_DELAY > now).then_some("as soon as it was adopted")
}

/// Checks that a Job may start.
pub(super) fn job_starts(state: &mut State, host: &str, task: &Task) {
    let Some(object) = state.cluster.host(host).cloned() else { return };
    if object.spec.suspend {
        state.violate(format!("hold: a Job was started on {host}, which is suspended"));
    }
    if grants::docker_host(&state.cluster.given(), &object) != Verdict::Rotate {
        state.violate(format!("I9: a Job was started on {host}, which no grant covers"));
    }
    if task.mode != RunMode::Deploy {
        return;
    }
    let failed = state.jobs.iter().filter_map(|job| job.failed_at(&object, task)).max();
    if failed.is_some_and(|at| at + PAUSE > state.now) {
        state.violate(format!("I6: a deployment on {host} was started again as soon as it had failed"));
    }
    let deployed: Vec<&Stored> = task
        .parameters
        .iter()
        .filter_map(|p| state.ssm.versions(&p.path).iter().find(|version| version.number == p.version))
        .collect();
    if deployed.iter().all(|version| version.said.stamp.is_none()) {
        state.violate(format!("I3: {host} was deployed to although nothing but adopted values is published"));
    } else if runs_everything(state, &object, task) {
        state.violate(format!(
            "I3: {host} was deployed to although it runs everything, and no rotation is open"
        ));
    }
    if let Some(other) = another_deployment(state, host, task) {
        state.violate(format!("hold: {host} was deployed to at the same time as {other}"));
    }
    containers_start(state, host, |state, _| state.cluster.incidents.is_empty());
}

/// Returns a deployment on another host of the same secret: hosts go one after another, except if they cannot wait. A
/// stale cache may hide the other deployment.
fn another_deployment(state: &State, host: &str, task: &Task) -> Option<String> {
    let concerns = |secret: &&ManagedSecret| {
        let deployed = |path: &String| task.parameters.iter().any(|p| p.path == *path);
        secret.spec.ssm.parameters.iter().any(|p| deployed(&p.path))
    };
    let concerned: Vec<&ManagedSecret> = state.cluster.secrets().filter(concerns).collect();
    let in_place = concerned.iter().any(|secret| is_in_place(secret));
    if state.plan != Plan::none() || in_place || !state.cluster.incidents.is_empty() {
        return None;
    }
    let shares = |other: &str| concerned.iter().any(|secret| names_host(secret, other));
    let mut deploying = state.jobs.iter().filter(|job| job.is_running() && job.deploys() && job.host != host);
    deploying.find(|job| shares(&job.host)).map(|job| job.host.clone())
}

fn is_in_place(secret: &ManagedSecret) -> bool {
    secret.spec.generate.postgres.as_ref().is_some_and(|postgres| postgres.single_role.is_some())
}

/// Checks that a deploy script may recreate the containers of a host.
pub(crate) fn script_runs(state: &mut State, host: &str) {
    containers_start(state, host, |state, secret| {
        !state.cluster.incidents.iter().any(|incident| scope::concerns(incident, secret))
    });
}

/// Checks that no container starts with a dead password. `counts` excludes incidents, in which somebody else may be
/// using the published password. Only plans with prompt faults are checked: a late request, or a request of a former
/// leader, may change a role at any moment.
fn containers_start(state: &mut State, host: &str, counts: impl Fn(&State, &ManagedSecret) -> bool) {
    use Fault::*;
    let is_prompt = |fault: &Fault| {
        matches!(fault, Refused | Rejected | TimedOutNotApplied | TimedOutApplied | CrashBefore | CrashAfter)
    };
    if !state.plan.0.iter().all(|(_, fault)| is_prompt(fault)) {
        return;
    }
    if let Some(name) = has_a_dead_password(state, host, counts) {
        state.violate(format!("I2: {host} was deployed to while the published password of {name} is dead"));
    }
}

/// Returns the key of one deployment: host, parameter and version.
fn deployment(host: &DockerHost, path: &str, version: i64) -> (String, String, i64) {
    (host.uid().unwrap_or_default(), path.to_owned(), version)
}

/// Checks a change of a host's status.
pub(crate) fn host_status(state: &mut State, changed: &DockerHost) {
    let shown = changed.status.iter().flat_map(|status| &status.parameters).filter(|shown| shown.deployed);
    state.memory.deployed.extend(shown.map(|shown| deployment(changed, &shown.path, shown.version)));
    waits_although_it_is_urgent(state, changed);
}

/// Checks that during an incident a host waits neither for other hosts and secrets nor for its window. A stale cache
/// may hide the report.
fn waits_although_it_is_urgent(state: &mut State, changed: &DockerHost) {
    let Some(status) = changed.status.as_ref().filter(|_| state.plan == Plan::none()) else { return };
    let Some(deploying) = conditions::find(&status.conditions, conditions::DEPLOYING) else { return };
    let waits = ["WaitingForSecret", "WaitingForHost", "WaitingForWindow", "Coalescing"];
    if !waits.contains(&deploying.reason.as_str()) {
        return;
    }
    let (host, reason) = (changed.name_any(), deploying.reason.clone());
    let is_urgent = |secret: &&ManagedSecret| {
        secret.status.as_ref().is_some_and(|status| {
            let open = status.compromise.as_ref().is_some_and(|said| said.contained_at.is_none());
            let waits_for_hosts =
                status.rotation.as_ref().is_some_and(|rotation| rotation.step == Step::Deploy);
            open && waits_for_hosts && status.parameters.iter().all(|p| p.origin == Origin::Rotated)
        })
    };
    let urgent = state.cluster.secrets().filter(|secret| names_host(secret, &host)).find(is_urgent);
    if let Some(name) = urgent.map(|secret| secret.name_any()) {
        state.violate(format!("I6: {host} waits ({reason}) although it is to run {name} for an incident"));
    }
}

/// Checks that during an incident a failed revocation does not delay what hosts wait for, and that a failure of the
/// latter does not delay the revocation.
pub(super) fn a_revocation_goes_its_own_way(state: &mut State, changed: &ManagedSecret) {
    let Some(status) = &changed.status else { return };
    let is_open = status.compromise.as_ref().is_some_and(|said| said.contained_at.is_none());
    let (Some(failure), Some(rotation)) = (&status.failure, &status.rotation) else { return };
    if !is_open || from_kubernetes(&failure.next_attempt_time) <= state.now {
        return;
    }
    let publishes = |step: Step| matches!(step, Step::Install | Step::Promote);
    let (failed, waits) = (failure.step, rotation.step);
    if failed == Step::Retire && publishes(waits) || publishes(failed) && waits == Step::Retire {
        let name = changed.name_any();
        state.violate(format!("I6: {waits} of {name} is put off in an incident because {failed} has failed"));
    }
}

/// True if a deployment would change nothing that anybody waits for. A run with an unknown result is waited for.
fn runs_everything(state: &State, host: &DockerHost, task: &Task) -> bool {
    let name = host.name_any();
    let Some(real) = state.hosts.get(&name) else { return false };
    if state.jobs.iter().any(|job| job.host == name && job.deploys() && job.is_lost()) {
        return false;
    }
    let is_open =
        |path: &String| open_records(state).iter().any(|(_, record)| record.values.contains_key(path));
    let runs = |path: &String, number: i64| {
        let version = state.ssm.versions(path).iter().find(|version| version.number == number);
        version.is_some_and(|version| {
            real.running.get(path).map(String::as_str) == Some(version.value.trim_end())
        })
    };
    // If no variable shows the value, only the deployments in the host's status are known.
    let shows = |p: &TaskParameter| {
        !real.unseen.contains(&p.path)
            || state.memory.deployed.contains(&deployment(host, &p.path, p.version))
    };
    task.parameters.iter().all(|p| runs(&p.path, p.version) && shows(p) && !is_open(&p.path))
}

/// Returns the secret of a host whose role was changed a moment ago and whose new password is not published yet.
fn has_a_dead_password(
    state: &State,
    host: &str,
    counts: impl Fn(&State, &ManagedSecret) -> bool,
) -> Option<String> {
    let server = state.postgres.as_ref()?;
    open_records(state).into_iter().find_map(|(name, record)| {
        let secret = state.cluster.secret(&name).filter(|secret| names_host(secret, host))?;
        let concerned = is_in_place(secret) && counts(state, secret);
        let credential =
            record.credential.as_ref().filter(|_| concerned && record.base.values().all(|b| *b > 0))?;
        let installed = server.accepts(&format!("{}:{}", credential.username, credential.password.expose()));
        let path = record.values.keys().next()?;
        let latest = state.ssm.latest(path).filter(|latest| record.base.get(path) == Some(&latest.number))?;
        let is_dead = !server.accepts(&latest.value);
        (installed && is_dead && record.at + LONGEST_HOLD > state.now).then_some(name)
    })
}

/// Checks that a login of this value, or of this part of it, does not end earlier after the last host left it than its
/// object says.
pub(super) fn login_ends(state: &mut State, is_of: impl Fn(&str) -> bool) {
    let left = state.memory.last_run.iter().filter(|(value, _)| is_of(value) && !is_suspected(state, value));
    let Some((at, value)) = left.map(|(value, at)| (*at, value.clone())).max() else { return };
    let publishes = |secret: &&ManagedSecret| {
        let mut paths = secret.spec.ssm.parameters.iter().map(|p| &p.path);
        paths.any(|path| state.ssm.versions(path).iter().any(|version| version.value.trim_end() == value))
    };
    let Some(secret) = state.cluster.secrets().find(publishes) else { return };
    let after = secret.spec.retire.as_ref().and_then(|retire| retire.after.as_ref()?.to_delta());
    let (name, since) = (secret.name_any(), state.now - at);
    if after.is_some_and(|after| since < after) {
        let seconds = since.num_seconds();
        state
            .violate(format!("I8: an old login of {name} ended {seconds} s after the last host had left it"));
    }
}

/// Records what every host runs, and the last time at which it was seen.
pub(super) fn hosts_run(state: &mut State) {
    let (hosts, cluster, memory, now) = (&state.hosts, &state.cluster, &mut state.memory, state.now);
    let is_ours = |name: &String| cluster.host(name).is_some();
    for (name, host) in hosts.iter().filter(|(name, _)| is_ours(name)) {
        for (path, value) in &host.running {
            memory.last_run.insert(value.clone(), now);
            let run = (name.clone(), path.clone(), value.clone());
            memory.has_run.insert(run);
        }
    }
}

/// Checks conditions. Ready=True: every parameter is published. Deployed=True, or a host that is reported as proven:
/// the host has run the published version of the status, as far as the sender may have seen.
pub(super) fn conditions_are_true(state: &mut State, sent: Sent, changed: &ManagedSecret) {
    let Some(status) = &changed.status else { return };
    let told = |path: &String| status.parameters.iter().any(|p| p.path == *path);
    let paths = || changed.spec.ssm.parameters.iter().map(|p| &p.path);
    if conditions::is_true(&status.conditions, conditions::READY)
        && let Some(missing) = paths().find(|path| !told(path))
    {
        state.violate(format!("Ready: True although {missing} is not published"));
    }
    let deployed = conditions::is_true(&status.conditions, conditions::DEPLOYED);
    let hosts = changed.spec.hosts.iter().map(|host| host.name.clone()).filter(|_| deployed);
    let proven = status.hosts.iter().filter(|host| host.proven).map(|host| host.name.clone());
    let behind = hosts.chain(proven).filter(|host| state.hosts.contains_key(host)).find(|host| {
        status.parameters.iter().any(|p| {
            let version = state.ssm.versions(&p.path).iter().find(|version| version.number == p.version);
            version.filter(|version| version.sequence <= sent.seen).is_some_and(|version| {
                let run = (host.clone(), p.path.clone(), version.value.trim_end().to_owned());
                !state.memory.has_run.contains(&run)
            })
        })
    });
    if let Some(host) = behind {
        state.violate(format!("Deployed: {host} is said to run what is published, and never has"));
    }
}
