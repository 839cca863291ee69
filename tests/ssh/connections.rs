//! Tests connections, commands and tunnels with a real sshd.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use keyturn::api::docker_host::RunResult;
use keyturn::deploy::ssh::client_key::ClientKey;
use keyturn::deploy::ssh::connection::{Connection, Exit, Login, Output, SshError, Timeouts};
use keyturn::deploy::ssh::known_hosts::KnownHosts;
use keyturn::deploy::task::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sshd::{Sshd, keygen, kill, public_key, run, wait_for, wait_until};

/// Runs a command and collects its output.
async fn exec(connection: &Connection, command: &str, input: &[u8]) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = connection
        .exec(command, input, 1 << 20, |stream, data| match stream {
            Output::Stdout => out.extend_from_slice(data),
            Output::Stderr => err.extend_from_slice(data),
        })
        .await
        .unwrap();
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[tokio::test]
async fn a_command_gets_its_input_and_gives_output_and_exit_code() {
    let sshd = Sshd::start();
    let connection = sshd.connect().await.unwrap();
    let (exit, out, err) = exec(&connection, "cat; echo wrong >&2; exit 3", b"line\nlast").await;
    assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Code(3), "line\nlast", "wrong\n"));
    let (exit, ..) = exec(&connection, "kill -TERM $$", b"").await;
    assert_eq!(exit, Exit::Signal("TERM".to_owned()));
}

#[tokio::test]
async fn input_and_output_larger_than_any_window_pass_at_once() {
    let sshd = Sshd::start();
    let connection = sshd.connect().await.unwrap();
    let input = vec![b'x'; 8 << 20];
    let mut received = 0;
    let exit = connection.exec("cat", &input, usize::MAX, |_, data| received += data.len()).await.unwrap();
    assert_eq!((exit, received), (Exit::Code(0), input.len()));
}

#[tokio::test]
async fn output_above_the_limit_is_dropped_and_the_command_still_ends() {
    let sshd = Sshd::start();
    let connection = sshd.connect().await.unwrap();
    let mut received = 0;
    let command = "head -c 5000000 /dev/zero; echo done >&2; exit 4";
    let exit = connection.exec(command, b"", 1000, |_, data| received += data.len()).await.unwrap();
    assert_eq!((exit, received), (Exit::Code(4), 1005));
}

#[tokio::test]
async fn a_background_child_that_holds_the_channel_does_not_hold_up_the_result() {
    let sshd = Sshd::start();
    let connection = sshd.connect().await.unwrap();
    let pid = sshd.path("pid");
    let command = format!("sleep 300 & echo $! > {}; echo started; exit 5", pid.display());
    let (exit, out, _) = tokio::time::timeout(Duration::from_secs(60), exec(&connection, &command, b""))
        .await
        .expect("the command ended, its child did not");
    assert_eq!((exit, out.as_str()), (Exit::Code(5), "started\n"));
    kill(fs::read_to_string(pid).unwrap().trim().parse().unwrap());
}

#[tokio::test]
async fn an_end_without_exit_status_is_never_a_success() {
    let sshd = Sshd::start();
    let connection = sshd.connect().await.unwrap();
    let started = sshd.path("started");
    let command = format!("touch {}; exec sleep 300", started.display());
    let (error, ()) = tokio::join!(connection.exec(&command, b"", 0, |_, _| {}), async {
        wait_until("the command to start", || started.exists()).await;
        sshd.sessions().into_iter().for_each(kill);
    });
    let error = error.unwrap_err();
    assert!(matches!(error, SshError::OutcomeUnknown { .. }), "{error}");
    assert_eq!(error.outcome(), RunResult::ConnectionLost);
}

#[tokio::test]
async fn a_host_that_stops_answering_is_noticed() {
    let sshd = Sshd::start();
    let known = Arc::new(KnownHosts::parse(&[sshd.known_hosts_line("host_ed25519")]));
    let timeouts = Timeouts {
        connect: Duration::from_secs(20),
        keepalive_interval: Duration::from_millis(200),
        keepalive_max: 2,
    };
    let (endpoint, key) = (sshd.endpoint(), sshd.client_key());
    let connection =
        Connection::open(Login { endpoint: &endpoint, key: &key }, None, known, timeouts).await.unwrap();
    for session in sshd.sessions() {
        run("kill", &["-STOP", &session.to_string()]);
    }
    let error = connection.exec("true", b"", 0, |_, _| {}).await.unwrap_err();
    assert_eq!(error.outcome(), RunResult::ConnectionLost, "{error}");
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_unreachable() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let sshd = Sshd::start();
    let endpoint = Endpoint { port, ..sshd.endpoint() };
    let timeouts = Timeouts { connect: Duration::from_millis(300), ..Timeouts::default() };
    let login = Login { endpoint: &endpoint, key: &sshd.client_key() };
    let error = Connection::open(login, None, Arc::default(), timeouts).await.err().unwrap();
    assert!(matches!(error, SshError::Unreachable { .. }), "{error}");

    drop(silent);
    let error = Connection::open(login, None, Arc::default(), timeouts).await.err().unwrap();
    assert!(matches!(error, SshError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn an_unknown_host_key_is_refused_before_the_login_and_the_remedy_works() {
    let sshd = Sshd::start();
    keygen(&sshd.path("stranger"), &["-t", "ed25519"]);
    let wrong = format!("[127.0.0.1]:{} {}", sshd.port, public_key(&sshd.path("stranger")));
    let error = sshd.connect_with(&sshd.client_key(), &[wrong]).await.err().unwrap();
    assert_eq!(error.outcome(), RunResult::HostKeyRefused);
    let fingerprint = run("ssh-keygen", &["-lf", sshd.path("host_ed25519.pub").to_str().unwrap()]);
    let fingerprint = fingerprint.split(' ').nth(1).unwrap();
    assert!(error.to_string().contains(fingerprint), "{error} lacks {fingerprint}");
    wait_for("sshd to log the end", || sshd.log().contains("Connection closed by 127.0.0.1").then_some(()));
    assert!(!sshd.log().contains("for user") && !sshd.log().contains("publickey"), "{}", sshd.log());

    let SshError::HostKey(refused) = error else { panic!("{error}") };
    sshd.connect_with(&sshd.client_key(), &[refused.line]).await.unwrap();
}

#[tokio::test]
async fn the_host_proves_itself_with_the_type_that_is_recorded() {
    let sshd = Sshd::start();
    sshd.connect_with(&sshd.client_key(), &[sshd.known_hosts_line("host_ecdsa")]).await.unwrap();
}

#[tokio::test]
async fn a_host_certificate_of_a_trusted_authority_is_accepted() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    keygen(&dir.path().join("ca"), &["-t", "ed25519"]);
    keygen(&dir.path().join("host"), &["-t", "ed25519"]);
    run("ssh-keygen", &["-q", "-s", &path("ca"), "-I", "id", "-h", "-n", "127.0.0.1", &path("host.pub")]);
    let sshd = Sshd::start_with(&format!("HostKey {0}\nHostCertificate {0}-cert.pub", path("host")));
    let authority = format!("@cert-authority * {}", public_key(&dir.path().join("ca")));
    sshd.connect_with(&sshd.client_key(), std::slice::from_ref(&authority)).await.unwrap();

    let revoked = format!("@revoked * {}", public_key(&dir.path().join("ca")));
    let error = sshd.connect_with(&sshd.client_key(), &[authority, revoked]).await.err().unwrap();
    assert_eq!(error.outcome(), RunResult::HostKeyRefused, "{error}");
}

#[tokio::test]
async fn a_host_with_rsa_host_keys_only_is_refused_with_the_remedy() {
    let dir = tempfile::TempDir::new().unwrap();
    keygen(&dir.path().join("host"), &["-t", "rsa", "-b", "2048"]);
    let host = dir.path().join("host");
    let sshd =
        Sshd::start_with(&format!("HostKey {}\nHostKeyAlgorithms rsa-sha2-512,rsa-sha2-256", host.display()));
    let line = format!("[127.0.0.1]:{} {}", sshd.port, public_key(&host));
    let error = sshd.connect_with(&sshd.client_key(), &[line]).await.err().unwrap();
    assert!(matches!(error, SshError::HostKeyType { .. }), "{error}");
    assert!(error.to_string().contains("rsa-sha2-512"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_authorized_is_named() {
    let sshd = Sshd::start();
    keygen(&sshd.path("stranger"), &["-t", "ed25519"]);
    let key = ClientKey::parse(&fs::read(sshd.path("stranger")).unwrap()).unwrap();
    let error = sshd.connect_with(&key, &[sshd.known_hosts_line("host_ed25519")]).await.err().unwrap();
    assert_eq!(error.outcome(), RunResult::AuthenticationFailed);
    assert!(error.to_string().contains(&key.fingerprint()), "{error}");
}

#[tokio::test]
async fn a_jump_host_carries_the_connection_and_both_host_keys_count() {
    let (jump, target) = (Sshd::start(), Sshd::start());
    let (jump_endpoint, jump_key) = (jump.endpoint(), jump.client_key());
    let (target_endpoint, target_key) = (target.endpoint(), target.client_key());
    let open = async |lines: &[String]| {
        Connection::open(
            Login { endpoint: &target_endpoint, key: &target_key },
            Some(Login { endpoint: &jump_endpoint, key: &jump_key }),
            Arc::new(KnownHosts::parse(lines)),
            Timeouts::default(),
        )
        .await
    };
    let lines = [jump.known_hosts_line("host_ed25519"), target.known_hosts_line("host_ed25519")];
    let connection = open(&lines).await.unwrap();
    let (exit, port, _) = exec(&connection, "echo ${SSH_CONNECTION##* }", b"").await;
    assert_eq!((exit, port.trim()), (Exit::Code(0), target.port.to_string().as_str()));
    assert!(!jump.sessions().is_empty(), "the connection went through the jump host");

    for (line, host) in [(&lines[0], target.port), (&lines[1], jump.port)] {
        let error = open(std::slice::from_ref(line)).await.err().unwrap();
        assert_eq!(error.outcome(), RunResult::HostKeyRefused);
        assert!(error.to_string().contains(&host.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_says_why_it_cannot() {
    let sshd = Sshd::start();
    let connection = sshd.connect().await.unwrap();
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    let mut tunnel = connection.direct_tcpip("127.0.0.1", port).await.unwrap();
    let (mut peer, _) = echo.accept().await.unwrap();
    let sent = vec![7; 300_000];
    let mut back = Vec::new();
    let echoed = async {
        let (mut from, mut to) = peer.split();
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (mut from, mut to) = tokio::io::split(&mut tunnel);
    let sending = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let ((), (), read) = tokio::join!(echoed, sending, from.read_to_end(&mut back));
    assert_eq!((read.unwrap(), back == sent), (sent.len(), true));

    // A low port, since other tests take released ports at once.
    let error = connection.direct_tcpip("127.0.0.1", 1).await.err().unwrap();
    assert!(matches!(error, SshError::TunnelRefused { .. }), "{error}");

    let closed = Sshd::start_with("AllowTcpForwarding no");
    let error = closed.connect().await.unwrap().direct_tcpip("127.0.0.1", 1).await.err().unwrap();
    assert!(error.to_string().contains("AllowTcpForwarding"), "{error}");
}
