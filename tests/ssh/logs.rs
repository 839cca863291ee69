//! Tests the collection of log lines about a secret from a host's logs: all lines stay on the host, and the secrets in
//! them are not sent.

use std::os::unix::fs::PermissionsExt;

use aws_lc_rs::digest::{SHA256, digest};
use keyturn::api::docker_host::RunMode;
use keyturn::api::docker_host::RunResult;
use keyturn::audit::managed::ManagedValues;
use keyturn::deploy::collection::About;
use keyturn::deploy::runner::HOST_SCRIPT;
use keyturn::deploy::task::{Task, TaskCollection};
use keyturn::secret_value::SecretValue;

use crate::host::{Host, Watch};
use crate::sshd::public_key;

const VALUE: &str = "managed-9f2c77d01b";
const TOKEN: &str = "ghp_x7Kq9ZpL2mV4nB8cT1sW6yR3dF5gH0jAeUiO";

fn collecting(host: &Host, script: &str) -> Task {
    let values = [("/test/TOKEN".to_owned(), SecretValue::new(VALUE.to_owned()))];
    let collection = TaskCollection {
        about: About {
            incident: "leak".to_owned(),
            incident_uid: "uid".to_owned(),
            secret: "token".to_owned(),
            since: 1_700_000_000,
            until: 1_700_003_600,
        },
        script: script.to_owned(),
        timeout_seconds: 60,
    };
    let managed = ManagedValues::new(&values, &[9; 32]);
    let task = host.task("abc1", "touch deployed");
    Task { managed, mode: RunMode::Collect, collection: Some(collection), parameters: Vec::new(), ..task }
}

fn says_nothing_secret(text: &str, watch: &Watch) {
    let everything = format!("{text} {} {:?}", watch.output(), watch.phases());
    for secret in [VALUE, TOKEN] {
        assert!(!everything.contains(secret), "{secret} is in {everything}");
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn all_lines_stay_on_the_host_and_the_ends_are_shown_without_what_is_secret() {
    let host = Host::start();
    let script = format!(
        "echo \"$KEYTURN_INCIDENT $KEYTURN_SECRET $KEYTURN_SINCE $KEYTURN_UNTIL\"\n\
         echo 'login with {VALUE}'\necho 'and {TOKEN} {VALUE}'\necho 'noise {VALUE}' >&2\n\
         i=0; while [ $i -lt 200 ]; do i=$((i + 1)); echo \"keyturn: done $i\"; done\n\
         echo 'the last with {VALUE}'"
    );
    let (report, watch) = host.run(&collecting(&host, &script)).await;
    assert_eq!(report.outcome, RunResult::Succeeded, "{report:?}");
    let logs = report.logs.as_ref().unwrap();
    assert_eq!((logs.lines, logs.cut, logs.first.len(), logs.last.len()), (204, false, 10, 10), "{logs:?}");
    assert_eq!(logs.first[0], "leak token 2023-11-14T22:13:20Z 2023-11-14T23:13:20Z");
    assert_eq!(
        logs.first[1..3],
        ["login with [value:/test/TOKEN]", "and [github-token] [value:/test/TOKEN]"]
    );
    assert_eq!(logs.first[3], "keyturn: done 1", "what a log says is no answer of the host");
    assert_eq!(logs.last[9], "the last with [value:/test/TOKEN]");
    assert_eq!(logs.excerpt()[10], "[184 lines are left out here]");
    says_nothing_secret(&format!("{report:?}"), &watch);

    let kept = std::fs::read(&logs.file).unwrap();
    assert_eq!(logs.digest, hex::encode(digest(&SHA256, &kept)));
    assert_eq!(logs.bytes, kept.len() as u64);
    assert!(String::from_utf8(kept).unwrap().contains(VALUE), "the evidence is whole");
    let mode = std::fs::metadata(&logs.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(host.runs().len(), 0, "nothing was deployed");

    let (again, _) = host.run(&collecting(&host, "echo less")).await;
    assert_ne!(again.logs.unwrap().file, logs.file, "what was collected before stays");
    assert!(std::fs::exists(&logs.file).unwrap());
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_script_that_fails_is_told_without_what_is_secret_and_leaves_nothing() {
    let host = Host::start();
    let failing = format!("echo {VALUE}; echo 'no such container, {VALUE}' >&2; exit 7");
    let (report, watch) = host.run(&collecting(&host, &failing)).await;
    assert_eq!((report.outcome, report.script_exit), (RunResult::CollectFailed, Some(7)));
    let told =
        "the script ended with the exit code 7; its error output: no such container, [value:/test/TOKEN]";
    assert_eq!(report.message, told);
    says_nothing_secret(&format!("{report:?}"), &watch);
    let left: Vec<_> = host.state_files().into_keys().collect();
    assert!(left.is_empty(), "{left:?}");

    let mut slow = collecting(&host, "echo one; sleep 100");
    slow.collection.as_mut().unwrap().timeout_seconds = 1;
    let (report, _) = host.run(&slow).await;
    assert_eq!(report.outcome, RunResult::CollectFailed);
    assert!(report.message.contains("accessLog.timeout"), "{}", report.message);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn few_lines_none_and_too_much_are_told_as_they_are() {
    let host = Host::start();
    let (none, _) = host.run(&collecting(&host, "true")).await;
    let logs = none.logs.unwrap();
    assert_eq!((none.outcome, logs.lines, logs.bytes, logs.excerpt()), (RunResult::Succeeded, 0, 0, vec![]));
    let (few, _) = host.run(&collecting(&host, "seq 1 13; printf 'without an end'")).await;
    let logs = few.logs.unwrap();
    assert_eq!((logs.lines, logs.excerpt().len()), (14, 14), "{logs:?}");
    assert_eq!(logs.excerpt()[13], "without an end");
    let (much, _) =
        host.run(&collecting(&host, "yes 'a line of a log that is written to without end'")).await;
    let logs = much.logs.unwrap();
    assert_eq!((much.outcome, logs.cut, logs.bytes), (RunResult::Succeeded, true, 64 << 20), "{logs:?}");
    assert_eq!(logs.first[0], "a line of a log that is written to without end");
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_busybox_host_collects_too() {
    let host = Host::start_with(|folder| {
        let busybox = crate::host::which("busybox");
        for program in
            ["sh", "timeout", "head", "tail", "sed", "grep", "wc", "sha256sum", "date", "mv", "rm", "touch"]
        {
            std::os::unix::fs::symlink(&busybox, folder.join(program)).unwrap();
        }
    });
    let (report, _) = host.run(&collecting(&host, "seq 1 100; echo noise >&2")).await;
    let logs = report.logs.clone().unwrap_or_else(|| panic!("{report:?}"));
    assert_eq!(
        (report.outcome, logs.lines, logs.excerpt().len()),
        (RunResult::Succeeded, 100, 21),
        "{logs:?}"
    );
    let (report, _) = host.run(&collecting(&host, "echo oh >&2; exit 3")).await;
    assert!(report.message.ends_with("its error output: oh"), "{}", report.message);
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_key_that_may_do_nothing_else_collects_by_its_own_command_only() {
    let host = Host::start();
    let installed = host.path("host.sh");
    std::fs::write(&installed, HOST_SCRIPT).unwrap();
    let authorize = |commands: &str| {
        let (installed, public) = (installed.display(), public_key(&host.path("client")));
        let project = format!("KEYTURN_PROJECT={}", host.project);
        host.sshd
            .authorize(&format!("restrict,command=\"{project} {commands} sh {installed} serve\" {public}"));
    };
    authorize("KEYTURN_DEPLOY='true' KEYTURN_ACCESS_LOG='echo installed for $KEYTURN_SECRET'");
    let (report, _) = host.run(&collecting(&host, "echo sent")).await;
    assert_eq!(report.logs.as_ref().unwrap().first, ["installed for token"], "{report:?}");

    authorize("KEYTURN_DEPLOY='true'");
    let (report, _) = host.run(&collecting(&host, "echo sent")).await;
    assert_eq!(report.outcome, RunResult::HostUnfit, "{report:?}");
    assert!(report.message.contains("KEYTURN_ACCESS_LOG"), "{}", report.message);
}
