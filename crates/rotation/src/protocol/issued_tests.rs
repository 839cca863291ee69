//! Tests of credentials that their target makes.

use std::collections::{BTreeMap, BTreeSet};

use keyturn_api::docker_host::Proof;
use keyturn_api::{Reason, Trouble};
use keyturn_secret_value::SecretValue;

use super::tests::*;
use super::*;
use crate::observed::{
    Acceptance, Credential, IssuedLogin, KnownLogin, Lifetime, Record, TargetEvidence, Trigger, Version,
};
use crate::schedule::Due;

fn issued() -> Desired<'static> {
    let retirement = Retirement {
        after: TimeDelta::hours(1),
        orphans_after: TimeDelta::minutes(15),
        ..Retirement::default()
    };
    Desired { strategy: Some(Strategy::Issued), retirement, ..held() }
}

fn problem() -> Trouble {
    Trouble::permanent(Reason::LoginRefused, "no such key")
}

fn refused() -> Option<Acceptance> {
    Some(Acceptance::Refused(problem()))
}

/// Returns evidence observed just now, in which the target lists these tokens of ours.
fn target(tokens: &[(&str, u64, i64)]) -> TargetEvidence {
    let token = |(name, id, minutes): &(&str, u64, i64)| KnownLogin {
        login: IssuedLogin { username: (*name).into(), id: *id, at: at(*minutes), expires_at: None },
        is_published: false,
        was_published: *name == "old",
    };
    TargetEvidence {
        can_log_in: BTreeSet::from(["old".into()]),
        published: Some(Acceptance::Accepted),
        issued: Some(tokens.iter().map(token).collect()),
        ..TargetEvidence::unasked(at(NOW))
    }
}

/// Builds the record of rotation 2, which replaces `old` by `new` and began this many minutes ago.
fn pair_record(minutes: i64) -> Record {
    let credential = Credential {
        username: "new".into(),
        password: SecretValue::new("x".into()),
        replaces: Some("old".into()),
        accepted: BTreeSet::from(["old".into()]),
    };
    Record { credential: Some(credential), at: at(NOW - minutes), ..record(2, 1) }
}

fn under_way(versions: Vec<Version>, record: Record, target: TargetEvidence) -> Observed {
    Observed { target: Some(target), ..rotating(versions, record) }
}

fn at_rest(target: TargetEvidence) -> Observed {
    Observed { target: Some(target), ..observed(vec![ours(1, 1, 10)]) }
}

fn why(next: Next) -> Waiting {
    match next {
        Next::Wait { why, .. } => why,
        other => panic!("not waiting: {other:?}"),
    }
}

fn swept(name: &str, id: u64) -> Act {
    Act::SweepOrphan { id, username: name.into() }
}

#[test]
fn a_login_that_ends_by_itself_is_due_before_its_last_quarter_whatever_the_period_and_the_mode_say() {
    // The value is from minute 10, and its token has a lifetime of 40 minutes.
    let lifetime = Some(Lifetime { begins: at(NOW - 30), ends: at(NOW + 10) });
    let seen = |made: i64, lifetime| Observed {
        target: Some(TargetEvidence { lifetime, ..target(&[]) }),
        ..observed(vec![ours(1, 1, made)])
    };
    for period in [Some(TimeDelta::days(90)), None] {
        let wanted = || {
            let desired = issued();
            Desired { timing: Timing { period, ..desired.timing }, ..desired }
        };
        let young = seen(NOW - 30, lifetime);
        let early = evaluate_schedule(&wanted(), &young, at(NOW - 1)).unwrap().unwrap();
        let due = evaluate_schedule(&wanted(), &young, at(NOW)).unwrap().unwrap();
        assert_eq!((early.start_now, early.next), (false, Due::At(at(NOW))), "{period:?}");
        assert_eq!((due.start_now, due.overdue_since), (true, Some(at(NOW))), "{period:?}");
        assert_eq!(act(&wanted(), &young), Act::AskPreflight, "{period:?}");
        let suspended = Desired { suspended: true, ..wanted() };
        assert!(!matches!(decide(&suspended, &young), Next::Act { act: Act::AskPreflight, .. }));
        let endless = evaluate_schedule(&wanted(), &seen(NOW - 30, None), at(NOW)).unwrap().unwrap();
        assert!(!endless.start_now, "{period:?}");
    }
}

#[test]
fn nothing_is_published_before_the_target_accepts_it_and_a_delay_is_no_failure() {
    let before = |minutes, recorded| {
        let seen = TargetEvidence { recorded, ..target(&[]) };
        under_way(vec![ours(1, 1, 10)], pair_record(minutes), seen)
    };
    let waiting = Waiting::Propagation { retired: false };
    assert_eq!(why(decide(&issued(), &before(1, refused()))), waiting);
    assert_eq!(why(decide(&issued(), &before(6, refused()))), Waiting::Target(problem()));
    assert_eq!(why(decide(&issued(), &before(1, None))), Waiting::TargetUnseen);
    let unknown = Some(Acceptance::Unknown(problem()));
    assert_eq!(why(decide(&issued(), &before(1, unknown))), Waiting::Target(problem()));
    let promote = Act::Promote { id: 2, path: PATH.into(), expected: 2 };
    assert_eq!(act(&issued(), &before(1, Some(Acceptance::Accepted))), promote);
}

#[test]
fn a_first_value_is_proven_before_it_is_published_too() {
    let credential = Credential {
        username: "new".into(),
        password: SecretValue::new("x".into()),
        replaces: None,
        accepted: BTreeSet::new(),
    };
    let first = Record { credential: Some(credential), at: at(NOW - 1), ..record(1, 0) };
    let seen = TargetEvidence { recorded: refused(), ..target(&[]) };
    let next = decide(&issued(), &under_way(vec![], first, seen));
    assert_eq!(why(next), Waiting::Propagation { retired: false });
}

#[test]
fn a_login_that_is_refused_for_long_is_given_up_for_another_unless_it_is_published() {
    let seen = || TargetEvidence { recorded: refused(), ..target(&[]) };
    let unpublished = || under_way(vec![ours(1, 1, 10)], pair_record(21), seen());
    assert_eq!(act(&issued(), &unpublished()), Act::MarkAbort { id: 2 });
    let marked = |minutes, seen| Observed {
        aborts: BTreeMap::from([(2, at(NOW - minutes))]),
        ..under_way(vec![ours(1, 1, 10)], pair_record(60), seen)
    };
    assert_eq!(why(decide(&issued(), &marked(1, seen()))), Waiting::Grace);
    assert_eq!(act(&issued(), &marked(16, seen())), Act::DeleteRecord { id: 2 });
    let accepted = TargetEvidence { recorded: Some(Acceptance::Accepted), ..target(&[]) };
    assert!(matches!(act(&issued(), &marked(16, accepted)), Act::Promote { .. }), "the marker is void");
    let published = under_way(vec![ours(1, 1, 10), ours(2, 2, NOW - 60)], pair_record(60), seen());
    assert_eq!(why(decide(&issued(), &published)), Waiting::Target(problem()));
    let rolled_back = Record { trigger: Trigger::RollBack, ..pair_record(60) };
    let rolled_back = under_way(vec![ours(1, 1, 10)], rolled_back, seen());
    assert_eq!(why(decide(&issued(), &rolled_back)), Waiting::Target(problem()));
}

#[test]
fn the_old_login_is_deleted_after_the_proof_and_seen_to_be_refused() {
    let published = |seen: TargetEvidence| {
        let versions = vec![ours(1, 1, 10), ours(2, 2, NOW - 100)];
        under_way(versions, pair_record(120), TargetEvidence { recorded: Some(Acceptance::Accepted), ..seen })
    };
    assert_eq!(act(&issued(), &published(target(&[]))), Act::Retire { id: 2, username: "old".into() });
    let gone = || TargetEvidence { can_log_in: BTreeSet::new(), ..target(&[]) };
    let answering = |answer| TargetEvidence { replaced: BTreeMap::from([("old".into(), answer)]), ..gone() };
    let refused = Acceptance::Refused(problem());
    assert_eq!(act(&issued(), &published(answering(refused))), Act::DeleteRecord { id: 2 });
    assert_eq!(act(&issued(), &published(gone())), Act::DeleteRecord { id: 2 });
    let next = decide(&issued(), &published(answering(Acceptance::Accepted)));
    assert_eq!(why(next), Waiting::OutOfReach { username: "old".into() });
    let just_now = Retirement { proven_since: Some(at(NOW - 61)), ..issued().retirement };
    let next =
        decide(&Desired { retirement: just_now, ..issued() }, &published(answering(Acceptance::Accepted)));
    assert_eq!(why(next), Waiting::Propagation { retired: true });
}

#[test]
fn what_an_earlier_rotation_replaced_is_deleted_too() {
    let credential = Credential {
        username: "newer".into(),
        password: SecretValue::new("y".into()),
        replaces: Some("new".into()),
        accepted: BTreeSet::from(["new".into()]),
    };
    let second = Record { credential: Some(credential), ..record(3, 2) };
    let versions = vec![ours(1, 1, 10), ours(2, 2, NOW - 200), ours(3, 3, NOW - 100)];
    let seen = TargetEvidence { recorded: Some(Acceptance::Accepted), ..target(&[]) };
    let mut observed = under_way(versions, second, seen);
    observed.records.insert(2, pair_record(200));
    assert_eq!(act(&issued(), &observed), Act::Retire { id: 3, username: "old".into() });
}

/// Rotation 2 is published, and only Retire and Close are left; `old` is the login that was published before.
fn to_be_retired(accepted: &[&str], seen: TargetEvidence) -> Observed {
    let mut record = pair_record(120);
    if let Some(credential) = &mut record.credential {
        credential.accepted = accepted.iter().map(|id| (*id).to_owned()).collect();
    }
    let versions = vec![ours(1, 1, 10), ours(2, 2, NOW - 100)];
    under_way(versions, record, TargetEvidence { recorded: Some(Acceptance::Accepted), ..seen })
}

fn living(ids: &[&str], seen: TargetEvidence) -> TargetEvidence {
    TargetEvidence { can_log_in: ids.iter().map(|id| (*id).to_owned()).collect(), ..seen }
}

fn retired(name: &str) -> Act {
    Act::Retire { id: 2, username: name.into() }
}

#[test]
fn a_login_of_another_name_is_retired_only_where_it_was_accepted() {
    let named = || living(&["old", "new", "others"], target(&[("old", 1, 10), ("new", 2, NOW - 120)]));
    assert_eq!(act(&issued(), &to_be_retired(&[], named())), retired("old"), "its name is enough");
    let of_another_name = || living(&["old", "new"], target(&[("new", 2, NOW - 120)]));
    assert_eq!(act(&issued(), &to_be_retired(&["old"], of_another_name())), retired("old"), "it was in use");
    let next = decide(&issued(), &to_be_retired(&[], of_another_name()));
    assert_eq!(why(next), Waiting::OutOfReach { username: "old".into() });
}

#[test]
fn what_somebody_has_put_and_the_target_refuses_is_dead_although_the_login_before_works() {
    let seen = |published| {
        let seen = TargetEvidence { published: Some(published), ..target(&[]) };
        under_way(vec![ours(1, 1, 10)], pair_record(1), seen)
    };
    assert_eq!(published_is_dead(&issued(), &seen(Acceptance::Refused(problem()))), Some(true));
    assert_eq!(published_is_dead(&issued(), &seen(Acceptance::Accepted)), Some(false));
}

#[test]
fn every_login_of_an_earlier_rotation_is_retired_whatever_was_published() {
    let left =
        |name, id, minutes| living(&["new", name], target(&[(name, id, minutes), ("new", 2, NOW - 120)]));
    assert_eq!(act(&issued(), &to_be_retired(&[], left("left", 1, 20))), retired("left"));
    let closes = Act::DeleteRecord { id: 2 };
    assert_eq!(act(&issued(), &to_be_retired(&[], left("later", 3, NOW - 1))), closes, "it is not older");
    let mut of_another_object = issued();
    of_another_object.timing.created_at = at(21);
    let elsewhere = to_be_retired(&[], left("left", 1, 20));
    assert_eq!(act(&of_another_object, &elsewhere), closes, "who knows who uses it");
    let published_here = to_be_retired(&[], left("old", 1, 20));
    assert_eq!(act(&of_another_object, &published_here), retired("old"));
}

#[test]
fn an_incident_retires_all_that_was_made_before_whatever_its_rotation_and_is_not_contained_until_then() {
    let reported = Incident { reported_at: at(NOW - 121), revoke_at: at(NOW) };
    let mut desired = Desired { incidents: vec![reported], ..issued() };
    desired.timing.created_at = at(50);
    let new = ("new", 2, NOW - 120);
    for (id, minutes) in [(1, 20), (7, 20)] {
        let seen = living(&["new", "left"], target(&[("left", id, minutes), new]));
        let observed = to_be_retired(&[], seen);
        assert_eq!(act(&desired, &observed), retired("left"), "{id}");
        assert_eq!(revocation(&desired, &observed), Revocation::Open, "{id}");
    }
    let gone = to_be_retired(&[], living(&["new"], target(&[new])));
    assert_eq!(revocation(&desired, &gone), Revocation::Done);
    let unlisted = TargetEvidence { issued: None, ..living(&["new"], target(&[new])) };
    assert_eq!(revocation(&desired, &to_be_retired(&[], unlisted)), Revocation::Open, "unknown is open");
    let adopted = to_be_retired(&["byhand"], living(&["new", "byhand"], target(&[new])));
    assert_eq!(act(&desired, &adopted), retired("byhand"));
    assert_eq!(revocation(&desired, &adopted), Revocation::Open);
}

#[test]
fn at_rest_an_incident_deletes_what_is_left_from_before_its_report_but_never_what_is_published() {
    let reported = |minutes| Incident { reported_at: at(minutes), revoke_at: at(NOW) };
    let seen = |is_published| {
        let mut seen = target(&[("left", 7, 20), ("old", 1, 40)]);
        seen.issued.as_mut().unwrap()[1].is_published = is_published;
        Observed { target: Some(seen), ..observed(vec![ours(1, 1, 60)]) }
    };
    let mut desired = Desired { incidents: vec![reported(50)], ..issued() };
    desired.timing.created_at = at(55);
    assert_eq!(act(&desired, &seen(true)), swept("left", 7), "although it is from before the object");
    assert_eq!(revocation(&desired, &seen(true)), Revocation::Open);
    let mut gone = seen(true);
    gone.target.as_mut().unwrap().issued.as_mut().unwrap().remove(0);
    assert_eq!(act(&desired, &gone), Act::Release, "clocks may differ, and it is what hosts run");
    assert_eq!(revocation(&desired, &gone), Revocation::Done);
    let before = Desired { incidents: vec![reported(10)], ..issued() };
    assert_eq!(revocation(&before, &seen(true)), Revocation::Done, "it is from after the report");
}

#[test]
fn at_rest_the_target_is_asked_once_and_what_is_nobodys_is_deleted() {
    let unseen = Observed { target: None, ..observed(vec![ours(1, 1, 10)]) };
    assert_eq!(why(decide(&issued(), &unseen)), Waiting::TargetUnseen);
    let in_use = target(&[("old", 1, 10)]);
    assert_eq!(act(&issued(), &at_rest(in_use.clone())), Act::Release);
    let orphan = target(&[("old", 1, 10), ("lost", 2, NOW - 16)]);
    assert_eq!(act(&issued(), &at_rest(orphan)), swept("lost", 2));
    let young = target(&[("lost", 2, NOW - 14)]);
    assert_eq!(
        decide(&issued(), &at_rest(young)),
        Next::Rest { at: Some(at(NOW + 1)) },
        "and is held until then"
    );
    let random = Desired { strategy: None, ..issued() };
    assert_eq!(act(&random, &unseen), Act::Release);
}

#[test]
fn a_token_that_anything_speaks_for_is_left_alone() {
    let lost = || target(&[("lost", 1, 50)]);
    assert_eq!(act(&issued(), &at_rest(lost())), swept("lost", 1));
    let mut published = lost();
    published.issued.as_mut().unwrap()[0].was_published = true;
    assert_eq!(act(&issued(), &at_rest(published)), Act::Release, "a version publishes it");
    let mut of_another_object = issued();
    of_another_object.timing.created_at = at(51);
    assert_eq!(act(&of_another_object, &at_rest(lost())), Act::Release, "it is older than the object");
    // Somebody deleted the parameter and created it again: its earlier values are not known.
    let again = Observed { target: Some(lost()), ..observed(vec![ours(1, 7, 60)]) };
    assert_eq!(act(&issued(), &again), Act::Release, "a host may run it");
    let on_web = Desired { hosts: vec!["web".into()], ..issued() };
    let proven = |proof| {
        let hosts = vec![host("web", 60, Some((1, proof, 70)))];
        Observed { hosts, target: Some(lost()), ..observed(vec![ours(1, 7, 60)]) }
    };
    assert_eq!(act(&on_web, &proven(Proof::Proven)), swept("lost", 1), "the host runs another");
    assert_eq!(act(&on_web, &proven(Proof::Incomparable)), Act::Release, "nobody knows what the host runs");
}

#[test]
fn no_login_is_made_while_several_are_left_behind() {
    let wanted = Desired { preflight_requested: Some(at(NOW)), request: request("now"), ..issued() };
    let left = |count: usize| {
        let names = ["a", "b", "c", "d"];
        target(&names[..count].iter().map(|name| (*name, 2, NOW - 5)).collect::<Vec<_>>())
    };
    assert!(matches!(act(&wanted, &at_rest(left(3))), Act::Record { id: 2, .. }));
    let next = decide(&wanted, &at_rest(left(4)));
    let why = Waiting::Orphans { count: 4 };
    assert_eq!(next, Next::Wait { step: Step::Record, until: Some(at(NOW + 10)), why });
    let old = target(&[("a", 2, NOW - 20)]);
    assert_eq!(act(&wanted, &at_rest(old)), swept("a", 2), "it is swept before another is made");
    let away = TargetEvidence { unseen: Some(problem()), issued: None, ..target(&[]) };
    let why = match decide(&wanted, &at_rest(away)) {
        Next::Wait { why, .. } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why, Waiting::Target(problem()));
}

#[test]
fn hosts_are_given_another_login_while_the_revocation_of_theirs_fails_or_takes_its_time() {
    let incident = Incident { reported_at: at(NOW - 60), revoke_at: at(NOW) };
    let due = |failed| {
        let retirement = Retirement { failed, ..Retirement::default() };
        Desired { incidents: vec![incident], retirement, ..issued() }
    };
    let seen = |recorded: Acceptance, old: Option<Acceptance>| {
        let can_log_in = old.is_none().then(|| "old".to_owned()).into_iter().collect();
        let replaced = old.map(|answer| ("old".to_owned(), answer)).into_iter().collect();
        let seen = TargetEvidence { recorded: Some(recorded), can_log_in, replaced, ..target(&[]) };
        under_way(vec![ours(1, 1, 10)], pair_record(1), seen)
    };
    let retire = Act::Retire { id: 2, username: "old".into() };
    let promote = Act::Promote { id: 2, path: PATH.into(), expected: 2 };
    assert_eq!(act(&due(false), &seen(Acceptance::Accepted, None)), retire, "it comes first");
    assert_eq!(act(&due(true), &seen(Acceptance::Accepted, None)), promote);
    let not_yet = || Acceptance::Refused(problem());
    assert_eq!(act(&due(true), &seen(not_yet(), None)), retire, "nothing else is to be done");
    assert_eq!(act(&due(false), &seen(Acceptance::Accepted, Some(Acceptance::Accepted))), promote);
    let waiting = why(decide(&due(false), &seen(not_yet(), Some(Acceptance::Accepted))));
    assert_eq!(waiting, Waiting::Propagation { retired: true }, "nor is that forgotten");
}
