//! The connections to the API server: one for calls, one for watches.
//!
//! Neither retries. kube's own retry would repeat every verb, POST included, up to fifteen times on 429, 503 and 504,
//! for minutes: long after the decision behind the request has become stale. Instead the next reconciliation, which
//! reads again, repeats calls; watches have their own backoff.

use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use kube::client::{Body, ClientBuilder};
use tower::util::MapRequestLayer;

use super::client_config;
use super::metrics::Metrics;

/// Longest silence of the API server during one call.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Read timeout of watches: longer than a watch lasts, see `watches`.
const WATCH_TIMEOUT: Duration = Duration::from_secs(180);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections to one API server.
#[derive(Clone)]
pub struct Clients {
    /// For everything except watches. Its write requests are counted in the metrics.
    pub calls: Client,
    /// For watches, which may be silent for minutes. kube's watcher detects a dead watch, but not a dead list.
    pub watches: Client,
}

/// The API server's address, or our credentials for it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is neither a service account nor a kubeconfig, or it cannot be read.
    #[error("no configuration for a connection to Kubernetes, neither of a pod nor in KUBECONFIG: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The client cannot be built, for example because of a certificate or a proxy that cannot be used.
    #[error("cannot set up a connection to Kubernetes: {0}")]
    Client(#[from] kube::Error),
}

/// Creates connections with the pod's service account, or with KUBECONFIG. Nothing is sent yet.
pub async fn connect(metrics: &Metrics) -> Result<Clients, ConnectError> {
    let mut config = client_config::infer().await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    config.default_retry = false;
    // Otherwise the idle time of a pooled connection would count against the next answer.
    config.reset_reader_on_write = true;
    let mut watches = config.clone();
    config.read_timeout = Some(READ_TIMEOUT);
    watches.read_timeout = Some(WATCH_TIMEOUT);
    let metrics = metrics.clone();
    let counted = MapRequestLayer::new(move |request: Request<Body>| {
        count_write(&metrics, &request);
        request
    });
    Ok(Clients {
        calls: ClientBuilder::try_from(config)?.with_layer(&counted).build(),
        watches: ClientBuilder::try_from(watches)?.build(),
    })
}

/// Counts a write request, by resource and verb.
fn count_write(metrics: &Metrics, request: &Request<Body>) {
    let verb = match *request.method() {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return,
    };
    metrics.api_write(&resource(request.uri().path()), verb);
}

/// Returns the resource in a path of the Kubernetes API, with its subresource: `managedsecrets/status`.
fn resource(path: &str) -> String {
    let mut segments = path.trim_matches('/').split('/').peekable();
    match segments.next() {
        Some("api") => drop(segments.next()),
        Some("apis") => drop((segments.next(), segments.next())),
        _ => return "other".into(),
    }
    let mut rest: Vec<&str> = segments.collect();
    if rest.len() >= 3 && rest[0] == "namespaces" {
        rest.drain(..2);
    }
    match rest.as_slice() {
        [] => "other".into(),
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, sub, ..] => format!("{resource}/{sub}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_its_resource_and_subresource() {
        let cases = [
            ("/apis/keyturn.dev/v1alpha1/namespaces/a/managedsecrets/b/status", "managedsecrets/status"),
            ("/apis/keyturn.dev/v1alpha1/namespaces/a/managedsecrets/b", "managedsecrets"),
            ("/apis/coordination.k8s.io/v1/namespaces/a/leases/keyturn", "leases"),
            ("/apis/batch/v1/namespaces/a/jobs", "jobs"),
            ("/api/v1/namespaces/a/secrets/b", "secrets"),
            ("/apis/keyturn.dev/v1alpha1/rotationgrants/g", "rotationgrants"),
            ("/api/v1/namespaces/a", "namespaces"),
            ("/version", "other"),
        ];
        for (path, expected) in cases {
            assert_eq!(resource(path), expected, "{path}");
        }
    }
}
