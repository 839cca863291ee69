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
    const WATCHED: [(Topic, &str, &str); 2] =
        [(Topic::Stalled, c::STALLED, "True"), (Topic::ImagesNotClean, c::IMAGES_CLEAN, "False")];
    let found = WATCHED.iter().filter_map(|(topic, kind, bad)| {
        let condition = c::find(&status.conditions, kind).filter(|c| c.status == *bad)?;
        Some((*topic, condition.reason.clone(), condition.message.clone()))
    });
    found.collect()
}
