//! The desired state of one secret: its spec, translated for the protocol.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::{IfMissing, OnDrift, OnFailure};
use keyturn_api::window::Window;

/// The desired state of one secret.
pub struct Desired<'a> {
    /// `<cluster>/<namespace>/<name>` of the ManagedSecret.
    pub owner: &'a str,
    /// The object's deletion timestamp.
    pub deleting: Option<DateTime<Utc>>,
    /// Longest time after `deleting` for which the finalizer is kept so that the rotation can finish.
    pub deletion_bound: TimeDelta,
    /// True with `deletionPolicy: Delete`.
    pub delete_parameters: bool,
    /// True with `spec.suspend`: only an incident starts a rotation. An open rotation is finished.
    pub suspended: bool,
    /// True when the object carries keyturn's finalizer.
    pub finalizer: bool,
    /// Time since which this process, while it was the leader, has seen no record; `None` if it has seen one, or has
    /// only just begun to read. A record younger than the grace period may exist and not be visible yet (eventual
    /// consistency).
    pub settled_since: Option<DateTime<Utc>>,
    /// Reaction when no parameter exists. Without `ssm.ifMissing`: Stall if there is a target, else Create.
    pub if_missing: IfMissing,
    /// Reaction when a host has rejected the new version in enough attempts.
    pub on_failure: OnFailure,
    /// Reaction to a version that somebody else wrote.
    pub on_drift: OnDrift,
    /// The Postgres roles whose passwords the source may change.
    pub roles: Vec<&'a str>,
    /// The KMS key that the spec names.
    pub kms_key: Option<&'a str>,
    /// True when the published value may be a key ring, in which every key can still decrypt something.
    pub rings: bool,
    /// A sample value by path, in the format of generated values; given only if the format matters.
    pub samples: BTreeMap<String, String>,
    /// True when SSM has permanently refused to publish the value of the open record.
    pub promotion_refused: bool,
    /// DockerHosts that must run the secret.
    pub hosts: Vec<String>,
    /// The request in the annotation, even if it was handled; `None` if there is none or it is too long to count.
    pub request: Option<Request<'a>>,
    /// Period, windows and delays of the schedule.
    pub timing: Timing<'a>,
    /// Time when keyturn last asked the hosts for a preflight.
    pub preflight_requested: Option<DateTime<Utc>>,
    /// The way in which a target is changed; `None` if only the hosts have to accept the value.
    pub strategy: Option<Strategy>,
    /// True when keyturn may create the roles from the published one; `false` if it may only show the statements.
    pub may_set_up: bool,
    /// Settings and state for the retirement of the old login.
    pub retirement: Retirement,
    /// The incidents that concern the secret, without those whose `reportedAt` is still in the future.
    pub incidents: Vec<Incident>,
}

impl Desired<'_> {
    /// Returns true when hosts or a target take part in a rotation. Each of them may take a long time.
    pub fn concerns_others(&self) -> bool {
        self.strategy.is_some() || !self.hosts.is_empty()
    }
}

/// A report that somebody may have read the value: every value made before `reported_at` has to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The incident's `reportedAt`, or its creation time if that is earlier.
    pub reported_at: DateTime<Utc>,
    /// Time from which the old credential is revoked even if hosts still use it.
    pub revoke_at: DateTime<Utc>,
}

/// The way in which a target is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The old login stops working at the moment when the new one starts to work.
    InPlace,
    /// Both logins work until the old one is retired.
    Alternating,
    /// Both logins work until the old one is retired, and only the target can make a login: it exists before its
    /// record.
    Issued,
}

/// Settings and state for the retirement of the old login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retirement {
    /// Time to wait after all hosts have proven the new value.
    pub after: TimeDelta,
    /// Minimum age at which a login that the target made and that has no record (an orphan) is deleted: at least the
    /// grace period.
    pub orphans_after: TimeDelta,
    /// True when a passed verify script is proof enough if no container has the variable.
    pub verify_is_enough: bool,
    /// Time since which every host is known to run the new value, if this was recorded.
    pub proven_since: Option<DateTime<Utc>>,
    /// True when Retire is the step that failed last.
    pub failed: bool,
}

/// The annotation that asks for a rotation.
pub struct Request<'a> {
    /// The value of the annotation `keyturn.dev/rotate-requested-at`; never empty.
    pub token: &'a str,
    /// Hash of the token, as written into published descriptions.
    pub hash: String,
    /// True when status already records the token as handled.
    pub handled: bool,
    /// True when keyturn sees the object for the first time (its status is empty). A token that is present from the
    /// start, as in YAML that is applied again, counts as old unless the parameter is missing too.
    pub first_sight: bool,
}

/// Everything that decides when a rotation may start.
pub struct Timing<'a> {
    /// Greatest age of a value; `None` rotates on demand only.
    pub period: Option<TimeDelta>,
    /// The secret's windows; empty if a rotation may start at any time.
    pub windows: &'a [Window],
    /// The windows of each host that must run the secret; an empty list is a host that is always open.
    pub host_windows: &'a [&'a [Window]],
    /// Minimum time from `created_at`, for an adopted value, or from a rollback to the next scheduled rotation.
    pub first_rotation_delay: TimeDelta,
    /// Length of time over which overdue secrets are spread; zero starts all of them at once.
    pub spread: TimeDelta,
    /// Creation time of the ManagedSecret, by the clock of the API server.
    pub created_at: DateTime<Utc>,
    /// Time of the last rollback if nothing was published since: the value that failed is not retried at once.
    pub rolled_back_at: Option<DateTime<Utc>>,
    /// `<namespace>/<name>` of the ManagedSecret; its hash decides the secret's place in the spread.
    pub identity: &'a str,
}
