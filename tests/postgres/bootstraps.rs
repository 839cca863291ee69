//! Tests the creation of owner and pair from a role that is in use, and that keeps working meanwhile.

use std::sync::Arc;

use keyturn::api::source::postgres::PostgresSpec;
use keyturn::source::postgres::{Administrator, Postgres};
use keyturn::source::{Installs, Login, SetUp, SetUpMode, SetsUp, Target};

use crate::scene::{Scene, accepted, login, password};
use crate::server::Server;

/// One object of every type that can belong to a role.
const SCHEMA: &str = r#"
    CREATE SCHEMA shop;
    CREATE TABLE orders (id serial PRIMARY KEY, at timestamptz DEFAULT now(), label text GENERATED ALWAYS AS ('x') STORED);
    CREATE TABLE shop."Odd ""name""" (id int GENERATED ALWAYS AS IDENTITY);
    CREATE TABLE parts (id int) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (9);
    CREATE INDEX ON orders (at);
    CREATE SEQUENCE free;
    CREATE VIEW seen AS SELECT * FROM orders;
    CREATE MATERIALIZED VIEW kept AS SELECT count(*) FROM orders;
    CREATE TYPE mood AS ENUM ('good');
    CREATE TYPE pair AS (a int, b int);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE span AS RANGE (subtype = int);
    CREATE FUNCTION total(a int, b "mood" DEFAULT 'good') RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM orders';
    CREATE PROCEDURE tidy() LANGUAGE sql AS 'DELETE FROM orders';
    CREATE AGGREGATE add(int) (SFUNC = int4pl, STYPE = int);
    CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
    CREATE COLLATION plain FROM "C";
    CREATE STATISTICS related ON id, at FROM orders;
    CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
    CREATE TEXT SEARCH DICTIONARY little (TEMPLATE = simple);
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app_readers;
    ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT USAGE ON SEQUENCES TO app_readers;
    ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    INSERT INTO orders DEFAULT VALUES;
    SELECT lo_create(0);
"#;

/// The statements of the application: they must work before and after, under every role.
const USE: &str = "
    INSERT INTO orders DEFAULT VALUES; SELECT * FROM seen; REFRESH MATERIALIZED VIEW kept; SELECT nextval('free');
    SELECT total(1); SELECT 'good'::mood; ALTER TABLE orders ADD COLUMN c int; ALTER TABLE orders DROP COLUMN c;
    CREATE TABLE shop.new (id serial); DROP TABLE shop.new; SELECT * FROM others; UPDATE others SET a = 1;
    CREATE OR REPLACE FUNCTION total(a int, b mood DEFAULT 'good') RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
    DROP TYPE IF EXISTS nothing; ALTER TYPE mood ADD VALUE IF NOT EXISTS 'better'; CREATE SCHEMA more; DROP SCHEMA more;
";

async fn use_it(scene: &Scene, login: &Login) {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(scene.server.port).user(&login.username).dbname(&scene.database);
    let connected = config.password(login.password.expose()).connect(tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap_or_else(|error| panic!("{}: {error:?}", login.username));
    tokio::spawn(connection);
    let used = client.batch_execute(USE).await;
    used.unwrap_or_else(|error| panic!("as {}: {error:?}", login.username));
}

fn spec(scene: &Scene, from: &str) -> PostgresSpec {
    let d = &scene.database;
    scene.spec(&format!(
        "alternatingRoles: {{names: [{d}_a, {d}_b], owner: {d}_owner, bootstrap: {{from: {from}, mode: Apply}}}}"
    ))
}

async fn root(scene: &Scene) -> Login {
    let root = login(&scene.role("root"), &password());
    let word = root.password.expose();
    scene.sql(&format!("CREATE ROLE app_root SUPERUSER LOGIN PASSWORD '{word}'")).await;
    root
}

/// Returns the objects of the database that belong to a role, except for keyturn's.
async fn owned(scene: &Scene, role: &str) -> Vec<String> {
    let mut parts = vec![
        "SELECT 'the database' FROM pg_database WHERE datdba = r AND datname = current_database()".to_owned(),
    ];
    for (catalogue, owner, which) in [
        (
            "pg_class",
            "relowner",
            "relpersistence <> 't' AND relnamespace::regnamespace::text NOT IN ('keyturn', 'pg_toast')",
        ),
        ("pg_type", "typowner", "typnamespace::regnamespace::text <> 'keyturn' AND typname !~ 'pg_stat'"),
        ("pg_namespace", "nspowner", "nspname <> 'keyturn'"),
        ("pg_proc", "proowner", "true"),
        ("pg_operator", "oprowner", "true"),
        ("pg_statistic_ext", "stxowner", "true"),
        ("pg_collation", "collowner", "true"),
        ("pg_largeobject_metadata", "lomowner", "true"),
        ("pg_ts_config", "cfgowner", "true"),
        ("pg_ts_dict", "dictowner", "true"),
    ] {
        let class = if catalogue == "pg_largeobject_metadata" { "pg_largeobject" } else { catalogue };
        parts.push(format!(
            "SELECT pg_describe_object('{class}'::regclass, t.oid, 0) FROM {catalogue} AS t WHERE {owner} = r AND t.oid >= 16384 AND {which} AND NOT EXISTS (
                 SELECT FROM pg_depend AS d WHERE d.classid = '{catalogue}'::regclass AND d.objid = t.oid AND d.deptype = 'e')"
        ));
    }
    let query =
        format!("SELECT ARRAY({}) FROM (SELECT '{role}'::regrole::oid AS r) AS x", parts.join(" UNION ALL "));
    scene.server.row(&scene.database, &query).await.get(0)
}

async fn set_up(target: &Postgres, scene: &Scene, from: &str) -> SetUp {
    let before = owned(scene, from).await;
    assert!(before.len() > 30, "{from} owns {before:?}");
    let plan = target.set_up(SetUpMode::Plan).await.unwrap();
    assert_eq!(owned(scene, from).await, before, "a plan changes nothing");
    // Two controllers at once: one does the work, and nothing is left for the other.
    let (one, other) = tokio::join!(target.set_up(SetUpMode::Apply), target.set_up(SetUpMode::Apply));
    let (one, other) = (one.unwrap(), other.unwrap());
    let (done, nothing) = if one.statements.is_empty() { (other, one) } else { (one, other) };
    assert_eq!(done, plan);
    assert_eq!(nothing.statements, Vec::<String>::new());
    assert_eq!(owned(scene, from).await, Vec::<String>::new(), "{plan:#?}");
    let again = target.set_up(SetUpMode::Plan).await.unwrap();
    assert_eq!(again.statements, Vec::<String>::new());
    plan
}

pub(crate) async fn a_role_in_use_becomes_an_owner_and_a_pair_and_goes_on_to_work(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let (d, old) = (scene.database.clone(), login(&scene.role("app"), &password()));
    let (word, root) = (old.password.expose(), root(&scene).await);
    scene
        .sql(&format!(
            "CREATE ROLE {d}_app LOGIN CREATEDB CONNECTION LIMIT 40 PASSWORD '{word}'; CREATE ROLE app_readers; CREATE ROLE app_group; \
             GRANT app_group TO {d}_app; CREATE ROLE app_child; GRANT {d}_app TO app_child; \
             ALTER ROLE {d}_app SET search_path = \"$user\", public, 'shop'; ALTER ROLE {d}_app SET app.note = 'it''s'; \
             ALTER ROLE {d}_app IN DATABASE {d} SET work_mem = '7MB'; ALTER DATABASE {d} OWNER TO {d}_app; \
             GRANT ALL ON SCHEMA public TO {d}_app; CREATE TABLE others (a int, b int); \
             GRANT SELECT, UPDATE (a) ON others TO {d}_app; CREATE ROLE app_other; \
             ALTER DEFAULT PRIVILEGES FOR ROLE app_other GRANT SELECT ON TABLES TO {d}_app; \
             ALTER TABLE others ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON others TO {d}_app USING (true);"
        ))
        .await;
    scene.sql(&format!("SET ROLE {d}_app; {SCHEMA}")).await;
    use_it(&scene, &old).await;
    let spec = spec(&scene, &old.username);
    let target = Postgres::new(
        &spec,
        scene.direct(),
        Some(Administrator::named(root.duplicate())),
        "world/ns/s".to_owned(),
        false,
    )
    .unwrap();
    assert_eq!(target.observe().await.unwrap_err().trouble.reason, "RoleMissing");
    let plan = set_up(&target, &scene, &old.username).await;
    assert!(plan.notes.iter().any(|note| note.contains("policy mine")), "{plan:?}");
    for expected in [
        format!("ALTER ROLE \"{d}_a\" SET \"search_path\" = '$user', 'public', 'shop'"),
        format!("ALTER ROLE \"{d}_b\" IN DATABASE \"{d}\" SET \"work_mem\" = '7MB'"),
        format!("ALTER ROLE \"{d}_a\" SET \"app\".\"note\" = 'it''s'"),
        format!("CREATE ROLE \"{d}_owner\" NOLOGIN CREATEDB"),
        format!("CREATE ROLE \"{d}_a\" NOLOGIN CONNECTION LIMIT 40"),
        format!("GRANT \"{d}_group\" TO \"{d}_owner\""),
        format!("GRANT \"{d}_owner\" TO \"{d}_child\""),
    ] {
        assert!(plan.statements.contains(&expected), "{expected}: {plan:#?}");
    }
    scene.sql("ALTER POLICY mine ON others TO PUBLIC").await;
    use_it(&scene, &old).await;
    target.observe().await.unwrap();
    for (id, name) in [(1, "a"), (2, "b")] {
        let new = login(&scene.role(name), &password());
        target.install(id, &new, &[]).await.unwrap();
        use_it(&scene, &new).await;
        target.retire(id, &old.username).await.unwrap();
        assert!(!accepted(&target, &old).await && accepted(&target, &new).await);
    }
    // Objects that are created from now on have the same privileges as before, and belong to the owner.
    let of = async |role: &str| -> Vec<String> {
        let query = format!(
            "SELECT ARRAY(SELECT format('%s %s %s %s', defaclobjtype, defaclnamespace, privilege_type,
                                        CASE grantee WHEN defaclrole THEN 'itself' ELSE grantee::text END) AS entry
                          FROM pg_default_acl, aclexplode(defaclacl) WHERE defaclrole = '{d}_{role}'::regrole ORDER BY entry)"
        );
        scene.server.row(&d, &query).await.get(0)
    };
    assert!(of("app").await.len() > 3);
    assert_eq!(of("owner").await, of("app").await);
    assert!(target.observe().await.unwrap().notes.is_empty());
}

pub(crate) async fn the_bootstrap_superuser_of_the_official_image_hands_its_objects_over(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    let root = root(&scene).await;
    scene
        .sql("CREATE ROLE app_readers; CREATE TABLE others (a int); ALTER TABLE others OWNER TO app_readers")
        .await;
    scene.sql(&format!("{SCHEMA} CREATE EXTENSION pg_stat_statements;")).await;
    let spec = spec(&scene, "postgres");
    let target =
        Postgres::new(&spec, scene.direct(), Some(Administrator::named(root)), "world/ns/s".to_owned(), true)
            .unwrap();
    let plan = set_up(&target, &scene, "postgres").await;
    assert!(
        plan.notes.iter().any(|note| note.contains("does not move the extension pg_stat_statements")),
        "{plan:?}"
    );
    assert!(plan.notes.iter().any(|note| note.contains("is a superuser")), "{plan:?}");
    assert!(
        !plan.statements.iter().any(|s| s.contains("keyturn") || s.contains("TO \"postgres\"")),
        "{plan:#?}"
    );
    let new = login(&scene.role("a"), &password());
    target.install(1, &new, &[]).await.unwrap();
    // The superuser could read other roles' objects without a grant.
    scene.sql("GRANT SELECT, UPDATE ON others TO app_owner").await;
    use_it(&scene, &new).await;

    // Objects that the old role creates in the meantime move at the next time.
    scene.sql("CREATE TABLE late (id int)").await;
    let late = target.set_up(SetUpMode::Apply).await.unwrap();
    let d = &scene.database;
    assert_eq!(late.statements, [format!("ALTER TABLE public.late OWNER TO \"{d}_owner\"")]);
    use_it(&scene, &new).await;
}

pub(crate) async fn a_bootstrap_that_the_administrator_may_not_do_changes_nothing(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let from = scene.role("app");
    scene.create(&from, &password()).await;
    scene.sql(&format!("CREATE TABLE t (id int); ALTER TABLE t OWNER TO {from}")).await;
    let target = scene.target(&spec(&scene, &from));
    let plan = target.set_up(SetUpMode::Plan).await.unwrap();
    assert!(plan.statements.len() > 5, "{plan:?}");
    let error = target.set_up(SetUpMode::Apply).await.unwrap_err();
    assert!(error.trouble.reason == "NotPermitted" && error.trouble.is_permanent(), "{error}");
    assert_eq!(target.set_up(SetUpMode::Plan).await.unwrap(), plan);
    assert_eq!(scene.target(&scene.alternating()).set_up(SetUpMode::Apply).await.unwrap(), SetUp::default());
}
