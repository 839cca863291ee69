use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::ManagedSecret;
use keyturn_api::access_log::{HostAccessLog, LogLines};
use keyturn_api::docker_host::ImageAudit;
use keyturn_api::docker_host::Proof::{Differs, Incomparable, Proven};
use keyturn_api::managed_secret::Origin::{Adopted, Foreign, Rotated};
use keyturn_api::managed_secret::Step;

use super::*;
use crate::deploy::collection::About;
use crate::deploy::revision::audit_settings;
use crate::deploy::testing::*;
use crate::deploy::wish::{arrivals, wishes};

const TOKEN: &str = "/app/TOKEN";
const OTHER: &str = "/app/OTHER";

fn seconds(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// The input of a decision for host `web` at second 1000, with a coalescing wait of 30 s.
struct Scene {
    host: DockerHost,
    others: Vec<DockerHost>,
    secrets: Vec<ManagedSecret>,
    collections: Vec<Collection>,
    tried: Vec<HostRun>,
    verdict: Verdict,
    problems: Vec<String>,
    window: WindowGate,
}

impl Scene {
    fn new(secrets: Vec<ManagedSecret>) -> Self {
        Self {
            host: host("web"),
            others: Vec::new(),
            secrets,
            collections: Vec::new(),
            tried: Vec::new(),
            verdict: Verdict::Rotate,
            problems: Vec::new(),
            window: WindowGate::Open,
        }
    }

    fn status(mut self, change: impl FnOnce(&mut DockerHostStatus)) -> Self {
        self.host = with_status(self.host, change);
        self
    }

    fn decide(&self) -> Decision {
        let hosts: Vec<DockerHost> = self.others.iter().chain([&self.host]).cloned().collect();
        decide(&Input {
            host: &self.host,
            wishes: &wishes("web", &self.secrets),
            arrivals: &arrivals("web", &self.secrets),
            collections: &self.collections,
            hosts: &hosts,
            tried: &self.tried,
            verdict: self.verdict.clone(),
            problems: self.problems.clone(),
            window: self.window.clone(),
            coalesce: TimeDelta::seconds(30),
            now: seconds(1000),
        })
    }

    /// The decision in a word: the run that is started, or the reason why none is.
    fn outcome(&self) -> String {
        match self.decide() {
            Decision::Start(run) => format!("{:?}", run.mode),
            Decision::Hold { mode, hold } => format!("{mode:?} held: {}", hold.trouble.reason),
            other => format!("{other:?}"),
        }
    }

    fn hold(&self) -> Hold {
        match self.decide() {
            Decision::Hold { hold, .. } => hold,
            other => panic!("not held: {other:?}"),
        }
    }

    fn run(&self) -> Run {
        match self.decide() {
            Decision::Start(run) => run,
            other => panic!("not started: {other:?}"),
        }
    }
}

/// A secret whose rotation, begun at second 900, waits for its hosts.
fn deploying(path: &str) -> ManagedSecret {
    let name = path.rsplit('/').next().unwrap().to_lowercase();
    rotating(published(secret(&name, &[path]), &[(path, 3, Rotated)]), Step::Deploy, 900)
}

fn settled(path: &str, origin: Origin) -> ManagedSecret {
    published(secret("settled", &[path]), &[(path, 3, origin)])
}

fn the_revision() -> String {
    revision(&wishes("web", &[deploying(TOKEN)]), "deploy.sh")
}

#[test]
fn what_a_parameter_needs_follows_from_who_made_it_and_what_the_host_has_shown() {
    // (origin, a rotation waits, proof of the published version and whether it was deployed, need)
    let table = [
        (Rotated, true, None, Need::Deploy),
        (Rotated, true, Some((Differs, false)), Need::Deploy),
        (Rotated, true, Some((Incomparable, false)), Need::Deploy),
        (Rotated, true, Some((Incomparable, true)), Need::Nothing),
        (Rotated, true, Some((Proven, false)), Need::Nothing),
        (Rotated, false, None, Need::Verify),
        (Rotated, false, Some((Differs, false)), Need::Deploy),
        (Rotated, false, Some((Differs, true)), Need::Deploy),
        (Rotated, false, Some((Incomparable, false)), Need::Deploy),
        (Rotated, false, Some((Incomparable, true)), Need::Nothing),
        (Rotated, false, Some((Proven, false)), Need::Nothing),
        (Adopted, false, None, Need::Verify),
        (Adopted, false, Some((Differs, false)), Need::Verify),
        (Adopted, false, Some((Incomparable, false)), Need::Nothing),
        (Adopted, false, Some((Proven, false)), Need::Nothing),
        (Foreign, false, None, Need::Nothing),
        (Foreign, false, Some((Differs, false)), Need::Nothing),
    ];
    for (origin, waits, proof, expected) in table {
        let mut secret = settled(TOKEN, origin);
        if waits {
            secret = rotating(secret, Step::Deploy, 900);
        }
        let wish = &wishes("web", &[secret])[0];
        let known = proof.map(|(proof, deployed)| shown(TOKEN, 3, proof, deployed, 500));
        assert_eq!(need(wish, known.as_ref()), expected, "{origin:?}, waits: {waits}, {proof:?}");
    }
}

#[test]
fn a_preflight_counts_proofs_from_its_request_on() {
    let wish = |requested| wishes("web", &[preflight(settled(TOKEN, Rotated), requested)]).remove(0);
    let known = shown(TOKEN, 3, Proven, true, 500);
    assert_eq!(need(&wish(499), Some(&known)), Need::Nothing);
    assert_eq!(need(&wish(500), Some(&known)), Need::Nothing);
    assert_eq!(need(&wish(501), Some(&known)), Need::Verify);
    let differs = shown(TOKEN, 3, Differs, true, 500);
    assert_eq!(need(&wish(501), Some(&differs)), Need::Deploy, "a preflight does not stop what is unproven");
}

#[test]
fn an_older_proof_says_nothing_of_the_published_version() {
    let scene = Scene::new(vec![deploying(TOKEN)])
        .status(|status| status.parameters = vec![shown(TOKEN, 2, Proven, true, 500)]);
    assert_eq!(scene.outcome(), "Deploy");
}

#[test]
fn a_proof_of_the_same_number_of_a_deleted_parameter_says_nothing_of_the_new_one() {
    let before = |status: &mut DockerHostStatus| status.parameters = vec![shown(TOKEN, 3, Proven, true, 500)];
    assert_eq!(Scene::new(vec![deploying(TOKEN)]).status(before).decide(), Decision::Settled);
    let mut recreated = deploying(TOKEN);
    recreated.status.as_mut().unwrap().parameters[0].published_at = at(890);
    let scene = Scene::new(vec![recreated.clone()]).status(before);
    assert_eq!(scene.outcome(), "Deploy");
    assert_ne!(scene.run().revision, the_revision());
}

#[test]
fn one_run_carries_all_that_is_published_but_what_somebody_else_wrote() {
    let foreign = "/app/FOREIGN";
    let scene = Scene::new(vec![deploying(TOKEN), settled(OTHER, Adopted), settled(foreign, Foreign)])
        .status(|status| status.parameters = vec![shown(OTHER, 3, Proven, false, 500)]);
    let run = scene.run();
    assert_eq!(run.mode, RunMode::Deploy);
    let lines: Vec<_> = run.parameters.iter().map(Wish::line).collect();
    assert_eq!(lines, ["/app/OTHER=3", "/app/TOKEN=3"]);
    assert_eq!(run.because, ["/app/TOKEN=3 (ManagedSecret token)"]);
}

#[test]
fn nothing_wanted_or_everything_proven_is_settled() {
    assert_eq!(Scene::new(vec![]).decide(), Decision::Settled);
    let proven = Scene::new(vec![deploying(TOKEN)])
        .status(|status| status.parameters = vec![shown(TOKEN, 3, Proven, true, 950)]);
    assert_eq!(proven.decide(), Decision::Settled);
}

#[test]
fn a_lost_status_is_answered_by_looking_before_deploying() {
    let scene = Scene::new(vec![settled(TOKEN, Rotated)]);
    assert_eq!(scene.outcome(), "Verify");
    let seen = scene.status(|status| status.parameters = vec![shown(TOKEN, 3, Differs, false, 990)]);
    assert_eq!(seen.outcome(), "Deploy");
}

#[test]
fn nothing_starts_while_a_job_runs() {
    let mut scene = Scene::new(vec![deploying(TOKEN)])
        .status(|status| status.run = Some(run(RunMode::Verify, "abc", 1, None, 0)));
    assert_eq!(scene.decide(), Decision::Watch);
    // keyturn waits for a pod that cannot start, until the spec that it was made from has changed.
    scene = scene.status(|status| status.run.as_mut().unwrap().message = Some("no such Secret".into()));
    assert_eq!(scene.decide(), Decision::Watch);
    scene.host.metadata.generation = Some(2);
    assert_eq!(scene.decide(), Decision::Abandon { job: "web-abc-1".into() });
}

#[test]
fn the_attempt_is_one_more_than_any_that_is_known_of() {
    let mut scene = Scene::new(vec![deploying(TOKEN)]);
    assert_eq!(scene.run().attempt, 1);
    scene.tried = vec![
        run(RunMode::Deploy, &the_revision(), 2, Some(100), 0),
        run(RunMode::Verify, &the_revision(), 7, Some(100), 0),
        run(RunMode::Deploy, "another", 9, Some(100), 0),
    ];
    assert_eq!(scene.run().attempt, 3);
    let scene = scene
        .status(|status| status.last_deploy = Some(run(RunMode::Deploy, &the_revision(), 5, Some(200), 1)));
    assert_eq!(scene.run().attempt, 6);
}

#[test]
fn a_failure_is_retried_after_its_backoff_or_at_once_when_something_changed() {
    let failed = |finished| {
        Scene::new(vec![deploying(TOKEN)]).status(|status| {
            status.last_deploy = Some(run(RunMode::Deploy, &the_revision(), 1, Some(finished), 1));
        })
    };
    let mut held = failed(950);
    held = held.status(|status| status.last_run.clone_from(&status.last_deploy));
    assert_eq!(held.outcome(), "Deploy held: BackingOff");
    assert_eq!(held.hold().until, Some(seconds(1010)));
    assert_eq!(failed(940).outcome(), "Deploy", "the backoff is over");

    let mut edited = failed(950);
    edited.host.metadata.generation = Some(2);
    assert_eq!(edited.outcome(), "Deploy", "the spec changed");

    let mut rotated = failed(950);
    rotated.secrets =
        vec![rotating(published(secret("token", &[TOKEN]), &[(TOKEN, 4, Rotated)]), Step::Deploy, 960)];
    assert_eq!(rotated.outcome(), "Deploy", "another version is published");
}

#[test]
fn a_failed_verification_is_retried_after_its_backoff_or_for_a_newer_preflight() {
    let adopted = |requested| preflight(settled(TOKEN, Adopted), requested);
    let revision = revision(&wishes("web", &[adopted(1)]), "deploy.sh");
    let failed = |requested| {
        Scene::new(vec![adopted(requested)])
            .status(|status| status.last_run = Some(run(RunMode::Verify, &revision, 1, Some(950), 1)))
    };
    assert_eq!(failed(940).outcome(), "Verify held: BackingOff");
    assert_eq!(failed(960).outcome(), "Verify");
}

#[test]
fn a_host_whose_last_run_failed_is_looked_at_again_although_everything_is_proven() {
    let scene = |finished| {
        Scene::new(vec![deploying(TOKEN)]).status(|status| {
            status.parameters = vec![shown(TOKEN, 3, Proven, true, 900)];
            status.last_run = Some(run(RunMode::Verify, &the_revision(), 1, Some(finished), 1));
        })
    };
    assert_eq!(scene(950).outcome(), "Verify held: BackingOff");
    assert_eq!(scene(940).outcome(), "Verify");
}

#[test]
fn suspension_grants_and_a_malformed_spec_hold_back_every_run() {
    for secret in [deploying(TOKEN), settled(TOKEN, Adopted)] {
        let mut scene = Scene::new(vec![secret]);
        let mode = scene.outcome();
        scene.verdict = Verdict::Observe("RotationGrant stop has mode: Observe".to_owned());
        assert_eq!(scene.outcome(), format!("{mode} held: Observe"));
        scene.verdict = Verdict::Denied("hosts: [{host: web.example}]".into());
        assert_eq!(scene.outcome(), format!("{mode} held: NotGranted"));
        assert!(scene.hold().trouble.is_permanent());
        scene.problems = vec!["spec.ssh.knownHosts[0]: is no line of known_hosts".into()];
        assert_eq!(scene.outcome(), format!("{mode} held: InvalidSpec"));
        assert!(
            scene.hold().trouble.is_permanent() && scene.hold().trouble.message.contains("knownHosts[0]")
        );
        scene.host.spec.suspend = true;
        assert_eq!(scene.outcome(), format!("{mode} held: Suspended"));
        assert!(!scene.hold().trouble.is_permanent());
    }
}

#[test]
fn a_window_holds_back_only_what_no_rotation_waits_for() {
    let seen = |secrets| {
        Scene::new(secrets).status(|status| status.parameters = vec![shown(TOKEN, 3, Differs, false, 500)])
    };
    let mut added = seen(vec![settled(TOKEN, Rotated)]);
    added.window = WindowGate::OpensAt(seconds(5000));
    assert_eq!(added.outcome(), "Deploy held: WaitingForWindow");
    assert_eq!(added.hold().until, Some(seconds(5000)));
    added.window = WindowGate::Unusable("unknown time zone".into());
    assert!(added.hold().trouble.is_permanent());

    let mut rotation = seen(vec![deploying(TOKEN)]);
    rotation.window = WindowGate::OpensAt(seconds(5000));
    assert_eq!(rotation.outcome(), "Deploy");
}

#[test]
fn a_deployment_waits_for_secrets_that_are_about_to_be_published_but_not_for_long() {
    let arriving = |step: Step, since| rotating(settled(OTHER, Rotated), step, since);
    // (start of the waiting rotation, step and start of the other rotation, time until which the deployment
    // waits)
    let table = [
        (980, Step::Record, 990, Some(1020)),
        (980, Step::Promote, 900, Some(1010)),
        (971, Step::Promote, 900, Some(1001)),
        (970, Step::Promote, 970, None),
        (980, Step::Deploy, 990, None),
        // A series of arrivals does not delay the deployment without end.
        (895, Step::Record, 990, Some(1015)),
        (880, Step::Record, 999, None),
    ];
    for (began, step, since, until) in table {
        let waiting = rotating(settled(TOKEN, Rotated), Step::Deploy, began);
        let scene = Scene::new(vec![waiting, arriving(step, since)]);
        let case = format!("{began} {step} {since}");
        match until {
            None => assert_eq!(scene.outcome(), "Deploy", "{case}"),
            Some(until) => {
                let hold = scene.hold();
                assert_eq!(
                    (hold.trouble.reason, hold.until),
                    (Reason::Coalescing, Some(seconds(until))),
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn the_wait_for_other_secrets_starts_no_verification_of_what_the_deployment_will_show() {
    let scene = Scene::new(vec![
        rotating(settled(TOKEN, Rotated), Step::Deploy, 980),
        rotating(settled(OTHER, Rotated), Step::Record, 990),
        settled("/app/THIRD", Adopted),
    ]);
    assert_eq!(scene.outcome(), "Deploy held: Coalescing");
}

/// A secret whose only role has been changed since this second, or is about to be.
fn changed_in_place(path: &str, since: i64) -> ManagedSecret {
    let mut role = rotating(settled(path, Rotated), Step::Promote, since);
    role.metadata.name = Some("role".into());
    role.spec.generate = serde_json::from_value(serde_json::json!({
        "postgres": {"host": "db.example", "database": "app", "singleRole": {"name": "app"}}
    }))
    .unwrap();
    role
}

#[test]
fn a_role_that_is_changed_in_place_holds_deployments_for_a_while_and_urgent_ones_never() {
    let scene = |since, urgent| {
        let mut other = deploying(TOKEN);
        other.status.as_mut().unwrap().compromise = urgent;
        Scene::new(vec![other, changed_in_place(OTHER, since)])
            .status(|status| status.parameters = vec![shown(OTHER, 3, Proven, true, 500)])
    };
    let held = scene(900, None);
    assert_eq!(held.outcome(), "Deploy held: WaitingForSecret");
    assert!(held.hold().trouble.message.contains("ManagedSecret role"), "{}", held.hold().trouble.message);
    assert_eq!(held.hold().until, Some(seconds(1200)));
    assert_eq!(scene(700, None).outcome(), "Deploy", "it takes too long");
    let open = serde_json::json!({"reportedAt": at(900), "revokeBy": at(1800)});
    assert_eq!(scene(900, serde_json::from_value(open).unwrap()).outcome(), "Deploy");
}

#[test]
fn a_deployment_that_is_held_for_long_does_not_keep_others_from_being_verified() {
    let scene = Scene::new(vec![deploying(TOKEN), settled(OTHER, Adopted)]).status(|status| {
        let wishes = wishes("web", &[deploying(TOKEN), settled(OTHER, Adopted)]);
        status.last_deploy = Some(run(RunMode::Deploy, &revision(&wishes, "deploy.sh"), 1, Some(990), 1));
    });
    assert_eq!(scene.outcome(), "Verify");
}

#[test]
fn hosts_that_go_first_must_have_proven_the_version() {
    let mut secret = deploying(TOKEN);
    secret.spec.hosts.push(keyturn_api::managed_secret::HostRef { name: "canary".into(), env: vec![] });
    let scene = |proofs: Vec<HostParameter>| {
        let mut scene = Scene::new(vec![secret.clone()]);
        scene.host.spec.deploy.after = vec!["canary".into()];
        scene.others = vec![with_status(host("canary"), |status| status.parameters = proofs)];
        scene
    };
    let waiting = scene(vec![]);
    assert_eq!(waiting.outcome(), "Deploy held: WaitingForHost");
    assert!(
        waiting.hold().trouble.message.contains("canary")
            && waiting.hold().trouble.message.contains("/app/TOKEN=3")
    );
    assert_eq!(scene(vec![shown(TOKEN, 2, Proven, true, 950)]).outcome(), "Deploy held: WaitingForHost");
    assert_eq!(scene(vec![shown(TOKEN, 3, Differs, true, 950)]).outcome(), "Deploy held: WaitingForHost");
    assert_eq!(scene(vec![shown(TOKEN, 3, Proven, true, 950)]).outcome(), "Deploy");
    assert_eq!(scene(vec![shown(TOKEN, 3, Incomparable, true, 950)]).outcome(), "Deploy");

    let mut not_of_this_secret = scene(vec![]);
    not_of_this_secret.secrets = vec![deploying(TOKEN)];
    assert_eq!(not_of_this_secret.outcome(), "Deploy");
}

#[test]
fn a_host_whose_password_was_changed_waits_for_no_other_host() {
    let scene = |in_place: bool, other: DockerHostStatus| {
        let mut secret = changed_in_place(TOKEN, 900);
        secret.status.as_mut().unwrap().rotation.as_mut().unwrap().step = Step::Deploy;
        secret.spec.hosts.push(keyturn_api::managed_secret::HostRef { name: "canary".into(), env: vec![] });
        if !in_place {
            secret.spec.generate = settled(TOKEN, Rotated).spec.generate;
        }
        let mut scene = Scene::new(vec![secret]);
        scene.host.spec.deploy.after = vec!["canary".into()];
        scene.others = vec![with_status(host("canary"), |status| *status = other)];
        scene
    };
    let unproven = DockerHostStatus::default;
    assert_eq!(scene(false, unproven()).outcome(), "Deploy held: WaitingForHost");
    assert_eq!(scene(true, unproven()).outcome(), "Deploy");
    let deploys = DockerHostStatus { run: Some(run(RunMode::Deploy, "x", 1, None, 0)), ..unproven() };
    assert_eq!(scene(true, deploys).outcome(), "Deploy");
    let mut gone = scene(true, unproven());
    gone.others.clear();
    assert_eq!(gone.outcome(), "Deploy");
}

#[test]
fn a_preflight_of_a_host_that_could_not_be_deployed_to_does_not_start() {
    let mut scene = Scene::new(vec![preflight(settled(TOKEN, Rotated), 950)]);
    assert_eq!(scene.outcome(), "Verify");
    scene.host.spec.deploy.after = vec!["canary".into()];
    assert_eq!(scene.outcome(), "Verify held: AfterNotFound");
    // A verification that is no preflight starts.
    scene.secrets = vec![settled(TOKEN, Adopted)];
    assert_eq!(scene.outcome(), "Verify");
}

#[test]
fn an_order_that_cannot_be_kept_stalls() {
    let mut scene = Scene::new(vec![deploying(TOKEN)]);
    scene.host.spec.deploy.after = vec!["canary".into()];
    assert_eq!(
        (scene.hold().trouble.reason.name(), scene.hold().trouble.is_permanent()),
        ("AfterNotFound", true)
    );

    let mut canary = host("canary");
    canary.spec.deploy.after = vec!["web".into()];
    scene.others = vec![canary];
    assert_eq!(
        (scene.hold().trouble.reason.name(), scene.hold().trouble.is_permanent()),
        ("AfterIsACircle", true)
    );

    let mut canary = host("canary");
    canary.spec.deploy.after = vec!["first".into()];
    let mut first = host("first");
    first.spec.deploy.after = vec!["canary".into()];
    scene.others = vec![canary, first];
    assert_eq!(scene.outcome(), "Deploy", "a circle among others is theirs to report");
}

#[test]
fn hosts_of_one_secret_deploy_one_after_another() {
    let mut secret = deploying(TOKEN);
    secret.spec.hosts.push(keyturn_api::managed_secret::HostRef { name: "app".into(), env: vec![] });
    let scene = |change: &dyn Fn(&mut DockerHost)| {
        let mut other = host("app");
        change(&mut other);
        let mut scene = Scene::new(vec![secret.clone()]);
        scene.others = vec![other];
        scene
    };
    fn status(host: &mut DockerHost) -> &mut DockerHostStatus {
        host.status.get_or_insert_default()
    }
    let deploys = |host: &mut DockerHost| status(host).run = Some(run(RunMode::Deploy, "abc", 1, None, 0));
    let verifies = |host: &mut DockerHost| {
        status(host).run = Some(run(RunMode::Verify, "abc", 1, None, 0));
        status(host).parameters = vec![shown(TOKEN, 3, Proven, true, 950)];
    };
    let has_tried = |host: &mut DockerHost| {
        let mut tried = run(RunMode::Deploy, "abc", 1, Some(990), 1);
        tried.parameters = vec![format!("{TOKEN}=3")];
        status(host).last_deploy = Some(tried);
    };
    assert_eq!(scene(&deploys).outcome(), "Deploy held: WaitingForHost");
    assert_eq!(scene(&|_| ()).outcome(), "Deploy held: WaitingForHost", "app comes before web");
    assert_eq!(scene(&verifies).outcome(), "Deploy");
    assert_eq!(scene(&has_tried).outcome(), "Deploy", "a host that failed does not block the others");
    assert_eq!(scene(&|host| host.spec.suspend = true).outcome(), "Deploy");

    let mut late = scene(&|_| ());
    late.secrets[0] = {
        let mut secret = late.secrets[0].clone();
        secret.status.as_mut().unwrap().rotation.as_mut().unwrap().started_at = at(800);
        secret
    };
    assert_eq!(late.outcome(), "Deploy", "the first by name is not waited for without end");
}

#[test]
fn the_audit_of_the_images_is_a_verification_of_its_own_when_no_run_has_looked_in_time() {
    let looked = |at_second, settings: &str| ImageAudit {
        at: at(at_second),
        images: 1,
        allowed: 0,
        left_out: 0,
        problem: None,
        settings: settings.to_owned(),
        layers: None,
    };
    let scene = |audit: Option<&str>, created, last: Option<ImageAudit>, secrets: Vec<ManagedSecret>| {
        let mut scene = Scene::new(secrets).status(|status| status.image_audit = last);
        scene.host.spec.audit = audit.map(|audit| serde_json::from_str(audit).unwrap());
        scene.host.metadata.creation_timestamp = Some(at(created));
        scene
    };
    let every = |interval: &str| format!("{{\"interval\": \"{interval}\"}}");
    let known = |interval: &str| audit_settings(&scene(Some(&every(interval)), 0, None, vec![]).host.spec);
    let arriving = || preflight(published(secret("token", &[TOKEN]), &[(TOKEN, 3, Adopted)]), 990);
    for (what, scene, starts) in [
        ("nobody asked", scene(None, -9999, None, vec![]), false),
        ("no interval", scene(Some("{}"), -9999, None, vec![]), false),
        ("a new host", scene(Some(&every("1d")), 200, None, vec![]), false),
        ("not so new", scene(Some(&every("1d")), 100, None, vec![]), true),
        ("a short interval", scene(Some(&every("1m")), 940, None, vec![]), true),
        ("in time", scene(Some(&every("5m")), 0, Some(looked(701, &known("5m"))), vec![]), false),
        ("too long ago", scene(Some(&every("5m")), 0, Some(looked(700, &known("5m"))), vec![]), true),
        ("by other rules", scene(Some("{}"), 0, Some(looked(999, &known("5m"))), vec![]), true),
    ] {
        match scene.decide() {
            Decision::Start(run) => assert_eq!((run.mode, starts), (RunMode::Verify, true), "{what}"),
            decision => assert!(!starts && decision == Decision::Settled, "{what}: {decision:?}"),
        }
    }
    let due = scene(Some(&every("5m")), 0, Some(looked(700, &known("5m"))), vec![arriving()])
        .status(|status| status.parameters = vec![shown(TOKEN, 3, Proven, true, 995)]);
    assert_eq!(due.decide(), Decision::Settled, "what is about to be deployed looks anyway");
}

fn collection(script: &str) -> Collection {
    let about = About {
        incident: "leak".into(),
        incident_uid: "uid".into(),
        secret: "token".into(),
        since: 100,
        until: 900,
    };
    Collection { about, script: script.into(), timeout_seconds: 120 }
}

fn proven(secrets: Vec<ManagedSecret>) -> Scene {
    let mut scene =
        Scene::new(secrets).status(|status| status.parameters = vec![shown(TOKEN, 3, Proven, true, 950)]);
    scene.collections = vec![collection("grep")];
    scene
}

/// The recorded result of the collection after a try that ended at second 990.
fn tried(of: &Collection, found: bool, until: i64) -> HostAccessLog {
    HostAccessLog {
        incident: "leak".into(),
        incident_uid: of.about.incident_uid.clone(),
        secret: of.about.secret.clone(),
        since: at(of.about.since),
        until: at(until),
        at: at(990),
        job: "web-1-c1".into(),
        revision: of.revision(),
        attempt: 4,
        failures: i32::from(!found),
        retry_after: (!found).then(|| at(1050)),
        problem: (!found).then(|| "no such container".into()),
        found: found.then(LogLines::default),
    }
}

#[test]
fn log_lines_are_collected_once_and_a_failure_is_tried_again_later_or_with_another_script() {
    let quiet = || proven(vec![settled(TOKEN, Rotated)]);
    let run = quiet().run();
    assert_eq!((run.mode, run.parameters.len(), run.attempt), (RunMode::Collect, 0, 1));
    assert_eq!(run.collection, Some(collection("grep")));
    let wanted = collection("grep");
    for (known, outcome) in [
        (tried(&wanted, true, 900), "Settled"),
        (tried(&wanted, true, 899), "Collect"),
        (tried(&wanted, false, 900), "Settled"),
        (tried(&collection("other"), false, 900), "Collect"),
    ] {
        let scene = quiet().status(|status| status.access_logs = vec![known.clone()]);
        assert_eq!(scene.outcome(), outcome, "{known:?}");
    }
    let failed = quiet().status(|status| status.access_logs = vec![tried(&wanted, false, 900)]);
    let status = failed.host.status.clone().unwrap();
    assert_eq!(next_collection(&status, &failed.collections), Some(seconds(1050)));
    let mut due = tried(&wanted, false, 900);
    due.retry_after = Some(at(1000));
    let again = quiet().status(|status| status.access_logs = vec![due]);
    assert_eq!(again.run().attempt, 5, "a Job of another name");
}

#[test]
fn a_collection_lets_everything_else_go_first_and_makes_room_for_a_deployment() {
    assert_eq!(proven(vec![deploying(OTHER)]).outcome(), "Deploy");
    assert_eq!(proven(vec![settled(OTHER, Rotated)]).outcome(), "Verify");
    let mut held = proven(vec![deploying(OTHER)]);
    held.host.spec.deploy.after = vec!["gone".into()];
    assert_eq!(held.outcome(), "Collect", "what keeps deployments back keeps nobody from reading logs");
    held.host.spec.suspend = true;
    assert_eq!(held.outcome(), "Deploy held: Suspended");

    let collecting = |status: &mut DockerHostStatus| {
        status.run = Some(run(RunMode::Collect, "abc", 1, None, 0));
    };
    let quiet = proven(vec![settled(TOKEN, Rotated)]).status(collecting);
    assert_eq!(quiet.decide(), Decision::Watch);
    let urgent = proven(vec![deploying(OTHER)]).status(collecting);
    assert_eq!(urgent.decide(), Decision::Abandon { job: "web-abc-1".into() });
}
