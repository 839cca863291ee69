//! Events about a ManagedSecret: the start and end of rotations, and changes of conditions that need a person's
//! attention.

use chrono::TimeDelta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyturn_api::managed_secret::{FailureStatus, LastRotation, PublishedParameter, RotationResult};
use keyturn_api::{ManagedSecret, conditions};
use keyturn_rotation::observed::{Author, Observed, RotationId, Trigger};
use keyturn_rotation::protocol::{Act, Step};

use super::desired;
use crate::objects::Notice;
use crate::source;

pub(super) fn act_text(act: &Act) -> &'static str {
    match act {
        Act::Hold => "finalizer added",
        Act::AskPreflight => "preflight asked",
        Act::Record { .. } => "record created",
        Act::Create { .. } => "created",
        Act::RecordRollBack { .. } => "roll back recorded",
        Act::ProveWritable { .. } => "the right to publish proven",
        Act::SetUp => "roles made",
        Act::Install { .. } => "credential installed in its target",
        Act::Retire { .. } => "old login retired",
        Act::SweepOrphan { .. } => "token without a record deleted",
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
fn of_end(id: RotationId, ended: &LastRotation, notice: &str) -> Notice {
    let (warning, reason, action, note) = match ended.result {
        RotationResult::Succeeded => {
            let trigger = ended.trigger.map(Trigger::name).unwrap_or_default();
            let note = format!("Rotation {id} completed ({trigger}).{notice}");
            (false, "RotationCompleted", "Rotate", note)
        }
        RotationResult::RolledBack => {
            (true, "RolledBack", "RollBack", format!("Rotation {id} brought the previous value back"))
        }
        _ => (true, "RotationAborted", "Rotate", format!("Rotation {id} was given up")),
    };
    Notice { warning, reason, action, note }
}

/// Returns the Events for an act, after it is done.
pub(super) fn of_act(
    object: &ManagedSecret,
    act: &Act,
    observed: &Observed,
    ended: Option<&LastRotation>,
) -> Vec<Notice> {
    let normal = |reason, action, note| Notice { warning: false, reason, action, note };
    let warning = |reason, action, note| Notice { warning: true, reason, action, note };
    let notice = object.spec.notice.as_deref().map(|notice| format!(" {notice}")).unwrap_or_default();
    match act {
        Act::Record { id, trigger, .. } if desired::concerns_others(object) => {
            vec![normal("RotationStarted", "Rotate", format!("Rotation {id} started ({})", trigger.name()))]
        }
        // The value is published in the same pass, and a single Event at its end reports both.
        Act::Record { .. } => Vec::new(),
        Act::Create { id, path, .. } => {
            vec![normal(
                "RotationCompleted",
                "Rotate",
                format!("Rotation {id} completed: it created {path}.{notice}"),
            )]
        }
        Act::RecordRollBack { id, failed, .. } => {
            let note = format!("Rotation {failed} failed; rotation {id} brings the previous value back");
            vec![warning("RollBackStarted", "RollBack", note)]
        }
        Act::DeleteRecord { id } => ended.map(|ended| of_end(*id, ended, &notice)).into_iter().collect(),
        Act::SetUp => {
            let statements = observed.target.as_ref().map_or(0, |target| target.set_up.len());
            vec![normal(
                "RolesSetUp",
                "SetUp",
                format!("Owner and pair were made by {statements} statements"),
            )]
        }
        Act::Retire { username, .. } => {
            let retired = source::login(&object.spec.generate).map(|source| source.retired(username));
            retired.map(|what| normal("LoginRetired", "Retire", what)).into_iter().collect()
        }
        Act::EndSessions { username, .. } => {
            vec![normal("SessionsEnded", "Retire", format!("The old sessions of role {username} were ended"))]
        }
        Act::SweepOrphan { id, username } => {
            let note =
                format!("Deleted token {username}, which rotation {id} left behind when it was cut short");
            vec![normal("OrphanDeleted", "Sweep", note)]
        }
        Act::DeleteParameter { path } => {
            vec![normal(
                "ParameterDeleted",
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
                "The object is released in the middle of a rotation that could not be finished. Published: {}. The \
                 record stays in SSM; hosts may still run the version before",
                live.join(", ")
            );
            vec![warning("RotationAbandoned", "Delete", note)]
        }
        _ => Vec::new(),
    }
}

/// Returns the Event for an object that is released unfinished. It says which versions are live, as far as the status
/// knows.
pub(super) fn let_go(object: &ManagedSecret, folder: &str) -> Notice {
    let status = object.status.clone().unwrap_or_default();
    let published: Vec<String> =
        status.parameters.iter().map(|p| format!("{} version {}", p.path, p.version)).collect();
    let published =
        if published.is_empty() { "nothing that is known of".to_owned() } else { published.join(", ") };
    let rotation = status.rotation.as_ref().map_or_else(String::new, |rotation| {
        let installed = if rotation.installed_at.is_some() && rotation.step == Step::Promote {
            "; its role has the password of that rotation already, which only the record holds"
        } else {
            ""
        };
        format!(
            ". Rotation {} had come to {}: its record stays below {folder} in SSM{installed}, and hosts may run the version \
             before or the new one",
            rotation.id, rotation.step
        )
    });
    let why = status.conditions.iter().find(|c| c.type_ == conditions::READY && c.status == "False");
    let why = why.map_or_else(String::new, |c| format!(" ({}: {})", c.reason, c.message));
    let note = format!(
        "The object is released, since it could not be finished in time{why}. Published: {published}{rotation}. Nothing of it \
         is deleted"
    );
    Notice { warning: true, reason: "RotationAbandoned", action: "Delete", note }
}

/// Returns the Event for foreign versions that came during a rotation and were replaced by one of ours. Such a
/// replacement is always reported.
pub(super) fn of_replaced(observed: &Observed, id: RotationId, grace: TimeDelta) -> Option<Notice> {
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
                // An incident replaces a suspected version whoever wrote it. That is reported too.
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
    (!replaced.is_empty()).then(|| Notice {
        warning: true,
        reason: "ForeignWriteReplaced",
        action: "Rotate",
        note: format!(
            "Versions that somebody else wrote lie before the published one: {}",
            replaced.join(", ")
        ),
    })
}

/// Returns the Events for new versions by somebody else that a person could misjudge: those with the published value,
/// which are taken over, and those with a forged stamp.
pub(super) fn of_new_versions(before: &[PublishedParameter], observed: &Observed) -> Vec<Notice> {
    let told = observed.parameters.iter().filter_map(|parameter| {
        let latest = parameter.latest()?;
        let number = latest.version.number;
        before.iter().find(|known| known.path == parameter.path && known.version < number)?;
        if let Some(of) = &latest.taken_over {
            let note = format!(
                "Version {number} of {} was written by somebody else, with the value that version {} published and another \
                 description: it is taken over, and as old as that version",
                parameter.path, of.version
            );
            return Some(Notice { warning: false, reason: "TakenOver", action: "Reconcile", note });
        }
        latest.version.claim.as_ref().filter(|_| latest.author == Author::Foreign)?;
        let note = format!(
            "The description of version {number} of {} says that keyturn wrote it, and this installation did not: somebody \
             made that up, or the key of keyturn's stamps, which lies below the staging path, was lost",
            parameter.path
        );
        Some(Notice { warning: true, reason: "ForgedStamp", action: "Reconcile", note })
    });
    told.collect()
}

/// Returns the Event for an old credential that cannot be retired. It is a Warning: the credential still works, and
/// somebody may have it.
pub(super) fn of_failed_retirement(
    before: Option<&FailureStatus>,
    after: Option<&FailureStatus>,
) -> Option<Notice> {
    let of_retire = |failure: &&FailureStatus| failure.step == Step::Retire;
    let failure = after.filter(of_retire)?;
    let told = before.filter(of_retire).is_some_and(|before| before.reason == failure.reason);
    (!told).then(|| Notice {
        warning: true,
        reason: "RetirementFailing",
        action: "Retire",
        note: format!("The old credential still works: {}", failure.message),
    })
}

/// True for a deployment that is under way or still to come: the condition is False, but that is no news.
pub(super) fn is_routine(condition: &Condition) -> bool {
    condition.type_ == conditions::DEPLOYED && matches!(condition.reason.as_str(), "Deploying" | "Missing")
}

/// Returns the Events for conditions that have changed.
pub(super) fn of_transition(before: &[Condition], after: &[Condition]) -> Vec<Notice> {
    const WATCHED: [(&str, &str, &str); 6] = [
        (conditions::COMPROMISED, "True", "Compromised"),
        (conditions::STALLED, "True", "Stalled"),
        (conditions::OVERDUE, "True", "Overdue"),
        (conditions::DRIFTED, "True", "Drifted"),
        (conditions::PREFLIGHT, "False", "PreflightFailed"),
        (conditions::DEPLOYED, "False", "NotDeployed"),
    ];
    let mut notices = Vec::new();
    for (kind, bad, reason) in WATCHED {
        let Some(now) = conditions::find(after, kind).filter(|c| c.status == bad) else { continue };
        let same = conditions::find(before, kind).is_some_and(|c| c.status == bad && c.reason == now.reason);
        if !same && !is_routine(now) {
            notices.push(Notice { warning: true, reason, action: "Reconcile", note: now.message.clone() });
        }
    }
    if conditions::is_true(before, conditions::COMPROMISED)
        && let Some(now) = conditions::find(after, conditions::COMPROMISED).filter(|c| c.status == "False")
    {
        let note = now.message.clone();
        notices.push(Notice { warning: false, reason: "Contained", action: "Reconcile", note });
    }
    notices
}
