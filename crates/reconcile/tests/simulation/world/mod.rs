//! The simulated world: Parameter Store, the API server, docker hosts and time, all in one place behind a lock.
//!
//! It is deterministic and single-threaded, and its time does not advance on its own. Every call that changes
//! something outside passes through [`World::effect`], which counts it, applies the fault of the plan, and runs the
//! checks of the invariants.

pub(crate) mod cloudflare;
pub(crate) mod hosts;
pub(crate) mod kubernetes;
pub(crate) mod postgres;
pub(crate) mod ssm;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use chrono::{DateTime, TimeDelta, Utc};
use cloudflare::SimCloudflare;
use hosts::{SimHost, SimJob};
pub(crate) use keyturn_reconcile::links::Key;
use keyturn_reconcile::ports::{Clock, Leadership};
use keyturn_reconcile::source::{Random, RandomError};
use kubernetes::Cluster;
use postgres::SimPostgres;
use ssm::Ssm;

use crate::branches::Branches;
use crate::faults::{Fault, Kind, Plan};
use crate::invariants;

pub(crate) type At = DateTime<Utc>;

/// The grace of the simulated installation.
pub(crate) const GRACE: TimeDelta = TimeDelta::seconds(120);
/// Number of effects after which a pass counts as endless.
const MOST_EFFECTS_OF_A_PASS: usize = 100;
/// Longest time for which a deleted object may be held: the default of the product.
pub(crate) const DELETION_BOUND: TimeDelta = TimeDelta::hours(1);
/// Longest time for which a read may miss a change. The grace covers the life of a request and twice this.
pub(crate) const STALENESS: TimeDelta = TimeDelta::seconds(3);
/// Number of other effects before something happens that is `soon`.
const SOON: usize = 2;
/// Time for which a rejected call stays rejected, until somebody fixes the problem.
const MENDED_AFTER: TimeDelta = TimeDelta::minutes(30);

pub(crate) const CLUSTER: &str = "sim";
pub(crate) const REGION: &str = "us-east-1";
pub(crate) const NAMESPACE: &str = "prod";
/// The Secret with the SSH key of every host.
pub(crate) const KEY: &str = "key";
pub(crate) const STAGING: &str = "/keyturn/sim";

/// An action of a person at a given time.
pub(crate) struct Action {
    pub what: &'static str,
    pub when: When,
    pub run: fn(&mut State),
}

pub(crate) enum When {
    /// Seconds after the start.
    At(i64),
    /// Seconds after the previous action.
    Later(i64),
    /// As soon as this is true, even in the middle of a pass.
    Once(fn(&State) -> bool),
}

/// One effect that happened or was meant to.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub at: At,
    pub process: usize,
    pub kind: Kind,
    pub what: String,
    pub fault: Option<Fault>,
    /// True if reads of Parameter Store (first) or of objects (second) could miss a change at that moment.
    pub reads_may_lag: (bool, bool),
}

/// The knowledge that a request is based on, for judging it when it is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub process: usize,
    /// Number of the last change in Parameter Store that the sender may have seen, or made.
    pub seen: u64,
    /// Time of the reads that the request is based on.
    pub based_on: At,
    /// Number of effects up to then.
    pub after: usize,
}

type Apply = Box<dyn FnOnce(&mut State) + Send>;

/// A request that is still under way.
pub(crate) struct Late {
    /// The request is applied after this many other effects, or at the time `at`.
    pub after_effects: Option<usize>,
    pub at: At,
    pub what: String,
    apply: Apply,
}

/// A process that is paused before an effect.
pub(crate) struct Gate {
    pub what: String,
    after_effects: Option<usize>,
    pub at: At,
    pub open: bool,
}

/// The reads that are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lag {
    All,
    Listing,
    Histories,
}

impl Lag {
    fn of(fault: Fault) -> Option<Self> {
        match fault {
            Fault::StaleReads => Some(Self::All),
            Fault::StaleListing => Some(Self::Listing),
            Fault::StaleHistories => Some(Self::Histories),
            _ => None,
        }
    }
}

/// A bug planted between the controller and the world, to show that the checks can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Published versions carry no description.
    NoDescription,
    /// Writes of records and markers replace existing ones.
    CreateOverwrites,
    /// Creating something that exists reports success.
    CreateAlwaysSaysCreated,
    /// The controller believes that the grace is zero.
    NoGrace,
    /// Records are never stored, although the controller is told that they are.
    RecordsVanish,
    /// Listings below the staging path are empty.
    RecordsHidden,
    /// Every process believes that it leads, and no write of an object is refused because of its resourceVersion.
    NoFencing,
    /// Hosts count as proven without being asked.
    HostsAlwaysProven,
    /// The status shows the published value.
    LeakInStatus,
    /// The annotation's token is new in every pass.
    RequestNeverHandled,
    /// Lists of tokens are empty.
    TokensHidden,
    /// A deployment is started while another one runs.
    TwoDeploys,
}

pub(crate) struct State {
    pub now: At,
    pub start: At,
    pub plan: Plan,
    /// The runs that begin like this one.
    pub branches: Option<Arc<Mutex<Branches>>>,
    pub log: Vec<Logged>,
    /// The process that leads.
    pub leader: usize,
    pub crashed: BTreeSet<usize>,
    pub gates: BTreeMap<usize, Gate>,
    pub late: Vec<Late>,
    /// The kinds of calls that are rejected, and until when.
    rejecting: Vec<(Kind, At)>,
    pub ssm: Ssm,
    pub cluster: Cluster,
    pub hosts: BTreeMap<String, SimHost>,
    pub postgres: Option<SimPostgres>,
    pub cloudflare: Option<SimCloudflare>,
    pub jobs: Vec<SimJob>,
    pub script: VecDeque<Action>,
    pub last_action: At,
    /// The actions of people, each with the number of effects before it.
    pub story: Vec<(usize, &'static str)>,
    /// Time of the last event.
    pub last_activity: At,
    /// Number of effects before the current pass began.
    pub effects_before: usize,
    /// The objects that watches would report to the controller.
    pub touched: BTreeSet<Key>,
    pub violations: Vec<String>,
    pub sabotage: Option<Sabotage>,
    pub memory: invariants::Memory,
    draws: u64,
    /// By process: number of the last change in Parameter Store that it may have seen, or made, and the time of its
    /// reads.
    observed: BTreeMap<usize, (u64, At)>,
    pub started: BTreeMap<usize, At>,
}

impl State {
    pub(crate) fn new(plan: Plan, sabotage: Option<Sabotage>) -> Self {
        let start = DateTime::from_timestamp(1_772_323_200, 0).unwrap();
        Self {
            now: start,
            start,
            plan,
            branches: None,
            log: Vec::new(),
            leader: 0,
            crashed: BTreeSet::new(),
            gates: BTreeMap::new(),
            late: Vec::new(),
            rejecting: Vec::new(),
            ssm: Ssm::default(),
            cluster: Cluster::default(),
            hosts: BTreeMap::new(),
            postgres: None,
            cloudflare: None,
            jobs: Vec::new(),
            script: VecDeque::new(),
            last_action: start,
            story: Vec::new(),
            last_activity: start,
            effects_before: 0,
            touched: BTreeSet::new(),
            violations: Vec::new(),
            sabotage,
            memory: invariants::Memory::default(),
            draws: 0,
            observed: BTreeMap::new(),
            started: BTreeMap::new(),
        }
    }

    pub(crate) fn violate(&mut self, what: String) {
        invariants::check_of(&what);
        let at = (self.now - self.start).num_seconds();
        if self.violations.len() < 5 {
            self.violations
                .push(format!("{what} ({at} s, after effect {})", self.log.len().saturating_sub(1)));
        }
    }

    /// Returns what this process last saw of Parameter Store.
    pub(crate) fn sent(&self, process: usize) -> Sent {
        let (seen, based_on) = self.observed.get(&process).copied().unwrap_or((0, self.now));
        Sent { process, seen, based_on, after: self.log.len() }
    }

    /// Stops a pass that acts without end: otherwise no check would run.
    fn runs_away(&mut self) -> bool {
        let effects = self.log.len() - self.effects_before;
        if effects > MOST_EFFECTS_OF_A_PASS {
            self.violate(format!("I6: one pass has {effects} effects, and goes on"));
        }
        effects > MOST_EFFECTS_OF_A_PASS
    }

    /// Counts an effect and returns the fault that hits it.
    fn begin(&mut self, process: usize, kind: Kind, what: &str) -> Option<Fault> {
        let number = self.log.len();
        if let Some(branches) = &self.branches
            && let Some(fault) = branches.lock().unwrap().branch_off(number)
        {
            self.plan.0.push((number, fault));
        }
        let mut fault = self.plan.at(number).filter(|fault| fault.concerns(kind));
        if fault == Some(Fault::Rejected) {
            self.rejecting.push((kind, self.now + MENDED_AFTER));
        }
        if self.rejecting.iter().any(|(rejected, until)| *rejected == kind && self.now < *until) {
            fault = Some(Fault::Rejected);
        }
        // The status of an open incident changes again and again, with the time up to which CloudTrail was read; but a fault
        // changes the world, whatever it hits.
        if kind != Kind::IncidentStatus || fault.is_some() {
            self.last_activity = self.now;
        }
        invariants::sends(self, kind, what);
        let reads_may_lag = (self.ssm.may_lag(self.now), self.cluster.may_lag(self.now));
        self.log.push(Logged { at: self.now, process, kind, what: what.to_owned(), fault, reads_may_lag });
        if let Some(lag) = fault.and_then(Lag::of) {
            self.ssm.lag_behind_the_last_change(self.now, lag);
            if lag == Lag::All {
                self.cluster.lag_behind_the_last_change(self.now);
            }
        }
        if kind == Kind::Observe && !matches!(fault, Some(Fault::Refused | Fault::Rejected)) {
            let seen = self.ssm.visible(self.now);
            self.observed.insert(process, (seen, self.now));
        }
        self.count_down();
        fault
    }

    /// Counts down after an effect: whatever waits for other effects may be due.
    fn count_down(&mut self) {
        for gate in self.gates.values_mut().filter(|gate| !gate.open) {
            if let Some(left) = &mut gate.after_effects {
                *left = left.saturating_sub(1);
                gate.open = *left == 0;
            }
        }
        for late in &mut self.late {
            if let Some(left) = &mut late.after_effects {
                *left = left.saturating_sub(1);
            }
        }
        self.apply_late();
    }

    /// Applies what is due, lets people act, and checks the invariants.
    pub(crate) fn settle(&mut self) {
        let now = self.now;
        for gate in self.gates.values_mut().filter(|gate| gate.at <= now) {
            gate.open = true;
        }
        self.apply_late();
        self.run_jobs();
        while let Some(action) = self.script.pop_front() {
            let due = match action.when {
                When::At(seconds) => self.start + TimeDelta::seconds(seconds) <= now,
                When::Later(seconds) => self.last_action + TimeDelta::seconds(seconds) <= now,
                When::Once(holds) => holds(self),
            };
            if !due {
                self.script.push_front(action);
                break;
            }
            self.story.push((self.log.len(), action.what));
            (action.run)(self);
            self.last_action = now;
            self.last_activity = now;
        }
        invariants::always(self);
    }

    fn apply_late(&mut self) {
        let now = self.now;
        loop {
            let due = self.late.iter().position(|late| late.after_effects == Some(0) || late.at <= now);
            let Some(due) = due else { return };
            let late = self.late.remove(due);
            self.last_activity = now;
            (late.apply)(self);
        }
    }

    /// Returns the next moment at which something happens without the controller.
    pub(crate) fn next_moment(&self) -> Option<At> {
        let gates = self.gates.values().filter(|gate| !gate.open).map(|gate| gate.at);
        let late = self.late.iter().map(|late| late.at);
        let jobs = self.jobs.iter().filter_map(|job| job.next_at());
        let action = self.script.front().and_then(|action| match action.when {
            When::At(seconds) => Some(self.start + TimeDelta::seconds(seconds)),
            When::Later(seconds) => Some(self.last_action + TimeDelta::seconds(seconds)),
            When::Once(_) => None,
        });
        gates.chain(late).chain(jobs).chain(action).min().map(|at| at.max(self.now))
    }

    /// Applies the effects of a fault beyond the call that it hits.
    fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::CrashAndStatusEmptied | Fault::StatusEmptied => self.empty_every_status(),
            Fault::CrashAndStaleReads => {
                let at = self.now;
                self.ssm.lag_behind_the_last_change(at, Lag::All);
                self.cluster.lag_behind_the_last_change(at);
            }
            Fault::Evicted | Fault::EvictedAfterScript => {
                self.evict_the_youngest_job(fault == Fault::EvictedAfterScript);
            }
            _ => {}
        }
    }

    pub(crate) fn empty_every_status(&mut self) {
        invariants::status_is_emptied(self);
        self.cluster.empty_every_status(&mut self.touched);
    }
}

/// The world as one process of the controller reaches it.
#[derive(Clone)]
pub(crate) struct World {
    pub state: Arc<Mutex<State>>,
    pub process: usize,
}

/// Conversion of an effect's faults into the errors of a port.
pub(crate) trait Answer: Send {
    fn refused(what: &str) -> Self;
    fn rejected(what: &str) -> Self;
    fn no_answer(what: &str) -> Self;
}

impl World {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs one effect, or the fault that the plan sets for it.
    pub(crate) async fn effect<T, E, F>(&self, kind: Kind, what: String, apply: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: Answer + 'static,
        F: Fn(&mut State, Sent) -> Result<T, E> + Send + Clone + 'static,
    {
        if self.lock().runs_away() {
            return self.crash().await;
        }
        let (fault, sent) = {
            let mut state = self.lock();
            let fault = state.begin(self.process, kind, &what);
            (fault, state.sent(self.process))
        };
        let now = || {
            let mut state = self.lock();
            let outcome = apply(&mut state, sent);
            let written = state.ssm.sequence;
            state.settle();
            (outcome, written)
        };
        // The answer arrives, so the published version is known without another read.
        let heard = |(outcome, written): (Result<T, E>, u64)| {
            if outcome.is_ok() && kind == Kind::Publish {
                let mut state = self.lock();
                let known = state.observed.entry(self.process).or_insert((0, sent.based_on));
                known.0 = known.0.max(written);
            }
            outcome
        };
        let later = |after_effects: Option<usize>| {
            let mut state = self.lock();
            let at = (sent.based_on + GRACE - TimeDelta::seconds(1)).max(state.now);
            let apply = apply.clone();
            let apply: Apply = Box::new(move |state| drop(apply(state, sent)));
            state.late.push(Late { after_effects, at, what: what.clone(), apply });
        };
        match fault {
            None | Some(Fault::StaleReads | Fault::StaleListing | Fault::StaleHistories) => heard(now()),
            Some(Fault::CrashBefore) => self.crash().await,
            Some(fault @ (Fault::CrashAfter | Fault::CrashAndStatusEmptied | Fault::CrashAndStaleReads)) => {
                drop(now());
                self.lock().befall(fault);
                self.crash().await
            }
            Some(Fault::Refused) => Err(E::refused(&what)),
            Some(Fault::Rejected) => Err(E::rejected(&what)),
            Some(Fault::TimedOutNotApplied) => Err(E::no_answer(&what)),
            Some(Fault::TimedOutApplied) => {
                drop(now());
                Err(E::no_answer(&what))
            }
            Some(fault @ (Fault::AppliedSoon | Fault::AppliedLate)) => {
                later((fault == Fault::AppliedSoon).then_some(SOON));
                Err(E::no_answer(&what))
            }
            Some(Fault::Duplicated) => {
                drop(now());
                heard(now())
            }
            Some(fault @ (Fault::DuplicatedSoon | Fault::DuplicatedLate)) => {
                later((fault == Fault::DuplicatedSoon).then_some(SOON));
                heard(now())
            }
            Some(fault @ (Fault::ZombieSoon | Fault::ZombieLate)) => {
                self.pause(what, sent, (fault == Fault::ZombieSoon).then_some(SOON)).await;
                heard(now())
            }
            Some(fault @ (Fault::StatusEmptied | Fault::Evicted | Fault::EvictedAfterScript)) => {
                let outcome = heard(now());
                self.lock().befall(fault);
                outcome
            }
        }
    }

    /// Stops the process: the harness finds it dead at its next poll, and never polls it again.
    async fn crash<T>(&self) -> T {
        self.lock().crashed.insert(self.process);
        pending().await
    }

    /// Pauses the process: the harness starts another one, and polls this one again once its gate is open.
    async fn pause(&self, what: String, sent: Sent, after_effects: Option<usize>) {
        let process = self.process;
        {
            let mut state = self.lock();
            let at = (sent.based_on + GRACE - TimeDelta::seconds(1)).max(state.now);
            state.gates.insert(process, Gate { what, after_effects, at, open: false });
        }
        poll_fn(|_| {
            let mut state = self.lock();
            match state.gates.get(&process) {
                Some(gate) if !gate.open => Poll::Pending,
                _ => {
                    state.gates.remove(&process);
                    Poll::Ready(())
                }
            }
        })
        .await;
    }
}

impl Clock for World {
    fn now(&self) -> At {
        self.lock().now
    }
}

impl Leadership for World {
    fn is_leader(&self) -> bool {
        let state = self.lock();
        state.leader == self.process || state.sabotage == Some(Sabotage::NoFencing)
    }
}

impl Random for World {
    /// Fills the buffer with bytes that differ each time and are the same in every run.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError> {
        let mut state = self.lock();
        for byte in buffer {
            state.draws += 1;
            let mut mixed = state.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (mixed >> 56) as u8;
        }
        Ok(())
    }
}
