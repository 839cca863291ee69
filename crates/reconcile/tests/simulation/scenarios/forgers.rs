//! Stories of somebody who may write one parameter, including its description, and pretends to be keyturn.

use keyturn_rotation::request;

use super::incidents::contained;
use super::*;

/// Writes in the name of keyturn, as its next rotation, with a time of the forger's choice.
fn forge(state: &mut State, value: &str, years: i64, request: Option<&str>) {
    let latest = state.ssm.latest(PATH).map_or(0, |latest| latest.number);
    let owner = format!("{CLUSTER}/{NAMESPACE}/{SECRET}");
    let at = state.now + TimeDelta::days(365 * years);
    let id = u64::try_from(latest).expect("versions are counted from 1") + 1;
    let request = request.map(request::hash);
    let stamp = Stamp { owner, id, version: latest + 1, at, request, made: None };
    let description = stamped_by_another(&stamp);
    state.person_describes(PATH, value, &description);
}

/// Writes the value that hosts run, and that the thief has, once more.
fn forge_the_published_value(state: &mut State) {
    let value = state.ssm.latest(PATH).expect("it was published").value.clone();
    forge(state, &value, 0, None);
}

fn a_published_value_on_web(state: &mut State) {
    grant(state, "Rotate");
    rotated_days_ago(state, PATH, "the-value-of-the-first-rotation", 10);
    host(state, "web", &[PATH]);
    state.apply_secret(SECRET, json!({}), on_web(json!({})));
}

fn told_as_drift(end: &Summary) -> bool {
    is(&end.secrets[SECRET].conditions, "Drifted", "True") && end.parameters[PATH].latest == Latest::Person
}

scenario!(a_value_that_somebody_puts_in_the_name_of_keyturn_is_drift,
    prepare: a_published_value_on_web,
    script: || vec![
        at(300, "writes as the next rotation, of the year 2036", |s| forge(s, FOREIGN, 10, None)),
        at(600, "asks for a rotation", |s| s.request(SECRET, "one")),
    ],
    ends: |end| told_as_drift(end) && end.parameters[PATH].generated == 0);

scenario!(a_request_is_not_answered_by_what_somebody_writes_in_the_name_of_keyturn,
    prepare: |s| {
        a_published_value_on_web(s);
        s.apply_secret(SECRET, json!({}), on_web(json!({"rotation": {"onDrift": "Rotate"}})));
    },
    script: || vec![
        at(300, "answers a request beforehand, in the name of keyturn", |s| forge(s, FOREIGN, 0, Some("one"))),
        once(recorded, "waits", |_| {}),
        once(closed, "asks for a rotation", |s| s.request(SECRET, "one")),
    ],
    ends: |end| in_order(end, 2));

scenario!(an_incident_is_not_contained_by_a_stamp_that_somebody_writes,
    prepare: |s| login_on_web(s, single_with_admin(), json!({})),
    script: || vec![
        at(300, "reports an incident", |s| s.suspect("leak", incidents::token_is_suspected())),
        at(300, "puts the stolen password once more, in the name of keyturn", forge_the_published_value),
    ],
    ends: |end| contained(end) && end.secrets.values().all(at_rest),
    or_else: contained);

scenario!(an_incident_is_not_stopped_by_another_owner_in_a_description,
    prepare: a_published_value_on_web,
    script: || vec![
        at(200, "says that it belongs to somebody else", |s| {
            let version = s.ssm.latest(PATH).map_or(0, |latest| latest.number) + 1;
            let owner = "elsewhere/prod/token".to_owned();
            let stamp = Stamp { owner, id: 9, version, at: s.now, request: None, made: None };
            s.person_describes(PATH, FOREIGN, &stamped_by_another(&stamp));
        }),
        at(300, "reports an incident", |s| s.suspect("leak", incidents::token_is_suspected())),
    ],
    ends: |end| contained(end) && in_order(end, 1));
