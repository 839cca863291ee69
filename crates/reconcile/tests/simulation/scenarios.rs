//! The situations and actions of people. Each scenario is one story; the harness adds the faults. The stories of
//! random values are in this file.

mod creations;
mod forgers;
mod heeded;
mod incidents;
mod key_pairs;
mod logins;
mod remainders;
mod seams;
mod victims;

use std::collections::BTreeMap;

use chrono::TimeDelta;
use keyturn_api::ROTATE_REQUESTED_AT;
use keyturn_api::consent::Purpose;
use keyturn_api::managed_secret::OnFailure;
use keyturn_api::source::postgres;
use keyturn_reconcile::parameter_store::description;
use keyturn_rotation::observed::Stamp;
use serde_json::{Value, json};

pub(crate) use self::creations::*;
pub(crate) use self::forgers::*;
pub(crate) use self::heeded::*;
pub(crate) use self::incidents::*;
pub(crate) use self::key_pairs::*;
pub(crate) use self::logins::*;
pub(crate) use self::remainders::*;
pub(crate) use self::seams::*;
pub(crate) use self::victims::*;
use crate::summary::{Latest, SecretEnd, Summary};
use crate::world::hosts::SimHost;
use crate::world::postgres::SimPostgres;
use crate::world::{Action, CLUSTER, KEY, NAMESPACE, State, When};

#[derive(Clone)]
pub(crate) struct Scenario {
    pub name: &'static str,
    /// Sets up the world before the controller starts.
    pub prepare: fn(&mut State),
    /// Returns the later actions of people, in order.
    pub script: fn() -> Vec<Action>,
    /// True for the correct end without faults.
    pub ends: fn(&Summary) -> bool,
    /// True for other correct ends, if people and the controller race.
    pub or_else: Option<fn(&Summary) -> bool>,
}

pub(crate) const PATH: &str = "/app/prod/TOKEN";
pub(crate) const SECOND: &str = "/app/prod/TOKEN_ID";
pub(crate) const SECRET: &str = "token";
const HOST_KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILQzrAkkj7EyNVl+dlkYgID8Z0a6qrgj4157Ffnl1wwn";
const OLD: &str = "the-value-that-was-there-before";
const FOREIGN: &str = "what-somebody-else-wrote";

pub(crate) fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

fn spec(patch: Value) -> Value {
    let mut spec = json!({
        "ssm": {"parameters": [{"path": PATH}]},
        "generate": {"hex": {"bytes": 32}},
        "rotation": {"period": "90d"},
    });
    merge(&mut spec, patch);
    spec
}

fn on_web(patch: Value) -> Value {
    let mut with_host = spec(json!({"hosts": [{"name": "web"}]}));
    merge(&mut with_host, patch);
    with_host
}

/// Texts that the stories publish around values.
const TEXTS: [&str; 3] = ["{username}:{password}", "{accessKeyId}:{secretAccessKey}", "id-{value}"];

pub(crate) fn grant(state: &mut State, mode: &str) {
    let hosts = json!([{"host": "web.example"}, {"host": "canary.example"}]);
    let grant = json!({
        "namespaces": [NAMESPACE], "mode": mode, "hosts": hosts,
        "parameters": [{"prefix": "/app/prod/", "templates": TEXTS}],
        "postgres": [
            {"host": "db.example", "roles": ["app", "app_a", "app_b", "app_old"]},
            {"dockerHost": "web", "roles": ["app_a"]},
        ],
        "cloudflare": [{"accountId": ACCOUNT}],
    });
    state.set_grants(&[("all", grant)]);
}

fn withdraw_grants(state: &mut State) {
    state.set_grants(&[]);
}

pub(crate) fn host(state: &mut State, name: &str, fetches: &[&str]) {
    state.label_key(Some(Purpose::SSH));
    state.apply_host(
        name,
        json!({
            "ssh": {
                "host": format!("{name}.example"), "user": "deploy",
                "keySecretRef": {"name": KEY, "key": "id.pem"},
                "knownHosts": [format!("{name}.example ssh-ed25519 {HOST_KEY}")]
            },
            "docker": {"composeProject": "app"},
            "deploy": {"script": "deploy.sh"},
            "verify": {"script": "true"}
        }),
    );
    let running = fetches
        .iter()
        .filter_map(|path| Some(((*path).to_owned(), state.ssm.latest(path)?.value.clone())))
        .collect();
    let fetches = fetches.iter().map(|path| (*path).to_owned()).collect();
    state.hosts.insert(name.to_owned(), SimHost { fetches, running, ..SimHost::default() });
}

/// Puts a value as a person did this many days ago.
pub(crate) fn put_days_ago(state: &mut State, path: &str, value: &str, days: i64) {
    let start = state.now;
    state.now = start - TimeDelta::days(days);
    state.person_describes(path, value, "Signing key");
    state.now = start;
}

/// Returns a description in keyturn's format, made without the key of this installation.
fn stamped_by_another(stamp: &Stamp) -> String {
    let tag = "0123456789abcdef0123456789abcdef";
    description::render("Signing key", stamp, |stamp| format!("{stamp} val={tag} mac={tag}"))
}

/// Puts a value as an earlier rotation did this many days ago.
fn rotated_days_ago(state: &mut State, path: &str, value: &str, days: i64) {
    let start = state.now;
    state.now = start - TimeDelta::days(days + 1);
    state.person_describes(path, OLD, "Signing key");
    state.now = start - TimeDelta::days(days);
    let stamp = Stamp {
        owner: format!("{CLUSTER}/{NAMESPACE}/{SECRET}"),
        id: 1,
        version: 2,
        at: state.now,
        request: None,
        made: None,
    };
    state.has_published(path, value, &stamp);
    state.now = start;
}

pub(crate) fn at(seconds: i64, what: &'static str, run: fn(&mut State)) -> Action {
    Action { what, when: When::At(seconds), run }
}

pub(crate) fn later(seconds: i64, what: &'static str, run: fn(&mut State)) -> Action {
    Action { what, when: When::Later(seconds), run }
}

pub(crate) fn once(holds: fn(&State) -> bool, what: &'static str, run: fn(&mut State)) -> Action {
    Action { what, when: When::Once(holds), run }
}

pub(crate) fn nobody_does_anything() -> Vec<Action> {
    Vec::new()
}

pub(crate) fn a_request() -> Vec<Action> {
    vec![at(300, "asks for a rotation", |s| s.request(SECRET, "one"))]
}

// Moments at which people act.

pub(crate) fn recorded(state: &State) -> bool {
    state.ssm.staged().next().is_some()
}

pub(crate) fn published(state: &State) -> bool {
    recorded(state) && state.memory.published(PATH) > 0
}

pub(crate) fn deploying(state: &State) -> bool {
    published(state) && state.jobs.iter().any(|job| job.is_running() && job.deploys())
}

pub(crate) fn closed(state: &State) -> bool {
    state.memory.published(PATH) > 0 && !recorded(state)
}

pub(crate) fn answered(state: &State, token: &str) -> bool {
    let status = state.cluster.secret(SECRET).and_then(|s| s.status.as_ref());
    let last = status.and_then(|s| s.last_rotation.as_ref());
    last.is_some_and(|last| last.request.as_deref() == Some(token))
}

fn young_value(state: &mut State) {
    grant(state, "Rotate");
    put_days_ago(state, PATH, OLD, 10);
}

fn young_value_on_web(state: &mut State) {
    young_value(state);
    host(state, "web", &[PATH]);
}

/// Sets up a young value on a host, and the object that manages it.
fn managed_on_web(state: &mut State) {
    young_value_on_web(state);
    state.apply_secret(SECRET, json!({}), on_web(json!({})));
}

/// Sets up two young values on a host, each with an object that manages it.
fn two_managed_on_web(state: &mut State) {
    grant(state, "Rotate");
    put_days_ago(state, PATH, OLD, 10);
    put_days_ago(state, SECOND, "the-other-old-value", 10);
    host(state, "web", &[PATH, SECOND]);
    state.apply_secret(SECRET, json!({}), on_web(json!({})));
    state.apply_secret("other", json!({}), on_web(json!({"ssm": {"parameters": [{"path": SECOND}]}})));
}

fn either_value_stands(end: &Summary) -> bool {
    end.parameters.get(PATH).is_some_and(|p| {
        matches!(p.latest, Latest::Person | Latest::Generated)
            && p.generated <= if p.latest == Latest::Person { 1 } else { 2 }
    }) && end.staged.is_empty()
        && end.secrets.values().all(|s| {
            let ready = s.conditions.get("Ready").is_some_and(|(status, _)| status == "True");
            ready && !s.rotating && s.mirrors.is_empty() && !s.finalizer
        })
        && end.hosts.values().all(|host| {
            // The controller does not deploy what a person wrote.
            end.parameters.get(PATH).is_some_and(|p| p.latest == Latest::Person)
                || host.runs.values().all(|same| *same)
        })
}

/// True if everything is in order and every parameter has had this many new values.
pub(crate) fn in_order(end: &Summary, generated: usize) -> bool {
    end.staged.is_empty()
        && end.parameters.values().all(|p| p.generated == generated && p.latest == Latest::Generated)
        && end
            .hosts
            .values()
            .all(|host| host.runs.values().all(|same| *same) && is(&host.conditions, "Ready", "True"))
        && end.secrets.values().all(|secret| {
            let answered = secret.last_rotation.as_ref().is_none_or(|(_, result)| result == "Succeeded");
            let deployed =
                end.hosts.is_empty() || !secret.has_hosts || is(&secret.conditions, "Deployed", "True");
            answered && deployed && at_rest(secret)
        })
}

fn at_rest(secret: &SecretEnd) -> bool {
    is(&secret.conditions, "Ready", "True")
        && !secret.conditions.contains_key("Stalled")
        && !secret.rotating
        && !secret.finalizer
        && secret.mirrors.is_empty()
}

pub(crate) fn is(conditions: &BTreeMap<String, (String, String)>, kind: &str, status: &str) -> bool {
    conditions.get(kind).is_some_and(|(is, _)| is == status)
}

fn one_new_value(end: &Summary) -> bool {
    in_order(end, 1)
}

/// True if the rotation is finished. If every event is missed, the deadline of a deletion may come first.
fn finished_or_given_up(end: &Summary) -> bool {
    let left = if end.abandoned.is_empty() { 0 } else { 1 };
    let published = end.parameters.values().all(|p| p.generated <= 1 && (p.generated == 1 || left == 1));
    end.secrets.is_empty() && end.staged.len() == left && published
}

fn two_new_values(end: &Summary) -> bool {
    in_order(end, 2)
}

pub(crate) fn answered_with(end: &Summary, wanted: &str) -> bool {
    end.secrets.values().all(|s| s.last_rotation.as_ref().is_some_and(|(_, result)| result == wanted))
}

pub(crate) fn stalled_for(state: &State, reason: &str) -> bool {
    let status = state.cluster.secret(SECRET).and_then(|secret| secret.status.as_ref());
    status.is_some_and(|status| status.conditions.iter().any(|c| c.type_ == "Stalled" && c.reason == reason))
}

pub(crate) fn rolling_back(state: &State) -> bool {
    state.ssm.staged().any(|path| path.ends_with(".abort")) && state.ssm.staged().count() > 2
}

pub(crate) fn set_verify_fails(state: &mut State, fails: bool) {
    for host in state.hosts.values_mut() {
        host.verify_fails = fails;
    }
}

fn set_script_fails(state: &mut State, fails: bool) {
    for host in state.hosts.values_mut() {
        host.script_fails = fails;
    }
}

pub(crate) fn set_host_down(state: &mut State, down: bool) {
    for host in state.hosts.values_mut() {
        host.unreachable = down;
    }
}

macro_rules! scenario {
    ($name:ident, prepare: $prepare:expr, script: $script:expr, ends: $ends:expr $(, or_else: $or_else:expr)? $(,)?) => {
        pub(crate) fn $name() -> Scenario {
            #[allow(unused_mut, unused_assignments)]
            let mut or_else: Option<fn(&$crate::summary::Summary) -> bool> = None;
            $(or_else = Some($or_else);)?
            Scenario { name: stringify!($name), prepare: $prepare, script: $script, ends: $ends, or_else }
        }
    };
}
pub(crate) use scenario;

scenario!(a_missing_parameter_is_created,
    prepare: |s| { grant(s, "Rotate"); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: nobody_does_anything,
    ends: one_new_value);

scenario!(a_missing_parameter_is_created_and_deployed,
    prepare: |s| {
        grant(s, "Rotate");
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: nobody_does_anything,
    ends: one_new_value);

scenario!(an_adopted_value_is_rotated_when_due,
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, OLD, 100);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: nobody_does_anything,
    ends: one_new_value);

scenario!(a_value_of_its_own_is_rotated_when_due,
    prepare: |s| {
        grant(s, "Rotate");
        rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 91);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: nobody_does_anything,
    ends: one_new_value);

scenario!(a_request_rotates_once,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: a_request,
    ends: one_new_value);

scenario!(a_request_rotates_once_on_a_host,
    prepare: managed_on_web,
    script: a_request,
    ends: one_new_value);

scenario!(two_requests_in_a_row_rotate_twice,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| answered(s, "one") && !recorded(s), "asks for another", |s| s.request(SECRET, "two")),
    ],
    ends: two_new_values);

scenario!(a_request_in_mid_rotation_queues,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "asks for another", |s| s.request(SECRET, "two")),
    ],
    ends: two_new_values);

scenario!(two_parameters_are_published_from_one_draw,
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, OLD, 10);
        put_days_ago(s, SECOND, "id-of-the-old-one", 10);
        host(s, "web", &[PATH, SECOND]);
        let parameters = json!([{"path": PATH}, {"path": SECOND, "value": "id-{value}"}]);
        s.apply_secret(SECRET, json!({}), on_web(json!({"ssm": {"parameters": parameters}})));
    },
    script: a_request,
    ends: one_new_value,
    or_else: halves_of_values_put_back);

/// True if the previous values are published in both parameters, since SSM refused one of the new ones permanently.
fn halves_of_values_put_back(end: &Summary) -> bool {
    let in_its_place = end.hosts.values().all(|host| host.runs.values().all(|same| *same));
    in_its_place
        && end.staged.is_empty()
        && answered_with(end, "RolledBack")
        && end.secrets.values().all(at_rest)
        && end.parameters.values().all(|p| p.latest != Latest::Generated)
}

scenario!(two_missing_parameters_are_created,
    prepare: |s| {
        grant(s, "Rotate");
        let parameters = json!([{"path": PATH}, {"path": SECOND, "value": "id-{value}"}]);
        s.apply_secret(SECRET, json!({}), spec(json!({"ssm": {"parameters": parameters}})));
    },
    script: nobody_does_anything,
    ends: one_new_value);

scenario!(a_fernet_ring_keeps_the_previous_key,
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", 10);
        let generate = json!({"hex": null, "fernet": {"keepPrevious": 1}});
        s.apply_secret(SECRET, json!({}), spec(json!({"generate": generate})));
    },
    script: a_request,
    ends: one_new_value);

scenario!(two_secrets_of_one_host_rotate_together,
    prepare: two_managed_on_web,
    script: || vec![at(300, "asks for both", |s| {
        s.request(SECRET, "one");
        s.request("other", "one");
    })],
    ends: one_new_value);

scenario!(two_hosts_of_one_secret_go_one_after_another,
    prepare: |s| {
        young_value_on_web(s);
        host(s, "canary", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({"hosts": [{"name": "web"}, {"name": "canary"}]})));
    },
    script: a_request,
    ends: one_new_value);

scenario!(a_failed_deployment_is_held_until_it_works,
    prepare: |s| {
        young_value_on_web(s);
        s.hosts.get_mut("web").unwrap().script_fails = true;
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        later(200, "mends the script", |s| s.hosts.get_mut("web").unwrap().script_fails = false),
    ],
    ends: one_new_value);

scenario!(a_failed_deployment_is_rolled_back,
prepare: |s| {
    young_value_on_web(s);
    s.hosts.get_mut("web").unwrap().script_fails = true;
    s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onFailure": OnFailure::RollBack}})));
},
script: || vec![
    at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
    once(|s| s.memory.recorded.get(SECRET).is_some_and(|ids| ids.len() > 1), "mends the script",
        |s| s.hosts.get_mut("web").unwrap().script_fails = false),
],
ends: |end| {
    let restored = end.parameters.values().all(|p| p.latest == Latest::Restored && p.generated == 2);
    let runs = end.hosts.values().all(|host| host.runs.values().all(|same| *same));
    restored && runs && end.staged.is_empty() && answered_with(end, "RolledBack")
        && end.secrets.values().all(at_rest)
});

scenario!(a_foreign_write_is_reported,
prepare: |s| {
    grant(s, "Rotate");
    rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 10);
    s.apply_secret(SECRET, json!({}), spec(json!({})));
},
script: || vec![
    at(200, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
    at(600, "asks for a rotation", |s| s.request(SECRET, "one")),
],
ends: |end| {
    let kept = end.parameters.values().all(|p| p.latest == Latest::Person && p.generated == 0);
    kept && end.staged.is_empty() && end.secrets.values().all(|s| is(&s.conditions, "Drifted", "True"))
});

/// Sets up a value that is due half an hour from now, in the middle between two listings of Parameter Store.
fn about_to_come_of_age(state: &mut State) {
    grant(state, "Rotate");
    let start = state.now;
    state.now = start + TimeDelta::seconds(1830);
    rotated_days_ago(state, PATH, "the-value-of-the-first-rotation", 90);
    state.now = start;
    state.apply_secret(SECRET, json!({}), spec(json!({})));
}

scenario!(a_value_that_somebody_wrote_just_before_it_came_of_age_is_reported,
prepare: about_to_come_of_age,
script: || vec![at(1815, "writes it by hand", |s| s.person_puts(PATH, FOREIGN))],
ends: |end| {
    let kept = end.parameters.values().all(|p| p.latest == Latest::Person && p.generated == 0);
    kept && end.staged.is_empty() && end.secrets.values().all(|s| is(&s.conditions, "Drifted", "True"))
});

scenario!(a_foreign_write_is_adopted_where_asked,
    prepare: |s| {
        grant(s, "Rotate");
        rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 10);
        s.apply_secret(SECRET, json!({}), spec(json!({"rotation": {"onDrift": "Adopt"}})));
    },
    script: || vec![
        at(200, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
        at(600, "asks for a rotation", |s| s.request(SECRET, "one")),
    ],
    ends: one_new_value);

scenario!(a_foreign_write_is_replaced_where_asked,
    prepare: |s| {
        grant(s, "Rotate");
        rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 10);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onDrift": "Rotate"}})));
    },
    script: || vec![at(200, "writes it by hand", |s| s.person_puts(PATH, FOREIGN))],
    ends: one_new_value);

scenario!(a_foreign_write_after_the_record_is_held_and_reported,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
        later(900, "says that the new value counts",
            |s| s.edit_secret(SECRET, |o| o.spec.rotation.on_drift = serde_json::from_value(json!("Rotate")).ok())),
    ],
    ends: one_new_value);

scenario!(a_foreign_write_after_the_record_is_adopted_where_asked,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({"rotation": {"onDrift": "Adopt"}}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
    ],
    ends: either_value_stands,
    or_else: either_value_stands);

scenario!(a_foreign_write_in_mid_deployment_is_held_and_reported,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
        later(900, "says that the new value counts",
            |s| s.edit_secret(SECRET, |o| o.spec.rotation.on_drift = serde_json::from_value(json!("Rotate")).ok())),
    ],
    ends: one_new_value);

scenario!(a_foreign_write_in_mid_deployment_is_adopted_where_asked,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onDrift": "Adopt"}})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
    ],
    ends: either_value_stands,
    or_else: either_value_stands);

scenario!(a_foreign_write_in_mid_deployment_is_replaced_where_asked,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onDrift": "Rotate"}})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
    ],
    ends: one_new_value,
    or_else: either_value_stands);

scenario!(a_parameter_that_is_deleted_and_put_again_in_mid_rotation_is_reported,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(published, "deletes and creates it by hand", |s| {
            s.person_deletes_parameter(PATH);
            s.person_describes(PATH, FOREIGN, "Signing key");
        }),
        later(900, "says that the new value counts",
            |s| s.edit_secret(SECRET, |o| o.spec.rotation.on_drift = serde_json::from_value(json!("Rotate")).ok())),
    ],
    ends: one_new_value);

scenario!(deleting_in_mid_rotation_finishes_it,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "deletes the object", |s| s.delete_secret(SECRET)),
    ],
    ends: finished_or_given_up,
    or_else: finished_or_given_up);

scenario!(deleting_with_policy_delete_removes_the_parameter,
    prepare: |s| {
        young_value(s);
        s.apply_secret(SECRET, json!({}), spec(json!({"deletionPolicy": "Delete"})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "deletes the object", |s| s.delete_secret(SECRET)),
    ],
    ends: |end| *end == Summary::default());

scenario!(deleting_and_applying_again_rotates_nothing,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(closed, "deletes the object", |s| s.delete_secret(SECRET)),
        once(|s| s.cluster.secret(SECRET).is_none(), "applies it again",
            |s| s.apply_secret(SECRET, json!({ROTATE_REQUESTED_AT: "one"}), spec(json!({})))),
    ],
    ends: |end| end.parameters[PATH].generated == 1 && answered_with(end, "Succeeded") && end.secrets.values().all(at_rest));

scenario!(an_edit_in_mid_rotation_changes_nothing_of_it,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "edits the spec", |s| s.edit_secret(SECRET, |o| {
            o.spec.generate.hex = Some(serde_json::from_value(json!({"bytes": 48})).unwrap());
        })),
    ],
    ends: one_new_value);

scenario!(a_host_that_is_removed_in_mid_rotation_still_counts,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(published, "takes the host out of the spec", |s| s.edit_secret(SECRET, |o| o.spec.hosts.clear())),
    ],
    ends: one_new_value);

scenario!(a_host_that_is_added_in_mid_rotation_counts,
    prepare: |s| {
        young_value_on_web(s);
        host(s, "canary", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(published, "adds a host whose deploy script fails", |s| {
            s.hosts.get_mut("canary").expect("it was made").script_fails = true;
            s.edit_secret(SECRET, |o| {
                o.spec.hosts = serde_json::from_value(json!([{"name": "web"}, {"name": "canary"}])).unwrap();
            });
        }),
        later(300, "mends that", |s| s.hosts.get_mut("canary").expect("it was made").script_fails = false),
    ],
    ends: one_new_value);

scenario!(a_host_whose_object_is_deleted_in_mid_rotation_is_waited_for,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(published, "deletes the host's object", |s| s.delete_host("web")),
        later(600, "applies it again", |s| {
            let before = s.hosts.get("web").cloned();
            host(s, "web", &[PATH]);
            s.hosts.insert("web".to_owned(), before.unwrap());
        }),
    ],
    ends: one_new_value);

scenario!(a_grant_that_is_withdrawn_in_mid_rotation_wins,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "withdraws the grant", withdraw_grants),
        later(900, "grants it again", |s| grant(s, "Rotate")),
    ],
    ends: one_new_value);

scenario!(a_host_whose_key_does_not_allow_it_runs_nothing_until_it_is_labelled,
    prepare: |s| {
        managed_on_web(s);
        s.label_key(None);
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        at(900, "labels the key for something else", |s| s.label_key(Some(postgres::ADMINISTRATOR))),
        later(600, "labels the key", |s| s.label_key(Some(Purpose::SSH))),
        once(deploying, "takes the label away", |s| s.label_key(None)),
        later(900, "labels it again", |s| s.label_key(Some(Purpose::SSH))),
    ],
    ends: one_new_value);

scenario!(a_suspension_in_mid_rotation_lets_it_finish,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "suspends it", |s| s.edit_secret(SECRET, |o| o.spec.suspend = true)),
    ],
    ends: one_new_value);

scenario!(a_request_to_a_suspended_secret_waits,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({"suspend": true}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        later(600, "ends the suspension", |s| s.edit_secret(SECRET, |o| o.spec.suspend = false)),
    ],
    ends: one_new_value);

/// Applies all objects again, beside the same hosts and parameters.
fn apply_everything(state: &mut State, annotations: Value) {
    let real = state.hosts.clone();
    host(state, "web", &[PATH]);
    state.hosts = real;
    state.apply_secret(SECRET, annotations, on_web(json!({})));
}

/// Applies all objects to another cluster.
fn apply_everything_anew(state: &mut State) {
    state.lose_all_objects();
    apply_everything(state, json!({ROTATE_REQUESTED_AT: "one"}));
}

scenario!(objects_that_are_lost_and_applied_again_rotate_nothing,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(closed, "loses the cluster and applies everything to a new one", apply_everything_anew),
    ],
    ends: one_new_value);

scenario!(objects_that_are_lost_in_mid_rotation_and_applied_again_finish_it,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "loses the cluster and applies everything to a new one", apply_everything_anew),
    ],
    ends: one_new_value);

// Only its record shows the new controller a rotation that nobody requested.
scenario!(objects_that_are_lost_in_mid_deployment_and_applied_again_later_finish_it,
    prepare: |s| {
        grant(s, "Rotate");
        rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 91);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: || vec![
        once(deploying, "loses the cluster", State::lose_all_objects),
        later(600, "applies everything to a new one", |s| apply_everything(s, json!({}))),
    ],
    ends: one_new_value);

scenario!(observing_touches_nothing,
    prepare: |s| {
        grant(s, "Observe");
        put_days_ago(s, PATH, OLD, 100);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: a_request,
    ends: |end| end.parameters[PATH].latest == Latest::Person && end.parameters[PATH].generated == 0);

scenario!(a_window_is_waited_for,
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, OLD, 100);
        let windows = json!([{"schedule": "30 1 * * *", "duration": "1h"}]);
        s.apply_secret(SECRET, json!({}), spec(json!({"rotation": {"windows": windows}})));
    },
    script: nobody_does_anything,
    ends: one_new_value);
