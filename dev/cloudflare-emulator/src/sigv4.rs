//! Checks AWS Signature Version 4 as S3 does: in the Authorization header, over the method, path, query, signed
//! headers and hash of the body. It is written from the specification and does not use the library with which
//! keyturn signs.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Greatest accepted difference between the signer's clock and ours.
const SKEW: TimeDelta = TimeDelta::minutes(15);
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IN_PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// The signed parts of a request.
pub(crate) struct Signed<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// The reason why a signature is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no Authorization header of this kind, or a part of it is missing.
    Missing,
    /// The signature is for another region or service, another time, or another body.
    OutOfScope,
    /// There is no key with this ID.
    UnknownKey,
    /// The secret is another one, or something was changed on the way.
    DoesNotMatch,
}

/// Returns the access key ID of a request if its signature matches the secret that `secret_of` returns for it.
pub(crate) fn verify(
    request: &Signed<'_>,
    now: DateTime<Utc>,
    secret_of: impl FnOnce(&str) -> Option<String>,
) -> Result<String, Refusal> {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = header("authorization").ok_or(Refusal::Missing)?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or(Refusal::Missing)?;
    let fields: BTreeMap<&str, &str> =
        fields.split(',').filter_map(|field| field.trim().split_once('=')).collect();
    let field = |name: &str| fields.get(name).copied().ok_or(Refusal::Missing);
    let (credential, names, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);

    let mut scope = credential.splitn(5, '/');
    let mut part = || scope.next().ok_or(Refusal::Missing);
    let (id, date, region, service, end) = (part()?, part()?, part()?, part()?, part()?);
    let amz_date = header("x-amz-date").ok_or(Refusal::Missing)?;
    let at = NaiveDateTime::parse_from_str(amz_date, "%Y%m%dT%H%M%SZ").map_err(|_| Refusal::Missing)?;
    let in_time = (at.and_utc() - now).abs() <= SKEW && amz_date.starts_with(date);
    // R2 accepts `auto`, and also `us-east-1` and the empty region as other names of it.
    if !in_time || !matches!(region, "auto" | "us-east-1" | "") || service != "s3" || end != "aws4_request" {
        return Err(Refusal::OutOfScope);
    }
    let signed: Vec<&str> = names.split(';').collect();
    let payload = header("x-amz-content-sha256").ok_or(Refusal::Missing)?;
    let body = hex::encode(digest(&SHA256, request.body));
    if payload != "UNSIGNED-PAYLOAD" && payload != body {
        return Err(Refusal::OutOfScope);
    }
    if !["host", "x-amz-date", "x-amz-content-sha256"].iter().all(|name| signed.contains(name)) {
        return Err(Refusal::Missing);
    }
    let secret = secret_of(id).ok_or(Refusal::UnknownKey)?;

    let canonical = canonical(request, &signed, payload);
    let scope = format!("{date}/{region}/{service}/{end}");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{amz_date}\n{scope}\n{}",
        hex::encode(digest(&SHA256, canonical.as_bytes()))
    );
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [date, region, service, end] {
        key = hmac_of(&key, part);
    }
    let expected = hex::encode(hmac_of(&key, &to_sign));
    match verify_slices_are_equal(expected.as_bytes(), signature.as_bytes()) {
        Ok(()) => Ok(id.to_owned()),
        Err(_) => Err(Refusal::DoesNotMatch),
    }
}

fn canonical(request: &Signed<'_>, signed: &[&str], payload: &str) -> String {
    let path = percent_decode_str(request.path).collect::<Vec<u8>>();
    let path = utf8_percent_encode(&String::from_utf8_lossy(&path), IN_PATH).to_string();
    let mut query: Vec<(String, String)> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (again(name), again(value))
        })
        .collect();
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let headers: String = signed
        .iter()
        .map(|name| {
            let values = request.headers.get_all(*name).iter().filter_map(|value| value.to_str().ok());
            let values: Vec<String> =
                values.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            format!("{name}:{}\n", values.join(","))
        })
        .collect();
    [request.method, &path, &query.join("&"), &headers, &signed.join(";"), payload].join("\n")
}

/// Decodes a text and encodes it as the specification demands.
fn again(text: &str) -> String {
    let decoded = percent_decode_str(text).collect::<Vec<u8>>();
    utf8_percent_encode(&String::from_utf8_lossy(&decoded), UNRESERVED).to_string()
}

fn hmac_of(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Returns AWS's own example "GET Bucket (List Objects)" of the Signature Version 4 documentation of S3.
    fn example() -> HeaderMap {
        let authorization = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
                             SignedHeaders=host;x-amz-content-sha256;x-amz-date,\
                             Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        let pairs = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-content-sha256", EMPTY),
            ("authorization", authorization),
        ];
        pairs
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<(axum::http::HeaderName, axum::http::HeaderValue)>>()
            .into_iter()
            .collect()
    }

    fn check(headers: &HeaderMap, query: &str, secret: Option<&str>) -> Result<String, Refusal> {
        let request = Signed { method: "GET", path: "/", query, headers, body: b"" };
        let now = "2013-05-24T00:05:00Z".parse().unwrap();
        verify(&request, now, |_| secret.map(str::to_owned))
    }

    #[test]
    fn the_example_of_the_specification_is_accepted() {
        let answer = check(&example(), "max-keys=2&prefix=J", Some(SECRET));
        assert_eq!(answer.as_deref(), Ok("AKIAIOSFODNN7EXAMPLE"));
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let query = "max-keys=2&prefix=J";
        assert_eq!(check(&example(), query, Some("another")), Err(Refusal::DoesNotMatch));
        assert_eq!(check(&example(), "max-keys=3&prefix=J", Some(SECRET)), Err(Refusal::DoesNotMatch));
        assert_eq!(check(&example(), query, None), Err(Refusal::UnknownKey));
        let mut later = example();
        later.insert("x-amz-date", "20130524T003000Z".parse().unwrap());
        assert_eq!(check(&later, query, Some(SECRET)), Err(Refusal::OutOfScope));
        let mut other_body = example();
        other_body.insert("x-amz-content-sha256", "0".repeat(64).parse().unwrap());
        assert_eq!(check(&other_body, query, Some(SECRET)), Err(Refusal::OutOfScope));
        assert_eq!(check(&HeaderMap::new(), query, Some(SECRET)), Err(Refusal::Missing));
    }
}
