//! Keyed fingerprints: with them a deploy Job can see whether a container runs a value, without knowing the value.
//!
//! The key is fresh for every run and parameter, so that fingerprints of two runs, or of two parameters, cannot be
//! compared with each other. Everybody who has both key and fingerprint can test guesses, so both stay in a Secret.
//! Guesses are harmless for random values of 16 bytes and more.

use aws_lc_rs::hmac;
use keyturn_secret_value::SecretValue;

/// Length of the key in bytes.
pub const KEY_BYTES: usize = 32;

/// The fingerprint of one value, as hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The key: [`KEY_BYTES`] bytes, as hexadecimal digits.
    pub key: String,
    /// HMAC-SHA256 of the value under the key.
    pub mac: String,
    /// The same for the value without its trailing newlines, which env files cannot hold; `None` if the value has none.
    pub trimmed_mac: Option<String>,
}

/// Computes the fingerprint of this value under this key. Use each key once only.
pub fn fingerprint(value: &SecretValue, key: &[u8; KEY_BYTES]) -> Fingerprint {
    let value = value.expose();
    let trimmed = value.trim_end_matches(['\n', '\r']);
    let signing = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mac = |text: &str| hex::encode(hmac::sign(&signing, text.as_bytes()));
    Fingerprint {
        key: hex::encode(key),
        mac: mac(value),
        trimmed_mac: (trimmed.len() < value.len()).then(|| mac(trimmed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str, key: u8) -> Fingerprint {
        fingerprint(&SecretValue::new(value.into()), &[key; KEY_BYTES])
    }

    #[test]
    fn it_is_the_hmac_that_everybody_else_computes() {
        // `printf %s hunter2 | openssl dgst -sha256 -mac HMAC
        // -macopt hexkey:0b0b…0b` with 32 bytes of key.
        assert_eq!(
            of("hunter2", 0x0b).mac,
            "758be25a3bb6920922887faf629602264130a39ad24c5fde3532204859bcee27"
        );
        assert_eq!(of("hunter2", 0x0b).key, "0b".repeat(32));
    }

    #[test]
    fn only_a_value_with_trailing_newlines_has_a_second_fingerprint() {
        let plain = of("abc", 1);
        assert_eq!(plain.trimmed_mac, None);
        for with_newline in ["abc\n", "abc\n\n", "abc\r\n"] {
            let trailing = of(with_newline, 1);
            assert_ne!(trailing.mac, plain.mac);
            assert_eq!(trailing.trimmed_mac.as_deref(), Some(plain.mac.as_str()), "{with_newline:?}");
        }
        assert_eq!(of("a\nb", 1).trimmed_mac, None);
        assert_eq!(of(" abc ", 1).trimmed_mac, None);
    }

    #[test]
    fn another_key_gives_another_fingerprint() {
        assert_ne!(of("abc", 1).mac, of("abc", 2).mac);
    }
}
