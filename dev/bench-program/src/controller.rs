//! A controller under measurement: keyturn or the floor, as a process on this machine.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use keyturn_aws_emulator::Emulator;
use tokio::process::{Child, Command};

use crate::bench::Bench;
use crate::failure::{Failure, Result, within};
use crate::objects::NAME;
use crate::process::{self, Usage};
use crate::ssm::REGION;

/// Deadline for a controller to stop; longer than keyturn's `--shutdown-timeout`.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Proxy variables removed from the process: neither the API server nor the emulated SSM is behind a proxy.
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/// The program under measurement.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Floor,
    /// keyturn with these settings in addition to those of every measurement.
    Keyturn(Vec<String>),
}

impl Program {
    pub(crate) fn keyturn(settings: &[&str]) -> Self {
        Self::Keyturn(settings.iter().map(|&setting| setting.to_owned()).collect())
    }

    pub(crate) fn is_keyturn(&self) -> bool {
        matches!(self, Self::Keyturn(_))
    }

    fn command(&self, bench: &Bench, ssm: &Emulator, name: &str) -> Result<Command> {
        match self {
            Self::Floor => {
                let own = std::env::current_exe().map_err(Failure::io("find this program"))?;
                let mut command = Command::new(own);
                command.args(["floor", "--namespace", NAME]);
                Ok(command)
            }
            Self::Keyturn(settings) => {
                let mut command = Command::new(&bench.keyturn);
                command.arg("controller").args(always(name)).args(settings);
                command.env("AWS_ENDPOINT_URL_SSM", ssm.url()).env("AWS_ENDPOINT_URL_CLOUDTRAIL", ssm.url());
                command.env("AWS_REGION", REGION).env("AWS_EC2_METADATA_DISABLED", "true");
                // The emulator's log distinguishes replicas by their access key.
                command.env("AWS_ACCESS_KEY_ID", name).env("AWS_SECRET_ACCESS_KEY", "bench");
                command.env_remove("AWS_SESSION_TOKEN").env_remove("AWS_PROFILE");
                Ok(command)
            }
        }
    }
}

/// Returns the settings that keep the process apart from an installed keyturn. keyturn's own metrics are not read: with
/// 10,000 objects one scrape would cost more than the work under measurement.
fn always(name: &str) -> Vec<String> {
    vec![
        "--cluster=bench".to_owned(),
        format!("--namespace={NAME}"),
        format!("--watch-namespaces={NAME}"),
        format!("--lease-name={NAME}"),
        format!("--pod-name={name}"),
        format!("--aws-region={REGION}"),
        "--job-image=none".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
    ]
}

/// A running controller. Its process is killed when this is dropped.
pub(crate) struct Controller {
    child: Child,
    pid: u32,
    pub name: String,
    log: PathBuf,
    pub started: Instant,
}

impl Controller {
    /// Starts a process. Its name becomes part of its identity in the lease, and its AWS access key.
    pub(crate) fn start(bench: &Bench, program: &Program, ssm: &Emulator, name: &str) -> Result<Self> {
        let log = bench.logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(Failure::io(format!("write {}", log.display())))?;
        let mut command = program.command(bench, ssm, name)?;
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("KEYTURN_") {
                command.env_remove(variable);
            }
        }
        for variable in PROXIES {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).kill_on_drop(true);
        let started = Instant::now();
        let child = command.spawn().map_err(Failure::io(format!("start {name}")))?;
        let pid = child.id().ok_or_else(|| Failure::Unexpected(format!("{name} has no process id")))?;
        Ok(Self { child, pid, name: name.to_owned(), log, started })
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        process::usage(self.pid)
    }

    /// Does some work, and fails at once if the process ends meanwhile.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            ended = self.child.wait() => Err(Failure::Ended {
                name: self.name.clone(),
                status: ended.map_or_else(|error| error.to_string(), |status| status.to_string()),
                log: self.log.clone(),
            }),
        }
    }

    /// Sends SIGTERM, and waits until the process has ended.
    pub(crate) async fn stop(self) -> Result<()> {
        self.signal("TERM").await?;
        self.ended().await
    }

    /// Kills the process, and waits until it is dead.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.map_err(Failure::io(format!("kill {}", self.name)))
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(mut self) -> Result<()> {
        let what = format!("{} to end", self.name);
        within(STOP_PATIENCE, what.clone(), async {
            self.child.wait().await.map(drop).map_err(Failure::io(format!("wait for {what}")))
        })
        .await
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(crate) async fn signal(&self, signal: &str) -> Result<()> {
        let what = || format!("send {signal} to {}", self.name);
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.pid.to_string()).status().await;
        let sent = sent.map_err(Failure::io(what()))?;
        if sent.success() { Ok(()) } else { Err(Failure::Unexpected(format!("cannot {}", what()))) }
    }
}
