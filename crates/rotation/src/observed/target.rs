//! The evidence about a target.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use keyturn_api::Trouble;

use super::RotationId;

/// The evidence about a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetEvidence {
    /// Time of the observation.
    pub at: DateTime<Utc>,
    /// The reason why its roles could not be read; `None` if they were.
    pub unseen: Option<Trouble>,
    /// True when the target can refuse late requests of older rotations.
    pub fenced: bool,
    /// The rotation that last changed each username, and the time of that change.
    pub fences: BTreeMap<String, (RotationId, DateTime<Utc>)>,
    /// Usernames that are able to log in.
    pub can_log_in: BTreeSet<String>,
    /// Superusers; keyturn never retires their login.
    pub superusers: BTreeSet<String>,
    /// Open sessions, as far as keyturn can see them: an empty list alone does not prove that none is open.
    pub sessions: Vec<OpenSession>,
    /// True when a role was changed after this observation: before the change, somebody may have logged in with the old
    /// password.
    pub changed_since: bool,
    /// The target's answer to the login in the newest record.
    pub recorded: Option<Acceptance>,
    /// The target's answer to the published login. It is asked while no record is open, and also while a record holds a
    /// login that the target made and that is not published yet.
    pub published: Option<Acceptance>,
    /// The target's answers to the logins that open records replace, by username. They are asked only after those
    /// logins were retired.
    pub replaced: BTreeMap<String, Acceptance>,
    /// Logins that the target made for this secret; `None` if the target makes no logins, or was not asked.
    pub issued: Option<Vec<KnownLogin>>,
    /// Lifetime of the published login, if no record is open and the target expires logins on its own.
    pub lifetime: Option<Lifetime>,
    /// Remarks that a person should read.
    pub notes: Vec<String>,
    /// SQL statements that create the roles from the published one, if that is requested and not done yet.
    pub set_up: Vec<String>,
}

impl TargetEvidence {
    /// Creates evidence for an observation at this time, with nothing known yet.
    pub fn unasked(at: DateTime<Utc>) -> Self {
        Self {
            at,
            unseen: None,
            fenced: false,
            fences: BTreeMap::new(),
            can_log_in: BTreeSet::new(),
            superusers: BTreeSet::new(),
            sessions: Vec::new(),
            changed_since: false,
            recorded: None,
            published: None,
            replaced: BTreeMap::new(),
            issued: None,
            lifetime: None,
            notes: Vec::new(),
            set_up: Vec::new(),
        }
    }
}

/// An open session of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// Name of the login that opened the session.
    pub username: String,
    /// Description of the client, for people to read.
    pub client: String,
    /// Start of the session by the target's clock, like the times in `fences`; `None` if the target does not show it.
    pub since: Option<DateTime<Utc>>,
}

/// A login that the target made for a rotation, as the target lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedLogin {
    /// Name of the login: the access key id at Cloudflare R2.
    pub username: String,
    /// Id of the rotation after which the login is named.
    pub id: RotationId,
    /// Time when the login was made, by the target's clock.
    pub at: DateTime<Utc>,
    /// Time at which the target expires the login; `None` if it does not expire.
    pub expires_at: Option<DateTime<Utc>>,
}

impl IssuedLogin {
    /// Returns the time span in which the login works; `None` if it does not expire.
    pub fn lifetime(&self) -> Option<Lifetime> {
        Some(Lifetime { begins: self.at, ends: self.expires_at? })
    }
}

/// A login that the target made for a rotation, with the evidence of Parameter Store about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLogin {
    /// The login.
    pub login: IssuedLogin,
    /// True when keyturn's newest version publishes the login, as far as the evidence shows.
    pub is_published: bool,
    /// True when the login is published by keyturn's newest version, by the latest version, or by any version of its
    /// rotation that SSM still keeps, as far as the evidence shows.
    pub was_published: bool,
}

/// The time span in which a login works, for targets that expire logins on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Time when the target made the login, by the target's clock.
    pub begins: DateTime<Utc>,
    /// Time at which the target expires the login, by the target's clock.
    pub ends: DateTime<Utc>,
}

impl Lifetime {
    /// Returns the latest time to replace the login: three quarters of its lifetime. The last quarter is left for
    /// retries.
    pub fn replace_by(&self) -> DateTime<Utc> {
        self.begins + (self.ends - self.begins) * 3 / 4
    }
}

/// A target's answer to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The login works.
    Accepted,
    /// The login does not work, a probe failed with it, or the published texts contain no login.
    Refused(Trouble),
    /// The target could not be asked.
    Unknown(Trouble),
}

impl Acceptance {
    /// Returns why the target could not be asked; `None` if it answered.
    pub fn unknown(self) -> Option<Trouble> {
        match self {
            Acceptance::Unknown(trouble) => Some(trouble),
            Acceptance::Accepted | Acceptance::Refused(_) => None,
        }
    }
}
