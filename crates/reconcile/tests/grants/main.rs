//! Grants bind everything: the real reconcilers run over random objects, grants and edits, and independently written
//! rules check every call of every port.
//!
//! A case is one pass over one object: grants, objects and published values are random, and somebody edits something
//! right before a random call of the pass. The rules are as strict as possible:
//!
//! - A read (Parameter Store, its listing, a target, CloudTrail, a client for a region) is allowed by grants and
//!   objects in some form in which this same pass has read them.
//! - An effect (a Put, a deletion, a token, a change of a role, a Job) is allowed by the grants as they were read after
//!   the previous effect, and by the object and the host on the way to its server as they were read last. Only the
//!   record of a token that was just created shares a reading with the effect before it.

mod cases;
mod rules;
mod world;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use chrono::TimeDelta;
use keyturn_reconcile::docker_host::{self, DockerHosts};
use keyturn_reconcile::managed_secret::{self, ManagedSecrets};
use keyturn_reconcile::secret_incident::{self, SecretIncidents};
use keyturn_reconcile::settings::Settings;

use rules::{HOME, NAMESPACE};
use world::{Planted, World};

const CASES: usize = 100_000;
/// Number of passes over one world.
const PASSES: usize = 20;

/// Calls that reach outside of keyturn's own objects.
const READS: [&str; 10] = [
    "Regions::store",
    "ParameterStore::read_folder",
    "ParameterStore::kept",
    "ParameterStore::read",
    "Inventory::excerpt",
    "Targets::open",
    "Targets::admin_secret",
    "Target::look",
    "Target::try_login",
    "Trail::page",
];
const EFFECTS: [&str; 7] = [
    "ParameterStore::create",
    "ParameterStore::overwrite",
    "ParameterStore::delete",
    "Target::issue",
    "Target::install",
    "Target::retire",
    "DeployJobs::start",
];

#[derive(Default)]
struct Tally {
    cases: usize,
    calls: BTreeMap<&'static str, usize>,
    outside: BTreeMap<&'static str, Vec<String>>,
}

fn settings() -> Settings {
    let mut settings = Settings::new("sim", HOME);
    settings.grace = TimeDelta::seconds(120);
    settings.first_rotation_delay = TimeDelta::minutes(2);
    settings.backlog_spread = TimeDelta::zero();
    settings.backoff_initial = TimeDelta::seconds(10);
    settings.backoff_max = TimeDelta::minutes(1);
    settings.retire_after = TimeDelta::minutes(1);
    settings.orphans_after = TimeDelta::minutes(2);
    settings.coalesce = TimeDelta::seconds(5);
    settings
}

struct Controller {
    secrets: ManagedSecrets,
    hosts: DockerHosts,
    incidents: SecretIncidents,
}

impl Controller {
    fn of(world: &World) -> Self {
        let port = Arc::new(world.clone());
        let secrets = managed_secret::Ports {
            clock: port.clone(),
            objects: port.clone(),
            regions: port.clone(),
            inventory: port.clone(),
            targets: port.clone(),
            leadership: port.clone(),
            random: Mutex::new(Box::new(world.clone())),
        };
        let hosts = docker_host::Ports {
            clock: port.clone(),
            objects: port.clone(),
            jobs: port.clone(),
            regions: port.clone(),
            targets: port.clone(),
            leadership: port.clone(),
            random: Mutex::new(Box::new(world.clone())),
        };
        let incidents = secret_incident::Ports {
            clock: port.clone(),
            objects: port.clone(),
            trail: port.clone(),
            leadership: port,
        };
        Self {
            secrets: ManagedSecrets::new(secrets, settings()),
            hosts: DockerHosts::new(hosts, settings()),
            incidents: SecretIncidents::new(incidents, settings()),
        }
    }

    async fn pass(&self, subject: &str) {
        // The next pass retries what the API server refuses.
        let _ = match subject {
            "web" => self.hosts.reconcile(NAMESPACE, subject).await,
            "leak" => self.incidents.reconcile(NAMESPACE, subject).await,
            _ => self.secrets.reconcile(NAMESPACE, subject).await,
        };
    }
}

/// Runs `PASSES` passes over a world of their own, with edits before and within them.
fn live(seed: u64, planted: Planted, tally: &mut Tally) {
    let world = World(Arc::new(Mutex::new(cases::world(seed, planted))));
    let controller = Controller::of(&world);
    for _ in 0..PASSES {
        let subject = {
            let mut state = world.lock();
            if state.numbers.once_in(3) {
                cases::edit(&mut state);
            }
            let waits = [1, 6, 30, 130, 700, 4000];
            let wait = waits[state.numbers.below(waits.len())];
            state.now += TimeDelta::seconds(wait);
            if state.numbers.once_in(2) {
                state.end_jobs();
            }
            let subject = ["token", "token", "token", "second", "web", "web", "leak"][state.numbers.below(7)];
            state.edit = cases::edit;
            state.edit_after = if state.numbers.once_in(2) { Some(state.numbers.below(30)) } else { None };
            state.begin_pass(subject);
            subject
        };
        let mut pass = pin!(controller.pass(subject));
        let ended = pass.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(ended, Poll::Ready(()), "nothing here is waited for");
        tally.cases += 1;
    }
    let state = world.lock();
    for (port, calls) in &state.calls {
        *tally.calls.entry(port).or_default() += calls;
    }
    for (port, found) in &state.outside {
        let known = tally.outside.entry(port).or_default();
        known.extend(
            found.iter().take(4_usize.saturating_sub(known.len())).map(|f| format!("seed {seed}: {f}")),
        );
    }
}

fn run(worlds: u64, planted: Planted) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..worlds {
        live(seed, planted, &mut tally);
    }
    tally
}

#[test]
fn no_call_is_made_outside_of_the_grants() {
    let tally = run(u64::try_from(CASES / PASSES).unwrap(), Planted::Nothing);
    println!("{} cases, {:?}", tally.cases, tally.calls);
    assert!(tally.outside.is_empty(), "{:#?}", tally.outside);
    assert!(tally.cases >= CASES);
    // The rules prove nothing about a port that was never called.
    for port in READS.into_iter().chain(EFFECTS) {
        assert!(tally.calls.get(port).is_some_and(|calls| *calls >= 20), "{port}: {:?}", tally.calls);
    }
}

#[test]
fn every_port_that_nobody_guards_is_found() {
    let tally = run(500, Planted::Unguarded);
    for port in READS.into_iter().chain(EFFECTS) {
        assert!(tally.outside.contains_key(port), "{port}: {:#?}", tally.outside.keys());
    }
}

#[test]
fn every_effect_that_is_decided_on_grants_of_before_is_found() {
    let tally = run(1500, Planted::AskedOnce);
    for port in EFFECTS {
        assert!(tally.outside.contains_key(port), "{port}: {:#?}", tally.outside.keys());
    }
    assert!(READS.iter().all(|port| !tally.outside.contains_key(port)), "{:#?}", tally.outside);
}
