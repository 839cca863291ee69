//! A real sshd for a test, and the commands that make its keys.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyturn::deploy::ssh::client_key::ClientKey;
use keyturn::deploy::ssh::connection::{Connection, Login, SshError, Timeouts};
use keyturn::deploy::ssh::known_hosts::KnownHosts;
use keyturn::deploy::task::Endpoint;
use tempfile::TempDir;

/// Runs a command that must succeed, and returns its standard output.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Creates a key pair with ssh-keygen: `path` and `path.pub`.
pub(crate) fn keygen(path: &Path, args: &[&str]) {
    let path = path.to_str().unwrap();
    let passphrase: &[&str] = if args.contains(&"-N") { &[] } else { &["-N", ""] };
    run("ssh-keygen", &[&["-q", "-f", path, "-C", "comment"][..], passphrase, args].concat());
}

/// Returns type and key of a `.pub` file, without the comment.
pub(crate) fn public_key(path: &Path) -> String {
    let mut file = path.as_os_str().to_owned();
    file.push(".pub");
    let text = fs::read_to_string(file).unwrap();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Waits until `ready` returns something; panics with `what` after a minute.
pub(crate) fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same for an async test, so that other futures of its task can run.
pub(crate) async fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn user() -> String {
    run("id", &["-un"]).trim().to_owned()
}

/// A running sshd with its own keys and folder, and one client key that it accepts.
pub(crate) struct Sshd {
    pub dir: TempDir,
    pub port: u16,
    child: Child,
}

impl Sshd {
    /// Starts a server with an ed25519 and an ECDSA host key.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a server with additional lines of configuration.
    pub(crate) fn start_with(config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        keygen(&dir.path().join("host_ed25519"), &["-t", "ed25519"]);
        keygen(&dir.path().join("host_ecdsa"), &["-t", "ecdsa"]);
        keygen(&dir.path().join("client"), &["-t", "ed25519"]);
        fs::copy(dir.path().join("client.pub"), dir.path().join("authorized_keys")).unwrap();
        let config = configuration(dir.path(), &["host_ed25519", "host_ecdsa"], config);
        fs::write(dir.path().join("sshd_config"), config).unwrap();
        let (port, child) = listen(dir.path());
        Self { dir, port, child }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { host: "127.0.0.1".to_owned(), port: self.port, user: user() }
    }

    /// Returns the line of known_hosts for one of the host's keys.
    pub(crate) fn known_hosts_line(&self, key: &str) -> String {
        format!("[127.0.0.1]:{} {}", self.port, public_key(&self.path(key)))
    }

    pub(crate) fn client_key(&self) -> ClientKey {
        ClientKey::parse(&fs::read(self.path("client")).unwrap()).unwrap()
    }

    pub(crate) fn authorize(&self, public_key: &str) {
        fs::write(self.path("authorized_keys"), format!("{public_key}\n")).unwrap();
    }

    /// Returns sshd's log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("sshd.log")).unwrap_or_default()
    }

    /// Connects with its own client key, and accepts its ed25519 host key.
    pub(crate) async fn connect(&self) -> Result<Connection, SshError> {
        self.connect_with(&self.client_key(), &[self.known_hosts_line("host_ed25519")]).await
    }

    pub(crate) async fn connect_with(
        &self,
        key: &ClientKey,
        known_hosts: &[String],
    ) -> Result<Connection, SshError> {
        let login = Login { endpoint: &self.endpoint(), key };
        Connection::open(login, None, Arc::new(KnownHosts::parse(known_hosts)), Timeouts::default()).await
    }

    /// Returns the processes of this sshd that serve one connection each.
    pub(crate) fn sessions(&self) -> Vec<u32> {
        children(self.child.id())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for session in self.sessions() {
            kill(session);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Returns the processes whose parent is `parent`.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in parentheses may contain anything; the parent is the second field behind it.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        if fields.split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push(pid);
        }
    }
    found
}

/// Returns the content of an sshd_config whose files are in `dir`.
pub(crate) fn configuration(dir: &Path, host_keys: &[&str], more: &str) -> String {
    let dir = dir.to_str().unwrap();
    let mut config = String::new();
    for key in host_keys {
        writeln!(config, "HostKey {dir}/{key}").unwrap();
    }
    write!(
        config,
        "AuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\nLogLevel VERBOSE\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         MaxStartups 100\n{more}\n"
    )
    .unwrap();
    config
}

/// Returns the full path of sshd, which must be started by its full path.
pub(crate) fn sshd_program() -> String {
    // sshd started by root changes its root to this folder before a login; a package's service would have created
    // it.
    let _ = fs::create_dir_all("/run/sshd");
    ["/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("sshd is needed for this test: install openssh-server")
        .to_owned()
}

fn listen(dir: &Path) -> (u16, Child) {
    for _ in 0..10 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(sshd_program())
            .arg("-D")
            .arg("-f")
            .arg(dir.join("sshd_config"))
            .arg("-E")
            .arg(dir.join("sshd.log"))
            .args(["-o", &format!("ListenAddress=127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let listening = wait_for("sshd to listen", || {
            if child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            TcpStream::connect(("127.0.0.1", port)).ok().map(|_| true)
        });
        if listening {
            return (port, child);
        }
    }
    panic!("sshd does not start: {}", fs::read_to_string(dir.join("sshd.log")).unwrap_or_default());
}
