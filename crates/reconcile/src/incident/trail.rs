//! The port to CloudTrail: returns events page by page.

use async_trait::async_trait;

use super::event::Call;
use super::reading::Query;

/// One page of events.
#[derive(Debug, Default)]
pub struct Page {
    /// The calls, latest first; `None` for an event that cannot be parsed.
    pub calls: Vec<Option<Call>>,
    /// Token of the next page; `None` after the last page.
    pub next: Option<String>,
}

/// The reason why CloudTrail could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrailError {
    /// CloudTrail throttled the call; it is retried after a pause.
    #[error(
        "CloudTrail in {region} throttled LookupEvents, whose quota the whole account shares; reading continues more \
         slowly"
    )]
    Throttled {
        /// Region of the query.
        region: String,
    },
    /// keyturn's role lacks `cloudtrail:LookupEvents`. The call is retried, but only a person can grant the right.
    #[error(
        "keyturn may not read CloudTrail in {region}: allow cloudtrail:LookupEvents to its role (docs/incidents.md); the \
         response itself does not need it"
    )]
    Denied {
        /// Region of the query.
        region: String,
    },
    /// The call failed in another way, for example without a connection; it is retried.
    #[error("CloudTrail in {region} could not be read: {detail}; retrying")]
    Failed {
        /// Region of the query.
        region: String,
        /// The error and its causes.
        detail: String,
    },
}

/// CloudTrail of the account.
#[async_trait]
pub trait Trail: Send + Sync {
    /// Returns one page of the events of a query. `token` is [`Page::next`] of the page before.
    async fn page(&self, query: &Query, token: Option<&str>) -> Result<Page, TrailError>;
}
