//! Faults on demand, and their effect on the request that they hit, which is a `CreateToken`, `ListTokens`,
//! `GetToken`, `DeleteToken`, `PermissionGroups`, `VerifyToken`, `ListObjects` or `ListBuckets` of an account.

use serde::{Deserialize, Serialize};

/// The effect on a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// HTTP 429, with `Retry-After` if there is a value.
    Throttle {
        /// Value of `Retry-After` in seconds; no such header by default.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// HTTP 500, with or without applying the request.
    ServerError {
        /// True if the request is applied in spite of the error; false by default.
        #[serde(default)]
        applied: bool,
    },
    /// No answer while the client waits.
    Hang {
        /// True if the request is applied although the client gets no answer; false by default.
        #[serde(default)]
        applied: bool,
    },
    /// Closes the connection without an answer.
    Drop {
        /// True if the request is applied before the connection is closed; false by default.
        #[serde(default)]
        applied: bool,
    },
    /// Applies the request at once, and answers after this time.
    Slow {
        /// Delay of the answer in milliseconds.
        ms: u64,
    },
    /// Applies the request, and answers with something that is not JSON.
    Garbage,
    /// Any error of Cloudflare's API; the request is not applied.
    Error {
        /// HTTP status.
        status: u16,
        /// Cloudflare's error code; not part of an answer of the S3 endpoint.
        code: u32,
        /// Text of the error for people.
        message: String,
    },
}

impl Fault {
    /// True if the request is applied in spite of the fault.
    pub fn applies(&self) -> bool {
        match self {
            Fault::ServerError { applied } | Fault::Hang { applied } | Fault::Drop { applied } => *applied,
            Fault::Slow { .. } | Fault::Garbage => true,
            Fault::Throttle { .. } | Fault::Error { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    #[test]
    fn rules_are_written_as_json() {
        let rule: Rule = serde_json::from_str(
            r#"{"operation":"DeleteToken","account":"a","skip":1,"fault":{"kind":"throttle","retryAfter":3}}"#,
        )
        .unwrap();
        let expected =
            Rule::once("DeleteToken", Fault::Throttle { retry_after: Some(3) }).on("a").skipping(1);
        assert_eq!(rule, expected);
    }
}
