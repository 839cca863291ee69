//! Tests the docker host of the world: for SSH it is another machine, with an account that is not root and calls docker
//! through sudo.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use keyturn::api::docker_host::Proof;
use keyturn::api::docker_host::RunResult;
use keyturn::deploy::report::DeployKind;
use keyturn::deploy::runner::run;
use keyturn::deploy::ssh::client_key::ClientKey;
use keyturn::deploy::ssh::connection::{Connection, Exit, Login, Timeouts};
use keyturn::deploy::ssh::known_hosts::KnownHosts;
use keyturn::deploy::task::{Endpoint, Task};

use crate::host::{Host, Watch, parameter, quick};
use crate::proofs::{Container, proof};

fn world(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: bring the world up and run `eval \"$(dev/world env)\"`")
    })
}

#[tokio::test]
#[ignore = "needs the world"]
async fn an_account_with_sudo_deploys_and_proves_with_every_kind_of_key() {
    // Only the name of this host's project is used.
    let host = Host::start();
    let _app = Container::start(&host, "app", &[("TOKEN", "new"), ("OTHER", "old")]);
    let key_file = PathBuf::from(world("KEYTURN_HOST_KEY"));
    let known_hosts = fs::read_to_string(world("KEYTURN_HOST_KNOWN_HOSTS")).unwrap();
    let task = Task {
        ssh: Endpoint {
            host: world("KEYTURN_HOST"),
            port: world("KEYTURN_HOST_PORT").parse().unwrap(),
            user: world("KEYTURN_HOST_USER"),
        },
        known_hosts: vec![known_hosts],
        sudo: true,
        verify_script: Some("test $(id -u) != 0".to_owned()),
        ..host.task("abc1", "id -un")
    };
    let mut kinds = Vec::new();
    for kind in ["deploy_ed25519", "deploy_ecdsa", "deploy_rsa"] {
        let key = ClientKey::parse(&fs::read(key_file.with_file_name(kind)).unwrap()).unwrap();
        let watch = Watch::default();
        let task = Task { parameters: vec![parameter("/test/TOKEN", 1, "TOKEN", "new")], ..task.clone() };
        let report = run(&task, &key, None, &quick(), &watch).await;
        assert_eq!(report.outcome, RunResult::Succeeded, "{kind}: {report:?}");
        assert_eq!(watch.output(), format!("{}\n", task.ssh.user));
        kinds.push(report.deploy.unwrap());
    }
    assert_eq!(kinds, [DeployKind::Started, DeployKind::Replayed, DeployKind::Replayed]);

    let key = ClientKey::parse(&fs::read(key_file).unwrap()).unwrap();
    let last = Task {
        revision: "abc2".to_owned(),
        deploy_script: "exit 0".to_owned(),
        parameters: vec![parameter("/test/OTHER", 1, "OTHER", "new")],
        ..task
    };
    let report = run(&last, &key, None, &quick(), &Watch::default()).await;
    assert_eq!(
        (report.outcome, report.parameters[0].differs_in.len()),
        (RunResult::NotAdopted, 1),
        "{report:?}"
    );
    assert_eq!(proof(&report, "OTHER"), Some(Proof::Differs));

    // Nothing of the test remains on the host.
    let tidy = format!("rm -rf ~/.local/state/keyturn/{}", host.project);
    let login = Login { endpoint: &last.ssh, key: &key };
    let known_hosts = Arc::new(KnownHosts::parse(&last.known_hosts));
    let connection = Connection::open(login, None, known_hosts, Timeouts::default()).await.unwrap();
    assert_eq!(connection.exec(&tidy, b"", 0, |_, _| {}).await.unwrap(), Exit::Code(0));
}
