//! What is wanted of one secret.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::{IfMissing, OnDrift, OnFailure};
use keyturn_api::window::Window;

/// What is wanted of one secret.
pub struct Desired<'a> {
    /// `<cluster>/<namespace>/<name>`.
    pub owner: &'a str,
    /// When the object was asked to be deleted.
    pub deleting: Option<DateTime<Utc>>,
    /// How long it is held after that, at the most, to finish its rotation.
    pub deletion_bound: TimeDelta,
    /// `deletionPolicy: Delete`.
    pub delete_parameters: bool,
    pub suspended: bool,
    /// Whether the object carries keyturn's finalizer.
    pub finalizer: bool,
    /// Since when this process, while it led, has seen no record; `None` where it has seen one, or has just begun to
    /// look. A record that is younger than the grace may be there and not be visible yet.
    pub settled_since: Option<DateTime<Utc>>,
    pub if_missing: IfMissing,
    pub on_failure: OnFailure,
    pub on_drift: OnDrift,
    /// Postgres roles that the source may give a password.
    pub roles: Vec<&'a str>,
    /// The KMS key that the spec names.
    pub kms_key: Option<&'a str>,
    /// Whether what is published may be a ring of keys, each of which opens something.
    pub rings: bool,
    /// By path: a value like those that are drawn, where it matters what they look like.
    pub samples: BTreeMap<String, String>,
    /// Whether SSM has refused the publication of the record that lies open, for good.
    pub promotion_refused: bool,
    /// DockerHosts that must run it.
    pub hosts: Vec<String>,
    pub request: Option<Request<'a>>,
    pub timing: Timing<'a>,
    /// When the hosts were last asked to show that a rotation may start.
    pub preflight_requested: Option<DateTime<Utc>>,
    /// How a target is changed; `None` where nothing but the hosts has to accept the value.
    pub strategy: Option<Strategy>,
    /// Whether the roles may be made from the published one; `false` where that is only to be shown.
    pub may_set_up: bool,
    pub retirement: Retirement,
    /// The suspicions that concern the secret. Ones that were reported in the future are left out until then.
    pub incidents: Vec<Incident>,
}

impl Desired<'_> {
    /// Whether hosts or a target have a part in a rotation, and may take their time.
    pub fn concerns_others(&self) -> bool {
        self.strategy.is_some() || !self.hosts.is_empty()
    }
}

/// A suspicion that somebody has read the value: every value that was made before `reported_at` has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    pub reported_at: DateTime<Utc>,
    /// From then on the old credential is revoked whether hosts have left it or not.
    pub revoke_at: DateTime<Utc>,
}

/// How a target is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The old login stops working as the new one begins to.
    InPlace,
    /// Both work until the old one is retired.
    Alternating,
    /// The same, and only the target can make a login: it exists before its record does.
    Issued,
}

/// When the old login is retired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retirement {
    /// How long after the proof.
    pub after: TimeDelta,
    /// How old a login that the target made must be before it is deleted for having no record: at least the grace.
    pub orphans_after: TimeDelta,
    /// Whether a passed verify script counts where no container has the variable.
    pub verify_is_enough: bool,
    /// Since when every host has been known to run the new value, as far as that is remembered.
    pub proven_since: Option<DateTime<Utc>>,
    /// Whether it is what failed last.
    pub failed: bool,
}

/// The annotation that asks for a rotation.
pub struct Request<'a> {
    pub token: &'a str,
    /// Its hash, as published descriptions carry it.
    pub hash: String,
    /// Whether status already says that it was dealt with.
    pub handled: bool,
    /// Whether this is the first time that keyturn looks at the object (its status is empty): a token that came with
    /// the object, as in re-applied YAML, is an old one unless the parameter is missing too.
    pub first_sight: bool,
}

/// When a rotation may start.
pub struct Timing<'a> {
    /// `None`: on demand only.
    pub period: Option<TimeDelta>,
    pub windows: &'a [Window],
    pub host_windows: &'a [&'a [Window]],
    pub first_rotation_delay: TimeDelta,
    pub spread: TimeDelta,
    pub created_at: DateTime<Utc>,
    /// When a rotation was rolled back last, where nothing was published since: what failed is not tried again at once.
    pub rolled_back_at: Option<DateTime<Utc>>,
    pub identity: &'a str,
}
