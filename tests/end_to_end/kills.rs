//! SIGKILL at random moments, as often as the environment demands.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use super::controller;
use super::world::try_run;

/// Returns a number that the environment may raise for a longer run, such as the number of kills.
pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// Returns a random duration of less than this many milliseconds.
pub(crate) fn any_moment_of(milliseconds: u64) -> Duration {
    Duration::from_millis(RandomState::new().build_hasher().finish() % milliseconds)
}

/// Kills pods without giving them time for anything.
pub(crate) fn kill_pods(namespace: &str, selector: &str) {
    try_run("kubectl", &["delete", "pods", "-n", namespace, "-l", selector, "--grace-period=0", "--force"])
        .ok();
}

pub(crate) fn kill_controller() {
    kill_pods(controller::NAMESPACE, controller::SELECTOR);
}
