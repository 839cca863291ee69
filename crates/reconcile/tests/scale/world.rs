//! One controller and its world: a namespace with all the objects, and Parameter Store in ten regions.

use std::collections::BTreeMap;
use std::mem::take;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::ManagedSecret;
use keyturn_reconcile::managed_secret::{ManagedSecrets, Ports};
use keyturn_reconcile::ports::{Clock, Leadership, Targets};
use keyturn_reconcile::settings::Settings;
use keyturn_reconcile::source::{Random, RandomError};
use keyturn_reconcile::target::{Target, TargetError};
use keyturn_secret_value::SecretValue;

use crate::api_server::Cluster;
use crate::cost::{Cost, Tally};
use crate::ssm::Region;

pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const REGIONS: [&str; 10] = [
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];
/// Age of the values from before keyturn: half of their period, so that none is due.
const AGE: TimeDelta = TimeDelta::days(45);

/// A fault between the reconciler and the world, which the counts must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// A query for the rivals of an object returns all other objects.
    Scan,
}

pub(crate) struct State {
    pub now: DateTime<Utc>,
    pub planted: Planted,
    pub tally: Tally,
    pub cluster: Cluster,
    regions: BTreeMap<&'static str, Region>,
}

impl State {
    pub(crate) fn region(&mut self, name: &str) -> &mut Region {
        self.regions.get_mut(name).expect("it is one of the ten")
    }
}

/// Returns the default settings of the product.
pub(crate) fn settings() -> Settings {
    Settings::new("scale", REGIONS[0])
}

pub(crate) fn name(number: usize) -> String {
    format!("s{number:06}")
}

/// Returns region and path of an object's parameter. Two regions at a time have the same paths, like a primary region
/// and its replacement, so every object has a rival that claims the same name in another place.
pub(crate) fn place(number: usize) -> (&'static str, String) {
    let region = number % REGIONS.len();
    (REGIONS[region], format!("/shop/{}/{}", region / 2, number / REGIONS.len()))
}

#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    /// Creates a world with `size` ManagedSecrets that no pass has seen yet, and their parameters, the same number in
    /// each region.
    pub(crate) fn new(size: usize, planted: Planted) -> Self {
        assert!(size.is_multiple_of(REGIONS.len()), "a region has as many as any other");
        let now = DateTime::from_timestamp(1_772_323_200, 0).unwrap();
        let mut state = State {
            now,
            planted,
            tally: Tally::default(),
            cluster: Cluster::of(size, now),
            regions: REGIONS.iter().map(|region| (*region, Region::default())).collect(),
        };
        for (region, path) in (0..size).map(place) {
            state.region(region).put(&path, "as it was", String::new(), None, now - AGE);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn wait(&self, time: TimeDelta) {
        self.lock().now += time;
    }
}

impl Clock for World {
    fn now(&self) -> DateTime<Utc> {
        self.lock().now
    }
}

impl Leadership for World {
    fn is_leader(&self) -> bool {
        true
    }
}

/// Random values need no target.
#[async_trait]
impl Targets for World {
    async fn open(&self, _: &ManagedSecret, _: &str) -> Result<Option<Arc<dyn Target>>, TargetError> {
        Ok(None)
    }

    async fn admin_secret(&self, _: &ManagedSecret, _: &str) -> Result<Option<SecretValue>, TargetError> {
        Ok(None)
    }
}

/// Predictable bytes.
struct Counted(u8);

impl Random for Counted {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError> {
        for byte in buffer {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

pub(crate) struct Controller {
    world: World,
    secrets: ManagedSecrets,
}

impl Controller {
    pub(crate) fn of(world: &World) -> Self {
        let port = Arc::new(world.clone());
        let ports = Ports {
            clock: port.clone(),
            objects: port.clone(),
            regions: port.clone(),
            inventory: port.clone(),
            targets: port.clone(),
            leadership: port,
            random: Mutex::new(Box::new(Counted(0))),
        };
        Self { world: world.clone(), secrets: ManagedSecrets::new(ports, settings()) }
    }

    /// Runs one pass over each of them. All must cost the same.
    pub(crate) fn passes(&self, names: &[String]) -> Cost {
        let mut of_each: Option<Cost> = None;
        for name in names {
            let cost = self.pass(name);
            let expected = of_each.get_or_insert_with(|| cost.clone());
            assert_eq!(cost, *expected, "{name} costs another than {}", names[0]);
        }
        of_each.expect("there is one at least")
    }

    fn pass(&self, name: &str) -> Cost {
        self.world.lock().tally = Tally::default();
        let ended = at_once(self.secrets.reconcile(NAMESPACE, name));
        let again = ended.unwrap_or_else(|error| panic!("{name}: {error}"));
        let tally = take(&mut self.world.lock().tally);
        Cost { tally, again }
    }
}

/// Returns the result of a future whose ports all answer immediately.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("nothing here is waited for"),
    }
}
