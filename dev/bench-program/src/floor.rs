//! The floor: a kube-rs controller that writes one status for each ManagedSecret and does nothing else. It is the lower
//! bound to which keyturn is compared.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use clap::Args;
use futures::StreamExt;
use keyturn_api::conditions::{self, READY, Truth};
use keyturn_api::{ManagedSecret, Reason};
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::client;
use crate::failure::{Failure, Result};

/// Number of objects that are written at the same time.
const CONCURRENCY: u16 = 50;
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Namespace to work in
    #[arg(long)]
    namespace: String,
    /// Print the elapsed time once this number of objects have their status
    #[arg(long, value_name = "N")]
    objects: Option<usize>,
}

struct Floor {
    api: Api<ManagedSecret>,
    objects: Option<usize>,
    written: AtomicUsize,
    began: Instant,
}

/// Runs until SIGTERM.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let client = Client::try_from(client::config().await?).map_err(Failure::api("connect to Kubernetes"))?;
    let api: Api<ManagedSecret> = Api::namespaced(client, &arguments.namespace);
    let mut terminated = signal(SignalKind::terminate()).map_err(Failure::io("listen for SIGTERM"))?;
    let floor = Floor {
        api: api.clone(),
        objects: arguments.objects,
        written: AtomicUsize::new(0),
        began: Instant::now(),
    };
    let work = Controller::new(api, watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .run(write_status, |_, _, _| Action::requeue(AGAIN), Arc::new(floor))
        .for_each(|ended| {
            if let Err(error) = ended {
                eprintln!("floor: {error}");
            }
            ready(())
        });
    tokio::select! {
        () = work => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}

async fn write_status(
    secret: Arc<ManagedSecret>,
    floor: Arc<Floor>,
) -> std::result::Result<Action, kube::Error> {
    let mut conditions = secret.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    if conditions::is_true(&conditions, READY) {
        return Ok(Action::await_change());
    }
    let generation = secret.metadata.generation;
    conditions::set(&mut conditions, READY, Truth::True, Reason::Published, "", generation, Utc::now());
    let status = serde_json::json!({"status": {"conditions": conditions}});
    floor.api.patch_status(&secret.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
    floor.count();
    Ok(Action::await_change())
}

impl Floor {
    fn count(&self) {
        let written = self.written.fetch_add(1, Ordering::Relaxed) + 1;
        if self.objects == Some(written) {
            eprintln!(
                "floor: {written} statuses {:.1} s after the start",
                self.began.elapsed().as_secs_f64()
            );
        }
    }
}
