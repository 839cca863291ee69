//! Measures ManagedSecrets that are created for existing parameters: the time until all are Ready, for keyturn and the
//! floor.

use std::time::Duration;

use keyturn_api::managed_secret::IfMissing;

use super::without_budgets;
use crate::bench::{Bench, patience};
use crate::controller::{Controller, Program};
use crate::counts::Counts;
use crate::failure::Result;
use crate::format::{Table, decimal, each, grouped, mebibytes, real, seconds, times};
use crate::ssm;
use crate::stage::{Meter, Stage};
use crate::statistics::median;

/// The cost of one round.
pub(crate) struct Round {
    /// Time from the first POST until the last object was Ready.
    pub ready: Duration,
    /// Processor time until all objects were Ready; the next field is the processor time until the controller was
    /// quiet.
    pub cpu: Duration,
    pub cpu_until_quiet: Duration,
    /// Peak memory, in KiB.
    pub peak: u64,
    pub requests: Counts,
    pub calls: Counts,
}

/// ManagedSecrets that are Ready, with the controller that made them Ready, which is still running.
pub(crate) struct Ready<'a> {
    pub stage: Stage<'a>,
    pub controller: Controller,
    pub count: usize,
}

/// All rounds with this number of objects.
pub(crate) struct Existing {
    pub count: usize,
    pub keyturn: Vec<Round>,
    pub floor: Vec<Round>,
}

impl Existing {
    pub(crate) fn ready(rounds: &[Round]) -> Duration {
        median(&rounds.iter().map(|round| round.ready).collect::<Vec<_>>()).unwrap_or_default()
    }

    pub(crate) fn cpu(rounds: &[Round]) -> Duration {
        median(&rounds.iter().map(|round| round.cpu).collect::<Vec<_>>()).unwrap_or_default()
    }

    fn cpu_until_quiet(rounds: &[Round]) -> Duration {
        median(&rounds.iter().map(|round| round.cpu_until_quiet).collect::<Vec<_>>()).unwrap_or_default()
    }

    fn peak(rounds: &[Round]) -> u64 {
        rounds.iter().map(|round| round.peak).max().unwrap_or_default()
    }
}

/// Measures the floor and keyturn alternately. With `keep`, the last round's keyturn is left running.
pub(crate) async fn measure<'a>(
    bench: &'a Bench,
    count: usize,
    rounds: usize,
    keep: bool,
) -> Result<(Existing, Option<Ready<'a>>)> {
    let (mut existing, mut kept) = (Existing { count, keyturn: Vec::new(), floor: Vec::new() }, None);
    for number in 1..=rounds {
        let (round, floor) = one(bench, &Program::Floor, count).await?;
        floor.controller.stop().await?;
        drop(floor.stage);
        bench.say(&format!(
            "{} existing, the floor, round {number}: {}",
            grouped(count),
            seconds(round.ready)
        ));
        existing.floor.push(round);

        let (round, keyturn) = one(bench, &without_budgets(), count).await?;
        bench.say(&format!("{} existing, keyturn, round {number}: {}", grouped(count), seconds(round.ready)));
        existing.keyturn.push(round);
        if keep && number == rounds {
            kept = Some(keyturn);
        } else {
            keyturn.controller.stop().await?;
        }
    }
    Ok((existing, kept))
}

/// Measures one round, and leaves the controller running.
pub(crate) async fn one<'a>(bench: &'a Bench, program: &Program, count: usize) -> Result<(Round, Ready<'a>)> {
    let (stage, mut controller) = begin(bench, program, count).await?;
    let round = round(&stage, &mut controller, count, patience(count)).await?;
    Ok((round, Ready { stage, controller, count }))
}

/// Creates the parameters, and starts the controller.
pub(crate) async fn begin<'a>(
    bench: &'a Bench,
    program: &Program,
    count: usize,
) -> Result<(Stage<'a>, Controller)> {
    let stage = Stage::open(bench).await?;
    stage.seed(count)?;
    let controller = stage.start(program, "bench-a", patience(0)).await?;
    Ok((stage, controller))
}

/// Creates the ManagedSecrets, and waits until all are Ready and the controller is quiet.
pub(crate) async fn round(
    stage: &Stage<'_>,
    controller: &mut Controller,
    count: usize,
    patience: Duration,
) -> Result<Round> {
    let (meter, before) = (Meter::start(stage).await?, controller.usage()?);
    let ready = stage.create(controller, count, IfMissing::Stall, patience).await?;
    let at_ready = controller.usage()?;
    stage.quiet(controller, patience).await?;
    let (at_end, asked) = (controller.usage()?, meter.read(stage).await?);
    Ok(Round {
        ready,
        cpu: at_ready.cpu.saturating_sub(before.cpu),
        cpu_until_quiet: at_end.cpu.saturating_sub(before.cpu),
        peak: at_end.peak,
        requests: asked.requests,
        calls: ssm::by_operation(&asked.calls),
    })
}

/// Returns a table of time, processor time and memory.
pub(crate) fn costs(all: &[Existing]) -> Table {
    let mut table = Table::new([
        "Objects",
        "Rounds",
        "All Ready",
        "Floor",
        "Ratio",
        "CPU",
        "Floor's CPU",
        "CPU until quiet",
        "CPU an object",
        "Floor's CPU an object",
        "Peak memory",
        "Floor's peak memory",
    ]);
    for existing in all {
        let Existing { count, keyturn, floor } = existing;
        let (ready, ready_floor) = (Existing::ready(keyturn), Existing::ready(floor));
        table.row([
            grouped(*count),
            grouped(keyturn.len()),
            seconds(ready),
            seconds(ready_floor),
            times(ready, ready_floor),
            seconds(Existing::cpu(keyturn)),
            seconds(Existing::cpu(floor)),
            seconds(Existing::cpu_until_quiet(keyturn)),
            each(Existing::cpu(keyturn), *count),
            each(Existing::cpu(floor), *count),
            mebibytes(Existing::peak(keyturn)),
            mebibytes(Existing::peak(floor)),
        ]);
    }
    table
}

/// Returns a table of the requests in the last round.
pub(crate) fn requests(all: &[Existing]) -> Table {
    let mut table = Table::new(["Objects", "", "Requests an object", "API server", "SSM"]);
    for existing in all {
        for (of, rounds) in [("keyturn", &existing.keyturn), ("floor", &existing.floor)] {
            let Some(Round { requests, calls, .. }) = rounds.last() else { continue };
            let all = real(requests.total() + calls.total());
            table.row([
                grouped(existing.count),
                of.to_owned(),
                decimal(all / real(existing.count).max(1.0)),
                requests.to_string(),
                calls.to_string(),
            ]);
        }
    }
    table
}
