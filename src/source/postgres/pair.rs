//! Checks that the two login roles are fit to take turns: both act as the owner, they do not differ in anything that
//! the application could notice, and nothing belongs to only one of them.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::administrator::Administrator;
use super::connect::{Session, column};
use super::failure::{self, StatementError, ident, told};
use crate::api::source::postgres::AlternatingRoles;
use crate::api::source::postgres::PostgresReason;
use crate::source::TargetError;

/// The properties of a role that an application can notice, except for name, password and LOGIN.
#[derive(Debug)]
struct Traits {
    /// In the order of [`ATTRIBUTES`].
    attributes: Vec<String>,
    /// `database: name=value`, `*` for every database.
    settings: BTreeSet<String>,
    memberships: BTreeSet<String>,
    is_member: bool,
    acts_as_owner: bool,
}

const ATTRIBUTES: [&str; 8] = [
    "SUPERUSER",
    "INHERIT",
    "CREATEROLE",
    "CREATEDB",
    "REPLICATION",
    "BYPASSRLS",
    "CONNECTION LIMIT",
    "VALID UNTIL",
];

/// Returns the query for the traits. From 16 on they include how a membership is used.
fn traits_sql(version: u32) -> String {
    let (options, may_act) = if version >= 16 {
        (
            "|| CASE WHEN m.inherit_option THEN '' ELSE ' without INHERIT' END || CASE WHEN m.set_option THEN '' ELSE ' without SET' END",
            "SET",
        )
    } else {
        ("", "MEMBER")
    };
    format!(
        "SELECT ARRAY[r.rolsuper::text, r.rolinherit::text, r.rolcreaterole::text, r.rolcreatedb::text,
                      r.rolreplication::text, r.rolbypassrls::text, r.rolconnlimit::text,
                      coalesce(r.rolvaliduntil::text, 'infinity')],
                ARRAY(SELECT coalesce(d.datname::text, '*') || ': ' || c
                      FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c
                      LEFT JOIN pg_database AS d ON d.oid = s.setdatabase WHERE s.setrole = r.oid),
                ARRAY(SELECT g.rolname::text {options} FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
                      WHERE m.member = r.oid),
                pg_has_role(r.oid, o.oid, '{may_act}'),
                EXISTS (SELECT FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c
                        WHERE s.setrole = r.oid AND c = 'role=' || o.rolname AND s.setdatabase IN
                            (0, (SELECT oid FROM pg_database WHERE datname = current_database())))
         FROM pg_roles AS r CROSS JOIN pg_roles AS o WHERE r.rolname = $1 AND o.rolname = $2"
    )
}

async fn traits(session: &Session, server: &str, role: &str, owner: &str) -> Result<Traits, TargetError> {
    let sql = traits_sql(session.version);
    let read = async {
        let row = session.row_if_any(&sql, &[(&role, Type::NAME), (&owner, Type::NAME)]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Traits {
            attributes: column(&row, 0)?,
            settings: column::<Vec<String>>(&row, 1)?.into_iter().collect(),
            memberships: column::<Vec<String>>(&row, 2)?.into_iter().collect(),
            is_member: column(&row, 3)?,
            acts_as_owner: column(&row, 4)?,
        }))
    };
    let traits = read.await.map_err(|error| {
        failure::of_statement(server, &format!("role {role} could not be compared"), &error)
    })?;
    traits.ok_or_else(|| super::look::missing(server, owner))
}

/// Refuses a pair of roles that cannot replace each other.
pub(super) async fn require_alike(
    session: &Session,
    server: &str,
    pair: &AlternatingRoles,
    admin: &Administrator,
) -> Result<(), TargetError> {
    let (owner, mut both) = (pair.owner.as_str(), Vec::new());
    let mut wrong = Vec::new();
    for name in &pair.names {
        let traits = traits(session, server, name, owner).await?;
        if !traits.is_member {
            wrong.push(format!(
                "{name} is not a member of {owner} (GRANT {} TO {})",
                ident(owner),
                ident(name)
            ));
        } else if !traits.acts_as_owner {
            wrong.push(format!(
                "{name} does not act as {owner} (ALTER ROLE {} SET role = {})",
                ident(name),
                postgres_protocol::escape::escape_literal(owner)
            ));
        }
        both.push(traits);
    }
    if let (true, [a, b]) = (wrong.is_empty(), &both[..]) {
        wrong = differences(a, b, admin);
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(failure::permanent(
        PostgresReason::RolesDiffer,
        format!(
            "the roles {} at the Postgres server {server} cannot take turns: {}",
            pair.names.join(" and "),
            wrong.join("; ")
        ),
    ))
}

/// Maximum number of differences that a message names.
const NAMED: usize = 10;
/// Maximum number of characters of a name from the database. SQL's own names have at most 63; an object's name is made
/// of several.
const LONGEST: usize = 200;

/// Returns the differences by name only: the value of a setting may be confidential.
fn differences(a: &Traits, b: &Traits, admin: &Administrator) -> Vec<String> {
    let attributes = ATTRIBUTES.iter().zip(a.attributes.iter().zip(&b.attributes));
    let mut found: Vec<String> = attributes
        .filter(|(_, (a, b))| a != b)
        .map(|(name, (a, b))| format!("they differ in {name} ({}, {})", told(a, LONGEST), told(b, LONGEST)))
        .collect();
    let settings: BTreeSet<&str> = a
        .settings
        .symmetric_difference(&b.settings)
        .filter_map(|setting| setting.split('=').next())
        .collect();
    found.extend(settings.iter().map(|name| format!("they differ in the setting {}", told(name, LONGEST))));
    let memberships = a.memberships.symmetric_difference(&b.memberships);
    found.extend(memberships.map(|group| {
        format!("only one of them is a member of {}", told(&admin.hidden_in_group(group), LONGEST))
    }));
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    if more > 0 {
        found.push(format!("and in {more} more"));
    }
    found
}

/// Returns the objects of this database that belong to a login role and not to the owner: the other role cannot alter
/// them.
pub(super) async fn strays(
    session: &Session,
    server: &str,
    pair: &AlternatingRoles,
) -> Result<Vec<String>, TargetError> {
    let names: Vec<&str> = pair.names.iter().map(String::as_str).collect();
    let sql = "SELECT r.rolname::text, count(*),
                      (array_agg(pg_describe_object(d.classid, d.objid, d.objsubid) ORDER BY d.classid, d.objid))[1:3]
               FROM pg_shdepend AS d JOIN pg_roles AS r ON r.oid = d.refobjid
               WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND r.rolname = ANY($1)
                 AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
               GROUP BY r.rolname ORDER BY r.rolname";
    let failed =
        |error| failure::of_statement(server, "the objects of the login roles could not be listed", &error);
    let rows = session.rows(sql, &[(&names, Type::NAME_ARRAY)]).await.map_err(failed)?;
    let note = |row: &Row| -> Result<String, StatementError> {
        let (role, count): (String, i64) = (column(row, 0)?, column(row, 1)?);
        if !names.contains(&role.as_str()) {
            return Err(StatementError::NotUnderstood);
        }
        let examples: Vec<Option<String>> = column(row, 2)?;
        let examples: Vec<String> =
            examples.iter().flatten().take(3).map(|example| told(example, LONGEST)).collect();
        Ok(format!(
            "{count} objects belong to {role} instead of {}, so the other role cannot alter them: {}{}; to \
             correct it, run: REASSIGN OWNED BY {} TO {}",
            pair.owner,
            examples.join(", "),
            if count > 3 { ", …" } else { "" },
            ident(&role),
            ident(&pair.owner)
        ))
    };
    rows.iter().take(names.len()).map(note).collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret_value::SecretValue;

    fn administrator() -> Administrator {
        let value = |text: &str| SecretValue::new(text.to_owned());
        Administrator::of_secret("db-admin", "username", value("root"), value("pw")).unwrap()
    }

    #[test]
    fn of_many_differences_some_are_named_and_the_rest_counted() {
        let of = |settings: BTreeSet<String>| Traits {
            attributes: Vec::new(),
            settings,
            memberships: BTreeSet::new(),
            is_member: true,
            acts_as_owner: true,
        };
        let many = (0..500).map(|number| format!("*: app.{}{number}=1", "\u{1b}".repeat(1000))).collect();
        let found = differences(&of(many), &of(BTreeSet::new()), &administrator());
        assert!(found.iter().all(|text| text.chars().count() < 300 && !text.contains('\u{1b}')));
        assert_eq!((found.len(), found.last().unwrap().as_str()), (11, "and in 490 more"));
    }

    #[test]
    fn what_differs_is_named_without_the_value_of_a_setting() {
        let of = |attribute: &str, setting: &str, group: &str| Traits {
            attributes: vec![attribute.to_owned()],
            settings: [setting.to_owned(), "*: work_mem=1MB".to_owned()].into(),
            memberships: [group.to_owned(), "app".to_owned()].into(),
            is_member: true,
            acts_as_owner: true,
        };
        let alike = of("true", "*: app.key=hunter2", "readers");
        assert_eq!(differences(&alike, &alike, &administrator()), Vec::<String>::new());
        let other = of("false", "*: app.key=other", "writers");
        assert_eq!(
            differences(&alike, &other, &administrator()),
            [
                "they differ in SUPERUSER (true, false)",
                "they differ in the setting *: app.key",
                "only one of them is a member of readers",
                "only one of them is a member of writers",
            ]
        );
        let roots = of("true", "*: app.key=hunter2", "root without SET");
        let found = differences(&alike, &roots, &administrator());
        assert!(
            found.contains(&"only one of them is a member of <administrator> without SET".to_owned()),
            "{found:?}"
        );
    }
}
