//! What the ManagedSecret reconciler acts through, beside [`Objects`].

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keyturn_api::ManagedSecret;
use keyturn_rotation::observed::Version;
use keyturn_secret_value::SecretValue;

use crate::generator::Random;
use crate::objects::Objects;
use crate::parameter_store::ParameterStore;
use crate::target::{Target, TargetError};

/// Parameter Store by region.
pub trait Regions: Send + Sync {
    fn store(&self, region: &str) -> Arc<dyn ParameterStore>;
}

/// What the last page-wise listing of a region showed of one secret. Metadata only; costs no call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// When the listing was started.
    pub taken_at: DateTime<Utc>,
    /// The latest version of each asked path; `None` where it does not exist.
    pub latest: BTreeMap<String, Option<Version>>,
    /// Paths of records and markers.
    pub staged: Vec<String>,
}

/// The shared inventory of a region.
pub trait Inventory: Send + Sync {
    /// `None` where the listing does not cover these paths, or there is none yet.
    fn glimpse(&self, region: &str, paths: &[String], folder: &str) -> Option<Glimpse>;
    /// Whether a listing is about to cover what is new, as far as those before it tell.
    fn is_coming(&self, region: &str) -> bool;
}

/// The systems that must accept what is published.
#[async_trait]
pub trait Targets: Send + Sync {
    /// The target of this secret, where its source has one. Reads what it takes to log in there; connects to nothing.
    async fn open(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<Arc<dyn Target>>, TargetError>;
    /// The password or token that the target of this secret is administered with, where it names one: it is taken out of
    /// what hosts print. Connects to nothing.
    async fn admin_secret(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<SecretValue>, TargetError>;
}

/// Whether this process may act. Asked right before every effect.
pub trait Leadership: Send + Sync {
    fn is_leader(&self) -> bool;
}

/// The time.
pub trait Clock: Send + Sync {
    fn now(&self) -> DateTime<Utc>;
}

/// All of them.
pub struct Ports {
    pub clock: Arc<dyn Clock>,
    pub objects: Arc<dyn Objects>,
    pub regions: Arc<dyn Regions>,
    pub inventory: Arc<dyn Inventory>,
    pub targets: Arc<dyn Targets>,
    pub leadership: Arc<dyn Leadership>,
    pub random: std::sync::Mutex<Box<dyn Random + Send>>,
}
