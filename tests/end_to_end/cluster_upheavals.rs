//! Tests that nothing that happens to the controller or to its cluster rotates a secret.

use super::controller;
use super::project::Project;
use super::ssm;
use super::world::{PATIENCE, eventually, run};

const SECRET: &str = "managedsecret/token";

/// Returns the Puts to the project's parameters and records since this call.
fn puts_since(project: &Project, began: u64) -> Vec<String> {
    let (puts, _) = ssm::calls_since(began, "PutParameter");
    puts.into_iter().filter(|names| names.contains(&project.name)).collect()
}

#[test]
#[ignore = "needs the world"]
fn no_upgrade_restart_new_leader_or_cluster_that_is_set_up_again_writes_a_parameter() {
    let project = Project::new("upheaval");
    let yaml = project.secret("token", "TOKEN", "  hosts: [{name: web}]\n");
    project.apply(&yaml);
    project.settled("token");
    project.request("token", "used");
    assert_eq!(project.answered("token", "used"), "Succeeded");
    project.settled("token");
    let deploys = project.deploys();
    let (_, began) = ssm::calls_since(0, "PutParameter");
    let nothing_was_written = |what: &str| {
        controller::has_looked_at_everything();
        project.settled("token");
        assert_eq!(puts_since(&project, began), Vec::<String>::new(), "{what}");
        assert_eq!(project.deploys(), deploys, "{what}: and nothing is deployed again");
    };

    let values = controller::Values::keep();
    controller::upgrade(&["--reuse-values", "--set", "logLevel=debug"]);
    nothing_was_written("helm upgrade with another value");

    controller::upgrade(&["--reuse-values", "--set", "replicas=2"]);
    eventually("there are two pods", || match controller::pods() {
        pods if pods.len() == 2 => Ok(()),
        pods => Err(format!("{pods:?}")),
    });
    nothing_was_written("two replicas");

    let leader = controller::leader();
    controller::kubectl(&["delete", "pod", &leader, "--wait=false", "--ignore-not-found"]);
    eventually("another pod leads", || {
        let now = controller::leader();
        if now == leader { Err(format!("{now} leads")) } else { Ok(()) }
    });
    nothing_was_written("another leader");
    drop(values);

    for _ in 0..10 {
        let before = controller::leader();
        controller::kubectl(&["delete", "pod", &before, "--ignore-not-found"]);
        controller::rolled_out();
        controller::has_looked_at_everything();
    }
    nothing_was_written("ten restarts");

    let patience = format!("--timeout={}s", PATIENCE.as_secs());
    run("kubectl", &["delete", "namespace", &project.name, &patience]);
    run("kubectl", &["delete", "rotationgrant", &project.name]);
    project.apply_namespace();
    project.apply_host();
    // This is the object as it is in a repository, with the token of a rotation that was done long ago.
    let token = "annotations: {keyturn.dev/rotate-requested-at: used}, namespace:";
    project.apply(&yaml.replace("namespace:", token));
    // The published version's description says which request it answered.
    assert_eq!(project.answered("token", "used"), "Succeeded");
    nothing_was_written("all objects wiped and created again");

    // The same pass finds a rotation that was requested.
    project.request("token", "new");
    assert_eq!(project.answered("token", "new"), "Succeeded");
    project.settled("token");
    let puts = puts_since(&project, began);
    assert_eq!(puts.len(), 2, "the record and the value: {puts:?}");
    assert_eq!(project.condition(SECRET, "Drifted").0, "False");
}
