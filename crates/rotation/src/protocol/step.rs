//! The answers of the protocol: an act, a reason to wait, or a reason to stop.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
pub use keyturn_api::managed_secret::Step;
use keyturn_api::{Reason, Trouble};

use crate::observed::{RotationId, Trigger};
use crate::window::WindowError;

/// One external effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Add the finalizer.
    Hold,
    /// Ask the hosts for a fresh proof (preflight).
    AskPreflight,
    /// Generate the values and create the record.
    Record {
        /// Id of the new rotation: the highest id in the evidence plus one.
        id: RotationId,
        /// The reason why the rotation is started.
        trigger: Trigger,
        /// Token of the request that this answers, no matter which trigger started it; `None` if there is none.
        request: Option<String>,
        /// The latest version of each path when this was decided; 0 if the parameter does not exist.
        base: BTreeMap<String, i64>,
        /// Names of the DockerHosts that have to run the new values.
        hosts: Vec<String>,
        /// True when a new key ring may keep the published keys, since nobody else may have read them.
        keep_previous: bool,
    },
    /// Generate a value and publish it as version 1 of the only parameter, by a Put that must not overwrite. SSM
    /// accepts such a Put once and nothing has to follow it, so it needs no record.
    Create {
        /// Id of the new rotation: the highest id in the evidence plus one.
        id: RotationId,
        /// Path of the parameter.
        path: String,
        /// Token of the request that this answers; `None` if there is none.
        request: Option<String>,
    },
    /// Create a record that publishes again the values that rotation `failed` replaced.
    RecordRollBack {
        /// Id of the rollback, which is a rotation of its own: the highest id in the evidence plus one.
        id: RotationId,
        /// Id of the rotation whose values are replaced.
        failed: RotationId,
        /// The latest version of each path when this was decided; 0 if the parameter does not exist.
        base: BTreeMap<String, i64>,
        /// Names of the DockerHosts in the record of the failed rotation.
        hosts: Vec<String>,
        /// Paths where the failed rotation published nothing.
        kept: BTreeSet<String>,
    },
    /// Prove that the controller may write a parameter, by a Put that must not overwrite it.
    ProveWritable {
        /// Path of the parameter, which exists.
        path: String,
    },
    /// Create the roles of the source from the role that is in use.
    SetUp,
    /// Make the target accept the recorded credential.
    Install {
        /// Id of the record that holds the credential.
        id: RotationId,
    },
    /// Make the target refuse the old login.
    Retire {
        /// Id of the rotation that retires the login. A target whose fence is newer refuses it.
        id: RotationId,
        /// Name of the login: a Postgres role, or the access key id at Cloudflare R2.
        username: String,
    },
    /// Delete an orphan: a login that a rotation with this id left at the target without a record.
    SweepOrphan {
        /// Id of the rotation after which the login is named.
        id: RotationId,
        /// Name of the login: the access key id at Cloudflare R2.
        username: String,
    },
    /// End the sessions of a login that has been retired, or those opened before its password was changed.
    EndSessions {
        /// Name of the login whose sessions are ended.
        username: String,
        /// Ends only the sessions opened before this time, by the target's clock; `None` ends all of them.
        opened_before: Option<DateTime<Utc>>,
    },
    /// Publish the recorded value. `expected` is the version number that the Put should get; 1 creates the parameter.
    Promote {
        /// Id of the record that holds the value.
        id: RotationId,
        /// Path of the parameter.
        path: String,
        /// The latest version number plus one.
        expected: i64,
    },
    /// Write the abort marker of the rotation with this id.
    MarkAbort {
        /// Id of the rotation to give up, unless the reason for that passes within the grace period.
        id: RotationId,
    },
    /// Delete a record whose rotation has ended or was given up, or that reappeared after its end.
    DeleteRecord {
        /// Id of the rotation.
        id: RotationId,
    },
    /// Delete an abort marker that has no record any more and is older than the grace period.
    SweepMarker {
        /// Id of the rotation that the marker is about.
        id: RotationId,
    },
    /// Delete the parameter, for `deletionPolicy: Delete`.
    DeleteParameter {
        /// Path of the parameter.
        path: String,
    },
    /// Remove the finalizer.
    Release,
    /// Remove the finalizer of a deleted object although its rotation could not be finished in time.
    Abandon,
}

/// The reason why nothing is done at the moment although something is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The published version, the marker or the previous request is younger than the grace period.
    Grace,
    /// Hosts have been asked for a fresh proof.
    Preflight,
    /// A host does not answer, fails its verify script, or runs another value than the published one.
    PreflightFailed {
        /// Name of the DockerHost.
        host: String,
        /// The failure.
        trouble: Trouble,
    },
    /// The host has not proven the new version yet; `held` is the reason why no run starts on it.
    Deploy {
        /// Name of the DockerHost.
        host: String,
        /// Message of the condition that keeps runs from starting there; `None` if they can start.
        held: Option<String>,
    },
    /// A deployment failed.
    DeployFailed {
        /// Name of the DockerHost.
        host: String,
        /// The failure, with the result of the run as its reason. It needs a person once enough attempts have failed.
        trouble: Trouble,
    },
    /// Somebody else wrote the parameter, and a person has to decide which value counts.
    Drift {
        /// Path of the first such parameter.
        path: String,
        /// Number of its latest version, which somebody else wrote.
        version: i64,
    },
    /// The target could not be asked, or does not accept the credential.
    Target(Trouble),
    /// The target has not been asked recently enough to decide this.
    TargetUnseen,
    /// A running deployment would start containers with a password that is about to be changed.
    HostBusy {
        /// Name of the DockerHost on which the deployment runs.
        host: String,
    },
    /// The host has not proven that it no longer uses the old credential.
    Unproven {
        /// Name of the DockerHost.
        host: String,
    },
    /// The old credential is kept for `retire.after` after the proof.
    Retirement,
    /// These clients still use the old login.
    Sessions {
        /// Name of the old login.
        username: String,
        /// Descriptions of the clients, one for each open session.
        clients: Vec<String>,
    },
    /// Nothing shows whether a session opened before the password change is still open.
    SessionsUnseen {
        /// Name of the login whose password was changed.
        username: String,
        /// The access that is needed to see it.
        lacking: Lacking,
    },
    /// The target has not yet applied the new login or, with `retired`, the deletion of the old one.
    Propagation {
        /// False for the new login, true for the deletion of the old one.
        retired: bool,
    },
    /// The old login still works although keyturn cannot retire it.
    OutOfReach {
        /// Name of the old login: the access key id at Cloudflare R2.
        username: String,
    },
    /// Interrupted rotations have left orphaned logins, which are swept first.
    Orphans {
        /// Number of recent logins that were never published; always 1 while the object is being deleted.
        count: usize,
    },
    /// SSM has permanently refused the new credential, and the previous one is being restored.
    TakenBack,
    /// SSM would refuse the value; nothing was changed.
    Unpublishable {
        /// Reason why SSM would refuse the value, with the remedy.
        message: String,
    },
}

impl Waiting {
    /// Returns true when only a new observation can end it: of the target, or of something that the listing does not
    /// show.
    pub fn needs_a_full_read(&self) -> bool {
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
    /// Returns true when only a change inside the target can end it, of which keyturn gets no notification.
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

/// The missing access that keeps keyturn from seeing when the sessions of a role were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// A login: of an administrator, or of the role itself.
    Login,
    /// The administrator has no right to read the statistics of other roles.
    Statistics,
}

/// The reason why nothing will happen until a person acts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    /// The description of a path's latest version names another ManagedSecret or another installation as its owner.
    #[error(
        "parameter {path} belongs to {owner}: its description says so. Let that object manage it, or remove the text \
         from `keyturn owner=` on from the description"
    )]
    OwnedByOther {
        /// Path of the parameter.
        path: String,
        /// The owner that the description names: `<cluster>/<namespace>/<name>` of a ManagedSecret.
        owner: String,
    },
    /// No parameter exists, and `ssm.ifMissing` is Stall, set or by default.
    #[error(
        "parameter {path} does not exist and ssm.ifMissing is Stall: check the path, put the value that is in use, or \
         set ifMissing: Create"
    )]
    ParameterMissing {
        /// Path of the first parameter that does not exist.
        path: String,
    },
    /// Some parameters do not exist while others do, and neither a request nor an incident asks for a new value.
    #[error(
        "parameter {path} does not exist while others of this object do: put it, or set the annotation \
         keyturn.dev/rotate-requested-at to a new value to publish a new value in all of them"
    )]
    PartlyMissing {
        /// Path of the first parameter that does not exist.
        path: String,
    },
    /// A DockerHost in `spec.hosts` does not exist.
    #[error("DockerHost {host} does not exist in this namespace: create it, or take it out of spec.hosts")]
    HostMissing {
        /// Name of the first DockerHost that does not exist.
        host: String,
    },
    /// The open record has no value for a path in the spec.
    #[error(
        "the record of rotation {id} has other parameters than spec.ssm.parameters: it belongs to an object of this \
         name that published {paths}. Apply that object again to finish the rotation, or delete the record in SSM"
    )]
    OtherParameters {
        /// Id of the record.
        id: RotationId,
        /// The paths in the record, separated by commas.
        paths: String,
    },
    /// The open record does not fit the source of values that the spec has now.
    #[error(
        "spec.generate was changed during rotation {id}, whose record holds {recorded}: undo the change until that \
         rotation has ended"
    )]
    SourceChanged {
        /// Id of the record.
        id: RotationId,
        /// Description of the recorded value, as part of a sentence.
        recorded: String,
    },
    /// SQL statements have to create the roles first, and the spec lets keyturn only list them.
    #[error(
        "the roles cannot alternate yet: they must first be set up from the role that is in use. status.target.setUp \
         lists the {statements} statements. Set alternatingRoles.bootstrap.mode to Apply to let keyturn run them, or \
         run them by hand"
    )]
    SetUpPlanned {
        /// Number of statements; `status.target.setUp` lists them.
        statements: usize,
    },
    /// A window of the secret or of a host cannot be parsed.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The windows do not open together within the time that is searched.
    #[error(
        "the windows of the secret and of its hosts never open together within a year: change one of them"
    )]
    NoWindow,
}

impl Stalled {
    /// Returns true when the published value belongs to another owner, so that keyturn can say nothing about it.
    pub fn is_not_ours(&self) -> bool {
        matches!(self, Stalled::OwnedByOther { .. })
    }

    /// Returns the trouble for conditions such as Stalled. Two variants can have the same reason.
    pub fn trouble(&self) -> Trouble {
        let reason = match self {
            Stalled::OwnedByOther { .. } => Reason::OwnedByOther,
            Stalled::ParameterMissing { .. } | Stalled::PartlyMissing { .. } => Reason::ParameterMissing,
            Stalled::HostMissing { .. } => Reason::HostMissing,
            Stalled::OtherParameters { .. } => Reason::OtherParameters,
            Stalled::SourceChanged { .. } => Reason::SourceChanged,
            Stalled::SetUpPlanned { .. } => Reason::SetUpPlanned,
            Stalled::Window(_) => Reason::InvalidWindow,
            Stalled::NoWindow => Reason::NoWindow,
        };
        Trouble::permanent(reason, self.to_string())
    }
}

/// The protocol's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing to do before `at`; `None` means never: on demand only, or suspended.
    Rest {
        /// Time at which there may be something to do.
        at: Option<DateTime<Utc>>,
    },
    /// Something is under way; observe again at `until`, or when a host reports.
    Wait {
        /// The step that has to wait.
        step: Step,
        /// Time of the next observation; `None` if nothing tells it in advance: the caller polls.
        until: Option<DateTime<Utc>>,
        /// The reason for the wait.
        why: Waiting,
    },
    /// Something has to be done now; decide again afterwards.
    Act {
        /// The step that the act belongs to.
        step: Step,
        /// The one effect to perform.
        act: Act,
    },
    /// Nothing happens until a person acts.
    Stall(Stalled),
}

impl Next {
    /// Returns the time at which the schedule needs the object again, if it rests until then.
    pub(super) fn wakes_at(&self) -> Option<DateTime<Utc>> {
        match self {
            Next::Rest { at } => *at,
            _ => None,
        }
    }
}
