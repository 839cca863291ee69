use keyturn_api::ManagedSecret;
use keyturn_api::docker_host::{HostParameter, ImageAudit};

use super::*;
use crate::deploy::testing::{at, host, published, run, secret, shown};
use crate::deploy::wish::wishes;

const TOKEN: &str = "/app/TOKEN";
const OTHER: &str = "/app/OTHER";

fn on_host(path: &str, origin: Origin) -> ManagedSecret {
    published(secret(path.rsplit('/').next().unwrap(), &[path]), &[(path, 3, origin)])
}

/// Conditions of host `web` at second 1000, as `type=status reason` with their messages. The condition about images
/// is left out.
fn conditions_of(
    secrets: &[ManagedSecret],
    decision: &Decision,
    change: impl FnOnce(&mut DockerHostStatus),
) -> Vec<(String, String)> {
    let mut conditions = all_conditions_of(secrets, decision, change);
    conditions.retain(|(said, _)| !said.starts_with(IMAGES_CLEAN));
    conditions
}

fn all_conditions_of(
    secrets: &[ManagedSecret],
    decision: &Decision,
    change: impl FnOnce(&mut DockerHostStatus),
) -> Vec<(String, String)> {
    let host = host("web");
    let mut status = host.status.clone().unwrap();
    change(&mut status);
    let view = View {
        wishes: &wishes("web", secrets),
        decision,
        start_failure: None,
        settings: &Settings::new("test", "us-east-1"),
        now: DateTime::from_timestamp(1000, 0).unwrap(),
    };
    set(&mut status, &host, &view);
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(1)));
    let said = status.conditions.into_iter();
    said.map(|c| (format!("{}={} {}", c.type_, c.status, c.reason), c.message)).collect()
}

fn said(conditions: &[(String, String)]) -> Vec<&str> {
    conditions.iter().map(|(said, _)| said.as_str()).collect()
}

#[test]
fn images_are_clean_only_where_every_one_was_looked_at() {
    let audit = |problem: Option<&str>, left_out| ImageAudit {
        at: at(900),
        images: 3,
        allowed: 2,
        left_out,
        problem: problem.map(str::to_owned),
        settings: String::new(),
        layers: None,
    };
    let finding = |parameter: Option<&str>| ImageFinding {
        image: "app:1".into(),
        digest: "sha256:0a".into(),
        place: "env DB_PASSWORD".into(),
        rule: "secret-name".into(),
        fingerprint: "28e972a69e4a2b67".into(),
        parameter: parameter.map(str::to_owned),
    };
    let problem = Some("app:2: too large");
    let shown = "env DB_PASSWORD of app:1 (secret-name 28e972a69e4a2b67)";
    let managed = "(secret-name 28e972a69e4a2b67, the value of /app/TOKEN)";
    let table = [
        (None, vec![], "Unknown NotAudited", "no run has audited"),
        (Some(audit(None, 0)), vec![], "True Clean", "3 images, no secret found, 2 findings allowed"),
        (Some(audit(problem, 0)), vec![], "Unknown NotAudited", "app:2: too large"),
        (Some(audit(None, 0)), vec![finding(None)], "False SecretsFound", shown),
        (Some(audit(problem, 0)), vec![finding(None)], "False SecretsFound", "app:2: too large"),
        (Some(audit(None, 0)), vec![finding(Some(TOKEN))], "False SecretsFound", managed),
        (Some(audit(None, 4)), vec![finding(None); 5], "False SecretsFound", "and 6 more"),
        (Some(audit(None, 4)), vec![], "False SecretsFound", "and 4 more"),
    ];
    for (audit, findings, expected, words) in table {
        let found = all_conditions_of(&[], &Decision::Settled, |status| {
            status.image_audit = audit;
            status.image_findings = findings;
        });
        let (said, message) = found.iter().find(|(said, _)| said.starts_with(IMAGES_CLEAN)).unwrap();
        assert_eq!(said, &format!("{IMAGES_CLEAN}={expected}"), "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_host_is_ready_when_it_has_shown_what_can_be_shown() {
    let rotated = |path| on_host(path, Origin::Rotated);
    let proven = |path| shown(path, 3, Proof::Proven, true, 900);
    let unseen = |deployed| shown(OTHER, 3, Proof::Incomparable, deployed, 900);
    type Case = (Vec<ManagedSecret>, Vec<HostParameter>, &'static str, &'static str);
    let table: Vec<Case> = vec![
        (vec![], vec![], "Ready=True NothingToRun", "no ManagedSecret"),
        (vec![rotated(TOKEN)], vec![proven(TOKEN)], "Ready=True Proven", "1 of 1"),
        (vec![rotated(TOKEN)], vec![], "Ready=False NotProven", "/app/TOKEN=3"),
        (
            vec![rotated(TOKEN)],
            vec![shown(TOKEN, 2, Proof::Proven, true, 900)],
            "Ready=False NotProven",
            "/app/TOKEN=3",
        ),
        (
            vec![rotated(TOKEN), rotated(OTHER)],
            vec![proven(TOKEN), unseen(true)],
            "Ready=True PartlyProven",
            "no container has a variable to compare for /app/OTHER=3",
        ),
        (vec![rotated(OTHER)], vec![unseen(false)], "Ready=False NotProven", "/app/OTHER=3"),
        (
            vec![on_host(OTHER, Origin::Adopted)],
            vec![unseen(false)],
            "Ready=True PartlyProven",
            "/app/OTHER=3",
        ),
        (
            vec![rotated(TOKEN), on_host(OTHER, Origin::Foreign)],
            vec![proven(TOKEN)],
            "Ready=True PartlyProven",
            "somebody else wrote it: /app/OTHER=3",
        ),
    ];
    for (secrets, known, expected, part) in table {
        let conditions = conditions_of(&secrets, &Decision::Settled, |status| status.parameters = known);
        assert_eq!(said(&conditions), [expected, "Deploying=False Idle"]);
        assert!(conditions[0].1.contains(part), "{part} is not in {}", conditions[0].1);
    }
}

#[test]
fn what_holds_a_run_back_is_said_and_stalls_only_where_it_takes_a_person() {
    for stalled in [false, true] {
        let trouble = Trouble::new(Reason::WaitingForHost, "waits for canary", stalled);
        let hold = Hold { trouble, until: None, brief: false };
        let decision = Decision::Hold { mode: RunMode::Deploy, hold };
        let conditions = conditions_of(&[on_host(TOKEN, Origin::Rotated)], &decision, |_| ());
        let mut expected = vec!["Ready=False WaitingForHost", "Deploying=False WaitingForHost"];
        expected.extend(stalled.then_some("Stalled=True WaitingForHost"));
        assert_eq!(said(&conditions), expected);
        assert!(conditions.iter().all(|(_, message)| message.contains("waits for canary")));
    }
}

#[test]
fn a_failure_stands_only_for_the_versions_that_are_wanted() {
    let secrets = [on_host(TOKEN, Origin::Rotated)];
    let wanted = revision::revision(&wishes("web", &secrets), "deploy.sh");
    let failed = |revision: &str, failures| {
        let mut run = run(RunMode::Deploy, revision, 1, Some(900), failures);
        run.message = Some("exit code 3".into());
        conditions_of(&secrets, &Decision::Settled, |status| {
            status.parameters = vec![shown(TOKEN, 3, Proof::Differs, true, 800)];
            status.last_deploy = Some(run.clone());
            status.last_run = Some(run);
        })
    };
    assert_eq!(said(&failed("another", 5)), ["Ready=False NotProven", "Deploying=False Idle"]);
    let once = failed(&wanted, 1);
    assert_eq!(said(&once), ["Ready=False DeployFailed", "Deploying=False Idle"]);
    assert!(once[0].1.starts_with("deployment failed: exit code 3. Output: `kubectl -n prod logs job/"));
    let often = failed(&wanted, 3);
    assert_eq!(
        said(&often),
        ["Ready=False DeployFailed", "Deploying=False Idle", "Stalled=True DeployFailed"]
    );
    assert!(often[2].1.starts_with("deployment failed 3 times in a row: exit code 3"));
}

#[test]
fn the_failed_deployment_is_said_although_a_verification_has_ended_since() {
    let secrets = [on_host(TOKEN, Origin::Rotated)];
    let wanted = revision::revision(&wishes("web", &secrets), "deploy.sh");
    let conditions = conditions_of(&secrets, &Decision::Settled, |status| {
        status.parameters = vec![shown(TOKEN, 3, Proof::Differs, true, 800)];
        status.last_deploy = Some(run(RunMode::Deploy, &wanted, 1, Some(900), 1));
        status.last_run = Some(run(RunMode::Verify, &wanted, 1, Some(950), 0));
    });
    assert_eq!(said(&conditions)[0], "Ready=False DeployFailed");
}

#[test]
fn a_backoff_shows_when_the_next_attempt_is() {
    let until = DateTime::from_timestamp(1060, 0);
    let hold = |reason| Hold { trouble: Trouble::passing(reason, ""), until, brief: false };
    for (reason, expected) in [(Reason::BackingOff, Some(at(1060))), (Reason::Coalescing, None)] {
        let host = host("web");
        let mut status = DockerHostStatus::default();
        let decision = Decision::Hold { mode: RunMode::Deploy, hold: hold(reason) };
        let view = View {
            wishes: &[],
            decision: &decision,
            start_failure: None,
            settings: &Settings::new("test", "us-east-1"),
            now: DateTime::from_timestamp(1000, 0).unwrap(),
        };
        set(&mut status, &host, &view);
        assert_eq!(status.next_attempt_time, expected, "{reason}");
    }
}
