//! A connection to a host. It opens only if the host proves its identity, and carries commands and tunnels.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, AuthResult, DisconnectReason, Handle, Msg};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, ChannelOpenFailure, ChannelStream, Disconnect, compression};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::client_key::{ClientKey, RsaSigner, SignError, Signer};
use super::known_hosts::{HostKeyRefused, KnownHosts};
use crate::api::docker_host::RunResult;
use crate::deploy::task::Endpoint;
use crate::text::HostText;

/// The account to log in to, and its host.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// Address of the host, and name of the account.
    pub endpoint: &'a Endpoint,
    /// The private key of the account.
    pub key: &'a ClientKey,
}

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Time limit of the name lookup, TCP, key exchange and login together, for each host on the route. The library
    /// sets no limit itself.
    pub connect: Duration,
    /// Time without data after which a keepalive message is sent to a host.
    pub keepalive_interval: Duration,
    /// Number of unanswered keepalive messages after which the connection counts as lost.
    pub keepalive_max: usize,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(5),
            keepalive_max: 3,
        }
    }
}

/// The reason why an SSH operation failed. The text says what to do if that is known.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The connection failed before the end of the login, or [`Timeouts::connect`] has passed.
    #[error("{host} cannot be reached: {cause}")]
    Unreachable {
        /// Name or address of the host.
        host: String,
        /// The reason, for people.
        cause: String,
    },
    /// known_hosts does not confirm the host's key. No login was sent.
    #[error("the host key is refused: {0}")]
    HostKey(Box<HostKeyRefused>),
    /// The host has no key of a type that keyturn can verify.
    #[error(
        "{host} has only host keys of the types {offered}, and keyturn verifies only ssh-ed25519 and \
         ecdsa-sha2-nistp256/384/521; create such a key on the host with `ssh-keygen -A` and add its line \
         to knownHosts"
    )]
    HostKeyType {
        /// Name or address of the host.
        host: String,
        /// The key types that the host offers, separated by commas.
        offered: String,
    },
    /// The host does not accept the key for this account, or demands more than the key.
    #[error(
        "{host} refuses the login of {user} with the key {key}{hint}; add the key to the account's \
         authorized_keys"
    )]
    AuthenticationFailed {
        /// Name or address of the host.
        host: String,
        /// Name of the account.
        user: String,
        /// Type and fingerprint of our key.
        key: String,
        /// The other login methods that the host demands, for people; empty if it demands none.
        hint: String,
    },
    /// The connection ended during the login, or while a command or a tunnel was being started.
    #[error("the connection to {host} was lost: {cause}")]
    ConnectionLost {
        /// Name or address of the host.
        host: String,
        /// The reason, for people.
        cause: String,
    },
    /// The command may have ended in any way, or may still run.
    #[error("the connection to {host} ended before the command did: {cause}")]
    OutcomeUnknown {
        /// Name or address of the host.
        host: String,
        /// The reason, for people.
        cause: String,
    },
    /// The host's sshd did not start the command.
    #[error(
        "{host} refused to run a command: its sshd or authorized_keys does not allow that for this account"
    )]
    CommandRefused {
        /// Name or address of the host.
        host: String,
    },
    /// The host's sshd did not open the tunnel. The connection itself still works.
    #[error("{host} did not connect to {target}: {cause}")]
    TunnelRefused {
        /// Name or address of the host that should open the tunnel.
        host: String,
        /// Address at the other end of the tunnel, `host:port`.
        target: String,
        /// The reason, for people.
        cause: String,
    },
}

impl SshError {
    /// Returns the outcome that a run's report gives for this error.
    pub fn outcome(&self) -> RunResult {
        match self {
            Self::Unreachable { .. } | Self::TunnelRefused { .. } => RunResult::Unreachable,
            Self::HostKey(_) | Self::HostKeyType { .. } => RunResult::HostKeyRefused,
            Self::AuthenticationFailed { .. } => RunResult::AuthenticationFailed,
            Self::ConnectionLost { .. } | Self::OutcomeUnknown { .. } => RunResult::ConnectionLost,
            Self::CommandRefused { .. } => RunResult::HostUnfit,
        }
    }
}

/// The stream from which a piece of output came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output of the command.
    Stdout,
    /// Standard error of the command.
    Stderr,
}

/// The way in which a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command ended with this exit code.
    Code(u32),
    /// The name of the signal, without `SIG`.
    Signal(String),
}

/// A byte stream through the host to something that the host can reach.
pub type Tunnel = ChannelStream<Msg>;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to a host that has proven its key and accepted our key. Dropping it closes it.
pub struct Connection {
    host: String,
    session: Handle<HostCheck>,
    events: Arc<Mutex<Events>>,
    /// Carries this connection and must outlive it.
    _jump: Option<Box<Connection>>,
}

/// Information that the library passes to its handler only.
#[derive(Default)]
struct Events {
    refused: Option<Box<HostKeyRefused>>,
    ended: Option<String>,
}

struct HostCheck {
    host: String,
    port: u16,
    known_hosts: Arc<KnownHosts>,
    events: Arc<Mutex<Events>>,
}

fn locked(events: &Mutex<Events>) -> std::sync::MutexGuard<'_, Events> {
    // The content is plain data: it stays valid if the holder of the lock panics.
    events.lock().unwrap_or_else(PoisonError::into_inner)
}

impl client::Handler for HostCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let now = u64::try_from(chrono::Utc::now().timestamp()).unwrap_or(0);
        match self.known_hosts.check(&self.host, self.port, offered, now) {
            Ok(()) => Ok(true),
            Err(refused) => {
                locked(&self.events).refused = Some(refused);
                Ok(false)
            }
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        let (cause, result) = match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                (format!("the host said: {}", printable(&info.message)), Ok(()))
            }
            DisconnectReason::Error(error) => (error.to_string(), Err(error)),
        };
        locked(&self.events).ended = Some(cause);
        result
    }
}

/// Makes a host's text safe for messages and terminals.
fn printable(text: &str) -> String {
    HostText::name(text).into()
}

impl Connection {
    /// Connects to `target`, through `jump` if there is one. `known_hosts` must confirm the keys of both; a host whose
    /// key it does not confirm receives nothing, not even the login.
    pub async fn open(
        target: Login<'_>,
        jump: Option<Login<'_>>,
        known_hosts: Arc<KnownHosts>,
        timeouts: Timeouts,
    ) -> Result<Self, SshError> {
        let jump = match jump {
            Some(login) => Some(Box::new(Self::open_one(login, None, known_hosts.clone(), timeouts).await?)),
            None => None,
        };
        Self::open_one(target, jump, known_hosts, timeouts).await
    }

    async fn open_one(
        login: Login<'_>,
        jump: Option<Box<Connection>>,
        known_hosts: Arc<KnownHosts>,
        timeouts: Timeouts,
    ) -> Result<Self, SshError> {
        let host = &login.endpoint.host;
        match timeout(timeouts.connect, Self::connect(login, jump, known_hosts, timeouts)).await {
            Ok(result) => result,
            Err(_) => Err(SshError::Unreachable {
                host: host.clone(),
                cause: format!("no login within {} s", timeouts.connect.as_secs()),
            }),
        }
    }

    async fn connect(
        login: Login<'_>,
        jump: Option<Box<Connection>>,
        known_hosts: Arc<KnownHosts>,
        timeouts: Timeouts,
    ) -> Result<Self, SshError> {
        let Endpoint { host, port, .. } = login.endpoint;
        let unreachable = |cause: String| SshError::Unreachable { host: host.clone(), cause };
        let stream: Box<dyn Stream> = match &jump {
            Some(jump) => Box::new(jump.direct_tcpip(host, *port).await?),
            None => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|error| unreachable(format!("port {port}: {error}")))?;
                // With Nagle's algorithm small packets wait for each other. A failure to switch it off only costs time.
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
        };
        let algorithms = known_hosts.algorithms(host, *port);
        let config = client::Config {
            keepalive_interval: Some(timeouts.keepalive_interval),
            keepalive_max: timeouts.keepalive_max,
            preferred: russh::Preferred {
                key: algorithms.keys.into(),
                host_key_certificates: algorithms.certificates.into(),
                compression: std::borrow::Cow::Borrowed(&[compression::NONE]),
                ..russh::Preferred::DEFAULT
            },
            ..client::Config::default()
        };
        let events = Arc::new(Mutex::new(Events::default()));
        let check = HostCheck { host: host.clone(), port: *port, known_hosts, events: events.clone() };
        let session = match client::connect_stream(Arc::new(config), stream, check).await {
            Ok(session) => session,
            Err(error) => {
                if let Some(refused) = locked(&events).refused.take() {
                    return Err(SshError::HostKey(refused));
                }
                return Err(match error {
                    russh::Error::NoCommonAlgo { kind: russh::AlgorithmKind::Key, theirs, .. } => {
                        SshError::HostKeyType { host: host.clone(), offered: printable(&theirs.join(", ")) }
                    }
                    error => unreachable(format!("port {port}: {error}")),
                });
            }
        };
        let mut connection = Self { host: host.clone(), session, events, _jump: jump };
        connection.log_in(login).await?;
        Ok(connection)
    }

    async fn log_in(&mut self, login: Login<'_>) -> Result<(), SshError> {
        let user = login.endpoint.user.as_str();
        let result = match login.key.signer() {
            Signer::Library(key) => self
                .session
                .authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, None))
                .await
                .map_err(|error| self.lost(&error.to_string()))?,
            Signer::Rsa(signer) => self.log_in_with_rsa(login, signer).await?,
        };
        let hint = match result {
            AuthResult::Success => return Ok(()),
            AuthResult::Failure { .. } if self.session.is_closed() => {
                return Err(SshError::Unreachable {
                    host: self.host.clone(),
                    cause: format!(
                        "the connection ended during the login: {}",
                        self.cause("no reason given")
                    ),
                });
            }
            AuthResult::Failure { partial_success: true, remaining_methods } => {
                format!(
                    " alone (it also requires {})",
                    remaining_methods
                        .iter()
                        .map(|m| <&str>::from(m).to_owned())
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            AuthResult::Failure { .. } => String::new(),
        };
        Err(SshError::AuthenticationFailed {
            host: self.host.clone(),
            user: user.to_owned(),
            key: login.key.fingerprint(),
            hint,
        })
    }

    /// Signs with SHA-512, then with SHA-256: a host may announce an algorithm as supported (`server-sig-algs`) and
    /// still have it switched off (`PubkeyAcceptedAlgorithms`).
    async fn log_in_with_rsa(
        &mut self,
        login: Login<'_>,
        mut signer: RsaSigner,
    ) -> Result<AuthResult, SshError> {
        let user = login.endpoint.user.as_str();
        let mut result =
            AuthResult::Failure { remaining_methods: russh::MethodSet::empty(), partial_success: false };
        for hash in [HashAlg::Sha512, HashAlg::Sha256] {
            result = self
                .session
                .authenticate_publickey_with(user, login.key.public().clone(), Some(hash), &mut signer)
                .await
                .map_err(|error: SignError| self.lost(&error.to_string()))?;
            if !matches!(result, AuthResult::Failure { partial_success: false, .. }) {
                break;
            }
        }
        Ok(result)
    }

    /// Runs `command`, writes `input` to it, and passes on its output, at most `limit` bytes of each stream. Output
    /// above the limit is read and dropped, so that the command never blocks. There is no time limit; the caller must
    /// set one.
    ///
    /// An end without an exit status is [`SshError::OutcomeUnknown`], never a success.
    pub async fn exec(
        &self,
        command: &str,
        input: &[u8],
        limit: usize,
        mut on_output: impl FnMut(Output, &[u8]),
    ) -> Result<Exit, SshError> {
        let channel =
            self.session.channel_open_session().await.map_err(|error| self.lost(&error.to_string()))?;
        let (mut from_host, to_host) = channel.split();
        to_host.exec(true, command).await.map_err(|error| self.lost(&error.to_string()))?;
        let send = async {
            // A command may end without reading its input. Only its exit status counts.
            if to_host.data_bytes(input.to_vec()).await.is_ok() {
                let _ = to_host.eof().await;
            }
        };
        tokio::pin!(send);
        let mut sent = false;
        let mut left = [limit; 2];
        let mut exit = None;
        // A background child may hold the channel open after the command has ended. In that case only the output that
        // is already on its way is read.
        let mut drained_by = None;
        loop {
            let next = async {
                match drained_by {
                    Some(at) => timeout_at(at, from_host.wait()).await.unwrap_or(None),
                    None => from_host.wait().await,
                }
            };
            let message = tokio::select! {
                () = &mut send, if !sent => {
                    sent = true;
                    continue;
                }
                message = next => message,
            };
            let mut hand_on = |stream: Output, data: &[u8]| {
                let left = &mut left[stream as usize];
                let shown = data.len().min(*left);
                *left -= shown;
                if shown > 0 {
                    on_output(stream, &data[..shown]);
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => hand_on(Output::Stdout, &data),
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => hand_on(Output::Stderr, &data),
                Some(ChannelMsg::ExitStatus { exit_status }) => exit = Some(Exit::Code(exit_status)),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    exit = Some(Exit::Signal(printable(&format!("{signal_name:?}"))));
                }
                Some(ChannelMsg::Failure) => {
                    return Err(SshError::CommandRefused { host: self.host.clone() });
                }
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
            if exit.is_some() && drained_by.is_none() {
                drained_by = Some(Instant::now() + Duration::from_secs(1));
            }
        }
        let _ = to_host.close().await;
        exit.ok_or_else(|| SshError::OutcomeUnknown {
            host: self.host.clone(),
            cause: self.cause("the host sent no exit status"),
        })
    }

    /// Runs `command`, writes `input` to it, and returns its standard output as a stream. The end of the stream does
    /// not show how the command ended, so the content must show that it is complete. The command blocks while nobody
    /// reads the stream.
    pub async fn exec_stream(&self, command: &str, input: &[u8]) -> Result<Tunnel, SshError> {
        let lost = |error: russh::Error| self.lost(&error.to_string());
        let channel = self.session.channel_open_session().await.map_err(lost)?;
        channel.exec(true, command).await.map_err(lost)?;
        channel.data_bytes(input.to_vec()).await.map_err(lost)?;
        channel.eof().await.map_err(lost)?;
        Ok(channel.into_stream())
    }

    /// Opens a byte stream to `host:port` as seen from the connected host. It lives as long as this connection.
    pub async fn direct_tcpip(&self, host: &str, port: u16) -> Result<Tunnel, SshError> {
        match self.session.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await {
            Ok(channel) => Ok(channel.into_stream()),
            Err(russh::Error::ChannelOpenFailure(reason)) => Err(SshError::TunnelRefused {
                host: self.host.clone(),
                target: format!("{host}:{port}"),
                cause: match reason {
                    ChannelOpenFailure::AdministrativelyProhibited => {
                        "its sshd does not allow forwarding (AllowTcpForwarding, PermitOpen, or `restrict` \
                         without `port-forwarding` in authorized_keys)"
                    }
                    ChannelOpenFailure::ConnectFailed => "nothing answers there",
                    _ => "it gave no usable reason",
                }
                .to_owned(),
            }),
            Err(error) => Err(self.lost(&error.to_string())),
        }
    }

    /// True if the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Disconnects with a message to the host. Dropping the connection does the same without the message.
    pub async fn close(self) {
        let _ = self.session.disconnect(Disconnect::ByApplication, "done", "en").await;
    }

    fn cause(&self, otherwise: &str) -> String {
        locked(&self.events).ended.clone().unwrap_or_else(|| otherwise.to_owned())
    }

    fn lost(&self, otherwise: &str) -> SshError {
        SshError::ConnectionLost { host: self.host.clone(), cause: self.cause(otherwise) }
    }
}
