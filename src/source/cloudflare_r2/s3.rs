//! Proves that R2 accepts a key pair, by a signed ListObjectsV2 of every bucket that the pair is for. No other check is
//! enough: Cloudflare accepts names of buckets that do not exist when it creates a token, and R2 learns of a token only
//! some time later.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use reqwest::StatusCode;

use super::connection::Connection;
use super::failure::{self, Call};
use crate::api::Trouble;
use crate::api::source::cloudflare_r2::{CloudflareR2Reason, CloudflareR2Spec};
use crate::rotation::observed::Acceptance;
use crate::source::{Login, TargetError};

/// R2 has one region.
const REGION: &str = "auto";

/// Lists every bucket that the pair is for, or the account's buckets if the pair is for the whole account.
pub(super) async fn prove(
    connection: &Connection,
    spec: &CloudflareR2Spec,
    login: &Login,
) -> Result<Acceptance, TargetError> {
    // R2 answers HTTP 400 to an ID of another form, and that answer does not show whether R2 works.
    if !is_id(&login.username) {
        return Ok(Acceptance::Refused(Trouble::permanent(
            CloudflareR2Reason::KeyPairRefused,
            "the published access key id is not valid: an id has 32 hexadecimal digits",
        )));
    }
    let endpoint = connection.endpoints.s3_of(spec);
    let buckets = spec.proven_by();
    if buckets.is_empty() {
        return ask(connection, spec, login, &format!("{endpoint}/"), None).await;
    }
    for bucket in buckets {
        let url = format!("{endpoint}/{bucket}?list-type=2&max-keys=1");
        let answer = ask(connection, spec, login, &url, Some(bucket)).await?;
        if answer != Acceptance::Accepted {
            return Ok(answer);
        }
    }
    Ok(Acceptance::Accepted)
}

async fn ask(
    connection: &Connection,
    spec: &CloudflareR2Spec,
    login: &Login,
    url: &str,
    bucket: Option<&str>,
) -> Result<Acceptance, TargetError> {
    let what = match bucket {
        Some(bucket) => format!("the list of bucket {bucket}"),
        None => "the list of buckets".to_owned(),
    };
    let call = Call { what: &what, account: &spec.account_id, changes: false };
    let mut request = connection.http().get(url);
    for (name, value) in signature(url, login).ok_or_else(|| not_signed(&what))? {
        request = request.header(name, value);
    }
    let reply = connection.send(&spec.account_id, &call, request).await?;
    if reply.status.is_success() {
        return Ok(Acceptance::Accepted);
    }
    let code = code_of(&reply.body);
    let account = &spec.account_id;
    match (reply.status, code) {
        (_, Some("RequestTimeTooSkewed")) => Err(failure::unusable(
            CloudflareR2Reason::ClockSkewed,
            format!(
                "R2 refused {what} in account {account}: the clock of the controller's node is wrong; \
                 correct it"
            ),
        )),
        (StatusCode::NOT_FOUND, Some("NoSuchBucket")) => Err(failure::unusable(
            CloudflareR2Reason::BucketMissing,
            format!(
                "the bucket {} does not exist in account {account} (jurisdiction {}): create it, or correct \
                 spec.generate.cloudflareR2",
                bucket.unwrap_or_default(),
                spec.jurisdiction().name()
            ),
        )),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, code) => {
            Ok(Acceptance::Refused(Trouble::permanent(
                CloudflareR2Reason::KeyPairRefused,
                format!(
                    "R2 refused {what} in account {account} with the access key id {}: HTTP {} ({}). Its token \
                 was deleted, has expired or is not for this bucket, or the secret does not belong to this \
                 id",
                    login.username,
                    reply.status.as_u16(),
                    code.unwrap_or("no reason given"),
                ),
            )))
        }
        (status, _) => Err(failure::of_status(&call, status, &[])),
    }
}

/// True if the text has the form of an access key ID, which is not secret. Any other text may be a secret that a person
/// put in its place.
fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())
}

fn not_signed(what: &str) -> TargetError {
    let message =
        format!("{what} could not be signed: check the chart's cloudflare.s3Endpoint, which must be a URL");
    failure::unusable(CloudflareR2Reason::NotSigned, message)
}

/// Returns the headers that sign a request without a body.
fn signature(url: &str, login: &Login) -> Option<Vec<(String, String)>> {
    let credentials = Credentials::new(&login.username, login.password.expose(), None, None, "keyturn");
    let identity = credentials.into();
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name("s3")
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .ok()?
        .into();
    let request = SignableRequest::new("GET", url, std::iter::empty(), SignableBody::Bytes(&[])).ok()?;
    let (instructions, _) = sign(request, &parameters).ok()?.into_parts();
    Some(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// Returns the content of `Code` in an error of S3, if the body is one.
fn code_of(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let code = text.split_once("<Code>")?.1.split_once("</Code>")?.0;
    (code.len() < 64 && code.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(code)
}
