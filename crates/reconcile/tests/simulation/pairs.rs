//! Faults in pairs: the first at every effect of the run without faults, the second at every later effect of the run
//! with the first. [`crate::prove`] tries all pairs of these stories; every other run of the tests tries a slice.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::faults::{Fault, Plan};
use crate::harness::{Attention, Ending, run};
use crate::scenarios::{self, Scenario};

/// Number of effects beyond the end of the run without faults up to which second faults are tried.
const BEYOND: usize = 6;
/// A slice contains one of this many first faults, and for each of them one of this many second faults.
const FIRSTS: usize = 97;
const SECONDS: usize = 29;

macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        /// Returns one small story for each source and strategy, and for each exception to the usual course.
        pub(crate) fn stories() -> Vec<Scenario> {
            vec![$(scenarios::$name()),*]
        }

        $(#[test] fn $name() { a_slice(&scenarios::$name()); })*
    };
}

stories! {
    a_missing_parameter_is_created,
    a_request_rotates_once_on_a_host,
    two_parameters_are_published_from_one_draw,
    a_fernet_ring_keeps_the_previous_key,
    a_single_role_is_rotated_by_an_administrator,
    a_single_role_changes_its_own_password,
    an_empty_environment_takes_its_role_from_what_is_deployed,
    roles_take_turns,
    a_pair_is_made_from_the_role_in_use,
    a_key_pair_is_rotated,
    a_key_pair_in_two_parameters_is_rotated,
    a_foreign_write_is_replaced_where_asked,
    an_incident_rotates_a_suspended_secret_at_once,
    an_incident_changes_a_single_role,
    an_incident_revokes_a_role_at_rest,
    an_incident_revokes_a_key_pair,
    a_failed_deployment_is_rolled_back,
    a_password_that_cannot_be_published_is_taken_back,
    deleting_in_mid_rotation_finishes_it,
    deleting_while_roles_take_turns_finishes_it,
}

/// Returns the places and kinds of the first fault.
pub(crate) fn firsts(calm: &Ending) -> Vec<(usize, Fault)> {
    places(calm, 0, calm.effects.len())
}

/// Returns the places and kinds of the second fault in the run with the first one.
pub(crate) fn seconds(calm: &Ending, led_to: &Ending, first: usize) -> Vec<(usize, Fault)> {
    places(led_to, first + 1, led_to.effects.len().min(calm.effects.len() + BEYOND))
}

fn places(ending: &Ending, from: usize, to: usize) -> Vec<(usize, Fault)> {
    (from..to).flat_map(|at| ending.faults_at(at).map(move |fault| (at, fault))).collect()
}

/// Returns the folder of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Returns the commit that is checked out, if there is git.
pub(crate) fn commit() -> Option<String> {
    git(&["rev-parse", "HEAD"])
}

pub(crate) fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).current_dir(root()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Returns the number of the slice: a different one for each commit, or the one in KEYTURN_SLICE.
fn slice() -> usize {
    let wanted = std::env::var("KEYTURN_SLICE").ok().map(|text| text.parse().expect("a slice's number"));
    let of_commit = || usize::from_str_radix(commit()?.get(..8)?, 16).ok();
    wanted.or_else(of_commit).unwrap_or_default() % (FIRSTS * SECONDS)
}

/// Tries one slice of the pairs. Every pair is in one of the slices.
fn a_slice(scenario: &Scenario) {
    let slice = slice();
    let calm = run(scenario, &Plan::none(), Attention::Watches, None);
    let (mut cases, mut failures) = (0, Vec::new());
    for first in firsts(&calm).into_iter().skip(slice % FIRSTS).step_by(FIRSTS) {
        let led_to = run(scenario, &Plan(vec![first]), Attention::Watches, None);
        let pairs = seconds(&calm, &led_to, first.0).into_iter().skip(slice / FIRSTS).step_by(SECONDS);
        for plan in pairs.map(|second| Plan::pair(first, second)) {
            cases += 1;
            let ending = run(scenario, &plan, Attention::Watches, None);
            if let Err(problem) = ending.check(scenario, &calm) {
                failures.push(format!("{}: {problem}", case(scenario, Attention::Watches, &plan)));
            }
        }
    }
    let name = scenario.name;
    // Written directly, since tests that pass have their output captured: the log then shows what was tried.
    let told = format!("KEYTURN_SLICE={slice} {name}: {cases} pairs, {} violations\n", failures.len());
    std::io::stderr().write_all(told.as_bytes()).expect("standard error is there");
    assert!(failures.is_empty(), "{told}{}", failures.join("\n"));
}

/// Returns the variable that makes `one_case` run this case.
pub(crate) fn case(scenario: &Scenario, attention: Attention, plan: &Plan) -> String {
    format!("CASE='{} {attention} {plan}'", scenario.name)
}
