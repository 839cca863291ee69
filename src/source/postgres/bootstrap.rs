//! Turns one role that is in use into an owner and a pair of roles that take turns.
//!
//! The plan is made from the catalogue and contains only what is still missing. It is idempotent: what the old role
//! creates in the meantime is moved by the next run. Ownership moves object by object, because REASSIGN OWNED refuses
//! the bootstrap superuser, which the official image makes of POSTGRES_USER. The old role keeps working: it becomes a
//! member of the owner.

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::administrator::{Administrator, PLACEHOLDER, Who};
use super::connect::{Session, column};
use super::failure::{self, NAME, StatementError, ident, told};
use super::{Postgres, bootstrap_sql as sql, look};
use crate::api::source::postgres::PostgresReason;
use crate::secret_value::SecretValue;
use crate::source::{SetUp, SetUpMode, TargetError};

/// Number of statements that are sent together. A failure names the position of its statement.
const AT_ONCE: usize = 32;
/// Number of characters of a statement that are shown.
const LONGEST_STATEMENT: usize = 1000;

struct Plan<'a> {
    session: &'a Session,
    /// The role that is in use.
    from: &'a str,
    owner: &'a str,
    names: &'a [String],
    superuser: bool,
    done: SetUp,
}

impl Postgres {
    /// Lists the steps that create the owner and the pair from the role in use, and performs them if `mode` is Apply.
    /// Returns an empty list if nothing is missing.
    pub(super) async fn set_up_pair(&self, mode: SetUpMode) -> Result<SetUp, TargetError> {
        let (Some(pair), Some(from)) = (&self.spec.alternating_roles, self.spec.bootstrap_from()) else {
            return Ok(SetUp::default());
        };
        let Some(admin) = &self.admin else { return Err(self.no_administrator("set up roles from", from)) };
        let session = self.admin_session(admin).await?;
        self.begin(&session).await?;
        let server = self.server();
        if mode == SetUpMode::Apply {
            // If another session does the same at this moment, this waits for it; then nothing is left to do.
            let lock = session.rows("SELECT pg_advisory_xact_lock(7311985)", &[]).await;
            lock.map_err(|error| failure::of_statement(&server, "the roles could not be set up", &error))?;
        }
        let role = look::role(&session, &server, from).await?.ok_or_else(|| look::missing(&server, from))?;
        let mut plan = Plan {
            session: &session,
            from,
            owner: &pair.owner,
            names: &pair.names,
            superuser: role.superuser,
            done: SetUp::default(),
        };
        plan.make().await.map_err(|error| {
            failure::of_statement(
                &self.server(),
                "the objects and privileges of the role could not be read",
                &error,
            )
        })?;
        let done = plan.done;
        if mode == SetUpMode::Apply && !done.statements.is_empty() {
            self.apply(&session, admin, &done.statements).await?;
        }
        session.close().await;
        let hidden = admin.hidden_name().map(SecretValue::expose);
        let spoken_of =
            |name: &str| name == from || name == pair.owner || pair.names.iter().any(|known| known == name);
        Ok(shown(done, hidden.filter(|name| !spoken_of(name))))
    }

    async fn apply(
        &self,
        session: &Session,
        admin: &Administrator,
        statements: &[String],
    ) -> Result<(), TargetError> {
        let server = self.server();
        for (chunk, statements) in statements.chunks(AT_ONCE).enumerate() {
            let first = chunk * AT_ONCE + 1;
            let ran = session.run(&statements.join(";\n")).await;
            ran.map_err(|error| {
                let where_ = format!("{first} to {}", first + statements.len() - 1);
                if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                    return failure::permanent(
                        PostgresReason::NotPermitted,
                        format!(
                            "{} may not set up the roles at the Postgres server {server} (42501, in one of \
                             the statements {where_} of the plan), and nothing was changed; set a superuser \
                             as administrator until the setup is done, or run the statements of the plan as \
                             a superuser",
                            Who::Administrator(admin)
                        ),
                    );
                }
                let what = format!(
                    "the roles were not set up, since one of the statements {where_} of the plan failed"
                );
                failure::of_statement(&server, &what, &error)
            })?;
        }
        session.run("COMMIT").await.map_err(|error| TargetError {
            // Repeating is harmless: the next plan contains only what is left.
            outcome_unknown: failure::commit_is_unknown(&error),
            ..failure::of_statement(&server, "the roles were not set up", &error)
        })
    }
}

/// Prepares the result for people: shortens the names of the database, which can be of any length, and hides the name
/// of the administrator. A shortened statement is no longer valid SQL.
fn shown(done: SetUp, hidden: Option<&str>) -> SetUp {
    let hidden = hidden.map(ident);
    let shown = |text: &String, most| match &hidden {
        Some(name) => told(&text.replace(name, PLACEHOLDER), most),
        None => told(text, most),
    };
    let all = |texts: Vec<String>, most| texts.iter().map(|text| shown(text, most)).collect();
    SetUp { statements: all(done.statements, LONGEST_STATEMENT), notes: all(done.notes, NAME) }
}

impl Plan<'_> {
    async fn make(&mut self) -> Result<(), StatementError> {
        self.roles().await?;
        self.settings().await?;
        self.memberships().await?;
        self.ownership().await?;
        self.privileges().await?;
        self.defaults().await?;
        self.left_over().await
    }

    fn todo(&mut self, statement: String) {
        self.done.statements.push(statement);
    }

    /// Returns the rows of a query about the old role, `$1`, and the owner, `$2`.
    async fn rows(&self, query: &str) -> Result<Vec<Row>, StatementError> {
        self.session.rows(query, &[(&self.from, Type::NAME), (&self.owner, Type::NAME)]).await
    }

    async fn yes(&self, query: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<bool, StatementError> {
        self.session.row_if_any(query, params).await?.map_or(Ok(false), |row| column(&row, 0))
    }

    async fn exists(&self, role: &str) -> Result<bool, StatementError> {
        self.yes("SELECT true FROM pg_roles WHERE rolname = $1", &[(&role, Type::NAME)]).await
    }

    async fn is_member(&self, member: &str, group: &str) -> Result<bool, StatementError> {
        self.yes(sql::IS_MEMBER, &[(&member, Type::NAME), (&group, Type::NAME)]).await
    }

    /// Plans the roles. The owner gets the attributes of the old role, since a session acts as the owner.
    async fn roles(&mut self) -> Result<(), StatementError> {
        let rows = self.rows(sql::ATTRIBUTES).await?;
        let row = rows.first().ok_or(StatementError::NotUnderstood)?;
        let (attributes, limit): (String, String) = (column(row, 0)?, column(row, 1)?);
        let owner = ident(self.owner);
        if !self.exists(self.owner).await? {
            let attributes = if self.superuser { "" } else { attributes.as_str() };
            self.todo(format!("CREATE ROLE {owner} NOLOGIN{attributes}"));
        }
        for name in self.names {
            if !self.exists(name).await? {
                self.todo(format!("CREATE ROLE {} NOLOGIN{limit}", ident(name)));
            }
            if !self.is_member(name, self.owner).await? {
                self.todo(format!("GRANT {owner} TO {}", ident(name)));
            }
        }
        // A superuser needs no membership, since it keeps its rights.
        if !self.superuser && !self.is_member(self.from, self.owner).await? {
            self.todo(format!("GRANT {owner} TO {}", ident(self.from)));
        }
        Ok(())
    }

    /// Plans that each of the two roles gets the old role's settings, and that each acts as the owner.
    async fn settings(&mut self) -> Result<(), StatementError> {
        for name in self.names {
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&self.from, Type::NAME), (name, Type::NAME)];
            for row in self.session.rows(sql::SETTINGS, &params).await? {
                let (database, setting): (Option<String>, String) = (column(&row, 0)?, column(&row, 1)?);
                let Some((key, value)) = setting.split_once('=') else { continue };
                let place =
                    database.map_or_else(String::new, |name| format!(" IN DATABASE {}", ident(&name)));
                self.todo(format!(
                    "ALTER ROLE {}{place} SET {} = {}",
                    ident(name),
                    guc(key),
                    guc_value(key, value)
                ));
            }
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(name, Type::NAME), (&self.owner, Type::NAME)];
            if !self.yes(sql::ACTS_AS, &params).await? {
                let owner = postgres_protocol::escape::escape_literal(self.owner);
                self.todo(format!("ALTER ROLE {} SET role = {owner}", ident(name)));
            }
        }
        Ok(())
    }

    /// Plans that the owner joins the groups of the old role, and that the old role's members join the owner.
    async fn memberships(&mut self) -> Result<(), StatementError> {
        for row in self.rows(sql::GROUPS).await? {
            let (group, admin): (String, bool) = (column(&row, 0)?, column(&row, 1)?);
            let admin = if admin { " WITH ADMIN OPTION" } else { "" };
            self.todo(format!("GRANT {} TO {}{admin}", ident(&group), ident(self.owner)));
        }
        let query = if self.session.version >= 16 { sql::MEMBERS_16 } else { sql::MEMBERS };
        for row in self.rows(query).await? {
            let member: String = column(&row, 0)?;
            if !self.names.contains(&member) {
                self.todo(format!("GRANT {} TO {}", ident(self.owner), ident(&member)));
            }
        }
        Ok(())
    }

    async fn ownership(&mut self) -> Result<(), StatementError> {
        let owner = ident(self.owner);
        for row in self.rows(sql::DATABASE).await? {
            self.todo(format!("ALTER DATABASE {} OWNER TO {owner}", ident(column(&row, 0)?)));
        }
        for row in self.rows(&sql::objects(self.session.version)).await? {
            let (kind, identity): (String, String) = (column(&row, 0)?, column(&row, 1)?);
            match alterable(&kind) {
                Some(keyword) => self.todo(format!("ALTER {keyword} {identity} OWNER TO {owner}")),
                None => self.done.notes.push(format!(
                    "keyturn does not move the {kind} {identity}, which still belongs to {}: handle it by \
                     hand",
                    self.from
                )),
            }
        }
        Ok(())
    }

    /// Plans the privileges of the old role on objects that it does not own. Ownership covers its own objects.
    async fn privileges(&mut self) -> Result<(), StatementError> {
        let owner = ident(self.owner);
        for row in self.rows(sql::PRIVILEGES).await? {
            let (what, privilege, grantable): (String, String, bool) =
                (column(&row, 0)?, column(&row, 1)?, column(&row, 2)?);
            let option = if grantable { " WITH GRANT OPTION" } else { "" };
            self.todo(format!("GRANT {privilege} ON {what} TO {owner}{option}"));
        }
        if self.superuser {
            // A superuser needed no privilege, but the owner does.
            for row in self.rows(sql::SUPERUSERS_PLACES).await? {
                let (what, privileges): (String, String) = (column(&row, 0)?, column(&row, 1)?);
                self.todo(format!("GRANT {privileges} ON {what} TO {owner}"));
            }
        }
        Ok(())
    }

    async fn defaults(&mut self) -> Result<(), StatementError> {
        for row in self.rows(sql::DEFAULTS).await? {
            let (role, place, change): (String, Option<String>, String) =
                (column(&row, 0)?, column(&row, 1)?, column(&row, 2)?);
            let place = place.map_or_else(String::new, |schema| format!(" IN SCHEMA {}", ident(&schema)));
            self.todo(format!("ALTER DEFAULT PRIVILEGES FOR ROLE {}{place} {change}", ident(&role)));
        }
        Ok(())
    }

    async fn left_over(&mut self) -> Result<(), StatementError> {
        for row in self.rows(sql::LEFT_OVER).await? {
            self.done.notes.push(column(&row, 0)?);
        }
        if self.superuser {
            self.done.notes.push(format!(
                "{} is a superuser and had no restrictions; {} can do only what its own objects and the \
                 grants above allow. Use `probes` to check what the application needs. keyturn does not \
                 retire {}",
                self.from, self.owner, self.from
            ));
        }
        Ok(())
    }
}

/// Returns the keyword of ALTER … OWNER TO for a kind as `pg_identify_object` names it; `None` if the owner must be a
/// superuser or cannot be changed.
fn alterable(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "table" => "TABLE",
        "view" => "VIEW",
        "materialized view" => "MATERIALIZED VIEW",
        "foreign table" => "FOREIGN TABLE",
        "sequence" => "SEQUENCE",
        "schema" => "SCHEMA",
        "function" => "FUNCTION",
        "procedure" => "PROCEDURE",
        "aggregate" => "AGGREGATE",
        "type" | "composite type" => "TYPE",
        "operator" => "OPERATOR",
        "operator class" => "OPERATOR CLASS",
        "operator family" => "OPERATOR FAMILY",
        "collation" => "COLLATION",
        "conversion" => "CONVERSION",
        "text search dictionary" => "TEXT SEARCH DICTIONARY",
        "text search configuration" => "TEXT SEARCH CONFIGURATION",
        "statistics object" => "STATISTICS",
        "large object" => "LARGE OBJECT",
        "server" => "SERVER",
        _ => return None,
    })
}

/// Quotes a setting's name. The names of extensions' settings have two parts.
fn guc(name: &str) -> String {
    name.split('.').map(ident).collect::<Vec<_>>().join(".")
}

/// Returns a setting's value as SQL. Lists of names stay quoted lists; as one literal they would become one name.
fn guc_value(name: &str, value: &str) -> String {
    const LISTS: [&str; 6] = [
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ];
    let literal = postgres_protocol::escape::escape_literal;
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        return literal(value);
    }
    let names: Vec<String> = names(value).iter().map(|name| literal(name)).collect();
    if names.is_empty() { "''".to_owned() } else { names.join(", ") }
}

/// Parses a list of names in Postgres' format: separated by commas, in double quotes where needed.
fn names(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = list.trim_start();
    while !rest.is_empty() {
        let mut name = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut characters = quoted.char_indices().peekable();
            let mut end = quoted.len();
            while let Some((at, character)) = characters.next() {
                if character != '"' {
                    name.push(character);
                } else if characters.next_if(|(_, next)| *next == '"').is_some() {
                    name.push('"');
                } else {
                    end = at + 1;
                    break;
                }
            }
            rest = &quoted[end..];
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            name.push_str(rest[..end].trim_end());
            rest = &rest[end..];
        }
        found.push(name);
        rest = rest.trim_start().strip_prefix(',').unwrap_or("").trim_start();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_plan_is_bounded() {
        let long = format!("ALTER TABLE \"{}\" OWNER TO app", "\n".repeat(1 << 20));
        let SetUp { statements, notes } =
            shown(SetUp { statements: vec![long.clone()], notes: vec![long] }, None);
        for text in statements.iter().chain(&notes) {
            assert!(
                text.chars().count() <= LONGEST_STATEMENT + 1 && !text.contains('\n') && text.ends_with('…')
            );
        }
    }

    #[test]
    fn an_administrator_that_is_a_member_of_the_old_role_is_not_named_in_the_plan() {
        let statements = vec![
            "GRANT \"app\" TO \"db root\"".to_owned(),
            "ALTER DEFAULT PRIVILEGES FOR ROLE \"db root\" GRANT SELECT ON TABLES TO \"app\"".to_owned(),
        ];
        let done = SetUp { statements, notes: Vec::new() };
        assert_eq!(
            shown(done, Some("db root")).statements,
            [
                "GRANT \"app\" TO <administrator>",
                "ALTER DEFAULT PRIVILEGES FOR ROLE <administrator> GRANT SELECT ON TABLES TO \"app\"",
            ]
        );
    }

    #[test]
    fn settings_keep_their_meaning() {
        for (name, value, sql) in [
            ("work_mem", "4MB", "'4MB'"),
            ("app.note", "it's", "'it''s'"),
            ("search_path", "\"$user\", public", "'$user', 'public'"),
            ("search_path", "\"a,b\", \"c\"\"d\", \"\"", "'a,b', 'c\"d', ''"),
            ("search_path", "", "''"),
            ("datestyle", "ISO, DMY", "'ISO, DMY'"),
        ] {
            assert_eq!(guc_value(name, value), sql, "{name} = {value}");
        }
        assert_eq!(guc("app.note"), "\"app\".\"note\"");
    }
}
