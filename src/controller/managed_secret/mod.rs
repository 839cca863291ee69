//! The ManagedSecret reconciler: gathers the evidence, asks the protocol what is next, performs it, and mirrors the
//! outcome in the status.

mod act;
mod admission;
mod desired;
mod notices;
mod observe;
pub mod ports;
mod progress;
mod status;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use self::act::{ActError, Actor, Done, Newer};
use self::observe::{ObserveError, Place, Remembered};
use self::ports::Ports;
use self::progress::{Blocked, Progress};
use super::objects::{ObjectError, Subject};
use super::settings::Settings;
use crate::api::managed_secret::{FailureStatus, PreflightStatus};
use crate::api::rotation_grant::GrantMode;
use crate::api::time::{from_kubernetes, to_kubernetes};
use crate::api::{ManagedSecret, ROTATE_REQUESTED_AT};
use crate::parameter_store::ParameterStore;
use crate::rotation::observed::Observed;
use crate::rotation::protocol::{self, Act, Desired, Next, Step, Waiting};

/// More acts than any rotation has; a pass that reaches it goes on in the next one.
const MAX_ACTS: usize = 24;
/// How soon to look again where a host has to say something, in case its word is missed.
const HOST_POLL: TimeDelta = TimeDelta::seconds(15);
/// How soon to look again at what only a person can mend.
const STALLED_POLL: TimeDelta = TimeDelta::minutes(5);
/// The longest a quiet object is left alone.
const RESYNC: TimeDelta = TimeDelta::hours(1);

/// When to look at the object again, if nothing happens before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    After(TimeDelta),
    /// The object is gone.
    Never,
}

pub struct ManagedSecrets {
    ports: Ports,
    settings: Settings,
    /// The last closer look at each secret that is in the middle of a rotation: an optimisation, never evidence for an
    /// act.
    memory: Mutex<HashMap<(String, String), Remembered>>,
    /// Since when each secret with a finalizer has been seen without a record. It only ever delays.
    settled: Mutex<HashMap<(String, String), DateTime<Utc>>>,
}

/// How a pass through the protocol ended.
enum Pass {
    /// As far as it could go; with what it saw, where it could see.
    Quiet(Option<Observed>),
    /// The object was changed or leadership lost: decide again from the start.
    Overtaken,
}

impl ManagedSecrets {
    pub fn new(ports: Ports, settings: Settings) -> Self {
        Self { ports, settings, memory: Mutex::default(), settled: Mutex::default() }
    }

    /// One pass over one object. An error is one of the API server; everything else is told in the object's status.
    pub async fn reconcile(&self, namespace: &str, name: &str) -> Result<Requeue, ObjectError> {
        let Some(mut object) = self.ports.objects.managed_secret(namespace, name).await? else {
            self.forget(namespace, name);
            return Ok(Requeue::Never);
        };
        let now = self.ports.clock.now();
        let region = self.region(&object);
        let mut progress = Progress::resume(&object);
        let paths: Vec<String> = object.spec.ssm.parameters.iter().map(|p| p.path.clone()).collect();
        let owner = format!("{}/{namespace}/{name}", self.settings.cluster);
        let place = Place { owner: &owner, staging: &self.settings.staging, namespace, name, paths: &paths };

        let observed = match self.admit(&object, &region).await? {
            Err(blocked) => {
                progress.blocked = Some(blocked);
                None
            }
            Ok(mode) => match self.pass(&mut object, &place, &region, mode, &mut progress, now).await? {
                Pass::Quiet(observed) => observed,
                Pass::Overtaken => return Ok(Requeue::After(TimeDelta::zero())),
            },
        };
        self.record(&mut object, &owner, observed.as_ref(), &progress, &region, now).await?;
        let requeue = requeue(&progress, now);
        if let Some(observed) = observed {
            self.remember(namespace, name, Remembered { observed, at: self.ports.clock.now() });
        }
        Ok(requeue)
    }

    /// The region is the spec's, or the one pinned at first sight, or the controller's.
    fn region(&self, object: &ManagedSecret) -> String {
        let pinned = object.status.as_ref().and_then(|s| s.region.clone());
        object.spec.ssm.region.clone().or(pinned).unwrap_or_else(|| self.settings.region.clone())
    }

    async fn admit(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Result<GrantMode, Blocked>, ObjectError> {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let neighbours = self.ports.objects.managed_secrets(namespace).await?;
        let grants = self.ports.objects.grants().await?;
        Ok(admission::admit(object, region, &neighbours, &grants, &self.settings))
    }

    /// Follows the protocol step by step until there is nothing to do or something has to be waited for.
    async fn pass(
        &self,
        object: &mut ManagedSecret,
        place: &Place<'_>,
        region: &str,
        mode: GrantMode,
        progress: &mut Progress,
        now: DateTime<Utc>,
    ) -> Result<Pass, ObjectError> {
        let store = self.ports.regions.store(region);
        let identity = format!("{}/{}", place.namespace, place.name);
        let mut glance = self.glance(object, place, region);
        let mut fresh = false;
        let mut newer: Option<Newer> = None;
        let mut closed = false;
        for _ in 0..MAX_ACTS {
            let mut observed = match glance.take() {
                Some(observed) => observed,
                None => match observe::look_closely(store.as_ref(), place).await {
                    Ok(observed)
                        if newer.as_ref().is_some_and(|n| !n.is_shown_by(&observed, place.owner)) =>
                    {
                        let message =
                            "SSM does not show yet what it has just said to hold; keyturn looks again";
                        let blocked = Blocked {
                            reason: "SSMReadsLag".into(),
                            message: message.into(),
                            permanent: false,
                            unseen: true,
                        };
                        self.fail(object, progress, "Observe", blocked, now);
                        return Ok(Pass::Quiet(None));
                    }
                    Ok(observed) => {
                        fresh = true;
                        observed
                    }
                    Err(error) => {
                        let (reason, permanent) = match &error {
                            ObserveError::Store(error) => (error.reason(), needs_a_person(error)),
                            ObserveError::Record(_) => ("RecordUnreadable", true),
                        };
                        let blocked = Blocked {
                            reason: reason.into(),
                            message: error.to_string(),
                            permanent,
                            unseen: true,
                        };
                        self.fail(object, progress, "Observe", blocked, now);
                        return Ok(Pass::Quiet(None));
                    }
                },
            };
            let hosts = self.ports.objects.docker_hosts(place.namespace).await?;
            observed.hosts =
                observe::host_evidence(object, &observed.records, &hosts, self.settings.attempts);
            let windows = desired::host_windows(object, &hosts);
            let mut wanted = desired::desired(object, place.owner, &identity, &windows, &self.settings);
            wanted.preflight_requested =
                progress.preflight.as_ref().map(|p| from_kubernetes(&p.requested_at));
            wanted.settled_since = self.settled_since(place, &wanted, &observed, now, closed);
            let next = protocol::next(&wanted, &observed, now, self.settings.grace);
            progress.next = Some(next.clone());
            let (step, act) = match next {
                Next::Act { step, act } => (step, act),
                Next::Stall(stalled) => {
                    progress.blocked = Some(Blocked {
                        reason: stalled.reason().into(),
                        message: stalled.to_string(),
                        permanent: true,
                        unseen: stalled.is_not_ours(),
                    });
                    return Ok(Pass::Quiet(Some(observed)));
                }
                Next::Wait { why: Waiting::PreflightFailed { host, reason, message }, .. } => {
                    self.preflight_failed(object, progress, &host, &reason, &message, now);
                    return Ok(Pass::Quiet(Some(observed)));
                }
                Next::Rest { .. } => {
                    progress.preflight = None;
                    progress.failure = None;
                    return Ok(Pass::Quiet(Some(observed)));
                }
                Next::Wait { step, .. } => {
                    if step != Step::Preflight {
                        progress.failure = None;
                    }
                    return Ok(Pass::Quiet(Some(observed)));
                }
            };
            if mode == GrantMode::Observe {
                progress.observed_only = Some(format!(
                    "The RotationGrant's mode is Observe, so nothing is touched; otherwise the next step were {}",
                    step.name()
                ));
                return Ok(Pass::Quiet(Some(observed)));
            }
            if progress.backs_off(now) {
                progress.blocked = progress.failure.as_ref().map(Blocked::again);
                return Ok(Pass::Quiet(Some(observed)));
            }
            if act == Act::AskPreflight {
                progress.preflight = Some(PreflightStatus { requested_at: to_kubernetes(now) });
                glance = Some(observed);
                continue;
            }
            // Every effect is decided on what Parameter Store says now, not on what it said a while ago.
            if !fresh {
                continue;
            }
            if !self.may_act(object, region).await? {
                return Ok(Pass::Overtaken);
            }
            // What is about to be written may be there, unseen, for as long as the grace.
            self.unsettle(place);
            match self
                .perform(object, store.as_ref(), place, step, &act, &mut observed, progress, now)
                .await?
            {
                Some(Done::Applied) => glance = Some(observed),
                Some(Done::Object(changed)) => {
                    *object = *changed;
                    glance = Some(observed);
                }
                Some(Done::LookAgain(what)) => {
                    newer = what;
                    fresh = false;
                }
                None => return Ok(Pass::Quiet(Some(observed))),
            }
            closed |= matches!(act, Act::DeleteRecord { .. });
            if matches!(act, Act::Record { .. } | Act::RecordRollBack { .. }) {
                progress.preflight = None;
            }
            if act == Act::Abandon {
                return Ok(Pass::Quiet(glance));
            }
        }
        Ok(Pass::Quiet(glance))
    }

    fn glance(&self, object: &ManagedSecret, place: &Place<'_>, region: &str) -> Option<Observed> {
        let remembered = self.recall(place.namespace, place.name);
        let glimpse = self.ports.inventory.glimpse(region, place.paths, &place.folder())?;
        observe::at_a_glance(object, place, glimpse, remembered)
    }

    /// Reads the object and the grants from the API server itself, right before an effect.
    async fn may_act(&self, object: &mut ManagedSecret, region: &str) -> Result<bool, ObjectError> {
        let (Some(namespace), Some(name)) = (object.metadata.namespace.clone(), object.metadata.name.clone())
        else {
            return Ok(false);
        };
        let Some(fresh) = self.ports.objects.managed_secret(&namespace, &name).await? else {
            return Ok(false);
        };
        if intent(&fresh) != intent(object) {
            return Ok(false);
        }
        *object = fresh;
        let admitted = self.admit(object, region).await?;
        Ok(admitted == Ok(GrantMode::Rotate) && self.ports.leadership.is_leader())
    }

    /// `None`: it failed, which `progress` tells.
    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
    async fn perform(
        &self,
        object: &mut ManagedSecret,
        store: &dyn ParameterStore,
        place: &Place<'_>,
        step: Step,
        act: &Act,
        observed: &mut Observed,
        progress: &mut Progress,
        now: DateTime<Utc>,
    ) -> Result<Option<Done>, ObjectError> {
        let closing = match act {
            Act::DeleteRecord { id } => observed.records.get(id).map(|record| {
                let superseded = !observed.is_published_by(*id);
                let mut ended = status::ended(record, superseded, now);
                // A roll back answers the request of the rotation that failed.
                if observed.records.range(id + 1..).any(|(_, later)| later.request == record.request) {
                    ended.request = None;
                }
                ended
            }),
            _ => None,
        };
        // Said before the record goes: afterwards nothing is left to tell it from.
        if let Act::DeleteRecord { id } = act
            && let Some(notice) = notices::of_replaced(observed, *id, self.settings.grace)
        {
            self.ports.objects.notify(Subject::Secret(object), notice).await;
        }
        let actor = Actor { ports: &self.ports, store, place, object, now };
        let done = match actor.perform(act, observed).await {
            Ok(done) => done,
            Err(ActError::Object(error)) => return Err(error),
            Err(error) => {
                let (reason, permanent) = match &error {
                    ActError::Store(error) => (error.reason(), needs_a_person(error)),
                    ActError::Record(_) => ("RecordTooLarge", true),
                    ActError::PreviousGone { .. } => ("PreviousValueGone", true),
                    ActError::Generate(error) => ("GenerateFailed", error.is_permanent()),
                    ActError::Object(_) => unreachable!("returned above"),
                };
                let blocked =
                    Blocked { reason: reason.into(), message: error.to_string(), permanent, unseen: false };
                self.fail(object, progress, step.name(), blocked, now);
                return Ok(None);
            }
        };
        tracing::info!(
            namespace = place.namespace,
            name = place.name,
            step = step.name(),
            rotation = notices::rotation_of(act),
            "{}",
            notices::act_text(act)
        );
        progress.failure = None;
        for notice in notices::of_act(object, act, observed, closing.as_ref()) {
            self.ports.objects.notify(Subject::Secret(object), notice).await;
        }
        progress.ended.extend(closing);
        if matches!(act, Act::Record { .. } | Act::RecordRollBack { .. }) && matches!(done, Done::Applied) {
            let region = self.region(object);
            self.record(object, place.owner, Some(observed), progress, &region, now).await?;
        }
        Ok(Some(done))
    }

    /// Writes the status where it has changed, and tells people of what they should know.
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
        let hosts = self.ports.objects.docker_hosts(&namespace).await?;
        let windows = desired::host_windows(object, &hosts);
        let identity = format!("{namespace}/{}", object.metadata.name.as_deref().unwrap_or_default());
        let before = object.status.clone().unwrap_or_default();
        let wanted = desired::desired(object, owner, &identity, &windows, &self.settings);
        let after = status::render(object, &wanted, observed, progress, region, now);
        if after == before {
            return Ok(());
        }
        let mut changed = object.clone();
        changed.status = Some(after.clone());
        match self.ports.objects.write_secret_status(&changed).await {
            Ok(written) => *object = written,
            // released and deleted: there is nothing left to say it on
            Err(ObjectError::Gone(_)) if object.metadata.deletion_timestamp.is_some() => return Ok(()),
            Err(error) => return Err(error),
        }
        for notice in notices::of_transition(&before.conditions, &after.conditions) {
            self.ports.objects.notify(Subject::Secret(object), notice).await;
        }
        Ok(())
    }

    /// Counts a failure of a step and sets the time of the next attempt.
    fn fail(
        &self,
        object: &ManagedSecret,
        progress: &mut Progress,
        step: &str,
        blocked: Blocked,
        now: DateTime<Utc>,
    ) {
        let attempts = progress.failure.as_ref().filter(|f| f.step == step).map_or(0, |f| f.attempts) + 1;
        let next = now + self.settings.backoff(attempts);
        tracing::warn!(
            namespace = object.metadata.namespace,
            name = object.metadata.name,
            step,
            reason = blocked.reason,
            attempts,
            next_attempt = %next,
            "{}",
            blocked.message
        );
        progress.failure = Some(FailureStatus {
            step: step.to_owned(),
            reason: blocked.reason.clone(),
            message: blocked.message.clone(),
            attempts,
            next_attempt_time: to_kubernetes(next + TimeDelta::milliseconds(999)),
            generation: object.metadata.generation.unwrap_or_default(),
            request: request_token(object),
        });
        progress.blocked = Some(blocked);
    }

    /// A failed preflight is asked for again after the backoff.
    fn preflight_failed(
        &self,
        object: &ManagedSecret,
        progress: &mut Progress,
        host: &str,
        reason: &str,
        message: &str,
        now: DateTime<Utc>,
    ) {
        let asked = progress.preflight.as_ref().map(|p| from_kubernetes(&p.requested_at));
        let counted = progress
            .failure
            .as_ref()
            .filter(|f| f.step == "Preflight")
            .map(|f| from_kubernetes(&f.next_attempt_time));
        match (asked, counted) {
            (Some(asked), Some(next)) if next > asked => {
                if now >= next {
                    progress.preflight = Some(PreflightStatus { requested_at: to_kubernetes(now) });
                    progress.next =
                        Some(Next::Wait { step: Step::Preflight, until: None, why: Waiting::Preflight });
                }
            }
            _ => {
                let message = format!("DockerHost {host}: {message}");
                let blocked = Blocked { reason: reason.to_owned(), message, permanent: false, unseen: false };
                self.fail(object, progress, "Preflight", blocked, now);
                progress.blocked = None;
            }
        }
    }

    /// Since when no record of this secret has been seen. One that this very pass has closed leaves nothing unseen.
    fn settled_since(
        &self,
        place: &Place<'_>,
        wanted: &Desired<'_>,
        observed: &Observed,
        now: DateTime<Utc>,
        closed: bool,
    ) -> Option<DateTime<Utc>> {
        if !observed.records.is_empty() || !wanted.finalizer || !self.ports.leadership.is_leader() {
            self.unsettle(place);
            return None;
        }
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let since = settled.entry((place.namespace.to_owned(), place.name.to_owned())).or_insert(now);
        if closed {
            *since = DateTime::UNIX_EPOCH;
        }
        Some(*since)
    }

    fn unsettle(&self, place: &Place<'_>) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.remove(&(place.namespace.to_owned(), place.name.to_owned()));
    }

    fn forget(&self, namespace: &str, name: &str) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.remove(&(namespace.to_owned(), name.to_owned()));
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(&(namespace.to_owned(), name.to_owned()));
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

/// What a person said with the object: a change of it makes every decision void.
fn intent(object: &ManagedSecret) -> (Option<&String>, Option<i64>, bool, Option<String>) {
    let metadata = &object.metadata;
    (metadata.uid.as_ref(), metadata.generation, metadata.deletion_timestamp.is_some(), request_token(object))
}

fn request_token(object: &ManagedSecret) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(ROTATE_REQUESTED_AT).cloned()
}

/// Denied and rejected calls stay so until somebody changes something, though they are tried again all the same.
fn needs_a_person(error: &crate::parameter_store::StoreError) -> bool {
    use crate::parameter_store::StoreError;
    error.is_permanent() || matches!(error, StoreError::Denied { .. })
}

fn requeue(progress: &Progress, now: DateTime<Utc>) -> Requeue {
    let wait = |at: DateTime<Utc>| (at - now).max(TimeDelta::milliseconds(100)).min(RESYNC);
    if let Some(failure) = &progress.failure {
        return Requeue::After(wait(from_kubernetes(&failure.next_attempt_time)));
    }
    if progress.blocked.is_some() {
        return Requeue::After(STALLED_POLL);
    }
    Requeue::After(match &progress.next {
        Some(Next::Wait { until: Some(until), .. }) => wait(*until),
        Some(Next::Wait { until: None, .. }) => HOST_POLL,
        Some(Next::Rest { at: Some(at) }) => wait(*at),
        Some(Next::Act { .. }) if progress.observed_only.is_none() => TimeDelta::zero(),
        _ => RESYNC,
    })
}
