//! The one program of keyturn: the controller, what runs inside its Jobs, and a few tools.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use keyturn::cli::{check, process};

#[derive(Parser)]
#[command(name = "keyturn", version, about = "Rotates the secrets a fleet of docker hosts runs on")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check an installation from inside the cluster: custom resources, leader, readiness
    Check(check::CheckArgs),
    /// Print the version
    Version,
}

fn main() -> ExitCode {
    process::keep_memory_small();
    if let Err(error) = process::keep_memory_private() {
        eprintln!("keyturn: cannot keep the process' memory out of core dumps: {error}");
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::parse();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("keyturn: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    match dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyturn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Check(args) => runtime()?.block_on(check::run(&args))?,
        Command::Version => println!("keyturn {}", env!("CARGO_PKG_VERSION")),
    }
    Ok(())
}

/// Two workers are plenty for work that waits on the network, and keep memory small on machines with many cores.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}
