//! One object of 100,000 costs as much as one of 1,000.
//!
//! The real reconciler of ManagedSecrets, with its real listings and claims, runs over a world that finds everything by
//! name or path: if something grows with the number of objects, it is keyturn's own code. Only counts are compared,
//! never times: requests to SSM and to the API server, and the objects that each port returns. All passes of a kind
//! must cost exactly the same, for every object and for every number of objects.
//!
//! Ten regions here stand for ten accounts. The account of a controller is fixed by its credentials, and everything
//! that it keeps per account it also keeps per region: a store, a budget of requests and a listing. Of 100,000
//! parameters each region has 10,000, which is the number of Standard parameters that SSM holds there. There is one
//! controller and one namespace, which is the hardest case: code that reads all neighbours of an object would read all
//! objects.
//!
//! A pass receives the grants, and all DockerHosts and SecretIncidents of its namespace: their number is the same at
//! each size. The work of the adapters behind a port, including watches and queues, is not measured.

mod api_server;
mod cost;
mod life;
mod listing;
mod ssm;
mod world;

use chrono::TimeDelta;
use keyturn_reconcile::ports::Requeue;

use cost::{Counts, Tally};
use life::{Measured, Passes, measure};
use ssm::PAGE;
use world::{Planted, REGIONS};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

fn of_a_rotation(passes: &Passes) -> Tally {
    passes.published.tally.and(&passes.closed.tally)
}

/// Asserts one page for every fifty parameters of a region, and separate pages for the records.
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

/// docs/aws.md and docs/operating.md say so. The adapter may compare the value that was published before with its
/// stamp.
#[test]
fn a_rotation_without_hosts_costs_six_calls_of_ssm_and_five_writes() {
    let rotation = of_a_rotation(&measure(SIZES[0], Planted::Nothing).passes);
    let calls =
        [("GetParametersByPath", 1), ("GetParameterHistory", 2), ("PutParameter", 2), ("DeleteParameter", 1)];
    assert_eq!(rotation.ssm, Counts::from(calls));
    let writes = ["replace status", "patch finalizers", "create Event"].map(|write| rotation.api[write]);
    assert_eq!(writes, [2, 2, 1]);
    assert!(!rotation.api.contains_key("list DockerHosts"), "{:?}", rotation.api);
}

/// The counts prove nothing if they cannot detect a difference.
#[test]
fn a_port_that_hands_out_all_objects_is_noticed() {
    let [few, more] = [100, 200].map(|size| measure(size, Planted::Scan).passes);
    assert_ne!(few, more);
    let given = |passes: &Passes| passes.quiet.tally.given["ManagedSecrets"];
    assert_eq!(given(&more) - given(&few), 100);
}
