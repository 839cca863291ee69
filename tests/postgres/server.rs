//! A real Postgres server for tests: initdb in a separate folder, an account that is not root, every
//! authentication method of pg_hba.conf (by membership in a group), TLS, and a complete log.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, Row};

/// Members of these groups authenticate by another method than SCRAM.
const HBA: &str = "\
local all all trust
host all +by_trust 127.0.0.1/32 trust
host all +by_password 127.0.0.1/32 password
host all +by_md5 127.0.0.1/32 md5
host all +by_nothing 127.0.0.1/32 reject
host all all 127.0.0.1/32 scram-sha-256
";

const CONF: &str = "
listen_addresses = '127.0.0.1'
max_connections = 300
fsync = off
log_statement = 'all'
log_connections = on
log_min_error_statement = 'error'
shared_preload_libraries = 'pg_stat_statements'
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
";

pub(crate) struct Server {
    pub dir: TempDir,
    pub port: u16,
    pub version: u32,
    programs: PathBuf,
    child: Mutex<Child>,
}

static SHARED: Mutex<Option<HashMap<u32, Weak<Server>>>> = Mutex::new(None);

impl Server {
    /// Returns the server of this major version, which ends with the last test that uses it.
    pub(crate) async fn shared(version: u32) -> Arc<Self> {
        tokio::task::spawn_blocking(move || {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            let servers = shared.get_or_insert_default();
            servers.get(&version).and_then(Weak::upgrade).unwrap_or_else(|| {
                let server = Arc::new(Self::start(version));
                servers.insert(version, Arc::downgrade(&server));
                server
            })
        })
        .await
        .expect("the server starts")
    }

    /// Starts a separate server.
    pub(crate) fn start(version: u32) -> Self {
        let dir = TempDir::new().unwrap();
        // Another account may not read root's folders.
        copy(programs(version).parent().unwrap(), &dir.path().join("postgres"));
        let programs = dir.path().join("postgres/bin");
        certificates(dir.path());
        give_to_server(dir.path());
        let data = dir.path().join("data");
        let output = as_server(&programs.join("initdb"))
            .args(["-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        for file in ["server.crt", "server.key"] {
            fs::rename(dir.path().join(file), data.join(file)).unwrap();
        }
        append(&data.join("postgresql.conf"), CONF);
        Self::run(version, programs, dir)
    }

    /// Starts a standby that has all data of this server up to now, and receives no more. This server is
    /// stopped while it is copied.
    pub(crate) fn standby(&self) -> Self {
        self.stop();
        let dir = TempDir::new().unwrap();
        copy(&self.data(), &dir.path().join("data"));
        *self.child.lock().unwrap() = serve(&self.programs, self.dir.path(), self.port);
        self.wait();
        give_to_server(dir.path());
        fs::write(dir.path().join("data/standby.signal"), "").unwrap();
        Self::run(self.version, self.programs.clone(), dir)
    }

    fn run(version: u32, programs: PathBuf, dir: TempDir) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Mutex::new(serve(&programs, dir.path(), port));
        let server = Self { dir, port, version, programs, child };
        server.wait();
        if !server.data().join("standby.signal").exists() {
            let sql = "CREATE ROLE by_trust; CREATE ROLE by_password; CREATE ROLE by_md5; CREATE ROLE by_nothing; \
                       CREATE EXTENSION pg_stat_statements;";
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.sql("postgres", sql));
        }
        server
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        // It listens before it can serve; its log says when it is ready.
        while !self.log().contains("ready to accept") || TcpStream::connect(("127.0.0.1", self.port)).is_err()
        {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "it does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Returns the certificate of the authority that signed its own.
    pub(crate) fn ca(&self) -> String {
        fs::read_to_string(self.dir.path().join("ca.crt")).unwrap()
    }

    /// Opens a session of the superuser on the local socket.
    pub(crate) async fn superuser(&self, database: &str) -> Client {
        let config = format!(
            "host={} port={} user=postgres dbname={database} connect_timeout=30",
            self.dir.path().display(),
            self.port
        );
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs statements as the superuser.
    pub(crate) async fn sql(&self, database: &str, sql: &str) {
        let done = self.superuser(database).await.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Returns the first row of a query that the superuser runs.
    pub(crate) async fn row(&self, database: &str, query: &str) -> Row {
        let row = self.superuser(database).await.query_one(query, &[]).await;
        row.unwrap_or_else(|error| panic!("{query}: {error:?}"))
    }

    fn stop(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // SIGINT ends sessions and writes all data to the disk.
        let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        let _ = child.wait();
        let _ = fs::remove_file(self.dir.path().join("log"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = Command::new("kill").args(["-QUIT", &child.id().to_string()]).status();
        let _ = child.wait();
    }
}

fn serve(programs: &Path, dir: &Path, port: u16) -> Child {
    let log = File::create(dir.join("log")).unwrap();
    as_server(&programs.join("postgres"))
        .arg("-D")
        .arg(dir.join("data"))
        .args(["-p", &port.to_string(), "-k"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Returns the folder with the programs of this major version.
fn programs(version: u32) -> PathBuf {
    let folders = std::env::var("KEYTURN_POSTGRES").unwrap_or_default();
    let wanted = format!(") {version}.");
    let is_it = |folder: &Path| {
        let output = Command::new(folder.join("postgres")).arg("--version").output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&wanted))
    };
    std::env::split_paths(&folders).find(|folder| is_it(folder)).unwrap_or_else(|| {
        panic!("no Postgres {version} in KEYTURN_POSTGRES: bring the world up and run `eval \"$(dev/world env)\"`")
    })
}

#[expect(unsafe_code, reason = "the standard library does not say who runs it")]
fn is_root() -> bool {
    // SAFETY: the call only reads.
    unsafe { libc::geteuid() == 0 }
}

/// Returns a command that does not run as root, which a server and a pooler would refuse.
pub(crate) fn as_server(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command
}

pub(crate) fn give_to_server(dir: &Path) {
    if is_root() {
        let given = Command::new("chown").args(["-R", "65534:65534"]).arg(dir).status().unwrap();
        assert!(given.success());
    }
}

/// Creates an authority, and a certificate of it for `localhost`.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let days = "-days 30 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
    openssl(&format!("req -x509 {days} -keyout ca.key -out ca.crt -subj /CN=authority"));
    openssl(&format!(
        "req -x509 {days} -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt -subj /CN=localhost -addext \
         subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    ));
    fs::set_permissions(dir.join("server.key"), Permissions::from_mode(0o600)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn append(file: &Path, text: &str) {
    let content = fs::read_to_string(file).unwrap();
    fs::write(file, content + text).unwrap();
}
