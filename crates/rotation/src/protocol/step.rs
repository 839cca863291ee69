//! The protocol's answers: an act, a reason to wait, a reason to stop.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::observed::{RotationId, TargetProblem, Trigger};
use crate::window::WindowError;

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Preflight,
    Record,
    /// The target is made to accept the recorded credential.
    Install,
    Promote,
    Deploy,
    /// The target is made to refuse the old credential.
    Retire,
    Close,
    /// An abort marker lies beside the record.
    Abort,
}

impl Step {
    /// The word for it in status and Events.
    pub fn name(self) -> &'static str {
        match self {
            Step::Preflight => "Preflight",
            Step::Record => "Record",
            Step::Install => "Install",
            Step::Promote => "Promote",
            Step::Deploy => "Deploy",
            Step::Retire => "Retire",
            Step::Close => "Close",
            Step::Abort => "Abort",
        }
    }
}

/// One effect on the world outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Add the finalizer.
    Hold,
    /// Ask the hosts for a fresh proof.
    AskPreflight,
    /// Draw the values and create the record.
    Record {
        id: RotationId,
        trigger: Trigger,
        request: Option<String>,
        base: BTreeMap<String, i64>,
        hosts: Vec<String>,
        /// Whether a ring of keys may go on holding those that are published: nobody else may have read them.
        keep_previous: bool,
    },
    /// Draw a value and publish it as version 1 of the only parameter, which nobody may have written. Such a Put happens once,
    /// and nothing has to follow it: it takes no record.
    Create {
        id: RotationId,
        path: String,
        request: Option<String>,
    },
    /// Create a record that publishes again what rotation `failed` replaced.
    RecordRollBack {
        id: RotationId,
        failed: RotationId,
        base: BTreeMap<String, i64>,
        hosts: Vec<String>,
        /// Paths where the failed rotation has published nothing.
        kept: BTreeSet<String>,
    },
    /// Show that the controller may write a parameter, by a Put that must not overwrite it.
    ProveWritable {
        path: String,
    },
    /// Make the roles of the source from the one that is in use.
    SetUp,
    /// Make the target accept the recorded credential.
    Install {
        id: RotationId,
    },
    /// Make the target refuse the old login.
    Retire {
        id: RotationId,
        username: String,
    },
    /// Delete a login of the target that a rotation of this id left behind without a record.
    SweepOrphan {
        id: RotationId,
        username: String,
    },
    /// End the sessions of a login that has been retired, or those from before its password was changed.
    EndSessions {
        username: String,
        opened_before: Option<DateTime<Utc>>,
    },
    /// Publish the recorded value. `expected` is the number that the version should get; 1 creates the parameter.
    Promote {
        id: RotationId,
        path: String,
        expected: i64,
    },
    /// Write the abort marker of this id.
    MarkAbort {
        id: RotationId,
    },
    DeleteRecord {
        id: RotationId,
    },
    SweepMarker {
        id: RotationId,
    },
    /// `deletionPolicy: Delete`.
    DeleteParameter {
        path: String,
    },
    /// Remove the finalizer.
    Release,
    /// Remove the finalizer although the rotation could not be finished in time after the object was deleted.
    Abandon,
}

/// Why nothing is done at the moment although something is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The published version, the marker or the request before it is younger than the grace.
    Grace,
    /// Hosts have been asked for a fresh proof.
    Preflight,
    /// Hosts do not answer, fail verify, or run another value than the published one.
    PreflightFailed { host: String, reason: String, message: String },
    /// Hosts have not proven the new version yet; `held` is what keeps any run from starting on this one.
    Deploy { host: String, held: Option<String> },
    /// A deployment failed; `for_good` when enough attempts did.
    DeployFailed { host: String, reason: String, message: String, for_good: bool },
    /// Somebody else wrote the parameter and a person has to say what counts.
    Drift { path: String, version: i64 },
    /// The target could not be asked, or does not accept what it has to.
    Target(TargetProblem),
    /// The target has not been asked since it matters.
    TargetUnseen,
    /// A deployment runs on a host, and would start containers with a password that is about to be changed.
    HostBusy { host: String },
    /// Nothing proves that the host has left the old credential.
    Unproven { host: String },
    /// The old credential is kept for a while after the proof.
    Retirement,
    /// Somebody still uses the old login.
    Sessions { username: String, clients: Vec<String> },
    /// Nobody can tell whether a session from before the password was changed is still open.
    SessionsUnseen { username: String, lacking: Lacking },
    /// The target has not heard of the new login yet, or not of the end of the old one.
    Propagation { retired: bool },
    /// The old login works although it is not among those that can be retired.
    OutOfReach { username: String },
    /// Rotations that were cut short have left logins behind, which are swept first.
    Orphans { count: usize },
    /// SSM has refused the new credential for good, and the one before is brought back.
    TakenBack,
    /// SSM would refuse the value; nothing was changed for it.
    Unpublishable { message: String },
}

impl Waiting {
    /// Whether only a fresh look, at the target or at what no listing shows, can end it.
    pub fn needs_a_closer_look(&self) -> bool {
        matches!(
            self,
            Waiting::Target(_)
                | Waiting::TargetUnseen
                | Waiting::Sessions { .. }
                | Waiting::SessionsUnseen { .. }
                | Waiting::Propagation { .. }
                | Waiting::OutOfReach { .. }
                | Waiting::Orphans { .. }
                | Waiting::Unpublishable { .. }
        )
    }
}

impl Waiting {
    /// Whether only something that happens in the target can end it, of which nobody tells.
    pub fn is_for_the_target(&self) -> bool {
        matches!(
            self,
            Waiting::TargetUnseen
                | Waiting::Sessions { .. }
                | Waiting::SessionsUnseen { .. }
                | Waiting::OutOfReach { .. }
        )
    }
}

/// What is lacking to see since when the sessions of a role are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// Of an administrator, or of the role itself.
    Login,
    /// The administrator's right to read the statistics of other roles.
    Statistics,
}

/// Why nothing will happen until a person acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    #[error(
        "parameter {path} belongs to {owner}: its description says so. Let that object manage it, or remove the text \
         from `keyturn owner=` on from the description"
    )]
    OwnedByOther { path: String, owner: String },
    #[error(
        "parameter {path} does not exist and ssm.ifMissing is Stall: check the path, put the value that is in use, or \
         set ifMissing: Create"
    )]
    ParameterMissing { path: String },
    #[error(
        "parameter {path} does not exist while others of this object do: put it, or set the annotation \
         keyturn.dev/rotate-requested-at to a new value to publish a new value in all of them"
    )]
    PartlyMissing { path: String },
    #[error("DockerHost {host} does not exist in this namespace: create it, or take it out of spec.hosts")]
    HostMissing { host: String },
    #[error(
        "the record of rotation {id} is about other parameters than spec.ssm.parameters: it was begun for an object of \
         this name that published {paths}. Apply that object again to finish it, or delete the record in SSM"
    )]
    OtherParameters { id: RotationId, paths: String },
    #[error(
        "spec.generate was changed while rotation {id} is under way, which has {recorded}: put it back until that rotation \
         has ended"
    )]
    SourceChanged { id: RotationId, recorded: String },
    #[error(
        "the roles have to be made from the one that is in use before they can take turns: status.target.setUp lists the \
         {statements} statements. Set alternatingRoles.bootstrap.mode to Apply to have them run, or run them by hand"
    )]
    SetUpPlanned { statements: usize },
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error(
        "the windows of the secret and of its hosts never open together within a year: change one of them"
    )]
    NoWindow,
}

impl Stalled {
    /// Whether what is published is somebody else's business, so that nothing can be said about it.
    pub fn is_not_ours(&self) -> bool {
        matches!(self, Stalled::OwnedByOther { .. })
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Stalled::OwnedByOther { .. } => "OwnedByOther",
            Stalled::ParameterMissing { .. } => "ParameterMissing",
            Stalled::PartlyMissing { .. } => "ParameterMissing",
            Stalled::HostMissing { .. } => "HostMissing",
            Stalled::OtherParameters { .. } => "OtherParameters",
            Stalled::SourceChanged { .. } => "SourceChanged",
            Stalled::SetUpPlanned { .. } => "SetUpPlanned",
            Stalled::Window(_) => "InvalidWindow",
            Stalled::NoWindow => "NoWindow",
        }
    }
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is wanted before `at` (never: on demand only, or suspended).
    Rest {
        at: Option<DateTime<Utc>>,
    },
    /// Something is under way; look again at `until`, or when a host says something.
    Wait {
        step: Step,
        until: Option<DateTime<Utc>>,
        why: Waiting,
    },
    Act {
        step: Step,
        act: Act,
    },
    Stall(Stalled),
}

impl Next {
    /// When the schedule wants the object looked at, where it rests.
    pub(super) fn wakes_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Next::Rest { at } => *at,
            _ => None,
        }
    }
}
