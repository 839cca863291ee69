//! Converts a world into the input of the real protocol: the controller's observations and the desired state.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn::api::docker_host::{Proof, RunResult};
use keyturn::api::managed_secret::IfMissing;
use keyturn::api::{Reason, Trouble};
use keyturn::rotation::observed::{
    Acceptance, Credential, HostEvidence, HostFailure, HostProof, Observed, OpenSession, Parameter, Record,
    Shape, Stamp, TargetEvidence, Trigger, Version,
};
use keyturn::rotation::protocol::{Desired, Incident, Request, Retirement, Strategy, Timing};
use keyturn::secret_value::SecretValue;

use crate::seeds;
use crate::stories::{Source, Story};
use crate::world::{self, Age, Id, Outside, PATHS, Refusal, Server, Shows, Value, Why};

/// The controller's grace period, which is two ticks.
pub const GRACE: TimeDelta = TimeDelta::minutes(15);
/// Paths of the parameters, by their number in the model.
pub const PATH_NAMES: [&str; PATHS] = ["/shop/LOGIN", "/shop/URL"];
/// User names of the roles, by their number in the model.
pub const ROLE_NAMES: [&str; 2] = ["a", "b"];
const OWNER: &str = "test/shop/login";
const HOST_NAMES: [&str; 2] = ["one", "two"];
const REQUESTS: [&str; 4] = ["0", "1", "2", "3"];
/// Age of suspected values at the time of the report.
const LONG: TimeDelta = TimeDelta::days(30);
const MOMENT: TimeDelta = TimeDelta::seconds(20);

/// Returns the time of every decision. It is always the same: the model changes ages and not the clock.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default()
}

/// Returns the time at which something of this age was made.
fn at(age: Age) -> DateTime<Utc> {
    now()
        - match age {
            Age::New => TimeDelta::minutes(1),
            Age::Recent => TimeDelta::minutes(10),
            Age::Old => TimeDelta::days(1),
        }
}

/// Returns SSM's time of a version: of two versions in one tick, the suspected one came before the report.
fn modified(version: &world::Version) -> DateTime<Utc> {
    at(version.age) + if version.suspected { -MOMENT } else { MOMENT }
}

/// Returns the time at which a value was generated.
fn drawn_at(seen: &Outside, suspected: bool) -> DateTime<Utc> {
    let reported_at = seen.report.map_or(now() - LONG, |report| at(report.age));
    reported_at + if suspected { -LONG } else { TimeDelta::seconds(1) }
}

fn secret(value: Value) -> SecretValue {
    SecretValue::new(format!("value-{value}"))
}

/// Returns the hash of a request, as stamps contain it.
pub fn request_hash(request: u8) -> String {
    format!("hash-{request}")
}

/// Converts what a controller has read into observations; a seed may distort them.
pub fn observed(story: &Story, seen: &Outside) -> Observed {
    let records: BTreeMap<u64, Record> = seen
        .records
        .iter()
        .map(|(id, record)| (u64::from(*id), recorded(story, seen, *id, record)))
        .collect();
    let parameters: Vec<Parameter> = (0..story.paths).map(|path| parameter(seen, path)).collect();
    let known = seen.hosts.iter().zip(HOST_NAMES).filter(|_| seen.knows_hosts());
    let hosts = known.map(|(host, name)| shown(name, host, &parameters)).collect();
    let writable = (0..story.paths)
        .filter(|path| seen.refusals[*path] != Refusal::Hidden)
        .map(|path| PATH_NAMES[path].to_owned())
        .collect();
    let mut observed = Observed {
        mismatched: mismatched(seen),
        aborts: seen.markers.iter().map(|(id, age)| (u64::from(*id), at(*age))).collect(),
        target: (story.has_target() && !seen.object.other_source).then(|| target(story, seen)),
        keys: None,
        parameters,
        records,
        writable,
        hosts,
    };
    seeds::distort(story, seen, &mut observed);
    observed
}

fn recorded(story: &Story, seen: &Outside, id: Id, record: &world::Record) -> Record {
    let name = |path: usize| PATH_NAMES[path].to_owned();
    let paths = || 0..story.paths;
    let taken_at = |path: usize| Some((name(path), modified(seen.version(path, record.base[path])?)));
    let credential = story.has_target().then(|| Credential {
        username: ROLE_NAMES[usize::from(record.role)].to_owned(),
        password: secret(record.values[0]),
        replaces: record.replaces.map(|role| ROLE_NAMES[usize::from(role)].to_owned()),
        accepted: BTreeSet::new(),
    });
    Record {
        id: u64::from(id),
        trigger: match record.why {
            Why::Missing => Trigger::Missing,
            Why::Request => Trigger::Request,
            Why::Drift => Trigger::Drift,
            Why::RollBack => Trigger::RollBack,
            Why::Incident => Trigger::Incident,
        },
        at: drawn_at(seen, record.suspected),
        request: (record.request > 0).then(|| REQUESTS[usize::from(record.request)].to_owned()),
        values: paths().map(|path| (name(path), secret(record.values[path]))).collect(),
        base: paths().map(|path| (name(path), i64::from(record.base[path]))).collect(),
        base_at: paths().filter_map(taken_at).collect(),
        hosts: HOST_NAMES[..story.hosts].iter().map(|host| (*host).to_owned()).collect(),
        kept: paths().filter(|path| record.kept[*path]).map(name).collect(),
        credential,
    }
}

fn parameter(seen: &Outside, path: usize) -> Parameter {
    let versions = seen.paths[path].iter().zip(1_u8..).map(|(version, number)| Version {
        number: i64::from(number),
        modified: modified(version),
        text: String::new(),
        stamp: version.stamp.map(|stamp| Stamp {
            owner: OWNER.to_owned(),
            id: u64::from(stamp.id),
            version: i64::from(stamp.expected),
            at: drawn_at(seen, version.suspected),
            request: (stamp.request > 0).then(|| request_hash(stamp.request)),
            made: None,
        }),
        claim: None,
    });
    let base = seen.records.values().next_back().map(|record| i64::from(record.base[path]));
    let duplicates = duplicates(seen, path);
    let parameter = Parameter::classify(PATH_NAMES[path], OWNER, versions.collect(), base, &duplicates);
    let shape = Shape {
        kind: if seen.refusals[path] == Refusal::Shown { "String" } else { "SecureString" }.to_owned(),
        ..Shape::default()
    };
    Parameter { shape: (!seen.paths[path].is_empty()).then_some(shape), ..parameter }
}

/// Returns versions that count as our own Put applied twice. These are misfits after the last fitting version whose
/// value is the record's, or that of a fitting version with the same id. The controller finds them by reading the
/// values.
pub fn duplicates(seen: &Outside, path: usize) -> BTreeSet<i64> {
    let versions = || seen.paths[path].iter().zip(1_u8..);
    let fits = |version: &world::Version, number: u8| version.stamp.is_some_and(|s| s.expected == number);
    let newest =
        versions().filter(|(v, number)| fits(v, *number)).map(|(_, number)| number).max().unwrap_or(0);
    let is_ours = |version: &world::Version| {
        let Some(stamp) = version.stamp else { return false };
        let of_the_same_id = |v: &world::Version| v.stamp.is_some_and(|s| s.id == stamp.id);
        let fitting = || versions().find(|(v, number)| fits(v, *number) && of_the_same_id(v));
        match seen.records.get(&stamp.id) {
            Some(record) => record.values[path] == version.value,
            None => fitting().is_some_and(|(fitting, _)| fitting.value == version.value),
        }
    };
    let later = versions().filter(|(_, number)| *number > newest);
    later.filter(|(version, _)| is_ours(version)).map(|(_, number)| i64::from(number)).collect()
}

/// Returns the paths whose latest version carries the newest record's id but holds another value.
fn mismatched(seen: &Outside) -> BTreeSet<String> {
    let Some((id, record)) = seen.records.last_key_value() else { return BTreeSet::new() };
    let differs = |path: &usize| {
        let number = seen.latest_number(*path);
        seen.latest(*path).is_some_and(|latest| {
            let ours = latest.stamp.is_some_and(|stamp| stamp.id == *id && stamp.expected == number);
            ours && latest.value != record.values[*path]
        })
    };
    (0..seen.paths.len()).filter(differs).map(|path| PATH_NAMES[path].to_owned()).collect()
}

fn shown(name: &str, host: &world::Host, parameters: &[Parameter]) -> HostEvidence {
    let proof = |(path, parameter): (usize, &Parameter)| {
        let proof = host.proofs[path]?;
        let version =
            parameter.versions.iter().find(|seen| seen.version.number == i64::from(proof.version))?;
        let shown = HostProof {
            version: version.version.number,
            published_at: version.published_at(),
            proof: match proof.shows {
                Shows::Proven => Proof::Proven,
                Shows::Differs => Proof::Differs,
                Shows::Incomparable => Proof::Incomparable,
            },
            at: now() - TimeDelta::seconds(if proof.asked { 5 } else { 20 }),
            deployed: proof.deployed,
        };
        Some((parameter.path.clone(), shown))
    };
    let failed = host.failed.map(|failure| HostFailure {
        trouble: Trouble::permanent(RunResult::DeployFailed, ""),
        versions: parameters
            .iter()
            .zip(failure.versions)
            .filter(|(_, version)| *version > 0)
            .map(|(parameter, version)| (parameter.path.clone(), i64::from(version)))
            .collect(),
        finished_at: now() - TimeDelta::seconds(if failure.unseen { 4 } else { 30 }),
        rejected: failure.rejected,
    });
    HostEvidence {
        name: name.to_owned(),
        exists: true,
        deploying: host.deploying.is_some(),
        proofs: parameters.iter().enumerate().filter_map(proof).collect(),
        failure: None,
        failed_deploy: failed,
        stalled: None,
    }
}

fn problem(permanent: bool) -> Trouble {
    Trouble::new(Reason::TargetUnreachable, "", permanent)
}

fn target(story: &Story, seen: &Outside) -> TargetEvidence {
    let silent = seen.server != Server::There;
    let says = |role: u8, value: Value| match silent {
        true => Acceptance::Unknown(problem(false)),
        false if seen.accepts(role, value) => Acceptance::Accepted,
        false => Acceptance::Refused(problem(true)),
    };
    let newest = seen.records.values().next_back();
    let published = seen.latest(0).filter(|_| newest.is_none() && seen.paths.iter().all(|p| !p.is_empty()));
    let roles = || ROLE_NAMES.iter().zip(seen.roles).filter(|_| !silent);
    let fences = roles().filter(|(_, role)| story.is_fenced() && role.fence > 0);
    let session = |role: u8| OpenSession {
        username: ROLE_NAMES[usize::from(role)].to_owned(),
        client: "thief".to_owned(),
        since: Some(now() - LONG),
    };
    TargetEvidence {
        at: now(),
        unseen: silent.then(|| problem(false)),
        fenced: story.is_fenced() && !silent,
        fences: fences
            .map(|(name, role)| ((*name).to_owned(), (u64::from(role.fence), at(role.changed))))
            .collect(),
        can_log_in: roles().filter(|(_, role)| role.can_log_in).map(|(name, _)| (*name).to_owned()).collect(),
        superusers: BTreeSet::new(),
        sessions: seen.thief.filter(|_| !silent).map(session).into_iter().collect(),
        changed_since: false,
        recorded: newest.map(|record| says(record.role, record.values[0])),
        published: published.map(|version| says(version.role, version.value)),
        replaced: BTreeMap::new(),
        issued: None,
        lifetime: None,
        notes: Vec::new(),
        set_up: Vec::new(),
    }
}

/// Converts the object and the report into the desired state; a seed may distort it.
pub fn desired(story: &Story, seen: &Outside) -> Desired<'static> {
    let object = seen.object;
    let strategy = match story.source {
        _ if object.other_source => None,
        Source::Random => None,
        Source::InPlace | Source::InPlaceUnfenced => Some(Strategy::InPlace),
        Source::Alternating => Some(Strategy::Alternating),
    };
    let handled = seeds::handled(story, &object);
    let settled_since = (seen.records.is_empty() && object.finalizer)
        .then(|| seeds::settled_since(story, since(object.settled.unwrap_or(Age::New))));
    let named = if object.names_hosts { story.hosts } else { 0 };
    let deleting =
        object.deleting.map(|deleting| if deleting.overdue { now() - LONG } else { since(deleting.age) });
    Desired {
        owner: OWNER,
        deleting: seeds::deleting(story, deleting),
        deletion_bound: TimeDelta::hours(1),
        delete_parameters: story.delete_parameters,
        suspended: false,
        finalizer: seeds::is_held(story, &object),
        settled_since,
        if_missing: IfMissing::Create,
        on_failure: story.on_failure,
        on_drift: story.on_drift,
        roles: if story.source == Source::Alternating { ROLE_NAMES.to_vec() } else { vec![ROLE_NAMES[0]] },
        kms_key: None,
        rings: false,
        samples: BTreeMap::new(),
        promotion_refused: object.publication_refused && !seeds::forgets_refusals(story),
        hosts: HOST_NAMES[..named].iter().map(|host| (*host).to_owned()).collect(),
        request: (object.asked > 0).then(|| Request {
            token: REQUESTS[usize::from(object.asked)],
            hash: request_hash(object.asked),
            handled,
            first_sight: object.unseen,
        }),
        timing: Timing {
            period: None,
            windows: &[],
            host_windows: &[],
            first_rotation_delay: TimeDelta::zero(),
            spread: TimeDelta::zero(),
            created_at: now() - LONG,
            rolled_back_at: None,
            identity: OWNER,
        },
        preflight_requested: (object.preflight && seen.records.is_empty())
            .then(|| now() - TimeDelta::seconds(10)),
        strategy,
        may_set_up: false,
        retirement: Retirement { verify_is_enough: story.verify_is_enough, ..Retirement::default() },
        incidents: incidents(seen),
    }
}

/// Converts the age of a deletion or an observation. An old one is exactly as old as the grace period, since the time
/// limit for deleted objects is longer.
fn since(age: Age) -> DateTime<Utc> {
    if age == Age::Old { now() - GRACE } else { at(age) }
}

fn incidents(seen: &Outside) -> Vec<Incident> {
    let incident = |report: world::Report| Incident {
        reported_at: at(report.age),
        revoke_at: if report.due { now() } else { now() + TimeDelta::hours(1) },
    };
    seen.report.map(incident).into_iter().collect()
}
