//! Stories of what must be respected before anything is done: other objects and their values, suspension, order,
//! values that cannot be compared, and events that the controller missed.

use std::collections::BTreeSet;

use keyturn_reconcile::parameter_store::records;
use keyturn_rotation::observed::{Credential, Record, Trigger};
use keyturn_secret_value::SecretValue;

use super::*;
use crate::faults::Plan;
use crate::world::STAGING;

const OTHER: &str = "other";

fn stalled(end: &Summary, name: &str, reason: &str) -> bool {
    let secret = end.secrets.get(name);
    secret.is_some_and(|secret| secret.conditions.get("Stalled").is_some_and(|(_, why)| why == reason))
}

fn nothing_generated(end: &Summary) -> bool {
    end.staged.is_empty() && end.parameters.values().all(|p| p.generated == 0)
}

fn set_fetches(state: &mut State, fetches: &[&str]) {
    let web = state.hosts.get_mut("web").expect("it was made");
    web.fetches = fetches.iter().map(|path| (*path).to_owned()).collect();
}

fn run_on_web(state: &mut State, value: &str) {
    let web = state.hosts.get_mut("web").expect("it was made");
    web.running.insert(PATH.to_owned(), value.to_owned());
}

// Other objects.

scenario!(a_parameter_of_another_object_is_left_alone,
    prepare: |s| {
        grant(s, "Rotate");
        let start = s.now;
        s.now = start - TimeDelta::days(10);
        let stamp =
            Stamp { owner: "elsewhere/prod/token".into(), id: 4, version: 1, at: s.now, request: None, made: None };
        s.person_describes(PATH, OLD, &stamped_by_another(&stamp));
        s.now = start;
        s.apply_secret(SECRET, json!({}), spec(json!({})));
    },
    script: a_request,
    ends: |end| stalled(end, SECRET, "OwnedByOther") && nothing_generated(end));

scenario!(a_second_object_on_a_path_is_told_and_does_nothing,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        at(60, "applies a second object for the path", |s| s.apply_secret(OTHER, json!({}), spec(json!({})))),
        at(300, "asks it for a rotation", |s| s.request(OTHER, "one")),
    ],
    ends: |end| stalled(end, OTHER, "Conflict") && nothing_generated(end) && at_rest(&end.secrets[SECRET]));

scenario!(a_second_object_on_a_role_is_told_and_does_nothing,
    prepare: |s| {
        login_on_web(s, single_with_admin(), json!({}));
        put_days_ago(s, SECOND, &format!("app_a:{OLD}"), 10);
    },
    script: || vec![
        at(60, "applies a second object for the role", |s| {
            let parameters = json!([{"path": SECOND, "value": "{username}:{password}"}]);
            let second = login_spec(single_with_admin(), json!({"ssm": {"parameters": parameters}}));
            s.apply_secret(OTHER, json!({}), second);
        }),
        at(300, "asks it for a rotation", |s| s.request(OTHER, "one")),
    ],
    ends: |end| stalled(end, OTHER, "RoleInUse") && nothing_generated(end) && at_rest(&end.secrets[SECRET]));

scenario!(an_object_that_was_applied_again_in_mid_rotation_is_held_too,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "loses the cluster and applies everything to a new one", apply_everything_anew),
        later(60, "deletes the object", |s| s.delete_secret(SECRET)),
    ],
    ends: finished_or_given_up,
    // If the finalizer could not be written in time, nothing holds the object.
    or_else: |end| end.secrets.is_empty() && end.parameters.values().all(|p| p.generated <= 1));

fn lose_everything_and_apply(state: &mut State, path: &str) {
    state.lose_all_objects();
    let patch = json!({"ssm": {"parameters": [{"path": path}]}});
    state.apply_secret(SECRET, json!({ROTATE_REQUESTED_AT: "one"}), spec(patch));
}

fn finished_beside_another_parameter(end: &Summary) -> bool {
    end.staged.is_empty()
        && end.secrets.values().all(at_rest)
        && end.parameters[PATH].generated == 1
        && end.parameters[SECOND].generated == 0
}

scenario!(a_record_about_other_parameters_is_left_alone,
    prepare: |s| {
        young_value(s);
        put_days_ago(s, SECOND, "the-other-old-value", 10);
        s.apply_secret(SECRET, json!({}), spec(json!({})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "applies an object of the same name for another path to a new cluster",
            |s| lose_everything_and_apply(s, SECOND)),
        once(|s| stalled_for(s, "OtherParameters"), "reads why nothing happens", |_| {}),
        later(60, "applies the first one again", |s| lose_everything_and_apply(s, PATH)),
    ],
    ends: finished_beside_another_parameter,
    or_else: finished_beside_another_parameter);

// Values that are missing or held back.

scenario!(a_missing_parameter_of_a_suspended_secret_is_not_created,
    prepare: |s| { grant(s, "Rotate"); s.apply_secret(SECRET, json!({}), spec(json!({"suspend": true}))); },
    script: nobody_does_anything,
    ends: |end| end.parameters.is_empty() && end.staged.is_empty());

scenario!(a_parameter_that_is_missing_beside_another_is_told,
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, OLD, 100);
        let parameters = json!([{"path": PATH}, {"path": SECOND, "value": "id-{value}"}]);
        s.apply_secret(SECRET, json!({}), spec(json!({"ssm": {"parameters": parameters}})));
    },
    script: nobody_does_anything,
    ends: |end| stalled(end, SECRET, "ParameterMissing") && nothing_generated(end));

scenario!(a_rotation_does_not_begin_without_one_of_its_hosts,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"hosts": [{"name": "web"}, {"name": "canary"}]})));
    },
    script: a_request,
    ends: |end| stalled(end, SECRET, "HostMissing") && nothing_generated(end));

scenario!(a_foreign_write_to_a_suspended_secret_waits,
    prepare: |s| {
        grant(s, "Rotate");
        rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 10);
        let held = json!({"suspend": true, "rotation": {"onDrift": "Rotate"}});
        s.apply_secret(SECRET, json!({}), spec(held));
    },
    script: || vec![
        at(200, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
        later(2000, "ends the suspension", |s| s.edit_secret(SECRET, |o| o.spec.suspend = false)),
    ],
    ends: one_new_value);

scenario!(a_suspended_host_is_named_and_not_touched,
    prepare: |s| { managed_on_web(s); s.edit_host("web", |host| host.spec.suspend = true); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(seams::preflight_fails, "ends the suspension of the host",
            |s| s.edit_host("web", |host| host.spec.suspend = false)),
    ],
    ends: one_new_value);

scenario!(a_host_waits_for_the_one_before_it,
    prepare: |s| {
        young_value_on_web(s);
        host(s, "canary", &[PATH]);
        s.edit_host("web", |host| host.spec.deploy.after = vec!["canary".to_owned()]);
        s.apply_secret(SECRET, json!({}), on_web(json!({"hosts": [{"name": "web"}, {"name": "canary"}]})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the deploy script of the first host",
            |s| s.hosts.get_mut("canary").expect("it was made").script_fails = true),
        later(600, "sees that the other one still waits, and mends it", |s| {
            if s.memory.published(PATH) > 0 && seams::runs_what_is_published(s, "web", PATH) {
                s.violate("hold: web was deployed to before canary had proven it".to_owned());
            }
            s.hosts.get_mut("canary").expect("it was made").script_fails = false;
        }),
    ],
    ends: one_new_value);

scenario!(two_secrets_of_one_host_are_deployed_once,
    prepare: |s| {
        grant(s, "Rotate");
        put_days_ago(s, PATH, OLD, 10);
        put_days_ago(s, SECOND, "the-other-old-value", 10);
        host(s, "web", &[PATH, SECOND]);
        host(s, "canary", &[SECOND]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
        let on_both = json!({
            "ssm": {"parameters": [{"path": SECOND}]}, "hosts": [{"name": "web"}, {"name": "canary"}],
        });
        s.apply_secret(OTHER, json!({}), on_web(on_both));
    },
    script: || vec![
        at(300, "asks for one secret", |s| s.request(SECRET, "one")),
        later(4, "asks for the other, which another host has to be asked about too", |s| s.request(OTHER, "one")),
        later(1200, "counts the deployments", |s| {
            if s.plan == Plan::none() && s.hosts["web"].deploys > 1 {
                s.violate(format!("hold: web was deployed to {} times", s.hosts["web"].deploys));
            }
        }),
    ],
    ends: one_new_value);

fn host_is_not_granted(state: &State) -> bool {
    let status = state.cluster.host("web").and_then(|host| host.status.as_ref());
    let mut conditions = status.iter().flat_map(|status| &status.conditions);
    conditions.any(|c| c.type_ == "Stalled" && c.reason == "NotGranted" && c.message.contains("web.example"))
}

scenario!(a_host_outside_the_grants_is_not_touched,
    prepare: |s| {
        let grant = json!({
            "namespaces": [NAMESPACE], "mode": "Rotate", "parameters": [{"prefix": "/app/prod/"}],
        });
        s.set_grants(&[("all", grant)]);
        put_days_ago(s, PATH, OLD, 10);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        later(3600, "looks at the host", |_| {}),
        once(host_is_not_granted, "reads which grant is missing, and gives it", |s| grant(s, "Rotate")),
    ],
    ends: one_new_value);

/// Allows deployments to the host in the evening only; the stories begin at midnight.
fn only_in_the_evening(state: &mut State) {
    let windows = json!([{"schedule": "0 20 * * *", "duration": "1h"}]);
    state.edit_host("web", |host| {
        host.spec.deploy.windows = serde_json::from_value(windows).expect("these are windows");
    });
}

fn single_role_on_two_hosts_with_a_window(state: &mut State) {
    server_with_a(state);
    host(state, "web", &[PATH]);
    host(state, "canary", &[PATH]);
    only_in_the_evening(state);
    let hosts = json!({"hosts": [{"name": "web"}, {"name": "canary"}]});
    state.apply_secret(SECRET, json!({}), login_spec(single_with_admin(), hosts));
}

scenario!(a_host_with_a_window_gets_its_password_although_another_one_is_missing,
    prepare: single_role_on_two_hosts_with_a_window,
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(published, "deletes the object of the other host", |s| s.delete_host("canary")),
        later(9000, "uses the product, and applies the other host again", |s| {
            let accepts = |value: &String| s.postgres.as_ref().is_some_and(|server| server.accepts(value));
            if !s.hosts["web"].running.get(PATH).is_some_and(accepts) {
                s.violate("I2: web is left without a password that works".to_owned());
            }
            let before = s.hosts.get("canary").cloned().expect("it was made");
            host(s, "canary", &[PATH]);
            s.hosts.insert("canary".to_owned(), before);
        }),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: seams::put_back);

scenario!(a_host_with_a_window_gets_its_password_although_its_source_was_edited,
    prepare: |s| { login_on_web(s, single_with_admin(), json!({})); only_in_the_evening(s); },
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(published, "wants a random value instead", seams::wants_a_random_value),
        later(9000, "uses the product, and takes it back", |s| {
            seams::works_meanwhile(s);
            seams::wants_a_login_again(s);
        }),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: seams::put_back);

scenario!(a_host_that_was_changed_by_hand_is_found_before_a_rotation_begins,
    prepare: managed_on_web,
    script: || vec![
        at(200, "runs something else on the host", |s| run_on_web(s, "what-somebody-tries-out")),
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        later(1200, "runs what is published again", |s| {
            if s.memory.recorded.contains_key(SECRET) {
                s.violate("hold: a rotation began although the host runs something else".to_owned());
            }
            run_on_web(s, OLD);
        }),
    ],
    ends: one_new_value);

// Values, and the values that they are compared with.

scenario!(another_machine_in_the_place_of_a_host_is_deployed_to,
    prepare: |s| {
        grant(s, "Rotate");
        rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 10);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: || vec![at(600, "moves the product to another machine, with an old value", |s| {
        s.edit_host("web", |host| host.spec.ssh.host = "canary.example".to_owned());
        s.hosts.insert("web".to_owned(), SimHost { fetches: vec![PATH.to_owned()], ..SimHost::default() });
        run_on_web(s, OLD);
    })],
    ends: |end| end.hosts["web"].runs[PATH] && end.staged.is_empty() && end.secrets.values().all(at_rest));

scenario!(a_parameter_that_is_created_again_on_a_host_is_compared_again,
    prepare: |s| {
        grant(s, "Rotate");
        rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 10);
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), on_web(json!({})));
    },
    script: || vec![
        at(600, "deletes it, and creates it with other values", |s| {
            s.person_deletes_parameter(PATH);
            s.person_describes(PATH, OLD, "Signing key");
            s.person_describes(PATH, FOREIGN, "Signing key");
        }),
        later(900, "deploys that", |s| run_on_web(s, FOREIGN)),
    ],
    ends: |end| nothing_generated(end) && end.secrets.values().all(|s| is(&s.conditions, "Deployed", "True")));

scenario!(a_version_that_nobody_can_read_stops_nothing,
prepare: |s| {
    grant(s, "Rotate");
    rotated_days_ago(s, PATH, "the-value-of-the-first-rotation", 10);
    s.apply_secret(SECRET, json!({}), spec(json!({})));
},
script: || vec![at(200, "writes it under a key that is disabled", |s| {
    s.person_puts(PATH, FOREIGN);
    seams::refuse(s, PATH, |rules| rules.unreadable.extend([3]));
})],
ends: |end| nothing_generated(end) && end.secrets.values().all(|s| {
    is(&s.conditions, "Drifted", "True") && is(&s.conditions, "Ready", "True")
}));

fn grant_with_a_key(state: &mut State) {
    let grant = json!({
        "namespaces": [NAMESPACE], "mode": "Rotate",
        "parameters": [{"prefix": "/app/prod/", "kmsKeys": ["alias/shop"]}],
    });
    state.set_grants(&[("all", grant)]);
}

scenario!(a_key_that_nobody_named_is_told_and_kept,
    prepare: |s| {
        grant_with_a_key(s);
        put_days_ago(s, PATH, OLD, 10);
        seams::refuse(s, PATH, |rules| rules.key = Some("alias/shop".to_owned()));
        s.apply_secret(SECRET, json!({}), spec(json!({})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(seams::preflight_fails, "names the key",
            |s| s.edit_secret(SECRET, |o| o.spec.ssm.kms_key_id = Some("alias/shop".to_owned()))),
    ],
    ends: one_new_value);

scenario!(an_incident_keeps_the_key_that_nobody_named,
    prepare: |s| {
        grant_with_a_key(s);
        put_days_ago(s, PATH, OLD, 10);
        seams::refuse(s, PATH, |rules| rules.key = Some("alias/shop".to_owned()));
        s.apply_secret(SECRET, json!({}), spec(json!({})));
    },
    script: an_incident,
    ends: |end| contained(end) && in_order(end, 1));

fn old_pair_works(state: &State) -> bool {
    let pair = format!("{OLD_ID}:{}", OLD_SECRET.replace('-', "0"));
    state.cloudflare.as_ref().is_some_and(|account| account.accepts(&pair, state.now))
}

fn verify_is_enough(state: &mut State) {
    state.edit_secret(SECRET, |o| {
        let retire = json!({"after": "5m", "requires": "Verify"});
        o.spec.retire = serde_json::from_value(retire).ok();
    });
}

scenario!(what_cannot_be_compared_keeps_the_old_pair_until_somebody_says_that_verify_is_enough,
    prepare: |s| {
        pair_by_hand(s);
        host(s, "web", &[PATH]);
        s.hosts.get_mut("web").expect("it was made").unseen.insert(PATH.to_owned());
        s.apply_secret(SECRET, json!({}), pair_spec(json!({})));
    },
    script: || vec![
        at(300, "asks for another pair", |s| s.request(SECRET, "one")),
        later(3000, "sees that the old pair still works, and says that verify is enough", |s| {
            if !old_pair_works(s) {
                s.violate("I8: the old pair was deleted although nothing proves that it is out of use".to_owned());
            }
            verify_is_enough(s);
        }),
    ],
    ends: seams::in_order_unseen);

/// Sets up a pair that no container shows, on a host that also fetches another secret's parameter.
fn unseen_pair(state: &mut State, retire: Value) {
    pair_by_hand(state);
    put_days_ago(state, SECOND, "the-other-old-value", 10);
    host(state, "web", &[PATH, SECOND]);
    state.hosts.get_mut("web").expect("it was made").unseen.insert(PATH.to_owned());
    state.apply_secret(SECRET, json!({}), pair_spec(json!({"retire": retire})));
}

fn apply_the_other(state: &mut State) {
    state.apply_secret(OTHER, json!({}), on_web(json!({"ssm": {"parameters": [{"path": SECOND}]}})));
}

fn unseen_pair_beside_another(state: &mut State, retire: Value) {
    unseen_pair(state, retire);
    apply_the_other(state);
}

scenario!(a_run_whose_verify_failed_adopts_nothing_that_cannot_be_compared,
    prepare: |s| unseen_pair_beside_another(s, json!({"after": "5m", "requires": "Verify"})),
    script: || vec![
        at(300, "asks for both", |s| {
            s.request(SECRET, "one");
            s.request(OTHER, "one");
        }),
        once(recorded, "makes the deploy script forget everything, and breaks the product", |s| {
            set_fetches(s, &[]);
            set_verify_fails(s, true);
        }),
        later(600, "waits", |_| {}),
        // A run that began earlier might succeed after the script has forgotten everything.
        once(|s| s.jobs.iter().all(|job| !job.is_running()), "mends both", |s| {
            set_fetches(s, &[PATH, SECOND]);
            set_verify_fails(s, false);
        }),
    ],
    ends: seams::in_order_unseen);

scenario!(a_pair_that_cannot_be_compared_is_retired_in_time_however_often_its_host_is_looked_at,
    prepare: |s| unseen_pair_beside_another(s, json!({"after": "30m", "requires": "Verify"})),
    script: || vec![
        at(300, "asks for another pair", |s| s.request(SECRET, "one")),
        once(|s| s.memory.published(PATH) > 0 && seams::runs_what_is_published(s, "web", PATH), "waits", |_| {}),
        later(1200, "asks for the other secret", |s| s.request(OTHER, "one")),
        later(1500, "sees that the old pair has ended", |s| {
            if s.plan == Plan::none() && s.memory.published(SECOND) > 0 && old_pair_works(s) {
                s.violate("I6: the end of the old pair is put off by every look at its host".to_owned());
            }
        }),
    ],
    ends: seams::in_order_unseen,
    or_else: seams::in_order_unseen);

/// True if the host was deployed to once. The other secret is adopted, for which the host is verified; its value is
/// not new.
fn deployed_once_unseen(end: &Summary) -> bool {
    end.server.as_ref().is_some_and(|server| server.can_log_in == ["published"])
        && end.staged.is_empty()
        && (end.parameters[PATH].generated, end.parameters[SECOND].generated) == (1, 0)
        && end.hosts.values().all(|h| h.runs.values().all(|same| *same) && is(&h.conditions, "Ready", "True"))
        && end.secrets.values().all(at_rest)
}

scenario!(a_look_at_a_host_deploys_nothing_again_that_cannot_be_compared,
    prepare: |s| unseen_pair(s, json!({"after": "5m", "requires": "Verify"})),
    script: || vec![
        at(300, "asks for another pair", |s| s.request(SECRET, "one")),
        once(|s| s.memory.published(PATH) > 0 && seams::runs_what_is_published(s, "web", PATH), "waits", |_| {}),
        later(1200, "applies a secret for what else the host fetches", apply_the_other),
    ],
    ends: deployed_once_unseen);

// Logins and who uses them.

scenario!(a_single_role_is_not_closed_while_its_server_is_away,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(deploying, "unplugs the server", |s| set_server_away(s, true)),
        later(3000, "plugs it in again", |s| set_server_away(s, false)),
    ],
    ends: |end| logins_in_order(end, 1, &["app_a"]),
    or_else: seams::put_back);

scenario!(a_login_that_somebody_else_uses_is_not_retired,
    prepare: |s| {
        login_on_web(s, alternating(), json!({}));
        let running = [(PATH.to_owned(), format!("app_a:{OLD}"))].into();
        s.hosts.insert("laptop".to_owned(), SimHost { running, ..SimHost::default() });
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        later(7200, "closes the laptop", |s| drop(s.hosts.remove("laptop"))),
    ],
    ends: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(a_foreign_write_while_roles_take_turns_is_not_adopted,
    prepare: |s| login_on_web(s, alternating(), json!({"rotation": {"onDrift": "Adopt"}})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "puts another value", |s| s.person_puts(PATH, FOREIGN)),
        later(1200, "says that the new one counts",
            |s| s.edit_secret(SECRET, |o| o.spec.rotation.on_drift = serde_json::from_value(json!("Rotate")).ok())),
    ],
    ends: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(a_parameter_that_is_lost_with_its_history_is_rotated_past_the_fence,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "deletes the parameter, and puts its value again", |s| {
            let Some(value) = s.ssm.latest(PATH).map(|latest| latest.value.clone()) else { return };
            s.person_deletes_parameter(PATH);
            s.person_describes(PATH, &value, "Signing key");
        }),
        later(1200, "asks for another rotation", |s| s.request(SECRET, "two")),
    ],
    ends: |end| logins_in_order(end, 2, &["app_a"]));

fn both_requested() -> Vec<Action> {
    vec![at(300, "asks for both", |s| {
        s.request(SECRET, "one");
        s.request(OTHER, "one");
    })]
}

scenario!(a_host_is_not_deployed_to_while_a_role_of_it_is_changed,
    prepare: seams::role_beside_another_secret,
    script: both_requested,
    ends: seams::role_and_other_end_well,
    or_else: seams::role_and_other_end_well);

fn role_on_a_host_of_two(state: &mut State) {
    server_with_a(state);
    host(state, "web", &[PATH, SECOND]);
    state.apply_secret(SECRET, json!({}), login_spec(single_with_admin(), json!({})));
}

scenario!(a_host_is_not_deployed_to_while_the_password_of_its_role_waits_for_ssm,
    prepare: role_on_a_host_of_two,
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(role_changed, "keeps SSM from taking it for a while, and applies another secret of the host", |s| {
            seams::refuse(s, PATH, |rules| rules.throttled = true);
            apply_the_other(s);
        }),
        later(100, "lets SSM take it", seams::allow_everything),
    ],
    ends: seams::role_and_other_in_order,
    or_else: seams::role_and_other_end_well);

scenario!(a_host_is_not_deployed_to_while_the_password_of_its_role_is_taken_back,
    prepare: role_on_a_host_of_two,
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(role_changed, "makes SSM refuse it, and applies another secret of the host", |s| {
            seams::refuse(s, PATH, |rules| rules.frozen = true);
            apply_the_other(s);
        }),
    ],
    ends: seams::role_and_other_end_well,
    or_else: seams::role_and_other_end_well);

scenario!(a_role_is_not_changed_while_its_host_is_deployed_to,
    prepare: seams::role_beside_another_secret,
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        later(5, "reports the other secret",
            |s| s.suspect("leak", json!({"managedSecretRefs": [{"name": OTHER}]}))),
    ],
    ends: seams::role_and_other_end_well,
    or_else: seams::role_and_other_end_well);

// Roll backs, reports and deletions that meet.

scenario!(a_roll_back_that_fails_too_is_held,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onFailure": OnFailure::RollBack}})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the deploy script", |s| set_script_fails(s, true)),
        once(rolling_back, "waits", |_| {}),
        later(1500, "mends it", |s| set_script_fails(s, false)),
    ],
    ends: rolled_back,
    or_else: rolled_back);

scenario!(a_value_is_not_rolled_back_because_nobody_heard_how_its_deployment_went,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onFailure": OnFailure::RollBack}})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the connections to the host", |s| seams::set_breaks_off(s, true)),
        later(1200, "mends them", |s| seams::set_breaks_off(s, false)),
    ],
    ends: one_new_value);

const BACKUP: &str = "/backup/record";

/// Returns path and value of the one record that exists.
fn record_of(state: &State) -> Option<(String, String)> {
    let path = state.ssm.staged().find(|path| !path.ends_with(".abort"))?.to_owned();
    let value = state.ssm.latest(&path)?.value.clone();
    Some((path, value))
}

fn one_value_beside_the_backup(end: &Summary) -> bool {
    let told = answered_with(end, "Succeeded");
    told && end.staged.is_empty() && end.secrets.values().all(at_rest) && end.parameters[PATH].generated == 2
}

scenario!(a_record_that_somebody_restores_is_not_published_again,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "makes a backup", |s| {
            if let Some((_, value)) = record_of(s) {
                s.person_puts(BACKUP, &value);
            }
        }),
        once(|s| answered(s, "one") && !recorded(s), "asks for another", |s| s.request(SECRET, "two")),
        once(|s| answered(s, "two") && !recorded(s), "restores the backup", |s| {
            let value = s.ssm.latest(BACKUP).map(|latest| latest.value.clone());
            s.person_puts(&records::record_path(STAGING, NAMESPACE, SECRET, 1), &value.unwrap_or_default());
        }),
    ],
    ends: one_value_beside_the_backup);

/// Restores a record from a backup that was made in the middle of rotation 1, before the environment was set up
/// again.
fn restore_a_record_of_an_earlier_life(state: &mut State) {
    let password = SecretValue::new("of-an-earlier-life".to_owned());
    let login = SecretValue::new(format!("app_b:{}", password.expose()));
    let record = Record {
        id: 1,
        trigger: Trigger::Request,
        at: state.start - TimeDelta::days(30),
        request: Some("of-an-earlier-life".to_owned()),
        values: BTreeMap::from([(PATH.to_owned(), login)]),
        base: BTreeMap::from([(PATH.to_owned(), 1)]),
        base_at: BTreeMap::new(),
        hosts: vec!["web".to_owned()],
        kept: BTreeSet::new(),
        credential: Some(Credential {
            username: "app_b".to_owned(),
            password,
            replaces: Some("app_a".to_owned()),
            accepted: BTreeSet::new(),
        }),
    };
    let value = records::encode(&record).expect("a record fits into a parameter");
    state.person_puts(&records::record_path(STAGING, NAMESPACE, SECRET, 1), value.expose());
}

scenario!(a_record_of_an_earlier_life_that_somebody_restores_changes_no_role,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for another login", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "restores a backup of before",
            restore_a_record_of_an_earlier_life),
    ],
    ends: |end| logins_in_order(end, 1, &["app_b"]));

scenario!(a_password_that_was_installed_is_not_forgotten_with_its_object,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(role_changed, "makes SSM refuse it", |s| seams::refuse(s, PATH, |rules| rules.frozen = true)),
        later(60, "puts another value, and deletes the object", |s| {
            s.person_puts(PATH, FOREIGN);
            s.delete_secret(SECRET);
        }),
    ],
    ends: seams::let_go,
    or_else: seams::let_go);

fn marked(state: &State) -> bool {
    state.ssm.staged().any(|path| path.ends_with(".abort"))
}

scenario!(a_password_that_may_be_installed_is_not_forgotten_while_its_server_is_away,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "asks for another password", |s| s.request(SECRET, "one")),
        once(role_changed, "makes SSM refuse it", |s| seams::refuse(s, PATH, |rules| rules.frozen = true)),
        once(marked, "deletes the object, and takes the server away", |s| {
            s.delete_secret(SECRET);
            set_server_away(s, true);
        }),
        later(1200, "brings the server back", |s| set_server_away(s, false)),
    ],
    ends: seams::let_go,
    or_else: seams::let_go);

fn rolled_back(end: &Summary) -> bool {
    end.hosts.values().all(|host| host.runs.values().all(|same| *same))
        && end.staged.is_empty()
        && answered_with(end, "RolledBack")
        && end.secrets.values().all(at_rest)
}

scenario!(a_suspected_value_is_not_brought_back,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onFailure": OnFailure::RollBack}})));
    },
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        once(recorded, "breaks the deploy script", |s| set_script_fails(s, true)),
        later(1200, "mends it", |s| set_script_fails(s, false)),
    ],
    ends: |end| contained(end) && in_order(end, 1));

scenario!(an_incident_while_a_rotation_is_rolled_back_replaces_what_comes_back,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onFailure": OnFailure::RollBack}})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the deploy script", |s| set_script_fails(s, true)),
        once(|s| s.memory.recorded.get(SECRET).is_some_and(|ids| ids.len() > 1),
            "mends it, and reports what was read before the rotation", |s| {
                set_script_fails(s, false);
                let reported = keyturn_api::time::to_kubernetes(s.start + TimeDelta::seconds(200));
                s.suspect_since("leak", token_is_suspected(), &serde_json::to_value(reported).unwrap());
            }),
    ],
    ends: |end| contained(end) && in_order(end, 3),
    or_else: |end| contained(end) && (1..=3).any(|generated| in_order(end, generated)));

scenario!(an_incident_concerns_the_value_that_a_roll_back_has_brought_back,
    prepare: |s| {
        young_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onFailure": OnFailure::RollBack}})));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "breaks the deploy script", |s| set_script_fails(s, true)),
        once(|s| s.memory.recorded.get(SECRET).is_some_and(|ids| ids.len() > 1), "mends it",
            |s| set_script_fails(s, false)),
        once(|s| closed(s) && answered(s, "one"), "reports what was read before the rotation", |s| {
            let reported = keyturn_api::time::to_kubernetes(s.start + TimeDelta::seconds(200));
            s.suspect_since("leak", token_is_suspected(), &serde_json::to_value(reported).unwrap());
        }),
    ],
    ends: |end| contained(end) && in_order(end, 3),
    or_else: |end| contained(end) && (1..=3).any(|generated| in_order(end, generated)));

scenario!(a_second_report_is_answered_too,
    prepare: managed_on_web,
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        once(compromise_is_over, "waits", |_| {}),
        later(600, "reports another one", |s| s.suspect("second-leak", token_is_suspected())),
    ],
    ends: |end| contained(end) && in_order(end, 2));

scenario!(deleting_in_mid_rotation_while_a_host_is_down_ends_in_time,
    prepare: managed_on_web,
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(deploying, "unplugs the host, and deletes the object", |s| {
            set_host_down(s, true);
            s.delete_secret(SECRET);
        }),
    ],
    ends: seams::let_go,
    or_else: seams::let_go);

scenario!(deleting_at_rest_removes_the_parameters_too,
    prepare: |s| {
        young_value(s);
        s.apply_secret(SECRET, json!({}), spec(json!({"deletionPolicy": "Delete"})));
    },
    script: || vec![at(600, "deletes the object", |s| s.delete_secret(SECRET))],
    ends: |end| *end == Summary::default(),
    // If the finalizer could not be written in time, nothing holds the object.
    or_else: |end| end.secrets.is_empty());
