//! Finds values that keyturn manages in an image, by exact value, in every form in which they occur there.
//!
//! The searching process does not know the values: [`ManagedValues`] holds keyed fingerprints of all forms, and
//! [`Matcher`] compares them with every window of the text that is as long as a form. There is no rolling hash for
//! candidates: such hashes are linear in the characters of the value, and those of a few forms together would reveal it
//! to everybody who has the key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use keyturn_secret_value::SecretValue;
use serde::{Deserialize, Serialize};

/// Length of the key in bytes.
pub const KEY_BYTES: usize = 32;

/// Shortest form, in bytes, that is searched for. Shorter ones would be found by chance.
pub const SHORTEST: usize = 8;

/// Bytes of a fingerprint: 16 are enough against chance, and a task has little space.
const MAC_BYTES: usize = 16;

/// The encoding of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The value itself, made of the characters of generated values.
    Word,
    /// The value itself, with other characters, but no whitespace.
    Graphic,
    /// The value itself, with any characters.
    Raw,
    /// Base64, standard or URL-safe, at any position in a longer text that is encoded as a whole.
    Base64,
    /// Percent-encoded, with `%20` or `+` for a space.
    Url,
    /// The content of a JSON string, with its escapes.
    Json,
    /// Hexadecimal digits, all in lower case or all in upper case.
    Hex,
}

impl Form {
    /// True if a value in this form can contain the byte. Most windows then need no fingerprint.
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Raw | Self::Json => true,
            Self::Word => byte.is_ascii_alphanumeric() || b"+/=_.~-".contains(&byte),
            Self::Graphic => byte.is_ascii_graphic(),
            Self::Base64 => byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte),
            Self::Url => byte.is_ascii_alphanumeric() || b"-_.~%+".contains(&byte),
            Self::Hex => byte.is_ascii_hexdigit(),
        }
    }

    /// Returns the narrowest form of an unencoded value.
    fn of(raw: &str) -> Self {
        let mut narrow = [Self::Word, Self::Graphic].into_iter();
        narrow.find(|form| raw.bytes().all(|byte| form.has(byte))).unwrap_or(Self::Raw)
    }

    /// True if files are searched for this form. Most windows of a file cannot contain it, so few fingerprints have to
    /// be computed.
    fn is_rare(self) -> bool {
        !matches!(self, Self::Raw | Self::Json)
    }
}

/// Fingerprints of values in all forms. Everybody who has them can test guesses, but learns nothing else.
#[derive(Clone, Serialize, Deserialize)]
pub struct ManagedValues {
    /// 64 hexadecimal digits.
    key: String,
    values: Vec<ManagedValue>,
    /// Values that are scrubbed from texts, but not searched for in images: other secrets of a host, and the single
    /// lines of values with several lines. Output is scrubbed line by line, and a log may contain only some of the
    /// lines.
    hidden: Vec<ManagedValue>,
    unsearched: Option<Unsearched>,
}

/// The reason why a text may contain a value although none was found in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unsearched {
    /// A value, or a line of one, has fewer than [`SHORTEST`] bytes.
    TooShort,
    /// There are more values than a task can carry.
    TooMany,
    /// An older version, or the administrator's credential for a secret, could not be read.
    Unreadable,
}

impl fmt::Display for Unsearched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "a value of the host's secrets is too short to be searched for",
            Self::TooMany => "the host's secrets have more values than can be searched for",
            Self::Unreadable => {
                "an older value of the host's secrets, or what one is administered with, cannot be read"
            }
        })
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct ManagedValue {
    name: String,
    /// Form, length in bytes, and shortened HMAC-SHA256 in hexadecimal digits.
    forms: Vec<(Form, usize, String)>,
}

impl ManagedValues {
    /// Computes the fingerprints of these values, each under a name, with a key that is new for every run: the
    /// fingerprints of two runs cannot be compared. Values that are too short to be searched for are left out, and this
    /// is noted.
    pub fn new(values: &[(String, SecretValue)], key: &[u8; KEY_BYTES]) -> Self {
        let mut known =
            Self { key: hex::encode(key), values: Vec::new(), hidden: Vec::new(), unsearched: None };
        let signing = hmac::Key::new(hmac::HMAC_SHA256, key);
        known.values = known.fingerprinted(values, &signing);
        known
    }

    /// Adds values that are scrubbed from texts too, but not searched for in images.
    pub fn hiding(mut self, values: &[(String, SecretValue)]) -> Self {
        let signing = hmac::Key::new(hmac::HMAC_SHA256, &hex::decode(&self.key).unwrap_or_default());
        let hidden = self.fingerprinted(values, &signing);
        self.hidden.extend(hidden);
        self
    }

    /// Computes the fingerprints of all forms of values. Adds the fingerprints of their lines to `hidden`.
    fn fingerprinted(&mut self, values: &[(String, SecretValue)], key: &hmac::Key) -> Vec<ManagedValue> {
        let mut whole = Vec::new();
        for (name, value) in values {
            let raw = value.expose().trim_end_matches(['\n', '\r']);
            if raw.len() >= SHORTEST {
                whole.push(fingerprinted(key, name, forms(raw)));
            }
            let lines: Vec<&str> = lines(raw).collect();
            if raw.lines().count() > 1 {
                let long = lines.iter().filter(|line| line.len() >= SHORTEST);
                let long = long.map(|line| (Form::of(line), SecretValue::new((*line).to_owned())));
                self.hidden.push(fingerprinted(key, name, long.collect()));
            }
            if lines.iter().any(|line| line.len() < SHORTEST) {
                self.unsearched.get_or_insert(Unsearched::TooShort);
            }
        }
        whole
    }

    /// Notes that there are other values that are not searched for.
    pub fn without(self, why: Unsearched) -> Self {
        Self { unsearched: self.unsearched.or(Some(why)), ..self }
    }
}

/// Returns the lines of a value that could reveal something of it. A short last line of a private key does not.
fn lines(raw: &str) -> impl Iterator<Item = &str> {
    let is_pem = raw.contains("-----BEGIN ");
    raw.lines().map(str::trim).filter(move |line| {
        let says_something = line.chars().any(char::is_alphanumeric) && !line.starts_with("-----");
        says_something && !(is_pem && line.len() < SHORTEST)
    })
}

fn fingerprinted(key: &hmac::Key, name: &str, forms: Vec<(Form, SecretValue)>) -> ManagedValue {
    let mut known: Vec<(Form, usize, String)> = Vec::new();
    for (form, written) in forms {
        let bytes = written.expose().as_bytes();
        let mac = hex::encode(mac(key, bytes));
        if bytes.len() >= SHORTEST && !known.iter().any(|(_, _, same)| *same == mac) {
            known.push((form, bytes.len(), mac));
        }
    }
    ManagedValue { name: name.to_owned(), forms: known }
}

fn mac(key: &hmac::Key, bytes: &[u8]) -> [u8; MAC_BYTES] {
    let mut cut = [0; MAC_BYTES];
    cut.copy_from_slice(&hmac::sign(key, bytes).as_ref()[..MAC_BYTES]);
    cut
}

/// A managed value found in a text.
pub struct ManagedHit {
    /// The name of the value, as given to [`ManagedValues::new`].
    pub name: String,
    /// The encoding in which the value was found.
    pub form: Form,
    /// The text as it was found.
    pub written: SecretValue,
}

type Needles = BTreeMap<Form, BTreeMap<usize, BTreeMap<[u8; MAC_BYTES], String>>>;

/// Finds managed values without knowing them.
pub struct Matcher {
    key: hmac::Key,
    /// Fingerprints by form and length in bytes.
    needles: Needles,
    hidden: Needles,
    unsearched: Option<Unsearched>,
}

impl Matcher {
    /// Creates a matcher; `None` if the fingerprints are malformed.
    pub fn new(values: &ManagedValues) -> Option<Self> {
        let key = hex::decode(&values.key).ok().filter(|key| key.len() == KEY_BYTES)?;
        Some(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            needles: needles(&values.values)?,
            hidden: needles(&values.hidden)?,
            unsearched: values.unsearched,
        })
    }

    /// Returns the reason why a text may contain a value although none is found in it.
    pub fn unsearched(&self) -> Option<Unsearched> {
        self.unsearched
    }

    /// Finds the managed values in a text, each form once.
    pub fn find(&self, text: &SecretValue) -> Vec<ManagedHit> {
        self.find_where(&self.needles, text.expose().as_bytes(), |_| true, |_, _| true)
    }

    /// Finds the managed values and everything else that must be hidden: the lines of values, and other secrets of a
    /// host.
    pub fn find_to_hide(&self, text: &SecretValue) -> Vec<ManagedHit> {
        let bytes = text.expose().as_bytes();
        let mut found = self.find(text);
        found.extend(self.find_where(&self.hidden, bytes, |_| true, |_, _| true));
        found
    }

    /// Finds managed values in a piece of a file. An HMAC for every byte of an image would take hours. So values with
    /// whitespace and values with the escapes of JSON are not searched for, and values with characters that generated
    /// values do not have are found only as separate words.
    pub fn find_in_file(&self, bytes: &[u8]) -> Vec<ManagedHit> {
        let word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
        self.find_where(&self.needles, bytes, Form::is_rare, |form, window| {
            form != Form::Graphic || !(window.start.checked_sub(1).is_some_and(word) || word(window.end))
        })
    }

    fn find_where(
        &self,
        needles: &Needles,
        bytes: &[u8],
        searched: impl Fn(Form) -> bool,
        candidate: impl Fn(Form, Range<usize>) -> bool,
    ) -> Vec<ManagedHit> {
        let mut found: Vec<ManagedHit> = Vec::new();
        for (form, lengths) in needles.iter().filter(|(form, _)| searched(**form)) {
            let shortest = lengths.keys().next().copied().unwrap_or(usize::MAX);
            for run in runs(bytes, *form, shortest) {
                let lengths = lengths.range(..=run.len());
                let windows = lengths.flat_map(|(length, needles)| {
                    (run.start..=run.end - length).map(move |at| (at..at + length, needles))
                });
                for (window, needles) in windows {
                    if !candidate(*form, window.clone()) {
                        continue;
                    }
                    let window = &bytes[window];
                    let Some(name) = needles.get(&mac(&self.key, window)) else { continue };
                    // A form begins and ends at the border of a character.
                    let Ok(written) = std::str::from_utf8(window) else { continue };
                    if !found.iter().any(|hit| hit.name == *name && hit.form == *form) {
                        let written = SecretValue::new(written.to_owned());
                        found.push(ManagedHit { name: name.clone(), form: *form, written });
                    }
                }
            }
        }
        found
    }
}

/// Sorts fingerprints by form and length. `None` if one is malformed.
fn needles(values: &[ManagedValue]) -> Option<Needles> {
    let mut needles = Needles::new();
    for value in values {
        for (form, length, mac) in &value.forms {
            let mac = hex::decode(mac).ok()?.try_into().ok()?;
            if *length < SHORTEST {
                return None;
            }
            let of_form = needles.entry(*form).or_default().entry(*length).or_default();
            of_form.entry(mac).or_insert_with(|| value.name.clone());
        }
    }
    Some(needles)
}

/// Returns the runs of at least `shortest` characters of a form. For most windows of that length only the last few
/// bytes are checked: if one of them does not belong to the form, no run contains it.
fn runs(bytes: &[u8], form: Form, shortest: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        while bytes.len().saturating_sub(start) >= shortest {
            let mut end = start + shortest;
            let mut unseen = end;
            while unseen > start && form.has(bytes[unseen - 1]) {
                unseen -= 1;
            }
            if unseen > start {
                start = unseen;
                continue;
            }
            while end < bytes.len() && form.has(bytes[end]) {
                end += 1;
            }
            let run = start..end;
            start = end + 1;
            return Some(run);
        }
        None
    })
}

/// Returns every form in which a value gets into an image's configuration. Trailing newlines are removed, since env
/// files and labels do not keep them.
fn forms(raw: &str) -> Vec<(Form, SecretValue)> {
    let mut forms = vec![(Form::of(raw), raw.to_owned())];
    for alignment in 0..3 {
        forms.push((Form::Base64, inner_base64(&STANDARD_NO_PAD, raw, alignment)));
        forms.push((Form::Base64, inner_base64(&URL_SAFE_NO_PAD, raw, alignment)));
    }
    for space in ["%20", "+"] {
        forms.push((Form::Url, percent_encoded(raw, space, false)));
        forms.push((Form::Url, percent_encoded(raw, space, true)));
    }
    let json = serde_json::Value::String(raw.to_owned()).to_string();
    let json = json[1..json.len() - 1].to_owned();
    // Go, in which docker is written, also escapes these three characters.
    forms.push((Form::Json, json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")));
    forms.push((Form::Json, json));
    forms.push((Form::Hex, hex::encode(raw)));
    forms.push((Form::Hex, hex::encode_upper(raw)));
    forms.into_iter().map(|(form, written)| (form, SecretValue::new(written))).collect()
}

/// Returns the characters of base64 that depend on the value alone, if `alignment` bytes modulo three precede it.
fn inner_base64(engine: &impl Engine, raw: &str, alignment: usize) -> String {
    let mut bytes = vec![0; alignment];
    bytes.extend_from_slice(raw.as_bytes());
    let encoded = engine.encode(&bytes);
    let first = (alignment * 8).div_ceil(6);
    let end = bytes.len() * 8 / 6;
    encoded[first..end].to_owned()
}

fn percent_encoded(raw: &str, space: &str, lower: bool) -> String {
    let mut encoded = String::new();
    for byte in raw.bytes() {
        match byte {
            b' ' => encoded.push_str(space),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => encoded.push(char::from(byte)),
            byte if lower => encoded.push_str(&format!("%{byte:02x}")),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    const VALUE: &str = "p&ss \"w<>rd\"/+?ÿ~9f2c";

    fn managed_values(value: &str) -> ManagedValues {
        ManagedValues::new(&[("db".to_owned(), SecretValue::new(value.to_owned()))], &[7; KEY_BYTES])
    }

    fn matcher_of(value: &str) -> Matcher {
        Matcher::new(&managed_values(value)).unwrap()
    }

    fn found(matcher: &Matcher, text: &str) -> Vec<Form> {
        let hits = matcher.find(&SecretValue::new(text.to_owned()));
        hits.into_iter().map(|hit| hit.form).collect()
    }

    #[test]
    fn a_value_is_found_in_every_form_and_alignment() {
        let matcher = matcher_of(&format!("{VALUE}\n"));
        for before in ["", "a", "ab", "abc", "abcd"] {
            for after in ["", "z", "zy", "zyx"] {
                let plain = format!("{before}{VALUE}{after}");
                assert!(found(&matcher, &plain).contains(&Form::Raw), "{plain}");
                for encoded in [STANDARD.encode(&plain), URL_SAFE.encode(&plain)] {
                    assert!(found(&matcher, &format!("x={encoded}")).contains(&Form::Base64), "{plain}");
                }
                assert_eq!(found(&matcher, &hex::encode(&plain)), [Form::Hex]);
                assert_eq!(found(&matcher, &hex::encode_upper(&plain)), [Form::Hex]);
            }
        }
        for (text, form) in [
            ("x=p%26ss%20%22w%3C%3Erd%22%2F%2B%3F%C3%BF~9f2c", Form::Url),
            ("x=p%26ss+%22w%3c%3erd%22%2f%2b%3f%c3%bf~9f2c", Form::Url),
            (r#"{"x":"p&ss \"w<>rd\"/+?ÿ~9f2c"}"#, Form::Json),
            (r#"{"x":"p\u0026ss \"w\u003c\u003erd\"/+?ÿ~9f2c"}"#, Form::Json),
        ] {
            assert_eq!(found(&matcher, text), [form], "{text}");
        }
    }

    #[test]
    fn nothing_else_is_found() {
        let matcher = matcher_of("correct horse battery staple");
        for text in ["", "correct horse battery stapl", "Correct horse battery staple", &"a".repeat(5000)] {
            assert_eq!(found(&matcher, text), [], "{text}");
        }
        assert_eq!(found(&matcher_of(&"a".repeat(32)), &"a".repeat(31)), []);
    }

    #[test]
    fn every_run_is_found_that_is_long_enough() {
        for text in 0..1_u32 << 14 {
            let bytes: Vec<u8> = (0..14).map(|bit| if text >> bit & 1 == 1 { b'a' } else { b' ' }).collect();
            for shortest in 1..5 {
                let words = bytes.split(|byte| *byte == b' ').map(<[u8]>::len);
                let long: Vec<usize> = words.filter(|length| *length >= shortest).collect();
                let found: Vec<Range<usize>> = runs(&bytes, Form::Word, shortest).collect();
                assert!(found.iter().all(|run| bytes[run.clone()].iter().all(|byte| *byte == b'a')));
                assert_eq!(found.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(), long, "{bytes:?}");
            }
        }
    }

    #[test]
    fn what_would_be_found_by_chance_is_left_out() {
        assert_eq!(found(&matcher_of("hunter2"), "hunter2"), []);
        assert_eq!(found(&matcher_of("hunter23"), "hunter23"), [Form::Word]);
    }

    #[test]
    fn it_is_known_that_there_are_values_that_are_not_searched_for() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\nCCqGSM49\n9w==\n-----END PRIVATE KEY-----\n";
        for (value, unsearched) in [
            ("", None),
            ("\n", None),
            ("hunter23", None),
            ("hunter2\n", Some(Unsearched::TooShort)),
            ("user-name\nhunter2\n", Some(Unsearched::TooShort)),
            ("{\n  \"password\": \"x\"\n}\n", None),
            (key, None),
        ] {
            assert_eq!(matcher_of(value).unsearched(), unsearched, "{value}");
        }
        let unreadable = managed_values(VALUE).without(Unsearched::Unreadable);
        assert_eq!(Matcher::new(&unreadable).unwrap().unsearched(), Some(Unsearched::Unreadable));
    }

    #[test]
    fn what_is_only_to_be_hidden_is_not_searched_for_in_images() {
        let password = [("admin".to_owned(), SecretValue::new("Winter-Garden-91".to_owned()))];
        let matcher = Matcher::new(&managed_values(VALUE).hiding(&password)).unwrap();
        let text = SecretValue::new("PGPASSWORD=Winter-Garden-91".to_owned());
        assert!(matcher.find(&text).is_empty());
        assert_eq!(matcher.find_to_hide(&text)[0].name, "admin");
        let short = [("admin".to_owned(), SecretValue::new("1234".to_owned()))];
        let short = Matcher::new(&managed_values(VALUE).hiding(&short)).unwrap();
        assert_eq!(short.unsearched(), Some(Unsearched::TooShort));
    }

    #[test]
    fn single_lines_of_a_value_are_found_only_where_a_text_may_have_been_cut() {
        let matcher = matcher_of("first line of it\n  second-line-of-it  \n");
        let names = |hits: Vec<ManagedHit>| hits.into_iter().map(|hit| hit.form).collect::<Vec<_>>();
        let cut = SecretValue::new("12:00 second-line-of-it".to_owned());
        assert_eq!(names(matcher.find_to_hide(&cut)), [Form::Word]);
        assert_eq!(names(matcher.find(&cut)), []);
    }

    #[test]
    fn what_is_shipped_holds_no_value_and_reads_as_it_was_written() {
        let shipped = serde_json::to_string(&managed_values("correct horse battery staple")).unwrap();
        for form in forms("correct horse battery staple") {
            assert!(!shipped.contains(form.1.expose()), "{:?}", form.0);
        }
        let matcher = Matcher::new(&serde_json::from_str(&shipped).unwrap()).unwrap();
        assert_eq!(found(&matcher, "TOKEN=correct horse battery staple!"), [Form::Raw]);
        assert!(Matcher::new(&serde_json::from_str(&shipped.replacen("0", "x", 1)).unwrap()).is_none());
    }
}
