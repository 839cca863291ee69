//! Tests the adoption of parameters that existed before keyturn.

use super::project::Project;
use super::ssm;
use super::world::on_host;

/// Puts and deploys a value by hand, as a person did before keyturn.
fn by_hand(project: &Project, parameter: &str, value: &str) {
    ssm::put(&project.path(parameter), value);
    on_host(&format!("cd ~/e2e/{} && bash deploy/secrets.sh && bash deploy/deploy.sh", project.name));
}

#[test]
#[ignore = "needs the world"]
fn a_young_parameter_is_adopted_as_it_is_and_an_old_one_rotates_after_preflight() {
    let project = Project::new("adopt");
    by_hand(&project, "YOUNG", "young-value-of-a-person\n");
    by_hand(&project, "OLD", "old-value-of-a-person");
    ssm::backdate(&project.path("OLD"), 100);
    let deploys = project.deploys();

    project.apply(&project.secret("young", "YOUNG", "  hosts: [{name: web}]\n"));
    project.settled("young");
    assert_eq!(project.version("YOUNG"), 1, "a young parameter keeps its version");
    assert_eq!(project.deploys(), deploys, "adopting deploys nothing");

    project.apply(&project.secret("old", "OLD", "  hosts: [{name: web}]\n"));
    super::world::eventually("the old parameter is rotated", || match project.version("OLD") {
        1 => Err(format!("{:?}", project.condition("managedsecret/old", "Ready"))),
        _ => Ok(()),
    });
    project.settled("old");
    assert_eq!(project.version("OLD"), 2);
    let now = ssm::value(&project.path("OLD"));
    assert!(now.is_some() && project.running("OLD") == now, "the new value runs");
    assert_eq!(project.version("YOUNG"), 1, "its neighbour is deployed along, not rotated");
    assert_eq!(project.running("YOUNG").as_deref(), Some("young-value-of-a-person"));
    project.settled("young");
}

#[test]
#[ignore = "needs the world"]
fn a_container_that_runs_another_value_is_told_before_anything_is_touched() {
    let project = Project::new("differs");
    by_hand(&project, "TOKEN", "what-the-container-runs");
    ssm::put(&project.path("TOKEN"), "what-ssm-says-since");
    ssm::backdate(&project.path("TOKEN"), 100);
    let deploys = project.deploys();

    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    let (reason, message) = project.wait("managedsecret/token", "Preflight", "False");
    assert!(["ValueDiffers", "NotAdopted"].contains(&reason.as_str()), "{reason}: {message}");
    assert!(message.contains("TOKEN") && message.contains("web"), "{message}");
    assert_eq!((project.version("TOKEN"), project.deploys()), (2, deploys), "nothing was touched");

    on_host(&format!("cd ~/e2e/{} && bash deploy/secrets.sh && bash deploy/deploy.sh", project.name));
    super::world::eventually("the rotation goes on once a person has deployed", || {
        match project.version("TOKEN") {
            2 => Err(format!("{:?}", project.condition("managedsecret/token", "Preflight"))),
            _ => Ok(()),
        }
    });
    project.settled("token");
}
