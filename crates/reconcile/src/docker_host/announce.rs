//! Notifications for people about a change in a DockerHost's status.

use chrono::{DateTime, Utc};
use keyturn_api::conditions as c;
use keyturn_api::docker_host::DockerHostStatus;
use keyturn_api::notification::Topic;

use crate::notification::{self, News, Trouble, Watched, turns};

/// Returns the news between two statuses of one host. Failed deployments are reported by the secrets that
/// wait for them.
pub(super) fn news(before: &DockerHostStatus, after: &DockerHostStatus, now: DateTime<Utc>) -> Vec<News> {
    turns(&troubles(before), &troubles(after), now)
}

fn troubles(status: &DockerHostStatus) -> Vec<Trouble> {
    const WATCHED: [Watched; 2] =
        [(c::STALLED, "True", Topic::Stalled), (c::IMAGES_CLEAN, "False", Topic::ImagesNotClean)];
    notification::troubles(&status.conditions, &WATCHED).map(notification::trouble).collect()
}
