//! Measures two replicas: the time until the second one acts after the leader was killed or stopped, and the writes of
//! a leader that was frozen while the second one took over.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::IfMissing;
use keyturn_aws_emulator::Call;

use crate::bench::{Bench, patience};
use crate::controller::{Controller, Program};
use crate::failure::{Result, within};
use crate::format::{Table, grouped, seconds};
use crate::objects::name;
use crate::ssm;
use crate::stage::{Meter, Stage};
use crate::statistics::{median, percentile};

/// Number of secrets whose rotation is under way when the leader is frozen.
const IN_WORK: usize = 20;
/// Number of the leader's Puts after which it is frozen, early in its work.
const PUTS_BEFORE_FROZEN: usize = 2;
/// Deadline for a takeover; the lease lasts 15 s.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(90);
/// Deadline for the work: two Puts for each secret under way, at one a second, after a takeover.
const WORK_PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Failover {
    /// Time from the event to the second replica's first Put, for a request made after the event.
    killed: Vec<Duration>,
    stopped: Vec<Duration>,
    frozen: Frozen,
}

/// A leader that was frozen in the middle of its work, and resumed when the second replica had finished that work.
struct Frozen {
    /// Length of the pause.
    lasted: Duration,
    /// Number of requests that change SSM sent after the leader was resumed.
    writes: usize,
}

/// The way in which a leader ends.
#[derive(Clone, Copy)]
enum End {
    Killed,
    ToldToStop,
}

/// Two replicas, the secrets that were not rotated yet, and the number of the next replica.
struct Pair<'a> {
    stage: Stage<'a>,
    leader: Controller,
    fresh: Vec<String>,
    replicas: usize,
}

pub(crate) async fn measure(bench: &Bench, rounds: usize) -> Result<Failover> {
    let count = 2 * rounds + IN_WORK;
    let mut pair = Pair::begin(bench, count).await?;
    let (mut killed, mut stopped) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        killed.push(pair.take_over(End::Killed).await?);
        stopped.push(pair.take_over(End::ToldToStop).await?);
    }
    bench.say("the other replica took over from leaders that were killed, and told to stop");
    let frozen = pair.freeze().await?;
    bench.say("a frozen leader was woken");
    Ok(Failover { killed, stopped, frozen })
}

impl<'a> Pair<'a> {
    async fn begin(bench: &'a Bench, count: usize) -> Result<Self> {
        let stage = Stage::open(bench).await?;
        stage.seed(count)?;
        let mut leader = stage.start(&program(), &replica(0), patience(0)).await?;
        stage.create(&mut leader, count, IfMissing::Stall, patience(count)).await?;
        stage.quiet(&mut leader, patience(count)).await?;
        Ok(Self { stage, leader, fresh: (0..count).map(name).collect(), replicas: 1 })
    }

    /// Starts the second replica, which waits for the lease.
    async fn second(&mut self) -> Result<Controller> {
        let name = replica(self.replicas);
        self.replicas += 1;
        self.stage.start_second(&program(), &name, patience(self.fresh.len())).await
    }

    /// Ends the leader and requests a rotation; returns the time until the second replica's first Put for it.
    async fn take_over(&mut self, end: End) -> Result<Duration> {
        let mut second = self.second().await?;
        let meter = Meter::start(&self.stage).await?;
        let secret = self.fresh.pop().unwrap_or_default();
        let leader = &mut self.leader;
        let at = Utc::now();
        match end {
            End::Killed => leader.kill().await?,
            End::ToldToStop => leader.signal("TERM").await?,
        }
        self.stage.bench.objects.request_rotation(&secret, "takeover").await?;
        let acted = self.first_put(&mut second, &meter, &secret).await?;
        std::mem::replace(&mut self.leader, second).ended().await?;
        Ok((acted - at).to_std().unwrap_or_default())
    }

    async fn first_put(&self, by: &mut Controller, meter: &Meter, secret: &str) -> Result<DateTime<Utc>> {
        let (stage, name) = (&self.stage, by.name.clone());
        let what = format!("a Put of {name} for {secret}");
        let first = within(TAKEOVER_PATIENCE, what, async {
            loop {
                let calls = meter.calls(stage);
                let mut puts = calls.iter().filter(|call| ssm::is_put(call) && call.access_key == name);
                if let Some(put) = puts.find(|call| call.path.contains(secret)) {
                    return Ok(put.at);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        by.during(first).await
    }

    /// Freezes the leader in the middle of its work, and resumes it when the second replica has finished that work.
    async fn freeze(mut self) -> Result<Frozen> {
        let mut second = self.second().await?;
        let (stage, meter) = (&self.stage, Meter::start(&self.stage).await?);
        let in_work: HashSet<String> = self.fresh.drain(..).collect();
        for secret in &in_work {
            stage.bench.objects.request_rotation(secret, "frozen").await?;
        }
        let begun = wait_for_calls(stage, &meter, "Puts of the leader", |calls| {
            calls.iter().filter(|call| ssm::is_put(call)).count() >= PUTS_BEFORE_FROZEN
        });
        self.leader.during(begun).await?;
        self.leader.signal("STOP").await?;
        let frozen_at = Utc::now();

        let done = wait_for_calls(stage, &meter, "the other replica to publish all", |calls| {
            let published: HashSet<&str> =
                calls.iter().filter_map(ssm::publication).map(|(name, _)| name).collect();
            in_work.iter().all(|secret| published.contains(secret.as_str()))
        });
        second.during(done).await?;
        let (awake, frozen_for) = (Meter::start(stage).await?, Utc::now() - frozen_at);
        self.leader.signal("CONT").await?;
        let leader = self.leader.name.clone();
        self.leader.ended().await?;
        let calls = awake.calls(stage);
        let writes = calls.iter().filter(|call| call.access_key == leader && ssm::is_write(call)).count();
        second.stop().await?;
        Ok(Frozen { lasted: frozen_for.max(TimeDelta::zero()).to_std().unwrap_or_default(), writes })
    }
}

/// Returns keyturn with its default settings but a short grace period, so that steps which wait for its end fit into
/// [`WORK_PATIENCE`].
fn program() -> Program {
    Program::keyturn(&["--grace=10s"])
}

fn replica(number: usize) -> String {
    format!("bench-{number}")
}

/// Waits until `are_so` holds for the calls since the meter was started.
async fn wait_for_calls(
    stage: &Stage<'_>,
    meter: &Meter,
    what: &str,
    are_so: impl Fn(&[Call]) -> bool,
) -> Result<()> {
    within(WORK_PATIENCE, what, async {
        while !are_so(&meter.calls(stage)) {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    })
    .await
}

pub(crate) fn costs(failover: &Failover) -> Table {
    let mut table = Table::new([
        "The leader",
        "Rounds",
        "Until the other one acts",
        "Longest",
        "Writes of the old leader",
    ]);
    for (what, times) in [("is killed", &failover.killed), ("is told to stop", &failover.stopped)] {
        let shown = |time: Option<Duration>| time.map_or_else(|| "–".to_owned(), seconds);
        table.row([
            what.to_owned(),
            grouped(times.len()),
            shown(median(times)),
            shown(percentile(times, 100)),
            "–".to_owned(),
        ]);
    }
    let Frozen { lasted, writes } = &failover.frozen;
    let what = format!("is frozen for {} and woken", seconds(*lasted));
    table.row([what, "1".to_owned(), "–".to_owned(), "–".to_owned(), grouped(*writes)]);
    table
}
