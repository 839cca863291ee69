//! Generates passwords of letters, digits and chosen symbols.
//!
//! Every password holds at least one lower case letter, one upper case letter, one digit and, if symbols are given, one
//! of those: many systems reject other passwords. Whole passwords are generated until one qualifies, so all qualifying
//! passwords are equally likely. With the minimum length of 16 and a single symbol this takes five tries on average,
//! and the password loses less than three of its 95 bits of entropy.

use keyturn_api::source::random::PasswordSpec;
use keyturn_secret_value::SecretValue;
use zeroize::Zeroizing;

use super::draw::{in_range, random_bytes, secret};
use super::{GenerateError, Random, ValueSource};

const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &[u8] = b"0123456789";
/// Far more tries than a working random source ever needs: in the worst case one password in five qualifies.
const MAX_TRIES: usize = 1000;

impl ValueSource for PasswordSpec {
    fn draw(&self, _: Option<&SecretValue>, random: &mut dyn Random) -> Result<SecretValue, GenerateError> {
        generate(self, random)
    }
}

fn generate(spec: &PasswordSpec, source: &mut dyn Random) -> Result<SecretValue, GenerateError> {
    let length = in_range("password", "length", spec.length, 16, 256)?;
    let symbols = spec.symbols.as_deref().unwrap_or("").as_bytes();
    let repeated = symbols.iter().enumerate().any(|(n, symbol)| symbols[..n].contains(symbol));
    if repeated || !symbols.iter().all(u8::is_ascii_punctuation) {
        return Err(GenerateError::Symbols);
    }
    let alphabet = [LOWER, UPPER, DIGITS, symbols].concat();
    for _ in 0..MAX_TRIES {
        let password = draw(&alphabet, length, source)?;
        let has_one_of = |class: &[u8]| class.is_empty() || password.iter().any(|c| class.contains(c));
        if [LOWER, UPPER, DIGITS, symbols].into_iter().all(has_one_of) {
            return Ok(secret(&password));
        }
    }
    Err(GenerateError::NotRandom(MAX_TRIES))
}

/// Generates random characters of the alphabet, all with the same probability: bytes that would favour some characters
/// are discarded.
fn draw(
    alphabet: &[u8],
    length: usize,
    source: &mut dyn Random,
) -> Result<Zeroizing<Vec<u8>>, GenerateError> {
    // The largest multiple of the alphabet's size that is not above 256.
    let usable = 256 - 256 % alphabet.len();
    let mut drawn = Zeroizing::new(Vec::with_capacity(length));
    for _ in 0..MAX_TRIES {
        for byte in random_bytes(length, source)?.iter().map(|byte| usize::from(*byte)) {
            if byte < usable && drawn.len() < length {
                drawn.push(alphabet[byte % alphabet.len()]);
            }
        }
        if drawn.len() == length {
            return Ok(drawn);
        }
    }
    Err(GenerateError::NotRandom(MAX_TRIES))
}
