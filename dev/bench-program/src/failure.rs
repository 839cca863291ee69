//! Reasons for which a measurement ends without figures.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) type Result<T> = std::result::Result<T, Failure>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot {what}: {source}")]
    Api { what: String, source: Box<kube::Error> },
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    /// The deadline passed.
    #[error("waited {}s for {what}, in vain", after.as_secs())]
    Late { what: String, after: Duration },
    #[error("{name} ended ({status}) while it was measured; its log is {}", log.display())]
    Ended { name: String, status: String, log: PathBuf },
    #[error(
        "{pod} runs keyturn in this cluster, and would work on the same objects: \
         kubectl -n {namespace} scale deployment/keyturn --replicas=0"
    )]
    AnotherKeyturn { namespace: String, pod: String },
    #[error("the emulated SSM refuses the parameter {name}: {message}")]
    Seed { name: String, message: String },
    #[error("{0}")]
    Unexpected(String),
}

impl Failure {
    /// Wraps a failed request to the API server. `what` completes the sentence "cannot …".
    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        |source| Self::Api { what: what.into(), source: Box::new(source) }
    }

    /// Wraps another failed operation. `what` completes the sentence "cannot …".
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { what: what.into(), source }
    }

    /// Replaces the description of a missed deadline; other failures stay as they are.
    pub(crate) fn about(self, waited_for: String) -> Self {
        match self {
            Self::Late { after, .. } => Self::Late { what: waited_for, after },
            other => other,
        }
    }
}

/// Waits for some work until a deadline. `what` completes the sentence "waited for …".
pub(crate) async fn within<T>(
    after: Duration,
    what: impl Into<String>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(after, work).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::Late { what: what.into(), after }),
    }
}
