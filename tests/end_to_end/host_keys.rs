//! Tests which host a DockerHost trusts: known keys, in every format in which OpenSSH prints them.

use super::project::Project;
use super::world::{eventually, in_box, on_host, variable};

#[test]
#[ignore = "needs the world"]
fn a_host_key_that_nothing_vouches_for_is_refused_and_named() {
    let project = Project::new("hostkey");
    let wrong = format!(
        "{} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEfakeFAKEfakeFAKEfakeFAKEfakeFAKEfakeFAKEfakeFA",
        variable("KEYTURN_HOST")
    );
    project.apply(&project.docker_host(&[wrong], ""));
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    let message = project.wait_reason("dockerhost/web", "Stalled", "True", "HostKeyRefused");
    assert!(message.contains("SHA256:"), "it says which key was offered: {message}");
    assert_eq!(on_host(&format!("test -e ~/e2e/{}/deploys || echo none", project.name)), "none");

    project.apply(&project.docker_host(&project.known_hosts(), ""));
    project.settled("token");
}

#[test]
#[ignore = "needs the world"]
fn what_ssh_keyscan_prints_can_be_pasted_as_it_is() {
    let project = Project::new("keyscan");
    let host = variable("KEYTURN_HOST");
    let printed = in_box("production", &format!("ssh-keyscan -t ed25519,ecdsa {host} 2>/dev/null"));
    assert!(printed.starts_with("# "), "the docker host's ssh-keyscan prints no comment: {printed}");
    let pasted: String = printed.lines().map(|line| format!("        {line}\n")).collect();
    let yaml = project.docker_host(&[], "");
    assert!(yaml.contains("    knownHosts: []\n"), "{yaml}");
    project.apply(&yaml.replace("    knownHosts: []\n", &format!("    knownHosts:\n      - |\n{pasted}")));
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("token");
    eventually("the host is Ready", || {
        let ready = project.condition("dockerhost/web", "Ready");
        if ready.0 == "True" { Ok(()) } else { Err(format!("{ready:?}")) }
    });
}
