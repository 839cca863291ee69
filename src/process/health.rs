//! `/healthz`, `/readyz` and `/metrics`, over plain HTTP inside the cluster.
//!
//! Anybody who reaches the port may open connections and stay silent. So a connection serves one request and ends at a
//! deadline no matter what its peer does, and their number is limited: a new connection replaces the oldest one, so
//! that a flood of silent connections cannot lock out the kubelet.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::cluster::lease::Heartbeat;

/// Limits for the connections of peers.
#[derive(Clone, Copy)]
struct Limits {
    /// Longest time from the opening of a connection to its end.
    deadline: Duration,
    /// Largest number of connections at a time.
    connections: usize,
}

/// The kubelet waits for 5 seconds and Prometheus for 10; together they need three connections.
const LIMITS: Limits = Limits { deadline: Duration::from_secs(10), connections: 32 };
/// Pause after a connection that could not be accepted, for example because no file descriptor was free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sources of the endpoints' answers.
pub struct Probes {
    /// Heartbeat of the election loop, for `/healthz`.
    pub heartbeat: Heartbeat,
    /// Time without a heartbeat after which `/healthz` fails, so that the kubelet restarts the process.
    pub silence: Duration,
    /// Returns what this replica still lacks before it could work, such as `watch of managedsecrets`; empty when
    /// nothing.
    pub missing: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Returns the metrics as OpenMetrics text.
    pub metrics: Box<dyn Fn() -> Result<String, std::fmt::Error> + Send + Sync>,
}

/// The server could not listen on its address.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for health checks and metrics: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Serves requests until the process ends.
pub async fn serve(address: SocketAddr, probes: Probes) -> Result<impl Future<Output = ()>, ListenError> {
    let listener = TcpListener::bind(address).await.map_err(|source| ListenError { address, source })?;
    Ok(answer(listener, routes(probes), LIMITS))
}

fn routes(probes: Probes) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(probes))
}

async fn answer(listener: TcpListener, routes: Router, limits: Limits) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for health checks and metrics could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() == limits.connections
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(converse(stream, routes.clone(), limits.deadline)).abort_handle());
    }
}

/// Answers one request. An error during the exchange is visible only to the peer.
async fn converse(stream: TcpStream, routes: Router, deadline: Duration) {
    let service = TowerToHyperService::new(routes);
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(deadline, connection).await;
}

async fn healthz(State(probes): State<Arc<Probes>>) -> Response {
    let age = probes.heartbeat.age();
    if age < probes.silence {
        return "ok\n".into_response();
    }
    let text = format!("the leader election has made no progress for {}s\n", age.as_secs());
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

/// Answers `/readyz`. Replicas that do not lead are ready too, since they could take over.
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn serving(limits: Limits) -> SocketAddr {
        let probes = Probes {
            heartbeat: Heartbeat::default(),
            silence: Duration::from_secs(600),
            missing: Box::new(Vec::new),
            metrics: Box::new(|| Ok("# EOF\n".to_owned())),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(answer(listener, routes(probes), limits));
        address
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Waits until the server has ended a connection, in whatever way.
    async fn ended(mut stream: TcpStream) {
        let mut rest = Vec::new();
        tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest))
            .await
            .expect("the connection is still open")
            .ok();
    }

    #[tokio::test]
    async fn a_peer_that_opens_many_connections_and_says_nothing_holds_few_and_shuts_nobody_out() {
        // Only the limit on their number can end them.
        let address = serving(Limits { deadline: Duration::from_secs(3600), ..LIMITS }).await;
        let mut silent = VecDeque::new();
        for _ in 0..4 * LIMITS.connections {
            silent.push_back(TcpStream::connect(address).await.unwrap());
        }
        assert!(ask(address, "/healthz").await.ends_with("ok\n"));
        assert!(ask(address, "/metrics").await.ends_with("# EOF\n"));
        for oldest in silent.drain(..3 * LIMITS.connections) {
            ended(oldest).await;
        }
    }

    #[tokio::test]
    async fn a_connection_ends_at_its_deadline_whatever_its_peer_has_said_so_far() {
        let address = serving(Limits { deadline: Duration::from_millis(100), ..LIMITS }).await;
        let silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
        ended(silent).await;
        ended(half).await;
    }

    #[tokio::test]
    async fn an_answered_connection_is_closed_rather_than_kept_for_another_request() {
        let address = serving(LIMITS).await;
        // The client reads until the server closes the connection.
        assert!(ask(address, "/readyz").await.contains("connection: close"));
    }
}
