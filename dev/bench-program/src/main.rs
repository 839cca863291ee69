//! `keyturn-bench` measures the cost of keyturn, and compares it to a floor: a controller with the same client library
//! that writes one status for each object and does nothing else. `make bench` runs it in the world.

mod api_server;
mod bench;
mod board;
mod client;
mod controller;
mod counts;
mod failure;
mod floor;
mod format;
mod machine;
mod measure;
mod objects;
mod page;
mod picture;
mod process;
mod run;
mod ssm;
mod stage;
mod statistics;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "keyturn-bench", version, about = "Measures what keyturn costs, beside a floor")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write one status for each ManagedSecret of a namespace, until SIGTERM
    Floor(floor::Arguments),
    /// Measure keyturn and the floor in the cluster of KUBECONFIG, and print a page of Markdown
    Run(Box<run::Arguments>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Floor(arguments) => floor::run(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Run(arguments) => run::run(&arguments).await,
    };
    ended.unwrap_or_else(|error| {
        eprintln!("keyturn-bench: {error}");
        ExitCode::FAILURE
    })
}
