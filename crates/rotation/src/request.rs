//! The hash that identifies a request for a rotation: the first 16 hex digits of the SHA-256 of the annotation's value.
//! The user chooses that value, which may hold anything, so keyturn compares only hashes and never writes the value
//! out.

use aws_lc_rs::digest::{SHA256, digest};

const LENGTH: usize = 16;

/// Returns the hash of a request, given the value of the annotation: 16 lowercase hex digits.
pub fn hash(token: &str) -> String {
    let mut hash = hex::encode(digest(&SHA256, token.as_bytes()));
    hash.truncate(LENGTH);
    hash
}

/// Returns true when a text has the format of such a hash.
pub fn is_hash(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
