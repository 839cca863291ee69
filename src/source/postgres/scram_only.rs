//! A stream to a Postgres server that lets the server authenticate us by SCRAM-SHA-256 and by nothing else.
//!
//! The client library answers whatever the server asks for, even with a password in clear text, and treats a server
//! that asks for nothing (`trust`) as one that accepted the password. Here every message of the startup is checked
//! before the library reads it, and the connection fails at the first message that is not part of a complete SCRAM
//! exchange. The library itself checks that the server knows the password, from the last message of that exchange.
//!
//! After the exchange the messages are limited, see [`super::framing`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::framing::{Bounds, HungUp, Verdict, forget_types};

/// Longest message of the startup, in bytes. No real one is nearly as long.
const LONGEST: usize = 64 * 1024;
/// The default of `scram_iterations`, the only value before Postgres 16, and the value that keyturn itself stores.
/// Postgres 16 and newer accept 1. But a malicious server that asks for fewer iterations gets a proof from which the
/// password can be guessed that many times faster.
pub(super) const LEAST_ITERATIONS: u32 = 4096;
/// Maximum number of iterations. A server that asks for more wants to keep our processor busy.
const MOST_ITERATIONS: u32 = 1_000_000;

/// The reason why the server's authentication is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotScram {
    #[error("it asks for the password in clear text")]
    Cleartext,
    #[error("it asks for an MD5 hash of the password")]
    Md5,
    #[error("it asks for {0}, not for a password")]
    Other(&'static str),
    #[error("it accepts logins without checking the password (`trust`, `peer` or `cert` in its pg_hba.conf)")]
    Unchecked,
    #[error("it offers no SCRAM-SHA-256")]
    Mechanism,
    #[error(
        "it offers no channel binding (SCRAM-SHA-256-PLUS), so a machine in between could relay the login"
    )]
    NoChannelBinding,
    #[error("it asks for {0} iterations of the password's hash")]
    Iterations(u32),
    #[error("it does not speak the protocol of Postgres")]
    Protocol,
}

/// The progress of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Request,
    Challenge,
    Proof,
    Verdict,
    Done,
}

/// The stream. After the server's AuthenticationOk, everything passes that [`super::framing`] allows.
pub(super) struct ScramOnly<S> {
    inner: S,
    bound: bool,
    stage: Stage,
    bounds: Bounds,
    verdict: Verdict,
    /// Bytes of a message that is not complete yet.
    pending: Vec<u8>,
    /// Complete messages that may pass, from `passed` on.
    checked: Vec<u8>,
    passed: usize,
}

impl<S> ScramOnly<S> {
    /// Wraps a stream. `bound`: the login must be bound to the TLS channel. `verdict` later contains the reason if
    /// keyturn closes the connection.
    pub(super) fn new(inner: S, bound: bool, verdict: Verdict) -> Self {
        Self {
            inner,
            bound,
            stage: Stage::Request,
            bounds: Bounds::default(),
            verdict,
            pending: Vec::new(),
            checked: Vec::new(),
            passed: 0,
        }
    }

    /// Moves complete messages from `pending` to `checked`, each after it was found harmless.
    fn check(&mut self) -> io::Result<()> {
        while let Some([kind, length @ ..]) = self.pending.first_chunk::<5>() {
            let (kind, mut length) = (*kind, u32::from_be_bytes(*length) as usize);
            if self.stage == Stage::Done {
                // The message is shorter than its own length field. The library refuses it and stops reading.
                length = length.max(4);
            } else if !(4..=LONGEST).contains(&length) {
                return Err(io::Error::other(NotScram::Protocol));
            }
            self.bounds.check(length).map_err(|why| self.hang_up(why))?;
            if self.pending.len() < length + 1 {
                return Ok(());
            }
            if self.stage != Stage::Done {
                let next = next(self.stage, self.bound, kind, &self.pending[5..=length]);
                self.stage = next.map_err(io::Error::other)?;
            }
            let message = &mut self.pending[..=length];
            self.bounds
                .count(message)
                .and_then(|()| forget_types(message))
                .map_err(|why| self.hang_up(why))?;
            self.checked.extend(self.pending.drain(..=length));
        }
        Ok(())
    }

    fn hang_up(&self, why: HungUp) -> io::Error {
        self.verdict.set(why);
        io::Error::other(why)
    }
}

/// Returns the stage after a message of the server.
fn next(stage: Stage, bound: bool, kind: u8, body: &[u8]) -> Result<Stage, NotScram> {
    match kind {
        // ErrorResponse, NoticeResponse, NegotiateProtocolVersion.
        b'E' | b'N' | b'v' => return Ok(stage),
        b'R' => {}
        _ => return Err(NotScram::Protocol),
    }
    let (code, rest) = body.split_first_chunk::<4>().ok_or(NotScram::Protocol)?;
    match (u32::from_be_bytes(*code), stage) {
        (0, Stage::Verdict) => Ok(Stage::Done),
        (0, _) => Err(NotScram::Unchecked),
        (2, _) => Err(NotScram::Other("Kerberos")),
        (3, _) => Err(NotScram::Cleartext),
        (5, _) => Err(NotScram::Md5),
        (7 | 8, _) => Err(NotScram::Other("GSSAPI")),
        (9, _) => Err(NotScram::Other("SSPI")),
        (10, Stage::Request) => {
            let offers = |mechanism: &[u8]| rest.split(|byte| *byte == 0).any(|offered| offered == mechanism);
            let plus = offers(b"SCRAM-SHA-256-PLUS");
            if bound && !plus {
                return Err(NotScram::NoChannelBinding);
            }
            if plus || offers(b"SCRAM-SHA-256") { Ok(Stage::Challenge) } else { Err(NotScram::Mechanism) }
        }
        (11, Stage::Challenge) => match iterations(rest) {
            Some(n) if !(LEAST_ITERATIONS..=MOST_ITERATIONS).contains(&n) => Err(NotScram::Iterations(n)),
            _ => Ok(Stage::Proof),
        },
        (12, Stage::Proof) => Ok(Stage::Verdict),
        _ => Err(NotScram::Protocol),
    }
}

/// Returns the `i=` of a server-first-message. The library parses the message completely, and fails if it is missing.
fn iterations(message: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(message).ok()?;
    let number = text.split(',').find_map(|part| part.strip_prefix("i="))?;
    Some(number.parse().unwrap_or(u32::MAX))
}

impl<S: AsyncRead + Unpin> AsyncRead for ScramOnly<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let left = &this.checked[this.passed..];
            if !left.is_empty() {
                let some = left.len().min(buf.remaining());
                buf.put_slice(&left[..some]);
                this.passed += some;
                return Poll::Ready(Ok(()));
            }
            this.checked.clear();
            this.passed = 0;
            let mut space = [0; 4096];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.pending.extend_from_slice(read.filled());
            this.check()?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ScramOnly<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for ScramOnly<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

/// Puts the guard inside TLS, where the messages are readable.
pub(super) struct ScramOverTls<T>(pub T, pub Verdict);

impl<S, T> TlsConnect<S> for ScramOverTls<T>
where
    T: TlsConnect<S>,
    T::Future: Unpin,
{
    type Stream = ScramOnly<T::Stream>;
    type Error = T::Error;
    type Future = Guarding<T::Future>;

    fn connect(self, stream: S) -> Self::Future {
        Guarding(self.0.connect(stream), self.1)
    }
}

/// The TLS handshake below the guard.
pub(super) struct Guarding<F>(F, Verdict);

impl<F, S, E> Future for Guarding<F>
where
    F: Future<Output = Result<S, E>> + Unpin,
{
    type Output = Result<ScramOnly<S>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let handshake = Pin::new(&mut self.0).poll(cx);
        handshake.map_ok(|stream| ScramOnly::new(stream, true, self.1.clone()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::failure::cause_of;
    use super::super::hostile::{auth, message};
    use super::*;

    fn offer() -> Vec<u8> {
        auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
    }

    fn exchange() -> Vec<Vec<u8>> {
        vec![offer(), auth(11, b"r=abc,s=QUJD,i=4096"), auth(12, b"v=abc"), auth(0, b"")]
    }

    /// Returns the part of `sent`, written in pieces of `piece` bytes, that passes, and the reason for the end.
    async fn through(sent: &[u8], piece: usize, bound: bool) -> (Vec<u8>, Option<NotScram>) {
        let (mut server, client) = tokio::io::duplex(piece);
        let sent = sent.to_vec();
        let writing = tokio::spawn(async move {
            for piece in sent.chunks(piece) {
                if server.write_all(piece).await.is_err() {
                    return;
                }
            }
        });
        let mut guard = ScramOnly::new(client, bound, Verdict::default());
        let mut got = Vec::new();
        let end = guard.read_to_end(&mut got).await;
        drop(guard);
        writing.await.unwrap();
        (got, end.err().map(|error| cause_of(&error).unwrap()))
    }

    #[tokio::test]
    async fn a_scram_exchange_and_all_that_follows_pass_unchanged_however_they_are_cut() {
        let notice = message(b'N', b"\0");
        let rest = [message(b'S', b"x\0y\0"), message(b'Z', b"I"), vec![0; 70_000]].concat();
        let sent = [[notice].concat(), exchange().concat(), rest].concat();
        for piece in [1, 2, 5, 7, 4096, 1 << 20] {
            assert_eq!(through(&sent, piece, true).await, (sent.clone(), None), "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn every_other_way_of_authentication_is_refused_at_any_point_and_never_passed_on() {
        let other = [
            (auth(0, b""), NotScram::Unchecked),
            (auth(2, b""), NotScram::Other("Kerberos")),
            (auth(3, b""), NotScram::Cleartext),
            (auth(5, b"salt"), NotScram::Md5),
            (auth(7, b""), NotScram::Other("GSSAPI")),
            (auth(9, b""), NotScram::Other("SSPI")),
            (auth(99, b""), NotScram::Protocol),
            (message(b'R', b"\0"), NotScram::Protocol),
            (message(b'Z', b"I"), NotScram::Protocol),
            (message(b'S', b"a\0b\0"), NotScram::Protocol),
            (vec![b'R', 0xff, 0xff, 0xff, 0xff], NotScram::Protocol),
            (vec![b'R', 0, 0, 0, 0], NotScram::Protocol),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), NotScram::Protocol),
        ];
        for before in 0..3 {
            let begun = exchange()[..before].concat();
            for (message, why) in &other {
                for piece in [1, 4096] {
                    let (got, end) = through(&[&begun[..], message].concat(), piece, false).await;
                    assert_eq!(end, Some(*why), "after {before} messages, in pieces of {piece}");
                    assert!(begun.starts_with(&got), "after {before} messages: {got:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn steps_cannot_be_left_out_or_repeated() {
        let all = exchange();
        for order in [&[0, 3][..], &[0, 1, 3], &[0, 2], &[1], &[2], &[0, 0], &[0, 1, 1], &[0, 1, 2, 2]] {
            let sent: Vec<u8> = order.iter().flat_map(|step| all[*step].clone()).collect();
            let (_, end) = through(&sent, 4096, false).await;
            assert!(matches!(end, Some(NotScram::Protocol | NotScram::Unchecked)), "{order:?}: {end:?}");
        }
    }

    #[tokio::test]
    async fn the_mechanism_and_the_work_asked_for_are_checked() {
        let plain = auth(10, b"SCRAM-SHA-256\0\0");
        assert_eq!(through(&plain, 4096, false).await.1, None);
        assert_eq!(through(&plain, 4096, true).await.1, Some(NotScram::NoChannelBinding));
        let unknown = auth(10, b"OAUTHBEARER\0XSCRAM-SHA-256\0\0");
        assert_eq!(through(&unknown, 4096, false).await.1, Some(NotScram::Mechanism));
        for (asked, iterations) in [
            ("0", 0),
            ("1", 1),
            ("4095", 4095),
            ("1000001", 1_000_001),
            ("4000000000", 4_000_000_000),
            ("99999999999", u32::MAX),
        ] {
            let challenge = auth(11, format!("r=a,s=QUJD,i={asked}").as_bytes());
            let (_, end) = through(&[offer(), challenge].concat(), 4096, false).await;
            assert_eq!(end, Some(NotScram::Iterations(iterations)));
        }
    }

    #[tokio::test]
    async fn the_servers_own_refusal_passes() {
        let refusal = message(b'E', b"SFATAL\0C28P01\0Mno\0\0");
        for before in 0..3 {
            let sent = [exchange()[..before].concat(), refusal.clone()].concat();
            assert_eq!(through(&sent, 3, false).await, (sent, None));
        }
    }
}
