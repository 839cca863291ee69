//! The format of the stamp that keyturn writes into a parameter's description, after the user's own text:
//!
//! ```text
//! Webhook signing key keyturn owner=prod/musehub/webhook-key id=7 v=12 at=2026-03-01T03:00:00Z req=9f86d081884c7d65 val=… mac=…
//! ```
//!
//! If a rollback has published an older value again, `made=` follows `at`: the time at which that value was made. `val`
//! and `mac` are the seal. This module knows only the format; [`super::seal`] decides if a stamp counts.
//!
//! Descriptions are free text that anyone may edit, and SSM keeps them when a Put omits them. So parsing is strict: a
//! text counts as a stamp only if it is at the very end and is, character for character, what [`render`] would have
//! written. If a stamp was cut off or edited, or if text follows it, it counts as the user's text. This module does not
//! check that the stamp was made *for this version*: compare [`Stamp::version`] with the version's number.

use chrono::{DateTime, SecondsFormat, Utc};
use keyturn_rotation::observed::Stamp;
use keyturn_rotation::request;

/// SSM's limit for a description, in UTF-16 units.
pub const MAX_LENGTH: usize = 1024;

const MARK: &str = "keyturn owner=";
/// Maximum length of an owner: longer than three Kubernetes names with their slashes.
const LONGEST_OWNER: usize = 768;
/// Number of hexadecimal digits of a tag.
const TAG_DIGITS: usize = 32;
/// Value of `req` if no request asked for the rotation. Since `req` is never left out, a stamp whose end was cut off
/// never looks complete.
const NO_REQUEST: &str = "-";

/// Highest `RotationId` that a stamp may have: a number that Kubernetes and JSON can hold exactly, with room for further
/// ids.
const HIGHEST_ID: u64 = 1 << 53;

/// Parts of a description that ends with a stamp.
#[derive(Debug, PartialEq, Eq)]
pub struct Written<'a> {
    /// The user's text.
    pub text: &'a str,
    /// The stamp. Anybody may have written it: see [`super::seal`].
    pub stamp: Stamp,
    /// The seal; `None` for a stamp of an early release, which had none.
    pub seal: Option<WrittenSeal<'a>>,
}

/// The tags at the end of a stamp, in hex.
#[derive(Debug, PartialEq, Eq)]
pub struct WrittenSeal<'a> {
    /// The part of the stamp before ` mac=`, which `mac` covers.
    pub sealed: &'a str,
    /// Tag of the value that the stamp was made for.
    pub value: &'a str,
    /// Tag of `sealed` and the path.
    pub mac: &'a str,
}

/// Renders the description of a version: the user's text, then the stamp, to which `seal` adds its tags. Text that exceeds
/// SSM's limit is cut at its end; the stamp never is. A `request` that is not yet a hash is hashed.
pub fn render(user_text: &str, stamp: &Stamp, seal: impl FnOnce(&str) -> String) -> String {
    let stamp = seal(&stamp_text(stamp));
    let room = MAX_LENGTH.saturating_sub(utf16_length(&stamp) + 1);
    let text = cut(user_text, room);
    if text.is_empty() { stamp } else { format!("{text} {stamp}") }
}

/// Parses a description, which may be any text. Returns `None` unless a complete stamp is at its end.
pub fn parse(description: &str) -> Option<Written<'_>> {
    let (before, text) = description.split_at(description.rfind(MARK)?);
    let user_text = if before.is_empty() { before } else { before.strip_suffix(' ')? };
    let (stamp, seal) = match text.rsplit_once(" mac=") {
        Some((sealed, mac)) => {
            let (stamp, value) = sealed.rsplit_once(" val=")?;
            (stamp, Some(WrittenSeal { sealed, value, mac }).filter(|_| is_tag(value) && is_tag(mac)))
        }
        None => (text, None),
    };
    let is_whole = seal.is_some() || stamp.len() == text.len();
    let stamp = parse_stamp(stamp).filter(|_| is_whole)?;
    Some(Written { text: user_text, stamp, seal })
}

fn is_tag(text: &str) -> bool {
    text.len() == TAG_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn stamp_text(stamp: &Stamp) -> String {
    let request = match &stamp.request {
        None => NO_REQUEST.to_owned(),
        Some(hash) if request::is_hash(hash) => hash.clone(),
        Some(token) => request::hash(token),
    };
    let text = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let made = stamp.made.as_ref().map_or_else(String::new, |made| format!(" made={}", text(made)));
    format!(
        "{MARK}{} id={} v={} at={}{made} req={request}",
        stamp.owner,
        stamp.id,
        stamp.version,
        text(&stamp.at)
    )
}

fn parse_stamp(text: &str) -> Option<Stamp> {
    let mut fields = text.strip_prefix(MARK)?.split(' ');
    let owner = fields.next()?;
    let id = fields.next()?.strip_prefix("id=")?;
    let version = fields.next()?.strip_prefix("v=")?;
    let at = fields.next()?.strip_prefix("at=")?;
    let mut last = fields.next()?;
    let made = match last.strip_prefix("made=") {
        Some(made) => {
            last = fields.next()?;
            Some(time(made)?)
        }
        None => None,
    };
    let request = last.strip_prefix("req=")?;
    if !is_owner(owner) {
        return None;
    }
    let request = match request {
        NO_REQUEST => None,
        hash if request::is_hash(hash) => Some(hash.to_owned()),
        _ => return None,
    };
    let stamp = Stamp {
        owner: owner.to_owned(),
        id: id.parse().ok().filter(|id| *id <= HIGHEST_ID)?,
        version: version.parse().ok()?,
        at: time(at)?,
        request,
        made,
    };
    // Rejects what the parsers above are lenient about: "+7", "007", other spellings of a time, further fields.
    (stamp_text(&stamp) == text).then_some(stamp)
}

/// Checks the characters of an owner: it is shown to people, and anybody may have written it.
fn is_owner(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/');
    (1..=LONGEST_OWNER).contains(&text.len()) && text.bytes().all(plain)
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc))
}

fn utf16_length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// Returns the longest beginning of `text` that has at most `units` UTF-16 units.
fn cut(text: &str, units: usize) -> &str {
    let mut used = 0;
    for (start, character) in text.char_indices() {
        used += character.len_utf16();
        if used > units {
            return &text[..start];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            owner: "prod/musehub/webhook-key".into(),
            id: 7,
            version: 12,
            at: "2026-03-01T03:00:00Z".parse().unwrap(),
            request: Some("9f86d081884c7d65".into()),
            made: None,
        }
    }

    const STAMP: &str =
        "keyturn owner=prod/musehub/webhook-key id=7 v=12 at=2026-03-01T03:00:00Z req=9f86d081884c7d65";
    const TAGS: &str = " val=000102030405060708090a0b0c0d0e0f mac=f0e0d0c0b0a090807060504030201000";

    fn sealed(user_text: &str, stamp: &Stamp) -> String {
        render(user_text, stamp, |stamp| format!("{stamp}{TAGS}"))
    }

    fn unsealed(user_text: &str, stamp: &Stamp) -> String {
        render(user_text, stamp, str::to_owned)
    }

    #[test]
    fn the_stamp_stands_behind_the_users_text_and_the_seal_behind_it() {
        assert_eq!(sealed("Signing key", &stamp()), format!("Signing key {STAMP}{TAGS}"));
        assert_eq!(unsealed("", &stamp()), STAMP);
    }

    #[test]
    fn what_was_rendered_is_read_back() {
        let texts =
            ["", "Signing key", " spaced  out ", "línea\nnueva 🔑", "keyturn", "keyturn owner=", STAMP, TAGS];
        let requests = [None, Some("9f86d081884c7d65".to_owned())];
        let mades = [None, Some("2025-12-01T00:00:00Z".parse().unwrap())];
        let times = ["2026-03-01T03:00:00Z", "2026-03-01T03:00:00.123456789Z", "1970-01-01T00:00:00.5Z"];
        for text in texts {
            for request in &requests {
                for (at, made) in times.iter().flat_map(|at| mades.map(|made| (at, made))) {
                    let at = at.parse().unwrap();
                    let stamp = Stamp { request: request.clone(), at, made, ..stamp() };
                    let description = unsealed(text, &stamp);
                    let written = parse(&description).unwrap();
                    assert_eq!((written.text, &written.stamp, written.seal), (text, &stamp, None));
                    let description = sealed(text, &stamp);
                    let written = parse(&description).unwrap();
                    assert_eq!((written.text, &written.stamp), (text, &stamp));
                    let seal = written.seal.unwrap();
                    assert_eq!(format!(" val={} mac={}", seal.value, seal.mac), TAGS);
                    assert!(seal.sealed.starts_with(MARK) && seal.sealed.ends_with(seal.value));
                }
            }
        }
    }

    #[test]
    fn every_beginning_of_a_stamp_is_plain_text() {
        let made = Some("2025-12-01T00:00:00Z".parse().unwrap());
        let stamps = [
            stamp(),
            Stamp { request: None, ..stamp() },
            Stamp { made, ..stamp() },
            Stamp { made, request: None, ..stamp() },
        ];
        for stamp in &stamps {
            let without_seal = unsealed("Signing key", stamp);
            let rendered = sealed("Signing key", stamp);
            for end in (0..rendered.len()).filter(|end| *end != without_seal.len()) {
                assert_eq!(parse(&rendered[..end]), None, "{}", &rendered[..end]);
            }
        }
    }

    #[test]
    fn an_edited_stamp_is_plain_text() {
        let edits = [
            ("id=7", "id=07"),
            ("id=7", "id=+7"),
            ("id=7", "id=-7"),
            ("id=7", "id="),
            ("id=7", "id=18446744073709551615"),
            ("id=7", "id=9007199254740993"),
            ("id=7", "id=99999999999999999999"),
            ("v=12", "v=1e3"),
            ("v=12", "V=12"),
            (" v=12", "  v=12"),
            (" v=12", "\u{a0}v=12"),
            ("03:00:00Z", "03:00:00+00:00"),
            ("03:00:00Z", "25:00:00Z"),
            ("2026-03-01T", "2026-03-01 "),
            ("req=9f", "req=9F"),
            ("req=9f", "req="),
            ("req=9f86d081884c7d65", "req=--"),
            ("owner=prod", "owner=\tprod"),
            ("owner=prod", "owner=[prod](https://evil.example)"),
            ("owner=prod", "owner=\u{1b}[2Jprod"),
            ("owner=prod/musehub/webhook-key", "owner="),
            ("d65", "d65 "),
            ("d65", "d65\n"),
            ("d65", "d65 edited by hand"),
            ("keyturn owner", "xkeyturn owner"),
        ];
        let whole = format!("{STAMP}{TAGS}");
        let of_the_seal = [
            ("mac=f0", "mac=F0"),
            ("mac=f0", "mac=0"),
            ("val=00", "val=g0"),
            (" val=", " xal="),
            ("201000", "201000 "),
            ("201000", "20100000"),
        ];
        for (from, to) in edits.into_iter().chain(of_the_seal) {
            let edited = whole.replace(from, to);
            assert_ne!(edited, whole, "{from} is not in the stamp");
            assert_eq!(parse(&edited), None, "{from} -> {to}");
        }
    }

    #[test]
    fn hostile_text_is_plain_text() {
        for text in [
            "keyturn owner=🔑 id= v= at= req=",
            "keyturn owner=keyturn owner=",
            "\u{0}",
            " keyturn owner=a",
            "keyturn owner= val= mac=",
            TAGS,
        ] {
            assert_eq!(parse(text), None);
        }
    }

    #[test]
    fn the_users_text_is_cut_to_the_limit_and_the_stamp_is_not() {
        for text in ["a".repeat(5000), "é".repeat(1024), "🔑".repeat(1024)] {
            let rendered = sealed(&text, &stamp());
            assert!((MAX_LENGTH - 1..=MAX_LENGTH).contains(&utf16_length(&rendered)));
            assert!(rendered.ends_with(TAGS));
            let written = parse(&rendered).unwrap();
            assert!(text.starts_with(written.text));
            assert_eq!(written.stamp, stamp());
            assert_eq!(sealed(written.text, &stamp()), rendered, "a second rotation cuts no further");
        }
    }

    #[test]
    fn text_of_exactly_the_room_left_is_kept_whole() {
        let room = MAX_LENGTH - STAMP.len() - TAGS.len() - 1;
        for length in [room, room + 1] {
            let rendered = sealed(&"a".repeat(length), &stamp());
            assert_eq!(parse(&rendered).unwrap().text.len(), room);
        }
    }

    #[test]
    fn a_request_is_never_written_out() {
        assert_eq!(request::hash("test"), "9f86d081884c7d65");
        let request = Some("please rotate, password is x".to_owned());
        let rendered = sealed("", &Stamp { request, ..stamp() });
        assert!(!rendered.contains("password"));
        let expected = request::hash("please rotate, password is x");
        assert_eq!(parse(&rendered).unwrap().stamp.request, Some(expected));
    }
}
