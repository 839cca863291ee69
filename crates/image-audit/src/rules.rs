//! The rules for secrets in a text.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use keyturn_secret_value::SecretValue;

use super::managed::{ManagedHit, Matcher};
use super::names::{self, Strength};
pub use super::rule::Rule;
use super::{formats, pairs};

/// A secret in a text.
pub struct Hit {
    /// The rule that found the secret.
    pub rule: Rule,
    /// Name of the variable, label or option that holds the secret; `None` if it has no name, or one that must not be
    /// shown.
    pub name: Option<String>,
    /// The secret, or a longer text that contains it.
    pub value: SecretValue,
    /// The parameter with this value, if the value is managed.
    pub parameter: Option<String>,
}

impl Hit {
    /// Copies the hit for another image with the same layer.
    pub fn duplicate(&self) -> Self {
        Self {
            rule: self.rule,
            name: self.name.clone(),
            value: self.value.duplicate(),
            parameter: self.parameter.clone(),
        }
    }
}

/// Returns every secret in a value of this name, or in a text without a name.
pub fn scan(name: Option<&str>, value: &SecretValue) -> Vec<Hit> {
    let text = value.expose();
    let mut hits = Hits::default();
    // The unescaped text comes first, so that its secrets are already known in the escaped one.
    if let Some(unescaped) = unescaped(text) {
        hits.texts(name, unescaped.expose(), 1);
    }
    hits.texts(name, text, 1);
    // Names come last, so that certain hits come first and this adds only what no other rule has found.
    if let Some(name) = name {
        hits.named(name, name, text);
    }
    if let Some(shown) = name.and_then(shown) {
        hits.found.iter_mut().filter(|hit| hit.name.is_none()).for_each(|hit| hit.name = Some(shown.clone()));
    }
    hits.found
}

/// Adds the managed values in a text: a hit of another rule becomes certain, and a value that no rule has found is
/// added.
pub fn add_managed(hits: &mut Vec<Hit>, name: Option<&str>, text: &SecretValue, matcher: &Matcher) {
    let mut open = matcher.find(text);
    for hit in hits.iter_mut() {
        let within: Vec<ManagedHit> = matcher.find(&hit.value);
        if let Some(managed) = within.first() {
            hit.rule = Rule::ManagedValue;
            hit.parameter = Some(managed.name.clone());
            open.retain(|other| within.iter().all(|known| known.name != other.name));
        }
    }
    for managed in open {
        if hits.iter().all(|hit| hit.parameter.as_ref() != Some(&managed.name)) {
            hits.push(Hit {
                rule: Rule::ManagedValue,
                name: name.and_then(shown),
                value: managed.written,
                parameter: Some(managed.name),
            });
        }
    }
}

#[derive(Default)]
struct Hits {
    found: Vec<Hit>,
}

impl Hits {
    /// Applies the rules for forms, then for arguments of commands, then for names.
    fn texts(&mut self, outer: Option<&str>, text: &str, unwrap: usize) {
        let digest = outer.is_some_and(|name| {
            let name = name.to_ascii_uppercase();
            ["SHA", "CHECKSUM", "DIGEST", "HASH", "INTEGRITY", "PUB", "SUM"]
                .iter()
                .any(|word| name.contains(word))
        });
        for (rule, value) in formats::find(text) {
            if !(rule == Rule::FernetKey && digest) {
                self.add(rule, None, value);
            }
        }
        for (value, is_password) in pairs::userinfo(text) {
            let real = if is_password { is_literal_password(value) } else { names::looks_random(value) };
            if real {
                self.add(Rule::UrlPassword, None, value);
            }
        }
        // A variable may be named like the header.
        let header = outer.filter(|name| name.to_ascii_uppercase().ends_with("AUTHORIZATION"));
        let sent = header.and_then(|_| pairs::authorization(text));
        for value in pairs::credentials(text).into_iter().chain(pairs::authorizations(text)).chain(sent) {
            if is_literal_password(value) {
                self.add(Rule::CommandCredential, None, value);
            }
        }
        for pair in pairs::pairs(text) {
            if pair.may_be_prose && !is_no_prose(pair.value) {
                continue;
            }
            if pair.value.starts_with('$') || pair.value.starts_with(".*") || pair.value.starts_with("[^") {
                continue;
            }
            self.named(pair.name, pair.name, pair.value);
        }
        if unwrap > 0 {
            for decoded in decoded(text) {
                self.texts(outer, decoded.expose(), unwrap - 1);
            }
        }
    }

    fn named(&mut self, name: &str, shown_as: &str, value: &str) {
        // `"auth": "…"` in a docker configuration is user:password in base64.
        let basic = name.trim_start_matches('_').eq_ignore_ascii_case("auth")
            && STANDARD.decode(value).is_ok_and(|pair| pair.is_ascii() && pair.contains(&b':'));
        let strength = if basic { Some(Strength::Strong) } else { names::strength(name) };
        if strength.is_some_and(|strength| names::is_secret(strength, name, value)) {
            self.add(Rule::SecretName, shown(shown_as), value);
        }
    }

    /// Adds each value once, under the first rule that found it or a part of it.
    fn add(&mut self, rule: Rule, name: Option<String>, value: &str) {
        let plain = unescaped(value);
        let seen = |hit: &Hit| {
            let known = hit.value.expose();
            known == value
                || plain.as_ref().is_some_and(|plain| plain.expose() == known)
                || (rule == Rule::SecretName && known.len() >= 4 && value.contains(known))
                || (hit.rule != Rule::SecretName && value.len() >= 4 && known.contains(value))
        };
        if !value.is_empty() && !self.found.iter().any(seen) {
            self.found.push(Hit { rule, name, value: SecretValue::new(value.to_owned()), parameter: None });
        }
    }
}

/// Returns a name that may appear in a report: it has only a name's characters, and is not itself a secret.
fn shown(name: &str) -> Option<String> {
    let sound = name.len() <= 80 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/".contains(c));
    // Somebody may have swapped name and value.
    let plain = formats::find(name).is_empty() && (name.contains(['_', '.', '-', '/']) || name.len() <= 24);
    (sound && plain && !name.is_empty()).then(|| name.to_owned())
}

fn is_literal_password(value: &str) -> bool {
    let capitals = ["PASSWORD", "PASS", "PASSWD", "PWD", "TOKEN", "SECRET"].contains(&value);
    let pattern = value.starts_with(['[', '(', '%', '{', '$']) || value.contains(".*");
    !value.is_empty() && !capitals && !pattern && !names::is_reference(value) && !names::is_placeholder(value)
}

/// True if a value follows `name:`, and not the next word of a sentence.
fn is_no_prose(value: &str) -> bool {
    let odd = value.bytes().any(|byte| !byte.is_ascii_alphabetic() && !b".,!?:".contains(&byte));
    value.len() >= 6 && odd && !value.contains(char::is_whitespace)
}

/// Returns the text with the escapes of JSON resolved, if it has any.
fn unescaped(text: &str) -> Option<SecretValue> {
    if !text.contains('\\') {
        return None;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (replacement, length) = match escape.bytes().next() {
            Some(b'n') => ('\n', 1),
            Some(b't') => ('\t', 1),
            Some(b'r') => ('\r', 1),
            Some(quote @ (b'"' | b'\\' | b'/' | b'\'')) => (char::from(quote), 1),
            Some(b'u') => match escape.get(1..5).and_then(|hex| u32::from_str_radix(hex, 16).ok()) {
                Some(code) => (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 5),
                None => ('\\', 0),
            },
            _ => ('\\', 0),
        };
        plain.push(replacement);
        rest = &escape[length..];
    }
    plain.push_str(rest);
    Some(SecretValue::new(plain))
}

/// Returns the texts that are encoded in base64 inside a text.
fn decoded(text: &str) -> Vec<SecretValue> {
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let words = text.split(|c| !base64(c)).filter_map(|word| {
        let word = word.trim_start_matches('=').trim_end_matches('=');
        if word.len() < 24 {
            return None;
        }
        let text = String::from_utf8(STANDARD_NO_PAD.decode(word).ok()?).ok()?;
        let printable = text.chars().all(|c| !c.is_control() || c.is_whitespace());
        printable.then(|| SecretValue::new(text))
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(name: Option<&str>, text: &str) -> Vec<(&'static str, Option<String>)> {
        let hits = scan(name, &SecretValue::new(text.into()));
        hits.into_iter().map(|hit| (hit.rule.id(), hit.name)).collect()
    }

    #[test]
    fn one_secret_is_one_hit_named_by_the_most_certain_rule() {
        let token = format!("ghp_{}", "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6");
        assert_eq!(rules(Some("GITHUB_TOKEN"), &token), [("github-token", Some("GITHUB_TOKEN".to_owned()))]);
        assert_eq!(rules(None, &format!("export GITHUB_TOKEN={token}")), [("github-token", None)]);
        assert_eq!(
            rules(Some("DATABASE_URL"), "postgres://u:hunter2@h/db"),
            [("url-password", Some("DATABASE_URL".to_owned()))]
        );
    }

    #[test]
    fn a_name_that_is_itself_a_token_is_not_shown() {
        assert_eq!(shown("ghp_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6"), None);
        assert_eq!(shown("8f3a1c9d7e5b2a4c6d8e0f1a3b5c7d9e"), None);
        assert_eq!(shown("DB_PASSWORD"), Some("DB_PASSWORD".to_owned()));
    }

    #[test]
    fn escapes_and_base64_are_looked_through() {
        assert_eq!(rules(None, r#"[\"sh\",\"-c\",\"x \u0026\u0026 TOKEN=abcd1234 y\"]"#).len(), 1);
        let inner = STANDARD.encode(r#"{"db": {"password": "hunter2"}}"#);
        assert_eq!(rules(Some("CONFIG"), &inner), [("secret-name", Some("password".to_owned()))]);
    }
}
