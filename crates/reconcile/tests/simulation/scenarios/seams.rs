//! Stories of interactions: two secrets of one host, a host that nothing was deployed to, writes that Parameter Store
//! refuses, requests that come back.

use keyturn_api::managed_secret::Step;
use keyturn_rotation::request;

use super::*;
use crate::invariants::has_recorded_a_request;
use crate::world::ssm::{By, DIGITS, KEPT, Rules};

const OTHER: &str = "other";

pub(super) fn runs_what_is_published(state: &State, host: &str, path: &str) -> bool {
    let published = state.ssm.latest(path).map(|latest| latest.value.trim_end().to_owned());
    let running = state.hosts.get(host).and_then(|host| host.running.get(path).cloned());
    published.is_some() && running == published
}

/// True if the host runs a new value of the other secret, or if nobody will make one: its request was only recorded,
/// since the status was lost.
fn serves_the_other(state: &State) -> bool {
    state.memory.published(SECOND) > 0 && runs_what_is_published(state, "web", SECOND)
        || state.cluster.secret(OTHER).is_some_and(has_recorded_a_request)
}

pub(super) fn works_meanwhile(state: &mut State) {
    let accepted = |value: &str| state.postgres.as_ref().is_none_or(|server| server.accepts(value));
    let published = state.ssm.latest(PATH).is_some_and(|latest| accepted(&latest.value));
    let running = state.hosts.values().all(|host| host.running.get(PATH).is_none_or(|run| accepted(run)));
    if !published || !running {
        state.violate("I2: what is published or run is refused although nothing can replace it".to_owned());
    }
}

// Real deployments, and what only looks like one.

fn unseen_pair_beside_another_secret(state: &mut State) {
    pair_by_hand(state);
    put_days_ago(state, SECOND, "the-other-old-value", 10);
    host(state, "web", &[PATH, SECOND]);
    state.hosts.get_mut("web").expect("it was made").unseen.insert(PATH.to_owned());
    state.apply_secret(SECRET, json!({}), pair_spec(json!({"retire": {"requires": "Verify"}})));
    state.apply_secret(OTHER, json!({}), on_web(json!({"ssm": {"parameters": [{"path": SECOND}]}})));
}

pub(super) fn in_order_unseen(end: &Summary) -> bool {
    end.server.as_ref().is_some_and(|server| server.can_log_in == ["published"])
        && end.staged.is_empty()
        && end.parameters.values().all(|p| p.generated == 1 && p.latest == Latest::Generated)
        && end.hosts.values().all(|h| h.runs.values().all(|same| *same) && is(&h.conditions, "Ready", "True"))
        && end.secrets.values().all(at_rest)
}

scenario!(a_verification_on_a_host_that_was_not_deployed_to_adopts_nothing,
    prepare: unseen_pair_beside_another_secret,
    script: || vec![
        at(300, "asks for another pair", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the deploy script", |s| set_script_fails(s, true)),
        later(120, "asks for the other secret", |s| s.request(OTHER, "one")),
        later(600, "mends the deploy script", |s| set_script_fails(s, false)),
    ],
    ends: in_order_unseen,
    or_else: in_order_unseen);

// One secret that cannot proceed beside another.

pub(super) fn role_beside_another_secret(state: &mut State) {
    server_with_a(state);
    put_days_ago(state, SECOND, "the-other-old-value", 10);
    host(state, "web", &[PATH, SECOND]);
    state.apply_secret(SECRET, json!({}), login_spec(single_with_admin(), json!({})));
    state.apply_secret(OTHER, json!({}), on_web(json!({"ssm": {"parameters": [{"path": SECOND}]}})));
}

fn set_permitted(state: &mut State, permitted: bool) {
    let server = state.postgres.as_mut().expect("there is a server");
    server.not_permitted.clear();
    if !permitted {
        server.not_permitted.insert("app_a".to_owned());
    }
}

pub(super) fn role_and_other_in_order(end: &Summary) -> bool {
    in_order(end, 1) && end.server.as_ref().is_some_and(|server| server.can_log_in == ["app_a"])
}

/// True if the role has its new password, or its old one again because SSM refused the new one permanently.
pub(super) fn role_and_other_end_well(end: &Summary) -> bool {
    let in_its_place = end.hosts.values().all(|host| host.runs.values().all(|same| *same));
    in_its_place
        && end.staged.is_empty()
        && end.secrets.values().all(at_rest)
        && end.parameters.get(SECOND).is_some_and(|other| other.generated == 1)
        && end.server.as_ref().is_some_and(|server| server.can_log_in == ["app_a"])
}

scenario!(a_role_that_cannot_be_changed_holds_no_other_secret,
    prepare: |s| { role_beside_another_secret(s); set_permitted(s, false); },
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        later(200, "asks for the other secret", |s| s.request(OTHER, "one")),
        once(serves_the_other, "gives the administrator the role", |s| set_permitted(s, true)),
    ],
    ends: role_and_other_in_order,
    or_else: role_and_other_end_well);

scenario!(an_incident_beside_a_role_that_cannot_be_changed_is_contained,
    prepare: |s| { role_beside_another_secret(s); set_permitted(s, false); },
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        later(200, "reports the other secret",
            |s| s.suspect("leak", json!({"managedSecretRefs": [{"name": OTHER}]}))),
        once(serves_the_other, "gives the administrator the role", |s| set_permitted(s, true)),
    ],
    ends: |end| role_and_other_in_order(end)
        && end.secrets.get(OTHER).is_some_and(|other| is(&other.conditions, "Compromised", "False")),
    or_else: |end| role_and_other_end_well(end)
        && end.secrets.get(OTHER).is_some_and(|other| is(&other.conditions, "Compromised", "False")));

scenario!(a_host_that_is_missing_keeps_no_other_from_its_password,
    prepare: |s| {
        server_with_a(s);
        host(s, "web", &[PATH]);
        host(s, "canary", &[PATH]);
        let hosts = json!({"hosts": [{"name": "web"}, {"name": "canary"}]});
        s.apply_secret(SECRET, json!({}), login_spec(single_with_admin(), hosts));
    },
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(published, "deletes the object of one host", |s| s.delete_host("canary")),
        once(|s| runs_what_is_published(s, "web", PATH), "applies it again", |s| {
            let before = s.hosts.get("canary").cloned().expect("it was made");
            host(s, "canary", &[PATH]);
            s.hosts.insert("canary".to_owned(), before);
        }),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

fn single_role_on_two_hosts_in_order(state: &mut State) {
    server_with_a(state);
    host(state, "web", &[PATH]);
    host(state, "canary", &[PATH]);
    state.edit_host("web", |host| host.spec.deploy.after = vec!["canary".to_owned()]);
    let hosts = json!({"hosts": [{"name": "web"}, {"name": "canary"}]});
    state.apply_secret(SECRET, json!({}), login_spec(single_with_admin(), hosts));
}

scenario!(a_host_whose_password_was_changed_waits_for_no_host_before_it,
    prepare: single_role_on_two_hosts_in_order,
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the deploy script of the first host",
            |s| s.hosts.get_mut("canary").expect("it was made").script_fails = true),
        once(|s| runs_what_is_published(s, "web", PATH) && s.memory.published(PATH) > 0, "mends it",
            |s| s.hosts.get_mut("canary").expect("it was made").script_fails = false),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

scenario!(a_rotation_does_not_begin_where_a_host_could_not_be_deployed_to,
    prepare: single_role_on_two_hosts_in_order,
    script: || vec![
        at(200, "deletes the object that goes first", |s| {
            s.delete_host("canary");
            s.edit_secret(SECRET, |o| o.spec.hosts.retain(|host| host.name == "web"));
        }),
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        later(1200, "uses the product, and takes that host out of the order", |s| {
            works_meanwhile(s);
            if s.memory.recorded.contains_key(SECRET) {
                s.violate("I2: a rotation has begun whose deployment could not start".to_owned());
            }
            s.edit_host("web", |host| host.spec.deploy.after.clear());
        }),
    ],
    ends: |end| end.server.as_ref().is_some_and(|server| server.accepts_published)
        && end.parameters[PATH].generated == 1 && end.hosts["web"].runs[PATH] && end.secrets.values().all(at_rest),
    or_else: put_back);

// A server that exists although nothing is published.

pub(super) fn server_without_a_parameter(state: &mut State, source: Value) {
    state.postgres =
        Some(SimPostgres::with(&[("app_a", "of-an-earlier-life", true), ("app_b", "unset", false)]));
    grant(state, "Rotate");
    host(state, "web", &[PATH]);
    state.apply_secret(SECRET, json!({}), login_spec(source, json!({"ssm": {"ifMissing": "Create"}})));
}

scenario!(a_server_that_is_there_is_given_the_first_password_before_it_is_published,
    prepare: |s| server_without_a_parameter(s, single_with_admin()),
    script: nobody_does_anything,
    ends: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(a_server_that_is_there_is_given_the_first_login_of_roles_that_take_turns,
    prepare: |s| server_without_a_parameter(s, alternating()),
    script: nobody_does_anything,
    ends: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(a_foreign_write_before_the_hosts_follow_is_published_over,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(deploying, "puts another value", |s| s.person_puts(PATH, FOREIGN)),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: written_over_or_reported);

/// True if the foreign write was overwritten, or reported because it came after every host had followed. Nobody is
/// without a working password.
fn written_over_or_reported(end: &Summary) -> bool {
    let drifted = end.secrets.values().all(|s| is(&s.conditions, "Drifted", "True"));
    logins_in_order(end, 1, &["app_a"])
        || put_back(end)
        || drifted && end.server.as_ref().is_some_and(|s| s.accepts_hosts)
}

// Writes that Parameter Store would refuse: keyturn finds out before anything is changed, or undoes the change.

pub(super) fn refuse(state: &mut State, path: &str, change: fn(&mut Rules)) {
    change(state.ssm.rules.entry(path.to_owned()).or_default());
}

pub(super) fn allow_everything(state: &mut State) {
    state.ssm.rules.clear();
}

fn a_hundred_versions(state: &mut State) {
    for _ in 1..KEPT {
        put_days_ago(state, PATH, &format!("app_a:{OLD}"), 10);
    }
}

fn label_the_oldest(rules: &mut Rules) {
    rules.labels_on_oldest = vec!["pinned".to_owned()];
}

/// Actions for a refusal: the problem is shown and nothing is touched; somebody fixes it, and the rotation continues.
fn refused_until_mended() -> Vec<Action> {
    vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        later(600, "uses the product", works_meanwhile),
        once(preflight_fails, "uses the product, and lets SSM take another version", |s| {
            works_meanwhile(s);
            allow_everything(s);
        }),
    ]
}

pub(super) fn preflight_fails(state: &State) -> bool {
    let status = state.cluster.secret(SECRET).and_then(|secret| secret.status.as_ref());
    status.is_some_and(|s| s.conditions.iter().any(|c| c.type_ == "Preflight" && c.status == "False"))
}

scenario!(a_label_on_the_oldest_version_is_found_before_a_role_is_changed,
    prepare: |s| {
        login_on_web(s, single_with_admin(), json!({}));
        a_hundred_versions(s);
        refuse(s, PATH, label_the_oldest);
    },
    script: refused_until_mended,
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

scenario!(a_string_is_found_before_a_role_is_changed,
    prepare: |s| {
        login_on_web(s, single_with_admin(), json!({}));
        refuse(s, PATH, |rules| rules.plain = true);
    },
    script: refused_until_mended,
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

scenario!(an_allowed_pattern_is_found_before_a_role_is_changed,
    prepare: |s| {
        login_on_web(s, single_with_admin(), json!({}));
        refuse(s, PATH, |rules| rules.pattern = Some(DIGITS.to_owned()));
    },
    script: refused_until_mended,
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

scenario!(a_policy_that_leaves_the_path_out_is_found_before_a_role_is_changed,
    prepare: |s| {
        login_on_web(s, single_with_admin(), json!({}));
        refuse(s, PATH, |rules| rules.denied = true);
    },
    script: refused_until_mended,
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

/// True if the previous login is published, run and accepted, and the request has its answer.
pub(super) fn put_back(end: &Summary) -> bool {
    end.staged.is_empty()
        && answered_with(end, "RolledBack")
        && end.secrets.values().all(at_rest)
        && end.server.as_ref().is_some_and(|server| server.accepts_published && server.accepts_hosts)
}

scenario!(a_password_that_cannot_be_published_is_taken_back,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(role_changed, "makes SSM refuse it", |s| refuse(s, PATH, |rules| rules.frozen = true)),
    ],
    ends: put_back,
    or_else: |end| put_back(end) || logins_in_order(end, 1, &["app_a"]));

scenario!(a_password_that_cannot_be_published_is_taken_back_once_its_server_can_be_asked,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(role_changed, "makes SSM refuse it", |s| refuse(s, PATH, |rules| rules.frozen = true)),
        later(60, "unplugs the server", |s| set_server_away(s, true)),
        // This is longer than a status can be rejected.
        later(2400, "plugs it in again", |s| set_server_away(s, false)),
    ],
    ends: put_back,
    or_else: |end| put_back(end) || logins_in_order(end, 1, &["app_a"]));

/// True if the status reports that the publication was refused.
fn publication_is_refused(state: &State) -> bool {
    let status = state.cluster.secret(SECRET).and_then(|secret| secret.status.as_ref());
    status.and_then(|status| status.failure.as_ref()).is_some_and(|failure| failure.step == Step::Promote)
}

scenario!(a_suspension_while_a_password_is_taken_back_hides_nothing,
    prepare: |s| login_on_web(s, single_with_admin(), json!({"rotation": {"period": "9d"}})),
    script: || vec![
        once(role_changed, "makes SSM refuse it", |s| refuse(s, PATH, |rules| rules.frozen = true)),
        once(publication_is_refused, "suspends the secret", |s| {
            s.edit_secret(SECRET, |secret| secret.spec.suspend = true);
        }),
    ],
    ends: |end| end.staged.is_empty()
        && end.server.as_ref().is_some_and(|server| server.accepts_published && server.accepts_hosts));

/// Sets up a role that only changes itself, and no host for a preflight.
fn role_without_hosts(state: &mut State, patch: Value) {
    server_with_a(state);
    let mut without_hosts = json!({"hosts": null});
    merge(&mut without_hosts, patch);
    state.apply_secret(SECRET, json!({}), login_spec(single_on_its_own(), without_hosts));
}

scenario!(a_request_that_was_taken_back_is_not_executed_again,
    prepare: |s| role_without_hosts(s, json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(role_changed, "makes SSM refuse it", |s| refuse(s, PATH, |rules| rules.frozen = true)),
    ],
    ends: put_back,
    or_else: |end| put_back(end) || logins_in_order(end, 1, &["app_a"]));

/// True if a roll back has begun and is over.
fn is_taken_back(state: &State) -> bool {
    state.memory.recorded.get(SECRET).is_some_and(|ids| ids.len() > 1) && !recorded(state)
}

scenario!(a_rotation_that_came_of_age_and_was_taken_back_is_put_off,
    prepare: |s| role_without_hosts(s, json!({"rotation": {"period": "9d"}})),
    script: || vec![
        once(role_changed, "makes SSM refuse it", |s| refuse(s, PATH, |rules| rules.frozen = true)),
        once(is_taken_back, "lets SSM take another version", allow_everything),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]));

/// True if what the host runs works again, even if somebody has published something else, and no rotation is open.
fn given_back(state: &State) -> bool {
    let works = |run: &String| state.postgres.as_ref().is_some_and(|server| server.accepts(run));
    !recorded(state) && state.hosts.get("web").and_then(|host| host.running.get(PATH)).is_some_and(works)
}

/// Writes, as a person, the value that the host runs, if that works and something else is published.
pub(super) fn put_right(state: &mut State) {
    if given_back(state) && !runs_what_is_published(state, "web", PATH) {
        let runs = state.hosts["web"].running[PATH].clone();
        state.person_puts(PATH, &runs);
    }
}

scenario!(a_password_that_cannot_be_published_is_taken_back_although_somebody_wrote,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(role_changed, "writes the parameter, and makes SSM refuse keyturn", |s| {
            s.person_puts(PATH, FOREIGN);
            refuse(s, PATH, |rules| rules.frozen = true);
        }),
        once(given_back, "writes what the host runs", put_right),
    ],
    ends: put_back,
    or_else: |end| put_back(end) || logins_in_order(end, 1, &["app_a"]));

// An unknown result is not a failure.

pub(super) fn set_breaks_off(state: &mut State, breaks_off: bool) {
    state.hosts.get_mut("web").expect("it was made").breaks_off = breaks_off;
}

scenario!(a_role_is_not_rolled_back_because_nobody_heard_how_its_deployments_went,
    prepare: |s| login_on_web(s, single_with_admin(), json!({"rotation": {"onFailure": "RollBack"}})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the connections to the host", |s| set_breaks_off(s, true)),
        once(|s| s.memory.published(PATH) > 0 && runs_what_is_published(s, "web", PATH),
            "sees that the script has run", |_| {}),
        later(1200, "uses the product, and mends the connections", |s| {
            works_meanwhile(s);
            set_breaks_off(s, false);
        }),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

// A value that was drawn for one source is not published for another.

pub(super) fn wants_a_random_value(state: &mut State) {
    state.edit_secret(SECRET, |o| {
        o.spec.generate = serde_json::from_value(json!({"hex": {"bytes": 24}})).unwrap();
        o.spec.ssm.parameters[0].value = None;
    });
}

pub(super) fn wants_a_login_again(state: &mut State) {
    state.edit_secret(SECRET, |o| {
        let before = login_spec(single_with_admin(), json!({}));
        o.spec.generate = serde_json::from_value(before["generate"].clone()).unwrap();
        o.spec.ssm.parameters[0].value = Some("{username}:{password}".to_owned());
    });
}

scenario!(an_edit_of_the_source_in_mid_rotation_publishes_nothing_that_no_target_was_given,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(recorded, "wants a random value instead", wants_a_random_value),
        later(1800, "uses the product, and takes it back", |s| {
            works_meanwhile(s);
            wants_a_login_again(s);
        }),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

// A value of an earlier rotation that comes back belongs to the person who restored it.

scenario!(a_value_of_an_earlier_rotation_that_is_restored_is_not_deployed,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for another login", |s| s.request(SECRET, "one")),
        later(20_000, "asks once more", |s| s.request(SECRET, "two")),
        later(20_000, "restores what the first one has published", |s| s.person_restores(PATH)),
        later(3600, "sees that the hosts still work, and puts the right one back", |s| {
            let accepts = |value: &String| s.postgres.as_ref().is_some_and(|server| server.accepts(value));
            if !s.hosts["web"].running.get(PATH).is_some_and(accepts) {
                s.violate("I2: what was restored has been deployed".to_owned());
            }
            s.person_puts_back(PATH);
        }),
    ],
    ends: |end| end.staged.is_empty()
        && end.secrets.values().all(|s| is(&s.conditions, "Drifted", "True"))
        && end.server.as_ref().is_some_and(|server| server.accepts_hosts),
    // If the second request was never seen, the published value is restored again.
    or_else: |end| end.staged.is_empty() && end.server.as_ref().is_some_and(|server| server.accepts_hosts));

/// True if both roles were changed twice, and the host runs the published login, which works.
fn three_logins_in_order(end: &Summary) -> bool {
    end.staged.is_empty()
        && end.parameters[PATH].generated == 3
        && end.secrets.values().all(at_rest)
        && end.hosts.values().all(|host| host.runs.values().all(|same| *same))
        && end.server.as_ref().is_some_and(|server| server.accepts_published && server.accepts_hosts)
}

scenario!(a_login_that_hosts_use_is_not_changed_because_an_earlier_one_was_restored,
    prepare: |s| login_on_web(s, alternating(), json!({"rotation": {"onDrift": "Rotate"}})),
    script: || vec![
        at(300, "asks for another login", |s| s.request(SECRET, "one")),
        later(20_000, "asks once more", |s| s.request(SECRET, "two")),
        later(20_000, "restores what the first one has published", |s| s.person_restores(PATH)),
    ],
    ends: three_logins_in_order);

scenario!(a_random_value_of_an_earlier_rotation_that_is_restored_is_not_deployed,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for another value", |s| s.request(SECRET, "one")),
        later(20_000, "asks once more", |s| s.request(SECRET, "two")),
        later(20_000, "restores what the first one has published", |s| s.person_restores(PATH)),
        later(3600, "sees that the host still runs the newest", |s| {
            let drawn = s.ssm.versions(PATH).iter().rev().find(|version| version.by == By::Keyturn);
            let drawn = drawn.map(|version| version.value.clone());
            if s.hosts["web"].running.get(PATH) != drawn.as_ref() {
                s.violate("I2: what was restored has been deployed".to_owned());
            }
        }),
    ],
    ends: |end| end.staged.is_empty()
        && end.secrets.values().all(|s| is(&s.conditions, "Drifted", "True")),
    // If the second request was never seen, the published value is restored again.
    or_else: |end| end.staged.is_empty());

// A parameter under a customer's key that the spec does not name.

scenario!(an_incident_leaves_a_parameter_under_its_key,
    prepare: |s| {
        managed_on_web(s);
        s.ssm.rules.insert(PATH.to_owned(), Rules { key: Some("alias/shop".to_owned()), ..Rules::default() });
    },
    script: an_incident,
    ends: |end| contained(end) && in_order(end, 1));

fn one_or_two_values(end: &Summary) -> bool {
    in_order(end, 1) || in_order(end, 2)
}

scenario!(a_published_value_with_another_description_is_no_drift,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        later(20_000, "brings its own description back", |s| s.person_describes_anew(PATH, "Managed by Terraform")),
        later(3000, "asks for another rotation", |s| s.request(SECRET, "two")),
    ],
    ends: |end| in_order(end, 2),
    or_else: one_or_two_values);

fn pair_in_two_parameters(state: &mut State) {
    pair_by_hand(state);
    put_days_ago(state, PATH, OLD_ID, 9);
    put_days_ago(state, SECOND, &OLD_SECRET.replace('-', "0"), 9);
    host(state, "web", &[PATH, SECOND]);
    let parameters = json!([
        {"path": PATH, "value": "{accessKeyId}"}, {"path": SECOND, "value": "{secretAccessKey}"},
    ]);
    state.apply_secret(SECRET, json!({}), pair_spec(json!({"ssm": {"parameters": parameters}})));
}

scenario!(a_half_of_a_pair_that_cannot_be_published_is_rolled_back,
    prepare: pair_in_two_parameters,
    script: || vec![
        at(300, "asks for another pair", |s| s.request(SECRET, "one")),
        once(|s| s.memory.published(PATH) > 0, "makes SSM refuse the other half",
            |s| refuse(s, SECOND, |rules| rules.frozen = true)),
    ],
    ends: |end| end.staged.is_empty()
        && answered_with(end, "RolledBack")
        && end.secrets.values().all(at_rest)
        && end.parameters[PATH].latest == Latest::Restored
        && end.parameters[SECOND].latest == Latest::Person
        && end.server.as_ref().is_some_and(|server| server.can_log_in.len() == 1),
    or_else: |end| end.staged.is_empty() && end.secrets.values().all(at_rest)
        && end.server.as_ref().is_some_and(|server| server.can_log_in.len() == 1));

// A ring of keys after an incident.

fn ring(state: &mut State) {
    grant(state, "Rotate");
    put_days_ago(state, PATH, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", 10);
    let generate = json!({"hex": null, "fernet": {"keepPrevious": 1}});
    state.apply_secret(SECRET, json!({}), spec(json!({"generate": generate})));
}

scenario!(an_incident_leaves_no_earlier_key_in_a_ring,
    prepare: ring,
    script: an_incident,
    ends: |end| contained(end) && in_order(end, 1));

scenario!(an_incident_that_is_reported_late_leaves_no_earlier_key_in_a_ring,
    prepare: ring,
    script: || vec![
        at(300, "asks for another key", |s| s.request(SECRET, "one")),
        once(closed, "reports what was read before that", |s| {
            let reported = keyturn_api::time::to_kubernetes(s.start + TimeDelta::seconds(200));
            s.suspect_since("leak", token_is_suspected(), &serde_json::to_value(reported).unwrap());
        }),
    ],
    ends: |end| contained(end) && in_order(end, 2));

fn rotated_on_web(state: &mut State) {
    grant(state, "Rotate");
    rotated_days_ago(state, PATH, "the-value-of-the-first-rotation", 10);
    host(state, "web", &[PATH]);
    state.apply_secret(SECRET, json!({}), on_web(json!({})));
}

scenario!(an_incident_about_a_value_that_somebody_has_just_put_replaces_it,
    prepare: rotated_on_web,
    script: || vec![
        at(300, "puts another value by hand", |s| s.person_puts(PATH, FOREIGN)),
        later(30, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
    ],
    ends: |end| contained(end) && in_order(end, 1));

scenario!(an_incident_that_is_deleted_in_mid_rotation_leaves_nothing_to_a_person,
    prepare: rotated_on_web,
    script: || vec![
        at(300, "puts another value by hand", |s| s.person_puts(PATH, FOREIGN)),
        later(30, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        once(recorded, "deletes the incident", State::delete_incidents),
    ],
    ends: |end| in_order(end, 1));

// An object that is deleted while something prevents it from being finished.

/// True if the object is gone in time, and people were told what it leaves behind.
pub(super) fn let_go(end: &Summary) -> bool {
    end.secrets.is_empty() && (end.abandoned == [SECRET] || end.staged.is_empty())
}

fn deleted_in_mid_rotation(state: &mut State) {
    state.delete_secret(SECRET);
}

scenario!(a_secret_that_is_deleted_with_its_grant_is_let_go,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "withdraws the grant and deletes the object", |s| {
            withdraw_grants(s);
            deleted_in_mid_rotation(s);
        }),
    ],
    ends: let_go);

scenario!(a_secret_that_is_deleted_under_an_observing_grant_is_let_go,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "sets the grant to Observe and deletes the object", |s| {
            grant(s, "Observe");
            deleted_in_mid_rotation(s);
        }),
    ],
    ends: let_go);

scenario!(a_secret_whose_parameters_are_to_go_too_is_let_go_without_a_grant,
    prepare: |s| {
        young_value(s);
        s.apply_secret(SECRET, json!({}), spec(json!({"deletionPolicy": "Delete"})));
    },
    script: || vec![
        at(300, "withdraws the grant", withdraw_grants),
        later(60, "deletes the object", deleted_in_mid_rotation),
    ],
    ends: let_go,
    // If the finalizer could not be set, nothing holds the object.
    or_else: let_go);

// Requests that were answered.

scenario!(a_recorded_request_is_not_executed_after_another_rotation,
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, OLD, 100);
        s.apply_secret(SECRET, json!({ROTATE_REQUESTED_AT: "of-another-cluster"}), spec(json!({})));
    },
    script: nobody_does_anything,
    ends: one_value_and_at_rest,
    // The statuses that could be written decide which of the two answers is reported last.
    or_else: one_value_and_at_rest);

fn one_value_and_at_rest(end: &Summary) -> bool {
    at_rest(&end.secrets[SECRET]) && end.staged.is_empty() && end.parameters[PATH].generated == 1
}

scenario!(a_recorded_request_that_comes_back_rotates_nothing,
    prepare: |s| {
        young_value(s);
        s.apply_secret(SECRET, json!({ROTATE_REQUESTED_AT: "in-git"}), spec(json!({})));
    },
    script: || vec![
        at(300, "asks for a rotation by hand", |s| s.request(SECRET, "by-hand")),
        once(|s| answered(s, "by-hand") && closed(s), "applies what is in Git", |s| s.request(SECRET, "in-git")),
    ],
    ends: |end| at_rest(&end.secrets[SECRET]) && end.staged.is_empty() && end.parameters[PATH].generated == 1,
    or_else: |end| at_rest(&end.secrets[SECRET]) && end.staged.is_empty() && end.parameters[PATH].generated <= 1);

scenario!(requests_that_come_back_in_any_order_rotate_nothing,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| answered(s, "one") && !recorded(s), "asks for another", |s| s.request(SECRET, "two")),
        once(|s| answered(s, "two") && !recorded(s), "puts the first request back", |s| s.request(SECRET, "one")),
        later(600, "and the second", |s| s.request(SECRET, "two")),
    ],
    ends: |end| in_order(end, 2));

/// Sets up a request that rotation 1 answered; rotation 2 has come due since then. The controller is new.
fn answered_before_the_last_rotation(state: &mut State) {
    grant(state, "Rotate");
    let start = state.now;
    for (days, id, value, request) in [(20, 1, "the-value-of-the-first-rotation", true), (10, 2, OLD, false)]
    {
        state.now = start - TimeDelta::days(days);
        let stamp = Stamp {
            owner: format!("{CLUSTER}/{NAMESPACE}/{SECRET}"),
            id,
            version: i64::try_from(id).unwrap(),
            at: state.now,
            request: request.then(|| request::hash("one")),
            made: None,
        };
        state.has_published(PATH, value, &stamp);
    }
    state.now = start;
    host(state, "web", &[PATH]);
    state.apply_secret(SECRET, json!({ROTATE_REQUESTED_AT: "one"}), on_web(json!({})));
    state.edit_secret(SECRET, |secret| {
        let last = json!({"observedGeneration": 1, "lastRotation": {"id": 2, "trigger": "Period", "result": "Succeeded"}});
        secret.status = serde_json::from_value(last).ok();
    });
}

scenario!(an_answered_request_asks_no_host_when_the_controller_is_new,
    prepare: answered_before_the_last_rotation,
    script: nobody_does_anything,
    ends: |end| end.parameters[PATH].generated == 0 && end.secrets.values().all(at_rest));
