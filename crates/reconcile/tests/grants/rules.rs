//! The texts that people wrote, in this test's own types, and the rights that follow from them: nothing here comes from
//! `keyturn_api::grants`.

use serde_json::{Value, json};

pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const HOME: &str = "us-east-1";
pub(crate) const STAGING: &str = "/keyturn/sim";
const DEFAULT_KEY: &str = "alias/aws/ssm";

/// The rights of an object or namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Nothing,
    Look,
    Change,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Rotate,
    Observe,
    /// A word that this version of keyturn does not know.
    Unknown,
}

#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// The namespaces; `None` if this is not a list of names.
    pub namespaces: Option<Vec<&'static str>>,
    pub mode: Mode,
    pub is_being_deleted: bool,
    pub parameters: Vec<Entry>,
    pub hosts: Vec<Endpoint>,
    pub servers: Vec<Server>,
    pub accounts: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// A folder if it ends in `/`, otherwise a single parameter.
    pub place: &'static str,
    pub regions: Vec<&'static str>,
    pub keys: Vec<&'static str>,
    pub templates: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub name: &'static str,
    pub port: u16,
}

#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub place: Place,
    pub roles: Vec<&'static str>,
    pub probes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Direct(Endpoint),
    /// Name of the DockerHost, and the port there.
    Via(&'static str, u16),
}

#[derive(Clone, Debug)]
pub(crate) struct Secret {
    pub name: &'static str,
    pub region: Option<&'static str>,
    pub key: Option<&'static str>,
    /// Paths, each with the text around its value.
    pub parameters: Vec<(&'static str, Option<&'static str>)>,
    pub source: Source,
    pub hosts: Vec<&'static str>,
    pub deletion_policy: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Hex,
    Fernet,
    Postgres(Database),
    R2(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub place: Place,
    /// One role, or two with their owner.
    pub roles: Vec<&'static str>,
    pub has_admin: bool,
    pub admin_parameter: Option<&'static str>,
    pub probes: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub name: &'static str,
    pub endpoint: Endpoint,
    pub jump: Option<Endpoint>,
}

impl Secret {
    pub(crate) fn region(&self) -> &'static str {
        self.region.unwrap_or(HOME)
    }

    pub(crate) fn way(&self) -> Option<&'static str> {
        match &self.source {
            Source::Postgres(Database { place: Place::Via(host, _), .. }) => Some(host),
            _ => None,
        }
    }
}

impl Grant {
    fn is_readable(&self) -> bool {
        self.namespaces.is_some() && self.mode != Mode::Unknown
    }

    fn is_live(&self) -> bool {
        !self.is_being_deleted
    }

    /// True if the grant may be about the namespace. A grant that cannot be parsed may be about any namespace.
    fn may_be_ours(&self) -> bool {
        self.namespaces.as_ref().is_none_or(|names| names.contains(&NAMESPACE))
    }

    pub(crate) fn written(&self, number: usize) -> Value {
        let parameters: Vec<Value> = self.parameters.iter().map(Entry::written).collect();
        let hosts: Vec<Value> = self.hosts.iter().map(|e| json!({"host": e.name, "port": e.port})).collect();
        let servers: Vec<Value> = self.servers.iter().map(Server::written).collect();
        let accounts: Vec<Value> = self.accounts.iter().map(|id| json!({"accountId": id})).collect();
        let namespaces = self.namespaces.as_ref().map_or(json!("shop"), |names| json!(names));
        let mode = match self.mode {
            Mode::Rotate => "Rotate",
            Mode::Observe => "Observe",
            Mode::Unknown => "Freeze",
        };
        let mut metadata = json!({"name": format!("grant-{number}")});
        if self.is_being_deleted {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationGrant", "metadata": metadata,
            "spec": {
                "namespaces": namespaces, "mode": mode, "parameters": parameters, "hosts": hosts, "postgres": servers,
                "cloudflare": accounts,
            },
        })
    }
}

impl Entry {
    fn written(&self) -> Value {
        let field = if self.place.ends_with('/') { "prefix" } else { "path" };
        json!({
            field: self.place, "regions": self.regions, "kmsKeys": self.keys, "templates": self.templates,
        })
    }

    /// True if the path is the place or lies in it, compared by segments.
    fn is_about(&self, path: &[&str]) -> bool {
        if self.place == "/" {
            return true;
        }
        let folder = self.place.ends_with('/');
        let own: Vec<&str> = self.place.trim_matches('/').split('/').collect();
        if folder { path.len() > own.len() && path[..own.len()] == own[..] } else { path == own }
    }
}

impl Server {
    fn written(&self) -> Value {
        let mut written = json!({"roles": self.roles, "probes": self.probes});
        match self.place {
            Place::Direct(Endpoint { name, port }) => {
                written["host"] = json!(name);
                written["port"] = json!(port);
            }
            Place::Via(host, port) => {
                written["dockerHost"] = json!(host);
                written["port"] = json!(port);
            }
        }
        written
    }
}

/// Returns the segments of a path, if the path is unambiguous.
fn segments(path: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = path.split('/').collect();
    let (first, rest) = segments.split_first()?;
    let plain = rest.iter().all(|segment| !["", ".", ".."].contains(segment));
    (first.is_empty() && !rest.is_empty() && plain).then(|| rest.to_vec())
}

/// True for a text that consists only of placeholders.
fn is_bare(template: &str) -> bool {
    let left = ["{value}", "{username}", "{password}", "{accessKeyId}", "{secretAccessKey}"];
    let marked = left.iter().fold(template.to_owned(), |text, word| text.replace(word, "\u{1}"));
    marked.chars().all(|c| c == '\u{1}')
}

pub(crate) type Grants = [Grant];

fn ours(grants: &Grants) -> impl Iterator<Item = &Grant> {
    grants.iter().filter(|grant| grant.is_live() && grant.is_readable() && grant.may_be_ours())
}

/// Returns the rights of a namespace, where `allows` selects the grants that allow it and `is_about` those that mention
/// it.
fn level(grants: &Grants, allows: impl Fn(&Grant) -> bool, is_about: impl Fn(&Grant) -> bool) -> Level {
    if !ours(grants).any(allows) {
        return Level::Nothing;
    }
    let mut live = grants.iter().filter(|grant| grant.is_live() && grant.may_be_ours());
    let is_stopped = live.any(|grant| !grant.is_readable() || grant.mode == Mode::Observe && is_about(grant));
    if is_stopped { Level::Look } else { Level::Change }
}

pub(crate) fn parameter(
    grants: &Grants,
    path: &str,
    region: &str,
    key: Option<&str>,
    template: Option<&str>,
) -> Level {
    let Some(path) = segments(path) else { return Level::Nothing };
    let staging: Vec<&str> = STAGING.trim_matches('/').split('/').collect();
    if path.starts_with(&staging) {
        return Level::Nothing;
    }
    let key = key.filter(|key| *key != DEFAULT_KEY);
    let template = template.filter(|template| !is_bare(template));
    let allows = |grant: &Grant| {
        grant.parameters.iter().any(|entry| {
            let here =
                if entry.regions.is_empty() { region == HOME } else { entry.regions.contains(&region) };
            entry.place != "/"
                && entry.is_about(&path)
                && here
                && key.is_none_or(|key| entry.keys.contains(&key))
                && template.is_none_or(|template| entry.templates.contains(&template))
        })
    };
    let is_about = |grant: &Grant| {
        grant.parameters.iter().any(|entry| {
            entry.is_about(&path) && (entry.regions.is_empty() || entry.regions.contains(&region))
        })
    };
    level(grants, allows, is_about)
}

pub(crate) fn host(grants: &Grants, host: &Host) -> Level {
    let endpoints = [Some(host.endpoint), host.jump];
    let endpoints = endpoints.into_iter().flatten();
    let of = |endpoint: Endpoint| {
        let lists = |grant: &Grant| {
            let is_it = |e: &Endpoint| {
                e.name.to_lowercase() == endpoint.name.to_lowercase() && e.port == endpoint.port
            };
            grant.hosts.iter().any(is_it)
        };
        level(grants, lists, lists)
    };
    endpoints.map(of).min().unwrap_or(Level::Nothing)
}

fn database(grants: &Grants, wanted: &Database) -> Level {
    let is_it = |server: &&Server| match (server.place, wanted.place) {
        (Place::Direct(a), Place::Direct(b)) => {
            a.name.to_lowercase() == b.name.to_lowercase() && a.port == b.port
        }
        (a, b) => a == b,
    };
    let of_role = |role: &&'static str| {
        let lists = |grant: &Grant, probes: bool| {
            let mut servers = grant.servers.iter().filter(is_it);
            servers.any(|server| server.roles.contains(role) && (!probes || server.probes))
        };
        let is_about = |grant: &Grant| grant.servers.iter().any(|server| is_it(&server));
        let changed = level(grants, |grant| lists(grant, false), is_about);
        let probed = level(grants, |grant| lists(grant, true), is_about);
        if wanted.probes { changed.min(probed) } else { changed }
    };
    wanted.roles.iter().map(of_role).min().unwrap_or(Level::Nothing)
}

/// Returns the rights of an object; `way` is the host that it connects through.
pub(crate) fn secret(grants: &Grants, secret: &Secret, way: Option<&Host>) -> Level {
    let mut levels: Vec<Level> = Vec::new();
    for (path, template) in &secret.parameters {
        levels.push(parameter(grants, path, secret.region(), secret.key, *template));
    }
    match &secret.source {
        Source::Hex | Source::Fernet => {}
        Source::Postgres(wanted) => {
            levels.push(database(grants, wanted));
            let admin = wanted.admin_parameter.map(|path| (path, secret.region()));
            levels.extend(admin.map(|(path, region)| parameter(grants, path, region, secret.key, None)));
        }
        Source::R2(account) => {
            let lists = |grant: &Grant| grant.accounts.contains(account);
            levels.push(level(grants, lists, lists));
        }
    }
    levels.extend(way.map(|way| host(grants, way)));
    levels.into_iter().min().unwrap_or(Level::Nothing)
}

/// True if a client for the region may be created.
pub(crate) fn region(grants: &Grants, region: &str) -> bool {
    let names = |grant: &Grant| grant.parameters.iter().any(|entry| entry.regions.contains(&region));
    region == HOME || ours(grants).any(names)
}
