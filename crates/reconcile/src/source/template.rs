//! Templates: the text that is published around a value, such as `value: "postgres://{username}:{password}@db/app"`.

use keyturn_api::managed_secret::ParameterSpec;
use keyturn_api::source::{self, USERNAME};
use keyturn_secret_value::SecretValue;

/// Placeholders of the generated value.
const VALUE: [&str; 2] = [source::VALUE, source::PASSWORD];

/// Renders the text to publish: the template with its placeholders replaced, or the value alone if there is no
/// template.
///
/// Nothing else in the template has a meaning. If a login is put into a URL, username and password are percent-encoded.
/// A value without a username is put in as it is, so a URL needs a source whose characters are allowed in one, such as
/// hex.
pub(super) fn render(template: Option<&str>, value: &SecretValue, username: Option<&str>) -> SecretValue {
    let Some(template) = template else { return value.duplicate() };
    let Some(username) = username else { return fill(template, value) };
    let url = is_url(template);
    let template = with_username(template, username, url);
    if url { fill(&template, &encoded(value)) } else { fill(&template, value) }
}

/// Extracts the value from a published text: what [`render`] put into the template, if the text still fits it. White
/// space at the end is ignored, such as the newline of a `put-parameter --value file://`.
pub(super) fn extract(template: Option<&str>, published: &SecretValue) -> Option<SecretValue> {
    let text = published.expose().trim_end();
    let template = one_name(template.unwrap_or(VALUE[0]).trim_end());
    let (before, after) = template.split_once(VALUE[0])?;
    // With several places, the value is read at the first one; the others must hold the same value.
    let places = template.matches(VALUE[0]).count();
    let around = template.len() - places * VALUE[0].len();
    let inside = text.len().checked_sub(around)?;
    if inside % places != 0 || !text.starts_with(before) {
        return None;
    }
    let value = text.get(before.len()..before.len() + inside / places)?;
    let value = SecretValue::new(value.to_owned());
    let fits = match places {
        1 => text.ends_with(after),
        _ => fill(&template, &value).expose() == text,
    };
    fits.then_some(value)
}

/// Reads the login that is published: one of the usernames, and its password. `None` if the texts fit none of the
/// usernames, or contradict each other.
pub(super) fn login<'a>(
    usernames: &[&'a str],
    parameters: &[(&ParameterSpec, &SecretValue)],
) -> Option<(&'a str, SecretValue)> {
    usernames.iter().find_map(|username| {
        let mut password: Option<SecretValue> = None;
        for (parameter, published) in parameters {
            let template = parameter.value.as_deref().unwrap_or(VALUE[0]);
            let url = is_url(template);
            let filled = with_username(template, username, url);
            if !VALUE.iter().any(|place| filled.contains(place)) {
                if published.expose().trim_end() != filled.trim_end() {
                    return None;
                }
                continue;
            }
            let found = extract(Some(&filled), published)?;
            let found = if url { decoded(&found)? } else { found };
            match &password {
                Some(known) if !known.same_as(&found) => return None,
                Some(_) => {}
                None => password = Some(found),
            }
        }
        password.map(|password| (*username, password))
    })
}

fn fill(template: &str, value: &SecretValue) -> SecretValue {
    let template = one_name(template);
    // The capacity is exact, so the String neither grows nor shrinks and leaves no copy behind.
    let places = template.matches(VALUE[0]).count();
    let mut text = String::with_capacity(template.len() - places * VALUE[0].len() + places * value.len());
    for (n, part) in template.split(VALUE[0]).enumerate() {
        if n > 0 {
            text.push_str(value.expose());
        }
        text.push_str(part);
    }
    SecretValue::new(text)
}

fn one_name(template: &str) -> String {
    template.replace(VALUE[1], VALUE[0])
}

fn with_username(template: &str, username: &str, url: bool) -> String {
    match url {
        true => template.replace(USERNAME, percent_encoded(username).as_str()),
        false => template.replace(USERNAME, username),
    }
}

/// True when the text begins with the scheme of a URL.
fn is_url(template: &str) -> bool {
    template.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c))
    })
}

fn encoded(value: &SecretValue) -> SecretValue {
    SecretValue::new(percent_encoded(value.expose()))
}

/// Percent-encodes every byte except the unreserved ones of RFC 3986, section 2.3.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            for half in [byte >> 4, byte & 15] {
                encoded.push(char::from(b"0123456789ABCDEF"[usize::from(half)]));
            }
            encoded.insert(encoded.len() - 2, '%');
        }
    }
    encoded
}

fn decoded(value: &SecretValue) -> Option<SecretValue> {
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value.expose().bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    std::str::from_utf8(&bytes).ok().map(|text| SecretValue::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretValue {
        SecretValue::new(text.to_owned())
    }

    fn parameter(path: &str, value: Option<&str>) -> ParameterSpec {
        ParameterSpec { path: path.into(), value: value.map(str::to_owned) }
    }

    #[test]
    fn a_login_is_put_into_a_url_percent_encoded_and_read_back() {
        let template = "postgresql+asyncpg://{username}:{password}@postgres:5432/musehub";
        let (name, password) = ("müse/hub@b", "p@ss:w%rd");
        let value = secret(password);
        let text = render(Some(template), &value, Some(name));
        assert_eq!(
            text.expose(),
            "postgresql+asyncpg://m%C3%BCse%2Fhub%40b:p%40ss%3Aw%25rd@postgres:5432/musehub"
        );
        let spec = parameter("/a/DATABASE_URL", Some(template));
        let (found, read) = login(&["musehub_a", name], &[(&spec, &text)]).unwrap();
        assert_eq!((found, read.expose()), (name, password));
    }

    #[test]
    fn a_login_in_two_parameters_is_the_one_that_both_fit() {
        let (user, word) = (parameter("/a/USER", Some("{username}")), parameter("/a/PASSWORD", None));
        let published = (secret("app_b\n"), secret("secret\n"));
        let pairs = [(&user, &published.0), (&word, &published.1)];
        let (found, read) = login(&["app_a", "app_b"], &pairs).unwrap();
        assert_eq!((found, read.expose()), ("app_b", "secret"));
        assert!(login(&["app_c"], &pairs).is_none(), "a login of somebody else");
    }

    #[test]
    fn parameters_that_hold_different_passwords_are_no_login() {
        let (one, two) = (parameter("/a/A", None), parameter("/a/B", None));
        let (first, second) = (secret("x"), secret("y"));
        assert!(login(&["app"], &[(&one, &first), (&two, &second)]).is_none());
        assert!(login(&["app"], &[(&one, &first), (&two, &first)]).is_some());
    }

    #[test]
    fn a_username_that_looks_like_a_place_is_text() {
        let value = secret("x");
        let text = render(Some("{username}:{value}"), &value, Some("a{b}c"));
        assert_eq!(text.expose(), "a{b}c:x");
    }
}
