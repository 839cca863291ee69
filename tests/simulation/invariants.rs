//! What must hold after every effect, whatever went wrong. The ids are those of the design's list of invariants.

use std::collections::{BTreeMap, BTreeSet};

use keyturn::api::ManagedSecret;
use keyturn::api::managed_secret::DeletionPolicy;
use keyturn::api::rotation_grant::GrantMode;
use keyturn::api::time::from_kubernetes;
use keyturn::deploy::task::Task;
use keyturn::incident::scope;
use keyturn::parameter_store::description;
use keyturn::parameter_store::records::{self, StagedKind};
use keyturn::rotation::observed::{Record, Trigger};
use keyturn::rotation::protocol::DELETION_DEADLINE;
use keyturn::secret_value::SecretValue;
use kube::ResourceExt;

use crate::faults::Kind;
use crate::world::ssm::By;
use crate::world::{At, CLUSTER, GRACE, NAMESPACE, STAGING, Sent, State};

/// What the checks remember of a run.
#[derive(Default)]
pub struct Memory {
    /// Every value there ever was.
    values: BTreeMap<String, At>,
    /// By path: the values that were published by the controller, in the order of their first appearance.
    published: BTreeMap<String, Vec<String>>,
    /// By path: the highest id in a description.
    ids: BTreeMap<String, u64>,
    /// Other people's versions that one of ours replaced, and the texts that must have said so.
    replaced: Vec<(String, i64)>,
    /// Everything that was said to people so far.
    said: String,
    /// A request was forgotten before its record existed, see [`status_is_emptied`].
    pub request_forgotten: bool,
    /// Names of secrets whose record was given up by the deadline of a deletion.
    pub abandoned: BTreeSet<String>,
    /// Logins that were retired, as `user:password`.
    retired: BTreeSet<String>,
    /// Values that were drawn for a rotation, by owner and id of their record.
    pub recorded: BTreeMap<String, BTreeSet<u64>>,
}

impl Memory {
    /// How many different values the controller has published here.
    pub fn published(&self, path: &str) -> usize {
        self.published.get(path).map_or(0, Vec::len)
    }

    pub fn is_ours(&self, path: &str, value: &str) -> bool {
        self.published.get(path).is_some_and(|known| known.iter().any(|k| k == value))
    }
}

pub fn value_is_known(state: &mut State, value: &str) {
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

/// I9: whatever changes something outside is sent under a grant that lets it.
pub fn sends(state: &mut State, kind: Kind, what: &str) {
    let outside = match kind {
        Kind::Stage | Kind::Publish | Kind::Unstage | Kind::DeleteParameter | Kind::StartJob => true,
        Kind::Issue | Kind::Install | Kind::Retire | Kind::EndSessions | Kind::SetUp => true,
        Kind::Observe | Kind::LookAtTarget | Kind::Finalizer | Kind::SecretStatus | Kind::HostStatus => false,
        Kind::DeleteJob => false,
    };
    let granted = state.cluster.grants.iter().any(|grant| grant.spec.mode == GrantMode::Rotate);
    if outside && !granted {
        state.violate(format!("I9: no grant allows {what:?}"));
    }
}

/// The controller writes a parameter: a record, a marker or a published value.
pub fn write(state: &mut State, sent: Sent, path: &str, value: &str, text: &str) {
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
    state.memory.recorded.entry(name.to_owned()).or_default().insert(id);
    for value in record.values.values() {
        value_is_made(state, value.expose(), record.at);
    }
}

fn publish(state: &mut State, sent: Sent, path: &str, value: &str, text: &str) {
    value_is_known(state, value);
    let holder = open_records(state)
        .into_iter()
        .find(|(_, r)| r.values.get(path).is_some_and(|recorded| recorded.expose() == value));
    let Some((name, record)) = holder else {
        return state.violate(format!("I1: {path} was published without a record that holds the value"));
    };
    let (_, stamp) = description::parse(text);
    match stamp {
        Some(stamp) if stamp.owner == format!("{CLUSTER}/{NAMESPACE}/{name}") && stamp.id == record.id => {}
        other => state
            .violate(format!("I3: {path} was published with the stamp {other:?}, not that of its record")),
    }
    // An incident does not wait until no request of the rotation before it is alive: its own record lies open until then,
    // and publishes again what such a request puts in its place.
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
    someone_elses_version_is_replaced(state, sent, path, &record);
}

fn someone_elses_version_is_replaced(state: &mut State, sent: Sent, path: &str, record: &Record) {
    use keyturn::api::managed_secret::OnDrift;
    let Some(latest) = state.ssm.latest(path).filter(|latest| latest.by == By::Person) else { return };
    let base = record.base.get(path).copied().unwrap_or(0);
    if latest.number <= base {
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
    // A role that has only one password, and has been given it: nothing else works.
    let installed = record.credential.as_ref().is_some_and(|credential| {
        let login = format!("{}:{}", credential.username, credential.password.expose());
        changes_in_place(state) && state.postgres.as_ref().is_some_and(|server| server.accepts(&login))
    });
    if !unseen && !installed && on_drift != OnDrift::Rotate {
        state.violate(format!(
            "I11: version {number} of {path}, written by somebody else, was replaced knowingly"
        ));
    }
}

/// The controller deletes a parameter.
pub fn delete(state: &mut State, _sent: Sent, path: &str) {
    let Some(what) = records::parse_path(STAGING, path) else {
        let wanted = state.cluster.secrets().any(|s| {
            s.metadata.deletion_timestamp.is_some()
                && s.spec.deletion_policy == DeletionPolicy::Delete
                && s.spec.ssm.parameters.iter().any(|p| p.path == path)
        });
        if !wanted && state.ssm.content.contains_key(path) {
            state.violate(format!("I10: {path} was deleted though nobody asked for it"));
        }
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
    close(state, &what.name, &record);
}

fn close(state: &mut State, name: &str, record: &Record) {
    let id = record.id;
    let latest = |path: &String| state.ssm.latest(path);
    let is_published = |(path, value): (&String, &SecretValue)| {
        latest(path).is_some_and(|latest| latest.value == value.expose())
    };
    let all_published = record.values.iter().all(is_published);
    let marked = state.ssm.content.contains_key(&records::abort_path(STAGING, NAMESPACE, name, id));
    let newer =
        record.values.keys().any(|path| state.memory.ids.get(path).is_some_and(|highest| *highest > id));
    let drifted = record.values.keys().any(|path| {
        let base = record.base.get(path).copied().unwrap_or(0);
        latest(path).is_some_and(|latest| latest.by == By::Person && latest.number > base)
    });
    if !all_published {
        let ever = record.values.iter().all(|(path, value)| state.memory.is_ours(path, value.expose()));
        if !(marked || newer || drifted && ever) {
            state.violate(format!("I1: record {id} of {name} was deleted before its values were published"));
        }
        return;
    }
    let paths = record.values.keys();
    if let Some(young) = paths.clone().filter_map(latest).find(|l| l.modified + GRACE > state.now) {
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
    let secret = state.cluster.secret(name);
    let named = secret.map(|s| s.spec.hosts.iter().map(|h| h.name.clone()).collect::<Vec<_>>());
    let hosts: BTreeSet<String> = record.hosts.iter().cloned().chain(named.unwrap_or_default()).collect();
    let mut behind = Vec::new();
    for host in hosts.iter().filter(|host| state.cluster.host(host).is_some()) {
        let Some(real) = state.hosts.get(host) else { continue };
        for (path, value) in &record.values {
            let runs = real.running.get(path).map(String::as_str);
            if runs != Some(value.expose()) && !real.unseen.contains(path) {
                behind.push(format!("{host} does not run {path}"));
            }
        }
    }
    if !behind.is_empty() {
        state.violate(format!("I8: record {id} of {name} was closed although {}", behind.join(", ")));
    }
}

/// The finalizer is taken off.
pub fn released(state: &mut State, secret: &ManagedSecret) {
    let name = secret.name_any();
    let open: Vec<u64> =
        open_records(state).into_iter().filter(|(of, _)| *of == name).map(|(_, r)| r.id).collect();
    let given_up = secret
        .metadata
        .deletion_timestamp
        .as_ref()
        .is_some_and(|at| from_kubernetes(at) + DELETION_DEADLINE.max(GRACE * 4) <= state.now);
    if given_up {
        state.memory.abandoned.insert(name);
    } else if !open.is_empty() {
        state.violate(format!("I10: {name} was released with open records {open:?}"));
    }
}

pub fn job_starts(state: &mut State, host: &str, task: &Task) {
    let running = state.jobs.iter().filter(|job| job.host == host && job.is_running()).count();
    if running > 0 {
        state.violate(format!(
            "I3: a Job of revision {} was started on {host} beside a running one",
            task.revision
        ));
    }
}

pub fn secret_status(state: &mut State, _sent: Sent, changed: &ManagedSecret) {
    let text = serde_json::to_string(changed).unwrap_or_default();
    no_value_in(state, "the status of a ManagedSecret", &text);
    said(state, &text);
    if let Some(status) = &changed.status
        && status.history.len() > 10
    {
        state.violate("status.history holds more than ten entries".to_owned());
    }
}

/// I7, by the values themselves.
pub fn no_value_in(state: &mut State, place: &str, text: &str) {
    let leaked = state.memory.values.keys().any(|value| value.len() >= 8 && text.contains(value.as_str()));
    if leaked {
        state.violate(format!("I7: a value is in {place}"));
    }
}

pub fn said(state: &mut State, text: &str) {
    state.memory.said.push_str(text);
    state.memory.said.push('\n');
}

/// The documented exception: a token whose object has no status before the record exists looks like one that came with
/// re-applied YAML. It is recorded and not executed.
pub fn status_is_emptied(state: &mut State) {
    use keyturn::api::ROTATE_REQUESTED_AT;
    let open = open_records(state);
    let forgotten = state.cluster.secrets().any(|secret| {
        let Some(token) = secret.annotations().get(ROTATE_REQUESTED_AT) else { return false };
        let hash = description::request_hash(token);
        let name = secret.name_any();
        let recorded = open.iter().any(|(of, r)| *of == name && r.request.as_ref() == Some(token));
        let published = secret.spec.ssm.parameters.iter().any(|p| {
            let stamps =
                state.ssm.versions(&p.path).iter().filter_map(|v| description::parse(&v.description).1);
            stamps.into_iter().any(|stamp| stamp.request.as_ref() == Some(&hash))
        });
        !recorded && !published
    });
    state.memory.request_forgotten |= forgotten;
}

/// A role was given a password by the rotation of this id.
pub fn role_is_changed(state: &mut State, id: u64, username: &str, password: &str) {
    value_is_known(state, password);
    let login = format!("{username}:{password}");
    if state.memory.retired.contains(&login) {
        state.violate(format!("I4: rotation {id} brought a retired login of {username} back"));
    }
}

/// The login was taken from a role.
pub fn role_is_retired(state: &mut State, username: &str, password: &str) {
    state.memory.retired.insert(format!("{username}:{password}"));
    let users = users_of(state, |value| value.starts_with(&format!("{username}:")));
    if !users.is_empty() {
        state.violate(format!("I8: role {username} was retired while {} ran it", users.join(", ")));
    }
}

/// Hosts that run such a value, unless it is one that may be taken from under them.
fn users_of(state: &State, is_of: impl Fn(&str) -> bool) -> Vec<String> {
    let runs = |value: &String| is_of(value) && !may_be_revoked(state, value);
    let users = state.hosts.iter().filter(|(_, host)| host.running.values().any(runs));
    users.map(|(name, _)| name.clone()).collect()
}

/// Whether an incident lets a value be revoked whoever still uses it: it is suspected, and the time to leave it is over.
fn may_be_revoked(state: &State, value: &str) -> bool {
    let made = state.memory.values.get(value.trim_end());
    state.cluster.incidents.iter().any(|incident| {
        made.is_none_or(|made| *made < scope::reported_at(incident))
            && scope::revoke_at(incident) <= state.now
    })
}

/// An incident's record beside another one publishes again what a late request of that one undoes.
fn is_mended(state: &State) -> bool {
    open_records(state).iter().any(|(_, record)| record.trigger == Trigger::Incident)
}

/// A token was deleted: never one of somebody else, and never one that is published, recorded or run.
pub fn token_is_deleted(state: &mut State, id: &str) {
    let is_of = |value: &str| value == id || value.starts_with(&format!("{id}:"));
    if matches!(id, "others" | "alike") {
        state.violate(format!("I9: token {id} of somebody else was deleted"));
    }
    let users = users_of(state, is_of);
    if !users.is_empty() {
        state.violate(format!("I8: token {id} was deleted while {} ran it", users.join(", ")));
    }
    let managed = state.ssm.content.keys().filter(|path| !path.starts_with(STAGING));
    let mut published = managed.filter_map(|path| state.ssm.latest(path));
    if published.any(|latest| is_of(&latest.value) && !may_be_revoked(state, &latest.value)) {
        state.violate(format!("I5: token {id} was deleted while it was published"));
    }
    // A roll back, or the next record of an incident, takes the place of the one that holds it.
    let records = open_records(state);
    let holds = |record: &Record| record.credential.as_ref().is_some_and(|c| c.username == id);
    let is_followed = |(name, record): &(String, Record)| {
        records.iter().any(|(other, later)| other == name && later.id > record.id)
    };
    if records.iter().any(|held| holds(&held.1) && !is_followed(held)) {
        state.violate(format!("I1: token {id} was deleted while a record held it"));
    }
}

/// What must hold of key pairs whenever nothing is being changed. Two parameters cannot be written at once.
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

/// What must hold of the roles of a target whenever nothing is being changed.
fn logins(state: &State) -> Vec<String> {
    let Some(server) = &state.postgres else { return Vec::new() };
    let mut wrong = Vec::new();
    for (name, role) in server.roles.iter().filter(|(_, role)| role.can_log_in) {
        let login = format!("{name}:{}", role.password);
        let published = state
            .ssm
            .content
            .keys()
            .any(|path| state.ssm.versions(path).iter().any(|version| version.value.trim_end() == login));
        let recorded = open_records(state).into_iter().any(|(_, record)| {
            record.credential.is_some_and(|c| c.username == *name && c.password.expose() == role.password)
        });
        if !published && !recorded {
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
        let is_ours = state.memory.is_ours(path, &latest.value);
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

/// What must hold whenever nothing is being changed.
pub fn always(state: &mut State) {
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

/// What a report demands: nothing that was published before it is accepted, published or run any more, and the status says
/// since when. Only where the story leaves a host or the server away for good can it be open.
fn suspicions(state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    for incident in &state.cluster.incidents {
        let reported_at = scope::reported_at(incident);
        for secret in state.cluster.secrets().filter(|s| scope::concerns(incident, s)) {
            let status = secret.status.clone().unwrap_or_default();
            let said = status.compromise.as_ref().and_then(|c| c.contained_at.as_ref()).is_some();
            for path in secret.spec.ssm.parameters.iter().map(|p| &p.path) {
                let old = state.ssm.versions(path).iter().filter(|version| {
                    let stamp = description::parse(&version.description).1;
                    stamp.map_or(version.modified, |stamp| stamp.at) < reported_at
                });
                let old: Vec<String> = old.map(|version| version.value.trim_end().to_owned()).collect();
                let is_old = |value: &str| old.iter().any(|old| old == value.trim_end());
                let has_target = state.postgres.is_some() || state.cloudflare.is_some();
                let alive = if has_target {
                    old.iter().any(|value| {
                        state.postgres.as_ref().is_some_and(|server| server.accepts(value))
                            || state.cloudflare.as_ref().is_some_and(|r2| r2.accepts(value, state.now))
                    })
                } else {
                    state.hosts.values().any(|host| host.running.get(path).is_some_and(|value| is_old(value)))
                };
                // A login that is published and refused is of no use to anybody.
                let published =
                    !has_target && state.ssm.latest(path).is_some_and(|latest| is_old(&latest.value));
                if said && (alive || published) {
                    wrong.push(format!("incident: {path} is said to be contained, and is not"));
                }
            }
        }
    }
    wrong
}

/// At the end: other people's writes that were replaced have been reported.
pub fn at_the_end(state: &mut State) {
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
    if !state.late.is_empty() {
        state.violate("the simulation ended before everything was applied".to_owned());
    }
}
