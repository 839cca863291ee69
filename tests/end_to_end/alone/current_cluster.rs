//! Tests `CLUSTER=current make demo` as a person with a cluster runs it, here in the world's cluster: an ordinary user
//! with kubectl and helm, who may read the checkout but not write it.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::controller;
use crate::project::Project;
use crate::world::{eventually, run, try_run, variable};

const NAMESPACE: &str = "keyturn-demo";
/// `nobody`, who owns no files.
const USER: &str = "65534";

/// A person's machine: a checkout, a kubeconfig, kubectl and helm. Dropping it also ends the demo that it leaves in the
/// cluster.
struct Somebody {
    folder: tempfile::TempDir,
    /// keyturn's image, which is on the nodes.
    image: String,
}

impl Somebody {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let image = "jsonpath={.spec.template.spec.containers[0].image}";
        let image = controller::kubectl(&["get", "deployment/keyturn", "-o", image]);
        let somebody = Self { folder, image };
        let own = |name| somebody.path(name).to_str().unwrap().to_owned();
        for name in ["bin", "checkout", "home"] {
            std::fs::create_dir(somebody.path(name)).unwrap();
        }
        for part in ["Makefile", "charts", "crds", "dev"] {
            let part = format!("{}/{part}", env!("CARGO_MANIFEST_DIR"));
            run("cp", &["--recursive", "--preserve=mode", &part, &own("checkout")]);
        }
        for program in ["kubectl", "helm"] {
            let program = format!("{}/bin/{program}", variable("KEYTURN_WORLD_STATE"));
            run("cp", &["--dereference", &program, &own("bin")]);
        }
        run("cp", &[&variable("KUBECONFIG"), &own("home/kubeconfig")]);
        run("chown", &["--recursive", &format!("{USER}:{USER}"), &own("home")]);
        somebody
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command in the checkout, without any of our environment variables.
    fn run(&self, command: &[&str]) -> Result<String, String> {
        let own = |name| self.path(name).to_str().unwrap().to_owned();
        let environment = [
            format!("PATH={}:/usr/bin:/bin", own("bin")),
            format!("HOME={}", own("home")),
            format!("KUBECONFIG={}", own("home/kubeconfig")),
            "CLUSTER=current".to_owned(),
            format!("KEYTURN_STATE={}", own("home/state")),
            format!("KEYTURN_IMAGE={}", self.image),
            format!("KEYTURN_DEMO_HOST_IMAGE={}", variable("KEYTURN_DEMO_HOST_IMAGE")),
        ];
        let environment: Vec<&str> = environment.iter().map(String::as_str).collect();
        let user = ["--reuid", USER, "--regid", USER, "--clear-groups"];
        let clean = ["env", "--ignore-environment", "--chdir", &own("checkout")];
        try_run("setpriv", &[&user[..], &clean[..], &environment[..], command].concat())
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        // This must not panic: it may run because of a panic.
        if let Err(problem) = self.run(&["dev/world", "down"]) {
            eprintln!("the demo could not be ended: {problem}");
        }
    }
}

/// A guard that pauses the world's own keyturn, which works in all namespaces, until it is dropped.
struct Rest {
    replicas: String,
}

impl Rest {
    fn begin() -> Self {
        let replicas = controller::kubectl(&["get", "deployment/keyturn", "-o", "jsonpath={.spec.replicas}"]);
        let rest = Self { replicas };
        controller::kubectl(&["scale", "deployment/keyturn", "--replicas=0"]);
        eventually("the world's keyturn has ended", || {
            let pods = controller::kubectl(&["get", "pods", "-l", controller::SELECTOR, "-o", "name"]);
            if pods.is_empty() { Ok(()) } else { Err(pods) }
        });
        rest
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        let deployment = ["-n", controller::NAMESPACE, "deployment/keyturn"];
        let replicas = format!("--replicas={}", self.replicas);
        let restored =
            try_run("kubectl", &[&["scale", &replicas], &deployment[..]].concat()).and_then(|_| {
                try_run("kubectl", &[&["rollout", "status", "--timeout=180s"], &deployment[..]].concat())
            });
        if let Err(problem) = restored {
            eprintln!("the world's keyturn could not be started again; `dev/world up` does: {problem}");
        }
    }
}

/// Returns every object of the cluster except those of the test's own namespace, by kind, namespace and name; without
/// Events, which Kubernetes deletes after a while.
fn objects(project: &Project) -> BTreeSet<String> {
    let kinds = run("kubectl", &["api-resources", "--verbs=list,delete", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let columns = "custom-columns=:.kind,:.metadata.namespace,:.metadata.name";
    let objects = run("kubectl", &["get", &kinds.join(","), "-A", "--no-headers", "-o", columns]);
    let objects = objects.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    objects.filter(|object| !object.contains(&project.name)).collect()
}

/// Returns the rows below the last heading that has these columns, each with the text in the named columns.
fn rows(output: &str, columns: &[&str]) -> Vec<Vec<String>> {
    let lines: Vec<&str> = output.lines().collect();
    let heading = lines.iter().rposition(|line| columns.iter().all(|column| line.contains(column)));
    let heading = heading.unwrap_or_else(|| panic!("no table with {columns:?} in\n{output}"));
    let rows = lines[heading + 1..].iter().take_while(|line| !line.is_empty());
    let cell = |line: &str, column: &str| {
        let cell = &line[lines[heading].find(column).unwrap()..];
        // An empty cell consists of blanks up to the next column.
        if cell.starts_with(' ') { String::new() } else { cell.split_whitespace().next().unwrap().to_owned() }
    };
    rows.map(|line| columns.iter().map(|column| cell(line, column)).collect()).collect()
}

#[test]
#[ignore = "needs the world"]
fn the_demo_runs_as_an_ordinary_user_in_a_cluster_that_is_there_and_leaves_nothing_in_it() {
    let project = Project::alone_without_host("current");
    let _rest = Rest::begin();
    let somebody = Somebody::new();
    let before = objects(&project);

    let said = somebody.run(&["make", "demo"]).unwrap_or_else(|problem| {
        let pods = try_run("kubectl", &["-n", NAMESPACE, "get", "all", "-o", "wide"]);
        panic!("make demo: {problem}\n{}", pods.unwrap_or_default())
    });
    println!("{said}");
    let secrets = rows(&said, &["NAME", "READY", "STATUS", "ROTATED"]);
    let names: Vec<&str> = secrets.iter().map(|row| row[0].rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["db-password", "runner-token", "webhook-secret-key"], "{said}");
    for row in &secrets {
        assert_eq!(row[1], "True", "{row:?}");
        assert_eq!(row[2], "Published", "{row:?}");
        assert!(row[3].starts_with(|first: char| first.is_ascii_digit()), "an age: {row:?}");
    }
    assert_eq!(rows(&said, &["NAME", "READY", "LAST RUN"]).len(), 1, "one docker host: {said}");

    somebody.run(&["dev/world", "status"]).unwrap();
    println!("{}", somebody.run(&["dev/world", "down"]).unwrap());
    let after = objects(&project);
    let left: Vec<&String> = after.difference(&before).collect();
    assert_eq!(left, Vec::<&String>::new(), "the demo leaves nothing behind");
    let lost: Vec<&String> =
        before.difference(&after).filter(|object| object.starts_with("CustomResourceDefinition ")).collect();
    assert_eq!(lost, Vec::<&String>::new(), "definitions that were there before are not the demo's");
    assert!(!somebody.path("home/state").exists(), "nor is anything left of its state");
}

#[test]
#[ignore = "needs the world"]
fn the_demo_touches_nothing_of_others() {
    let _alone = Project::alone_without_host("current");
    let somebody = Somebody::new();
    let namespace = || try_run("kubectl", &["get", "namespace", NAMESPACE, "-o", "name"]);
    let refused = |command: &[&str], why: &str| {
        let said = somebody.run(command).expect_err("it is refused");
        assert!(said.contains(why), "{why:?} is not in: {said}");
    };

    refused(&["dev/world", "up"], "keyturn-system/keyturn");
    refused(&["dev/world", "up"], "watchNamespaces");
    refused(&["dev/world", "reset"], "is for a world of its own");
    assert!(namespace().is_err_and(|said| said.contains("NotFound")), "nothing was begun");

    run("kubectl", &["create", "namespace", NAMESPACE]);
    let up = somebody.run(&["dev/world", "up"]);
    let down = somebody.run(&["dev/world", "down"]);
    let namespace = namespace();
    run("kubectl", &["delete", "namespace", NAMESPACE]);
    for said in [up, down] {
        assert!(said.as_ref().is_err_and(|said| said.contains("dev/world did not make")), "{said:?}");
    }
    assert!(namespace.is_ok(), "the namespace is left alone: {namespace:?}");
}
