use chrono::TimeDelta;

use super::*;
use crate::deploy::report::{LayersReport, ReportFinding, ReportParameter};
use crate::deploy::testing::{at, host, shown};

const TOKEN: &str = "/app/TOKEN";

fn settings() -> Settings {
    Settings { backoff_initial: TimeDelta::seconds(60), ..Settings::new("test", "us-east-1") }
}

fn seconds(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn report(outcome: RunResult, proof: Option<Proof>) -> Report {
    Report {
        outcome,
        message: "as reported".into(),
        script_exit: None,
        verified: matches!(outcome, RunResult::Succeeded | RunResult::NotAdopted),
        deploy: None,
        parameters: proof
            .map(|proof| ReportParameter { path: TOKEN.into(), version: 3, proof, differs_in: vec![] })
            .into_iter()
            .collect(),
        images: None,
        others: None,
        logs: None,
    }
}

/// A Job about version 3 of the token, created at `created` and ended ten seconds later.
fn ended(mode: RunMode, attempt: i32, created: i64, report: Report) -> DeployJob {
    DeployJob {
        name: format!("web-abc-{mode:?}{attempt}"),
        mode,
        revision: "abc".into(),
        attempt,
        parameters: vec![JobParameter { path: TOKEN.into(), version: 3, published_at: 3 }],
        generation: 1,
        target: target(&host("web").spec),
        audit: "as it is".into(),
        about: None,
        layers: false,
        holds_task: false,
        created: seconds(created),
        state: JobState::Ended { report, finished: seconds(created + 10) },
    }
}

fn deploy(attempt: i32, created: i64, outcome: RunResult, proof: Proof) -> DeployJob {
    ended(RunMode::Deploy, attempt, created, report(outcome, Some(proof)))
}

fn folded(jobs: &[DeployJob]) -> DockerHostStatus {
    fold(&host("web"), jobs, &settings())
}

#[test]
fn folding_again_or_with_an_emptied_status_shows_the_same() {
    let jobs = [
        deploy(1, 100, RunResult::DeployFailed, Proof::Differs),
        deploy(2, 200, RunResult::VerifyFailed, Proof::Proven),
        ended(RunMode::Verify, 1, 300, report(RunResult::NotAdopted, Some(Proof::Differs))),
        deploy(3, 400, RunResult::Succeeded, Proof::Proven),
        deploy(4, 400, RunResult::Unreachable, Proof::Differs),
    ];
    let mut step_by_step = host("web");
    for seen in 1..=jobs.len() {
        step_by_step.status = Some(fold(&step_by_step, &jobs[..seen], &settings()));
        let again = fold(&step_by_step, &jobs[..seen], &settings());
        assert_eq!(step_by_step.status.as_ref(), Some(&again), "repeated after {seen} Jobs");
        assert_eq!(folded(&jobs[..seen]), again, "from nothing after {seen} Jobs");
    }
}

#[test]
fn results_outlive_the_jobs_that_had_them() {
    let jobs = [
        deploy(1, 100, RunResult::DeployFailed, Proof::Differs),
        deploy(2, 200, RunResult::DeployFailed, Proof::Differs),
    ];
    let mut host = host("web");
    host.status = Some(folded(&jobs));
    let kept = fold(&host, &[], &settings());
    assert_eq!(Some(&kept), host.status.as_ref());
    // The count continues although the earlier Jobs are gone.
    let third = fold(&host, &[deploy(3, 300, RunResult::DeployFailed, Proof::Differs)], &settings());
    assert_eq!(third.last_deploy.unwrap().failures, 3);
}

#[test]
fn only_a_comparison_after_a_passed_verify_proves_anything() {
    let table = [
        (RunResult::Succeeded, Some(Proof::Proven), Some(Proof::Proven)),
        (RunResult::Succeeded, Some(Proof::Incomparable), Some(Proof::Incomparable)),
        (RunResult::Succeeded, None, Some(Proof::Incomparable)),
        (RunResult::NotAdopted, Some(Proof::Proven), Some(Proof::Proven)),
        (RunResult::NotAdopted, Some(Proof::Differs), Some(Proof::Differs)),
        (RunResult::NotAdopted, None, None),
        (RunResult::VerifyFailed, Some(Proof::Proven), None),
        (RunResult::DeployFailed, Some(Proof::Proven), None),
        (RunResult::ConnectionLost, Some(Proof::Proven), None),
    ];
    for (outcome, reported, expected) in table {
        let status = folded(&[ended(RunMode::Deploy, 1, 100, report(outcome, reported))]);
        let shown: Vec<_> = status.parameters.iter().map(|p| (p.proof, p.deployed, p.at.clone())).collect();
        let deployed = |proof| proof != Proof::Differs;
        let expected: Vec<_> = expected.into_iter().map(|proof| (proof, deployed(proof), at(110))).collect();
        assert_eq!(shown, expected, "{outcome:?} {reported:?}");
    }
}

#[test]
fn a_run_whose_verify_failed_shows_what_differs_and_nothing_else() {
    for (proof, expected) in
        [(Proof::Differs, Some((Proof::Differs, false))), (Proof::Incomparable, None), (Proof::Proven, None)]
    {
        // The outcome is NotAdopted because of another parameter of the run.
        let report = Report { verified: false, ..report(RunResult::NotAdopted, Some(proof)) };
        let status = folded(&[ended(RunMode::Deploy, 1, 100, report)]);
        let shown = status.parameters.first().map(|p| (p.proof, p.deployed));
        assert_eq!(shown, expected, "{proof:?}");
    }
}

#[test]
fn a_success_that_shows_another_value_is_none() {
    let status = folded(&[deploy(1, 100, RunResult::Succeeded, Proof::Differs)]);
    let last = status.last_deploy.unwrap();
    assert_eq!((last.result, last.failures), (Some(RunResult::NotAdopted), 1));
}

#[test]
fn a_verification_neither_claims_nor_forgets_a_deployment() {
    let verified = ended(RunMode::Verify, 1, 200, report(RunResult::Succeeded, Some(Proof::Incomparable)));
    assert!(!folded(std::slice::from_ref(&verified)).parameters[0].deployed);
    let both = folded(&[deploy(1, 100, RunResult::Succeeded, Proof::Incomparable), verified]);
    assert!(both.parameters[0].deployed);
    assert_eq!(both.parameters[0].at, at(210));
    assert_eq!(both.last_run.unwrap().mode, RunMode::Verify);
    assert_eq!(both.last_deploy.unwrap().mode, RunMode::Deploy);
}

#[test]
fn failures_are_counted_by_mode_revision_and_generation() {
    let failed = |attempt, created| deploy(attempt, created, RunResult::DeployFailed, Proof::Differs);
    let verify = ended(RunMode::Verify, 1, 250, report(RunResult::Succeeded, Some(Proof::Proven)));
    let last = |jobs: &[DeployJob]| folded(jobs).last_deploy.unwrap();
    let two = last(&[failed(1, 100), failed(2, 200)]);
    assert_eq!((two.failures, two.retry_after), (2, Some(at(210 + 120))));
    assert_eq!(last(&[failed(1, 100), failed(2, 200), verify, failed(3, 300)]).failures, 3);

    let other_revision = DeployJob { revision: "def".into(), ..failed(3, 300) };
    assert_eq!(last(&[failed(1, 100), failed(2, 200), other_revision]).failures, 1);
    let other_spec = DeployJob { generation: 2, ..failed(3, 300) };
    assert_eq!(last(&[failed(1, 100), failed(2, 200), other_spec]).failures, 1);
    let success = deploy(3, 300, RunResult::Succeeded, Proof::Proven);
    let well = last(&[failed(1, 100), failed(2, 200), success.clone()]);
    assert_eq!((well.failures, well.retry_after, well.result), (0, None, Some(RunResult::Succeeded)));
    assert_eq!(last(&[success, failed(4, 400)]).failures, 1);
}

#[test]
fn what_takes_a_person_is_tried_again_rarely() {
    for (outcome, pause) in [
        (RunResult::HostKeyRefused, 3600),
        (RunResult::AuthenticationFailed, 3600),
        (RunResult::BadInput, 3600),
        (RunResult::Outdated, 3600),
        (RunResult::Unreachable, 60),
        (RunResult::HostUnfit, 60),
        (RunResult::DeployFailed, 60),
    ] {
        let last = folded(&[deploy(1, 100, outcome, Proof::Differs)]).last_deploy.unwrap();
        assert_eq!(last.retry_after, Some(at(110 + pause)), "{outcome:?}");
    }
}

#[test]
fn a_job_without_a_final_report_is_lost_and_counts_as_a_failure() {
    let lost = DeployJob {
        state: JobState::Lost { reason: "OOMKilled".into(), finished: seconds(110) },
        ..deploy(1, 100, RunResult::Succeeded, Proof::Proven)
    };
    for job in [lost, deploy(1, 100, UNDER_WAY, Proof::Proven)] {
        let status = folded(&[job]);
        let last = status.last_deploy.unwrap();
        assert_eq!((last.result, last.failures), (Some(RunResult::Lost), 1));
        assert_eq!(status.parameters, []);
    }
}

#[test]
fn proofs_of_another_host_or_project_are_dropped() {
    let mut moved = host("web");
    moved.status = Some(folded(&[deploy(1, 100, RunResult::Succeeded, Proof::Proven)]));
    moved.spec.docker.compose_project = "staging".into();
    let status = fold(&moved, &[deploy(1, 100, RunResult::Succeeded, Proof::Proven)], &settings());
    assert_eq!(status.parameters, []);
    assert_eq!(status.target, Some(target(&moved.spec)));
}

#[test]
fn newer_knowledge_is_not_overwritten_by_an_older_job() {
    let mut host = host("web");
    let known = shown(TOKEN, 4, Proof::Proven, true, 500);
    host.status = Some(DockerHostStatus {
        parameters: vec![known.clone()],
        target: Some(target(&host.spec)),
        ..DockerHostStatus::default()
    });
    let status = fold(&host, &[deploy(1, 100, RunResult::Succeeded, Proof::Differs)], &settings());
    assert_eq!(status.parameters, [known]);
}

#[test]
fn a_running_job_is_the_run_under_way_and_an_unstarted_one_is_not() {
    let state = |state| DeployJob { state, ..deploy(1, 100, RunResult::Succeeded, Proof::Proven) };
    let running = state(JobState::Running { trouble: Some("ImagePullBackOff".into()) });
    let run = folded(&[running]).run.unwrap();
    assert_eq!((run.started_at, run.message.as_deref()), (at(100), Some("ImagePullBackOff")));
    assert_eq!(run.parameters, ["/app/TOKEN=3"]);
    assert_eq!(folded(&[state(JobState::Unstarted)]).run, None);
}

#[test]
fn the_message_names_the_containers_that_run_something_else() {
    let mut report = report(RunResult::NotAdopted, Some(Proof::Differs));
    report.parameters[0].differs_in = vec!["app".into(), "runner".into()];
    let last = folded(&[ended(RunMode::Verify, 1, 100, report)]).last_run.unwrap();
    let message = last.message.unwrap();
    assert!(message.contains("/app/TOKEN=3") && message.contains("app, runner"), "{message}");
}

#[test]
fn two_tellings_of_one_fact_cause_no_write() {
    let waits = |trouble: &str| DeployJob {
        state: JobState::Running { trouble: Some(trouble.into()) },
        ..deploy(1, 100, RunResult::Succeeded, Proof::Proven)
    };
    let mut host = host("web");
    host.status = Some(folded(&[waits("ErrImagePull: no such image")]));
    host.status.as_mut().unwrap().run.as_mut().unwrap().started_at = at(99);
    let known = host.status.clone().unwrap();
    assert_eq!(fold(&host, &[waits("ImagePullBackOff: Back-off pulling")], &settings()), known);
    let other = fold(&host, &[waits("FailedMount: no such Secret")], &settings()).run.unwrap();
    assert_eq!(other.message.as_deref(), Some("FailedMount: no such Secret"));
}

#[test]
fn what_is_in_files_stays_known_until_they_are_looked_into_again_or_the_image_is_gone() {
    let finding = |place: &str, fingerprint: &str| ReportFinding {
        rule: "secret-name".into(),
        fingerprint: fingerprint.into(),
        parameter: None,
        place: place.into(),
    };
    let run = |created, layers: Option<LayersReport>, ids: &[&str], findings: Vec<ReportFinding>| {
        let image = ImageReport { name: "app:1".into(), digest: "sha256:0a".into(), findings };
        let images = ImagesReport {
            images: 1,
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            found: Some(image).into_iter().filter(|image| !image.findings.is_empty()).collect(),
            layers: layers.clone(),
            ..ImagesReport::default()
        };
        let report = Report { images: Some(Box::new(images)), ..report(RunResult::Succeeded, None) };
        DeployJob { layers: layers.is_some(), ..ended(RunMode::Verify, 1, created, report) }
    };
    let in_file = || finding("file srv/.env TOKEN", "0000000000000001");
    let in_env = || finding("env TOKEN", "0000000000000002");
    let looked = |problem: Option<&str>| Some(LayersReport { files: 7, problem: problem.map(str::to_owned) });
    let first = || run(100, looked(None), &[], vec![in_file(), in_env()]);
    for (what, second, expected) in [
        ("not looked into", run(200, None, &["0a"], vec![]), vec!["file srv/.env TOKEN"]),
        ("the image is gone", run(200, None, &["0b"], vec![]), vec![]),
        ("looked into, and gone", run(200, looked(None), &[], vec![]), vec![]),
        ("in part", run(200, looked(Some("cut")), &[], vec![]), vec!["file srv/.env TOKEN"]),
        ("found again", run(200, looked(Some("cut")), &[], vec![in_file()]), vec!["file srv/.env TOKEN"]),
    ] {
        let jobs = [first(), second];
        let mut host = host("web");
        for _ in 0..2 {
            host.status = Some(fold(&host, &jobs, &settings()));
            let status = host.status.as_ref().unwrap();
            let places: Vec<&str> = status.image_findings.iter().map(|f| f.place.as_str()).collect();
            assert_eq!(places, expected, "{what}");
            let layers = status.image_audit.as_ref().unwrap().layers.as_ref().unwrap();
            assert_eq!(layers.at, at(if jobs[1].layers { 210 } else { 110 }), "{what}");
        }
    }
}
