//! The one type that holds a secret in memory: it cannot be printed, serialised or compared in variable time, is
//! wiped when dropped, and shows its content only to a caller that writes `expose`.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A secret value. There is no `Display`, no `Serialize`, no `PartialEq` and no `Clone` on purpose: a copy is made by
/// [`SecretValue::duplicate`], a comparison by [`SecretValue::same_as`].
pub struct SecretValue(SecretString);

impl SecretValue {
    pub fn new(value: String) -> Self {
        Self(SecretString::from(value))
    }

    /// The content itself. Call it only where the value leaves the process on purpose (SSM, a login, an HMAC).
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A deliberate copy.
    pub fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }

    /// Whether both hold the same bytes, in time that depends on their lengths only.
    pub fn same_as(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.expose().as_bytes(), other.expose().as_bytes())
            .is_ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.expose().len()
    }

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
