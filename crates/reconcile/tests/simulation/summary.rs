//! The state at the end of a run, without what faults may change: random values, times, counts of attempts, numbers
//! of versions.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keyturn_api::time::from_kubernetes;
use keyturn_api::{FINALIZER, ROTATE_REQUESTED_AT};
use keyturn_reconcile::incident::scope;
use kube::ResourceExt;

use crate::world::State;
use crate::world::postgres::SimPostgres;
use crate::world::ssm::By;

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    /// The existing secrets, by name.
    pub secrets: BTreeMap<String, SecretEnd>,
    /// The existing parameters, by path.
    pub parameters: BTreeMap<String, ParameterEnd>,
    /// Names of secrets that were deleted and could not be finished in time.
    pub abandoned: Vec<String>,
    /// Remaining records and markers.
    pub staged: Vec<String>,
    /// The existing hosts, by name.
    pub hosts: BTreeMap<String, HostEnd>,
    pub server: Option<ServerEnd>,
}

/// The roles of the server at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerEnd {
    pub can_log_in: Vec<String>,
    /// True if the server accepts the published login. The next field says the same of every host's login.
    pub accepts_published: bool,
    pub accepts_hosts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostEnd {
    /// Type, status and reason.
    pub conditions: BTreeMap<String, (String, String)>,
    /// By path: true if the host runs the published value.
    pub runs: BTreeMap<String, bool>,
}

fn turned(conditions: &[Condition]) -> BTreeMap<String, (String, String)> {
    conditions.iter().map(|c| (c.type_.clone(), (c.status.clone(), c.reason.clone()))).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretEnd {
    /// Type, status and reason.
    pub conditions: BTreeMap<String, (String, String)>,
    /// Request and result, if it is the request of the annotation: of other rotations only the published version is
    /// evidence, and a lost status cannot show them.
    pub last_rotation: Option<(String, String)>,
    pub finalizer: bool,
    pub rotating: bool,
    pub deleting: bool,
    pub has_hosts: bool,
    /// The differences between the status and the world.
    pub mirrors: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParameterEnd {
    pub latest: Latest,
    /// Number of different values that the controller has published here.
    pub generated: usize,
    /// The user's own part of the description.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latest {
    /// A value that the controller made.
    Generated,
    /// A value that a person wrote.
    Person,
    /// A person's value, published again by the controller.
    Restored,
}

impl Summary {
    pub(crate) fn of(state: &State) -> Self {
        let secrets =
            state.cluster.secrets().map(|secret| (secret.name_any(), end_of(state, secret))).collect();
        let managed = state.ssm.content.keys().filter(|path| !path.starts_with(crate::world::STAGING));
        let parameters = managed
            .filter_map(|path| {
                let latest = state.ssm.latest(path)?;
                let by_person = |value: &str| {
                    state.ssm.versions(path).iter().any(|v| v.by == By::Person && v.value == value)
                };
                let kind = match latest.by {
                    By::Person => Latest::Person,
                    By::Keyturn if by_person(&latest.value) => Latest::Restored,
                    By::Keyturn => Latest::Generated,
                };
                let text = latest.said.text.clone();
                let generated = state.memory.published(path);
                Some((path.clone(), ParameterEnd { latest: kind, generated, text }))
            })
            .collect();
        let hosts = state
            .hosts
            .iter()
            .filter(|(name, _)| state.cluster.host(name).is_some())
            .map(|(name, host)| {
                let runs = |path: &String| {
                    let published = state.ssm.latest(path).map(|l| l.value.trim_end());
                    (path.clone(), host.running.get(path).map(String::as_str) == published)
                };
                let status = state.cluster.host(name).and_then(|object| object.status.as_ref());
                let conditions = status.map(|status| turned(&status.conditions)).unwrap_or_default();
                (name.clone(), HostEnd { conditions, runs: host.fetches.iter().map(runs).collect() })
            })
            .collect();
        let abandoned = state.memory.abandoned.iter().cloned().collect();
        Self {
            secrets,
            parameters,
            abandoned,
            staged: state.ssm.staged().map(str::to_owned).collect(),
            hosts,
            server: state
                .postgres
                .as_ref()
                .map(|server| roles_of(state, server))
                .or_else(|| tokens_of(state)),
        }
    }
}

fn end_of(state: &State, secret: &keyturn_api::ManagedSecret) -> SecretEnd {
    let status = secret.status.clone().unwrap_or_default();
    let mut mirrors = Vec::new();
    for parameter in &secret.spec.ssm.parameters {
        let told = status.parameters.iter().find(|p| p.path == parameter.path).map(|p| p.version);
        let real = state.ssm.latest(&parameter.path).map(|l| l.number);
        if told != real {
            mirrors.push(format!("status says version {told:?} of {}, SSM has {real:?}", parameter.path));
        }
    }
    for host in status.hosts.iter().filter(|host| host.proven) {
        let real = state.hosts.get(&host.name);
        for parameter in &secret.spec.ssm.parameters {
            let published = state.ssm.latest(&parameter.path).map(|l| l.value.trim_end());
            if real.is_some_and(|real| real.running.get(&parameter.path).map(String::as_str) != published) {
                mirrors
                    .push(format!("status says that {} runs {}, and it does not", host.name, parameter.path));
            }
        }
    }
    let reports = state.cluster.incidents.iter().filter(|incident| scope::concerns(incident, secret));
    if let Some(last) = reports.map(scope::reported_at).max()
        && status.compromise.as_ref().is_none_or(|said| from_kubernetes(&said.reported_at) != last)
    {
        mirrors.push(format!("status does not tell of the report of {last}"));
    }
    SecretEnd {
        conditions: turned(&status.conditions),
        last_rotation: status
            .last_rotation
            .and_then(|last| Some((last.request?, last.result.to_string())))
            .filter(|(request, _)| secret.annotations().get(ROTATE_REQUESTED_AT) == Some(request)),
        finalizer: secret.finalizers().iter().any(|f| f == FINALIZER),
        rotating: status.rotation.is_some(),
        deleting: secret.metadata.deletion_timestamp.is_some(),
        has_hosts: !secret.spec.hosts.is_empty(),
        mirrors,
    }
}

fn published(state: &State) -> impl Iterator<Item = &str> {
    let paths = state.ssm.content.keys().filter(|path| !path.starts_with(crate::world::STAGING));
    paths.filter_map(|path| state.ssm.latest(path)).map(|latest| latest.value.as_str())
}

fn running(state: &State) -> impl Iterator<Item = &String> {
    state.hosts.values().flat_map(|host| host.running.values())
}

fn roles_of(state: &State, server: &SimPostgres) -> ServerEnd {
    let roles = server.roles.iter().filter(|(_, role)| role.can_log_in);
    ServerEnd {
        can_log_in: roles.map(|(name, _)| name.clone()).collect(),
        accepts_published: published(state).all(|value| server.accepts(value)),
        accepts_hosts: running(state).all(|value| server.accepts(value)),
    }
}

/// Returns the tokens by kind: faults change how many were created before.
fn tokens_of(state: &State) -> Option<ServerEnd> {
    let account = state.cloudflare.as_ref()?;
    let kind = |id: &String| {
        let is_published = published(state).any(|value| value.split(':').next() == Some(id.as_str()));
        if is_published {
            "published".to_owned()
        } else {
            format!("left behind: {}", account.tokens[id].name)
        }
    };
    Some(ServerEnd {
        can_log_in: account.live().map(kind).collect(),
        accepts_published: published(state).all(|value| account.accepts(value, state.now)),
        accepts_hosts: running(state).all(|value| account.accepts(value, state.now)),
    })
}
