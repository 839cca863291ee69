//! The ManagedSecret reconciler. It gathers the evidence, asks the protocol for the next step, performs that step, and
//! writes the outcome into the status.

mod act;
mod desired;
mod observe;
mod status;
mod tell;

pub use self::desired::claims;
pub use self::observe::coverage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::time::from_kubernetes;
use keyturn_api::{DockerHost, FINALIZER, ManagedSecret, Reason, Trouble};
use keyturn_rotation::observed::Observed;
use keyturn_rotation::protocol::Next;

use self::act::{Ended, Pass};
use self::desired::admission::{self, Leave, Scene};
use self::observe::sight::{Basis, Sight};
use self::observe::{Place, Remembered};
use self::status::progress::{Blocked, Progress};
use super::objects::{ObjectError, Objects, Source, Subject};
use super::ports::{Clock, Inventory, Leadership, Regions, Requeue, Targets};
use super::settings::Settings;
use crate::notification;
use crate::source::Random;

/// Requeue interval while waiting for a host, in case the event of its change is missed.
const HOST_POLL: TimeDelta = TimeDelta::seconds(15);
/// Requeue interval while waiting for the shared listing, in case no listing comes.
const UNLISTED_POLL: TimeDelta = TimeDelta::seconds(30);
/// Requeue interval while only a person can help.
const STALLED_POLL: TimeDelta = TimeDelta::minutes(5);
/// Interval after which a target that refused the published login is asked again, since no event shows a correction at
/// the target.
const REFUSED_POLL: TimeDelta = TimeDelta::minutes(5);
/// Interval after which a target that accepted the published login is asked again.
const ACCEPTED_POLL: TimeDelta = TimeDelta::days(1);
/// Number of attempts after which a refusal that may be temporary counts as lasting.
const LASTING_ATTEMPTS: i32 = 3;
/// Longest requeue interval of an object with nothing to do.
const RESYNC: TimeDelta = TimeDelta::hours(1);

/// The ports of the reconciler.
pub struct Ports {
    /// Source of the time of each pass.
    pub clock: Arc<dyn Clock>,
    /// keyturn's objects in the API server.
    pub objects: Arc<dyn Objects>,
    /// Parameter Store, by region.
    pub regions: Arc<dyn Regions>,
    /// The shared listings of the regions. With them, most passes need no read of their own.
    pub inventory: Arc<dyn Inventory>,
    /// The systems that must accept a credential before it is published.
    pub targets: Arc<dyn Targets>,
    /// Leadership, which is checked right before every effect.
    pub leadership: Arc<dyn Leadership>,
    /// Source of the bytes of new values.
    pub random: Mutex<Box<dyn Random + Send>>,
}

/// The ManagedSecret reconciler, with its memory of the last passes.
pub struct ManagedSecrets {
    ports: Ports,
    settings: Settings,
    /// Results of the last pass over each secret. The next pass uses them as evidence, and reports those that could not
    /// be written to the status. If a later listing confirms them, a rotation can end without another full read.
    memory: Mutex<HashMap<(String, String), Remembered>>,
    /// For each secret with a finalizer, the time since which no record of it has been visible. If the time is lost,
    /// for example in a restart, this can only delay an act.
    settled: Mutex<HashMap<(String, String), DateTime<Utc>>>,
}

impl ManagedSecrets {
    /// Makes the reconciler with an empty memory, as after a restart.
    pub fn new(ports: Ports, settings: Settings) -> Self {
        Self { ports, settings, memory: Mutex::default(), settled: Mutex::default() }
    }

    /// Does one pass over one object. Returns an error only for the API server; every other failure is reported in the
    /// object's status.
    ///
    /// Most of the time there is nothing to do, and a cache shows this without a request. If the cache shows anything
    /// else, the pass is repeated with reads from the API server.
    pub async fn reconcile(&self, namespace: &str, name: &str) -> Result<Requeue, ObjectError> {
        let mut remembered = self.recall(namespace, name);
        let mut requeue = self.pass_over(namespace, name, Source::Cache, &mut remembered).await;
        if matches!(requeue, Ok(None) | Err(ObjectError::Conflict(_))) {
            requeue = self.pass_over(namespace, name, Source::ApiServer, &mut remembered).await;
        }
        // Evidence that was read stays valid, even if the pass failed.
        if let Some(remembered) = remembered {
            self.remember(namespace, name, remembered);
        }
        requeue.map(|requeue| requeue.unwrap_or(Requeue::After(TimeDelta::zero())))
    }

    /// Does one pass with reads from this source. Returns `None` if the pass has to be repeated at once, with reads
    /// from the API server.
    async fn pass_over(
        &self,
        namespace: &str,
        name: &str,
        source: Source,
        remembered: &mut Option<Remembered>,
    ) -> Result<Option<Requeue>, ObjectError> {
        let Some(mut object) = self.ports.objects.managed_secret(namespace, name, source).await? else {
            if source == Source::Cache {
                return Ok(None);
            }
            return Ok(Some(self.forget(namespace, name, remembered)));
        };
        let now = self.ports.clock.now();
        let region = self.settings.region_of(&object).to_owned();
        let all = self.ports.objects.secret_incidents(namespace, Source::Cache).await?;
        let reported_at = desired::incidents(&object, &all, now).iter().map(|i| i.reported_at).max();
        let mut progress = Progress::resume(&object, reported_at, now + self.settings.backoff_max);
        let _ = remembered.take_if(|remembered| remembered.uid != object.metadata.uid);
        // Results that could not be written to the status are newer than the status.
        if let Some(untold) = remembered.as_ref().filter(|remembered| !remembered.told) {
            let last = object.status.as_ref().and_then(|status| status.last_rotation.as_ref());
            untold.go_on(&mut progress, last);
        }
        let paths: Vec<String> = object.spec.ssm.parameters.iter().map(|p| p.path.clone()).collect();
        let owner = format!("{}/{namespace}/{name}", self.settings.cluster);
        let place = Place { owner: &owner, staging: &self.settings.staging, namespace, name, paths: &paths };

        let (mut seen, mut basis) = (None, Basis::Listing);
        match self.admit(&object, &region, source).await? {
            // A cache may be stale and lack an object that is needed, such as a grant or a DockerHost. So a new refusal
            // is checked with the API server first.
            Err(blocked) if source == Source::Cache && !is_told(&object, &blocked) => return Ok(None),
            Err(blocked) => progress.blocked = Some(blocked),
            Ok(leave) => {
                let pass = Pass {
                    secrets: self,
                    source,
                    object: &mut object,
                    place: &place,
                    region: &region,
                    leave,
                    progress: &mut progress,
                    now,
                    remembered: &mut *remembered,
                    sight: Sight::default(),
                };
                let ended;
                (ended, basis) = pass.run(&mut seen).await;
                match ended {
                    Ok(Ended::NotQuiet) => return Ok(None),
                    Ok(Ended::Unlisted) => return Ok(Some(Requeue::After(UNLISTED_POLL))),
                    _ => {}
                }
                if let Some(untold) = seen.is_none().then(|| remembered.take_if(|r| !r.told)).flatten() {
                    (seen, basis) = (untold.of(&place, &mut progress), Basis::Memory { told: false });
                }
                if ended != Ok(Ended::Quiet) {
                    *remembered = Some(Remembered::untold(&object, seen, &progress, now));
                    return ended.map(|_| None);
                }
            }
        }
        if self.is_held_for_too_long(&object, &progress, now) {
            if source == Source::Cache {
                return Ok(None);
            }
            self.let_go(&object, &place).await?;
            return Ok(Some(self.forget(namespace, name, remembered)));
        }
        let told = self.record(&mut object, &owner, seen.as_ref(), &progress, &region, now).await;
        if told.is_ok() {
            progress.untold.clear();
            progress.ended.clear();
        }
        let latest = Remembered { told: told.is_ok(), ..Remembered::untold(&object, seen, &progress, now) };
        observe::keep(remembered, latest, basis == Basis::Listing);
        told?;
        Ok(Some(requeue(&object, &progress, now)))
    }

    /// True when the time limit of a deletion has passed and something prevents the deletion: a missing grant, another
    /// owner, SSM, the target, or an unreadable record. A rotation that is only slow is ended by the protocol's own
    /// deadline.
    fn is_held_for_too_long(&self, object: &ManagedSecret, progress: &Progress, now: DateTime<Utc>) -> bool {
        let held = object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        let deleted_at = object.metadata.deletion_timestamp.as_ref().map(from_kubernetes).filter(|_| held);
        // A refusal that may be temporary counts only after several attempts.
        let lasts = |blocked: &Blocked| {
            blocked.trouble.is_permanent()
                || progress.failure.as_ref().is_none_or(|f| f.attempts >= LASTING_ATTEMPTS)
        };
        let is_kept_from_it =
            progress.blocked.as_ref().is_some_and(lasts) || progress.observed_only.is_some();
        is_kept_from_it && deleted_at.is_some_and(|at| at + self.settings.deletion_bound() <= now)
    }

    /// Removes the finalizer of an object whose deletion cannot be finished, and writes an Event about what is left
    /// behind.
    async fn let_go(&self, object: &ManagedSecret, place: &Place<'_>) -> Result<(), ObjectError> {
        if !self.ports.leadership.is_leader() {
            return Ok(());
        }
        let event = tell::event_of_let_go(object, &place.folder());
        self.ports.objects.write_event(Subject::Secret(object), event).await;
        self.ports.objects.set_finalizer(object, false).await.map(drop)
    }

    async fn admit(
        &self,
        object: &ManagedSecret,
        region: &str,
        source: Source,
    ) -> Result<Result<Leave, Blocked>, ObjectError> {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let rivals = self.ports.objects.rivals(object).await?;
        let on_the_way = match object.spec.generate.docker_host() {
            Some(name) => match self.host_on_the_way(namespace, name, source).await? {
                Ok(host) => host,
                Err(blocked) => return Ok(Err(blocked)),
            },
            None => None,
        };
        // The grants are read last, so that they are as recent as possible.
        let grants = self.ports.objects.grants(source).await?;
        let scene = Scene { rivals: &rivals, grants: &grants, on_the_way: on_the_way.as_ref() };
        Ok(admission::admit(object, region, &scene, &self.settings))
    }

    /// Returns the DockerHost of this name; `None` if it does not exist, or an obstacle if it cannot be decoded.
    async fn host_on_the_way(
        &self,
        namespace: &str,
        name: &str,
        source: Source,
    ) -> Result<Result<Option<DockerHost>, Blocked>, ObjectError> {
        let objects = &self.ports.objects;
        let error = match source {
            Source::Cache => None,
            Source::ApiServer => match objects.docker_host(namespace, name).await {
                Ok(host) => return Ok(Ok(host)),
                Err(error) => Some(error),
            },
        };
        // A DockerHost that cannot be decoded is a lasting error, so the status has to report it.
        let hosts = objects.docker_hosts(namespace, source).await?;
        if !hosts.undecodable.iter().any(|undecodable| undecodable == name) {
            let mut cached = hosts.decoded.into_iter();
            let host = cached.find(|host| host.metadata.name.as_deref() == Some(name));
            return error.map_or(Ok(Ok(host)), Err);
        }
        let message = format!(
            "DockerHost {name} of spec.generate cannot be decoded, so keyturn does not know how to reach the server: \
             correct it. Its Events say what is wrong"
        );
        Ok(Err(Blocked::unseen(Trouble::permanent(Reason::HostUnreadable, message))))
    }

    /// Writes the status if it has changed, and sends notifications and Events.
    async fn record(
        &self,
        object: &mut ManagedSecret,
        owner: &str,
        observed: Option<&Observed>,
        progress: &Progress,
        region: &str,
        now: DateTime<Utc>,
    ) -> Result<(), ObjectError> {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let hosts = self.ports.objects.docker_hosts(&namespace, Source::Cache).await?.decoded;
        let windows = desired::host_windows(object, &hosts);
        let identity = format!("{namespace}/{}", object.metadata.name.as_deref().unwrap_or_default());
        let before = object.status.clone().unwrap_or_default();
        let incidents = self.ports.objects.secret_incidents(&namespace, Source::Cache).await?;
        let incidents = desired::incidents(object, &incidents, now);
        let wanted = desired::desired(object, owner, &identity, &windows, incidents, &self.settings);
        let mut after = status::render(object, &wanted, observed, progress, region, now);
        if after == before {
            return Ok(());
        }
        let notice = object.spec.notice.as_deref();
        let notifications = tell::notifications(&before, &after, notice, self.settings.attempts, now);
        let pending = &mut after.pending_notifications;
        notification::enqueue(pending, &self.settings.sinks, &object.metadata, notifications, now);
        let mut changed = object.clone();
        changed.status = Some(after.clone());
        match self.ports.objects.write_secret_status(&changed).await {
            Ok(written) => *object = written,
            // The finalizer was removed and the object is deleted now, so there is no status left to write.
            Err(ObjectError::Gone(_)) if object.metadata.deletion_timestamp.is_some() => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in tell::events_of_transition(&before.conditions, &after.conditions) {
            self.ports.objects.write_event(Subject::Secret(object), event).await;
        }
        if let Some(seen) = observed {
            for event in tell::events_of_new_versions(&before.parameters, seen) {
                self.ports.objects.write_event(Subject::Secret(object), event).await;
            }
        }
        let (failed_before, fails) = (before.failure.as_ref(), after.failure.as_ref());
        if let Some(event) = tell::event_of_failed_retirement(failed_before, fails) {
            self.ports.objects.write_event(Subject::Secret(object), event).await;
        }
        Ok(())
    }

    /// Drops the memory of an object that does not exist any more, or whose finalizer was removed.
    fn forget(&self, namespace: &str, name: &str, remembered: &mut Option<Remembered>) -> Requeue {
        *remembered = None;
        self.unsettle(namespace, name);
        Requeue::Never
    }

    fn recall(&self, namespace: &str, name: &str) -> Option<Remembered> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(&(namespace.to_owned(), name.to_owned()))
    }

    fn remember(&self, namespace: &str, name: &str, remembered: Remembered) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.insert((namespace.to_owned(), name.to_owned()), remembered);
    }
}

/// True when a condition in the status already has the reason of this obstacle.
fn is_told(object: &ManagedSecret, blocked: &Blocked) -> bool {
    let conditions = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    conditions.iter().any(|condition| condition.reason == blocked.trouble.reason.name())
}

/// Returns the time of the next pass over an object whose status is up to date.
fn requeue(object: &ManagedSecret, progress: &Progress, now: DateTime<Utc>) -> Requeue {
    let target = object.status.as_ref().and_then(|status| status.target.as_ref());
    let requeue = match follow_up(progress, now) {
        Requeue::After(wait) if target.is_some_and(|target| !target.accepts) => {
            Requeue::After(wait.min(REFUSED_POLL))
        }
        requeue => requeue,
    };
    before_revocation(requeue, object, now)
}

/// Shortens the wait so that a pass takes place when an incident's revocation is due, even if the object waits for
/// something else.
fn before_revocation(requeue: Requeue, object: &ManagedSecret, now: DateTime<Utc>) -> Requeue {
    let compromise = object.status.as_ref().and_then(|status| status.compromise.as_ref());
    let open = compromise.filter(|compromise| compromise.contained_at.is_none());
    let ahead =
        open.map(|open| from_kubernetes(&open.revoke_by) - now).filter(|wait| *wait > TimeDelta::zero());
    match (requeue, ahead) {
        (Requeue::After(wait), Some(ahead)) => Requeue::After(wait.min(ahead)),
        (requeue, _) => requeue,
    }
}

fn follow_up(progress: &Progress, now: DateTime<Utc>) -> Requeue {
    let wait = |at: DateTime<Utc>| (at - now).max(TimeDelta::milliseconds(100)).min(RESYNC);
    // A retry time in the past leaves nothing to wait for: the retry was made, or the pass waits for something else by
    // now. A retry time that equals the present time belongs to a failure in this pass.
    let next_attempt = progress.failure.as_ref().map(|failure| from_kubernetes(&failure.next_attempt_time));
    if let Some(next_attempt) = next_attempt.filter(|at| *at >= now) {
        return Requeue::After(wait(next_attempt));
    }
    if progress.blocked.is_some() {
        return Requeue::After(STALLED_POLL);
    }
    Requeue::After(match &progress.next {
        Some(Next::Wait { until: Some(until), .. }) => wait(*until),
        Some(Next::Wait { until: None, .. }) => progress.asks_target_at.map_or(HOST_POLL, wait),
        Some(Next::Rest { at: Some(at) }) => wait(*at),
        Some(Next::Act { .. }) if progress.observed_only.is_none() => TimeDelta::zero(),
        _ => RESYNC,
    })
}
