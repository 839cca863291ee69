//! How far one pass came, and what it met: the part of the status that is not evidence.

use chrono::{DateTime, Utc};

use crate::api::managed_secret::{FailureStatus, LastRotation, PreflightStatus};
use crate::api::time::{from_kubernetes, to_text};
use crate::api::{ManagedSecret, ROTATE_REQUESTED_AT};
use crate::rotation::protocol::{Next, Step, Waiting};

/// Most sessions that a message names.
const SHOWN_CLIENTS: usize = 3;

/// Something that keeps the protocol from being followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub reason: String,
    pub message: String,
    /// Only a person can end it.
    pub permanent: bool,
    /// The evidence could not even be looked at.
    pub unseen: bool,
}

/// What one pass has to say.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The protocol's last word; `None` where it could not be asked.
    pub next: Option<Next>,
    pub blocked: Option<Blocked>,
    pub failure: Option<FailureStatus>,
    pub preflight: Option<PreflightStatus>,
    /// When a role was given its new password in place, in this pass.
    pub installed_at: Option<DateTime<Utc>>,
    /// The rotations that ended in this pass, oldest first.
    pub ended: Vec<LastRotation>,
    /// The latest report of an incident that concerns the secret.
    pub reported_at: Option<DateTime<Utc>>,
    /// Whether that is not contained yet.
    pub urgent: bool,
    /// What would be done if the grant's mode were not Observe.
    pub observed_only: Option<String>,
}

impl Progress {
    pub fn step(&self) -> Option<Step> {
        match self.next {
            Some(Next::Wait { step, .. } | Next::Act { step, .. }) => Some(step),
            _ => None,
        }
    }

    /// One sentence for a person on what is going on; empty where nothing is.
    pub fn message(&self) -> String {
        if let Some(would) = &self.observed_only {
            return would.clone();
        }
        if let Some(blocked) = &self.blocked {
            return match &self.failure {
                Some(f) if !blocked.permanent => {
                    format!(
                        "{}. Next attempt at {}",
                        blocked.message,
                        to_text(from_kubernetes(&f.next_attempt_time))
                    )
                }
                _ => blocked.message.clone(),
            };
        }
        match &self.next {
            Some(Next::Wait { why, until, .. }) => waiting_text(why, *until),
            Some(Next::Act { step, .. }) => format!("Next step: {}", step.name()),
            Some(Next::Rest { .. } | Next::Stall(_)) | None => String::new(),
        }
    }

    /// Reason and message of the Stalled condition, where it holds.
    pub fn stalled(&self) -> Option<(String, String)> {
        if let Some(blocked) = self.blocked.as_ref().filter(|b| b.permanent) {
            return Some((blocked.reason.clone(), blocked.message.clone()));
        }
        match &self.next {
            Some(Next::Wait {
                step: Step::Deploy,
                why: Waiting::DeployFailed { host, reason, message, for_good: true },
                ..
            }) => Some((reason.clone(), format!("DockerHost {host}: {message}"))),
            Some(Next::Wait { step: Step::Promote, why: why @ Waiting::Drift { .. }, until }) => {
                Some(("ForeignWrite".to_owned(), waiting_text(why, *until)))
            }
            Some(Next::Wait { why: why @ Waiting::OutOfReach { .. }, until, .. }) => {
                Some(("OldTokenOutOfReach".to_owned(), waiting_text(why, *until)))
            }
            Some(Next::Wait { why: why @ Waiting::Unproven { .. }, until, .. }) => {
                Some(("NotProven".to_owned(), waiting_text(why, *until)))
            }
            _ => None,
        }
    }
}

fn waiting_text(why: &Waiting, until: Option<DateTime<Utc>>) -> String {
    let until = until.map(|at| format!(" until {}", to_text(at))).unwrap_or_default();
    match why {
        Waiting::Grace => format!("Waiting{until} so that no late request can undo what was done"),
        Waiting::Preflight => {
            "Checking that the hosts work and run what is published before anything is touched".into()
        }
        Waiting::PreflightFailed { host, message, .. } => {
            format!("The rotation is put off and nothing was touched: DockerHost {host}: {message}")
        }
        Waiting::Deploy { host } => {
            format!("Waiting for DockerHost {host} to prove that it runs the new version")
        }
        Waiting::DeployFailed { host, message, .. } => format!("DockerHost {host}: {message}"),
        Waiting::Drift { path, version } => format!(
            "Version {version} of {path} was written by somebody else: set rotation.onDrift to Adopt to keep that \
             value, or to Rotate to replace it"
        ),
        Waiting::Target(problem) => problem.message.clone(),
        Waiting::TargetUnseen => "Asking the server whether it accepts the login".into(),
        Waiting::HostBusy { host } => format!(
            "Waiting for the deployment on DockerHost {host} to end, so that it starts nothing with a password that is \
             about to be changed"
        ),
        Waiting::Unproven { host } => format!(
            "DockerHost {host} runs no container that has the variable, so nothing proves that the old login is out of \
             use: name the variable in hosts[].env, or set retire.requires to Verify to take the verify script's word"
        ),
        Waiting::Retirement => format!("Every host runs the new login; the old one is retired{until}"),
        Waiting::Propagation { retired: false } => {
            "Waiting for the new key pair to be accepted: it may take a minute until it is known everywhere".into()
        }
        Waiting::Propagation { retired: true } => {
            "Waiting for the old key pair to be refused: it may take a minute until its end is known everywhere".into()
        }
        Waiting::OutOfReach { username } => format!(
            "The old access key id {username} still works, and no token of this account has that id: it belongs to a \
             user, or to another account. Delete it there by hand (Cloudflare dashboard, My Profile, API Tokens)"
        ),
        Waiting::Orphans { count } => format!(
            "{count} tokens that rotations which were cut short have left behind are deleted first{until}"
        ),
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

impl Progress {
    /// Takes up what status kept: a failure's backoff survives a restart, and ends with an edit or a new request.
    pub fn resume(object: &ManagedSecret, reported_at: Option<DateTime<Utc>>) -> Self {
        let status = object.status.as_ref();
        let request = object.metadata.annotations.as_ref().and_then(|a| a.get(ROTATE_REQUESTED_AT));
        let failure = status.and_then(|s| s.failure.clone()).filter(|failure| {
            Some(failure.generation) == object.metadata.generation
                && failure.request.as_ref() == request
                && failure.incident.as_ref().map(from_kubernetes) == reported_at
        });
        let preflight = status.and_then(|s| s.preflight.clone());
        let contained = status.and_then(|s| s.compromise.as_ref()).is_some_and(|compromise| {
            compromise.contained_at.is_some() && Some(from_kubernetes(&compromise.reported_at)) == reported_at
        });
        Self {
            failure,
            preflight,
            reported_at,
            urgent: reported_at.is_some() && !contained,
            ..Self::default()
        }
    }

    /// Whether the next attempt of this step lies ahead.
    pub fn backs_off_from(&self, step: &str, now: DateTime<Utc>) -> bool {
        self.backs_off(now) && self.failure.as_ref().is_some_and(|f| f.step == step)
    }

    /// Whether this step is what failed last.
    pub fn failed_at(&self, step: Step) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.step == step.name())
    }

    /// Whether the next attempt lies ahead, of what failed last. In an incident a revocation and the other steps do not put
    /// each other off.
    pub fn puts_off(&self, step: Step, now: DateTime<Utc>) -> bool {
        let apart = self.failed_at(Step::Retire) != (step == Step::Retire);
        self.backs_off(now) && !(self.urgent && apart)
    }

    /// Whether the next attempt lies ahead.
    pub fn backs_off(&self, now: DateTime<Utc>) -> bool {
        self.failure.as_ref().is_some_and(|f| from_kubernetes(&f.next_attempt_time) > now)
    }
}

impl Blocked {
    /// The failure that is being waited out.
    pub fn again(failure: &FailureStatus) -> Self {
        Self {
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            permanent: failure.permanent,
            unseen: false,
        }
    }
}
