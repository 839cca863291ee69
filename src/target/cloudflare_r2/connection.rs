//! The one HTTP client of all R2 sources: where it goes, how long it waits, and when an account wants to be left alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use super::failure::{self, Call};
use crate::api::cloudflare_r2::CloudflareR2Spec;
use crate::target::TargetError;

/// Where Cloudflare answers. An operator sets it; no object can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Base of the API, without a slash at its end.
    pub api: String,
    /// S3 endpoint of an account: `{account}` and `{jurisdiction}` (empty, `.eu` or `.fedramp`) are put in.
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
    /// The S3 endpoint of the buckets of a source, without a slash at its end.
    pub fn s3_of(&self, spec: &CloudflareR2Spec) -> String {
        let s3 = self.s3.replace("{account}", &spec.account_id);
        s3.replace("{jurisdiction}", spec.jurisdiction().subdomain()).trim_end_matches('/').to_owned()
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connect: Duration,
    /// One request, connecting and the answer's body included.
    pub request: Duration,
}

impl Limits {
    /// Limits that stay well below the grace. A grace that leaves less than five seconds is for worlds to test in.
    pub fn below(grace: Duration) -> Self {
        let request = Duration::from_secs(20).min((grace / 3).max(Duration::from_secs(5)));
        Self { connect: request / 2, request }
    }
}

/// What an account is left alone for where it says that there were too many requests, and not for how long.
const PAUSE: Duration = Duration::from_secs(60);
/// Cloudflare's longest pause is five minutes; whatever is longer is not believed.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Longest body that is read.
const LONGEST_BODY: usize = 4 << 20;

/// The client that all sources share.
pub struct Connection {
    http: Client,
    pub(super) endpoints: Endpoints,
    /// By account: until when it wants no requests.
    paused: Mutex<HashMap<String, Instant>>,
}

/// What came back: everything that is known of it.
pub(super) struct Reply {
    pub status: StatusCode,
    pub body: Zeroizing<Vec<u8>>,
}

impl Connection {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(endpoints: Endpoints, limits: Limits) -> Result<Arc<Self>, TargetError> {
        let unusable =
            |detail: String| failure::unusable("TlsNotUsable", format!("TLS cannot be set up: {detail}"));
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
            // A redirect would carry the administering token elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            // Every request is repeated by decision only.
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

    /// Sends a request of an account, unless that wants none for a while.
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

/// The body, which may hold a token's value.
async fn read(mut answer: Response) -> Result<Zeroizing<Vec<u8>>, reqwest::Error> {
    // Room from the start, so that growing leaves no copies behind.
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
