//! The life of the objects of one world, and its cost: they are observed and left alone, and one in a hundred is
//! rotated.

use chrono::TimeDelta;
use keyturn_api::conditions;
use keyturn_api::managed_secret::{ManagedSecretStatus, RotationResult};

use crate::cost::{Cost, Tally};
use crate::world::{Controller, Planted, REGIONS, World, name, settings};

/// One object of this many is rotated, the same number in each region.
const ONE_OF: usize = 100;
/// A time without events, too short for a listing to become stale.
const A_WHILE: TimeDelta = TimeDelta::minutes(1);

/// The cost of a pass of each kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Passes {
    /// The first pass over an object whose value existed before.
    pub first: Cost,
    /// A later pass over the same object, with nothing to do.
    pub quiet: Cost,
    /// A pass over an object with a requested rotation: from the request to the published value.
    pub published: Cost,
    /// A pass over the same object after the grace, up to the end of the rotation.
    pub closed: Cost,
    /// A pass after that, with nothing to do.
    pub rested: Cost,
}

pub(crate) struct Measured {
    pub size: usize,
    pub rotations: usize,
    pub passes: Passes,
    /// The listings of all regions together: before the first pass, with all records, and without records again.
    pub listings: [Tally; 3],
}

pub(crate) fn measure(size: usize, planted: Planted) -> Measured {
    let world = World::new(size, planted);
    let controller = Controller::of(&world);
    let all: Vec<String> = (0..size).map(name).collect();
    let is_rotated = |number: &usize| (number / REGIONS.len()).is_multiple_of(ONE_OF);
    let rotated: Vec<String> = (0..size).filter(is_rotated).map(name).collect();

    let before = world.list_every_region();
    let first = controller.passes(&all);
    each(&world, &all, |status| publishes(status, 1));
    world.wait(A_WHILE);
    let quiet = controller.passes(&all);

    rotated.iter().for_each(|name| world.lock().cluster.request(name));
    let published = controller.passes(&rotated);
    each(&world, &rotated, |status| publishes(status, 2) && status.rotation.is_some());
    world.wait(settings().grace + A_WHILE);
    let during = world.list_every_region();
    assert_eq!(during.woken, rotated, "a listing wakes those of which it shows something new");
    let closed = controller.passes(&rotated);
    each(&world, &rotated, has_succeeded);

    world.wait(A_WHILE);
    let after = world.list_every_region();
    assert_eq!(after.woken, rotated);
    let rested = controller.passes(&rotated);
    Measured {
        size,
        rotations: rotated.len(),
        passes: Passes { first, quiet, published, closed, rested },
        listings: [before.tally, during.tally, after.tally],
    }
}

/// Asserts that the measured passes reached their result.
fn each(world: &World, names: &[String], is_so: impl Fn(&ManagedSecretStatus) -> bool) {
    let state = world.lock();
    for name in names {
        let status = state.cluster.secrets[name].status.as_ref();
        assert!(status.is_some_and(&is_so), "{name}: {status:#?}");
    }
}

fn publishes(status: &ManagedSecretStatus, version: i64) -> bool {
    let is_ready = conditions::is_true(&status.conditions, conditions::READY);
    is_ready && status.parameters.iter().map(|parameter| parameter.version).eq([version])
}

fn has_succeeded(status: &ManagedSecretStatus) -> bool {
    let ended = status.last_rotation.as_ref().is_some_and(|last| last.result == RotationResult::Succeeded);
    publishes(status, 2) && status.rotation.is_none() && ended
}
