//! Faults on demand: what they do to the request that they hit, which is a `CreateToken`, `ListTokens`, `GetToken`,
//! `DeleteToken`, `PermissionGroups`, `VerifyToken`, `ListObjects` or `ListBuckets` of an account.

use serde::{Deserialize, Serialize};

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// HTTP 429, with `Retry-After` where it says so.
    Throttle {
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// HTTP 500, after the request was applied or instead.
    ServerError {
        #[serde(default)]
        applied: bool,
    },
    /// No answer while the client waits.
    Hang {
        #[serde(default)]
        applied: bool,
    },
    /// The connection closes without an answer.
    Drop {
        #[serde(default)]
        applied: bool,
    },
    /// Applied at once, and answered after this time.
    Slow { ms: u64 },
    /// Applied, and answered with something that is not JSON.
    Garbage,
    /// Any error of Cloudflare's API; nothing is applied.
    Error { status: u16, code: u32, message: String },
}

impl Fault {
    /// Whether the request is applied all the same.
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
