//! Measures the creation of parameters at a quota of three Puts a second. The ideal is one Put and one value for each.

use std::time::Duration;

use keyturn_api::managed_secret::IfMissing;

use crate::bench::{Bench, patience};
use crate::controller::Program;
use crate::counts::Counts;
use crate::failure::Result;
use crate::format::{Table, grouped, mebibytes, real, seconds, times};
use crate::objects::folder;
use crate::ssm::{self, REGION};
use crate::stage::{Meter, Stage};

/// AWS's default quota for Puts.
const PUTS_PER_SECOND: u32 = 3;

pub(crate) struct Creation {
    count: usize,
    ready: Duration,
    cpu: Duration,
    /// Peak memory, in KiB.
    peak: u64,
    puts: usize,
    refused: usize,
    /// Number of parameters that only ever had one version.
    with_one_value: usize,
    requests: Counts,
    calls: Counts,
}

pub(crate) async fn measure(bench: &Bench, count: usize) -> Result<Creation> {
    let stage = Stage::open(bench).await?;
    ssm::limit_puts(&stage.ssm, PUTS_PER_SECOND);
    let rate = format!("--puts-per-second={PUTS_PER_SECOND}");
    let program = Program::keyturn(&[rate.as_str()]);
    let mut controller = stage.start(&program, "bench-a", patience(0)).await?;
    let (meter, before) = (Meter::start(&stage).await?, controller.usage()?);
    let longest = patience(count) + ideal(count) * 10;
    let ready = stage.create(&mut controller, count, IfMissing::Create, longest).await?;
    let (after, asked) = (controller.usage()?, meter.read(&stage).await?);
    controller.stop().await?;
    bench.say(&format!("{} created: {}", grouped(count), seconds(ready)));
    let versions = stage.ssm.versions(REGION, &folder());
    Ok(Creation {
        count,
        ready,
        cpu: after.cpu.saturating_sub(before.cpu),
        peak: after.peak,
        puts: asked.calls.iter().filter(|call| ssm::is_put(call)).count(),
        refused: ssm::throttled_puts(&asked.calls),
        with_one_value: versions.values().filter(|&&number| number == 1).count(),
        requests: asked.requests,
        calls: ssm::by_operation(&asked.calls),
    })
}

/// Returns the time that one Put for each object takes at the quota's rate.
fn ideal(count: usize) -> Duration {
    Duration::from_secs_f64(real(count) / f64::from(PUTS_PER_SECOND))
}

pub(crate) fn costs(creation: &Creation) -> Table {
    let header = [
        "Objects",
        "All Ready",
        "One Put each",
        "Ratio",
        "Puts",
        "Refused",
        "Parameters with one value",
        "CPU",
        "Peak memory",
        "API server",
        "SSM",
    ];
    let mut table = Table::new(header);
    let ideal = ideal(creation.count);
    table.row([
        grouped(creation.count),
        seconds(creation.ready),
        seconds(ideal),
        times(creation.ready, ideal),
        grouped(creation.puts),
        grouped(creation.refused),
        grouped(creation.with_one_value),
        seconds(creation.cpu),
        mebibytes(creation.peak),
        creation.requests.to_string(),
        creation.calls.to_string(),
    ]);
    table
}
