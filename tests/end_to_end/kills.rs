//! SIGKILL at random moments, as often as the environment says.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use super::controller;
use super::world::try_run;

/// A number that the environment may raise for a longer run, such as how many times something is killed.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// A moment within so many milliseconds, another one each time.
pub fn any_moment_of(milliseconds: u64) -> Duration {
    Duration::from_millis(RandomState::new().build_hasher().finish() % milliseconds)
}

/// Kills pods without giving them time for anything.
pub fn kill_pods(namespace: &str, selector: &str) {
    try_run("kubectl", &["delete", "pods", "-n", namespace, "-l", selector, "--grace-period=0", "--force"])
        .ok();
}

pub fn kill_controller() {
    kill_pods(controller::NAMESPACE, controller::SELECTOR);
}
