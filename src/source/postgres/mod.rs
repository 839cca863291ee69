//! Postgres roles: one whose password is changed in place, or two that take turns.
//!
//! The server gets a SCRAM verifier, never a password. Logins use SCRAM and nothing else. Every change is one
//! transaction that first takes the role's fence, so that a late request of a paused controller changes nothing.
//! `docs/postgres.md` describes this for users.

mod administrator;
mod bootstrap;
mod bootstrap_sql;
mod change;
mod connect;
mod dial;
mod failure;
mod fence;
mod framing;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod hostile_tests;
mod login;
mod look;
mod open;
mod pair;
mod scram_only;
mod verifier;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

pub use self::administrator::Administrator;
use self::administrator::Who;
pub use self::connect::Limits;
use self::connect::{Route, Session, Tls, column};
pub use self::dial::{Dial, Direct, Stream, ThroughHost, Wire};
use self::failure::LoginFailure;
pub(super) use self::open::{Arguments, Opener};
use super::{Installs, Kind, Login, Roles, Sessions, SetUp, SetUpMode, SetsUp, Target, TargetError};
use crate::api::Reason;
use crate::api::source::postgres::{PostgresReason, PostgresSpec};
use crate::rotation::observed::{Acceptance, OpenSession, RotationId};

/// The roles of one secret on one server.
pub struct Postgres {
    spec: PostgresSpec,
    route: Route,
    admin: Option<Administrator>,
    /// `<cluster>/<namespace>/<name>` of the secret, the owner of the roles in the fence.
    owner: String,
    allow_superuser: bool,
}

impl Postgres {
    /// Creates the target without connecting. Fails if the spec asks for an impossible TLS: no certificate in `ca`, or
    /// no name to check. Without `allow_superuser`, the password of a superuser or replication role is not changed.
    pub fn new(
        spec: &PostgresSpec,
        dial: Arc<dyn Dial>,
        admin: Option<Administrator>,
        owner: String,
        allow_superuser: bool,
    ) -> Result<Self, TargetError> {
        let tls = Tls::of(spec)?;
        let route = Route { dial, tls, database: spec.database.clone(), limits: Limits::default() };
        Ok(Self { spec: spec.clone(), route, admin, owner, allow_superuser })
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.route.limits = limits;
        self
    }

    fn server(&self) -> String {
        self.route.dial.server()
    }

    /// Opens a session of the administrator, without a default role, on a server that accepts writes.
    async fn admin_session(&self, admin: &Administrator) -> Result<Session, TargetError> {
        let session =
            self.route.log_in_safely(Who::Administrator(admin)).await.map_err(|failure| match failure {
                LoginFailure::Refused(error) => {
                    let message = format!("the administrator cannot log in: {error}");
                    failure::permanent(Reason::AdministratorRefused, message)
                }
                LoginFailure::Failed(error) => error,
            })?;
        self.as_itself(session).await
    }

    /// Opens a session of one of the secret's own roles.
    async fn own_session(&self, own: &Login) -> Result<Session, TargetError> {
        let session = self.route.log_in(Who::Role(own)).await.map_err(|failure| match failure {
            LoginFailure::Refused(error) | LoginFailure::Failed(error) => error,
        })?;
        self.as_itself(session).await
    }

    /// Resets a default role: a login that acts as its default role may lack its own rights.
    async fn as_itself(&self, session: Session) -> Result<Session, TargetError> {
        let failed = |error| failure::of_statement(&self.server(), "the session failed", &error);
        session.run("SET ROLE NONE").await.map_err(failed)?;
        self.require_primary(&session).await?;
        Ok(session)
    }

    /// Refuses a replica: it accepts what the primary accepted some time ago, so its answer proves nothing.
    async fn require_primary(&self, session: &Session) -> Result<(), TargetError> {
        let asked = session.row("SELECT pg_catalog.pg_is_in_recovery()", &[]).await;
        let replica = asked.and_then(|row| column::<bool>(&row, 0)).map_err(|error| {
            failure::of_statement(&self.server(), "the check for a read-only replica failed", &error)
        })?;
        if replica { Err(failure::read_only(&self.server())) } else { Ok(()) }
    }

    async fn bounded<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, TargetError>>,
    ) -> Result<T, TargetError> {
        self.bounded_by(self.route.limits.operation, what, call).await
    }

    async fn bounded_by<T>(
        &self,
        limit: Duration,
        what: &str,
        call: impl Future<Output = Result<T, TargetError>>,
    ) -> Result<T, TargetError> {
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            let server = self.server();
            let seconds = limit.as_secs();
            let message = format!("{what} at the Postgres server {server} did not end within {seconds} s");
            Err(failure::passing(PostgresReason::TimedOut, message))
        })
    }
}

#[async_trait]
impl Target for Postgres {
    async fn try_login(&self, login: &Login) -> Acceptance {
        self.bounded("the login", self.log_in_and_probe(login)).await.unwrap_or_else(Acceptance::from)
    }

    async fn observe(&self) -> Result<Roles, TargetError> {
        match &self.admin {
            Some(admin) => self.bounded("the query of the roles", self.look_as(admin)).await,
            None => Ok(Roles::default()),
        }
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Installs(self)
    }
}

#[async_trait]
impl Installs for Postgres {
    async fn install(&self, id: RotationId, login: &Login, own: &[Login]) -> Result<(), TargetError> {
        self.install_login(id, login, own).await
    }

    async fn retire(&self, id: RotationId, username: &str) -> Result<(), TargetError> {
        self.retire_role(id, username).await
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        Some(self)
    }

    fn sets_up(&self) -> Option<&dyn SetsUp> {
        Some(self)
    }
}

#[async_trait]
impl Sessions for Postgres {
    async fn end(&self, username: &str, opened_before: Option<DateTime<Utc>>) -> Result<(), TargetError> {
        self.bounded("the termination of sessions", self.end_sessions_of(username, opened_before)).await
    }

    async fn list_own(&self, own: &Login) -> Result<Vec<OpenSession>, TargetError> {
        self.bounded("the query of the sessions", self.own_sessions_of(own)).await
    }

    async fn end_own(&self, own: &Login, opened_before: DateTime<Utc>) -> Result<(), TargetError> {
        self.bounded("the termination of sessions", self.end_own_sessions_of(own, opened_before)).await
    }
}

#[async_trait]
impl SetsUp for Postgres {
    async fn set_up(&self, mode: SetUpMode) -> Result<SetUp, TargetError> {
        // This runs one statement for each object of the database.
        let limit = self.route.limits.operation * 6;
        self.bounded_by(limit, "the setup of the roles", self.set_up_pair(mode)).await
    }
}
