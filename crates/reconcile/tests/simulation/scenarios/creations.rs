//! Stories of first values that only SSM needs to know: one Put publishes them, without a record.

use super::*;

fn nothing_is_left(end: &Summary) -> bool {
    end.secrets.is_empty() && end.parameters.is_empty() && end.staged.is_empty()
}

/// True if nothing is left, except a parameter with which the object was let go.
fn nothing_is_left_or_it_is_told(end: &Summary) -> bool {
    let is_told = end.abandoned == [SECRET];
    end.secrets.is_empty() && end.staged.is_empty() && (end.parameters.is_empty() || is_told)
}

/// True if somebody's value stays published, either as the first value or as a write over a first value of
/// keyturn's.
fn somebodys_value_stands(end: &Summary) -> bool {
    let kept = end.parameters.values().all(|p| p.latest == Latest::Person && p.generated <= 1);
    kept && !end.parameters.is_empty()
        && end.staged.is_empty()
        && end
            .secrets
            .values()
            .all(|secret| is(&secret.conditions, "Ready", "True") && !secret.rotating && !secret.finalizer)
}

fn is_created(state: &State) -> bool {
    state.memory.published(PATH) > 0
}

scenario!(a_first_value_answers_the_request_that_came_with_its_object,
    prepare: |s| {
        grant(s, "Rotate");
        s.apply_secret(SECRET, json!({ROTATE_REQUESTED_AT: "first"}), spec(json!({})));
    },
    script: nobody_does_anything,
    ends: |end| one_new_value(end) && answered_with(end, "Succeeded"));

scenario!(an_object_that_comes_later_waits_for_the_listing_that_covers_it,
prepare: |s| { grant(s, "Rotate"); put_days_ago(s, SECOND, OLD, 10); },
script: || vec![at(100, "applies two objects", |s| {
    s.apply_secret(SECRET, json!({}), spec(json!({})));
    s.apply_secret("other", json!({}), spec(json!({"ssm": {"parameters": [{"path": SECOND}]}})));
})],
ends: |end| {
    let values = |path: &str| end.parameters.get(path).map(|p| (p.latest, p.generated));
    values(PATH) == Some((Latest::Generated, 1)) && values(SECOND) == Some((Latest::Person, 0))
        && end.staged.is_empty() && end.secrets.len() == 2 && end.secrets.values().all(at_rest)
});

scenario!(a_first_value_is_followed_by_a_rotation,
    prepare: |s| { grant(s, "Rotate"); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        once(is_created, "waits", |_| {}),
        later(300, "asks for a rotation", |s| s.request(SECRET, "one")),
    ],
    ends: two_new_values);

scenario!(a_parameter_that_somebody_deleted_is_created_again,
    prepare: |s| { grant(s, "Rotate"); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        once(is_created, "waits", |_| {}),
        later(300, "deletes the parameter", |s| s.person_deletes_parameter(PATH)),
    ],
    ends: two_new_values);

scenario!(a_first_value_that_somebody_puts_at_the_same_time_is_not_written_over,
    prepare: |s| { grant(s, "Rotate"); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![at(30, "puts a value", |s| s.person_puts(PATH, FOREIGN))],
    ends: somebodys_value_stands,
    or_else: somebodys_value_stands);

scenario!(an_object_that_takes_its_parameter_along_is_deleted_while_that_is_created,
    prepare: |s| {
        grant(s, "Rotate");
        s.apply_secret(SECRET, json!({}), spec(json!({"deletionPolicy": "Delete"})));
    },
    script: || vec![at(5, "deletes the object", |s| s.delete_secret(SECRET))],
    ends: nothing_is_left,
    // The finalizer may not have been removed in time. Where SSM rejects the deletion for as long as the object may be held, the
    // object is let go, and an Event names the parameter that stays.
    or_else: nothing_is_left_or_it_is_told);

scenario!(an_object_is_deleted_while_its_first_value_is_created,
    prepare: |s| { grant(s, "Rotate"); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![at(5, "deletes the object", |s| s.delete_secret(SECRET))],
    ends: gone_with_or_without_a_value,
    or_else: gone_with_or_without_a_value);

fn gone_with_or_without_a_value(end: &Summary) -> bool {
    end.secrets.is_empty() && end.staged.is_empty() && end.parameters.values().all(|p| p.generated == 1)
}

scenario!(a_value_that_somebody_writes_just_before_a_rotation_is_closed_is_not_lost,
    prepare: |s| { young_value(s); s.apply_secret(SECRET, json!({}), spec(json!({}))); },
    script: || vec![
        at(300, "asks for a rotation", |s| s.request(SECRET, "one")),
        once(published, "waits", |_| {}),
        later(110, "writes it by hand", |s| s.person_puts(PATH, FOREIGN)),
        later(900, "says that the new value counts",
            |s| s.edit_secret(SECRET, |o| o.spec.rotation.on_drift = serde_json::from_value(json!("Rotate")).ok())),
    ],
    ends: one_or_two_new_values,
    or_else: one_or_two_new_values);

/// True if the recorded value is published again, or another value if the rotation had ended.
fn one_or_two_new_values(end: &Summary) -> bool {
    in_order(end, 1) || in_order(end, 2)
}
