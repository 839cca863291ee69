//! I7: no value in any error, metric or log, at any level. Everything that a person may enable is enabled.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyturn::parameter_store::budget::SsmCalls;
use keyturn::parameter_store::ssm::CallLimits;
use keyturn_aws_emulator::{Emulator, Fault, Rule};
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::endpoint::{Endpoint, HASTY, SESSION_TOKEN, UNLIMITED, emulator, value, write};

const CANARY: &str = "canary-7f3a9c51e2";

fn every_fault() -> Vec<Fault> {
    let error = |code: &str, message: String| Fault::Error {
        code: code.to_owned(),
        message,
        status: 400,
        applied: false,
    };
    vec![
        Fault::Throttle,
        Fault::TooManyUpdates,
        Fault::AccessDenied,
        Fault::ServerError { applied: true },
        Fault::Hang { applied: false },
        Fault::Drop { applied: true },
        error("ValidationException", format!("Value '{CANARY}' at 'value' failed to satisfy constraint")),
        error("ValidationException", format!("Value '{}…' at 'value' is too long", &CANARY[..10])),
        error("ParameterPatternMismatchException", format!("{CANARY} does not match [0-9]+")),
        error("SomethingNew", CANARY.to_owned()),
        error("AccessDeniedException", format!("not authorized to write {CANARY}")),
    ]
}

/// Returns all messages of a store while each fault hits each call that carries or returns a value.
async fn provoke(emulator: &Emulator, ssm: &Endpoint) -> String {
    let calls = SsmCalls::default();
    // The call gives up early, since only its message counts.
    let limits = CallLimits { total: Duration::from_millis(300), ..HASTY };
    let store = ssm.store_with(limits, UNLIMITED, calls.clone());
    let mut said = String::new();
    let secret = value(CANARY);
    ssm.store().create(write("/a", &secret, "")).await.unwrap();
    for fault in every_fault() {
        emulator.add_fault(Rule { operation: None, ..Rule::once("", fault).always() }).unwrap();
        let errors = [
            store.create(write("/b", &secret, "")).await.map(drop).unwrap_err(),
            store.overwrite(write("/a", &secret, "")).await.map(drop).unwrap_err(),
            store.read("/a", Some(1)).await.map(drop).unwrap_err(),
        ];
        for error in errors {
            // The emulator puts the canary into a read's own message: a real read carries no value that could
            // be quoted.
            if !error.to_string().contains("GetParameter") {
                said.push_str(&format!("{error}\n{error:?}\n{:?}\n", error.trouble()));
            }
        }
        emulator.clear_faults();
    }
    let mut registry = Registry::default();
    calls.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut said, &registry).unwrap();
    said
}

#[tokio::test]
async fn no_error_and_no_metric_shows_a_value() {
    let emulator = emulator().await;
    let said = provoke(&emulator, &Endpoint::new(&emulator.url(), "leaks")).await;
    assert!(said.contains("ValidationException") && said.contains("ssm_calls_total"));
    assert!(!said.contains("canary"), "{said}");
    let log = serde_json::to_string(&emulator.calls()).unwrap();
    assert!(
        log.contains("PutParameter") && !log.contains("canary"),
        "the emulator's own log shows none either"
    );
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Returns the log at TRACE, including the SDK's, while a value is written and read.
async fn logged(also: impl FnOnce()) -> String {
    let emulator = emulator().await;
    let ssm = Endpoint::new(&emulator.url(), "logs");
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("trace"))
        .with_writer(captured.clone())
        .with_ansi(false)
        .finish();
    let store = ssm.store();
    let secret = value(CANARY);
    // The runtime of a test has one thread, and the subscriber is set for that thread.
    let guard = tracing::subscriber::set_default(subscriber);
    also();
    store.create(write("/a", &secret, "")).await.unwrap();
    store.overwrite(write("/a", &secret, "")).await.unwrap();
    store.read("/a", None).await.unwrap();
    drop(guard);
    let logged = captured.0.lock().unwrap().clone();
    String::from_utf8_lossy(&logged).into_owned()
}

#[tokio::test]
async fn no_log_at_trace_shows_a_value_or_a_session_token() {
    let planted = logged(|| tracing::trace!(target: "aws_smithy_runtime", body = CANARY)).await;
    assert!(planted.contains(CANARY), "a leak would be seen");
    let logged = logged(|| ()).await;
    assert!(logged.contains("transmitting request"), "the SDK was heard");
    for secret in [CANARY, SESSION_TOKEN] {
        assert!(!logged.contains(secret), "{logged}");
    }
}
