//! Faults on demand, and their effect on the request that they hit.

use serde::{Deserialize, Serialize};

use crate::error::AwsError;

/// The effect on a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// Any error answer, with or without applying the request.
    Error {
        /// AWS's error code, such as `InternalServerError`.
        code: String,
        /// Text of the error; empty by default.
        #[serde(default)]
        message: String,
        /// HTTP status; 400 by default.
        #[serde(default = "client_error")]
        status: u16,
        /// True if the request is applied in spite of the error; false by default.
        #[serde(default)]
        applied: bool,
    },
    /// ThrottlingException.
    Throttle,
    /// TooManyUpdates, which the SDK does not retry.
    TooManyUpdates,
    /// AccessDeniedException; the request is not applied.
    AccessDenied,
    /// Access denied for a PutParameter with Overwrite only, as by a policy with the condition key
    /// `ssm:Overwrite`.
    OverwriteDenied,
    /// HTTP 500.
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
    /// No answer; the request is applied later: after this time, or when released.
    Late {
        /// Delay in milliseconds; `None` holds the request until it is released.
        #[serde(default)]
        after_ms: Option<u64>,
    },
    /// The request is applied and answered, and applied again: after this time, or when released.
    Duplicate {
        /// Delay of the second time in milliseconds; `None` holds it until it is released.
        #[serde(default)]
        after_ms: Option<u64>,
    },
    /// Answers a read with the state as it was this many writes ago.
    Stale {
        /// Number of the latest writes, in the whole region, that the read does not show.
        writes: usize,
    },
    /// Answers after this time.
    Slow {
        /// Delay in milliseconds, after which the request is applied and answered.
        ms: u64,
    },
}

fn client_error() -> u16 {
    400
}

impl Fault {
    /// Returns the error answer, and true if the request is also applied.
    pub fn error(&self, operation: &str, path: &str) -> Option<(AwsError, bool)> {
        let error = |status, code: &str, message: &str| AwsError {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        };
        Some(match self {
            Self::Error { code, message, status, applied } => (error(*status, code, message), *applied),
            Self::Throttle => (throttled(), false),
            Self::TooManyUpdates => (
                error(
                    400,
                    "TooManyUpdates",
                    "There are concurrent updates for a resource that supports one update at \
                                              a time.",
                ),
                false,
            ),
            Self::AccessDenied | Self::OverwriteDenied => {
                let message = format!(
                    "User: arn:aws:iam::{}:user/emulated is not authorized to perform: ssm:{operation} on resource: \
                     {path} because no identity-based policy allows the ssm:{operation} action",
                    crate::ssm::ACCOUNT
                );
                (error(400, "AccessDeniedException", &message), false)
            }
            Self::ServerError { applied } => {
                (error(500, "InternalServerError", "An error occurred on the server side."), *applied)
            }
            _ => return None,
        })
    }
}

pub(crate) fn throttled() -> AwsError {
    AwsError::new("ThrottlingException", "Rate exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    #[test]
    fn rules_are_written_as_json() {
        let rule: Rule = serde_json::from_str(
            r#"{"operation":"PutParameter","path":"/a","times":null,"fault":{"kind":"late","afterMs":50}}"#,
        )
        .unwrap();
        let expected = Rule::once("PutParameter", Fault::Late { after_ms: Some(50) }).on("/a").always();
        assert_eq!(rule, expected);
        let plain: Rule = serde_json::from_str(r#"{"fault":{"kind":"tooManyUpdates"}}"#).unwrap();
        assert_eq!((plain.times, plain.fault), (Some(1), Fault::TooManyUpdates));
        assert!(serde_json::from_str::<Rule>(r#"{"fault":{"kind":"thunder"}}"#).is_err());
    }
}
