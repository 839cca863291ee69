//! Killed at random moments: every rotation ends, with one value, and nothing is left over.

use std::time::Duration;

use super::controller;
use super::project::Project;
use super::world::{ssm, try_run};

/// How many times something is killed: as the variable says, where it is set.
fn kills(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// Pauses that are spread over the length of a rotation, differently in each round.
fn pause(round: u64) -> Duration {
    Duration::from_millis(100 + (round.wrapping_mul(2_654_435_761) % 4_000))
}

/// Kills by SIGKILL what runs as pid 1 of a pod's container.
fn kill_pods(namespace: &str, selector: &str) {
    try_run("kubectl", &["delete", "pods", "-n", namespace, "-l", selector, "--grace-period=0", "--force"])
        .ok();
}

/// The round's rotation ended well, with one value more than the round before, which SSM publishes and the host runs.
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
    for round in 1..=kills("KEYTURN_KILLS", 6) {
        let token = format!("round-{round}");
        project.request("token", &token);
        std::thread::sleep(pause(round));
        kill_pods(controller::NAMESPACE, controller::SELECTOR);
        if round % 2 == 0 {
            kill_pods(&project.name, "batch.kubernetes.io/job-name");
        }
        assert_eq!(project.answered("token", &token), "Succeeded");
        one_value_more(&project, round);
    }
    assert_eq!(ssm::records(&project.name), "", "no record is left");
    controller::rolled_out();
}
