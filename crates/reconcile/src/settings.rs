//! The times and names that an operator sets for the whole controller (chart values), as the reconcilers use them.

use chrono::TimeDelta;
use keyturn_api::ManagedSecret;
use keyturn_api::grants::{self, Grants, Installation, Verdict};
use keyturn_api::readers::ExpectedReader;

use crate::notification::Sink;

/// Settings that reconcilers read. The defaults are the careful ones that the chart ships.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this installation: owner of its records and descriptions. Two installations never share one.
    pub cluster: String,
    /// Region of secrets that name none.
    pub region: String,
    /// Path below which records lie; `/keyturn/<cluster>` unless set.
    pub staging: String,
    /// Longer than any request of ours can live, and than SSM's reads can lag.
    pub grace: TimeDelta,
    /// Least time between the adoption of an existing parameter and its first rotation.
    pub first_rotation_delay: TimeDelta,
    /// Overdue secrets start at a stable moment within a span of this length.
    pub backlog_spread: TimeDelta,
    /// `retire.after` where a secret sets none.
    pub retire_after: TimeDelta,
    /// How old a credential that only its target can make must be before it is deleted for having no record. The grace is
    /// the least.
    pub orphans_after: TimeDelta,
    /// How long a deleted ManagedSecret is held, at the most, to finish its rotation; see [`Self::deletion_bound`].
    pub deletion: TimeDelta,
    /// Wait after the first failure; doubles up to `backoff_max`.
    pub backoff_initial: TimeDelta,
    pub backoff_max: TimeDelta,
    /// How long a host waits for other secrets of its own that are about to be published.
    pub coalesce: TimeDelta,
    /// Failed attempts after which a deployment has failed for good (Stalled, or rolled back).
    pub attempts: i32,
    /// How long an event may take to show in CloudTrail.
    pub trail_delay: TimeDelta,
    /// Who may read every parameter, beside what incidents list.
    pub expected_readers: Vec<ExpectedReader>,
    /// Who is told what people must know.
    pub sinks: Vec<Sink>,
    /// The ClusterRole with the rights that keyturn needs in a namespace, to be named where it is not bound.
    pub namespace_role: String,
}

impl Settings {
    /// The shipped defaults for an installation of this name.
    pub fn new(cluster: &str, region: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            region: region.to_owned(),
            staging: format!("/keyturn/{cluster}"),
            grace: TimeDelta::minutes(15),
            first_rotation_delay: TimeDelta::days(1),
            backlog_spread: TimeDelta::hours(1),
            retire_after: TimeDelta::hours(1),
            orphans_after: TimeDelta::minutes(15),
            deletion: TimeDelta::hours(1),
            backoff_initial: TimeDelta::minutes(1),
            backoff_max: TimeDelta::hours(1),
            coalesce: TimeDelta::seconds(30),
            attempts: 3,
            trail_delay: TimeDelta::minutes(15),
            expected_readers: Vec::new(),
            sinks: Vec::new(),
            namespace_role: "keyturn-namespace".to_owned(),
        }
    }

    /// The region that a secret's parameters lie in.
    pub fn region_of<'a>(&'a self, secret: &'a ManagedSecret) -> &'a str {
        secret.region().unwrap_or(&self.region)
    }

    /// What the grants say about a secret whose parameters lie in this region.
    pub fn verdict(&self, grants: &Grants, secret: &ManagedSecret, region: &str) -> Verdict {
        let installation = Installation { region: &self.region, staging: &self.staging };
        grants::managed_secret(grants, secret, region, installation)
    }

    /// How long a deleted object is held at the most. Less than four times the grace would not let any rotation end.
    pub fn deletion_bound(&self) -> TimeDelta {
        self.deletion.max(self.grace * 4)
    }

    /// The wait after this many consecutive failures (1 or more).
    pub fn backoff(&self, failures: i32) -> TimeDelta {
        doubling(self.backoff_initial, self.backoff_max, failures)
    }
}

/// The pause after this many consecutive failures (1 or more): doubled by each after the first, up to a longest one.
pub fn doubling(first: TimeDelta, longest: TimeDelta, failures: i32) -> TimeDelta {
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(20);
    longest.min(first * 2_i32.pow(doublings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_up_to_its_maximum_and_never_overflows() {
        let settings = Settings::new("test", "us-east-1");
        let minutes: Vec<i64> = [1, 2, 3, 6, 7, 8, 1000].map(|n| settings.backoff(n).num_minutes()).to_vec();
        assert_eq!(minutes, [1, 2, 4, 32, 60, 60, 60]);
    }
}
