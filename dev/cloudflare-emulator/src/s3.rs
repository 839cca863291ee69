//! R2's S3 endpoint, path style: `/s3/{account}{.jurisdiction}/{bucket}`. It supports only lists, by which keyturn
//! proves a key pair.

use axum::http::HeaderMap;
use chrono::TimeDelta;

use crate::sigv4::{self, Refusal, Signed};
use crate::tokens::{heard_of, may_list, may_list_buckets};
use crate::world::World;

/// Length of a key's ID. R2 does not look up a key whose ID has another length.
const ID_LENGTH: usize = 32;

/// A request below `/s3/`.
pub(crate) struct S3Request<'a> {
    pub method: &'a str,
    /// The whole path, as the client signed it.
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// Returns account, jurisdiction and bucket of a path; the bucket is empty in a request for all buckets.
pub(crate) fn place(path: &str) -> Option<(&str, &str, &str)> {
    let mut segments = path.strip_prefix("/s3/")?.splitn(2, '/');
    let (endpoint, rest) = (segments.next()?, segments.next().unwrap_or_default());
    let (account, jurisdiction) = endpoint.split_once('.').unwrap_or((endpoint, "default"));
    Some((account, jurisdiction, rest.split('/').next().unwrap_or_default()))
}

/// Returns the answer: status and XML.
pub(crate) fn handle(world: &World, request: &S3Request<'_>) -> (u16, String) {
    let Some((account_id, jurisdiction, bucket)) = place(request.path) else {
        return error(400, "InvalidURI", "The URI is not one of this endpoint");
    };
    if request.method != "GET"
        || !bucket.is_empty() && !request.query.split('&').any(|pair| pair == "list-type=2")
    {
        return error(501, "NotImplemented", "This emulator lists objects (list-type=2) and buckets only");
    }
    let now = world.now();
    world.read(|kept| {
        let Some(account) = kept.accounts.get(account_id) else {
            return error(401, "Unauthorized", "Unauthorized");
        };
        let delay = TimeDelta::milliseconds(kept.settings.propagation_ms);
        let signed = Signed {
            method: request.method,
            path: request.path,
            query: request.query,
            headers: request.headers,
            body: request.body,
        };
        let mut length = 0;
        let secret_of = |id: &str| {
            length = id.len();
            heard_of(account, id, now, delay).map(|token| token.secret_access_key())
        };
        let token = match sigv4::verify(&signed, now, secret_of) {
            Ok(id) => heard_of(account, &id, now, delay),
            Err(Refusal::UnknownKey) if length != ID_LENGTH => {
                let message = format!("Credential access key has length {length}, should be {ID_LENGTH}");
                return error(400, "InvalidArgument", &message);
            }
            Err(Refusal::Missing | Refusal::UnknownKey) => None,
            Err(Refusal::OutOfScope) => {
                return error(403, "RequestTimeTooSkewed", "The signature is for another time, place or body");
            }
            Err(Refusal::DoesNotMatch) => {
                let message = "The request signature we calculated does not match the signature you provided.";
                return error(403, "SignatureDoesNotMatch", message);
            }
        };
        let Some(token) = token else { return error(401, "Unauthorized", "Unauthorized") };
        let here = account.buckets.iter().filter(|b| b.jurisdiction == jurisdiction);
        if bucket.is_empty() {
            if !may_list_buckets(token) {
                return error(403, "AccessDenied", "Access Denied");
            }
            let names: String = here.map(|b| format!("<Bucket><Name>{}</Name></Bucket>", b.name)).collect();
            return (200, xml(&format!("<ListAllMyBucketsResult><Buckets>{names}</Buckets></ListAllMyBucketsResult>")));
        }
        if !may_list(account_id, token, jurisdiction, bucket) {
            return error(403, "AccessDenied", "Access Denied");
        }
        if !here.into_iter().any(|b| b.name == bucket) {
            return error(404, "NoSuchBucket", "The specified bucket does not exist.");
        }
        let listed = format!(
            "<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>"
        );
        (200, xml(&listed))
    })
}

fn xml(body: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}")
}

pub(crate) fn error(status: u16, code: &str, message: &str) -> (u16, String) {
    (status, xml(&format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>")))
}
