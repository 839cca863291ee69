//! Stories of logins of a Postgres server, published as `user:password`.

use super::*;

pub(super) fn login_spec(source: Value, patch: Value) -> Value {
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

pub(super) fn single_with_admin() -> Value {
    json!({"singleRole": {"name": "app_a"}, "adminSecretRef": {"name": "admin"}})
}

pub(super) fn single_on_its_own() -> Value {
    json!({"singleRole": {"name": "app_a"}})
}

pub(super) fn alternating() -> Value {
    json!({
        "alternatingRoles": {"names": ["app_a", "app_b"], "owner": "app"},
        "adminSecretRef": {"name": "admin"},
    })
}

pub(super) fn server_with_a(state: &mut State) {
    state.postgres = Some(SimPostgres::with(&[("app_a", OLD, true), ("app_b", "unset", false)]));
    grant(state, "Rotate");
    put_days_ago(state, PATH, &format!("app_a:{OLD}"), 10);
}

pub(super) fn login_on_web(state: &mut State, source: Value, patch: Value) {
    server_with_a(state);
    host(state, "web", &[PATH]);
    state.apply_secret(SECRET, json!({}), login_spec(source, patch));
}

/// True if all is in order, and the server accepts the published and the running login, from these roles only.
pub(super) fn logins_in_order(end: &Summary, generated: usize, roles: &[&str]) -> bool {
    let works = end
        .server
        .as_ref()
        .is_some_and(|server| server.accepts_published && server.accepts_hosts && server.can_log_in == roles);
    works && in_order(end, generated)
}

scenario!(a_single_role_is_rotated_by_an_administrator,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

scenario!(a_single_role_changes_its_own_password,
    prepare: |s| login_on_web(s, single_on_its_own(), json!({})),
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

scenario!(a_single_role_without_hosts_is_rotated,
    prepare: |s| {
        server_with_a(s);
        s.apply_secret(SECRET, json!({}), login_spec(single_with_admin(), json!({"hosts": null})));
    },
    script: a_request,
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: put_back);

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

/// True if nothing new was published, and the previously published login works for everybody.
pub(crate) fn taken_back(end: &Summary) -> bool {
    let untouched = end.parameters.values().all(|parameter| parameter.generated == 0);
    let works = end.server.as_ref().is_some_and(|server| server.accepts_published && server.accepts_hosts);
    untouched && works && end.staged.is_empty() && answered_with(end, "RolledBack")
}

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
    // If SSM refuses the new password permanently, the old one is restored before anything was deployed.
    or_else: |end| logins_in_order(end, 1, &["app_a"]) || taken_back(end));

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
        once(recorded, "unplugs the server", |s| set_server_away(s, true)),
        later(1200, "plugs it in again", |s| set_server_away(s, false)),
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

/// True for a finished deletion. If events are missed or the server is unavailable for long, its deadline may come
/// first.
fn gone_with_a_working_login(end: &Summary) -> bool {
    let works = end.server.as_ref().is_some_and(|server| server.accepts_published && server.accepts_hosts);
    works && end.secrets.is_empty() && (end.staged.is_empty() || !end.abandoned.is_empty())
}

scenario!(a_foreign_write_over_a_changed_role_is_published_over,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(role_changed, "puts another value", |s| s.person_puts(PATH, FOREIGN)),
        // If the new password was refused permanently, the role got its password back, and the value that somebody
        // wrote works nowhere.
        later(7200, "sees to it that what is published works", super::seams::put_right),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: |end| put_back(end) || end.server.as_ref().is_some_and(|s| s.can_log_in == ["app_a"]) && either_value_stands(end)
        || drifted_with_a_working_login(end));

scenario!(a_foreign_write_over_a_changed_role_is_published_over_once_its_server_is_back,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(role_changed, "puts another value, and takes the server away", |s| {
            s.person_puts(PATH, FOREIGN);
            set_server_away(s, true);
        }),
        later(1800, "brings the server back", |s| set_server_away(s, false)),
        later(7200, "sees to it that what is published works", super::seams::put_right),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: |end| put_back(end) || end.server.as_ref().is_some_and(|s| s.can_log_in == ["app_a"]) && either_value_stands(end)
        || drifted_with_a_working_login(end));

pub(super) fn role_changed(state: &State) -> bool {
    recorded(state)
        && state.postgres.as_ref().and_then(|s| s.roles.get("app_a")).is_some_and(|role| role.password != OLD)
}

fn drifted_with_a_working_login(end: &Summary) -> bool {
    end.secrets.values().all(|s| is(&s.conditions, "Drifted", "True"))
        && end.server.as_ref().is_some_and(|server| server.accepts_hosts)
}

pub(super) fn set_server_away(state: &mut State, away: bool) {
    if let Some(server) = &mut state.postgres {
        server.unreachable = away;
    }
}
