//! The log of every request: its operation, its path and its result. Never a value.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Number of the request, from 1. Clearing the log does not restart the count; a reset does.
    pub number: u64,
    /// Time at which the request was received, by the emulator's clock.
    pub at: DateTime<Utc>,
    /// Region in the scope of the request's signature; empty if the request could not be parsed.
    pub region: String,
    /// The ID of the client's access key.
    pub access_key: String,
    /// Operation, such as `PutParameter`; empty if the request could not be parsed.
    pub operation: String,
    /// The path, or the filter of a list.
    pub path: String,
    /// The version that the request created or read.
    pub version: Option<i64>,
    /// `ok`, AWS's error code, or `none` if there is no answer (yet).
    pub outcome: String,
    /// True once the request was applied to the state.
    pub applied: bool,
    /// The fault that hit it.
    pub fault: Option<String>,
}

#[derive(Default)]
pub(crate) struct Calls {
    log: Vec<Call>,
    count: u64,
}

impl Calls {
    /// Adds a request and returns its number.
    pub(crate) fn begin(
        &mut self,
        at: DateTime<Utc>,
        region: &str,
        access_key: &str,
        operation: &str,
        path: &str,
    ) -> u64 {
        self.count += 1;
        self.log.push(Call {
            number: self.count,
            at,
            region: region.to_owned(),
            access_key: access_key.to_owned(),
            operation: operation.to_owned(),
            path: path.to_owned(),
            version: None,
            outcome: "none".to_owned(),
            applied: false,
            fault: None,
        });
        self.count
    }

    /// Changes an entry, unless the log was cleared since then.
    pub(crate) fn update(&mut self, number: u64, change: impl FnOnce(&mut Call)) {
        if let Some(call) = self.log.iter_mut().rev().find(|call| call.number == number) {
            change(call);
        }
    }

    pub(crate) fn all(&self) -> &[Call] {
        &self.log
    }

    /// Returns the number of all requests so far, which is the number of the last one.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn clear(&mut self) {
        self.log.clear();
    }
}
