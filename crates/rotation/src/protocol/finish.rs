//! A rotation is under way: it is finished, or given up by the rules of the abort marker.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::{OnDrift, OnFailure};

use super::deployment::{Deployment, deployment};
use super::{
    Act, Desired, Next, Stalled, Step, Strategy, Waiting, base, incident, issued, suspicion, target,
    young_until,
};
use crate::observed::{Author, Observed, Parameter, Record, Trigger};

/// An open rotation as it stands.
struct View<'a> {
    desired: &'a Desired<'a>,
    observed: &'a Observed,
    record: &'a Record,
    now: DateTime<Utc>,
    grace: TimeDelta,
}

/// Says what is next, where it has something to say.
type Check = fn(&View<'_>) -> Option<Next>;

/// What may keep a rotation from going on, or end it, in the order in which it counts.
const CHECKS: &[Check] = &[
    the_time_of_the_deletion_is_over,
    it_is_about_other_parameters,
    its_source_was_changed,
    the_object_is_not_held,
    it_was_marked_to_be_given_up,
    it_has_come_back,
    a_revocation_is_due,
];

/// What brings it to its end: Install, Promote, Deploy, Retire, Close.
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

    /// Whether somebody may have read the value before, so that it must not come back.
    fn is_suspected(&self) -> bool {
        suspicion::revoke_at(self.desired, self.observed, self.record).is_some()
    }

    fn is_marked(&self) -> bool {
        self.observed.aborts.contains_key(&self.record.id)
    }

    fn mark(&self) -> Next {
        Next::Act { step: Step::Abort, act: Act::MarkAbort { id: self.record.id } }
    }

    /// Whether the record brings a value where there was one before, which can be published again.
    fn has_a_previous_value(&self) -> bool {
        self.record.trigger != Trigger::RollBack && self.record.base.values().all(|base| *base > 0)
    }

    /// Whether nothing was published before.
    fn is_bootstrap(&self) -> bool {
        self.record.base.values().all(|base| *base == 0)
    }

    /// The first path that somebody else wrote after this rotation began, and is the latest.
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

    /// Whether a publication that cannot go on leaves something behind that works for nobody: a role whose only password
    /// was changed, or parameters that do not belong together. The credential before is brought back then, unless somebody
    /// may have read it. What somebody else wrote is no reason to leave a role with a password that was never published.
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

/// What was recorded for one source is not published for another one: its login would be one that no target was given.
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
        (None, Some(_)) if record.trigger != Trigger::RollBack => "a value that is no login".to_owned(),
        // A login that was made anew never takes its own place: this is a role whose only password may be the recorded one.
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

/// Nothing is sent for as long as the grace after a marker; then the evidence decides. Where what it was for has passed, it
/// is void, and the rotation goes on.
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
    // A roll back that was begun a moment ago may be there, and not be visible yet.
    if let Some(until) = target::fence_ahead_until(view.desired, view.observed, view.now, view.grace) {
        return Some(Next::Wait { step: Step::Abort, until: Some(until), why: Waiting::Grace });
    }
    Some(Next::Act { step: Step::Abort, act })
}

/// What a marker that has outlived the grace leads to; `None` where it is void.
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
    // Not published, so nobody runs it. It is dropped where somebody else's value was adopted in its place, the object
    // goes away, or the target has withdrawn what it made; otherwise nothing speaks against it any more.
    let dropped = desired.deleting.is_some()
        || drifted && desired.on_drift == OnDrift::Adopt
        || issued::is_issued(desired);
    dropped.then_some(Act::DeleteRecord { id: record.id })
}

fn roll_back(view: &View<'_>) -> Act {
    let View { desired, observed, record, .. } = view;
    // As it was, or as somebody else wants it: that stays published, for a person to decide about.
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

/// Whether the youngest record is one that a late create, or somebody, brought back after its rotation had ended: a newer
/// rotation is published, or another draw of the same id.
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

/// What was promised for this time is done whoever wrote what meanwhile, and whether hosts follow or not. While the target
/// takes its time, or fails, hosts are given the new credential: the old one may die any moment.
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

/// Whether the target was told to refuse the old credential, and does not do so yet, or cannot be told.
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
    // A role whose only password has been changed is published whatever somebody else wrote, until every host has the new
    // one: nothing else works.
    let served = || published && matches!(view.deployment(), Deployment::Proven);
    if target::is_installed_in_place(desired, observed, record) && !served() {
        return None;
    }
    // An incident would rotate it away at rest too: there is nothing to decide for a person, nor to wait for.
    if suspicion::is_suspected(desired, observed) {
        return None;
    }
    // Whether it has been changed, only the target can say: nobody would ask it again while this waits for a person.
    if desired.strategy == Some(Strategy::InPlace)
        && !served()
        && let Some(unheard) = target::unheard(desired, observed, record)
    {
        return Some(unheard);
    }
    let held = Next::Wait { step: Step::Promote, until: None, why: Waiting::Drift { path, version } };
    match desired.on_drift {
        OnDrift::Alert => Some(held),
        // An installed login that is given up would live on with nobody knowing its password.
        OnDrift::Adopt if record.credential.is_some() => Some(held),
        OnDrift::Adopt if published => Some(close(view)),
        OnDrift::Adopt if view.is_marked() => None,
        OnDrift::Adopt => Some(view.mark()),
        OnDrift::Rotate => None,
    }
}

/// One that takes its first password from what is deployed comes after the hosts.
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
            let held = evidence.and_then(|evidence| evidence.stalled.clone()).map(|(_, message)| message);
            Waiting::Deploy { host, held }
        }
        Deployment::Failed { host, reason, message, for_good, rejected } => {
            let roll_back = rejected
                && desired.on_failure == OnFailure::RollBack
                && view.has_a_previous_value()
                && !view.is_suspected()
                && !target::may_be_adopted_in_place(desired, observed, record)
                && !view.is_marked();
            if roll_back {
                return Some(view.mark());
            }
            Waiting::DeployFailed { host, reason, message, for_good }
        }
    };
    Some(Next::Wait { step: Step::Deploy, until: None, why })
}

/// The first value of an object that is being deleted: nothing ran before that stops working, and no system outside knows it.
/// Hosts that cannot take it, or are gone, must not hold the object.
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

/// Deletes the oldest record, once nothing that could bring it back is alive.
fn close(view: &View<'_>) -> Next {
    let View { desired, observed, record, now, grace } = view;
    // After an incident the revocation is looked at once more when no late request is alive that could undo it.
    let revoked = suspicion::revoke_at(desired, observed, record)
        .and_then(|_| target::retired_at(observed, record))
        .map(|at| at + *grace)
        .filter(|until| until > now);
    // Nothing that was published tells how old the record of a roll back is that publishes nothing.
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
