//! Scrubs secrets from text that other people will read: values that keyturn manages, and tokens of known forms.

use keyturn_secret_value::SecretValue;

use super::managed::{Form, ManagedHit, Matcher};
use super::rules::{self, Rule};

/// Maximum number of rounds of the search for managed values: each round removes every form that the previous one
/// found. A text with more forms is not shown at all.
const MOST_ROUNDS: usize = 64;
/// Shortest secret that is replaced. A shorter one would also be cut out of words that only contain it.
const SHORTEST: usize = 4;

/// Maximum number of lines of a private key, a few more than the longest key in use has. So a key without an end marker
/// does not hide the rest of the text.
const MOST_LINES_OF_A_KEY: usize = 200;

/// Returns the text with a marker, such as `[value:/app/DB_PASSWORD]` or `[github-token]`, in place of every secret. A
/// line with a secret in a form that cannot be cut out is replaced completely. The whole text is replaced if it cannot
/// be searched for some of the values.
pub fn scrubbed(text: &SecretValue, matcher: &Matcher) -> String {
    if text.is_empty() {
        return String::new();
    }
    if let Some(why) = matcher.unsearched() {
        return format!("[not shown: {why}]");
    }
    let mut markers = Vec::new();
    let Some(text) = without_managed(text, matcher, &mut markers) else {
        return "[not shown: too many values of secrets]".to_owned();
    };
    let mut text = text.expose().to_owned();
    // Private keys have several lines.
    for hit in rules::scan(None, &SecretValue::new(text.clone())) {
        if hit.rule == Rule::PrivateKey && !hit.value.is_empty() {
            text = text.replace(hit.value.expose(), &marker(hit.rule));
        }
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let of_keys = of_keys(&lines);
    let shown = lines.iter().zip(of_keys).map(|(line, of_a_key)| {
        if of_a_key { marker(Rule::PrivateKey) } else { line_without_tokens(line, &markers) }
    });
    shown.collect::<Vec<_>>().join("\n")
}

/// Marks the lines of private keys, even if the text begins or ends in the middle of one.
fn of_keys(lines: &[&str]) -> Vec<bool> {
    let mut keys = KeyLines::default();
    let mut of_keys: Vec<bool> = lines.iter().map(|line| keys.is_of_one(line)).collect();
    for (at, line) in lines.iter().enumerate() {
        let begun = of_keys[at] || line.contains(KEY_BEGINS);
        if !begun && is_boundary(line, KEY_ENDS) {
            let earliest = at.saturating_sub(MOST_LINES_OF_A_KEY);
            for before in (earliest..=at)
                .rev()
                .take_while(|before| *before == at || !is_boundary(lines[*before], KEY_ENDS))
            {
                of_keys[before] = true;
            }
        }
    }
    of_keys
}

const KEY_BEGINS: &str = "-----BEGIN ";
const KEY_ENDS: &str = "-----END ";

fn is_boundary(line: &str, which: &str) -> bool {
    line.rfind(which).is_some_and(|at| line[at..].contains("PRIVATE KEY"))
}

/// Recognises private keys in a text that is read line by line.
#[derive(Default)]
pub struct KeyLines {
    /// Maximum number of lines that may still belong to the current key.
    left: usize,
}

impl KeyLines {
    /// True if the next line belongs to a private key of several lines.
    pub fn is_of_one(&mut self, line: &str) -> bool {
        let inside = self.left > 0;
        let (begins, ends) = (is_boundary(line, KEY_BEGINS), is_boundary(line, KEY_ENDS));
        let ends_last = line.rfind(KEY_ENDS) > line.rfind(KEY_BEGINS);
        if begins && !(ends && ends_last) {
            self.left = MOST_LINES_OF_A_KEY;
            return true;
        }
        self.left = if ends { 0 } else { self.left.saturating_sub(1) };
        inside
    }
}

fn marker(rule: Rule) -> String {
    format!("[{}]", rule.id())
}

fn without_managed(text: &SecretValue, matcher: &Matcher, markers: &mut Vec<String>) -> Option<SecretValue> {
    let mut text = text.duplicate();
    for _ in 0..MOST_ROUNDS {
        let found = matcher.find_to_hide(&text);
        if found.is_empty() {
            return Some(text);
        }
        for hit in found {
            let marker = format!("[value:{}]", hit.name);
            text = SecretValue::new(replaced(text.expose(), &hit, &marker));
            markers.push(marker);
        }
    }
    None
}

/// Replaces a hit. In base64 the characters at both ends also reveal something of the value, so the whole word is
/// replaced.
fn replaced(text: &str, hit: &ManagedHit, marker: &str) -> String {
    let written = hit.written.expose();
    if hit.form != Form::Base64 {
        return text.replace(written, marker);
    }
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/-_=".contains(c);
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(written) {
        let (before, after) = (&rest[..at], &rest[at + written.len()..]);
        kept.push_str(before.trim_end_matches(is_base64));
        kept.push_str(marker);
        rest = after.trim_start_matches(is_base64);
    }
    kept + rest
}

fn line_without_tokens(line: &str, markers: &[String]) -> String {
    let mut hits = rules::scan(None, &SecretValue::new(line.to_owned()));
    // If two hits overlap, the longer one is replaced first.
    hits.sort_by_key(|hit| std::cmp::Reverse(hit.value.len()));
    let mut kept = line.to_owned();
    for hit in hits {
        let value = hit.value.expose();
        if markers.iter().any(|marker| marker.contains(value)) {
            continue;
        }
        if value.len() < SHORTEST || !line.contains(value) {
            return format!("[a line with a {} is not shown]", hit.rule.id());
        }
        kept = kept.replace(value, &marker(hit.rule));
    }
    kept
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::managed::ManagedValues;

    const PASSWORD: &str = "correct-horse/battery&staple";
    const TOKEN: &str = "ghp_x7Kq9ZpL2mV4nB8cT1sW6yR3dF5gH0jAeUiO";

    fn matcher() -> Matcher {
        let values = [("/app/DB_PASSWORD".to_owned(), SecretValue::new(PASSWORD.to_owned()))];
        Matcher::new(&ManagedValues::new(&values, &[3; 32])).unwrap()
    }

    fn scrub(text: &str) -> String {
        scrubbed(&SecretValue::new(text.to_owned()), &matcher())
    }

    /// Scrubs the values with these fingerprints from a text.
    fn scrub_of(value: &str, text: &str) -> String {
        let values = [("/app/SHORT".to_owned(), SecretValue::new(value.to_owned()))];
        let matcher = Matcher::new(&ManagedValues::new(&values, &[3; 32])).unwrap();
        scrubbed(&SecretValue::new(text.to_owned()), &matcher)
    }

    #[test]
    fn where_a_value_is_too_short_to_be_searched_for_nothing_is_shown_and_it_says_why() {
        let shown = scrub_of("hunter2", "LOG: password hunter2\nLOG: nothing");
        assert_eq!(shown, "[not shown: a value of the host's secrets is too short to be searched for]");
        assert_eq!(scrub_of("hunter2", ""), "");
    }

    #[test]
    fn a_value_of_several_lines_that_the_text_has_in_part_is_taken_out() {
        let value = "{\n  \"user\": \"admin-of-all\",\n  \"password\": \"Winter&Garden 91\"\n}\n";
        for cut in [
            "  \"password\": \"Winter&Garden 91\"\n}\nnext",
            "x\n{\n  \"user\": \"admin-of-all\",",
            "12:00 db[7]: \"password\": \"Winter&Garden 91\"",
        ] {
            let shown = scrub_of(value, cut);
            assert!(!shown.contains("Winter") && !shown.contains("admin-of-all"), "{shown}");
            assert!(shown.contains("[value:/app/SHORT]"), "{shown}");
        }
    }

    #[test]
    fn a_private_key_that_the_text_has_in_part_is_not_shown() {
        let body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
        let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
        for text in [
            format!("before\n{begin}\n{body}\n{body}"),
            format!("{body}\n{body}\n{end}\nafter"),
            format!("{body}\n{end}\nbetween\n{begin}\n{body}"),
        ] {
            let shown = scrub(&text);
            assert!(!shown.contains(body), "{shown}");
            assert_eq!(shown.contains("before"), text.contains("before"), "{shown}");
            assert_eq!(shown.contains("after"), text.contains("after"), "{shown}");
        }
    }

    #[test]
    fn managed_values_are_taken_out_in_every_form_however_often_they_stand_there() {
        let encoded = |before: &str| STANDARD.encode(format!("{before}{PASSWORD}"));
        let url = "correct-horse%2Fbattery%26staple";
        let lines = [
            format!("login password={PASSWORD} from 203.0.113.9 {PASSWORD}"),
            format!("Authorization: Basic {} and {}", encoded("a:"), encoded("ab:")),
            format!("and {}", encoded("")),
            format!("GET /?p={url} 200"),
            format!("hex {}", hex::encode(PASSWORD)),
        ];
        let shown = scrub(&lines.join("\n"));
        let value = "[value:/app/DB_PASSWORD]";
        let expected = [
            format!("login password={value} from 203.0.113.9 {value}"),
            format!("Authorization: Basic {value} and {value}"),
            format!("and {value}"),
            format!("GET /?p={value} 200"),
            format!("hex {value}"),
        ];
        assert_eq!(shown, expected.join("\n"));
    }

    #[test]
    fn tokens_of_known_forms_are_taken_out_and_all_else_stays() {
        let key = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n-----END PRIVATE KEY-----";
        let plain = "2026-11-23 12:00:01 UTC [77] LOG:  connection authorized: user=musehub database=musehub";
        let shown = scrub(&format!(
            "{plain}\nused {TOKEN} twice {TOKEN}\npostgres://app:Winter-Garden-91@db/x\n{key}\n{plain}"
        ));
        for secret in [TOKEN, "Winter-Garden-91", "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert_eq!(shown.matches(plain).count(), 2, "{shown}");
        assert!(shown.contains("used [github-token] twice [github-token]"), "{shown}");
    }
}
