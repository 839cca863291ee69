//! The port to CloudTrail: a page of events at a time.

use async_trait::async_trait;

use super::event::Call;
use super::reading::Query;

/// One page of events.
#[derive(Debug, Default)]
pub struct Page {
    /// The latest first; `None` for one that cannot be read.
    pub calls: Vec<Option<Call>>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

/// Why CloudTrail could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrailError {
    #[error(
        "CloudTrail in {region} takes fewer calls than are made by everybody in the account together; it is read more slowly"
    )]
    Throttled { region: String },
    #[error(
        "keyturn may not read CloudTrail in {region}: allow cloudtrail:LookupEvents to its role (docs/incidents.md); the \
         response itself does not need it"
    )]
    Denied { region: String },
    #[error("CloudTrail in {region} could not be read: {detail}; keyturn tries again by itself")]
    Failed { region: String, detail: String },
}

/// The account's trail.
#[async_trait]
pub trait Trail: Send + Sync {
    /// The events of a query, a page at a time.
    async fn page(&self, query: &Query, token: Option<&str>) -> Result<Page, TrailError>;
}
