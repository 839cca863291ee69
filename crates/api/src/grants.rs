//! What RotationGrants allow: deny by default, and a denial says which grant is lacking.
//!
//! Everything that an object touches must be covered by a grant of its namespace. Where several grants cover the same
//! thing, one in mode Observe wins over those in mode Rotate: a single grant then stops everything below a path,
//! whatever other grants there are. What lies under keyturn's staging path is never granted, or an object could
//! publish the records of another.

use kube::api::ObjectMeta;

use super::docker_host::DockerHost;
use super::managed_secret::ManagedSecret;
use super::postgres::{PORT as POSTGRES_PORT, PostgresSpec};
use super::rotation_grant::{
    CloudflareGrant, GrantMode, HostGrant, ParameterGrant, PostgresGrant, RotationGrant, RotationGrantSpec,
};

/// SSH's own port, which is meant where none is written.
const SSH_PORT: i32 = 22;
/// The account's default key by its alias. Any account may use it, so no grant lists it.
const DEFAULT_KEY: &str = "alias/aws/ssm";

/// What the grants say about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that it touches is granted. In mode Observe it is decided and reported, and nothing is touched.
    Allowed(GrantMode),
    /// Something is not granted: what, and the YAML that an administrator would apply.
    Denied(String),
}

/// Whether a namespace may renew the parameters of a ManagedSecret. `region` is the one in effect, `staging` the
/// controller's own path.
pub fn managed_secret(
    grants: &[RotationGrant],
    secret: &ManagedSecret,
    region: &str,
    staging: &str,
) -> Verdict {
    let key = secret.spec.ssm.kms_key_id.as_deref().filter(|key| *key != DEFAULT_KEY);
    let postgres = secret.spec.generate.postgres.as_ref();
    let admin = postgres.and_then(|postgres| postgres.admin_parameter.as_ref());
    let published = || secret.spec.ssm.parameters.iter().map(|parameter| parameter.path.as_str());
    let paths = || published().chain(admin.map(|admin| admin.path.as_str()));
    if let Some(path) = paths().find(|path| below(path, staging)) {
        return Verdict::Denied(format!(
            "{path} lies under {staging}, where keyturn keeps its own records: no grant can allow that. Choose \
             another path."
        ));
    }
    if let Some(path) = paths().find(|path| !plain(path)) {
        return Verdict::Denied(format!("{path} is not a plain path: no grant can allow it."));
    }
    let in_region =
        |grant: &ParameterGrant| grant.regions.is_empty() || grant.regions.iter().any(|r| r == region);
    let with_key = |grant: &ParameterGrant| key.is_none_or(|key| grant.kms_keys.iter().any(|k| k == key));

    let mut mode = GrantMode::Rotate;
    let mut lacking: Vec<&str> = Vec::new();
    for path in paths() {
        // Without a / at its end a prefix would match half a segment; the schema refuses one.
        let of_path = |grant: &&ParameterGrant| {
            grant.prefix.ends_with('/') && path.starts_with(&grant.prefix) && in_region(grant)
        };
        // An Observe grant stops the path whatever keys it lists.
        if of_namespace(grants, secret.metadata.namespace.as_deref())
            .any(|grant| grant.mode == GrantMode::Observe && grant.parameters.iter().any(|g| of_path(&g)))
        {
            mode = GrantMode::Observe;
        }
        if !of_namespace(grants, secret.metadata.namespace.as_deref())
            .any(|grant| grant.parameters.iter().filter(of_path).any(with_key))
        {
            lacking.push(path);
        }
    }
    if lacking.is_empty() {
        if let Some(spec) = postgres {
            return server(grants, secret, spec, mode);
        }
        let account = secret.spec.generate.cloudflare_r2.as_ref().map(|spec| spec.account_id.as_str());
        return account.map_or(Verdict::Allowed(mode), |id| cloudflare(grants, secret, id, mode));
    }
    let mut prefixes: Vec<&str> = lacking.iter().map(|path| folder(path)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let parameters = prefixes.into_iter().map(|prefix| ParameterGrant {
        prefix: prefix.to_owned(),
        regions: vec![region.to_owned()],
        kms_keys: key.map(str::to_owned).into_iter().collect(),
    });
    let key = key.map(|key| format!(" with KMS key {key}")).unwrap_or_default();
    let what = format!("{} in {region}{key}", lacking.join(", "));
    let lacking = RotationGrantSpec { parameters: parameters.collect(), ..nothing(&secret.metadata) };
    denied(&secret.metadata, &what, lacking)
}

/// Whether a namespace may change the roles of a Postgres source. `mode` is what its parameters' grants say.
fn server(grants: &[RotationGrant], secret: &ManagedSecret, spec: &PostgresSpec, mode: GrantMode) -> Verdict {
    let roles = roles(spec);
    let namespace = secret.metadata.namespace.as_deref();
    let reaches = |grant: &&PostgresGrant| is_server(grant, spec);
    let observed = of_namespace(grants, namespace)
        .any(|grant| grant.mode == GrantMode::Observe && grant.postgres.iter().any(|g| reaches(&g)));
    let granted: Vec<&str> = of_namespace(grants, namespace)
        .flat_map(|grant| grant.postgres.iter().filter(reaches))
        .flat_map(|grant| grant.roles.iter().map(String::as_str))
        .collect();
    let lacking: Vec<&str> = roles.into_iter().filter(|role| !granted.contains(role)).collect();
    if lacking.is_empty() {
        return Verdict::Allowed(if observed { GrantMode::Observe } else { mode });
    }
    let docker_host = spec.via.as_ref().map(|via| via.docker_host.clone());
    let place = match (&spec.host, &docker_host) {
        (Some(host), _) => host.clone(),
        (None, host) => format!("DockerHost {}", host.as_deref().unwrap_or_default()),
    };
    let what = format!("the roles {} of the Postgres server {place}", lacking.join(", "));
    let grant = PostgresGrant {
        host: spec.host.clone(),
        docker_host,
        port: Some(i32::from(spec.port())),
        roles: lacking.into_iter().map(str::to_owned).collect(),
        allow_superuser: false,
    };
    denied(&secret.metadata, &what, RotationGrantSpec { postgres: vec![grant], ..nothing(&secret.metadata) })
}

/// Whether a namespace may make and delete tokens of a Cloudflare account.
fn cloudflare(grants: &[RotationGrant], secret: &ManagedSecret, account: &str, mode: GrantMode) -> Verdict {
    let namespace = secret.metadata.namespace.as_deref();
    let lists = |grant: &&RotationGrantSpec| grant.cloudflare.iter().any(|g| g.account_id == account);
    let mut modes = of_namespace(grants, namespace).filter(lists).map(|grant| grant.mode).peekable();
    if modes.peek().is_some() {
        let observed = modes.any(|mode| mode == GrantMode::Observe);
        return Verdict::Allowed(if observed { GrantMode::Observe } else { mode });
    }
    let grant = CloudflareGrant { account_id: account.to_owned() };
    let lacking = RotationGrantSpec { cloudflare: vec![grant], ..nothing(&secret.metadata) };
    denied(&secret.metadata, &format!("the Cloudflare account {account}"), lacking)
}

/// Whether every role of a Postgres source may be a superuser or a replication role.
pub fn allows_superuser(grants: &[RotationGrant], secret: &ManagedSecret) -> bool {
    let Some(spec) = &secret.spec.generate.postgres else { return false };
    let allowed: Vec<&str> = of_namespace(grants, secret.metadata.namespace.as_deref())
        .flat_map(|grant| grant.postgres.iter().filter(|g| g.allow_superuser && is_server(g, spec)))
        .flat_map(|grant| grant.roles.iter().map(String::as_str))
        .collect();
    roles(spec).iter().all(|role| allowed.contains(role))
}

/// Every role that a source touches.
fn roles(spec: &PostgresSpec) -> Vec<&str> {
    let pair = spec.alternating_roles.as_ref();
    let owner = pair.map(|pair| pair.owner.as_str());
    let from = pair.and_then(|pair| pair.bootstrap.as_ref()).map(|bootstrap| bootstrap.from.as_str());
    spec.roles().into_iter().chain(owner).chain(from).collect()
}

fn is_server(grant: &PostgresGrant, spec: &PostgresSpec) -> bool {
    let same_host = match (&grant.host, &spec.host) {
        (Some(granted), Some(wanted)) => granted.eq_ignore_ascii_case(wanted),
        _ => false,
    };
    let via = spec.via.as_ref().map(|via| &via.docker_host);
    let same_via = via.is_some() && grant.docker_host.as_ref() == via;
    (same_host || same_via) && grant.port.unwrap_or(POSTGRES_PORT) == i32::from(spec.port())
}

/// Whether a namespace may connect to the endpoints of a DockerHost: the host, and the one it is reached through.
pub fn docker_host(grants: &[RotationGrant], host: &DockerHost) -> Verdict {
    let ssh = &host.spec.ssh;
    let endpoints = [Some((&ssh.host, ssh.port)), ssh.jump.as_ref().map(|jump| (&jump.host, jump.port))];

    let mut mode = GrantMode::Rotate;
    let mut lacking: Vec<HostGrant> = Vec::new();
    for (name, port) in endpoints.into_iter().flatten() {
        let covers = |grant: &HostGrant| {
            grant.host.eq_ignore_ascii_case(name)
                && grant.port.unwrap_or(SSH_PORT) == port.unwrap_or(SSH_PORT)
        };
        let modes: Vec<GrantMode> = of_namespace(grants, host.metadata.namespace.as_deref())
            .filter(|grant| grant.hosts.iter().any(covers))
            .map(|grant| grant.mode)
            .collect();
        if modes.contains(&GrantMode::Observe) {
            mode = GrantMode::Observe;
        }
        if modes.is_empty() {
            lacking.push(HostGrant { host: name.clone(), port: Some(port.unwrap_or(SSH_PORT)) });
        }
    }
    if lacking.is_empty() {
        return Verdict::Allowed(mode);
    }
    let names: Vec<String> =
        lacking.iter().map(|l| format!("{} port {}", l.host, l.port.unwrap_or(SSH_PORT))).collect();
    let lacking = RotationGrantSpec { hosts: lacking, ..nothing(&host.metadata) };
    denied(&host.metadata, &format!("SSH to {}", names.join(", ")), lacking)
}

fn of_namespace<'a>(
    grants: &'a [RotationGrant],
    namespace: Option<&'a str>,
) -> impl Iterator<Item = &'a RotationGrantSpec> {
    // A grant that is being deleted grants nothing any more.
    let live = grants.iter().filter(|grant| grant.metadata.deletion_timestamp.is_none());
    live.map(|grant| &grant.spec)
        .filter(move |grant| grant.namespaces.iter().any(|name| Some(name.as_str()) == namespace))
}

/// Whether a path is this folder or lies in it.
fn below(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether whole segments can be compared: none is empty, `.` or `..`.
fn plain(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|rest| !rest.split('/').any(|segment| matches!(segment, "" | "." | "..")))
}

/// The path up to and with its last `/`.
fn folder(path: &str) -> &str {
    path.rfind('/').map_or("/", |end| &path[..=end])
}

/// A grant for the namespace of an object that grants nothing.
fn nothing(object: &ObjectMeta) -> RotationGrantSpec {
    RotationGrantSpec {
        namespaces: object.namespace.iter().cloned().collect(),
        mode: GrantMode::Rotate,
        parameters: Vec::new(),
        hosts: Vec::new(),
        postgres: Vec::new(),
        cloudflare: Vec::new(),
    }
}

fn denied(object: &ObjectMeta, what: &str, lacking: RotationGrantSpec) -> Verdict {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let name = format!("{namespace}-{}", object.name.as_deref().unwrap_or_default());
    let grant = RotationGrant::new(&name, lacking);
    // Cannot fail: strings, numbers and lists only.
    let yaml = serde_yaml_ng::to_string(&grant).unwrap_or_default();
    Verdict::Denied(format!(
        "No RotationGrant lets namespace {namespace} use {what}. An administrator of the cluster allows it with \
         kubectl apply of:\n{yaml}"
    ))
}

#[cfg(test)]
#[path = "grants_tests.rs"]
mod tests;
