//! Searches the files of an image's layers as `docker save` writes them: a tar of tars, read once, as a stream.
//!
//! A file that a later layer deletes is still in the lower layer, so every layer is searched separately. Nothing is
//! unpacked to a disk. Memory holds one window of a file ([`content::WINDOW`]), the JSON that describes the image, and
//! the findings, each limited; everything beyond a limit is counted as not searched.

mod blob;
pub mod content;
pub mod entries;
mod manifest;
mod places;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Instant;

use blob::Blob;
use content::Contents;
use entries::{Kind, Tar, TarError};
use keyturn_secret_value::SecretValue;
use manifest::{Documents, Manifest};
use places::Treatment;

use super::managed::Matcher;
use super::rules::Hit;

/// Largest JSON file of an archive in bytes, and largest total of all of them. A configuration has about 10 KiB.
const LARGEST_DOCUMENT: u64 = 4 << 20;
const ALL_DOCUMENTS: usize = 8 << 20;
/// Longest path, in bytes, that is reported completely.
const LONGEST_PATH: usize = 400;
/// Maximum number of files in the archive itself: layers, and the files that describe them.
const MOST_BLOBS: usize = 10_000;

/// Limits of the search.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of bytes of one file. Larger files are models, archives and databases.
    pub file: u64,
    /// Maximum number of bytes of all layers together, uncompressed.
    pub total: u64,
    /// Maximum number of findings.
    pub findings: usize,
    /// Time at which the search stops.
    pub deadline: Option<Instant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: 256 << 20, total: 64 << 30, findings: 1000, deadline: None }
    }
}

/// The reason why an archive cannot be searched.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// The outer tar, which holds the layers, is damaged or cannot be read. Errors in a layer are not among these.
    #[error("the archive of the image cannot be read: {0}")]
    Archive(#[from] TarError),
    /// Neither `manifest.json` nor `index.json` names an image, or both are missing.
    #[error("the archive has neither manifest.json nor index.json: it is not what docker save writes")]
    NoManifest,
    /// `manifest.json`, or `index.json` or a document that it refers to, cannot be parsed.
    #[error("{path} in the archive is not what was expected")]
    Manifest {
        /// `manifest.json` or `index.json`.
        path: String,
    },
    /// The JSON files of the archive are too large together.
    #[error("the archive has more than {} MiB of JSON", ALL_DOCUMENTS >> 20)]
    Documents,
    /// The archive has too many layers, JSON files and links.
    #[error("the archive has more than {MOST_BLOBS} files of its own")]
    Blobs,
    /// The archive names an image's configuration with this path, but does not have it.
    #[error("the archive lacks {0}, which its manifest names")]
    Missing(String),
}

/// A secret in a file of a layer.
pub struct FileHit {
    /// The path in the tar, without characters that control a terminal.
    pub path: String,
    /// The layers that contain it, numbered as in the history. Empty if the order of the layers is unknown.
    pub layers: Vec<usize>,
    /// The secret and the rule that found it.
    pub hit: Hit,
}

/// The extent of the search, and what it left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Number of layers of the image; if the deadline has passed, of the layers that were begun.
    pub layers: usize,
    /// Number of files that were searched, without those counted by `examples`.
    pub files: u64,
    /// Bytes of the layers, uncompressed.
    pub bytes: u64,
    /// Number of files that are documentation or tests of packages: in these, only managed values are reported.
    pub examples: u64,
    /// Number of files of which only the beginning was searched.
    pub cut: u64,
    /// Number of findings beyond the limit.
    pub left_out: u64,
    /// Reasons why not all layers were searched completely.
    pub problems: Vec<String>,
}

impl Looked {
    fn add(&mut self, other: &Self) {
        self.layers += other.layers;
        self.files += other.files;
        self.bytes += other.bytes;
        self.examples += other.examples;
        self.cut += other.cut;
        self.left_out += other.left_out;
        self.problems.extend(other.problems.iter().cloned());
    }
}

/// The data of one image in an archive.
pub struct Archive {
    /// Secrets in the files of the layers; the same secret in the same file of several layers is one hit.
    pub hits: Vec<FileHit>,
    /// The extent of the search.
    pub looked: Looked,
    /// The image's configuration as JSON, including its history. `None` if the end of the archive was not reached.
    pub config: Option<SecretValue>,
    /// Names of the image.
    pub names: Vec<String>,
    /// The image's ID, which is the digest of the configuration.
    pub id: String,
    /// The platform, such as `linux/arm64`, if the archive says it.
    pub platform: Option<String>,
}

/// Searches an archive as `docker save` writes it. Several images, for example of several platforms, count as one.
pub fn scan(archive: impl Read, matcher: Option<&Matcher>, limits: Limits) -> Result<Archive, LayersError> {
    let mut images = scan_images(archive, matcher, limits)?.into_iter();
    let Some(mut all) = images.next() else { return Err(LayersError::NoManifest) };
    for image in images {
        all.looked.add(&image.looked);
        for FileHit { path, layers, hit } in image.hits {
            add(&mut all.hits, path, &layers, hit);
        }
    }
    Ok(all)
}

/// Searches an archive and returns one result per image. There is at least one.
pub fn scan_images(
    archive: impl Read,
    matcher: Option<&Matcher>,
    limits: Limits,
) -> Result<Vec<Archive>, LayersError> {
    let mut scan = Scan {
        contents: Contents::new(matcher),
        values_only: matcher.is_some(),
        limits,
        left: limits.total,
        blobs: BTreeMap::new(),
        documents: Documents::new(),
        links: BTreeMap::new(),
        found: 0,
    };
    match scan.archive(archive) {
        Err(LayersError::Archive(TarError::Read(error))) if error.kind() == io::ErrorKind::TimedOut => {
            Ok(vec![scan.without_order()])
        }
        Err(error) => Err(error),
        Ok(()) => scan.images(),
    }
}

struct Scan<'a> {
    contents: Contents<'a>,
    /// True if there are managed values, which count in every file.
    values_only: bool,
    limits: Limits,
    /// Bytes of layers that may still be searched.
    left: u64,
    /// The layers by their paths in the archive.
    blobs: BTreeMap<String, LayerOf>,
    documents: Documents,
    links: BTreeMap<String, String>,
    found: usize,
}

#[derive(Default)]
struct LayerOf {
    hits: Vec<(String, Hit)>,
    /// The result without `problem`, which is reported together with the layer's number.
    looked: Looked,
    problem: Option<String>,
}

/// A reader with a limit of bytes and a deadline.
struct Bounded<'a, R> {
    inner: R,
    left: &'a mut u64,
    deadline: Option<Instant>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the time for it is over"));
        }
        let most = usize::try_from(*self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the layers have more bytes than are looked at",
            ));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        *self.left -= read as u64;
        Ok(read)
    }
}

impl Scan<'_> {
    fn archive(&mut self, archive: impl Read) -> Result<(), LayersError> {
        let mut unbounded = u64::MAX;
        let deadline = self.limits.deadline;
        let mut outer = Tar::new(Bounded { inner: archive, left: &mut unbounded, deadline });
        let mut documents = 0;
        while let Some(entry) = outer.next_entry()? {
            if self.blobs.len() + self.documents.len() + self.links.len() > MOST_BLOBS {
                return Err(LayersError::Blobs);
            }
            let path = name(&entry.path);
            match entry.kind {
                // A layer that is equal to another one.
                Kind::Link(target) => drop(self.links.insert(path.clone(), beside(&path, &name(&target)))),
                Kind::File => match Blob::of(&mut outer).map_err(TarError::from)? {
                    Blob::Layer(layer) => {
                        let layer = self.layer(layer)?;
                        self.blobs.insert(path, layer);
                    }
                    Blob::Json(content) => {
                        let mut text = Vec::new();
                        content.take(LARGEST_DOCUMENT).read_to_end(&mut text).map_err(TarError::from)?;
                        documents += text.len();
                        if documents > ALL_DOCUMENTS {
                            return Err(LayersError::Documents);
                        }
                        if let Ok(text) = String::from_utf8(text) {
                            self.documents.insert(path, SecretValue::new(text));
                        }
                    }
                    Blob::Other => {}
                },
                Kind::Other => {}
            }
        }
        Ok(())
    }

    /// Searches one layer. An error in the layer does not stop the search of the other layers, unless the deadline has
    /// passed.
    fn layer(&mut self, layer: impl Read) -> Result<LayerOf, LayersError> {
        let mut result = LayerOf::default();
        let before = self.left;
        let mut left = self.left;
        let deadline = self.limits.deadline;
        let mut files = Tar::new(Bounded { inner: layer, left: &mut left, deadline });
        let ended = loop {
            match files.next_entry() {
                Ok(None) => break Ok(()),
                Ok(Some(entry)) if entry.kind != Kind::File => {}
                Ok(Some(entry)) => {
                    let hits = match self.file(&entry, &mut files, &mut result.looked) {
                        Ok(hits) => hits,
                        Err(error) => break Err(TarError::from(error)),
                    };
                    for hit in hits {
                        if self.found < self.limits.findings {
                            self.found += 1;
                            result.hits.push(hit);
                        } else {
                            result.looked.left_out += 1;
                        }
                    }
                }
                Err(error) => break Err(error),
            }
        };
        drop(files);
        self.left = left;
        result.looked.bytes = before - left;
        match ended {
            Err(TarError::Read(error)) if error.kind() == io::ErrorKind::TimedOut => {
                self.blobs.insert(format!("{}", self.blobs.len()), result);
                Err(TarError::Read(error).into())
            }
            Err(error) => {
                result.problem = Some(error.to_string());
                Ok(result)
            }
            Ok(()) => Ok(result),
        }
    }

    fn file(
        &mut self,
        entry: &entries::Entry,
        content: &mut impl Read,
        looked: &mut Looked,
    ) -> io::Result<Vec<(String, Hit)>> {
        let path = name(&entry.path);
        let treatment = places::treatment(&path);
        let mut hits = self.contents.path(&path);
        let shown = if hits.is_empty() { shown(&path) } else { "(a path with a secret in it)".to_owned() };
        if treatment == Treatment::Examples {
            looked.examples += 1;
            if !self.values_only {
                return Ok(Vec::new());
            }
        } else {
            looked.files += 1;
        }
        let (found, in_full) = self.contents.scan(treatment, content, self.limits.file)?;
        if !in_full || entry.size > self.limits.file {
            looked.cut += 1;
        }
        hits.extend(found);
        Ok(hits.into_iter().map(|hit| (shown.clone(), hit)).collect())
    }

    /// Assigns the hits to the images and their layers.
    fn images(&self) -> Result<Vec<Archive>, LayersError> {
        let manifests = manifest::find(&self.documents, |path| self.blobs.contains_key(path))?;
        let (mut images, mut missing) = (Vec::new(), Vec::new());
        for manifest in manifests {
            match self.documents.get(&manifest.config) {
                Some(config) => images.push(self.image(manifest, config)),
                None => missing.push(manifest.config),
            }
        }
        match (images.first_mut(), missing.is_empty()) {
            (None, _) => Err(missing.pop().map_or(LayersError::NoManifest, LayersError::Missing)),
            (Some(_), true) => Ok(images),
            (Some(first), false) => {
                let lacks = |path| LayersError::Missing(path).to_string();
                first.looked.problems.extend(missing.into_iter().map(lacks));
                Ok(images)
            }
        }
    }

    fn image(&self, manifest: Manifest, config: &SecretValue) -> Archive {
        let id = manifest.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        let mut hits: Vec<FileHit> = Vec::new();
        let numbers = numbers(config, manifest.layers.len());
        let mut paths: Vec<(&String, usize)> = Vec::new();
        for (path, number) in manifest.layers.iter().zip(numbers) {
            // Docker wrote these links, so a link never leads to another link.
            let path = match self.blobs.contains_key(path) {
                true => path,
                false => self.links.get(path).unwrap_or(path),
            };
            paths.push((path, number));
        }
        let mut looked = Looked::default();
        for (index, (path, number)) in paths.iter().enumerate() {
            let again = paths[..index].iter().any(|(known, _)| known == path);
            let layer = self.blobs.get(*path);
            if layer.is_none() && !again {
                looked.problems.push(format!(
                    "layer {number} is not in the archive, or packed in a way that is not known"
                ));
            }
            // A layer that occurs twice, such as an empty one, was already counted.
            let Some(layer) = layer.filter(|_| !again) else { continue };
            looked.add(&layer.looked);
            looked.problems.extend(layer.problem.iter().map(|problem| format!("layer {number}: {problem}")));
            for (path, hit) in &layer.hits {
                add(&mut hits, path.clone(), &[*number], hit.duplicate());
            }
        }
        looked.layers = paths.len();
        Archive {
            hits,
            looked,
            config: Some(config.duplicate()),
            id: format!("sha256:{id}"),
            names: manifest.names,
            platform: manifest.platform.map(|platform| platform.to_string()),
        }
    }

    /// Returns the findings of a search that the deadline stopped, without the order of layers.
    fn without_order(self) -> Archive {
        let mut looked = Looked::default();
        looked.problems.push("the time was over before all layers were looked at".to_owned());
        self.blobs.values().for_each(|layer| looked.add(&layer.looked));
        looked.layers = self.blobs.len();
        let found = self.blobs.into_values().flat_map(|layer| layer.hits);
        let hits = found.map(|(path, hit)| FileHit { path, layers: Vec::new(), hit }).collect();
        Archive { hits, looked, config: None, names: Vec::new(), id: String::new(), platform: None }
    }
}

/// Adds a hit. The same secret in the same file of several layers is one finding.
fn add(hits: &mut Vec<FileHit>, path: String, layers: &[usize], hit: Hit) {
    let known = hits.iter_mut().find(|known| {
        known.path == path && known.hit.rule == hit.rule && known.hit.value.same_as(&hit.value)
    });
    match known {
        Some(known) => {
            let new = layers.iter().filter(|layer| !known.layers.contains(layer)).copied();
            let new: Vec<usize> = new.collect();
            known.layers.extend(new);
        }
        None => hits.push(FileHit { path, layers: layers.to_vec(), hit }),
    }
}

/// Returns the entries of the history that made the layers, numbered from 1. Other entries between them made no layer.
fn numbers(config: &SecretValue, layers: usize) -> Vec<usize> {
    #[derive(serde::Deserialize)]
    struct Config {
        #[serde(default)]
        history: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        empty_layer: bool,
    }
    let history = serde_json::from_str(config.expose()).map_or_else(|_| Vec::new(), |c: Config| c.history);
    let made = history.iter().enumerate().filter(|(_, entry)| !entry.empty_layer);
    let numbers: Vec<usize> = made.map(|(index, _)| index + 1).collect();
    if numbers.len() == layers { numbers } else { (1..=layers).collect() }
}

/// Returns a path without leading `./` and `/`.
fn name(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let mut rest = path.as_ref();
    while let Some(stripped) = rest.strip_prefix("./").or_else(|| rest.strip_prefix('/')) {
        rest = stripped;
    }
    rest.to_owned()
}

/// Resolves a link at `path` in the archive: `../<layer>/layer.tar`.
fn beside(path: &str, target: &str) -> String {
    let mut folders: Vec<&str> = path.split('/').collect();
    folders.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(folders.pop()),
            "." | "" => {}
            part => folders.push(part),
        }
    }
    folders.join("/")
}

/// Returns a path in the form for a report.
fn shown(path: &str) -> String {
    let plain: String = path.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    match plain.char_indices().nth(LONGEST_PATH) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain,
    }
}
