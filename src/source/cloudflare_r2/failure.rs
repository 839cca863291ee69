//! Failures at Cloudflare, in words for the person who has to fix them. Bodies of answers contain values, so
//! only Cloudflare's own error codes and messages are passed on.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::api::source::cloudflare_r2::CloudflareR2Reason;
use crate::api::text::is_visible;
use crate::api::{Reason, Trouble};
use crate::source::TargetError;

/// Longest text from Cloudflare that is passed on, in characters.
const LONGEST_DETAIL: usize = 300;
/// Error codes for an invalid token: malformed, missing, unknown or not allowed.
const REFUSED_CODES: [u64; 6] = [1000, 6003, 6111, 9106, 9109, 10000];

/// A call and the account that it was for, as errors name them.
pub(super) struct Call<'a> {
    /// Name of the call, such as `the creation of a token`.
    pub what: &'a str,
    pub account: &'a str,
    /// True if the call changes something.
    pub changes: bool,
}

/// One error of Cloudflare's list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiError {
    code: u64,
    message: String,
}

pub(super) fn unusable(reason: impl Into<Reason>, message: String) -> TargetError {
    Trouble::permanent(reason, message).into()
}

fn passing(reason: CloudflareR2Reason, message: String, outcome_unknown: bool) -> TargetError {
    TargetError { trouble: Trouble::passing(reason, message), outcome_unknown }
}

pub(super) fn throttled(call: &Call<'_>, pause: Duration) -> TargetError {
    let message = format!(
        "Cloudflare throttles account {} for {} s ({} was not done); keyturn retries",
        call.account,
        pause.as_secs().max(1),
        call.what
    );
    passing(CloudflareR2Reason::CloudflareThrottled, message, false)
}

/// Converts a transport error: there was no answer, or only a part of one.
pub(super) fn of_transport(call: &Call<'_>, error: reqwest::Error) -> TargetError {
    let Call { what, account, changes } = call;
    let sent = !error.is_connect() && !error.is_builder();
    // The URL contains no secret, but it is long, and the operator has configured it.
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        detail = format!("{detail}: {inner}");
        cause = inner.source();
    }
    if sent && *changes {
        let message = format!(
            "no usable answer from Cloudflare to {what} in account {account}: {detail}; keyturn checks \
             whether it was done"
        );
        return passing(CloudflareR2Reason::CloudflareNoAnswer, message, true);
    }
    let message =
        format!("Cloudflare could not be reached for {what} in account {account}: {detail}; keyturn retries");
    passing(CloudflareR2Reason::CloudflareUnreachable, message, false)
}

/// Converts an answer whose status is an error.
pub(super) fn of_status(call: &Call<'_>, status: StatusCode, errors: &[ApiError]) -> TargetError {
    let Call { what, account, changes } = call;
    let detail = detail(status, errors);
    let refused = errors.iter().any(|error| REFUSED_CODES.contains(&error.code));
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        || status == StatusCode::BAD_REQUEST && refused
    {
        return unusable(
            Reason::AdministratorRefused,
            format!(
                "Cloudflare refused {what} in account {account}: {detail}. The token of \
                 spec.generate.cloudflareR2.tokenSecretRef must be an account-owned token of this account with the \
                 permission Account API Tokens Write, not expired, and usable from the controller's address"
            ),
        );
    }
    if status.is_server_error() {
        let message = format!("{what} in account {account} failed at Cloudflare: {detail}; keyturn retries");
        return passing(CloudflareR2Reason::CloudflareUnavailable, message, *changes);
    }
    let text = errors.iter().map(|error| error.message.to_lowercase()).collect::<String>();
    if ["maximum number", "limit", "quota", "too many"].iter().any(|word| text.contains(word)) {
        return unusable(
            CloudflareR2Reason::TokenQuotaReached,
            format!(
                "Cloudflare allows no more tokens in account {account}: {detail}. Delete unused tokens \
                 there (an account can have at most 500)"
            ),
        );
    }
    unusable(
        CloudflareR2Reason::CloudflareRejected,
        format!("Cloudflare rejected {what} in account {account}: {detail}"),
    )
}

pub(super) fn keeps_changing(call: &Call<'_>) -> TargetError {
    let Call { what, account, .. } = call;
    let message = format!("{what} in account {account} changed while it was read; keyturn retries");
    passing(CloudflareR2Reason::CloudflareUnavailable, message, false)
}

/// Reports a successful answer with unexpected content. The content is not shown, since it may contain a value.
pub(super) fn not_understood(call: &Call<'_>, status: StatusCode) -> TargetError {
    let Call { what, account, changes } = call;
    let message = format!(
        "the answer to {what} in account {account} (HTTP {}) does not have the format of Cloudflare's API: \
         check the chart's cloudflare.apiUrl, and whether a proxy is in between",
        status.as_u16()
    );
    passing(CloudflareR2Reason::CloudflareNotUnderstood, message, *changes)
}

fn detail(status: StatusCode, errors: &[ApiError]) -> String {
    let said: Vec<String> = errors.iter().map(|error| format!("{} {}", error.code, error.message)).collect();
    let said: String = said.join(", ").chars().filter(|c| is_visible(*c)).take(LONGEST_DETAIL).collect();
    if said.is_empty() {
        format!("HTTP {}", status.as_u16())
    } else {
        format!("HTTP {} ({said})", status.as_u16())
    }
}
