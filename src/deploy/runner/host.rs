//! The conversation with the script on the host: requests are text on standard input, answers are lines.

use std::fmt::Write as _;
use std::io::{self, Read};

use chrono::DateTime;

use super::output::Output;
use super::proof::Check;
use crate::api::time::to_text;
use crate::deploy::ssh::connection::{self, Connection, Exit, SshError, Tunnel};
use crate::deploy::task::{Task, TaskCollection};
use crate::secret_value::SecretValue;
use crate::text::HostText;

/// The script that runs on the host and does the work there, joined from its parts.
pub const HOST_SCRIPT: &str = concat!(
    include_str!("host/common.sh"),
    "\n",
    include_str!("host/state.sh"),
    "\n",
    include_str!("host/deploy.sh"),
    "\n",
    include_str!("host/verify.sh"),
    "\n",
    include_str!("host/prove.sh"),
    "\n",
    include_str!("host/images.sh"),
    "\n",
    include_str!("host/logs.sh"),
    "\n",
    include_str!("host/requests.sh")
);

/// Shell command that reads the script from standard input and nothing after it, no matter which shell the account has.
/// A host where the script is installed as a forced command runs the installed script instead.
const BOOTSTRAP: &str =
    r#"exec sh -c 'read -r n && s=$(dd bs=1 count="$n" 2>/dev/null) && keyturn_source=$s && eval "$s"'"#;

/// Longest image ID that is accepted, in bytes.
const LONGEST_ID: usize = 200;

/// Maximum number of bytes of an answer on standard output. Answers are short, so a host that sends more is not read
/// any further.
const ANSWER_LIMIT: usize = 1 << 20;

/// A request to the host. Every request is idempotent: the host recognises a deployment by its run.
pub(super) enum Request<'a> {
    /// Deploys, joins a running deployment of this revision, or reports how this run of it ended.
    Deploy {
        task: &'a Task,
        run: &'a str,
        /// True if an earlier success of this revision still counts.
        replay: bool,
        /// Time to wait for another deployment to end, in seconds.
        wait: u64,
    },
    /// Runs the verify script until it succeeds or `timeout` seconds have passed.
    Verify {
        task: &'a Task,
        script: &'a str,
        timeout: u64,
        /// Time to wait first for running deployments to end, in seconds; `None` for no wait.
        idle: Option<u64>,
    },
    /// Compares the values that the containers run.
    Prove { task: &'a Task, checks: &'a [Check] },
    /// Lists the images that the containers run.
    Images { task: &'a Task },
    /// Reports what docker says about one image. Send it with [`ask_about_image`].
    Image { task: &'a Task, id: &'a str },
    /// Runs the command that finds log lines and reports what it found. Send it with [`ask_for_logs`].
    Logs { task: &'a Task, collection: &'a TaskCollection },
    /// Lets docker save one image. Send it with [`save`].
    Save { task: &'a Task, id: &'a str },
}

impl Request<'_> {
    /// Returns the bytes for the standard input of the host: the script, then the request.
    fn input(&self) -> Vec<u8> {
        let mut text = format!("{}\n{HOST_SCRIPT}", HOST_SCRIPT.len());
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text.into_bytes()
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        match self {
            Self::Deploy { task, run, replay, wait } => {
                write_start(text, "deploy", task)?;
                write!(
                    text,
                    "revision {}\nrun {run}\nreplay {}\ntimeout {}\nwait {wait}\n",
                    task.revision,
                    yes_no(*replay),
                    task.deploy_timeout_seconds,
                )?;
                write_parameters(text, task)?;
                write!(text, "script {}\n{}end\n", task.deploy_script.len(), task.deploy_script)
            }
            Self::Verify { task, script, timeout, idle } => {
                write_start(text, "verify", task)?;
                write!(
                    text,
                    "revision {}\ntimeout {timeout}\nidle {}\nwait {}\n",
                    task.revision,
                    yes_no(idle.is_some()),
                    idle.unwrap_or(0),
                )?;
                write_parameters(text, task)?;
                write!(text, "script {}\n{script}end\n", script.len())
            }
            Self::Prove { task, checks } => {
                write_start(text, "prove", task)?;
                checks.iter().try_for_each(|check| writeln!(text, "check {}", check.line()))?;
                writeln!(text, "end")
            }
            Self::Images { task } => {
                write_start(text, "images", task)?;
                writeln!(text, "end")
            }
            Self::Image { task, id } | Self::Save { task, id } => {
                let verb = if matches!(self, Self::Image { .. }) { "image" } else { "save" };
                write_start(text, verb, task)?;
                write!(text, "image {id}\nend\n")
            }
            Self::Logs { task, collection } => {
                let TaskCollection { about, script, timeout_seconds, .. } = collection;
                let at = |seconds| to_text(DateTime::from_timestamp(seconds, 0).unwrap_or_default());
                write_start(text, "logs", task)?;
                write!(
                    text,
                    "incident {}\nsecret {}\nsince {}\nuntil {}\ntimeout {timeout_seconds}\nscript {}\n{script}end\n",
                    about.incident,
                    about.secret,
                    at(about.since),
                    at(about.until),
                    script.len(),
                )
            }
        }
    }
}

/// Writes the lines with which every request begins.
fn write_start(text: &mut String, verb: &str, task: &Task) -> std::fmt::Result {
    write!(text, "verb {verb}\nproject {}\nsudo {}\n", task.compose_project, yes_no(task.sudo))?;
    // An installed script of an older version does not know this word.
    task.docker_path.iter().try_for_each(|path| writeln!(text, "docker {path}"))
}

fn write_parameters(text: &mut String, task: &Task) -> std::fmt::Result {
    task.parameters.iter().try_for_each(|parameter| {
        writeln!(text, "parameter {}={}@{}", parameter.path, parameter.version, parameter.published_at.max(0))
    })
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// The result of a deployment on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployResult {
    Exit(i32),
    TimedOut,
    Interrupted,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The host's reason why it cannot do the work. Nothing else follows.
    Unfit(HostText),
    /// The program that still held the lock when the time to wait was over. Nothing was started.
    Busy(HostText),
    /// A newer version of a parameter was deployed before. Nothing was started.
    Outdated {
        /// Path of the parameter.
        path: HostText,
        /// The newer version, which the host has recorded.
        version: i64,
        /// Path of the file on the host that records the versions.
        file: HostText,
    },
    /// The run whose result follows: this request's own, another run that was still in progress, or an earlier success.
    Deploy(super::DeployKind),
    /// The path of the deployment's output on the host.
    Log(HostText),
    /// The result of the deployment.
    Result(DeployResult),
    /// A mount point that has no free space.
    Full(HostText),
    /// The exit code of the last run of the verify script.
    Verify(i32),
    /// A container has the expected value in one of its variables.
    Same {
        /// Index of the parameter in the task, from 0. Checks of several variables share it.
        check: usize,
        /// Name of the container.
        container: HostText,
    },
    /// A container has another value in one of its variables.
    Differs {
        /// Index of the parameter in the task, from 0. Checks of several variables share it.
        check: usize,
        /// Name of the container.
        container: HostText,
    },
    /// A container that has one of the variables, and its state as docker reports it.
    Container {
        /// Name of the container.
        name: HostText,
        /// True if the container's state is `restarting`: it has ended, and docker will start it again.
        restarting: bool,
        /// Number of times that docker restarted it.
        restarts: u64,
    },
    /// An image that a container runs.
    Image {
        /// ID of the image, such as `sha256:…`: letters, digits and colons, at most 200 bytes.
        id: String,
        /// The name with which the container was started.
        name: HostText,
    },
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum HostError {
    Ssh(SshError),
    /// The account's shell ended before our script ended.
    NoAnswer(Exit),
}

/// Sends a request and waits for the complete answer. Passes what the user's scripts print to `output`, at most
/// `output_limit` bytes of it.
pub(super) async fn ask(
    connection: &Connection,
    request: &Request<'_>,
    output_limit: usize,
    output: &Output<'_>,
) -> Result<Vec<Line>, HostError> {
    let (answer, exit) = exchange(connection, request, output_limit, ANSWER_LIMIT, output).await?;
    lines(&answer).ok_or(HostError::NoAnswer(exit))
}

/// Docker's data about an image. It may contain secrets.
#[derive(Debug)]
pub(super) struct AboutImage {
    /// The output of `docker image inspect`.
    pub inspect: SecretValue,
    /// The output of `docker history`, one entry per line.
    pub history: SecretValue,
}

/// Sends [`Request::Image`]. Returns `Ok(Err(…))` with the host's reason if the host cannot answer.
pub(super) async fn ask_about_image(
    connection: &Connection,
    request: &Request<'_>,
    answer_limit: usize,
    output: &Output<'_>,
) -> Result<Result<AboutImage, String>, HostError> {
    let (answer, exit) = exchange(connection, request, 4096, answer_limit, output).await?;
    let (answer, mut inspect, mut history) = (SecretValue::new(answer), String::new(), String::new());
    for line in answer.expose().lines() {
        let Some((_, said)) = line.split_once("keyturn: ") else { continue };
        match said.split_once(' ').unwrap_or((said, "")) {
            ("inspect", json) => inspect.push_str(json),
            ("history", json) => history = history + json + "\n",
            ("unfit", why) => return Ok(Err(HostText::new(why).into())),
            ("done", _) => {
                let (inspect, history) = (SecretValue::new(inspect), SecretValue::new(history));
                return Ok(Ok(AboutImage { inspect, history }));
            }
            _ => {}
        }
    }
    if answer.len() >= answer_limit {
        return Ok(Err(format!("docker's data about it exceeds {} KiB", answer_limit / 1024)));
    }
    Err(HostError::NoAnswer(exit))
}

/// The result of the command that finds log lines.
#[derive(Debug)]
pub(super) enum Logs {
    Found {
        /// The path of the file with the lines, on the host.
        file: HostText,
        bytes: u64,
        /// True if there were more lines than the file holds.
        cut: bool,
        lines: u64,
        digest: String,
        /// The first lines, unchanged.
        first: SecretValue,
        /// The last lines, unchanged. They may overlap with the first.
        last: SecretValue,
    },
    /// The command ended with this exit code; `errors` is the end of its error output.
    Failed { code: i32, errors: SecretValue },
    /// The host's reason why it could not start.
    Unfit(HostText),
}

/// Sends [`Request::Logs`].
pub(super) async fn ask_for_logs(
    connection: &Connection,
    request: &Request<'_>,
    output: &Output<'_>,
) -> Result<Logs, HostError> {
    let (answer, exit) = exchange(connection, request, 4096, ANSWER_LIMIT, output).await?;
    let answer = SecretValue::new(answer);
    let (mut first, mut last, mut errors) = (String::new(), String::new(), String::new());
    let (mut file, mut digest, mut cut, mut code) = (HostText::default(), String::new(), false, None);
    let (mut bytes, mut lines) = (0, 0);
    // Only a line feed ends a line: other line breaks are part of a log line.
    for line in answer.expose().split('\n') {
        let Some((_, said)) = line.split_once("keyturn: ") else { continue };
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        match word {
            "unfit" => return Ok(Logs::Unfit(HostText::new(rest))),
            "collected" => code = Some(rest.parse().unwrap_or(-1)),
            "file" => file = HostText::new(rest),
            "digest" => digest = rest.chars().filter(char::is_ascii_hexdigit).take(64).collect(),
            "size" => bytes = rest.parse().unwrap_or(0),
            "lines" => lines = rest.parse().unwrap_or(0),
            "cut" => cut = rest == "yes",
            "first" => first = first + rest + "\n",
            "last" => last = last + rest + "\n",
            "error" => errors = errors + rest + "\n",
            "done" => {
                let [first, last, errors] = [first, last, errors].map(SecretValue::new);
                return match code {
                    Some(0) => Ok(Logs::Found { file, bytes, cut, lines, digest, first, last }),
                    Some(code) => Ok(Logs::Failed { code, errors }),
                    None => Err(HostError::NoAnswer(exit)),
                };
            }
            _ => {}
        }
    }
    Err(HostError::NoAnswer(exit))
}

/// Sends [`Request::Save`]. Call [`begin_saved`] first to read the returned stream.
pub(super) async fn save(connection: &Connection, request: &Request<'_>) -> Result<Tunnel, SshError> {
    connection.exec_stream(BOOTSTRAP, &request.input()).await
}

/// Reads up to the beginning of the archive. Returns `Ok(Err(…))` with the host's reason if the host cannot save.
pub(super) fn begin_saved(stream: &mut impl Read) -> io::Result<Result<(), String>> {
    // A shell profile may have printed something before.
    for _ in 0..1000 {
        let mut line = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" && line.len() < 4096 {
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim_end().split_once("keyturn: ") {
            Some((_, "save")) => return Ok(Ok(())),
            Some((_, said)) => {
                let why = said.strip_prefix("unfit ").unwrap_or(said);
                return Ok(Err(HostText::new(why).into()));
            }
            None => {}
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Sends a request and collects what the host writes, at most this many bytes of each stream.
async fn exchange(
    connection: &Connection,
    request: &Request<'_>,
    output_limit: usize,
    answer_limit: usize,
    output: &Output<'_>,
) -> Result<(String, Exit), HostError> {
    // The exchange before this one may have been abandoned in the middle of a line.
    output.end(false);
    let mut answer = Vec::new();
    let mut printed = 0;
    let exit = connection
        .exec(BOOTSTRAP, &request.input(), output_limit.max(answer_limit), |stream, data| match stream {
            connection::Output::Stdout => {
                answer.extend_from_slice(&data[..data.len().min(answer_limit - answer.len())]);
            }
            connection::Output::Stderr => {
                let room = data.len().min(output_limit - printed);
                printed += room;
                output.write(&data[..room]);
            }
        })
        .await;
    let is_cut = printed == output_limit;
    output.end(exit.is_ok() && !is_cut);
    if is_cut {
        output.note("the rest of the output is left out");
    }
    let exit = exit.map_err(HostError::Ssh)?;
    Ok((String::from_utf8_lossy(&answer).into_owned(), exit))
}

/// Parses the lines of a complete answer; `None` if its end is missing. Ignores other lines, since shell profiles
/// print too.
pub fn lines(answer: &str) -> Option<Vec<Line>> {
    let mut lines = Vec::new();
    for line in answer.lines() {
        // A shell profile may have printed something without a line break before the answer.
        let Some((_, said)) = line.split_once("keyturn: ") else { continue };
        if said == "done" {
            return Some(lines);
        }
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        lines.extend(parse_line(word, rest));
    }
    None
}

fn parse_line(word: &str, rest: &str) -> Option<Line> {
    let text = || HostText::new(rest);
    Some(match word {
        "unfit" => Line::Unfit(text()),
        "busy" => Line::Busy(text()),
        "outdated" => {
            let mut words = rest.split(' ');
            Line::Outdated {
                path: HostText::new(words.next()?),
                version: words.next()?.parse().ok()?,
                file: HostText::new(words.next().unwrap_or_default()),
            }
        }
        "deploy" => Line::Deploy(match rest {
            "started" => super::DeployKind::Started,
            "attached" => super::DeployKind::Attached,
            "replayed" => super::DeployKind::Replayed,
            _ => return None,
        }),
        "log" => Line::Log(text()),
        "result" => Line::Result(match rest {
            "timeout" => DeployResult::TimedOut,
            "interrupted" => DeployResult::Interrupted,
            code => DeployResult::Exit(code.parse().ok()?),
        }),
        "full" => Line::Full(text()),
        "verify" => Line::Verify(rest.parse().ok()?),
        "same" | "differs" => {
            let (check, container) = rest.split_once(' ')?;
            let (check, container) = (check.parse().ok()?, HostText::name(container));
            if word == "same" { Line::Same { check, container } } else { Line::Differs { check, container } }
        }
        "container" => {
            let mut words = rest.split(' ');
            Line::Container {
                restarting: words.next()? == "restarting",
                restarts: words.next()?.parse().ok()?,
                name: HostText::name(words.next()?),
            }
        }
        "image" => {
            let (id, name) = rest.split_once(' ')?;
            let is_id =
                id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b':');
            return is_id.then(|| Line::Image { id: id.to_owned(), name: HostText::name(name) });
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_only_when_it_is_complete() {
        assert_eq!(lines("keyturn: result 0\n"), None);
        assert_eq!(
            lines("Welcome!\nkeyturn: result 0\nkeyturn: done\n"),
            Some(vec![Line::Result(DeployResult::Exit(0))])
        );
        assert_eq!(lines("no line break keyturn: done"), Some(vec![]));
    }

    #[test]
    fn no_line_of_a_host_is_too_long() {
        let long = "a".repeat(600);
        for line in [
            format!("image {long} x"),
            format!("image {long}ä x"),
            format!("image {} {long}", "ä".repeat(250)),
            format!("container running 0 {long}"),
            format!("differs 0 {long}"),
            format!("outdated {long} 1 {long}"),
            format!("unfit {long}"),
        ] {
            for said in lines(&format!("keyturn: {line}\nkeyturn: done\n")).unwrap() {
                assert!(format!("{said:?}").len() < 1200, "{said:?}");
            }
        }
        assert_eq!(lines(&format!("keyturn: image {long} x\nkeyturn: done\n")), Some(vec![]));
    }

    #[test]
    fn every_kind_of_line_is_understood() {
        let answer = "keyturn: unfit no docker\nkeyturn: busy CI\nkeyturn: outdated /a/b 7 /x/versions\n\
            keyturn: deploy attached\nkeyturn: log /x/log\nkeyturn: result timeout\nkeyturn: result interrupted\n\
            keyturn: full /var\nkeyturn: verify 22\nkeyturn: same 0 app\nkeyturn: differs 1 runner\n\
            keyturn: container restarting 4 app\n\
            keyturn: image sha256:0a app:1\nkeyturn: image ../x app:1\nkeyturn: done\n";
        let text = HostText::new;
        let expected = vec![
            Line::Unfit(text("no docker")),
            Line::Busy(text("CI")),
            Line::Outdated { path: text("/a/b"), version: 7, file: text("/x/versions") },
            Line::Deploy(super::super::DeployKind::Attached),
            Line::Log(text("/x/log")),
            Line::Result(DeployResult::TimedOut),
            Line::Result(DeployResult::Interrupted),
            Line::Full(text("/var")),
            Line::Verify(22),
            Line::Same { check: 0, container: text("app") },
            Line::Differs { check: 1, container: text("runner") },
            Line::Container { name: text("app"), restarting: true, restarts: 4 },
            Line::Image { id: "sha256:0a".into(), name: text("app:1") },
        ];
        assert_eq!(lines(answer), Some(expected));
    }
}
