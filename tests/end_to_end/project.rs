//! A test's own part of the world: a namespace, a folder of parameters, a compose project on the docker host.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::world::{on_host, run, run_with, try_eventually, try_run, variable};
use super::{objects, ssm};

static NEXT: AtomicU32 = AtomicU32::new(0);
/// Shared by all tests, and held exclusively by tests that take down what all others need.
static WORLD: RwLock<()> = RwLock::new(());

#[expect(dead_code, reason = "held, not read")]
enum Presence {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
    /// Another project of the same test holds the lock.
    Accompanied,
}

pub(crate) struct Project {
    /// The name of the namespace, the compose project and the folder.
    pub name: String,
    /// Released after everything that `drop` does.
    _presence: Presence,
}

impl Project {
    /// Creates an empty namespace with a grant, the SSH key and a DockerHost `web` whose script deploys this project
    /// only.
    pub(crate) fn new(subject: &str) -> Self {
        Self::without_host(subject).with_host()
    }

    /// The same, with the world to itself. A test has only one project, since a second one would wait for the first.
    pub(crate) fn alone(subject: &str) -> Self {
        Self::alone_without_host(subject).with_host()
    }

    fn with_host(self) -> Self {
        let project = self;
        let name = &project.name;
        on_host(&format!(
            r#"set -eu
mkdir -p ~/e2e/{name}/deploy && cd ~/e2e/{name}
cp /opt/musehub/deploy/secrets.sh deploy/
printf 'MUSEHUB_ENV={name}\nAWS_ENDPOINT_URL_SSM={ssm}\n' >deploy/environment
cat >compose.yml <<'YAML'
services:
  app:
    image: musehub:world
    init: true
    command: ["sleep", "infinity"]
    env_file: .env
YAML
cat >deploy/deploy.sh <<'SH'
set -eu
cd ~/e2e/{name}
echo started >>deploys
[ ! -e slow ] || {{ touch running; while [ -e slow ]; do sleep 0.2; done; }}
[ ! -e broken ] || exit 3
sudo -n docker compose -p {name} up --detach --force-recreate --timeout 2
echo ended >>deploys
SH
"#,
            ssm = variable("AWS_ENDPOINT_URL_SSM")
        ));
        project.apply_host();
        project
    }

    /// Creates a namespace with a grant for its folder of parameters.
    pub(crate) fn without_host(subject: &str) -> Self {
        Self::begin(subject, Presence::Shared(WORLD.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The same, with the world to itself.
    pub(crate) fn alone_without_host(subject: &str) -> Self {
        Self::begin(subject, Presence::Alone(WORLD.write().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Creates a second namespace of a test, with a grant for its own folder of parameters. It is dropped before the
    /// first one.
    pub(crate) fn beside(&self, subject: &str) -> Self {
        Self::begin(subject, Presence::Accompanied)
    }

    fn begin(subject: &str, presence: Presence) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("e2e-{subject}-{}-{number}", std::process::id());
        let project = Self { name, _presence: presence };
        project.apply_namespace();
        project
    }

    /// Creates the namespace, the controller's rights in it, and the grant for its folder of parameters.
    pub(crate) fn apply_namespace(&self) {
        run("kubectl", &["create", "namespace", &self.name]);
        // Grants that are made outside the chart need this too: the chart gives the controller no rights in namespaces
        // that it does not know.
        let role = ["--clusterrole=keyturn-namespace", "--serviceaccount=keyturn-system:keyturn"];
        self.kubectl(&[&["create", "rolebinding", "keyturn-namespace"], &role[..]].concat());
        self.apply(&self.grant("Rotate"));
    }

    /// Creates the SSH key and the DockerHost.
    pub(crate) fn apply_host(&self) {
        let key = format!("--from-file=id={}", variable("KEYTURN_HOST_KEY"));
        self.create_secret("host-key", "ssh", &[&key]);
        self.apply(&self.docker_host(&self.known_hosts(), ""));
    }

    pub(crate) fn grant(&self, mode: &str) -> String {
        format!(
            "apiVersion: keyturn.dev/v1alpha1
kind: RotationGrant
metadata: {{name: {name}}}
spec:
  namespaces: [{name}]
  mode: {mode}
  parameters: [{{prefix: /musehub/{name}/}}]
  hosts: [{{host: \"{host}\", port: {port}}}]
",
            name = self.name,
            host = variable("KEYTURN_HOST"),
            port = variable("KEYTURN_HOST_PORT"),
        )
    }

    pub(crate) fn known_hosts(&self) -> Vec<String> {
        let file = std::fs::read_to_string(variable("KEYTURN_HOST_KNOWN_HOSTS")).unwrap();
        file.lines().map(str::to_owned).collect()
    }

    /// Returns the DockerHost `web`; `more` is further YAML of its spec.
    pub(crate) fn docker_host(&self, known_hosts: &[String], more: &str) -> String {
        format!(
            "apiVersion: keyturn.dev/v1alpha1
kind: DockerHost
metadata: {{name: web, namespace: {name}}}
spec:
  ssh:
    host: \"{host}\"
    port: {port}
    user: {user}
    keySecretRef: {{name: host-key, key: id}}
    knownHosts: {known_hosts:?}
  docker: {{sudo: true, composeProject: {name}}}
  deploy: {{script: cd ~/e2e/{name} && bash deploy/secrets.sh && bash deploy/deploy.sh, timeout: 3m}}
{more}
",
            name = self.name,
            host = variable("KEYTURN_HOST"),
            port = variable("KEYTURN_HOST_PORT"),
            user = variable("KEYTURN_HOST_USER"),
        )
    }

    pub(crate) fn path(&self, parameter: &str) -> String {
        format!("/musehub/{}/{parameter}", self.name)
    }

    /// Returns a ManagedSecret that publishes this parameter, with `generate: {hex: {bytes: 32}}` unless `more` has
    /// another source.
    pub(crate) fn secret(&self, name: &str, parameter: &str, more: &str) -> String {
        let generate = if more.contains("generate:") { "" } else { "  generate: {hex: {bytes: 32}}\n" };
        let rotation = if more.contains("rotation:") { "" } else { "  rotation: {period: 90d}\n" };
        format!(
            "apiVersion: keyturn.dev/v1alpha1
kind: ManagedSecret
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  ssm: {{parameters: [{{path: {path}}}]}}
{generate}{rotation}{more}
",
            namespace = self.name,
            path = self.path(parameter),
        )
    }

    pub(crate) fn apply(&self, yaml: &str) {
        run_with("kubectl", &["apply", "-f", "-"], yaml);
    }

    /// Creates a Secret that keyturn may use for the purpose.
    pub(crate) fn create_secret(&self, name: &str, purpose: &str, from: &[&str]) {
        self.kubectl(&[&["create", "secret", "generic", name][..], from].concat());
        self.kubectl(&["label", "secret", name, &format!("keyturn.dev/usable-by={purpose}")]);
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        run("kubectl", &[&["-n", &self.name][..], arguments].concat())
    }

    /// Returns a field of an object by its JSON Pointer; empty if the field is missing.
    pub(crate) fn field(&self, object: &str, pointer: &str) -> String {
        objects::get(&self.name, object).map(|found| objects::field(&found, pointer)).unwrap_or_default()
    }

    /// Returns status, reason and message of a condition; empty if the condition is missing.
    pub(crate) fn condition(&self, object: &str, kind: &str) -> (String, String, String) {
        let found = objects::get(&self.name, object).unwrap_or_default();
        let conditions = found.pointer("/status/conditions").and_then(|all| all.as_array());
        let of_kind = |condition: &&serde_json::Value| condition["type"] == kind;
        let condition = conditions.and_then(|all| all.iter().find(of_kind)).cloned().unwrap_or_default();
        let of = |field: &str| objects::field(&condition, field);
        (of("/status"), of("/reason"), of("/message"))
    }

    /// Waits until a condition has this status, and returns reason and message.
    pub(crate) fn wait(&self, object: &str, kind: &str, status: &str) -> (String, String) {
        self.eventually(&format!("{object} in {}: {kind} is {status}", self.name), || {
            let (now, reason, message) = self.condition(object, kind);
            if now == status { Ok((reason, message)) } else { Err(format!("{now}: {reason}: {message}")) }
        })
    }

    /// Waits for a condition with this status and reason, and returns the message.
    pub(crate) fn wait_reason(&self, object: &str, kind: &str, status: &str, wanted: &str) -> String {
        self.eventually(&format!("{object} in {}: {kind} is {status}, {wanted}", self.name), || {
            let (now, reason, message) = self.condition(object, kind);
            if now == status && reason == wanted {
                Ok(message)
            } else {
                Err(format!("{now}: {reason}: {message}"))
            }
        })
    }

    /// Waits like [`try_eventually`]. On failure it panics with a description of the namespace.
    fn eventually<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        try_eventually(look)
            .unwrap_or_else(|reason| panic!("never came about: {what}; last: {reason}\n{}", self.describe()))
    }

    /// Waits until the secret is published and proven on its hosts, and no rotation is open.
    pub(crate) fn settled(&self, secret: &str) {
        let object = format!("managedsecret/{secret}");
        self.wait(&object, "Ready", "True");
        self.wait(&object, "Deployed", "True");
        self.wait(&object, "Rotating", "False");
    }

    fn describe(&self) -> String {
        try_run("kubectl", &["-n", &self.name, "get", "managedsecrets,dockerhosts,pods", "-o", "wide"])
            .unwrap_or_default()
    }

    /// Waits until the controller has written a status of the secret.
    pub(crate) fn looked_at(&self, secret: &str) {
        self.eventually(&format!("managedsecret/{secret} in {} was looked at", self.name), || {
            let generation = self.field(&format!("managedsecret/{secret}"), "/status/observedGeneration");
            if generation.is_empty() || generation == "-1" { Err("never".to_owned()) } else { Ok(()) }
        });
    }

    /// Requests one rotation once the controller knows the object: a request that it finds at first sight is only
    /// recorded.
    pub(crate) fn request(&self, secret: &str, token: &str) {
        self.looked_at(secret);
        let annotation = format!("keyturn.dev/rotate-requested-at={token}");
        self.kubectl(&["annotate", "--overwrite", &format!("managedsecret/{secret}"), &annotation]);
    }

    /// Waits until the request is answered, and returns its result.
    pub(crate) fn answered(&self, secret: &str, token: &str) -> String {
        let object = format!("managedsecret/{secret}");
        self.eventually(&format!("{object}: request {token} is answered"), || {
            let request = self.field(&object, "/status/lastRotation/request");
            if request == token { Ok(()) } else { Err(format!("last answered: {request}")) }
        });
        self.field(&object, "/status/lastRotation/result")
    }

    /// Returns the variable in the project's container.
    pub(crate) fn running(&self, variable: &str) -> Option<String> {
        try_run("docker", &["exec", &format!("{}-app-1", self.name), "printenv", variable]).ok()
    }

    pub(crate) fn version(&self, parameter: &str) -> i64 {
        ssm::version(&self.path(parameter)).unwrap_or_else(|| panic!("{parameter} does not exist"))
    }

    /// Returns the number of times that the deploy script has started.
    pub(crate) fn deploys(&self) -> usize {
        on_host(&format!("grep -c started ~/e2e/{}/deploys || true", self.name)).parse().unwrap_or(0)
    }

    /// Creates a file in the project's folder that its deploy script checks for.
    pub(crate) fn mark(&self, file: &str) {
        on_host(&format!("touch ~/e2e/{}/{file}", self.name));
    }

    pub(crate) fn unmark(&self, file: &str) {
        on_host(&format!("rm -f ~/e2e/{}/{file}", self.name));
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The remaining objects explain the failure; `dev/world reset` removes them.
            return;
        }
        try_run("kubectl", &["delete", "managedsecrets", "--all", "-n", &self.name, "--timeout=60s"]).ok();
        try_run("kubectl", &["delete", "namespace", &self.name, "--wait=false"]).ok();
        try_run("kubectl", &["delete", "rotationgrant", &self.name, "--ignore-not-found"]).ok();
        super::world::try_on_host(&format!(
            "cd ~/e2e/{0} 2>/dev/null && sudo -n docker compose -p {0} down --timeout 1; rm -rf ~/e2e/{0}",
            self.name
        ))
        .ok();
    }
}
