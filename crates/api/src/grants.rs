//! Verdict of the RotationGrants on an object: denied by default, and a denial shows the grant that is missing.
//!
//! A grant of the object's namespace must cover everything that the object touches. Where several grants cover the same
//! thing, a grant in mode Observe wins over grants in mode Rotate, so that a single grant stops everything below a
//! path. A grant that cannot be decoded may be such a grant, so it counts as mode Observe for all its namespaces. Paths
//! below keyturn's staging path are never granted; otherwise an object could publish the records of another.

use kube::api::{DynamicObject, ObjectMeta};
use serde_json::Value;

use super::docker_host::DockerHost;
use super::managed_secret::ManagedSecret;
use super::rotation_grant::{GrantMode, HostGrant, ParameterGrant, RotationGrant, RotationGrantSpec};
use super::source;

/// Default SSH port, used when no port is given.
const SSH_PORT: i32 = 22;
/// Alias of the account's default KMS key. Every namespace may use it, so no grant lists it.
const DEFAULT_KEY: &str = "alias/aws/ssm";
/// Prefix of the whole account, which no grant allows.
const ROOT: &str = "/";

/// RotationGrants of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    readable: Vec<RotationGrant>,
    unreadable: Vec<Unreadable>,
}

/// A RotationGrant that this version of keyturn cannot decode.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unreadable {
    name: String,
    /// Namespaces of the grant; `None` when even those cannot be decoded, so the grant counts for all namespaces.
    namespaces: Option<Vec<String>>,
}

impl Grants {
    /// Decodes the grants one by one from the API server's list.
    pub fn of(objects: Vec<DynamicObject>) -> Self {
        let mut grants = Self::default();
        for object in objects {
            let unreadable = Unreadable {
                name: object.metadata.name.clone().unwrap_or_default(),
                namespaces: namespaces(&object.data),
            };
            // A grant that is being deleted no longer counts, even if it cannot be decoded.
            let is_live = object.metadata.deletion_timestamp.is_none();
            match object.try_parse::<RotationGrant>() {
                Ok(grant) => grants.readable.push(grant),
                Err(_) if is_live => grants.unreadable.push(unreadable),
                Err(_) => {}
            }
        }
        grants
    }

    /// Returns the name and spec of each live grant of a namespace.
    pub(crate) fn of_namespace<'a>(
        &'a self,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, &'a RotationGrantSpec)> {
        // A grant that is being deleted grants nothing any more.
        let live = self.readable.iter().filter(|grant| grant.metadata.deletion_timestamp.is_none());
        live.filter(move |grant| grant.spec.namespaces.iter().any(|name| Some(name.as_str()) == namespace))
            .map(|grant| (grant.metadata.name.as_deref().unwrap_or_default(), &grant.spec))
    }

    /// Reason why keyturn must only observe the object although grants allow it: a grant that `covers` it is in mode
    /// Observe, or a grant cannot be decoded.
    pub(crate) fn observed(
        &self,
        namespace: Option<&str>,
        covers: impl Fn(&RotationGrantSpec) -> bool,
    ) -> Option<String> {
        let unreadable = self.unreadable.iter().find(|grant| {
            let named = grant.namespaces.as_ref();
            named.is_none_or(|named| named.iter().any(|name| Some(name.as_str()) == namespace))
        });
        if let Some(Unreadable { name, .. }) = unreadable {
            return Some(format!(
                "RotationGrant {name} cannot be read by this version of keyturn and may have mode: Observe (correct \
                 or delete it, or update keyturn)"
            ));
        }
        let mut observing =
            self.of_namespace(namespace).filter(|(_, grant)| grant.mode == GrantMode::Observe);
        let (name, _) = observing.find(|(_, grant)| covers(grant))?;
        Some(format!("RotationGrant {name} has mode: Observe"))
    }
}

impl Extend<RotationGrant> for Grants {
    fn extend<I: IntoIterator<Item = RotationGrant>>(&mut self, grants: I) {
        self.readable.extend(grants);
    }
}

impl FromIterator<RotationGrant> for Grants {
    fn from_iter<I: IntoIterator<Item = RotationGrant>>(grants: I) -> Self {
        let mut all = Self::default();
        all.extend(grants);
        all
    }
}

/// Returns the namespaces of a grant that cannot be decoded, if they are well-formed.
fn namespaces(data: &Value) -> Option<Vec<String>> {
    let named = data.get("spec")?.get("namespaces")?.as_array().filter(|named| !named.is_empty())?;
    named.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Verdict of the grants on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// keyturn may change everything that the object touches.
    Rotate,
    /// Everything that the object touches is granted, but a grant in mode Observe covers some of it: keyturn decides
    /// and reports, and changes nothing. Names that grant.
    Observe(String),
    /// Something is not granted. Holds what is missing, and the YAML that an administrator would apply.
    Denied(String),
}

impl Verdict {
    /// True when keyturn may read what the object touches.
    pub fn allows_reads(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }

    /// Returns the verdict on what is granted, from the reason why it is only observed.
    pub(crate) fn allowed(observed: Option<String>) -> Self {
        observed.map_or(Self::Rotate, Self::Observe)
    }

    /// Combines the verdicts on two things that are both touched; the stricter verdict wins.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (denied @ Self::Denied(_), _) | (_, denied @ Self::Denied(_)) => denied,
            (observed @ Self::Observe(_), _) | (_, observed @ Self::Observe(_)) => observed,
            (Self::Rotate, Self::Rotate) => Self::Rotate,
        }
    }
}

/// Settings of the installation that a grant depends on.
#[derive(Clone, Copy, Debug)]
pub struct Installation<'a> {
    /// Region of the installation, which applies to grants without regions.
    pub region: &'a str,
    /// Staging path of the installation, which no grant allows.
    pub staging: &'a str,
}

/// Parameter that an object touches, with the region, the key and the template it uses.
struct Wanted<'a> {
    path: &'a str,
    region: &'a str,
    key: Option<&'a str>,
    /// Text around the value, if it contains more than placeholders.
    template: Option<&'a str>,
}

impl Wanted<'_> {
    /// True when the entry allows the parameter with this region, key and template.
    fn is_allowed_by(&self, entry: &ParameterGrant, home: &str) -> bool {
        let listed = |list: &[String], wanted: Option<&str>| {
            wanted.is_none_or(|wanted| list.iter().any(|listed| listed == wanted))
        };
        let in_region = match entry.regions.is_empty() {
            true => self.region == home,
            false => listed(&entry.regions, Some(self.region)),
        };
        is_of(entry, self.path)
            && entry.prefix.as_deref() != Some(ROOT)
            && in_region
            && listed(&entry.kms_keys, self.key)
            && listed(&entry.templates, self.template)
    }

    /// True when the entry covers the path and region, whatever keys and templates it lists: an Observe grant then
    /// stops the parameter.
    fn is_stopped_by(&self, entry: &ParameterGrant) -> bool {
        let in_region = entry.regions.is_empty() || entry.regions.iter().any(|region| region == self.region);
        is_of(entry, self.path) && in_region
    }
}

/// True when an entry covers a path. A prefix without a `/` at its end would match half a segment; the schema refuses
/// such a prefix.
fn is_of(entry: &ParameterGrant, path: &str) -> bool {
    let below = |prefix: &str| prefix.ends_with('/') && path.starts_with(prefix);
    entry.prefix.as_deref().is_some_and(below) || entry.path.as_deref() == Some(path)
}

/// Decides if a namespace may renew the parameters of a ManagedSecret, which are in `region`.
pub fn managed_secret(
    grants: &Grants,
    secret: &ManagedSecret,
    region: &str,
    installation: Installation<'_>,
) -> Verdict {
    let key = secret.spec.ssm.kms_key_id.as_deref().filter(|key| *key != DEFAULT_KEY);
    let sources = || secret.spec.generate.named();
    let published = secret.spec.ssm.parameters.iter().map(|parameter| {
        let template = parameter.value.as_deref().filter(|template| !is_of_placeholders(template));
        Wanted { path: &parameter.path, region, key, template }
    });
    let read = sources().filter_map(|source| source.spec.reads());
    let read = read.map(|path| Wanted { path, region, key, template: None });
    let wanted: Vec<Wanted<'_>> = published.chain(read).collect();
    if let Some(never) = wanted.iter().find_map(|wanted| never_granted(wanted.path, installation.staging)) {
        return Verdict::Denied(never);
    }
    let namespace = secret.metadata.namespace.as_deref();
    let stops = |grant: &RotationGrantSpec| {
        wanted.iter().any(|wanted| grant.parameters.iter().any(|entry| wanted.is_stopped_by(entry)))
    };
    let is_lacking = |wanted: &&Wanted<'_>| {
        let mut entries = grants.of_namespace(namespace).flat_map(|(_, grant)| &grant.parameters);
        !entries.any(|entry| wanted.is_allowed_by(entry, installation.region))
    };
    let lacking: Vec<&Wanted<'_>> = wanted.iter().filter(is_lacking).collect();
    if !lacking.is_empty() {
        return without_parameters(&secret.metadata, &lacking);
    }
    let verdict = Verdict::allowed(grants.observed(namespace, stops));
    sources().fold(verdict, |verdict, source| verdict.and(source.spec.verdict(grants, secret)))
}

/// Reason why no grant can allow this path; `None` if a grant can.
fn never_granted(path: &str, staging: &str) -> Option<String> {
    if below(path, staging) {
        return Some(format!(
            "{path} lies under {staging}, where keyturn keeps its own records: no grant can allow that. Choose another \
             path."
        ));
    }
    (!plain(path)).then(|| format!("{path} is not a plain path: no grant can allow it."))
}

fn without_parameters(object: &ObjectMeta, lacking: &[&Wanted<'_>]) -> Verdict {
    let mut entries: Vec<ParameterGrant> = Vec::new();
    for wanted in lacking {
        let mut entry = place_of(wanted.path);
        entry.regions = vec![wanted.region.to_owned()];
        entry.kms_keys = wanted.key.map(str::to_owned).into_iter().collect();
        let template = wanted.template.map(str::to_owned);
        match entries.iter_mut().find(|known| (&known.prefix, &known.path) == (&entry.prefix, &entry.path)) {
            Some(known) => known.templates.extend(template.filter(|text| !known.templates.contains(text))),
            None => entries.push(ParameterGrant { templates: template.into_iter().collect(), ..entry }),
        }
    }
    let described = |wanted: &&Wanted<'_>| match wanted.template {
        Some(_) => format!("{} with the text of its value", wanted.path),
        None => wanted.path.to_owned(),
    };
    let paths: Vec<String> = lacking.iter().map(described).collect();
    let (region, key) = lacking.first().map(|wanted| (wanted.region, wanted.key)).unwrap_or_default();
    let key = key.map(|key| format!(" with KMS key {key}")).unwrap_or_default();
    let what = format!("{} in {region}{key}", paths.join(", "));
    denied(object, &what, RotationGrantSpec { parameters: entries, ..nothing(object) })
}

/// Grant entry that an administrator would write for a path: its folder as the prefix, or the path itself when the
/// folder is the root of the account.
fn place_of(path: &str) -> ParameterGrant {
    match path.rfind('/') {
        Some(end) if end > 0 => {
            ParameterGrant { prefix: Some(path[..=end].to_owned()), ..ParameterGrant::default() }
        }
        _ => ParameterGrant { path: Some(path.to_owned()), ..ParameterGrant::default() },
    }
}

/// True when a template consists of placeholders only.
fn is_of_placeholders(template: &str) -> bool {
    let mut rest = template;
    while !rest.is_empty() {
        let Some(after) = source::placeholders().find_map(|placeholder| rest.strip_prefix(placeholder))
        else {
            return false;
        };
        rest = after;
    }
    true
}

/// Decides if a namespace may connect to the endpoints of a DockerHost: the host and its jump host.
pub fn docker_host(grants: &Grants, host: &DockerHost) -> Verdict {
    let namespace = host.metadata.namespace.as_deref();
    let ssh = &host.spec.ssh;
    let endpoints = [Some((&ssh.host, ssh.port)), ssh.jump.as_ref().map(|jump| (&jump.host, jump.port))];

    let mut verdict = Verdict::Rotate;
    let mut lacking: Vec<HostGrant> = Vec::new();
    for (name, port) in endpoints.into_iter().flatten() {
        let port = port.unwrap_or(SSH_PORT);
        let lists = |grant: &RotationGrantSpec| {
            let is_it = |entry: &HostGrant| {
                entry.host.eq_ignore_ascii_case(name) && entry.port.unwrap_or(SSH_PORT) == port
            };
            grant.hosts.iter().any(is_it)
        };
        if grants.of_namespace(namespace).any(|(_, grant)| lists(grant)) {
            verdict = verdict.and(Verdict::allowed(grants.observed(namespace, lists)));
        } else {
            lacking.push(HostGrant { host: name.clone(), port: Some(port) });
        }
    }
    if lacking.is_empty() {
        return verdict;
    }
    let names: Vec<String> =
        lacking.iter().map(|l| format!("{} port {}", l.host, l.port.unwrap_or(SSH_PORT))).collect();
    let lacking = RotationGrantSpec { hosts: lacking, ..nothing(&host.metadata) };
    denied(&host.metadata, &format!("SSH to {}", names.join(", ")), lacking)
}

/// True when the path is this folder or lies in it.
fn below(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// True when the path is absolute and no segment is empty, `.` or `..`: only then can whole segments be compared.
fn plain(path: &str) -> bool {
    path.strip_prefix('/')
        .is_some_and(|rest| !rest.split('/').any(|segment| matches!(segment, "" | "." | "..")))
}

/// Returns an empty grant for the namespace of an object.
pub(crate) fn nothing(object: &ObjectMeta) -> RotationGrantSpec {
    RotationGrantSpec {
        namespaces: object.namespace.iter().cloned().collect(),
        ..RotationGrantSpec::default()
    }
}

/// Returns the denial of `what`, with the grant that an administrator would apply.
pub(crate) fn denied(object: &ObjectMeta, what: &str, lacking: RotationGrantSpec) -> Verdict {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let name = format!("{namespace}-{}", object.name.as_deref().unwrap_or_default());
    let grant = RotationGrant::new(&name, lacking);
    // Serialization cannot fail: there are only strings, numbers and lists.
    let yaml = serde_saphyr::to_string(&grant).unwrap_or_default();
    Verdict::Denied(format!(
        "No RotationGrant lets namespace {namespace} use {what}. An administrator of the cluster allows it with \
         kubectl apply of:\n{yaml}"
    ))
}

#[cfg(test)]
#[path = "grants_tests.rs"]
mod tests;
