//! The request to a host, during an incident, to collect the log lines about clients that authenticated with a secret.

use chrono::{DateTime, Utc};
use keyturn_api::access_log::HostAccessLog;
use keyturn_api::time::from_kubernetes;
use serde::{Deserialize, Serialize};

use super::revision::short_hash;

/// The subject of log lines: incident, secret and time window. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Name of the SecretIncident.
    pub incident: String,
    /// UID of the SecretIncident.
    pub incident_uid: String,
    /// Name of the ManagedSecret.
    pub secret: String,
    /// Start of the window: the earliest time at which somebody may have used the secret.
    pub since: i64,
    /// End of the window: the containment of the secret, or the time at which `revokeWithin` has passed.
    pub until: i64,
}

impl About {
    /// True when this entry of a host's status is about the same incident and secret, possibly with another time
    /// window.
    pub fn is_that_of(&self, known: &HostAccessLog) -> bool {
        known.incident_uid == self.incident_uid && known.secret == self.secret
    }
}

/// Log lines that a host has to collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Incident, secret and window of the lines.
    pub about: About,
    /// POSIX shell script of `accessLog.script`, which prints the lines.
    pub script: String,
    /// Time limit of the script in seconds, from `accessLog.timeout`.
    pub timeout_seconds: u64,
}

impl Collection {
    /// Returns the revision of the collection: a hash of the incident's UID, the secret, the window and the script.
    pub fn revision(&self) -> String {
        let About { incident_uid, secret, since, until, .. } = &self.about;
        short_hash(&["collect", incident_uid, secret, &since.to_string(), &until.to_string(), &self.script])
    }

    /// True when the host's status shows that the lines of the whole window were collected.
    pub fn is_done(&self, known: &[HostAccessLog]) -> bool {
        self.known(known).is_some_and(|known| {
            known.found.is_some()
                && from_kubernetes(&known.since).timestamp() <= self.about.since
                && from_kubernetes(&known.until).timestamp() >= self.about.until
        })
    }

    /// Time of the next retry. `None` if the last attempt of this revision did not fail, or if there was none.
    pub fn retry_at(&self, known: &[HostAccessLog]) -> Option<DateTime<Utc>> {
        let known = self.known(known).filter(|known| known.revision == self.revision())?;
        known.retry_after.as_ref().map(from_kubernetes)
    }

    /// Returns the entry of the host's status about this incident and secret, possibly of another window or script.
    pub fn known<'a>(&self, known: &'a [HostAccessLog]) -> Option<&'a HostAccessLog> {
        known.iter().find(|known| self.about.is_that_of(known))
    }
}
