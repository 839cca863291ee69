//! Tests the response to an incident: contained without touching anything else, every reader named, the old login
//! dead.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use keyturn_aws_emulator::{Emulator, Fault, Quota, Rule, Upstream};
use serde_json::{Value, json};

use super::controller::{self, Environment};
use super::kills::{any_moment_of, kill_controller, number};
use super::postgres::Database;
use super::project::Project;
use super::ssm;
use super::world::{eventually, in_box, on_host, run, variable};

pub(crate) const INCIDENT: &str = "secretincident/leak";

/// A CloudTrail, until it is dropped: of the calls that the world's SSM received, and of added events.
pub(crate) struct Trail {
    emulator: Emulator,
    _runtime: tokio::runtime::Runtime,
    _environment: Environment,
}

impl Trail {
    pub(crate) fn start() -> Self {
        let ssm = variable("AWS_ENDPOINT_URL_SSM");
        let address = ssm.trim_start_matches("http://").rsplit_once(':').expect("a port").0.to_owned();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let upstream = Upstream::new(&ssm).unwrap();
        let emulator = runtime.block_on(Emulator::listen(&format!("{address}:0"), Some(upstream))).unwrap();
        let url = emulator.url();
        let environment =
            Environment::set(&[("AWS_ENDPOINT_URL_CLOUDTRAIL", url.as_str()), ("KEYTURN_TRAIL_DELAY", "6s")]);
        Self { emulator, _runtime: runtime, _environment: environment }
    }

    /// Returns the report of an incident as a person with their own AWS credentials runs it.
    pub(crate) fn report(&self, project: &Project) -> String {
        let endpoint = format!("AWS_ENDPOINT_URL_CLOUDTRAIL={}", self.emulator.url());
        let person =
            ["AWS_ACCESS_KEY_ID=person", "AWS_SECRET_ACCESS_KEY=none", "AWS_REGION=us-east-1", &endpoint];
        let command = ["keyturn", "incident", "report", "leak", "-n", &project.name];
        run("env", &[&person[..], &command[..]].concat())
    }

    /// Adds reads of a stranger: everything below an ancestor, the history, and a read that is refused.
    fn foreign_reads(&self, project: &str) {
        let at = (Utc::now() - TimeDelta::minutes(2)).to_rfc3339_opts(SecondsFormat::Secs, true);
        let event = |id: &str, name: &str, request: Value| {
            json!({
                "eventVersion": "1.11", "eventID": id, "eventTime": at, "eventSource": "ssm.amazonaws.com",
                "eventName": name, "awsRegion": "us-east-1", "sourceIPAddress": "203.0.113.9",
                "userAgent": "aws-cli/2.31",
                "userIdentity": {
                    "type": "AssumedRole", "arn": "arn:aws:sts::123456789012:assumed-role/laptop/mallory",
                    "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::123456789012:role/laptop"}},
                },
                "requestParameters": request,
            })
        };
        let path = format!("/musehub/{project}/DATABASE_URL");
        let mut refused = event("refused", "GetParameter", Value::Null);
        refused["errorCode"] = json!("AccessDenied");
        refused["errorMessage"] = json!(format!(
            "User: x is not authorized to perform: ssm:GetParameter on resource: \
             arn:aws:ssm:us-east-1:123456789012:parameter{path} because no identity-based policy allows it"
        ));
        self.emulator.add_event(event(
            "below",
            "GetParametersByPath",
            json!({"path": "/musehub", "recursive": true}),
        ));
        self.emulator.add_event(event("history", "GetParameterHistory", json!({"name": path})));
        self.emulator.add_event(refused);
    }
}

fn report(project: &Project, revoke_within: &str) {
    report_of(project, "database-url", revoke_within);
}

pub(crate) fn report_of(project: &Project, secret: &str, revoke_within: &str) {
    let now = Utc::now();
    let text = |at: chrono::DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    project.apply(&format!(
        "apiVersion: keyturn.dev/v1alpha1
kind: SecretIncident
metadata: {{name: leak, namespace: {}}}
spec:
  managedSecretRefs: [{{name: {secret}}}]
  reportedAt: \"{}\"
  suspectedSince: \"{}\"
  reason: a laptop was stolen
  expectedReaders: [{{principal: \"arn:aws:iam::*:user/world\"}}]
  revokeWithin: {revoke_within}
",
        project.name,
        text(now),
        text(now - TimeDelta::minutes(3)),
    ));
}

pub(crate) fn state_is(project: &Project, wanted: &str) {
    eventually(&format!("the incident is {wanted}"), || {
        let state = project.field(INCIDENT, "/status/state");
        if state == wanted {
            return Ok(());
        }
        Err(format!("{state}: {}", project.field(INCIDENT, "/status/secrets")))
    });
}

/// Waits until the trail is read up to the moment of containment and the report names the readers. Returns the report.
fn audited(project: &Project, trail: &Trail) -> String {
    eventually("the trail is read to the moment of containment", || {
        match project.condition(INCIDENT, "AuditComplete") {
            (status, ..) if status == "True" => Ok(()),
            (_, _, message) => Err(message),
        }
    });
    let unexpected = project.field(INCIDENT, "/status/unexpectedReaders");
    assert_eq!(unexpected, "2", "one who read, and was refused elsewhere");
    let report = trail.report(project);
    for expected in [
        "role/laptop",
        "GetParameterHistory",
        "GetParametersByPath",
        "refused",
        "State: Contained",
        "## Every call in CloudTrail",
        "2 unexpected reads",
    ] {
        assert!(report.contains(expected), "{expected}\n{report}");
    }
    for value in ssm::all_values(&project.path("DATABASE_URL")) {
        assert!(!report.contains(&value), "a value is in the report");
    }
    report
}

/// A second network address of the docker host. The host can become unreachable there while its database is still
/// reachable.
struct SecondAddress;

impl SecondAddress {
    const ADDRESS: &str = "10.213.0.4";

    fn up() -> Self {
        in_box("production", &format!("ip address replace {}/32 dev eth0", Self::ADDRESS));
        Self
    }

    fn down() {
        in_box("production", &format!("ip address del {}/32 dev eth0 2>/dev/null || true", Self::ADDRESS));
    }

    /// Makes the DockerHost `second` use this address.
    fn of_second(database: &Database) -> Self {
        let (address, project) = (Self::up(), &database.project);
        let own = |text: &str| text.replace(&variable("KEYTURN_HOST"), Self::ADDRESS);
        let host =
            |host: &str| format!("  hosts: [{{host: \"{host}\", port: {}}}", variable("KEYTURN_HOST_PORT"));
        let here = host(&variable("KEYTURN_HOST"));
        let both = format!("{here}, {}", host(Self::ADDRESS).replace("  hosts: [", ""));
        project.apply(&database.grant().replace(&here, &both));
        let known_hosts: Vec<String> = project.known_hosts().iter().map(|line| own(line)).collect();
        project.apply(&own(&database.host("second", &known_hosts)));
        project.wait("dockerhost/second", "Ready", "True");
        address
    }
}

impl Drop for SecondAddress {
    fn drop(&mut self) {
        Self::down();
    }
}

/// A client that logs in with the stolen login and stays connected.
struct Intruder(Child);

impl Intruder {
    fn log_in(database: &Database, url: &str) -> Self {
        let python = "import sys, time, psycopg2\nc = psycopg2.connect(sys.argv[1], application_name='intruder')\n\
                      time.sleep(600)";
        let container = format!("{}-postgres-1", database.project.name);
        let child = Command::new("docker")
            .args(["exec", &container, "python3", "-c", python, url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the intruder is logged in", || match intruders(database).as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        });
        Self(child)
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn intruders(database: &Database) -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'intruder'";
    database.psql(sql).unwrap_or_else(|problem| problem)
}

/// Sets the command that finds the users of the login in the database's log. The clients of the test set no
/// application name.
fn asks_for_logins(project: &Project) {
    let script = format!(
        "set -e\nsudo -n docker inspect {0}-postgres-1 > /dev/null\n\
         sudo -n docker logs --since \"$KEYTURN_SINCE\" --until \"$KEYTURN_UNTIL\" {0}-postgres-1 2>&1 |\n  \
         sed -n '/connection authorized: user=app_[ab] .*application_name=/p'\n",
        project.name
    );
    let patch = json!({"spec": {"accessLog": {"script": script}}}).to_string();
    project.kubectl(&["patch", "managedsecret", "database-url", "--type", "merge", "--patch", &patch]);
}

/// Logs in under an application name, which the database writes into its log.
fn log_in_as(database: &Database, url: &str, name: &str) {
    let python = "import sys, psycopg2; psycopg2.connect(sys.argv[1], application_name=sys.argv[2]).close()";
    let container = format!("{}-postgres-1", database.project.name);
    run("docker", &["exec", &container, "python3", "-c", python, url, name]);
}

/// Asserts that both logins are in the report, with the password removed from the name that contains it, and that the
/// host has them unchanged.
fn the_logins_are_shown(project: &Project, report: &str, password: &str) {
    let marked = format!("application_name=[value:{}]", project.path("DATABASE_URL"));
    for expected in [
        "## Requests that authenticated with the secret",
        "connection authorized: user=app_a database=musehub application_name=intruder",
        &marked,
    ] {
        assert!(report.contains(expected), "{expected}\n{report}");
    }
    let objects = project.kubectl(&["get", "secretincidents,dockerhosts,jobs,pods,events", "-o", "yaml"]);
    let jobs =
        project.kubectl(&["logs", "--selector", "app.kubernetes.io/component=deploy-host", "--tail=-1"]);
    for text in [report, &objects, &jobs] {
        assert!(!text.contains(password), "the password of the log is in Kubernetes");
    }
    let found = |field: &str| project.field(INCIDENT, &format!("/status/logs/0/found/{field}"));
    let file = found("file");
    let kept = on_host(&format!("stat -c %a {file} && sha256sum <{file} && cat {file}"));
    let mut lines = kept.lines();
    assert_eq!(lines.next(), Some("600"));
    assert_eq!(lines.next(), Some(&*format!("{}  -", found("digest"))));
    assert_eq!(lines.count().to_string(), found("lines"));
    assert!(kept.contains(&format!("application_name={password}")), "the evidence is whole");
}

#[test]
#[ignore = "needs the world"]
fn an_incident_is_contained_and_its_readers_named_while_cloudtrail_throttles() {
    let database = Database::of_a_pair(Project::new("incident"), &["web"]);
    let project = &database.project;
    project.apply(&project.secret("other", "OTHER", ""));
    eventually("the other secret is published", || {
        ssm::version(&project.path("OTHER")).map(drop).ok_or_else(|| "not yet".to_owned())
    });
    let trail = Trail::start();
    trail.foreign_reads(&project.name);
    trail.emulator.set_quotas([("LookupEvents".to_owned(), Quota { per_second: 2.0, burst: 2 })]);
    trail.emulator.add_fault(Rule::once("LookupEvents", Fault::Throttle).skipping(4).times(3)).unwrap();
    let before = database.url();
    asks_for_logins(project);
    let _intruder = Intruder::log_in(&database, &before);
    let password = before.split(['/', ':', '@']).nth(4).unwrap();
    log_in_as(&database, &before, password);
    report(project, "15m");
    state_is(project, "Contained");
    assert!(!database.accepts(&before), "the old login is dead");
    assert!(database.accepts(&database.url()), "the new one works");
    assert_eq!(intruders(&database), "0", "whoever was logged in is not any more");
    project.wait(INCIDENT, "LogsCollected", "True");
    let report = audited(project, &trail);
    println!("{report}");
    the_logins_are_shown(project, &report, password);
    assert_eq!(
        (project.version("OTHER"), project.version("DATABASE_URL")),
        (1, 2),
        "nothing else was touched"
    );
    project.settled("database-url");
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}

#[test]
#[ignore = "needs the world"]
fn a_host_that_is_down_keeps_no_stolen_login_alive_though_the_controller_is_killed_again_and_again() {
    let database = Database::of_a_pair(Project::new("incident-down"), &["web", "second"]);
    let project = &database.project;
    let address = SecondAddress::of_second(&database);
    project.settled("database-url");
    let trail = Trail::start();
    trail.foreign_reads(&project.name);
    let before = database.url();
    let _intruder = Intruder::log_in(&database, &before);
    drop(address);
    report(project, "1m");
    for _ in 0..number("KEYTURN_INCIDENT_KILLS", 4) {
        std::thread::sleep(Duration::from_millis(1500) + any_moment_of(1500));
        kill_controller();
    }
    controller::rolled_out();
    state_is(project, "Contained");
    assert!(!database.accepts(&before), "the old login is dead");
    assert!(database.accepts(&database.url()), "the new one works");
    assert_eq!(intruders(&database), "0");
    assert_eq!(project.version("DATABASE_URL"), 2, "one value, however often it was killed");
    assert_eq!(project.field(INCIDENT, "/status/secrets/0/adoptedAt"), "", "a host is still down");
    project.wait_reason("dockerhost/second", "Ready", "False", "Unreachable");
    audited(project, &trail);

    let _address = SecondAddress::up();
    eventually("the host follows once it is back", || {
        match project.field(INCIDENT, "/status/secrets/0/adoptedAt").as_str() {
            "" => Err(project.field("managedsecret/database-url", "/status/rotation/message")),
            _ => Ok(()),
        }
    });
    project.settled("database-url");
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}

#[test]
#[ignore = "needs the world"]
fn no_key_from_before_the_report_stays_in_a_ring() {
    let project = Project::new("ring");
    let ring = "  hosts: [{name: web}]\n  generate: {fernet: {keepPrevious: 2}}\n";
    project.apply(&project.secret("keys", "KEYS", ring));
    project.settled("keys");
    for token in ["second", "third"] {
        project.request("keys", token);
        assert_eq!(project.answered("keys", token), "Succeeded");
        project.settled("keys");
    }
    let before = ssm::value(&project.path("KEYS")).unwrap();
    assert_eq!(before.split(',').count(), 3);
    report_of(&project, "keys", "15m");
    state_is(&project, "Contained");
    let after = ssm::value(&project.path("KEYS")).unwrap();
    let stolen = before.split(',').filter(|key| after.contains(key)).count();
    assert_eq!((stolen, after.split(',').count()), (0, 1), "a new key, and none of those before");
    assert!(project.running("KEYS") == Some(after), "the host runs it");
}

/// A transaction that locks the role `musehub`.
struct RoleLock(Child);

impl RoleLock {
    fn take(database: &Database) -> Self {
        let container = format!("{}-postgres-1", database.project.name);
        let sql = "BEGIN; SELECT 'locked' FROM pg_authid WHERE rolname = 'musehub' FOR UPDATE; SELECT pg_sleep(600)";
        let mut child = Command::new("docker")
            .args([
                "exec",
                "--env",
                "PGAPPNAME=locker",
                &container,
                "psql",
                "-U",
                "musehub",
                "-d",
                "musehub",
                "-c",
                sql,
            ])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the role is locked", || {
            let held = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'locker' \
                        AND relation = 'pg_authid'::regclass AND mode = 'RowShareLock'";
            assert!(child.try_wait().unwrap().is_none(), "the lock was not taken");
            if database.psql(held)? == "1" { Ok(()) } else { Err("not yet".to_owned()) }
        });
        Self(child)
    }

    fn release(&mut self, database: &Database) {
        database
            .psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'locker'")
            .unwrap();
        self.0.wait().ok();
    }
}

impl Drop for RoleLock {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[ignore = "needs the world"]
fn a_secret_that_is_stuck_on_the_host_does_not_hold_the_response_up() {
    let database = Database::new("stuck", &["web"]);
    let (project, port) = (&database.project, database.port);
    let first = "first-0123456789abcdef";
    database.start(first);
    ssm::put(&project.path("DB_PASSWORD"), first);
    ssm::put(&project.path("TOKEN"), "stolen");
    on_host(&format!("cd ~/e2e/{} && bash deploy/secrets.sh && bash deploy/clients.sh web", project.name));
    let postgres = format!(
        "  hosts: [{{name: web}}]\n  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: musehub, \
         singleRole: {{name: musehub}}}}}}\n"
    );
    project.apply(&project.secret("db-password", "DB_PASSWORD", &postgres));
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("db-password");
    project.settled("token");
    // Logins work, but nobody can change the role.
    let mut lock = RoleLock::take(&database);
    project.request("db-password", "stuck");
    eventually("the other rotation is stuck in Install", || {
        let step = project.field("managedsecret/db-password", "/status/failure/step");
        if step == "Install" { Ok(()) } else { Err(step) }
    });
    report_of(project, "token", "15m");
    state_is(project, "Contained");
    assert!(ssm::value(&project.path("TOKEN")).unwrap() != "stolen");
    assert_eq!(project.version("DB_PASSWORD"), 1, "the other secret is still stuck");

    lock.release(&database);
    assert_eq!(project.answered("db-password", "stuck"), "Succeeded");
    project.settled("db-password");
}
