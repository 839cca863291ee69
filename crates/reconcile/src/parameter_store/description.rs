//! What keyturn writes into a parameter's description, behind the user's own text:
//!
//! ```text
//! Webhook signing key keyturn owner=prod/musehub/webhook-key id=7 v=12 at=2026-03-01T03:00:00Z req=9f86d081884c7d65
//! ```
//!
//! Behind `at` stands `made=` where a roll back has brought an older value back: when that was made.
//!
//! Descriptions are free text that anyone may edit and that SSM keeps over a Put which omits them. So reading is
//! strict: a stamp counts only where it is, character for character, what [`render`] would have written, and stands
//! at the very end. A stamp that was cut off, edited or continued is the user's text. That the stamp was made *for
//! this version* is not decided here: compare [`Stamp::version`] with the version's number.

use chrono::{DateTime, SecondsFormat, Utc};
use keyturn_rotation::observed::Stamp;
use keyturn_rotation::request;

/// SSM's limit for a description. It counts UTF-16 units.
pub const MAX_LENGTH: usize = 1024;

const MARK: &str = "keyturn owner=";
/// Stands where no request asked for the rotation, so that a stamp whose end was cut off is never taken for whole.
const NO_REQUEST: &str = "-";

/// The description of a version: the user's text, then the stamp. Text that does not fit SSM's limit loses its end;
/// the stamp never does. A `request` that is not yet a hash is hashed.
pub fn render(user_text: &str, stamp: &Stamp) -> String {
    let stamp = stamp_text(stamp);
    let room = MAX_LENGTH.saturating_sub(utf16_length(&stamp) + 1);
    let text = cut(user_text, room);
    if text.is_empty() { stamp } else { format!("{text} {stamp}") }
}

/// The user's text, and the stamp where a whole one ends the description. Takes any text.
pub fn parse(description: &str) -> (String, Option<Stamp>) {
    let whole_stamp = description.rfind(MARK).and_then(|start| {
        let (before, text) = description.split_at(start);
        let user_text = if before.is_empty() { before } else { before.strip_suffix(' ')? };
        let stamp = parse_stamp(text)?;
        Some((user_text.to_owned(), stamp))
    });
    match whole_stamp {
        Some((user_text, stamp)) => (user_text, Some(stamp)),
        None => (description.to_owned(), None),
    }
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
    if owner.is_empty() || owner.contains(char::is_whitespace) {
        return None;
    }
    let request = match request {
        NO_REQUEST => None,
        hash if request::is_hash(hash) => Some(hash.to_owned()),
        _ => return None,
    };
    let stamp = Stamp {
        owner: owner.to_owned(),
        id: id.parse().ok()?,
        version: version.parse().ok()?,
        at: time(at)?,
        request,
        made,
    };
    // Rules out whatever the parsers above are lenient about: "+7", "007", other spellings of a time, further fields.
    (stamp_text(&stamp) == text).then_some(stamp)
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc))
}

fn utf16_length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The longest beginning of `text` that has at most `units` UTF-16 units.
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

    #[test]
    fn the_stamp_stands_behind_the_users_text() {
        assert_eq!(render("Signing key", &stamp()), format!("Signing key {STAMP}"));
        assert_eq!(render("", &stamp()), STAMP);
    }

    #[test]
    fn what_was_rendered_is_read_back() {
        let texts =
            ["", "Signing key", " spaced  out ", "línea\nnueva 🔑", "keyturn", "keyturn owner=", STAMP];
        let requests = [None, Some("9f86d081884c7d65".to_owned())];
        let mades = [None, Some("2025-12-01T00:00:00Z".parse().unwrap())];
        let times = ["2026-03-01T03:00:00Z", "2026-03-01T03:00:00.123456789Z", "1970-01-01T00:00:00.5Z"];
        for text in texts {
            for request in &requests {
                for (at, made) in times.iter().flat_map(|at| mades.map(|made| (at, made))) {
                    let at = at.parse().unwrap();
                    let stamp = Stamp { request: request.clone(), at, made, ..stamp() };
                    assert_eq!(parse(&render(text, &stamp)), (text.to_owned(), Some(stamp)));
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
        for rendered in stamps.map(|stamp| render("Signing key", &stamp)) {
            for end in 0..rendered.len() {
                assert_eq!(parse(&rendered[..end]), (rendered[..end].to_owned(), None));
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
            ("owner=prod/musehub/webhook-key", "owner="),
            ("d65", "d65 "),
            ("d65", "d65\n"),
            ("d65", "d65 edited by hand"),
            ("keyturn owner", "xkeyturn owner"),
        ];
        for (from, to) in edits {
            let edited = STAMP.replace(from, to);
            assert_ne!(edited, STAMP, "{from} is not in the stamp");
            assert_eq!(parse(&edited), (edited.clone(), None), "{from} -> {to}");
        }
    }

    #[test]
    fn hostile_text_is_plain_text() {
        for text in
            ["keyturn owner=🔑 id= v= at= req=", "keyturn owner=keyturn owner=", "\u{0}", " keyturn owner=a"]
        {
            assert_eq!(parse(text), (text.to_owned(), None));
        }
    }

    #[test]
    fn the_users_text_is_cut_to_the_limit_and_the_stamp_is_not() {
        for text in ["a".repeat(5000), "é".repeat(1024), "🔑".repeat(1024)] {
            let rendered = render(&text, &stamp());
            assert!((MAX_LENGTH - 1..=MAX_LENGTH).contains(&utf16_length(&rendered)));
            assert!(rendered.ends_with(STAMP));
            let (kept, read) = parse(&rendered);
            assert!(text.starts_with(&kept));
            assert_eq!(read, Some(stamp()));
            assert_eq!(render(&kept, &stamp()), rendered, "a second rotation cuts no further");
        }
    }

    #[test]
    fn text_of_exactly_the_room_left_is_kept_whole() {
        let room = MAX_LENGTH - STAMP.len() - 1;
        assert_eq!(parse(&render(&"a".repeat(room), &stamp())).0.len(), room);
        assert_eq!(parse(&render(&"a".repeat(room + 1), &stamp())).0.len(), room);
    }

    #[test]
    fn a_request_is_never_written_out() {
        assert_eq!(request::hash("test"), "9f86d081884c7d65");
        let rendered = render("", &Stamp { request: Some("please rotate, password is x".into()), ..stamp() });
        assert!(!rendered.contains("password"));
        assert_eq!(parse(&rendered).1.unwrap().request, Some(request::hash("please rotate, password is x")));
    }
}
