//! The short hash under which a request for a rotation (an annotation's value, chosen by a user) is known: the first 16 hex
//! digits of its SHA-256. Requests are compared by it and never written out, since they may hold anything.

use aws_lc_rs::digest::{SHA256, digest};

const LENGTH: usize = 16;

pub fn hash(token: &str) -> String {
    let mut hash = hex::encode(digest(&SHA256, token.as_bytes()));
    hash.truncate(LENGTH);
    hash
}

/// Whether a text may be one.
pub fn is_hash(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
