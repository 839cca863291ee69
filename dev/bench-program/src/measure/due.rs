//! Measures many secrets that fall due within one minute: the time that each waits for its new value under a quota for
//! Puts.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::IfMissing;
use keyturn_aws_emulator::Call;

use crate::bench::{Bench, patience};
use crate::controller::{Controller, Program};
use crate::failure::{Result, within};
use crate::format::{Table, decimal, grouped, seconds};
use crate::objects::{PERIOD_DAYS, name};
use crate::ssm;
use crate::stage::{Meter, Stage};
use crate::statistics::{in_order, percentile};

/// Time over which the due times are spread.
const WITHIN: TimeDelta = TimeDelta::minutes(1);
/// A prime number: its multiples reach every number modulo the count, in another order than the order of creation.
const STRIDE: usize = 7919;
const LOOK: Duration = Duration::from_secs(1);

pub(crate) struct Due {
    count: usize,
    puts_per_second: u32,
    /// Time of each secret from its due time until its new value was published.
    waited: Vec<Duration>,
    /// Percentage of pairs of secrets that were published in the order of their due times.
    in_order: Option<f64>,
    puts: usize,
    refused: usize,
}

/// Due times by name of the secret.
type Deadlines = HashMap<String, DateTime<Utc>>;

pub(crate) async fn measure(bench: &Bench, count: usize, puts_per_second: u32) -> Result<Due> {
    let stage = Stage::open(bench).await?;
    ssm::limit_puts(&stage.ssm, puts_per_second);
    let rate = format!("--puts-per-second={puts_per_second}");
    let program = Program::keyturn(&[rate.as_str(), "--first-rotation-delay=0s"]);
    let mut controller = stage.start(&program, "bench-a", patience(0)).await?;
    let preparation = preparation(count);
    let deadlines = deadlines(count, Utc::now() + preparation);
    seed(&stage, &deadlines)?;
    let until_due = preparation.to_std().unwrap_or_default();
    stage.create(&mut controller, count, IfMissing::Stall, until_due).await?;
    bench.say(&format!("{} secrets fall due soon", grouped(count)));

    let meter = Meter::start(&stage).await?;
    let calls = all_published(&stage, &mut controller, &meter, &deadlines, puts_per_second).await?;
    controller.stop().await?;
    let due = figures(count, puts_per_second, &deadlines, &calls);
    bench.say(&format!("{} secrets that were due at once were published", grouped(count)));
    Ok(due)
}

/// Returns the time before the first due time, in which all secrets become Ready.
fn preparation(count: usize) -> TimeDelta {
    TimeDelta::seconds(60) + TimeDelta::milliseconds(300) * i32::try_from(count).unwrap_or(i32::MAX)
}

fn deadlines(count: usize, first: DateTime<Utc>) -> Deadlines {
    let step = WITHIN / i32::try_from(count.max(1)).unwrap_or(i32::MAX);
    let place = |number: usize| i32::try_from(number * STRIDE % count.max(1)).unwrap_or_default();
    (0..count).map(|number| (name(number), first + step * place(number))).collect()
}

/// Creates each parameter with an age that makes it due at its time.
fn seed(stage: &Stage<'_>, deadlines: &Deadlines) -> Result<()> {
    let period = TimeDelta::days(i64::from(PERIOD_DAYS));
    deadlines.iter().try_for_each(|(name, due)| ssm::seed(&stage.ssm, name, *due - period))
}

/// Waits until each secret has a new value; returns all calls until then.
async fn all_published(
    stage: &Stage<'_>,
    controller: &mut Controller,
    meter: &Meter,
    deadlines: &Deadlines,
    puts_per_second: u32,
) -> Result<Vec<Call>> {
    let last = deadlines.values().max().copied().unwrap_or_default();
    // Allows for two Puts each, at a third of the quota's rate.
    let puts = 6 * u32::try_from(deadlines.len()).unwrap_or(u32::MAX);
    let longest = (last - Utc::now()).to_std().unwrap_or_default()
        + patience(0)
        + Duration::from_secs(1) * puts / puts_per_second.max(1);
    let what = format!("{} secrets that are due to be published", deadlines.len());
    let published = within(longest, what, async {
        loop {
            let calls = meter.calls(stage);
            if published(&calls).len() == deadlines.len() {
                return Ok(calls);
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    controller.during(published).await
}

/// Returns the time of the first publication by name of the secret.
fn published(calls: &[Call]) -> HashMap<&str, DateTime<Utc>> {
    let mut published = HashMap::new();
    for (name, at) in calls.iter().filter_map(ssm::publication) {
        published.entry(name).or_insert(at);
    }
    published
}

fn figures(count: usize, puts_per_second: u32, deadlines: &Deadlines, calls: &[Call]) -> Due {
    let published = published(calls);
    let mut times: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        deadlines.iter().filter_map(|(name, due)| Some((*published.get(name.as_str())?, *due))).collect();
    times.sort_unstable();
    let due_times: Vec<DateTime<Utc>> = times.iter().map(|(_, due)| *due).collect();
    Due {
        count,
        puts_per_second,
        waited: times.iter().map(|(at, due)| (*at - *due).to_std().unwrap_or_default()).collect(),
        in_order: in_order(&due_times),
        puts: calls.iter().filter(|call| ssm::is_put(call)).count(),
        refused: ssm::throttled_puts(calls),
    }
}

pub(crate) fn costs(due: &Due) -> Table {
    let header = [
        "Due within a minute",
        "Puts a second",
        "p50 to published",
        "p99",
        "Longest",
        "Pairs in order of due time",
        "Puts",
        "Refused",
    ];
    let mut table = Table::new(header);
    let waited = |percent| percentile(&due.waited, percent).map_or_else(|| "–".to_owned(), seconds);
    table.row([
        grouped(due.count),
        grouped(due.puts_per_second),
        waited(50),
        waited(99),
        waited(100),
        due.in_order.map_or_else(|| "–".to_owned(), |share| format!("{} %", decimal(share))),
        grouped(due.puts),
        grouped(due.refused),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_has_a_due_time_of_its_own_within_the_minute() {
        let first = DateTime::UNIX_EPOCH;
        let deadlines = deadlines(1000, first);
        let mut times: Vec<_> = deadlines.values().copied().collect();
        times.sort_unstable();
        times.dedup();
        assert_eq!(times.len(), 1000);
        assert_eq!(times[0], first);
        assert!(times[999] < first + WITHIN);
        assert!(deadlines[&name(1)] > deadlines[&name(2)], "the order of creation is another one");
    }
}
