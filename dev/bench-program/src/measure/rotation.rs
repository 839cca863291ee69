//! Measures the requests for one rotation without hosts, from the user's request until the rotation is closed.

use std::time::Duration;

use keyturn_api::managed_secret::IfMissing;

use crate::api_server::is_write;
use crate::bench::{Bench, patience};
use crate::controller::{Controller, Program};
use crate::counts::Counts;
use crate::failure::Result;
use crate::format::{Table, grouped};
use crate::objects::name;
use crate::ssm;
use crate::stage::{Meter, Stage};

/// Number of secrets, of which one is rotated.
const FLEET: usize = 10;
/// Short times. A rotation closes when the grace period is over, which is 15 minutes by default; here too, three
/// listings fit into the grace period. Listings are never closer than 10 s.
const SHORT_TIMES: [&str; 4] =
    ["--grace=45s", "--inventory-interval=10s", "--first-rotation-delay=0s", "--deletion=5m"];
const ROTATION_PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Rotation {
    requests: Counts,
    calls: Counts,
}

pub(crate) async fn measure(bench: &Bench) -> Result<Rotation> {
    let stage = Stage::open(bench).await?;
    stage.seed(FLEET)?;
    let mut controller = stage.start(&Program::keyturn(&SHORT_TIMES), "bench-a", patience(0)).await?;
    stage.create(&mut controller, FLEET, IfMissing::Stall, patience(FLEET)).await?;
    stage.quiet(&mut controller, patience(FLEET)).await?;

    // The first rotation of an installation makes the key of its stamps.
    rotate(&stage, &mut controller, &name(1)).await?;
    let rotated = name(0);
    let meter = Meter::start(&stage).await?;
    rotate(&stage, &mut controller, &rotated).await?;
    let asked = meter.read(&stage).await?;
    controller.stop().await?;
    bench.say("a rotation without hosts was measured");
    Ok(Rotation { requests: asked.requests, calls: ssm::by_operation_for(&asked.calls, &rotated) })
}

/// Requests a rotation, and waits until it is closed and the controller is quiet.
async fn rotate(stage: &Stage<'_>, controller: &mut Controller, rotated: &str) -> Result<()> {
    let request = "measured";
    stage.bench.objects.request_rotation(rotated, request).await?;
    let closed = stage
        .board
        .wait(1, "rotated", ROTATION_PATIENCE, |name, said| name == rotated && said.is_closed(request));
    controller.during(closed).await?;
    stage.quiet(controller, patience(FLEET)).await.map(drop)
}

pub(crate) fn costs(rotation: &Rotation) -> Table {
    let Rotation { requests, calls } = rotation;
    let mut table = Table::new(["", "Number", "Which"]);
    let writes = requests.only(is_write);
    let reads = requests.only(|name| !is_write(name));
    let own = calls.only(|name| !name.contains("shared listing"));
    let rows =
        [("Writes to the API server", &writes), ("Reads from the API server", &reads), ("SSM calls", &own)];
    for (what, counts) in rows {
        table.row([what.to_owned(), grouped(counts.total()), counts.to_string()]);
    }
    let lists = calls.without(&own);
    table.row(["Pages of the shared listing".to_owned(), grouped(lists.total()), lists.to_string()]);
    table
}
