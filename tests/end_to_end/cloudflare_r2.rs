//! Tests R2 key pairs: a new token, both halves published and deployed, the old token deleted, and nothing left
//! behind.

use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use super::controller;
use super::kills::{any_moment_of, kill_controller, number};
use super::project::Project;
use super::ssm;
use super::world::{eventually, run, run_with, variable};

const ADMIN: &str = "canary-administering-token-of-the-world";
pub(crate) const ID: &str = "R2_ACCESS_KEY_ID";
const SECRET: &str = "R2_SECRET_ACCESS_KEY";
/// Delay until R2 knows of a new or a deleted token here, in milliseconds.
const PROPAGATION: u64 = 1_500;
/// Duration of an answer, in milliseconds, in tests where a kill must fall between a token and its record.
const GAP: u64 = 3_000;
const INCIDENT: &str = "secretincident/leak";

/// A Cloudflare account for one test, with one bucket and a pair that a person made, in use on the host.
pub(crate) struct Account {
    pub project: Project,
    id: String,
}

/// A pair of R2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub id: String,
    pub secret: String,
}

fn curl(method: &str, path: &str, body: &Value) -> String {
    let address = format!("{}/{path}", variable("KEYTURN_CLOUDFLARE"));
    let arguments = ["-sf", "-X", method, &address, "-H", "content-type: application/json", "-d", "@-"];
    run_with("curl", &arguments, &body.to_string())
}

fn get(path: &str) -> Value {
    let address = format!("{}/{path}", variable("KEYTURN_CLOUDFLARE"));
    serde_json::from_str(&run("curl", &["-sf", &address])).unwrap()
}

impl Account {
    /// Creates an account with a pair in use. `more` is further YAML of the ManagedSecret's spec.
    pub(crate) fn with_a_pair_in_use(subject: &str, number: u32, more: &str) -> Self {
        let project = Project::new(subject);
        let id = format!("{:024x}{:08x}", std::process::id(), number);
        curl("POST", "_emulator/settings", &json!({"propagationMs": PROPAGATION}));
        curl(
            "PUT",
            &format!("_emulator/accounts/{id}"),
            &json!({"admin": ADMIN, "buckets": [{"name": "media"}]}),
        );
        let account = Self { project, id };
        let first = account.made_by_a_person("made by hand");
        account.made_by_a_person("of somebody else");
        ssm::put(&account.project.path(ID), &first.id);
        ssm::put(&account.project.path(SECRET), &first.secret);
        account.accepted(&first);
        account.project.apply(&format!(
            "{}  cloudflare: [{{accountId: \"{}\"}}]\n",
            account.project.grant("Rotate"),
            account.id
        ));
        let token = format!("--from-literal=token={ADMIN}");
        account.project.create_secret("cloudflare", "cloudflare", &[&token]);
        super::world::on_host(&format!(
            "cd ~/e2e/{} && bash deploy/secrets.sh && bash deploy/deploy.sh",
            account.project.name
        ));
        account.project.apply(&account.secret(more));
        account.project.settled("r2");
        account
    }

    fn secret(&self, more: &str) -> String {
        format!(
            "apiVersion: keyturn.dev/v1alpha1
kind: ManagedSecret
metadata: {{name: r2, namespace: {namespace}}}
spec:
  ssm:
    parameters:
    - {{path: {path_of_id}, value: \"{{accessKeyId}}\"}}
    - {{path: {path_of_secret}, value: \"{{secretAccessKey}}\"}}
  generate:
    cloudflareR2:
      accountId: \"{account}\"
      buckets: [media]
      tokenSecretRef: {{name: cloudflare, key: token}}
  rotation: {{period: 90d}}
  hosts: [{{name: web}}]
{more}",
            namespace = self.project.name,
            path_of_id = self.project.path(ID),
            path_of_secret = self.project.path(SECRET),
            account = self.id,
        )
    }

    fn made_by_a_person(&self, name: &str) -> Pair {
        let policies = json!([{
            "effect": "allow", "permission_groups": [{"id": "2efd5506f9c8494dacb1fa10a3e7d5b6"}],
            "resources": {format!("com.cloudflare.edge.r2.bucket.{}_default_media", self.id): "*"},
        }]);
        let path = format!("_emulator/accounts/{}/tokens", self.id);
        let made = curl("POST", &path, &json!({"name": name, "policies": policies}));
        let made: Value = serde_json::from_str(&made).unwrap();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Pair { id: text("accessKeyId"), secret: text("secretAccessKey") }
    }

    /// Makes all deletions of this account's tokens fail from now on.
    pub(crate) fn deletions_fail(&self) {
        let failing = json!({
            "operation": "DeleteToken", "account": self.id, "times": null, "fault": {"kind": "serverError"},
        });
        curl("POST", "_emulator/faults", &failing);
    }

    /// Ends the faults of this account only, since tests run in parallel.
    pub(crate) fn no_fault(&self) {
        let faults = format!("{}/_emulator/accounts/{}/faults", variable("KEYTURN_CLOUDFLARE"), self.id);
        run("curl", &["-sf", "-X", "DELETE", &faults]);
    }

    fn listed(&self) -> Value {
        get(&format!("_emulator/accounts/{}/tokens", self.id))
    }

    /// Returns ids and names of the existing tokens, except somebody else's, and the number of tokens that were ever
    /// made.
    fn tokens(&self) -> (Vec<(String, String)>, u64) {
        let listed = self.listed();
        let text = |token: &Value, name: &str| token[name].as_str().unwrap().to_owned();
        let tokens = listed["tokens"].as_array().unwrap().iter();
        let mut tokens: Vec<(String, String)> =
            tokens.map(|token| (text(token, "id"), text(token, "name"))).collect();
        let all = tokens.len();
        tokens.retain(|(_, name)| name != "of somebody else");
        assert_eq!(tokens.len() + 1, all, "the token of somebody else is still there");
        (tokens, listed["made"].as_u64().unwrap())
    }

    /// Returns the id of the token that keyturn must not touch.
    pub(crate) fn token_of_somebody_else(&self) -> String {
        let listed = self.listed();
        let mut tokens = listed["tokens"].as_array().unwrap().iter();
        let found = tokens.find(|token| token["name"] == "of somebody else");
        found.and_then(|token| token["id"].as_str()).expect("a token of somebody else").to_owned()
    }

    /// Returns the number of tokens that were ever made.
    fn made(&self) -> u64 {
        self.tokens().1
    }

    /// Returns the pair that SSM publishes.
    pub(crate) fn published(&self) -> Pair {
        let value = |name: &str| ssm::value(&self.project.path(name)).unwrap();
        Pair { id: value(ID), secret: value(SECRET) }
    }

    /// Lists the bucket's objects with a request that curl signs with this pair, and returns the HTTP status.
    pub(crate) fn list(&self, pair: &Pair) -> String {
        let address = format!("{}/s3/{}/media?list-type=2", variable("KEYTURN_CLOUDFLARE"), self.id);
        // Through stdin, since everybody can read arguments.
        let config = format!("user = \"{}:{}\"\naws-sigv4 = \"aws:amz:auto:s3\"\n", pair.id, pair.secret);
        let arguments = [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-K",
            "-",
            "-H",
            "x-amz-content-sha256: UNSIGNED-PAYLOAD",
            &address,
        ];
        run_with("curl", &arguments, &config)
    }

    fn accepted(&self, pair: &Pair) {
        eventually("R2 accepts the pair", || {
            let status = self.list(pair);
            if status == "200" { Ok(()) } else { Err(status) }
        });
    }

    pub(crate) fn refused(&self, pair: &Pair) {
        eventually("R2 refuses the pair", || {
            let status = self.list(pair);
            if status == "401" { Ok(()) } else { Err(status) }
        });
    }

    /// Asserts that host and SSM agree on a pair that works, and that its token is the only live one.
    pub(crate) fn only_the_published_lives(&self) {
        let published = self.published();
        let running = |name: &str| self.project.running(name).unwrap_or_default();
        assert!(
            Pair { id: running(ID), secret: running(SECRET) } == published,
            "the host runs what SSM publishes"
        );
        assert_eq!(self.list(&published), "200", "R2 accepts it");
        eventually("nothing is left behind", || {
            let (tokens, _) = self.tokens();
            let alive: Vec<&String> = tokens.iter().map(|(id, _)| id).collect();
            if alive == [&published.id] {
                Ok(())
            } else {
                Err(format!("{tokens:?}, {} is published", published.id))
            }
        });
    }
}

#[test]
#[ignore = "needs the world"]
fn a_key_pair_is_made_proven_deployed_and_the_old_one_dies() {
    let account = Account::with_a_pair_in_use("r2", 1, "");
    let project = &account.project;
    let first = account.published();
    let started = Instant::now();
    project.request("r2", "once");
    assert_eq!(project.answered("r2", "once"), "Succeeded");
    project.settled("r2");
    println!("R2: rotated end to end in {:.1} s", started.elapsed().as_secs_f64());
    let second = account.published();
    assert!(second.id != first.id && second.secret != first.secret, "both halves are new");
    assert_eq!((project.version(ID), project.version(SECRET)), (2, 2), "one rotation, one version of each");
    account.refused(&first);
    account.only_the_published_lives();
    let (tokens, _) = account.tokens();
    assert_eq!(tokens, [(second.id.clone(), format!("world/{}/r2/1", project.name))]);
    assert_eq!(project.field("managedsecret/r2", "/status/pendingRetirements"), "");
    assert_eq!(project.field("managedsecret/r2", "/status/target/accepts"), "true");
    assert_eq!(ssm::records(&project.name), "", "no record is left");
    for secret in [&first.secret, &second.secret, &ADMIN.to_owned()] {
        let logs = controller::logs();
        let objects = project.kubectl(&["get", "managedsecrets,dockerhosts,events,jobs", "-o", "yaml"]);
        assert!(!logs.contains(secret.as_str()) && !objects.contains(secret.as_str()), "a value is shown");
    }
}

#[test]
#[ignore = "needs the world"]
fn one_token_lives_however_often_the_controller_is_killed() {
    let account = Account::with_a_pair_in_use("r2-kills", 2, "");
    let project = &account.project;
    // Between a token and its record there are only milliseconds, which a kill hardly ever hits, so the test makes the
    // time longer.
    let slow = json!({
        "operation": "CreateToken", "account": account.id, "times": null, "fault": {"kind": "slow", "ms": GAP},
    });
    curl("POST", "_emulator/faults", &slow);
    let rounds = number("KEYTURN_R2_KILLS", 4);
    let (mut hits, mut left_behind) = (0, 0);
    for round in 1..=rounds {
        let (before, made) = (account.published(), account.made());
        let token = format!("round-{round}");
        project.request("r2", &token);
        let moment = if round == 1 {
            // At least this kill must hit that time.
            eventually("the token is made", || {
                if account.made() > made { Ok(()) } else { Err(made.to_string()) }
            });
            Duration::ZERO
        } else {
            any_moment_of(9_000)
        };
        std::thread::sleep(moment);
        kill_controller();
        assert_eq!(project.answered("r2", &token), "Succeeded", "round {round}, killed after {moment:?}");
        assert_ne!(account.published(), before, "round {round}");
        let without_a_record = account.made() - made - 1;
        hits += u64::from(without_a_record > 0);
        left_behind += without_a_record;
    }
    project.settled("r2");
    account.only_the_published_lives();
    println!(
        "R2: {rounds} kills, {hits} of them between a token and its record, {left_behind} tokens left behind and swept"
    );
    assert!(hits > 0, "the first kill was to come between a token and its record");
    assert_eq!(ssm::records(&project.name), "", "no record is left");
    controller::rolled_out();
}

#[test]
#[ignore = "needs the world"]
fn a_token_whose_creation_was_not_answered_is_swept() {
    let account = Account::with_a_pair_in_use("r2-orphan", 3, "");
    let project = &account.project;
    let lost = json!({
        "operation": "CreateToken", "account": account.id, "times": 2, "fault": {"kind": "drop", "applied": true},
    });
    curl("POST", "_emulator/faults", &lost);
    project.request("r2", "once");
    assert_eq!(project.answered("r2", "once"), "Succeeded");
    project.settled("r2");
    account.only_the_published_lives();
    let (_, made) = account.tokens();
    assert_eq!(made, 5, "two by hand, two whose answers were lost, one that is in use");
}

#[test]
#[ignore = "needs the world"]
fn a_deletion_that_fails_is_an_alarm_and_is_done_in_the_end() {
    let account = Account::with_a_pair_in_use("r2-retire", 4, "");
    let project = &account.project;
    let first = account.published();
    account.deletions_fail();
    let began = Instant::now();
    project.request("r2", "once");
    let object = "managedsecret/r2";
    let failed_often = eventually("the deletion has failed again and again", || {
        let attempts = project.field(object, "/status/failure/attempts").parse::<u32>().unwrap_or(0);
        let step = project.field(object, "/status/failure/step");
        if step == "Retire" && attempts >= 5 { Ok(attempts) } else { Err(format!("{step} {attempts}")) }
    });
    assert!(failed_often >= 5);
    project.wait_reason(object, "Ready", "True", "CloudflareUnavailable");
    let pending = project.field(object, "/status/pendingRetirements/0/credential");
    assert_eq!(pending, first.id, "the old token is said to work still");
    let events =
        project.kubectl(&["get", "events", "--field-selector=reason=RetirementFailing", "-o", "name"]);
    assert!(!events.is_empty(), "an Event says so");
    let labels = format!("namespace=\"{}\",name=\"r2\"", project.name);
    // A leader that has just taken over counts only its own failures.
    eventually("the metric counts the failures", || {
        let metrics = controller::metrics(&controller::leader())?;
        let failures = metrics
            .lines()
            .find(|line| line.starts_with("keyturn_secret_retirement_failures") && line.contains(&labels));
        if failures.is_some_and(|line| !line.ends_with(" 0")) { Ok(()) } else { Err(format!("{failures:?}")) }
    });
    assert_eq!(account.list(&first), "200", "it does work");
    assert!(project.running(ID).is_some_and(|id| id != first.id), "the host has left it all the same");

    let failing_for = Duration::from_secs(number("KEYTURN_R2_FAILING", 0)).saturating_sub(began.elapsed());
    std::thread::sleep(failing_for);
    let alarm = project.kubectl(&["get", object, "-o", "jsonpath={.status.failure}"]);
    println!("R2: the deletion fails for {:.0} s: {alarm}", began.elapsed().as_secs_f64());
    assert_eq!(account.list(&first), "200", "the old pair lives as long as its deletion fails");
    project.wait_reason(object, "Ready", "True", "CloudflareUnavailable");
    account.no_fault();
    assert_eq!(project.answered("r2", "once"), "Succeeded");
    project.settled("r2");
    account.refused(&first);
    account.only_the_published_lives();
    assert_eq!(project.field(object, "/status/pendingRetirements"), "");
}

#[test]
#[ignore = "needs the world"]
fn an_administering_token_that_is_refused_is_named_and_nothing_is_touched() {
    let account = Account::with_a_pair_in_use("r2-admin", 5, "");
    let project = &account.project;
    let before = (account.published(), account.tokens());
    project.kubectl(&["delete", "secret", "cloudflare"]);
    project.create_secret("cloudflare", "cloudflare", &["--from-literal=token=canary-of-nobody"]);
    project.request("r2", "once");
    let message = project.wait_reason("managedsecret/r2", "Stalled", "True", "AdministratorRefused");
    assert!(message.contains("Account API Tokens Write") && !message.contains("canary"), "{message}");
    assert_eq!((account.published(), account.tokens()), before, "nothing was touched");
    project.kubectl(&["delete", "secret", "cloudflare"]);
    project.create_secret("cloudflare", "cloudflare", &[&format!("--from-literal=token={ADMIN}")]);
    assert_eq!(project.answered("r2", "once"), "Succeeded");
    project.settled("r2");
    account.only_the_published_lives();
}

/// Reports the pair as suspected since now.
fn report(project: &Project, revoke_within: &str) {
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    project.apply(&format!(
        "apiVersion: keyturn.dev/v1alpha1
kind: SecretIncident
metadata: {{name: leak, namespace: {}}}
spec:
  managedSecretRefs: [{{name: r2}}]
  reportedAt: \"{now}\"
  suspectedSince: \"{now}\"
  reason: the pair was in a pasted log
  revokeWithin: {revoke_within}
",
        project.name,
    ));
}

/// Asserts that the stolen pair is dead, that the published pair works, and that the report says so without a value.
fn contained(account: &Account, stolen: &Pair) {
    let project = &account.project;
    eventually("the incident is contained", || match project.field(INCIDENT, "/status/state").as_str() {
        "Contained" => Ok(()),
        state => Err(format!("{state}: {}", project.field(INCIDENT, "/status/secrets"))),
    });
    assert_eq!(account.list(stolen), "401", "R2 refuses the stolen pair");
    let published = account.published();
    assert!(published.id != stolen.id && published.secret != stolen.secret, "both halves are new");
    assert_eq!(account.list(&published), "200", "R2 accepts the new pair");
    let report = run("keyturn", &["incident", "report", "leak", "-n", &project.name, "--status-only"]);
    assert!(report.contains("State: Contained"), "{report}");
    assert!(!report.contains(&stolen.secret) && !report.contains(&published.secret), "a value is shown");
    let at = |field: &str| project.field(INCIDENT, field);
    println!(
        "R2 incident: reported {}, contained {}, adopted {}",
        at("/spec/reportedAt"),
        at("/status/containedAt"),
        at("/status/secrets/0/adoptedAt"),
    );
}

#[test]
#[ignore = "needs the world"]
fn a_suspected_pair_dies_as_soon_as_the_host_runs_another() {
    let account = Account::with_a_pair_in_use("r2-incident", 6, "  retire: {after: 9d}\n");
    let project = &account.project;
    let stolen = account.published();
    report(project, "15m");
    contained(&account, &stolen);
    project.settled("r2");
    account.only_the_published_lives();
    assert_eq!((project.version(ID), project.version(SECRET)), (2, 2), "one rotation, one version of each");
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}

#[test]
#[ignore = "needs the world"]
fn a_host_that_does_not_follow_keeps_no_suspected_pair_alive() {
    let account = Account::with_a_pair_in_use("r2-incident-down", 7, "");
    let project = &account.project;
    let stolen = account.published();
    project.mark("broken");
    report(project, "1m");
    contained(&account, &stolen);
    assert!(project.running(ID).is_some_and(|id| id == stolen.id), "the host still has the old pair");
    assert_eq!(project.field(INCIDENT, "/status/secrets/0/adoptedAt"), "");
    project.unmark("broken");
    eventually("the host follows once it can", || {
        match project.field(INCIDENT, "/status/secrets/0/adoptedAt").as_str() {
            "" => Err(project.field("managedsecret/r2", "/status/rotation/message")),
            _ => Ok(()),
        }
    });
    project.settled("r2");
    account.only_the_published_lives();
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}
