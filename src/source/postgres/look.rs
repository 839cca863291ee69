//! The state of the secret's roles as the administrator sees it.

use chrono::DateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::administrator::Administrator;
use super::connect::{Session, column};
use super::failure::{self, StatementError, ident, told};
use super::fence::{self, Fence};
use super::{Postgres, pair};
use crate::api::Reason;
use crate::api::source::postgres::PostgresReason;
use crate::rotation::observed::OpenSession;
use crate::source::{Login, Roles, TargetError};

/// A role as it is in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoleState {
    pub name: String,
    pub can_log_in: bool,
    pub superuser: bool,
    pub replication: bool,
    /// Its VALID UNTIL has passed.
    pub expired: bool,
}

const ROLE: &str = "
    SELECT rolcanlogin, rolsuper, rolreplication,
           coalesce(rolvaliduntil <= pg_catalog.now(), false)
    FROM pg_catalog.pg_roles WHERE rolname = $1";

/// Returns the role of that name, if it exists.
pub(super) async fn role(
    session: &Session,
    server: &str,
    name: &str,
) -> Result<Option<RoleState>, TargetError> {
    let read = async {
        let Some(row) = session.row_if_any(ROLE, &[(&name, Type::NAME)]).await? else { return Ok(None) };
        Ok(Some(RoleState {
            name: name.to_owned(),
            can_log_in: column(&row, 0)?,
            superuser: column(&row, 1)?,
            replication: column(&row, 2)?,
            expired: column(&row, 3)?,
        }))
    };
    read.await.map_err(|error| {
        failure::of_statement(server, &format!("role {name} could not be looked up"), &error)
    })
}

pub(super) fn missing(server: &str, role: &str) -> TargetError {
    failure::permanent(
        Reason::RoleMissing,
        format!("the Postgres server {server} has no role {role}; create it, or correct its name"),
    )
}

pub(super) fn expired(server: &str, role: &str) -> TargetError {
    failure::permanent(
        PostgresReason::RoleExpired,
        format!(
            "the VALID UNTIL of role {role} at the Postgres server {server} has passed, so the server \
             accepts none of its passwords, not even a new one; if the role is still needed, run there: \
             ALTER ROLE {} VALID UNTIL 'infinity'",
            ident(role)
        ),
    )
}

pub(super) fn superuser(server: &str, role: &RoleState) -> TargetError {
    let what = if role.superuser { "a superuser" } else { "a replication role" };
    failure::permanent(
        PostgresReason::SuperuserNotAllowed,
        format!(
            "role {} at the Postgres server {server} is {what}, which keyturn rotates only if the \
             RotationGrant allows it; to allow it, set allowSuperuser: true for the role there",
            role.name
        ),
    )
}

impl Postgres {
    pub(super) async fn look_as(&self, admin: &Administrator) -> Result<Roles, TargetError> {
        let server = self.server();
        let session = self.admin_session(admin).await?;
        let mut seen = Roles::default();
        let names = self.spec.roles();
        for name in &names {
            let role = role(&session, &server, name).await?.ok_or_else(|| missing(&server, name))?;
            if !self.allow_superuser && (role.superuser || role.replication) {
                return Err(superuser(&server, &role));
            }
            if role.expired {
                return Err(expired(&server, name));
            }
            if role.superuser && !self.spec.probes.is_empty() {
                seen.notes.push(format!(
                    "role {name} is a superuser, so keyturn runs no probes as it; remove \
                     spec.generate.postgres.probes, or use a role for the application that is not a \
                     superuser"
                ));
            }
            if role.can_log_in {
                seen.can_log_in.insert(role.name);
            }
        }
        let before = self.spec.bootstrap_from();
        if let Some(before) = before
            && let Some(role) = role(&session, &server, before).await?
            && role.can_log_in
        {
            if role.superuser {
                seen.notes.push(format!(
                    "role {before} is a superuser, so keyturn never disables its login; once nothing uses \
                     it, change its password by hand"
                ));
                seen.superusers.insert(role.name.clone());
            }
            seen.can_log_in.insert(role.name);
        }
        if let Some(pair) = &self.spec.alternating_roles {
            pair::require_alike(&session, &server, pair, admin).await?;
            seen.notes.extend(pair::strays(&session, &server, pair).await?);
        }
        let asked: Vec<&str> = names.iter().copied().chain(before).collect();
        let found = fence::find(&session, &server).await?;
        seen.fenced = found != Fence::Impossible;
        if found == Fence::Present {
            seen.fences = fence::read(&session, &server, &asked).await?;
        }
        seen.sessions = sessions(&session, &server, &asked).await?;
        session.close().await;
        Ok(seen)
    }

    pub(super) async fn own_sessions_of(&self, own: &Login) -> Result<Vec<OpenSession>, TargetError> {
        let session = self.own_session(own).await?;
        let found = sessions(&session, &self.server(), &[own.username.as_str()]).await?;
        session.close().await;
        Ok(found)
    }
}

/// Returns the open sessions of the roles. An administrator who may not read all statistics sees that they exist, but
/// not where they come from.
async fn sessions(session: &Session, server: &str, roles: &[&str]) -> Result<Vec<OpenSession>, TargetError> {
    let sql = "
        SELECT usename::text, coalesce(host(client_addr), 'unknown address'), application_name,
               (extract(epoch FROM backend_start) * 1000000)::bigint
        FROM pg_stat_activity
        WHERE usename = ANY($1) AND pid <> pg_backend_pid() AND coalesce(backend_type, 'client backend') = 'client backend'
        ORDER BY usename, backend_start, pid";
    let failed =
        |error| failure::of_statement(server, "the sessions of the roles could not be listed", &error);
    let rows = session.rows(sql, &[(&roles, Type::NAME_ARRAY)]).await.map_err(failed)?;
    rows.iter().map(|row| open_session(row, roles)).collect::<Result<_, _>>().map_err(failed)
}

fn open_session(row: &Row, roles: &[&str]) -> Result<OpenSession, StatementError> {
    let username: String = column(row, 0)?;
    if !roles.contains(&username.as_str()) {
        return Err(StatementError::NotUnderstood);
    }
    let address = told(column(row, 1)?, 64);
    let application = told(column(row, 2)?, 64);
    let since: Option<i64> = column(row, 3)?;
    Ok(OpenSession {
        username,
        client: if application.is_empty() { address } else { format!("{address} ({application})") },
        since: since.and_then(DateTime::from_timestamp_micros),
    })
}
