//! The work queue of one kind of objects, processed by a limited number of workers.
//!
//! An object is in the queue at most once, however often it is pushed, and is never processed twice at the same time.
//! Every reconciliation ends with the time of the next one, so a missed event delays work but never loses it.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::channel::mpsc;
use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{self, JoinSet};

use super::line::Line;
use super::pace::{Name, Pace};
use crate::cluster::guarded::Guarded;
use crate::cluster::metrics::Metrics;
use crate::cluster::mirror::Mirror;

/// First backoff after a failed reconciliation; it doubles up to [`LONGEST_PAUSE`]. Failures of rotations and
/// deployments have their own backoff, kept in status; this one is for failures that cannot be written into a status.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The sending side of the queue. Everything pushed before this replica leads is dropped, since a new leader reconciles
/// every object anyway.
pub struct Queue<K: Resource<DynamicType = ()> + 'static> {
    open: Arc<AtomicBool>,
    sender: mpsc::UnboundedSender<ObjectRef<Guarded<K>>>,
}

impl<K: Resource<DynamicType = ()> + 'static> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { open: self.open.clone(), sender: self.sender.clone() }
    }
}

/// The receiving side of a [`Queue`].
pub type Requests<K> = mpsc::UnboundedReceiver<ObjectRef<Guarded<K>>>;

/// Creates a closed queue, and its receiving side.
pub fn queue<K: Resource<DynamicType = ()> + 'static>() -> (Queue<K>, Requests<K>) {
    let (sender, requests) = mpsc::unbounded();
    (Queue { open: Arc::default(), sender }, requests)
}

impl<K: Resource<DynamicType = ()> + 'static> Queue<K> {
    /// Opens the queue, which then accepts requests.
    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// Requests a reconciliation of an object.
    pub fn push(&self, namespace: &str, name: &str) {
        if self.open.load(Ordering::SeqCst) {
            // Sending fails only while the process ends.
            let _ = self.sender.unbounded_send(ObjectRef::new(name).within(namespace));
        }
    }
}

/// Settings of the workers of one kind.
pub struct Work {
    /// Kind of the objects, for metrics and logs.
    pub kind: &'static str,
    /// Limit of objects processed at the same time, over all queues of the kind.
    pub workers: Arc<Semaphore>,
    /// Longest time until the next reconciliation.
    pub resync: Duration,
    /// Counters of the reconciliations and of their failures.
    pub metrics: Metrics,
}

/// State of the objects of one queue.
#[derive(Default)]
struct Memory {
    /// Number of consecutive failures.
    failures: HashMap<Name, u32>,
    pace: Pace,
    /// Objects that have been held back since their last reconciliation.
    held_back: HashSet<Name>,
}

impl Memory {
    /// Checks the object's rate limit, and logs the first refusal since its last reconciliation.
    fn may_look(&mut self, kind: &str, name: &Name) -> Result<(), Duration> {
        let paced = self.pace.take(name, Instant::now());
        if paced.is_ok() {
            self.held_back.remove(name);
        } else if self.held_back.insert(name.clone()) {
            tracing::warn!(
                kind,
                namespace = name.0,
                name = name.1,
                "the object changes too often, so keyturn reconciles it less often; check whether another \
                 controller writes it too"
            );
        }
        paced
    }

    /// Drops what is known of an object that does not exist any more.
    fn forget(&mut self, name: &Name) {
        self.failures.remove(name);
        self.held_back.remove(name);
    }

    /// Returns the time until the next reconciliation. A failure is logged and counted.
    fn next_look(&mut self, work: &Work, name: &Name, ended: Result<Duration, String>) -> Duration {
        match ended {
            Ok(after) => {
                self.failures.remove(name);
                spread(after.min(work.resync), work.resync, &name.1)
            }
            Err(error) => {
                let count = self.failures.entry(name.clone()).or_default();
                *count = count.saturating_add(1);
                let pause = pause(*count);
                work.metrics.reconcile_error(work.kind);
                tracing::warn!(
                    kind = work.kind,
                    namespace = name.0,
                    name = name.1,
                    error,
                    again_in_ms = pause.as_millis(),
                    "the object could not be reconciled"
                );
                pause
            }
        }
    }
}

/// Processes the queue until `stop` turns true and all work that was begun has ended. The object that has waited
/// longest comes first; `since` returns the time since which it has been waiting, if that is before its request. `look`
/// reconciles an object and returns the time until its next reconciliation.
pub async fn work<K, F>(
    work: Work,
    mirror: Mirror<K>,
    mut requests: Requests<K>,
    mut stop: watch::Receiver<bool>,
    since: impl Fn(&Guarded<K>) -> Option<DateTime<Utc>> + Send + Sync,
    look: impl Fn(Arc<Guarded<K>>) -> F + Send,
) where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Duration, String>> + Send + 'static,
{
    tokio::select! {
        () = mirror.listed() => {}
        _ = stop.wait_for(|stop| *stop) => return,
    }
    let object = |name: &Name| mirror.get(&ObjectRef::new(&name.1).within(&name.0));
    let waits_since = |name: &Name| {
        let now = Utc::now();
        object(name).and_then(|object| since(&object)).map_or(now, |since| since.min(now))
    };
    let (mut line, mut memory) = (Line::default(), Memory::default());
    let mut busy = Busy::default();
    // Kept from one round to the next: a new wait would lose its turn to the other queues of its kind.
    let mut permit = pin!(work.workers.clone().acquire_owned());
    loop {
        let wakes_at = line.wakes_at();
        let wake = tokio::time::sleep_until(wakes_at.unwrap_or_else(Instant::now).into());
        tokio::select! {
            // The order matters: the next object is taken only after all new requests and all finished objects are in
            // the line.
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(request) = requests.next() => {
                let name = (request.namespace.unwrap_or_default(), request.name);
                line.push(&name, waits_since(&name));
            }
            () = wake, if wakes_at.is_some() => line.wake(Instant::now(), waits_since),
            Some((name, ended)) = busy.ended(), if !busy.is_empty() => {
                let after = memory.next_look(&work, &name, ended);
                line.done(name, Instant::now() + after);
            }
            // The semaphore is never closed.
            Ok(taken) = permit.as_mut(), if line.is_anybody_waiting() => {
                permit.set(work.workers.clone().acquire_owned());
                let Some(name) = line.next() else { continue };
                match (object(&name), memory.may_look(work.kind, &name)) {
                    // It was deleted while it was in the queue.
                    (None, _) => {
                        line.forget(&name);
                        memory.forget(&name);
                    }
                    (Some(_), Err(after)) => line.done(name, Instant::now() + after),
                    (Some(object), Ok(())) => {
                        work.metrics.reconcile(work.kind);
                        busy.begin(name, taken, look(object));
                    }
                }
            }
        }
    }
    while busy.ended().await.is_some() {}
}

/// The reconciliations that are under way. Each is a task, so that a panic ends only one of them.
#[derive(Default)]
struct Busy {
    tasks: JoinSet<Result<Duration, String>>,
    names: HashMap<task::Id, Arc<Name>>,
}

impl Busy {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn begin(
        &mut self,
        name: Arc<Name>,
        permit: OwnedSemaphorePermit,
        look: impl Future<Output = Result<Duration, String>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(async move {
            let _permit = permit;
            look.await
        });
        self.names.insert(task.id(), name);
    }

    /// Waits for the next one that ends; `None` if none is under way.
    async fn ended(&mut self) -> Option<(Arc<Name>, Result<Duration, String>)> {
        let (id, ended) = match self.tasks.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err("a bug in keyturn, see the log above".to_owned())),
        };
        self.names.remove(&id).map(|name| (name, ended))
    }
}

/// Spreads the reconciliations of idle objects, so that they do not all come at the same moment: each one comes up to a
/// tenth later, depending on its name.
fn spread(after: Duration, resync: Duration, name: &str) -> Duration {
    if after < resync {
        return after;
    }
    let place = name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    after + resync.mul_f64(f64::from(place % 1000) / 10_000.0)
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(20))).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use kube::ResourceExt;
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::api::ManagedSecret;
    use crate::cluster::mirror::mirror;

    #[test]
    fn pauses_double_up_to_a_minute_and_never_overflow() {
        let pauses = [1, 2, 3, 7, 8, u32::MAX].map(|failures| pause(failures).as_millis());
        assert_eq!(pauses, [500, 1000, 2000, 32_000, 60_000, 60_000]);
    }

    #[test]
    fn only_idle_objects_are_spread_and_always_by_the_same() {
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        assert_eq!(spread(minute, hour, "a"), minute);
        let (first, second) = (spread(hour, hour, "runner-token"), spread(hour, hour, "web-token"));
        assert_ne!(first, second);
        assert_eq!(first, spread(hour, hour, "runner-token"));
        for after in [first, second] {
            assert!((hour..hour.mul_f64(1.1)).contains(&after));
        }
    }

    #[test]
    fn a_closed_queue_drops_what_it_is_given() {
        let (queue, mut requests) = queue::<ManagedSecret>();
        queue.push("a", "early");
        queue.open();
        queue.push("a", "late");
        assert_eq!(requests.try_recv().unwrap().name, "late");
        assert!(requests.try_recv().is_err());
    }

    fn secret(name: &str) -> Guarded<ManagedSecret> {
        let object = serde_json::json!({
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": "a"},
            "spec": {"ssm": {"parameters": [{"path": "/a/b"}]}, "generate": {}, "rotation": {}},
        });
        Guarded(Ok(serde_json::from_value(object).unwrap()))
    }

    /// A queue with workers for the named objects.
    struct Rig {
        queue: Queue<ManagedSecret>,
        stop: watch::Sender<bool>,
        worker: tokio::task::JoinHandle<()>,
    }

    fn rig<F>(names: &[&str], concurrency: u16, look: impl Fn(String) -> F + Send + 'static) -> Rig
    where
        F: Future<Output = Result<Duration, String>> + Send + 'static,
    {
        let (store, mut writer) = mirror();
        writer.apply(&Event::Init);
        for name in names {
            writer.apply(&Event::InitApply(secret(name)));
        }
        writer.apply(&Event::InitDone);
        let (queue, requests) = queue::<ManagedSecret>();
        queue.open();
        let (stop, stopped) = watch::channel(false);
        let settings = Work {
            kind: "ManagedSecret",
            workers: Arc::new(Semaphore::new(usize::from(concurrency))),
            resync: Duration::from_secs(3600),
            metrics: Metrics::default(),
        };
        let worker = tokio::spawn(async move {
            // A store whose writer is dropped counts as broken.
            let _writer = writer;
            work(settings, store, requests, stopped, |_| None, move |object| look(object.name_any())).await;
        });
        Rig { queue, stop, worker }
    }

    /// Waits for something that must happen within this time even on the slowest machine.
    async fn soon<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), what).await.expect("it never happened")
    }

    #[tokio::test]
    async fn a_bug_that_one_object_triggers_stops_no_other_and_is_tried_again() {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let rig = rig(&["bad", "good"], 1, move |name| {
            let told = told.clone();
            async move {
                told.send(name.clone()).unwrap();
                assert_ne!(name, "bad", "a planted bug");
                Ok(Duration::MAX)
            }
        });
        rig.queue.push("a", "bad");
        rig.queue.push("a", "good");
        let mut names = Vec::new();
        while names.iter().filter(|name| *name == "bad").count() < 2 || !names.contains(&"good".to_owned()) {
            names.push(soon(heard.recv()).await.unwrap());
        }
    }

    #[tokio::test]
    async fn no_object_is_looked_at_twice_at_a_time_and_never_more_than_allowed() {
        let busy: Arc<Mutex<Vec<String>>> = Arc::default();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let rig = rig(&["one", "two", "three", "four"], 2, move |name| {
            let (busy, told) = (busy.clone(), told.clone());
            async move {
                let now = {
                    let mut busy = busy.lock().unwrap();
                    busy.push(name.clone());
                    busy.clone()
                };
                told.send(now).unwrap();
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                busy.lock().unwrap().retain(|other| *other != name);
                Ok(Duration::ZERO)
            }
        });
        for name in ["one", "two", "three", "four", "one", "one"] {
            rig.queue.push("a", name);
        }
        let mut together = 0;
        for _ in 0..100 {
            let busy = soon(heard.recv()).await.unwrap();
            let different: std::collections::HashSet<&String> = busy.iter().collect();
            assert_eq!(different.len(), busy.len(), "twice at a time: {busy:?}");
            assert!(busy.len() <= 2, "{busy:?}");
            together = together.max(busy.len());
        }
        assert_eq!(together, 2, "it never worked on two at a time, so the bound was not tried");
    }

    #[tokio::test]
    async fn told_to_stop_it_ends_what_it_has_begun_and_begins_nothing_more() {
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let opener = gate.clone();
        let ended: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = ended.clone();
        let rig = rig(&["begun", "waiting"], 1, move |name| {
            let (told, gate, ended) = (told.clone(), gate.clone(), ended.clone());
            async move {
                told.send(name.clone()).unwrap();
                let _permit = gate.acquire().await;
                ended.lock().unwrap().push(name);
                Ok(Duration::ZERO)
            }
        });
        rig.queue.push("a", "begun");
        assert_eq!(soon(heard.recv()).await.unwrap(), "begun");
        rig.queue.push("a", "waiting");
        rig.stop.send_replace(true);
        opener.add_permits(9);
        soon(rig.worker).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), ["begun"]);
    }
}
