//! One pass of a secret through the protocol: observe, decide and act, until nothing is left to do or a wait begins.
//! Evidence comes from [`sight`](super::observe::sight).

pub(super) mod effects;
mod turn;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Utc};
use keyturn_api::managed_secret::{LastRotation, PreflightStatus};
use keyturn_api::time::{from_kubernetes, to_kubernetes};
use keyturn_api::{ManagedSecret, Reason, Trouble};
use keyturn_rotation::observed::{Observed, Trigger};
use keyturn_rotation::protocol::{self, Act, Desired, Incident, Step, Strategy};

use self::effects::{ActError, Actor, Done, Newer};
use self::turn::{Turn, asks_target_at};
use super::desired::admission::Leave;
use super::observe::sight::{Basis, Sight, unseen};
use super::observe::{self, Place, Remembered};
use super::status::progress::{Blocked, Login, Progress};
use super::{ManagedSecrets, desired, status, tell};
use crate::objects::{Hosts, ObjectError, Source, Subject};
use crate::parameter_store::ParameterStore;
use crate::source;

/// Maximum number of acts in one pass: more than any rotation has. A pass that reaches it continues in the next one.
const MAX_ACTS: usize = 24;

/// Result of a pass through the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The pass is over: nothing more can be done now.
    Quiet,
    /// The object was changed, or leadership was lost: decide again from the start.
    Overtaken,
    /// A cache shows that something has to be done or fully read: decide again with reads from the API server.
    NotQuiet,
    /// The object is new, and waits for the shared listing, which will cover it soon.
    Unlisted,
}

/// One pass over one secret.
pub(super) struct Pass<'a> {
    pub secrets: &'a ManagedSecrets,
    /// Source of the object and the grants. With the cache as the source, nothing outside Kubernetes is read or
    /// changed.
    pub source: Source,
    /// The object; it is read again before every effect.
    pub object: &'a mut ManagedSecret,
    pub place: &'a Place<'a>,
    pub region: &'a str,
    pub leave: Leave,
    /// Results of the pass, for the status.
    pub progress: &'a mut Progress,
    pub now: DateTime<Utc>,
    /// Memory of earlier passes; `None` once this pass has done a full read itself.
    pub remembered: &'a mut Option<Remembered>,
    pub sight: Sight,
}

impl Pass<'_> {
    /// Follows the protocol step by step until nothing is left to do or a wait begins. `seen` gets the evidence, even
    /// if the pass fails later.
    pub(super) async fn run(mut self, seen: &mut Option<Observed>) -> (Result<Ended, ObjectError>, Basis) {
        let ended = self.follow(seen).await;
        (ended, self.sight.basis)
    }

    async fn follow(&mut self, seen: &mut Option<Observed>) -> Result<Ended, ObjectError> {
        let incidents = self.incidents().await?;
        *seen = self.read_inventory(&incidents);
        if seen.is_none() && self.waits_for_the_listing(&incidents) {
            return Ok(Ended::Unlisted);
        }
        for _ in 0..MAX_ACTS {
            if seen.is_none() {
                if self.source == Source::Cache && !self.is_read_put_off() {
                    return Ok(Ended::NotQuiet);
                }
                *seen = self.read_unless_put_off(&incidents).await;
            }
            let Some(observed) = seen else { return Ok(Ended::Quiet) };
            let (step, act) = match self.decide(observed).await? {
                Turn::Act(step, act) => (step, act),
                Turn::Quiet => return Ok(Ended::Quiet),
                Turn::ReadInFull => {
                    self.require_full_read(seen);
                    continue;
                }
            };
            // The grant may have changed since the cache was updated, and may allow rotation by now.
            if self.source == Source::Cache && matches!(self.leave, Leave::Observe(_)) {
                self.require_full_read(seen);
                return Ok(Ended::NotQuiet);
            }
            if self.is_kept_from(step) {
                return Ok(Ended::Quiet);
            }
            // Every act needs a full read of Parameter Store before it. The exception is the end of a rotation during
            // which nobody else wrote.
            if self.sight.basis != Basis::FullRead && !self.is_known_well_enough(&act, observed) {
                self.require_full_read(seen);
                continue;
            }
            if act == Act::AskPreflight {
                self.progress.preflight = Some(PreflightStatus { requested_at: to_kubernetes(self.now) });
                continue;
            }
            if !self.sight.exact {
                self.sight.exact = true;
                continue;
            }
            if self.sight.basis != Basis::FullRead
                && !self.sight.closed
                && !self.is_undisturbed(observed).await
            {
                self.require_full_read(seen);
                continue;
            }
            if !self.may_act().await? {
                return Ok(Ended::Overtaken);
            }
            let Some(done) = self.perform(step, &act, observed).await? else {
                return Ok(Ended::Quiet);
            };
            if let Some(observed) = seen.take() {
                *seen = self.fold(&act, done, observed).await;
            }
            if act == Act::Abandon || self.progress.blocked.is_some() {
                break;
            }
        }
        Ok(Ended::Quiet)
    }

    async fn incidents(&self) -> Result<Vec<Incident>, ObjectError> {
        let all = self.secrets.ports.objects.secret_incidents(self.place.namespace, Source::Cache).await?;
        Ok(desired::incidents(self.object, &all, self.now))
    }

    pub(super) fn store(&self) -> Arc<dyn ParameterStore> {
        self.secrets.ports.regions.store(self.region)
    }

    pub(super) fn fail(&mut self, step: Step, blocked: Blocked) {
        self.secrets.fail(self.object, self.progress, step, blocked, self.now);
    }

    // Decide.

    async fn decide(&mut self, observed: &mut Observed) -> Result<Turn, ObjectError> {
        // A preflight request is done once the rotation has a record.
        if !observed.records.is_empty() {
            self.progress.preflight = None;
        }
        let settings = &self.secrets.settings;
        let source = if self.sight.exact { Source::ApiServer } else { Source::Cache };
        let objects = &self.secrets.ports.objects;
        let names = observe::host_names(self.object, &observed.records);
        let mut hosts = Hosts::default();
        if !names.is_empty() {
            hosts = objects.docker_hosts(self.place.namespace, source).await?;
        }
        observed.hosts = observe::host_evidence(self.object, &names, &hosts, settings.attempts);
        let windows = desired::host_windows(self.object, &hosts.decoded);
        let incidents = objects.secret_incidents(self.place.namespace, source).await?;
        let incidents = desired::incidents(self.object, &incidents, self.now);
        let identity = format!("{}/{}", self.place.namespace, self.place.name);
        let mut wanted =
            desired::desired(self.object, self.place.owner, &identity, &windows, incidents, settings);
        wanted.preflight_requested =
            self.progress.preflight.as_ref().map(|p| from_kubernetes(&p.requested_at));
        wanted.settled_since =
            self.secrets.settled_since(self.place, &wanted, observed, self.now, self.sight.closed);
        wanted.retirement.failed = self.progress.failed_at(Step::Retire);
        wanted.promotion_refused = self.progress.refused_for_good(Step::Promote);
        wanted.samples = samples(self.object, observed);
        if let Some(is_dead) = protocol::published_is_dead(&wanted, observed) {
            self.progress.login = Some(Login::seen(is_dead, observed));
        }
        let next = protocol::next(&wanted, observed, self.now, settings.grace);
        self.progress.asks_target_at = asks_target_at(&next, observed, self.progress.urgent);
        self.progress.next = Some(next.clone());
        let fresh = self.sight.basis == Basis::FullRead;
        Ok(self.secrets.turn(next, self.object, self.progress, fresh, self.now))
    }

    // Gate.

    /// True when the grant only allows keyturn to observe, or when the backoff of the step has not passed. `progress`
    /// shows which of the two.
    fn is_kept_from(&mut self, step: Step) -> bool {
        if let Leave::Observe(why) = &self.leave {
            let step = step.name();
            self.progress.observed_only =
                Some(format!("{why}, so nothing was changed. The next step would be {step}"));
            return true;
        }
        if self.progress.puts_off(step, self.now) {
            self.progress.blocked = self.progress.failure.as_ref().map(Blocked::again);
            return true;
        }
        false
    }

    /// Reads the object and the grants from the API server, right before an effect. False if the effect must not happen
    /// any more.
    async fn may_act(&mut self) -> Result<bool, ObjectError> {
        let (namespace, name) = (self.place.namespace, self.place.name);
        let objects = &self.secrets.ports.objects;
        let Some(fresh) = objects.managed_secret(namespace, name, Source::ApiServer).await? else {
            return Ok(false);
        };
        if intent(&fresh) != intent(self.object) {
            return Ok(false);
        }
        *self.object = fresh;
        let admitted = self.secrets.admit(self.object, self.region, Source::ApiServer).await?;
        Ok(admitted == Ok(Leave::Rotate) && self.secrets.ports.leadership.is_leader())
    }

    // Perform.

    /// Performs an act. `None` if it failed; `progress` contains the reason.
    async fn perform(
        &mut self,
        step: Step,
        act: &Act,
        observed: &mut Observed,
    ) -> Result<Option<Done>, ObjectError> {
        // SSM reads may not show this write before the end of the grace period, so the time without a visible record
        // is measured anew.
        self.secrets.unsettle(self.place.namespace, self.place.name);
        let closing = self.closing(act, observed);
        if leaves_no_trace(act, observed) {
            self.tell_before_it_goes(closing.as_ref(), observed).await?;
        }
        let (ports, store) = (&self.secrets.ports, self.store());
        // This Event is written before the record is deleted, since afterwards nothing shows what was replaced.
        if let Act::DeleteRecord { id } = act
            && let Some(event) = tell::event_of_replaced(observed, *id, self.secrets.settings.grace)
        {
            ports.objects.write_event(Subject::Secret(self.object), event).await;
        }
        let actor = Actor {
            ports,
            store: store.as_ref(),
            target: self.sight.target.get(),
            place: self.place,
            object: self.object,
            now: self.now,
        };
        let done = match actor.perform(act, observed).await {
            Ok(done) => done,
            Err(ActError::Object(error)) => return Err(error),
            Err(error) => {
                self.fail(step, failed(&error));
                // The role may have been changed although the call failed. The status has to show this to the hosts at
                // once.
                if matches!(act, Act::Install { .. })
                    && let Ok(seen) = self.observe_target(observed).await
                {
                    observed.target = seen;
                }
                return Ok(None);
            }
        };
        // Somebody else was faster, so nothing was created.
        if matches!(act, Act::Create { .. }) && !matches!(done, Done::Applied) {
            return Ok(Some(done));
        }
        tracing::info!(
            namespace = self.place.namespace,
            name = self.place.name,
            step = step.name(),
            rotation = tell::rotation_of(act),
            "{}",
            tell::act_text(act)
        );
        // The proof that a parameter can be written does not end an earlier failure: its attempts are still counted.
        if !matches!(act, Act::ProveWritable { .. }) {
            self.progress.failure = None;
        }
        for event in tell::events_of_act(self.object, act, observed, closing.as_ref()) {
            ports.objects.write_event(Subject::Secret(self.object), event).await;
        }
        // The deletion of a record that had reappeared does not count, since more such records may appear.
        self.sight.closed |= closing.is_some();
        self.progress.ended.extend(closing);
        // Hosts hold their deployments because of this status, so it is written before a target is changed.
        if begins_a_rotation(act) && matches!(done, Done::Applied) && desired::concerns_others(self.object) {
            self.tell(observed).await?;
        }
        Ok(Some(done))
    }

    /// Writes the end of a rotation into the status before its last trace is deleted. If the trace were deleted first
    /// and the controller died then, the next controller would execute the request again, or would start a rotation at
    /// once although it has to wait.
    async fn tell_before_it_goes(
        &mut self,
        closing: Option<&LastRotation>,
        observed: &Observed,
    ) -> Result<(), ObjectError> {
        let Some((ended, record)) = closing.zip(observed.records.values().next()) else { return Ok(()) };
        let (status, begun) = (self.object.status.as_ref(), to_kubernetes(record.at));
        if status.zip(ended.id).is_some_and(|(status, id)| status::is_told(status, id, &begun)) {
            return Ok(());
        }
        self.progress.ended.push(ended.clone());
        self.tell(observed).await
    }

    /// Writes the status in the middle of the pass.
    async fn tell(&mut self, observed: &Observed) -> Result<(), ObjectError> {
        // The first status pins the region, and this write may be the first.
        let region = self.secrets.settings.region_of(self.object).to_owned();
        let (owner, now) = (self.place.owner, self.now);
        self.secrets.record(self.object, owner, Some(observed), self.progress, &region, now).await
    }

    /// Returns the end of the rotation whose record is deleted. `None` if the rotation had ended before and its record
    /// had reappeared.
    fn closing(&self, act: &Act, observed: &Observed) -> Option<LastRotation> {
        let Act::DeleteRecord { id } = act else { return None };
        let record = observed.records.get(id).filter(|record| !protocol::has_come_back(observed, record))?;
        let mut later = observed.records.range(id + 1..).map(|(_, later)| later);
        // A rotation that is followed by the rotation of an incident was published, so its request was fulfilled.
        let followed = later.clone().any(|later| later.trigger == Trigger::Incident);
        let superseded = !observed.is_published(record) && !followed;
        let mut ended = status::ended(record, superseded, self.now);
        ended.window_seconds = status::window_seconds(self.object, observed, record, self.progress);
        // A rotation whose login the target has withdrawn is started again with another login.
        let withdrawn = superseded
            && source::issued(&self.object.spec.generate).is_some()
            && self.object.metadata.deletion_timestamp.is_none();
        // A rollback answers the request of the rotation that failed.
        if withdrawn || later.any(|later| later.request == record.request) {
            ended.request = None;
        }
        Some(ended)
    }

    // Fold.

    /// Returns the evidence after an act; `None` if only another read shows it.
    async fn fold(&mut self, act: &Act, done: Done, mut observed: Observed) -> Option<Observed> {
        if begins_a_rotation(act) {
            self.progress.preflight = None;
        }
        let in_place = source::strategy(&self.object.spec.generate) == Some(Strategy::InPlace);
        let replaced_by = match act {
            Act::Install { id } if in_place => {
                self.progress.installed_at = Some(self.now);
                observed.records.get(id)
            }
            // In an incident a login is revoked before the new one is published.
            Act::Retire { id, .. } => observed.records.get(id),
            _ => None,
        };
        if replaced_by.is_some_and(|record| !observed.is_published(record)) {
            self.progress.login = Some(Login::seen(true, &observed));
        }
        // The status does not report the result of this act yet.
        if let Basis::Memory { told } = &mut self.sight.basis {
            *told = false;
            if let Act::DeleteRecord { id } = act {
                self.sight.newer = Some(Newer::Gone(*id));
            }
        }
        match done {
            Done::ReadAgain(newer) => {
                self.sight.newer = newer;
                self.require_full_read(&mut Some(observed));
                return None;
            }
            Done::Object(changed) => *self.object = *changed,
            Done::Applied => self.progress.read_at = Some(self.secrets.ports.clock.now()),
        }
        // If there is another record, the target's answers are about the login of that record.
        if begins_a_rotation(act) && observed.records.len() > 1 {
            match self.observe_target(&observed).await {
                Ok(seen) => observed.target = seen,
                Err(error) => {
                    observed.target = None;
                    self.fail(Step::Observe, unseen(&error.into()));
                }
            }
        }
        Some(observed)
    }
}

fn begins_a_rotation(act: &Act) -> bool {
    matches!(act, Act::Record { .. } | Act::RecordRollBack { .. })
}

/// True when the act deletes the last record of a rotation, and no published version shows that rotation.
fn leaves_no_trace(act: &Act, observed: &Observed) -> bool {
    matches!(act, Act::DeleteRecord { id } if observed.records.len() == 1 && !observed.is_partly_published_by(*id))
}

/// Converts the error of an act to the obstacle that the status reports.
fn failed(error: &ActError) -> Blocked {
    let trouble = |reason, permanent| Trouble::new(reason, error.to_string(), permanent);
    Blocked::from(match error {
        ActError::Store(error) => error.trouble(),
        ActError::Record(_) => trouble(Reason::RecordTooLarge, true),
        ActError::PreviousGone { .. } => trouble(Reason::PreviousValueGone, true),
        ActError::Generate(error) => trouble(Reason::GenerateFailed, error.is_permanent()),
        ActError::Target(error) => error.trouble.clone(),
        ActError::Object(_) => trouble(Reason::APIServer, false),
    })
}

impl ManagedSecrets {
    /// Returns the time since which no record of this secret has been visible. If this pass has closed a rotation, the
    /// result is the Unix epoch, since no invisible record can exist then. `None` if a record is visible, if the
    /// object has no finalizer, or if this process is not the leader.
    fn settled_since(
        &self,
        place: &Place<'_>,
        wanted: &Desired<'_>,
        observed: &Observed,
        now: DateTime<Utc>,
        closed: bool,
    ) -> Option<DateTime<Utc>> {
        if !observed.records.is_empty() || !wanted.finalizer || !self.ports.leadership.is_leader() {
            self.unsettle(place.namespace, place.name);
            return None;
        }
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let since = settled.entry((place.namespace.to_owned(), place.name.to_owned())).or_insert(now);
        if closed {
            *since = DateTime::UNIX_EPOCH;
        }
        Some(*since)
    }

    pub(super) fn unsettle(&self, namespace: &str, name: &str) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.remove(&(namespace.to_owned(), name.to_owned()));
    }
}

/// Returns samples of the object's values, for the check of SSM's pattern and of their length. Empty without a full
/// read, and while a rotation runs.
fn samples(object: &ManagedSecret, observed: &Observed) -> BTreeMap<String, String> {
    let is_closely_seen = observed.parameters.iter().any(|parameter| parameter.shape.is_some());
    if is_closely_seen && observed.records.is_empty() {
        source::samples(&object.spec)
    } else {
        BTreeMap::new()
    }
}

/// Returns the parts of the object that people set. If one of them changes, every decision has to be made again.
fn intent(object: &ManagedSecret) -> (Option<&String>, Option<i64>, bool, Option<&str>) {
    let metadata = &object.metadata;
    (
        metadata.uid.as_ref(),
        metadata.generation,
        metadata.deletion_timestamp.is_some(),
        desired::request_token(object),
    )
}
