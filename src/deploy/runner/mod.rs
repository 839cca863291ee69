//! `keyturn deploy-host`, the program in the pod of a deploy Job: it connects to the host, lets it deploy (or only
//! verify), compares what the containers run, and reports.
//!
//! The work itself is done by the script in `host/` on the host, which outlives the pod and the connection. After a broken
//! connection this program connects again and repeats the request, and the host answers with the run that already
//! exists. The same holds for the next pod of the Job.

mod host;
mod images;
mod logs;
mod output;
mod pod;
mod proof;
pub mod termination;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use tokio::time::{Instant, sleep, timeout_at};

use self::host::{DeployResult, HostError, Request};
pub use self::host::{HOST_SCRIPT, Line, lines};
use self::output::Output;
pub use self::pod::{Files, main, main_with};
use self::proof::{Check, Proofs};
use super::ssh::client_key::ClientKey;
use super::ssh::connection::{Connection, Exit, Login, SshError, Timeouts};
use super::ssh::known_hosts::KnownHosts;
use super::task::{Task, TaskParameter};
use crate::api::docker_host::RunResult;
use crate::api::docker_host::{Proof, RunMode};
use crate::audit::managed::Matcher;
use crate::deploy::report::{DeployKind, Report, ReportParameter, UNDER_WAY};
use crate::text::HostText;

/// Maximum number of containers that one message names for the same problem.
const MOST_NAMED: usize = 5;

/// The limits of a run that do not depend on the host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time limits of the SSH connections.
    pub timeouts: Timeouts,
    /// Time to wait for another deployment to end before the host counts as busy.
    pub busy_wait: Duration,
    /// Maximum number of bytes of the scripts' output that are shown for each request.
    pub output_limit: usize,
    /// Longest time for scrubbing secrets out of all that output.
    pub output_time: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            busy_wait: Duration::from_secs(30),
            output_limit: 1 << 20,
            output_time: Duration::from_secs(30),
        }
    }
}

/// The observer of a run.
pub trait Progress: Sync {
    /// A new phase began; `report` names it.
    fn phase(&self, report: &Report);
    /// The run ended with this result. Later steps may add to the result, but must not remove anything.
    fn result(&self, report: &Report);
    /// A piece of the user's scripts' output for the log, without the secrets in it.
    fn output(&self, data: &[u8]);
}

/// Returns the longest time that [`run`] takes. The deadline of a Job must be longer: an earlier deadline deletes the
/// pod together with its report.
pub fn time_limit(task: &Task) -> Duration {
    let deploy = match task.mode {
        RunMode::Deploy => task.deploy_timeout_seconds + 30,
        RunMode::Verify => 0,
        RunMode::Collect => {
            let timeout = task.collection.as_ref().map_or(0, |collection| collection.timeout_seconds);
            return Duration::from_secs(timeout + 180);
        }
    };
    Duration::from_secs(deploy + task.verify_timeout_seconds + 180 + task.audit_seconds())
}

/// Runs the task and returns its report, also for every failure.
pub async fn run(
    task: &Task,
    key: &ClientKey,
    jump_key: Option<&ClientKey>,
    settings: &Settings,
    progress: &dyn Progress,
) -> Report {
    if let Err(wrong) = check_task(task) {
        return report(RunResult::BadInput, wrong);
    }
    let Some(checks) = Check::all(task) else {
        return report(RunResult::BadInput, "a key of the task is not 64 hexadecimal digits");
    };
    let Some(matcher) = Matcher::new(&task.managed) else {
        return report(RunResult::BadInput, "the fingerprints of the managed values cannot be read");
    };
    let matcher = Arc::new(matcher);
    let output = Output::new(progress, matcher.clone(), settings.output_time);
    let mut run = Run {
        task,
        login: Login { endpoint: &task.ssh, key },
        jump: task.jump.as_ref().map(|endpoint| Login { endpoint, key: jump_key.unwrap_or(key) }),
        known_hosts: Arc::new(KnownHosts::parse(&task.known_hosts)),
        checks,
        matcher,
        settings,
        progress,
        output: &output,
        deadline: Instant::now() + time_limit(task),
        connection: None,
        connected_before: false,
    };
    let (Ok(mut report) | Err(mut report)) = match task.mode {
        RunMode::Deploy => run.deploy().await,
        RunMode::Verify => {
            run.verify_and_prove(task.verify_timeout_seconds, Some(settings.busy_wait.as_secs())).await
        }
        RunMode::Collect => run.collect().await,
    };
    if let Some(audit) = task.audit.as_ref().filter(|_| shows_containers(report.outcome)) {
        // Reported before the images are audited: an audit takes time and memory, and must not make a deployment fail.
        report.images = Some(Box::new(images::not_looked_at()));
        progress.result(&report);
        report.images = Some(Box::new(run.look_at_images(audit).await));
    }
    if let Some(connection) = run.connection {
        connection.close().await;
    }
    report
}

fn report(outcome: RunResult, message: impl Into<String>) -> Report {
    Report {
        outcome,
        message: message.into(),
        script_exit: None,
        verified: false,
        deploy: None,
        parameters: Vec::new(),
        images: None,
        others: None,
        logs: None,
    }
}

/// True if the run reached the containers, so that their images can be audited.
fn shows_containers(outcome: RunResult) -> bool {
    matches!(
        outcome,
        RunResult::Succeeded
            | RunResult::NotAdopted
            | RunResult::VerifyFailed
            | RunResult::DeployFailed
            | RunResult::DeployTimedOut
    )
}

/// Checks that no text of the task can change the meaning of a request to the host.
fn check_task(task: &Task) -> Result<(), String> {
    let word = |text: &str, others: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
    };
    if !word(&task.compose_project, "_.-") || task.compose_project.starts_with('.') {
        return Err("docker.composeProject must consist of letters, digits, _, . and -".to_owned());
    }
    if !task.docker_path.as_deref().is_none_or(|path| path.starts_with('/') && word(path, "/_.+-")) {
        return Err("docker.path must be an absolute path of letters, digits, /, _, ., + and -".to_owned());
    }
    if !word(&task.revision, "") {
        return Err("the task's revision must consist of letters and digits".to_owned());
    }
    for parameter in &task.parameters {
        if !parameter.path.starts_with('/') || !word(&parameter.path, "/_.-") {
            return Err("the path of a parameter must consist of letters, digits, /, _, . and -".to_owned());
        }
        let hexadecimal = |text: &str| text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
        if !hexadecimal(&parameter.mac) || !parameter.trimmed_mac.as_deref().is_none_or(hexadecimal) {
            return Err(format!("a fingerprint of {} is not 64 hexadecimal digits", parameter.path));
        }
        if !parameter.env.iter().all(|name| word(name, "_")) {
            return Err(format!(
                "a variable's name for {} does not consist of letters, digits and _",
                parameter.path
            ));
        }
    }
    if let Some(collection) = &task.collection
        && ![&collection.about.incident, &collection.about.secret].iter().all(|name| word(name, ".-"))
    {
        return Err(
            "the names of an incident and its secret must consist of letters, digits, . and -".to_owned()
        );
    }
    let of_the_logs = task.collection.as_ref().map(|collection| &collection.script);
    let scripts = [Some(&task.deploy_script), task.verify_script.as_ref(), of_the_logs];
    if scripts.into_iter().flatten().any(|script| script.contains('\0')) {
        return Err("a script contains a NUL character".to_owned());
    }
    Ok(())
}

/// Returns the name of this run on the host: the same in every pod of one Job, and a different one in every other Job.
/// It is a hash of the fingerprint keys, which are generated for each Job; it reveals nothing of them.
fn run_name(task: &Task) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(format!("keyturn run {} {}", task.revision, task.attempt).as_bytes());
    for TaskParameter { key, .. } in &task.parameters {
        context.update(key.as_bytes());
    }
    hex::encode(&context.finish().as_ref()[..8])
}

struct Run<'a> {
    task: &'a Task,
    login: Login<'a>,
    jump: Option<Login<'a>>,
    known_hosts: Arc<KnownHosts>,
    checks: Vec<Check>,
    matcher: Arc<Matcher>,
    settings: &'a Settings,
    progress: &'a dyn Progress,
    output: &'a Output<'a>,
    deadline: Instant,
    connection: Option<Connection>,
    /// True once a connection was made. From then on the run waits for an unreachable host, since a deployment may run
    /// there.
    connected_before: bool,
}

/// The reason why an attempt to get an answer failed.
enum Failure {
    Host(HostError),
    /// The time limit of the run has passed.
    Deadline,
}

impl Run<'_> {
    async fn deploy(&mut self) -> Result<Report, Report> {
        match self.deploy_and_verify().await {
            Err(failed) if matches!(failed.outcome, RunResult::DeployFailed | RunResult::DeployTimedOut) => {
                Err(self.with_what_differs(failed).await)
            }
            ended => ended,
        }
    }

    /// Adds the differing parameters to a failed report: the script may have delivered the new values before it failed,
    /// and only the containers show that.
    async fn with_what_differs(&mut self, failed: Report) -> Report {
        match self.prove().await {
            Ok(proofs) => {
                let differs = |parameter: &ReportParameter| parameter.proof == Proof::Differs;
                Report { parameters: proofs.parameters.into_iter().filter(differs).collect(), ..failed }
            }
            Err(_) => failed,
        }
    }

    async fn deploy_and_verify(&mut self) -> Result<Report, Report> {
        let name = run_name(self.task);
        let mut kind = self.deploy_once(&name, true).await?;
        if kind == DeployKind::Replayed {
            // An earlier success counts as long as the containers confirm it. If they do not, the deployment is
            // repeated once.
            let patience = self.task.verify_timeout_seconds.min(20);
            let result = self.verify_and_prove(patience, None).await;
            match result {
                Ok(report) => return Ok(Report { deploy: Some(kind), ..report }),
                Err(report) if matches!(report.outcome, RunResult::VerifyFailed | RunResult::NotAdopted) => {}
                Err(report) => return Err(Report { deploy: Some(kind), ..report }),
            }
            kind = self.deploy_once(&format!("{name}-again"), false).await?;
        }
        let (Ok(report) | Err(report)) = self.verify_and_prove(self.task.verify_timeout_seconds, None).await;
        Ok(Report { deploy: Some(kind), ..report })
    }

    /// Runs the script on the host, or returns how an earlier run of it ended.
    async fn deploy_once(&mut self, run: &str, replay: bool) -> Result<DeployKind, Report> {
        let task = self.task;
        self.phase(format!("deploying to {}", task.ssh.host));
        let request = Request::Deploy { task, run, replay, wait: self.settings.busy_wait.as_secs() };
        let lines = self.ask(&request).await?;
        let mut kind = DeployKind::Started;
        let mut log = HostText::default();
        let mut full = None;
        let mut result = None;
        for line in lines {
            match line {
                Line::Outdated { path, version, file } => {
                    return Err(report(
                        RunResult::Outdated,
                        format!(
                            "version {version} of {path} was already deployed to the host and is newer than \
                             the version of this run: the request is stale, and the next run deploys the \
                             newer version; to deploy the older one anyway, remove its line from {file} on \
                             the host"
                        ),
                    ));
                }
                Line::Deploy(how) => kind = how,
                Line::Log(path) => log = path,
                Line::Full(mount) => full = Some(mount),
                Line::Result(how) => result = Some(how),
                _ => {}
            }
        }
        let failed = |outcome, exit, message: String| Report {
            script_exit: exit,
            deploy: Some(kind),
            ..report(outcome, format!("{message}; its output is in {log} on the host"))
        };
        match (result, full) {
            (Some(DeployResult::Exit(0)), _) => Ok(kind),
            (Some(DeployResult::Exit(code)), Some(mount)) => Err(failed(
                RunResult::HostUnfit,
                Some(code),
                format!(
                    "the disk of the host is full at {mount}; free some space. The deploy script exited \
                     with {code}"
                ),
            )),
            (Some(DeployResult::Exit(code)), None) => Err(failed(
                RunResult::DeployFailed,
                Some(code),
                format!("the deploy script exited with {code}"),
            )),
            (Some(DeployResult::TimedOut), _) => Err(failed(
                RunResult::DeployTimedOut,
                None,
                format!(
                    "the deploy script was stopped after {} s (deploy.timeout)",
                    task.deploy_timeout_seconds
                ),
            )),
            (Some(DeployResult::Interrupted), _) => Err(failed(
                RunResult::DeployInterrupted,
                None,
                "the deploy script was interrupted on the host by a reboot or a kill, and may have done \
                 only a part of its work"
                    .to_owned(),
            )),
            (None, _) => Err(report(RunResult::HostUnfit, "the script on the host gave no result")),
        }
    }

    /// Checks the host in its present state. Returns `Err` if something is wrong with it.
    async fn verify_and_prove(&mut self, timeout: u64, idle: Option<u64>) -> Result<Report, Report> {
        let task = self.task;
        let until = Instant::now() + Duration::from_secs(timeout);
        let mut verify_code = 0;
        if let Some(script) = &task.verify_script {
            self.phase(format!("verifying {}", task.ssh.host));
            let lines = self.ask(&Request::Verify { task, script, timeout, idle }).await?;
            let code = lines.iter().find_map(|line| match line {
                Line::Verify(code) => Some(*code),
                _ => None,
            });
            verify_code = code.ok_or_else(|| {
                report(RunResult::HostUnfit, "the script on the host gave no result of verify")
            })?;
        }
        self.phase(format!("comparing the values in the containers on {}", task.ssh.host));
        let mut proofs = self.prove().await?;
        let mut restarting = proofs.restarting(None);
        // A container that was restarted gets some time to stay up and is checked at least twice.
        let mut looked_again = false;
        while !restarting.is_empty() && (!looked_again || Instant::now() < until) {
            sleep(Duration::from_secs(3)).await;
            let before = std::mem::replace(&mut proofs, self.prove().await?);
            restarting = proofs.restarting(Some(&before));
            looked_again = true;
        }
        let verdict = judge(task, &proofs, &restarting, verify_code);
        if verdict.outcome == RunResult::Succeeded { Ok(verdict) } else { Err(verdict) }
    }

    async fn prove(&mut self) -> Result<Proofs, Report> {
        if self.checks.is_empty() {
            return Ok(Proofs::of(self.task, &[]));
        }
        let task = self.task;
        let checks = std::mem::take(&mut self.checks);
        let lines = self.ask(&Request::Prove { task, checks: &checks }).await;
        self.checks = checks;
        Ok(Proofs::of(task, &lines?))
    }

    fn phase(&self, message: String) {
        self.progress.phase(&report(UNDER_WAY, message));
    }

    /// Sends a request until it is answered, over as many connections as that takes.
    async fn ask(&mut self, request: &Request<'_>) -> Result<Vec<Line>, Report> {
        let mut pause = Duration::from_millis(500);
        loop {
            let failure = match self.ask_once(request).await {
                Ok(lines) => return usable(lines),
                Err(failure) => failure,
            };
            let host = &self.task.ssh.host;
            let lost = match failure {
                Failure::Deadline => {
                    return Err(report(
                        RunResult::ConnectionLost,
                        format!(
                            "{host} did not answer within the time of this run; a deployment that runs \
                             there continues"
                        ),
                    ));
                }
                Failure::Host(HostError::NoAnswer(Exit::Code(code))) => {
                    return Err(report(
                        RunResult::HostUnfit,
                        format!(
                            "the account's shell on {host} ended with the exit code {code} before it did anything; it must \
                             be able to run `sh` and `dd`"
                        ),
                    ));
                }
                Failure::Host(HostError::NoAnswer(Exit::Signal(signal))) => {
                    format!("the shell on {host} was killed by the signal {signal}")
                }
                Failure::Host(HostError::Ssh(error)) => {
                    let again = self.connected_before
                        && matches!(error.outcome(), RunResult::ConnectionLost | RunResult::Unreachable);
                    if !again {
                        return Err(report(error.outcome(), error.to_string()));
                    }
                    error.to_string()
                }
            };
            self.connection = None;
            if Instant::now() + pause >= self.deadline {
                return Err(report(
                    RunResult::ConnectionLost,
                    format!("{lost}; a deployment that runs there continues, and the next run joins it"),
                ));
            }
            self.phase(format!("{lost}; reconnecting"));
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    async fn ask_once(&mut self, request: &Request<'_>) -> Result<Vec<Line>, Failure> {
        let output = self.output;
        let (deadline, limit) = (self.deadline, self.settings.output_limit);
        let connection = self.connect().await.map_err(|error| Failure::Host(HostError::Ssh(error)))?;
        let answer = host::ask(connection, request, limit, output);
        match timeout_at(deadline, answer).await {
            Ok(result) => result.map_err(Failure::Host),
            Err(_) => Err(Failure::Deadline),
        }
    }

    /// Returns the open connection, or opens a new one.
    async fn connect(&mut self) -> Result<&Connection, SshError> {
        let connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => {
                Connection::open(self.login, self.jump, self.known_hosts.clone(), self.settings.timeouts)
                    .await?
            }
        };
        self.connected_before = true;
        Ok(self.connection.insert(connection))
    }
}

/// Returns the answer, or an error if the host says that it could not even start.
fn usable(lines: Vec<Line>) -> Result<Vec<Line>, Report> {
    for line in &lines {
        match line {
            Line::Unfit(why) => return Err(report(RunResult::HostUnfit, why.to_string())),
            Line::Busy(who) => {
                return Err(report(
                    RunResult::Busy,
                    format!("the host is busy with {who}; keyturn retries later"),
                ));
            }
            _ => {}
        }
    }
    Ok(lines)
}

/// Explains why the variable cannot hold this parameter: the task compares another parameter with the same variable.
fn collision(task: &Task, path: &str) -> Option<String> {
    let this = task.parameters.iter().find(|parameter| parameter.path == path)?;
    let mut others = task.parameters.iter().filter(|other| other.path != path);
    let (other, variable) = others.find_map(|other| {
        let variable = other.env.iter().find(|variable| this.env.contains(variable))?;
        Some((&other.path, variable))
    })?;
    Some(format!(
        "keyturn looks for both {path} and {other} in the variable {variable}: name another variable in \
         hosts[].env of a ManagedSecret, or give each a separate DockerHost with its own \
         docker.composeProject"
    ))
}

/// Derives the outcome from the checks of a host.
fn judge(task: &Task, proofs: &Proofs, restarting: &[String], verify_code: i32) -> Report {
    let mut problems = Vec::new();
    let differing: Vec<String> = proofs
        .differing()
        .map(|parameter| format!("{} in {}", parameter.path, parameter.differs_in.join(", ")))
        .collect();
    if !differing.is_empty() {
        let remedy = match task.mode {
            RunMode::Deploy => {
                "check that the deploy script fetches the values and recreates these containers"
            }
            RunMode::Verify | RunMode::Collect => "somebody changed the parameter, or did not deploy it",
        };
        let collisions: Vec<String> =
            proofs.differing().filter_map(|parameter| collision(task, &parameter.path)).collect();
        problems.push(format!(
            "containers run a value other than the published one: {}; {}",
            differing.join("; "),
            if collisions.is_empty() { remedy.to_owned() } else { collisions.join("; ") }
        ));
    }
    if !restarting.is_empty() {
        let more = restarting.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = restarting.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        problems.push(format!("containers keep restarting: {named}{more}"));
    }
    match verify_code {
        0 => {}
        // Exit codes of `timeout`, with and without the kill.
        124 | 137 | 143 => problems.push(format!(
            "the verify script did not end within {} s (verify.timeout)",
            task.verify_timeout_seconds
        )),
        code => problems.push(format!(
            "the verify script did not succeed within {} s (verify.timeout); its last exit code was {code}",
            task.verify_timeout_seconds
        )),
    }
    let outcome = match (problems.is_empty(), differing.is_empty()) {
        (true, _) => RunResult::Succeeded,
        (false, false) => RunResult::NotAdopted,
        (false, true) => RunResult::VerifyFailed,
    };
    let mut parameters = proofs.parameters.clone();
    if outcome == RunResult::Succeeded {
        let proven = parameters.iter().filter(|parameter| parameter.proof == Proof::Proven).count();
        problems.push(format!("{proven} of {} parameters are proven in the containers", parameters.len()));
    }
    let verified = verify_code == 0 && restarting.is_empty();
    if !verified {
        // Nothing is proven unless the verify script passed. If it passed, one differing parameter does not affect the
        // others.
        parameters.retain(|parameter| parameter.proof != Proof::Proven);
    }
    Report {
        script_exit: (verify_code != 0).then_some(verify_code),
        verified,
        parameters,
        ..report(outcome, problems.join("; "))
    }
}

#[cfg(test)]
mod judge_tests;
