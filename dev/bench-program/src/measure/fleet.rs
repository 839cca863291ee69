//! Measures a fleet that is Ready: the cost of a restart of the controller, and of a time without work.

use std::time::Duration;

use chrono::DateTime;
use keyturn_reconcile::parameter_store::inventory::Inventory;

use super::existing::Ready;
use super::without_budgets;
use crate::api_server::is_write;
use crate::bench::patience;
use crate::controller::{Controller, Program};
use crate::counts::Counts;
use crate::failure::Result;
use crate::format::{Table, decimal, grouped, mebibytes, real, seconds};
use crate::ssm;
use crate::stage::{Meter, Stage};
use crate::statistics::median;

const DAY: Duration = Duration::from_secs(86_400);
/// Default interval between two listings, if they have few pages.
const INTERVAL: Duration = Duration::from_secs(300);
const LISTING: &str = "DescribeParameters";

/// A restart, from the start of the new process until it was quiet.
struct Restart {
    quiet: Duration,
    cpu: Duration,
    /// Peak memory, in KiB.
    peak: u64,
    requests: Counts,
    calls: Counts,
}

/// A time without work.
pub(crate) struct Idle {
    lasted: Duration,
    cpu: Duration,
    requests: Counts,
    calls: Counts,
}

/// The figures of one fleet.
pub(crate) struct Fleet {
    count: usize,
    keyturn: Vec<Restart>,
    floor: Vec<Restart>,
    idle: Idle,
}

/// Restarts keyturn and the floor (the minimal controller of `floor.rs`) alternately, and then measures keyturn without
/// work for `idle_for`.
pub(crate) async fn measure(ready: Ready<'_>, rounds: usize, idle_for: Duration) -> Result<Fleet> {
    let Ready { stage, mut controller, count } = ready;
    let (mut of_keyturn, mut of_floor) = (Vec::new(), Vec::new());
    for number in 1..=rounds {
        // All objects are Ready, so the floor has nothing to write.
        for (program, restarts) in [(Program::Floor, &mut of_floor), (without_budgets(), &mut of_keyturn)] {
            controller.stop().await?;
            let restarted;
            (restarted, controller) = restart(&stage, &program, count).await?;
            let of = if program.is_keyturn() { "keyturn" } else { "the floor" };
            stage.bench.say(&format!("restart of {of}, round {number}: {}", seconds(restarted.quiet)));
            restarts.push(restarted);
        }
    }
    let idle = idle(&stage, &mut controller, idle_for).await?;
    controller.stop().await?;
    Ok(Fleet { count, keyturn: of_keyturn, floor: of_floor, idle })
}

async fn restart(stage: &Stage<'_>, program: &Program, count: usize) -> Result<(Restart, Controller)> {
    let meter = Meter::start(stage).await?;
    let mut controller = Controller::start(stage.bench, program, &stage.ssm, "bench-a")?;
    if program.is_keyturn() {
        controller.during(stage.leads("bench-a")).await?;
    }
    let quiet = stage.quiet(&mut controller, patience(count)).await?;
    let (usage, asked) = (controller.usage()?, meter.read(stage).await?);
    let restart = Restart {
        quiet: quiet - controller.started,
        cpu: usage.cpu,
        peak: usage.peak,
        requests: asked.requests,
        calls: ssm::by_operation(&asked.calls),
    };
    Ok((restart, controller))
}

async fn idle(stage: &Stage<'_>, controller: &mut Controller, lasts: Duration) -> Result<Idle> {
    stage.bench.say(&format!("idle for {}", seconds(lasts)));
    let (meter, before) = (Meter::start(stage).await?, controller.usage()?);
    let nothing = async {
        tokio::time::sleep(lasts).await;
        Ok(())
    };
    controller.during(nothing).await?;
    let (after, asked) = (controller.usage()?, meter.read(stage).await?);
    Ok(Idle {
        lasted: lasts,
        cpu: after.cpu.saturating_sub(before.cpu),
        requests: asked.requests,
        calls: ssm::by_operation(&asked.calls),
    })
}

pub(crate) fn restarts(fleet: &Fleet) -> Table {
    let header =
        ["Objects", "", "Rounds", "Until quiet", "CPU", "Peak memory", "Writes", "Puts", "API server", "SSM"];
    let mut table = Table::new(header);
    for (of, restarts) in [("keyturn", &fleet.keyturn), ("floor", &fleet.floor)] {
        let Some(last) = restarts.last() else { continue };
        let of_all = |time: fn(&Restart) -> Duration| {
            median(&restarts.iter().map(time).collect::<Vec<_>>()).unwrap_or_default()
        };
        table.row([
            grouped(fleet.count),
            of.to_owned(),
            grouped(restarts.len()),
            seconds(of_all(|restart| restart.quiet)),
            seconds(of_all(|restart| restart.cpu)),
            mebibytes(restarts.iter().map(|restart| restart.peak).max().unwrap_or_default()),
            grouped(last.requests.only(is_write).total()),
            grouped(last.calls.get("PutParameter")),
            last.requests.to_string(),
            last.calls.to_string(),
        ]);
    }
    table
}

pub(crate) fn idle_costs(fleet: &Fleet) -> Table {
    let header = [
        "Objects",
        "Idle for",
        "CPU",
        "Writes but the lease",
        "API server",
        "SSM",
        "Pages of a listing",
        "Time between two",
        "SSM calls an object and day",
    ];
    let mut table = Table::new(header);
    let Idle { lasted, cpu, requests, calls } = &fleet.idle;
    let pages = fleet.keyturn.last().map_or(0, |keyturn| keyturn.calls.get(LISTING));
    let (between, others) = (pause(fleet.count), calls.without(&calls.only(|name| name == LISTING)));
    let of_a_day = each_day(pages, between) + each_day(others.total(), *lasted);
    table.row([
        grouped(fleet.count),
        seconds(*lasted),
        seconds(*cpu),
        grouped(requests.only(is_write).total()),
        requests.to_string(),
        calls.to_string(),
        grouped(pages),
        seconds(between),
        decimal(of_a_day / real(fleet.count).max(1.0)),
    ]);
    table
}

/// Returns the time between two listings of this number of parameters, as keyturn itself calculates it.
fn pause(count: usize) -> Duration {
    let wanted = (0..count).map(|number| number.to_string()).collect();
    Inventory::new(DateTime::UNIX_EPOCH, wanted, Vec::new()).pause(INTERVAL)
}

/// Extrapolates a number of calls to a day.
fn each_day(number: u64, within: Duration) -> f64 {
    real(number) * DAY.as_secs_f64() / within.as_secs_f64().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_as_many_times_longer() {
        assert!((each_day(200, Duration::from_secs(300)) - 57_600.0).abs() < 1e-6);
    }
}
