//! The status of all ManagedSecrets, kept up to date by a watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use keyturn_api::ManagedSecret;
use keyturn_api::conditions::{self, READY, ROTATING};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;

use crate::failure::{Result, within};

const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LIST_PATIENCE: Duration = Duration::from_secs(30);

/// The part of one ManagedSecret's status for which measurements wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Time at which Ready was first seen to be True.
    pub ready_at: Option<Instant>,
    rotating: bool,
    held: bool,
    /// The request of the last rotation that ended.
    answered: Option<String>,
}

impl Said {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_at.is_some()
    }

    /// True when the requested rotation has ended and the finalizer is gone.
    pub(crate) fn is_closed(&self, request: &str) -> bool {
        self.has_answered(request) && !self.rotating && !self.held
    }

    fn has_answered(&self, request: &str) -> bool {
        self.answered.as_deref() == Some(request)
    }
}

#[derive(Default)]
struct State {
    listed: bool,
    said: HashMap<String, Said>,
}

/// A view of all ManagedSecrets. Its watch runs until it is dropped.
pub(crate) struct Board {
    state: Arc<Mutex<State>>,
    watch: JoinHandle<()>,
}

impl Board {
    /// Starts the watch, and waits until existing objects have been listed.
    pub(crate) async fn open(secrets: Api<ManagedSecret>) -> Result<Self> {
        let state: Arc<Mutex<State>> = Arc::default();
        let watch = tokio::spawn(follow(secrets, state.clone()));
        let board = Self { state, watch };
        within(LIST_PATIENCE, "the list of ManagedSecrets", async {
            while !lock(&board.state).listed {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        })
        .await?;
        Ok(board)
    }

    /// Waits until `is_so` holds for `count` secrets. `what` completes "ManagedSecrets to be …" in the error.
    pub(crate) async fn wait(
        &self,
        count: usize,
        what: &str,
        patience: Duration,
        is_so: impl Fn(&str, &Said) -> bool,
    ) -> Result<()> {
        let so = || lock(&self.state).said.iter().filter(|(name, said)| is_so(name, said)).count();
        let waited = within(patience, "", async {
            while so() < count {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        });
        let what = || format!("{count} ManagedSecrets to be {what} ({} are)", so());
        waited.await.map_err(|late| late.about(what()))
    }

    /// Returns the time at which the last secret became Ready.
    pub(crate) fn last_ready(&self) -> Option<Instant> {
        lock(&self.state).said.values().filter_map(|said| said.ready_at).max()
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn follow(secrets: Api<ManagedSecret>, state: Arc<Mutex<State>>) {
    let mut events = std::pin::pin!(watcher(secrets, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => lock(&state).take(event),
            Err(error) => {
                eprintln!("keyturn-bench: the watch of ManagedSecrets broke; starting it again: {error}")
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn take(&mut self, event: Event<ManagedSecret>) {
        match event {
            Event::Init => {}
            Event::InitDone => self.listed = true,
            Event::Delete(secret) => drop(self.said.remove(&secret.name_any())),
            Event::Apply(secret) | Event::InitApply(secret) => {
                self.said.entry(secret.name_any()).or_default().take(&secret, Instant::now());
            }
        }
    }
}

impl Said {
    fn take(&mut self, secret: &ManagedSecret, now: Instant) {
        self.held = !secret.finalizers().is_empty();
        let Some(status) = &secret.status else { return };
        if self.ready_at.is_none() && conditions::is_true(&status.conditions, READY) {
            self.ready_at = Some(now);
        }
        self.rotating = conditions::is_true(&status.conditions, ROTATING);
        self.answered = status.last_rotation.as_ref().and_then(|last| last.request.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(ready: &str, rotating: &str, request: Option<&str>) -> ManagedSecret {
        let condition = |kind: &str, status: &str| {
            json!({
                "type": kind, "status": status, "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let last = request.map(|request| json!({"result": "Succeeded", "request": request}));
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "ManagedSecret",
            "metadata": {"name": "a", "namespace": "b"},
            "spec": {
                "ssm": {"parameters": [{"path": "/a/b"}]},
                "generate": {"hex": {"bytes": 32}},
                "rotation": {"period": "90d"},
            },
            "status": {
                "conditions": [condition("Ready", ready), condition("Rotating", rotating)],
                "lastRotation": last,
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_first_time_that_a_secret_was_ready_counts() {
        let mut said = Said::default();
        let start = Instant::now();
        said.take(&secret("False", "False", None), start);
        assert!(!said.is_ready());
        said.take(&secret("True", "False", None), start + Duration::from_secs(1));
        said.take(&secret("True", "False", None), start + Duration::from_secs(2));
        assert_eq!(said.ready_at, Some(start + Duration::from_secs(1)));
    }

    #[test]
    fn a_request_is_closed_when_it_was_answered_and_nothing_is_under_way() {
        let said = |secret: ManagedSecret| {
            let mut said = Said::default();
            said.take(&secret, Instant::now());
            said
        };
        assert!(said(secret("True", "False", Some("now"))).is_closed("now"));
        assert!(!said(secret("True", "True", Some("now"))).is_closed("now"));
        assert!(!said(secret("True", "False", Some("before"))).is_closed("now"));
        assert!(!said(secret("True", "False", None)).is_closed("now"));
        let mut held = secret("True", "False", Some("now"));
        held.metadata.finalizers = Some(vec![keyturn_api::FINALIZER.to_owned()]);
        assert!(!said(held).is_closed("now"));
    }
}
