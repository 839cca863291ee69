//! Tests Secrets that keyturn may use, and Secrets that an object names without their consent.

use super::project::Project;
use super::ssm;
use super::world::{run, variable};

#[test]
#[ignore = "needs the world"]
fn a_key_is_used_once_the_command_in_the_condition_was_run() {
    let project = Project::new("consent");
    project.kubectl(&["label", "secret", "host-key", "keyturn.dev/usable-by-"]);
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    let message = project.wait_reason("dockerhost/web", "Stalled", "True", "SecretNotLabelled");
    assert_eq!(project.kubectl(&["get", "jobs", "-o", "name"]), "", "nothing mounts the key");
    let command = message.split('`').nth(1).unwrap();
    let expected = format!("kubectl label secret -n {} host-key keyturn.dev/usable-by=ssh", project.name);
    assert_eq!(command, expected);
    run("bash", &["-c", command]);
    project.settled("token");
}

/// Somebody who may write a ManagedSecret, but not read Secrets, could otherwise read one as the name of an
/// administrator that the server refuses.
#[test]
#[ignore = "needs the world"]
fn a_key_does_not_come_to_light_as_the_name_of_an_administrator() {
    let project = Project::new("stolen");
    let grant =
        format!("{}  postgres: [{{dockerHost: web, port: 5999, roles: [app]}}]\n", project.grant("Rotate"));
    project.apply(&grant);
    let key = variable("KEYTURN_HOST_KEY");
    project.create_secret("swapped", "ssh", &[&format!("--from-file=id={key}")]);
    ssm::put(&project.path("STOLEN"), "from-before-keyturn");
    let generate = "  generate: {postgres: {via: {dockerHost: web}, port: 5999, database: app, adminSecretRef: {name: \
                    swapped, usernameKey: id, passwordKey: id}, singleRole: {name: app}}}\n";
    project.apply(&project.secret("stolen", "STOLEN", generate));
    project.request("stolen", "once");
    project.wait_reason("managedsecret/stolen", "Stalled", "True", "SecretNotLabelled");
    // Somebody who may label Secrets has given it the wrong label by accident.
    project.kubectl(&["label", "secret", "swapped", "--overwrite", "keyturn.dev/usable-by=postgres-admin"]);
    let message = project.wait_reason("managedsecret/stolen", "Stalled", "True", "AdministratorUnusable");
    assert!(message.contains("key id of Secret swapped"), "{message}");

    let key = std::fs::read_to_string(key).unwrap();
    let said = project.kubectl(&["get", "managedsecrets,dockerhosts,events", "-o", "yaml"]);
    for line in key.lines().filter(|line| line.len() > 8) {
        assert!(!said.contains(line), "a line of the key is said");
    }
}
