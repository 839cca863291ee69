//! The faults of one effect, and the effects of a run at which they happen.

use std::fmt;

/// The kind of a call. It decides which faults make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Reading Parameter Store for a decision; the reads together count as one effect.
    Observe,
    /// Creating a record or an abort marker.
    Stage,
    /// Publishing a value.
    Publish,
    /// Deleting a record or an abort marker.
    Unstage,
    /// Deleting a parameter that belonged to the object.
    DeleteParameter,
    Finalizer,
    SecretStatus,
    HostStatus,
    IncidentStatus,
    StartJob,
    DeleteJob,
    /// Deleting the Secret with the task of a finished Job.
    DeleteTask,
    /// Observing the roles of a target.
    LookAtTarget,
    /// Letting a target create a login.
    Issue,
    /// Setting a new password of a role.
    Install,
    /// Removing the login of a role.
    Retire,
    EndSessions,
    /// Creating roles from the one in use.
    SetUp,
}

/// A fault. Each hits one effect: a call that changes the world outside, or the reads for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The controller dies right before the effect.
    CrashBefore,
    /// The controller dies right after the effect, before the answer arrives.
    CrashAfter,
    /// Throttled, or the API server is unavailable: certainly not applied, worth a retry.
    Refused,
    /// Rejected in a way that a retry cannot fix; somebody fixes it later.
    Rejected,
    /// No answer, and not applied.
    TimedOutNotApplied,
    /// No answer, but applied.
    TimedOutApplied,
    /// No answer; applied after a few other effects.
    AppliedSoon,
    /// No answer; applied just before the end of the grace.
    AppliedLate,
    /// Sent twice in a row, as an HTTP client may do: the controller receives the second answer.
    Duplicated,
    /// Applied, and applied again after a few other effects.
    DuplicatedSoon,
    /// Applied, and applied again just before the end of the grace.
    DuplicatedLate,
    /// Reads do not show the last change for a while.
    StaleReads,
    /// Only the listing (records, markers) is stale.
    StaleListing,
    /// Only the histories are stale.
    StaleHistories,
    /// The controller is paused before the effect, and another one becomes the leader. The first one wakes up a
    /// few effects later.
    ZombieSoon,
    /// The same, but it wakes up just before the end of the grace.
    ZombieLate,
    /// Somebody empties the status of every object.
    StatusEmptied,
    /// The controller dies after the effect, and somebody empties every status.
    CrashAndStatusEmptied,
    /// The controller dies after the effect, and its successor's reads do not show the effect.
    CrashAndStaleReads,
    /// The pod of the Job is evicted before it has done anything.
    Evicted,
    /// The pod of the Job is evicted after the deploy script has run.
    EvictedAfterScript,
}

impl Fault {
    pub(crate) const ALL: [Fault; 21] = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::Refused,
        Fault::Rejected,
        Fault::TimedOutNotApplied,
        Fault::TimedOutApplied,
        Fault::AppliedSoon,
        Fault::AppliedLate,
        Fault::Duplicated,
        Fault::DuplicatedSoon,
        Fault::DuplicatedLate,
        Fault::StaleReads,
        Fault::StaleListing,
        Fault::StaleHistories,
        Fault::ZombieSoon,
        Fault::ZombieLate,
        Fault::StatusEmptied,
        Fault::CrashAndStatusEmptied,
        Fault::CrashAndStaleReads,
        Fault::Evicted,
        Fault::EvictedAfterScript,
    ];

    /// True if the fault makes a difference for an effect of this kind.
    pub(crate) fn concerns(self, kind: Kind) -> bool {
        use Fault::*;
        match self {
            StaleReads | StaleListing | StaleHistories => kind == Kind::Observe,
            Evicted | EvictedAfterScript => kind == Kind::StartJob,
            // Nothing depends on the time or the number of these deletions.
            AppliedSoon | AppliedLate | Duplicated | DuplicatedSoon | DuplicatedLate | CrashAndStaleReads
                if kind == Kind::DeleteTask =>
            {
                false
            }
            CrashAfter | TimedOutNotApplied | TimedOutApplied | AppliedSoon | AppliedLate | Duplicated
            | DuplicatedSoon | DuplicatedLate | CrashAndStaleReads => {
                kind != Kind::Observe && kind != Kind::LookAtTarget
            }
            _ => true,
        }
    }
}

/// Faults with the number of the effect that they hit, counted from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan(pub Vec<(usize, Fault)>);

impl Plan {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn single(at: usize, fault: Fault) -> Self {
        Self(vec![(at, fault)])
    }

    pub(crate) fn pair(first: (usize, Fault), second: (usize, Fault)) -> Self {
        Self(vec![first, second])
    }

    pub(crate) fn at(&self, effect: usize) -> Option<Fault> {
        self.0.iter().find(|(at, _)| *at == effect).map(|(_, fault)| *fault)
    }
}

/// The format that `one_case` takes: the numbers of the effects and the faults that hit them.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.0.iter().map(|(at, fault)| format!("{at} {fault:?}")).collect();
        f.write_str(&faults.join(" "))
    }
}
