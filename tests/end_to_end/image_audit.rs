//! Tests the audit of the images that a docker host's containers run.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::controller;
use super::project::Project;
use super::ssm;
use super::world::{eventually, on_host};

const BUILD_TOKEN: &str = "6ceb499471ae1078e3bd00aa";
const PASSWORD: &str = "Winter-Garden-91";

/// Builds four images on the docker host and runs a container of each.
fn run_images(project: &Project, managed: &str) {
    let name = &project.name;
    let label = STANDARD.encode(format!("release of {managed}"));
    on_host(&format!(
        r#"set -eu
cd ~/e2e/{name}
build() {{ sudo -n docker build --quiet --tag "{name}/$1:1" "${{@:2}}" - >/dev/null; }}
build token --build-arg NPM_TOKEN={BUILD_TOKEN} <<'D'
FROM musehub:world
ARG NPM_TOKEN
RUN test -n "$NPM_TOKEN"
D
build password <<'D'
FROM musehub:world
ENV DB_PASSWORD={PASSWORD}
D
build label <<'D'
FROM musehub:world
LABEL build-info={label}
D
build clean <<'D'
FROM musehub:world
ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
CMD ["python3", "-m", "http.server"]
D
cat >compose.yml <<'YAML'
services:
  app: {{image: "{name}/clean:1", init: true, command: [sleep, infinity], env_file: .env}}
  token: {{image: "{name}/token:1", init: true, command: [sleep, infinity]}}
  password: {{image: "{name}/password:1", init: true, command: [sleep, infinity]}}
  label: {{image: "{name}/label:1", init: true, command: [sleep, infinity]}}
YAML
bash deploy/secrets.sh && bash deploy/deploy.sh
"#
    ));
}

/// Returns the findings as `image place rule parameter`, in order.
fn findings(project: &Project) -> Vec<String> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or("-").to_owned();
    let mut described: Vec<String> = finding_list(project)
        .iter()
        .map(|f| {
            let place = text(f, "place");
            // The number of layers of the base image does not matter.
            let place =
                place.split(' ').filter(|word| word.parse::<u32>().is_err()).collect::<Vec<_>>().join(" ");
            let image = text(f, "image").replace(&format!("{}/", project.name), "");
            format!("{image} {place} {} {}", text(f, "rule"), text(f, "parameter"))
        })
        .collect();
    described.sort();
    described
}

fn finding_list(project: &Project) -> Vec<Value> {
    let host = super::objects::get(&project.name, "dockerhost/web").unwrap();
    host["status"]["imageFindings"].as_array().cloned().unwrap_or_default()
}

fn eventually_found(project: &Project, expected: &[&str]) {
    eventually(&format!("the findings are {expected:?}"), || match findings(project) {
        found if found == expected => Ok(()),
        found => Err(format!("{found:?}: {:?}", project.condition("dockerhost/web", "ImagesClean"))),
    });
}

fn set_audit(project: &Project, audit: &str) {
    project.apply(&project.docker_host(&project.known_hosts(), &format!("  audit: {audit}")));
}

#[test]
#[ignore = "needs the world"]
fn secrets_in_images_are_found_named_accepted_and_gone_with_the_rotation() {
    let project = Project::new("images");
    project.apply(&project.secret("key", "SIGNING_KEY", "  hosts: [{name: web}]\n"));
    project.settled("key");
    project.wait("dockerhost/web", "ImagesClean", "True");
    let managed = ssm::value(&project.path("SIGNING_KEY")).unwrap();
    run_images(&project, &managed);

    set_audit(&project, "{interval: 1m, allowEnv: [PYTHONPATH, PYTHONDONTWRITEBYTECODE, PYTHONUNBUFFERED]}");
    let in_the_label = format!("label:1 label build-info managed-value {}", project.path("SIGNING_KEY"));
    let in_the_env = "password:1 env DB_PASSWORD secret-name -";
    let in_the_history = "token:1 history layer NPM_TOKEN secret-name -";
    eventually_found(&project, &[&in_the_label, in_the_env, in_the_history]);
    let (reason, message) = project.wait("dockerhost/web", "ImagesClean", "False");
    assert_eq!(reason, "SecretsFound");
    assert!(message.contains("spec.audit.allow"), "{message}");
    project.wait("dockerhost/web", "Ready", "True");
    project.settled("key");
    eventually("an Event tells it", || {
        let events = project.kubectl(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].reason}"]);
        if events.contains("SecretInImage") { Ok(()) } else { Err(events) }
    });
    let metric = format!("keyturn_image_findings{{namespace=\"{0}\",name=\"web\"}} 3", project.name);
    eventually("the metric counts them", || {
        let metrics = controller::metrics(&controller::leader())?;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("keyturn_image_findings{") && line.contains(&project.name));
        if line == Some(metric.as_str()) { Ok(()) } else { Err(format!("{line:?}")) }
    });

    // No value, and no form of one, appears in any of these.
    let jobs = ["-l", "batch.kubernetes.io/job-name", "--tail=-1", "--prefix"];
    let places = [
        project.kubectl(&["get", "dockerhosts,jobs,pods", "-o", "yaml"]),
        project.kubectl(&["get", "events.events.k8s.io", "-o", "yaml"]),
        project.kubectl(&[&["logs"][..], &jobs].concat()),
        controller::logs(),
    ];
    let label = STANDARD.encode(format!("release of {managed}"));
    for secret in [BUILD_TOKEN, PASSWORD, &managed, &label] {
        assert!(places.iter().all(|place| !place.contains(secret)), "{secret} is somewhere");
    }

    // Only what is allowed is no longer reported, and a change of the allowances takes effect at once.
    let fingerprint_of = |image: &str| {
        let found = finding_list(&project);
        let finding = found.iter().find(|f| f["image"].as_str().unwrap().ends_with(image)).unwrap();
        finding["fingerprint"].as_str().unwrap().to_owned()
    };
    let (in_env, in_history) = (fingerprint_of("password:1"), fingerprint_of("token:1"));
    let allow = format!(
        "[{{fingerprint: {in_env}}}, {{fingerprint: {in_history}, image: {}/token, reason: a test}}]",
        project.name
    );
    set_audit(&project, &format!("{{interval: 1m, allow: {allow}}}"));
    eventually_found(&project, &[&in_the_label]);

    // From this rotation on, the label contains an old value; the audit after the deployment reports the
    // image as clean.
    set_audit(&project, &format!("{{interval: 365d, allow: {allow}}}"));
    project.request("key", "leaked");
    assert_eq!(project.answered("key", "leaked"), "Succeeded");
    let (reason, message) = project.wait("dockerhost/web", "ImagesClean", "True");
    assert_eq!(reason, "Clean");
    assert!(message.contains("4 images") && message.contains("2 findings allowed"), "{message}");
    assert_eq!(finding_list(&project), Vec::<Value>::new());

    // The command that a pipeline calls audits the same images.
    let code = |image: &str, more: &[&str]| {
        let image = format!("{}/{image}:1", project.name);
        let mut keyturn = std::process::Command::new(env!("CARGO_BIN_EXE_keyturn"));
        keyturn.args(["audit", "image", &image]).args(more).output().unwrap().status.code().unwrap()
    };
    let codes = ["token", "password", "label", "clean"].map(|image| code(image, &[]));
    assert_eq!(codes, [1, 1, 0, 0], "a label in base64 says nothing to whoever does not know the value");
    assert_eq!(code("token", &["--allow", &in_history]), 0, "it knows findings by the same fingerprints");
    for image in ["token", "password", "label", "clean"] {
        on_host(&format!("sudo -n docker image rm --force {}/{image}:1", project.name));
    }
}

#[test]
#[ignore = "needs the world"]
fn a_file_that_a_later_layer_deletes_is_found_in_the_interval() {
    let project = Project::new("layers");
    project.apply(&project.secret("key", "SIGNING_KEY", "  hosts: [{name: web}]\n"));
    project.settled("key");
    let name = &project.name;
    on_host(&format!(
        r#"set -eu
cd ~/e2e/{name}
mkdir context
printf 'DB_PASSWORD={PASSWORD}\n' >context/.env
sudo -n docker build --quiet --tag "{name}/file:1" --file - context >/dev/null <<'D'
FROM musehub:world
COPY .env /srv/.env
RUN rm /srv/.env
D
cat >compose.yml <<'YAML'
services:
  app: {{image: "{name}/file:1", init: true, command: [sleep, infinity], env_file: .env}}
YAML
bash deploy/secrets.sh && bash deploy/deploy.sh
"#
    ));
    set_audit(&project, "{interval: 1h, layers: true}");
    let in_the_file = "file:1 file srv/.env DB_PASSWORD secret-name -";
    eventually_found(&project, &[in_the_file]);
    let status = project.kubectl(&["get", "dockerhost/web", "-o", "jsonpath={.status.imageAudit.layers}"]);
    let layers: Value = serde_json::from_str(&status).unwrap();
    assert!(layers["files"].as_i64().unwrap() > 1000 && layers["problem"].is_null(), "{layers}");

    // A deployment does not search the layers, and keeps their findings.
    project.request("key", "leaked");
    assert_eq!(project.answered("key", "leaked"), "Succeeded");
    assert_eq!(findings(&project), [in_the_file]);

    let (reason, _) = project.wait("dockerhost/web", "ImagesClean", "False");
    assert_eq!(reason, "SecretsFound");
    let everything = project.kubectl(&["get", "dockerhosts,jobs,pods", "-o", "yaml"]);
    assert!(!everything.contains(PASSWORD), "the value is somewhere");
    on_host(&format!("sudo -n docker image rm --force {name}/file:1"));
}
