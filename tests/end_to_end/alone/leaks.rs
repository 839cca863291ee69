//! Tests that no value, key or password is anywhere except where it belongs: SSM, the containers, the host's
//! .env.

use std::io::Write as _;

use crate::controller::{self, Environment};
use crate::project::Project;
use crate::ssm;
use crate::world::{eventually, in_box, on_host, run, try_on_host, variable};

/// A place to which a value could have leaked.
enum Place {
    Text(String),
    /// Folders of a box, searched there as root.
    Files(&'static str, &'static str),
}

use Place::{Files, Text};

/// Returns every place to which a value could have leaked, by name.
fn places(project: &Project) -> Vec<(&'static str, Place)> {
    let namespace = &project.name;
    let kubectl = |arguments: &[&str]| Text(run("kubectl", arguments));
    let jobs = ["-n", namespace, "-l", "batch.kubernetes.io/job-name", "--tail=-1", "--prefix"];
    vec![
        ("controller logs", Text(controller::logs())),
        ("pod logs", kubectl(&[&["logs"], &jobs[..]].concat())),
        ("Events", kubectl(&["get", "events.events.k8s.io", "-n", namespace, "-o", "yaml"])),
        ("keyturn's objects", kubectl(&["get", "keyturn", "-A", "-o", "yaml"])),
        ("Jobs and Pods", kubectl(&["get", "jobs,pods", "-n", namespace, "-o", "yaml"])),
        ("Secrets but the SSH key", Text(decoded_secrets(namespace))),
        ("ConfigMaps", kubectl(&["get", "configmaps", "-n", namespace, "-o", "yaml"])),
        ("metrics", Text(eventually("the leader shows them", || controller::metrics(&controller::leader())))),
        ("the API server's log", Text(world_log("node/kube-apiserver"))),
        ("the kubelet's log", Text(world_log("node/kubelet"))),
        ("logs of the node", Files("node", "/var/log")),
        ("the API server's store", Files("node", "/var/lib/etcd")),
        ("volumes of pods", Files("node", "/var/lib/kubelet/pods")),
        ("files of containers", Files("node", "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs")),
        ("process arguments on the node", Text(in_box("node", "ps -eww -o args"))),
        ("process arguments on the host", Text(on_host("ps -eww -o args"))),
        ("sshd's log on the host", Text(world_log("production/sshd"))),
        ("logs of the host", Files("production", "/var/log")),
        // Except for .env, where the runbook puts it.
        ("files on the host", Files("production", "--exclude=.env /home /root /tmp /var/tmp /run/lock /etc")),
    ]
}

/// Places that also contain the Secret with the SSH key.
const HAVE_THE_KEY: [&str; 3] = ["the API server's store", "volumes of pods", "files of containers"];

fn decoded_secrets(namespace: &str) -> String {
    let template = "{{range .items}}{{if ne .metadata.name \"host-key\"}}{{range .data}}{{. | base64decode}}\n{{end}}{{end}}{{end}}";
    run("kubectl", &["get", "secrets", "-n", namespace, "-o", &format!("go-template={template}")])
}

fn world_log_file(name: &str) -> String {
    format!("{}/log/{name}.log", variable("KEYTURN_WORLD_STATE"))
}

fn world_log(name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(world_log_file(name)).unwrap()).into_owned()
}

/// Returns the places with any form of the value: as it is, in base64, in hexadecimal, or a part of it.
fn found(project: &Project, value: &str) -> Vec<&'static str> {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(value);
    let forms = [value.to_owned(), encoded, hex::encode(value), value[8..24].to_owned()];
    let mut names = Vec::new();
    for (name, place) in places(project) {
        let leaks = match place {
            Text(text) => forms.iter().any(|form| text.contains(form.as_str())),
            Files(machine, folders) => {
                // The forms go through standard input, since arguments are one of the places. Files may appear
                // and disappear in the meantime.
                let script = format!(
                    "forms=$(mktemp -p /dev/shm) && cat >$forms && grep -rlaF -f $forms {folders} 2>/dev/null; rm $forms"
                );
                !crate::world::dev_world_with(&["run", machine, "sh", "-c", &script], &forms.join("\n"))
                    .is_empty()
            }
        };
        if leaks {
            names.push(name);
        }
    }
    names
}

#[test]
#[ignore = "needs the world"]
fn no_value_is_found_anywhere_and_a_planted_one_is() {
    let project = Project::alone("leaks");
    let _verbose = Environment::set(&[("KEYTURN_LOG", "trace")]);
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("token");
    project.request("token", "t1");
    assert_eq!(project.answered("token", "t1"), "Succeeded");
    project.settled("token");
    for value in ssm::all_values(&project.path("TOKEN")) {
        assert_eq!(found(&project, &value), Vec::<&str>::new());
    }
    let log = controller::logs();
    assert!(log.contains("\"level\":\"DEBUG\""), "the log is not at its most verbose");
    let key = std::fs::read_to_string(variable("KEYTURN_HOST_KEY")).unwrap();
    let middle = key.lines().nth(2).expect("a line of the key itself");
    let mut leaks = found(&project, middle);
    leaks.retain(|place| !HAVE_THE_KEY.contains(place));
    assert_eq!(leaks, Vec::<&str>::new(), "the SSH key");

    let planted = Planted::everywhere(&project);
    let all: Vec<&str> = places(&project).into_iter().map(|(name, _)| name).collect();
    eventually("each planted leak is found", || {
        let found = found(&project, &planted.value);
        let missed: Vec<_> = all.iter().filter(|place| !found.contains(place)).collect();
        if missed.is_empty() { Ok(()) } else { Err(format!("not found in {missed:?}")) }
    });
}

/// One value in every place. Dropping it removes the value, except for lines of logs.
struct Planted {
    value: String,
}

impl Planted {
    fn everywhere(project: &Project) -> Self {
        // A valid name for objects, and a new one each time, since logs keep it.
        let mut random = [0; 16];
        getrandom::fill(&mut random).unwrap();
        let value = format!("planted-{}", hex::encode(random));
        let planted = Self { value };
        planted.in_cluster(project);
        planted.on_machines(project);
        planted
    }

    fn in_cluster(&self, project: &Project) {
        let (value, namespace) = (&self.value, &project.name);
        let literal = format!("--from-literal=a={value}");
        project.kubectl(&["create", "configmap", "leak", &literal]);
        project.kubectl(&["create", "secret", "generic", "leak", &literal]);
        // The controller's log and metrics name the objects that it reconciles.
        project.apply(&project.secret(value, "LEAK", "  suspend: true\n"));
        project.apply(&format!(
            "apiVersion: events.k8s.io/v1
kind: Event
metadata: {{name: leak, namespace: {namespace}}}
eventTime: \"2020-01-01T00:00:00.000000Z\"
type: Normal
reason: Leak
action: Leak
reportingController: test
reportingInstance: test
note: {value}
regarding: {{kind: Pod, name: leak, namespace: {namespace}}}
"
        ));
        // keyturn prints an argument that it does not know.
        let image = controller::kubectl(&[
            "get",
            "deployment/keyturn",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ]);
        project.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: leak, namespace: {namespace}, labels: {{batch.kubernetes.io/job-name: leak}}}}
spec:
  restartPolicy: Never
  containers: [{{name: leak, image: \"{image}\", args: [{value}]}}]
"
        ));
        eventually("the pod has ended", || match project.field("pod/leak", "/status/phase") {
            phase if phase == "Failed" => Ok(()),
            phase => Err(phase),
        });
    }

    fn on_machines(&self, project: &Project) {
        let value = &self.value;
        for log in ["node/kube-apiserver", "node/kubelet"] {
            let mut file = std::fs::File::options().append(true).open(world_log_file(log)).unwrap();
            writeln!(file, "{value}").unwrap();
        }
        // sshd logs accounts that it does not know.
        let host = variable("KEYTURN_HOST");
        let known_hosts = format!("UserKnownHostsFile={}", variable("KEYTURN_HOST_KNOWN_HOSTS"));
        let account = format!("{value}@{host}");
        let options = ["-n", "-F", "none", "-o", "BatchMode=yes", "-o", &known_hosts, &account];
        crate::world::try_run("ssh", &options).unwrap_err();
        let process = format!("bash -c 'exec -a {value} sleep 600' </dev/null >/dev/null 2>&1 &\n");
        in_box("node", &format!("{process}echo {value} | tee {} >/dev/null", NODE_FILES.join(" ")));
        on_host(&format!(
            "{process}mkdir -p ~/.local/state/keyturn/{0}; echo {value} >~/.local/state/keyturn/{0}/leak",
            project.name
        ));
    }
}

const NODE_FILES: [&str; 2] =
    ["/var/lib/kubelet/pods/leak", "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/leak"];

impl Drop for Planted {
    fn drop(&mut self) {
        let end = "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' 2>/dev/null <$p/cmdline) in planted-*) kill ${p#/proc/};; esac; done";
        let node = format!("rm -f {}; {end}; true", NODE_FILES.join(" "));
        crate::world::try_run(&crate::world::world_program(), &["run", "node", "sh", "-c", &node]).ok();
        try_on_host(&format!("{end}; rm -f ~/.local/state/keyturn/*/leak")).ok();
    }
}
