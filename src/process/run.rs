//! The life of a controller process: connect, watch, wait for the lease, work, stop.
//!
//! Replicas that do not lead keep their caches up to date and do nothing else. A process leads at most once: when it
//! loses the lease it exits, and Kubernetes starts its pod again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::api::batch::v1::Job;
use keyturn_reconcile::docker_host::{self, DockerHosts};
use keyturn_reconcile::managed_secret::{self, ManagedSecrets};
use keyturn_reconcile::ports;
use keyturn_reconcile::secret_incident::{self, SecretIncidents};
use keyturn_reconcile::settings::Settings;
use keyturn_reconcile::source::OperatingSystem;
use kube::api::PartialObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinError, JoinHandle, JoinSet};

use super::config::{ConfigError, ControllerArgs, span};
use super::dispatch::{self, Reconcilers};
use super::health::{self, ListenError, Probes};
use super::inventories::Inventories;
use super::links::{Links, Queues, Telling};
use super::notifications::{HoldsNotifications, Notifications};
use super::queue::{self, Requests, Work};
use crate::api::{DockerHost, ManagedSecret, RotationGrant, SecretIncident};
use crate::cluster::cache::{Cache, Scope};
use crate::cluster::client::{self, Clients, ConnectError};
use crate::cluster::deploy_jobs::KubeDeployJobs;
use crate::cluster::events::Events;
use crate::cluster::guarded::Guarded;
use crate::cluster::lease::{Candidate, Heartbeat, Leadership, LeaseError};
use crate::cluster::metrics::{Exposition, Metrics};
use crate::cluster::mirror::{Mirror, MirrorWriter, mirror};
use crate::cluster::objects::{KubeObjects, OwnWrites};
use crate::cluster::watches;
use crate::deploy::job::HOST_LABEL;
use crate::incident::cloudtrail::CloudTrail;
use crate::incident::trail::Trail;
use crate::notification::{Courier, DeliveryError};
use crate::parameter_store::aws::Stores;
use crate::parameter_store::budget::{Rates, SsmCalls};
use crate::parameter_store::ssm::CallLimits;
use crate::source::{Openers, Sources, TargetError};

/// Number of lease durations without a heartbeat of the election loop after which the process has to be restarted.
const SILENT_LEASES: u32 = 4;

/// Time for which a new leader waits for the namespaces that take longer than the first one; they join later.
const NAMESPACE_PATIENCE: Duration = Duration::from_secs(5);

/// The reason why the controller ended without a signal to stop.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each is")]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot set up notifications: {0}")]
    Courier(#[from] DeliveryError),
    #[error("cannot create the client of a source of credentials: {0}")]
    Source(#[source] TargetError),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A task that never ends has ended, which is a bug. A new process is better than one without this task.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// The receiving sides of one scope's queues.
struct Pending {
    scope: Scope,
    secrets: Requests<ManagedSecret>,
    hosts: Requests<DockerHost>,
    tellings: Tellings,
    incidents: Requests<SecretIncident>,
}

/// The receiving sides of the queues for pending notifications.
struct Tellings {
    secrets: Requests<ManagedSecret>,
    hosts: Requests<DockerHost>,
    incidents: Requests<SecretIncident>,
}

/// Everything that lives as long as the process.
struct Process {
    args: ControllerArgs,
    settings: Settings,
    clients: Clients,
    metrics: Metrics,
    ssm_calls: SsmCalls,
    openers: Arc<Openers>,
    leadership: Leadership,
    links: Links,
    /// Set once this replica leads.
    inventories: Arc<OnceLock<Arc<Inventories>>>,
    /// Tasks that never end, by name.
    background: JoinSet<&'static str>,
    signals: Signals,
}

/// Runs a replica until a signal (SIGTERM, SIGINT) stops it, or an error.
pub async fn run(args: ControllerArgs) -> Result<(), RunError> {
    let settings = args.settings()?;
    let signals = Signals::listen().map_err(RunError::Signals)?;
    let metrics = Metrics::default();
    let clients = client::connect(&metrics).await?;
    let openers = Openers::new(&args.sources, span(settings.grace)).map_err(RunError::Source)?;
    let lease = (&args.namespace, &args.lease_name);
    let candidate = Candidate::new(clients.calls.clone(), lease.0, lease.1, &args.pod(), args.lease_timing());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = candidate.identity(),
        cluster = settings.cluster,
        region = settings.region,
        staging = settings.staging,
        namespaces = args.namespaces().join(","),
        grace_ms = settings.grace.num_milliseconds(),
        "starting"
    );

    let inventories: Arc<OnceLock<Arc<Inventories>>> = Arc::default();
    let mut background = JoinSet::new();
    let (links, pending) = {
        let inventories = inventories.clone();
        let desires_changed = move || {
            if let Some(inventories) = inventories.get() {
                inventories.desires_changed();
            }
        };
        follow(&args.namespaces(), &clients.watches, &metrics, Arc::new(desires_changed), &mut background)
    };
    let process = Process {
        leadership: candidate.leadership(),
        args,
        settings,
        clients,
        metrics,
        ssm_calls: SsmCalls::default(),
        openers: Arc::new(openers),
        links,
        inventories,
        background,
        signals,
    };
    process.live(candidate, pending).await
}

impl Process {
    async fn live(mut self, mut candidate: Candidate, pending: Vec<Pending>) -> Result<(), RunError> {
        let heartbeat = Heartbeat::default();
        self.serve_probes(heartbeat.clone()).await?;
        tokio::select! {
            () = candidate.acquire(&heartbeat) => {}
            () = self.signals.wait() => return Ok(()),
            ended = self.background.join_next() => return Err(task_ended(ended)),
        }
        tracing::info!(identity = candidate.identity(), "this replica leads");

        let (stop_lease, mut lease_stopped) = watch::channel(false);
        let mut keeper = tokio::spawn(async move {
            let kept = candidate.keep(&mut lease_stopped, &heartbeat).await;
            (candidate, kept)
        });
        let (stop_work, work_stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        self.lead(pending, &work_stopped, &mut workers, &mut keeper).await?;

        tracing::info!("received a signal to stop; finishing the work in progress");
        stop_work.send_replace(true);
        let drained = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(span(self.args.shutdown_timeout), drained).await.is_err() {
            tracing::warn!("work is still in progress; the next leader continues it");
        }
        stop_lease.send_replace(true);
        let Ok((mut candidate, kept)) = keeper.await else { return Err(RunError::Ended("the lease")) };
        kept?;
        candidate.release().await;
        Ok(())
    }

    /// Works as the leader until a signal to stop.
    async fn lead(
        &mut self,
        pending: Vec<Pending>,
        stopped: &watch::Receiver<bool>,
        workers: &mut JoinSet<()>,
        keeper: &mut Keeper,
    ) -> Result<(), RunError> {
        let inventories = self.open_inventories().await;
        let listed = async {
            self.links.cache.ready(NAMESPACE_PATIENCE).await;
            inventories.start().await;
        };
        tokio::select! {
            () = listed => {}
            () = self.signals.wait() => return Ok(()),
            ended = &mut *keeper => return Err(lease_ended(ended)),
            ended = self.background.join_next() => return Err(task_ended(ended)),
        }
        self.background.spawn(named("the inventory", inventories.clone().follow()));
        let look = Arc::new(self.reconcilers(
            inventories,
            Arc::new(CloudTrail::from_environment().await),
            stopped.clone(),
        )?);
        self.spawn_workers(pending, &look, stopped, workers);
        self.links.open();
        tokio::select! {
            () = self.signals.wait() => Ok(()),
            ended = keeper => Err(lease_ended(ended)),
            ended = self.background.join_next() => Err(task_ended(ended)),
            _ = workers.join_next() => Err(RunError::Ended("a worker")),
        }
    }

    async fn serve_probes(&mut self, heartbeat: Heartbeat) -> Result<(), RunError> {
        let cache = self.links.cache.clone();
        let exposition =
            Exposition::new(&self.metrics, &self.ssm_calls, cache.clone(), self.leadership.clone());
        let probes = Probes {
            heartbeat,
            silence: span(self.args.lease_duration) * SILENT_LEASES,
            missing: Box::new(move || cache.missing()),
            metrics: Box::new(move || exposition.text()),
        };
        let server = health::serve(self.args.listen, probes).await?;
        self.background.spawn(named("the server of health checks", server));
        Ok(())
    }

    async fn open_inventories(&self) -> Arc<Inventories> {
        let limits = CallLimits::below(span(self.settings.grace));
        let rates = Rates::for_puts(self.args.puts_per_second);
        let stores =
            Stores::from_environment(&self.settings.staging, limits, rates, self.ssm_calls.clone()).await;
        let leadership = self.leadership.clone();
        let stores = stores.guarded_by(Arc::new(move || leadership.is_leader()));
        let links = self.links.clone();
        let inventories = Inventories::new(
            stores,
            self.settings.clone(),
            span(self.args.inventory_interval),
            self.links.cache.clone(),
            move |namespace, name| links.push_secret(namespace, name),
        );
        // The cell is empty: a process leads at most once.
        let _ = self.inventories.set(inventories.clone());
        inventories
    }

    fn reconcilers(
        &self,
        inventories: Arc<Inventories>,
        trail: Arc<dyn Trail>,
        stopped: watch::Receiver<bool>,
    ) -> Result<Reconcilers, RunError> {
        let objects = Arc::new(KubeObjects::new(
            self.clients.calls.clone(),
            self.links.cache.clone(),
            Events::new(self.clients.calls.clone(), &self.args.pod()),
            self.metrics.clone(),
            self.leadership.clone(),
            self.links.own.clone(),
        ));
        let clock = Arc::new(SystemClock);
        let leadership = Arc::new(Acting { leadership: self.leadership.clone(), stopped });
        let targets = Arc::new(Sources::new(
            self.openers.clone(),
            self.clients.calls.clone(),
            objects.clone(),
            inventories.clone(),
            &self.settings,
        ));
        let secrets = ManagedSecrets::new(
            managed_secret::Ports {
                clock: clock.clone(),
                objects: objects.clone(),
                regions: inventories.clone(),
                inventory: inventories.clone(),
                targets: targets.clone(),
                leadership: leadership.clone(),
                random: Mutex::new(Box::new(OperatingSystem)),
            },
            self.settings.clone(),
        );
        let hosts = DockerHosts::new(
            docker_host::Ports {
                clock: clock.clone(),
                objects: objects.clone(),
                jobs: Arc::new(KubeDeployJobs::new(
                    self.clients.calls.clone(),
                    self.leadership.clone(),
                    self.args.job_template(),
                )),
                regions: inventories,
                targets,
                leadership: leadership.clone(),
                random: Mutex::new(Box::new(OperatingSystem)),
            },
            self.settings.clone(),
        );
        let incidents = SecretIncidents::new(
            secret_incident::Ports { clock, objects: objects.clone(), trail, leadership },
            self.settings.clone(),
        );
        let notifications = Notifications::new(
            &self.settings.cluster,
            &self.args.namespace,
            self.settings.sinks.clone(),
            Courier::new(&self.args.sink_files, self.args.allow_http)?,
            objects.clone(),
        );
        Ok(Reconcilers::new(secrets, hosts, incidents, notifications, objects))
    }

    fn spawn_workers(
        &self,
        pending: Vec<Pending>,
        look: &Arc<Reconcilers>,
        stopped: &watch::Receiver<bool>,
        workers: &mut JoinSet<()>,
    ) {
        let concurrency = self.args.concurrency;
        let workers_of_a_kind = || Arc::new(Semaphore::new(usize::from(concurrency)));
        let (secret_workers, host_workers) = (workers_of_a_kind(), workers_of_a_kind());
        let incident_workers = workers_of_a_kind();
        let work = |kind, workers: &Arc<Semaphore>| Work {
            kind,
            workers: workers.clone(),
            resync: span(self.args.resync),
            metrics: self.metrics.clone(),
        };
        let tellers = workers_of_a_kind();
        for Pending { scope, secrets, hosts, tellings, incidents } in pending {
            let (secret_look, host_look, incident_look) = (look.clone(), look.clone(), look.clone());
            let telling = || work("Notification", &tellers);
            tell(telling(), scope.secrets.clone(), tellings.secrets, look, stopped, workers);
            tell(telling(), scope.hosts.clone(), tellings.hosts, look, stopped, workers);
            tell(telling(), scope.incidents.clone(), tellings.incidents, look, stopped, workers);
            workers.spawn(queue::work(
                work("ManagedSecret", &secret_workers),
                scope.secrets,
                secrets,
                stopped.clone(),
                dispatch::due_since,
                move |object| secret_look.clone().secret(object),
            ));
            workers.spawn(queue::work(
                work("DockerHost", &host_workers),
                scope.hosts,
                hosts,
                stopped.clone(),
                |_| None,
                move |object| host_look.clone().host(object),
            ));
            workers.spawn(queue::work(
                work("SecretIncident", &incident_workers),
                scope.incidents,
                incidents,
                stopped.clone(),
                |_| None,
                move |object| incident_look.clone().incident(object),
            ));
        }
    }
}

/// Creates the queues for pending notifications, and their receiving sides.
fn telling() -> (Telling, Tellings) {
    let ((secrets, secret_requests), (hosts, host_requests)) = (queue::queue(), queue::queue());
    let (incidents, incident_requests) = queue::queue();
    let requests = Tellings { secrets: secret_requests, hosts: host_requests, incidents: incident_requests };
    (Telling { secrets, hosts, incidents }, requests)
}

/// Spawns the worker that sends the pending notifications of one kind's objects.
fn tell<K: HoldsNotifications + Clone + 'static>(
    work: Work,
    mirror: Mirror<K>,
    requests: Requests<K>,
    look: &Arc<Reconcilers>,
    stopped: &watch::Receiver<bool>,
    workers: &mut JoinSet<()>,
) {
    let look = look.clone();
    let send = move |object| look.clone().send_notifications(object);
    workers.spawn(queue::work(work, mirror, requests, stopped.clone(), |_| None, send));
}

/// Starts every watch; returns the links that they feed, and the receiving sides of the queues.
fn follow(
    namespaces: &[String],
    client: &Client,
    metrics: &Metrics,
    desires_changed: Arc<dyn Fn() + Send + Sync>,
    background: &mut JoinSet<&'static str>,
) -> (Links, Vec<Pending>) {
    let namespaces: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() };
    let (grants, grants_writer) = mirror();
    let (mut scopes, mut writers, mut queues, mut pending) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for namespace in namespaces {
        let (secrets, secrets_writer) = mirror();
        let (hosts, hosts_writer) = mirror();
        let (secret_queue, secret_requests) = queue::queue();
        let (host_queue, host_requests) = queue::queue();
        let (telling, tellings) = telling();
        let (incidents, incidents_writer) = mirror();
        let (incident_queue, incident_requests) = queue::queue();
        let scope = Scope { namespace: namespace.clone(), secrets, hosts, incidents };
        scopes.push(scope.clone());
        queues.push(Queues {
            namespace,
            secrets: secret_queue,
            hosts: host_queue,
            telling,
            incidents: incident_queue,
        });
        pending.push(Pending {
            scope: scope.clone(),
            secrets: secret_requests,
            hosts: host_requests,
            tellings,
            incidents: incident_requests,
        });
        writers.push((scope, secrets_writer, hosts_writer, incidents_writer));
    }
    let cache = Cache::new(scopes, grants);
    let jobs_in = watch::Sender::default();
    let jobs_changed = jobs_in.subscribe();
    let links = Links { cache: cache.clone(), queues, own: OwnWrites::default(), desires_changed, jobs_in };

    let all = links.clone();
    let follow_grants = watches::follow(
        Api::<Guarded<RotationGrant>>::all(client.clone()),
        cache.grants,
        grants_writer,
        metrics.clone(),
        move |_, change| {
            if change != watches::Change::Listed {
                all.grant();
            }
        },
    );
    background.spawn(named("the watch of rotationgrants", follow_grants));
    for (scope, secrets_writer, hosts_writer, incidents_writer) in writers {
        let namespace = scope.namespace.as_deref();
        follow_objects(client, namespace, scope.secrets, secrets_writer, metrics, background, {
            let links = links.clone();
            move |object, change| links.secret(object, change)
        });
        follow_objects(client, namespace, scope.hosts, hosts_writer, metrics, background, {
            let links = links.clone();
            move |object, change| links.host(object, change)
        });
        follow_objects(client, namespace, scope.incidents, incidents_writer, metrics, background, {
            let links = links.clone();
            move |object, change| links.incident(object, change)
        });
    }
    let follow_jobs = follow_jobs(client.clone(), links.clone(), metrics.clone(), jobs_changed);
    background.spawn(named("the watch of jobs", follow_jobs));
    (links, pending)
}

/// Watches the Jobs of the namespaces that are currently listed, with a separate watch for each: the controller may
/// read Jobs only in namespaces where its role is bound.
async fn follow_jobs(
    client: Client,
    links: Links,
    metrics: Metrics,
    mut namespaces: watch::Receiver<BTreeSet<String>>,
) {
    let mut tasks = JoinSet::new();
    let mut followed: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        let wanted = namespaces.borrow_and_update().clone();
        followed.retain(|namespace, task| {
            let is_wanted = wanted.contains(namespace);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        for namespace in wanted {
            let jobs: Api<PartialObjectMeta<Job>> = Api::namespaced(client.clone(), &namespace);
            let (links, metrics) = (links.clone(), metrics.clone());
            followed.entry(namespace).or_insert_with(|| {
                tasks.spawn(watches::follow_metadata(jobs, HOST_LABEL, metrics, move |job| links.job(job)))
            });
        }
        if namespaces.changed().await.is_err() {
            return;
        }
        while tasks.try_join_next().is_some() {}
    }
}

fn follow_objects<K>(
    client: &Client,
    namespace: Option<&str>,
    mirror: Mirror<K>,
    writer: MirrorWriter<K>,
    metrics: &Metrics,
    background: &mut JoinSet<&'static str>,
    changed: impl FnMut(&Guarded<K>, watches::Change) + Send + 'static,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let follow = watches::follow(scoped(client, namespace), mirror, writer, metrics.clone(), changed);
    background.spawn(named("the watch of keyturn's objects", follow));
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

type Keeper = JoinHandle<(Candidate, Result<(), LeaseError>)>;

fn lease_ended(ended: Result<(Candidate, Result<(), LeaseError>), JoinError>) -> RunError {
    match ended {
        Ok((_, Err(error))) => RunError::Lease(error),
        _ => RunError::Ended("the lease"),
    }
}

fn task_ended(ended: Option<Result<&'static str, JoinError>>) -> RunError {
    RunError::Ended(ended.and_then(Result::ok).unwrap_or("a task"))
}

struct SystemClock;

impl ports::Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// Leadership that also ends at a signal to stop: the step under way is finished, and no other step is begun.
struct Acting {
    leadership: Leadership,
    stopped: watch::Receiver<bool>,
}

impl ports::Leadership for Acting {
    fn is_leader(&self) -> bool {
        !*self.stopped.borrow() && self.leadership.is_leader()
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
