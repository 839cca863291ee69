//! Tests failures on the way to the host: each has a condition with cause and remedy, and recovers without a person
//! once the fault has ended.

use super::project::Project;
use super::ssm;
use super::world::{eventually, on_host, run};

const SECRET: &str = "managedsecret/token";

fn settled(subject: &str, more: &str) -> Project {
    let project = Project::new(subject);
    project.apply(&project.secret("token", "TOKEN", &format!("  hosts: [{{name: web}}]\n{more}")));
    project.settled("token");
    project
}

#[test]
#[ignore = "needs the world"]
fn a_script_that_fails_is_told_with_its_exit_code_and_recovers_by_itself() {
    let project = settled("exit3", "");
    project.mark("broken");
    project.request("token", "t1");
    let message = project.wait_reason(SECRET, "Deployed", "False", "DeployFailed");
    assert!(message.contains('3') && message.contains("web"), "{message}");
    project.wait(SECRET, "Stalled", "True");
    assert_eq!(project.condition(SECRET, "Ready").0, "True", "what is published stays ready");

    project.unmark("broken");
    assert_eq!(project.answered("token", "t1"), "Succeeded");
    project.settled("token");
    assert_eq!((project.version("TOKEN"), project.condition(SECRET, "Stalled").0.as_str()), (2, ""));
}

#[test]
#[ignore = "needs the world"]
fn roll_back_brings_the_old_value_back_to_the_host() {
    let project = settled("rollback", "  rotation: {period: 90d, onFailure: RollBack}\n");
    let before = ssm::value(&project.path("TOKEN")).unwrap();
    // The script fails with the new value and works again with the old one.
    on_host(&format!(
        "cd ~/e2e/{0} && sha256sum .env >good && sed -i '2i cd ~/e2e/{0}; sha256sum --check --quiet good || exit 3' deploy/deploy.sh",
        project.name
    ));
    project.request("token", "t1");
    assert_eq!(project.answered("token", "t1"), "RolledBack");
    project.settled("token");
    assert!(ssm::value(&project.path("TOKEN")).unwrap() == before, "the old value is published again");
    assert_eq!(project.version("TOKEN"), 3, "as a version of its own");
    assert!(project.running("TOKEN") == Some(before), "and runs");
    assert_eq!(ssm::records(&project.name), "", "no record or marker is left");
}

#[test]
#[ignore = "needs the world"]
fn a_verify_that_fails_holds_the_rotation_until_it_passes() {
    let project = settled("verify", "");
    let verify = |script: &str| format!("  verify: {{script: {script}, timeout: 1m}}");
    project.apply(&project.docker_host(&project.known_hosts(), &verify("test ! -e ~/e2e/verify-fails")));
    on_host("touch ~/e2e/verify-fails");
    project.apply(
        &project
            .docker_host(&project.known_hosts(), &verify(&format!("test ! -e ~/e2e/{}/sick", project.name))),
    );
    project.mark("slow");
    project.request("token", "t1");
    eventually("the deployment runs", || {
        let running = on_host(&format!("test -e ~/e2e/{}/running && echo yes || true", project.name));
        if running == "yes" { Ok(()) } else { Err("not yet".into()) }
    });
    project.mark("sick");
    project.unmark("slow");
    let message = project.wait_reason(SECRET, "Deployed", "False", "VerifyFailed");
    assert!(message.contains("verify"), "{message}");
    project.unmark("sick");
    assert_eq!(project.answered("token", "t1"), "Succeeded");
    project.settled("token");
}

#[test]
#[ignore = "needs the world"]
fn a_connection_that_is_cut_in_mid_deploy_deploys_once_and_is_reported() {
    let project = settled("cut", "");
    let deploys = project.deploys();
    project.mark("slow");
    project.request("token", "t1");
    let running = format!("test -e ~/e2e/{}/running && echo yes || true", project.name);
    eventually("the deployment runs", || {
        if on_host(&running) == "yes" { Ok(()) } else { Err("not yet".into()) }
    });
    // The pod and its connection disappear; the script on the host continues.
    run("kubectl", &["delete", "pods", "-n", &project.name, "--all", "--grace-period=0", "--force"]);
    project.unmark("slow");
    assert_eq!(project.answered("token", "t1"), "Succeeded");
    project.settled("token");
    assert_eq!(project.deploys() - deploys, 1, "the deploy script ran once");
}

#[test]
#[ignore = "needs the world"]
fn a_namespace_without_the_controllers_role_is_told_how_to_bind_it_and_holds_up_no_other() {
    let project = Project::new("no-role");
    project.kubectl(&["delete", "rolebinding", "keyturn-namespace"]);
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    let said = project.wait_reason("dockerhost/web", "Stalled", "True", "RoleMissing");
    println!("{said}");
    assert_eq!(project.deploys(), 0);
    let (_, command) = said.split_once(", or: ").expect("it says what to do");
    run("bash", &["-c", command]);
    project.settled("token");
}
