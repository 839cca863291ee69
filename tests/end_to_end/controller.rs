//! The installed controller, which all tests share: its leader, its metrics, and settings that a test changes
//! temporarily.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::world::{eventually, run, try_run, variable};

pub(crate) const NAMESPACE: &str = "keyturn-system";
/// Selects the running pods; the pod of `helm test` stays after its end.
pub(crate) const SELECTOR: &str = "app.kubernetes.io/component=controller";

pub(crate) fn kubectl(arguments: &[&str]) -> String {
    run("kubectl", &[&["-n", NAMESPACE][..], arguments].concat())
}

/// Waits until every replica has the newest revision and is ready.
pub(crate) fn rolled_out() {
    kubectl(&["rollout", "status", "deployment/keyturn", "--timeout=180s"]);
}

/// Returns the pod that holds the lease.
pub(crate) fn leader() -> String {
    eventually("a pod leads", || {
        let holder = kubectl(&["get", "lease", "keyturn", "-o", "jsonpath={.spec.holderIdentity}"]);
        let pods = pods();
        // The holder is the pod's name, with a suffix that distinguishes its processes.
        let pod = pods.iter().find(|pod| holder.starts_with(pod.as_str()));
        pod.cloned().ok_or_else(|| format!("{holder:?} holds the lease, and there are {pods:?}"))
    })
}

/// Returns the controller's pods that are not about to end.
pub(crate) fn pods() -> Vec<String> {
    let template = "{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}";
    let names = kubectl(&["get", "pods", "-l", SELECTOR, "-o", &format!("go-template={template}")]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// Returns the logs of its pods. Waits for the replacement of a pod that another test has just killed.
pub(crate) fn logs() -> String {
    let of_all = ["-n", NAMESPACE, "logs", "-l", SELECTOR, "--tail=-1"];
    eventually("every pod of the controller has a log", || try_run("kubectl", &of_all))
}

/// Returns the content of `/metrics` of a pod.
pub(crate) fn metrics(pod: &str) -> Result<String, String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
    try_run("kubectl", &["get", "--raw", &path])
}

/// Waits until the leader has reconciled every existing ManagedSecret.
pub(crate) fn has_looked_at_everything() {
    let secrets = run("kubectl", &["get", "managedsecrets", "-A", "-o", "name"]).lines().count();
    eventually("the leader has looked at every ManagedSecret", || {
        let text = metrics(&leader())?;
        let line =
            text.lines().find(|line| line.starts_with("keyturn_reconciles_total{kind=\"ManagedSecret\"}"));
        let looks = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0);
        if looks >= secrets { Ok(()) } else { Err(format!("{looks} looks at {secrets} secrets")) }
    });
}

/// Held by the one test that changes the installation of the controller: neither of two tests could restore what both
/// have changed.
static SETTINGS: Mutex<()> = Mutex::new(());

fn settings() -> MutexGuard<'static, ()> {
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Upgrades the release with these arguments, and waits for its pods.
pub(crate) fn upgrade(more: &[&str]) {
    let chart = format!("{}/../charts/keyturn", variable("KEYTURN_WORLD_STATE"));
    let upgrade = ["upgrade", "keyturn", &chart, "-n", NAMESPACE, "--force-conflicts"];
    run("helm", &[&upgrade[..], &["--wait", "--timeout", "180s"], more].concat());
    rolled_out();
}

/// A guard that restores the chart's values when it is dropped.
pub(crate) struct Values {
    file: tempfile::NamedTempFile,
    /// Released after everything that `drop` does.
    _alone: MutexGuard<'static, ()>,
}

impl Values {
    pub(crate) fn keep() -> Self {
        let alone = settings();
        let values = run("helm", &["get", "values", "keyturn", "-n", NAMESPACE, "-o", "yaml"]);
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(file.path(), values).unwrap();
        Self { file, _alone: alone }
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        let arguments = ["--reset-values", "--values", self.file.path().to_str().unwrap()];
        if std::thread::panicking() {
            eprintln!("the chart's values may have changed; `dev/world up` restores them");
        } else {
            upgrade(&arguments);
        }
    }
}

/// A guard that removes the world's release until it is dropped, so that a test can install its own under the same
/// name: two controllers must not work in the same namespaces.
pub(crate) struct Uninstalled {
    values: tempfile::NamedTempFile,
    image: String,
}

impl Uninstalled {
    /// Uninstalls the release; the definitions stay, as the chart keeps them.
    pub(crate) fn take() -> Self {
        let values = run("helm", &["get", "values", "keyturn", "-n", NAMESPACE, "-o", "yaml"]);
        // Without this check, the rest of a killed run would count as the world's release.
        assert!(
            values.contains("cluster: world"),
            "not the world's release: `dev/world up` restores it\n{values}"
        );
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(file.path(), values).unwrap();
        let image = "jsonpath={.spec.template.spec.containers[0].image}";
        let taken = Self { values: file, image: kubectl(&["get", "deployment/keyturn", "-o", image]) };
        run("helm", &["uninstall", "keyturn", "-n", NAMESPACE, "--wait", "--timeout", "180s"]);
        taken
    }

    /// Returns the file of the values with which it was installed.
    pub(crate) fn values(&self) -> &std::path::Path {
        self.values.path()
    }

    pub(crate) fn image(&self) -> &str {
        &self.image
    }
}

impl Drop for Uninstalled {
    fn drop(&mut self) {
        let restore = || {
            let gone = ["--ignore-not-found", "--wait", "--timeout", "180s"];
            try_run("helm", &[&["uninstall", "keyturn", "-n", NAMESPACE][..], &gone].concat())?;
            let chart = format!("{}/../charts/keyturn", variable("KEYTURN_WORLD_STATE"));
            let install =
                ["install", "keyturn", &chart, "-n", NAMESPACE, "--create-namespace", "--take-ownership"];
            let values = ["--values", self.values.path().to_str().unwrap(), "--wait", "--timeout", "180s"];
            try_run("helm", &[&install[..], &values].concat())
        };
        // This must not panic: it may run because of a panic.
        if let Err(problem) = restore() {
            eprintln!("the world's keyturn could not be installed again; `dev/world up` does: {problem}");
        }
    }
}

/// A guard that sets environment variables of the controller until it is dropped.
pub(crate) struct Environment {
    /// `NAME=value`, as it was before.
    before: Vec<String>,
    /// Released after everything that `drop` does.
    _alone: MutexGuard<'static, ()>,
}

impl Environment {
    pub(crate) fn set(variables: &[(&str, &str)]) -> Self {
        let alone = settings();
        let value = |name: &str| {
            let env = format!(".spec.template.spec.containers[0].env[?(@.name==\"{name}\")].value");
            kubectl(&["get", "deployment/keyturn", "-o", &format!("jsonpath={{{env}}}")])
        };
        let before = variables.iter().map(|(name, _)| match value(name) {
            none if none.is_empty() => format!("{name}-"),
            value => format!("{name}={value}"),
        });
        let before = before.collect();
        let changed = Self { before, _alone: alone };
        let settings: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        set(&settings).unwrap();
        changed
    }
}

fn set(settings: &[String]) -> Result<String, String> {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let deployment = ["-n", NAMESPACE, "deployment/keyturn"];
    try_run("kubectl", &[&["set", "env"], &deployment[..], &settings].concat())?;
    try_run("kubectl", &[&["rollout", "status", "--timeout=180s"], &deployment[..]].concat())
}

impl Drop for Environment {
    fn drop(&mut self) {
        // This must not panic: it may run because of a panic.
        if let Err(problem) = set(&self.before) {
            eprintln!("{:?} could not be restored; `dev/world up` does: {problem}", self.before);
        }
    }
}
