//! Routes to a Postgres server: directly, and through the SSH of a docker host to its loopback address.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::failure;
use crate::api::source::postgres::PostgresReason;
use crate::deploy::ssh::client_key::ClientKey;
use crate::deploy::ssh::connection::{Connection, Login, SshError, Timeouts, Tunnel};
use crate::deploy::ssh::known_hosts::KnownHosts;
use crate::deploy::task::Endpoint;
use crate::source::TargetError;

/// The traits of a byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A byte stream to a server. It is a type of its own because the compiler loses the `'static` of a bare `Box<dyn
/// Stream>` when it checks that a future is `Send`.
pub struct Wire(Box<dyn Stream>);

impl Wire {
    /// Wraps a stream that is already connected.
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self(Box::new(stream))
    }
}

/// A route to one server.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Opens a new stream to the server. The caller sets the timeout.
    async fn dial(&self) -> Result<Wire, TargetError>;

    /// Returns the server's name for messages, such as `db.internal:5432`.
    fn server(&self) -> String;
}

/// A server that the controller reaches directly.
#[derive(Clone, Debug)]
pub struct Direct {
    /// Host name or IP address of the server.
    pub host: String,
    /// TCP port of the server.
    pub port: u16,
}

#[async_trait]
impl Dial for Direct {
    async fn dial(&self) -> Result<Wire, TargetError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|error| failure::unreachable(&self.server(), &error.to_string()))?;
        // With Nagle's algorithm small packets wait for each other. A failure to switch it off only costs time.
        let _ = stream.set_nodelay(true);
        Ok(Wire::new(stream))
    }

    fn server(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A server that listens on the loopback address of a docker host. The host must prove its key as for a deployment. One
/// SSH connection carries all streams for as long as this lives.
pub struct ThroughHost {
    /// Name of the DockerHost, for messages.
    pub docker_host: String,
    /// SSH address of the docker host, and the account on it.
    pub host: Endpoint,
    /// The private key of that account.
    pub key: ClientKey,
    /// The jump host in front of the docker host, and the key for it; `None` if there is no jump host.
    pub jump: Option<(Endpoint, ClientKey)>,
    /// The host keys that are accepted, of the docker host and of the jump host.
    pub known_hosts: Arc<KnownHosts>,
    /// Port of the server on the host's loopback address.
    pub port: u16,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl ThroughHost {
    /// Creates the route. The first stream opens the connection.
    pub fn new(
        docker_host: String,
        (host, key): (Endpoint, ClientKey),
        jump: Option<(Endpoint, ClientKey)>,
        known_hosts: Arc<KnownHosts>,
        port: u16,
    ) -> Self {
        Self { docker_host, host, key, jump, known_hosts, port, connection: Mutex::new(None) }
    }

    async fn connection(&self) -> Result<Arc<Connection>, SshError> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let login = Login { endpoint: &self.host, key: &self.key };
        let jump = self.jump.as_ref().map(|(endpoint, key)| Login { endpoint, key });
        let timeouts = Timeouts::default();
        let opened = Connection::open(login, jump, self.known_hosts.clone(), timeouts).await?;
        Ok(kept.insert(Arc::new(opened)).clone())
    }

    fn failed(&self, error: &SshError) -> TargetError {
        match error {
            SshError::HostKey(_) | SshError::HostKeyType { .. } => failure::permanent(
                PostgresReason::HostKeyRefused,
                format!(
                    "keyturn did not connect to the Postgres server {}, since the docker host does not \
                     prove its identity: {error}",
                    self.server()
                ),
            ),
            SshError::AuthenticationFailed { .. } => failure::permanent(
                PostgresReason::HostLoginRefused,
                format!("the Postgres server {} cannot be reached: {error}", self.server()),
            ),
            _ => failure::unreachable(&self.server(), &error.to_string()),
        }
    }
}

#[async_trait]
impl Dial for ThroughHost {
    async fn dial(&self) -> Result<Wire, TargetError> {
        let connection = self.connection().await.map_err(|error| self.failed(&error))?;
        let opened = connection.direct_tcpip("127.0.0.1", self.port).await;
        let stream = opened.map_err(|error| self.failed(&error))?;
        Ok(Wire::new(Tunnelled { stream, _connection: connection }))
    }

    fn server(&self) -> String {
        format!("127.0.0.1:{} of the docker host {}", self.port, self.docker_host)
    }
}

/// A tunnel together with the connection that carries it.
struct Tunnelled {
    stream: Tunnel,
    _connection: Arc<Connection>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl AsyncRead for Tunnelled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnelled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
