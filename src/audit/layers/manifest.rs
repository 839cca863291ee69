//! Which files of an archive are the image's configuration and its layers: `manifest.json` of `docker save`, or
//! `index.json` of an OCI layout.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::LayersError;
use crate::secret_value::SecretValue;

/// The JSON files of an archive by path. Configurations hold what the image's variables hold.
pub type Documents = BTreeMap<String, SecretValue>;

/// What an archive says it has.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Path of the image's configuration.
    pub config: String,
    pub names: Vec<String>,
    /// Paths of the layers, from the base image upwards.
    pub layers: Vec<String>,
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
}

/// Finds the one image of an archive.
pub fn find(documents: &Documents) -> Result<Manifest, LayersError> {
    let mut images = match documents.get("manifest.json") {
        Some(manifest) => saved(manifest)?,
        None => {
            let mut images = Vec::new();
            let index = documents.get("index.json").ok_or(LayersError::NoManifest)?;
            walk(documents, index, &[], &mut BTreeSet::new(), &mut images)?;
            images
        }
    };
    match (images.pop(), images.len()) {
        (Some(image), 0) => Ok(image),
        (None, _) => Err(LayersError::NoManifest),
        (Some(_), more) => Err(LayersError::Count(more + 1)),
    }
}

fn saved(manifest: &SecretValue) -> Result<Vec<Manifest>, LayersError> {
    let saved: Vec<Saved> = parse("manifest.json", manifest)?;
    let images = saved.into_iter().map(|image| Manifest {
        config: image.config,
        names: image.repo_tags.unwrap_or_default(),
        layers: image.layers.unwrap_or_default(),
    });
    Ok(images.collect())
}

/// Goes through an index, and those in it. Each document is read once, so that indexes in a circle come to an end.
fn walk(
    documents: &Documents,
    index: &SecretValue,
    names: &[String],
    seen: &mut BTreeSet<String>,
    images: &mut Vec<Manifest>,
) -> Result<(), LayersError> {
    let index: Index = parse("index.json", index)?;
    if let Some(config) = index.config {
        let layers = index.layers.unwrap_or_default();
        images.push(Manifest {
            config: path_of(&config.digest)?,
            names: names.to_vec(),
            layers: layers.iter().map(|layer| path_of(&layer.digest)).collect::<Result<_, _>>()?,
        });
        return Ok(());
    }
    for manifest in index.manifests.unwrap_or_default() {
        let annotations = manifest.annotations.unwrap_or_default();
        // A statement about another manifest, and no image.
        if annotations.contains_key("vnd.docker.reference.type") {
            continue;
        }
        let path = path_of(&manifest.digest)?;
        // Of an image for several platforms only what was pulled is there.
        let Some(document) = documents.get(&path) else { continue };
        if !seen.insert(path) {
            continue;
        }
        let name = annotations.get("io.containerd.image.name").into_iter().cloned();
        let names: Vec<String> = names.iter().cloned().chain(name).collect();
        walk(documents, document, &names, seen, images)?;
    }
    Ok(())
}

/// `sha256:0a…` is `blobs/sha256/0a…`.
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
