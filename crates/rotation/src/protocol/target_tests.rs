//! Tests of Install and Retire.

use std::collections::{BTreeMap, BTreeSet};

use keyturn_api::docker_host::Proof;
use keyturn_api::managed_secret::{OnDrift, OnFailure};
use keyturn_api::{Reason, Remedy, Trouble};
use keyturn_secret_value::SecretValue;

use super::tests::*;
use super::*;
use crate::observed::{
    Acceptance, Credential, HostEvidence, OpenSession, Record, TargetEvidence, Trigger, Version,
};

pub(super) fn in_place() -> Desired<'static> {
    Desired { strategy: Some(Strategy::InPlace), ..held() }
}

pub(super) fn alternating() -> Desired<'static> {
    Desired { strategy: Some(Strategy::Alternating), ..held() }
}

pub(super) fn problem() -> Trouble {
    Trouble::passing(Reason::TargetUnreachable, "nothing answers")
}

pub(super) fn session(username: &str, client: &str) -> OpenSession {
    OpenSession { username: username.into(), client: client.into(), since: Some(at(0)) }
}

pub(super) fn refused() -> Option<Acceptance> {
    Some(Acceptance::Refused(problem()))
}

/// Returns a target that was observed just now, on which both roles can log in.
pub(super) fn target() -> TargetEvidence {
    TargetEvidence {
        fenced: true,
        can_log_in: BTreeSet::from(["a".into(), "b".into()]),
        published: Some(Acceptance::Accepted),
        ..TargetEvidence::unasked(at(NOW))
    }
}

pub(super) fn installed(id: u64) -> TargetEvidence {
    TargetEvidence {
        recorded: Some(Acceptance::Accepted),
        fences: BTreeMap::from([("b".into(), (id, at(0)))]),
        ..target()
    }
}

/// Builds the record of rotation 2, which changes the login from `a` to `b`, over version 1.
pub(super) fn login_record() -> Record {
    let credential = Credential {
        username: "b".into(),
        password: SecretValue::new("x".into()),
        replaces: Some("a".into()),
        accepted: BTreeSet::new(),
    };
    Record { credential: Some(credential), ..record(2, 1) }
}

pub(super) fn under_way(versions: Vec<Version>, target: TargetEvidence) -> Observed {
    Observed { target: Some(target), ..rotating(versions, login_record()) }
}

fn before_promote(target: TargetEvidence) -> Observed {
    under_way(vec![ours(1, 1, 0)], target)
}

pub(super) fn published(target: TargetEvidence) -> Observed {
    under_way(vec![ours(1, 1, 0), ours(2, 2, NOW - 60)], target)
}

pub(super) fn why(next: Next) -> Waiting {
    match next {
        Next::Wait { why, .. } => why,
        other => panic!("not waiting: {other:?}"),
    }
}

#[test]
fn nothing_starts_unless_the_target_accepts_what_is_published_and_says_so_now() {
    let wanted = || Desired { preflight_requested: Some(at(NOW - 1)), request: request("now"), ..in_place() };
    let seen = |target: TargetEvidence| Observed { target: Some(target), ..observed(vec![ours(1, 1, 0)]) };
    assert!(matches!(act(&wanted(), &seen(target())), Act::Record { .. }));
    let before = Desired { preflight_requested: None, ..wanted() };
    assert_eq!(act(&before, &seen(target())), Act::AskPreflight);
    let old = TargetEvidence { at: at(NOW - 5), ..target() };
    assert_eq!(why(decide(&wanted(), &seen(old))), Waiting::TargetUnseen);
    let other_password = TargetEvidence { published: refused(), ..target() };
    assert_eq!(why(decide(&wanted(), &seen(other_password))), Waiting::Target(problem()));
    let no_admin = TargetEvidence { unseen: Some(problem()), ..target() };
    assert_eq!(why(decide(&wanted(), &seen(no_admin))), Waiting::Target(problem()));
}

#[test]
fn roles_are_made_from_the_published_one_only_where_that_is_said() {
    let wanted = |may_set_up| Desired {
        preflight_requested: Some(at(NOW - 1)),
        request: request("now"),
        may_set_up,
        ..alternating()
    };
    // The roles do not exist yet; they still have to be created.
    let not_made = || TargetEvidence {
        set_up: vec!["CREATE ROLE app NOLOGIN".into()],
        unseen: Some(problem()),
        ..target()
    };
    let seen = |target: TargetEvidence| Observed { target: Some(target), ..observed(vec![ours(1, 1, 0)]) };
    assert_eq!(act(&wanted(true), &seen(not_made())), Act::SetUp);
    let next = decide(&wanted(false), &seen(not_made()));
    assert_eq!(next, Next::Stall(Stalled::SetUpPlanned { statements: 1 }));
    let refused = TargetEvidence { published: refused(), ..not_made() };
    assert_eq!(why(decide(&wanted(true), &seen(refused))), Waiting::Target(problem()));
}

#[test]
fn a_superuser_is_left_as_it_is() {
    let superuser = TargetEvidence { superusers: BTreeSet::from(["a".into()]), ..installed(2) };
    assert_eq!(act(&alternating(), &published(superuser)), Act::DeleteRecord { id: 2 });
}

#[test]
fn an_id_is_never_below_the_fence_and_a_fence_ahead_of_every_record_is_waited_out() {
    let wanted = || Desired { preflight_requested: Some(at(NOW - 1)), request: request("now"), ..in_place() };
    let seen = |changed| {
        let fences = BTreeMap::from([("b".to_owned(), (6, at(changed)))]);
        Observed { target: Some(TargetEvidence { fences, ..target() }), ..observed(vec![ours(1, 1, 0)]) }
    };
    assert_eq!(why(decide(&wanted(), &seen(NOW - 14))), Waiting::Grace);
    assert!(matches!(act(&wanted(), &seen(NOW - 15)), Act::Record { id: 7, .. }));
    let incident = || Incident { reported_at: at(NOW - 60), revoke_at: at(NOW) };
    let hurried = || Desired { incidents: vec![incident()], ..wanted() };
    assert_eq!(why(decide(&hurried(), &seen(NOW - 14))), Waiting::Grace, "its record shows at the next read");
    assert!(matches!(act(&hurried(), &seen(NOW - 15)), Act::Record { id: 7, .. }));
}

#[test]
fn the_target_accepts_the_recorded_login_before_it_is_published() {
    let untouched = before_promote(TargetEvidence { recorded: refused(), ..target() });
    assert_eq!(act(&alternating(), &untouched), Act::Install { id: 2 });
    assert!(matches!(act(&alternating(), &before_promote(installed(2))), Act::Promote { id: 2, .. }));
    let unreachable = TargetEvidence { recorded: Some(Acceptance::Unknown(problem())), ..target() };
    assert_eq!(why(decide(&alternating(), &before_promote(unreachable))), Waiting::Target(problem()));
}

#[test]
fn an_accepted_login_is_installed_once_more_where_the_fence_is_of_an_older_rotation() {
    assert_eq!(act(&alternating(), &before_promote(installed(1))), Act::Install { id: 2 });
    let no_fence = TargetEvidence { fenced: false, ..installed(1) };
    assert!(matches!(act(&alternating(), &before_promote(no_fence)), Act::Promote { .. }));
}

#[test]
fn a_role_is_not_changed_in_place_while_a_host_deploys() {
    let mut seen = before_promote(TargetEvidence { recorded: refused(), ..target() });
    seen.hosts = vec![HostEvidence { deploying: true, ..host("prod", 0, None) }];
    let busy = Waiting::HostBusy { host: "prod".into() };
    assert_eq!(why(decide(&in_place(), &seen)), busy);
    assert_eq!(act(&alternating(), &seen), Act::Install { id: 2 }, "the old login goes on working");
}

#[test]
fn what_is_published_is_deployed_even_while_the_target_cannot_be_asked() {
    let away = TargetEvidence {
        recorded: Some(Acceptance::Unknown(problem())),
        unseen: Some(problem()),
        ..target()
    };
    let wanted = Desired { hosts: vec!["prod".into()], ..alternating() };
    let seen = Observed { hosts: vec![host("prod", 0, None)], ..published(away) };
    assert_eq!(why(decide(&wanted, &seen)), Waiting::Deploy { host: "prod".into(), held: None });
}

#[test]
fn where_nothing_was_published_before_the_target_comes_after_the_deployment() {
    let first = || Record { base: BTreeMap::from([(PATH.to_owned(), 0)]), ..login_record() };
    let wanted = Desired { hosts: vec!["prod".into()], ..in_place() };
    let not_there = || TargetEvidence { recorded: Some(Acceptance::Unknown(problem())), ..target() };
    let empty = Observed { target: Some(not_there()), ..rotating(vec![], first()) };
    assert!(matches!(act(&wanted, &empty), Act::Promote { expected: 1, .. }));
    let proven = |target| Observed {
        target: Some(target),
        hosts: vec![host("prod", NOW - 60, Some((1, Proof::Proven, NOW)))],
        ..rotating(vec![ours(1, 2, NOW - 60)], first())
    };
    let other_password = || TargetEvidence { recorded: refused(), ..target() };
    assert_eq!(act(&wanted, &proven(other_password())), Act::Install { id: 2 });
    assert_eq!(why(decide(&wanted, &proven(not_there()))), Waiting::Target(problem()), "no end on a guess");
}

#[test]
fn a_server_that_is_there_is_given_the_first_password_before_anybody_else() {
    let first = || Record { base: BTreeMap::from([(PATH.to_owned(), 0)]), ..login_record() };
    let wanted = Desired { hosts: vec!["prod".into()], ..in_place() };
    let seen = |versions, recorded| Observed {
        target: Some(TargetEvidence { recorded, ..target() }),
        hosts: vec![host("prod", 0, None)],
        ..rotating(versions, first())
    };
    assert_eq!(act(&wanted, &seen(vec![], refused())), Act::Install { id: 2 });
    // The server started after the first value was published, with another password.
    assert_eq!(act(&wanted, &seen(vec![ours(1, 2, NOW - 60)], refused())), Act::Install { id: 2 });
    let broken = Trouble { remedy: Remedy::Person, ..problem() };
    let needs_a_person = Some(Acceptance::Unknown(broken.clone()));
    assert_eq!(why(decide(&wanted, &seen(vec![], needs_a_person))), Waiting::Target(broken));
}

#[test]
fn the_old_login_is_retired_after_proof_delay_and_grace_once_nobody_uses_it() {
    let wanted = |after| Desired {
        hosts: vec!["prod".into()],
        retirement: Retirement { after: TimeDelta::minutes(after), ..Retirement::default() },
        ..alternating()
    };
    let seen = |proof, target| Observed {
        hosts: vec![host("prod", NOW - 60, Some((2, proof, NOW - 30)))],
        ..published(target)
    };
    let retired = Act::Retire { id: 2, username: "a".into() };
    assert_eq!(act(&wanted(30), &seen(Proof::Proven, installed(2))), retired);
    assert_eq!(why(decide(&wanted(31), &seen(Proof::Proven, installed(2)))), Waiting::Retirement);
    let unproven = Waiting::Unproven { host: "prod".into() };
    assert_eq!(why(decide(&wanted(30), &seen(Proof::Incomparable, installed(2)))), unproven);
    let said =
        Desired { retirement: Retirement { verify_is_enough: true, ..wanted(30).retirement }, ..wanted(30) };
    assert_eq!(act(&said, &seen(Proof::Incomparable, installed(2))), retired);
    let used = TargetEvidence { sessions: vec![session("a", "10.0.0.9")], ..installed(2) };
    let waiting = why(decide(&wanted(30), &seen(Proof::Proven, used)));
    assert_eq!(waiting, Waiting::Sessions { username: "a".into(), clients: vec!["10.0.0.9".into()] });
}

#[test]
fn a_look_at_a_host_that_nothing_was_deployed_to_retires_nothing() {
    let retirement = Retirement { verify_is_enough: true, ..Retirement::default() };
    let wanted = Desired { hosts: vec!["prod".into()], retirement, ..alternating() };
    let seen = |deployed, failed_deploy| {
        let mut looked_at = host("prod", NOW - 60, Some((2, Proof::Incomparable, NOW - 30)));
        looked_at.proofs.values_mut().for_each(|proof| proof.deployed = deployed);
        looked_at.failed_deploy = failed_deploy;
        Observed { hosts: vec![looked_at], ..published(installed(2)) }
    };
    let retired = Act::Retire { id: 2, username: "a".into() };
    assert_eq!(act(&wanted, &seen(true, None)), retired);
    assert_eq!(why(decide(&wanted, &seen(false, None))), Waiting::Deploy { host: "prod".into(), held: None });
    let failed = why(decide(&wanted, &seen(false, failed(2, false))));
    assert!(matches!(failed, Waiting::DeployFailed { .. }), "{failed:?}");
}

#[test]
fn what_was_retired_is_closed_once_its_last_sessions_are_ended() {
    let gone = |sessions| TargetEvidence {
        can_log_in: BTreeSet::from(["b".into()]),
        fences: BTreeMap::from([("a".into(), (2, at(0))), ("b".into(), (2, at(0)))]),
        sessions,
        ..installed(2)
    };
    let late = vec![session("a", "10.0.0.9"), session("b", "10.0.0.1")];
    assert_eq!(
        act(&alternating(), &published(gone(late))),
        Act::EndSessions { username: "a".into(), opened_before: None }
    );
    assert_eq!(act(&alternating(), &published(gone(Vec::new()))), Act::DeleteRecord { id: 2 });
    let unfenced = TargetEvidence {
        fences: BTreeMap::from([("a".into(), (1, at(0))), ("b".into(), (2, at(0)))]),
        ..gone(Vec::new())
    };
    assert_eq!(
        act(&alternating(), &published(unfenced)),
        Act::Retire { id: 2, username: "a".into() },
        "a late request of rotation 1 could let it in again"
    );
}

#[test]
fn a_role_that_was_changed_in_place_is_published_over_a_foreign_write_and_others_are_not() {
    let drifted = |target| under_way(vec![ours(1, 1, 0), foreign(2, NOW - 60)], target);
    for on_drift in [OnDrift::Alert, OnDrift::Adopt] {
        let wanted = Desired { on_drift, ..in_place() };
        assert!(matches!(act(&wanted, &drifted(installed(2))), Act::Promote { expected: 3, .. }));
        let untouched = TargetEvidence { recorded: refused(), ..target() };
        assert!(matches!(why(decide(&wanted, &drifted(untouched))), Waiting::Drift { version: 2, .. }));
        let wanted = Desired { on_drift, ..alternating() };
        assert!(matches!(why(decide(&wanted, &drifted(installed(2)))), Waiting::Drift { version: 2, .. }));
    }
}

#[test]
fn a_role_that_was_changed_in_place_is_published_over_a_foreign_write_until_every_host_has_followed() {
    let wanted = Desired { hosts: vec!["prod".into()], ..in_place() };
    let drifted = |proof| {
        let versions = vec![ours(1, 1, 0), ours(2, 2, NOW - 60), foreign(3, NOW - 50)];
        Observed { hosts: vec![host("prod", NOW - 60, proof)], ..under_way(versions, installed(2)) }
    };
    assert!(matches!(act(&wanted, &drifted(None)), Act::Promote { expected: 4, .. }));
    let followed = Some((2, Proof::Proven, NOW));
    assert!(matches!(why(decide(&wanted, &drifted(followed))), Waiting::Drift { version: 3, .. }));
}

#[test]
fn a_role_that_a_host_has_adopted_is_never_rolled_back_in_place() {
    let wanted = |strategy| Desired {
        hosts: vec!["a".into(), "b".into()],
        on_failure: OnFailure::RollBack,
        strategy: Some(strategy),
        ..held()
    };
    let seen = |proof| Observed {
        hosts: vec![
            host("a", NOW - 60, proof),
            HostEvidence { failed_deploy: failed(2, true), ..host("b", 0, None) },
        ],
        ..published(installed(2))
    };
    let adopted = Some((2, Proof::Proven, NOW));
    let next = decide(&wanted(Strategy::InPlace), &seen(adopted));
    assert!(matches!(why(next), Waiting::DeployFailed { .. }));
    assert_eq!(act(&wanted(Strategy::Alternating), &seen(adopted)), Act::MarkAbort { id: 2 });
}

#[test]
fn an_abort_is_void_where_the_login_may_have_been_installed() {
    let leaving = Desired { deleting: Some(at(NOW - 10)), ..alternating() };
    let marked = |recorded| Observed {
        aborts: BTreeMap::from([(2, at(NOW - 30))]),
        ..before_promote(TargetEvidence { recorded, ..installed(2) })
    };
    assert_eq!(act(&leaving, &marked(refused())), Act::DeleteRecord { id: 2 });
    assert!(matches!(act(&leaving, &marked(Some(Acceptance::Accepted))), Act::Promote { .. }));
    let unknown = decide(&leaving, &marked(Some(Acceptance::Unknown(problem()))));
    assert_eq!(why(unknown), Waiting::Target(problem()));
}

#[test]
fn a_roll_back_retires_the_login_that_failed() {
    let back = Credential {
        username: "a".into(),
        password: SecretValue::new("x".into()),
        replaces: Some("b".into()),
        accepted: BTreeSet::new(),
    };
    let record = Record { trigger: Trigger::RollBack, credential: Some(back), ..record(3, 2) };
    let target = TargetEvidence {
        fences: BTreeMap::from([("a".into(), (3, at(0))), ("b".into(), (2, at(0)))]),
        ..installed(2)
    };
    let versions = vec![ours(1, 1, 0), ours(2, 2, 1), ours(3, 3, NOW - 60)];
    let seen = Observed { target: Some(target), ..rotating(versions, record) };
    assert_eq!(act(&alternating(), &seen), Act::Retire { id: 3, username: "b".into() });
}
