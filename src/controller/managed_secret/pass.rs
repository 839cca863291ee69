//! One pass of a secret through the protocol: look, decide, act, until there is nothing to do or something has to be
//! waited for.

use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Utc};

use super::act::{ActError, Actor, Done, Newer};
use super::observe::{self, ObserveError, Place};
use super::progress::{Blocked, Progress};
use super::turn::Turn;
use super::{ManagedSecrets, desired, notices, request_token, status};
use crate::api::ManagedSecret;
use crate::api::managed_secret::PreflightStatus;
use crate::api::rotation_grant::GrantMode;
use crate::api::time::{from_kubernetes, to_kubernetes};
use crate::controller::objects::{ObjectError, Subject};
use crate::parameter_store::{ParameterStore, StoreError};
use crate::rotation::observed::{Observed, TargetEvidence, Trigger};
use crate::rotation::protocol::{self, Act, Desired, Step, Strategy};
use crate::target::{Target, TargetError};

/// More acts than any rotation has; a pass that reaches it goes on in the next one.
const MAX_ACTS: usize = 24;
/// The step that a failed look at Parameter Store counts as.
const OBSERVE: &str = "Observe";

/// The target of a secret, where it has one.
enum Opened {
    Not,
    Target(Arc<dyn Target>),
    Failed(TargetError),
}

impl Opened {
    fn get(&self) -> Option<&dyn Target> {
        match self {
            Opened::Target(target) => Some(target.as_ref()),
            Opened::Not | Opened::Failed(_) => None,
        }
    }
}

fn unseen(error: &ObserveError) -> Blocked {
    let (reason, permanent) = match error {
        ObserveError::Store(error) => (error.reason(), error.needs_a_person()),
        ObserveError::Record(_) => ("RecordUnreadable", true),
    };
    Blocked { reason: reason.into(), message: error.to_string(), permanent, unseen: true }
}

/// How a pass through the protocol ended.
#[expect(
    clippy::large_enum_variant,
    reason = "one of them exists at a time, for as long as it takes to read it"
)]
pub(super) enum Pass {
    /// As far as it could go; with what it saw, where it could see.
    Quiet(Option<Observed>),
    /// The object was changed or leadership lost: decide again from the start.
    Overtaken,
}

impl ManagedSecrets {
    /// Follows the protocol step by step until there is nothing to do or something has to be waited for.
    pub(super) async fn pass(
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
        let mut target = Opened::Not;
        for _ in 0..MAX_ACTS {
            let mut observed = match glance.take() {
                Some(observed) => observed,
                None if !fresh && progress.backs_off_from(OBSERVE, now) => {
                    progress.blocked = progress.failure.as_ref().map(Blocked::again);
                    return Ok(Pass::Quiet(None));
                }
                None => match self.look(object, place, region, store.as_ref(), newer.as_ref()).await {
                    Ok((observed, opened)) => {
                        target = opened;
                        fresh = true;
                        observed
                    }
                    Err(blocked) => {
                        self.fail(object, progress, OBSERVE, blocked, now);
                        return Ok(Pass::Quiet(None));
                    }
                },
            };
            let hosts = self.ports.objects.docker_hosts(place.namespace).await?;
            observed.hosts =
                observe::host_evidence(object, &observed.records, &hosts, self.settings.attempts);
            let windows = desired::host_windows(object, &hosts);
            let incidents = self.ports.objects.secret_incidents(place.namespace).await?;
            let incidents = desired::incidents(object, &incidents, now);
            let mut wanted =
                desired::desired(object, place.owner, &identity, &windows, incidents, &self.settings);
            wanted.preflight_requested =
                progress.preflight.as_ref().map(|p| from_kubernetes(&p.requested_at));
            wanted.settled_since = self.settled_since(place, &wanted, &observed, now, closed);
            wanted.retirement.failed = progress.failed_at(Step::Retire);
            let next = protocol::next(&wanted, &observed, now, self.settings.grace);
            let wanted_in_place = wanted.strategy == Some(Strategy::InPlace);
            progress.next = Some(next.clone());
            let (step, act) = match self.turn(next, object, progress, fresh, now) {
                Turn::Act(step, act) => (step, act),
                Turn::Quiet => return Ok(Pass::Quiet(Some(observed))),
                Turn::LookCloser => continue,
            };
            if mode == GrantMode::Observe {
                progress.observed_only = Some(format!(
                    "The RotationGrant's mode is Observe, so nothing is touched; otherwise the next step were {}",
                    step.name()
                ));
                return Ok(Pass::Quiet(Some(observed)));
            }
            if progress.puts_off(step, now) {
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
                .perform(
                    object,
                    store.as_ref(),
                    target.get(),
                    place,
                    step,
                    &act,
                    &mut observed,
                    progress,
                    now,
                )
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
                // Beside another record: the target was asked about the logins of that one.
                if let Some(beside) = glance.as_mut().filter(|observed| observed.records.len() > 1) {
                    match self.look_at_target(&target, object, store.as_ref(), beside).await {
                        Ok(seen) => beside.target = seen,
                        Err(error) => {
                            beside.target = None;
                            self.fail(object, progress, OBSERVE, unseen(&error.into()), now);
                            return Ok(Pass::Quiet(glance));
                        }
                    }
                }
            }
            if matches!(act, Act::Install { .. }) && wanted_in_place {
                progress.installed_at = Some(now);
            }
            if act == Act::Abandon {
                return Ok(Pass::Quiet(glance));
            }
        }
        Ok(Pass::Quiet(glance))
    }

    /// Looks at everything afresh, Parameter Store first, then the target.
    async fn look(
        &self,
        object: &ManagedSecret,
        place: &Place<'_>,
        region: &str,
        store: &dyn ParameterStore,
        newer: Option<&Newer>,
    ) -> Result<(Observed, Opened), Blocked> {
        let mut observed = observe::look_closely(store, place).await.map_err(|error| unseen(&error))?;
        if newer.is_some_and(|newer| !newer.is_shown_by(&observed, place.owner)) {
            return Err(Blocked {
                reason: "SSMReadsLag".into(),
                message: "SSM does not show yet what it has just said to hold; keyturn looks again".into(),
                permanent: false,
                unseen: true,
            });
        }
        let target = self.open_target(object, region).await;
        let seen = self.look_at_target(&target, object, store, &observed).await;
        observed.target = seen.map_err(|error| unseen(&error.into()))?;
        Ok((observed, target))
    }

    async fn open_target(&self, object: &ManagedSecret, region: &str) -> Opened {
        match self.ports.targets.open(object, region).await {
            Ok(None) => Opened::Not,
            Ok(Some(target)) => Opened::Target(target),
            Err(error) => Opened::Failed(error),
        }
    }

    async fn look_at_target(
        &self,
        target: &Opened,
        object: &ManagedSecret,
        store: &dyn ParameterStore,
        observed: &Observed,
    ) -> Result<Option<TargetEvidence>, StoreError> {
        let target = match target {
            Opened::Not => return Ok(None),
            Opened::Target(target) => Ok(target.as_ref()),
            Opened::Failed(error) => Err(error),
        };
        super::target::look(target, object, store, observed, self.ports.clock.now()).await.map(Some)
    }

    /// Whether what the target said of the published login is too old.
    fn target_is_to_be_asked(&self, object: &ManagedSecret) -> bool {
        let target = object.status.as_ref().and_then(|status| status.target.as_ref());
        object.spec.generate.has_target()
            && target.is_some_and(|target| {
                let poll = if target.accepts { super::ACCEPTED_POLL } else { super::REFUSED_POLL };
                from_kubernetes(&target.checked_at) + poll <= self.ports.clock.now()
            })
    }

    fn glance(&self, object: &ManagedSecret, place: &Place<'_>, region: &str) -> Option<Observed> {
        let remembered = self.recall(place.namespace, place.name);
        if self.target_is_to_be_asked(object) {
            return None;
        }
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
        target: Option<&dyn Target>,
        place: &Place<'_>,
        step: Step,
        act: &Act,
        observed: &mut Observed,
        progress: &mut Progress,
        now: DateTime<Utc>,
    ) -> Result<Option<Done>, ObjectError> {
        let closing = match act {
            Act::DeleteRecord { id } => observed.records.get(id).map(|record| {
                // One that an incident has gone on from was published, and has been what was asked for.
                let followed =
                    observed.records.range(id + 1..).any(|(_, later)| later.trigger == Trigger::Incident);
                let superseded = !observed.is_published_by(*id) && !followed;
                let mut ended = status::ended(record, superseded, now);
                ended.window_seconds = status::window_seconds(object, observed, record, progress);
                // One whose login the target has withdrawn is begun again with another.
                let withdrawn = superseded
                    && object.spec.generate.cloudflare_r2.is_some()
                    && object.metadata.deletion_timestamp.is_none();
                if withdrawn {
                    ended.request = None;
                }
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
        let actor = Actor { ports: &self.ports, store, target, place, object, now };
        let done = match actor.perform(act, observed).await {
            Ok(done) => done,
            Err(ActError::Object(error)) => return Err(error),
            Err(error) => {
                let (reason, permanent) = match &error {
                    ActError::Store(error) => (error.reason(), error.needs_a_person()),
                    ActError::Record(_) => ("RecordTooLarge", true),
                    ActError::PreviousGone { .. } => ("PreviousValueGone", true),
                    ActError::Generate(error) => ("GenerateFailed", error.is_permanent()),
                    ActError::Target(error) => (error.reason, error.permanent),
                    ActError::NotAccepted(problem) => (problem.reason.as_str(), problem.permanent),
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
            let region = self.settings.region_of(object).to_owned();
            self.record(object, place.owner, Some(observed), progress, &region, now).await?;
        }
        Ok(Some(done))
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
}

/// What a person said with the object: a change of it makes every decision void.
fn intent(object: &ManagedSecret) -> (Option<&String>, Option<i64>, bool, Option<String>) {
    let metadata = &object.metadata;
    (metadata.uid.as_ref(), metadata.generation, metadata.deletion_timestamp.is_some(), request_token(object))
}
