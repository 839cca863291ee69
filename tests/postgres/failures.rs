//! Tests failures in the middle of a change: the error names the real cause, and its remedy works.

use std::sync::Arc;
use std::time::Duration;

use keyturn::secret_value::SecretValue;
use keyturn::source::postgres::{Administrator, Limits, Postgres};
use keyturn::source::{Installs, Sessions, Target};

use crate::proxy::{Commit, Proxy};
use crate::scene::{Scene, accepted, login, password};
use crate::server::Server;

pub(crate) async fn an_answer_that_is_lost_at_the_commit_leaves_the_outcome_unknown_and_is_made_good(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    for (commit, applied) in
        [(Commit::LostOnTheWay, false), (Commit::AnswerLost, true), (Commit::TooLate, false)]
    {
        let (role, old) = (format!("{}_{commit:?}", scene.database), password());
        scene.create(&role, &old).await;
        let (old, new) = (login(&role, &old), login(&role, &password()));
        let plain = scene.target(&scene.single(&role));
        for admin in [Some(scene.administrator()), None] {
            let spec = scene.single(&role);
            let proxy = Proxy::new(scene.server.port, commit);
            let limits = Limits { idle: Duration::from_millis(300), ..Limits::default() };
            let target = Postgres::new(&spec, proxy, admin, "world/ns/secret".to_owned(), false).unwrap();
            let target = target.with_limits(limits);
            let error = target.install(1, &new, &[old.duplicate()]).await.unwrap_err();
            assert!(
                error.trouble.reason == "OutcomeUnknown"
                    && error.outcome_unknown
                    && !error.trouble.is_permanent(),
                "{error:?}"
            );
            // The server may need a moment to notice that the connection is closed.
            plain.install(1, if applied { &new } else { &old }, &[]).await.unwrap();
            assert_eq!(accepted(&plain, &new).await, applied, "{commit:?}");
            assert_eq!(accepted(&plain, &old).await, !applied, "{commit:?}");
            plain.install(1, &old, &[]).await.unwrap();
        }
    }
}

pub(crate) async fn a_role_that_another_transaction_holds_is_waited_for_and_then_left(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let (role, old) = (scene.role("app"), password());
    scene.create(&role, &old).await;
    let limits = Limits { lock: Duration::from_millis(100), ..Limits::default() };
    let target = scene.target(&scene.single(&role)).with_limits(limits);
    let holder = scene.server.superuser(&scene.database).await;
    holder.batch_execute(&format!("BEGIN; ALTER ROLE {role} CONNECTION LIMIT 50")).await.unwrap();
    let new = login(&role, &password());
    let error = target.install(1, &new, &[]).await.unwrap_err();
    assert!(
        error.trouble.reason == "Locked" && !error.trouble.is_permanent() && !error.outcome_unknown,
        "{error}"
    );
    assert!(accepted(&target, &login(&role, &old)).await);
    holder.batch_execute("ROLLBACK").await.unwrap();
    target.install(1, &new, &[]).await.unwrap();
    assert!(accepted(&target, &new).await);
}

/// Creates a role, and an administrator without the rights to change it and to end its sessions.
async fn make_role_that_cannot_be_changed(scene: &Scene, role: &str) {
    let admin = &scene.admin.username;
    scene
        .sql(&format!(
            "CREATE ROLE {role} LOGIN; ALTER ROLE {admin} NOCREATEROLE; REVOKE pg_signal_backend FROM {admin}"
        ))
        .await;
}

pub(crate) async fn what_the_administrator_lacks_is_named_and_granting_it_helps(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let role = scene.role("app");
    make_role_that_cannot_be_changed(&scene, &role).await;
    let target = scene.target(&scene.single(&role));
    let new = login(&role, &password());
    let error = target.install(1, &new, &[]).await.unwrap_err();
    assert!(error.trouble.reason == "NotPermitted" && error.trouble.is_permanent(), "{error}");
    assert_eq!(error.trouble.message.contains("WITH ADMIN TRUE"), scene.server.version >= 16, "{error}");
    let remedy = error.trouble.message.split("superuser: ").nth(1).unwrap();
    scene.sql(&remedy[..=remedy.rfind(';').unwrap()]).await;
    target.install(1, &new, &[]).await.unwrap();

    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(scene.server.port)
        .user(&role)
        .dbname(&scene.database)
        .password(new.password.expose());
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let session = tokio::spawn(connection);
    let error = target.end(&role, None).await.unwrap_err();
    assert!(error.trouble.reason == "NotPermitted" && error.trouble.is_permanent(), "{error}");
    let remedy = error.trouble.message.split("run there: ").nth(1).unwrap().split(" (").next().unwrap();
    scene.sql(remedy).await;
    target.end(&role, None).await.unwrap();
    assert!(session.await.unwrap().is_err());
    drop(client);
}

pub(crate) async fn the_name_of_an_administrator_from_a_secret_is_in_no_message(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let (role, admin) = (scene.role("app"), scene.admin.username.clone());
    make_role_that_cannot_be_changed(&scene, &role).await;
    let of_secret = |word: &str| {
        let value = |text: &str| SecretValue::new(text.to_owned());
        Administrator::of_secret("db-admin", "username", value(&admin), value(word)).unwrap()
    };
    let spec = scene.single(&role);
    for (word, reason) in [("wrong", "AdministratorRefused"), (scene.admin.password.expose(), "NotPermitted")]
    {
        let target =
            Postgres::new(&spec, scene.direct(), Some(of_secret(word)), "o".to_owned(), false).unwrap();
        let error = target.install(1, &login(&role, &password()), &[]).await.unwrap_err();
        assert_eq!(error.trouble.reason, reason, "{error}");
        assert!(error.trouble.message.contains("the administrator of Secret db-admin"), "{error}");
        assert!(!error.trouble.message.contains(&admin), "{error}");
    }
}

pub(crate) async fn superusers_are_touched_only_where_that_is_granted_and_never_shut_out(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    let d = scene.database.clone();
    let word = password();
    scene.sql(&format!("CREATE ROLE {d}_root SUPERUSER LOGIN PASSWORD '{word}'; CREATE ROLE {d}_copies REPLICATION LOGIN PASSWORD '{word}'")).await;
    scene.pair().await;
    for name in ["root", "copies"] {
        let role = scene.role(name);
        let (old, new) = (login(&role, &word), login(&role, &password()));
        let spec = scene.single(&role);
        let target = scene.target(&spec);
        assert_eq!(target.observe().await.unwrap_err().trouble.reason, "SuperuserNotAllowed");
        let error = target.install(1, &new, &[]).await.unwrap_err();
        assert!(
            error.trouble.reason == "SuperuserNotAllowed" && error.trouble.message.contains("allowSuperuser"),
            "{error}"
        );
        let error = scene.without_admin(&spec).install(1, &new, &[old.duplicate()]).await.unwrap_err();
        assert_eq!(error.trouble.reason, "SuperuserNotAllowed", "{error}");
        assert!(accepted(&target, &old).await);
    }
    // The runbook's own role is a superuser: it changes its own password, and can be its own administrator.
    let role = scene.role("root");
    let spec = scene.single(&role);
    let (first, second) = (login(&role, &password()), login(&role, &password()));
    let alone = Postgres::new(&spec, scene.direct(), None, "o".to_owned(), true).unwrap();
    alone.install(1, &first, &[login(&role, &word)]).await.unwrap();
    let itself = Postgres::new(
        &spec,
        scene.direct(),
        Some(Administrator::named(first.duplicate())),
        "o".to_owned(),
        true,
    )
    .unwrap();
    itself.install(2, &second, &[]).await.unwrap();
    assert!(accepted(&alone, &second).await && !accepted(&alone, &first).await);

    let from = scene.spec(&format!(
        "alternatingRoles: {{names: [{d}_a, {d}_b], owner: {d}_owner, bootstrap: {{from: {role}, mode: Apply}}}}"
    ));
    let target = Postgres::new(
        &from,
        scene.direct(),
        Some(Administrator::named(second.duplicate())),
        "o".to_owned(),
        true,
    )
    .unwrap();
    let error = target.retire(3, &role).await.unwrap_err();
    assert!(error.trouble.reason == "SuperuserKept" && error.trouble.is_permanent(), "{error}");
    assert!(accepted(&alone, &second).await);
}

pub(crate) async fn a_fence_that_somebody_else_made_is_not_touched_and_without_one_it_works_all_the_same(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    let (role, d) = (scene.role("app"), scene.database.clone());
    scene.create(&role, &password()).await;
    // Only the superuser may create the table.
    scene.sql("DROP SCHEMA keyturn").await;
    let target = scene.target(&scene.single(&role));
    let new = login(&role, &password());
    target.install(1, &new, &[]).await.unwrap();
    assert!(accepted(&target, &new).await && !target.observe().await.unwrap().fenced);

    // The owner of a table decides what code runs when somebody writes it, with the writer's rights.
    scene
        .sql(&format!(
            "CREATE ROLE {d}_hostile; CREATE SCHEMA keyturn; GRANT ALL ON SCHEMA keyturn TO PUBLIC; \
             CREATE TABLE keyturn.fence (role name PRIMARY KEY, id bigint, owner text, changed_at timestamptz); \
             GRANT ALL ON keyturn.fence TO PUBLIC; ALTER TABLE keyturn.fence OWNER TO {d}_hostile"
        ))
        .await;
    for result in [target.observe().await.map(drop), target.install(2, &login(&role, &password()), &[]).await]
    {
        let error = result.unwrap_err();
        assert!(error.trouble.reason == "FenceNotOurs" && error.trouble.is_permanent(), "{error}");
    }
    assert!(accepted(&target, &new).await);
    scene.sql("ALTER TABLE keyturn.fence OWNER TO postgres").await;
    target.install(2, &new, &[]).await.unwrap();
    assert_eq!(target.observe().await.unwrap().fences[&role].0, 2);
}

pub(crate) async fn functions_that_the_owner_of_the_database_planted_are_not_run_by_the_administrator(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    let (role, d) = (scene.role("app"), scene.database.clone());
    scene.create(&role, &password()).await;
    scene
        .sql(&format!(
            "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; CREATE TABLE evil.hit (who text); GRANT ALL ON evil.hit TO PUBLIC; \
             CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'INSERT INTO evil.hit VALUES (current_user) RETURNING clock_timestamp()'; \
             CREATE FUNCTION evil.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'INSERT INTO evil.hit VALUES (current_user) RETURNING false'; \
             CREATE FUNCTION evil.has_schema_privilege(oid, text) RETURNS bool LANGUAGE sql AS 'INSERT INTO evil.hit VALUES (current_user) RETURNING true'; \
             ALTER DATABASE {d} SET search_path = evil, pg_catalog"
        ))
        .await;
    let target = scene.target(&scene.single(&role));
    target.observe().await.unwrap();
    target.install(1, &login(&role, &password()), &[]).await.unwrap();
    target.end(&role, None).await.unwrap();
    let hits = "SELECT count(*) FROM evil.hit";
    assert_eq!(scene.server.row(&d, hits).await.get::<_, i64>(0), 0);
    scene.server.row(&d, "SELECT now()").await;
    assert_eq!(scene.server.row(&d, hits).await.get::<_, i64>(0), 1, "the trap does not work");
}

pub(crate) async fn no_password_is_in_the_servers_log_or_statistics_even_where_statements_fail(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    let d = scene.database.clone();
    let role = scene.role("app");
    scene.sql(&format!("CREATE ROLE {role} LOGIN; CREATE ROLE {d}_root SUPERUSER LOGIN")).await;
    scene.grant(&[&role]).await;
    let words: Vec<String> = (0..5).map(|_| password()).collect();
    let target = scene.target(&scene.single(&role));
    let logins: Vec<_> = words.iter().map(|word| login(&role, word)).collect();
    target.install(1, &logins[0], &[]).await.unwrap();
    scene.without_admin(&scene.single(&role)).install(2, &logins[1], &[logins[0].duplicate()]).await.unwrap();
    // The administrator may not change a superuser: the ALTER itself fails, and the server logs it.
    let root = scene.role("root");
    let admin = Some(scene.administrator());
    let beyond = Postgres::new(&scene.single(&root), scene.direct(), admin, "x".to_owned(), true).unwrap();
    let error = beyond.install(1, &login(&root, &words[2]), &[]).await.unwrap_err();
    assert_eq!(error.trouble.reason, "NotPermitted", "{error}");
    let holder = scene.server.superuser(&d).await;
    holder.batch_execute(&format!("BEGIN; ALTER ROLE {role} CONNECTION LIMIT 50")).await.unwrap();
    let limits = Limits { lock: Duration::from_millis(100), ..Limits::default() };
    scene.target(&scene.single(&role)).with_limits(limits).install(3, &logins[3], &[]).await.unwrap_err();
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert!(!accepted(&target, &logins[4]).await);

    let log = scene.server.log();
    let statistics = "SELECT coalesce(string_agg(query, ' '), '') FROM pg_stat_statements";
    let statements: String = scene.server.row("postgres", statistics).await.get(0);
    let activity = "SELECT coalesce(string_agg(query, ' '), '') FROM pg_stat_activity";
    let activity: String = scene.server.row("postgres", activity).await.get(0);
    assert!(
        log.contains(&format!("statement: ALTER ROLE \"{role}\""))
            || log.contains(&format!("ALTER ROLE \"{role}\" PASSWORD"))
    );
    assert!(
        log.contains(&format!("STATEMENT:  ALTER ROLE \"{root}\"")),
        "the failed statement is not in the log"
    );
    assert!(statements.contains("ALTER ROLE"));
    for word in &words {
        for (place, text) in
            [("log", &log), ("pg_stat_statements", &statements), ("pg_stat_activity", &activity)]
        {
            assert!(!text.contains(word.as_str()), "a password is in {place}");
        }
    }
}
