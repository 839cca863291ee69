//! Events and notifications about a ManagedSecret: the start and end of rotations, and changes of conditions that need
//! a person's attention. Kubernetes Events report all of these. Notifications report only trouble, its end, and the
//! end of rotations of secrets with `spec.notice`.

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyturn_api::ManagedSecret;
use keyturn_api::Reason;
use keyturn_api::conditions as c;
use keyturn_api::managed_secret::{
    FailureStatus, LastRotation, ManagedSecretStatus, PublishedParameter, RotationResult,
};
use keyturn_api::notification::Topic;
use keyturn_rotation::observed::{Author, Observed, RotationId, Trigger};
use keyturn_rotation::protocol::{Act, Step};

use super::desired;
use crate::notification::Notification;
use crate::objects::Event;
use crate::source;
use crate::telling::{self, Alert, Watched, turns};

/// The conditions to report. A compromise has no topic, since the SecretIncident sends the notifications for all of its
/// secrets together.
const WATCHED: [Watched; 6] = [
    Watched { condition: c::COMPROMISED, bad: "True", event: Some(Reason::Compromised), topic: None },
    Watched { condition: c::STALLED, bad: "True", event: Some(Reason::Stalled), topic: Some(Topic::Stalled) },
    Watched { condition: c::OVERDUE, bad: "True", event: Some(Reason::Overdue), topic: Some(Topic::Overdue) },
    Watched { condition: c::DRIFTED, bad: "True", event: Some(Reason::Drifted), topic: Some(Topic::Drifted) },
    Watched {
        condition: c::PREFLIGHT,
        bad: "False",
        event: Some(Reason::PreflightFailed),
        topic: Some(Topic::Failing),
    },
    Watched {
        condition: c::DEPLOYED,
        bad: "False",
        event: Some(Reason::NotDeployed),
        topic: Some(Topic::Failing),
    },
];

/// True when the condition Deployed is False only because a deployment is running or will follow. This is not reported.
fn is_routine(condition: &Condition) -> bool {
    condition.type_ == c::DEPLOYED
        && [Reason::Deploying, Reason::Missing].iter().any(|reason| condition.reason == reason.name())
}

/// Returns the Events for conditions that have changed.
pub(super) fn events_of_transition(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let turned = telling::turned(&WATCHED, before, after).filter(|turned| !is_routine(turned.now));
    let mut events: Vec<Event> = turned.map(|turned| turned.event("Reconcile")).collect();
    if c::is_true(before, c::COMPROMISED)
        && let Some(now) = c::find(after, c::COMPROMISED).filter(|now| now.status == "False")
    {
        let note = now.message.clone();
        events.push(Event { warning: false, reason: Reason::Contained, action: "Reconcile", note });
    }
    events
}

/// Returns the notifications about a change from one status of a secret to another. `patience` is the number of
/// consecutive failures after which people are notified. `notice` is `spec.notice`; without it the end of a rotation
/// gives no notification.
pub(super) fn notifications(
    before: &ManagedSecretStatus,
    after: &ManagedSecretStatus,
    notice: Option<&str>,
    patience: i32,
    now: DateTime<Utc>,
) -> Vec<Notification> {
    let mut notifications = turns(&alerts(before, patience), &alerts(after, patience), now);
    notifications.extend(rotated(before, after, notice));
    notifications
}

fn alerts(status: &ManagedSecretStatus, patience: i32) -> Vec<Alert> {
    let found = telling::bad_conditions(&WATCHED, &status.conditions);
    let mut alerts: Vec<Alert> =
        found.filter(|(_, condition)| !is_routine(condition)).map(telling::alert).collect();
    if let Some(failure) = status.failure.as_ref().filter(|failure| failure.attempts >= patience) {
        let (cause, message) = (failure.reason.to_string(), failure.message.clone());
        alerts.push(Alert { topic: Topic::Failing, cause, message });
    }
    alerts
}

fn rotated(
    before: &ManagedSecretStatus,
    after: &ManagedSecretStatus,
    notice: Option<&str>,
) -> Option<Notification> {
    let ended = after.last_rotation.as_ref().filter(|ended| ended.result == RotationResult::Succeeded)?;
    let (notice, id) = (notice?, ended.id?);
    if before.last_rotation.as_ref().is_some_and(|known| known.id == ended.id) {
        return None;
    }
    let message = format!("Rotation {id} completed. {notice}");
    Some(Notification { topic: Topic::Rotated, key: id.to_string(), message })
}

pub(super) fn act_text(act: &Act) -> &'static str {
    match act {
        Act::Hold => "finalizer added",
        Act::AskPreflight => "preflight asked",
        Act::Record { .. } => "record created",
        Act::Create { .. } => "created",
        Act::RecordRollBack { .. } => "rollback recorded",
        Act::ProveWritable { .. } => "permission to publish proven",
        Act::SetUp => "roles made",
        Act::Install { .. } => "credential installed in its target",
        Act::Retire { .. } => "old login retired",
        Act::SweepOrphan { .. } => "orphaned token deleted",
        Act::EndSessions { .. } => "sessions of the old login ended",
        Act::Promote { .. } => "published",
        Act::MarkAbort { .. } => "abort marked",
        Act::DeleteRecord { .. } => "record deleted",
        Act::SweepMarker { .. } => "abort marker deleted",
        Act::DeleteParameter { .. } => "parameter deleted",
        Act::Release => "finalizer removed",
        Act::Abandon => "rotation abandoned, finalizer removed",
    }
}

pub(super) fn rotation_of(act: &Act) -> Option<RotationId> {
    match act {
        Act::Record { id, .. }
        | Act::Create { id, .. }
        | Act::RecordRollBack { id, .. }
        | Act::Install { id }
        | Act::Retire { id, .. }
        | Act::SweepOrphan { id, .. }
        | Act::Promote { id, .. }
        | Act::MarkAbort { id }
        | Act::DeleteRecord { id }
        | Act::SweepMarker { id } => Some(*id),
        Act::Hold
        | Act::AskPreflight
        | Act::ProveWritable { .. }
        | Act::SetUp
        | Act::EndSessions { .. }
        | Act::DeleteParameter { .. }
        | Act::Release
        | Act::Abandon => None,
    }
}

/// Returns the Event about the end of a rotation.
fn event_of_end(id: RotationId, ended: &LastRotation, notice: &str) -> Event {
    let (warning, reason, action, note) = match ended.result {
        RotationResult::Succeeded => {
            let trigger = ended.trigger.map(Trigger::name).unwrap_or_default();
            let note = format!("Rotation {id} completed ({trigger}).{notice}");
            (false, Reason::RotationCompleted, "Rotate", note)
        }
        RotationResult::RolledBack => {
            (true, Reason::RolledBack, "RollBack", format!("Rotation {id} restored the previous value"))
        }
        _ => (true, Reason::RotationAborted, "Rotate", format!("Rotation {id} was aborted")),
    };
    Event { warning, reason, action, note }
}

/// Returns the Events for an act, after it is done.
pub(super) fn events_of_act(
    object: &ManagedSecret,
    act: &Act,
    observed: &Observed,
    ended: Option<&LastRotation>,
) -> Vec<Event> {
    let normal = |reason, action, note| Event { warning: false, reason, action, note };
    let warning = |reason, action, note| Event { warning: true, reason, action, note };
    let notice = object.spec.notice.as_deref().map(|notice| format!(" {notice}")).unwrap_or_default();
    match act {
        Act::Record { id, trigger, .. } if desired::concerns_others(object) => {
            vec![normal(
                Reason::RotationStarted,
                "Rotate",
                format!("Rotation {id} started ({})", trigger.name()),
            )]
        }
        // Without hosts and without a target, the value is published in the same pass. Then a single Event at the end
        // of the rotation reports both.
        Act::Record { .. } => Vec::new(),
        Act::Create { id, path, .. } => {
            vec![normal(
                Reason::RotationCompleted,
                "Rotate",
                format!("Rotation {id} completed: it created {path}.{notice}"),
            )]
        }
        Act::RecordRollBack { id, failed, .. } => {
            let note = format!("Rotation {failed} failed; rotation {id} restores the previous value");
            vec![warning(Reason::RollBackStarted, "RollBack", note)]
        }
        Act::DeleteRecord { id } => {
            ended.map(|ended| event_of_end(*id, ended, &notice)).into_iter().collect()
        }
        Act::SetUp => {
            let statements = observed.target.as_ref().map_or(0, |target| target.set_up.len());
            vec![normal(
                Reason::RolesSetUp,
                "SetUp",
                format!("Owner and pair of roles were set up with {statements} statements"),
            )]
        }
        Act::Retire { username, .. } => {
            let retired = source::login(&object.spec.generate).map(|source| source.retired(username));
            retired.map(|what| normal(Reason::LoginRetired, "Retire", what)).into_iter().collect()
        }
        Act::EndSessions { username, .. } => {
            vec![normal(
                Reason::SessionsEnded,
                "Retire",
                format!("The old sessions of role {username} were ended"),
            )]
        }
        Act::SweepOrphan { id, username } => {
            let note = format!("Deleted orphaned token {username} of interrupted rotation {id}");
            vec![normal(Reason::OrphanDeleted, "Sweep", note)]
        }
        Act::DeleteParameter { path } => {
            vec![normal(
                Reason::ParameterDeleted,
                "Delete",
                format!("Deleted {path}, since deletionPolicy is Delete"),
            )]
        }
        Act::Abandon => {
            let live: Vec<String> = observed
                .parameters
                .iter()
                .map(|p| format!("{} version {}", p.path, p.latest_number()))
                .collect();
            let note = format!(
                "keyturn removes its finalizer during a rotation that could not be finished. Published: {}. The \
                 record stays in SSM; hosts may still run the previous version",
                live.join(", ")
            );
            vec![warning(Reason::RotationAbandoned, "Delete", note)]
        }
        _ => Vec::new(),
    }
}

/// Returns the Event for an object whose finalizer is removed although its deletion is not finished. The Event lists
/// the published versions, as far as the status shows them.
pub(super) fn event_of_let_go(object: &ManagedSecret, folder: &str) -> Event {
    let status = object.status.clone().unwrap_or_default();
    let published: Vec<String> =
        status.parameters.iter().map(|p| format!("{} version {}", p.path, p.version)).collect();
    let published = if published.is_empty() { "nothing known".to_owned() } else { published.join(", ") };
    let rotation = status.rotation.as_ref().map_or_else(String::new, |rotation| {
        let installed = if rotation.installed_at.is_some() && rotation.step == Step::Promote {
            "; its role already has the password of that rotation, which only the record holds"
        } else {
            ""
        };
        format!(
            ". Rotation {} had reached step {}: its record stays below {folder} in SSM{installed}, and hosts may run \
             the previous version or the new one",
            rotation.id, rotation.step
        )
    });
    let why = status.conditions.iter().find(|found| found.type_ == c::READY && found.status == "False");
    let why = why.map_or_else(String::new, |c| format!(" ({}: {})", c.reason, c.message));
    let note = format!(
        "keyturn removes its finalizer, since the deletion could not be finished in time{why}. Published: \
         {published}{rotation}. Nothing more is deleted"
    );
    Event { warning: true, reason: Reason::RotationAbandoned, action: "Delete", note }
}

/// Returns the Event for versions that somebody else wrote during a rotation and that keyturn has replaced. Such a
/// replacement is always reported.
pub(super) fn event_of_replaced(observed: &Observed, id: RotationId, grace: TimeDelta) -> Option<Event> {
    let record = observed.records.get(&id)?;
    let replaced: Vec<String> = observed
        .parameters
        .iter()
        .flat_map(|p| {
            let newest_ours =
                p.versions.iter().rposition(|s| matches!(s.author, Author::Ours(_))).unwrap_or(0);
            let base = record.base.get(&p.path).copied().unwrap_or(0);
            let foreign = p.versions[..newest_ours].iter().filter(|s| {
                let came_since = !record.replaces(&p.path, &s.version, grace);
                // An incident replaces a suspected version no matter who wrote it. That is reported too.
                let suspected = record.trigger == Trigger::Incident && s.version.number == base;
                match s.author {
                    Author::Foreign => came_since || suspected,
                    Author::Original => came_since,
                    Author::Ours(_) | Author::OtherOwner(_) => false,
                }
            });
            foreign.map(|s| format!("{} version {}", p.path, s.version.number)).collect::<Vec<_>>()
        })
        .collect();
    (!replaced.is_empty()).then(|| Event {
        warning: true,
        reason: Reason::ForeignWriteReplaced,
        action: "Rotate",
        note: format!("Replaced versions that somebody else wrote: {}", replaced.join(", ")),
    })
}

/// Returns the Events for two kinds of new versions by somebody else, since people could misjudge both: versions with
/// the value that was already published, which keyturn keeps, and versions whose description names keyturn as the
/// author without a valid stamp.
pub(super) fn events_of_new_versions(before: &[PublishedParameter], observed: &Observed) -> Vec<Event> {
    let told = observed.parameters.iter().filter_map(|parameter| {
        let latest = parameter.latest()?;
        let number = latest.version.number;
        before.iter().find(|known| known.path == parameter.path && known.version < number)?;
        if let Some(of) = &latest.taken_over {
            let note = format!(
                "Version {number} of {} was written by somebody else, with the value of version {} and another \
                 description: keyturn keeps it, and counts its age from that version",
                parameter.path, of.version
            );
            return Some(Event { warning: false, reason: Reason::TakenOver, action: "Reconcile", note });
        }
        latest.version.claim.as_ref().filter(|_| latest.author == Author::Foreign)?;
        let note = format!(
            "The description of version {number} of {} names keyturn as the author, but this installation did not \
             write it: somebody forged the description, or the key of keyturn's stamps below the staging path was \
             lost",
            parameter.path
        );
        Some(Event { warning: true, reason: Reason::ForgedStamp, action: "Reconcile", note })
    });
    told.collect()
}

/// Returns the Event for an old credential that cannot be retired. It is a Warning: the credential still works, and
/// somebody may have it.
pub(super) fn event_of_failed_retirement(
    before: Option<&FailureStatus>,
    after: Option<&FailureStatus>,
) -> Option<Event> {
    let of_retire = |failure: &&FailureStatus| failure.step == Step::Retire;
    let failure = after.filter(of_retire)?;
    let told = before.filter(of_retire).is_some_and(|before| before.reason == failure.reason);
    (!told).then(|| Event {
        warning: true,
        reason: Reason::RetirementFailing,
        action: "Retire",
        note: format!("The old credential still works: {}", failure.message),
    })
}

#[cfg(test)]
mod tests {
    use keyturn_api::time::to_kubernetes;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn with(kind: &str, truth: c::Truth, reason: Reason) -> ManagedSecretStatus {
        let mut status = ManagedSecretStatus::default();
        c::set(&mut status.conditions, kind, truth, reason, "why", None, now());
        status
    }

    fn failing(attempts: i32) -> ManagedSecretStatus {
        let failure = FailureStatus {
            step: Step::Promote,
            reason: Reason::SSMThrottled,
            message: "SSM throttles".into(),
            attempts,
            permanent: false,
            next_attempt_time: to_kubernetes(now()),
            generation: 1,
            incident: None,
            request: None,
        };
        ManagedSecretStatus { failure: Some(failure), ..ManagedSecretStatus::default() }
    }

    fn ended(id: i64, result: RotationResult) -> ManagedSecretStatus {
        let last = LastRotation {
            id: Some(id),
            request: None,
            trigger: None,
            result,
            finished_at: None,
            window_seconds: None,
        };
        ManagedSecretStatus { last_rotation: Some(last), ..ManagedSecretStatus::default() }
    }

    fn topics(before: &ManagedSecretStatus, after: &ManagedSecretStatus) -> Vec<Topic> {
        notifications(before, after, Some("Tell the users."), 3, now()).into_iter().map(|n| n.topic).collect()
    }

    #[test]
    fn conditions_that_call_for_a_person_are_told_and_so_is_their_end() {
        let quiet = ManagedSecretStatus::default();
        for (kind, truth, topic) in [
            (c::STALLED, c::Truth::True, Topic::Stalled),
            (c::OVERDUE, c::Truth::True, Topic::Overdue),
            (c::DRIFTED, c::Truth::True, Topic::Drifted),
            (c::PREFLIGHT, c::Truth::False, Topic::Failing),
            (c::DEPLOYED, c::Truth::False, Topic::Failing),
        ] {
            let trouble = with(kind, truth, Reason::Conflict);
            assert_eq!(topics(&quiet, &trouble), [topic], "{kind}");
            assert_eq!(topics(&trouble, &trouble), [], "{kind}");
            assert_eq!(topics(&trouble, &quiet), [Topic::Recovered], "{kind}");
        }
        assert_eq!(topics(&quiet, &with(c::DEPLOYED, c::Truth::False, Reason::Deploying)), []);
        assert_eq!(topics(&quiet, &with(c::READY, c::Truth::False, Reason::Creating)), []);
    }

    #[test]
    fn a_compromise_gives_events_only_and_a_deployment_that_is_under_way_gives_nothing() {
        let reasons = |before: &ManagedSecretStatus, after: &ManagedSecretStatus| {
            let events = events_of_transition(&before.conditions, &after.conditions);
            events.into_iter().map(|event| event.reason).collect::<Vec<_>>()
        };
        let quiet = ManagedSecretStatus::default();
        let leaked = with(c::COMPROMISED, c::Truth::True, Reason::Rotating);
        let contained = with(c::COMPROMISED, c::Truth::False, Reason::Contained);
        assert_eq!((reasons(&quiet, &leaked), topics(&quiet, &leaked)), (vec![Reason::Compromised], vec![]));
        assert_eq!(
            (reasons(&leaked, &contained), topics(&leaked, &contained)),
            (vec![Reason::Contained], vec![])
        );
        assert_eq!(
            reasons(&quiet, &with(c::DEPLOYED, c::Truth::False, Reason::ValueDiffers)),
            [Reason::NotDeployed]
        );
        assert!(reasons(&quiet, &with(c::DEPLOYED, c::Truth::False, Reason::Deploying)).is_empty());
    }

    #[test]
    fn a_step_that_fails_is_told_once_it_has_failed_often_enough() {
        let quiet = ManagedSecretStatus::default();
        assert_eq!(topics(&quiet, &failing(2)), []);
        assert_eq!(topics(&failing(2), &failing(3)), [Topic::Failing]);
        assert_eq!(topics(&failing(3), &failing(4)), []);
        assert_eq!(topics(&failing(4), &quiet), [Topic::Recovered]);
    }

    #[test]
    fn a_rotation_is_told_with_its_notice_and_not_without_one() {
        let quiet = ManagedSecretStatus::default();
        let ended_well = ended(7, RotationResult::Succeeded);
        let told = notifications(&quiet, &ended_well, Some("Tell the users."), 3, now());
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].topic, told[0].key.as_str()), (Topic::Rotated, "7"));
        assert_eq!(told[0].message, "Rotation 7 completed. Tell the users.");
        assert_eq!(topics(&ended(7, RotationResult::Succeeded), &ended(7, RotationResult::Succeeded)), []);
        assert_eq!(topics(&quiet, &ended(7, RotationResult::Aborted)), []);
        assert_eq!(notifications(&quiet, &ended(7, RotationResult::Succeeded), None, 3, now()), []);
    }
}
