//! Measures the requests for one rotation without hosts, from the user's request until the rotation is closed.

use std::time::Duration;

use keyturn_api::managed_secret::IfMissing;

use crate::api_server::is_write;
use crate::bench::{Bench, patience};
use crate::controller::Program;
use crate::counts::Counts;
use crate::failure::Result;
use crate::format::{Table, grouped};
use crate::objects::name;
use crate::ssm;
use crate::stage::{Meter, Stage};

/// Number of secrets, of which one is rotated.
const FLEET: usize = 10;
/// Short times. A rotation closes when the grace is over, which is 15 minutes by default; here too, three listings fit
/// into the grace.
const SHORT_TIMES: [&str; 4] =
    ["--grace=6s", "--inventory-interval=2s", "--first-rotation-delay=0s", "--deletion=45s"];
const ROTATION_PATIENCE: Duration = Duration::from_secs(120);

pub struct Rotation {
    requests: Counts,
    calls: Counts,
}

pub async fn measure(bench: &Bench) -> Result<Rotation> {
    let stage = Stage::open(bench).await?;
    stage.seed(FLEET)?;
    let mut controller = stage.start(&Program::keyturn(&SHORT_TIMES), "bench-a", patience(0)).await?;
    stage.create(&mut controller, FLEET, IfMissing::Stall, patience(FLEET)).await?;
    stage.quiet(&mut controller, patience(FLEET)).await?;

    let (rotated, request) = (name(0), "measured");
    let meter = Meter::start(&stage).await?;
    bench.objects.request_rotation(&rotated, request).await?;
    let closed = stage
        .board
        .wait(1, "rotated", ROTATION_PATIENCE, |name, said| name == rotated && said.is_closed(request));
    controller.during(closed).await?;
    stage.quiet(&mut controller, patience(FLEET)).await?;
    let asked = meter.read(&stage).await?;
    controller.stop().await?;
    bench.say("a rotation without hosts was measured");
    Ok(Rotation { requests: asked.requests, calls: ssm::by_operation_for(&asked.calls, &rotated) })
}

pub fn costs(rotation: &Rotation) -> Table {
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
