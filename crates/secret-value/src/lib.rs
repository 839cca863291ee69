//! The only type that holds a secret in memory. It cannot be printed, serialised or compared in variable time; it is
//! wiped when dropped; and it gives its content only to a caller that writes `expose`.

use std::fmt;

use secrecy::zeroize::Zeroize;
use secrecy::{ExposeSecret, SecretString};

/// A secret value. It has no `Display`, `Serialize`, `PartialEq` or `Clone` on purpose: [`SecretValue::duplicate`]
/// makes a copy, and [`SecretValue::same_as`] compares.
pub struct SecretValue(SecretString);

impl SecretValue {
    /// Wraps a value, which may be empty. The caller must keep no other copy of it.
    pub fn new(mut value: String) -> Self {
        // The String itself is not kept: shrinking it to its length may move it, and would leave a copy of the bytes at
        // the old place.
        let kept = SecretString::from(value.as_str());
        value.zeroize();
        Self(kept)
    }

    /// Returns the content. Call it only if the value leaves the process on purpose (SSM, a login, an HMAC).
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Makes a deliberate copy.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// Returns true when both hold the same bytes, in time that depends only on their lengths.
    pub fn same_as(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.expose().as_bytes(), other.expose().as_bytes())
            .is_ok()
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Returns true when the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_show_the_value_or_its_length() {
        assert_eq!(format!("{:?}", SecretValue::new("hunter2".into())), "SecretValue(…)");
    }

    #[test]
    fn comparison_sees_every_byte() {
        let value = |s: &str| SecretValue::new(s.into());
        assert!(value("abc").same_as(&value("abc")));
        assert!(!value("abc").same_as(&value("abd")));
        assert!(!value("abc").same_as(&value("abc\n")));
    }
}
