//! Tries a login: it logs in and runs the user's probes.
//!
//! Everybody who may edit a ManagedSecret can write probes and read their results in its conditions. So they run only
//! if a grant allows it, read-only, with a time limit, and never as a role that a transaction does not restrict. A
//! failure is reported without the server's words, since a statement can choose its SQLSTATE by the data that it reads.

use std::time::Duration;

use tokio_postgres::error::Error;

use super::administrator::Who;
use super::connect::Session;
use super::failure::{self, LoginFailure, StatementError};
use super::{Postgres, look};
use crate::api::Trouble;
use crate::api::source::postgres::PostgresReason;
use crate::rotation::observed::Acceptance;
use crate::source::{Login, TargetError};

/// True if the login is, or can become, a role that reaches beyond the database: a read-only transaction does not keep
/// such a role from the server's programs and files. Every name is qualified, since the role's own search_path applies.
const REACHES_BEYOND: &str = "
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE (r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) ANY (
                  '{pg_execute_server_program,pg_read_server_files,pg_write_server_files}'::pg_catalog.name[]))
          AND pg_catalog.pg_has_role(SESSION_USER, r.oid, 'MEMBER'))";

/// The result of a probe.
enum Probed {
    Passed,
    /// Not run, like all other probes, because the login belongs to a superuser.
    NotRun,
    /// It needs parameters, which keyturn does not give.
    HasParameters,
}

impl Postgres {
    pub(super) async fn log_in_and_probe(&self, login: &Login) -> Result<Acceptance, TargetError> {
        let mut session = match self.route.log_in(Who::Role(login)).await {
            Ok(session) => session,
            Err(LoginFailure::Refused(error)) => {
                return Ok(Acceptance::Refused(self.with_cause(login, error.trouble).await));
            }
            Err(LoginFailure::Failed(error)) => return Err(error),
        };
        self.require_primary(&session).await?;
        for (number, probe) in (1..).zip(&self.spec.probes) {
            let limit = self.route.limits.statement;
            let ran = run_and_roll_back(&mut session, probe, limit).await;
            match ran.map_err(|error| session.failed(error)) {
                Ok(Probed::Passed) => {}
                Ok(Probed::NotRun) => {
                    let role = &login.username;
                    tracing::info!(
                        role,
                        "no probe is run as a superuser, or as a role that may use programs or files of the \
                         server"
                    );
                    break;
                }
                Ok(Probed::HasParameters) => {
                    let why = "it has parameters, and keyturn passes none; write the values into the \
                               statement";
                    return Ok(Acceptance::Refused(self.failed_probe(number, login, why)));
                }
                Err(error) if failure::is_of_the_moment(&error) => {
                    let what = format!("probe {number} as role {} was interrupted", login.username);
                    return Err(failure::of_the_moment(&self.server(), &what, &error));
                }
                Err(error) => {
                    return Ok(Acceptance::Refused(self.failed_probe(number, login, why_it_failed(&error))));
                }
            }
        }
        session.close().await;
        Ok(Acceptance::Accepted)
    }

    fn failed_probe(&self, number: usize, login: &Login, why: &str) -> Trouble {
        let (role, server) = (&login.username, self.server());
        Trouble::permanent(
            PostgresReason::ProbeFailed,
            format!("role {role} logs in to the Postgres server {server}, but probe {number} fails: {why}"),
        )
    }

    /// Adds the cause to a refusal: a server tells a client nothing more than that its login failed, but the
    /// administrator may see why.
    async fn with_cause(&self, login: &Login, refusal: Trouble) -> Trouble {
        let Some(admin) = &self.admin else { return refusal };
        let Ok(session) = self.admin_session(admin).await else { return refusal };
        let Ok(role) = look::role(&session, &self.server(), &login.username).await else { return refusal };
        match role {
            None => look::missing(&self.server(), &login.username).trouble,
            Some(role) if role.expired => look::expired(&self.server(), &login.username).trouble,
            Some(role) if !role.can_log_in => {
                let message = format!(
                    "role {0} at the Postgres server {1} has NOLOGIN; run there: ALTER ROLE {2} LOGIN",
                    login.username,
                    self.server(),
                    failure::ident(&login.username)
                );
                Trouble::permanent(refusal.reason, message)
            }
            Some(_) => refusal,
        }
    }
}

/// Describes a failure by the class of its SQLSTATE, if Postgres itself uses that class for a wrong probe.
fn why_it_failed(error: &StatementError) -> &'static str {
    match error.code().map(failure::class) {
        Some("42") => {
            "class 42 of SQLSTATE: the role lacks a privilege, an object in the probe does not exist, or \
             the probe is not one SQL statement; grant the privilege, create the object, or correct the \
             probe"
        }
        Some("25") => {
            "class 25 of SQLSTATE: it would change something, and probes are read-only; correct the probe"
        }
        Some("22") => {
            "class 22 of SQLSTATE: a value in it is not valid; run it by hand as this role to see which"
        }
        _ => "run it by hand as this role to see why",
    }
}

/// Runs one statement; more cannot be sent this way. Fetches one of its rows.
async fn run_and_roll_back(session: &mut Session, statement: &str, limit: Duration) -> Result<Probed, Error> {
    let transaction = session.client.build_transaction().read_only(true).start().await?;
    let ran = async {
        // A pooler may have dropped the options of the session's start.
        transaction.batch_execute(&format!("SET LOCAL statement_timeout = {}", limit.as_millis())).await?;
        // A transaction that has read anything stays read-only, no matter what the probe does.
        if transaction.query_typed_one(REACHES_BEYOND, &[]).await?.try_get(0)? {
            return Ok(Probed::NotRun);
        }
        let prepared = transaction.prepare(statement).await?;
        if !prepared.params().is_empty() {
            return Ok(Probed::HasParameters);
        }
        let portal = transaction.bind(&prepared, &[]).await?;
        transaction.query_portal(&portal, 1).await?;
        Ok(Probed::Passed)
    };
    let ran = ran.await;
    transaction.rollback().await?;
    ran
}
