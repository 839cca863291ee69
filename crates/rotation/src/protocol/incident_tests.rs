//! Tests of the effects of an incident on rotations.

use std::collections::{BTreeMap, BTreeSet};

use keyturn_api::docker_host::Proof;

use super::target_tests::*;
use super::tests::*;
use super::*;
use crate::observed::{OpenSession, TargetEvidence, Trigger};

/// Adds an incident reported an hour ago; hosts have another ten minutes to follow.
fn suspected(desired: Desired<'_>) -> Desired<'_> {
    let incident = Incident { reported_at: at(NOW - 60), revoke_at: at(NOW + 10) };
    Desired { incidents: vec![incident], ..desired }
}

fn due(desired: Desired<'_>) -> Desired<'_> {
    let incident = Incident { reported_at: at(NOW - 60), revoke_at: at(NOW) };
    Desired { incidents: vec![incident], ..desired }
}

#[test]
fn a_value_from_before_the_report_is_rotated_whatever_stands_against_it() {
    let wanted = suspected(Desired { suspended: true, hosts: vec!["gone".into()], ..held() });
    let young = observed(vec![ours(1, 1, NOW - 61)]);
    assert!(
        matches!(
            decide(&wanted, &young),
            Next::Act { act: Act::Record { id: 2, trigger: Trigger::Incident, .. }, .. }
        ),
        "suspend, missing hosts, preflight and the grace all gate other rotations only"
    );
    let calm = Desired { suspended: true, ..held() };
    assert!(!matches!(decide(&calm, &young), Next::Act { act: Act::Record { .. }, .. }));
}

#[test]
fn a_value_from_after_the_report_is_left_alone_however_often_the_incident_is_applied() {
    let wanted = suspected(Desired { suspended: true, ..held() });
    for minutes in [NOW - 60, NOW - 59, NOW] {
        let next = decide(&wanted, &observed(vec![ours(1, 1, minutes)]));
        assert!(!matches!(next, Next::Act { act: Act::Record { .. }, .. }), "{minutes}: {next:?}");
    }
}

/// Only keyturn gives the target a login: if somebody else writes the parameter, the stolen login goes on working.
#[test]
fn a_login_that_somebody_has_written_over_is_suspected_until_keyturn_has_published_another() {
    let wanted = suspected(Desired { strategy: Some(Strategy::InPlace), ..held() });
    let stolen = || ours(1, 1, NOW - 90);
    let over_it = observed(vec![stolen(), foreign(2, NOW - 30), foreign(3, NOW - 20)]);
    let next = decide(&wanted, &over_it);
    assert!(
        matches!(next, Next::Act { act: Act::Record { trigger: Trigger::Incident, .. }, .. }),
        "{next:?}"
    );
    assert_eq!(revocation(&wanted, &over_it), Revocation::Open);
    assert!(!is_suspected(&wanted, &observed(vec![stolen(), ours(2, 2, NOW - 40), foreign(3, NOW - 20)])));
    let random = Desired { strategy: None, ..wanted };
    assert!(!is_suspected(&random, &over_it), "no system accepts a random value but the hosts that run it");
}

#[test]
fn the_rotation_under_way_is_followed_by_another_without_its_close() {
    let wanted = Desired { suspended: true, ..held() };
    let incident = Incident { reported_at: at(NOW - 30), revoke_at: at(NOW + 10) };
    let wanted = Desired { incidents: vec![incident], ..wanted };
    let published = rotating(vec![ours(1, 1, 0), ours(2, 2, NOW - 1)], record(2, 1));
    let Next::Act { act: Act::Record { id, trigger, .. }, .. } = decide(&wanted, &published) else {
        panic!("{:?}", decide(&wanted, &published));
    };
    assert_eq!((id, trigger), (3, Trigger::Incident));
    let calm = decide(&Desired { incidents: Vec::new(), ..wanted }, &published);
    assert!(matches!(calm, Next::Wait { step: Step::Close, .. }), "{calm:?}");
}

#[test]
fn the_old_login_is_retired_at_the_proof_or_when_its_time_is_over() {
    let seen = |proof: Option<Proof>| {
        let mut seen = published(installed(2));
        let proof = proof.map(|proof| (2, proof, NOW - 1));
        seen.hosts = vec![host("prod", NOW - 60, proof)];
        seen
    };
    let retire = Act::Retire { id: 2, username: "a".into() };
    let on_prod = |desired| Desired { hosts: vec!["prod".into()], ..desired };
    let long = Retirement { after: TimeDelta::days(9), ..Retirement::default() };
    let wanted = on_prod(suspected(Desired { retirement: long, ..alternating() }));
    assert_eq!(
        act(&wanted, &seen(Some(Proof::Proven))),
        retire,
        "neither retire.after nor the grace is waited for"
    );
    let next = decide(&wanted, &seen(None));
    assert!(matches!(next, Next::Wait { step: Step::Deploy, .. }), "{next:?}");
    assert_eq!(
        act(&on_prod(due(alternating())), &seen(None)),
        retire,
        "a host that is down keeps it alive no longer"
    );
}

#[test]
fn an_incident_begins_beside_a_young_version_only_where_it_is_somebody_else_s() {
    let incident = || Incident { reported_at: at(NOW), revoke_at: at(NOW + 10) };
    let wanted = || Desired { incidents: vec![incident()], ..held() };
    let seen = |latest| observed(vec![ours(1, 1, 0), latest]);
    assert_eq!(why(decide(&wanted(), &seen(ours(2, 2, NOW - 14)))), Waiting::Grace, "its record lies there");
    assert!(matches!(act(&wanted(), &seen(ours(2, 2, NOW - 15))), Act::Record { id: 3, .. }));
    assert!(matches!(act(&wanted(), &seen(foreign(2, NOW - 1))), Act::Record { id: 2, .. }));
}

#[test]
fn a_write_that_is_suspected_does_not_hold_a_rotation_and_one_that_is_not_does() {
    let is_held = |wanted: &Desired<'_>, seen: Observed| match decide(wanted, &seen) {
        Next::Wait { why: Waiting::Drift { .. }, .. } => true,
        Next::Act { act: Act::Promote { expected: 3, .. }, .. } => false,
        other => panic!("{other:?}"),
    };
    let random = |written: i64| rotating(vec![ours(1, 1, NOW - 90), foreign(2, written)], record(2, 1));
    assert!(is_held(&held(), random(NOW - 70)));
    assert!(!is_held(&suspected(held()), random(NOW - 70)), "it is from before the report");
    assert!(is_held(&suspected(held()), random(NOW - 50)));
    let login = || under_way(vec![ours(1, 1, 0), foreign(2, NOW - 50)], installed(2));
    assert!(is_held(&alternating(), login()));
    assert!(!is_held(&suspected(alternating()), login()), "the login below it is suspected, and works");
}

#[test]
fn open_sessions_of_a_suspected_login_are_ended_rather_than_waited_for() {
    let sessions = vec![session("a", "203.0.113.9")];
    let used = TargetEvidence { sessions: sessions.clone(), ..installed(2) };
    assert_eq!(act(&suspected(alternating()), &published(used)), Act::Retire { id: 2, username: "a".into() });
    let gone = TargetEvidence {
        can_log_in: BTreeSet::from(["b".into()]),
        fences: BTreeMap::from([("a".into(), (2, at(NOW - 1))), ("b".into(), (2, at(NOW - 1)))]),
        sessions,
        ..installed(2)
    };
    let end = Act::EndSessions { username: "a".into(), opened_before: None };
    assert_eq!(act(&suspected(alternating()), &published(gone)), end);
}

#[test]
fn of_a_role_that_was_changed_in_place_only_the_sessions_from_before_are_ended() {
    let changed = at(NOW - 5);
    let seen = |since: DateTime<Utc>| {
        let session = OpenSession { username: "b".into(), client: "203.0.113.9".into(), since: Some(since) };
        let target = TargetEvidence {
            fences: BTreeMap::from([("b".into(), (2, changed))]),
            sessions: vec![session],
            ..installed(2)
        };
        let mut seen = published(target);
        if let Some(credential) = seen.records.get_mut(&2).and_then(|record| record.credential.as_mut()) {
            credential.replaces = Some("b".into());
        }
        seen
    };
    let wanted = suspected(in_place());
    let next = decide(&wanted, &seen(at(NOW - 6)));
    assert!(
        matches!(&next, Next::Act { act: Act::EndSessions { opened_before: Some(_), .. }, .. }),
        "{next:?}"
    );
    let next = decide(&wanted, &seen(at(NOW - 4)));
    assert!(!matches!(&next, Next::Act { act: Act::EndSessions { .. }, .. }), "{next:?}");
    assert_eq!(revocation(&wanted, &seen(at(NOW - 6))), Revocation::Open);
    assert_eq!(revocation(&wanted, &seen(at(NOW - 4))), Revocation::Done);
}

/// A single role was changed in place, and the administrator sees one session of it.
fn changed_in_place(target: TargetEvidence, since: Option<DateTime<Utc>>) -> Observed {
    let session = OpenSession { username: "b".into(), client: "203.0.113.9".into(), since };
    let mut seen = published(TargetEvidence { sessions: vec![session], ..target });
    if let Some(credential) = seen.records.get_mut(&2).and_then(|record| record.credential.as_mut()) {
        credential.replaces = Some("b".into());
    }
    seen
}

#[test]
fn a_session_of_which_nobody_sees_when_it_was_opened_is_not_taken_for_a_new_one() {
    let wanted = suspected(in_place());
    let seen = changed_in_place(installed(2), None);
    let unseen = |lacking| Waiting::SessionsUnseen { username: "b".into(), lacking };
    assert_eq!(why(decide(&wanted, &seen)), unseen(Lacking::Statistics));
    assert_eq!(revocation(&wanted, &seen), Revocation::Open);
    let nobody_looks = TargetEvidence { can_log_in: BTreeSet::new(), fenced: false, ..installed(0) };
    let mut seen = changed_in_place(nobody_looks, None);
    seen.target.as_mut().unwrap().sessions.clear();
    assert_eq!(why(decide(&wanted, &seen)), unseen(Lacking::Login));
    assert_eq!(revocation(&wanted, &seen), Revocation::Open);
    let away = TargetEvidence { unseen: Some(problem()), ..installed(2) };
    let seen = changed_in_place(away, Some(at(NOW)));
    assert_eq!(why(decide(&wanted, &seen)), Waiting::Target(problem()));
    assert_eq!(revocation(&wanted, &seen), Revocation::Open);
}

#[test]
fn a_look_from_before_the_change_does_not_say_that_nobody_is_logged_in() {
    let wanted = suspected(in_place());
    let seen =
        |changed_since| changed_in_place(TargetEvidence { changed_since, ..installed(2) }, Some(at(NOW - 1)));
    assert_eq!(revocation(&wanted, &seen(true)), Revocation::Open);
    assert_eq!(revocation(&wanted, &seen(false)), Revocation::Done);
}

#[test]
fn without_a_fence_the_publication_tells_which_sessions_are_from_before() {
    let wanted = suspected(in_place());
    let no_fence = || TargetEvidence { fenced: false, fences: BTreeMap::new(), ..installed(2) };
    // It was published an hour ago, and the two clocks may differ by five minutes.
    for (since, old) in [(NOW - 61, true), (NOW - 56, true), (NOW - 54, false)] {
        let seen = changed_in_place(no_fence(), Some(at(since)));
        let ends = matches!(decide(&wanted, &seen), Next::Act { act: Act::EndSessions { .. }, .. });
        assert_eq!(ends, old, "opened at {since}");
        assert_eq!(revocation(&wanted, &seen) == Revocation::Open, old, "opened at {since}");
    }
}

#[test]
fn a_role_is_changed_in_place_although_nobody_will_see_its_sessions() {
    let wanted = due(in_place());
    let mut seen = changed_in_place(
        TargetEvidence { recorded: refused(), can_log_in: BTreeSet::new(), ..installed(2) },
        None,
    );
    seen.parameters = rotating(vec![ours(1, 1, 0)], record(2, 1)).parameters;
    assert_eq!(act(&wanted, &seen), Act::Install { id: 2 });
    seen.target.as_mut().unwrap().recorded = Some(crate::observed::Acceptance::Accepted);
    assert!(matches!(act(&wanted, &seen), Act::Promote { id: 2, .. }));
}

#[test]
fn a_later_rotation_is_none_of_an_old_incidents_business() {
    let incident = Incident { reported_at: at(10), revoke_at: at(25) };
    let mut seen = published(installed(2));
    seen.parameters = rotating(vec![ours(1, 1, 20), ours(2, 2, NOW - 60)], record(2, 1)).parameters;
    let kept =
        Retirement { after: TimeDelta::days(9), proven_since: Some(at(NOW - 1)), ..Retirement::default() };
    let wanted = Desired { incidents: vec![incident], retirement: kept, ..alternating() };
    assert_eq!(why(decide(&wanted, &seen)), Waiting::Retirement);
}
