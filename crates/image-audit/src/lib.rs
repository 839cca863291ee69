//! The audit of an image: the secrets in its configuration and in the commands of its layers.
//!
//! A pure computation: the output of `docker image inspect` and `docker history` ([`image`]) is searched for secrets
//! ([`rules`]), and the findings name a place and never a value ([`report`]). On request it also searches the files of
//! the layers ([`layers`]).

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

/// The place of a text in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A variable of the configuration (`ENV`).
    Env,
    /// A label of the configuration (`LABEL`).
    Label,
    /// The default command (`CMD`), its words joined by spaces.
    Cmd,
    /// The entrypoint (`ENTRYPOINT`), its words joined by spaces.
    Entrypoint,
    /// The command of the health check (`HEALTHCHECK`), its words joined by spaces.
    Healthcheck,
    /// An instruction for images that are built on this one (`ONBUILD`).
    OnBuild,
    /// The command that created a layer. Layers are numbered from 1, from the base image upwards, so that a number
    /// stays the same when layers are added on top.
    History(usize),
    /// A file in a layer, with its path there.
    File(String),
}

impl Place {
    /// Returns the word for this place in reports and fingerprints.
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

/// One secret in an image, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The place of the secret; if it is in several places, the first one in which it was found.
    pub place: Place,
    /// The variable, label or option that contains it, if there is one.
    pub name: Option<String>,
    /// The reason for the finding.
    pub rule: Rule,
    /// Every layer whose command or file contains it, numbered from the base image upwards.
    pub layers: Vec<usize>,
    /// The identifier of the finding in an allow list: 16 hexadecimal digits, see [`Fingerprints`].
    pub fingerprint: String,
    /// The parameter whose published value it is, if keyturn manages the value.
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

/// Computes the fingerprints that distinguish findings.
///
/// Without a key, a fingerprint covers only the *place*: kind of place, path of a file, name, rule, and the position
/// among several, counted from the base image. It does not cover the value, and so stays the same when the value
/// changes. With a key, it also covers the value, through an HMAC: another value is another finding. A bare hash of the
/// value would let everybody who reads the report test passwords against it.
#[derive(Default)]
pub struct Fingerprints {
    key: Option<hmac::Key>,
}

impl Fingerprints {
    /// Creates fingerprints that change with the value. Everybody who knows the key can test guesses against them.
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
    /// The only image that it is allowed in: a name with or without its tag, or a digest. Every image if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The fingerprint, 16 hexadecimal digits in lower case, as in [`Finding::fingerprint`].
    pub fingerprint: String,
}

/// Findings that are not reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowances {
    /// Variables (ENV and ARG) that may hold a literal although their names sound like secrets. A token of a known
    /// format in such a variable is still reported.
    pub variables: BTreeSet<String>,
    /// Findings that are accepted by their fingerprint.
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

/// The result of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Findings that no allowance covers.
    pub findings: Vec<Finding>,
    /// Findings that the allowances cover.
    pub allowed: Vec<Finding>,
}

/// Searches everything that docker reports about the image, and also for managed values if there is a `matcher`.
pub fn audit(
    image: &Image,
    allowances: &Allowances,
    fingerprints: &Fingerprints,
    matcher: Option<&Matcher>,
) -> Audit {
    audit_with_files(image, Vec::new(), allowances, fingerprints, matcher)
}

/// Like [`audit`], with the findings in the files of the layers.
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

/// Returns all hits, each secret once: a value that a layer's command has put into the configuration, or a build
/// argument that every later command repeats, is one finding with several layers.
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
    // Splitting a command may have split a value, so the unsplit command is searched too. A value that the command put
    // into the configuration is complete in the configuration.
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
    // A command's value ends at the next text that looks like a name.
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
