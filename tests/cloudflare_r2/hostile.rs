//! A malicious server in Cloudflare's place: it sends without end, sends nothing, or sends something unexpected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyturn::secret_value::SecretValue;
use keyturn::source::cloudflare_r2::{CloudflareR2, Endpoints};
use keyturn::source::{Issues, Login, Target};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::scene::{ADMIN, Scene};

/// Most bytes that are taken: those in sockets on the way, and those read of an answer (4 MiB). A server can send more
/// within the time of a request.
const MOST: usize = 32 << 20;

/// The behaviour of the server for each request.
#[derive(Clone)]
enum Way {
    /// Sends the first text, and then repeats the second one without end.
    Floods(&'static str, String),
    /// Answers with this status and body.
    Answers(u16, String),
    SaysNothing,
}

struct Hostile {
    address: String,
    sent: Arc<AtomicUsize>,
}

impl Hostile {
    async fn new(way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, way.clone(), counted.clone()));
            }
        });
        Self { address, sent }
    }

    async fn target(&self) -> CloudflareR2 {
        let endpoints = Endpoints { api: self.address.clone(), s3: self.address.clone() };
        Scene::new().await.target_at(endpoints, json!({}), ADMIN)
    }
}

async fn serve(stream: TcpStream, way: Way, sent: Arc<AtomicUsize>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await.ok()? > 2 {
        line.clear();
    }
    match way {
        Way::Floods(begin, again) => {
            stream.write_all(begin.as_bytes()).await.ok()?;
            loop {
                stream.write_all(again.as_bytes()).await.ok()?;
                sent.fetch_add(again.len(), Ordering::SeqCst);
            }
        }
        Way::Answers(status, body) => {
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.ok()
        }
        Way::SaysNothing => std::future::pending().await,
    }
}

/// Returns the results of looking up an account and trying a pair.
async fn asked(target: &CloudflareR2) -> Vec<String> {
    let login = Login { username: "0".repeat(32), password: SecretValue::new("canary".to_owned()) };
    let mut said = Vec::new();
    said.extend(target.observe().await.err().map(|error| error.to_string()));
    said.extend(target.try_login(&login).await.unknown().map(|error| error.to_string()));
    said.extend(target.issue(1).await.err().map(|error| error.to_string()));
    said
}

#[tokio::test]
async fn an_answer_without_end_is_not_collected() {
    let floods = [
        ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"result\":[", "{},".repeat(20_000)),
        (
            "HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n",
            format!("10000\r\n{}\r\n", "x".repeat(0x10000)),
        ),
        ("HTTP/1.1 200 OK\r\n", format!("x-header: {}\r\n", "x".repeat(1000)).repeat(60)),
    ];
    for (begin, again) in floods {
        let hostile = Hostile::new(Way::Floods(begin, again)).await;
        let said = asked(&hostile.target().await).await;
        let sent = hostile.sent.load(Ordering::SeqCst);
        assert!(sent < 3 * MOST, "{sent} bytes were taken in three requests: {said:?}");
        assert!(said.len() >= 2, "an account that cannot be listed is no answer: {said:?}");
    }
}

#[tokio::test]
async fn who_says_nothing_is_given_up() {
    let said = asked(&Hostile::new(Way::SaysNothing).await.target().await).await;
    assert_eq!(said.len(), 3, "{said:?}");
}

#[tokio::test]
async fn an_answer_of_another_kind_is_an_error_that_steers_nothing() {
    let message = "\u{1b}[2J\u{202e}<b>x</b>\u{200b} ".repeat(1000);
    let refusal =
        json!({"success": false, "errors": [{"code": 1, "message": message}], "result": null}).to_string();
    let bodies = [
        json!({"success": true, "result": 5}).to_string(),
        json!({"success": true, "result": [[[]]], "result_info": {"total_pages": -1}}).to_string(),
        json!({"success": true, "result": {"id": {}, "value": []}}).to_string(),
        "[".repeat(300_000),
        "null".to_owned(),
        "\u{0}\u{1}".to_owned(),
        refusal,
    ];
    for body in bodies {
        for status in [200, 400, 403, 500] {
            let hostile = Hostile::new(Way::Answers(status, body.clone())).await;
            let said = asked(&hostile.target().await).await;
            assert!(said.len() >= 2, "{status} {}: {said:?}", &body[..body.len().min(80)]);
            for text in said {
                let hidden = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}');
                assert!(!text.contains(hidden) && text.len() < 2000, "{text:?}");
            }
        }
    }
}
