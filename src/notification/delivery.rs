//! Sends a notification to a sink over HTTP, signed if the sink has a key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine};
use chrono::{DateTime, Utc};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, Url, redirect};

use super::message::{Subject, render};
use super::{Format, Sink};
use crate::api::notification::PendingNotification;
use crate::secret_value::SecretValue;

/// Longest time for a sink's answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The files of a sink, which are the keys of its Secret.
const URL_FILE: &str = "url";
const KEY_FILE: &str = "signingKey";
/// Prefix with which Standard Webhooks marks a key in base64.
const ENCODED_KEY: &str = "whsec_";

/// The reason why a sink did not accept a notification. It contains no address, since the address of a chat webhook is
/// a secret.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A file of the sink cannot be read, or its file `url` does not exist.
    #[error(
        "cannot read {path}: {reason}. Create the Secret that notifications.sinks names in the chart's values, with the \
         key `{URL_FILE}`"
    )]
    File {
        /// Path of the file.
        path: String,
        /// The reason.
        reason: std::io::ErrorKind,
    },
    /// The address cannot be parsed, or is neither https nor http.
    #[error("the `{URL_FILE}` in its Secret is not an https address")]
    Url,
    /// The address is http, which this installation does not allow.
    #[error(
        "the `{URL_FILE}` in its Secret is an http address, which exposes the messages to everybody on the \
         network path: use https, or set the chart's value allowHttp"
    )]
    Http,
    /// The signing key has the prefix of a key in base64, but is not base64.
    #[error("the `{KEY_FILE}` in its Secret begins with {ENCODED_KEY}, but the rest is not base64")]
    Key,
    /// The sink cannot be reached or did not answer in time; holds the innermost cause.
    #[error("{0}")]
    Unreachable(String),
    /// The sink answered with this status. Redirects are not followed, and count as refusals.
    #[error("it answered {0}")]
    Refused(StatusCode),
}

/// Delivers notifications to sinks.
pub struct Courier {
    client: Client,
    /// The folder that has a subfolder for each sink, by the sink's name.
    files: PathBuf,
    allow_http: bool,
}

impl Courier {
    /// Creates the client. `files` has a folder for each sink, with its address in `url` and, if it has one, its key in
    /// `signingKey`. They are read at every delivery, so that a changed Secret takes effect without a restart.
    pub fn new(files: &Path, allow_http: bool) -> Result<Self, DeliveryError> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            // A signed body must reach only the address that the operator configured.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("keyturn/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| DeliveryError::Unreachable(cause(&error.without_url())))?;
        Ok(Self { client, files: files.to_owned(), allow_http })
    }

    /// Sends one notification. Any answer from 200 to 299 means that the sink has accepted it.
    pub async fn deliver(
        &self,
        sink: &Sink,
        subject: &Subject,
        told: &PendingNotification,
        now: DateTime<Utc>,
    ) -> Result<(), DeliveryError> {
        let url = self.file(sink, URL_FILE).await?.ok_or_else(|| DeliveryError::File {
            path: self.path(sink, URL_FILE).display().to_string(),
            reason: std::io::ErrorKind::NotFound,
        })?;
        let url: Url = url.expose().trim().parse().map_err(|_| DeliveryError::Url)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => return Err(DeliveryError::Http),
            _ => return Err(DeliveryError::Url),
        }
        let (content_type, body) = render(sink.format, subject, told);
        let body = body.to_string();
        let mut request = self.client.post(url).header(CONTENT_TYPE, content_type);
        if sink.format == Format::CloudEvents
            && let Some(key) = self.file(sink, KEY_FILE).await?
        {
            let time = now.timestamp().to_string();
            request = request
                .header("webhook-id", &told.id)
                .header("webhook-timestamp", &time)
                .header("webhook-signature", signature(&key, &told.id, &time, &body)?);
        }
        let answer = request.body(body).send().await;
        let answer = answer.map_err(|error| DeliveryError::Unreachable(cause(&error.without_url())))?;
        if answer.status().is_success() { Ok(()) } else { Err(DeliveryError::Refused(answer.status())) }
    }

    fn path(&self, sink: &Sink, file: &str) -> PathBuf {
        self.files.join(&sink.name).join(file)
    }

    async fn file(&self, sink: &Sink, file: &str) -> Result<Option<SecretValue>, DeliveryError> {
        let path = self.path(sink, file);
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => Ok(Some(SecretValue::new(text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DeliveryError::File { path: path.display().to_string(), reason: error.kind() }),
        }
    }
}

/// Signs as Standard Webhooks specifies: HMAC-SHA256 over id, time and body, in base64 after the version of the scheme.
fn signature(key: &SecretValue, id: &str, time: &str, body: &str) -> Result<String, DeliveryError> {
    let text = key.expose().trim();
    let bytes = match text.strip_prefix(ENCODED_KEY) {
        Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| DeliveryError::Key)?,
        None => text.as_bytes().to_vec(),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let tag = hmac::sign(&key, format!("{id}.{time}.{body}").as_bytes());
    Ok(format!("v1,{}", BASE64_STANDARD.encode(tag)))
}

/// Returns the innermost cause, which says what is wrong; the outer ones only say that a request failed.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::api::notification::Topic;
    use crate::api::time::to_kubernetes;

    type Received = Arc<Mutex<Vec<(HeaderMap, String)>>>;

    async fn receiver() -> (String, Received) {
        let received = Received::default();
        let take = async |State(received): State<Received>, headers: HeaderMap, body: String| {
            received.lock().unwrap().push((headers, body));
            StatusCode::ACCEPTED
        };
        let elsewhere = async || (StatusCode::FOUND, [("location", "/take")]);
        let routes = Router::new()
            .route("/take", post(take))
            .route("/elsewhere", post(elsewhere))
            .with_state(received.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (address, received)
    }

    fn courier(url: &str, key: Option<&str>) -> (tempfile::TempDir, Courier) {
        let files = tempfile::tempdir().unwrap();
        std::fs::create_dir(files.path().join("events")).unwrap();
        std::fs::write(files.path().join("events/url"), url).unwrap();
        if let Some(key) = key {
            std::fs::write(files.path().join("events/signingKey"), key).unwrap();
        }
        let courier = Courier::new(files.path(), true).unwrap();
        (files, courier)
    }

    async fn deliver(courier: &Courier) -> Result<(), DeliveryError> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let sink = Sink {
            name: "events".into(),
            format: Format::CloudEvents,
            secret: "keyturn-events".into(),
            topics: Vec::new(),
        };
        let subject = Subject {
            cluster: "c".into(),
            kind: "DockerHost".into(),
            namespace: "n".into(),
            name: "h".into(),
        };
        let now = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let told = PendingNotification {
            id: "u.Stalled.1".into(),
            topic: Topic::Stalled,
            time: to_kubernetes(now),
            message: "m".into(),
            sinks: vec!["events".into()],
        };
        courier.deliver(&sink, &subject, &told, now).await
    }

    #[test]
    fn a_signature_is_the_one_of_the_standard_s_own_example() {
        let key = SecretValue::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".into());
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[tokio::test]
    async fn a_sink_with_a_key_gets_a_signed_event_and_one_without_an_unsigned_one() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (address, received) = receiver().await;
        let (_files, courier) = courier(&format!("{address}/take\n"), Some("a key"));
        deliver(&courier).await.unwrap();
        std::fs::remove_file(courier.files.join("events/signingKey")).unwrap();
        deliver(&courier).await.unwrap();
        let received = received.lock().unwrap();
        let (headers, body) = &received[0];
        let key = SecretValue::new("a key".into());
        let wanted = signature(&key, "u.Stalled.1", "1614265330", body).unwrap();
        assert_eq!(headers["webhook-signature"], wanted.as_str());
        assert_eq!(headers["webhook-id"], "u.Stalled.1");
        assert!(headers["content-type"].to_str().unwrap().starts_with("application/cloudevents+json"));
        assert!(!received[1].0.contains_key("webhook-signature"));
    }

    #[tokio::test]
    async fn a_refusal_and_a_redirect_are_failures_and_no_error_shows_the_address() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (address, received) = receiver().await;
        for (url, says) in [
            (format!("{address}/missing/hidden"), "404"),
            (format!("{address}/elsewhere?hidden"), "302"),
            ("http://127.0.0.1:1/hidden".to_owned(), "refused"),
            ("hidden".to_owned(), "not an http"),
        ] {
            let (_files, courier) = courier(&url, None);
            let error = deliver(&courier).await.unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(!format!("{error} {error:?}").contains("hidden"), "{error:?}");
        }
        assert!(received.lock().unwrap().is_empty());
    }

    /// Starts a receiver that sends the first text and then the second one endlessly; returns its address and the
    /// number of bytes that were sent.
    async fn endless(begin: &'static str, again: String) -> (String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sent) =
            (format!("http://{}", listener.local_addr().unwrap()), Arc::<AtomicUsize>::default());
        let counted = sent.clone();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64 << 10];
            let _ = stream.read(&mut request).await;
            stream.write_all(begin.as_bytes()).await.unwrap();
            while stream.write_all(again.as_bytes()).await.is_ok() {
                counted.fetch_add(again.len(), Ordering::SeqCst);
            }
        });
        (address, sent)
    }

    #[tokio::test]
    async fn a_receiver_that_answers_without_end_is_not_listened_to() {
        let body = "x".repeat(1 << 16);
        for (begin, again, taken) in [
            ("HTTP/1.1 200 OK\r\n\r\n", body, true),
            ("HTTP/1.1 200 OK\r\n", format!("x-header: {}\r\n", "x".repeat(1000)), false),
        ] {
            let (address, sent) = endless(begin, again).await;
            let (_files, courier) = courier(&address, None);
            assert_eq!(
                deliver(&courier).await.is_ok(),
                taken,
                "a status is an answer, headers without end are none"
            );
            drop(courier);
            // The buffers of the sockets.
            assert!(sent.load(Ordering::SeqCst) < 32 << 20);
        }
    }

    #[tokio::test]
    async fn an_http_address_is_told_nothing_unless_it_is_allowed() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (address, received) = receiver().await;
        let (_files, mut courier) = courier(&format!("{address}/take"), Some("a key"));
        courier.allow_http = false;
        let error = deliver(&courier).await.unwrap_err().to_string();
        assert!(error.contains("use https") && error.contains("allowHttp"), "{error}");
        assert!(received.lock().unwrap().is_empty());
        courier.allow_http = true;
        deliver(&courier).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_address_names_the_file() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (_files, courier) = courier("x", None);
        std::fs::remove_file(courier.files.join("events/url")).unwrap();
        let error = deliver(&courier).await.unwrap_err().to_string();
        assert!(error.contains("events/url"), "{error}");
    }
}
