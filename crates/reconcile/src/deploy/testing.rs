//! Objects for the tests of deployment: a host `web` in namespace `prod`, secrets on it, times in seconds.

use chrono::DateTime;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keyturn_api::docker_host::{DockerHostStatus, HostParameter, HostRun, Proof, RunMode, RunResult};
use keyturn_api::managed_secret::{
    ManagedSecretStatus, Origin, PreflightStatus, PublishedParameter, RotationStatus, Step, Trigger,
};
use keyturn_api::time::to_kubernetes;
use keyturn_api::{DockerHost, ManagedSecret};
use serde_json::json;

const HOST_KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIFCEhISPYiGBTr7St3mp5UeJwciGEHgzmxVdE0+FbIgy";

pub(crate) fn at(seconds: i64) -> Time {
    to_kubernetes(DateTime::from_timestamp(seconds, 0).unwrap())
}

pub(crate) fn host(name: &str) -> DockerHost {
    let mut host: DockerHost = serde_json::from_value(json!({
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "DockerHost",
        "metadata": {"name": name, "namespace": "prod", "uid": format!("uid-of-{name}"), "generation": 1},
        "spec": {
            "ssh": {
                "host": format!("{name}.example"), "user": "deploy",
                "keySecretRef": {"name": "web-key", "key": "id.pem"},
                "knownHosts": [format!("{name}.example ssh-ed25519 {HOST_KEY}")]
            },
            "docker": {"composeProject": "app", "sudo": true},
            "deploy": {"script": "deploy.sh"},
            "verify": {"script": "curl -sf https://localhost/"}
        }
    }))
    .unwrap();
    host.status = Some(DockerHostStatus::default());
    host
}

pub(crate) fn with_status(mut host: DockerHost, change: impl FnOnce(&mut DockerHostStatus)) -> DockerHost {
    change(host.status.get_or_insert_default());
    host
}

/// A secret on host `web`.
pub(crate) fn secret(name: &str, paths: &[&str]) -> ManagedSecret {
    let parameters: Vec<_> = paths.iter().map(|path| json!({"path": path})).collect();
    serde_json::from_value(json!({
        "apiVersion": "keyturn.dev/v1alpha1",
        "kind": "ManagedSecret",
        "metadata": {
            "name": name, "namespace": "prod", "generation": 1, "creationTimestamp": "1970-01-01T00:00:00Z"
        },
        "spec": {
            "ssm": {"parameters": parameters},
            "generate": {"hex": {"bytes": 32}},
            "rotation": {"period": "90d"},
            "hosts": [{"name": "web"}]
        }
    }))
    .unwrap()
}

pub(crate) fn published(mut secret: ManagedSecret, versions: &[(&str, i64, Origin)]) -> ManagedSecret {
    let status = secret.status.get_or_insert_with(ManagedSecretStatus::default);
    status.parameters = versions
        .iter()
        .map(|(path, version, origin)| PublishedParameter {
            path: (*path).to_owned(),
            version: *version,
            origin: *origin,
            published_at: at(*version),
        })
        .collect();
    secret
}

pub(crate) fn rotating(mut secret: ManagedSecret, step: Step, since: i64) -> ManagedSecret {
    secret.status.get_or_insert_with(ManagedSecretStatus::default).rotation = Some(RotationStatus {
        id: 1,
        trigger: Trigger::Period,
        step,
        request: None,
        started_at: at(since),
        installed_at: None,
        proven_at: None,
        attempts: 0,
        message: String::new(),
    });
    secret
}

pub(crate) fn preflight(mut secret: ManagedSecret, requested: i64) -> ManagedSecret {
    secret.status.get_or_insert_with(ManagedSecretStatus::default).preflight =
        Some(PreflightStatus { requested_at: at(requested) });
    secret
}

pub(crate) fn shown(path: &str, version: i64, proof: Proof, deployed: bool, when: i64) -> HostParameter {
    HostParameter { path: path.into(), version, published_at: at(version), proof, at: at(when), deployed }
}

/// A run that ended at `finished` with this many failures in a row; it still runs where `finished` is `None`.
pub(crate) fn run(
    mode: RunMode,
    revision: &str,
    attempt: i32,
    finished: Option<i64>,
    failures: i32,
) -> HostRun {
    HostRun {
        revision: revision.into(),
        mode,
        job: format!("web-{revision}-{attempt}"),
        attempt,
        started_at: at(finished.unwrap_or(0) - 10),
        finished_at: finished.map(at),
        result: finished.map(|_| if failures > 0 { RunResult::DeployFailed } else { RunResult::Succeeded }),
        message: None,
        generation: 1,
        failures,
        rejections: failures,
        retry_after: (failures > 0).then(|| at(finished.unwrap_or(0) + 60)),
        parameters: Vec::new(),
    }
}
