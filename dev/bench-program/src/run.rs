//! `keyturn-bench run`: selects the measurements, runs them in order and prints the page.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::api_server::ApiServer;
use crate::bench::Bench;
use crate::client;
use crate::failure::{Failure, Result};
use crate::format::{milliseconds_each, real};
use crate::machine;
use crate::measure::existing::{Existing, Ready};
use crate::measure::{budget, creation, due, existing, failover, fleet, rotation, without_budgets};
use crate::objects::Objects;
use crate::page::Page;
use crate::picture::{self, Line};

#[derive(Args)]
pub(crate) struct Arguments {
    /// The keyturn program, a release build
    #[arg(long, env = "KEYTURN", value_name = "FILE")]
    keyturn: PathBuf,
    /// Numbers of existing parameters to measure, for keyturn and the floor
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000", value_name = "N,…")]
    objects: Vec<usize>,
    /// Number of rounds of existing parameters and of restarts, of which the median is shown
    #[arg(long, default_value_t = 5, value_parser = at_least_one, value_name = "N")]
    rounds: usize,
    /// Number of times that a leader is killed and told to stop, of which the median is shown
    #[arg(long, default_value_t = 5, value_parser = at_least_one, value_name = "N")]
    failover_rounds: usize,
    /// Number of existing parameters at the default budgets
    #[arg(long, default_value_t = 1000, value_name = "N")]
    default_budget_objects: usize,
    /// Number of secrets to create at 3 Puts a second
    #[arg(long, default_value_t = 200, value_name = "N")]
    created: usize,
    /// Length of the idle time
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    idle: u64,
    /// Number of secrets that fall due within a minute
    #[arg(long, default_value_t = 1000, value_name = "N")]
    due: usize,
    /// Puts a second that SSM accepts in that measurement: 10 is AWS's higher throughput
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    due_puts_per_second: u32,
    /// Run only these measurements
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,…")]
    only: Vec<Measurement>,
    /// Write a chart of the cost of one object by number of objects to this SVG file
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Folder for the logs of the controllers
    #[arg(long, default_value_os_t = std::env::temp_dir().join("keyturn-bench"), value_name = "FOLDER")]
    logs: PathBuf,
}

/// A measurement that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Existing parameters until all are Ready, for keyturn and the floor
    Existing,
    /// A restart, and a time without work, at the largest number of objects
    Fleet,
    /// Existing parameters at the default budgets
    DefaultBudget,
    /// Creation at 3 Puts a second
    Creation,
    /// One rotation without hosts
    Rotation,
    /// Many secrets that fall due within a minute
    Due,
    /// Two replicas: the leader is killed, stopped or frozen
    Failover,
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "must be a number above zero".to_owned())
}

impl Arguments {
    fn wants(&self, what: Measurement) -> bool {
        self.only.is_empty() || self.only.contains(&what)
    }

    /// Returns the numbers of objects in ascending order.
    fn numbers(&self) -> Vec<usize> {
        let mut numbers = self.objects.clone();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// Measures, removes all objects, and prints the page. The exit code is 1 where a measurement failed.
pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut page = Page::default();
    page.paragraph(&machine::description());
    let (client, own) = client::connect().await?;
    let bench = Bench {
        objects: Objects::new(client.clone()),
        api_server: ApiServer::new(client, own),
        keyturn: arguments.keyturn.clone(),
        logs: arguments.logs.clone(),
        began: Instant::now(),
    };
    std::fs::create_dir_all(&bench.logs).map_err(Failure::io("make the folder for logs"))?;
    bench.objects.no_other_keyturn().await?;
    let measured = tokio::select! {
        measured = measure(&bench, arguments, &mut page) => measured,
        interrupted = interrupted() => interrupted,
    };
    // The controllers were dropped with their measurements and are dead, so nobody sets a finalizer again.
    let removed = bench.objects.remove().await;
    measured?;
    println!("{}", page.text().trim_end());
    removed?;
    Ok(if page.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for SIGINT or SIGTERM.
async fn interrupted() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate()).map_err(Failure::io("listen for SIGTERM"))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    Err(Failure::Unexpected("interrupted: the objects are removed, and nothing is printed".to_owned()))
}

async fn measure(bench: &Bench, arguments: &Arguments, page: &mut Page) -> Result<()> {
    bench.objects.prepare().await?;
    let ready = existing_parameters(bench, arguments, page).await;
    if arguments.wants(Measurement::Fleet) {
        restart_and_idle(bench, arguments, page, ready).await;
    }
    if arguments.wants(Measurement::DefaultBudget) {
        let measured = budget::measure(bench, arguments.default_budget_objects).await;
        page.section(
            "Existing parameters at the default budgets",
            BUDGET,
            measured.map(|m| budget::costs(&m)),
        );
    }
    if arguments.wants(Measurement::Creation) {
        let measured = creation::measure(bench, arguments.created).await;
        page.section("Creation at 3 Puts a second", CREATION, measured.map(|m| creation::costs(&m)));
    }
    if arguments.wants(Measurement::Rotation) {
        let measured = rotation::measure(bench).await;
        page.section("A rotation without hosts", ROTATION, measured.map(|m| rotation::costs(&m)));
    }
    if arguments.wants(Measurement::Due) {
        let measured = due::measure(bench, arguments.due, arguments.due_puts_per_second).await;
        page.section("Due within one minute", DUE, measured.map(|m| due::costs(&m)));
    }
    if arguments.wants(Measurement::Failover) {
        let measured = failover::measure(bench, arguments.failover_rounds).await;
        page.section("Failover", FAILOVER, measured.map(|m| failover::costs(&m)));
    }
    Ok(())
}

/// Returns the largest fleet that keyturn made Ready, for the measurements that need one.
async fn existing_parameters<'a>(
    bench: &'a Bench,
    arguments: &Arguments,
    page: &mut Page,
) -> Option<Ready<'a>> {
    if !arguments.wants(Measurement::Existing) {
        return None;
    }
    let (numbers, keep) = (arguments.numbers(), arguments.wants(Measurement::Fleet));
    let (mut all, mut failures, mut ready) = (Vec::new(), Vec::new(), None);
    for &count in &numbers {
        let keep = keep && Some(&count) == numbers.last();
        match existing::measure(bench, count, arguments.rounds, keep).await {
            Ok((measured, kept)) => {
                all.push(measured);
                ready = kept;
            }
            Err(error) => failures.push(error),
        }
    }
    page.section("Existing parameters", EXISTING, Ok(existing::costs(&all)));
    failures.into_iter().for_each(|error| page.figures::<String>(Err(error)));
    page.paragraph(EXISTING_REQUESTS);
    page.figures(Ok(existing::requests(&all)));
    if let Some(Err(error)) = arguments.picture.as_ref().map(|file| draw(file, &all)) {
        page.figures::<String>(Err(error));
    }
    ready
}

/// Measures the Ready fleet. If no fleet became Ready before, this is not retried: that attempt took until its
/// deadline.
async fn restart_and_idle(bench: &Bench, arguments: &Arguments, page: &mut Page, ready: Option<Ready<'_>>) {
    let ready = match ready {
        Some(ready) => Ok(ready),
        None if arguments.wants(Measurement::Existing) => {
            Err(Failure::Unexpected("the objects did not become Ready".to_owned()))
        }
        None => {
            let largest = arguments.numbers().last().copied().unwrap_or_default();
            existing::one(bench, &without_budgets(), largest).await.map(|(_, ready)| ready)
        }
    };
    let measured = match ready {
        Ok(ready) => fleet::measure(ready, arguments.rounds, Duration::from_secs(arguments.idle)).await,
        Err(error) => Err(error),
    };
    match measured {
        Ok(measured) => {
            page.section("Restart", RESTART, Ok(fleet::restarts(&measured)));
            page.section("Idle", IDLE, Ok(fleet::idle_costs(&measured)));
        }
        Err(error) => page.section::<String>("Restart and idle", RESTART, Err(error)),
    }
}

/// Draws the measured costs; writes no file if nothing was measured.
fn draw(file: &Path, all: &[Existing]) -> Result<()> {
    let points = |cpu: fn(&Existing) -> Duration| {
        let point =
            |existing: &Existing| (real(existing.count), milliseconds_each(cpu(existing), existing.count));
        all.iter().map(point).collect()
    };
    let lines = [
        Line { name: "keyturn", color: "#c0392b", points: points(|all| Existing::cpu(&all.keyturn)) },
        Line { name: "floor", color: "#2c3e50", points: points(|all| Existing::cpu(&all.floor)) },
    ];
    let Some(svg) = picture::svg("Processor time for each object, until all are Ready", &lines) else {
        return Ok(());
    };
    std::fs::write(file, svg).map_err(Failure::io(format!("write {}", file.display())))
}

const EXISTING: &str = "\
The parameters are 45 days old, and their ManagedSecrets are created, 32 requests at a time. The time runs from the first \
request until the last object is seen to be Ready. Budgets for SSM are off (`--puts-per-second=1000`, the most that keyturn \
takes). Times and processor times are medians of the rounds, memory is the largest peak.";

const EXISTING_REQUESTS: &str = "\
Requests in the last round until the controller was quiet: it sent no request for 3 s and used less than a tenth of one \
processor. Here and below, watches, the lease and the requests of the benchmark itself are left out.";

const RESTART: &str = "\
The controller is told to stop, and a new process is started. The time runs from its start until it is quiet, and is exact \
to half a second. Times and processor times are medians of the rounds, memory is the largest peak; requests and calls are \
those of the last round.";

const IDLE: &str = "\
All objects are Ready, and nothing happens. The calls of a day are those of the listings, with the pages that the restart has \
asked for and the time between two that keyturn keeps to, and of whatever else was called meanwhile.";

const BUDGET: &str = "\
The same with keyturn as it is shipped: 2 DescribeParameters a second, and 10 reads. The column *Pages alone* is the time of \
the shared listing at that rate.";

const CREATION: &str = "\
The parameters do not exist. SSM takes 3 Puts a second, AWS's default quota, and refuses more; keyturn runs with \
`--puts-per-second=3`.";

const ROTATION: &str = "\
One of 10 secrets is rotated on request, with a grace of 45 s and a listing every 10 s (15 and 5 minutes as shipped). Counted \
from the request until the rotation is closed and keyturn is quiet. Another one was rotated before: the first rotation of an \
installation makes the key of its stamps besides.";

const DUE: &str = "\
The parameters reach the age of 90 days one after another within a minute. Each time runs from then until the new value is \
published. SSM refuses Puts beyond the quota.";

const FAILOVER: &str = "\
Two replicas with the chart's times (a lease of 15 s), but a grace of 10 s. A rotation is requested as soon as the leader is \
killed (SIGKILL) or told to stop (SIGTERM); the time runs until the other replica's first Put for it. Another leader is \
frozen (SIGSTOP) in the middle of 20 rotations and woken when the other replica has published all of them; the writes are \
the requests that change SSM, sent by the old leader after it was woken.";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(more: &[&str]) -> Arguments {
        let base = ["keyturn-bench", "--keyturn=keyturn"];
        Cli::try_parse_from(base.iter().chain(more))
            .map(|cli| cli.arguments)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn the_largest_number_comes_last() {
        assert_eq!(parse(&["--objects=10000,100,100"]).numbers(), [100, 10_000]);
    }

    #[test]
    fn everything_is_measured_unless_it_is_named() {
        assert!(parse(&[]).wants(Measurement::Failover));
        let arguments = parse(&["--only=due,default-budget"]);
        assert!(arguments.wants(Measurement::Due) && arguments.wants(Measurement::DefaultBudget));
        assert!(!arguments.wants(Measurement::Existing));
    }
}
