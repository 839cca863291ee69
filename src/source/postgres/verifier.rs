//! The SCRAM-SHA-256 verifier of a password. keyturn computes it, so the password itself never appears in SQL, and
//! therefore not in the server's log, `pg_stat_activity` or `pg_stat_statements`, not even if the statement fails.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::secret_value::SecretValue;

const PREFIX: &str = "SCRAM-SHA-256$";
/// Bytes of StoredKey and of ServerKey.
const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// The text that Postgres stores instead of a password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
///
/// Postgres takes any text of another shape for a password in clear text, so a verifier can only be created through
/// the check.
pub(super) struct Verifier(String);

/// The reason why there is no verifier. Contains nothing of the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum VerifierError {
    #[error("the password is empty, and Postgres refuses logins with an empty password")]
    Empty,
    #[error("the password contains a NUL character, which Postgres does not accept")]
    Nul,
    #[error("the verifier of the password is malformed; it was not sent")]
    Malformed,
}

impl Verifier {
    /// Creates a verifier with a new salt.
    pub(super) fn of(password: &SecretValue) -> Result<Self, VerifierError> {
        let password = password.expose();
        if password.is_empty() {
            return Err(VerifierError::Empty);
        }
        if password.contains('\0') {
            return Err(VerifierError::Nul);
        }
        Self::checked(postgres_protocol::password::scram_sha_256(password.as_bytes()))
    }

    fn checked(text: String) -> Result<Self, VerifierError> {
        if well_formed(&text) { Ok(Self(text)) } else { Err(VerifierError::Malformed) }
    }

    /// Returns the verifier as an SQL literal, including quotes.
    pub(super) fn literal(&self) -> String {
        postgres_protocol::escape::escape_literal(&self.0)
    }
}

/// True for what `parse_scram_secret` of Postgres accepts, with stricter sizes: those that keyturn makes.
fn well_formed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX) else { return false };
    let Some((salted, keys)) = rest.split_once('$') else { return false };
    let Some((iterations, salt)) = salted.split_once(':') else { return false };
    let Some((stored, server)) = keys.split_once(':') else { return false };
    let bytes = |text: &str| STANDARD.decode(text).map(|bytes| bytes.len()).ok();
    iterations.bytes().all(|b| b.is_ascii_digit())
        && iterations.parse::<i32>().is_ok_and(|n| n >= 4096)
        && bytes(salt) == Some(SALT_BYTES)
        && bytes(stored) == Some(KEY_BYTES)
        && bytes(server) == Some(KEY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(password: &str) -> Result<Verifier, VerifierError> {
        Verifier::of(&SecretValue::new(password.to_owned()))
    }

    #[test]
    fn a_verifier_holds_nothing_of_the_password_and_has_its_own_salt() {
        let [a, b] = [of("hunter2").unwrap(), of("hunter2").unwrap()];
        assert!(!a.0.contains("hunter2"));
        assert_ne!(a.0, b.0);
        assert_eq!(a.literal(), format!("'{}'", a.0));
    }

    #[test]
    fn passwords_that_postgres_cannot_take_are_refused() {
        assert_eq!(of("").err(), Some(VerifierError::Empty));
        assert_eq!(of("a\0b").err(), Some(VerifierError::Nul));
    }

    #[test]
    fn whatever_postgres_would_take_for_a_password_in_the_clear_is_refused() {
        let good = of("x").unwrap().0;
        assert!(well_formed(&good));
        let keys = good.rsplit('$').next().unwrap();
        for bad in [
            String::new(),
            "hunter2".to_owned(),
            format!(" {good}"),
            format!("{good} "),
            good.replace("SCRAM-SHA-256", "SCRAM-SHA-512"),
            good.replace("4096", "four"),
            good.replace("4096", "+4096"),
            good.replace("4096", "1"),
            good.replace("4096", "99999999999"),
            good.replace('=', ""),
            good.replace(keys, &keys.replacen(':', "", 1)),
            good[..good.len() - 4].to_owned(),
            format!("{good}'; DROP TABLE x; --"),
        ] {
            assert_eq!(Verifier::checked(bad.clone()).err(), Some(VerifierError::Malformed), "{bad}");
        }
    }
}
