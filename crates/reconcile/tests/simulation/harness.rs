//! Runs a scenario under a plan of faults until nothing moves any more, and returns its end.
//!
//! The ports answer immediately, so a pass that is not ready after one poll was stopped by a fault: either it crashed
//! and is dropped with its controller, or it is a zombie, which is kept and polled again once its gate is open.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use chrono::TimeDelta;
use keyturn_reconcile::docker_host::{self, DockerHosts};
use keyturn_reconcile::managed_secret::{self, ManagedSecrets};
use keyturn_reconcile::objects::ObjectError;
use keyturn_reconcile::ports::Requeue;
use keyturn_reconcile::secret_incident::{self, SecretIncidents};
use keyturn_reconcile::settings::Settings;

use crate::branches::Branches;
use crate::faults::{Fault, Kind, Plan};
use crate::invariants;
use crate::scenarios::Scenario;
use crate::summary::Summary;
use crate::world::{At, CLUSTER, GRACE, Key, Logged, NAMESPACE, REGION, Sabotage, State, World};

/// The time without events after which a run is over: it is longer than every wait of the controller.
const QUIET: TimeDelta = TimeDelta::minutes(150);
/// The time by which a run must have come to rest.
const LONGEST: TimeDelta = TimeDelta::hours(60);
const MOST_PASSES: usize = 700;
/// The wait before the first rotation of an adopted value.
pub(crate) const FIRST_ROTATION_DELAY: TimeDelta = TimeDelta::minutes(2);
/// The longest wait for a person's decision. The waits grow up to this while nothing happens.
const LONGEST_POLL: TimeDelta = TimeDelta::hours(1);
/// An object that asks for a pass sooner than this, more than `MOST_HASTY_LOOKS` times in a row while nothing happens,
/// would never stop asking.
const HASTE: TimeDelta = TimeDelta::seconds(5);
const MOST_HASTY_LOOKS: u32 = 10;

type Pass = Pin<Box<dyn Future<Output = Result<Requeue, ObjectError>>>>;

/// The events that start the controller's passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attention {
    /// Watches report every change.
    Watches,
    /// Every event is missed: only the times at which passes ask to be run again count.
    TimesOnly,
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Watches => "watches",
            Self::TimesOnly => "times",
        })
    }
}

struct Process {
    id: usize,
    secrets: Arc<ManagedSecrets>,
    hosts: Arc<DockerHosts>,
    incidents: Arc<SecretIncidents>,
}

fn settings(sabotage: Option<Sabotage>) -> Settings {
    let mut settings = Settings::new(CLUSTER, REGION);
    settings.grace = if sabotage == Some(Sabotage::NoGrace) { TimeDelta::zero() } else { GRACE };
    settings.first_rotation_delay = FIRST_ROTATION_DELAY;
    settings.backlog_spread = TimeDelta::zero();
    settings.backoff_initial = TimeDelta::seconds(10);
    settings.backoff_max = TimeDelta::minutes(5);
    settings.coalesce = TimeDelta::seconds(5);
    settings
}

impl Process {
    fn start(world: &Arc<Mutex<State>>, id: usize, sabotage: Option<Sabotage>) -> Self {
        {
            let mut state = world.lock().unwrap();
            state.leader = id;
            let now = state.now;
            state.started.insert(id, now);
        }
        let world = World { state: world.clone(), process: id };
        let port = Arc::new(world.clone());
        let secrets = ManagedSecrets::new(
            managed_secret::Ports {
                clock: port.clone(),
                objects: port.clone(),
                regions: port.clone(),
                inventory: port.clone(),
                targets: port.clone(),
                leadership: port.clone(),
                random: Mutex::new(Box::new(world.clone())),
            },
            settings(sabotage),
        );
        let hosts = DockerHosts::new(
            docker_host::Ports {
                clock: port.clone(),
                objects: port.clone(),
                jobs: port.clone(),
                regions: port.clone(),
                targets: port.clone(),
                leadership: port.clone(),
                random: Mutex::new(Box::new(world)),
            },
            settings(sabotage),
        );
        let incidents = SecretIncidents::new(
            secret_incident::Ports {
                clock: port.clone(),
                objects: port.clone(),
                trail: port.clone(),
                leadership: port,
            },
            settings(sabotage),
        );
        Self { id, secrets: Arc::new(secrets), hosts: Arc::new(hosts), incidents: Arc::new(incidents) }
    }

    fn pass(&self, key: &Key) -> Pass {
        match key.clone() {
            Key::Secret(name) => {
                let secrets = self.secrets.clone();
                Box::pin(async move { secrets.reconcile(NAMESPACE, &name).await })
            }
            Key::Host(name) => {
                let hosts = self.hosts.clone();
                Box::pin(async move { hosts.reconcile(NAMESPACE, &name).await })
            }
            Key::Incident(name) => {
                let incidents = self.incidents.clone();
                Box::pin(async move { incidents.reconcile(NAMESPACE, &name).await })
            }
        }
    }
}

fn poll(pass: &mut Pass) -> Poll<Result<Requeue, ObjectError>> {
    pass.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The end of a run.
pub(crate) struct Ending {
    /// The kinds of the effects, in order.
    pub effects: Vec<Kind>,
    logged: Vec<Logged>,
    pub log: Vec<String>,
    pub passes: usize,
    pub violations: Vec<String>,
    pub summary: Summary,
    pub request_forgotten: bool,
    pub answer_forgotten: bool,
    pub roll_back_forgotten: bool,
    /// True if some request was recorded and not executed.
    pub recorded: bool,
}

impl Ending {
    /// Returns the faults that would make a difference at this effect of the run.
    pub(crate) fn faults_at(&self, effect: usize) -> impl Iterator<Item = Fault> {
        let effect = &self.logged[effect];
        let (parameters, objects) = effect.reads_may_lag;
        let makes_a_difference = move |fault: &Fault| match fault {
            // A call whose kind is being rejected is not affected by another fault.
            _ if effect.fault == Some(Fault::Rejected) => false,
            Fault::StaleReads => parameters || objects,
            Fault::StaleListing | Fault::StaleHistories => parameters,
            _ => true,
        };
        let concerned = Fault::ALL.into_iter().filter(|fault| fault.concerns(effect.kind));
        concerned.filter(makes_a_difference)
    }
}

struct Run {
    world: Arc<Mutex<State>>,
    process: Process,
    next_process: usize,
    zombies: Vec<(usize, Pass)>,
    due: BTreeMap<Key, At>,
    errors: BTreeMap<Key, i32>,
    quiet: BTreeMap<Key, u32>,
    hasty: BTreeMap<Key, u32>,
    attention: Attention,
    sabotage: Option<Sabotage>,
    passes: usize,
}

/// Runs a scenario to its end.
pub(crate) fn run(
    scenario: &Scenario,
    plan: &Plan,
    attention: Attention,
    sabotage: Option<Sabotage>,
) -> Ending {
    Run::begin(scenario, attention, State::new(plan.clone(), sabotage)).finish()
}

/// Runs a scenario to its end, and each of its branches in a copy of this process.
pub(crate) fn run_along(
    scenario: &Scenario,
    plan: &Plan,
    attention: Attention,
    branches: Arc<Mutex<Branches>>,
) -> Ending {
    let mut state = State::new(plan.clone(), None);
    state.branches = Some(branches);
    Run::begin(scenario, attention, state).finish()
}

impl Run {
    fn begin(scenario: &Scenario, attention: Attention, mut state: State) -> Self {
        (scenario.prepare)(&mut state);
        state.script = (scenario.script)().into();
        state.settle();
        let sabotage = state.sabotage;
        let world = Arc::new(Mutex::new(state));
        let process = Process::start(&world, 0, sabotage);
        Self {
            world,
            process,
            next_process: 1,
            zombies: Vec::new(),
            due: BTreeMap::new(),
            errors: BTreeMap::new(),
            quiet: BTreeMap::new(),
            hasty: BTreeMap::new(),
            attention,
            sabotage,
            passes: 0,
        }
    }

    fn finish(mut self) -> Ending {
        self.look_at_everything();
        self.go();
        self.end()
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.world.lock().unwrap())
    }

    fn look_at_everything(&mut self) {
        let (now, keys) = self.state(|s| (s.now, s.cluster.keys()));
        self.due = keys.into_iter().map(|key| (key, now)).collect();
        self.errors.clear();
        self.quiet.clear();
        self.hasty.clear();
    }

    fn go(&mut self) {
        loop {
            self.heed_events();
            let now = self.state(|s| s.now);
            let first = self.due.iter().min_by_key(|(_, at)| **at).map(|(key, at)| (key.clone(), *at));
            if let Some((key, at)) = first.clone()
                && at <= now
            {
                self.due.remove(&key);
                self.look_at(&key);
                self.wake_zombies();
            } else {
                let moment = self.state(|s| s.next_moment());
                let next = match (first.map(|(_, at)| at), moment) {
                    (Some(due), Some(moment)) => due.min(moment),
                    (Some(one), None) | (None, Some(one)) => one,
                    (None, None) => return,
                };
                let (idle, age) = self.state(|s| (next - s.last_activity, next - s.start));
                if moment.is_none() && idle > QUIET {
                    return;
                }
                if age > LONGEST {
                    self.finds_no_rest();
                    return;
                }
                self.state(|s| {
                    s.now = s.now.max(next);
                    s.settle();
                });
                self.wake_zombies();
            }
            if self.passes > MOST_PASSES {
                self.finds_no_rest();
            }
            if self.state(|s| !s.violations.is_empty()) {
                return;
            }
        }
    }

    fn finds_no_rest(&self) {
        let passes = self.passes;
        self.state(|s| {
            let last: Vec<&str> = s.log.iter().rev().take(4).map(|l| l.what.as_str()).collect();
            s.violate(format!("I6: no rest after {passes} passes; the last effects: {}", last.join(" < ")));
        });
    }

    /// Queues the objects that watches and the inventory report.
    fn heed_events(&mut self) {
        let (now, touched, wakes) = self.state(|s| {
            let touched = std::mem::take(&mut s.touched);
            (s.now, touched, std::mem::take(&mut s.cluster.wake_later))
        });
        for key in touched {
            self.quiet.remove(&key);
            self.hasty.remove(&key);
            let unknown = !self.due.contains_key(&key);
            if self.attention == Attention::Watches || unknown {
                self.due.insert(key, now);
            }
        }
        if self.attention == Attention::Watches {
            for (at, key) in wakes {
                let due = self.due.entry(key).or_insert(at);
                *due = (*due).min(at);
            }
        }
    }

    fn look_at(&mut self, key: &Key) {
        self.passes += 1;
        let before = self.state(|s| {
            s.effects_before = s.log.len();
            s.effects_before
        });
        let mut pass = self.process.pass(key);
        match poll(&mut pass) {
            Poll::Ready(outcome) => {
                let looks = [Kind::Observe, Kind::LookAtTarget, Kind::IncidentStatus];
                let acted = self.state(|s| s.log[before..].iter().any(|l| !looks.contains(&l.kind)));
                self.schedule(key, outcome, acted);
            }
            Poll::Pending => {
                let crashed = self.state(|s| s.crashed.contains(&self.process.id));
                if !crashed {
                    self.zombies.push((self.process.id, pass));
                }
                self.process = Process::start(&self.world, self.next_process, self.sabotage);
                self.next_process += 1;
                self.look_at_everything();
            }
        }
    }

    fn schedule(&mut self, key: &Key, outcome: Result<Requeue, ObjectError>, acted: bool) {
        let now = self.state(|s| s.now);
        let wait = match outcome {
            Ok(Requeue::Never) => {
                self.due.remove(key);
                return;
            }
            Ok(Requeue::After(wait)) => {
                self.errors.remove(key);
                self.look_is_planned(key, wait, acted);
                let quiet = self.quiet.entry(key.clone()).or_default();
                *quiet = if acted { 0 } else { (*quiet + 1).min(12) };
                // An object that only waits for a person is reconciled less and less often, to make the simulation
                // faster.
                let wait = wait.max(TimeDelta::milliseconds(100));
                if wait <= TimeDelta::minutes(5) && *quiet > 1 {
                    (wait * 2_i32.pow(*quiet - 1)).min(LONGEST_POLL)
                } else {
                    wait
                }
            }
            Err(_) => {
                let errors = self.errors.entry(key.clone()).or_default();
                *errors = (*errors + 1).min(8);
                TimeDelta::milliseconds(500) * 2_i32.pow(errors.unsigned_abs() - 1)
            }
        };
        self.due.insert(key.clone(), now + wait);
    }

    /// Fails if an object is reconciled again and again while nothing happens.
    fn look_is_planned(&mut self, key: &Key, wait: TimeDelta, acted: bool) {
        let hasty = self.hasty.entry(key.clone()).or_default();
        *hasty = if acted || wait >= HASTE { 0 } else { *hasty + 1 };
        if *hasty > MOST_HASTY_LOOKS {
            let (looks, seconds) = (*hasty, HASTE.num_seconds());
            self.state(|s| {
                s.violate(format!(
                    "I6: {key:?} was to be looked at within {seconds} s for the {looks}th time in a row, for nothing"
                ))
            });
        }
    }

    fn wake_zombies(&mut self) {
        let mut asleep = Vec::new();
        for (id, mut pass) in std::mem::take(&mut self.zombies) {
            let open = self.state(|s| s.gates.get(&id).is_none_or(|gate| gate.open));
            let ended = open && poll(&mut pass).is_ready();
            let crashed = self.state(|s| s.crashed.contains(&id));
            if !ended && !crashed {
                asleep.push((id, pass));
            }
        }
        self.zombies = asleep;
    }

    fn end(self) -> Ending {
        let mut state = self.world.lock().unwrap();
        if state.violations.is_empty() {
            invariants::at_the_end(&mut state);
        }
        let log = state.log.iter().enumerate().map(|(number, l)| {
            let at = (l.at - state.start).num_milliseconds() as f64 / 1000.0;
            let fault = l.fault.map(|f| format!("   <-- {f:?}")).unwrap_or_default();
            let people = state.story.iter().filter(|(after, _)| *after == number).map(|(_, what)| *what);
            let people: String = people.map(|what| format!("     somebody {what}\n")).collect();
            format!("{people}{number:4} {at:10.1} s  process {}  {}{fault}", l.process, l.what)
        });
        Ending {
            effects: state.log.iter().map(|l| l.kind).collect(),
            log: log.collect(),
            logged: state.log.clone(),
            passes: self.passes,
            violations: state.violations.clone(),
            summary: Summary::of(&state),
            request_forgotten: state.memory.request_forgotten,
            answer_forgotten: state.memory.answer_forgotten,
            roll_back_forgotten: state.memory.roll_back_forgotten,
            recorded: state.cluster.secrets().any(invariants::has_recorded_a_request),
        }
    }
}
