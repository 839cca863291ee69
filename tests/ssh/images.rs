//! Tests the audit of the project's images over the connection of the run, with real images.

use std::io::Write as _;
use std::process::{Command, Stdio};

use keyturn::api::docker_host::RunResult;
use keyturn::audit::Allowances;
use keyturn::audit::managed::ManagedValues;
use keyturn::deploy::report::ImagesReport;
use keyturn::deploy::task::{Layers, Task, TaskAudit};
use keyturn::secret_value::SecretValue;

use crate::host::{Host, docker_host};
use crate::sshd::run;

const PARAMETER: &str = "/test/TOKEN";
const VALUE: &str = "managed-9f2c77d01b";
const BUILD_TOKEN: &str = "6ceb499471ae1078e3bd00aa";

/// An image that is built on an existing image of docker's, and the container that runs it.
struct Built {
    image: String,
    container: String,
}

impl Built {
    fn start(host: &Host, name: &str, steps: &str, arguments: &[&str]) -> Self {
        Self::with_files(host, name, steps, arguments, &[])
    }

    fn with_files(host: &Host, name: &str, steps: &str, arguments: &[&str], files: &[(&str, &str)]) -> Self {
        let image = format!("{}/{name}:1", host.project);
        let container = format!("{}-{name}", host.project);
        let base = base();
        let context = host.path(&format!("build-{name}"));
        std::fs::create_dir(&context).unwrap();
        for (name, content) in files {
            std::fs::write(context.join(name), content).unwrap();
        }
        let mut docker = Command::new("docker");
        docker.args(["build", "--quiet", "--tag", &image, "--file", "-"]).args(arguments).arg(&context);
        docker.env("DOCKER_HOST", docker_host()).env("DOCKER_BUILDKIT", "0");
        let mut child = docker.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let dockerfile = format!("FROM {base}\n{steps}\n");
        child.stdin.take().unwrap().write_all(dockerfile.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{name} was not built");
        let built = Self { image, container };
        built.run(host);
        built
    }

    fn run(&self, host: &Host) {
        let project = format!("com.docker.compose.project={}", host.project);
        let mut docker = Command::new("docker");
        docker.args(["run", "--detach", "--name", &self.container, "--network", "none", "--label", &project]);
        docker.args(["--stop-timeout", "0", "--entrypoint", "sleep", &self.image, "300"]);
        let output = docker.env("DOCKER_HOST", docker_host()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn stop(&self) {
        run("docker", &["rm", "--force", &self.container]);
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        let quietly = |arguments: &[&str]| {
            let _ =
                Command::new("docker").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        };
        quietly(&["rm", "--force", &self.container]);
        quietly(&["image", "rm", "--force", &self.image]);
    }
}

/// Returns some existing image of docker's, except those that tests build.
fn base() -> String {
    let listed = run("docker", &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let of_a_test =
        |name: &str| ["keyturn-test-", "e2e-", "<none>"].iter().any(|word| name.starts_with(word));
    listed.lines().find(|name| !of_a_test(name)).expect("docker has some image").to_owned()
}

fn audited(host: &Host, revision: &str, script: &str) -> Task {
    let values = [(PARAMETER.to_owned(), SecretValue::new(VALUE.to_owned()))];
    let audit = TaskAudit {
        allowances: Allowances { variables: ["SEED_KEY".to_owned()].into(), ..Allowances::default() },
        layers: Layers::Ignore,
    };
    let managed = ManagedValues::new(&values, &[9; 32]);
    Task { managed, audit: Some(audit), parameters: Vec::new(), ..host.task(revision, script) }
}

fn found(images: &ImagesReport) -> Vec<(String, String, Option<String>)> {
    let findings = images.found.iter().flat_map(|image| {
        let name = image.name.rsplit('/').next().unwrap();
        image
            .findings
            .iter()
            .map(move |f| (format!("{name} {}", f.place), f.rule.clone(), f.parameter.clone()))
    });
    findings.collect()
}

#[tokio::test]
#[ignore = "needs the world"]
async fn what_is_baked_into_images_is_reported_without_failing_the_run() {
    let host = Host::start();
    let encoded = "bWFuYWdlZC05ZjJjNzdkMDFi";
    let (app, token) = (format!("LABEL build-info={encoded}"), format!("NPM_TOKEN={BUILD_TOKEN}"));
    let app = Built::start(&host, "app", &app, &[]);
    let _builder = Built::start(&host, "builder", "ARG NPM_TOKEN\nRUN true", &["--build-arg", &token]);
    let clean = "ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 SEED_KEY=d41d8cd98f00b204e980";
    let _clean = Built::start(&host, "clean", clean, &[]);
    // An image with two containers is audited once, and images outside of the project are not audited.
    let again = Built { image: app.image.clone(), container: format!("{}-again", host.project) };
    again.run(&host);

    let (report, watch) = host.run(&audited(&host, "abc1", "true")).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    let told_before = watch.results.lock().unwrap()[0].clone();
    assert_eq!((told_before.outcome, &told_before.parameters), (report.outcome, &report.parameters));
    let images = report.images.unwrap();
    assert_eq!((images.images, images.allowed, images.problem.as_deref()), (3, 1, None), "{images:?}");
    let expected = [
        ("app:1 label build-info", "managed-value", Some(PARAMETER)),
        ("builder:1 history layer", "secret-name", None),
    ];
    let mut actual = found(&images);
    actual.sort();
    assert_eq!(actual.len(), expected.len(), "{actual:?}");
    for ((place, rule, parameter), expected) in actual.iter().zip(expected) {
        assert!(place.starts_with(expected.0), "{place}");
        assert_eq!((rule.as_str(), parameter.as_deref()), (expected.1, expected.2));
    }
    let id = run("docker", &["image", "inspect", "--format", "{{.Id}}", &app.image]);
    assert!(images.found.iter().any(|image| image.digest == id.trim()), "{id}: {images:?}");
    let everything = format!("{images:?} {}", watch.output());
    for secret in [VALUE, encoded, BUILD_TOKEN] {
        assert!(!everything.contains(secret), "{secret} is in {everything}");
    }

    again.stop();
    app.stop();
    let (report, _) = host.run(&audited(&host, "abc2", "exit 3")).await;
    let images = report.images.unwrap();
    assert_eq!((report.outcome, images.images), (RunResult::DeployFailed, 2), "{images:?}");
    assert_eq!(found(&images).len(), 1, "what no container runs any more is not looked at");
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_host_that_cannot_tell_about_its_images_is_deployed_to_all_the_same() {
    let script = "#!/bin/sh\ncase $1 in image) echo \"no such verb\" >&2; exit 1;; esac\nexec \"$REAL_DOCKER\" \"$@\"\n";
    let host = Host::start_with(|folder| {
        let real = crate::host::which("docker");
        let path = folder.join("docker");
        std::fs::write(&path, script.replace("$REAL_DOCKER", &real.display().to_string())).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    });
    let app = Built::start(&host, "app", "ENV DB_PASSWORD=Winter-Garden-91", &[]);
    let (report, _) = host.run(&audited(&host, "abc1", "true")).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    let images = report.images.unwrap();
    let problem = images.problem.as_deref().unwrap();
    assert!(problem.contains(&app.image) && images.found.is_empty(), "{images:?}");
}

fn looking_into_layers(host: &Host, revision: &str, layers: Layers) -> Task {
    let mut task = audited(host, revision, "true");
    task.audit.as_mut().unwrap().layers = layers;
    task
}

#[tokio::test]
#[ignore = "needs the world"]
async fn what_lies_in_files_of_layers_is_reported_with_its_path_though_a_later_layer_deletes_it() {
    let host = Host::start();
    let key = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw".repeat(2)
    );
    let files = [("env", "DB_PASSWORD=Winter-Garden-91\n"), ("data", VALUE), ("key", key.as_str())];
    let steps = "COPY env /srv/.env\nCOPY data key /srv/\nRUN rm -r /srv";
    let _app = Built::with_files(&host, "app", steps, &[], &files);
    let (report, watch) = host.run(&looking_into_layers(&host, "abc1", Layers::Look)).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    let images = report.images.unwrap();
    assert_eq!((images.images, images.problem.as_deref()), (1, None), "{images:?}");
    let layers = images.layers.as_ref().unwrap();
    assert_eq!(layers.problem, None, "{images:?}");
    assert!(layers.files > 3, "{images:?}");
    let mut actual = found(&images);
    actual.sort();
    let expected = [
        ("app:1 file srv/.env DB_PASSWORD", "secret-name", None),
        ("app:1 file srv/data", "managed-value", Some(PARAMETER)),
        ("app:1 file srv/key", "private-key", None),
    ];
    let expected =
        expected.map(|(place, rule, of)| (place.to_owned(), rule.to_owned(), of.map(str::to_owned)));
    assert_eq!(actual, expected);
    for secret in [VALUE, "Winter-Garden-91", "MIIEvQ"] {
        assert!(!format!("{images:?} {}", watch.output()).contains(secret), "{secret} is told");
    }

    // A run that does not search the layers still lists the images.
    let (report, _) = host.run(&looking_into_layers(&host, "abc2", Layers::Skip)).await;
    let images = report.images.unwrap();
    assert_eq!((&images.layers, found(&images), images.ids.len()), (&None, vec![], 1));
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_save_that_breaks_off_is_told_and_fails_nothing() {
    let script = "#!/bin/sh\n[ \"$1 $2\" != 'image save' ] || { REAL \"$@\" | head -c 100000; exit 1; }\nexec REAL \"$@\"\n";
    let host = Host::start_with(|folder| {
        let real = crate::host::which("docker");
        let path = folder.join("docker");
        std::fs::write(&path, script.replace("REAL", &real.display().to_string())).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    });
    let app = Built::start(&host, "app", "ENV DB_PASSWORD=Winter-Garden-91", &[]);
    let (report, _) = host.run(&looking_into_layers(&host, "abc1", Layers::Look)).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    let images = report.images.unwrap();
    assert_eq!(found(&images).len(), 1, "its configuration is looked at all the same: {images:?}");
    let problem = images.layers.unwrap().problem.unwrap();
    assert!(problem.contains(&app.image) && problem.contains("cut off"), "{problem}");
}
