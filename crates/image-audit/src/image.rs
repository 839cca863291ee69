//! Docker's data about an image, as texts with one place each.
//!
//! Parses the output of `docker image inspect`, and for the history the output of `docker history --no-trunc --format
//! json` (one object per line) or the answer of the engine's API (an array). Texts may contain secrets: they are kept
//! in [`SecretValue`], and no error quotes the input.

use std::collections::BTreeMap;

use keyturn_secret_value::SecretValue;
use serde::{Deserialize, Deserializer};

use super::bounded::{self, MOST_TEXTS, is_too_many};
use super::{Place, history};

/// The audited part of an image.
pub struct Image {
    /// The image ID, `sha256:…`.
    pub id: String,
    /// All names of the image: tags and repository digests.
    pub names: Vec<String>,
    /// The texts to search; the value of each variable, label and build argument is a text of its own.
    pub texts: Vec<Text>,
    /// The commands of layers and those of `ONBUILD`, unsplit.
    pub commands: Vec<(Place, SecretValue)>,
    /// Number of layers whose command is not recorded, as after `docker import`.
    pub unrecorded_layers: usize,
}

/// A text in an image.
pub struct Text {
    /// The part of the image that contains it.
    pub place: Place,
    /// Name of the variable or label with this value.
    pub name: Option<String>,
    /// The text itself. It may be or contain a secret.
    pub value: SecretValue,
}

/// The reason why an image cannot be audited.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    /// The output of `docker image inspect` is not JSON, or its JSON does not describe images.
    #[error(
        "the output of docker inspect is not what was expected: not JSON of an image, at line {line}, column {column}"
    )]
    Inspect {
        /// Line of the output at which parsing failed, from 1.
        line: usize,
        /// Column in that line, from 1.
        column: usize,
    },
    /// The configuration in an archive is not JSON, or its JSON does not describe an image.
    #[error("the configuration of the image is not what was expected, at line {line}, column {column}")]
    Configuration {
        /// Line of the configuration at which parsing failed, from 1.
        line: usize,
        /// Column in that line, from 1.
        column: usize,
    },
    /// The output of `docker image inspect` has this number of objects; it must have one.
    #[error("the output of docker inspect describes {0} objects; audit one image at a time")]
    Count(usize),
    /// The output has a `State`, which only containers have.
    #[error("the output of docker inspect describes a container, not an image: use docker image inspect")]
    Container,
    /// The output of `docker image inspect` has no `Config`.
    #[error("the output of docker inspect has no configuration of an image")]
    NoConfiguration,
    /// An entry of the history is not JSON, or lacks `CreatedBy`.
    #[error(
        "entry {entry} of the history is not JSON with CreatedBy: use docker history --no-trunc --format json \
         (before docker 23: --format '{{{{json .}}}}')"
    )]
    History {
        /// Number of the line, from 1; always 1 for an array of the engine's API.
        entry: usize,
    },
    /// A list in docker's data, or the number of texts in the image, exceeds [`MOST_TEXTS`].
    #[error(
        "it has more than {MOST_TEXTS} variables, labels, commands or arguments, which are not looked at"
    )]
    TooMany,
    /// The history is empty, but the image has this number of layers.
    #[error("the history is empty, and the image has {0} layers")]
    NoHistory(usize),
    /// Docker has shortened a command in the history, as it does without `--no-trunc`.
    #[error("the history is shortened: use docker history --no-trunc")]
    Shortened,
    /// The history has fewer entries than the image has layers.
    #[error(
        "the history has {entries} entries, and the image has {layers} layers: it is another image's, or only a part"
    )]
    HistoryOfAnother {
        /// Number of entries in the history.
        entries: usize,
        /// Number of layers in the output of `docker image inspect`.
        layers: usize,
    },
}

/// Returns the ID of the image that an output of `docker image inspect` describes. Use it to request the history, since
/// a tag may move in the meantime.
pub fn id(inspect: &SecretValue) -> Result<String, ImageError> {
    parse_inspect(inspect).map(|inspected| inspected.id)
}

/// Parses both outputs.
pub fn parse(inspect: &SecretValue, history: &SecretValue) -> Result<Image, ImageError> {
    let inspected = parse_inspect(inspect)?;
    let commands = parse_history(history)?;
    let layers = inspected.root_fs.layers.len();
    if commands.is_empty() && layers > 0 {
        return Err(ImageError::NoHistory(layers));
    }
    if commands.len() < layers {
        return Err(ImageError::HistoryOfAnother { entries: commands.len(), layers });
    }
    let mut names = inspected.repo_tags;
    names.extend(inspected.repo_digests);
    let config = inspected.config.ok_or(ImageError::NoConfiguration)?;
    assembled(inspected.id, names, config, inspected.container_config, commands)
}

/// Parses an image's configuration from an archive, which includes the history.
pub fn parse_config(id: String, names: Vec<String>, config: &SecretValue) -> Result<Image, ImageError> {
    let wrong = wrong(|line, column| ImageError::Configuration { line, column });
    let configuration: Configuration = serde_json::from_str(config.expose()).map_err(wrong)?;
    let commands: Vec<SecretValue> =
        configuration.history.into_iter().rev().map(|layer| layer.created_by.0).collect();
    let config = configuration.config.unwrap_or_default();
    assembled(id, names, config, configuration.container_config, commands)
}

/// Combines the texts of an image; its commands come newest first.
fn assembled(
    id: String,
    names: Vec<String>,
    config: Config,
    container_config: Option<Config>,
    commands: Vec<SecretValue>,
) -> Result<Image, ImageError> {
    let unrecorded_layers = commands.iter().filter(|command| command.is_empty()).count();
    let mut whole: Vec<(Place, SecretValue)> =
        config.on_build.iter().map(|trigger| (Place::OnBuild, trigger.0.duplicate())).collect();
    let mut texts = config.into_texts()?;
    if let Some(container) = container_config {
        // Its command is the last step of the build, which the history contains too.
        let again = container.into_texts()?.into_iter();
        texts.extend(again.filter(|text| matches!(text.place, Place::Env | Place::Label)));
    }
    for (index, command) in commands.iter().rev().enumerate() {
        let place = Place::History(index + 1);
        add_command(&mut texts, &place, command)?;
        whole.push((place, command.duplicate()));
    }
    Ok(Image { id, names, texts, commands: whole, unrecorded_layers })
}

fn add_command(texts: &mut Vec<Text>, place: &Place, command: &SecretValue) -> Result<(), ImageError> {
    let of_command = history::texts(command.expose()).into_iter();
    texts.extend(of_command.map(|(name, value)| Text { place: place.clone(), name, value }));
    if texts.len() > MOST_TEXTS { Err(ImageError::TooMany) } else { Ok(()) }
}

impl Image {
    /// True if `name` in an allow list means this image: a name with its tag, a name without (all of its tags), or a
    /// digest.
    pub fn is_called(&self, name: &str) -> bool {
        self.id == name
            || self.names.iter().any(|known| {
                known == name
                    || repository(known) == name
                    || known.split_once('@').is_some_and(|(_, digest)| digest == name)
            })
    }
}

/// Returns a name without tag and digest. A colon before the last slash separates a port.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => &name[..colon],
        _ => name,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    id: String,
    #[serde(default, deserialize_with = "bounded::list")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "bounded::list")]
    repo_digests: Vec<String>,
    config: Option<Config>,
    /// The configuration of the container from which the classic builder or `docker commit` made the image.
    container_config: Option<Config>,
    #[serde(default, rename = "RootFS", deserialize_with = "or_default")]
    root_fs: RootFs,
    /// Only containers have a state; images do not.
    state: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(default, deserialize_with = "bounded::list")]
    layers: Vec<String>,
}

/// A configuration in the format of a registry or an archive.
#[derive(Deserialize)]
struct Configuration {
    config: Option<Config>,
    container_config: Option<Config>,
    #[serde(default, deserialize_with = "bounded::list")]
    history: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    created_by: Held,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default, deserialize_with = "bounded::list")]
    env: Vec<Held>,
    #[serde(default, deserialize_with = "bounded::map")]
    labels: BTreeMap<String, Held>,
    #[serde(default, deserialize_with = "bounded::words")]
    cmd: Vec<Held>,
    #[serde(default, deserialize_with = "bounded::words")]
    entrypoint: Vec<Held>,
    #[serde(default, deserialize_with = "or_default")]
    healthcheck: Healthcheck,
    #[serde(default, deserialize_with = "bounded::list")]
    on_build: Vec<Held>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Healthcheck {
    #[serde(default, deserialize_with = "bounded::words")]
    test: Vec<Held>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Layer {
    #[serde(alias = "createdBy")]
    created_by: Held,
}

/// Joins the words of a command to one text.
fn joined(words: &[Held]) -> Option<SecretValue> {
    let words: Vec<&str> = words.iter().map(|word| word.0.expose()).collect();
    (!words.is_empty()).then(|| SecretValue::new(words.join(" ")))
}

struct Held(SecretValue);

impl Default for Held {
    fn default() -> Self {
        Self(SecretValue::new(String::new()))
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretValue::new(text)))
    }
}

/// Reads `null`, which docker writes instead of an empty value, as the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

impl Config {
    fn into_texts(self) -> Result<Vec<Text>, ImageError> {
        let text = |place: Place, value: SecretValue| Text { place, name: None, value };
        let mut texts: Vec<Text> = self.env.iter().map(|entry| variable(entry.0.expose())).collect();
        texts.extend(self.labels.into_iter().map(|(name, value)| Text {
            place: Place::Label,
            name: Some(name),
            value: value.0,
        }));
        texts.extend(joined(&self.cmd).map(|value| text(Place::Cmd, value)));
        texts.extend(joined(&self.entrypoint).map(|value| text(Place::Entrypoint, value)));
        texts.extend(joined(&self.healthcheck.test).map(|value| text(Place::Healthcheck, value)));
        for trigger in self.on_build {
            add_command(&mut texts, &Place::OnBuild, &trigger.0)?;
        }
        Ok(texts)
    }
}

/// Parses an entry of Env. An entry without `=` is a text without a name.
fn variable(entry: &str) -> Text {
    let (name, value) = match entry.split_once('=') {
        Some((name, value)) => (Some(name.to_owned()), value),
        None => (None, entry),
    };
    Text { place: Place::Env, name, value: SecretValue::new(value.to_owned()) }
}

/// Converts an error of a document: a list is too long, or there is a syntax error at a line and column. serde's
/// messages quote the input, so only the position is passed on.
fn wrong(at: fn(usize, usize) -> ImageError) -> impl Fn(serde_json::Error) -> ImageError {
    move |error| {
        if is_too_many(&error) { ImageError::TooMany } else { at(error.line(), error.column()) }
    }
}

fn parse_inspect(output: &SecretValue) -> Result<Inspected, ImageError> {
    let wrong = wrong(|line, column| ImageError::Inspect { line, column });
    let text = output.expose().trim_start();
    let mut objects: Vec<Inspected> = if text.starts_with('{') {
        vec![serde_json::from_str(text).map_err(wrong)?]
    } else {
        bounded::document(text).map_err(wrong)?
    };
    match (objects.pop(), objects.len()) {
        (Some(object), 0) if object.state.is_some() => Err(ImageError::Container),
        (Some(object), 0) => Ok(object),
        (Some(_), more) => Err(ImageError::Count(more + 1)),
        (None, _) => Err(ImageError::Count(0)),
    }
}

/// Returns the commands, newest first as docker lists them.
fn parse_history(output: &SecretValue) -> Result<Vec<SecretValue>, ImageError> {
    let text = output.expose().trim();
    let layers: Vec<Layer> = if text.starts_with('[') {
        bounded::document(text).map_err(wrong(|_, _| ImageError::History { entry: 1 }))?
    } else {
        let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        if lines().nth(MOST_TEXTS).is_some() {
            return Err(ImageError::TooMany);
        }
        lines()
            .map(|(index, line)| {
                serde_json::from_str(line).map_err(|_| ImageError::History { entry: index + 1 })
            })
            .collect::<Result<_, _>>()?
    };
    // Docker shortens commands to 45 characters, the last of which is an ellipsis.
    if layers.iter().any(|layer| {
        let command = layer.created_by.0.expose();
        command.ends_with('…') && command.chars().count() <= 45
    }) {
        return Err(ImageError::Shortened);
    }
    Ok(layers.into_iter().map(|layer| layer.created_by.0).collect())
}
