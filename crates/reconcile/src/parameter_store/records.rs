//! Records of running rotations, kept in SSM itself: one immutable SecureString `<staging>/<namespace>/<name>/<id>`
//! per rotation, and beside it the abort marker `<id>.abort`, which is created at most once.
//!
//! A record holds the values that are about to be published, so that if one controller dies, another one can finish the
//! rotation with the same values. Everybody who may read below the staging path can read a record; no host and no
//! person needs that right.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use keyturn_rotation::observed::{Credential, Record, RotationId, Trigger};
use keyturn_secret_value::SecretValue;
use serde::{Deserialize, Serialize};

/// Maximum number of bytes of a value in SSM's Standard tier. Records use that tier, since they live for hours and
/// must cost nothing.
pub const MAX_BYTES: usize = 4096;

/// The record format that this version of keyturn writes, and the only one that it reads.
const FORMAT: u32 = 1;
const ABORT_SUFFIX: &str = ".abort";

/// Content of an abort marker. Only its existence matters, but SSM accepts no empty value.
pub const ABORT_VALUE: &str = "aborted";

/// Returns the path of a rotation's record.
pub fn record_path(staging: &str, namespace: &str, name: &str, id: RotationId) -> String {
    format!("{}{id}", folder(staging, namespace, name))
}

/// Returns the path of a rotation's abort marker.
pub fn abort_path(staging: &str, namespace: &str, name: &str, id: RotationId) -> String {
    format!("{}{id}{ABORT_SUFFIX}", folder(staging, namespace, name))
}

/// Returns the folder of all records and markers of one secret. It ends in a slash, as
/// [`ParameterStore::read_folder`](super::ParameterStore::read_folder) expects.
pub fn folder(staging: &str, namespace: &str, name: &str) -> String {
    format!("{}/{namespace}/{name}/", staging.trim_end_matches('/'))
}

/// A record or marker, as its path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Namespace of the ManagedSecret.
    pub namespace: String,
    /// Name of the ManagedSecret.
    pub name: String,
    /// Number of the rotation, from 1.
    pub id: RotationId,
    /// Record or abort marker.
    pub kind: StagedKind,
}

/// Kind of a parameter in the folder of a secret's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagedKind {
    /// The record of the rotation.
    Record,
    /// The abort marker of the rotation.
    Abort,
}

/// Parses a path. `None` for a path outside the staging path, or one that keyturn never creates.
pub fn parse_path(staging: &str, path: &str) -> Option<Staged> {
    let below = path.strip_prefix(staging.trim_end_matches('/'))?.strip_prefix('/')?;
    let mut segments = below.split('/');
    let (namespace, name, last) = (segments.next()?, segments.next()?, segments.next()?);
    if segments.next().is_some() || namespace.is_empty() || name.is_empty() {
        return None;
    }
    let (digits, kind) = match last.strip_suffix(ABORT_SUFFIX) {
        Some(digits) => (digits, StagedKind::Abort),
        None => (last, StagedKind::Record),
    };
    let id: RotationId = digits.parse().ok()?;
    if id == 0 || id.to_string() != digits {
        return None;
    }
    Some(Staged { namespace: namespace.to_owned(), name: name.to_owned(), id, kind })
}

/// The reason why a record cannot be written or read. Never quotes content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The encoded record exceeds [`MAX_BYTES`], so it cannot be written.
    #[error(
        "the record of rotation {id} would take {bytes} bytes, more than the {MAX_BYTES} that one SSM parameter \
         holds: publish shorter values or fewer parameters per ManagedSecret, and keep the value of \
         keyturn.dev/rotate-requested-at short"
    )]
    TooLarge {
        /// Number of the rotation.
        id: RotationId,
        /// Length of the encoded record in bytes.
        bytes: usize,
    },
    /// The value is cut off, is not JSON, or has other fields than a record.
    #[error(
        "the parameter {path} is not a record of this keyturn ({what}). Only keyturn may write there: find out who \
         did before you delete it, since the values of a running rotation may exist nowhere else"
    )]
    Unreadable {
        /// Path of the parameter.
        path: String,
        /// Problem of the content, in words that quote nothing of it.
        what: &'static str,
    },
    /// Another version of keyturn wrote the record.
    #[error(
        "the record at {path} has format {format}, and this keyturn reads {FORMAT} only; run the version that wrote it"
    )]
    OtherFormat {
        /// Path of the parameter.
        path: String,
        /// The format that the record names.
        format: u32,
    },
    /// The record names another rotation than its path does.
    #[error(
        "the record at {path} says that it is the record of rotation {says}; it was copied or moved by hand"
    )]
    WrongPlace {
        /// Path of the parameter.
        path: String,
        /// Number of the rotation that the record names.
        says: RotationId,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    keyturn: u32,
    id: RotationId,
    trigger: Trigger,
    at: DateTime<Utc>,
    request: Option<&'a str>,
    values: BTreeMap<&'a str, &'a str>,
    base: &'a BTreeMap<String, i64>,
    /// Times of the base versions, in the order of `base` and without paths, since a record has little room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    base_at: Vec<Option<DateTime<Utc>>>,
    hosts: &'a [String],
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    kept: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<WrittenCredential<'a>>,
}

#[derive(Serialize)]
struct WrittenCredential<'a> {
    username: &'a str,
    password: &'a str,
    replaces: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    accepted: &'a BTreeSet<String>,
}

#[derive(Deserialize)]
struct Format {
    keyturn: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(rename = "keyturn")]
    _format: u32,
    id: RotationId,
    trigger: Trigger,
    at: DateTime<Utc>,
    request: Option<String>,
    values: BTreeMap<String, ReadValue>,
    base: BTreeMap<String, i64>,
    #[serde(default)]
    base_at: Vec<Option<DateTime<Utc>>>,
    hosts: Vec<String>,
    #[serde(default)]
    kept: BTreeSet<String>,
    #[serde(default)]
    credential: Option<ReadCredential>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadCredential {
    username: String,
    password: ReadValue,
    replaces: Option<String>,
    #[serde(default)]
    accepted: BTreeSet<String>,
}

/// Moves a parsed text straight into a [`SecretValue`], so that no plain copy is left after a failed parse.
struct ReadValue(SecretValue);

impl<'de> Deserialize<'de> for ReadValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|value| Self(SecretValue::new(value)))
    }
}

/// Encodes a record as the value of its parameter. Call it before the rotation changes anything: it also detects a
/// record that is too large.
pub fn encode(record: &Record) -> Result<SecretValue, RecordError> {
    let written = Written {
        keyturn: FORMAT,
        id: record.id,
        trigger: record.trigger,
        at: record.at,
        request: record.request.as_deref(),
        values: record.values.iter().map(|(path, value)| (path.as_str(), value.expose())).collect(),
        base: &record.base,
        base_at: if record.base_at.is_empty() {
            Vec::new()
        } else {
            record.base.keys().map(|path| record.base_at.get(path).copied()).collect()
        },
        hosts: &record.hosts,
        kept: &record.kept,
        credential: record.credential.as_ref().map(|credential| WrittenCredential {
            username: &credential.username,
            password: credential.password.expose(),
            replaces: credential.replaces.as_deref(),
            accepted: &credential.accepted,
        }),
    };
    // The capacity is large from the start, so that the buffer never grows and leaves no copies of the values in
    // freed memory.
    let mut json = Vec::with_capacity(2 * MAX_BYTES);
    let encoded = serde_json::to_writer(&mut json, &written).ok().and_then(|()| String::from_utf8(json).ok());
    let value =
        SecretValue::new(encoded.expect("a record is strings and numbers, which JSON can always hold"));
    if value.len() > MAX_BYTES {
        return Err(RecordError::TooLarge { id: record.id, bytes: value.len() });
    }
    Ok(value)
}

/// Decodes the record that was read from `path`.
pub fn decode(path: &str, value: &SecretValue) -> Result<Record, RecordError> {
    // serde_json's errors quote the content that they fail on, so only their class is passed on.
    let unreadable =
        |error: serde_json::Error| RecordError::Unreadable { path: path.to_owned(), what: class(&error) };
    let format: Format = serde_json::from_str(value.expose()).map_err(unreadable)?;
    if format.keyturn != FORMAT {
        return Err(RecordError::OtherFormat { path: path.to_owned(), format: format.keyturn });
    }
    let read: Read = serde_json::from_str(value.expose()).map_err(unreadable)?;
    if path.rsplit('/').next() != Some(read.id.to_string().as_str()) {
        return Err(RecordError::WrongPlace { path: path.to_owned(), says: read.id });
    }
    Ok(Record {
        id: read.id,
        trigger: read.trigger,
        at: read.at,
        request: read.request,
        values: read.values.into_iter().map(|(path, ReadValue(value))| (path, value)).collect(),
        base_at: read
            .base
            .keys()
            .cloned()
            .zip(read.base_at)
            .filter_map(|(path, at)| Some((path, at?)))
            .collect(),
        base: read.base,
        hosts: read.hosts,
        kept: read.kept,
        credential: read.credential.map(|credential| Credential {
            username: credential.username,
            password: credential.password.0,
            replaces: credential.replaces,
            accepted: credential.accepted,
        }),
    })
}

fn class(error: &serde_json::Error) -> &'static str {
    use serde_json::error::Category;
    match error.classify() {
        Category::Eof => "it is cut off",
        Category::Syntax | Category::Io => "it is not JSON",
        Category::Data => "its fields are not those of a record",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGING: &str = "/keyturn/prod";
    const PATH: &str = "/keyturn/prod/musehub/webhook-key/7";

    fn record() -> Record {
        Record {
            id: 7,
            trigger: Trigger::Request,
            at: "2026-03-01T03:00:00.25Z".parse().unwrap(),
            request: Some("please \"now\"".into()),
            values: BTreeMap::from([
                ("/musehub/production/A".into(), SecretValue::new("canary-\"\\\n🔑".into())),
                ("/musehub/production/B".into(), SecretValue::new("other".into())),
            ]),
            base: BTreeMap::from([("/musehub/production/A".into(), 3), ("/musehub/production/B".into(), 0)]),
            base_at: BTreeMap::from([(
                "/musehub/production/A".into(),
                "2026-02-01T03:00:00.123Z".parse().unwrap(),
            )]),
            hosts: vec!["canary-host".into(), "production".into()],
            kept: ["/musehub/prod/KEY_ID".to_owned()].into(),
            credential: Some(Credential {
                username: "canary_b".into(),
                password: SecretValue::new("canary-password".into()),
                replaces: Some("canary_a".into()),
                accepted: ["canary_c".to_owned()].into(),
            }),
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let written = record();
        let read = decode(PATH, &encode(&written).unwrap()).unwrap();
        assert_eq!((read.id, read.trigger, read.at), (written.id, written.trigger, written.at));
        assert_eq!(
            (&read.request, &read.base, &read.hosts),
            (&written.request, &written.base, &written.hosts)
        );
        assert_eq!((&read.base_at, &read.kept), (&written.base_at, &written.kept));
        assert_eq!(read.values.len(), 2);
        let (read_login, written_login) = (read.credential.unwrap(), written.credential.unwrap());
        assert_eq!(
            (read_login.username, read_login.replaces, read_login.accepted),
            (written_login.username, written_login.replaces, written_login.accepted)
        );
        assert!(read_login.password.same_as(&written_login.password));
        for (path, value) in &written.values {
            assert!(read.values[path].same_as(value), "{path}");
        }
    }

    #[test]
    fn the_written_form_stays_as_it_is_so_that_an_upgrade_reads_what_lies_in_ssm() {
        let written = r#"{"keyturn":1,"id":7,"trigger":"Request","at":"2026-03-01T03:00:00.250Z","request":null,"values":{"/a":"x"},"base":{"/a":3},"hosts":["production"]}"#;
        let read = decode(PATH, &SecretValue::new(written.into())).unwrap();
        assert_eq!(encode(&read).unwrap().expose(), written);
    }

    #[test]
    fn no_error_quotes_the_content() {
        let encoded = encode(&record()).unwrap();
        let whole = encoded.expose();
        let mut broken: Vec<String> = (0..whole.len())
            .filter(|&end| whole.is_char_boundary(end))
            .map(|end| whole[..end].to_owned())
            .collect();
        broken.extend([
            String::new(),
            "canary".into(),
            "\"canary\"".into(),
            "{\"canary\":1}".into(),
            whole.replace("\"id\":7", "\"id\":\"canary\""),
            whole.replace("\"Request\"", "\"canary\""),
            whole.replace("\"hosts\"", "\"canary\""),
            whole.replace("\"password\":\"canary-password\"", "\"password\":[\"canary-password\"]"),
            whole.replace("\"replaces\"", "\"canary\""),
            whole.replace("\"at\":\"2026", "\"at\":\"canary"),
            whole.replace("{\"/musehub/production/A\":3", "{\"/musehub/production/A\":\"canary\""),
            whole.replace("\"keyturn\":1", "\"keyturn\":\"canary\""),
            whole.replace("\"keyturn\":1", "\"keyturn\":2"),
        ]);
        for text in broken {
            let error =
                decode(PATH, &SecretValue::new(text.clone())).err().unwrap_or_else(|| panic!("{text}"));
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_record_of_another_format_is_told_apart_from_garbage() {
        let newer = SecretValue::new("{\"keyturn\":2,\"anything\":[]}".into());
        assert_eq!(
            decode(PATH, &newer).err(),
            Some(RecordError::OtherFormat { path: PATH.into(), format: 2 })
        );
    }

    #[test]
    fn a_record_that_lies_where_another_belongs_is_refused() {
        let elsewhere = PATH.replace("/7", "/8");
        assert_eq!(
            decode(&elsewhere, &encode(&record()).unwrap()).err(),
            Some(RecordError::WrongPlace { path: elsewhere, says: 7 })
        );
    }

    #[test]
    fn a_record_is_refused_above_4096_bytes_and_taken_at_4096() {
        let filled = |length| Record {
            values: BTreeMap::from([("/a".into(), SecretValue::new("x".repeat(length)))]),
            ..record()
        };
        let frame = encode(&filled(0)).unwrap().len();
        assert_eq!(encode(&filled(MAX_BYTES - frame)).unwrap().len(), MAX_BYTES);
        assert_eq!(
            encode(&filled(MAX_BYTES - frame + 1)).err(),
            Some(RecordError::TooLarge { id: 7, bytes: MAX_BYTES + 1 })
        );
    }

    #[test]
    fn paths_are_read_back() {
        let staged =
            |kind| Some(Staged { namespace: "musehub".into(), name: "webhook-key".into(), id: 7, kind });
        let record = record_path(STAGING, "musehub", "webhook-key", 7);
        let abort = abort_path(STAGING, "musehub", "webhook-key", 7);
        assert_eq!((record.as_str(), abort.as_str()), (PATH, "/keyturn/prod/musehub/webhook-key/7.abort"));
        assert_eq!(parse_path(STAGING, &record), staged(StagedKind::Record));
        assert_eq!(parse_path("/keyturn/prod/", &abort), staged(StagedKind::Abort));
    }

    #[test]
    fn a_path_that_keyturn_never_makes_is_nothing() {
        for path in [
            "",
            "/",
            "/keyturn/prod",
            "/keyturn/prod/",
            "/keyturn/prod/musehub/webhook-key",
            "/keyturn/prod/musehub/webhook-key/",
            "/keyturn/prod/musehub/webhook-key/0",
            "/keyturn/prod/musehub/webhook-key/07",
            "/keyturn/prod/musehub/webhook-key/+7",
            "/keyturn/prod/musehub/webhook-key/-7",
            "/keyturn/prod/musehub/webhook-key/seven",
            "/keyturn/prod/musehub/webhook-key/.abort",
            "/keyturn/prod/musehub/webhook-key/7.abort.abort",
            "/keyturn/prod/musehub/webhook-key/7/8",
            "/keyturn/prod/musehub//7",
            "/keyturn/prod//webhook-key/7",
            "/keyturn/prod2/musehub/webhook-key/7",
            "/keyturn/production/musehub/webhook-key/7",
            "/musehub/production/7",
            "keyturn/prod/musehub/webhook-key/7",
            "/keyturn/prod/musehub/webhook-key/99999999999999999999999",
        ] {
            assert_eq!(parse_path(STAGING, path), None, "{path}");
        }
    }
}
