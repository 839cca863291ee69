//! No value, key or password anywhere but where it belongs: SSM, the containers, the host's .env.

use super::project::Project;
use super::world::{on_host, run, run_with, ssm, variable};

/// Everywhere a value could have leaked to, by name.
fn places(project: &Project) -> Vec<(&'static str, String)> {
    let namespace = &project.name;
    let kubectl = |arguments: &[&str]| run("kubectl", arguments);
    vec![
        ("controller logs", kubectl(&["logs", "-n", "keyturn-system", "deployment/keyturn", "--tail=-1"])),
        (
            "pod logs",
            kubectl(&[
                "logs",
                "-n",
                namespace,
                "-l",
                "batch.kubernetes.io/job-name",
                "--tail=-1",
                "--prefix",
            ]),
        ),
        ("Events", kubectl(&["get", "events.events.k8s.io", "-n", namespace, "-o", "yaml"])),
        ("keyturn's objects", kubectl(&["get", "keyturn", "-A", "-o", "yaml"])),
        ("Jobs and Pods", kubectl(&["get", "jobs,pods", "-n", namespace, "-o", "yaml"])),
        ("Secrets but the SSH key", decoded_secrets(namespace)),
        ("ConfigMaps", kubectl(&["get", "configmaps", "-n", namespace, "-o", "yaml"])),
        ("API server's store", etcd()),
        ("process arguments on the host", on_host("ps -eww -o args")),
        ("sshd and system logs on the host", on_host("sudo -n sh -c 'cat /var/log/* 2>/dev/null'; true")),
        (
            "keyturn's files on the host",
            on_host("find ~/.local/state/keyturn -type f -exec cat {} + 2>/dev/null; true"),
        ),
    ]
}

fn decoded_secrets(namespace: &str) -> String {
    let template = "{{range .items}}{{if ne .metadata.name \"host-key\"}}{{range .data}}{{. | base64decode}}\n{{end}}{{end}}{{end}}";
    run("kubectl", &["get", "secrets", "-n", namespace, "-o", &format!("go-template={template}")])
}

/// The bytes of etcd's files as text.
fn etcd() -> String {
    let world = format!("{}/../dev/world", variable("KEYTURN_WORLD_STATE"));
    run(&world, &["run", "node", "sh", "-c", "find /var/lib/etcd -type f -exec cat {} + 2>/dev/null; true"])
}

/// Where any form of the value occurs: as it is, in base64, in hexadecimal, or a piece of it.
fn found(project: &Project, value: &str) -> Vec<&'static str> {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(value);
    let forms = [value.to_owned(), encoded, hex::encode(value), value[8..24].to_owned()];
    let leaks = |text: &str| forms.iter().any(|form| text.contains(form.as_str()));
    places(project).into_iter().filter(|(_, text)| leaks(text)).map(|(place, _)| place).collect()
}

#[test]
#[ignore = "needs the world"]
fn no_value_is_found_anywhere_and_a_planted_one_is() {
    let project = Project::new("leaks");
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("token");
    project.request("token", "t1");
    assert_eq!(project.answered("token", "t1"), "Succeeded");
    project.settled("token");
    for value in ssm::all_values(&project.path("TOKEN")) {
        assert_eq!(found(&project, &value), Vec::<&str>::new());
    }
    let planted = "planted-0123456789abcdef-0123456789abcdef";
    run_with(
        "kubectl",
        &["create", "configmap", "leak", "-n", &project.name, &format!("--from-literal=a={planted}")],
        "",
    );
    on_host(&format!(
        "mkdir -p ~/.local/state/keyturn/{0} && echo {planted} >~/.local/state/keyturn/{0}/planted",
        project.name
    ));
    let places = found(&project, planted);
    on_host(&format!("rm -r ~/.local/state/keyturn/{0}/planted", project.name));
    for place in ["ConfigMaps", "API server's store", "keyturn's files on the host"] {
        assert!(places.contains(&place), "a leak planted in {place} is not found: {places:?}");
    }
}
