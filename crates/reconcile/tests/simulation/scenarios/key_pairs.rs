//! Stories of R2 key pairs, published as `id:secret`, and once in two parameters.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::*;
use crate::summary::Summary;
use crate::world::State;
use crate::world::cloudflare::SimCloudflare;

pub(super) const OLD_ID: &str = "byhand";
pub(super) const OLD_SECRET: &str = "the-secret-that-was-there-before";
pub(crate) const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";

pub(super) fn pair_spec(patch: Value) -> Value {
    let mut spec = json!({
        "ssm": {"parameters": [{"path": PATH, "value": "{accessKeyId}:{secretAccessKey}"}]},
        "generate": {"cloudflareR2": {
            "accountId": ACCOUNT, "buckets": ["media"], "tokenSecretRef": {"name": "cloudflare", "key": "token"},
        }},
        "rotation": {"period": "90d"},
        "hosts": [{"name": "web"}],
        "retire": {"after": "5m"},
    });
    merge(&mut spec, patch);
    spec
}

/// Sets up a published pair that a person made, before any pair of keyturn's.
pub(super) fn pair_by_hand(state: &mut State) {
    let secret: String = OLD_SECRET.replace('-', "0");
    state.cloudflare = Some(SimCloudflare::with(OLD_ID, &secret, state.now));
    grant(state, "Rotate");
    put_days_ago(state, PATH, &format!("{OLD_ID}:{secret}"), 10);
}

pub(super) fn pair_on_web(state: &mut State, patch: Value) {
    pair_by_hand(state);
    host(state, "web", &[PATH]);
    state.apply_secret(SECRET, json!({}), pair_spec(patch));
}

/// True if all is in order, and the published token is the only live one that keyturn may touch.
pub(super) fn one_live_token(end: &Summary, generated: usize) -> bool {
    only_the_published_lives(end) && in_order(end, generated)
}

pub(super) fn only_the_published_lives(end: &Summary) -> bool {
    end.server.as_ref().is_some_and(|server| {
        server.accepts_published && server.accepts_hosts && server.can_log_in == ["published"]
    })
}

fn set_unreachable(state: &mut State, away: bool) {
    if let Some(account) = &mut state.cloudflare {
        account.unreachable = away;
    }
}

scenario!(a_key_pair_is_rotated,
    prepare: |s| pair_on_web(s, json!({})),
    script: a_request,
    ends: |end| one_live_token(end, 1));

scenario!(a_key_pair_without_hosts_is_rotated,
    prepare: |s| {
        pair_by_hand(s);
        s.apply_secret(SECRET, json!({}), pair_spec(json!({"hosts": null})));
    },
    script: a_request,
    ends: |end| one_live_token(end, 1));

scenario!(a_key_pair_is_rotated_twice,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "asks for another", |s| s.request(SECRET, "two")),
    ],
    ends: |end| one_live_token(end, 2));

scenario!(a_key_pair_in_two_parameters_is_rotated,
prepare: |s| {
    pair_by_hand(s);
    let secret = OLD_SECRET.replace('-', "0");
    put_days_ago(s, PATH, OLD_ID, 9);
    put_days_ago(s, SECOND, &secret, 9);
    host(s, "web", &[PATH, SECOND]);
    let parameters = json!([
        {"path": PATH, "value": "{accessKeyId}"}, {"path": SECOND, "value": "{secretAccessKey}"},
    ]);
    s.apply_secret(SECRET, json!({}), pair_spec(json!({"ssm": {"parameters": parameters}})));
},
script: a_request,
ends: |end| {
    in_order(end, 1) && end.server.as_ref().is_some_and(|server| server.can_log_in == ["published"])
},
or_else: halves_put_back);

/// True if the previous pair is published and the only live one, since one half of the new pair was refused
/// permanently.
pub(super) fn halves_put_back(end: &Summary) -> bool {
    end.staged.is_empty()
        && answered_with(end, "RolledBack")
        && end.secrets.values().all(at_rest)
        && end.server.as_ref().is_some_and(|server| server.can_log_in.len() == 1)
}

scenario!(an_empty_environment_is_given_a_key_pair,
    prepare: |s| {
        s.cloudflare = Some(SimCloudflare::default());
        grant(s, "Rotate");
        host(s, "web", &[PATH]);
        s.apply_secret(SECRET, json!({}), pair_spec(json!({"ssm": {"ifMissing": "Create"}})));
    },
    script: nobody_does_anything,
    ends: |end| one_live_token(end, 1));

scenario!(a_key_pair_whose_deployment_fails_is_rolled_back,
    prepare: |s| pair_on_web(s, json!({"rotation": {"onFailure": "RollBack"}})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "breaks verify", |s| set_verify_fails(s, true)),
        once(rolling_back, "mends it", |s| set_verify_fails(s, false)),
    ],
    ends: |end| end.staged.is_empty() && answered_with(end, "RolledBack") && only_the_published_lives(end),
    or_else: |end| one_live_token(end, 1));

scenario!(a_token_that_somebody_deletes_before_it_is_published_is_replaced,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "deletes the new token", |s| {
            let now = s.now;
            let newest = s.cloudflare.as_mut().and_then(|account| account.tokens.values_mut().last());
            let made = newest.filter(|token| token.name.ends_with("/1"));
            if let Some(token) = made {
                token.deleted_at = Some(now);
            }
        }),
    ],
    ends: |end| one_live_token(end, 1));

scenario!(cloudflare_that_is_away_is_waited_for,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "cuts the line to Cloudflare", |s| set_unreachable(s, true)),
        later(1200, "mends it", |s| set_unreachable(s, false)),
        once(|s| s.memory.published(PATH) > 0, "cuts it again", |s| set_unreachable(s, true)),
        later(3000, "mends it", |s| set_unreachable(s, false)),
    ],
    ends: |end| one_live_token(end, 1));

scenario!(a_token_of_a_user_is_left_to_its_user,
    prepare: |s| {
        pair_on_web(s, json!({}));
        let secret = OLD_SECRET.replace('-', "0");
        let account = s.cloudflare.as_mut().expect("it was made");
        account.tokens.remove(OLD_ID);
        account.elsewhere.insert(OLD_ID.into(), secret);
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| stalled_for(s, "OldTokenOutOfReach"), "deletes the old token by hand", |s| {
            s.cloudflare.as_mut().expect("it was made").elsewhere.clear();
        }),
    ],
    ends: |end| one_live_token(end, 1));

scenario!(deleting_while_a_key_pair_is_rotated_finishes_it,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(recorded, "deletes the object", |s| s.delete_secret(SECRET)),
    ],
    ends: gone_with_one_token,
    or_else: gone_with_one_token);

/// True for a finished deletion. If events are missed or Cloudflare rejects for long, its deadline may come
/// first.
fn gone_with_one_token(end: &Summary) -> bool {
    let works = end.server.as_ref().is_some_and(|s| s.accepts_published && s.accepts_hosts);
    let finished = only_the_published_lives(end) && end.staged.is_empty();
    works && end.secrets.is_empty() && (finished || !end.abandoned.is_empty())
}

scenario!(a_pair_that_r2_refuses_is_left_alone_until_it_works,
    prepare: |s| {
        pair_on_web(s, json!({}));
        let now = s.now;
        s.cloudflare.as_mut().expect("it was made").tokens.get_mut(OLD_ID).expect("it was made").deleted_at =
            Some(now - TimeDelta::hours(1));
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        later(1200, "makes the token work again", |s| {
            let account = s.cloudflare.as_mut().expect("it was made");
            account.tokens.get_mut(OLD_ID).expect("it was made").deleted_at = None;
        }),
    ],
    ends: |end| one_live_token(end, 1));

fn contained_with(end: &Summary, generated: usize) -> bool {
    contained(end) && one_live_token(end, generated)
}

/// True for one to three values: if a fault falls between the running rotation and the report, either may come
/// first.
fn contained_by_some(end: &Summary) -> bool {
    (1..=3).any(|generated| contained_with(end, generated))
}

scenario!(an_incident_revokes_a_key_pair,
    prepare: |s| pair_on_web(s, json!({"retire": {"after": "9d"}})),
    script: an_incident,
    ends: |end| contained_with(end, 1));

fn hosts_follow(state: &State) -> bool {
    let old = |value: &String| value.starts_with(OLD_ID);
    state.hosts.values().all(|host| !host.running.values().any(old))
}

scenario!(an_incident_that_revokes_a_key_pair_first_does_so,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![at(300, "reports an incident", revoked_first)],
    ends: |end| contained_with(end, 1));

scenario!(an_incident_whose_revocation_fails_gives_hosts_another_pair_all_the_same,
    prepare: |s| {
        pair_on_web(s, json!({}));
        s.cloudflare.as_mut().expect("it was made").keeps_tokens = true;
    },
    script: || vec![
        at(300, "reports an incident", revoked_first),
        once(hosts_follow, "lets tokens be deleted", |s| {
            s.cloudflare.as_mut().expect("it was made").keeps_tokens = false;
        }),
    ],
    ends: |end| contained_with(end, 1));

scenario!(an_incident_about_a_token_of_a_user_gives_hosts_another_pair_all_the_same,
    prepare: |s| {
        pair_on_web(s, json!({}));
        let account = s.cloudflare.as_mut().expect("it was made");
        account.tokens.remove(OLD_ID);
        account.elsewhere.insert(OLD_ID.into(), OLD_SECRET.replace('-', "0"));
    },
    script: || vec![
        at(300, "reports an incident", revoked_first),
        once(hosts_follow, "deletes the old token by hand", |s| {
            s.cloudflare.as_mut().expect("it was made").elsewhere.clear();
        }),
    ],
    ends: |end| contained_with(end, 1));

scenario!(an_incident_in_mid_rotation_revokes_both_key_pairs,
    prepare: |s| pair_on_web(s, json!({})),
    script: an_incident_in_mid_rotation,
    ends: |end| contained_with(end, 2),
    or_else: contained_by_some);

scenario!(an_incident_revokes_a_key_pair_although_a_host_is_down,
    prepare: |s| pair_on_web(s, json!({})),
    script: an_incident_while_the_host_is_down,
    ends: |end| contained_with(end, 1));
