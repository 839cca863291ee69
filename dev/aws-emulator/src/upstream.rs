//! Forwards requests to another SSM, such as moto, so that it gets the faults and the call log too.

use axum::body::Bytes;
use axum::http::{Method, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::error::AwsError;
use crate::wire::{Answer, Request};

/// Another SSM, to which requests are forwarded.
pub struct Upstream {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// The URL of an upstream cannot be used: it is not `http://` with a host. Contains the URL.
#[derive(Debug, thiserror::Error)]
#[error("--upstream takes http://HOST:PORT, not {0}")]
pub struct NotHttp(String);

impl Upstream {
    /// Creates a client of the SSM at this URL. It connects with the first request.
    pub fn new(url: &str) -> Result<Self, NotHttp> {
        let uri: Uri = url.parse().map_err(|_| NotHttp(url.to_owned()))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            return Err(NotHttp(url.to_owned()));
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { base: url.trim_end_matches('/').to_owned(), client })
    }

    /// Forwards a request unchanged.
    pub async fn call(&self, request: &Request) -> Answer {
        self.send(Method::POST, "/", &request.headers, request.body.clone()).await
    }

    /// Forwards any request, including those for moto's own administration.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &axum::http::HeaderMap,
        body: Bytes,
    ) -> Answer {
        let mut request = hyper::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            let per_hop =
                [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
            if !per_hop.contains(name) {
                request = request.header(name, value);
            }
        }
        let unreachable = |what: String| {
            Answer::from(AwsError { status: 502, code: "BadGateway".to_owned(), message: what })
        };
        let request = match request.body(Full::new(body)) {
            Ok(request) => request,
            Err(error) => return unreachable(error.to_string()),
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return unreachable(error.to_string()),
        };
        let status = response.status().as_u16();
        match response.into_body().collect().await {
            Ok(body) => Answer { status, body: body.to_bytes() },
            Err(error) => unreachable(error.to_string()),
        }
    }
}
