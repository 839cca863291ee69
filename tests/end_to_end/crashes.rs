//! Tests kills at random moments: every rotation ends, with one value, and nothing is left over.

use super::controller;
use super::kills::{any_moment_of, kill_controller, kill_pods, number};
use super::project::Project;
use super::ssm;
use super::world::{eventually, in_box, try_run};

/// Asserts that the round's rotation succeeded, with one value more than before, which SSM publishes and the host
/// runs.
fn one_value_more(project: &Project, round: u64) {
    project.settled("token");
    let values = ssm::all_values(&project.path("TOKEN"));
    let mut distinct = values.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len() as u64, round + 1, "round {round}: one value each");
    assert!(project.running("TOKEN").as_ref() == values.last(), "host and SSM agree");
}

#[test]
#[ignore = "needs the world"]
fn every_rotation_ends_with_one_value_however_often_the_controller_is_killed() {
    let project = Project::new("kills");
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("token");
    for round in 1..=number("KEYTURN_KILLS", 6) {
        let token = format!("round-{round}");
        project.request("token", &token);
        std::thread::sleep(any_moment_of(4_000));
        kill_controller();
        if round % 2 == 0 {
            kill_pods(&project.name, "batch.kubernetes.io/job-name");
        }
        assert_eq!(project.answered("token", &token), "Succeeded");
        one_value_more(&project, round);
    }
    assert_eq!(ssm::records(&project.name), "", "no record is left");
    controller::rolled_out();
}

/// Sends SIGKILL to the processes in a pod of this namespace. Returns true if there was one.
fn kill_process(namespace: &str) -> bool {
    let path = "jsonpath={.items[*].metadata.uid}";
    let uids = try_run("kubectl", &["get", "pods", "-n", namespace, "-o", path]).unwrap_or_default();
    let any = uids.replace(' ', "|");
    let script = format!(
        "for pid in $(pgrep -f '^/keyturn deploy-host'); do
  grep -qsE '{any}' /proc/$pid/cgroup && kill -KILL $pid && echo killed
done; true"
    );
    in_box("node", &script).contains("killed")
}

/// Deletes a pod of this namespace together with its processes. Returns true if there was one that had not ended.
fn kill_pod(namespace: &str) -> bool {
    let alive = "--field-selector=status.phase!=Succeeded,status.phase!=Failed";
    let arguments = ["delete", "pods", "-n", namespace, alive, "--grace-period=0", "--force", "-o", "name"];
    try_run("kubectl", &arguments).is_ok_and(|deleted| deleted.contains("pod/"))
}

#[test]
#[ignore = "needs the world"]
fn every_rotation_ends_with_one_value_however_often_the_deploy_pod_is_killed() {
    let project = Project::new("podkills");
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("token");
    let (mut round, mut killed) = (0, 0);
    // A kill that is too late for its round falls into a later one.
    while killed < number("KEYTURN_POD_KILLS", 4) {
        round += 1;
        let token = format!("round-{round}");
        project.request("token", &token);
        let moment = any_moment_of(2_500);
        eventually("the deploy pod is there", || {
            let pods = project.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.phase}"]);
            if pods.split(' ').any(|phase| phase == "Pending" || phase == "Running")
                || project.field("managedsecret/token", "/status/lastRotation/request") == token
            {
                Ok(())
            } else {
                Err(format!("pods: {pods}"))
            }
        });
        std::thread::sleep(moment);
        let hit = if round % 2 == 0 { kill_pod(&project.name) } else { kill_process(&project.name) };
        killed += u64::from(hit);
        eprintln!("round {round}: {} after {moment:?}", if hit { "killed" } else { "had ended" });
        assert_eq!(project.answered("token", &token), "Succeeded");
        one_value_more(&project, round);
    }
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}
