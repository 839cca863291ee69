//! Progress of one pass: how far it came, and what stopped it. It is the part of the status that does not come from the
//! evidence.

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keyturn_api::conditions;
use keyturn_api::managed_secret::{FailureStatus, LastRotation, PreflightStatus, PublishedParameter};
use keyturn_api::time::{from_kubernetes, to_kubernetes, to_text};
use keyturn_api::{ManagedSecret, Reason, Trouble};
use keyturn_rotation::observed::Observed;
use keyturn_rotation::protocol::{Lacking, Next, Step, Waiting};

use crate::managed_secret::desired;
use crate::source;

/// Maximum number of sessions that a message names.
const SHOWN_CLIENTS: usize = 3;

/// An obstacle that prevents the next step of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::managed_secret) struct Blocked {
    pub trouble: Trouble,
    /// True when not even the evidence could be read.
    pub unseen: bool,
}

/// State of a published login, and the versions that were published then. A later read may be stale and show earlier
/// versions. The state does not apply to those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::managed_secret) struct Login {
    /// True when the login does not work any more.
    pub is_dead: bool,
    /// Path, number and time of each version. Together they identify a value.
    versions: Vec<(String, i64, Time)>,
}

impl Login {
    pub(in crate::managed_secret) fn seen(is_dead: bool, observed: &Observed) -> Self {
        let latest = observed.parameters.iter().filter_map(|p| p.latest().map(|seen| (p, seen)));
        let versions =
            latest.map(|(p, seen)| (p.path.clone(), seen.version.number, to_kubernetes(seen.published_at())));
        Self { is_dead, versions: versions.collect() }
    }

    fn told(is_dead: bool, published: &[PublishedParameter]) -> Self {
        let versions = published.iter().map(|p| (p.path.clone(), p.version, p.published_at.clone()));
        Self { is_dead, versions: versions.collect() }
    }

    /// True when this state is about these versions.
    pub(super) fn is_of(&self, published: &[PublishedParameter]) -> bool {
        *self == Self::told(self.is_dead, published)
    }
}

/// Results of one pass.
#[derive(Clone, Debug, Default)]
pub(in crate::managed_secret) struct Progress {
    /// The protocol's last answer; `None` if it could not be asked.
    pub next: Option<Next>,
    pub blocked: Option<Blocked>,
    /// Time of the evidence: the time at which Parameter Store was read, or answered an act.
    pub read_at: Option<DateTime<Utc>>,
    /// Time at which the target is asked again, if only a change at the target can end the wait.
    pub asks_target_at: Option<DateTime<Utc>>,
    pub failure: Option<FailureStatus>,
    pub preflight: Option<PreflightStatus>,
    /// Time at which a role was given its new password in place, in this pass.
    pub installed_at: Option<DateTime<Utc>>,
    /// State of the published login, as of the last answer of its target; `None` if the status says nothing about it.
    pub login: Option<Login>,
    /// Rotations that ended in earlier passes and that the status does not report yet, oldest first.
    pub untold: Vec<LastRotation>,
    /// Rotations that ended in this pass, oldest first.
    pub ended: Vec<LastRotation>,
    /// Place where a person deletes a login that keyturn must not delete; `None` if the source's logins are not issued
    /// by the target.
    pub by_hand: Option<&'static str>,
    /// Time of the latest report of an incident that concerns the secret.
    pub reported_at: Option<DateTime<Utc>>,
    /// True while that incident is not contained.
    pub urgent: bool,
    /// Description of the next step, which is not taken since the grant's mode is Observe; otherwise `None`.
    pub observed_only: Option<String>,
}

impl Progress {
    pub(super) fn step(&self) -> Option<Step> {
        match self.next {
            Some(Next::Wait { step, .. } | Next::Act { step, .. }) => Some(step),
            _ => None,
        }
    }

    /// Describes the present work for people, in one sentence; empty if there is none.
    pub(super) fn message(&self) -> String {
        if let Some(would) = &self.observed_only {
            return would.clone();
        }
        if let Some(blocked) = &self.blocked {
            let message = &blocked.trouble.message;
            return match &self.failure {
                Some(f) if !blocked.trouble.is_permanent() => {
                    format!("{message}. Next attempt at {}", to_text(from_kubernetes(&f.next_attempt_time)))
                }
                _ => message.clone(),
            };
        }
        match &self.next {
            Some(Next::Wait { why, until, .. }) => self.waiting_text(why, *until),
            Some(Next::Act { step, .. }) => format!("Next step: {}", step.name()),
            Some(Next::Rest { .. } | Next::Stall(_)) | None => String::new(),
        }
    }

    /// Returns the trouble that the condition Stalled reports: a trouble that only a person can end.
    pub(super) fn stalled(&self) -> Option<Trouble> {
        if let Some(blocked) = self.blocked.as_ref().filter(|blocked| blocked.trouble.is_permanent()) {
            return Some(blocked.trouble.clone());
        }
        match &self.next {
            Some(Next::Wait {
                step: Step::Deploy,
                why: why @ Waiting::DeployFailed { trouble, .. },
                until,
            }) if trouble.is_permanent() => {
                Some(Trouble::permanent(trouble.reason, self.waiting_text(why, *until)))
            }
            Some(Next::Wait { step: Step::Promote, why: why @ Waiting::Drift { .. }, until }) => {
                Some(Trouble::permanent(Reason::ForeignWrite, self.waiting_text(why, *until)))
            }
            Some(Next::Wait { why: why @ Waiting::OutOfReach { .. }, until, .. }) => {
                Some(Trouble::permanent(Reason::OldTokenOutOfReach, self.waiting_text(why, *until)))
            }
            Some(Next::Wait { why: why @ Waiting::SessionsUnseen { .. }, until, .. }) => {
                Some(Trouble::permanent(Reason::SessionsUnseen, self.waiting_text(why, *until)))
            }
            Some(Next::Wait { why: why @ Waiting::Unproven { .. }, until, .. }) => {
                Some(Trouble::permanent(Reason::NotProven, self.waiting_text(why, *until)))
            }
            _ => None,
        }
    }

    /// Describes the reason for a wait, for people.
    fn waiting_text(&self, why: &Waiting, until: Option<DateTime<Utc>>) -> String {
        let by_hand = self.by_hand.map(|place| format!(" ({place})")).unwrap_or_default();
        let until = until.map(|at| format!(" until {}", to_text(at))).unwrap_or_default();
        match why {
            Waiting::Grace => format!("Waiting{until} so that no delayed request can undo the last change"),
            Waiting::Preflight => {
                "Checking that the hosts work and run the published value before anything is changed".into()
            }
            Waiting::PreflightFailed { host, trouble } => {
                format!("The rotation is postponed and nothing was changed: DockerHost {host}: {trouble}")
            }
            Waiting::Deploy { host, held } => {
                let held =
                    held.as_ref().map(|held| format!("; no run starts there: {held}")).unwrap_or_default();
                format!("Waiting for DockerHost {host} to prove that it runs the new version{held}")
            }
            Waiting::DeployFailed { host, trouble } => format!("DockerHost {host}: {trouble}"),
            Waiting::Drift { path, version } => format!(
                "Version {version} of {path} was written by somebody else: set rotation.onDrift to Adopt to keep that \
                 value, or to Rotate to replace it"
            ),
            Waiting::Target(trouble) => trouble.message.clone(),
            Waiting::TargetUnseen => "Asking the server whether it accepts the login".into(),
            Waiting::HostBusy { host } => format!(
                "Waiting for the deployment on DockerHost {host} to end: it could start containers with a password \
                 that is about to be changed"
            ),
            Waiting::Unproven { host } => format!(
                "DockerHost {host} runs no container that has the variable, so nothing proves that the old login is \
                 no longer used: name the variable in hosts[].env, or set retire.requires to Verify to rely on the \
                 verify script"
            ),
            Waiting::Retirement => {
                format!("Every host runs the new login; waiting{until} before the old one is retired")
            }
            Waiting::Propagation { retired: false } => {
                "Waiting for the new key pair to be accepted: this may take a minute (eventual consistency)"
                    .into()
            }
            Waiting::Propagation { retired: true } => {
                "Waiting for the old key pair to be refused: this may take a minute (eventual consistency)"
                    .into()
            }
            Waiting::OutOfReach { username } => format!(
                "The old login {username} still exists, and keyturn cannot delete it: it belongs to a user or to \
                 another account, or its name was not given by keyturn and its password was refused. Delete it by \
                 hand{by_hand}"
            ),
            Waiting::SessionsUnseen { username, lacking } => sessions_unseen(username, *lacking),
            Waiting::Orphans { count: 1 } => {
                format!("Waiting{until} to delete an orphaned token of an interrupted rotation first")
            }
            Waiting::Orphans { count } => {
                format!("Waiting{until} to delete {count} orphaned tokens of interrupted rotations first")
            }
            Waiting::TakenBack => format!(
                "SSM permanently refused to publish the new credential: keyturn restores the previous one, after \
                 waiting{until} so that no delayed request can undo it"
            ),
            Waiting::Unpublishable { message } => message.clone(),
            Waiting::Sessions { username, clients } => {
                let (named, more) = clients.split_at(clients.len().min(SHOWN_CLIENTS));
                let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
                format!(
                    "{} sessions of the old login {username} are still open ({}{more}): it is retired once they have ended",
                    clients.len(),
                    named.join(", ")
                )
            }
        }
    }
}

fn sessions_unseen(username: &str, lacking: Lacking) -> String {
    let lacking = match lacking {
        Lacking::Login => {
            "keyturn has no login to see them, of an administrator or of the role itself: end them by hand and \
             delete the SecretIncident, or set adminSecretRef or adminParameter"
        }
        Lacking::Statistics => {
            "keyturn cannot see when they were opened: run GRANT pg_read_all_stats for the administrator"
        }
    };
    format!(
        "Sessions that were opened with the old password of role {username} may still be open, and {lacking}"
    )
}

impl Progress {
    /// Restores the progress from the status. The backoff of a failure survives a restart. It ends with an edit, a new
    /// request or a new incident. A backoff that ends after `longest` is ignored: it was set by a clock that has been
    /// corrected since.
    pub(in crate::managed_secret) fn resume(
        object: &ManagedSecret,
        reported_at: Option<DateTime<Utc>>,
        longest: DateTime<Utc>,
    ) -> Self {
        let status = object.status.as_ref();
        let request = desired::request_token(object);
        let failure = status.and_then(|s| s.failure.clone()).filter(|failure| {
            // Times in a status are rounded up to whole seconds.
            from_kubernetes(&failure.next_attempt_time) <= longest + TimeDelta::seconds(1)
                && Some(failure.generation) == object.metadata.generation
                && failure.request.as_deref() == request
                && failure.incident.as_ref().map(from_kubernetes) == reported_at
        });
        let preflight = status.and_then(|s| s.preflight.clone());
        let ready = status.and_then(|s| conditions::find(&s.conditions, conditions::READY));
        let contained = status.and_then(|s| s.compromise.as_ref()).is_some_and(|compromise| {
            compromise.contained_at.is_some() && Some(from_kubernetes(&compromise.reported_at)) == reported_at
        });
        Self {
            failure,
            preflight,
            // The old result counts until the target is asked again. If Ready is False for another reason, or is
            // Unknown, it says nothing about the login.
            login: ready.zip(status).and_then(|(ready, status)| match ready.status.as_str() {
                "True" => Some(Login::told(false, &status.parameters)),
                _ => (ready.reason == Reason::LoginReplaced.name())
                    .then(|| Login::told(true, &status.parameters)),
            }),
            by_hand: source::issued(&object.spec.generate).map(|source| source.deleted_by_hand()),
            reported_at,
            urgent: reported_at.is_some() && !contained,
            ..Self::default()
        }
    }

    /// True when the backoff of this step has not passed.
    pub(in crate::managed_secret) fn backs_off_from(&self, step: Step, now: DateTime<Utc>) -> bool {
        self.backs_off(now) && self.failure.as_ref().is_some_and(|f| f.step == step)
    }

    /// True when the last failure was in this step.
    pub(in crate::managed_secret) fn failed_at(&self, step: Step) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.step == step)
    }

    /// True when the last failure was in this step, and a retry of the same act cannot succeed.
    pub(in crate::managed_secret) fn refused_for_good(&self, step: Step) -> bool {
        self.failed_at(step) && self.failure.as_ref().is_some_and(|failure| failure.permanent)
    }

    /// True when this step has to wait for the backoff of the last failure. In an incident the backoff of a revocation
    /// does not delay the other steps, and theirs does not delay a revocation.
    pub(in crate::managed_secret) fn puts_off(&self, step: Step, now: DateTime<Utc>) -> bool {
        let apart = self.failed_at(Step::Retire) != (step == Step::Retire);
        // Hosts have no working password until the role has its published password again.
        let taken_back = step == Step::Abort && self.refused_for_good(Step::Promote);
        self.backs_off(now) && !(self.urgent && apart) && !taken_back
    }

    /// True when the backoff of the last failure has not passed.
    fn backs_off(&self, now: DateTime<Utc>) -> bool {
        self.failure.as_ref().is_some_and(|f| from_kubernetes(&f.next_attempt_time) > now)
    }
}

impl From<Trouble> for Blocked {
    /// Makes an obstacle from a trouble; the evidence could be read.
    fn from(trouble: Trouble) -> Self {
        Self { trouble, unseen: false }
    }
}

impl Blocked {
    /// Makes an obstacle from a trouble that prevents reading the evidence.
    pub(in crate::managed_secret) fn unseen(trouble: Trouble) -> Self {
        Self { trouble, unseen: true }
    }

    /// Makes an obstacle from a failure whose backoff is not over.
    pub(in crate::managed_secret) fn again(failure: &FailureStatus) -> Self {
        Self {
            trouble: Trouble::new(failure.reason, failure.message.clone(), failure.permanent),
            unseen: false,
        }
    }
}
