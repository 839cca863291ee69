//! Finds the configurations and layers of the images in an archive: from `manifest.json` of `docker save`, and from
//! `index.json` of an OCI layout.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use keyturn_secret_value::SecretValue;
use serde::Deserialize;

use super::LayersError;

/// The JSON files of an archive by path. Configurations contain the values of the image's variables.
pub(super) type Documents = BTreeMap<String, SecretValue>;

/// An image that an archive lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Path of the image's configuration.
    pub config: String,
    pub names: Vec<String>,
    /// Paths of the layers, from the base image upwards.
    pub layers: Vec<String>,
    /// The platform of the image, if the archive says it.
    pub platform: Option<Platform>,
}

/// The operating system and processor of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Platform {
    /// True for the platform that builders write into statements, which are not images.
    fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [&self.os, &self.architecture].into_iter().chain(&self.variant);
        let plain =
            |word: &String| word.chars().filter(char::is_ascii_alphanumeric).take(32).collect::<String>();
        f.write_str(&words.map(plain).collect::<Vec<_>>().join("/"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

/// Finds the images of an archive: those of all platforms and of both lists, each once. `is_layer` returns true for
/// files of the archive that are tars.
pub(super) fn find(
    documents: &Documents,
    is_layer: impl Fn(&str) -> bool,
) -> Result<Vec<Manifest>, LayersError> {
    let mut walk = Walk { documents, seen: BTreeSet::new(), images: Vec::new() };
    if let Some(manifest) = documents.get("manifest.json") {
        walk.images = saved(manifest)?;
    }
    if let Some(index) = documents.get("index.json") {
        walk.index(index, &[], None)?;
    }
    let mut images: Vec<Manifest> = Vec::new();
    for mut image in walk.images {
        if image.platform.is_none() {
            image.platform = platform(documents, &image.config);
        }
        if is_statement(documents, &image, &is_layer) {
            continue;
        }
        match images.iter_mut().find(|known| known.config == image.config) {
            Some(known) => {
                let new = image.names.into_iter().filter(|name| !known.names.contains(name));
                let new: Vec<String> = new.collect();
                known.names.extend(new);
            }
            None => images.push(image),
        }
    }
    if images.is_empty() { Err(LayersError::NoManifest) } else { Ok(images) }
}

/// True if this has the form of an image but is a builder's statement about one: provenance, a bill of materials, a
/// signature. Statements have no files. The platform alone proves nothing, since any image could claim it.
fn is_statement(documents: &Documents, image: &Manifest, is_layer: impl Fn(&str) -> bool) -> bool {
    if image.platform.as_ref().is_some_and(Platform::is_unknown) {
        return !image.layers.iter().any(|path| is_layer(path));
    }
    !image.layers.is_empty() && image.layers.iter().all(|path| documents.contains_key(path))
}

/// Returns the platform from the configuration.
fn platform(documents: &Documents, config: &str) -> Option<Platform> {
    let platform: Platform = serde_json::from_str(documents.get(config)?.expose()).ok()?;
    (!platform.os.is_empty()).then_some(platform)
}

fn saved(manifest: &SecretValue) -> Result<Vec<Manifest>, LayersError> {
    let saved: Vec<Saved> = parse("manifest.json", manifest)?;
    let images = saved.into_iter().map(|image| Manifest {
        config: image.config,
        names: image.repo_tags.unwrap_or_default(),
        layers: image.layers.unwrap_or_default(),
        platform: None,
    });
    Ok(images.collect())
}

struct Walk<'a> {
    documents: &'a Documents,
    /// Documents that were already read. Each is read once, so that circular indexes end.
    seen: BTreeSet<String>,
    images: Vec<Manifest>,
}

impl Walk<'_> {
    /// Walks through an index and the indexes in it.
    fn index(
        &mut self,
        index: &SecretValue,
        names: &[String],
        platform: Option<Platform>,
    ) -> Result<(), LayersError> {
        let index: Index = parse("index.json", index)?;
        if let Some(config) = index.config {
            let layers = index.layers.unwrap_or_default();
            self.images.push(Manifest {
                config: path_of(&config.digest)?,
                names: names.to_vec(),
                layers: layers.iter().map(|layer| path_of(&layer.digest)).collect::<Result<_, _>>()?,
                platform,
            });
            return Ok(());
        }
        for manifest in index.manifests.unwrap_or_default() {
            let annotations = manifest.annotations.unwrap_or_default();
            // This is a statement about another manifest, not an image.
            if annotations.contains_key("vnd.docker.reference.type") {
                continue;
            }
            let path = path_of(&manifest.digest)?;
            // The archive of an image for several platforms contains only the platforms that were pulled.
            let Some(document) = self.documents.get(&path) else { continue };
            if !self.seen.insert(path) {
                continue;
            }
            let name = annotations.get("io.containerd.image.name").into_iter().cloned();
            let names: Vec<String> = names.iter().cloned().chain(name).collect();
            self.index(document, &names, manifest.platform)?;
        }
        Ok(())
    }
}

/// Returns the path of a digest: `blobs/sha256/0a…` for `sha256:0a…`.
fn path_of(digest: &str) -> Result<String, LayersError> {
    let wrong = || LayersError::Manifest { path: "index.json".to_owned() };
    let (algorithm, hex) = digest.split_once(':').ok_or_else(wrong)?;
    let sound =
        |word: &str| !word.is_empty() && word.len() <= 128 && word.bytes().all(|c| c.is_ascii_alphanumeric());
    if sound(algorithm) && sound(hex) { Ok(format!("blobs/{algorithm}/{hex}")) } else { Err(wrong()) }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &str, document: &SecretValue) -> Result<T, LayersError> {
    // serde's messages quote the input.
    serde_json::from_str(document.expose()).map_err(|_| LayersError::Manifest { path: path.to_owned() })
}
