//! The fence: a table in the login database with, for each role, the rotation that changed it last and the secret that
//! owns it. It is read and written in the transaction that changes the role, under a lock of its row.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::connect::{Session, column};
use super::failure::{self, NAME, StatementError, told};
use crate::api::source::postgres::PostgresReason;
use crate::rotation::observed::RotationId;
use crate::source::TargetError;

/// The state of the table for the administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    Present,
    /// The table does not exist, and the administrator may create it.
    Creatable,
    /// The table does not exist, and the administrator may not create it.
    Impossible,
}

const STATE: &str = "
    SELECT c.oid IS NOT NULL,
           coalesce(c.relkind = 'r' AND NOT (c.relhastriggers OR c.relhasrules OR c.relrowsecurity), true),
           coalesce(pg_has_role(current_user, c.relowner, 'USAGE')
                    OR (SELECT rolsuper FROM pg_roles WHERE oid = c.relowner), true),
           CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                ELSE has_schema_privilege(n.oid, 'CREATE') END,
           n.oid IS NOT NULL
    FROM (SELECT 1) AS one
    LEFT JOIN pg_namespace AS n ON n.nspname = 'keyturn'
    LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = 'fence'";

/// Looks for the table. Refuses a table that belongs to somebody else, or that runs code when it is written, since
/// that code would run as the administrator.
pub(super) async fn find(session: &Session, server: &str) -> Result<Fence, TargetError> {
    Ok(look(session, server).await?.0)
}

async fn look(session: &Session, server: &str) -> Result<(Fence, bool), TargetError> {
    let failed = |error| failed(server, &error);
    let row = session.row(STATE, &[]).await.map_err(failed)?;
    let yes = |index| column::<bool>(&row, index).map_err(failed);
    let (exists, plain, ours, creatable, schema) = (yes(0)?, yes(1)?, yes(2)?, yes(3)?, yes(4)?);
    let fence = match (exists, creatable) {
        (true, _) if !plain || !ours => {
            return Err(failure::permanent(
                PostgresReason::FenceNotOurs,
                format!(
                    "keyturn.fence at the Postgres server {server} is not a plain table of the \
                     administrator or of a superuser, so keyturn did not use it; find out who created it, \
                     and drop it"
                ),
            ));
        }
        (true, _) => Fence::Present,
        (false, true) => Fence::Creatable,
        (false, false) => Fence::Impossible,
    };
    Ok((fence, schema))
}

/// Creates the table if it does not exist and may be created. Returns true if there is one.
pub(super) async fn ensure(session: &Session, server: &str) -> Result<bool, TargetError> {
    let (fence, schema_exists) = look(session, server).await?;
    if fence != Fence::Creatable {
        return Ok(fence == Fence::Present);
    }
    let schema = if schema_exists { "" } else { "CREATE SCHEMA keyturn;" };
    let made = session
        .run(&format!(
            "{schema} CREATE TABLE keyturn.fence (role name PRIMARY KEY, id bigint NOT NULL, owner text NOT NULL, \
             changed_at timestamptz NOT NULL); \
             COMMENT ON TABLE keyturn.fence IS 'Which rotation of keyturn changed a role last; see its docs/postgres.md'; \
             REVOKE ALL ON keyturn.fence FROM PUBLIC"
        ))
        .await;
    match made.as_ref().map_err(|error| (error, error.code())) {
        Ok(()) => {}
        // Another session creates it at the same moment.
        Err((_, Some(code)))
            if [
                SqlState::UNIQUE_VIOLATION,
                SqlState::DUPLICATE_SCHEMA,
                SqlState::DUPLICATE_TABLE,
                SqlState::DUPLICATE_OBJECT,
            ]
            .contains(code) => {}
        Err((error, _)) => return Err(failed(server, error)),
    }
    Ok(find(session, server).await? == Fence::Present)
}

/// Returns the rotation that changed each of the roles last, and its time. Roles that no rotation has changed are
/// missing.
pub(super) async fn read(
    session: &Session,
    server: &str,
    roles: &[&str],
) -> Result<BTreeMap<String, (RotationId, DateTime<Utc>)>, TargetError> {
    let sql = "SELECT role::text, id, (extract(epoch FROM changed_at) * 1000000)::bigint \
               FROM keyturn.fence WHERE role = ANY($1) AND id > 0";
    let failed = |error| failed(server, &error);
    let mut fences = BTreeMap::new();
    for row in session.rows(sql, &[(&roles, Type::NAME_ARRAY)]).await.map_err(failed)? {
        let role: String = column(&row, 0).map_err(failed)?;
        if !roles.contains(&role.as_str()) {
            return Err(failed(StatementError::NotUnderstood));
        }
        let id = RotationId::try_from(column::<i64>(&row, 1).map_err(failed)?).unwrap_or(0);
        let changed_at =
            DateTime::from_timestamp_micros(column(&row, 2).map_err(failed)?).unwrap_or_default();
        fences.insert(role, (id, changed_at));
    }
    Ok(fences)
}

/// Locks the role's row until the end of the transaction. Refuses a rotation that is older than the row's, and a role
/// that another secret has changed.
pub(super) async fn take(
    session: &Session,
    server: &str,
    role: &str,
    id: RotationId,
    owner: &str,
) -> Result<(), TargetError> {
    let failed = |error| failed(server, &error);
    let insert = "INSERT INTO keyturn.fence (role, id, owner, changed_at) VALUES ($1, 0, $2, now()) \
                  ON CONFLICT (role) DO NOTHING";
    session.rows(insert, &[(&role, Type::NAME), (&owner, Type::TEXT)]).await.map_err(failed)?;
    let select = "SELECT id, owner FROM keyturn.fence WHERE role = $1 FOR UPDATE";
    let row = session.row(select, &[(&role, Type::NAME)]).await.map_err(failed)?;
    let stored: i64 = column(&row, 0).map_err(failed)?;
    let holder: String = column(&row, 1).map_err(failed)?;
    if holder != owner {
        let holder = told(&holder, NAME);
        return Err(failure::permanent(
            PostgresReason::RoleOwnedByOther,
            format!(
                "role {role} at the Postgres server {server} is rotated by {holder}, and a role can belong \
                 to only one secret; delete one of the two. If {holder} is gone, run: DELETE FROM \
                 keyturn.fence WHERE role = {}",
                postgres_protocol::escape::escape_literal(role)
            ),
        ));
    }
    if RotationId::try_from(stored).unwrap_or(0) > id {
        return Err(failure::passing(
            PostgresReason::Fenced,
            format!(
                "rotation {id} of role {role} at the Postgres server {server} is stale: rotation {stored} \
                 has already changed the role"
            ),
        ));
    }
    Ok(())
}

/// Records in the same transaction that this rotation has changed the role.
pub(super) async fn advance(
    session: &Session,
    server: &str,
    role: &str,
    id: RotationId,
) -> Result<(), TargetError> {
    let id = i64::try_from(id).unwrap_or(i64::MAX);
    let sql = "UPDATE keyturn.fence SET id = $2, changed_at = now() WHERE role = $1";
    let done = session.rows(sql, &[(&role, Type::NAME), (&id, Type::INT8)]).await;
    done.map(drop).map_err(|error| failed(server, &error))
}

fn failed(server: &str, error: &StatementError) -> TargetError {
    if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        return failure::permanent(
            PostgresReason::NotPermitted,
            format!(
                "the administrator may not use keyturn.fence at the Postgres server {server} (42501); as its owner run: \
                 GRANT USAGE ON SCHEMA keyturn TO <administrator>; \
                 GRANT SELECT, INSERT, UPDATE ON keyturn.fence TO <administrator>"
            ),
        );
    }
    failure::of_statement(server, "the fence keyturn.fence could not be used", error)
}
