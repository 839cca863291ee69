//! Changes of a role. Each is one transaction that takes the fence, alters the role, advances the fence and commits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::administrator::{Administrator, Who};
use super::connect::{Session, column};
use super::failure::{self, LoginFailure, StatementError, ident};
use super::verifier::Verifier;
use super::{Postgres, fence, look};
use crate::api::source::postgres::PostgresReason;
use crate::api::{Reason, Trouble};
use crate::rotation::observed::RotationId;
use crate::source::{Login, TargetError};

/// Synchronous commit is never left to the server's default: a commit that a crash of the server undoes would otherwise
/// count as done.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true) \
                       WHERE pg_catalog.current_setting('synchronous_commit') = 'off'";

/// A call that changes something, with its start time and its progress.
struct Attempt {
    began: Instant,
    commit_sent: AtomicBool,
}

impl Attempt {
    fn new() -> Self {
        Self { began: Instant::now(), commit_sent: AtomicBool::new(false) }
    }

    /// Marks a timeout as unknown if COMMIT was already sent: without an answer nobody knows whether it was done.
    fn settle(&self, mut result: Result<(), TargetError>) -> Result<(), TargetError> {
        if let Err(error) = &mut result
            && error.trouble.reason == Reason::from(PostgresReason::TimedOut)
        {
            error.outcome_unknown = self.commit_sent.load(Ordering::Relaxed);
        }
        result
    }
}

/// A change of one role.
struct Change<'a> {
    role: &'a str,
    /// The ALTER ROLE.
    statement: String,
    id: RotationId,
}

impl Postgres {
    pub(super) async fn install_login(
        &self,
        id: RotationId,
        login: &Login,
        own: &[Login],
    ) -> Result<(), TargetError> {
        let role = login.username.as_str();
        if !self.spec.roles().contains(&role) {
            return Err(self.not_ours(role));
        }
        let verifier = Verifier::of(&login.password).map_err(|error| {
            let server = self.server();
            let message =
                format!("role {role} at the Postgres server {server} cannot be given this password: {error}");
            failure::permanent(PostgresReason::PasswordUnusable, message)
        })?;
        let may_log_in = if self.spec.alternating_roles.is_some() { "LOGIN " } else { "" };
        let statement = format!("ALTER ROLE {} {may_log_in}PASSWORD {}", ident(role), verifier.literal());
        let change = Change { role, statement, id };
        let attempt = Attempt::new();
        let done = self.bounded("the change of the role", async {
            match &self.admin {
                Some(admin) => self.alter_as(admin, &change, &attempt, true).await,
                None => self.alter_self(&change, login, own, &attempt).await,
            }
        });
        attempt.settle(done.await)
    }

    pub(super) async fn retire_role(&self, id: RotationId, role: &str) -> Result<(), TargetError> {
        let pair =
            self.spec.alternating_roles.as_ref().is_some_and(|pair| pair.names.iter().any(|n| n == role));
        if !pair && self.spec.bootstrap_from() != Some(role) {
            return Err(self.not_ours(role));
        }
        let Some(admin) = &self.admin else { return Err(self.no_administrator("retire", role)) };
        let statement = format!("ALTER ROLE {} NOLOGIN PASSWORD NULL", ident(role));
        let change = Change { role, statement, id };
        let attempt = Attempt::new();
        let done = self.bounded("the change of the role", self.alter_as(admin, &change, &attempt, false));
        attempt.settle(done.await)
    }

    pub(super) async fn end_sessions_of(
        &self,
        role: &str,
        opened_before: Option<DateTime<Utc>>,
    ) -> Result<(), TargetError> {
        let Some(admin) = &self.admin else { return Err(self.no_administrator("end the sessions of", role)) };
        let session = self.admin_session(admin).await?;
        self.end_sessions_in(session, Who::Administrator(admin), role, opened_before).await
    }

    pub(super) async fn end_own_sessions_of(
        &self,
        own: &Login,
        opened_before: DateTime<Utc>,
    ) -> Result<(), TargetError> {
        let session = self.own_session(own).await?;
        self.end_sessions_in(session, Who::Role(own), &own.username, Some(opened_before)).await
    }

    async fn end_sessions_in(
        &self,
        session: Session,
        by: Who<'_>,
        role: &str,
        opened_before: Option<DateTime<Utc>>,
    ) -> Result<(), TargetError> {
        // The list of sessions is materialized, since the server might otherwise end sessions before it has compared
        // their names. The statement waits up to two seconds for the end of each session.
        let sql = "WITH theirs AS MATERIALIZED \
                   (SELECT pid FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid() \
                    AND ($2::bigint IS NULL \
                         OR coalesce((extract(epoch FROM backend_start) * 1000000)::bigint < $2, false))) \
                   SELECT count(*) FROM theirs WHERE NOT pg_terminate_backend(pid, 2000)";
        let ended = session
            .row(sql, &[(&role, Type::NAME), (&opened_before.map(|at| at.timestamp_micros()), Type::INT8)])
            .await;
        let server = self.server();
        let left: i64 = match ended.and_then(|row| column(&row, 0)) {
            Ok(left) => left,
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                return Err(failure::permanent(
                    PostgresReason::NotPermitted,
                    format!(
                        "{by} may not end the sessions of role {role} at the Postgres server {server} \
                         (42501); run there: GRANT pg_signal_backend TO {} (only a superuser can end the \
                         sessions of a superuser)",
                        by.shown_ident()
                    ),
                ));
            }
            Err(error) => {
                let what = format!("the sessions of role {role} could not be ended");
                return Err(failure::of_statement(&server, &what, &error));
            }
        };
        session.close().await;
        if left == 0 {
            return Ok(());
        }
        let message = format!(
            "{left} sessions of role {role} at the Postgres server {server} did not end in time after \
             keyturn terminated them"
        );
        Err(failure::passing(PostgresReason::SessionsRemain, message))
    }

    fn not_ours(&self, role: &str) -> TargetError {
        let server = self.server();
        failure::permanent(
            PostgresReason::NotOurRole,
            format!("role {role} at the Postgres server {server} does not belong to this secret"),
        )
    }

    pub(super) fn no_administrator(&self, what: &str, role: &str) -> TargetError {
        failure::permanent(
            PostgresReason::NoAdministrator,
            format!(
                "keyturn needs an administrator to {what} role {role} at the Postgres server {}; set \
                 adminSecretRef or adminParameter",
                self.server()
            ),
        )
    }

    async fn alter_as(
        &self,
        admin: &Administrator,
        change: &Change<'_>,
        attempt: &Attempt,
        installs: bool,
    ) -> Result<(), TargetError> {
        let server = self.server();
        let who = Who::Administrator(admin);
        let session = self.admin_session(admin).await?;
        let Some(role) = look::role(&session, &server, change.role).await? else {
            // A role that does not exist lets nobody in.
            return if installs { Err(look::missing(&server, change.role)) } else { Ok(()) };
        };
        if installs {
            self.require_permitted(&role)?;
            if role.expired {
                return Err(look::expired(&server, change.role));
            }
        } else if role.superuser {
            return Err(failure::permanent(
                PostgresReason::SuperuserKept,
                format!(
                    "role {} at the Postgres server {server} is a superuser, maybe the only one, so keyturn \
                     does not disable its login. If there is another superuser, run there: ALTER ROLE {} \
                     NOLOGIN PASSWORD NULL",
                    change.role,
                    ident(change.role)
                ),
            ));
        }
        let fenced = fence::ensure(&session, &server).await?;
        self.begin(&session).await?;
        if fenced {
            fence::take(&session, &server, change.role, change.id, &self.owner).await?;
        } else {
            // Without a fence, this lock at least prevents two sessions of keyturn from altering the role at the same
            // moment.
            let sql = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7311984))";
            let locked = session.rows(sql, &[(&change.role, Type::TEXT)]).await;
            locked.map_err(|error| self.alter_failed(change.role, who, &session, &error))?;
        }
        let altered = session.run(&change.statement).await;
        altered.map_err(|error| self.alter_failed(change.role, who, &session, &error))?;
        if fenced {
            fence::advance(&session, &server, change.role, change.id).await?;
        }
        self.commit(session, change.role, attempt).await
    }

    /// Lets the role change its own password, with the first of its logins that works.
    async fn alter_self(
        &self,
        change: &Change<'_>,
        login: &Login,
        own: &[Login],
        attempt: &Attempt,
    ) -> Result<(), TargetError> {
        let server = self.server();
        for known in own.iter().filter(|known| known.username == login.username) {
            let session = match self.route.log_in(Who::Role(known)).await {
                Ok(session) => session,
                Err(LoginFailure::Refused(_)) => continue,
                Err(LoginFailure::Failed(error)) => return Err(error),
            };
            self.require_primary(&session).await?;
            if let Some(role) = look::role(&session, &server, change.role).await? {
                self.require_permitted(&role)?;
            }
            self.begin(&session).await?;
            // A login that acts as a default role may not change its own password.
            let statement = format!("SET LOCAL ROLE NONE; {}", change.statement);
            let altered = session.run(&statement).await;
            altered.map_err(|error| self.alter_failed(change.role, Who::Role(known), &session, &error))?;
            return self.commit(session, change.role, attempt).await;
        }
        // An earlier attempt may have changed it, with its answer lost.
        match self.route.log_in(Who::Role(login)).await {
            Ok(session) => {
                session.close().await;
                Ok(())
            }
            Err(LoginFailure::Failed(error)) => Err(error),
            Err(LoginFailure::Refused(error)) => Err(failure::permanent(
                PostgresReason::NoLoginWorks,
                format!(
                    "role {} cannot change its own password, since none of its passwords that keyturn knows \
                     works; set an administrator (adminSecretRef or adminParameter), or publish the \
                     password that works. Error of the newest one: {}",
                    change.role, error.trouble
                ),
            )),
        }
    }

    fn require_permitted(&self, role: &look::RoleState) -> Result<(), TargetError> {
        if !self.allow_superuser && (role.superuser || role.replication) {
            return Err(look::superuser(&self.server(), role));
        }
        Ok(())
    }

    pub(super) async fn begin(&self, session: &Session) -> Result<(), TargetError> {
        let began = session.run(&format!("{BEGIN}; {DURABLE}")).await;
        began
            .map_err(|error| failure::of_statement(&self.server(), "no transaction could be started", &error))
    }

    async fn commit(&self, session: Session, role: &str, attempt: &Attempt) -> Result<(), TargetError> {
        let server = self.server();
        let limit = self.route.limits.operation;
        // The process may have been paused in between, and another process may have decided otherwise meanwhile.
        if attempt.began.elapsed() >= limit {
            let message = format!(
                "role {role} at the Postgres server {server} was not changed: the steps before the COMMIT \
                 took longer than {} s",
                limit.as_secs()
            );
            return Err(failure::passing(PostgresReason::TimedOut, message));
        }
        attempt.commit_sent.store(true, Ordering::Relaxed);
        match session.run("COMMIT").await {
            Ok(()) => {
                session.close().await;
                Ok(())
            }
            Err(error) if failure::commit_is_unknown(&error) => {
                let message = format!(
                    "the connection to the Postgres server {server} was lost before the server confirmed \
                     the change of role {role}; keyturn repeats the same change"
                );
                let trouble = Trouble::passing(PostgresReason::OutcomeUnknown, message);
                Err(TargetError { trouble, outcome_unknown: true })
            }
            Err(error) => Err(failure::of_statement(
                &server,
                &format!("the change of role {role} was not committed"),
                &error,
            )),
        }
    }

    fn alter_failed(
        &self,
        role: &str,
        who: Who<'_>,
        session: &Session,
        error: &StatementError,
    ) -> TargetError {
        let server = self.server();
        if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            return failure::not_permitted(&server, role, who, session.version);
        }
        failure::of_statement(&server, &format!("role {role} could not be changed"), error)
    }
}
