//! Tests PgBouncer between the application and the server: the application does not notice a rotation, and keyturn's
//! error says that it must connect directly.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use keyturn::source::postgres::{Direct, Postgres};
use keyturn::source::{Installs, Sessions, Target};
use tempfile::TempDir;

use crate::scene::{Scene, accepted, login, password};
use crate::server::{Server, as_server, give_to_server};
use crate::sshd::wait_for;

/// A PgBouncer that looks up passwords on the server (`auth_query`) and shares its sessions by transaction.
struct Pooler {
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl Pooler {
    async fn start(scene: &Scene) -> Self {
        // It logs in as a role that may read verifiers, so that the pooler itself needs to know no passwords.
        let user = scene.role("pooler");
        scene.sql(&format!("CREATE ROLE {user} SUPERUSER LOGIN; GRANT by_trust TO {user}")).await;
        let dir = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "[databases]\n{} = host=127.0.0.1 port={} auth_user={user}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\npool_mode = transaction\n\
             auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1\n\
             logfile = {}\nmax_client_conn = 200\n",
            scene.database,
            scene.server.port,
            dir.path().join("log").display()
        );
        fs::write(dir.path().join("pgbouncer.ini"), config).unwrap();
        give_to_server(dir.path());
        let program = Path::new("/usr/sbin/pgbouncer");
        assert!(program.exists(), "this test needs PgBouncer: install the package pgbouncer");
        let child = as_server(program)
            .arg(dir.path().join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pooler = Self { port, child, _dir: dir };
        wait_for("PgBouncer", || TcpStream::connect(("127.0.0.1", port)).ok());
        pooler
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn clients_of_a_pooler_never_fail_while_two_roles_take_turns(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    scene.pair().await;
    let target = scene.target(&scene.alternating());
    let first = login(&scene.role("a"), &password());
    target.install(1, &first, &[]).await.unwrap();
    let pooler = Pooler::start(&scene).await;

    // keyturn's own sessions do not use the pooler: their time limits would remain in sessions that others use.
    let spec = scene.alternating();
    let dial = Arc::new(Direct { host: "127.0.0.1".to_owned(), port: pooler.port });
    let through = Postgres::new(&spec, dial, Some(scene.administrator()), "o".to_owned(), false).unwrap();
    let error = through.try_login(&first).await.unknown().unwrap();
    assert!(error.reason == "SessionSettingsRefused" && error.is_permanent(), "{error}");

    // The login that the hosts run, and the clients that use it.
    let published = Arc::new(Mutex::new(first.duplicate()));
    let stop = Arc::new(AtomicBool::new(false));
    let served: Arc<[AtomicU64; 2]> = Arc::default();
    let clients: Vec<_> = (0..served.len())
        .map(|number| {
            let (published, stop, served) = (published.clone(), stop.clone(), served.clone());
            let (database, port) = (scene.database.clone(), pooler.port);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let login = published.lock().unwrap().duplicate();
                    let mut config = tokio_postgres::Config::new();
                    config.host("127.0.0.1").port(port).user(&login.username).dbname(&database);
                    config.password(login.password.expose());
                    let connected = config.connect(tokio_postgres::NoTls).await;
                    let (client, connection) =
                        connected.unwrap_or_else(|error| panic!("{}: {error:?}", login.username));
                    let session = tokio::spawn(connection);
                    client.batch_execute("SELECT count(*) FROM pg_class").await.unwrap();
                    drop(client);
                    session.await.unwrap().unwrap();
                    served[number].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // A client that was served twice has logged in again in between.
    let count = |number: usize| served[number].load(Ordering::Relaxed);
    let some_more = async || {
        let enough = [count(0) + 10, count(1) + 10];
        let ended = || clients.iter().any(|client| client.is_finished());
        let all_served = async {
            while (0..2).any(|number| count(number) < enough[number]) && !ended() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), all_served)
            .await
            .expect("clients are served");
    };
    some_more().await;
    for id in 2..6 {
        let old = published.lock().unwrap().duplicate();
        let name = scene.role(if id % 2 == 0 { "b" } else { "a" });
        let new = login(&name, &password());
        target.install(id, &new, &[]).await.unwrap();
        *published.lock().unwrap() = new;
        // Simulates the host's proof that it runs the new login.
        some_more().await;
        target.retire(id, &old.username).await.unwrap();
        target.end(&old.username, None).await.unwrap();
        assert!(!accepted(&target, &old).await);
        some_more().await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no login and no statement failed");
    }
}
