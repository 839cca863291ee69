//! Continues a rotation whose record is open until it is finished, or gives it up by means of the abort marker.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::{OnDrift, OnFailure};

use super::deployment::{Deployment, deployment};
use super::{
    Act, Desired, Next, Stalled, Step, Strategy, Waiting, base, incident, issued, suspicion, target,
    young_until,
};
use crate::observed::{Author, Observed, Parameter, Record, Trigger};

/// An open rotation with everything that its checks read.
struct View<'a> {
    desired: &'a Desired<'a>,
    observed: &'a Observed,
    record: &'a Record,
    now: DateTime<Utc>,
    grace: TimeDelta,
}

/// Returns the next step, or `None` to leave the decision to the check that follows.
type Check = fn(&View<'_>) -> Option<Next>;

/// Checks that may hold back, end or give up a rotation, in order of precedence.
const CHECKS: &[Check] = &[
    the_time_of_the_deletion_is_over,
    it_is_about_other_parameters,
    its_source_was_changed,
    the_object_is_not_held,
    it_was_marked_to_be_given_up,
    it_has_come_back,
    a_revocation_is_due,
];

/// Checks that bring the rotation to its end: Install, Promote, Deploy, Retire, Close.
const STEPS: &[Check] = &[
    somebody_else_has_written,
    the_target_has_to_accept_it,
    every_path_has_to_hold_it,
    an_incident_does_not_wait_for_its_hosts,
    every_host_has_to_adopt_it,
    the_target_that_came_with_it_has_to_accept_it,
    the_target_has_to_be_heard,
    the_old_login_has_to_be_retired,
    an_incident_goes_on_from_it,
];

pub(super) fn go_on(
    desired: &Desired<'_>,
    observed: &Observed,
    record: &Record,
    now: DateTime<Utc>,
    grace: TimeDelta,
) -> Next {
    let view = View { desired, observed, record, now, grace };
    CHECKS.iter().find_map(|check| check(&view)).unwrap_or_else(|| go_a_step_further(&view))
}

fn go_a_step_further(view: &View<'_>) -> Next {
    STEPS.iter().find_map(|check| check(view)).unwrap_or_else(|| close(view))
}

impl View<'_> {
    fn deployment(&self) -> Deployment {
        deployment(self.desired, self.observed, self.record)
    }

    fn install(&self) -> Option<Next> {
        target::install(self.desired, self.observed, self.record, self.now)
    }

    fn retire(&self) -> Option<Next> {
        target::retire(self.desired, self.observed, self.record, self.now, self.grace)
    }

    /// Returns true when somebody may have read the previous value, so that it must not be published again.
    fn is_suspected(&self) -> bool {
        suspicion::revoke_at(self.desired, self.observed, self.record).is_some()
    }

    fn is_marked(&self) -> bool {
        self.observed.aborts.contains_key(&self.record.id)
    }

    fn mark(&self) -> Next {
        Next::Act { step: Step::Abort, act: Act::MarkAbort { id: self.record.id } }
    }

    /// Returns true when every path had a value before this rotation, which a rollback could publish again.
    fn has_a_previous_value(&self) -> bool {
        self.record.trigger != Trigger::RollBack && self.record.base.values().all(|base| *base > 0)
    }

    /// Returns true when no path had a value before this rotation.
    fn is_bootstrap(&self) -> bool {
        self.record.base.values().all(|base| *base == 0)
    }

    /// Returns the first path whose latest version somebody else wrote after this rotation began.
    fn drift(&self) -> Option<(String, i64)> {
        let drifted = self.observed.parameters.iter().find(|parameter| self.is_drift(parameter))?;
        Some((drifted.path.clone(), drifted.latest_number()))
    }

    fn is_drift(&self, parameter: &Parameter) -> bool {
        parameter.latest().is_some_and(|latest| {
            matches!(latest.author, Author::Foreign | Author::Original)
                && !self.record.replaces(&parameter.path, &latest.version, self.grace)
        })
    }

    /// Returns true when a publication that cannot continue would leave something unusable behind: a role whose only
    /// password was changed, or parameters that do not belong together. The previous credential is then restored,
    /// unless somebody may have read it. A foreign version does not prevent this if a role would otherwise keep a
    /// password that was never published.
    fn is_to_be_taken_back(&self) -> bool {
        let (observed, record) = (self.observed, self.record);
        let begun = observed.parameters.iter().any(|p| record.is_published_in(p));
        let half_done = begun && !observed.is_published(record) && self.drift().is_none();
        let only_installed = target::is_installed_in_place(self.desired, observed, record)
            && !observed.is_partly_published_by(record.id);
        (half_done || only_installed) && self.has_a_previous_value() && !self.is_suspected()
    }
}

fn the_time_of_the_deletion_is_over(view: &View<'_>) -> Option<Next> {
    let deadline = view.desired.deleting? + view.desired.deletion_bound;
    let over = view.desired.finalizer && deadline <= view.now;
    over.then_some(Next::Act { step: Step::Close, act: Act::Abandon })
}

fn it_is_about_other_parameters(view: &View<'_>) -> Option<Next> {
    let values = &view.record.values;
    if view.observed.parameters.iter().all(|p| values.contains_key(&p.path)) {
        return None;
    }
    let paths = values.keys().cloned().collect::<Vec<_>>().join(", ");
    Some(Next::Stall(Stalled::OtherParameters { id: view.record.id, paths }))
}

/// Stalls when the source in the spec changed: a value recorded for one source is not published for another one, since
/// the target of the new source was never given that login.
fn its_source_was_changed(view: &View<'_>) -> Option<Next> {
    let View { desired, record, .. } = view;
    let recorded = match (&record.credential, desired.strategy) {
        (Some(credential), None) => format!("a login of {} for a target", credential.username),
        (Some(credential), Some(Strategy::InPlace | Strategy::Alternating)) => {
            if desired.roles.contains(&credential.username.as_str()) {
                return None;
            }
            format!("a password for the login {}", credential.username)
        }
        (None, Some(_)) if record.trigger != Trigger::RollBack => "a value that is not a login".to_owned(),
        // A login made by its target never replaces itself. So this record is for a role that is changed in place, and
        // the recorded password may be its only one.
        (Some(credential), Some(Strategy::Issued))
            if credential.replaces.as_ref() == Some(&credential.username) =>
        {
            format!("a password for the login {}", credential.username)
        }
        (None, _) | (Some(_), Some(Strategy::Issued)) => return None,
    };
    Some(Next::Stall(Stalled::SourceChanged { id: record.id, recorded }))
}

fn the_object_is_not_held(view: &View<'_>) -> Option<Next> {
    let held = view.desired.finalizer || view.desired.deleting.is_some();
    (!held).then_some(Next::Act { step: Step::Record, act: Act::Hold })
}

/// Does nothing until the abort marker is older than the grace period; after that the evidence decides. If the reason
/// for the marker has passed, the marker is void and the rotation goes on.
fn it_was_marked_to_be_given_up(view: &View<'_>) -> Option<Next> {
    let marked = *view.observed.aborts.get(&view.record.id)?;
    if view.record.trigger == Trigger::RollBack {
        return None;
    }
    if marked + view.grace > view.now {
        let why = if view.is_to_be_taken_back() { Waiting::TakenBack } else { Waiting::Grace };
        return Some(Next::Wait { step: Step::Abort, until: Some(marked + view.grace), why });
    }
    let act = given_up(view)?;
    // A rollback recorded a moment ago may not be visible yet.
    if let Some(until) = target::fence_ahead_until(view.desired, view.observed, view.now, view.grace) {
        return Some(Next::Wait { step: Step::Abort, until: Some(until), why: Waiting::Grace });
    }
    Some(Next::Act { step: Step::Abort, act })
}

/// Returns the act that follows a marker older than the grace period; `None` if the marker is void.
fn given_up(view: &View<'_>) -> Option<Act> {
    let View { desired, observed, record, .. } = view;
    let drifted = view.drift().is_some();
    if view.is_to_be_taken_back() {
        return Some(roll_back(view));
    }
    if observed.is_partly_published_by(record.id) {
        let failed = matches!(view.deployment(), Deployment::Failed { .. });
        let wanted = failed
            && desired.on_failure == OnFailure::RollBack
            && !drifted
            && !view.is_suspected()
            && !target::may_be_adopted_in_place(desired, observed, record);
        return wanted.then(|| roll_back(view));
    }
    if target::may_be_installed(observed, record) {
        return None;
    }
    // The value is not published, so no host runs it. The record is deleted if a foreign value was adopted instead, the
    // object is being deleted, or the target no longer accepts the login that it made; otherwise the rotation goes on.
    let dropped = desired.deleting.is_some()
        || drifted && desired.on_drift == OnDrift::Adopt
        || issued::is_issued(desired);
    dropped.then_some(Act::DeleteRecord { id: record.id })
}

fn roll_back(view: &View<'_>) -> Act {
    let View { desired, observed, record, .. } = view;
    // Paths that still hold the previous value, or a foreign one, stay as they are; a person decides about the foreign
    // one.
    let is_left = |p: &&Parameter| {
        !record.is_published_in(p)
            && (view.is_drift(p) || record.base.get(&p.path) == Some(&p.latest_number()))
    };
    Act::RecordRollBack {
        id: observed.highest_id(desired.owner) + 1,
        failed: record.id,
        base: base(observed),
        hosts: record.hosts.clone(),
        kept: observed.parameters.iter().filter(is_left).map(|p| p.path.clone()).collect(),
    }
}

/// Returns true when the youngest record reappeared after its rotation had ended, by a late create request or by a
/// person: a newer rotation is published, or another value with the same id.
pub fn has_come_back(observed: &Observed, record: &Record) -> bool {
    let is_later = |author: &Author| matches!(author, Author::Ours(other) if *other > record.id);
    let newer = |p: &Parameter| p.latest().is_some_and(|latest| is_later(&latest.author));
    let is_youngest = observed.records.range(record.id + 1..).next().is_none();
    is_youngest && (observed.parameters.iter().any(newer) || !observed.mismatched.is_empty())
}

fn it_has_come_back(view: &View<'_>) -> Option<Next> {
    let act = Act::DeleteRecord { id: view.record.id };
    has_come_back(view.observed, view.record).then_some(Next::Act { step: Step::Close, act })
}

/// Revokes the old credential at the promised time, even after foreign writes and even if hosts still use it. While the
/// target is slow or fails, hosts already get the new credential: the old one may stop working at any moment.
fn a_revocation_is_due(view: &View<'_>) -> Option<Next> {
    if !suspicion::is_due(view.desired, view.observed, view.record, view.now) {
        return None;
    }
    let revocation = view.retire()?;
    if view.desired.retirement.failed || is_out_of_our_hands(&revocation) {
        return match go_a_step_further(view) {
            act @ Next::Act { .. } => Some(act),
            _ => Some(revocation),
        };
    }
    Some(revocation)
}

/// Returns true when keyturn can do nothing more now: the target was instructed to refuse the old credential and does
/// not do so yet, or keyturn cannot instruct it.
fn is_out_of_our_hands(revocation: &Next) -> bool {
    let Next::Wait { why, .. } = revocation else { return false };
    matches!(
        why,
        Waiting::Propagation { .. }
            | Waiting::OutOfReach { .. }
            | Waiting::SessionsUnseen { .. }
            | Waiting::Grace
    )
}

fn somebody_else_has_written(view: &View<'_>) -> Option<Next> {
    let View { desired, observed, record, .. } = view;
    let (path, version) = view.drift()?;
    let published = observed.is_partly_published_by(record.id);
    // A role whose only password has been changed is published despite a foreign write, until every host has the new
    // password: no other password works.
    let served = || published && matches!(view.deployment(), Deployment::Proven);
    if target::is_installed_in_place(desired, observed, record) && !served() {
        return None;
    }
    // Without an open record an incident would replace the foreign value as well, so a person has nothing to decide.
    if suspicion::is_suspected(desired, observed) {
        return None;
    }
    // Only the target can say whether the role was changed, and nobody would ask it again while this waits for a
    // person.
    if desired.strategy == Some(Strategy::InPlace)
        && !served()
        && let Some(unheard) = target::unheard(desired, observed, record)
    {
        return Some(unheard);
    }
    let held = Next::Wait { step: Step::Promote, until: None, why: Waiting::Drift { path, version } };
    match desired.on_drift {
        OnDrift::Alert => Some(held),
        // If an installed login were given up, it would continue to work with a password that nobody knows.
        OnDrift::Adopt if record.credential.is_some() => Some(held),
        OnDrift::Adopt if published => Some(close(view)),
        OnDrift::Adopt if view.is_marked() => None,
        OnDrift::Adopt => Some(view.mark()),
        OnDrift::Rotate => None,
    }
}

/// Runs Install before Promote. A target that takes its first password from the deployment comes after the hosts
/// instead.
fn the_target_has_to_accept_it(view: &View<'_>) -> Option<Next> {
    let comes_later = view.is_bootstrap() && target::is_not_there_yet(view.desired, view.observed);
    if comes_later { None } else { view.install() }
}

fn every_path_has_to_hold_it(view: &View<'_>) -> Option<Next> {
    let View { desired, observed, record, .. } = view;
    let parameter = observed.parameters.iter().find(|p| !record.is_published_in(p))?;
    if desired.promotion_refused && !view.is_marked() && view.is_to_be_taken_back() {
        return Some(view.mark());
    }
    let (id, path, expected) = (record.id, parameter.path.clone(), parameter.latest_number() + 1);
    Some(Next::Act { step: Step::Promote, act: Act::Promote { id, path, expected } })
}

fn an_incident_does_not_wait_for_its_hosts(view: &View<'_>) -> Option<Next> {
    if matches!(view.deployment(), Deployment::Proven) {
        return None;
    }
    incident::supersede_unproven(view.desired, view.observed, view.record, view.now, view.grace)
}

fn every_host_has_to_adopt_it(view: &View<'_>) -> Option<Next> {
    if is_missed_by_nobody(view) {
        return None;
    }
    let View { desired, observed, record, .. } = view;
    let why = match view.deployment() {
        Deployment::Proven => return None,
        Deployment::Missing { host } => return Some(Next::Stall(Stalled::HostMissing { host })),
        Deployment::Pending { host } => {
            let evidence = observed.hosts.iter().find(|evidence| evidence.name == host);
            let held = evidence.and_then(|evidence| evidence.stalled.clone()).map(|trouble| trouble.message);
            Waiting::Deploy { host, held }
        }
        Deployment::Failed { host, trouble, rejected } => {
            let roll_back = rejected
                && desired.on_failure == OnFailure::RollBack
                && view.has_a_previous_value()
                && !view.is_suspected()
                && !target::may_be_adopted_in_place(desired, observed, record)
                && !view.is_marked();
            if roll_back {
                return Some(view.mark());
            }
            Waiting::DeployFailed { host, trouble }
        }
    };
    Some(Next::Wait { step: Step::Deploy, until: None, why })
}

/// Returns true for the first value of an object that is being deleted: nothing that ran before stops working, and no
/// target has the value. Hosts that cannot take it, or are gone, must not delay the deletion.
fn is_missed_by_nobody(view: &View<'_>) -> bool {
    view.desired.deleting.is_some() && view.is_bootstrap() && view.record.credential.is_none()
}

fn the_target_that_came_with_it_has_to_accept_it(view: &View<'_>) -> Option<Next> {
    view.install()
}

fn the_target_has_to_be_heard(view: &View<'_>) -> Option<Next> {
    target::unheard(view.desired, view.observed, view.record)
}

fn the_old_login_has_to_be_retired(view: &View<'_>) -> Option<Next> {
    view.retire()
}

fn an_incident_goes_on_from_it(view: &View<'_>) -> Option<Next> {
    incident::supersede(view.desired, view.observed, view.record)
}

/// Deletes the oldest record, once every request that could create it again is too old to arrive.
fn close(view: &View<'_>) -> Next {
    let View { desired, observed, record, now, grace } = view;
    // After an incident the revocation is checked once more at a time when no late request can undo it any more.
    let revoked = suspicion::revoke_at(desired, observed, record)
        .and_then(|_| target::retired_at(observed, record))
        .map(|at| at + *grace)
        .filter(|until| until > now);
    // A rollback that publishes nothing has no version that shows its age, so the age of its record counts.
    let kept = observed.parameters.iter().all(|parameter| record.keeps(parameter));
    let created = kept.then(|| record.at + *grace).filter(|until| until > now);
    if let Some(until) = young_until(observed, *now, *grace).max(revoked).max(created) {
        return Next::Wait { step: Step::Close, until: Some(until), why: Waiting::Grace };
    }
    match observed.records.first_key_value() {
        Some((id, _)) => Next::Act { step: Step::Close, act: Act::DeleteRecord { id: *id } },
        None => Next::Rest { at: None },
    }
}
