//! JSON logs on standard error, one line per decision.
//!
//! Only keyturn's own events can be made more verbose. The program itself caps the log level of libraries, because some
//! of them print what they send: the AWS SDK logs whole requests, values included, at TRACE, and kube prints answers
//! that it cannot parse at DEBUG. No environment variable lifts that cap.

use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::memory;

/// The most verbose level for libraries, no matter which level is configured.
const LIBRARIES: Level = Level::INFO;

/// Log level of keyturn's own logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(Level);

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Level::from_str(text)
            .map(LogLevel)
            .map_err(|_| format!("`{text}` is not one of error, warn, info, debug, trace"))
    }
}

/// Starts logging for the whole process, and reports panics as a log line instead of plain text.
pub fn start(level: LogLevel) {
    // A second start keeps the first subscriber: the process has logs either way.
    let _ = subscriber(level, std::io::stderr).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let (location, message) = (memory::place(panic), memory::message(panic));
        tracing::error!(%location, "keyturn has a bug and panicked: {message}");
    }));
}

fn subscriber<W>(level: LogLevel, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(writer);
    tracing_subscriber::registry().with(filter(level)).with(lines)
}

fn filter(level: LogLevel) -> Targets {
    Targets::new()
        .with_default(LevelFilter::from_level(LIBRARIES.min(level.0)))
        .with_target("keyturn", LevelFilter::from_level(level.0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, say: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(level.parse().unwrap(), move || writer.clone());
        tracing::subscriber::with_default(subscriber, say);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn libraries_that_print_request_bodies_stay_silent_at_the_most_verbose_level() {
        let text = logged("trace", || {
            tracing::trace!(target: "aws_smithy_runtime::client::orchestrator", "CANARY");
            tracing::debug!(target: "aws_smithy_runtime::client::orchestrator", "CANARY");
            tracing::debug!(target: "aws_sdk_ssm::operation", "CANARY");
            tracing::trace!(target: "hyper_util::client", "CANARY");
            tracing::trace!(target: "h2::codec", "CANARY");
            tracing::trace!(target: "rustls::client", "CANARY");
            tracing::debug!(target: "tower::buffer", "CANARY");
            tracing::debug!(target: "kube_client::client", "CANARY");
            tracing::debug!(target: "kube_runtime::watcher", "CANARY");
            tracing::debug!(target: "russh::client", "CANARY");
            tracing::debug!(target: "a_library_that_nobody_thought_of", "CANARY");
            tracing::trace!(target: "keyturn::controller", "detector");
            tracing::warn!(target: "aws_config", "trouble");
        });
        assert!(!text.contains("CANARY"), "{text}");
        assert!(text.contains("detector") && text.contains("trouble"), "{text}");
    }

    #[test]
    fn a_quiet_level_quiets_libraries_too() {
        let text = logged("error", || {
            tracing::warn!(target: "kube_runtime::watcher", "quiet");
            tracing::warn!(target: "keyturn::controller", "quiet");
            tracing::error!(target: "kube_runtime::watcher", "loud");
        });
        assert!(!text.contains("quiet"), "{text}");
        assert!(text.contains("loud"), "{text}");
    }

    #[test]
    fn every_line_is_one_json_object_with_its_fields_at_the_top() {
        let text = logged("info", || tracing::info!(secret = "a/b", step = "Promote", "decided"));
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "decided");
        assert_eq!(line["secret"], "a/b");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_level_is_one_of_five_words() {
        assert!("verbose".parse::<LogLevel>().unwrap_err().contains("error, warn, info, debug, trace"));
        assert!("Debug".parse::<LogLevel>().is_ok());
        assert!("info,aws_sdk_ssm=trace".parse::<LogLevel>().is_err());
    }
}
