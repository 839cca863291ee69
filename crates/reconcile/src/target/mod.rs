//! Systems that must accept a credential: they are told of a new one before it is published, and to forget the old one
//! after every host has proven that it runs the new.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keyturn_api::postgres::BootstrapMode;
use keyturn_rotation::observed::RotationId;
use keyturn_secret_value::SecretValue;

/// A name and the password that goes with it.
#[derive(Debug)]
pub struct Login {
    pub username: String,
    pub password: SecretValue,
}

impl Login {
    /// A copy, for those who must hold one of their own.
    pub fn duplicate(&self) -> Self {
        Self { username: self.username.clone(), password: self.password.duplicate() }
    }
}

/// What a target said to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// It answered, and this login does not work: wrong password, no login allowed, expired, or a probe that fails.
    Refused(TargetError),
}

/// What a target shows of the roles that it was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The rotation that changed each role last.
    pub fences: BTreeMap<String, Fence>,
    /// Whether a fence can be kept: without one a late request of a paused controller cannot be refused.
    pub fenced: bool,
    /// Roles that can log in at all, of those asked about.
    pub can_log_in: BTreeSet<String>,
    /// Superusers among them: they are never shut out.
    pub superusers: BTreeSet<String>,
    /// Open sessions of those asked about.
    pub sessions: Vec<Session>,
    /// Logins that the target itself made for rotations of this secret; `None` where it makes none, or was not asked.
    pub issued: Option<Vec<Issued>>,
    /// What a person should know that stands in the way of nothing, a sentence each.
    pub notes: Vec<String>,
}

/// A login that the target made for a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub username: String,
    /// The rotation that it is named after.
    pub id: RotationId,
    /// By the target's clock.
    pub at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What entitles keyturn to take a login from a target that makes logins for others as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Its name: the target made it for this very secret. The target is asked once more whether that is so.
    Name,
    /// The target has accepted it, with the password that was published beside it: whatever its name, it was in use.
    Accepted,
}

/// Keeps late requests of older rotations from changing a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub id: RotationId,
    /// By the target's clock.
    pub changed_at: DateTime<Utc>,
}

/// What it takes to make owner and pair from the role that is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetUp {
    /// The statements, in order; none holds a password.
    pub statements: Vec<String>,
    /// What the statements leave to a person, a sentence each.
    pub notes: Vec<String>,
}

/// An open session of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub username: String,
    /// Address and application, as far as the target tells; for people.
    pub client: String,
    /// By the target's clock; `None` where the administrator may not see it.
    pub since: Option<DateTime<Utc>>,
}

/// Why something at a target failed. Never holds a value; written for who reads `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TargetError {
    /// In a word, for a condition: `TargetUnreachable`, `LoginRefused`, `RoleMissing`…
    pub reason: &'static str,
    /// What failed, on which server and role, why, and what to do.
    pub message: String,
    /// Only a person can end it; it is tried again all the same, with backoff.
    pub permanent: bool,
    /// A change may have been made or not: the answer was lost. It is only ever made again as it was.
    pub outcome_unknown: bool,
}

/// One target as one secret sees it.
#[async_trait]
pub trait Target: Send + Sync {
    /// Logs in, and runs the user's probes. An error: it could not be asked.
    async fn try_login(&self, login: &Login) -> Result<Answer, TargetError>;

    /// Looks at the secret's roles as the administrator. Without one there is nothing to see: no fence.
    async fn look(&self) -> Result<Roles, TargetError>;

    /// Makes a login that only the target can make, and names it after the rotation. It is not repeatable: each call
    /// makes another one.
    async fn issue(&self, id: RotationId) -> Result<Login, TargetError> {
        let message = format!("rotation {id}: this target takes logins, and makes none");
        Err(TargetError { reason: "NotAnIssuer", message, permanent: true, outcome_unknown: false })
    }

    /// Makes the target accept this login, and nothing else for this username. Refuses a rotation that is older than the
    /// fence. `own` are logins of the same username that may work until now, likeliest first: without an administrator
    /// the role changes its own password. Repeating it with the same arguments is harmless.
    async fn install(&self, id: RotationId, login: &Login, own: &[Login]) -> Result<(), TargetError>;

    /// Makes the target refuse any login of this username from now on. Refuses a rotation that is older than the fence.
    /// Sessions stay. A target that makes logins refuses one that `claim` gives no right to.
    async fn retire(&self, id: RotationId, username: &str, claim: Claim) -> Result<(), TargetError>;

    /// Ends the sessions of a username: all of them, or those that were opened before this time of the target's clock.
    async fn end_sessions(
        &self,
        username: &str,
        opened_before: Option<DateTime<Utc>>,
    ) -> Result<(), TargetError>;

    /// Open sessions of a role as it sees them itself, for a target without an administrator.
    async fn own_sessions(&self, own: &Login) -> Result<Vec<Session>, TargetError> {
        Err(sees_nothing(&own.username))
    }

    /// The role ends sessions of its own that were opened before this time of the target's clock.
    async fn end_own_sessions(&self, own: &Login, _opened_before: DateTime<Utc>) -> Result<(), TargetError> {
        Err(sees_nothing(&own.username))
    }

    /// Makes owner and pair from the role that is in use, or lists what that takes. It holds what is still to be done:
    /// nothing once it is, and nothing where the secret asks for no bootstrap. Repeating it is harmless.
    async fn set_up(&self, mode: BootstrapMode) -> Result<SetUp, TargetError> {
        let _ = mode;
        Ok(SetUp::default())
    }
}

fn sees_nothing(username: &str) -> TargetError {
    let message = format!("{username}: logins of this target see no sessions of their own");
    TargetError { reason: "SessionsUnseen", message, permanent: true, outcome_unknown: false }
}
