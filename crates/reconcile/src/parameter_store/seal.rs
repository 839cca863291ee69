//! The seal of a stamp: proof that keyturn wrote it. Everybody who may write a parameter may also write its
//! description, so a stamp counts only with two tags at its end. They are made with a key that only this installation
//! can read:
//!
//! ```text
//! keyturn owner=… id=7 v=12 at=… req=- val=6d0f… mac=a91c…
//! ```
//!
//! `val` authenticates the value. `mac` authenticates the path and the text of the stamp before ` mac=`. Each is the
//! first 128 bits of an HMAC-SHA256, in hex. To detect a stamp that somebody has made up or altered, a listing without
//! values is enough. A stamp that was copied from another version is detected by its version number, and by its value
//! if the value is read.
//!
//! The key is a SecureString below the staging path, created once. Stamps of earlier releases had no seal. They count
//! if SSM accepted their version before it accepted the key, since nobody can forge SSM's times afterwards. Without its
//! key keyturn treats every version as written by somebody else.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use chrono::{DateTime, TimeDelta, Utc};
use keyturn_rotation::observed::Stamp;
use keyturn_secret_value::SecretValue;

use super::description::{self, Written};

/// Number of bytes of a tag: half of HMAC-SHA256, so that a description keeps room for its user's text.
const TAG_BYTES: usize = 16;
/// Maximum time by which a stamp without a seal may be ahead of SSM's own time of its version.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// The key of one installation, in one region.
pub struct Seal {
    key: Key,
    /// Time at which SSM accepted the key.
    made_at: DateTime<Utc>,
}

/// Content of a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The user's own text.
    pub text: String,
    /// The stamp; `None` if there is none, or if this installation did not make it.
    pub stamp: Option<Stamp>,
    /// Owner named in a stamp that this installation did not make, or that somebody altered; `None` if there is no such
    /// stamp.
    pub claim: Option<String>,
    /// Tag of the value that the stamp was made for; `None` if the stamp is missing, is a claim or has no seal.
    pub value: Option<String>,
}

impl Said {
    /// Wraps a description without a stamp.
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), stamp: None, claim: None, value: None }
    }

    /// Wraps a description with a stamp. If `is_ours` is false, the stamp is only a claim.
    pub fn stamped(written: Written<'_>, is_ours: bool) -> Self {
        let Written { text, stamp, seal } = written;
        let text = text.to_owned();
        if is_ours {
            Self { text, stamp: Some(stamp), claim: None, value: seal.map(|seal| seal.value.to_owned()) }
        } else {
            Self { text, stamp: None, claim: Some(stamp.owner), value: None }
        }
    }
}

/// Returns the path of the parameter that holds the key.
pub fn key_path(staging: &str) -> String {
    format!("{}/stamp-key", staging.trim_end_matches('/'))
}

impl Seal {
    /// Makes the seal of a key. `made_at` is the time at which SSM accepted the parameter that holds the key.
    pub fn new(key: &SecretValue, made_at: DateTime<Utc>) -> Self {
        Self { key: Key::new(HMAC_SHA256, key.expose().as_bytes()), made_at }
    }

    /// Renders the description of a version of `path` that will hold `value`.
    pub fn describe(&self, path: &str, value: &SecretValue, text: &str, stamp: &Stamp) -> String {
        description::render(text, stamp, |stamp| {
            let sealed = format!("{stamp} val={}", self.value_tag(path, value));
            let mac = self.stamp_tag(path, &sealed);
            format!("{sealed} mac={mac}")
        })
    }

    /// Parses the description of a version of `path` that SSM accepted at `modified`.
    pub fn read(&self, path: &str, description: &str, modified: DateTime<Utc>) -> Said {
        match description::parse(description) {
            Some(written) => self.judge(path, written, modified),
            None => Said::plain(description),
        }
    }

    /// Decides if the stamp at the end of a parsed description is ours or only a claim.
    pub fn judge(&self, path: &str, written: Written<'_>, modified: DateTime<Utc>) -> Said {
        let is_ours = match &written.seal {
            Some(seal) => self.is_tag(seal.mac, &["stamp", path, seal.sealed]),
            None => modified <= self.made_at && written.stamp.at <= modified + SKEW,
        };
        Said::stamped(written, is_ours)
    }

    /// True when a stamp with this tag was made for this value.
    pub fn is_of(&self, path: &str, value: &SecretValue, tag: &str) -> bool {
        self.is_tag(tag, &["value", path, value.expose()])
    }

    fn value_tag(&self, path: &str, value: &SecretValue) -> String {
        hex::encode(self.tag(&["value", path, value.expose()]))
    }

    fn stamp_tag(&self, path: &str, sealed: &str) -> String {
        hex::encode(self.tag(&["stamp", path, sealed]))
    }

    fn is_tag(&self, tag: &str, of: &[&str]) -> bool {
        hex::decode(tag).is_ok_and(|tag| verify_slices_are_equal(&tag, &self.tag(of)).is_ok())
    }

    /// Computes a tag. The length goes before each part, so that no two lists of parts give the same input.
    fn tag(&self, parts: &[&str]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref()[..TAG_BYTES].to_vec()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("made_at", &self.made_at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/shop/token";
    const OWNER: &str = "prod/shop/token";

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn secret(text: &str) -> SecretValue {
        SecretValue::new(text.to_owned())
    }

    fn seal() -> Seal {
        Seal::new(&secret("a key"), at("2026-01-01T00:00:00Z"))
    }

    fn stamp() -> Stamp {
        let at = at("2026-03-01T03:00:00Z");
        Stamp { owner: OWNER.into(), id: 7, version: 12, at, request: None, made: None }
    }

    fn described() -> String {
        seal().describe(PATH, &secret("hunter2"), "Signing key", &stamp())
    }

    fn read(path: &str, description: &str) -> Said {
        seal().read(path, description, at("2026-03-01T03:00:05Z"))
    }

    #[test]
    fn what_was_sealed_is_read_back_and_says_for_which_value() {
        let said = read(PATH, &described());
        assert_eq!((said.text.as_str(), &said.stamp, &said.claim), ("Signing key", &Some(stamp()), &None));
        let tag = said.value.unwrap();
        assert!(seal().is_of(PATH, &secret("hunter2"), &tag));
        assert!(!seal().is_of(PATH, &secret("hunter3"), &tag));
        assert!(!seal().is_of("/shop/other", &secret("hunter2"), &tag));
    }

    #[test]
    fn a_stamp_that_was_altered_or_made_up_is_a_claim() {
        let whole = described();
        let other_key = Seal::new(&secret("another key"), at("2026-01-01T00:00:00Z"));
        let unsealed = description::render("Signing key", &stamp(), str::to_owned);
        let mut forged =
            vec![other_key.describe(PATH, &secret("hunter2"), "Signing key", &stamp()), unsealed];
        for (from, to) in [
            ("id=7", "id=8"),
            ("v=12", "v=13"),
            ("03:00:00Z", "04:00:00Z"),
            ("req=-", "req=9f86d081884c7d65"),
            ("owner=prod/shop/token", "owner=prod/shop/other"),
        ] {
            assert!(whole.contains(from));
            forged.push(whole.replace(from, to));
        }
        for description in forged {
            let said = read(PATH, &description);
            assert_eq!((said.text.as_str(), said.stamp), ("Signing key", None), "{description}");
            assert!(said.claim.is_some(), "{description}");
        }
        assert!(read("/shop/other", &whole).claim.is_some(), "it was copied from another parameter");
    }

    #[test]
    fn every_digit_of_a_seal_counts() {
        let whole = described();
        let start = whole.find(" val=").unwrap();
        for (at, digit) in whole.char_indices().skip(start).filter(|(_, c)| c.is_ascii_hexdigit()) {
            let mut altered = whole.clone();
            altered.replace_range(at..=at, if digit == '0' { "1" } else { "0" });
            assert_eq!(read(PATH, &altered).stamp, None, "{altered}");
        }
    }

    #[test]
    fn a_stamp_without_a_seal_counts_where_ssm_took_its_version_before_the_key() {
        let unsealed = |at: DateTime<Utc>| description::render("", &Stamp { at, ..stamp() }, str::to_owned);
        let key_at = at("2026-01-01T00:00:00Z");
        let read = |stamped, modified| seal().read(PATH, &unsealed(stamped), modified).stamp.is_some();
        assert!(read(key_at - TimeDelta::days(1), key_at));
        assert!(!read(key_at - TimeDelta::days(1), key_at + TimeDelta::seconds(1)));
        assert!(!read(key_at + SKEW + TimeDelta::seconds(1), key_at), "a value of the future");
    }

    #[test]
    fn the_key_is_not_shown() {
        assert!(!format!("{:?}", seal()).contains("a key"));
        assert_eq!(key_path("/keyturn/prod/"), "/keyturn/prod/stamp-key");
    }
}
