//! Stories of what is unknown, no longer there or not yet there, and must not be mistaken for something
//! better.

use super::*;

// Sessions that nobody can see.

fn hides_statistics(state: &mut State, hides: bool) {
    state.postgres.as_mut().expect("a server is there").hides_statistics = hides;
}

fn sessions_are_unseen(state: &State) -> bool {
    stalled_for(state, "SessionsUnseen")
}

scenario!(an_incident_is_not_contained_while_nobody_sees_since_when_sessions_are_open,
    prepare: |s| {
        login_on_web(s, single_with_admin(), json!({}));
        hides_statistics(s, true);
    },
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
        once(sessions_are_unseen, "waits", |_| {}),
        later(1200, "lets the administrator read statistics", |s| hides_statistics(s, false)),
    ],
    ends: |end| contained(end) && logins_in_order(end, 1, &["app_a"]));

scenario!(an_incident_is_not_contained_while_a_host_that_is_down_may_still_be_logged_in,
    prepare: |s| {
        login_on_web(s, single_with_admin(), json!({}));
        hides_statistics(s, true);
    },
    script: || vec![
        at(300, "unplugs the host and reports an incident", |s| {
            set_host_down(s, true);
            s.suspect("leak", soon_revoked());
        }),
        once(sessions_are_unseen, "lets the administrator read statistics", |s| hides_statistics(s, false)),
        once(compromise_is_over, "plugs the host in again", |s| set_host_down(s, false)),
    ],
    ends: |end| contained(end) && logins_in_order(end, 1, &["app_a"]));

scenario!(an_incident_about_a_role_that_sees_nothing_of_itself_says_that_its_sessions_may_go_on,
prepare: |s| {
    login_on_web(s, single_on_its_own(), json!({}));
    hides_statistics(s, true);
},
script: || vec![
    at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
    once(sessions_are_unseen, "reads that sessions may go on", |_| {}),
    later(1200, "has ended them by hand, and deletes the incident", |s| {
        let status = s.cluster.secret(SECRET).and_then(|secret| secret.status.as_ref());
        let compromise = status.and_then(|status| status.compromise.as_ref());
        if compromise.is_some_and(|compromise| compromise.contained_at.is_some()) {
            s.violate("contained: nobody saw the sessions, and the incident is said to be contained".to_owned());
        }
        s.delete_incidents();
    }),
],
ends: |end| logins_in_order(end, 1, &["app_a"]));

scenario!(a_role_without_an_administrator_ends_its_own_sessions_in_an_incident,
    prepare: |s| login_on_web(s, single_on_its_own(), json!({})),
    script: || vec![at(300, "reports an incident", |s| s.suspect("leak", token_is_suspected()))],
    ends: |end| contained(end) && logins_in_order(end, 1, &["app_a"]));

// Tokens that expire.

fn period(state: &mut State, period: &str) {
    let period = period.to_owned();
    state.edit_secret(SECRET, |secret| {
        secret.spec.rotation.period = Some(keyturn_api::duration::Duration(period));
    });
}

fn is_overdue_for_its_end(state: &State) -> bool {
    let status = state.cluster.secret(SECRET).and_then(|secret| secret.status.as_ref());
    status.is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|c| c.type_ == "Overdue" && c.status == "True" && c.reason == "TokenEnds")
    })
}

// The previous pair is older than its period.
fn has_rotated(state: &State) -> bool {
    closed(state) && state.memory.published(PATH) == 1
}

fn lengthens_the_period() -> Vec<Action> {
    vec![
        once(has_rotated, "lengthens the period", |s| period(s, "90d")),
        later(12 * 3600 + 1800, "comes back when three quarters of its life are over", |_| {}),
    ]
}

scenario!(a_token_that_ends_before_the_longer_period_does_is_rotated_before,
    prepare: |s| pair_on_web(s, json!({"rotation": {"period": "8h"}})),
    script: lengthens_the_period,
    ends: |end| only_the_published_lives(end) && in_order(end, 2));

scenario!(a_token_that_ends_while_its_secret_is_suspended_is_told_to_be_overdue,
prepare: |s| pair_on_web(s, json!({"rotation": {"period": "1d"}})),
script: || vec![
    once(has_rotated, "suspends it, and lengthens the period", |s| {
        period(s, "90d");
        s.edit_secret(SECRET, |secret| secret.spec.suspend = true);
    }),
    later(37 * 3600 + 1800, "reads that its token ends, and lets it go on", |s| {
        if !is_overdue_for_its_end(s) {
            s.violate("I6: a token ends soon, and the secret is not Overdue".to_owned());
        }
        s.edit_secret(SECRET, |secret| secret.spec.suspend = false);
    }),
],
ends: |end| only_the_published_lives(end) && in_order(end, 2));

// Objects that a cache does not show.

fn without_web(state: &mut State) {
    state.edit_secret(SECRET, |secret| secret.spec.hosts.clear());
}

fn suspend_web(state: &mut State, suspended: bool) {
    state.edit_host("web", |host| host.spec.suspend = suspended);
}

fn still_serves_what_web_runs(state: &mut State) {
    let running = state.hosts.get("web").and_then(|web| web.running.get(PATH)).cloned().unwrap_or_default();
    if !state.postgres.as_ref().is_some_and(|server| server.accepts(&running)) {
        state.violate(
            "I2: the login that web runs is refused although web is there and has not left it".to_owned(),
        );
    }
}

scenario!(a_host_that_no_cache_shows_is_not_gone,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "suspends the host, takes it out of the spec, and the cache is empty", |s| {
            suspend_web(s, true);
            without_web(s);
            s.cluster.hides_hosts = true;
        }),
        later(3000, "looks, the cache is filled, and the host is deployed to again", |s| {
            still_serves_what_web_runs(s);
            s.cluster.hides_hosts = false;
            suspend_web(s, false);
        }),
    ],
    ends: |end| end.staged.is_empty() && end.server.as_ref().is_some_and(|s| s.accepts_published && s.accepts_hosts));

scenario!(a_host_that_cannot_be_decoded_is_there_and_has_proven_nothing,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "suspends the host, takes it out of the spec, and a field of it cannot be read", |s| {
            suspend_web(s, true);
            without_web(s);
            s.cluster.undecodable_hosts.insert("web".to_owned());
        }),
        later(3000, "looks, mends the object, and has it deployed to again", |s| {
            still_serves_what_web_runs(s);
            s.cluster.undecodable_hosts.clear();
            suspend_web(s, false);
        }),
    ],
    ends: |end| end.staged.is_empty() && end.server.as_ref().is_some_and(|s| s.accepts_published && s.accepts_hosts));

scenario!(an_incident_that_was_deleted_a_moment_ago_revokes_nothing,
    prepare: |s| login_on_web(s, alternating(), json!({})),
    script: || vec![
        at(300, "suspends the host and reports an incident", |s| {
            suspend_web(s, true);
            let mut wanted = token_is_suspected();
            merge(&mut wanted, json!({"revokeWithin": "90m"}));
            s.suspect("leak", wanted);
        }),
        once(recorded, "waits", |_| {}),
        later(60, "deletes it, and the cache still shows it", |s| {
            s.cluster.shown_incidents = Some(std::mem::take(&mut s.cluster.incidents));
        }),
        later(2 * 3600, "looks, the cache follows, and the host is deployed to again", |s| {
            still_serves_what_web_runs(s);
            s.cluster.shown_incidents = None;
            suspend_web(s, false);
        }),
    ],
    ends: |end| logins_in_order(end, 1, &["app_b"]));
