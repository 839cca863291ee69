//! Fernet keys: 32 random bytes in URL-safe base64 with padding, as Python's `Fernet.generate_key()` makes them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use keyturn_api::source::fernet::FernetSpec;
use keyturn_secret_value::SecretValue;
use zeroize::Zeroizing;

use super::draw::{in_range, random_bytes, secret};
use super::{GenerateError, Random, ValueSource};

const KEY_BYTES: usize = 32;
const KEY_CHARACTERS: usize = 44;

impl ValueSource for FernetSpec {
    fn draw(
        &self,
        previous: Option<&SecretValue>,
        random: &mut dyn Random,
    ) -> Result<SecretValue, GenerateError> {
        let kept = in_range("fernet", "keepPrevious", self.kept(), 0, 9)?;
        generate(previous.map_or("", SecretValue::expose), kept, random)
    }

    fn keeps(&self) -> usize {
        usize::try_from(self.kept()).unwrap_or(0)
    }
}

/// Returns a new key, followed by up to `kept` of the previous ones, newest first: `new,old,older`.
///
/// Parts of `previous` that are not keys are left out, such as a trailing newline, spaces after commas, or a
/// placeholder that somebody put there by hand. Otherwise MultiFernet could not load the value.
fn generate(previous: &str, kept: usize, source: &mut dyn Random) -> Result<SecretValue, GenerateError> {
    let bytes = random_bytes(KEY_BYTES, source)?;
    let mut value = Zeroizing::new(vec![0; KEY_CHARACTERS]);
    URL_SAFE.encode_slice(&bytes, &mut value).expect("32 bytes are 44 characters");
    // Capacity for all keys, so that the buffer never grows and leaves no copy behind.
    value.reserve_exact(kept * (KEY_CHARACTERS + 1));
    for key in previous.split(',').map(str::trim).filter(|key| is_key(key)).take(kept) {
        value.push(b',');
        value.extend_from_slice(key.as_bytes());
    }
    Ok(secret(&value))
}

/// True when Python's Fernet accepts the key: it also reads standard base64, as `openssl rand -base64 32` prints
/// it.
fn is_key(text: &str) -> bool {
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 1]);
    let decodes = |length: Result<usize, _>| matches!(length, Ok(KEY_BYTES));
    text.len() == KEY_CHARACTERS
        && (decodes(URL_SAFE.decode_slice(text, bytes.as_mut_slice()))
            || decodes(STANDARD.decode_slice(text, bytes.as_mut_slice())))
}
