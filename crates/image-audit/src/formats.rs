//! Tokens that are recognised by their form, under any name.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

use super::names;
use super::rule::Rule;

/// The characters that follow the prefix.
#[derive(Clone, Copy)]
enum Alphabet {
    /// `A-Z2-7`
    Base32,
    /// `0-9a-f`
    Hex,
    Alphanumeric,
    /// and `_`
    Word,
    /// and `_-`
    Url,
    /// and `_-.`
    Dotted,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Base32 => byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte),
            Self::Hex => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::Url => byte.is_ascii_alphanumeric() || b"_-".contains(&byte),
            Self::Dotted => byte.is_ascii_alphanumeric() || b"_-.".contains(&byte),
        }
    }
}

/// A rule, the prefix of its tokens, the alphabet of the characters after it, and their minimum and maximum number.
type Format = (Rule, &'static str, Alphabet, usize, usize);

const ANY: usize = 4096;

/// Known formats, from the issuers' own documentation of their prefixes. Lengths are lower bounds if an issuer does
/// not fix them.
const FORMATS: [Format; 66] = [
    (Rule::AwsKey, "AKIA", Alphabet::Base32, 16, 16),
    (Rule::AwsKey, "ASIA", Alphabet::Base32, 16, 16),
    (Rule::AwsKey, "ABIA", Alphabet::Base32, 16, 16),
    (Rule::GitHubToken, "ghp_", Alphabet::Alphanumeric, 36, 255),
    (Rule::GitHubToken, "gho_", Alphabet::Alphanumeric, 36, 255),
    (Rule::GitHubToken, "ghu_", Alphabet::Alphanumeric, 36, 255),
    (Rule::GitHubToken, "ghs_", Alphabet::Alphanumeric, 36, 255),
    (Rule::GitHubToken, "ghr_", Alphabet::Alphanumeric, 36, 255),
    (Rule::GitHubToken, "github_pat_", Alphabet::Word, 60, 255),
    (Rule::GitLabToken, "glpat-", Alphabet::Dotted, 20, 300),
    (Rule::GitLabToken, "glrt-", Alphabet::Dotted, 20, 300),
    (Rule::GitLabToken, "gldt-", Alphabet::Dotted, 20, 300),
    (Rule::GitLabToken, "glptt-", Alphabet::Dotted, 20, 300),
    (Rule::GitLabToken, "glcbt-", Alphabet::Dotted, 20, 300),
    (Rule::SlackToken, "xoxb-", Alphabet::Url, 20, 300),
    (Rule::SlackToken, "xoxp-", Alphabet::Url, 20, 300),
    (Rule::SlackToken, "xoxa-", Alphabet::Url, 20, 300),
    (Rule::SlackToken, "xoxr-", Alphabet::Url, 20, 300),
    (Rule::SlackToken, "xoxs-", Alphabet::Url, 20, 300),
    (Rule::SlackToken, "xoxe-", Alphabet::Url, 20, 300),
    (Rule::SlackToken, "xapp-", Alphabet::Url, 20, 300),
    (Rule::StripeKey, "sk_live_", Alphabet::Alphanumeric, 16, 255),
    (Rule::StripeKey, "sk_test_", Alphabet::Alphanumeric, 16, 255),
    (Rule::StripeKey, "rk_live_", Alphabet::Alphanumeric, 16, 255),
    (Rule::StripeKey, "rk_test_", Alphabet::Alphanumeric, 16, 255),
    (Rule::StripeKey, "whsec_", Alphabet::Alphanumeric, 24, 255),
    (Rule::CloudflareToken, "cfk_", Alphabet::Alphanumeric, 40, 60),
    (Rule::CloudflareToken, "cfut_", Alphabet::Alphanumeric, 40, 60),
    (Rule::CloudflareToken, "cfat_", Alphabet::Alphanumeric, 40, 60),
    (Rule::NpmToken, "npm_", Alphabet::Alphanumeric, 36, 36),
    (Rule::PyPiToken, "pypi-AgE", Alphabet::Url, 50, ANY),
    (Rule::OtherToken, "sk-proj-", Alphabet::Url, 40, 300),
    (Rule::OtherToken, "sk-svcacct-", Alphabet::Url, 40, 300),
    (Rule::OtherToken, "sk-ant-", Alphabet::Url, 40, 300),
    (Rule::OtherToken, "SG.", Alphabet::Dotted, 60, 80),
    (Rule::OtherToken, "AIza", Alphabet::Url, 35, 35),
    (Rule::OtherToken, "GOCSPX-", Alphabet::Url, 28, 28),
    (Rule::OtherToken, "dop_v1_", Alphabet::Hex, 64, 64),
    (Rule::OtherToken, "doo_v1_", Alphabet::Hex, 64, 64),
    (Rule::OtherToken, "dckr_pat_", Alphabet::Url, 20, 64),
    (Rule::OtherToken, "dckr_oat_", Alphabet::Url, 20, 64),
    (Rule::OtherToken, "hf_", Alphabet::Alphanumeric, 34, 40),
    (Rule::OtherToken, "hvs.", Alphabet::Url, 24, 300),
    (Rule::OtherToken, "hvb.", Alphabet::Url, 24, 300),
    (Rule::OtherToken, "shpat_", Alphabet::Hex, 32, 32),
    (Rule::OtherToken, "shpss_", Alphabet::Hex, 32, 32),
    (Rule::OtherToken, "glsa_", Alphabet::Word, 40, 64),
    (Rule::OtherToken, "glc_", Alphabet::Alphanumeric, 60, 400),
    (Rule::OtherToken, "lin_api_", Alphabet::Alphanumeric, 40, 40),
    (Rule::OtherToken, "NRAK-", Alphabet::Alphanumeric, 27, 27),
    (Rule::OtherToken, "sntrys_", Alphabet::Url, 40, 400),
    (Rule::OtherToken, "sntryu_", Alphabet::Hex, 64, 64),
    (Rule::OtherToken, "dp.pt.", Alphabet::Alphanumeric, 40, 44),
    (Rule::OtherToken, "dp.st.", Alphabet::Dotted, 40, 80),
    (Rule::OtherToken, "pscale_pw_", Alphabet::Dotted, 32, 64),
    (Rule::OtherToken, "pscale_tkn_", Alphabet::Dotted, 32, 64),
    (Rule::OtherToken, "rubygems_", Alphabet::Hex, 48, 48),
    (Rule::OtherToken, "ATATT3", Alphabet::Url, 100, 400),
    (Rule::OtherToken, "dapi", Alphabet::Hex, 32, 32),
    (Rule::OtherToken, "tskey-auth-", Alphabet::Url, 20, 100),
    (Rule::OtherToken, "AGE-SECRET-KEY-1", Alphabet::Alphanumeric, 58, 58),
    (Rule::OtherToken, "xkeysib-", Alphabet::Url, 60, 100),
    (Rule::OtherToken, "PMAK-", Alphabet::Url, 59, 59),
    (Rule::OtherToken, "key-", Alphabet::Hex, 32, 32),
    (Rule::OtherToken, "EAAC", Alphabet::Alphanumeric, 100, 400),
    (Rule::OtherToken, "nfp_", Alphabet::Alphanumeric, 40, 40),
];

/// Returns all tokens of a known form in a text.
pub(crate) fn find(text: &str) -> Vec<(Rule, &str)> {
    let mut found: Vec<(Rule, &str)> = Vec::new();
    for format in FORMATS {
        found.extend(prefixed(text, format).into_iter().map(|token| (format.0, token)));
    }
    let each = |mark: &'static str, token: fn(&str, usize) -> Option<&str>| {
        text.match_indices(mark).filter_map(move |(at, _)| token(text, at))
    };
    found.extend(each(JWT, json_web_token).map(|token| (Rule::Jwt, token)));
    found.extend(each(PRIVATE_KEY, private_key).map(|key| (Rule::PrivateKey, key)));
    found.extend(behind(text, "/api/webhooks/").into_iter().map(|token| (Rule::OtherToken, token)));
    found.extend(behind(text, "sig=").into_iter().map(|signature| (Rule::OtherToken, signature)));
    found.extend(each(TELEGRAM, telegram_token).map(|token| (Rule::OtherToken, token)));
    found.extend(each(SLACK_WEBHOOK, slack_webhook).map(|path| (Rule::SlackToken, path)));
    found.extend(fernet_keys(text).into_iter().map(|key| (Rule::FernetKey, key)));
    found
}

/// Returns the marks, in the order that [`at`] uses. [`at`] finds a secret only at a mark, so files of any size are
/// searched for all marks in one pass. Forms without an issuer's prefix are included only if they do not occur by
/// chance.
pub(crate) fn marks() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|(_, prefix, ..)| *prefix).chain([JWT, PRIVATE_KEY, SLACK_WEBHOOK, TELEGRAM])
}

/// Returns the token that has mark number `mark` at position `at` of the text. The text need not continue after the
/// token.
pub(crate) fn at(mark: usize, text: &str, at: usize) -> Option<(Rule, &str)> {
    match FORMATS.get(mark) {
        Some(format) => prefixed_at(text, at, *format).map(|token| (format.0, token)),
        None => match mark - FORMATS.len() {
            0 => json_web_token(text, at).map(|token| (Rule::Jwt, token)),
            1 => private_key(text, at).map(|key| (Rule::PrivateKey, key)),
            2 => slack_webhook(text, at).map(|path| (Rule::SlackToken, path)),
            _ => telegram_token(text, at).map(|token| (Rule::OtherToken, token)),
        },
    }
}

fn prefixed(text: &str, format: Format) -> Vec<&str> {
    text.match_indices(format.1).filter_map(|(at, _)| prefixed_at(text, at, format)).collect()
}

/// Returns the token if it is a separate word.
fn prefixed_at(text: &str, at: usize, (_, prefix, alphabet, least, most): Format) -> Option<&str> {
    let begins = text[..at].bytes().last().is_none_or(|byte| !byte.is_ascii_alphanumeric() && byte != b'_');
    let rest = &text[at + prefix.len()..];
    let length = rest.bytes().take_while(|byte| alphabet.has(*byte)).count();
    let ends = rest.as_bytes().get(length).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    if !begins || !ends || !(least..=most).contains(&length) {
        return None;
    }
    let body = &rest[..length];
    let varied = names::entropy(body) >= 2.5 && !body.ends_with("EXAMPLE");
    varied.then(|| &text[at..at + prefix.len() + length])
}

const JWT: &str = "eyJ";

/// Returns a JSON Web Token: three parts in base64url, of which the first two are JSON objects.
fn json_web_token(text: &str, at: usize) -> Option<&str> {
    let length = text[at..].bytes().take_while(|byte| Alphabet::Dotted.has(*byte)).count();
    let token = &text[at..at + length];
    let mut parts = token.split('.');
    let object = |part: Option<&str>| {
        let decoded = URL_SAFE_NO_PAD.decode(part?).ok()?;
        decoded.starts_with(b"{").then_some(())
    };
    object(parts.next())?;
    object(parts.next())?;
    // A token without a signature proves nothing.
    (parts.next()?.len() >= 16).then_some(token)
}

const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Returns a PEM private key with key material after its header.
fn private_key(text: &str, at: usize) -> Option<&str> {
    text[..at].rfind("-----BEGIN ").filter(|begin| at - begin < 40)?;
    let body = text[at..].find("-----").map(|dashes| &text[at + dashes + 5..])?;
    let end = body.find("-----").unwrap_or(body.len());
    let body = &body[..end];
    let base64 = body.bytes().filter(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)).count();
    (base64 >= 40).then_some(body)
}

const SLACK_WEBHOOK: &str = "hooks.slack.com/services/";

/// Returns the path of a Slack incoming webhook. It is a secret, since everybody who knows it may post.
fn slack_webhook(text: &str, at: usize) -> Option<&str> {
    let rest = &text[at + SLACK_WEBHOOK.len()..];
    let length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'/').count();
    (length >= 30 && !rest[..length].contains("XXXX")).then(|| &rest[..length])
}

/// Returns the long random texts after `mark`. Webhooks of Discord and signed URLs of Azure Storage have such a text
/// instead of a password.
fn behind<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    let found = text.match_indices(mark).filter_map(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let length =
            rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_/%+=".contains(byte)).count();
        (length >= 40 && names::entropy(&rest[..length]) >= 4.0).then(|| &rest[..length])
    });
    found.collect()
}

const TELEGRAM: &str = ":AA";

/// `<number of the bot>:AA…`
fn telegram_token(text: &str, at: usize) -> Option<&str> {
    let number = text[..at].bytes().rev().take_while(u8::is_ascii_digit).count();
    let length = text[at + 1..].bytes().take_while(|byte| Alphabet::Url.has(*byte)).count();
    let token = &text[at - number..at + 1 + length];
    ((8..=10).contains(&number) && length == 35 && names::entropy(token) >= 4.0).then_some(token)
}

/// Returns Fernet keys: 32 bytes in base64url with padding. Digests and public keys have the same form, so the text
/// before the key is checked too.
fn fernet_keys(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].iter().take_while(|byte| Alphabet::Url.has(**byte)).count();
        let key = (length == 43 && bytes.get(at + 43) == Some(&b'=') && bytes.get(at + 44) != Some(&b'='))
            .then(|| &text[at..at + 44]);
        let standard = [at.checked_sub(1), Some(at + 44)]
            .into_iter()
            .flatten()
            .any(|beside| bytes.get(beside).is_some_and(|byte| b"+/".contains(byte)));
        found.extend(key.filter(|key| {
            !standard
                && !is_digest(&text[..at])
                && names::entropy(key) >= 4.0
                && URL_SAFE.decode(key).is_ok_and(|decoded| decoded.len() == 32)
        }));
        at += length.max(1);
    }
    found
}

/// True if the text before a value says that it is a digest or a public key.
fn is_digest(before: &str) -> bool {
    let start =
        (0..=before.len()).rev().filter(|at| before.is_char_boundary(*at)).take(25).last().unwrap_or(0);
    let near = before[start..].to_ascii_uppercase();
    ["SHA", "INTEGRITY", "CHECKSUM", "DIGEST", "HASH", "PUB", "SRI", "SUM"]
        .iter()
        .any(|word| near.contains(word))
}
