//! Targets: systems that must accept a credential. keyturn installs a new credential in its target before it publishes
//! it, and retires the old one after every host has proven that it runs the new one.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keyturn_api::Trouble;
use keyturn_rotation::observed::{Acceptance, IssuedLogin, OpenSession, RotationId};
use keyturn_secret_value::SecretValue;

/// A username and its password.
#[derive(Debug)]
pub struct Login {
    /// Name of the role, or access key id of the token.
    pub username: String,
    /// Password of the role, or secret access key of the token.
    pub password: SecretValue,
}

impl Login {
    /// Makes a copy of the login and of its secret value.
    pub fn duplicate(&self) -> Self {
        Self { username: self.username.clone(), password: self.password.duplicate() }
    }
}

/// Observed state of the roles that a target was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The fence of each role: the rotation that changed the role last, and the time of the change by the target's
    /// clock. By the fence the target refuses late requests of older rotations.
    pub fences: BTreeMap<String, (RotationId, DateTime<Utc>)>,
    /// True when the target can keep a fence. Without a fence, a late request of a paused controller cannot be refused.
    pub fenced: bool,
    /// The roles that can log in.
    pub can_log_in: BTreeSet<String>,
    /// The roles that are superusers; keyturn never retires them.
    pub superusers: BTreeSet<String>,
    /// Open sessions of these roles.
    pub sessions: Vec<OpenSession>,
    /// Logins that the target made for rotations of this secret; `None` if the target makes no logins, or was not
    /// asked.
    pub issued: Option<Vec<IssuedLogin>>,
    /// Notes for people, one sentence each. They do not block anything.
    pub notes: Vec<String>,
}

/// The reason why keyturn may retire a login at a target that also makes logins for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The login's name shows that the target made the login for this secret. keyturn checks the name again at the
    /// target before it retires the login.
    Name,
    /// The target has accepted the login with the password that was published together with it. So the login was in
    /// use, no matter what its name is.
    Accepted,
}

/// The mode of a set-up of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetUpMode {
    /// Lists the statements and runs none.
    Plan,
    /// Runs the statements.
    Apply,
}

/// The remaining work for creating an owner and a pair of roles from the role in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetUp {
    /// The SQL statements, in order; none of them holds a password.
    pub statements: Vec<String>,
    /// Remaining work that a person has to do, since no statement does it; one sentence each.
    pub notes: Vec<String>,
}

/// The reason why something at a target failed. Never holds a value; written for people who read `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{trouble}")]
pub struct TargetError {
    /// Description of what failed, on which server and role, why, and what to do. keyturn retries even if a person has
    /// to act.
    pub trouble: Trouble,
    /// True when the answer to a change was lost, so that the change may or may not have been made. Only the same
    /// change may be retried.
    pub outcome_unknown: bool,
}

impl From<TargetError> for Acceptance {
    /// Makes the answer of a target that could not be asked.
    fn from(error: TargetError) -> Self {
        Acceptance::Unknown(error.trouble)
    }
}

impl From<Trouble> for TargetError {
    /// Makes the error of a read, or of a change that was certainly not made.
    fn from(trouble: Trouble) -> Self {
        Self { trouble, outcome_unknown: false }
    }
}

/// The target of one secret.
#[async_trait]
pub trait Target: Send + Sync {
    /// Logs in, and runs the user's probes. If a probe fails, the answer is `Refused` too.
    async fn try_login(&self, login: &Login) -> Acceptance;

    /// Reads the state of the secret's roles as the administrator. Without an administrator the result is empty, and
    /// there is no fence.
    async fn observe(&self) -> Result<Roles, TargetError>;

    /// Returns the kind of the target: keyturn installs logins in it, or the target makes them itself.
    fn kind(&self) -> Kind<'_>;
}

/// The two kinds of targets.
#[derive(Clone, Copy)]
pub enum Kind<'a> {
    /// The target accepts the logins that keyturn installs.
    Installs(&'a dyn Installs),
    /// The target makes logins itself, and accepts no others.
    Issues(&'a dyn Issues),
}

impl<'a> Kind<'a> {
    /// Returns the target if it makes logins itself; otherwise `None`.
    pub fn issues(self) -> Option<&'a dyn Issues> {
        match self {
            Kind::Installs(_) => None,
            Kind::Issues(issuer) => Some(issuer),
        }
    }

    /// Returns the part that ends sessions, if logins open any.
    pub fn sessions(self) -> Option<&'a dyn Sessions> {
        match self {
            Kind::Installs(installer) => installer.sessions(),
            Kind::Issues(_) => None,
        }
    }

    /// Returns the part that creates roles from the role in use, if the target has this part.
    pub fn sets_up(self) -> Option<&'a dyn SetsUp> {
        match self {
            Kind::Installs(installer) => installer.sets_up(),
            Kind::Issues(_) => None,
        }
    }
}

/// A target that accepts the logins that keyturn installs.
#[async_trait]
pub trait Installs: Send + Sync {
    /// Makes the target accept this login, and no other password for this username. Refuses a rotation that is older
    /// than the fence. `own` lists logins of the same username that may still work, the most likely first: without an
    /// administrator, the role logs in with one of them and changes its own password. Idempotent for the same
    /// arguments.
    async fn install(&self, id: RotationId, login: &Login, own: &[Login]) -> Result<(), TargetError>;

    /// Makes the target refuse any login of this username from now on. Open sessions stay open. Refuses a rotation that
    /// is older than the fence.
    async fn retire(&self, id: RotationId, username: &str) -> Result<(), TargetError>;

    /// Returns the part that ends sessions; `None` if logins open no sessions, since every request is authenticated. If
    /// there are sessions that cannot be listed, the result must not be `None`: an incident would treat them as ended.
    fn sessions(&self) -> Option<&dyn Sessions> {
        None
    }

    /// Returns the part that creates roles from the role in use; `None` if the target does not support this.
    fn sets_up(&self) -> Option<&dyn SetsUp> {
        None
    }
}

/// A target that makes logins itself.
#[async_trait]
pub trait Issues: Send + Sync {
    /// Makes a login, and names it after the rotation. Not idempotent: each call makes another login.
    async fn issue(&self, id: RotationId) -> Result<Login, TargetError>;

    /// Makes the target refuse this login from now on. Refuses to retire a login that the `claim` does not justify.
    async fn retire(&self, id: RotationId, username: &str, claim: Claim) -> Result<(), TargetError>;
}

/// The sessions that logins have opened at a target.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Ends the sessions of a username: all of them, or those that were opened before this time of the target's clock.
    async fn end(&self, username: &str, opened_before: Option<DateTime<Utc>>) -> Result<(), TargetError>;

    /// Lists the open sessions of a role as the role itself sees them, for a target without an administrator.
    async fn list_own(&self, own: &Login) -> Result<Vec<OpenSession>, TargetError>;

    /// Logs in as the role itself, and ends the role's sessions that were opened before this time of the target's
    /// clock.
    async fn end_own(&self, own: &Login, opened_before: DateTime<Utc>) -> Result<(), TargetError>;
}

/// A target in which an owner and a pair of roles can be created from a role in use.
#[async_trait]
pub trait SetsUp: Send + Sync {
    /// Creates the owner and the pair, or lists the statements for it. Returns the remaining work: none once all is
    /// done, or if the secret asks for no bootstrap. Idempotent.
    async fn set_up(&self, mode: SetUpMode) -> Result<SetUp, TargetError>;
}
