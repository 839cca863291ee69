//! Tests that passwords are changed, and only by roles that may change them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyturn::source::{Installs, Sessions, Target};

use crate::scene::{Scene, accepted, login, password, refusal};
use crate::server::Server;

pub(crate) async fn the_administrator_changes_a_roles_password_and_the_old_one_is_gone(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let (role, old) = (scene.role("app"), password());
    scene.create(&role, &old).await;
    let target = scene.target(&scene.single(&role));
    assert!(accepted(&target, &login(&role, &old)).await);
    let before = target.observe().await.unwrap();
    assert!(before.fenced && before.fences.is_empty() && before.can_log_in.contains(&role), "{before:?}");

    let new = login(&role, &password());
    for _ in 0..2 {
        target.install(7, &new, &[]).await.unwrap();
        assert!(accepted(&target, &new).await);
    }
    assert_eq!(refusal(&target, &login(&role, &old)).await.reason, "LoginRefused");
    let after = target.observe().await.unwrap();
    assert_eq!(after.fences[&role].0, 7);
    assert!(after.fenced);
}

pub(crate) async fn a_role_without_an_administrator_changes_its_own_password(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let (role, old, new) = (scene.role("self"), password(), password());
    // A default role would not allow it to change its own password.
    scene.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{old}'; CREATE ROLE {role}_other; GRANT {role}_other TO {role}; ALTER ROLE {role} SET role = '{role}_other'")).await;
    let target = scene.without_admin(&scene.single(&role));
    let own = [login(&role, &password()), login(&role, &old)];
    let new = login(&role, &new);
    // The second time only the new password works, as after a lost answer.
    for _ in 0..2 {
        target.install(1, &new, &own).await.unwrap();
        assert!(accepted(&target, &new).await);
    }
    assert!(!target.observe().await.unwrap().fenced);

    let stranger = login(&role, &password());
    let error = target.install(2, &stranger, &own).await.unwrap_err();
    assert!(
        error.trouble.reason == "NoLoginWorks"
            && error.trouble.is_permanent()
            && error.trouble.message.contains("adminSecretRef"),
        "{error}"
    );
    assert!(accepted(&target, &new).await);
}

pub(crate) async fn a_role_without_an_administrator_sees_and_ends_its_own_sessions(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let (role, old) = (scene.role("self"), password());
    // With its default role it would see no sessions.
    scene.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{old}'; CREATE ROLE {role}_other; GRANT {role}_other TO {role}; ALTER ROLE {role} SET role = '{role}_other'")).await;
    let target = scene.without_admin(&scene.single(&role));
    let (old, new) = (login(&role, &old), login(&role, &password()));
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(scene.server.port).user(&role).dbname(&scene.database);
    config.password(old.password.expose()).application_name("the thief");
    let (_client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let thief = tokio::spawn(connection);
    target.install(1, &new, &[old]).await.unwrap();

    // A session of ours may remain visible for a moment after it was closed.
    let shows = async |wanted: &[&str], why: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let seen = target.list_own(&new).await.unwrap();
            let clients: Vec<_> = seen.iter().map(|session| session.client.as_str()).collect();
            if clients == wanted || Instant::now() > deadline {
                assert_eq!(clients, wanted, "{why}");
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let intruder = ["127.0.0.1 (the thief)"];
    let since = shows(&intruder, "logged in before").await[0].since.expect("it sees since when");
    target.end_own(&new, since).await.unwrap();
    shows(&intruder, "it was opened then, not before").await;
    target.end_own(&new, since + chrono::TimeDelta::microseconds(1)).await.unwrap();
    assert!(thief.await.unwrap().is_err());
    shows(&[], "it was ended").await;
    let stranger = login(&role, &password());
    assert_eq!(target.list_own(&stranger).await.unwrap_err().trouble.reason, "LoginRefused");
}

pub(crate) async fn hostile_names_and_passwords_are_only_names_and_passwords(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let d = &scene.database;
    let names =
        ["o'brien", "q\"uote", "back\\slash", "semi; DROP TABLE x; --", "ünïcode 🔑", "$1", "UPPER", "a.b"];
    let texts =
        ["p'q", "\\", "\"; --", " blank ", "ünïcode 🔑", "$$x$$", "SCRAM-SHA-256$4096:a$b:c", "md5aa"];
    for (name, text) in names.into_iter().zip(texts) {
        let role = format!("{d} {name}");
        scene.create(&role, "first").await;
        let target = scene.target(&scene.single(&role));
        let new = login(&role, &format!("{text}{}", password()));
        target.install(1, &new, &[]).await.unwrap_or_else(|error| panic!("{role} {text}: {error}"));
        assert!(accepted(&target, &new).await, "{role} {text}");
        let own = login(&role, &format!("{}{text}", password()));
        scene.without_admin(&scene.single(&role)).install(2, &own, &[new]).await.unwrap();
        assert!(accepted(&target, &own).await, "{role} {text}");
    }
    for bad in ["", "a\0b"] {
        let role = scene.role("plain");
        let error = scene.target(&scene.single(&role)).install(1, &login(&role, bad), &[]).await.unwrap_err();
        assert_eq!(error.trouble.reason, "PasswordUnusable", "{error}");
    }
}

pub(crate) async fn of_two_roles_one_is_let_in_while_the_other_goes_on_and_then_is_shut_out(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    scene.pair().await;
    let target = scene.target(&scene.alternating());
    let (a, b) = (login(&scene.role("a"), &password()), login(&scene.role("b"), &password()));
    target.install(1, &a, &[]).await.unwrap();
    assert!(accepted(&target, &a).await && !accepted(&target, &b).await);
    target.install(2, &b, &[]).await.unwrap();
    assert!(accepted(&target, &a).await && accepted(&target, &b).await);

    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(scene.server.port).user(&a.username).dbname(&scene.database);
    config.password(a.password.expose()).application_name("the app");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let session = tokio::spawn(connection);
    // A role that is not concerned must not be touched.
    let superuser = scene.server.superuser(&scene.database).await;

    for _ in 0..2 {
        target.retire(2, &a.username).await.unwrap();
        assert!(!accepted(&target, &a).await && accepted(&target, &b).await);
    }
    let roles = target.observe().await.unwrap();
    assert_eq!(roles.can_log_in.iter().collect::<Vec<_>>(), [&b.username]);
    let seen: Vec<_> = roles.sessions.iter().map(|s| (s.username.as_str(), s.client.as_str())).collect();
    assert_eq!(seen, [(a.username.as_str(), "127.0.0.1 (the app)")]);
    assert_eq!((roles.fences[&a.username].0, roles.fences[&b.username].0), (2, 2));

    target.end(&a.username, None).await.unwrap();
    assert!(session.await.unwrap().is_err());
    superuser.batch_execute("SELECT 1").await.unwrap();
    drop(client);
    assert_eq!(target.observe().await.unwrap().sessions, []);
    scene.sql("DROP ROLE app_a").await;
    target.retire(2, &a.username).await.unwrap();
    let stranger = target.retire(3, "postgres").await.unwrap_err();
    assert_eq!(stranger.trouble.reason, "NotOurRole");
}

pub(crate) async fn an_older_rotation_and_another_secret_are_refused_by_the_fence(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let role = scene.role("app");
    scene.create(&role, &password()).await;
    let target = scene.target(&scene.single(&role));
    let new = login(&role, &password());
    target.install(5, &new, &[]).await.unwrap();

    let late = target.install(4, &login(&role, &password()), &[]).await.unwrap_err();
    assert!(
        late.trouble.reason == "Fenced" && !late.trouble.is_permanent() && !late.outcome_unknown,
        "{late}"
    );
    let other = scene.target_of(&scene.single(&role), "world/ns/other");
    let taken = other.install(9, &login(&role, &password()), &[]).await.unwrap_err();
    assert!(taken.trouble.reason == "RoleOwnedByOther" && taken.trouble.is_permanent(), "{taken}");
    assert!(taken.trouble.message.contains("world/ns/secret"), "{taken}");
    assert!(accepted(&target, &new).await);

    // The remedy in the message works.
    let remedy = taken.trouble.message.split("run: ").nth(1).unwrap();
    scene.sql(remedy).await;
    other.install(1, &login(&role, &password()), &[]).await.unwrap();
    assert!(!accepted(&target, &new).await);
}

pub(crate) async fn many_installs_at_once_end_with_one_that_works(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let role = scene.role("app");
    scene.create(&role, &password()).await;
    let target = Arc::new(scene.target(&scene.single(&role)));
    // All of them also create the table at the same time.
    let installs = (1..=16).map(|id| {
        let (target, new) = (target.clone(), login(&role, &password()));
        tokio::spawn(async move {
            let result = target.install(id, &new, &[]).await;
            (id, new, result)
        })
    });
    let done = futures::future::join_all(installs.collect::<Vec<_>>()).await;
    for outcome in done {
        let (id, new, result) = outcome.unwrap();
        match result {
            Ok(()) => assert_eq!(accepted(&target, &new).await, id == 16, "rotation {id}"),
            Err(error) => assert_eq!(error.trouble.reason, "Fenced", "rotation {id}: {error}"),
        }
    }
    assert_eq!(target.observe().await.unwrap().fences[&role].0, 16);
}

pub(crate) async fn without_a_fence_installs_at_once_wait_for_each_other(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let role = scene.role("app");
    scene.create(&role, &password()).await;
    scene.sql("DROP SCHEMA keyturn").await;
    let target = Arc::new(scene.target(&scene.single(&role)));
    let logins: Vec<_> = (0..8).map(|_| login(&role, &password())).collect();
    let installs = logins.iter().map(|new| target.install(1, new, &[]));
    for result in futures::future::join_all(installs).await {
        result.unwrap();
    }
    let mut works = 0;
    for login in &logins {
        works += u32::from(accepted(&target, login).await);
    }
    assert_eq!(works, 1);
}

pub(crate) async fn a_pair_that_cannot_take_turns_is_refused_and_objects_of_one_alone_are_reported(
    server: Arc<Server>,
) {
    let scene = Scene::new(server).await;
    scene.pair().await;
    let (a, owner) = (scene.role("a"), scene.role("owner"));
    let target = scene.target(&scene.alternating());
    let stock = target.observe().await.unwrap();
    assert!(stock.notes.is_empty() && stock.can_log_in.is_empty(), "{stock:?}");
    scene.sql("CREATE ROLE app_readers").await;
    for (change, undo, said) in [
        (
            "ALTER ROLE app_a CONNECTION LIMIT 5",
            "ALTER ROLE app_a CONNECTION LIMIT -1",
            "CONNECTION LIMIT (5, -1)",
        ),
        ("ALTER ROLE app_a BYPASSRLS", "ALTER ROLE app_a NOBYPASSRLS", "BYPASSRLS"),
        (
            "ALTER ROLE app_b SET work_mem = '7MB'",
            "ALTER ROLE app_b RESET work_mem",
            "the setting *: work_mem",
        ),
        ("GRANT app_readers TO app_b", "REVOKE app_readers FROM app_b", "only one of them is a member of"),
        ("ALTER ROLE app_a RESET role", "ALTER ROLE app_a SET role = 'app_owner'", "does not act as"),
        ("REVOKE app_owner FROM app_b", "GRANT app_owner TO app_b", "is not a member of"),
    ] {
        scene.sql(change).await;
        let error = target.observe().await.unwrap_err();
        assert!(
            error.trouble.reason == "RolesDiffer"
                && error.trouble.is_permanent()
                && error.trouble.message.contains(said),
            "{change}: {error}"
        );
        assert!(!error.trouble.message.contains("7MB"), "{error}");
        scene.sql(undo).await;
        target.observe().await.unwrap();
    }
    scene.sql("CREATE TABLE stray (id int); ALTER TABLE stray OWNER TO app_a; CREATE TABLE kept (id int); ALTER TABLE kept OWNER TO app_owner").await;
    let notes = target.observe().await.unwrap().notes;
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(
        note.contains(&format!("1 objects belong to {a} instead of {owner}")) && note.contains("stray"),
        "{note}"
    );
    assert!(!note.contains("kept"), "{note}");
    scene.sql(note.split("run: ").nth(1).unwrap()).await;
    assert!(target.observe().await.unwrap().notes.is_empty());
}
