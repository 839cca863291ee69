//! Access to the world through the commands that a person would use: kubectl, ssh, docker, and keyturn's own. Data
//! that a wait reads several times per second is read in this process instead (`objects`, `ssm`), since each
//! kubectl or aws is a process on the processors that the whole world uses.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// Long enough for a deployment on a busy machine; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// Runs a command and returns its output. Panics with its error if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    run_with(program, arguments, "")
}

pub(crate) fn run_with(program: &str, arguments: &[&str], stdin: &str) -> String {
    match try_with(program, arguments, stdin) {
        Ok(output) => output,
        Err(problem) => panic!("{program} {}: {problem}", arguments.join(" ")),
    }
}

/// Runs a command and returns its output or its error.
pub(crate) fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    try_with(program, arguments, "")
}

pub(crate) fn try_with(program: &str, arguments: &[&str], stdin: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| {
            panic!(
                "{program}: {e}; bring the world up with `dev/world up` and run `eval \"$(dev/world env)\"`"
            )
        });
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs `dev/world` of the checkout that the world runs from.
pub(crate) fn dev_world(arguments: &[&str]) -> String {
    run(&world_program(), arguments)
}

pub(crate) fn dev_world_with(arguments: &[&str], stdin: &str) -> String {
    run_with(&world_program(), arguments, stdin)
}

/// Runs a script as root inside a box, `node` or `production`.
pub(crate) fn in_box(name: &str, script: &str) -> String {
    dev_world_with(&["run", name, "sh", "-s"], script)
}

pub(crate) fn world_program() -> String {
    format!("{}/../dev/world", variable("KEYTURN_WORLD_STATE"))
}

/// The runtime of this process's clients.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// Waits for the result of a client of this process.
pub(crate) fn wait_for<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(work)
}

/// Returns a variable that `dev/world env` exports.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: bring the world up with `dev/world up` and run `eval \"$(dev/world env)\"`"
        )
    })
}

/// Repeats a check until it succeeds. Panics with the last reason if it never does.
pub(crate) fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    try_eventually(look).unwrap_or_else(|reason| panic!("never came about: {what}; last: {reason}"))
}

/// The same, with the last reason as an error.
pub(crate) fn try_eventually<T>(mut look: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(500)),
            answer => return answer,
        }
    }
}

/// Runs a command on the docker host, as its deploy account.
pub(crate) fn on_host(script: &str) -> String {
    match try_on_host(script) {
        Ok(output) => output,
        Err(problem) => panic!("on the host: {script}: {problem}"),
    }
}

pub(crate) fn try_on_host(script: &str) -> Result<String, String> {
    let account = format!("{}@{}", variable("KEYTURN_HOST_USER"), variable("KEYTURN_HOST"));
    let known_hosts = format!("UserKnownHostsFile={}", variable("KEYTURN_HOST_KNOWN_HOSTS"));
    let (key, port) = (variable("KEYTURN_HOST_KEY"), variable("KEYTURN_HOST_PORT"));
    let arguments = [
        "-F",
        "none",
        "-i",
        &key,
        "-p",
        &port,
        "-o",
        &known_hosts,
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "BatchMode=yes",
        &account,
        "bash -s",
    ];
    try_with("ssh", &arguments, script)
}
