//! Decides which objects are reconciled again when another object has changed.

use std::collections::BTreeSet;

use keyturn_api::{DockerHost, ManagedSecret, SecretIncident};
use kube::ResourceExt;

use crate::deploy::wish::names_host;
use crate::incident::scope;

/// Name of an object to reconcile, in the namespace of the object that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Name of a ManagedSecret.
    Secret(String),
    /// Name of a DockerHost.
    Host(String),
    /// Name of a SecretIncident.
    Incident(String),
}

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody created or changed the object.
    Applied,
    /// This process wrote the object: its own reconciler knows the change, other reconcilers may not.
    Written,
    /// The object is gone from the API server.
    Deleted,
}

/// All objects in the namespace of the object that changed, as far as they can be decoded.
pub trait Neighbours {
    /// Returns all ManagedSecrets.
    fn secrets(&self) -> impl Iterator<Item = &ManagedSecret>;
    /// Returns all DockerHosts.
    fn hosts(&self) -> impl Iterator<Item = &DockerHost>;
    /// Returns all SecretIncidents.
    fn incidents(&self) -> impl Iterator<Item = &SecretIncident>;
}

/// Returns the objects to reconcile after a change of a ManagedSecret. `secret` is `None` if it cannot be decoded.
pub fn of_secret(
    name: &str,
    secret: Option<&ManagedSecret>,
    change: Change,
    neighbours: &impl Neighbours,
) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    if change == Change::Applied {
        keys.insert(Key::Secret(name.to_owned()));
    }
    let Some(secret) = secret else { return keys };
    // Hosts deploy the versions that the secret's status shows as published. After a deletion, they no longer have to.
    keys.extend(hosts_of(secret));
    let about_it = neighbours.incidents().filter(|incident| scope::concerns(incident, secret));
    keys.extend(about_it.map(ResourceExt::name_any).map(Key::Incident));
    if change == Change::Deleted {
        // A secret may have waited for the deleted secret to give up a parameter.
        let others = neighbours.secrets().filter(|other| other.name_any() != name);
        let waiting = others.filter(|other| share_a_parameter(secret, other));
        keys.extend(waiting.map(ResourceExt::name_any).map(Key::Secret));
    }
    keys
}

/// Returns the objects to reconcile after a change of a DockerHost. `host` is `None` if it cannot be decoded.
pub fn of_host(
    name: &str,
    host: Option<&DockerHost>,
    change: Change,
    neighbours: &impl Neighbours,
) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    if change == Change::Applied {
        keys.insert(Key::Host(name.to_owned()));
    }
    let naming = neighbours.secrets().filter(|secret| names_host(secret, name) || goes_through(secret, name));
    keys.extend(naming.map(ResourceExt::name_any).map(Key::Secret));
    // Incidents copy the log lines that the host has collected for them.
    if host.is_some_and(|host| host.status.iter().any(|status| !status.access_logs.is_empty())) {
        keys.extend(neighbours.incidents().map(ResourceExt::name_any).map(Key::Incident));
    }
    let after_it = neighbours.hosts().filter(|other| other.spec.deploy.after.iter().any(|one| one == name));
    keys.extend(after_it.map(ResourceExt::name_any).map(Key::Host));
    keys
}

/// Returns the objects to reconcile after a change of a SecretIncident. `incident` is `None` if it cannot be decoded.
pub fn of_incident(
    name: &str,
    incident: Option<&SecretIncident>,
    change: Change,
    neighbours: &impl Neighbours,
) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    if change == Change::Applied {
        keys.insert(Key::Incident(name.to_owned()));
    }
    let Some(incident) = incident else { return keys };
    for secret in neighbours.secrets().filter(|secret| scope::concerns(incident, secret)) {
        // Hosts collect log lines once the incident's status says that a secret is contained.
        if secret.spec.access_log.is_some() {
            keys.extend(hosts_of(secret));
        }
        if change != Change::Written {
            keys.insert(Key::Secret(secret.name_any()));
        }
    }
    keys
}

/// True when the secret's server is reached through this host.
fn goes_through(secret: &ManagedSecret, host: &str) -> bool {
    secret.spec.generate.docker_host() == Some(host)
}

/// Returns the hosts that are reconciled when the secret changes.
fn hosts_of(secret: &ManagedSecret) -> impl Iterator<Item = Key> {
    secret.host_names().map(|name| Key::Host(name.to_owned()))
}

fn share_a_parameter(one: &ManagedSecret, other: &ManagedSecret) -> bool {
    let theirs = &other.spec.ssm.parameters;
    one.spec.ssm.parameters.iter().any(|mine| theirs.iter().any(|their| their.path == mine.path))
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Default)]
    struct Namespace {
        secrets: Vec<ManagedSecret>,
        hosts: Vec<DockerHost>,
        incidents: Vec<SecretIncident>,
    }

    impl Neighbours for Namespace {
        fn secrets(&self) -> impl Iterator<Item = &ManagedSecret> {
            self.secrets.iter()
        }

        fn hosts(&self) -> impl Iterator<Item = &DockerHost> {
            self.hosts.iter()
        }

        fn incidents(&self) -> impl Iterator<Item = &SecretIncident> {
            self.incidents.iter()
        }
    }

    fn object<K: DeserializeOwned>(kind: &str, name: &str, spec: Value, status: Value) -> K {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": "prod"}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn secret(name: &str, path: &str, more: Value) -> ManagedSecret {
        let mut spec = json!({
            "ssm": {"parameters": [{"path": path}]}, "generate": {"hex": {"bytes": 32}}, "rotation": {"period": "90d"},
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object("ManagedSecret", name, spec, Value::Null)
    }

    fn host(name: &str, after: &[&str]) -> DockerHost {
        let spec = json!({
            "ssh": {"host": "h", "user": "deploy", "keySecretRef": {"name": "k", "key": "id"}, "knownHosts": []},
            "docker": {"composeProject": "app"}, "deploy": {"script": "x", "after": after}, "verify": {"script": "y"},
        });
        object("DockerHost", name, spec, Value::Null)
    }

    fn incident(about: &str) -> SecretIncident {
        let refs = json!([{"name": about}]);
        let spec = json!({"reportedAt": "2026-11-23T12:00:00Z", "managedSecretRefs": refs});
        object("SecretIncident", "leak", spec, Value::Null)
    }

    /// `token` and `login` run on web; api is deployed to after web; the incident is about `token`.
    fn namespace() -> Namespace {
        let on_web = json!({"hosts": [{"name": "web"}], "accessLog": {"script": "cat log"}});
        Namespace {
            secrets: vec![
                secret("token", "/app/TOKEN", on_web.clone()),
                secret("login", "/app/LOGIN", json!({"hosts": [{"name": "web"}]})),
                secret("twin", "/app/TOKEN", json!({})),
            ],
            hosts: vec![host("web", &[]), host("api", &["web"])],
            incidents: vec![incident("token")],
        }
    }

    fn keys(secrets: &[&str], hosts: &[&str], incidents: &[&str]) -> BTreeSet<Key> {
        let of = |names: &[&str], key: fn(String) -> Key| {
            names.iter().map(|name| key((*name).to_owned())).collect::<Vec<_>>()
        };
        let secrets = of(secrets, Key::Secret).into_iter().chain(of(hosts, Key::Host));
        secrets.chain(of(incidents, Key::Incident)).collect()
    }

    #[test]
    fn a_secret_concerns_its_hosts_and_the_incidents_about_it() {
        let all = namespace();
        let token = Some(&all.secrets[0]);
        let of = |change| of_secret("token", token, change, &all);
        assert_eq!(of(Change::Applied), keys(&["token"], &["web"], &["leak"]));
        assert_eq!(of(Change::Written), keys(&[], &["web"], &["leak"]), "who wrote it need not look again");
        assert_eq!(of(Change::Deleted), keys(&["twin"], &["web"], &["leak"]), "its parameter is free");
    }

    #[test]
    fn a_host_concerns_its_secrets_and_the_hosts_that_come_after_it() {
        let all = namespace();
        let of = |change| of_host("web", Some(&all.hosts[0]), change, &all);
        assert_eq!(of(Change::Applied), keys(&["token", "login"], &["web", "api"], &[]));
        assert_eq!(of(Change::Written), keys(&["token", "login"], &["api"], &[]));
        assert_eq!(of(Change::Deleted), keys(&["token", "login"], &["api"], &[]));
        let at = "2026-11-23T12:00:00Z";
        let logs = json!({"accessLogs": [{
            "incident": "leak", "incidentUid": "u", "secret": "token", "since": at, "until": at, "at": at,
            "job": "j", "revision": "r", "attempt": 1,
        }]});
        let mut collected = all.hosts[0].clone();
        collected.status = serde_json::from_value(logs).unwrap();
        let told = of_host("web", Some(&collected), Change::Written, &all);
        assert!(told.contains(&Key::Incident("leak".to_owned())), "{told:?}");
    }

    #[test]
    fn a_host_concerns_the_secrets_whose_server_is_reached_through_it() {
        let postgres = json!({
            "via": {"dockerHost": "web"}, "database": "shop", "singleRole": {"name": "app"},
        });
        let mut login = secret("login", "/app/LOGIN", json!({}));
        login.spec.generate.postgres = serde_json::from_value(postgres).unwrap();
        let all = Namespace { secrets: vec![login], hosts: vec![host("web", &[])], incidents: Vec::new() };
        let of = |name: &str| of_host(name, None, Change::Written, &all);
        assert_eq!((of("web"), of("api")), (keys(&["login"], &[], &[]), BTreeSet::new()));
    }

    #[test]
    fn an_incident_concerns_its_secrets_and_where_their_logs_lie() {
        let all = namespace();
        let of = |change| of_incident("leak", Some(&all.incidents[0]), change, &all);
        assert_eq!(of(Change::Applied), keys(&["token"], &["web"], &["leak"]));
        assert_eq!(
            of(Change::Written),
            keys(&[], &["web"], &[]),
            "what it says of containment starts collecting"
        );
        assert_eq!(of(Change::Deleted), keys(&["token"], &["web"], &[]));
    }

    #[test]
    fn an_object_that_cannot_be_decoded_is_looked_at_itself() {
        let all = namespace();
        assert_eq!(of_secret("token", None, Change::Applied, &all), keys(&["token"], &[], &[]));
        assert_eq!(of_incident("leak", None, Change::Applied, &all), keys(&[], &[], &["leak"]));
        let known_by_name = keys(&["token", "login"], &["web", "api"], &[]);
        assert_eq!(of_host("web", None, Change::Applied, &all), known_by_name);
    }

    #[test]
    fn a_host_that_left_the_spec_in_mid_rotation_and_its_secret_are_looked_at_when_the_other_changes() {
        let status = json!({
            "rotation": {"id": 1, "trigger": "Period", "step": "Deploy", "startedAt": "1970-01-01T00:00:00Z"},
            "hosts": [{"name": "web", "proven": false}]
        });
        let mut moved = secret("token", "/app/TOKEN", json!({}));
        moved.status = serde_json::from_value(status).unwrap();
        let all = Namespace { secrets: vec![moved.clone()], ..Namespace::default() };
        assert_eq!(of_secret("token", Some(&moved), Change::Applied, &all), keys(&["token"], &["web"], &[]));
        assert_eq!(
            of_host("web", Some(&host("web", &[])), Change::Written, &all),
            keys(&["token"], &[], &[])
        );
    }
}
