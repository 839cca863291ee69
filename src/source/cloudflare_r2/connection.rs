//! The one HTTP client of all R2 sources: its endpoints, its timeouts, and the pause of an account that is throttled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use super::failure::{self, Call};
use crate::api::Reason;
use crate::api::source::cloudflare_r2::CloudflareR2Spec;
use crate::source::TargetError;

/// Addresses of Cloudflare's services. An operator sets them; no Kubernetes object can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Base URL of the API, without a slash at its end.
    pub api: String,
    /// S3 endpoint of an account, with the placeholders `{account}` and `{jurisdiction}` (empty, `.eu` or `.fedramp`).
    pub s3: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            api: "https://api.cloudflare.com/client/v4".to_owned(),
            s3: "https://{account}{jurisdiction}.r2.cloudflarestorage.com".to_owned(),
        }
    }
}

impl Endpoints {
    /// Returns the S3 endpoint for the buckets of a source, without a slash at its end.
    pub fn s3_of(&self, spec: &CloudflareR2Spec) -> String {
        let s3 = self.s3.replace("{account}", &spec.account_id);
        s3.replace("{jurisdiction}", spec.jurisdiction().subdomain()).trim_end_matches('/').to_owned()
    }
}

/// Timeouts of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Timeout of opening a connection, which is a part of `request`.
    pub connect: Duration,
    /// Timeout of one request, including the connection and the answer's body.
    pub request: Duration,
}

impl Limits {
    /// Returns limits well below the grace period. Only tests use a grace period that leaves less than five seconds.
    pub fn below(grace: Duration) -> Self {
        let request = Duration::from_secs(20).min((grace / 3).max(Duration::from_secs(5)));
        Self { connect: request / 2, request }
    }
}

/// Pause of an account that answers "too many requests" without saying for how long.
const PAUSE: Duration = Duration::from_secs(60);
/// Longest pause that is accepted. Cloudflare's longest is five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Longest body that is read, in bytes.
const LONGEST_BODY: usize = 4 << 20;

/// The client that all sources share.
pub struct Connection {
    http: Client,
    pub(super) endpoints: Endpoints,
    /// The end of the pause for each account that is throttled.
    paused: Mutex<HashMap<String, Instant>>,
}

/// The status and body of an answer.
pub(super) struct Reply {
    pub status: StatusCode,
    pub body: Zeroizing<Vec<u8>>,
}

impl Connection {
    /// Creates the client. Does not connect yet.
    ///
    /// # Errors
    /// Returns an error if TLS cannot be set up.
    pub fn new(endpoints: Endpoints, limits: Limits) -> Result<Arc<Self>, TargetError> {
        let unusable = |detail: String| {
            failure::unusable(Reason::TlsNotUsable, format!("TLS cannot be set up: {detail}"))
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = Client::builder()
            .tls_backend_preconfigured(tls)
            // A redirect would send the administering token to another server.
            .redirect(reqwest::redirect::Policy::none())
            // Requests are never repeated automatically; keyturn itself decides when to retry.
            .retry(reqwest::retry::never())
            .connect_timeout(limits.connect)
            .timeout(limits.request)
            .user_agent(concat!("keyturn/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unusable(error.without_url().to_string()))?;
        Ok(Arc::new(Self { http, endpoints, paused: Mutex::default() }))
    }

    pub(super) fn http(&self) -> &Client {
        &self.http
    }

    /// Sends a request for an account, unless the account is paused.
    pub(super) async fn send(
        &self,
        account: &str,
        call: &Call<'_>,
        request: RequestBuilder,
    ) -> Result<Reply, TargetError> {
        if let Some(left) = self.pause_left(account) {
            return Err(failure::throttled(call, left));
        }
        let answer = request.send().await.map_err(|error| failure::of_transport(call, error))?;
        let status = answer.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let pause = retry_after(&answer).unwrap_or(PAUSE).min(LONGEST_PAUSE);
            let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            paused.insert(account.to_owned(), Instant::now() + pause);
            return Err(failure::throttled(call, pause));
        }
        let body = read(answer).await.map_err(|error| failure::of_transport(call, error))?;
        Ok(Reply { status, body })
    }

    fn pause_left(&self, account: &str) -> Option<Duration> {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.get(account)?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reads the body, which may contain a token's value.
async fn read(mut answer: Response) -> Result<Zeroizing<Vec<u8>>, reqwest::Error> {
    // The buffer is large enough from the start, so that growing it leaves no copies behind.
    let length = answer.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(16 << 10);
    let mut body = Zeroizing::new(Vec::with_capacity(length.min(LONGEST_BODY)));
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > LONGEST_BODY {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
