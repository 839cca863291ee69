//! The audit of an image: which secrets its configuration and the commands of its layers carry.
//!
//! Pure: from what `docker image inspect` and `docker history` say ([`image`]), through what looks like a secret
//! ([`rules`]), to findings that name a place and never a value ([`report`]). Where it is asked for, also which secrets
//! the files of its layers hold ([`layers`]).

mod bounded;
mod formats;
mod history;
pub mod image;
pub mod layers;
pub mod managed;
mod names;
mod pairs;
pub mod report;
mod rule;
pub mod rules;
pub mod scrub;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_lc_rs::{digest, hmac};
use image::Image;
use keyturn_secret_value::SecretValue;
use layers::FileHit;
use managed::Matcher;
use rules::{Hit, Rule};
use serde::{Deserialize, Serialize};

/// Where in an image a text stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Env,
    Label,
    Cmd,
    Entrypoint,
    Healthcheck,
    OnBuild,
    /// The command that created a layer. They are numbered from the base image upwards, from 1, so that a number stays
    /// what it is when layers are added on top.
    History(usize),
    /// A file in a layer, by its path in there.
    File(String),
}

impl Place {
    /// The word for it in reports and fingerprints.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Label => "label",
            Self::Cmd => "cmd",
            Self::Entrypoint => "entrypoint",
            Self::Healthcheck => "healthcheck",
            Self::OnBuild => "onbuild",
            Self::History(_) => "history",
            Self::File(_) => "file",
        }
    }
}

/// One secret in an image, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub place: Place,
    /// The variable, label or option that holds it, where there is one.
    pub name: Option<String>,
    pub rule: Rule,
    /// Every layer whose command or file carries it, numbered from the base image upwards.
    pub layers: Vec<usize>,
    /// What identifies the finding in an allow list: 16 hexadecimal digits, see [`Fingerprints`].
    pub fingerprint: String,
    /// The parameter whose published value it is, where keyturn manages it.
    pub parameter: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::History(layer) => write!(f, "history layer {layer}")?,
            Place::File(path) => write!(f, "file {path}")?,
            _ => f.write_str(self.place.kind())?,
        }
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

/// How findings are told apart.
///
/// Without a key a fingerprint says *where*: kind of place, path of a file, name, rule, and which one of several, counted
/// from the base image. It says nothing of the value, and so stays the same when the value changes. With a key the value is part of
/// it, through an HMAC: another value is another finding. A bare hash of the value would let everybody who reads the
/// report try passwords against it.
#[derive(Default)]
pub struct Fingerprints {
    key: Option<hmac::Key>,
}

impl Fingerprints {
    /// Fingerprints that change with the value; who knows the key can test guesses against them.
    pub fn keyed(key: &SecretValue) -> Self {
        Self { key: Some(hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes())) }
    }

    fn of(
        &self,
        place: &Place,
        name: Option<&str>,
        rule: Rule,
        ordinal: usize,
        value: &SecretValue,
    ) -> String {
        let path = match place {
            Place::File(path) => format!("{path}\0"),
            _ => String::new(),
        };
        let (kind, name) = (place.kind(), name.unwrap_or_default());
        let position = format!("{kind}\0{path}{name}\0{}\0{ordinal}\0", rule.id());
        let full = match &self.key {
            None => hex::encode(digest::digest(&digest::SHA256, position.as_bytes())),
            Some(key) => {
                let mut context = hmac::Context::with_key(key);
                context.update(position.as_bytes());
                context.update(value.expose().as_bytes());
                hex::encode(context.sign())
            }
        };
        full[..16].to_owned()
    }
}

/// A finding that is known and accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedFinding {
    /// Only in this image: a name with or without its tag, or a digest. In every image, where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    pub fingerprint: String,
}

/// What is not to be reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowances {
    /// Variables (ENV and ARG) that may hold a literal although their names sound like secrets. A token of a known
    /// format in one of them is reported all the same.
    pub variables: BTreeSet<String>,
    pub findings: Vec<AllowedFinding>,
}

impl Allowances {
    fn allows(&self, image: &Image, finding: &Finding) -> bool {
        let variable = matches!(finding.place, Place::Env | Place::History(_))
            && finding.rule.is_by_name()
            && finding.name.as_ref().is_some_and(|name| self.variables.contains(name));
        variable
            || self.findings.iter().any(|allowed| {
                allowed.fingerprint == finding.fingerprint
                    && allowed.image.as_ref().is_none_or(|name| image.is_called(name))
            })
    }
}

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    pub findings: Vec<Finding>,
    /// What would be a finding, were it not allowed.
    pub allowed: Vec<Finding>,
}

/// Looks at everything that the image says about itself, and for managed values with a `matcher`.
pub fn audit(
    image: &Image,
    allowances: &Allowances,
    fingerprints: &Fingerprints,
    matcher: Option<&Matcher>,
) -> Audit {
    audit_with_files(image, Vec::new(), allowances, fingerprints, matcher)
}

/// The same, with what was found in the files of the layers.
pub fn audit_with_files(
    image: &Image,
    files: Vec<FileHit>,
    allowances: &Allowances,
    fingerprints: &Fingerprints,
    matcher: Option<&Matcher>,
) -> Audit {
    let files = files.into_iter().map(|FileHit { path, layers, hit }| Found {
        place: Place::File(path),
        hit,
        layers,
    });
    let mut ordinals: BTreeMap<(String, Option<String>, &'static str), usize> = BTreeMap::new();
    let findings = merged(image, matcher).into_iter().chain(files).map(|Found { place, hit, layers }| {
        let kind = match &place {
            Place::File(path) => format!("file {path}"),
            place => place.kind().to_owned(),
        };
        let counted = (kind, hit.name.clone(), hit.rule.id());
        let ordinal = ordinals.entry(counted).and_modify(|n| *n += 1).or_insert(0);
        let fingerprint = fingerprints.of(&place, hit.name.as_deref(), hit.rule, *ordinal, &hit.value);
        Finding { place, name: hit.name, rule: hit.rule, layers, fingerprint, parameter: hit.parameter }
    });
    let (allowed, findings) = findings.partition(|finding| allowances.allows(image, finding));
    Audit { findings, allowed }
}

struct Found {
    place: Place,
    hit: Hit,
    layers: Vec<usize>,
}

/// All hits, each secret once: what a layer's command has put into the configuration, or a build argument that every
/// later command repeats, is one finding with several layers.
fn merged(image: &Image, matcher: Option<&Matcher>) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for text in &image.texts {
        let mut hits = rules::scan(text.name.as_deref(), &text.value);
        if let Some(matcher) = matcher {
            rules::add_managed(&mut hits, text.name.as_deref(), &text.value, matcher);
        }
        for hit in hits {
            merge(&mut all, &text.place, hit);
        }
    }
    // A value may have been torn apart where a command was taken to pieces. What it put into the configuration is there
    // as a whole.
    for (place, command) in matcher.map_or(&[][..], |_| &image.commands) {
        let mut hits = Vec::new();
        matcher.into_iter().for_each(|matcher| rules::add_managed(&mut hits, None, command, matcher));
        for hit in hits {
            match all.iter_mut().find(|known| known.hit.parameter == hit.parameter) {
                Some(known) => known.add_layer(place),
                None => merge(&mut all, place, hit),
            }
        }
    }
    all
}

impl Found {
    fn add_layer(&mut self, place: &Place) {
        if let Place::History(layer) = place
            && !self.layers.contains(layer)
        {
            self.layers.push(*layer);
        }
    }
}

fn merge(all: &mut Vec<Found>, place: &Place, hit: Hit) {
    let layer = match place {
        Place::History(layer) => Some(*layer),
        _ => None,
    };
    // A command's value ends where something looks like the next name.
    let is_its_beginning = |known: &Found| {
        hit.rule.is_by_name()
            && layer.is_some()
            && !matches!(known.place, Place::History(_))
            && known.hit.name == hit.name
            && known.hit.value.expose().starts_with(hit.value.expose())
    };
    let known = all.iter_mut().find(|known| {
        is_its_beginning(known)
            || known.hit.rule == hit.rule
                && known.hit.value.same_as(&hit.value)
                && match (&known.place, layer) {
                    (Place::History(_), Some(_)) => true,
                    (_, Some(_)) => known.hit.name == hit.name,
                    (known_place, None) => known_place == place && known.hit.name == hit.name,
                }
    });
    match known {
        Some(known) => known.add_layer(place),
        None => all.push(Found { place: place.clone(), hit, layers: layer.into_iter().collect() }),
    }
}
