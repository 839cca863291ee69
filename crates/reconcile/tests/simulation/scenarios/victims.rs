//! Stories of somebody who may write the parameter of a key pair, and writes the id of another person's token there,
//! for which no secret is known. Also stories of pairs that a person published and then replaced.

use serde_json::json;

use super::incidents::{contained, token_is_suspected};
use super::key_pairs::{one_live_token, pair_on_web};
use super::*;
use crate::summary::Summary;
use crate::world::State;

fn puts_the_id_of_another_token(state: &mut State) {
    state.person_puts(PATH, "others:0000000000000000000000000000");
}

/// Creates a token in the dashboard as a person does, and publishes and deploys its pair.
fn rotates_by_hand(state: &mut State) {
    let now = state.now;
    let account = state.cloudflare.as_mut().expect("it was made");
    let pair = account.is_given_a_token_by_hand("byhand2", "another0secret0that0a0person0has", now);
    state.person_puts(PATH, &pair);
    for host in state.hosts.values_mut() {
        host.running.insert(PATH.to_owned(), pair.clone());
    }
}

fn contained_with(end: &Summary, generated: usize) -> bool {
    contained(end) && one_live_token(end, generated)
}

/// True for one to four values: a fault may cause another rotation before or after the report.
fn contained_by_some(end: &Summary) -> bool {
    (1..=4).any(|generated| contained_with(end, generated))
}

scenario!(the_id_of_another_token_in_the_parameter_does_not_delete_that_token,
    prepare: |s| pair_on_web(s, json!({"rotation": {"onDrift": "Rotate"}})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "puts the id of another token",
            puts_the_id_of_another_token),
    ],
    ends: |end| one_live_token(end, 2));

scenario!(an_incident_deletes_the_token_that_is_used_and_not_the_one_that_somebody_names,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "puts the id of another token, and reports an incident", |s| {
            puts_the_id_of_another_token(s);
            s.suspect("leak", token_is_suspected());
        }),
    ],
    ends: |end| contained_with(end, 2),
    or_else: contained_by_some);

scenario!(an_incident_deletes_the_pair_that_was_adopted_and_not_the_token_that_somebody_names,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![
        at(300, "puts the id of another token, and reports an incident", |s| {
            puts_the_id_of_another_token(s);
            s.suspect("leak", token_is_suspected());
        }),
    ],
    ends: |end| contained_with(end, 1));

scenario!(a_text_that_is_no_pair_does_not_hold_an_incident,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![
        at(300, "puts something that is no pair, and reports an incident", |s| {
            s.person_puts(PATH, "no pair at all, and long");
            s.suspect("leak", token_is_suspected());
        }),
    ],
    ends: |end| contained_with(end, 1));

scenario!(a_pair_that_a_person_has_put_and_uses_is_deleted_with_the_one_before_it,
    prepare: |s| pair_on_web(s, json!({"rotation": {"onDrift": "Rotate"}})),
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "makes, publishes and deploys a pair by hand", rotates_by_hand),
    ],
    ends: |end| one_live_token(end, 2));

scenario!(an_incident_deletes_every_pair_that_a_person_has_put,
    prepare: |s| pair_on_web(s, json!({})),
    script: || vec![
        at(300, "makes, publishes and deploys a pair by hand", rotates_by_hand),
        later(60, "puts the id of another token", puts_the_id_of_another_token),
        later(60, "reports an incident", |s| s.suspect("leak", token_is_suspected())),
    ],
    ends: |end| contained_with(end, 1));

scenario!(an_incident_deletes_every_older_token_of_its_secret,
    prepare: |s| {
        pair_on_web(s, json!({}));
        let account = s.cloudflare.as_mut().expect("it was made");
        account.has_kept_a_token("from-before", "sim/prod/token/7");
        account.has_kept_a_token("from-before-that", "sim/prod/token/1");
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "reports an incident", |s| {
            s.suspect("leak", token_is_suspected());
        }),
    ],
    ends: |end| contained_with(end, 2),
    or_else: contained_by_some);

// The value that is published by then is newer than the report, so no rotation begins.
scenario!(an_incident_that_is_reported_late_deletes_every_older_token_of_its_secret,
    prepare: |s| {
        pair_on_web(s, json!({}));
        s.cloudflare.as_mut().expect("it was made").has_kept_a_token("from-before", "sim/prod/token/7");
    },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(|s| closed(s) && answered(s, "one"), "reports an incident of before", |s| {
            let reported = keyturn_api::time::to_kubernetes(s.start + TimeDelta::seconds(200));
            s.suspect_since("leak", token_is_suspected(), &serde_json::to_value(reported).unwrap());
        }),
    ],
    ends: |end| contained_with(end, 1),
    or_else: contained_by_some);
