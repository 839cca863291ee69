//! A malicious server: it has the role's verifier, completes SCRAM, and then behaves as a test wants.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::{Dial, Direct, Wire};
use crate::source::TargetError;

pub(super) const PASSWORD: &str = "known-to-both";
/// The secret that owns the roles.
pub(super) const OWNER: &str = "cluster/ns/name";
/// The type that is an array of itself.
const NESTED: u32 = 99_999;
/// Prefix of the text of a prepared statement when it is executed.
const BOUND: &str = "bound ";
/// Number of bytes after which it stops sending, so that a client without a limit ends too.
const ENOUGH: usize = 64 << 20;

/// A function that returns the bytes to send.
pub(super) type Bytes = fn() -> Vec<u8>;

/// The behaviour after the login.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// Answers a statement that contains the text with the first bytes, and then repeats the second bytes endlessly.
    Floods(&'static str, Bytes, Bytes),
    /// Sends these bytes endlessly where ReadyForQuery is expected.
    FloodsTheLogin(Bytes),
    /// Answers a statement that contains the text with these bytes, and other statements correctly.
    Answers(&'static str, Bytes),
    /// Describes the column of a statement that contains the text as an array of itself.
    NestsTypes(&'static str),
    /// Refuses the login with this SQLSTATE and quotes its name, as servers do.
    Refuses(&'static str),
    /// Sends nothing after the login.
    IsSilent,
}

pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

pub(super) fn auth(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], rest].concat())
}

pub(super) fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// Returns a RowDescription of columns with these types.
pub(super) fn columns(types: &[u32]) -> Vec<u8> {
    let mut body = u16::try_from(types.len()).unwrap().to_be_bytes().to_vec();
    for oid in types {
        body.extend(b"c\0\0\0\0\0\0\0");
        body.extend(oid.to_be_bytes());
        body.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1]);
    }
    message(b'T', &body)
}

pub(super) fn row(values: &[&[u8]]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(*value);
    }
    message(b'D', &body)
}

/// Returns the beginning of the answer to an extended query with these columns.
pub(super) fn begun(types: &[u32]) -> Vec<u8> {
    [message(b'1', b""), message(b'2', b""), message(b't', b"\0\0"), columns(types)].concat()
}

/// Returns the complete answer.
pub(super) fn table(types: &[u32], rows: &[&[&[u8]]]) -> Vec<u8> {
    let rows: Vec<u8> = rows.iter().flat_map(|values| row(values)).collect();
    [begun(types), rows, message(b'C', b"SELECT 1\0"), ready()].concat()
}

/// Returns an ErrorResponse with this SQLSTATE.
pub(super) fn refusal(state: &str) -> Vec<u8> {
    let fields = format!("SERROR\0VERROR\0C{state}\0Mno\0\0");
    [message(b'E', fields.as_bytes()), ready()].concat()
}

/// A route to the malicious server that counts the bytes that the client reads.
pub(super) struct Hostile {
    direct: Direct,
    pub taken: Arc<AtomicUsize>,
}

impl Hostile {
    pub(super) async fn new(plan: Plan) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, plan));
            }
        });
        let direct = Direct { host: "127.0.0.1".to_owned(), port };
        Arc::new(Self { direct, taken: Arc::default() })
    }
}

#[async_trait]
impl Dial for Hostile {
    async fn dial(&self) -> Result<Wire, TargetError> {
        let stream = TcpStream::connect((self.direct.host.as_str(), self.direct.port)).await.unwrap();
        Ok(Wire::new(Counted { stream, taken: self.taken.clone() }))
    }

    fn server(&self) -> String {
        "the hostile one".to_owned()
    }
}

struct Counted {
    stream: TcpStream,
    taken: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.taken.fetch_add(buf.filled().len() - before, Ordering::SeqCst);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Serves one session until the client disconnects.
async fn serve(mut stream: TcpStream, plan: Plan) -> Option<()> {
    let length = stream.read_u32().await.ok()? as usize;
    let mut startup = vec![0; length - 4];
    stream.read_exact(&mut startup).await.ok()?;
    if let Plan::Refuses(state) = plan {
        let startup: Vec<&[u8]> = startup.split(|byte| *byte == 0).collect();
        let name = startup.iter().skip_while(|part| !part.ends_with(b"user")).nth(1)?;
        let name = String::from_utf8_lossy(name);
        let fields = format!("SFATAL\0VFATAL\0C{state}\0Mno entry for \"{name}\"\0D{name}\0");
        return stream.write_all(&message(b'E', &[fields.as_bytes(), b"\0"].concat())).await.ok();
    }
    authenticate(&mut stream).await?;
    stream.write_all(&message(b'S', b"server_version\x0017.0\0")).await.ok()?;
    if let Plan::FloodsTheLogin(what) = plan {
        return flood(&mut stream, &what()).await;
    }
    stream.write_all(&ready()).await.ok()?;
    // The prepared statements by name.
    let mut prepared: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let mut asked = String::new();
    loop {
        let (kind, body) = receive(&mut stream).await?;
        let parts: Vec<&[u8]> = body.split(|byte| *byte == 0).collect();
        match kind {
            b'Q' => asked = String::from_utf8_lossy(parts[0]).into_owned(),
            b'P' => {
                asked = String::from_utf8_lossy(parts[1]).into_owned();
                prepared.insert(parts[0].to_vec(), asked.clone());
            }
            // Bind of a prepared statement.
            b'B' => asked = format!("{BOUND}{}", prepared.get(parts[1])?),
            _ => {}
        }
        if kind == b'Q' || kind == b'S' {
            answer(&mut stream, plan, kind, &asked).await?;
        }
    }
}

async fn answer(stream: &mut TcpStream, plan: Plan, kind: u8, asked: &str) -> Option<()> {
    let answer = match plan {
        Plan::Floods(text, first, then) if asked.contains(text) => {
            stream.write_all(&first()).await.ok()?;
            return flood(stream, &then()).await;
        }
        Plan::Answers(text, what) if asked.contains(text) => what(),
        Plan::NestsTypes(_) if asked.starts_with(BOUND) && asked.contains("pg_type") => {
            let array: [&[u8]; 7] = [b"t", b"b", &NESTED.to_be_bytes(), &[0; 4], &[0; 4], b"s", &[0; 4]];
            [message(b'2', b""), row(&array), message(b'C', b"SELECT 1\0"), ready()].concat()
        }
        Plan::NestsTypes(_) if asked.contains("pg_type") => {
            let types = columns(&[19, 18, 26, 26, 26, 19, 26]);
            [message(b'1', b""), message(b't', &[0, 1, 0, 0, 0, 26]), types, ready()].concat()
        }
        Plan::NestsTypes(text) if asked.contains(text) => {
            [message(b'1', b""), message(b't', b"\0\0"), columns(&[NESTED]), ready()].concat()
        }
        Plan::IsSilent => return Some(()),
        _ if kind == b'Q' => [message(b'C', b"SET\0"), ready()].concat(),
        // The role can log in, and has no other attribute. The fence exists and belongs to the administrator.
        _ if asked.contains("rolcanlogin") => table(&[16; 4], &[&[&[1], &[0], &[0], &[0]]]),
        _ if asked.contains("'fence'") => table(&[16; 5], &[&[&[1], &[1], &[1], &[0], &[1]]]),
        _ if asked.contains("SELECT id, owner") => table(&[20, 25], &[&[&[0; 8], OWNER.as_bytes()]]),
        _ if asked.contains("ANY($1)") => table(&[], &[]),
        _ => table(&[16], &[&[&[0]]]),
    };
    stream.write_all(&answer).await.ok()
}

async fn flood(stream: &mut TcpStream, what: &[u8]) -> Option<()> {
    let mut sent = 0;
    while sent < ENOUGH {
        stream.write_all(what).await.ok()?;
        sent += what.len();
    }
    Some(())
}

async fn receive(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await.ok()?;
    let length = stream.read_u32().await.ok()? as usize;
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await.ok()?;
    Some((kind, body))
}

/// Authenticates by SCRAM-SHA-256 with the verifier alone, as a thief of `pg_authid` could.
async fn authenticate(stream: &mut TcpStream) -> Option<()> {
    let verifier = postgres_protocol::password::scram_sha_256(PASSWORD.as_bytes());
    let mut parts = verifier.split(['$', ':']).skip(1);
    let (iterations, salt, _, server_key) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    stream.write_all(&auth(10, b"SCRAM-SHA-256\0\0")).await.ok()?;
    let (_, first) = receive(stream).await?;
    let first = String::from_utf8_lossy(&first).into_owned();
    let bare = &first[first.find("n=")?..];
    let nonce = format!("{}hostile", bare.split_once("r=")?.1);
    let challenge = format!("r={nonce},s={salt},i={iterations}");
    stream.write_all(&auth(11, challenge.as_bytes())).await.ok()?;
    let (_, last) = receive(stream).await?;
    let last = String::from_utf8_lossy(&last).into_owned();
    let said = format!("{bare},{challenge},{}", last.split(",p=").next()?);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(server_key).ok()?);
    let signature = STANDARD.encode(hmac::sign(&key, said.as_bytes()));
    let verdict = [auth(12, format!("v={signature}").as_bytes()), auth(0, b"")].concat();
    stream.write_all(&verdict).await.ok()
}
