//! The world by the commands that a person would use: kubectl, aws, ssh, docker.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a deployment on a busy machine; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Runs a command and answers its output. Panics with what it said where it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    run_with(program, arguments, "")
}

pub fn run_with(program: &str, arguments: &[&str], stdin: &str) -> String {
    match try_with(program, arguments, stdin) {
        Ok(output) => output,
        Err(problem) => panic!("{program} {}: {problem}", arguments.join(" ")),
    }
}

/// Runs a command; its output, or what it said against it.
pub fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    try_with(program, arguments, "")
}

pub fn try_with(program: &str, arguments: &[&str], stdin: &str) -> Result<String, String> {
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

/// `dev/world` of the checkout that the world runs from.
pub fn dev_world(arguments: &[&str]) -> String {
    run(&world_program(), arguments)
}

pub fn dev_world_with(arguments: &[&str], stdin: &str) -> String {
    run_with(&world_program(), arguments, stdin)
}

/// Runs a script as root inside a box, `node` or `production`.
pub fn in_box(name: &str, script: &str) -> String {
    dev_world_with(&["run", name, "sh", "-s"], script)
}

pub fn world_program() -> String {
    format!("{}/../dev/world", variable("KEYTURN_WORLD_STATE"))
}

/// What `dev/world env` exports.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: bring the world up with `dev/world up` and run `eval \"$(dev/world env)\"`"
        )
    })
}

/// Looks again and again until it is so. Panics with the last reason where it never is.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if Instant::now() > deadline => panic!("never came about: {what}; last: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(300)),
        }
    }
}

/// A command on the docker host, as its deploy account.
pub fn on_host(script: &str) -> String {
    match try_on_host(script) {
        Ok(output) => output,
        Err(problem) => panic!("on the host: {script}: {problem}"),
    }
}

pub fn try_on_host(script: &str) -> Result<String, String> {
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

/// One parameter in SSM.
pub mod ssm {
    use super::{run, try_run};

    pub fn put(path: &str, value: &str) {
        run(
            "aws",
            &[
                "ssm",
                "put-parameter",
                "--name",
                path,
                "--type",
                "SecureString",
                "--overwrite",
                "--value",
                value,
            ],
        );
    }

    /// `None` where the parameter does not exist.
    pub fn value(path: &str) -> Option<String> {
        let query = ["--with-decryption", "--query", "Parameter.Value", "--output", "text"];
        get(path, &query)
    }

    pub fn version(path: &str) -> Option<i64> {
        get(path, &["--query", "Parameter.Version", "--output", "text"]).map(|text| text.parse().unwrap())
    }

    pub fn kind(path: &str) -> Option<String> {
        get(path, &["--query", "Parameter.Type", "--output", "text"])
    }

    fn get(path: &str, query: &[&str]) -> Option<String> {
        let arguments = [&["ssm", "get-parameter", "--name", path][..], query].concat();
        match try_run("aws", &arguments) {
            Ok(text) => Some(text),
            Err(problem) if problem.contains("ParameterNotFound") => None,
            Err(problem) => panic!("{path}: {problem}"),
        }
    }

    /// Every value that any version ever had.
    pub fn all_values(path: &str) -> Vec<String> {
        let query = ["--with-decryption", "--query", "Parameters[].Value", "--output", "json"];
        let text = run("aws", &[&["ssm", "get-parameter-history", "--name", path][..], &query].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// What lies below keyturn's staging path for a namespace.
    pub fn records(namespace: &str) -> String {
        let path = format!("/keyturn/world/{namespace}");
        run(
            "aws",
            &[
                "ssm",
                "get-parameters-by-path",
                "--path",
                &path,
                "--recursive",
                "--query",
                "Parameters[].Name",
                "--output",
                "text",
            ],
        )
    }

    /// The values of what lies below keyturn's staging path for a namespace.
    pub fn record_values(namespace: &str) -> Vec<String> {
        let path = format!("/keyturn/world/{namespace}");
        let query = ["--with-decryption", "--query", "Parameters[].Value", "--output", "json"];
        let list = ["ssm", "get-parameters-by-path", "--path", &path, "--recursive"];
        serde_json::from_str(&run("aws", &[&list[..], &query].concat())).unwrap()
    }

    /// The calls of one operation that the world's SSM got since that call, by what they were about, and the number
    /// to go on with.
    pub fn calls_since(from: u64, operation: &str) -> (Vec<String>, u64) {
        let address = format!("{}/world/calls?from={from}", super::variable("AWS_ENDPOINT_URL_SSM"));
        let log: serde_json::Value = serde_json::from_str(&run("curl", &["-sf", &address])).unwrap();
        let of_operation =
            log["calls"].as_array().unwrap().iter().filter(|call| call["operation"] == operation);
        (of_operation.map(|call| call["names"].to_string()).collect(), log["next"].as_u64().unwrap())
    }

    /// Makes the newest version of a parameter this many days old.
    pub fn backdate(path: &str, days: u32) {
        let address = format!("{}/world/backdate", super::variable("AWS_ENDPOINT_URL_SSM"));
        let body = format!("{{\"name\":\"{path}\",\"days\":{days}}}");
        run("curl", &["-sf", "-X", "POST", &address, "-d", &body]);
    }
}
