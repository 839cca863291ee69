//! `/healthz`, `/readyz` and `/metrics`, over plain HTTP inside the cluster.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

/// A sign of life of the election loop, which all work depends on.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heartbeat {
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed()
    }
}

/// What the endpoints answer from.
pub struct Probes {
    pub heartbeat: Heartbeat,
    /// Without a sign of life for this long, the process is to be restarted.
    pub silence: Duration,
    /// What is still missing until this replica could work, such as `watch of managedsecrets`; empty when nothing is.
    pub missing: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The metrics in OpenMetrics text.
    pub metrics: Box<dyn Fn() -> Result<String, std::fmt::Error> + Send + Sync>,
}

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for health checks and metrics: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Answers until the process ends.
pub async fn serve(
    address: SocketAddr,
    probes: Probes,
) -> Result<impl Future<Output = std::io::Result<()>>, ListenError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(probes));
    Ok(async move { axum::serve(listener, routes).await })
}

async fn healthz(State(probes): State<Arc<Probes>>) -> Response {
    let age = probes.heartbeat.age();
    if age < probes.silence {
        return "ok\n".into_response();
    }
    let text = format!("the leader election has not moved for {}s\n", age.as_secs());
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

/// Replicas that do not lead are ready too: they could take over.
async fn readyz(State(probes): State<Arc<Probes>>) -> Response {
    let missing = (probes.missing)();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", "))).into_response()
}

async fn metrics(State(probes): State<Arc<Probes>>) -> Response {
    match (probes.metrics)() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n").into_response(),
    }
}
