//! Tests to whom keyturn logs in, and how: it sends nothing of a password to a server that is not proven or demands
//! another method.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use keyturn::api::source::postgres::PostgresSpec;
use keyturn::rotation::observed::Acceptance;
use keyturn::source::postgres::{Administrator, Direct, Limits, Postgres};
use keyturn::source::{Installs, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::proxy::{Commit, Proxy};
use crate::scene::{Scene, accepted, login, password, refusal};
use crate::server::Server;

pub(crate) async fn nothing_but_scram_is_gone_along_with_and_nothing_of_the_password_is_sent(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    for (method, said) in
        [("trust", "without checking the password"), ("password", "in clear text"), ("md5", "MD5")]
    {
        let (role, right) = (scene.role(method), password());
        // The server demands MD5 only for a password that is stored as MD5.
        scene
            .sql(&format!(
                "SET password_encryption = md5; CREATE ROLE {role} LOGIN PASSWORD '{right}'; GRANT by_{method} TO {role}"
            ))
            .await;
        let proxy = Proxy::new(scene.server.port, Commit::Passes);
        let target = Postgres::new(&scene.single(&role), proxy.clone(), None, "x".to_owned(), false).unwrap();
        for word in [&right, "wrong"] {
            proxy.sent.lock().unwrap().clear();
            let error = target.try_login(&login(&role, word)).await.unknown().unwrap();
            assert!(error.reason == "AuthenticationNotScram" && error.is_permanent(), "{method}: {error}");
            assert!(error.message.contains(said), "{method}: {error}");
            let sent = proxy.sent.lock().unwrap().clone();
            let startup = u32::from_be_bytes(sent[..4].try_into().unwrap()) as usize;
            assert_eq!(sent.len(), startup, "{method}: more than the startup message was sent");
        }
        let error = target.install(1, &login(&role, "new"), &[login(&role, &right)]).await.unwrap_err();
        assert_eq!(error.trouble.reason, "AuthenticationNotScram", "{error}");
    }
}

pub(crate) async fn a_refusal_says_why_as_far_as_the_administrator_can_see(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let d = &scene.database;
    let word = password();
    for role in ["wrong", "expired", "locked"] {
        scene.create(&scene.role(role), &word).await;
    }
    scene
        .sql(&format!(
            "ALTER ROLE {d}_expired VALID UNTIL '2020-01-01'; ALTER ROLE {d}_locked NOLOGIN; \
             CREATE ROLE {d}_nowhere LOGIN; GRANT by_nothing TO {d}_nowhere; \
             CREATE ROLE {d}_guest LOGIN PASSWORD '{word}'; REVOKE CONNECT ON DATABASE {d} FROM PUBLIC; \
             GRANT CONNECT ON DATABASE {d} TO {d}_admin, {d}_wrong, {d}_expired, {d}_locked, {d}_nowhere"
        ))
        .await;
    let cases = [
        ("wrong", "wrong", "LoginRefused", "the password is wrong"),
        ("expired", &word, "RoleExpired", "VALID UNTIL 'infinity'"),
        ("locked", &word, "LoginRefused", "NOLOGIN"),
        ("nowhere", &word, "LoginRefused", "pg_hba.conf"),
        ("nobody", &word, "RoleMissing", "no role"),
        ("guest", &word, "LoginRefused", "GRANT CONNECT"),
    ];
    for (suffix, word, reason, said) in cases {
        let role = scene.role(suffix);
        let refused = refusal(&scene.target(&scene.single(&role)), &login(&role, word)).await;
        assert!(refused.reason == reason && refused.message.contains(said), "{role}: {refused:?}");
        assert!(refused.message.contains(&role), "{refused}");
    }
    let expired = scene.role("expired");
    let target = scene.target(&scene.single(&expired));
    assert_eq!(target.observe().await.unwrap_err().trouble.reason, "RoleExpired");
    let error = target.install(1, &login(&expired, &password()), &[]).await.unwrap_err();
    assert_eq!(error.trouble.reason, "RoleExpired");
    let nobody = scene.target(&scene.single("nobody"));
    assert_eq!(nobody.observe().await.unwrap_err().trouble.reason, "RoleMissing");
    assert_eq!(
        nobody.install(1, &login("nobody", "x"), &[]).await.unwrap_err().trouble.reason,
        "RoleMissing"
    );

    let mut elsewhere = scene.single(&expired);
    elsewhere.database = "no_such_database".to_owned();
    let error = scene.target(&elsewhere).observe().await.unwrap_err();
    assert_eq!(error.trouble.reason, "DatabaseMissing", "{error}");
    let admin = Some(Administrator::named(login(&scene.admin.username, "wrong")));
    let target =
        Postgres::new(&scene.single(&expired), scene.direct(), admin, "x".to_owned(), false).unwrap();
    assert_eq!(target.observe().await.unwrap_err().trouble.reason, "AdministratorRefused");
}

pub(crate) async fn tls_reaches_only_a_server_whose_name_and_authority_are_right(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let (role, word) = (scene.role("app"), password());
    scene.create(&role, &word).await;
    let other = tempfile::TempDir::new().unwrap();
    let made = Command::new("openssl")
        .args("req -x509 -days 30 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=other -keyout key -out crt".split(' '))
        .current_dir(other.path())
        .output()
        .unwrap();
    assert!(made.status.success());
    let stranger = fs::read_to_string(other.path().join("crt")).unwrap();
    let spec = |host: &str, ca: Option<&str>| -> PostgresSpec {
        let ca = ca
            .map_or_else(String::new, |ca| format!(", tls: {{ca: {}}}", serde_json::to_string(ca).unwrap()));
        let yaml =
            format!("{{host: {host}, database: {}, singleRole: {{name: {role}}}{ca}}}", scene.database);
        serde_saphyr::from_str(&yaml).unwrap()
    };
    let target = |spec: &PostgresSpec| {
        let dial = Arc::new(Direct { host: "127.0.0.1".to_owned(), port: scene.server.port });
        Postgres::new(spec, dial, Some(scene.administrator()), "world/ns/x".to_owned(), false).unwrap()
    };
    let right = target(&spec("localhost", Some(&scene.server.ca())));
    assert!(accepted(&right, &login(&role, &word)).await);
    let new = login(&role, &password());
    right.install(1, &new, &[]).await.unwrap();
    assert!(accepted(&right, &new).await);
    assert_eq!(refusal(&right, &login(&role, &word)).await.reason, "LoginRefused");

    let before = scene.server.log().matches(&format!("user={role}")).count();
    assert!(before > 0);
    for (host, ca, reason, remedy) in [
        ("127.0.0.1", Some(scene.server.ca()), "TlsWrongName", "tls.serverName"),
        ("localhost", Some(stranger), "TlsNotTrusted", "tls.ca"),
        ("localhost", None, "TlsNotTrusted", "tls.ca"),
    ] {
        let error = target(&spec(host, ca.as_deref())).try_login(&new).await.unknown().unwrap();
        assert!(
            error.reason == reason && error.is_permanent() && error.message.contains(remedy),
            "{error:?}"
        );
    }
    assert_eq!(scene.server.log().matches(&format!("user={role}")).count(), before, "a login was sent");
}

pub(crate) async fn a_server_without_tls_or_without_postgres_is_named(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let spec = scene.spec("singleRole: {name: x}");
    let mut direct = spec.clone();
    (direct.via, direct.host) = (None, Some("localhost".to_owned()));
    direct.tls =
        serde_saphyr::from_str(&format!("ca: {}", serde_json::to_string(&scene.server.ca()).unwrap()))
            .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let at = |port| Arc::new(Direct { host: "127.0.0.1".to_owned(), port });
    let answering = tokio::spawn(async move {
        for answer in [&b"N"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 64]).await;
            let _ = stream.write_all(answer).await;
        }
        // The last connection gets no answer.
        let (stream, _) = listener.accept().await.unwrap();
        stream
    });
    for (spec, reason) in [
        (&direct, "TlsNotOffered"),
        (&spec, "AuthenticationNotScram"),
        (&spec, "TargetUnreachable"),
        (&spec, "TargetUnreachable"),
    ] {
        let target = Postgres::new(spec, at(port), None, "x".to_owned(), false).unwrap();
        let limits = Limits { connect: Duration::from_millis(500), ..Limits::default() };
        let error = target.with_limits(limits).try_login(&login("x", "x")).await.unknown().unwrap();
        assert_eq!(error.reason, reason, "{error}");
        assert!(error.message.contains(&format!("127.0.0.1:{port}")), "{error}");
    }
    drop(answering.await.unwrap());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let target = Postgres::new(&spec, at(closed), None, "x".to_owned(), false).unwrap();
    let error = target.try_login(&login("x", "x")).await.unknown().unwrap();
    assert!(error.reason == "TargetUnreachable" && !error.is_permanent(), "{error}");
}

pub(crate) async fn probes_are_run_and_change_nothing(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let (role, word) = (scene.role("app"), password());
    scene.create(&role, &word).await;
    scene.sql(&format!("CREATE TYPE mood AS ENUM ('good'); CREATE SEQUENCE tickets; CREATE TABLE orders (id int, mood mood); GRANT SELECT, INSERT ON orders TO {role}; GRANT ALL ON SEQUENCE tickets TO {role}; CREATE TABLE hidden (id int)")).await;
    let answer = async |probes: &[&str]| {
        let mut spec = scene.single(&role);
        spec.probes = probes.iter().map(ToString::to_string).collect();
        scene.without_admin(&spec).try_login(&login(&role, &word)).await
    };
    let good = [
        "SELECT 1 FROM orders LIMIT 1",
        "SELECT orders, mood, ARRAY[mood] FROM orders",
        "SELECT generate_series(1, 1e12)",
        "",
    ];
    assert_eq!(answer(&good).await, Acceptance::Accepted);
    let raises = |state: &str| format!("DO $$BEGIN RAISE SQLSTATE '{state}'; END$$");
    for (probe, told) in [
        ("SELECT 1 FROM hidden", "class 42 of"),
        ("SELECT 1 FROM nothing", "class 42 of"),
        ("SELECT 1; COMMIT", "class 42 of"),
        ("SELECT 1/0", "class 22 of"),
        ("INSERT INTO orders VALUES (1)", "class 25 of"),
        ("SELECT nextval('tickets')", "class 25 of"),
        ("SET TRANSACTION READ WRITE", "class 25 of"),
        ("DO $$BEGIN SET TRANSACTION READ WRITE; INSERT INTO orders VALUES (1); END$$", "class 25 of"),
        ("DO $$BEGIN COMMIT; END$$", "by hand"),
        ("SELECT id FROM orders WHERE id = $1", "it has parameters"),
        (&raises("SEC01"), "by hand"),
    ] {
        let Acceptance::Refused(error) = answer(&["SELECT 1", probe]).await else { panic!("{probe}") };
        assert!(error.reason == "ProbeFailed" && error.message.contains("probe 2 fails"), "{error}");
        assert!(error.message.contains(told), "{probe}: {error}");
        assert!(!error.message.contains("SEC01"), "{error}");
    }
    let error = answer(&[&raises("57SEC")]).await.unknown().unwrap();
    assert!(error.reason == "ProbeInterrupted" && !error.message.contains("SEC"), "{error}");
    // If the probe cannot be run now, that says nothing about the login.
    let locked = scene.server.superuser(&scene.database).await;
    locked.batch_execute("BEGIN; LOCK TABLE orders").await.unwrap();
    let limits = Limits { lock: Duration::from_millis(100), ..Limits::default() };
    let mut spec = scene.single(&role);
    spec.probes = vec!["SELECT 1 FROM orders".to_owned()];
    let error = scene
        .without_admin(&spec)
        .with_limits(limits)
        .try_login(&login(&role, &word))
        .await
        .unknown()
        .unwrap();
    assert!(error.reason == "Locked" && !error.is_permanent(), "{error}");
    locked.batch_execute("ROLLBACK").await.unwrap();
    let left: i64 = scene.server.row(&scene.database, "SELECT count(*) FROM orders").await.get(0);
    let drawn: bool = scene.server.row(&scene.database, "SELECT is_called FROM tickets").await.get(0);
    assert!(left == 0 && !drawn);
}

pub(crate) async fn nobody_is_probed_who_reaches_beyond_the_database(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    for (name, rights) in [
        ("root", "ALTER ROLE <role> SUPERUSER"),
        ("member", "GRANT <other> TO <role>"),
        ("programs", "GRANT pg_execute_server_program TO <role>"),
        ("files", "GRANT pg_write_server_files TO <role>"),
    ] {
        let (role, word) = (scene.role(name), password());
        scene.create(&role, &word).await;
        let rights = rights.replace("<role>", &role).replace("<other>", &scene.role("root"));
        scene.sql(&rights).await;
        let mut spec = scene.single(&role);
        let trace = scene.server.dir.path().join(format!("{role}.ran"));
        spec.probes =
            vec![format!("COPY (SELECT 1) TO PROGRAM 'touch {}'", trace.display()), "SELECT 1/0".to_owned()];
        let answer = scene.without_admin(&spec).try_login(&login(&role, &word)).await;
        assert_eq!(answer, Acceptance::Accepted, "{name}");
        assert!(!trace.exists(), "{name} ran a program of the server");
    }
}

pub(crate) async fn a_replica_is_not_believed(server: Arc<Server>) {
    let version = server.version;
    let primary = tokio::task::spawn_blocking(move || Arc::new(Server::start(version))).await.unwrap();
    let scene = Scene::new(primary.clone()).await;
    let (role, word) = (scene.role("app"), password());
    scene.create(&role, &word).await;
    let new = login(&role, &password());
    scene.target(&scene.single(&role)).install(1, &new, &[]).await.unwrap();
    let standby = tokio::task::spawn_blocking(move || primary.standby()).await.unwrap();
    let dial = Arc::new(Direct { host: "127.0.0.1".to_owned(), port: standby.port });
    for admin in [Some(scene.administrator()), None] {
        let alone = admin.is_none();
        let target =
            Postgres::new(&scene.single(&role), dial.clone(), admin, "world/ns/x".to_owned(), false).unwrap();
        let error = target.try_login(&new).await.unknown().unwrap();
        assert!(error.reason == "TargetReadOnly" && error.is_permanent(), "{error}");
        let error = target.install(2, &login(&role, &password()), &[new.duplicate()]).await.unwrap_err();
        assert_eq!(error.trouble.reason, "TargetReadOnly", "{error}");
        if !alone {
            assert_eq!(target.observe().await.unwrap_err().trouble.reason, "TargetReadOnly");
        }
    }
}
