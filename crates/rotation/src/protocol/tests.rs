//! Tests of single protocol rules. The simulation disturbs every step with faults; here each rule is tested alone.

use std::collections::{BTreeMap, BTreeSet};

use keyturn_api::docker_host::{Proof, RunResult};
use keyturn_api::managed_secret::{IfMissing, OnDrift, OnFailure};
use keyturn_api::{Reason, Trouble};
use keyturn_secret_value::SecretValue;

use super::*;
use crate::observed::{HostEvidence, HostFailure, HostProof, Parameter, Record, Stamp, Trigger, Version};
use crate::request;

const OWNER: &str = "test/shop/token";
pub(super) const PATH: &str = "/shop/TOKEN";
const GRACE: TimeDelta = TimeDelta::minutes(15);

pub(super) fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::minutes(minutes)
}

/// The current time of the tests, in minutes. It is so late that every publication is old and only the rule under test
/// can hold a rotation back.
pub(super) const NOW: i64 = 100_000;

fn desired() -> Desired<'static> {
    Desired {
        owner: OWNER,
        deleting: None,
        deletion_bound: TimeDelta::hours(1),
        delete_parameters: false,
        suspended: false,
        finalizer: false,
        settled_since: Some(at(-100_000)),
        if_missing: IfMissing::Create,
        on_failure: OnFailure::Hold,
        on_drift: OnDrift::Alert,
        roles: vec!["a", "b"],
        kms_key: None,
        rings: false,
        samples: BTreeMap::new(),
        promotion_refused: false,
        hosts: Vec::new(),
        request: None,
        timing: Timing {
            period: Some(TimeDelta::days(90)),
            windows: &[],
            host_windows: &[],
            first_rotation_delay: TimeDelta::days(1),
            spread: TimeDelta::zero(),
            created_at: at(0),
            rolled_back_at: None,
            identity: "shop/token",
        },
        preflight_requested: None,
        strategy: None,
        may_set_up: false,
        retirement: Retirement::default(),
        incidents: Vec::new(),
    }
}

pub(super) fn held() -> Desired<'static> {
    Desired { finalizer: true, ..desired() }
}

pub(super) fn request(token: &str) -> Option<Request<'_>> {
    Some(Request { token, hash: request::hash(token), handled: false, first_sight: false })
}

pub(super) fn ours(number: i64, id: u64, minutes: i64) -> Version {
    stamped(number, id, number, minutes)
}

fn stamped(number: i64, id: u64, expected: i64, minutes: i64) -> Version {
    let stamp =
        Stamp { owner: OWNER.into(), id, version: expected, at: at(minutes), request: None, made: None };
    Version { number, modified: at(minutes), text: String::new(), stamp: Some(stamp), claim: None }
}

pub(super) fn foreign(number: i64, minutes: i64) -> Version {
    Version { number, modified: at(minutes), text: String::new(), stamp: None, claim: None }
}

pub(super) fn observed(versions: Vec<Version>) -> Observed {
    let parameter = Parameter::classify(PATH, OWNER, versions, None, &BTreeSet::new());
    let writable = BTreeSet::from([PATH.to_owned()]);
    Observed { parameters: vec![parameter], writable, ..Observed::default() }
}

pub(super) fn record(id: u64, base: i64) -> Record {
    Record {
        id,
        trigger: Trigger::Request,
        at: at(NOW - 60),
        request: None,
        values: BTreeMap::from([(PATH.to_owned(), SecretValue::new("new".into()))]),
        base: BTreeMap::from([(PATH.to_owned(), base)]),
        base_at: BTreeMap::new(),
        hosts: Vec::new(),
        kept: BTreeSet::new(),
        credential: None,
    }
}

/// Returns evidence of a rotation under way: this record, over these versions.
pub(super) fn rotating(versions: Vec<Version>, record: Record) -> Observed {
    let base = record.base.get(PATH).copied();
    let parameter = Parameter::classify(PATH, OWNER, versions, base, &BTreeSet::new());
    Observed {
        parameters: vec![parameter],
        records: BTreeMap::from([(record.id, record)]),
        ..Observed::default()
    }
}

/// Builds a host whose proof is about a version made at minute `made`; see [`ours`].
pub(super) fn host(name: &str, made: i64, proof: Option<(i64, Proof, i64)>) -> HostEvidence {
    let proofs = proof.map(|(version, proof, minutes)| {
        let shown = HostProof { version, published_at: at(made), proof, at: at(minutes), deployed: true };
        BTreeMap::from([(PATH.to_owned(), shown)])
    });
    HostEvidence {
        name: name.into(),
        exists: true,
        deploying: false,
        proofs: proofs.unwrap_or_default(),
        failure: None,
        failed_deploy: None,
        stalled: None,
    }
}

pub(super) fn failed(version: i64, for_good: bool) -> Option<HostFailure> {
    Some(HostFailure {
        trouble: Trouble::new(RunResult::DeployFailed, "the script exited with 3", for_good),
        versions: BTreeMap::from([(PATH.to_owned(), version)]),
        finished_at: at(NOW),
        rejected: for_good,
    })
}

pub(super) fn decide(desired: &Desired<'_>, observed: &Observed) -> Next {
    next(desired, observed, at(NOW), GRACE)
}

pub(super) fn act(desired: &Desired<'_>, observed: &Observed) -> Act {
    match decide(desired, observed) {
        Next::Act { act, .. } => act,
        other => panic!("an act was expected, not {other:?}"),
    }
}

/// Returns a request that came with the object.
fn in_the_yaml() -> Option<Request<'static>> {
    Some(Request { first_sight: true, ..request("in-the-yaml").unwrap() })
}

#[test]
fn a_missing_parameter_of_a_host_is_held_then_recorded_and_its_token_with_it() {
    let hosts = || vec!["web".to_owned()];
    let missing = || Observed { hosts: vec![host("web", 0, None)], ..observed(vec![]) };
    assert_eq!(act(&Desired { hosts: hosts(), ..desired() }, &missing()), Act::Hold);
    let wanted = Desired { request: in_the_yaml(), hosts: hosts(), ..held() };
    let Act::Record { id: 1, trigger: Trigger::Missing, request: Some(token), base, .. } =
        act(&wanted, &missing())
    else {
        panic!("no record")
    };
    assert_eq!((token.as_str(), base[PATH]), ("in-the-yaml", 0));
}

#[test]
fn a_missing_parameter_that_concerns_nobody_else_is_created_and_its_token_with_it() {
    let wanted = Desired { request: in_the_yaml(), ..desired() };
    let create = Act::Create { id: 1, path: PATH.to_owned(), request: Some("in-the-yaml".to_owned()) };
    assert_eq!(act(&wanted, &observed(vec![])), create);
}

#[test]
fn an_object_that_takes_its_parameter_along_is_held_before_that_is_created() {
    let taking = |desired| Desired { delete_parameters: true, ..desired };
    assert_eq!(act(&taking(desired()), &observed(vec![])), Act::Hold);
    assert!(matches!(act(&taking(held()), &observed(vec![])), Act::Create { id: 1, .. }));
}

#[test]
fn several_missing_parameters_are_recorded_before_the_first_one_is_created() {
    let second = Parameter::classify("/shop/TOKEN_ID", OWNER, Vec::new(), None, &BTreeSet::new());
    let mut missing = observed(vec![]);
    missing.parameters.push(second);
    assert!(matches!(act(&held(), &missing), Act::Record { trigger: Trigger::Missing, .. }));
}

#[test]
fn a_missing_parameter_that_a_target_has_to_accept_is_recorded_first() {
    let wanted = Desired { strategy: Some(Strategy::InPlace), ..held() };
    let next = decide(&wanted, &observed(vec![]));
    assert!(!matches!(next, Next::Act { act: Act::Create { .. }, .. }), "{next:?}");
}

#[test]
fn a_missing_parameter_stalls_where_it_must_not_be_created() {
    let wanted = Desired { if_missing: IfMissing::Stall, ..desired() };
    assert!(matches!(
        decide(&wanted, &observed(vec![])),
        Next::Stall(Stalled::ParameterMissing { path }) if path == PATH
    ));
}

#[test]
fn a_young_published_value_rests_until_its_period_is_over() {
    let next = decide(&desired(), &observed(vec![ours(1, 1, NOW - 60)]));
    assert_eq!(next, Next::Rest { at: Some(at(NOW - 60) + TimeDelta::days(90)) });
}

#[test]
fn an_old_value_is_rotated_with_the_next_id_over_the_latest_version() {
    let Act::Record { id, trigger, base, .. } =
        act(&held(), &observed(vec![foreign(1, 0), ours(2, 7, -40_000)]))
    else {
        panic!("no record")
    };
    assert_eq!((id, trigger, base[PATH]), (8, Trigger::Period, 2));
}

#[test]
fn ids_are_never_reused_even_where_a_foreign_write_hides_the_last_one() {
    let observed = Observed { aborts: BTreeMap::from([(9, at(NOW))]), ..observed(vec![ours(1, 7, 0)]) };
    assert_eq!(observed.highest_id(OWNER), 9);
    let wanted = Desired { on_drift: OnDrift::Rotate, ..held() };
    let hidden = super::tests::observed(vec![ours(1, 7, 0), foreign(2, 10)]);
    assert!(matches!(act(&wanted, &hidden), Act::Record { id: 8, trigger: Trigger::Drift, .. }));
}

#[test]
fn nothing_starts_before_the_published_version_is_older_than_the_grace() {
    let wanted = Desired { request: request("now"), ..held() };
    let young = observed(vec![ours(1, 1, NOW - 14)]);
    assert!(matches!(decide(&wanted, &young), Next::Wait { why: Waiting::Grace, until: Some(until), .. }
        if until == at(NOW + 1)));
    assert!(matches!(act(&wanted, &observed(vec![ours(1, 1, NOW - 15)])), Act::Record { .. }));
}

#[test]
fn a_request_is_executed_once() {
    let done = |handled, first_sight, hash: Option<String>| {
        let mut version = ours(1, 1, NOW - 60);
        version.stamp.as_mut().unwrap().request = hash;
        let wanted =
            Desired { request: Some(Request { handled, first_sight, ..request("t").unwrap() }), ..held() };
        !matches!(decide(&wanted, &observed(vec![version])), Next::Act { act: Act::Record { .. }, .. })
    };
    assert!(!done(false, false, None), "a new token rotates");
    assert!(done(true, false, None), "status says that it was handled");
    assert!(done(false, true, None), "it came with the object");
    assert!(done(false, false, Some(request::hash("t"))), "a published description says that it was handled");
}

#[test]
fn suspend_keeps_anything_from_starting_but_finishes_what_has_begun() {
    let wanted = Desired { suspended: true, request: request("now"), ..held() };
    assert!(!matches!(decide(&wanted, &observed(vec![])), Next::Act { .. }));
    assert!(matches!(act(&wanted, &observed(vec![ours(1, 1, -90_000)])), Act::Release));
    assert!(matches!(act(&wanted, &rotating(vec![foreign(1, 0)], record(1, 1))), Act::Promote { .. }));
}

#[test]
fn a_rotation_asks_the_hosts_first_and_believes_no_older_proof() {
    let wanted = |asked: Option<i64>| Desired {
        hosts: vec!["prod".into()],
        preflight_requested: asked.map(at),
        request: request("now"),
        ..held()
    };
    let seen = |proof| Observed { hosts: vec![host("prod", 0, proof)], ..observed(vec![ours(1, 1, 0)]) };
    assert_eq!(act(&wanted(None), &seen(Some((1, Proof::Proven, NOW)))), Act::AskPreflight);
    for pending in [None, Some((1, Proof::Proven, NOW - 5))] {
        let next = decide(&wanted(Some(NOW - 1)), &seen(pending));
        assert!(matches!(next, Next::Wait { why: Waiting::Preflight, .. }), "{next:?}");
    }
    let next = decide(&wanted(Some(NOW - 1)), &seen(Some((1, Proof::Differs, NOW))));
    assert!(matches!(next, Next::Wait { why: Waiting::PreflightFailed { .. }, .. }), "{next:?}");
    for passed in [Proof::Proven, Proof::Incomparable] {
        assert!(matches!(act(&wanted(Some(NOW - 1)), &seen(Some((1, passed, NOW)))), Act::Record { .. }));
    }
}

#[test]
fn a_run_that_failed_over_another_secret_passes_the_preflight_of_those_that_it_has_shown() {
    let wanted = Desired {
        hosts: vec!["prod".into()],
        preflight_requested: Some(at(NOW - 1)),
        request: request("now"),
        ..held()
    };
    let not_adopted = failed(1, false).map(|failure| HostFailure {
        trouble: Trouble::passing(RunResult::NotAdopted, "another value"),
        ..failure
    });
    let seen = |failure: &Option<HostFailure>, proof| Observed {
        hosts: vec![HostEvidence { failure: failure.clone(), ..host("prod", 0, proof) }],
        ..observed(vec![ours(1, 1, 0)])
    };
    let shown = |proof| Some((1, proof, NOW));
    assert!(matches!(act(&wanted, &seen(&not_adopted, shown(Proof::Proven))), Act::Record { .. }));
    for (failure, proof) in [
        (&not_adopted, shown(Proof::Differs)),
        (&not_adopted, Some((1, Proof::Proven, NOW - 5))),
        (&not_adopted, None),
        (&failed(1, false), shown(Proof::Proven)),
    ] {
        let next = decide(&wanted, &seen(failure, proof));
        assert!(matches!(next, Next::Wait { why: Waiting::PreflightFailed { .. }, .. }), "{next:?}");
    }
}

#[test]
fn an_object_that_is_deleted_before_its_first_value_was_proven_waits_for_no_host() {
    let first = |base: i64| Observed {
        hosts: vec![HostEvidence { failed_deploy: failed(base + 1, true), ..host("prod", 0, None) }],
        ..rotating(vec![ours(base + 1, 2, NOW - 60)], record(2, base))
    };
    let wanted = |deleting| Desired { hosts: vec!["prod".into()], deleting, ..held() };
    assert_eq!(act(&wanted(Some(at(NOW - 1))), &first(0)), Act::DeleteRecord { id: 2 });
    let missing = Observed {
        hosts: vec![HostEvidence { exists: false, ..host("prod", 0, None) }],
        ..rotating(vec![ours(1, 2, NOW - 60)], record(2, 0))
    };
    assert_eq!(act(&wanted(Some(at(NOW - 1))), &missing), Act::DeleteRecord { id: 2 });
    // A value that replaces one in use is brought to its end; so is a first value whose object is not being deleted.
    for (deleting, base) in [(None, 0), (Some(at(NOW - 1)), 1)] {
        let next = decide(&wanted(deleting), &first(base));
        assert!(matches!(next, Next::Wait { why: Waiting::DeployFailed { .. }, .. }), "{next:?}");
    }
}

#[test]
fn a_host_on_which_nothing_can_start_fails_the_preflight_with_its_reason() {
    let wanted = Desired {
        hosts: vec!["prod".into()],
        preflight_requested: Some(at(NOW - 1)),
        request: request("now"),
        ..held()
    };
    let stalled = Some(Trouble::permanent(Reason::AfterNotFound, "deploy.after names canary"));
    let seen = |proof| Observed {
        hosts: vec![HostEvidence { stalled: stalled.clone(), ..host("prod", 0, proof) }],
        ..observed(vec![ours(1, 1, 0)])
    };
    let next = decide(&wanted, &seen(None));
    assert!(
        matches!(next, Next::Wait { why: Waiting::PreflightFailed { ref trouble, .. }, .. } if Some(trouble) == stalled.as_ref()),
        "{next:?}"
    );
    let answered = Some((1, Proof::Proven, NOW));
    assert!(matches!(act(&wanted, &seen(answered)), Act::Record { .. }), "it has answered all the same");
}

#[test]
fn the_recorded_value_is_promoted_over_an_older_late_write_of_ours() {
    let late = vec![ours(1, 1, 0), ours(2, 2, NOW - 60), ours(3, 1, NOW - 50)];
    assert!(matches!(act(&held(), &rotating(late, record(2, 1))), Act::Promote { id: 2, expected: 4, .. }));
}

#[test]
fn a_published_value_is_not_promoted_again_and_closes_only_after_the_grace() {
    let published = |minutes| rotating(vec![ours(1, 1, 0), ours(2, 2, minutes)], record(2, 1));
    assert!(matches!(decide(&held(), &published(NOW - 14)), Next::Wait { step: Step::Close, .. }));
    assert_eq!(act(&held(), &published(NOW - 15)), Act::DeleteRecord { id: 2 });
}

#[test]
fn a_put_of_ours_that_was_applied_twice_is_ours_only_where_its_value_says_so() {
    let twice = vec![ours(1, 1, 0), ours(2, 2, NOW - 60), stamped(3, 2, 2, NOW - 60)];
    let mut observed = rotating(twice.clone(), record(2, 1));
    assert!(matches!(decide(&held(), &observed), Next::Wait { why: Waiting::Drift { version: 3, .. }, .. }));
    observed.parameters = vec![Parameter::classify(PATH, OWNER, twice, Some(1), &BTreeSet::from([3]))];
    assert_eq!(act(&held(), &observed), Act::DeleteRecord { id: 2 });
}

#[test]
fn the_published_value_with_a_description_of_somebody_elses_is_ours_and_as_old_as_it_was() {
    let put_again = || vec![ours(1, 1, 0), foreign(2, NOW - 60)];
    assert!(matches!(decide(&held(), &observed(put_again())), Next::Wait { why: Waiting::Drift { .. }, .. }));
    let mut observed = observed(put_again());
    observed.parameters = vec![Parameter::classify(PATH, OWNER, put_again(), None, &BTreeSet::from([2]))];
    let latest = observed.parameters[0].latest().unwrap();
    assert_eq!((&latest.author, latest.made_at()), (&Author::Ours(1), at(0)));
    assert!(!matches!(decide(&held(), &observed), Next::Wait { why: Waiting::Drift { .. }, .. }));
    // A foreign version that is older than any version of ours is the one that keyturn adopted.
    let adopted = Parameter::classify(PATH, OWNER, vec![foreign(1, 0)], None, &BTreeSet::from([1]));
    assert_eq!(adopted.latest().unwrap().author, Author::Original);
}

#[test]
fn a_record_that_a_late_create_brought_back_is_deleted_unused() {
    let newer = rotating(vec![ours(1, 3, NOW - 60)], record(2, 0));
    assert_eq!(act(&held(), &newer), Act::DeleteRecord { id: 2 });
    let mut other_draw = rotating(vec![ours(1, 2, NOW - 60)], record(2, 0));
    other_draw.mismatched.insert(PATH.into());
    assert_eq!(act(&held(), &other_draw), Act::DeleteRecord { id: 2 });
}

#[test]
fn nothing_is_closed_before_every_host_has_proven_the_new_version() {
    let wanted = Desired { hosts: vec!["a".into(), "b".into()], ..held() };
    let seen = |b| Observed {
        hosts: vec![host("a", NOW - 60, Some((2, Proof::Proven, NOW))), host("b", NOW - 60, b)],
        ..rotating(vec![ours(1, 1, 0), ours(2, 2, NOW - 60)], record(2, 1))
    };
    for unproven in [None, Some((1, Proof::Proven, NOW)), Some((2, Proof::Differs, NOW))] {
        let next = decide(&wanted, &seen(unproven));
        assert!(
            matches!(next, Next::Wait { why: Waiting::Deploy { ref host, .. }, .. } if host == "b"),
            "{next:?}"
        );
    }
    assert_eq!(act(&wanted, &seen(Some((2, Proof::Proven, NOW)))), Act::DeleteRecord { id: 2 });
}

#[test]
fn a_host_that_left_the_spec_in_mid_rotation_must_still_prove_it_unless_it_is_gone() {
    let seen = |exists| Observed {
        hosts: vec![HostEvidence { exists, ..host("old", 0, None) }],
        ..rotating(
            vec![ours(1, 1, 0), ours(2, 2, NOW - 60)],
            Record { hosts: vec!["old".into()], ..record(2, 1) },
        )
    };
    assert!(matches!(decide(&held(), &seen(true)), Next::Wait { why: Waiting::Deploy { .. }, .. }));
    assert_eq!(act(&held(), &seen(false)), Act::DeleteRecord { id: 2 });
}

#[test]
fn a_host_that_is_missing_holds_the_end_and_no_other_host() {
    let wanted = Desired { hosts: vec!["gone".into(), "prod".into()], ..held() };
    let seen = |prod| Observed {
        hosts: vec![HostEvidence { exists: false, ..host("gone", 0, None) }, prod],
        ..rotating(vec![ours(1, 1, 0), ours(2, 2, NOW - 60)], record(2, 1))
    };
    let waiting = seen(host("prod", 0, None));
    let next = decide(&wanted, &waiting);
    assert!(
        matches!(next, Next::Wait { why: Waiting::Deploy { ref host, .. }, .. } if host == "prod"),
        "{next:?}"
    );
    let served = seen(host("prod", NOW - 60, Some((2, Proof::Proven, NOW))));
    let next = decide(&wanted, &served);
    assert!(matches!(next, Next::Stall(Stalled::HostMissing { ref host }) if host == "gone"), "{next:?}");
    // In both cases the step is Deploy: hosts are served for as long as one of them needs it.
    for observed in [&waiting, &served] {
        assert_eq!(step_of(&wanted, observed, &observed.records[&2]), Step::Deploy);
    }
}

#[test]
fn a_deployment_that_failed_for_good_is_rolled_back_only_where_asked() {
    let seen = |for_good| Observed {
        hosts: vec![HostEvidence { failed_deploy: failed(2, for_good), ..host("prod", 0, None) }],
        ..rotating(vec![ours(1, 1, 0), ours(2, 2, NOW - 60)], record(2, 1))
    };
    let wanted = |on_failure| Desired { hosts: vec!["prod".into()], on_failure, ..held() };
    assert_eq!(act(&wanted(OnFailure::RollBack), &seen(true)), Act::MarkAbort { id: 2 });
    for (on_failure, for_good) in [(OnFailure::RollBack, false), (OnFailure::Hold, true)] {
        let next = decide(&wanted(on_failure), &seen(for_good));
        assert!(matches!(next, Next::Wait { why: Waiting::DeployFailed { .. }, .. }), "{next:?}");
    }
}

#[test]
fn an_abort_waits_for_the_grace_and_is_void_once_the_deployment_has_succeeded() {
    let wanted = Desired { hosts: vec!["prod".into()], on_failure: OnFailure::RollBack, ..held() };
    let seen = |marked: i64, host: HostEvidence| Observed {
        hosts: vec![host],
        aborts: BTreeMap::from([(2, at(marked))]),
        ..rotating(vec![ours(1, 1, 0), ours(2, 2, NOW - 60)], record(2, 1))
    };
    let broken = || HostEvidence { failed_deploy: failed(2, true), ..host("prod", 0, None) };
    assert!(matches!(decide(&wanted, &seen(NOW - 14, broken())), Next::Wait { why: Waiting::Grace, .. }));
    assert!(matches!(
        act(&wanted, &seen(NOW - 15, broken())),
        Act::RecordRollBack { id: 3, failed: 2, base, .. } if base[PATH] == 2
    ));
    let mended = host("prod", NOW - 60, Some((2, Proof::Proven, NOW)));
    assert_eq!(act(&wanted, &seen(NOW - 15, mended)), Act::DeleteRecord { id: 2 });
}

#[test]
fn a_marker_without_a_record_is_swept_after_the_grace() {
    let seen = |marked| Observed {
        aborts: BTreeMap::from([(2, at(marked))]),
        ..observed(vec![ours(1, 3, NOW - 60)])
    };
    assert_eq!(act(&held(), &seen(NOW - 15)), Act::SweepMarker { id: 2 });
    assert!(matches!(decide(&held(), &seen(NOW - 14)), Next::Wait { .. }), "the finalizer is held as long");
}

#[test]
fn a_foreign_write_is_held_adopted_or_replaced_as_the_spec_says() {
    let wanted = |on_drift| Desired { on_drift, ..held() };
    let drifted = || observed(vec![ours(1, 1, 0), foreign(2, NOW - 60)]);
    let next = decide(&wanted(OnDrift::Alert), &drifted());
    assert!(matches!(next, Next::Wait { why: Waiting::Drift { version: 2, .. }, .. }), "{next:?}");
    assert_eq!(act(&wanted(OnDrift::Adopt), &drifted()), Act::Release, "it is younger than the period");
    assert!(matches!(act(&wanted(OnDrift::Rotate), &drifted()), Act::Record { trigger: Trigger::Drift, .. }));
}

#[test]
fn a_foreign_write_in_mid_rotation_is_never_promoted_over_in_silence() {
    let wanted = |on_drift| Desired { on_drift, ..held() };
    let before_promote = || rotating(vec![ours(1, 1, 0), foreign(2, NOW - 60)], record(2, 1));
    let next = decide(&wanted(OnDrift::Alert), &before_promote());
    assert!(matches!(next, Next::Wait { why: Waiting::Drift { version: 2, .. }, .. }), "{next:?}");
    assert_eq!(act(&wanted(OnDrift::Adopt), &before_promote()), Act::MarkAbort { id: 2 });
    assert!(matches!(act(&wanted(OnDrift::Rotate), &before_promote()), Act::Promote { expected: 3, .. }));
}

#[test]
fn a_version_that_another_owner_stamped_is_never_touched() {
    let mut version = ours(1, 1, 0);
    version.stamp.as_mut().unwrap().owner = "other/shop/token".into();
    let next = decide(&Desired { request: request("now"), ..held() }, &observed(vec![version]));
    assert!(matches!(next, Next::Stall(Stalled::OwnedByOther { .. })), "{next:?}");
}

#[test]
fn deleting_finishes_the_rotation_and_then_lets_the_object_go() {
    let leaving = Desired { deleting: Some(at(NOW - 10)), ..held() };
    let unfinished = rotating(vec![foreign(1, 0)], record(1, 1));
    assert!(matches!(act(&leaving, &unfinished), Act::Promote { .. }));
    assert_eq!(act(&leaving, &observed(vec![ours(1, 1, NOW - 60)])), Act::Release);
    let overdue = Desired { deleting: Some(at(NOW - 61)), ..held() };
    assert_eq!(act(&overdue, &unfinished), Act::Abandon);
}

#[test]
fn deletion_policy_delete_removes_the_parameters_before_the_finalizer() {
    let wanted = Desired { delete_parameters: true, ..desired() };
    assert_eq!(act(&wanted, &observed(vec![ours(1, 1, NOW - 60)])), Act::Hold);
    let leaving = Desired { deleting: Some(at(NOW)), finalizer: true, ..wanted };
    assert!(matches!(act(&leaving, &observed(vec![ours(1, 1, NOW - 60)])), Act::DeleteParameter { .. }));
    assert_eq!(act(&leaving, &observed(vec![])), Act::Release);
}

#[test]
fn a_record_about_other_parameters_is_never_published_here() {
    let mut other = record(1, 0);
    other.values = BTreeMap::from([("/shop/OTHER".to_owned(), SecretValue::new("x".into()))]);
    let next = decide(&held(), &rotating(vec![ours(1, 1, 0)], other));
    assert!(matches!(next, Next::Stall(Stalled::OtherParameters { .. })), "{next:?}");
}

#[test]
fn a_parameter_that_was_deleted_and_created_again_in_mid_rotation_is_drift() {
    let again = rotating(vec![foreign(1, NOW - 30)], record(1, 1));
    let next = decide(&held(), &again);
    assert!(matches!(next, Next::Wait { why: Waiting::Drift { version: 1, .. }, .. }), "{next:?}");
    let untouched = rotating(vec![foreign(1, NOW - 6000)], record(1, 1));
    assert!(matches!(act(&held(), &untouched), Act::Promote { id: 1, expected: 2, .. }));
}

#[test]
fn what_an_incident_found_published_is_no_drift_however_young_it_was() {
    let found = NOW - 62;
    let incident = || Record {
        trigger: Trigger::Incident,
        base_at: BTreeMap::from([(PATH.to_owned(), at(found))]),
        ..record(2, 2)
    };
    // The foreign version was written two minutes before the record, which is less than half of the grace.
    let young = rotating(vec![ours(1, 1, 0), foreign(2, found)], incident());
    assert!(matches!(act(&held(), &young), Act::Promote { id: 2, expected: 3, .. }));
    let again = rotating(vec![foreign(1, found + 1), foreign(2, found + 2)], incident());
    let next = decide(&held(), &again);
    assert!(matches!(next, Next::Wait { why: Waiting::Drift { version: 2, .. }, .. }), "{next:?}");
}

#[test]
fn the_finalizer_stays_while_a_record_may_be_there_unseen() {
    let quiet = || observed(vec![ours(1, 1, NOW - 60)]);
    let just_looked = || Desired { settled_since: None, ..held() };
    assert!(
        matches!(decide(&just_looked(), &quiet()), Next::Rest { at: Some(until) } if until == at(NOW) + GRACE)
    );
    let leaving = Desired { deleting: Some(at(NOW - 5)), ..just_looked() };
    let next = decide(&leaving, &quiet());
    assert!(
        matches!(next, Next::Wait { until: Some(until), .. } if until == at(NOW - 5) + GRACE),
        "{next:?}"
    );
    let long_gone = Desired { deleting: Some(at(NOW - 15)), ..just_looked() };
    assert_eq!(act(&long_gone, &quiet()), Act::Release);
}

#[test]
fn a_host_on_which_nothing_starts_is_waited_for_with_the_reason() {
    let wanted = Desired { hosts: vec!["prod".into()], ..held() };
    let mut seen = rotating(vec![ours(1, 1, 0), ours(2, 2, NOW - 60)], record(2, 1));
    let why = Trouble::permanent(Reason::Suspended, "spec.suspend is set");
    seen.hosts = vec![HostEvidence { stalled: Some(why), ..host("prod", 0, None) }];
    let next = decide(&wanted, &seen);
    let held = Some("spec.suspend is set".to_owned());
    assert!(
        matches!(&next, Next::Wait { why: Waiting::Deploy { host, held: said }, .. } if host == "prod" && *said == held),
        "{next:?}"
    );
}
