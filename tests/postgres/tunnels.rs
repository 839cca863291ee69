//! Tests a server that listens on the loopback address of a docker host, reached through a real sshd.

use std::sync::Arc;

use keyturn::deploy::ssh::known_hosts::KnownHosts;
use keyturn::rotation::observed::Acceptance;
use keyturn::source::postgres::{Postgres, ThroughHost};
use keyturn::source::{Installs, Target};

use crate::scene::{Scene, login, password};
use crate::server::Server;
use crate::sshd::Sshd;

fn through(sshd: &Sshd, port: u16, known_hosts: &str) -> Arc<ThroughHost> {
    let known_hosts = Arc::new(KnownHosts::parse(&[known_hosts.to_owned()]));
    let host = (sshd.endpoint(), sshd.client_key());
    Arc::new(ThroughHost::new("production".to_owned(), host, None, known_hosts, port))
}

pub(crate) async fn a_server_behind_a_docker_host_is_reached_through_one_ssh_connection(server: Arc<Server>) {
    let scene = Scene::new(server).await;
    let sshd = Sshd::start();
    let (role, old) = (scene.role("app"), password());
    scene.create(&role, &old).await;
    let spec = scene.single(&role);
    let target = |dial| {
        Postgres::new(&spec, dial, Some(scene.administrator()), "world/ns/s".to_owned(), false).unwrap()
    };
    let right = sshd.known_hosts_line("host_ed25519");
    let reached = target(through(&sshd, scene.server.port, &right));
    let new = login(&role, &password());
    reached.install(1, &new, &[]).await.unwrap();
    assert_eq!(reached.try_login(&new).await, Acceptance::Accepted);
    assert_eq!(reached.observe().await.unwrap().fences[&role].0, 1);
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "{}", sshd.log());

    // A closed connection is replaced.
    sshd.sessions().into_iter().for_each(crate::sshd::kill);
    let again = async {
        while reached.try_login(&new).await.unknown().is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), again).await.unwrap();
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 2);

    let stranger = target(through(&sshd, scene.server.port, "other ssh-ed25519 AAAA"));
    let error = stranger.try_login(&new).await.unknown().unwrap();
    assert!(error.reason == "HostKeyRefused" && error.is_permanent(), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = target(through(&sshd, nobody, &right)).try_login(&new).await.unknown().unwrap();
    assert!(
        error.reason == "TargetUnreachable" && error.message.contains("docker host production"),
        "{error}"
    );
}
