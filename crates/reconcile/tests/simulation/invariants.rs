//! The invariants that hold after every effect, whatever went wrong. Every violation begins with the name of its
//! invariant.

mod held;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use held::{host_status, script_runs};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyturn_api::consent::{self, Purpose};
use keyturn_api::grants::{self, Installation, Verdict};
use keyturn_api::managed_secret::{DeletionPolicy, RotationResult};
use keyturn_api::rotation_grant::GrantMode;
use keyturn_api::time::from_kubernetes;
use keyturn_api::{DockerHost, ManagedSecret, ROTATE_REQUESTED_AT, SecretIncident, conditions};
use keyturn_reconcile::deploy::task::Task;
use keyturn_reconcile::incident::reading::Query;
use keyturn_reconcile::incident::scope;
use keyturn_reconcile::parameter_store::description;
use keyturn_reconcile::parameter_store::records::{self, StagedKind};
use keyturn_rotation::observed::{Record, Trigger};
use keyturn_rotation::request;
use keyturn_secret_value::SecretValue;
use kube::ResourceExt;

use crate::faults::{Kind, Plan};
use crate::world::cloudflare::THEIRS;
use crate::world::hosts::SimJob;
use crate::world::ssm::{By, Stored};
use crate::world::{At, CLUSTER, DELETION_BOUND, GRACE, KEY, NAMESPACE, REGION, STAGING, Sent, State};

/// The run ends as the story says, and as the run without faults ended.
pub(crate) const SAME_END: &str = "same end";

/// The names of the invariants, with which every violation begins.
pub(crate) const NAMES: [&str; 19] = [
    // Every credential that is valid in a target can be read back from Parameter Store.
    "I1",
    // Every host's target accepts what the host runs. A single role has a window in which nothing else may be deployed.
    "I2",
    // One trigger leads to one rotation and one value; at most one rotation and one Job run at a time, and none that
    // nobody requested.
    "I3",
    // A retired or replaced value does not come back.
    "I4",
    // A target accepts the published value.
    "I5",
    // Everything comes to rest in bounded time, with a reason if it is not Ready, and without too many requests.
    "I6",
    // No value is shown.
    "I7",
    // No login ends and no record is closed before every host has left it, and before the time that the object sets
    // after that.
    "I8",
    // Nothing is touched that no grant allows, and no key is used that does not allow it.
    "I9",
    // Edits and deletions leave nothing behind.
    "I10",
    // The writes of other people are not replaced silently.
    "I11",
    // No record is closed while a request about it may still be under way.
    "grace",
    // A rotation does not start while people, windows, the order of hosts or the period hold it back.
    "hold",
    // Ready=True: everything is published, and accepted according to the last answer.
    "Ready",
    // Deployed=True: every host has run the value.
    "Deployed",
    // Contained: no value from before the report is accepted, published, run or logged in.
    "contained",
    // The status reports the end of every rotation that it has reported, and the last end as the last one.
    "told",
    // Lists in the status are no longer than the schema allows.
    "bounds",
    SAME_END,
];

/// Returns the name of the check that a violation names.
pub(crate) fn check_of(violation: &str) -> &'static str {
    let named = NAMES.into_iter().find(|name| violation.starts_with(&format!("{name}: ")));
    named.unwrap_or_else(|| panic!("a violation without the name of its check: {violation}"))
}

/// The history of a run, for the checks.
#[derive(Default)]
pub(crate) struct Memory {
    /// Every value that has existed, with the time at which it was made.
    values: BTreeMap<String, At>,
    /// By path: the values that the controller has published, in the order of their first appearance.
    published: BTreeMap<String, Vec<String>>,
    /// By path: the highest id in a description.
    ids: BTreeMap<String, u64>,
    /// By name of the secret: the time at which its last roll back ended.
    rolled_back: BTreeMap<String, At>,
    /// By uid of the object: the last rotation that its status has reported as running, and its start.
    under_way: BTreeMap<String, (u64, At)>,
    /// Requests that ended in a roll back, by name of the secret.
    taken_back: BTreeSet<(String, String)>,
    /// By name of the secret: the id of every record that was created, and the time at which its values were drawn.
    drawn: BTreeMap<String, BTreeSet<(u64, At)>>,
    /// Parameters that the controller has deleted together with their object.
    removed: BTreeSet<String>,
    /// Other people's versions that the controller has replaced, by path and number; the Events must have named them.
    replaced: Vec<(String, i64)>,
    /// All texts for people so far.
    said: String,
    /// True if a request was forgotten before its record existed, see [`status_is_emptied`].
    pub request_forgotten: bool,
    /// True if it was forgotten that a request was only recorded, see [`status_is_emptied`].
    pub answer_forgotten: bool,
    /// True if the status was emptied during or before the roll back of a rotation that has published nothing.
    pub roll_back_forgotten: bool,
    /// Names of secrets whose record was abandoned at the deadline of a deletion.
    pub abandoned: BTreeSet<String>,
    /// By process and login (`user:password`): true if the last answer accepted the login, and the number of effects
    /// before that answer.
    answered: BTreeMap<(usize, String), (bool, usize)>,
    /// Logins that were retired, as `user:password`.
    retired: BTreeSet<String>,
    /// Ids of the records that were created, by owner.
    pub recorded: BTreeMap<String, BTreeSet<u64>>,
    /// The last time at which each value was seen to run somewhere.
    last_run: BTreeMap<String, At>,
    /// The values that each host has run, as host, path and value.
    has_run: BTreeSet<(String, String, String)>,
    /// The deployments that the statuses of hosts have reported, as uid of the host, path and version.
    deployed: BTreeSet<(String, String, i64)>,
    /// The secrets that a status has reported as contained, with the time of the report.
    contained: BTreeSet<(String, At)>,
}

impl Memory {
    /// Returns the number of different values that the controller has published here.
    pub(crate) fn published(&self, path: &str) -> usize {
        self.published.get(path).map_or(0, Vec::len)
    }

    pub(crate) fn is_ours(&self, path: &str, value: &str) -> bool {
        self.published.get(path).is_some_and(|known| known.iter().any(|k| k == value))
    }
}

pub(crate) fn value_is_known(state: &mut State, value: &str) {
    let now = state.now;
    value_is_made(state, value, now);
}

fn value_is_made(state: &mut State, value: &str, at: At) {
    state.memory.values.entry(value.to_owned()).or_insert(at);
}

fn open_records(state: &State) -> Vec<(String, Record)> {
    let staged = state.ssm.staged().filter_map(|path| {
        let what = records::parse_path(STAGING, path).filter(|what| what.kind == StagedKind::Record)?;
        let value = SecretValue::new(state.ssm.latest(path)?.value.clone());
        Some((what.name, records::decode(path, &value).ok()?))
    });
    staged.collect()
}

/// I9: every change outside is made under a grant that allows it.
pub(crate) fn sends(state: &mut State, kind: Kind, what: &str) {
    let outside = match kind {
        Kind::Stage | Kind::Publish | Kind::Unstage | Kind::DeleteParameter | Kind::StartJob => true,
        Kind::Issue | Kind::Install | Kind::Retire | Kind::EndSessions | Kind::SetUp => true,
        Kind::Observe
        | Kind::LookAtTarget
        | Kind::Finalizer
        | Kind::SecretStatus
        | Kind::HostStatus
        | Kind::IncidentStatus => false,
        Kind::DeleteJob | Kind::DeleteTask => false,
    };
    let granted = state.cluster.grants.iter().any(|grant| grant.spec.mode == GrantMode::Rotate);
    if outside && !(granted && state.cluster.unreadable_grants.is_empty()) {
        state.violate(format!("I9: no grant allows {what:?}"));
    }
    let changes_roles = matches!(kind, Kind::Install | Kind::Retire | Kind::EndSessions | Kind::SetUp);
    let via = |secret: &ManagedSecret| {
        Some(secret.spec.generate.postgres.as_ref()?.via.as_ref()?.docker_host.clone())
    };
    let ways: Vec<String> = state.cluster.secrets().filter_map(via).collect();
    let given = state.cluster.given();
    let is_shut = |way: &&String| {
        state.cluster.host(way).is_some_and(|host| grants::docker_host(&given, host) != Verdict::Rotate)
    };
    if let Some(way) = ways.iter().find(is_shut).filter(|_| changes_roles).cloned() {
        state.violate(format!("I9: no grant allows {what:?} through {way}"));
    }
}

/// Checks that the controller may write a parameter: a record, a marker or a published value.
pub(crate) fn write(state: &mut State, sent: Sent, path: &str, value: &str, text: &str) {
    if let Some(what) = records::parse_path(STAGING, path) {
        if what.kind == StagedKind::Record {
            record(state, path, &what.name, what.id, value);
        }
        return;
    }
    publish(state, sent, path, value, text);
}

fn record(state: &mut State, path: &str, name: &str, id: u64, value: &str) {
    let record = match records::decode(path, &SecretValue::new(value.to_owned())) {
        Ok(record) => record,
        Err(error) => return state.violate(format!("I1: an unreadable record was written: {error}")),
    };
    if state.ssm.content.contains_key(path) {
        state.violate(format!("I3: record {id} of {name} was written over"));
    }
    let open: Vec<u64> =
        open_records(state).into_iter().filter(|(of, _)| of == name).map(|(_, r)| r.id).collect();
    if !open.is_empty() && !matches!(record.trigger, Trigger::RollBack | Trigger::Incident) {
        state.violate(format!("I3: record {id} of {name} was created beside the open {open:?}"));
    }
    let highest = record.values.keys().filter_map(|path| state.memory.ids.get(path)).max();
    if highest.is_some_and(|highest| *highest >= id) {
        state.violate(format!("I3: record {id} of {name} was created though that id is published"));
    }
    held::rotation_begins(state, name, &record);
    state.memory.recorded.entry(name.to_owned()).or_default().insert(id);
    for value in record.values.values() {
        value_is_made(state, value.expose(), record.at);
    }
}

/// Checks a first value without a record. That is allowed if nothing else needs the value: its Put itself happens only
/// once.
fn create(state: &mut State, path: &str, value: &str, text: &str) {
    let folder = format!("{CLUSTER}/{NAMESPACE}/");
    let stamp = description::parse(text).map(|written| written.stamp).filter(|stamp| stamp.version == 1);
    let named = stamp.and_then(|stamp| Some((stamp.owner.strip_prefix(&folder)?.to_owned(), stamp)));
    let Some((name, stamp)) = named else {
        value_is_known(state, value);
        return state.violate(format!("I1: {path} was published without a record that holds the value"));
    };
    value_is_made(state, value, stamp.at);
    if state.ssm.content.contains_key(path) {
        state.violate(format!("I11: {path} was created over what is there"));
    }
    let secret = state.cluster.secret(&name);
    let is_alone = |secret: &ManagedSecret| {
        let spec = &secret.spec;
        spec.hosts.is_empty() && spec.ssm.parameters.len() == 1 && !spec.generate.has_target()
    };
    let (is_for_others, is_suspended) =
        (secret.is_some_and(|s| !is_alone(s)), secret.is_some_and(|s| s.spec.suspend));
    let is_wanted = secret.is_some_and(|s| s.metadata.deletion_timestamp.is_none());
    if is_for_others {
        state.violate(format!("I1: {path} was created without a record, and others have to hear of it"));
    }
    if is_suspended {
        state.violate(format!("hold: {path} was created although {name} is suspended"));
    }
    if !is_wanted && state.memory.removed.contains(path) {
        state.violate(format!("I10: {path} was created again after it was deleted with its object"));
    }
    let highest = state.memory.ids.entry(path.to_owned()).or_default();
    *highest = stamp.id.max(*highest);
    state.memory.published.entry(path.to_owned()).or_default().push(value.to_owned());
}

fn publish(state: &mut State, sent: Sent, path: &str, value: &str, text: &str) {
    let holder = open_records(state)
        .into_iter()
        .find(|(_, r)| r.values.get(path).is_some_and(|recorded| recorded.expose() == value));
    let Some((name, record)) = holder else { return create(state, path, value, text) };
    value_is_known(state, value);
    let written = description::parse(text);
    let (words, stamp) = written.map_or((text, None), |written| (written.text, Some(written.stamp)));
    let before = state.ssm.latest(path).filter(|latest| latest.sequence <= sent.seen);
    if before.is_some_and(|before| before.said.text != words) {
        state.violate(format!("I11: the text that describes {path} was lost"));
    }
    match stamp {
        Some(stamp) if stamp.owner == format!("{CLUSTER}/{NAMESPACE}/{name}") && stamp.id == record.id => {}
        other => state
            .violate(format!("I3: {path} was published with the stamp {other:?}, not that of its record")),
    }
    // An incident does not wait until no request of the previous rotation is under way: its own record stays open until
    // then, and publishes its value again if such a request replaces it.
    let is_open = |(of, r): &(String, Record)| *of == name && r.trigger == Trigger::Incident;
    let published_again = open_records(state).iter().any(|open| is_open(open) && open.1.id > record.id);
    let highest = state.memory.ids.entry(path.to_owned()).or_default();
    if record.id < *highest && !published_again {
        let highest = *highest;
        state.violate(format!("I4: {path} was published by rotation {} after {highest}", record.id));
    } else {
        *highest = record.id;
    }
    let known = state.memory.published.entry(path.to_owned()).or_default();
    match known.iter().position(|k| k == value) {
        None => known.push(value.to_owned()),
        Some(at) if at + 1 < known.len() && record.trigger != Trigger::RollBack && !published_again => {
            state.violate(format!("I4: an older value of {path} came back"));
        }
        Some(_) => {}
    }
    someone_elses_version_is_replaced(state, sent, path, &name, &record);
}

fn someone_elses_version_is_replaced(state: &mut State, sent: Sent, path: &str, name: &str, record: &Record) {
    use keyturn_api::managed_secret::OnDrift;
    let Some(latest) = state.ssm.latest(path).filter(|latest| latest.by == By::Person) else { return };
    // Version numbers begin again if somebody deletes the parameter and creates it again.
    let recorded = state.ssm.latest(&records::record_path(STAGING, NAMESPACE, name, record.id));
    if recorded.is_none_or(|recorded| latest.sequence < recorded.sequence) {
        return;
    }
    let (number, unseen) = (latest.number, latest.sequence > sent.seen);
    state.memory.replaced.push((path.to_owned(), number));
    let on_drift = state
        .cluster
        .secrets()
        .find(|s| s.spec.ssm.parameters.iter().any(|p| p.path == path))
        .and_then(|s| s.spec.rotation.on_drift)
        .unwrap_or_default();
    // A role with only one password has already got it, so no other value works.
    let installed = record.credential.as_ref().is_some_and(|credential| {
        let login = format!("{}:{}", credential.username, credential.password.expose());
        changes_in_place(state) && state.postgres.as_ref().is_some_and(|server| server.accepts(&login))
    });
    if !unseen && !installed && on_drift != OnDrift::Rotate && !has_to_go(state, path) {
        state.violate(format!(
            "I11: version {number} of {path}, written by somebody else, was replaced knowingly"
        ));
    }
}

/// True if a report demands a replacement of the published value. A target still accepts the last value of ours,
/// whatever somebody has written over it.
fn has_to_go(state: &State, path: &str) -> bool {
    let from_the_latest_down = || state.ssm.versions(path).iter().rev();
    let written_over = from_the_latest_down().take_while(|version| version.by == By::Person).count();
    let has_target = state.postgres.is_some() || state.cloudflare.is_some();
    let alive = if has_target { written_over + 1 } else { 1 };
    from_the_latest_down().take(alive).any(|version| is_suspected(state, &version.value))
}

/// Checks that the controller may delete a parameter.
pub(crate) fn delete(state: &mut State, sent: Sent, path: &str) {
    let Some(what) = records::parse_path(STAGING, path) else {
        let wanted = state.cluster.secrets().any(|s| {
            s.metadata.deletion_timestamp.is_some()
                && s.spec.deletion_policy == DeletionPolicy::Delete
                && s.spec.ssm.parameters.iter().any(|p| p.path == path)
        });
        if !wanted && state.ssm.content.contains_key(path) {
            state.violate(format!("I10: {path} was deleted though nobody asked for it"));
        }
        state.memory.removed.insert(path.to_owned());
        return;
    };
    if what.kind != StagedKind::Record {
        return;
    }
    let Some((_, record)) =
        open_records(state).into_iter().find(|(name, r)| *name == what.name && r.id == what.id)
    else {
        return;
    };
    close(state, sent, &what.name, &record);
}

/// True if a version has the stamp of this rotation of this secret.
fn is_of(version: &Stored, name: &str, id: u64) -> bool {
    let stamp = version.said.stamp.as_ref();
    stamp.is_some_and(|stamp| stamp.owner == format!("{CLUSTER}/{NAMESPACE}/{name}") && stamp.id == id)
}

fn close(state: &mut State, sent: Sent, name: &str, record: &Record) {
    let id = record.id;
    let latest = |path: &String| state.ssm.latest(path);
    // A roll back keeps the version of a parameter that was not published, even if somebody else wrote it.
    let is_left = |path: &String| {
        record.kept.contains(path)
            && latest(path).map(|latest| latest.number) == record.base.get(path).copied()
    };
    let is_published = |(path, value): (&String, &SecretValue)| {
        latest(path).is_some_and(|latest| latest.value == value.expose()) || is_left(path)
    };
    let all_published = record.values.iter().all(is_published);
    let marked = state.ssm.content.contains_key(&records::abort_path(STAGING, NAMESPACE, name, id));
    let newer =
        record.values.keys().any(|path| state.memory.ids.get(path).is_some_and(|highest| *highest > id));
    let drifted = record.values.keys().any(|path| {
        let base = record.base.get(path).copied().unwrap_or(0);
        latest(path).is_some_and(|latest| latest.by == By::Person && latest.number > base)
    });
    // If one id was drawn twice, the published draw counts.
    let another_draw = || {
        record.values.iter().any(|(path, value)| {
            latest(path).is_some_and(|latest| is_of(latest, name, id) && latest.value != value.expose())
        })
    };
    if !all_published {
        let ever = record.values.iter().all(|(path, value)| state.memory.is_ours(path, value.expose()));
        if !(marked || newer || another_draw() || drifted && ever) {
            state.violate(format!("I1: record {id} of {name} was deleted before its values were published"));
        }
        return;
    }
    held::rotation_ends(state, name, record);
    let paths = record.values.keys();
    // The versions as the sender may have seen them: an earlier request that was applied since then is no longer under
    // way.
    let is_shown = |version: &&Stored| version.sequence <= sent.seen;
    let shown = |path: &String| state.ssm.versions(path).iter().rfind(is_shown);
    if let Some(young) = paths.clone().filter_map(shown).find(|l| l.modified + GRACE > state.now) {
        let age = (state.now - young.modified).num_seconds();
        state.violate(format!("grace: record {id} of {name} was closed {age} s after its publication"));
    }
    let pending: Vec<String> = state
        .late
        .iter()
        .map(|late| late.what.clone())
        .chain(state.gates.values().map(|gate| gate.what.clone()))
        .filter(|what| paths.clone().any(|path| what.ends_with(&format!("overwrite {path}"))))
        .collect();
    if !pending.is_empty() {
        state.violate(format!("grace: record {id} of {name} was closed while {pending:?} is on its way"));
    }
    let heard = record.credential.as_ref().is_none_or(|credential| {
        let login = format!("{}:{}", credential.username, credential.password.expose());
        state.memory.answered.get(&(sent.process, login)).is_some_and(|(accepted, _)| *accepted)
    });
    if !heard {
        state.violate(format!(
            "I8: record {id} of {name} was closed before its target was heard to accept it"
        ));
    }
    let secret = state.cluster.secret(name);
    let named = secret.map(|s| s.spec.hosts.iter().map(|h| h.name.clone()).collect::<Vec<_>>());
    let hosts: BTreeSet<String> = record.hosts.iter().cloned().chain(named.unwrap_or_default()).collect();
    let mut behind = Vec::new();
    for host in hosts.iter().filter(|host| state.cluster.host(host).is_some()) {
        let Some(real) = state.hosts.get(host) else { continue };
        for (path, value) in &record.values {
            // If a host fetches the value under another name, only its deployments are known.
            let runs = real.running.get(path).map(String::as_str);
            if runs != Some(value.expose()) {
                behind.push(format!("{host} does not run {path}"));
            }
        }
    }
    if !behind.is_empty() {
        state.violate(format!("I8: record {id} of {name} was closed although {}", behind.join(", ")));
    }
}

/// Checks that the finalizer may be removed.
pub(crate) fn released(state: &mut State, secret: &ManagedSecret) {
    let name = secret.name_any();
    let open: Vec<u64> =
        open_records(state).into_iter().filter(|(of, _)| *of == name).map(|(_, r)| r.id).collect();
    let given_up = secret
        .metadata
        .deletion_timestamp
        .as_ref()
        .is_some_and(|at| from_kubernetes(at) + DELETION_BOUND <= state.now);
    if given_up {
        state.memory.abandoned.insert(name);
    } else if !open.is_empty() {
        state.violate(format!("I10: {name} was released with open records {open:?}"));
    }
}

pub(crate) fn job_starts(state: &mut State, host: &str, task: &Task) {
    held::job_starts(state, host, task);
    let consents = state.cluster.key_labels.get(KEY).is_some_and(|labels| {
        labels.get(consent::USABLE_BY).is_some_and(|value| value == Purpose::SSH.as_str())
    });
    if !consents {
        state.violate(format!("I9: a Job was started on {host} with a key that does not allow it"));
    }
    let running = state.jobs.iter().filter(|job| job.host == host && job.is_running()).count();
    if running > 0 {
        state.violate(format!(
            "I3: a Job of revision {} was started on {host} beside a running one",
            task.revision
        ));
    }
}

pub(crate) fn secret_status(state: &mut State, sent: Sent, changed: &ManagedSecret) {
    let text = serde_json::to_string(&changed.status).unwrap_or_default();
    no_value_in(state, "the status of a ManagedSecret", &text);
    said(state, &text);
    ready_is_accepted(state, sent, changed);
    refused_is_not_accepted(state, sent, changed);
    held::conditions_are_true(state, sent, changed);
    answered_requests_ask_nobody(state, changed);
    held::a_revocation_goes_its_own_way(state, changed);
    held::ends_are_told_in_order(state, sent, changed);
    let compromise = changed.status.as_ref().and_then(|status| status.compromise.as_ref());
    if let Some(said) = compromise.filter(|said| said.contained_at.is_some()) {
        state.memory.contained.insert((changed.name_any(), from_kubernetes(&said.reported_at)));
    }
    if let Some(status) = &changed.status
        && status.history.len() > 10
    {
        state.violate("bounds: status.history holds more than ten entries".to_owned());
    }
}

/// Ready=True: the target accepted the published value in the status when the controller last received an answer. Later
/// answers do not count, since the API server may apply the status late.
fn ready_is_accepted(state: &mut State, sent: Sent, changed: &ManagedSecret) {
    let Some(status) = &changed.status else { return };
    if !conditions::is_true(&status.conditions, conditions::READY) {
        return;
    }
    let refused = status.parameters.iter().find(|p| {
        let published = state.ssm.versions(&p.path).iter().find(|version| version.number == p.version);
        published.is_some_and(|v| {
            let asked = (sent.process, v.value.trim_end().to_owned());
            let answer = state.memory.answered.get(&asked);
            answer.is_some_and(|(accepted, heard_after)| !accepted && *heard_after <= sent.after)
        })
    });
    if let Some(refused) = refused {
        let (path, version) = (refused.path.clone(), refused.version);
        state
            .violate(format!("Ready: True although version {version} of {path} was refused when last asked"));
    }
}

/// Ready=False because of a refusal: the target did not accept the published value when the controller last received an
/// answer.
fn refused_is_not_accepted(state: &mut State, sent: Sent, changed: &ManagedSecret) {
    let is_told = |secret: &ManagedSecret| {
        let ready = secret.status.as_ref().and_then(|s| conditions::find(&s.conditions, conditions::READY));
        ready.is_some_and(|ready| ready.reason == "LoginRefused")
    };
    if !is_told(changed) || state.cluster.secret(&changed.name_any()).is_some_and(is_told) {
        return;
    }
    let accepted = changed.status.iter().flat_map(|status| &status.parameters).find(|p| {
        let published = state.ssm.versions(&p.path).iter().find(|version| version.number == p.version);
        let asked = published.map(|version| (sent.process, version.value.trim_end().to_owned()));
        let answer = asked.and_then(|asked| state.memory.answered.get(&asked));
        answer.is_some_and(|(accepted, heard_after)| *accepted && *heard_after <= sent.after)
    });
    if let Some(accepted) = accepted {
        let (path, version) = (accepted.path.clone(), accepted.version);
        state.violate(format!(
            "Ready: False for a refusal although version {version} of {path} was accepted when last asked"
        ));
    }
}

/// I3: a request that a published version already answers starts no preflight on a host, if nothing else is due.
fn answered_requests_ask_nobody(state: &mut State, changed: &ManagedSecret) {
    let asked = changed.status.as_ref().and_then(|status| status.preflight.as_ref());
    let (Some(asked), Some(token)) = (asked, changed.annotations().get(ROTATE_REQUESTED_AT)) else { return };
    let asked_at = from_kubernetes(&asked.requested_at);
    let hash = Some(request::hash(token));
    let period = changed.spec.rotation.period.as_ref().and_then(|period| period.to_delta());
    for parameter in &changed.spec.ssm.parameters {
        let versions = state.ssm.versions(&parameter.path);
        let answered = versions
            .iter()
            .filter(|v| v.modified < asked_at)
            .any(|v| v.said.stamp.as_ref().is_some_and(|stamp| stamp.request == hash));
        let made_at = versions.last().map(|v| v.modified);
        let due = made_at.zip(period).is_some_and(|(made_at, period)| made_at + period <= state.now);
        // A token that expires is due before that, whatever the period is.
        let ends_by_itself = changed.spec.generate.cloudflare_r2.is_some();
        if answered && !due && !ends_by_itself {
            let name = changed.name_any();
            return state.violate(format!("I3: hosts of {name} were asked for a request that was answered"));
        }
    }
}

/// Records the answer that a process received for a login: accepted or not.
pub(crate) fn login_is_answered(state: &mut State, process: usize, login: &str, accepted: bool) {
    let after = state.log.len();
    let answer =
        state.memory.answered.entry((process, login.trim_end().to_owned())).or_insert((accepted, after));
    if answer.0 != accepted {
        *answer = (accepted, after);
    }
}

/// Records that a process knows of the change of a role: none of the role's other passwords is accepted any more.
pub(crate) fn role_is_known_to_be_changed(state: &mut State, process: usize, username: &str) {
    let theirs = format!("{username}:");
    let after = state.log.len();
    for ((by, login), answer) in &mut state.memory.answered {
        if *by == process && login.starts_with(&theirs) && answer.0 {
            *answer = (false, after);
        }
    }
}

/// I7, checked by the values themselves.
pub(crate) fn no_value_in(state: &mut State, place: &str, text: &str) {
    // The id of a key pair is not secret, even if a parameter contains it alone.
    let is_id = |value: &String| state.cloudflare.as_ref().is_some_and(|r2| r2.tokens.contains_key(value));
    let leaked = state
        .memory
        .values
        .keys()
        .any(|value| value.len() >= 8 && !is_id(value) && text.contains(value.as_str()));
    if leaked {
        state.violate(format!("I7: a value is in {place}"));
    }
}

pub(crate) fn said(state: &mut State, text: &str) {
    state.memory.said.push_str(text);
    state.memory.said.push('\n');
}

/// Records the documented exception: a token whose object has no status before the record exists looks like a token of
/// YAML that was applied again. It is recorded and not executed.
pub(crate) fn status_is_emptied(state: &mut State) {
    let open = open_records(state);
    let forgotten = state.cluster.secrets().any(|secret| {
        let Some(token) = secret.annotations().get(ROTATE_REQUESTED_AT) else { return false };
        let hash = request::hash(token);
        let name = secret.name_any();
        let recorded = open.iter().any(|(of, r)| *of == name && r.request.as_ref() == Some(token));
        let published = secret.spec.ssm.parameters.iter().any(|p| {
            let stamps = state.ssm.versions(&p.path).iter().filter_map(|v| v.said.stamp.as_ref());
            stamps.into_iter().any(|stamp| stamp.request.as_ref() == Some(&hash))
        });
        !recorded && !published
    });
    let rolled_back = open.iter().any(|(name, record)| {
        let marker = records::abort_path(STAGING, NAMESPACE, name, record.id);
        record.trigger == Trigger::RollBack || state.ssm.content.contains_key(&marker)
    });
    state.memory.roll_back_forgotten |= rolled_back;
    state.memory.request_forgotten |= forgotten;
    state.memory.deployed.clear();
    // Only the status shows the roll back of something that was not published.
    state.memory.rolled_back.clear();
    state.memory.taken_back.clear();
    state.memory.under_way.clear();
    state.memory.answer_forgotten |= state.cluster.secrets().any(has_recorded_a_request);
}

/// True if the status says of a request that it was recorded and not executed.
pub(crate) fn has_recorded_a_request(secret: &ManagedSecret) -> bool {
    secret
        .status
        .as_ref()
        .is_some_and(|s| s.history.iter().any(|ended| ended.result == RotationResult::Recorded))
}

/// Checks that the rotation of this id may give a role a password, which replaces one that worked.
pub(crate) fn role_is_changed(
    state: &mut State,
    id: u64,
    username: &str,
    password: &str,
    before: Option<String>,
) {
    value_is_known(state, password);
    let login = format!("{username}:{password}");
    if state.memory.retired.contains(&login) {
        state.violate(format!("I4: rotation {id} brought a retired login of {username} back"));
    }
    // Of roles that take turns, it must be the role that nobody uses.
    let taken = before.filter(|before| before != password).map(|before| format!("{username}:{before}"));
    if let Some(taken) = taken.filter(|_| !changes_in_place(state)) {
        let users = users_of(state, |value| value == taken);
        if !users.is_empty() {
            let users = users.join(", ");
            state.violate(format!("I8: rotation {id} changed role {username} while {users} ran it"));
        }
    }
}

/// Checks that the login of a role may be removed.
pub(crate) fn role_is_retired(state: &mut State, username: &str, password: &str) {
    let login = format!("{username}:{password}");
    held::login_ends(state, |value| value == login);
    state.memory.retired.insert(login);
    let users = users_of(state, |value| value.starts_with(&format!("{username}:")));
    if !users.is_empty() {
        state.violate(format!("I8: role {username} was retired while {} ran it", users.join(", ")));
    }
}

/// Returns the hosts that run such a value, except if the value may be revoked while they use it.
fn users_of(state: &State, is_of: impl Fn(&str) -> bool) -> Vec<String> {
    let runs = |value: &String| is_of(value) && !may_be_revoked(state, value);
    let users = state.hosts.iter().filter(|(_, host)| host.running.values().any(runs));
    users.map(|(name, _)| name.clone()).collect()
}

/// True if an incident allows the revocation of a value that is still in use: it is suspected, and the time for leaving
/// it is over.
fn may_be_revoked(state: &State, value: &str) -> bool {
    suspicions_of(state, value).any(|incident| scope::revoke_at(incident) <= state.now)
}

fn is_suspected(state: &State, value: &str) -> bool {
    suspicions_of(state, value).next().is_some()
}

/// Returns the incidents that were reported after a value was made.
fn suspicions_of<'a>(state: &'a State, value: &str) -> impl Iterator<Item = &'a SecretIncident> {
    let made = state.memory.values.get(value.trim_end());
    let incidents = state.cluster.incidents.iter();
    incidents.filter(move |incident| made.is_none_or(|made| *made < scope::reported_at(incident)))
}

/// True if the record of an incident is open. Its rotation publishes its value again if a late request of an earlier
/// rotation has replaced it.
fn is_mended(state: &State) -> bool {
    open_records(state).iter().any(|(_, record)| record.trigger == Trigger::Incident)
}

/// Checks that a token may be deleted: never somebody else's, and never one that is published, recorded or run.
pub(crate) fn token_is_deleted(state: &mut State, id: &str) {
    let is_of = |value: &str| value == id || value.starts_with(&format!("{id}:"));
    if THEIRS.contains(&id) {
        state.violate(format!("I9: token {id} of somebody else was deleted"));
    }
    let token = state.cloudflare.as_ref().and_then(|account| account.tokens.get(id));
    let pair_was_known = |secret: &str| state.memory.values.keys().any(|value| value.contains(secret));
    if token.is_some_and(|token| !pair_was_known(&token.secret) && !token.is_ours()) {
        state.violate(format!("I9: token {id} was deleted, whose pair nobody ever published"));
    }
    let users = users_of(state, is_of);
    held::login_ends(state, is_of);
    if !users.is_empty() {
        state.violate(format!("I8: token {id} was deleted while {} ran it", users.join(", ")));
    }
    let managed = state.ssm.content.keys().filter(|path| !path.starts_with(STAGING));
    let mut published = managed.filter_map(|path| state.ssm.latest(path));
    if published.any(|latest| is_of(&latest.value) && !may_be_revoked(state, &latest.value)) {
        state.violate(format!("I5: token {id} was deleted while it was published"));
    }
    // A roll back, or the next record of an incident, replaces the record that contains it.
    let records = open_records(state);
    let holds = |record: &Record| record.credential.as_ref().is_some_and(|c| c.username == id);
    let is_followed = |(name, record): &(String, Record)| {
        records.iter().any(|(other, later)| other == name && later.id > record.id)
    };
    if records.iter().any(|held| holds(&held.1) && !is_followed(held)) {
        state.violate(format!("I1: token {id} was deleted while a record held it"));
    }
}

/// Returns the violations of key pairs while nothing is being changed. Only pairs in one parameter are checked, since
/// two parameters cannot be written at once.
fn pairs(state: &State) -> Vec<String> {
    let Some(account) = &state.cloudflare else { return Vec::new() };
    let whole = |path: &String, value: &str| state.memory.is_ours(path, value) && value.contains(':');
    let mut wrong = Vec::new();
    for (name, host) in &state.hosts {
        for (path, value) in &host.running {
            if whole(path, value) && !account.accepts(value, state.now) && !may_be_revoked(state, value) {
                wrong.push(format!("I2: {name} runs a pair as {path} that R2 refuses"));
            }
        }
    }
    for path in state.ssm.content.keys().filter(|path| !path.starts_with(STAGING)) {
        let Some(latest) = state.ssm.latest(path) else { continue };
        let refused = !account.accepts(&latest.value, state.now);
        if whole(path, &latest.value) && refused && !may_be_revoked(state, &latest.value) && !is_mended(state)
        {
            wrong.push(format!("I5: R2 refuses what {path} publishes"));
        }
    }
    wrong
}

fn changes_in_place(state: &State) -> bool {
    state.cluster.secrets().any(|secret| {
        secret.spec.generate.postgres.as_ref().is_some_and(|postgres| postgres.single_role.is_some())
    })
}

/// Returns the violations of a target's roles while nothing is being changed.
fn logins(state: &State) -> Vec<String> {
    let Some(server) = &state.postgres else { return Vec::new() };
    let mut wrong = Vec::new();
    for (name, role) in server.roles.iter().filter(|(_, role)| role.can_log_in) {
        let login = format!("{name}:{}", role.password);
        let is_published = || {
            let mut versions = state.ssm.content.keys().flat_map(|path| state.ssm.versions(path));
            versions.any(|version| version.value.trim_end() == login)
        };
        let is_recorded = || {
            open_records(state).into_iter().any(|(_, record)| {
                record.credential.is_some_and(|c| c.username == *name && c.password.expose() == role.password)
            })
        };
        // A login with which the server was created never belonged to anybody here.
        let known =
            state.memory.values.contains_key(&login) || state.memory.values.contains_key(&role.password);
        if known && !is_published() && !is_recorded() {
            wrong.push(format!("I1: the password of role {name} can be read back from nowhere"));
        }
    }
    if changes_in_place(state) || server.initialised_by.is_some() {
        return wrong;
    }
    for (name, host) in &state.hosts {
        for (path, value) in &host.running {
            if state.memory.is_ours(path, value) && !server.accepts(value) && !may_be_revoked(state, value) {
                wrong.push(format!("I2: {name} runs a login as {path} that the server refuses"));
            }
        }
    }
    for path in state.ssm.content.keys().filter(|path| !path.starts_with(STAGING)) {
        let Some(latest) = state.ssm.latest(path) else { continue };
        // A value that a person restores counts as the person's, even if keyturn made it.
        let is_ours = state.memory.is_ours(path, &latest.value) && latest.by == By::Keyturn;
        if is_ours
            && !server.accepts(&latest.value)
            && !may_be_revoked(state, &latest.value)
            && !is_mended(state)
        {
            wrong.push(format!("I5: what {path} publishes is refused by the server"));
        }
    }
    wrong
}

/// Checks everything that holds while nothing is being changed.
pub(crate) fn always(state: &mut State) {
    held::hosts_run(state);
    let mut lost = logins(state);
    lost.extend(suspicions(state));
    lost.extend(pairs(state));
    for (name, host) in &state.hosts {
        for (path, value) in &host.running {
            let kept = state.ssm.versions(path).iter().any(|v| v.value.trim_end() == value);
            if !kept && state.ssm.content.contains_key(path) && state.memory.is_ours(path, value) {
                lost.push(format!("I1: what {name} runs as {path} can be read back from nowhere"));
            }
        }
    }
    for what in lost {
        state.violate(what);
    }
}

/// I9: CloudTrail is not read for secrets that no grant gives to the namespace.
pub(crate) fn trail_is_read(state: &mut State, query: &Query) {
    let incidents = &state.cluster.incidents;
    let concerned = state.cluster.secrets().filter(|s| incidents.iter().any(|i| scope::concerns(i, s)));
    let may_know = |secret: &ManagedSecret| {
        let installation = Installation { region: REGION, staging: STAGING };
        grants::managed_secret(&state.cluster.given(), secret, &query.region, installation).allows_reads()
    };
    if !concerned.into_iter().any(may_know) {
        state.violate(format!("I9: CloudTrail was read in {}, which no grant covers", query.region));
    }
}

/// Checks that an incident is contained only once each of its secrets has reported that.
pub(crate) fn incident_status(state: &mut State, changed: &SecretIncident) {
    let text = serde_json::to_string(&changed.status).unwrap_or_default();
    no_value_in(state, "the status of a SecretIncident", &text);
    said(state, &text);
    if changed.status.as_ref().is_none_or(|status| status.contained_at.is_none()) {
        return;
    }
    let reported_at = scope::reported_at(changed);
    let said = &state.memory.contained;
    let is_contained = |name: &String| said.iter().any(|(of, after)| of == name && *after >= reported_at);
    let concerned = state.cluster.secrets().filter(|secret| scope::concerns(changed, secret));
    let open = concerned.map(ResourceExt::name_any).find(|name| !is_contained(name));
    if let Some(open) = open {
        let incident = changed.name_any();
        state.violate(format!("contained: {incident} is said to be, before {open} is"));
    }
}

/// Checks that the response also ends in the incident, which the reporter watches.
fn incidents_are_told(state: &State) -> Vec<String> {
    let open = state.cluster.incidents.iter().filter(|incident| {
        let reported_at = scope::reported_at(incident);
        let is_contained = |secret: &ManagedSecret| {
            let compromise = secret.status.as_ref().and_then(|status| status.compromise.as_ref());
            compromise.is_some_and(|said| {
                said.contained_at.is_some() && from_kubernetes(&said.reported_at) >= reported_at
            })
        };
        let mut concerned = state.cluster.secrets().filter(|s| scope::concerns(incident, s)).peekable();
        let told = incident.status.as_ref().is_some_and(|status| status.contained_at.is_some());
        !told && concerned.peek().is_some() && concerned.all(is_contained)
    });
    open.map(|incident| {
        format!("contained: {} is not said to be, and all its secrets are", incident.name_any())
    })
    .collect()
}

/// Checks the demands of a report: no value that was published before it is accepted, published or run any more, and
/// the status says since when. It may stay open only if the story never brings back a host or the server.
fn suspicions(state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    for incident in &state.cluster.incidents {
        let reported_at = scope::reported_at(incident);
        for secret in state.cluster.secrets().filter(|s| scope::concerns(incident, s)) {
            let compromise = secret.status.as_ref().and_then(|status| status.compromise.as_ref());
            let said = compromise.is_some_and(|said| {
                said.contained_at.is_some() && from_kubernetes(&said.reported_at) == reported_at
            });
            if !said {
                continue;
            }
            for path in secret.spec.ssm.parameters.iter().map(|p| &p.path) {
                let old = state.ssm.versions(path).iter().filter(|version| {
                    version.said.stamp.as_ref().map_or(version.modified, |stamp| stamp.at) < reported_at
                });
                let old: Vec<String> = old.map(|version| version.value.trim_end().to_owned()).collect();
                // Each key of a ring opens what was sealed with it.
                let keys = |value: &str| value.trim_end().split(',').map(str::to_owned).collect::<Vec<_>>();
                let old_keys: BTreeSet<String> = old.iter().flat_map(|value| keys(value)).collect();
                let is_old = |value: &str| keys(value).iter().any(|key| old_keys.contains(key));
                let has_target = state.postgres.is_some() || state.cloudflare.is_some();
                let alive = if has_target {
                    old.iter().any(|value| {
                        state.postgres.as_ref().is_some_and(|server| server.accepts(value))
                            || state.cloudflare.as_ref().is_some_and(|r2| r2.accepts(value, state.now))
                    })
                } else {
                    state.hosts.values().any(|host| host.running.get(path).is_some_and(|value| is_old(value)))
                };
                // A published login that the target refuses does not count, since nobody can use it. But a role without
                // login, or with another password, may still have an open session.
                let logged_in = state.postgres.as_ref().is_some_and(|server| {
                    let goes_on = |value: &str| {
                        let role = value.split_once(':').and_then(|(name, _)| server.roles.get(name));
                        role.is_some() && !server.ended.contains_key(value)
                    };
                    let mut run = state.hosts.values().filter_map(|host| host.running.get(path));
                    run.any(|value| is_old(value) && goes_on(value))
                });
                let account = state.cloudflare.as_ref();
                let left = account.is_some_and(|account| {
                    account.tokens.values().any(|token| token.is_left_from_before(reported_at, state.now))
                });
                let published =
                    !has_target && state.ssm.latest(path).is_some_and(|latest| is_old(&latest.value));
                if alive || published || logged_in || left {
                    wrong.push(format!("contained: {path} is said to be, and is not"));
                }
            }
        }
    }
    wrong
}

/// True if a deletion takes too long: it must end in bounded time, whatever prevents the object from being finished.
fn is_held_too_long(secret: &ManagedSecret, now: At) -> bool {
    let deleted_at = secret.metadata.deletion_timestamp.as_ref().map(from_kubernetes);
    deleted_at.is_some_and(|at| at + DELETION_BOUND * 2 < now)
}

/// True if the object is not Ready and nothing says why.
fn says_nothing(known: &[Condition]) -> bool {
    let ready = conditions::find(known, conditions::READY);
    ready.is_none_or(|ready| ready.status != "True" && (ready.reason.is_empty() || ready.message.is_empty()))
}

fn waits_without_a_word(secret: &ManagedSecret) -> bool {
    let known = secret.status.as_ref().map_or(&[][..], |status| &status.conditions);
    secret.metadata.deletion_timestamp.is_none() && says_nothing(known)
}

fn host_waits_without_a_word(host: &DockerHost) -> bool {
    let known = host.status.as_ref().map_or(&[][..], |status| &status.conditions);
    host.metadata.deletion_timestamp.is_none() && says_nothing(known)
}

/// Checks the end: replaced writes of other people have been reported, and nothing is stuck silently.
pub(crate) fn at_the_end(state: &mut State) {
    // A fault may prevent a moment that people wait for.
    if let Some(waits) = state.script.front().map(|action| action.what).filter(|_| state.plan == Plan::none())
    {
        state.violate(format!("{SAME_END}: the moment has not come at which somebody {waits}"));
    }
    for open in incidents_are_told(state) {
        state.violate(open);
    }
    let silent: Vec<String> = state
        .memory
        .replaced
        .iter()
        .filter(|(path, number)| {
            !state.memory.said.lines().any(|line| {
                let line = line.to_lowercase();
                line.contains(&format!("{} version {number}", path.to_lowercase()))
                    || line.contains(&format!("version {number} of {}", path.to_lowercase()))
            })
        })
        .map(|(path, number)| format!("{path} version {number}"))
        .collect();
    if !silent.is_empty() {
        state.violate(format!("I11: nobody was told that {} was replaced", silent.join(", ")));
    }
    let held: Vec<String> =
        state.cluster.secrets().filter(|s| is_held_too_long(s, state.now)).map(|s| s.name_any()).collect();
    if !held.is_empty() {
        state.violate(format!("I6: deleted and still there: {}", held.join(", ")));
    }
    let secrets = state.cluster.secrets().filter(|s| waits_without_a_word(s)).map(|s| s.name_any());
    let hosts = state.cluster.hosts().filter(|h| host_waits_without_a_word(h)).map(|h| h.name_any());
    let silent: Vec<String> = secrets.chain(hosts).collect();
    if !silent.is_empty() {
        state.violate(format!("I6: not Ready, and nothing says why: {}", silent.join(", ")));
    }
    for untold in held::untold(state) {
        state.violate(untold);
    }
    // When a DockerHost is deleted, Kubernetes garbage collects its Jobs and their Secrets.
    let is_collected =
        |job: &&SimJob| state.cluster.host(&job.host).is_none_or(|host| host.metadata.uid != job.host_uid);
    let kept = state.jobs.iter().filter(|job| !is_collected(job));
    let jobs = kept.filter(|job| job.finished.is_some() && !job.task_deleted);
    let held: Vec<String> = jobs.map(|job| job.name.clone()).collect();
    if !held.is_empty() {
        state.violate(format!("I7: the fingerprints of a run that is over are kept: {}", held.join(", ")));
    }
    if !state.late.is_empty() {
        state.violate("I6: the run ended before everything was applied".to_owned());
    }
}
