//! Entry point of the single keyturn binary: the controller, the program inside its Jobs, and a few tools.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keyturn::api;
use keyturn::cli::{audit, check, incident, uninstall};
use keyturn::deploy::runner;
use keyturn::process::config::ControllerArgs;
use keyturn::process::logging::{self, LogLevel};
use keyturn::process::{memory, run};

#[derive(Parser)]
#[command(name = "keyturn", version, about = "Rotates the secrets a fleet of docker hosts runs on")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller
    Controller {
        #[command(flatten)]
        arguments: Box<ControllerArgs>,
        /// Log level of keyturn itself: error, warn, info, debug or trace. Libraries never log more than info, since
        /// some of them print what they send
        #[arg(long, env = "KEYTURN_LOG", default_value = "info")]
        log: LogLevel,
    },
    /// Print the CustomResourceDefinitions as YAML
    Crds,
    /// Deploy to a docker host, verify it and report the result. The pod of a deploy Job runs this
    DeployHost,
    /// Print the script that runs on docker hosts, to install it there as the forced command of a key
    HostScript,
    /// Check an installation from inside the cluster: custom resources, leader, readiness
    Check(check::CheckArgs),
    /// Check from inside the cluster that an uninstallation would leave no rotation or deletion unfinished
    UninstallCheck(uninstall::UninstallArgs),
    /// Search images for secrets before they are shipped
    Audit(audit::AuditArgs),
    /// Report on SecretIncidents
    Incident(incident::IncidentArgs),
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    memory::withhold_panics();
    memory::keep_memory_small();
    if let Err(error) = memory::keep_memory_private() {
        eprintln!("keyturn: cannot keep the process' memory out of core dumps: {error}");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::parse();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("keyturn: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    match dispatch(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("keyturn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        Command::Controller { arguments, log } => {
            logging::start(log);
            if let Err(error) = runtime()?.block_on(run::run(*arguments)) {
                // Logged through tracing, so that this line is JSON like all others.
                tracing::error!(%error, "keyturn stops");
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Crds => print!("{}", api::render()?),
        Command::HostScript => print!("{}", runner::HOST_SCRIPT),
        Command::DeployHost => std::process::exit(runtime()?.block_on(runner::main())),
        Command::Check(args) => runtime()?.block_on(check::run(&args))?,
        Command::UninstallCheck(args) => runtime()?.block_on(uninstall::run(&args))?,
        Command::Audit(args) => return Ok(audit::run(&args)),
        Command::Incident(args) => runtime()?.block_on(incident::run(&args))?,
        Command::Version => println!("keyturn {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Creates the runtime with two worker threads: enough for work that waits on the network, and it keeps memory small on
/// machines with many cores.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
