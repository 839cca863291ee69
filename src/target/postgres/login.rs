//! Whether a login works: it logs in, and may run what the user's probes run.

use tokio_postgres::error::{Error, SqlState};

use super::administrator::Who;
use super::connect::Session;
use super::failure::{self, LoginFailure, StatementError};
use super::{Postgres, look};
use crate::target::{Answer, Login, TargetError};

impl Postgres {
    pub(super) async fn log_in_and_probe(&self, login: &Login) -> Result<Answer, TargetError> {
        let mut session = match self.route.log_in(Who::Role(login)).await {
            Ok(session) => session,
            Err(LoginFailure::Refused(error)) => {
                return Ok(Answer::Refused(self.with_cause(login, error).await));
            }
            Err(LoginFailure::Failed(error)) => return Err(error),
        };
        self.require_primary(&session).await?;
        for (number, probe) in (1..).zip(&self.spec.probes) {
            if let Err(error) = run_and_roll_back(&mut session, probe).await {
                let error = session.failed(error);
                if failure::is_of_the_moment(&error) {
                    let what = format!("probe {number} as role {} was broken off", login.username);
                    return Err(failure::of_statement(&self.server(), &what, &error));
                }
                return Ok(Answer::Refused(self.failed_probe(number, login, &error)));
            }
        }
        session.close().await;
        Ok(Answer::Accepted)
    }

    fn failed_probe(&self, number: usize, login: &Login, error: &StatementError) -> TargetError {
        let (role, server) = (&login.username, self.server());
        let state = error.code().map_or("no SQLSTATE", failure::state);
        let why = match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => "the role lacks a privilege; grant it",
            Some(
                &(SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_COLUMN | SqlState::UNDEFINED_FUNCTION),
            ) => "something it names does not exist; create it, or correct the probe",
            Some(&SqlState::SYNTAX_ERROR) => "it is not one SQL statement; correct the probe",
            _ => "run it by hand as this role to see why",
        };
        failure::permanent(
            "ProbeFailed",
            format!(
                "role {role} logs in to the Postgres server {server}, but probe {number} fails ({state}): {why}"
            ),
        )
    }

    /// A server tells who fails to log in nothing but that; the administrator may see why.
    async fn with_cause(&self, login: &Login, refusal: TargetError) -> TargetError {
        let Some(admin) = &self.admin else { return refusal };
        let Ok(session) = self.admin_session(admin).await else { return refusal };
        let Ok(role) = look::role(&session, &self.server(), &login.username).await else { return refusal };
        match role {
            None => look::missing(&self.server(), &login.username),
            Some(role) if role.expired => look::expired(&self.server(), &login.username),
            Some(role) if !role.can_log_in => TargetError {
                message: format!(
                    "role {0} at the Postgres server {1} has NOLOGIN; run there: ALTER ROLE {2} LOGIN",
                    login.username,
                    self.server(),
                    failure::ident(&login.username)
                ),
                ..refusal
            },
            Some(_) => refusal,
        }
    }
}

/// One statement; more cannot be sent this way. Of its rows one is fetched.
async fn run_and_roll_back(session: &mut Session, statement: &str) -> Result<(), Error> {
    let transaction = session.client.transaction().await?;
    let ran = async {
        let portal = transaction.bind(statement, &[]).await?;
        transaction.query_portal(&portal, 1).await
    };
    let ran = ran.await.map(drop);
    transaction.rollback().await?;
    ran
}
