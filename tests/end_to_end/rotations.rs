//! Tests the main task: values are created, deployed, proven, and rotated on request.

use super::project::Project;
use super::ssm;
use super::world::{eventually, on_host, run_with};

#[test]
#[ignore = "needs the world"]
fn a_missing_parameter_is_created_deployed_and_proven() {
    let project = Project::new("bootstrap");
    let host = "  hosts: [{name: web}]\n";
    project.apply(&project.secret("runner-token", "RUNNER_TOKEN", host));
    project.apply(&project.secret(
        "webhook-key",
        "WEBHOOK_SECRET_KEY",
        &format!("{host}  generate: {{fernet: {{}}}}\n  rotation: {{mode: OnDemand}}\n"),
    ));
    project.settled("runner-token");
    project.settled("webhook-key");

    let token = ssm::value(&project.path("RUNNER_TOKEN")).unwrap();
    assert_eq!((token.len(), token.bytes().all(|b| b.is_ascii_hexdigit())), (64, true));
    assert_eq!(ssm::kind(&project.path("RUNNER_TOKEN")).unwrap(), "SecureString");
    assert!(project.running("RUNNER_TOKEN") == Some(token), "the container runs what SSM publishes");

    let key = ssm::value(&project.path("WEBHOOK_SECRET_KEY")).unwrap();
    assert!(
        project.running("WEBHOOK_SECRET_KEY").as_ref() == Some(&key),
        "the container runs the Fernet key"
    );
    let python = "import sys\nfrom cryptography.fernet import Fernet\nf = Fernet(sys.stdin.read())\n\
                  assert f.decrypt(f.encrypt(b'x')) == b'x'";
    let container = format!("{}-app-1", project.name);
    run_with("docker", &["exec", "-i", &container, "python3", "-c", python], &key);
    assert!(project.deploys() <= 2, "two secrets of one host took {} deployments", project.deploys());
    assert_eq!(ssm::records(&project.name), "", "no record is left");
}

#[test]
#[ignore = "needs the world"]
fn one_new_token_is_one_rotation_and_secrets_of_one_host_share_deployments() {
    let project = Project::new("request");
    let names = [("one", "ONE"), ("two", "TWO"), ("three", "THREE")];
    for (name, parameter) in names {
        project.apply(&project.secret(name, parameter, "  hosts: [{name: web}]\n"));
    }
    for (name, _) in names {
        project.settled(name);
    }
    let (deploys, before) = (project.deploys(), names.map(|(_, p)| ssm::value(&project.path(p)).unwrap()));

    for (name, _) in names {
        project.request(name, "first");
    }
    for (name, _) in names {
        assert_eq!(project.answered(name, "first"), "Succeeded");
        project.settled(name);
    }
    for ((_, parameter), before) in names.iter().zip(&before) {
        let now = ssm::value(&project.path(parameter)).unwrap();
        assert_eq!(project.version(parameter), 2, "{parameter}: one rotation, one version");
        assert!(now != *before && project.running(parameter) == Some(now), "{parameter}: a new value runs");
    }
    let taken = project.deploys() - deploys;
    assert!((1..=2).contains(&taken), "three secrets rotated together took {taken} deployments");
}

#[test]
#[ignore = "needs the world"]
fn nothing_but_time_a_new_token_or_a_person_rotates() {
    let project = Project::without_host("silence");
    let yaml = project.secret("token", "TOKEN", "");
    project.apply(&yaml);
    project.wait("managedsecret/token", "Ready", "True");
    project.wait("managedsecret/token", "Rotating", "False");
    project.request("token", "used");
    assert_eq!(project.answered("token", "used"), "Succeeded");
    project.wait("managedsecret/token", "Rotating", "False");
    assert_eq!(project.version("TOKEN"), 2);

    let seen_again = |what: &str| {
        project.wait("managedsecret/token", "Ready", "True");
        assert_eq!(project.version("TOKEN"), 3, "{what}");
    };
    project.request("token", "later");
    assert_eq!(project.answered("token", "later"), "Succeeded");
    project.wait("managedsecret/token", "Rotating", "False");
    assert_eq!(project.version("TOKEN"), 3);
    let older = "annotations: {keyturn.dev/rotate-requested-at: used}, namespace:";
    project.apply(&yaml.replace("namespace:", older).replace("90d", "91d"));
    eventually("the older token is seen", || {
        let of = |pointer: &str| project.field("managedsecret/token", pointer);
        let (seen, wanted) = (of("/status/observedGeneration"), of("/metadata/generation"));
        if seen == wanted { Ok(()) } else { Err(format!("{seen} of {wanted}")) }
    });
    assert_eq!(project.condition("managedsecret/token", "Rotating").0, "False");
    seen_again("an older token, as GitOps puts it back");

    project.kubectl(&["label", "managedsecret/token", "colour=blue"]);
    project.kubectl(&["annotate", "managedsecret/token", "colour=blue"]);
    project.apply(&yaml);
    seen_again("labels, annotations and the same YAML again");

    project.kubectl(&[
        "patch",
        "managedsecret/token",
        "--subresource=status",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/status","value":{"observedGeneration":-1}}]"#,
    ]);
    project.looked_at("token");
    seen_again("an emptied status");

    project.kubectl(&["delete", "managedsecret/token"]);
    assert_eq!(project.version("TOKEN"), 3, "Retain keeps the parameter");
    project.apply(
        &yaml.replace(
            "namespace:",
            "annotations: {keyturn.dev/rotate-requested-at: from-the-yaml}, namespace:",
        ),
    );
    assert_eq!(project.answered("token", "from-the-yaml"), "Recorded");
    seen_again("the object created again, with an old token in its YAML");
}

#[test]
#[ignore = "needs the world"]
fn a_request_to_a_suspended_secret_is_told_and_waits_for_the_end_of_that() {
    let project = Project::without_host("suspended");
    let secret = "managedsecret/token";
    project.apply(&project.secret("token", "TOKEN", ""));
    project.wait(secret, "Ready", "True");
    project.wait_reason(secret, "Rotating", "False", "Idle");
    project.kubectl(&["patch", secret, "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#]);
    project.wait_reason(secret, "Rotating", "False", "Suspended");
    project.request("token", "asked-while-suspended");
    super::world::eventually("the request is named", || {
        let (_, reason, message) = project.condition(secret, "Rotating");
        let told = reason == "Suspended" && message.contains("\"asked-while-suspended\" waits");
        if told { Ok(()) } else { Err(format!("{reason}: {message}")) }
    });
    assert_eq!(project.version("TOKEN"), 1);
    project.kubectl(&["patch", secret, "--type=merge", "-p", r#"{"spec":{"suspend":false}}"#]);
    assert_eq!(project.answered("token", "asked-while-suspended"), "Succeeded");
    assert_eq!(project.version("TOKEN"), 2);
}

#[test]
#[ignore = "needs the world"]
fn observe_shows_what_would_be_done_and_does_nothing() {
    let project = Project::without_host("observe");
    project.apply(&project.grant("Observe"));
    project.apply(&project.secret("token", "TOKEN", ""));
    let message = super::world::eventually("the status says that the grant only observes", || {
        let (_, _, message) = project.condition("managedsecret/token", "Ready");
        if message.contains("Observe") { Ok(message) } else { Err(message) }
    });
    assert!(message.contains("nothing was changed"), "{message}");
    assert_eq!(ssm::version(&project.path("TOKEN")), None);
    project.apply(&project.grant("Rotate"));
    project.wait("managedsecret/token", "Ready", "True");
    assert_eq!(project.version("TOKEN"), 1);
}

#[test]
#[ignore = "needs the world"]
fn deletion_policy_delete_removes_the_parameter_and_retain_does_not() {
    let project = Project::without_host("delete");
    project.apply(&project.secret("kept", "KEPT", ""));
    project.apply(&project.secret("removed", "REMOVED", "  deletionPolicy: Delete\n"));
    for name in ["managedsecret/kept", "managedsecret/removed"] {
        project.wait(name, "Ready", "True");
    }
    project.kubectl(&["delete", "managedsecret/kept", "managedsecret/removed", "--timeout=120s"]);
    assert_eq!(ssm::version(&project.path("KEPT")), Some(1));
    assert_eq!(ssm::version(&project.path("REMOVED")), None);
    assert_eq!(ssm::records(&project.name), "");
}

#[test]
#[ignore = "needs the world"]
fn the_host_can_be_left_alone_where_nothing_names_it() {
    let project = Project::new("unused");
    project.wait("dockerhost/web", "Ready", "True");
    assert_eq!(on_host(&format!("test -e ~/e2e/{}/deploys || echo none", project.name)), "none");
}
