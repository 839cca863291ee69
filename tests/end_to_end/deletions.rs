//! Tests that deleted objects disappear, even if what they depend on is deleted first.

use super::project::Project;
use super::ssm;
use super::world::{eventually, run, try_run};

#[test]
#[ignore = "needs the world"]
fn a_namespace_that_is_deleted_with_its_grant_in_mid_rotation_goes_and_what_is_live_is_said() {
    let project = Project::new("gone");
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("token");
    let before = ssm::value(&project.path("TOKEN"));
    project.mark("slow");
    project.request("token", "t1");
    eventually("the new value is published", || {
        if ssm::value(&project.path("TOKEN")) == before { Err("not yet".into()) } else { Ok(()) }
    });
    run("kubectl", &["delete", "rotationgrant", &project.name]);
    run("kubectl", &["delete", "namespace", &project.name, "--wait=false"]);
    eventually("the namespace is gone", || {
        let conditions = "jsonpath={.status.conditions[*].message}";
        match try_run("kubectl", &["get", "namespace", &project.name, "-o", conditions]) {
            Ok(there) => Err(there),
            Err(_) => Ok(()),
        }
    });
    // The namespace's own Events are deleted with it.
    let about = format!("involvedObject.kind=Namespace,involvedObject.name={}", project.name);
    let events = ["get", "events", "-n", "default", "--field-selector", &about, "-o"];
    let said =
        run("kubectl", &[&events[..], &["jsonpath={range .items[*]}{.reason} {.message}{end}"]].concat());
    println!("{said}");
    assert!(said.contains("RotationAbandoned ManagedSecret token: "), "{said}");
    assert!(said.contains(&format!("{} version 2", project.path("TOKEN"))), "{said}");
    project.unmark("slow");
    let left = ssm::records(&project.name);
    assert!(!left.is_empty(), "the record that was live is still there");
    ssm::delete(&left);
}
