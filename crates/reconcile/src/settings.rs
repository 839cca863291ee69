//! Settings of the whole controller (chart values), in the form that the reconcilers use.

use chrono::TimeDelta;
use keyturn_api::ManagedSecret;
use keyturn_api::grants::{self, Grants, Installation, Verdict};
use keyturn_api::readers::ExpectedReader;

use crate::notification::Sink;

/// Settings of the reconcilers. The defaults are the cautious ones that the chart ships.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this installation. It owns its records and descriptions, so two installations must never share a name.
    pub cluster: String,
    /// Region of the secrets that name none.
    pub region: String,
    /// Path below which records lie; `/keyturn/<cluster>` unless set.
    pub staging: String,
    /// The grace period: longer than the life of any request that keyturn sends, and longer than the lag of SSM's
    /// reads.
    pub grace: TimeDelta,
    /// Minimum time between the adoption of an existing parameter and its first rotation.
    pub first_rotation_delay: TimeDelta,
    /// Time span over which the rotations of overdue secrets are spread. Each secret has its fixed moment within the
    /// span.
    pub backlog_spread: TimeDelta,
    /// Default of `retire.after`.
    pub retire_after: TimeDelta,
    /// Minimum age at which an orphaned credential is deleted: a credential that its target made and that no record
    /// names. A value below the grace period counts as the grace period.
    pub orphans_after: TimeDelta,
    /// Maximum time that a deleted ManagedSecret is held so that its rotation can end; see [`Self::deletion_bound`].
    pub deletion: TimeDelta,
    /// Pause after the first failure; it doubles with each further failure up to `backoff_max`.
    pub backoff_initial: TimeDelta,
    /// Longest pause after a failure.
    pub backoff_max: TimeDelta,
    /// Time that a deployment waits for other secrets of the host that are about to be published.
    pub coalesce: TimeDelta,
    /// Number of failed attempts after which a deployment counts as permanently failed (Stalled, or rolled back).
    pub attempts: i32,
    /// Maximum time until an event shows in CloudTrail.
    pub trail_delay: TimeDelta,
    /// Callers that may read every parameter, in addition to those that incidents list.
    pub expected_readers: Vec<ExpectedReader>,
    /// Notification sinks.
    pub sinks: Vec<Sink>,
    /// Name of the ClusterRole with the rights that keyturn needs in a namespace, for messages about a missing role
    /// binding.
    pub namespace_role: String,
}

impl Settings {
    /// Returns the shipped defaults, for an installation of this name.
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

    /// Returns the region that holds a secret's parameters.
    pub fn region_of<'a>(&'a self, secret: &'a ManagedSecret) -> &'a str {
        secret.region().unwrap_or(&self.region)
    }

    /// Returns the verdict of the grants about a secret whose parameters are in this region.
    pub fn verdict(&self, grants: &Grants, secret: &ManagedSecret, region: &str) -> Verdict {
        let installation = Installation { region: &self.region, staging: &self.staging };
        grants::managed_secret(grants, secret, region, installation)
    }

    /// Returns the maximum time that a deleted object is held. It is at least four times the grace period, since no
    /// rotation could end in less.
    pub fn deletion_bound(&self) -> TimeDelta {
        self.deletion.max(self.grace * 4)
    }

    /// Returns the pause after this many consecutive failures (1 or more).
    pub fn backoff(&self, failures: i32) -> TimeDelta {
        doubling(self.backoff_initial, self.backoff_max, failures)
    }
}

/// Returns the pause after this many consecutive failures (1 or more): `first`, doubled by each further failure, up to
/// `longest`.
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
