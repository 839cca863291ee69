//! Values that keyturn manages, found in an image by exact value in every form in which they get into one.
//!
//! Whoever searches is not told the values: a [`Matcher`] holds keyed fingerprints, and compares every window of the
//! text that is as long as a form. Building it from values is a pure function; nothing calls it on a docker host yet.

use std::collections::BTreeMap;

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::secret_value::SecretValue;

/// Length of the key in bytes.
pub const KEY_BYTES: usize = 32;

/// Below this length in bytes a form is not searched for: it would be found by chance.
pub const SHORTEST: usize = 8;

/// Prime of the rolling sum, 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    Raw,
    Base64,
    Url,
    Json,
    Hex,
}

/// A managed value found in a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManagedHit {
    /// Of the secret, as given to [`matcher`].
    pub name: String,
    pub form: Form,
}

struct Needle {
    name: String,
    form: Form,
    sum: u64,
    mac: hmac::Tag,
}

/// Finds managed values without holding them.
pub struct Matcher {
    key: hmac::Key,
    base: u64,
    /// By length in bytes.
    needles: BTreeMap<usize, Vec<Needle>>,
    too_short: Vec<String>,
}

/// The matcher for these values, under a key that is fresh for every run: fingerprints of two runs cannot be compared.
pub fn matcher(values: &[(String, SecretValue)], key: &[u8; KEY_BYTES]) -> Matcher {
    let hmac_key = hmac::Key::new(hmac::HMAC_SHA256, key);
    // A rolling sum with a base that nobody can guess: it finds candidates, the HMAC decides.
    let tag = hmac::sign(&hmac_key, b"keyturn image audit: base of the rolling sum");
    let base =
        tag.as_ref().iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte)) % (PRIME - 256) + 256;
    let mut matcher = Matcher { key: hmac_key, base, needles: BTreeMap::new(), too_short: Vec::new() };
    for (name, value) in values {
        if value.expose().trim_end_matches(['\n', '\r']).len() < SHORTEST {
            matcher.too_short.push(name.clone());
            continue;
        }
        for (form, written) in forms(value) {
            matcher.add(name, form, written.expose().as_bytes());
        }
    }
    matcher
}

impl Matcher {
    /// Secrets that are too short to be searched for.
    pub fn too_short(&self) -> &[String] {
        &self.too_short
    }

    fn add(&mut self, name: &str, form: Form, written: &[u8]) {
        if written.len() < SHORTEST {
            return;
        }
        let sum = written.iter().fold(0, |sum, byte| self.shifted(sum, *byte));
        let mac = hmac::sign(&self.key, written);
        let needles = self.needles.entry(written.len()).or_default();
        if !needles.iter().any(|known| known.name == name && known.mac.as_ref() == mac.as_ref()) {
            needles.push(Needle { name: name.to_owned(), form, sum, mac });
        }
    }

    fn shifted(&self, sum: u64, byte: u8) -> u64 {
        (times(sum, self.base) + u64::from(byte)) % PRIME
    }

    /// Which managed values stand in a text, each form once.
    pub fn find(&self, text: &SecretValue) -> Vec<ManagedHit> {
        let bytes = text.expose().as_bytes();
        let mut found = Vec::new();
        for (length, needles) in &self.needles {
            let highest = (1..*length).fold(1, |power, _| times(power, self.base));
            let mut sum = 0;
            for (at, byte) in bytes.iter().enumerate() {
                if at >= *length {
                    let leaving = times(u64::from(bytes[at - length]), highest);
                    sum = (sum + PRIME - leaving) % PRIME;
                }
                sum = self.shifted(sum, *byte);
                let Some(start) = (at + 1).checked_sub(*length) else { continue };
                for needle in needles.iter().filter(|needle| needle.sum == sum) {
                    let mac = hmac::sign(&self.key, &bytes[start..=at]);
                    if constant_time::verify_slices_are_equal(mac.as_ref(), needle.mac.as_ref()).is_ok() {
                        found.push(ManagedHit { name: needle.name.clone(), form: needle.form });
                    }
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

fn times(a: u64, b: u64) -> u64 {
    // A remainder of a number below 2^64 fits.
    u64::try_from(u128::from(a) * u128::from(b) % u128::from(PRIME)).unwrap_or_default()
}

/// Every way in which a value gets into an image's configuration. Trailing newlines are left out: env files and labels
/// do not carry them.
fn forms(value: &SecretValue) -> Vec<(Form, SecretValue)> {
    let raw = value.expose().trim_end_matches(['\n', '\r']);
    let mut forms = vec![(Form::Raw, raw.to_owned())];
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
    // Go, in which docker is written, escapes these three too.
    forms.push((Form::Json, json.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")));
    forms.push((Form::Json, json));
    forms.push((Form::Hex, hex::encode(raw)));
    forms.push((Form::Hex, hex::encode_upper(raw)));
    forms.into_iter().map(|(form, written)| (form, SecretValue::new(written))).collect()
}

/// The characters of base64 that depend on the value alone, when `alignment` bytes modulo three stand before it.
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

    fn matcher_of(value: &str) -> Matcher {
        matcher(&[("db".to_owned(), SecretValue::new(value.to_owned()))], &[7; KEY_BYTES])
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
    fn what_would_be_found_by_chance_is_named_instead() {
        let matcher = matcher_of("hunter2");
        assert_eq!(matcher.too_short(), ["db"]);
        assert_eq!(found(&matcher, "hunter2"), []);
    }
}
