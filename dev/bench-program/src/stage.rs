//! The environment of one measurement: its own SSM emulator, a watch of the objects, and counters of requests.

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use keyturn_api::managed_secret::IfMissing;
use keyturn_aws_emulator::{Call, Emulator};

use crate::bench::Bench;
use crate::board::Board;
use crate::controller::{Controller, Program};
use crate::counts::Counts;
use crate::failure::{Failure, Result, within};
use crate::objects::{self, PERIOD_DAYS};
use crate::ssm;

/// Time without requests after which a controller counts as quiet. It is longer than the 2 s for which keyturn collects
/// changes before it lists SSM again.
pub(crate) const CALM: Duration = Duration::from_secs(3);
/// Time between two samples. Each sample reads all metrics of the API server, so they are not taken more often.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// Share of one processor above which a controller does not count as quiet.
const BUSY: f64 = 0.1;
const LEAD_PATIENCE: Duration = Duration::from_secs(60);
const READ_LEASE_EVERY: Duration = Duration::from_millis(50);

pub(crate) struct Stage<'a> {
    pub bench: &'a Bench,
    pub ssm: Emulator,
    pub board: Board,
}

impl<'a> Stage<'a> {
    /// Deletes the objects of the previous measurement, and starts an empty SSM.
    pub(crate) async fn open(bench: &'a Bench) -> Result<Self> {
        bench.objects.clear().await?;
        let board = Board::open(bench.objects.secrets()).await?;
        Ok(Self { bench, ssm: ssm::start().await?, board })
    }

    /// Creates the parameters of `count` secrets in SSM, 45 days old, so that no rotation is due for weeks.
    pub(crate) fn seed(&self, count: usize) -> Result<()> {
        let at = Utc::now() - TimeDelta::days(i64::from(PERIOD_DAYS) / 2);
        (0..count).try_for_each(|number| ssm::seed(&self.ssm, &objects::name(number), at))
    }

    /// Starts a controller, and waits until it leads and is quiet.
    pub(crate) async fn start(
        &self,
        program: &Program,
        name: &str,
        patience: Duration,
    ) -> Result<Controller> {
        let mut controller = Controller::start(self.bench, program, &self.ssm, name)?;
        if program.is_keyturn() {
            controller.during(self.leads(name)).await?;
        }
        self.quiet(&mut controller, patience).await?;
        Ok(controller)
    }

    /// Starts a second replica, which does not lead, and waits until it has listed the objects.
    pub(crate) async fn start_second(
        &self,
        program: &Program,
        name: &str,
        patience: Duration,
    ) -> Result<Controller> {
        let mut controller = Controller::start(self.bench, program, &self.ssm, name)?;
        self.quiet(&mut controller, patience).await?;
        Ok(controller)
    }

    /// Waits until the replica with this name leads.
    pub(crate) async fn leads(&self, name: &str) -> Result<()> {
        // The identity is the name followed by a random part, which differs for each process.
        let identity = format!("{name}_");
        within(LEAD_PATIENCE, format!("{name} to lead"), async {
            while !self.bench.objects.leader().await?.starts_with(&identity) {
                tokio::time::sleep(READ_LEASE_EVERY).await;
            }
            Ok(())
        })
        .await
    }

    /// Waits until the controller was quiet for [`CALM`]; returns the time at which that began.
    pub(crate) async fn quiet(&self, controller: &mut Controller, patience: Duration) -> Result<Instant> {
        within(patience, format!("{} to be quiet", controller.name), async {
            let mut before = self.sample(controller).await?;
            let mut since = before.at;
            loop {
                let pause = async {
                    tokio::time::sleep(SAMPLE_EVERY).await;
                    Ok(())
                };
                controller.during(pause).await?;
                let now = self.sample(controller).await?;
                if now.is_busy_since(&before) {
                    since = now.at;
                } else if now.at - since >= CALM {
                    return Ok(since);
                }
                before = now;
            }
        })
        .await
    }

    async fn sample(&self, controller: &Controller) -> Result<Sample> {
        let requests = self.bench.api_server.requests().await?.total();
        let cpu = controller.usage()?.cpu;
        Ok(Sample { at: Instant::now(), requests, calls: self.ssm.last_call(), cpu })
    }

    /// Creates `count` objects and waits until all are Ready; returns the time from the first request to the last Ready.
    pub(crate) async fn create(
        &self,
        controller: &mut Controller,
        count: usize,
        if_missing: IfMissing,
        patience: Duration,
    ) -> Result<Duration> {
        let began = Instant::now();
        let work = async {
            self.bench.objects.create(count, if_missing).await?;
            self.board.wait(count, "Ready", patience, |_, said| said.is_ready()).await
        };
        controller.during(work).await?;
        let last = self.board.last_ready();
        last.map(|last| last - began).ok_or_else(|| Failure::Unexpected("nothing was created".to_owned()))
    }
}

/// One sample of the counters.
struct Sample {
    at: Instant,
    requests: u64,
    calls: u64,
    cpu: Duration,
}

impl Sample {
    fn is_busy_since(&self, before: &Self) -> bool {
        let computed = self.cpu.saturating_sub(before.cpu);
        (self.requests, self.calls) != (before.requests, before.calls)
            || computed > (self.at - before.at).mul_f64(BUSY)
    }
}

/// Counts requests from the time at which it was started.
pub(crate) struct Meter {
    requests: Counts,
    last_call: u64,
}

/// Requests to the API server by verb and resource, and all requests to SSM.
pub(crate) struct Asked {
    pub requests: Counts,
    pub calls: Vec<Call>,
}

impl Meter {
    pub(crate) async fn start(stage: &Stage<'_>) -> Result<Self> {
        Ok(Self { requests: stage.bench.api_server.requests().await?, last_call: stage.ssm.last_call() })
    }

    pub(crate) async fn read(&self, stage: &Stage<'_>) -> Result<Asked> {
        let requests = stage.bench.api_server.requests().await?.without(&self.requests);
        Ok(Asked { requests, calls: self.calls(stage) })
    }

    /// Returns the requests to SSM alone, oldest first.
    pub(crate) fn calls(&self, stage: &Stage<'_>) -> Vec<Call> {
        ssm::calls_after(&stage.ssm, self.last_call)
    }
}
