//! What one object of 100,000 costs: as much as one of 1,000.
//!
//! The real reconciler of ManagedSecrets, with its real listings and claims, over a world that finds everything by name or
//! path: what grows here with the number of objects is keyturn's own doing. Only counts are compared, and never times:
//! requests to SSM and to the API server, and what each port hands out. All passes of a kind have to cost the same to the
//! last count, whichever object they are over and however many there are.
//!
//! Ten accounts are ten regions here. The account of a controller is fixed by its credentials, and what it keeps for an
//! account it keeps for a region too: a store, a budget of requests and a listing. Of 100,000 parameters each has 10,000, as
//! many Standard ones as SSM holds there. It is one controller and one namespace, which is the hardest it gets: whoever looked
//! at all neighbours of an object would look at all objects.
//!
//! A pass is given the grants, and the DockerHosts and SecretIncidents of its namespace, all of them: of these there are as
//! many at each size. What the adapters do behind a port, watches and queues among it, is none of this.

mod api_server;
mod cost;
mod life;
mod listing;
mod ssm;
mod world;

use chrono::TimeDelta;
use keyturn_reconcile::managed_secret::Requeue;

use cost::{Counts, Tally};
use life::{Measured, Passes, measure};
use ssm::PAGE;
use world::{Planted, REGIONS};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

fn of_a_rotation(passes: &Passes) -> Tally {
    passes.published.tally.and(&passes.closed.tally)
}

/// A page for every fifty parameters of a region, and pages of their own for the records.
fn is_listed_by_pages(measured: &Measured) {
    let in_a_region = |number: usize| number / REGIONS.len();
    for (listing, staged) in measured.listings.iter().zip([0, measured.rotations, 0]) {
        let pages = in_a_region(measured.size).div_ceil(PAGE) + in_a_region(staged).div_ceil(PAGE).max(1);
        let expected = Tally {
            ssm: Counts::from([("DescribeParameters", REGIONS.len() * pages)]),
            api: Counts::new(),
            given: Counts::from([("versions", measured.size + staged)]),
        };
        assert_eq!(*listing, expected, "{} objects, {staged} records", measured.size);
    }
}

#[test]
fn the_cost_of_an_object_does_not_grow_with_their_number() {
    let [least, others @ ..] = SIZES.map(|size| measure(size, Planted::Nothing));
    println!("a rotation: {:#?}", of_a_rotation(&least.passes));
    is_listed_by_pages(&least);
    for other in &others {
        assert_eq!(other.passes, least.passes, "{} objects", other.size);
        is_listed_by_pages(other);
    }
}

#[test]
fn an_object_with_nothing_to_do_costs_no_request() {
    let Passes { first, quiet, rested, .. } = measure(SIZES[0], Planted::Nothing).passes;
    assert_eq!(first.tally.ssm, Counts::new(), "the listing shows all there is to see");
    assert_eq!(first.tally.api, Counts::from([("replace status", 1)]));
    assert_eq!((&quiet.tally.ssm, &quiet.tally.api), (&Counts::new(), &Counts::new()));
    assert_eq!(quiet.tally.given["ManagedSecrets"], 2, "itself, and the other that claims its path");
    assert_eq!(quiet.again, Requeue::After(TimeDelta::hours(1)));
    assert_eq!(rested, quiet, "a rotation leaves nothing behind that costs");
}

/// docs/aws.md and docs/operating.md say so. The adapter may compare the value that was published before with its stamp.
#[test]
fn a_rotation_without_hosts_costs_six_calls_of_ssm_and_five_writes() {
    let rotation = of_a_rotation(&measure(SIZES[0], Planted::Nothing).passes);
    let calls =
        [("GetParametersByPath", 1), ("GetParameterHistory", 2), ("PutParameter", 2), ("DeleteParameter", 1)];
    assert_eq!(rotation.ssm, Counts::from(calls));
    let writes = ["replace status", "patch finalizers", "create Event"].map(|write| rotation.api[write]);
    assert_eq!(writes, [2, 2, 1]);
}

/// None of this is said by counts that cannot tell.
#[test]
fn a_port_that_hands_out_all_objects_is_noticed() {
    let [few, more] = [100, 200].map(|size| measure(size, Planted::Scan).passes);
    assert_ne!(few, more);
    let given = |passes: &Passes| passes.quiet.tally.given["ManagedSecrets"];
    assert_eq!(given(&more) - given(&few), 100);
}
