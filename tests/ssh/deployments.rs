//! Tests deployments over a real sshd: what happens only once, what is joined, what is refused, and what
//! breaks.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use keyturn::api::docker_host::RunMode;
use keyturn::api::docker_host::RunResult;
use keyturn::deploy::report::{DeployKind, UNDER_WAY, exit_code};
use keyturn::deploy::runner::{Files, HOST_SCRIPT, Settings, main_with};
use keyturn::deploy::task::Task;

use crate::host::{Host, Watch, parameter, quick, which};
use crate::sshd::{children, keygen, kill, public_key, run, wait_until};

/// Returns a script that records its start in `ran` and ends when the file `go` exists.
fn waits_for_go(host: &Host) -> String {
    format!(
        "echo ran >>{0}/ran; echo begun; while [ ! -e {0}/go ]; do sleep 0.1; done; echo ended",
        host.sshd.dir.path().display()
    )
}

/// Returns another run of the same revision: a Job draws new keys.
fn next_run(task: &Task) -> Task {
    let parameters =
        task.parameters.iter().map(|p| parameter(&p.path, p.version, &p.env[0], "value")).collect();
    Task { parameters, attempt: task.attempt + 1, ..task.clone() }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn the_script_runs_with_revision_and_parameters_and_the_result_is_told() {
    let host = Host::start();
    let mut task = host.task("abc1", "umask; echo \"$KEYTURN_REVISION\"; echo \"$KEYTURN_PARAMETERS\"; pwd");
    task.parameters.push(parameter("/test/OTHER", 12, "OTHER", "value"));
    task.verify_script = Some("echo verified \"$KEYTURN_REVISION\"".to_owned());
    let (report, watch) = host.run(&task).await;
    assert_eq!(
        (report.outcome, report.deploy),
        (RunResult::Succeeded, Some(DeployKind::Started)),
        "{report:?}"
    );
    assert_eq!(report.parameters.len(), 2);
    let umask = run("sh", &["-c", "umask"]);
    let home = std::env::var("HOME").unwrap();
    assert_eq!(
        watch.output(),
        format!("{umask}abc1\n/test/TOKEN=1\n/test/OTHER=12\n{home}\nverified abc1\n"),
        "{:?}",
        watch.phases()
    );
    for (path, (permissions, _)) in host.state_files() {
        assert_eq!(permissions & 0o077, 0, "{} is for its owner only", path.display());
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn every_posix_shell_will_do() {
    for (shell, program) in [("dash", "dash"), ("bash", "bash"), ("busybox", "busybox")] {
        let host = Host::start_with(|programs| {
            symlink(which(program), programs.join("sh")).unwrap();
            if shell == "busybox" {
                // busybox also provides the tools, as far as this build includes them.
                let applets = run("busybox", &["--list"]);
                for tool in applets.lines().filter(|tool| *tool != "sh") {
                    symlink(which("busybox"), programs.join(tool)).unwrap();
                }
            }
        });
        let mut task = host.task("abc1", "echo out; echo err >&2; exit 3");
        let (report, watch) = host.run(&task).await;
        assert_eq!(
            (report.outcome, report.script_exit),
            (RunResult::DeployFailed, Some(3)),
            "{shell}: {report:?}"
        );
        assert_eq!(watch.output(), "out\nerr\n", "{shell}");
        task = next_run(&host.task("abc1", "exit 0"));
        assert_eq!(host.run(&task).await.0.outcome, RunResult::Succeeded, "{shell}");
        task = host.task("abc2", "sleep 300");
        task.deploy_timeout_seconds = 1;
        assert_eq!(host.run(&task).await.0.outcome, RunResult::DeployTimedOut, "{shell}");
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_connection_cut_in_mid_deploy_leaves_one_deployment_that_is_reported() {
    let host = Host::start();
    let task = host.task("abc1", &waits_for_go(&host));
    let watch = Watch::default();
    let settings = quick();
    let (report, ()) = tokio::join!(host.run_watched(&task, &settings, &watch), async {
        for _ in 0..2 {
            let before = watch.output().matches("begun").count();
            wait_until("the output of the script", || {
                watch.output().matches("begun").count() > before
                    || before == 0 && watch.output().contains("begun")
            })
            .await;
            host.sshd.sessions().into_iter().for_each(kill);
            let cuts = watch.phases().iter().filter(|phase| phase.contains("reconnecting")).count();
            wait_until("the cut to be noticed", || {
                watch.phases().iter().filter(|phase| phase.contains("reconnecting")).count() > cuts
            })
            .await;
        }
        fs::write(host.path("go"), "").unwrap();
    });
    assert_eq!(
        (report.outcome, report.deploy),
        (RunResult::Succeeded, Some(DeployKind::Started)),
        "{report:?}"
    );
    assert_eq!(host.lines("ran"), ["ran"]);
    assert!(watch.output().ends_with("begun\nended\n"), "{}", watch.output());
}

#[tokio::test]
#[ignore = "needs the world"]
async fn the_next_pod_of_a_job_joins_its_deployment_or_learns_its_end() {
    let host = Host::start();
    let task = host.task("abc1", &format!("{}; exit 3", waits_for_go(&host)));
    let settings = quick();
    // The first pod dies.
    let watch = Watch::default();
    tokio::select! {
        report = host.run_watched(&task, &settings, &watch) => panic!("it cannot have ended: {report:?}"),
        () = wait_until("the script to begin", || watch.output().contains("begun")) => {}
    }
    let second = Watch::default();
    let (report, ()) = tokio::join!(host.run_watched(&task, &settings, &second), async {
        wait_until("the second pod to join", || second.output().contains("begun")).await;
        fs::write(host.path("go"), "").unwrap();
    });
    assert_eq!(
        (report.outcome, report.deploy),
        (RunResult::DeployFailed, Some(DeployKind::Started)),
        "{report:?}"
    );
    // A third pod starts after the end.
    let (report, watch) = host.run(&task).await;
    assert_eq!((report.outcome, report.script_exit), (RunResult::DeployFailed, Some(3)), "{report:?}");
    assert!(watch.output().contains("ended"), "the log is shown again");
    assert_eq!(host.lines("ran"), ["ran"]);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn two_runs_of_one_revision_at_once_deploy_once() {
    let host = Host::start();
    let first = host.task("abc1", &waits_for_go(&host));
    let second = next_run(&first);
    let settings = quick();
    let (one, two) = (Watch::default(), Watch::default());
    let (one, two, ()) = tokio::join!(
        host.run_watched(&first, &settings, &one),
        host.run_watched(&second, &settings, &two),
        async {
            wait_until("both to see the script begin", || {
                one.output().contains("begun") && two.output().contains("begun")
            })
            .await;
            fs::write(host.path("go"), "").unwrap();
        }
    );
    assert_eq!((one.outcome, two.outcome), (RunResult::Succeeded, RunResult::Succeeded), "{one:?} {two:?}");
    let mut kinds = [one.deploy.unwrap(), two.deploy.unwrap()];
    kinds.sort_by_key(|kind| *kind == DeployKind::Attached);
    assert_eq!(kinds, [DeployKind::Started, DeployKind::Attached]);
    assert_eq!(host.lines("ran"), ["ran"]);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn another_revision_waits_for_its_turn_or_finds_the_host_busy() {
    let host = Host::start();
    let first = host.task("abc1", &waits_for_go(&host));
    let mut second = host.task("abc2", "exit 0");
    second.parameters[0].version = 2;
    let settings = quick();
    let watch = Watch::default();
    let (first, ()) = tokio::join!(host.run_watched(&first, &settings, &watch), async {
        wait_until("the script to begin", || watch.output().contains("begun")).await;
        let (busy, _) = host.run(&second).await;
        assert_eq!(busy.outcome, RunResult::Busy, "{busy:?}");
        let mut verify = second.clone();
        verify.mode = RunMode::Verify;
        verify.verify_script = Some("exit 0".to_owned());
        let (busy, _) = host.run(&verify).await;
        assert_eq!(busy.outcome, RunResult::Busy, "a host in mid-deploy is not judged: {busy:?}");

        let patient = Settings { busy_wait: Duration::from_secs(60), ..quick() };
        let waiting = Watch::default();
        let (report, ()) = tokio::join!(host.run_watched(&second, &patient, &waiting), async {
            wait_until("the second to ask", || host.sshd.sessions().len() >= 2).await;
            fs::write(host.path("go"), "").unwrap();
        });
        assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    });
    assert_eq!(first.outcome, RunResult::Succeeded, "{first:?}");
    assert_eq!(host.runs().len(), 2);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn another_programs_deployment_holds_the_same_lock() {
    let host = Host::start();
    let first = host.task("abc1", "exit 0");
    host.run(&first).await;
    let lock = host.state().join("lock");
    let mut other = Command::new("flock")
        .arg("-o")
        .arg(&lock)
        .args(["sh", "-c", "echo held; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = [0; 5];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut held).unwrap();
    assert_eq!(
        host.run(&first).await.0.outcome,
        RunResult::Succeeded,
        "a result that is known is told all the same"
    );
    let mut task = host.task("abc2", "exit 0");
    task.parameters[0].version = 2;
    let (report, _) = host.run(&task).await;
    assert_eq!(report.outcome, RunResult::Busy, "{report:?}");
    assert!(report.message.contains(lock.to_str().unwrap()), "{}", report.message);
    drop(other.stdin.take());
    other.wait().unwrap();
    assert_eq!(host.run(&task).await.0.outcome, RunResult::Succeeded);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_daemon_that_the_script_starts_does_not_keep_the_lock() {
    let host = Host::start();
    let pid = host.path("pid");
    let script = format!("setsid sleep 300 & echo $! >{}", pid.display());
    let first = host.run(&host.task("abc1", &script)).await.0;
    let mut task = host.task("abc2", "exit 0");
    task.parameters[0].version = 2;
    let second = host.run(&task).await.0;
    kill(fs::read_to_string(pid).unwrap().trim().parse().unwrap());
    assert_eq!(
        (first.outcome, second.outcome),
        (RunResult::Succeeded, RunResult::Succeeded),
        "{first:?} {second:?}"
    );
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_success_stands_for_later_runs_of_its_revision_and_a_failure_is_tried_again() {
    let host = Host::start();
    let fail = host.path("fail");
    fs::write(&fail, "").unwrap();
    let script = format!("echo ran >>{}; [ ! -e {} ]", host.path("ran").display(), fail.display());
    let mut task = host.task("abc1", &script);
    assert_eq!(host.run(&task).await.0.outcome, RunResult::DeployFailed);
    fs::remove_file(&fail).unwrap();
    task = next_run(&task);
    assert_eq!(host.run(&task).await.0.deploy, Some(DeployKind::Started));
    task = next_run(&task);
    let (report, _) = host.run(&task).await;
    assert_eq!(
        (report.outcome, report.deploy),
        (RunResult::Succeeded, Some(DeployKind::Replayed)),
        "{report:?}"
    );
    assert_eq!(host.lines("ran").len(), 2);

    // A success that the containers no longer confirm is repeated once.
    let verified = host.path("verified");
    task = next_run(&task);
    task.verify_script = Some(format!("test -e {}", verified.display()));
    task.verify_timeout_seconds = 1;
    let (report, _) = host.run(&task).await;
    assert_eq!(
        (report.outcome, report.deploy),
        (RunResult::VerifyFailed, Some(DeployKind::Started)),
        "{report:?}"
    );
    assert_eq!(report.script_exit, Some(1));
    assert_eq!(host.lines("ran").len(), 3);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_script_that_takes_too_long_is_ended_with_its_children() {
    let host = Host::start();
    let pid = host.path("pid");
    let mut task = host.task("abc1", &format!("sleep 300 & echo $! >{}; wait", pid.display()));
    task.deploy_timeout_seconds = 1;
    let (report, _) = host.run(&task).await;
    assert_eq!(report.outcome, RunResult::DeployTimedOut, "{report:?}");
    let child: u32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    wait_until("the child to end", || !std::path::Path::new(&format!("/proc/{child}/exe")).exists()).await;
}

#[tokio::test]
#[ignore = "needs the world"]
async fn exit_codes_like_those_of_timeout_are_the_scripts_own_before_its_time_is_over() {
    let host = Host::start();
    for code in [124, 137, 143, 255] {
        let task = host.task(&format!("abc{code}"), &format!("exit {code}"));
        let (report, _) = host.run(&task).await;
        assert_eq!((report.outcome, report.script_exit), (RunResult::DeployFailed, Some(code)), "{report:?}");
    }
}

/// Ends a whole run as a reboot would: the process that does the work, and all its children.
fn cut_off(host: &Host) {
    let run = host.runs().pop().unwrap();
    let pid = fs::read_to_string(run.join("pid")).unwrap();
    let mut processes = vec![pid.split(' ').next().unwrap().parse().unwrap()];
    while let Some(process) = processes.pop() {
        processes.extend(children(process));
        kill(process);
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_deployment_that_was_cut_off_is_told_so_and_the_next_run_deploys_again() {
    let host = Host::start();
    let task = host.task("abc1", &waits_for_go(&host));
    let watch = Watch::default();
    let settings = quick();
    let (report, ()) = tokio::join!(host.run_watched(&task, &settings, &watch), async {
        wait_until("the script to begin", || watch.output().contains("begun")).await;
        cut_off(&host);
    });
    assert_eq!(report.outcome, RunResult::DeployInterrupted, "{report:?}");
    assert_eq!(host.run(&task).await.0.outcome, RunResult::DeployInterrupted, "the same run is not repeated");
    assert_eq!(host.lines("ran").len(), 1);

    fs::write(host.path("go"), "").unwrap();
    let (report, _) = host.run(&next_run(&task)).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    assert_eq!(host.lines("ran").len(), 2);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_late_run_with_an_older_version_is_refused() {
    let host = Host::start();
    let script = format!("echo ran >>{}", host.path("ran").display());
    let task = |revision: &str, versions: &[(&str, i64, i64)]| {
        let mut task = host.task(revision, &script);
        task.parameters = versions
            .iter()
            .map(|(path, version, published_at)| {
                let mut parameter = parameter(path, *version, "TOKEN", "value");
                parameter.published_at = *published_at;
                parameter
            })
            .collect();
        task
    };
    let outcome = async |task: Task| host.run(&task).await.0.outcome;
    assert_eq!(outcome(task("a1", &[("/a", 4, 100), ("/b", 9, 100)])).await, RunResult::Succeeded);
    assert_eq!(outcome(task("a2", &[("/a", 5, 100)])).await, RunResult::Succeeded);
    assert_eq!(outcome(task("a1", &[("/a", 4, 100), ("/b", 9, 100)])).await, RunResult::Outdated);
    assert_eq!(
        outcome(task("a3", &[("/b", 8, 100)])).await,
        RunResult::Outdated,
        "other paths are remembered"
    );
    assert_eq!(outcome(task("a4", &[("/c", 1, 100), ("/b", 9, 100)])).await, RunResult::Succeeded);
    // After a deletion and a new creation, versions begin at 1 with a later time.
    assert_eq!(outcome(task("a5", &[("/a", 1, 200)])).await, RunResult::Succeeded);
    // The clock went back, but versions still count.
    assert_eq!(outcome(task("a6", &[("/a", 2, 50)])).await, RunResult::Succeeded);
    assert_eq!(outcome(task("a7", &[("/a", 1, 50)])).await, RunResult::Outdated);
    assert_eq!(host.lines("ran").len(), 5);

    let (report, _) = host.run(&task("a7", &[("/a", 1, 50)])).await;
    assert!(report.message.contains("version 2 of /a"), "{}", report.message);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_full_disk_is_named_and_forgiven() {
    let dir = tempfile::TempDir::new().unwrap();
    let disk = Disk::mount(dir.path());
    let host = Host::with_state_in(dir.path());
    let filler = dir.path().join("filler");
    let fill = format!("cat /dev/zero >{} 2>/dev/null", filler.display());
    let free = || fs::remove_file(&filler).unwrap();
    let _ = Command::new("sh").args(["-c", &fill]).status();

    let script = format!("echo ran >>{}", host.path("ran").display());
    let task = host.task("abc1", &script);
    let (report, _) = host.run(&task).await;
    assert_eq!(report.outcome, RunResult::HostUnfit, "{report:?}");
    assert!(report.message.contains(dir.path().to_str().unwrap()), "{}", report.message);
    assert_eq!(host.lines("ran").len(), 0, "nothing was begun");
    free();
    assert_eq!(host.run(&task).await.0.outcome, RunResult::Succeeded);

    // The disk fills up while the script runs, and the script fails.
    let mut task = host.task("abc2", &format!("{fill}; exit 5"));
    task.parameters[0].version = 2;
    let (report, _) = host.run(&task).await;
    assert_eq!((report.outcome, report.script_exit), (RunResult::HostUnfit, Some(5)), "{report:?}");
    assert!(report.message.contains(dir.path().to_str().unwrap()), "{}", report.message);
    free();

    // The disk fills up, but the script succeeds, and so does the run.
    let mut task = host.task("abc3", &format!("{script}; {fill}; true"));
    task.parameters[0].version = 3;
    assert_eq!(host.run(&task).await.0.outcome, RunResult::Succeeded);
    assert_eq!(host.run(&task).await.0.outcome, RunResult::Succeeded);
    assert_eq!(host.lines("ran").len(), 2);
    drop(disk);
}

/// A small file system, unmounted when dropped.
struct Disk(String);

impl Disk {
    fn mount(at: &std::path::Path) -> Self {
        let at = at.to_str().unwrap().to_owned();
        run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", &at]);
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_host_that_lacks_a_program_is_told_what_to_install() {
    let all = [
        "sh",
        "dd",
        "date",
        "cat",
        "mkdir",
        "chmod",
        "mv",
        "rm",
        "df",
        "tail",
        "head",
        "wc",
        "sleep",
        "touch",
        "grep",
        "id",
        "dirname",
        "bash",
        "flock",
        "setsid",
        "timeout",
        "sha256sum",
        "docker",
    ];
    let (report, _) = {
        let host = Host::with_programs_only(&all);
        host.run(&host.task("abc1", "exit 0")).await
    };
    assert_eq!(report.outcome, RunResult::Succeeded, "these programs are enough: {report:?}");
    for (missing, remedy) in [("flock", "util-linux"), ("timeout", "coreutils")] {
        let rest: Vec<&str> = all.iter().copied().filter(|program| *program != missing).collect();
        let host = Host::with_programs_only(&rest);
        let mut task = host.task("abc1", "echo ran");
        let (report, watch) = host.run(&task).await;
        assert_eq!(report.outcome, RunResult::HostUnfit, "{report:?}");
        assert!(report.message.contains(missing) && report.message.contains(remedy), "{}", report.message);
        assert_eq!(watch.output(), "", "nothing was begun");
        task.sudo = true;
        let (report, _) = host.run(&task).await;
        assert_eq!(report.outcome, RunResult::HostUnfit, "{report:?}");
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn an_account_whose_shell_runs_nothing_is_told_so() {
    let host = Host::with_programs_only(&[]);
    let (report, _) = host.run(&host.task("abc1", "exit 0")).await;
    assert_eq!(report.outcome, RunResult::HostUnfit, "{report:?}");
    assert!(report.message.contains("exit code 127"), "{}", report.message);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_host_key_that_nobody_vouches_for_gets_nothing() {
    let host = Host::start();
    keygen(&host.path("stranger"), &["-t", "ed25519"]);
    let mut task = host.task("abc1", "exit 0");
    task.known_hosts = vec![format!("* {}", public_key(&host.path("stranger")))];
    let (report, _) = host.run(&task).await;
    assert_eq!(report.outcome, RunResult::HostKeyRefused);
    assert!(report.message.contains("line 1") && report.message.contains("SHA256:"), "{}", report.message);
    assert!(!host.sshd.log().contains("publickey"), "{}", host.sshd.log());
    assert!(!host.state().exists());
}

#[tokio::test]
#[ignore = "needs the world"]
async fn verify_only_runs_touch_nothing_and_try_until_the_time_is_over() {
    let host = Host::start();
    let (ran, tries) = (host.path("ran"), host.path("tries"));
    let mut task = host.task("abc1", &format!("echo ran >{}", ran.display()));
    task.mode = RunMode::Verify;
    task.verify_script = Some(format!("echo try >>{0}; [ $(wc -l <{0}) -ge 2 ]", tries.display()));
    let (report, _) = host.run(&task).await;
    assert_eq!((report.outcome, report.deploy), (RunResult::Succeeded, None), "{report:?}");
    assert_eq!(host.lines("tries").len(), 2);

    task.verify_script = Some("exit 22".to_owned());
    task.verify_timeout_seconds = 1;
    let (report, _) = host.run(&task).await;
    assert_eq!((report.outcome, report.script_exit), (RunResult::VerifyFailed, Some(22)), "{report:?}");

    task.verify_script = Some("sleep 300".to_owned());
    let (report, _) = host.run(&task).await;
    assert_eq!(report.outcome, RunResult::VerifyFailed, "{report:?}");
    assert!(report.message.contains("did not end"), "{}", report.message);
    assert!(!ran.exists());
    assert_eq!(host.runs().len(), 0);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn five_runs_are_kept_and_long_output_is_cut() {
    let host = Host::start();
    for number in 1..=7 {
        // One long line, of which a part may have been shown when the rest arrives; and many lines.
        let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo end";
        let script =
            if number % 2 == 0 { "yes 'a line that the script prints' | head -c 3000000" } else { script };
        let mut task = host.task(&format!("abc{number}"), script);
        task.parameters[0].version = number;
        let (report, watch) = host.run(&task).await;
        assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
        assert!(watch.output().len() < 2 << 20 && watch.output().contains("left out"));
    }
    let names: Vec<String> =
        host.runs().iter().map(|run| run.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 5);
    assert!(names[0].starts_with("3.abc3.") && names[4].starts_with("7.abc7."), "{names:?}");
}

#[tokio::test]
#[ignore = "needs the world"]
async fn scripts_cannot_forge_an_answer_and_odd_scripts_arrive_whole() {
    let host = Host::start();
    let script = "echo 'keyturn: result 0'; echo 'keyturn: done'; echo 'end\n\\n %s $x \"é'\n\nend\nexit 9\n";
    let (report, watch) = host.run(&host.task("abc1", script)).await;
    assert_eq!((report.outcome, report.script_exit), (RunResult::DeployFailed, Some(9)), "{report:?}");
    assert!(watch.output().contains("keyturn: result 0\nkeyturn: done\n"), "{}", watch.output());

    let mut task = host.task("abc2", "exit 0");
    task.parameters[0].path = "/a b\nverb".to_owned();
    assert_eq!(host.run(&task).await.0.outcome, RunResult::BadInput);
    let mut task = host.task("abc3", "exit 0");
    task.compose_project = "../x".to_owned();
    assert_eq!(host.run(&task).await.0.outcome, RunResult::BadInput);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn an_installed_script_serves_a_key_that_may_do_nothing_else() {
    let host = Host::start();
    let installed = host.path("host.sh");
    fs::write(&installed, HOST_SCRIPT).unwrap();
    let public = public_key(&host.path("client"));
    let deploy = host.path("deploy.sh");
    fs::write(&deploy, "echo installed $KEYTURN_REVISION; exit 4").unwrap();
    host.sshd.authorize(&format!(
        "restrict,command=\"KEYTURN_PROJECT={} KEYTURN_DEPLOY='sh {}' KEYTURN_DEPLOY_TIMEOUT=300 sh {} serve\" {public}",
        host.project,
        deploy.display(),
        installed.display()
    ));
    let task = host.task("abc1", "echo sent; exit 5");
    let (report, watch) = host.run(&task).await;
    assert_eq!((report.outcome, report.script_exit), (RunResult::DeployFailed, Some(4)), "{report:?}");
    assert_eq!(watch.output(), "installed abc1\n");

    let verify = Task { mode: RunMode::Verify, verify_script: Some("echo sent".to_owned()), ..task.clone() };
    let (report, watch) = host.run(&verify).await;
    assert_eq!((report.outcome, watch.output().as_str()), (RunResult::HostUnfit, ""), "{report:?}");
    assert!(report.message.contains("add KEYTURN_VERIFY"), "{}", report.message);
    let (report, _) = host.run(&Task { compose_project: "other".to_owned(), ..task }).await;
    assert_eq!(report.outcome, RunResult::HostUnfit, "{report:?}");
    assert!(report.message.contains("docker.composeProject"), "{}", report.message);

    let connection = host.sshd.connect().await.unwrap();
    let mut output = String::new();
    let _ = connection
        .exec("id", b"", 1000, |_, data| output.push_str(&String::from_utf8_lossy(data)))
        .await
        .unwrap();
    assert!(!output.contains("uid="), "{output}");
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_pod_that_is_stopped_says_so_and_the_deployment_goes_on() {
    let host = Host::start();
    let task = host.task("abc1", &waits_for_go(&host));
    let files = Files {
        task: host.path("task.json"),
        key: host.path("client"),
        jump_key: host.path("absent"),
        termination_log: host.path("termination-log"),
    };
    fs::write(&files.task, serde_json::to_vec(&task).unwrap()).unwrap();
    let read = || {
        let content = fs::read(&files.termination_log).unwrap_or_default();
        serde_json::from_slice::<keyturn::deploy::report::Report>(&content).ok()
    };
    let settings = quick();
    let (code, ()) = tokio::join!(main_with(&files, &settings), async {
        wait_until("the script to begin", || !host.lines("ran").is_empty()).await;
        let running = read().unwrap();
        assert_eq!(running.outcome, UNDER_WAY);
        assert!(running.message.contains("deploying"), "{}", running.message);
        run("kill", &["-TERM", &std::process::id().to_string()]);
    });
    assert_eq!(code, exit_code(RunResult::ConnectionLost));
    assert_eq!(read().unwrap().outcome, RunResult::ConnectionLost);

    fs::write(host.path("go"), "").unwrap();
    let code = main_with(&files, &settings).await;
    assert_eq!((code, read().unwrap().outcome), (0, RunResult::Succeeded));
    assert_eq!(host.lines("ran"), ["ran"]);

    fs::write(&files.key, "no key").unwrap();
    assert_eq!(main_with(&files, &settings).await, exit_code(RunResult::BadInput));
    assert!(read().unwrap().message.contains("ssh.keySecretRef"), "{:?}", read());
}
