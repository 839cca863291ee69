//! Classifies a failed call to SSM: was it applied, is a retry useful, and what should a person do? A write with an
//! unknown outcome is only recognised here. The protocol finds out what happened (it reads the history), since only the
//! protocol knows what it wanted.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::StoreError;
use crate::secret_value::SecretValue;

/// Longest excerpt of AWS's message, in characters.
const MAX_DETAIL: usize = 400;
/// Least number of consecutive bytes of the value in AWS's message for which keyturn withholds the message.
const TELLTALE: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Throttled,
    Denied,
    Rejected,
    /// Certainly not applied: it was never sent, or it was a read.
    Unavailable,
    /// A write that may have been applied.
    Unknown,
}

/// One failed request.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub kind: Kind,
    /// AWS's error code, if there was an answer.
    pub code: Option<String>,
    pub detail: String,
}

impl Failure {
    /// Classifies a failed request. `write` is true if the request might have changed something; `secret` is a value
    /// that must not be quoted.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, write: bool, secret: Option<&SecretValue>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let no_answer = if write { Kind::Unknown } else { Kind::Unavailable };
        let failure = |kind, detail| Self { kind, code: None, detail };
        match error {
            SdkError::ConstructionFailure(_) => {
                failure(Kind::Rejected, format!("the request could not be built: {}", innermost(error)))
            }
            SdkError::TimeoutError(_) => failure(no_answer, "no answer in time".to_owned()),
            SdkError::DispatchFailure(_) => Self::of_dispatch(error, no_answer),
            SdkError::ServiceError(context) => {
                Self::of_answer(context.err(), context.raw().status().as_u16(), no_answer, secret)
            }
            // The answer does not come from SSM. Its text may come from anywhere, so it is not passed on.
            SdkError::ResponseError(context) => failure(
                no_answer,
                format!("the answer (HTTP {}) does not come from SSM", context.raw().status().as_u16()),
            ),
            _ => failure(no_answer, "the AWS SDK failed with an unknown kind of error".to_owned()),
        }
    }

    /// Classifies a request that got no answer. It was not sent if there were no credentials to sign it, or no
    /// connection.
    fn of_dispatch(error: &(dyn Error + 'static), no_answer: Kind) -> Self {
        let failure = |kind, detail| Self { kind, code: None, detail };
        if let Some(credentials) = find::<CredentialsError>(error) {
            let detail = format!("no usable AWS credentials: {}", innermost(credentials));
            return match credentials {
                CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                    failure(Kind::Unavailable, detail)
                }
                _ => failure(Kind::Denied, detail),
            };
        }
        let detail = innermost(error);
        match find::<hyper_util::client::legacy::Error>(error) {
            Some(transport) if transport.is_connect() => {
                failure(Kind::Unavailable, format!("no connection: {detail}"))
            }
            _ => failure(no_answer, format!("the connection was lost: {detail}")),
        }
    }

    fn of_answer<E: ProvideErrorMetadata>(
        error: &E,
        status: u16,
        no_answer: Kind,
        secret: Option<&SecretValue>,
    ) -> Self {
        let code = error.code();
        let kind = match code {
            Some(code) => kind_of(code, status, no_answer),
            None if status == 429 => Kind::Throttled,
            None => no_answer,
        };
        let words = words(kind, error.message().unwrap_or_default(), secret);
        let mut detail = match code {
            Some(code) => code.to_owned(),
            None => format!("HTTP {status}"),
        };
        for part in [words.as_str(), code.and_then(remedy).unwrap_or_default()] {
            if !part.is_empty() {
                detail.push_str(": ");
                detail.push_str(part.trim_end_matches('.'));
            }
        }
        Self { kind, code: code.map(str::to_owned), detail }
    }

    /// Returns true when the same request may be sent again at once: it was certainly not applied, and may succeed
    /// later.
    pub(super) fn is_worth_another_try(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Unavailable)
    }

    /// Returns the failure's label in the metrics.
    pub(super) fn result(&self) -> &'static str {
        match self.kind {
            Kind::Throttled => "throttled",
            Kind::Denied => "denied",
            Kind::Rejected => "rejected",
            Kind::Unavailable => "unavailable",
            Kind::Unknown => "unknown",
        }
    }

    pub(super) fn into_error(self, operation: &'static str, path: &str) -> StoreError {
        let (path, detail) = (path.to_owned(), self.detail);
        match self.kind {
            Kind::Throttled => StoreError::Throttled { operation, path, detail },
            Kind::Denied => StoreError::Denied { operation, path, detail },
            Kind::Rejected => StoreError::Rejected { operation, path, detail },
            Kind::Unavailable => StoreError::Unavailable { operation, path, detail },
            Kind::Unknown => StoreError::Unknown { operation, path, detail },
        }
    }
}

fn kind_of(code: &str, status: u16, no_answer: Kind) -> Kind {
    match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "TooManyUpdates" => Kind::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidKeyId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException" => Kind::Denied,
        _ if (400..500).contains(&status) => Kind::Rejected,
        // InternalServerError and similar errors do not show what was done before the failure.
        _ => no_answer,
    }
}

/// Returns a remedy for an error that SSM's own message does not explain.
fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "ParameterMaxVersionLimitExceeded" => {
            "SSM keeps 100 versions and does not drop the oldest while it has a label; move or remove that label"
        }
        "HierarchyTypeMismatchException" => {
            "the parameter exists with another type, and keyturn writes SecureStrings; publish under another path, or \
             delete the parameter once nobody reads it"
        }
        "ParameterLimitExceeded" => {
            "the account has reached its quota of standard parameters in the region; delete some or raise \
             the quota"
        }
        "ParameterPatternMismatchException" => {
            "the parameter has an AllowedPattern that the new value does not match; change the pattern or \
             spec.generate"
        }
        "InvalidKeyId" => {
            "check spec.ssm.kmsKeyId, and that the key is enabled and its policy lets keyturn use it"
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" => {
            "check the secret access key, and the clock of the node"
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" => {
            "the access key does not exist, or the region is not enabled for the account"
        }
        _ => return None,
    })
}

/// Returns AWS's message, unless it might quote the value: validation errors quote the rejected input.
fn words(kind: Kind, message: &str, secret: Option<&SecretValue>) -> String {
    // Refusals by IAM, KMS and quotas contain only names. They may be shown, even if a record contains the same names.
    let may_quote = !matches!(kind, Kind::Throttled | Kind::Denied);
    if secret.is_some_and(|value| quotes(message, value, if may_quote { TELLTALE } else { usize::MAX })) {
        return "AWS's message is withheld, since it may quote the value".to_owned();
    }
    excerpt(message)
}

/// Returns the beginning and the end of a long text: AWS first quotes the rejected input, then says why.
fn excerpt(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= MAX_DETAIL {
        return text.to_owned();
    }
    let (head, tail) = (&characters[..MAX_DETAIL / 2], &characters[characters.len() - MAX_DETAIL / 2..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

/// Returns true when `message` contains the value, or `length` consecutive bytes of it.
fn quotes(message: &str, value: &SecretValue, length: usize) -> bool {
    let value = value.expose().as_bytes();
    let length = length.min(value.len());
    length > 0 && value.windows(length).any(|part| message.as_bytes().windows(length).any(|w| w == part))
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// Returns the innermost cause, on which a person can act.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<String> = chain(error).map(ToString::to_string).collect();
    // The last two causes are the clearest ("tcp connect error" / "Connection refused"); only one if they repeat each
    // other.
    let mut last: Vec<&str> = causes.iter().rev().take(2).map(String::as_str).collect();
    last.reverse();
    if let [outer, inner] = last[..]
        && outer.contains(inner)
    {
        last = vec![outer];
    }
    excerpt(&last.join(": "))
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_kind() {
        let cases = [
            ("ThrottlingException", 400, Kind::Throttled),
            ("TooManyUpdates", 400, Kind::Throttled),
            ("AccessDeniedException", 400, Kind::Denied),
            ("InvalidKeyId", 400, Kind::Denied),
            ("UnrecognizedClientException", 400, Kind::Denied),
            ("ExpiredTokenException", 400, Kind::Denied),
            ("ParameterMaxVersionLimitExceeded", 400, Kind::Rejected),
            ("HierarchyTypeMismatchException", 400, Kind::Rejected),
            ("ValidationException", 400, Kind::Rejected),
            ("ParameterPatternMismatchException", 400, Kind::Rejected),
            ("SomethingNew", 400, Kind::Rejected),
            ("InternalServerError", 500, Kind::Unknown),
            ("ServiceUnavailable", 503, Kind::Unknown),
        ];
        for (code, status, kind) in cases {
            assert_eq!(kind_of(code, status, Kind::Unknown), kind, "{code}");
        }
        assert_eq!(kind_of("InternalServerError", 500, Kind::Unavailable), Kind::Unavailable);
    }

    #[test]
    fn a_message_that_shows_a_part_of_the_value_is_withheld() {
        let value = SecretValue::new("correct-horse-battery".into());
        for message in
            ["Value 'correct-horse-battery' at 'value' is bad", "Value 'correct-hor…'", "x horse-battery"]
        {
            assert!(!words(Kind::Rejected, message, Some(&value)).contains("hor"), "{message}");
        }
        let short = SecretValue::new("abc".into());
        assert!(!words(Kind::Rejected, "Value 'abc' is bad", Some(&short)).contains("abc"));
        assert!(!words(Kind::Denied, "no correct-horse-battery", Some(&value)).contains("horse"));
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let message = format!("1 validation error: Value '{}' must be shorter", "é".repeat(2000));
        let excerpt = words(Kind::Rejected, &message, None);
        assert!(excerpt.starts_with("1 validation error") && excerpt.ends_with("must be shorter"));
        assert_eq!(excerpt.chars().count(), MAX_DETAIL + 1);
    }

    #[test]
    fn a_refusal_may_name_what_a_record_names_too() {
        let record = SecretValue::new("{\"hosts\":[\"musehub-production\"]}".into());
        let message =
            "User: arn:aws:iam::1:user/x is not authorized on parameter/keyturn/lab/musehub-production/x/1";
        assert_eq!(words(Kind::Denied, message, Some(&record)), message);
    }
}
