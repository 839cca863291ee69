//! What people are told of a change in a DockerHost's status.

use chrono::{DateTime, Utc};

use crate::api::conditions as c;
use crate::api::docker_host::DockerHostStatus;
use crate::api::notification::Topic;
use crate::notification::{News, Trouble, turns};

/// The news between two statuses of one host. Failed deployments are told by the secrets that wait for them.
pub fn news(before: &DockerHostStatus, after: &DockerHostStatus, now: DateTime<Utc>) -> Vec<News> {
    turns(&troubles(before), &troubles(after), now)
}

fn troubles(status: &DockerHostStatus) -> Vec<Trouble> {
    let stalled = c::find(&status.conditions, c::STALLED).filter(|c| c.status == "True");
    stalled.map(|c| (Topic::Stalled, c.reason.clone(), c.message.clone())).into_iter().collect()
}
