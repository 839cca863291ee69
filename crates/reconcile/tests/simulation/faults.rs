//! What can go wrong with one effect, and at which effect of a run it does.

use std::fmt;

/// What a call does. Which faults make sense depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The reads from Parameter Store that a decision is made from; they count as one.
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
    /// Deleting the Secret with the task of a Job that is over.
    DeleteTask,
    /// Looking at the roles of a target.
    LookAtTarget,
    /// Having a target make a login.
    Issue,
    /// Giving a role a new password.
    Install,
    /// Taking the login from a role.
    Retire,
    EndSessions,
    /// Making roles from the one in use.
    SetUp,
}

/// Each hits one effect: a call that changes the world outside, or the reads a decision is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The controller dies right before the effect.
    CrashBefore,
    /// The controller dies right after the effect, before it hears the answer.
    CrashAfter,
    /// Throttled, or the API server is away: certainly not applied, worth another try.
    Refused,
    /// Rejected in a way that another try cannot mend; it is mended from outside later.
    Rejected,
    /// No answer, and not applied.
    TimedOutNotApplied,
    /// No answer, but applied.
    TimedOutApplied,
    /// No answer; applied when a few other effects have happened.
    AppliedSoon,
    /// No answer; applied just before the grace is over.
    AppliedLate,
    /// Sent twice in a row, as a client below us may: the second answer is the one that is heard.
    Duplicated,
    /// Applied, and once more when a few other effects have happened.
    DuplicatedSoon,
    /// Applied, and once more just before the grace is over.
    DuplicatedLate,
    /// Nothing that is read for a while shows the last change.
    StaleReads,
    /// Only the listing (records, markers) lags.
    StaleListing,
    /// Only the histories lag.
    StaleHistories,
    /// The controller is paused before the effect; another one leads; the first one wakes up a few effects later.
    ZombieSoon,
    /// The same, and it wakes up just before the grace is over.
    ZombieLate,
    /// Somebody empties the status of every object.
    StatusEmptied,
    /// The controller dies after the effect, and every status is emptied.
    CrashAndStatusEmptied,
    /// The controller dies after the effect, and what its successor reads does not show it.
    CrashAndStaleReads,
    /// The pod of the Job is evicted before it did anything.
    Evicted,
    /// The pod of the Job is evicted after the deploy script ran.
    EvictedAfterScript,
}

impl Fault {
    pub const ALL: [Fault; 21] = [
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

    /// Whether the fault says something of its own about an effect of this kind.
    pub fn concerns(self, kind: Kind) -> bool {
        use Fault::*;
        match self {
            StaleReads | StaleListing | StaleHistories => kind == Kind::Observe,
            Evicted | EvictedAfterScript => kind == Kind::StartJob,
            // Nothing rests on when that happens, nor how often.
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

/// Faults by the number of the effect they hit, counted from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub Vec<(usize, Fault)>);

impl Plan {
    pub fn none() -> Self {
        Self::default()
    }

    pub fn single(at: usize, fault: Fault) -> Self {
        Self(vec![(at, fault)])
    }

    pub fn pair(first: (usize, Fault), second: (usize, Fault)) -> Self {
        Self(vec![first, second])
    }

    pub fn at(&self, effect: usize) -> Option<Fault> {
        self.0.iter().find(|(at, _)| *at == effect).map(|(_, fault)| *fault)
    }
}

/// As `one_case` takes it: the numbers of the effects and the faults that hit them.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.0.iter().map(|(at, fault)| format!("{at} {fault:?}")).collect();
        f.write_str(&faults.join(" "))
    }
}
