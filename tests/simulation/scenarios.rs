//! What people have and do. Each scenario is one story; the faults are the harness's.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use keyturn::api::ROTATE_REQUESTED_AT;
use keyturn::api::managed_secret::OnFailure;
use keyturn::parameter_store::description;
use keyturn::rotation::observed::Stamp;
use serde_json::{Value, json};

use crate::key_pairs::ACCOUNT;
pub use crate::key_pairs::*;
use crate::summary::{Latest, SecretEnd, Summary};
use crate::world::hosts::SimHost;
use crate::world::postgres::SimPostgres;
use crate::world::{Action, CLUSTER, NAMESPACE, State, When};

pub struct Scenario {
    pub name: &'static str,
    /// What is there before the controller is.
    pub prepare: fn(&mut State),
    /// What people do then, one after another.
    pub script: fn() -> Vec<Action>,
    /// How it ends without faults.
    pub ends: fn(&Summary) -> bool,
    /// What else than the end of the run without faults is right too, where people and the controller race.
    pub or_else: Option<fn(&Summary) -> bool>,
}

pub const PATH: &str = "/app/prod/TOKEN";
pub const SECOND: &str = "/app/prod/TOKEN_ID";
pub const SECRET: &str = "token";
const HOST_KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILQzrAkkj7EyNVl+dlkYgID8Z0a6qrgj4157Ffnl1wwn";
const OLD: &str = "the-value-that-was-there-before";
const FOREIGN: &str = "what-somebody-else-wrote";

pub fn merge(target: &mut Value, patch: Value) {
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

pub fn grant(state: &mut State, mode: &str) {
    let hosts = json!([{"host": "web.example"}, {"host": "canary.example"}]);
    let grant = json!({
        "namespaces": [NAMESPACE], "mode": mode, "parameters": [{"prefix": "/app/prod/"}], "hosts": hosts,
        "postgres": [{"host": "db.example", "roles": ["app", "app_a", "app_b", "app_old"]}],
        "cloudflare": [{"accountId": ACCOUNT}],
    });
    state.set_grants(&[("all", grant)]);
}

fn withdraw_grants(state: &mut State) {
    state.set_grants(&[]);
}

pub fn host(state: &mut State, name: &str, fetches: &[&str]) {
    state.apply_host(
        name,
        json!({
            "ssh": {
                "host": format!("{name}.example"), "user": "deploy",
                "keySecretRef": {"name": "key", "key": "id.pem"},
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

/// A value that somebody put there this many days ago.
pub fn put_days_ago(state: &mut State, path: &str, value: &str, days: i64) {
    let start = state.now;
    state.now = start - TimeDelta::days(days);
    state.person_describes(path, value, "Signing key");
    state.now = start;
}

/// A value that an earlier rotation published this many days ago.
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
    };
    state.person_describes(path, value, &description::render("Signing key", &stamp));
    state.now = start;
}

pub fn at(seconds: i64, what: &'static str, run: fn(&mut State)) -> Action {
    Action { what, when: When::At(seconds), run }
}

pub fn later(seconds: i64, what: &'static str, run: fn(&mut State)) -> Action {
    Action { what, when: When::Later(seconds), run }
}

pub fn once(holds: fn(&State) -> bool, what: &'static str, run: fn(&mut State)) -> Action {
    Action { what, when: When::Once(holds), run }
}

pub fn nobody_does_anything() -> Vec<Action> {
    Vec::new()
}

pub fn a_request() -> Vec<Action> {
    vec![at(300, "asks for a rotation", |s| s.request(SECRET, "one"))]
}

// Moments that people's actions hang on.

pub fn recorded(state: &State) -> bool {
    state.ssm.staged().next().is_some()
}

fn published(state: &State) -> bool {
    recorded(state) && state.memory.published(PATH) > 0
}

pub fn deploying(state: &State) -> bool {
    published(state) && state.jobs.iter().any(|job| job.is_running() && job.deploys())
}

pub fn closed(state: &State) -> bool {
    state.memory.published(PATH) > 0 && !recorded(state)
}

pub fn answered(state: &State, token: &str) -> bool {
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

/// The stories' ends where a race decides between a person's value and a new one.
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
            // what a person wrote is not deployed by the controller
            end.parameters.get(PATH).is_some_and(|p| p.latest == Latest::Person)
                || host.runs.values().all(|same| *same)
        })
}

/// Everything is in order, and every parameter has had so many new values.
pub fn in_order(end: &Summary, generated: usize) -> bool {
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

pub fn is(conditions: &BTreeMap<String, (String, String)>, kind: &str, status: &str) -> bool {
    conditions.get(kind).is_some_and(|(is, _)| is == status)
}

fn one_new_value(end: &Summary) -> bool {
    in_order(end, 1)
}

/// Where every event is missed, the deadline of a deletion may come first.
fn finished_or_given_up(end: &Summary) -> bool {
    let left = if end.abandoned.is_empty() { 0 } else { 1 };
    let published = end.parameters.values().all(|p| p.generated <= 1 && (p.generated == 1 || left == 1));
    end.secrets.is_empty() && end.staged.len() == left && published
}

fn two_new_values(end: &Summary) -> bool {
    in_order(end, 2)
}

pub fn answered_with(end: &Summary, wanted: &str) -> bool {
    end.secrets.values().all(|s| s.last_rotation.as_ref().is_some_and(|(_, result)| result == wanted))
}

macro_rules! scenario {
    ($name:ident, prepare: $prepare:expr, script: $script:expr, ends: $ends:expr $(, or_else: $or_else:expr)? $(,)?) => {
        pub fn $name() -> Scenario {
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
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
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
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
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
    ends: one_new_value);

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
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, OLD, 10);
        put_days_ago(s, SECOND, "the-other-old-value", 10);
        host(s, "web", &[PATH, SECOND]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
        s.apply_secret("other", json!({}), on_web(json!({"ssm": {"parameters": [{"path": SECOND}]}})));
    },
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
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
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
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
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
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "edits the spec", |s| s.edit_secret(SECRET, |o| {
            o.spec.generate.hex = Some(serde_json::from_value(json!({"bytes": 48})).unwrap());
        })),
    ],
    ends: one_new_value);

scenario!(a_host_that_is_removed_in_mid_rotation_still_counts,
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
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
        once(published, "adds a host", |s| s.edit_secret(SECRET, |o| {
            o.spec.hosts = serde_json::from_value(json!([{"name": "web"}, {"name": "canary"}])).unwrap();
        })),
    ],
    ends: one_new_value);

scenario!(a_host_whose_object_is_deleted_in_mid_rotation_is_waited_for,
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
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
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "withdraws the grant", withdraw_grants),
        later(900, "grants it again", |s| grant(s, "Rotate")),
    ],
    ends: one_new_value);

scenario!(a_suspension_in_mid_rotation_lets_it_finish,
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
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

scenario!(objects_that_are_lost_and_applied_again_rotate_nothing,
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(closed, "loses the cluster and applies everything to a new one", |s| {
            let real = s.hosts.clone();
            s.lose_all_objects();
            host(s, "web", &[PATH]);
            s.hosts = real;
            s.apply_secret(SECRET, json!({ROTATE_REQUESTED_AT: "one"}), on_web(json!({})));
        }),
    ],
    ends: one_new_value);

scenario!(objects_that_are_lost_in_mid_rotation_and_applied_again_finish_it,
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "loses the cluster and applies everything to a new one", |s| {
            let real = s.hosts.clone();
            s.lose_all_objects();
            host(s, "web", &[PATH]);
            s.hosts = real;
            s.apply_secret(SECRET, json!({ROTATE_REQUESTED_AT: "one"}), on_web(json!({})));
        }),
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

// Logins of a Postgres server, published as `user:password`.

fn login_spec(source: Value, patch: Value) -> Value {
    let mut postgres = json!({"host": "db.example", "database": "app"});
    merge(&mut postgres, source);
    let mut spec = json!({
        "ssm": {"parameters": [{"path": PATH, "value": "{username}:{password}"}]},
        "generate": {"postgres": postgres},
        "rotation": {"period": "90d"},
        "hosts": [{"name": "web"}],
        "retire": {"after": "5m"},
    });
    merge(&mut spec, patch);
    spec
}

fn single_with_admin() -> Value {
    json!({"singleRole": {"name": "app_a"}, "adminSecretRef": {"name": "admin"}})
}

fn single_on_its_own() -> Value {
    json!({"singleRole": {"name": "app_a"}})
}

fn alternating() -> Value {
    json!({
        "alternatingRoles": {"names": ["app_a", "app_b"], "owner": "app"},
        "adminSecretRef": {"name": "admin"},
    })
}

fn server_with_a(state: &mut State) {
    state.postgres = Some(SimPostgres::with(&[("app_a", OLD, true), ("app_b", "unset", false)]));
    grant(state, "Rotate");
    put_days_ago(state, PATH, &format!("app_a:{OLD}"), 10);
}

fn login_on_web(state: &mut State, source: Value, patch: Value) {
    server_with_a(state);
    host(state, "web", &[PATH]);
    state.apply_secret(SECRET, json!({}), login_spec(source, patch));
}

/// All in order, and the server accepts what is published and run, from these roles only.
fn logins_in_order(end: &Summary, generated: usize, roles: &[&str]) -> bool {
    let works = end
        .server
        .as_ref()
        .is_some_and(|server| server.accepts_published && server.accepts_hosts && server.can_log_in == roles);
    works && in_order(end, generated)
}

scenario!(a_single_role_is_rotated_by_an_administrator,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(a_single_role_changes_its_own_password,
    prepare: |s| login_on_web(s, single_on_its_own(), json!({})),
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(a_single_role_without_hosts_is_rotated,
    prepare: |s| {
        server_with_a(s);
        s.apply_secret(SECRET, json!({}), login_spec(single_with_admin(), json!({"hosts": null})));
    },
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(roles_take_turns,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(a_pair_is_made_from_the_role_in_use,
    prepare: |s| {
        s.postgres = Some(SimPostgres::with(&[("app_old", OLD, true)]));
        grant(s, "Rotate");
        put_days_ago(s, PATH, &format!("app_old:{OLD}"), 10);
        host(s, "web", &[PATH]);
        let mut pair = alternating();
        merge(&mut pair, json!({"alternatingRoles": {"bootstrap": {"from": "app_old", "mode": "Apply"}}}));
        s.apply_secret(SECRET, json!({}), login_spec(pair, json!({})));
    },
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(roles_take_turns_twice,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "asks for another", |s| s.request(SECRET, "two")),
    ],
    ends: |end| logins_in_order(end, 2, &["app_a"]));

scenario!(roles_take_turns_without_hosts,
    prepare: |s| {
        server_with_a(s);
        s.apply_secret(SECRET, json!({}), login_spec(alternating(), json!({"hosts": null})));
    },
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(roles_take_turns_on_two_hosts,
    prepare: |s| {
        server_with_a(s);
        host(s, "web", &[PATH]);
        host(s, "canary", &[PATH]);
        let hosts = json!({"hosts": [{"name": "web"}, {"name": "canary"}]});
        s.apply_secret(SECRET, json!({}), login_spec(alternating(), hosts));
    },
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(a_login_whose_deployment_fails_is_rolled_back,
    prepare: |s| {
        login_on_web(s, alternating(), json!({"rotation": {"onFailure": "RollBack"}}));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "breaks verify", |s| set_verify_fails(s, true)),
        once(rolling_back, "mends it", |s| set_verify_fails(s, false)),
    ],
    ends: |end| {
        let server = end.server.as_ref();
        end.staged.is_empty()
            && answered_with(end, "RolledBack")
            && server.is_some_and(|s| s.accepts_published && s.accepts_hosts && s.can_log_in == ["app_a"])
    },
    or_else: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(a_role_whose_deployment_fails_is_rolled_back_in_place,
    prepare: |s| {
        login_on_web(s, single_with_admin(), json!({"rotation": {"onFailure": "RollBack"}}));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the deploy script", |s| set_script_fails(s, true)),
        once(rolling_back, "mends it", |s| set_script_fails(s, false)),
    ],
    ends: |end| {
        let server = end.server.as_ref();
        end.staged.is_empty()
            && answered_with(end, "RolledBack")
            && server.is_some_and(|s| s.accepts_published && s.accepts_hosts)
    },
    or_else: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(a_role_that_somebody_changed_is_left_alone_until_what_is_published_works,
    prepare: |s| {
        s.postgres = Some(SimPostgres::with(&[("app_a", "earlier", true), ("app_b", "unset", false)]));
        grant(s, "Rotate");
        put_days_ago(s, PATH, "app_a:earlier", 20);
        put_days_ago(s, PATH, &format!("app_a:{OLD}"), 10);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), login_spec(alternating(), json!({})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        later(1200, "puts the password that the role has, and deploys it", |s| {
            s.person_puts(PATH, "app_a:earlier");
            let web = s.hosts.get_mut("web").expect("it was made");
            web.running.insert(PATH.to_owned(), "app_a:earlier".to_owned());
        }),
    ],
    ends: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(a_server_that_is_away_is_waited_for,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "unplugs the server", |s| set_unreachable(s, true)),
        later(1200, "plugs it in again", |s| set_unreachable(s, false)),
    ],
    ends: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(an_empty_environment_takes_its_role_from_what_is_deployed,
    prepare: |s| {
        s.postgres = Some(SimPostgres { initialised_by: Some("app_a".into()), ..SimPostgres::default() });
        grant(s, "Rotate");
        host(s, "web", &[PATH]);
        let created = json!({"ssm": {"ifMissing": "Create"}});
        s.apply_secret(SECRET, json!({}), login_spec(single_on_its_own(), created));
    },
    script: nobody_does_anything,
    ends: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(a_login_that_does_not_exist_is_not_made,
prepare: |s| {
    s.postgres = Some(SimPostgres::default());
    grant(s, "Rotate");
    host(s, "web", &[PATH]);
    s.apply_secret(SECRET, json!({}), login_spec(single_on_its_own(), json!({})));
},
script: nobody_does_anything,
ends: |end| {
    let stalled = |s: &SecretEnd| s.conditions.get("Stalled").is_some_and(|(_, r)| r == "ParameterMissing");
    end.parameters.is_empty() && end.secrets.values().all(stalled)
});

scenario!(deleting_while_roles_take_turns_finishes_it,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "deletes the object", |s| s.delete_secret(SECRET)),
    ],
    ends: gone_with_a_working_login,
    or_else: gone_with_a_working_login);

/// Where events are missed or the server is away for long, the deadline of the deletion may come first.
fn gone_with_a_working_login(end: &Summary) -> bool {
    let works = end.server.as_ref().is_some_and(|server| server.accepts_published && server.accepts_hosts);
    works && end.secrets.is_empty() && (end.staged.is_empty() || !end.abandoned.is_empty())
}

scenario!(a_foreign_write_over_a_changed_role_is_published_over,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(role_changed, "puts another value", |s| s.person_puts(PATH, FOREIGN)),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: |end| end.server.as_ref().is_some_and(|s| s.can_log_in == ["app_a"]) && either_value_stands(end)
        || drifted_with_a_working_login(end));

fn role_changed(state: &State) -> bool {
    recorded(state)
        && state.postgres.as_ref().and_then(|s| s.roles.get("app_a")).is_some_and(|role| role.password != OLD)
}

fn drifted_with_a_working_login(end: &Summary) -> bool {
    end.secrets.values().all(|s| is(&s.conditions, "Drifted", "True"))
        && end.server.as_ref().is_some_and(|server| server.accepts_hosts)
}

pub fn rolling_back(state: &State) -> bool {
    state.ssm.staged().any(|path| path.ends_with(".abort")) && state.ssm.staged().count() > 2
}

pub fn set_verify_fails(state: &mut State, fails: bool) {
    for host in state.hosts.values_mut() {
        host.verify_fails = fails;
    }
}

fn set_script_fails(state: &mut State, fails: bool) {
    for host in state.hosts.values_mut() {
        host.script_fails = fails;
    }
}

fn set_unreachable(state: &mut State, away: bool) {
    if let Some(server) = &mut state.postgres {
        server.unreachable = away;
    }
}

pub fn token_is_suspected() -> Value {
    json!({"managedSecretRefs": [{"name": SECRET}]})
}

/// Hosts have little time to leave the old login, which keeps the stories short.
pub fn soon_revoked() -> Value {
    json!({"managedSecretRefs": [{"name": SECRET}], "revokeWithin": "1m"})
}

pub fn an_incident() -> Vec<Action> {
    vec![at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected()))]
}

pub fn contained(end: &Summary) -> bool {
    end.secrets.values().all(|secret| is(&secret.conditions, "Compromised", "False"))
}

fn contained_with(end: &Summary, generated: usize) -> bool {
    contained(end) && in_order(end, generated)
}

fn contained_logins(end: &Summary, generated: usize, roles: &[&str]) -> bool {
    contained(end) && logins_in_order(end, generated, roles)
}

/// Where a fault falls between the rotation under way and the report, either may come first: one value or two.
fn contained_by_one_or_two(end: &Summary) -> bool {
    contained_with(end, 1) || contained_with(end, 2)
}

fn contained_by_one_or_two_logins(end: &Summary) -> bool {
    (1..=3).any(|generated| {
        [&["app_a"][..], &["app_b"][..]].iter().any(|roles| contained_logins(end, generated, roles))
    })
}

pub fn set_host_down(state: &mut State, down: bool) {
    for host in state.hosts.values_mut() {
        host.unreachable = down;
    }
}

scenario!(an_incident_rotates_a_suspended_secret_at_once,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"suspend": true})));
    },
    script: an_incident,
    ends: |end| contained_with(end, 1));

scenario!(an_incident_in_mid_deployment_draws_another_value,
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "waits", |_| {}),
        later(5, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
    ],
    ends: |end| contained_with(end, 2),
    or_else: contained_by_one_or_two);

scenario!(an_incident_that_is_applied_again_does_nothing,
    prepare: |s| { young_value_on_web(s); s.apply_secret(SECRET, json!({}), on_web(json!({}))); },
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        later(7200, "deletes it", |s| s.cluster.incidents.clear()),
        later(60, "applies it again", |s| {
            let reported = keyturn::api::time::to_kubernetes(s.start + TimeDelta::seconds(300));
            s.suspect_since("leak", token_is_suspected(), &serde_json::to_value(reported).unwrap());
        }),
    ],
    ends: |end| contained_with(end, 1));

scenario!(an_incident_about_a_whole_host_rotates_all_it_runs,
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, OLD, 10);
        put_days_ago(s, SECOND, "the-other-old-value", 10);
        host(s, "web", &[PATH, SECOND]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
        s.apply_secret("other", json!({}), on_web(json!({"ssm": {"parameters": [{"path": SECOND}]}})));
    },
    script: || vec![
        at(300, "reports the host", |s| s.suspect("break-in", json!({"hostRef": {"name": "web"}}))),
    ],
    ends: |end| contained_with(end, 1));

scenario!(an_incident_while_roles_take_turns_revokes_both,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "waits", |_| {}),
        later(5, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
    ],
    ends: |end| contained_logins(end, 2, &["app_a"]),
    or_else: contained_by_one_or_two_logins);

scenario!(an_incident_revokes_a_role_at_rest,
    prepare: |s| login_on_web(s, alternating(), json!({"retire": {"after": "9d"}})),
    script: an_incident,
    ends: |end| contained_logins(end, 1, &["app_b"]));

scenario!(an_incident_that_revokes_first_does_so,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![at(300, "reports an incident", |s| {
        let mut wanted = token_is_suspected();
        merge(&mut wanted, json!({"revokeWithin": "0m"}));
        s.suspect("leak", wanted);
    })],
    ends: |end| contained_logins(end, 1, &["app_b"]));

scenario!(an_incident_changes_a_single_role,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: an_incident,
    ends: |end| contained_logins(end, 1, &["app_a"]));

scenario!(an_incident_in_the_middle_of_a_single_role,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "waits", |_| {}),
        later(5, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
    ],
    ends: |end| contained_logins(end, 2, &["app_a"]),
    or_else: contained_by_one_or_two_logins);

scenario!(an_incident_revokes_although_a_host_is_down,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "unplugs the host and reports an incident", |s| {
            set_host_down(s, true);
            s.suspect("leak", soon_revoked());
        }),
        once(compromise_is_over, "plugs it in again", |s| set_host_down(s, false)),
    ],
    ends: |end| contained_logins(end, 1, &["app_b"]));

scenario!(an_incident_in_mid_rotation_revokes_although_a_host_is_down,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "unplugs the host", |s| set_host_down(s, true)),
        later(5, "reports an incident", |s| s.suspect("leak", soon_revoked())),
        once(compromise_is_over, "plugs it in again", |s| set_host_down(s, false)),
    ],
    ends: |end| contained_logins(end, 2, &["app_a"]),
    or_else: contained_by_one_or_two_logins);

scenario!(an_incident_waits_for_a_server_that_is_away,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "unplugs the server and reports an incident", |s| {
            set_unreachable(s, true);
            s.suspect("leak", soon_revoked());
        }),
        later(300, "plugs it in again", |s| set_unreachable(s, false)),
    ],
    ends: |end| contained_logins(end, 1, &["app_b"]));

scenario!(an_incident_under_an_observing_grant_touches_nothing,
prepare: |s| {
    grant(s, "Observe");
    put_days_ago(s, PATH, OLD, 10);
    s.apply_secret(SECRET, json!({}), spec(json!({})));
},
script: an_incident,
ends: |end| {
    let open = |s: &SecretEnd| s.conditions.get("Compromised").is_some_and(|(_, why)| why == "Observe");
    end.parameters.values().all(|p| p.generated == 0) && end.secrets.values().all(open)
});

pub fn compromise_is_over(state: &State) -> bool {
    let status = state.cluster.secret(SECRET).and_then(|s| s.status.as_ref());
    status.and_then(|s| s.compromise.as_ref()).is_some_and(|c| c.contained_at.is_some())
}
