//! Tests the proof of what containers run, by fingerprints, with real containers; the values never leave their place.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use keyturn::api::docker_host::RunResult;
use keyturn::api::docker_host::{Proof, RunMode};
use keyturn::deploy::report::Report;
use keyturn::deploy::task::Task;

use crate::host::{Host, docker_host, parameter, which};
use crate::sshd::{run, wait_until};

/// An image that the world's docker host has as long as it is up, and that no test removes.
const IMAGE: &str = "musehub:world";

/// A container of the host's compose project, removed when dropped.
pub(crate) struct Container(pub String);

impl Container {
    /// Starts a container that sleeps, with these variables. They go through the environment of `docker`, not through
    /// its arguments.
    pub(crate) fn start(host: &Host, service: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_with(host, service, variables, &[], &["300"])
    }

    fn start_with(
        host: &Host,
        service: &str,
        variables: &[(&str, &str)],
        options: &[&str],
        arguments: &[&str],
    ) -> Self {
        let name = format!("{}-{service}", host.project);
        let mut docker = Command::new("docker");
        docker.args(["run", "--detach", "--name", &name, "--network", "none", "--stop-timeout", "0"]);
        docker.args(["--label", &format!("com.docker.compose.project={}", host.project)]);
        for (variable, value) in variables {
            docker.args(["--env", variable]).env(variable, value);
        }
        docker.args(["--entrypoint", "sleep"]).args(options).arg(IMAGE).args(arguments);
        let output = docker.env("DOCKER_HOST", docker_host()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(name)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).stdout(Stdio::null()).status();
    }
}

/// Runs a verify-only task that compares these variables.
async fn compare(host: &Host, values: &[(&str, &str)]) -> Report {
    host.run(&verify_task(host, values)).await.0
}

fn verify_task(host: &Host, values: &[(&str, &str)]) -> Task {
    Task {
        mode: RunMode::Verify,
        parameters: values
            .iter()
            .map(|(variable, value)| parameter(&format!("/test/{variable}"), 1, variable, value))
            .collect(),
        ..host.task("abc1", "echo must not run")
    }
}

pub(crate) fn proof(report: &Report, variable: &str) -> Option<Proof> {
    report.parameters.iter().find(|p| p.path == format!("/test/{variable}")).map(|p| p.proof)
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_value_is_proven_where_every_container_that_has_it_runs_it() {
    let host = Host::start();
    let report = compare(&host, &[("TOKEN", "new")]).await;
    assert_eq!((report.outcome, proof(&report, "TOKEN")), (RunResult::Succeeded, Some(Proof::Incomparable)));

    let _app = Container::start(&host, "app", &[("TOKEN", "new"), ("OTHER", "x")]);
    let _bare = Container::start(&host, "bare", &[]);
    let report = compare(&host, &[("TOKEN", "new"), ("ABSENT", "new")]).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    assert_eq!(proof(&report, "TOKEN"), Some(Proof::Proven));
    assert_eq!(proof(&report, "ABSENT"), Some(Proof::Incomparable));

    let runner = Container::start(&host, "runner", &[("TOKEN", "old")]);
    let report = compare(&host, &[("TOKEN", "new"), ("OTHER", "x")]).await;
    assert_eq!(report.outcome, RunResult::NotAdopted, "{report:?}");
    assert_eq!(proof(&report, "TOKEN"), Some(Proof::Differs));
    assert_eq!(report.parameters[0].differs_in, std::slice::from_ref(&runner.0));
    assert!(report.message.contains(&runner.0), "{}", report.message);

    drop(runner);
    let mut task = verify_task(&host, &[("TOKEN", "new")]);
    task.verify_script = Some("exit 1".to_owned());
    task.verify_timeout_seconds = 1;
    let (report, _) = host.run(&task).await;
    assert_eq!(
        (report.outcome, report.parameters.len()),
        (RunResult::VerifyFailed, 0),
        "nothing is proven then"
    );
}

/// `docker run -e TOKEN` creates such a container if the shell has no such variable.
#[tokio::test]
#[ignore = "needs the world"]
async fn a_name_without_a_value_gives_a_container_no_variable() {
    let host = Host::start();
    let _bare = Container::start_with(&host, "bare", &[("OTHER", "x")], &["--env", "TOKEN"], &["300"]);
    let report = compare(&host, &[("TOKEN", "new"), ("OTHER", "x")]).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    assert_eq!(proof(&report, "TOKEN"), Some(Proof::Incomparable));
    assert_eq!(proof(&report, "OTHER"), Some(Proof::Proven));
}

#[tokio::test]
#[ignore = "needs the world"]
async fn several_names_of_one_parameter_are_all_compared() {
    let host = Host::start();
    let _app = Container::start(&host, "app", &[("TOKEN", "new")]);
    let _runner = Container::start(&host, "runner", &[("RUNNER_TOKEN", "old")]);
    let mut task = verify_task(&host, &[("TOKEN", "new")]);
    task.parameters[0].env.push("RUNNER_TOKEN".to_owned());
    let (report, _) = host.run(&task).await;
    assert_eq!(proof(&report, "TOKEN"), Some(Proof::Differs), "{report:?}");
}

#[tokio::test]
#[ignore = "needs the world"]
async fn odd_values_are_compared_byte_by_byte_by_every_shell() {
    let values = [
        "",
        " ",
        "a b  c",
        "-n",
        "%s%d%%",
        "\\033\\n\\",
        "'single' \"double\" `id` $(id) $HOME",
        "line\nbreaks\n\ninside",
        "\n leading and tab\t",
        "ümläut ☃",
        "key=value=",
        "{{.Name}}",
        "*",
        &"long".repeat(20_000),
    ];
    let names: Vec<String> = (0..values.len()).map(|index| format!("ODD_{index}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
    let changed: Vec<String> = values.iter().map(|value| format!("{value}.")).collect();
    let changed: Vec<(&str, &str)> =
        names.iter().map(String::as_str).zip(changed.iter().map(String::as_str)).collect();
    for shell in ["dash", "bash", "busybox"] {
        let host = Host::start_with(|programs| symlink(which(shell), programs.join("sh")).unwrap());
        let _app = Container::start(&host, "app", &pairs);
        let report = compare(&host, &pairs).await;
        assert_eq!(report.outcome, RunResult::Succeeded, "{shell}: {report:?}");
        let proofs: BTreeSet<_> = report.parameters.iter().map(|p| format!("{:?}", p.proof)).collect();
        assert_eq!(proofs, BTreeSet::from(["Proven".to_owned()]), "{shell}: {report:?}");
        let report = compare(&host, &changed).await;
        let proofs: BTreeSet<_> = report.parameters.iter().map(|p| format!("{:?}", p.proof)).collect();
        assert_eq!(proofs, BTreeSet::from(["Differs".to_owned()]), "{shell}: {report:?}");
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn trailing_newlines_do_not_count_where_an_env_file_lost_them() {
    let host = Host::start();
    let _app =
        Container::start(&host, "app", &[("LOST", "value"), ("KEPT", "value\n"), ("ADDED", "value\n")]);
    let report = compare(&host, &[("LOST", "value\n"), ("KEPT", "value\n"), ("ADDED", "value")]).await;
    assert_eq!(proof(&report, "ADDED"), Some(Proof::Differs), "{report:?}");
    let report = compare(&host, &[("LOST", "value\n"), ("KEPT", "value\n")]).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
}

#[tokio::test]
#[ignore = "needs the world"]
async fn containers_that_do_not_run_or_run_once_are_left_out() {
    let host = Host::start();
    let old = [("TOKEN", "old")];
    let _created = {
        let container = Container::start(&host, "exited", &old);
        run("docker", &["stop", "--time", "0", &container.0]);
        container
    };
    let _once =
        Container::start_with(&host, "once", &old, &["--label", "com.docker.compose.oneoff=True"], &["300"]);
    let _other_project = {
        let other = Host::start();
        Container::start(&other, "app", &old)
    };
    let report = compare(&host, &[("TOKEN", "new")]).await;
    assert_eq!((report.outcome, proof(&report, "TOKEN")), (RunResult::Succeeded, Some(Proof::Incomparable)));
    let _app = Container::start(&host, "app", &[("TOKEN", "new")]);
    let report = compare(&host, &[("TOKEN", "new")]).await;
    assert_eq!(proof(&report, "TOKEN"), Some(Proof::Proven), "{report:?}");
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_container_that_restarts_again_and_again_is_no_proof() {
    let host = Host::start();
    let app =
        Container::start_with(&host, "app", &[("TOKEN", "new")], &["--restart", "always"], &["no-number"]);
    let restarts = |app: &Container| run("docker", &["inspect", "--format", "{{.RestartCount}}", &app.0]);
    wait_until("docker to start it again", || restarts(&app).trim() != "0").await;
    let mut task = verify_task(&host, &[("TOKEN", "new")]);
    task.verify_timeout_seconds = 1;
    let (report, _) = host.run(&task).await;
    assert_eq!(report.outcome, RunResult::VerifyFailed, "{report:?}");
    assert!(report.message.contains(&app.0), "{}", report.message);

    // A container that starts at the second attempt is not a problem.
    drop(app);
    let script = "test -e /tmp/again || { touch /tmp/again; exit 1; }; exec sleep 300";
    let options = ["--restart", "always", "--entrypoint", "sh"];
    let app = Container::start_with(&host, "app", &[("TOKEN", "new")], &options, &["-c", script]);
    wait_until("docker to start it again", || restarts(&app).trim() != "0").await;
    task.verify_timeout_seconds = 60;
    let (report, _) = host.run(&task).await;
    assert_eq!(
        (report.outcome, proof(&report, "TOKEN")),
        (RunResult::Succeeded, Some(Proof::Proven)),
        "{report:?}"
    );
}

#[tokio::test]
#[ignore = "needs the world"]
async fn an_earlier_success_whose_containers_differ_is_deployed_again() {
    let host = Host::start();
    let container = format!("{}-app", host.project);
    let mut task = host.task("abc1", &format!("echo ran >>{}", host.path("ran").display()));
    task.parameters = vec![parameter("/test/TOKEN", 1, "TOKEN", "new")];
    assert_eq!(host.run(&task).await.0.outcome, RunResult::Succeeded);

    // Somebody starts the old container again.
    let _old = Container::start(&host, "app", &[("TOKEN", "old")]);
    task.parameters = vec![parameter("/test/TOKEN", 1, "TOKEN", "new")];
    let (report, _) = host.run(&task).await;
    assert_eq!(report.outcome, RunResult::NotAdopted, "{report:?}");
    assert!(report.message.contains(&container), "{}", report.message);
    assert_eq!(host.lines("ran").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the world"]
async fn no_value_leaves_its_container() {
    let host = Host::start();
    let canary = format!("canary{}", std::process::id());
    let _app = Container::start(&host, "app", &[("TOKEN", &canary), ("OTHER", "old")]);
    let mut task = verify_task(&host, &[("TOKEN", &canary), ("OTHER", &canary)]);
    task.mode = RunMode::Deploy;
    task.deploy_script = "echo deployed".to_owned();

    let done = AtomicBool::new(false);
    let (seen, (reports, output)) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                for process in fs::read_dir("/proc").unwrap().flatten() {
                    if let Ok(line) = fs::read(process.path().join("cmdline")) {
                        seen.insert(String::from_utf8_lossy(&line).into_owned());
                    }
                }
            }
            seen
        });
        let result = tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut reports, mut output) = (Vec::new(), String::new());
                for _ in 0..5 {
                    let (report, watch) = host.run(&task).await;
                    output += &watch.output();
                    output += &watch.phases().join("\n");
                    reports.push(report);
                }
                (reports, output)
            })
        });
        done.store(true, Ordering::Relaxed);
        (watcher.join().unwrap(), result)
    });

    // The watcher saw the comparison itself, that is, the calls that read a value.
    assert!(
        seen.iter().any(|line| line.contains("inspect") && line.contains("slice")),
        "the watcher was too slow"
    );
    let value = canary.as_bytes();
    let find = |text: &[u8]| text.windows(value.len()).any(|window| window == value);
    for line in &seen {
        assert!(!find(line.as_bytes()), "in the arguments of a process: {line}");
        for parameter in &task.parameters {
            for secret in [&parameter.key, &parameter.mac] {
                assert!(!line.contains(secret.as_str()), "in the arguments of a process: {line}");
            }
        }
    }
    for (path, (_, content)) in host.state_files() {
        assert!(!find(&content), "in {}", path.display());
    }
    assert!(!find(output.as_bytes()), "in the output");
    assert!(!find(format!("{reports:?}").as_bytes()), "in a report");
    assert!(!find(host.sshd.log().as_bytes()), "in the log of sshd");
    assert_eq!(reports[0].outcome, RunResult::NotAdopted);
    assert!(
        find(serde_json::to_string(&format!("x{canary}x")).unwrap().as_bytes()),
        "the check itself finds it"
    );
}
