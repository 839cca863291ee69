//! What the outside world says about one secret: the evidence that decisions are made from.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::secret_value::SecretValue;

/// Number of a rotation of one secret. One more than every id that is in evidence, never a clock.
pub type RotationId = u64;

/// What keyturn writes into the description of every version that it publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `<cluster>/<namespace>/<name>` of the ManagedSecret.
    pub owner: String,
    pub id: RotationId,
    /// The version that the writer expected to create. SSM keeps a description over a Put that omits it, so only a
    /// version that fits proves who wrote it.
    pub version: i64,
    /// When the value was made.
    pub at: DateTime<Utc>,
    /// Hash of the request (annotation token) that asked for the rotation.
    pub request: Option<String>,
}

/// One version of a parameter, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: i64,
    /// SSM's LastModifiedDate.
    pub modified: DateTime<Utc>,
    /// The user's own part of the description.
    pub text: String,
    /// keyturn's part of the description.
    pub stamp: Option<Stamp>,
}

/// Why a rotation was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Trigger {
    /// The parameter did not exist.
    Missing,
    /// The age reached the period.
    Period,
    /// The annotation asked for it.
    Request,
    /// Somebody else wrote the parameter and `onDrift: Rotate` is set.
    Drift,
    /// A deployment failed for good and `onFailure: RollBack` is set: publishes the previous value again.
    RollBack,
}

/// The immutable record of one rotation, kept as a SecureString below the staging path while the rotation runs.
pub struct Record {
    pub id: RotationId,
    pub trigger: Trigger,
    /// When the values were made.
    pub at: DateTime<Utc>,
    /// The annotation token that asked for it.
    pub request: Option<String>,
    /// What is to be published, by path.
    pub values: BTreeMap<String, SecretValue>,
    /// The version of each path that the values replace; 0 where the path did not exist.
    pub base: BTreeMap<String, i64>,
    /// DockerHosts that had to run it when it began.
    pub hosts: Vec<String>,
}
