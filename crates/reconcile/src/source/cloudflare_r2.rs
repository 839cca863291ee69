//! Key pairs of R2, which Cloudflare issues. A pair is put into the published texts, and read back from them. A
//! template has both parts, such as `value: "{accessKeyId}:{secretAccessKey}"`, or each part has a parameter of its
//! own.
//!
//! Both parts consist of letters and digits only. So they need no encoding in a URL, and the first other character ends
//! a part.

use keyturn_api::managed_secret::ParameterSpec;
use keyturn_api::source::cloudflare_r2::{ACCESS_KEY_ID, CloudflareR2Spec, SECRET_ACCESS_KEY};
use keyturn_api::{Reason, Trouble};
use keyturn_secret_value::SecretValue;

use super::{GenerateError, IssuedSource, Kind, LoginSource, Random, ValueSource};
use crate::target::Login;

/// Length of each part of a sample pair: at least as long as in any real pair.
const LONGEST_PART: usize = 64;

impl ValueSource for CloudflareR2Spec {
    fn draw(&self, _: Option<&SecretValue>, _: &mut dyn Random) -> Result<SecretValue, GenerateError> {
        Err(GenerateError::Issued)
    }

    fn render(&self, template: Option<&str>, value: &SecretValue, username: Option<&str>) -> SecretValue {
        render_pair(template.unwrap_or_default(), username.unwrap_or_default(), value)
    }

    fn extract(&self, parameter: &ParameterSpec, published: &SecretValue) -> Option<SecretValue> {
        pair(&[(parameter, published)]).map(|login| login.password)
    }

    fn login(&self) -> Option<&dyn LoginSource> {
        Some(self)
    }
}

impl LoginSource for CloudflareR2Spec {
    fn kind(&self) -> Kind<'_> {
        Kind::Issued(self)
    }

    fn published(&self, parameters: &[(&ParameterSpec, &SecretValue)]) -> Option<Login> {
        pair(parameters)
    }

    fn unreadable(&self) -> Trouble {
        Trouble::permanent(
            Reason::PublishedLoginUnreadable,
            "what is published is not a key pair in the form of spec.ssm.parameters[].value: put the access key id \
             and secret access key that are in use, or correct the template",
        )
    }

    fn retired(&self, username: &str) -> String {
        format!("Token {username} is deleted")
    }
}

impl IssuedSource for CloudflareR2Spec {
    fn names_the_login(&self, template: &str) -> bool {
        template.contains(ACCESS_KEY_ID)
    }

    fn username_in(&self, template: &str, published: &SecretValue) -> Option<String> {
        access_key_id(template, published)
    }

    fn longest_login(&self) -> Login {
        let part = "0".repeat(LONGEST_PART);
        Login { username: part.clone(), password: SecretValue::new(part) }
    }

    fn deleted_by_hand(&self) -> &'static str {
        "Cloudflare dashboard: My Profile, or Manage Account, API Tokens"
    }
}

/// Renders the text to publish: the template with the pair in place of its placeholders.
fn render_pair(template: &str, id: &str, secret: &SecretValue) -> SecretValue {
    // The capacity suffices, so the String never grows and leaves no copy behind.
    let places = template.matches('{').count();
    let mut text = String::with_capacity(template.len() + places * id.len().max(secret.len()));
    for piece in pieces(template) {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Id => text.push_str(id),
            Piece::Secret => text.push_str(secret.expose()),
        }
    }
    SecretValue::new(text)
}

/// Reads the pair that is published. `None` if a text does not fit its template, texts contradict each other, or a part
/// is missing. White space at the end of a text is ignored.
fn pair(parameters: &[(&ParameterSpec, &SecretValue)]) -> Option<Login> {
    let mut found = Found::default();
    for (parameter, published) in parameters {
        found.read(parameter.value.as_deref()?, published)?;
    }
    Some(Login { username: found.id?, password: found.secret? })
}

/// Reads the access key id from one text; `None` if the text does not fit the template.
fn access_key_id(template: &str, published: &SecretValue) -> Option<String> {
    let mut found = Found::default();
    found.read(template, published)?;
    found.id
}

#[derive(Default)]
struct Found {
    id: Option<String>,
    secret: Option<SecretValue>,
}

impl Found {
    /// Parses one text; `None` if it does not fit its template, or contradicts what was found before.
    fn read(&mut self, template: &str, published: &SecretValue) -> Option<()> {
        let mut rest = published.expose().trim_end();
        for piece in pieces(template.trim_end()) {
            if let Piece::Text(part) = piece {
                rest = rest.strip_prefix(part)?;
                continue;
            }
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let (value, after) = rest.split_at(end);
            rest = after;
            if value.is_empty() {
                return None;
            }
            match piece {
                Piece::Id if self.id.as_ref().is_none_or(|known| known == value) => {
                    self.id = Some(value.to_owned());
                }
                Piece::Secret => {
                    let value = SecretValue::new(value.to_owned());
                    if self.secret.as_ref().is_some_and(|known| !known.same_as(&value)) {
                        return None;
                    }
                    self.secret = Some(value);
                }
                _ => return None,
            }
        }
        rest.is_empty().then_some(())
    }
}

#[derive(Clone, Copy)]
enum Piece<'a> {
    Text(&'a str),
    Id,
    Secret,
}

/// Splits a template into its pieces, from left to right.
fn pieces(template: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let next = [(ACCESS_KEY_ID, Piece::Id), (SECRET_ACCESS_KEY, Piece::Secret)]
            .into_iter()
            .filter_map(|(name, piece)| rest.find(name).map(|at| (at, name, piece)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, name, piece)) = next else {
            pieces.push(Piece::Text(rest));
            break;
        };
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        pieces.push(piece);
        rest = &rest[at + name.len()..];
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login { username: "1d".repeat(16), password: SecretValue::new("5e".repeat(32)) }
    }

    fn parameter(template: &str) -> ParameterSpec {
        ParameterSpec { path: "/a/R2".into(), value: Some(template.into()) }
    }

    #[test]
    fn what_is_rendered_is_read_back() {
        for templates in [
            vec!["{accessKeyId}", "{secretAccessKey}"],
            vec!["{accessKeyId}:{secretAccessKey}"],
            vec!["s3://{accessKeyId}:{secretAccessKey}@media?again={accessKeyId}"],
            vec![r#"{"id": "{accessKeyId}", "secret": "{secretAccessKey}"}"#, "id={accessKeyId}"],
        ] {
            let specs: Vec<ParameterSpec> = templates.iter().map(|template| parameter(template)).collect();
            let newline = |value: SecretValue| SecretValue::new(format!("{}\n", value.expose()));
            let texts: Vec<SecretValue> = templates
                .iter()
                .map(|template| newline(render_pair(template, &login().username, &login().password)))
                .collect();
            let pairs: Vec<_> = specs.iter().zip(&texts).collect();
            let found = pair(&pairs).unwrap();
            assert_eq!(found.username, login().username, "{templates:?}");
            assert!(found.password.same_as(&login().password), "{templates:?}");
            assert_eq!(access_key_id(templates[0], &texts[0]), Some(login().username));
        }
    }

    #[test]
    fn texts_that_do_not_fit_or_do_not_agree_are_no_pair() {
        let (id, both) = (parameter("{accessKeyId}"), parameter("{accessKeyId}:{secretAccessKey}"));
        let text = |text: &str| SecretValue::new(text.to_owned());
        assert!(pair(&[(&both, &text("a:b"))]).is_some());
        for wrong in ["a", "a:", ":b", "a:b:c", "a b", "", "a:b c", "ä:b"] {
            assert!(pair(&[(&both, &text(wrong))]).is_none(), "{wrong:?}");
        }
        assert!(pair(&[(&id, &text("a"))]).is_none(), "half of it");
        assert!(pair(&[(&id, &text("x")), (&both, &text("a:b"))]).is_none(), "two ids");
        assert!(pair(&[(&id, &text("a")), (&both, &text("a:b"))]).is_some());
    }
}
