//! Tests database passwords: the role changes first, the hosts follow, and nobody is locked out.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::kills::{any_moment_of, kill_controller, number};
use super::project::Project;
use super::ssm;
use super::world::{eventually, on_host, run, try_on_host, try_with, variable};

/// A client in a container: it logs in again and again with the login of its environment at the start, runs a
/// statement, and counts the results. When it is told to stop, it finishes its current statement.
const CLIENT: &str = r#"
import os, signal, sys, threading, time
import psycopg2

counts, lock, stop = {"ok": 0, "failed": 0}, threading.Lock(), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
url = os.environ.get("DATABASE_URL") or "postgresql://musehub:%s@postgres/musehub" % os.environ["DB_PASSWORD"]
statement, last = "INSERT INTO visits DEFAULT VALUES" if "DATABASE_URL" in os.environ else "SELECT 1", [""]

def work():
    while not stop.is_set():
        try:
            connection = psycopg2.connect(url, connect_timeout=5)
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
            connection.close()
            kind = "ok"
        except Exception as error:
            kind, last[0] = "failed", str(error).strip().splitlines()[0]
        with lock:
            counts[kind] += 1
        # Four of these: ten a second, which shows a gap of a second and leaves the processors to everybody else.
        time.sleep(0.4)

threads = [threading.Thread(target=work) for _ in range(4)]
started = time.monotonic()
[thread.start() for thread in threads]
name = "/counts/%s-%d" % (sys.argv[1], time.time_ns())
while any(thread.is_alive() for thread in threads):
    with lock:
        text = "%d %d %.1f %s\n" % (counts["ok"], counts["failed"], time.monotonic() - started, last[0])
    with open(name + ".new", "w") as file:
        file.write(text)
    os.rename(name + ".new", name)
    time.sleep(0.2)
"#;

/// The runbook's topology: Postgres in a container that only the host's loopback reaches, and clients on the host.
pub(crate) struct Database {
    pub project: Project,
    pub port: u16,
}

/// The clients' counts: logins with a statement, failures, and the message of the last failure.
#[derive(Debug)]
struct Counts {
    succeeded: u64,
    failed: u64,
    seconds: f64,
    last: String,
}

impl Database {
    /// Creates a database. `hosts` are DockerHosts with one client each; the first also runs the database.
    pub(crate) fn new(subject: &str, hosts: &[&str]) -> Self {
        Self::of(Project::new(subject), hosts)
    }

    fn of(project: Project, hosts: &[&str]) -> Self {
        let name = &project.name;
        // The names of one run differ only in their last part: every database gets its own port.
        static PORTS: AtomicU16 = AtomicU16::new(0);
        let port = 20_000 + (std::process::id() % 2_000) as u16 * 10 + PORTS.fetch_add(1, Ordering::Relaxed);
        let script = format!(
            r#"set -eu
cd ~/e2e/{name}
cp /opt/musehub/postgres.sh .
mkdir -p counts && chmod 777 counts
cat >client.py <<'PY'{CLIENT}PY
cat >compose.yml <<'YAML'
services:
  postgres:
    image: musehub:world
    command: ["bash", "/opt/postgres.sh"]
    environment: {{POSTGRES_USER: musehub, POSTGRES_DB: musehub, POSTGRES_PASSWORD: "${{DB_PASSWORD:-}}"}}
    ports: ["127.0.0.1:{port}:5432"]
    volumes: ["./postgres.sh:/opt/postgres.sh:ro"]
    stop_signal: SIGINT
    networks: {{default: {{aliases: [postgres]}}}}
networks: {{default: {{name: {name}}}}}
YAML
cat >clients.yml <<'YAML'
services:
  client:
    image: musehub:world
    init: true
    command: ["python3", "-u", "/client.py", "${{CLIENT}}"]
    env_file: .env
    volumes: ["./client.py:/client.py:ro", "./counts:/counts"]
networks: {{default: {{name: {name}, external: true}}}}
YAML
cat >deploy/clients.sh <<'SH'
set -eu
cd ~/e2e/{name}
export CLIENT=$1
set -a && . ./.env && set +a
echo started >>deploys
[ ! -e broken ] && [ ! -e broken-$1 ] || exit 3
sudo -n --preserve-env=DB_PASSWORD docker compose -p {name} -f compose.yml up --detach --no-recreate postgres
sudo -n --preserve-env=CLIENT docker compose -p {name}-$1 -f clients.yml up --detach --force-recreate --timeout 10
echo ended >>deploys
SH
"#
        );
        on_host(&script);
        let database = Self { project, port };
        for host in hosts {
            database.project.apply(&database.host(host, &database.project.known_hosts()));
        }
        database.project.apply(&database.grant());
        database
    }

    /// Returns a DockerHost that runs one client.
    pub(crate) fn host(&self, host: &str, known_hosts: &[String]) -> String {
        let name = &self.project.name;
        self.project
            .docker_host(known_hosts, "")
            .replace("metadata: {name: web,", &format!("metadata: {{name: {host},"))
            .replace(&format!("composeProject: {name}"), &format!("composeProject: {name}-{host}"))
            .replace("bash deploy/deploy.sh", &format!("bash deploy/clients.sh {host}"))
    }

    pub(crate) fn grant(&self) -> String {
        let folder = format!("prefix: /musehub/{}/", self.project.name);
        let with_text = format!("{folder}, templates: [\"{TEMPLATE}\"]");
        format!(
            "{}  postgres:\n  - dockerHost: web\n    port: {}\n    roles: [musehub, app, app_a, app_b]\n    \
             allowSuperuser: true\n    probes: true\n",
            self.project.grant("Rotate").replace(&folder, &with_text),
            self.port
        )
    }

    /// Starts the database with this password for its superuser.
    pub(crate) fn start(&self, password: &str) {
        on_host(&format!(
            "cd ~/e2e/{0} && sudo -n --preserve-env=DB_PASSWORD env DB_PASSWORD={password} \
             docker compose -p {0} -f compose.yml up --detach postgres",
            self.project.name
        ));
        eventually("the database answers", || self.psql("SELECT 1").map(drop));
    }

    /// Runs a statement as the superuser through the container's own socket, which needs no password.
    pub(crate) fn psql(&self, sql: &str) -> Result<String, String> {
        let container = format!("{}-postgres-1", self.project.name);
        let psql =
            ["exec", "-i", &container, "psql", "-U", "musehub", "-d", "musehub", "-qAtv", "ON_ERROR_STOP=1"];
        try_with("docker", &psql, sql)
    }

    /// Returns true if this login works over the network.
    pub(crate) fn accepts(&self, url: &str) -> bool {
        let container = format!("{}-postgres-1", self.project.name);
        let python = "import sys, psycopg2\ntry: psycopg2.connect(sys.stdin.read(), connect_timeout=5).close()\n\
                      except psycopg2.OperationalError as error:\n  \
                      sys.exit(3 if 'authentication failed' in str(error) or 'not permitted' in str(error) else 4)";
        match try_with("docker", &["exec", "-i", &container, "python3", "-c", python], url) {
            Ok(_) => true,
            Err(problem) if problem.is_empty() => false,
            Err(problem) => panic!("the login could not be tried: {problem}"),
        }
    }

    fn counts(&self) -> Counts {
        let files = on_host(&format!("cat ~/e2e/{}/counts/*-* 2>/dev/null || true", self.project.name));
        let mut total = Counts { succeeded: 0, failed: 0, seconds: 0.0, last: String::new() };
        for line in files.lines() {
            let mut fields = line.splitn(4, ' ');
            let mut number = || fields.next().and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
            let (succeeded, failed, seconds) = (number(), number(), number());
            total.succeeded += succeeded as u64;
            total.failed += failed as u64;
            total.seconds = total.seconds.max(seconds);
            if failed > 0.0 {
                total.last = fields.next().unwrap_or_default().to_owned();
            }
        }
        total
    }

    pub(crate) fn url(&self) -> String {
        ssm::value(&self.project.path("DATABASE_URL")).unwrap_or_default()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let name = &self.project.name;
        try_on_host(&format!(
            "sudo -n docker ps --all --quiet --filter name={name} | xargs -r sudo -n docker rm --force --volumes; \
             sudo -n docker network rm {name}; sudo -n rm -rf ~/e2e/{name}/counts"
        ))
        .ok();
    }
}

const HOST: &str = "  hosts: [{name: web}]\n";

#[test]
#[ignore = "needs the world"]
fn a_single_role_begins_with_the_database_and_is_rotated_in_place() {
    let database = Database::new("single-role", &["web"]);
    let (project, port) = (&database.project, database.port);
    let secret = project
        .secret(
            "db-password",
            "DB_PASSWORD",
            &format!(
                "{HOST}  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: musehub, \
                 singleRole: {{name: musehub}}}}}}\n"
            ),
        )
        .replace("parameters:", "ifMissing: Create, parameters:");
    project.apply(&secret);
    project.settled("db-password");
    let login = |password: &str| format!("postgresql://musehub:{password}@postgres/musehub");
    let first = ssm::value(&project.path("DB_PASSWORD")).unwrap();
    assert!(database.accepts(&login(&first)), "the database took the password that SSM publishes");
    assert_eq!(project.field("managedsecret/db-password", "/status/target/accepts"), "true");

    eventually("the client logs in", || {
        let counts = database.counts();
        if counts.succeeded > 50 { Ok(()) } else { Err(format!("{counts:?}")) }
    });
    project.request("db-password", "once");
    assert_eq!(project.answered("db-password", "once"), "Succeeded");
    project.settled("db-password");
    let second = ssm::value(&project.path("DB_PASSWORD")).unwrap();
    assert!(first != second && database.accepts(&login(&second)), "the new password works");
    assert!(!database.accepts(&login(&first)), "the old one is dead");
    assert_eq!(project.version("DB_PASSWORD"), 2, "one rotation, one version");
    let window = project.field("managedsecret/db-password", "/status/lastRotation/windowSeconds");
    assert!(window.parse::<i64>().is_ok_and(|seconds| seconds < 120), "the window is said: {window:?}");
    let counts = database.counts();
    println!("single role: window {window} s by status; the client counted {counts:?}");
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}

const ADMIN: &str = "admin-0123456789abcdef";
const TEMPLATE: &str = "postgresql://{username}:{password}@postgres/musehub";

impl Database {
    /// Creates a database with two roles that take turns. A client on each host uses the first one, and keyturn has
    /// adopted them as the secret `database-url`.
    fn with_a_pair(subject: &str, hosts: &[&str]) -> Self {
        Self::of_a_pair(Project::new(subject), hosts)
    }

    pub(crate) fn of_a_pair(project: Project, hosts: &[&str]) -> Self {
        let database = Self::of(project, hosts);
        let (project, port) = (&database.project, database.port);
        database.start(ADMIN);
        database
            .psql(
                "CREATE ROLE app NOLOGIN; \
                 CREATE ROLE app_a LOGIN IN ROLE app PASSWORD 'first-0123456789abcdef'; \
                 CREATE ROLE app_b NOLOGIN IN ROLE app; \
                 ALTER ROLE app_a SET role = 'app'; ALTER ROLE app_b SET role = 'app'; \
                 CREATE TABLE visits (at timestamptz DEFAULT now()); ALTER TABLE visits OWNER TO app; \
                 GRANT CREATE ON SCHEMA public TO app;",
            )
            .unwrap();
        let first = TEMPLATE.replace("{username}", "app_a").replace("{password}", "first-0123456789abcdef");
        ssm::put(&project.path("DATABASE_URL"), &first);
        for host in hosts {
            on_host(&format!(
                "cd ~/e2e/{} && bash deploy/secrets.sh && bash deploy/clients.sh {host}",
                project.name
            ));
        }
        let password = format!("--from-literal=password={ADMIN}");
        project.create_secret("db-admin", "postgres-admin", &["--from-literal=username=musehub", &password]);
        let named: Vec<String> = hosts.iter().map(|host| format!("{{name: {host}}}")).collect();
        let secret = project
            .secret(
                "database-url",
                "DATABASE_URL",
                &format!(
                    "  hosts: [{}]\n  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: musehub, \
                     adminSecretRef: {{name: db-admin}}, probes: [\"SELECT count(*) FROM visits\", \"SELECT 1 / \
                     has_table_privilege('visits', 'INSERT')::int\"], alternatingRoles: {{names: [app_a, app_b], owner: app}}}}}}\n",
                    named.join(", ")
                ),
            )
            .replace("DATABASE_URL}", &format!("DATABASE_URL, value: \"{TEMPLATE}\"}}"));
        project.apply(&secret);
        project.settled("database-url");
        assert_eq!(project.version("DATABASE_URL"), 1, "adopting changes nothing");
        eventually("the clients log in", || {
            let counts = database.counts();
            if counts.succeeded > 200 { Ok(()) } else { Err(format!("{counts:?}")) }
        });
        database
    }
}

#[test]
#[ignore = "needs the world"]
fn alternating_roles_take_turns_while_clients_on_two_hosts_log_in_and_none_fails() {
    let database = Database::with_a_pair("alternating", &["web", "second"]);
    let project = &database.project;
    for (token, role) in [("there", "app_b"), ("back", "app_a")] {
        let before = database.url();
        project.request("database-url", token);
        assert_eq!(project.answered("database-url", token), "Succeeded");
        project.settled("database-url");
        let now = database.url();
        assert!(now.contains(&format!("//{role}:")), "it is {role}'s turn");
        assert!(database.accepts(&now), "the new login works");
        assert!(!database.accepts(&before), "the old login is retired");
        let can = database
            .psql("SELECT rolcanlogin FROM pg_roles WHERE rolname IN ('app_a','app_b') ORDER BY rolname");
        assert_eq!(can.unwrap(), if role == "app_b" { "f\nt" } else { "t\nf" });
    }
    let counts = database.counts();
    println!("alternating roles, two rotations: the clients counted {counts:?}");
    assert_eq!((counts.failed, counts.last.as_str()), (0, ""), "no login and no statement failed");
    assert!(counts.succeeded > 1000, "{counts:?}");
    let owners =
        database.psql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").unwrap();
    assert_eq!(owners, "app");
    assert_eq!(ssm::records(&project.name), "", "no record is left");
    let log = try_with("docker", &["logs", &format!("{}-postgres-1", project.name)], "").unwrap_or_default();
    for url in ssm::all_values(&project.path("DATABASE_URL")) {
        let password = url.split(['/', ':', '@']).nth(4).unwrap_or_default().to_owned();
        assert!(password.len() > 16 && !log.contains(&password), "a password is in the database's log");
    }
}

#[test]
#[ignore = "needs the world"]
fn a_parameter_is_created_for_a_role_of_a_server_that_is_there() {
    let database = Database::new("there", &["web"]);
    let (project, port) = (&database.project, database.port);
    database.start(ADMIN);
    database.psql("CREATE ROLE app LOGIN PASSWORD 'nobody-knows-0123456789'").unwrap();
    let password = format!("--from-literal=password={ADMIN}");
    project.create_secret("db-admin", "postgres-admin", &["--from-literal=username=musehub", &password]);
    let spec = format!(
        "  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: musehub, adminSecretRef: {{name: \
         db-admin}}, singleRole: {{name: app}}}}}}\n"
    );
    let secret = project.secret("app-password", "APP_PASSWORD", &spec);
    project.apply(&secret.replace("parameters:", "ifMissing: Create, parameters:"));
    project.wait("managedsecret/app-password", "Ready", "True");
    project.wait("managedsecret/app-password", "Rotating", "False");
    let password = ssm::value(&project.path("APP_PASSWORD")).unwrap();
    assert!(database.accepts(&format!("postgresql://app:{password}@postgres/musehub")));
    assert_eq!(project.version("APP_PASSWORD"), 1);
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}

/// The role is the runbook's own: the superuser that the image creates, and that owns everything.
#[test]
#[ignore = "needs the world"]
fn a_pair_is_made_from_the_superuser_in_use_as_it_was_listed_before() {
    let database = Database::new("bootstrap", &["web"]);
    let (project, port) = (&database.project, database.port);
    database.start(ADMIN);
    database.psql("CREATE TABLE visits (at timestamptz DEFAULT now())").unwrap();
    let old = TEMPLATE.replace("{username}", "musehub").replace("{password}", ADMIN);
    ssm::put(&project.path("DATABASE_URL"), &old);
    on_host(&format!("cd ~/e2e/{} && bash deploy/secrets.sh && bash deploy/clients.sh web", project.name));
    let password = format!("--from-literal=password={ADMIN}");
    project.create_secret("db-admin", "postgres-admin", &["--from-literal=username=musehub", &password]);
    let secret = |mode: &str| {
        let spec = format!(
            "{HOST}  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: musehub, adminSecretRef: \
             {{name: db-admin}}, alternatingRoles: {{names: [app_a, app_b], owner: app, bootstrap: {{from: musehub, mode: \
             {mode}}}}}}}}}\n"
        );
        let parameter = format!("DATABASE_URL, value: \"{TEMPLATE}\"}}");
        project.secret("database-url", "DATABASE_URL", &spec).replace("DATABASE_URL}", &parameter)
    };
    project.apply(&secret("Plan"));
    project.settled("database-url");
    let listed = project.field("managedsecret/database-url", "/status/target/setUp");
    assert!(listed.contains("ALTER TABLE public.visits OWNER TO "), "{listed}");
    project.request("database-url", "first");
    let message = project.wait_reason("managedsecret/database-url", "Stalled", "True", "SetUpPlanned");
    assert!(message.contains("status.target.setUp"), "{message}");
    assert!(database.psql("SELECT 1 FROM pg_roles WHERE rolname = 'app'").unwrap().is_empty(), "only listed");

    project.apply(&secret("Apply"));
    assert_eq!(project.answered("database-url", "first"), "Succeeded");
    project.settled("database-url");
    assert!(database.url().contains("//app_a:"), "the first of the pair is in use");
    assert_eq!(database.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'visits'").unwrap(), "app");
    assert_eq!(database.psql("SELECT rolsuper FROM pg_roles WHERE rolname = 'app_a'").unwrap(), "f");
    project.request("database-url", "second");
    assert_eq!(project.answered("database-url", "second"), "Succeeded");
    project.settled("database-url");
    assert!(database.url().contains("//app_b:") && database.accepts(&database.url()));
    let counts = database.counts();
    println!("made from a single role, two rotations: the client counted {counts:?}");
    assert_eq!((counts.failed, counts.last.as_str()), (0, ""), "no login and no statement failed");
}

#[test]
#[ignore = "needs the world"]
fn a_password_that_somebody_changed_by_hand_is_said_before_anything_is_touched() {
    let database = Database::new("by-hand", &["web"]);
    let (project, port) = (&database.project, database.port);
    database.start("unknown-to-keyturn");
    ssm::put(&project.path("DB_PASSWORD"), "another-password");
    project.apply(&project.secret(
        "db-password",
        "DB_PASSWORD",
        &format!(
            "  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: musehub, singleRole: {{name: \
             musehub}}}}}}\n"
        ),
    ));
    let (reason, message) = project.wait("managedsecret/db-password", "Ready", "False");
    assert_eq!(reason, "LoginRefused", "{message}");
    assert!(message.contains("musehub") && !message.contains("another-password"), "{message}");
    project.request("db-password", "once");
    project.wait("managedsecret/db-password", "Stalled", "True");
    assert_eq!(project.version("DB_PASSWORD"), 1, "nothing was touched");
    assert_eq!(ssm::records(&project.name), "", "nothing was begun");

    ssm::put(&project.path("DB_PASSWORD"), "unknown-to-keyturn");
    assert_eq!(project.answered("db-password", "once"), "Succeeded");
    let password = ssm::value(&project.path("DB_PASSWORD")).unwrap();
    assert!(database.accepts(&format!("postgresql://musehub:{password}@postgres/musehub")));
}

/// However often the controller dies, the login that the container runs works, and retired roles stay retired.
#[test]
#[ignore = "needs the world"]
fn no_login_fails_and_none_comes_back_however_often_the_controller_is_killed() {
    let database = Database::with_a_pair("pair-kills", &["web"]);
    let project = &database.project;
    for round in 1..=rounds() {
        let token = format!("round-{round}");
        project.request("database-url", &token);
        std::thread::sleep(any_moment_of(12_000));
        kill_controller();
        let lost = database.lost_logins();
        assert!(lost.is_empty(), "round {round}: the passwords of {lost:?} can be read back from nowhere");
        assert_eq!(project.answered("database-url", &token), "Succeeded");
        project.settled("database-url");
        let urls = ssm::all_values(&project.path("DATABASE_URL"));
        assert_eq!(urls.len() as u64, round + 1, "round {round}: one version each");
        let (now, before) = urls.split_last().unwrap();
        assert!(database.accepts(now), "round {round}: what is published works");
        let back = before.iter().rev().take(4).filter(|url| database.accepts(url)).count();
        assert_eq!(back, 0, "round {round}: a retired login works again");
    }
    let counts = database.counts();
    println!("alternating roles, {} kills: the client counted {counts:?}", rounds());
    assert_eq!((counts.failed, counts.last.as_str()), (0, ""), "no login and no statement failed");
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}

#[test]
#[ignore = "needs the world"]
fn a_single_role_is_never_lost_however_often_the_controller_is_killed() {
    let database = Database::new("single-kills", &["web"]);
    let (project, port) = (&database.project, database.port);
    project.apply(
        &project
            .secret(
                "db-password",
                "DB_PASSWORD",
                &format!(
                    "{HOST}  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: musehub, \
                     singleRole: {{name: musehub}}}}}}\n"
                ),
            )
            .replace("parameters:", "ifMissing: Create, parameters:"),
    );
    project.settled("db-password");
    let login = |password: &str| format!("postgresql://musehub:{password}@postgres/musehub");
    for round in 1..=rounds() {
        let token = format!("round-{round}");
        project.request("db-password", &token);
        std::thread::sleep(any_moment_of(12_000));
        kill_controller();
        let known = database.known_passwords("DB_PASSWORD");
        let recoverable = known.iter().any(|password| database.accepts(&login(password)));
        assert!(recoverable, "round {round}: the role's password can be read back from nowhere");
        assert_eq!(project.answered("db-password", &token), "Succeeded");
        project.settled("db-password");
        let passwords = ssm::all_values(&project.path("DB_PASSWORD"));
        assert_eq!(passwords.len() as u64, round + 1, "round {round}: one version each");
        let (now, before) = passwords.split_last().unwrap();
        assert!(database.accepts(&login(now)), "round {round}: what is published works");
        assert!(project_runs(project, now), "round {round}: the container runs it");
        let back = before.iter().rev().take(4).filter(|password| database.accepts(&login(password))).count();
        assert_eq!(back, 0, "round {round}: an old password works again");
    }
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}

fn project_runs(project: &Project, password: &str) -> bool {
    let container = format!("{}-web-client-1", project.name);
    try_with("docker", &["exec", &container, "printenv", "DB_PASSWORD"], "")
        .is_ok_and(|value| value == password)
}

impl Database {
    /// Returns the passwords in SSM: those of every published version, and those in the records of open rotations.
    fn known_passwords(&self, parameter: &str) -> Vec<String> {
        let mut known = ssm::all_values(&self.project.path(parameter));
        known.reverse();
        known.extend(ssm::record_values(&self.project.name).iter().filter_map(|record| {
            let record: serde_json::Value = serde_json::from_str(record).ok()?;
            Some(record["credential"]["password"].as_str()?.to_owned())
        }));
        known
    }

    /// Returns the roles that can log in with a password that SSM does not have. The next controller may retire a role
    /// in the meantime, so a role that seems lost is checked again.
    fn lost_logins(&self) -> Vec<String> {
        let able = || {
            let roles =
                self.psql("SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname IN ('app_a', 'app_b')");
            roles.unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let is_lost = |role: &String| {
            let logins = self.known_logins();
            !logins.iter().any(|url| url.contains(&format!("//{role}:")) && self.accepts(url))
        };
        let seems_lost: Vec<String> = able().into_iter().filter(is_lost).collect();
        if seems_lost.is_empty() {
            return seems_lost;
        }
        let still = able();
        seems_lost.into_iter().filter(|role| still.contains(role) && is_lost(role)).collect()
    }

    /// Returns the logins in SSM.
    fn known_logins(&self) -> Vec<String> {
        let mut known = ssm::all_values(&self.project.path("DATABASE_URL"));
        known.reverse();
        known.truncate(3);
        known.extend(ssm::record_values(&self.project.name).iter().filter_map(|record| {
            let record: serde_json::Value = serde_json::from_str(record).ok()?;
            let credential = &record["credential"];
            let url = TEMPLATE.replace("{username}", credential["username"].as_str()?);
            Some(url.replace("{password}", credential["password"].as_str()?))
        }));
        known
    }
}

/// Returns the number of times that the controller is killed or stopped.
fn rounds() -> u64 {
    number("KEYTURN_KILLS", 3)
}

/// Another controller, outside of the cluster, that ignores the lease of the first one and watches one namespace.
struct SecondController {
    process: Child,
}

impl SecondController {
    fn start(namespace: &str, log: &str) -> Self {
        let env = "jsonpath={range .spec.template.spec.containers[0].env[*]}{.name}={.value}{\"\\n\"}{end}";
        let settings = run("kubectl", &["get", "deployment", "keyturn", "-n", "keyturn-system", "-o", env]);
        let keyturn = settings.lines().filter_map(|line| line.split_once('='));
        let keyturn = keyturn.filter(|(name, value)| name.starts_with("KEYTURN_") && !value.is_empty());
        let log = std::fs::File::create(log).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_keyturn"))
            .arg("controller")
            .envs(keyturn)
            .env("KEYTURN_NAMESPACE", namespace)
            .env("KEYTURN_WATCH_NAMESPACES", namespace)
            .env("KEYTURN_POD_NAME", "second")
            .env("KEYTURN_LEASE_NAME", "second")
            .env("KEYTURN_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { process }
    }

    fn signal(&self, name: &str) {
        run("kill", &[name, &self.process.id().to_string()]);
    }
}

impl Drop for SecondController {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Returns how long the second controller is stopped in the middle of a rotation. KEYTURN_PAUSE sets it, in seconds.
fn stopped_for() -> std::time::Duration {
    let seconds = std::env::var("KEYTURN_PAUSE").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    std::time::Duration::from_secs(seconds)
}

#[test]
#[ignore = "needs the world"]
fn two_controllers_without_a_common_lease_one_of_them_stopped_in_mid_rotation_break_nothing() {
    let database = Database::with_a_pair("two-controllers", &["web"]);
    let project = &database.project;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("second.log");
    let second = SecondController::start(&project.name, log.to_str().unwrap());
    eventually("the second controller leads its own lease", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        if text.contains("this replica leads") { Ok(()) } else { Err(text) }
    });
    for round in 1..=rounds() {
        let token = format!("round-{round}");
        project.request("database-url", &token);
        std::thread::sleep(any_moment_of(12_000));
        second.signal("-STOP");
        assert_eq!(project.answered("database-url", &token), "Succeeded");
        std::thread::sleep(stopped_for());
        second.signal("-CONT");
        project.settled("database-url");
        let urls = ssm::all_values(&project.path("DATABASE_URL"));
        let mut distinct = urls.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len() as u64, round + 1, "round {round}: one new login");
        let (now, before) = urls.split_last().unwrap();
        assert!(database.accepts(now), "round {round}: what is published works");
        let back =
            before.iter().rev().filter(|url| *url != now).take(4).filter(|url| database.accepts(url)).count();
        assert_eq!(back, 0, "round {round}: a retired login works again");
        assert_eq!(database.lost_logins(), Vec::<String>::new(), "round {round}");
    }
    let counts = database.counts();
    println!("two controllers, {} pauses: the client counted {counts:?}", rounds());
    assert_eq!((counts.failed, counts.last.as_str()), (0, ""), "no login and no statement failed");
}

/// Returns the certificate of an authority, and a certificate for the docker host's address with its key, as PEM
/// texts.
fn certificate(folder: &std::path::Path) -> (String, String, String) {
    let openssl = |arguments: &[&str]| {
        let inside = ["-C", folder.to_str().unwrap(), "openssl"];
        run("env", &[&inside[..], arguments].concat());
    };
    let subject =
        ["-subj", "/CN=test", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    openssl(&[&["req", "-x509", "-keyout", "ca.key", "-out", "ca.crt"][..], &subject].concat());
    let name = format!("subjectAltName=IP:{}", variable("KEYTURN_HOST"));
    let signed = [
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-addext",
        &name,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    let request = ["req", "-x509", "-keyout", "server.key", "-out", "server.crt"];
    openssl(&[&request[..], &signed, &subject].concat());
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    (read("ca.crt"), read("server.crt"), read("server.key"))
}

#[test]
#[ignore = "needs the world"]
fn a_server_is_reached_over_tls_by_an_administrator_whose_own_password_is_rotated_too() {
    let database = Database::new("direct", &[]);
    let (project, port) = (&database.project, database.port);
    let name = &project.name;
    let folder = tempfile::tempdir().unwrap();
    let (authority, chain, key) = certificate(folder.path());
    on_host(&format!(
        "cd ~/e2e/{name}
cat >server.crt <<'PEM'
{chain}PEM
cat >server.key <<'PEM'
{key}PEM
chmod 644 server.key
sed -i 's|^exec postgres|cat /tls/server.key >/tmp/server.key; chmod 600 /tmp/server.key; exec postgres -c ssl=on \
         -c ssl_cert_file=/tls/server.crt -c ssl_key_file=/tmp/server.key|' postgres.sh
sed -i 's|127.0.0.1:{port}:|{port}:|; s|volumes: \\[|volumes: [\"./server.crt:/tls/server.crt:ro\", \
         \"./server.key:/tls/server.key:ro\", |' compose.yml"
    ));
    database.start(ADMIN);
    database
        .psql(
            "CREATE ROLE keyturn_admin LOGIN CREATEROLE PASSWORD 'admin-first-0123456789'; \
             CREATE ROLE app LOGIN PASSWORD 'app-first-0123456789'; \
             GRANT app TO keyturn_admin WITH ADMIN OPTION; \
             CREATE SCHEMA keyturn AUTHORIZATION keyturn_admin;",
        )
        .unwrap();
    ssm::put(&project.path("ADMIN_PASSWORD"), "admin-first-0123456789");
    ssm::put(&project.path("APP_PASSWORD"), "app-first-0123456789");
    let host = variable("KEYTURN_HOST");
    project.apply(&format!(
        "{}  postgres: [{{host: \"{host}\", port: {port}, roles: [keyturn_admin, app]}}]\n",
        project.grant("Rotate")
    ));
    let indented: String = authority.lines().map(|line| format!("        {line}\n")).collect();
    let secret = |name: &str, parameter: &str, role: &str, more: &str| {
        let source = format!(
            "  generate:\n    postgres:\n      host: \"{host}\"\n      port: {port}\n      database: musehub\n      \
             singleRole: {{name: {role}}}\n{more}      tls:\n       ca: |\n{indented}"
        );
        project.secret(name, parameter, &source)
    };
    let admin = format!(
        "      adminParameter: {{path: {}, username: keyturn_admin}}\n",
        project.path("ADMIN_PASSWORD")
    );
    project.apply(&secret("admin", "ADMIN_PASSWORD", "keyturn_admin", ""));
    project.apply(&secret("app", "APP_PASSWORD", "app", &admin));
    for (name, parameter, role) in [
        ("app", "APP_PASSWORD", "app"),
        ("admin", "ADMIN_PASSWORD", "keyturn_admin"),
        ("app", "APP_PASSWORD", "app"),
    ] {
        let before = ssm::value(&project.path(parameter)).unwrap();
        let token = format!("after-version-{}", project.version(parameter));
        project.request(name, &token);
        assert_eq!(project.answered(name, &token), "Succeeded");
        let now = ssm::value(&project.path(parameter)).unwrap();
        let login = |password: &str| format!("postgresql://{role}:{password}@postgres/musehub");
        assert!(database.accepts(&login(&now)) && !database.accepts(&login(&before)), "{name} was rotated");
    }
    assert_eq!(
        project.field("managedsecret/app", "/status/target/fenced"),
        "true",
        "an administrator keeps a fence"
    );
    assert_eq!(
        project.field("managedsecret/admin", "/status/target/fenced"),
        "false",
        "on its own there is none"
    );

    // With another server's certificate nothing is sent, and the condition says what to do.
    project.apply(&secret("app", "APP_PASSWORD", "app", &admin).replace(&indented, &{
        let (other, ..) = certificate(tempfile::tempdir().unwrap().path());
        other.lines().map(|line| format!("        {line}\n")).collect::<String>()
    }));
    project.request("app", "untrusted");
    let message = project.wait_reason("managedsecret/app", "Stalled", "True", "TlsNotTrusted");
    assert!(message.contains("tls.ca"), "{message}");
}
