//! A database with roles for one test, and keyturn's target on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use keyturn::api::Trouble;
use keyturn::api::source::postgres::PostgresSpec;
use keyturn::rotation::observed::Acceptance;
use keyturn::secret_value::SecretValue;
use keyturn::source::postgres::{Administrator, Dial, Direct, Postgres};
use keyturn::source::{Login, Target};

use crate::server::Server;

static NEXT: AtomicU32 = AtomicU32::new(1);

pub(crate) fn login(username: &str, password: &str) -> Login {
    Login { username: username.to_owned(), password: SecretValue::new(password.to_owned()) }
}

/// Returns a password that is used nowhere else.
pub(crate) fn password() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).unwrap();
    hex::encode(bytes)
}

pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns the SQL of the user's page below a heading, with the names of this test.
pub(crate) fn documented(heading: &str, number: usize) -> String {
    let page = include_str!("../../docs/postgres.md");
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let block = section.split("```sql\n").nth(number).unwrap();
    block.split("```").next().unwrap().to_owned()
}

pub(crate) struct Scene {
    pub server: Arc<Server>,
    pub database: String,
    pub admin: Login,
}

impl Scene {
    /// Creates a separate database, and the administrator that the user's page describes, who is not a
    /// superuser.
    pub(crate) async fn new(server: Arc<Server>) -> Self {
        let database = format!("db{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = login(&format!("{database}_admin"), &password());
        server.sql("postgres", &format!("CREATE DATABASE {database}")).await;
        let scene = Self { server, database, admin };
        scene.sql(&documented("The administrator", 1)).await;
        scene
    }

    /// Replaces the names of the page by the names of this test.
    fn own(&self, sql: &str) -> String {
        sql.replace("keyturn_admin", &self.admin.username)
            .replace("<administrator password>", self.admin.password.expose())
            .replace("app_", &format!("{}_", self.database))
    }

    pub(crate) fn role(&self, suffix: &str) -> String {
        format!("{}_{suffix}", self.database)
    }

    pub(crate) async fn sql(&self, sql: &str) {
        self.server.sql(&self.database, &self.own(sql)).await;
    }

    /// Creates a role with a password, which the administrator may change.
    pub(crate) async fn create(&self, role: &str, password: &str) {
        let literal = postgres_protocol::escape::escape_literal(password);
        self.sql(&format!("CREATE ROLE {} LOGIN PASSWORD {literal}", ident(role))).await;
        self.grant(&[role]).await;
    }

    /// Runs the page's statements for 16 and newer.
    pub(crate) async fn grant(&self, roles: &[&str]) {
        if self.server.version >= 16 {
            let roles: Vec<String> = roles.iter().map(|role| ident(role)).collect();
            let sql = documented("The administrator", 2).replace("app_a, app_b", &roles.join(", "));
            self.sql(&sql).await;
        }
    }

    /// Creates owner and pair with the page's statements.
    pub(crate) async fn pair(&self) {
        self.sql(&documented("Two roles that take turns", 1)).await;
        self.grant(&[&self.role("a"), &self.role("b")]).await;
    }

    pub(crate) fn single(&self, role: &str) -> PostgresSpec {
        self.spec(&format!("singleRole: {{name: {}}}", serde_json::to_string(role).unwrap()))
    }

    pub(crate) fn alternating(&self) -> PostgresSpec {
        let d = &self.database;
        self.spec(&format!("alternatingRoles: {{names: [{d}_a, {d}_b], owner: {d}_owner}}"))
    }

    /// Returns a spec without TLS, as for a server behind a docker host.
    pub(crate) fn spec(&self, roles: &str) -> PostgresSpec {
        let yaml = format!("{{via: {{dockerHost: here}}, database: {}, {roles}}}", self.database);
        serde_saphyr::from_str(&yaml).unwrap()
    }

    pub(crate) fn direct(&self) -> Arc<dyn Dial> {
        Arc::new(Direct { host: "127.0.0.1".to_owned(), port: self.server.port })
    }

    /// Returns the administrator, with a name that may be shown.
    pub(crate) fn administrator(&self) -> Administrator {
        Administrator::named(self.admin.duplicate())
    }

    /// Returns the target with the administrator, for a secret of this name.
    pub(crate) fn target(&self, spec: &PostgresSpec) -> Postgres {
        self.target_of(spec, "world/ns/secret")
    }

    pub(crate) fn target_of(&self, spec: &PostgresSpec, owner: &str) -> Postgres {
        Postgres::new(spec, self.direct(), Some(self.administrator()), owner.to_owned(), false).unwrap()
    }

    pub(crate) fn without_admin(&self, spec: &PostgresSpec) -> Postgres {
        Postgres::new(spec, self.direct(), None, "world/ns/secret".to_owned(), false).unwrap()
    }
}

pub(crate) async fn accepted(target: &Postgres, login: &Login) -> bool {
    target.try_login(login).await == Acceptance::Accepted
}

pub(crate) async fn refusal(target: &Postgres, login: &Login) -> Trouble {
    match target.try_login(login).await {
        Acceptance::Refused(refusal) => refusal,
        answer => panic!("{}: {answer:?}", login.username),
    }
}
