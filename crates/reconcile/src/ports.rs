//! The ports that several reconcilers share, in addition to [`Objects`](crate::objects::Objects), and the time of the
//! next pass over an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::ManagedSecret;
use keyturn_rotation::observed::Version;
use keyturn_secret_value::SecretValue;

use crate::parameter_store::ParameterStore;
use crate::target::{Target, TargetError};

/// Access to Parameter Store, by region.
pub trait Regions: Send + Sync {
    /// Returns the Parameter Store of this region, such as `eu-central-1`.
    fn store(&self, region: &str) -> Arc<dyn ParameterStore>;
}

/// State of one secret in the last listing of its region. It contains only metadata, and needs no call to SSM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Time at which the listing was started.
    pub taken_at: DateTime<Utc>,
    /// The latest version of each requested path; `None` if it does not exist.
    pub latest: BTreeMap<String, Option<Version>>,
    /// Paths of the secret's records and abort markers.
    pub staged: Vec<String>,
}

/// The shared inventory of a region.
pub trait Inventory: Send + Sync {
    /// Returns the state of these paths, and of the records below `folder`. `None` if the listing does not cover them,
    /// is stale, or does not exist yet.
    fn excerpt(&self, region: &str, paths: &[String], folder: &str) -> Option<Excerpt>;
    /// True when a listing is about to cover new paths, as far as the listings before it show.
    fn is_coming(&self, region: &str) -> bool;
}

/// Access to the targets: the systems that must accept a credential.
#[async_trait]
pub trait Targets: Send + Sync {
    /// Opens the target of this secret; `None` if its source has no target. Reads the credentials for it, but does not
    /// connect.
    async fn open(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<Arc<dyn Target>>, TargetError>;
    /// Returns the administrator's password or token for the target of this secret, so that it can be redacted from
    /// the output of hosts. `None` if the spec names none. Does not connect.
    async fn admin_secret(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<SecretValue>, TargetError>;
}

/// Shows if this process is the leader. Only the leader may act, so this is checked right before every effect.
pub trait Leadership: Send + Sync {
    /// True while this process is the leader.
    fn is_leader(&self) -> bool;
}

/// The clock.
pub trait Clock: Send + Sync {
    /// Returns the present time.
    fn now(&self) -> DateTime<Utc>;
}

/// Time of the next pass over the object, if no event comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// After this time; zero for at once.
    After(TimeDelta),
    /// The object is gone.
    Never,
}
