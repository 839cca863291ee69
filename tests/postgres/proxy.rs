//! A way to the server that a test can watch and cut.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use keyturn::source::TargetError;
use keyturn::source::postgres::{Dial, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;

/// The fate of a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Passes,
    /// The connection is cut before the COMMIT is forwarded.
    LostOnTheWay,
    /// The COMMIT is forwarded, and its answer is lost.
    AnswerLost,
    /// The COMMIT is forwarded only after the server has ended the session.
    TooLate,
}

/// Forwards to a port of this machine, records what was sent there, and treats a COMMIT as the test says.
pub(crate) struct Proxy {
    pub port: u16,
    pub commit: Commit,
    pub sent: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    pub(crate) fn new(port: u16, commit: Commit) -> Arc<Self> {
        Arc::new(Self { port, commit, sent: Arc::default() })
    }
}

#[async_trait]
impl Dial for Proxy {
    async fn dial(&self) -> Result<Wire, TargetError> {
        let server = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(carry(far, server, self.commit, self.sent.clone()));
        Ok(Wire::new(near))
    }

    fn server(&self) -> String {
        "the server behind the proxy".to_owned()
    }
}

async fn carry(mut client: DuplexStream, mut server: TcpStream, commit: Commit, sent: Arc<Mutex<Vec<u8>>>) {
    let (mut from_client, mut from_server) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(1..) = read else { return };
                let bytes = &from_client[..read.unwrap()];
                sent.lock().unwrap().extend_from_slice(bytes);
                let commits = commit != Commit::Passes && bytes.windows(7).any(|part| part == b"COMMIT\0");
                if commits && commit == Commit::LostOnTheWay {
                    return;
                }
                if commits && commit == Commit::TooLate {
                    while !matches!(server.read(&mut from_server).await, Ok(0) | Err(_)) {}
                }
                if server.write_all(bytes).await.is_err() {
                    return;
                }
                if commits {
                    let _ = server.read(&mut from_server).await;
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&from_server[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
