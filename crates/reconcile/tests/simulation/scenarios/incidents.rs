//! Stories of secrets that somebody may have read.

use super::*;
use crate::world::Lag;

/// True once the status says which version the first rotation has published.
fn published_and_told(state: &State) -> bool {
    let status = state.cluster.secret(SECRET).and_then(|secret| secret.status.as_ref());
    published(state) && status.is_some_and(|status| status.parameters.iter().all(|p| p.version > 1))
}

pub(crate) fn token_is_suspected() -> Value {
    json!({"managedSecretRefs": [{"name": SECRET}]})
}

/// Returns an incident that gives hosts little time to leave the old login, which keeps the stories short.
pub(crate) fn soon_revoked() -> Value {
    json!({"managedSecretRefs": [{"name": SECRET}], "revokeWithin": "1m"})
}

pub(crate) fn an_incident() -> Vec<Action> {
    vec![at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected()))]
}

/// Reports an incident while hosts are being given the new value.
pub(crate) fn an_incident_in_mid_rotation() -> Vec<Action> {
    vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "waits", |_| {}),
        later(5, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
    ]
}

/// Reports an incident while the host is down; it returns when the old value is already dead.
pub(crate) fn an_incident_while_the_host_is_down() -> Vec<Action> {
    vec![
        at(300, "unplugs the host and reports an incident", |s| {
            set_host_down(s, true);
            s.suspect("leak", soon_revoked());
        }),
        once(compromise_is_over, "plugs it in again", |s| set_host_down(s, false)),
    ]
}

/// Reports an incident whose login is revoked at once, whether or not hosts follow.
pub(crate) fn revoked_first(state: &mut State) {
    let mut wanted = token_is_suspected();
    merge(&mut wanted, json!({"revokeWithin": "0m"}));
    state.suspect("leak", wanted);
}

pub(crate) fn contained(end: &Summary) -> bool {
    end.secrets.values().all(|secret| is(&secret.conditions, "Compromised", "False"))
}

fn contained_with(end: &Summary, generated: usize) -> bool {
    contained(end) && in_order(end, generated)
}

fn contained_logins(end: &Summary, generated: usize, roles: &[&str]) -> bool {
    contained(end) && logins_in_order(end, generated, roles)
}

/// True for one value or two: if a fault falls between the running rotation and the report, either may come
/// first.
fn contained_by_one_or_two(end: &Summary) -> bool {
    contained_with(end, 1) || contained_with(end, 2)
}

fn contained_by_one_or_two_logins(end: &Summary) -> bool {
    (1..=3).any(|generated| {
        [&["app_a"][..], &["app_b"][..]].iter().any(|roles| contained_logins(end, generated, roles))
    })
}

scenario!(an_incident_rotates_a_suspended_secret_at_once,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"suspend": true})));
    },
    script: an_incident,
    ends: |end| contained_with(end, 1));

scenario!(an_incident_in_mid_deployment_draws_another_value,
    prepare: managed_on_web,
    script: an_incident_in_mid_rotation,
    ends: |end| contained_with(end, 2),
    or_else: contained_by_one_or_two);

scenario!(an_incident_that_is_applied_again_does_nothing,
    prepare: managed_on_web,
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        later(7200, "deletes it", State::delete_incidents),
        later(60, "applies it again", |s| {
            let reported = keyturn_api::time::to_kubernetes(s.start + TimeDelta::seconds(300));
            s.suspect_since("leak", token_is_suspected(), &serde_json::to_value(reported).unwrap());
        }),
    ],
    ends: |end| contained_with(end, 1));

scenario!(an_incident_about_a_whole_host_rotates_all_it_runs,
    prepare: two_managed_on_web,
    script: || vec![
        at(300, "reports the host", |s| s.suspect("break-in", json!({"hostRef": {"name": "web"}}))),
    ],
    ends: |end| contained_with(end, 1));

scenario!(an_incident_while_roles_take_turns_revokes_both,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: an_incident_in_mid_rotation,
    ends: |end| contained_logins(end, 2, &["app_a"]),
    or_else: contained_by_one_or_two_logins);

fn role_is_shut_out(state: &State, name: &str) -> bool {
    let role = state.postgres.as_ref().and_then(|server| server.roles.get(name));
    role.is_some_and(|role| !role.can_log_in)
}

scenario!(an_incident_revokes_in_time_although_nothing_can_be_published,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "reports an incident, and SSM takes no new value", |s| {
            seams::refuse(s, PATH, |rules| rules.frozen = true);
            let mut wanted = token_is_suspected();
            merge(&mut wanted, json!({"revokeWithin": "2m"}));
            s.suspect("leak", wanted);
        }),
        once(|s| role_is_shut_out(s, "app_a"), "lets SSM take it", |s| s.ssm.rules.clear()),
    ],
    ends: |end| contained_logins(end, 1, &["app_b"]));

scenario!(an_incident_does_not_wait_for_the_host_that_goes_first,
    prepare: |s| {
        young_value_on_web(s);
        host(s, "canary", &[PATH]);
        s.edit_host("web", |host| host.spec.deploy.after = vec!["canary".to_owned()]);
        s.apply_secret(SECRET, json!({}), on_web(json!({"hosts": [{"name": "web"}, {"name": "canary"}]})));
    },
    script: || vec![
        at(300, "unplugs the host that goes first and reports an incident", |s| {
            s.hosts.get_mut("canary").expect("it was made").unreachable = true;
            s.suspect("leak", token_is_suspected());
        }),
        once(|s| s.memory.published(PATH) > 0 && seams::runs_what_is_published(s, "web", PATH),
            "plugs it in again", |s| set_host_down(s, false)),
    ],
    ends: |end| contained_with(end, 1));

scenario!(a_login_is_not_told_to_work_while_reads_show_the_one_before_it,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        once(published_and_told, "takes the server away while SSM still shows the password before", |s| {
            s.ssm.lag_behind_the_last_change(s.now, Lag::All);
            set_server_away(s, true);
        }),
        later(60, "brings the server back", |s| set_server_away(s, false)),
    ],
    ends: |end| contained_logins(end, 1, &["app_a"]));

scenario!(an_incident_revokes_a_role_at_rest,
    prepare: |s| login_on_web(s, alternating(), json!({"retire": {"after": "9d"}})),
    script: an_incident,
    ends: |end| contained_logins(end, 1, &["app_b"]));

scenario!(an_incident_that_revokes_first_does_so,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![at(300, "reports an incident", revoked_first)],
    ends: |end| contained_logins(end, 1, &["app_b"]));

scenario!(an_incident_changes_a_single_role,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: an_incident,
    ends: |end| contained_logins(end, 1, &["app_a"]));

scenario!(what_could_not_be_told_is_told_once_it_can_be_though_ssm_cannot_be_read,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        once(published, "calls SSM so often that nobody else is answered", |s| s.ssm.unread = true),
        later(120, "stops", |s| s.ssm.unread = false),
    ],
    ends: |end| contained_logins(end, 1, &["app_a"]));

scenario!(an_incident_about_a_role_does_not_end_with_what_somebody_puts_after_the_report,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![at(300, "reports an incident, and somebody puts another value", |s| {
        s.suspect("leak", token_is_suspected());
        s.person_puts(PATH, FOREIGN);
    })],
    ends: |end| contained_logins(end, 1, &["app_a"]));

scenario!(an_incident_does_not_wait_for_a_person_who_has_written_over_a_rotation,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "puts another value", |s| s.person_puts(PATH, FOREIGN)),
        later(5, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
    ],
    ends: |end| contained_logins(end, 2, &["app_a"]),
    or_else: contained_by_one_or_two_logins);

scenario!(an_incident_in_the_middle_of_a_single_role,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: an_incident_in_mid_rotation,
    ends: |end| contained_logins(end, 2, &["app_a"]),
    // If SSM refuses the new password permanently, nothing is deployed and nobody reports anything.
    or_else: |end| contained_by_one_or_two_logins(end) || logins::taken_back(end));

scenario!(an_incident_revokes_although_a_host_is_down,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: an_incident_while_the_host_is_down,
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

scenario!(an_incident_leaves_nobody_logged_in_although_the_server_was_away_when_its_time_came,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "unplugs the host", |s| set_host_down(s, true)),
        later(5, "unplugs the server and reports an incident", |s| {
            set_server_away(s, true);
            s.suspect("leak", soon_revoked());
        }),
        later(120, "plugs the server in again", |s| set_server_away(s, false)),
        once(compromise_is_over, "plugs the host in again", |s| set_host_down(s, false)),
    ],
    ends: |end| contained_logins(end, 2, &["app_a"]),
    or_else: contained_by_one_or_two_logins);

scenario!(an_incident_waits_for_a_server_that_is_away,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "unplugs the server and reports an incident", |s| {
            set_server_away(s, true);
            s.suspect("leak", soon_revoked());
        }),
        later(300, "plugs it in again", |s| set_server_away(s, false)),
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

/// Makes the grant of the host on the way to the server Observe, but not the grant of the parameters.
fn observe_the_host(state: &mut State) {
    let mut grants = state.cluster.grants.clone();
    let stop = json!({"namespaces": [NAMESPACE], "mode": "Observe", "hosts": [{"host": "web.example"}]});
    grants
        .push(keyturn_api::RotationGrant::new("stop", serde_json::from_value(stop).expect("it is a grant")));
    let unreadable = state.cluster.unreadable_grants.clone();
    state.cluster.give(state.now, grants, unreadable);
    let keys = state.cluster.keys();
    state.touched.extend(keys);
}

scenario!(an_incident_changes_no_role_through_a_host_that_is_observed,
    prepare: |s| {
        let through = json!({
            "host": null, "via": {"dockerHost": "web"}, "singleRole": {"name": "app_a"},
            "adminSecretRef": {"name": "admin"},
        });
        login_on_web(s, through, json!({}));
        observe_the_host(s);
    },
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        later(1800, "has seen enough, and lets the host be changed", |s| grant(s, "Rotate")),
    ],
    ends: |end| contained_logins(end, 1, &["app_a"]));

/// Applies a grant of a later version, with mode Observe.
fn apply_a_grant_that_cannot_be_read(state: &mut State) {
    let grant = json!({
        "apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationGrant", "metadata": {"name": "stop"},
        "spec": {"namespaces": [NAMESPACE], "mode": "ObserveStrictly", "parameters": [{"prefix": "/app/prod/"}]},
    });
    let (grants, grant) = (state.cluster.grants.clone(), serde_json::from_value(grant));
    state.cluster.give(state.now, grants, vec![grant.expect("it is an object")]);
    let keys = state.cluster.keys();
    state.touched.extend(keys);
}

scenario!(an_incident_under_a_grant_that_cannot_be_read_touches_nothing,
prepare: |s| {
    grant(s, "Rotate");
    apply_a_grant_that_cannot_be_read(s);
    put_days_ago(s, PATH, OLD, 10);
    s.apply_secret(SECRET, json!({}), spec(json!({})));
},
script: an_incident,
ends: |end| {
    let open = |s: &SecretEnd| s.conditions.get("Compromised").is_some_and(|(_, why)| why == "Observe");
    end.parameters.values().all(|p| p.generated == 0) && end.secrets.values().all(open)
});

pub(crate) fn compromise_is_over(state: &State) -> bool {
    let status = state.cluster.secret(SECRET).and_then(|s| s.status.as_ref());
    status.and_then(|s| s.compromise.as_ref()).is_some_and(|c| c.contained_at.is_some())
}
