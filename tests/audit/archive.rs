//! Archives in the formats of `docker save` and other programs, made by the tests.

use std::io::Write as _;

use aws_lc_rs::digest;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// The compression of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

/// Builds a tar of files.
pub(crate) fn tar<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Written directly, since the builder refuses paths that lead out of the folder.
        let name = &mut header.as_mut_bytes()[..100];
        if path.len() <= name.len() {
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            tar.append(&header, content).unwrap();
        } else {
            tar.append_data(&mut header, path, content).unwrap();
        }
    }
    tar.into_inner().unwrap()
}

pub(crate) fn packed(layer: &[u8], how: Packed) -> Vec<u8> {
    match how {
        Packed::Plain => layer.to_vec(),
        Packed::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(layer).unwrap();
            encoder.finish().unwrap()
        }
        Packed::Zstd => ruzstd::encoding::compress_to_vec(layer, ruzstd::encoding::CompressionLevel::Fastest),
    }
}

/// Returns the configuration of an image with this many layers, and a step without a layer before each.
pub(crate) fn config(layers: usize, env: &[&str]) -> Value {
    let history: Vec<Value> = (0..layers)
        .flat_map(|n| {
            [
                json!({"created_by": format!("WORKDIR /{n}"), "empty_layer": true}),
                json!({"created_by": "COPY . /app # buildkit"}),
            ]
        })
        .collect();
    json!({"architecture": "amd64", "os": "linux", "config": {"Env": env}, "history": history, "rootfs": {}})
}

/// Returns the output of `docker save` of docker 20: layers before the manifest, with names that are not their
/// digests.
pub(crate) fn classic(layers: &[Vec<u8>], config: &Value) -> Vec<u8> {
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", sha256(&config));
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (n, layer) in layers.iter().enumerate() {
        files.push((format!("{n:02}/VERSION"), b"1.0".to_vec()));
        files.push((format!("{n:02}/json"), b"{}".to_vec()));
        files.push((format!("{n:02}/layer.tar"), layer.clone()));
    }
    files.push((name.clone(), config));
    let paths: Vec<String> = (0..layers.len()).map(|n| format!("{n:02}/layer.tar")).collect();
    let manifest = json!([{"Config": name, "RepoTags": ["team/app:1"], "Layers": paths}]);
    files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    tar(files.iter().map(|(path, content)| (path.as_str(), content.as_slice())))
}

/// Returns an OCI layout as newer dockers, `buildx --output type=oci` and skopeo write it, with a statement of the
/// builder.
pub(crate) fn oci(layers: &[Vec<u8>], config: &Value) -> Vec<u8> {
    let mut layout = Layout::default();
    let manifest = layout.image(layers, config);
    let mut statement = layout.image(&[], config);
    statement["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let mut index = layout.json(&json!({"manifests": [manifest, statement]}));
    index["annotations"] = json!({"io.containerd.image.name": "team/app:1"});
    layout.archive(&[index])
}

/// An OCI layout that is being built.
#[derive(Default)]
pub(crate) struct Layout {
    files: Vec<(String, Vec<u8>)>,
}

impl Layout {
    /// Adds a file and returns the descriptor that refers to it.
    pub(crate) fn blob(&mut self, content: Vec<u8>) -> Value {
        let digest = sha256(&content);
        let path = format!("blobs/sha256/{digest}");
        if self.files.iter().all(|(known, _)| *known != path) {
            self.files.push((path, content));
        }
        json!({"digest": format!("sha256:{digest}"), "size": 0})
    }

    pub(crate) fn json(&mut self, document: &Value) -> Value {
        self.blob(document.to_string().into_bytes())
    }

    pub(crate) fn image(&mut self, layers: &[Vec<u8>], config: &Value) -> Value {
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(layer.clone())).collect();
        let config = self.json(config);
        self.json(&json!({"config": config, "layers": layers}))
    }

    /// Returns the layout as a tar with these manifests in its index.
    pub(crate) fn archive(mut self, manifests: &[Value]) -> Vec<u8> {
        self.files.push(("index.json".to_owned(), json!({"manifests": manifests}).to_string().into_bytes()));
        tar(self.files.iter().map(|(path, content)| (path.as_str(), content.as_slice())))
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}
