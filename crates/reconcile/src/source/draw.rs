//! Random bytes, and values made of them.
//!
//! Random bytes come from the trait [`Random`]: the operating system's generator in the controller, fixed bytes in tests.
//! Every buffer that holds a value is overwritten when it is dropped.

use keyturn_secret_value::SecretValue;
use zeroize::Zeroizing;

/// A source of random bytes.
pub trait Random: Send {
    /// Fills the buffer with bytes that nobody can predict.
    ///
    /// # Errors
    /// The source cannot give any bytes. Then the content of the buffer must not be used.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError>;
}

/// The generator of the operating system (`getrandom(2)` on Linux). The kernel seeds it before it gives the first byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperatingSystem;

impl Random for OperatingSystem {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(buffer).map_err(|e| RandomError(e.to_string()))
    }
}

/// Failure of the source of random bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct RandomError(pub String);

/// The reason why no value could be generated. Messages never hold a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenerateError {
    /// The spec names no source, or more than one.
    #[error("spec.generate names {given} sources; set exactly one of {known}")]
    Sources {
        /// Number of sources in the spec.
        given: usize,
        /// All sources, separated by commas.
        known: String,
    },
    /// Only another system can make these values.
    #[error("keyturn does not generate the values of this source: its target issues them")]
    Issued,
    /// A number in the spec is out of range; the API server should have rejected it.
    #[error("spec.generate.{source_name}.{field} is {given}; it must be from {least} to {most}")]
    OutOfRange {
        /// Field of `spec.generate`, such as `hex`.
        source_name: &'static str,
        /// Field below it, such as `bytes`.
        field: &'static str,
        /// The value in the spec.
        given: i32,
        /// Least value that is allowed.
        least: i32,
        /// Greatest value that is allowed.
        most: i32,
    },
    /// `password.symbols` has a character twice, or one that is not ASCII punctuation.
    #[error("spec.generate.password.symbols must be ASCII punctuation, each once")]
    Symbols,
    /// The source of random bytes failed; a retry may succeed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// No password could be made in this many tries. With a working source of random bytes this practically never
    /// happens.
    #[error("the source of random bytes repeats itself: {0} tries gave no password")]
    NotRandom(usize),
}

impl GenerateError {
    /// True when only a change of the object can help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, GenerateError::Random(_) | GenerateError::NotRandom(_))
    }
}

/// Source of predictable bytes, for samples only.
pub(super) struct Counter(pub u8);

impl Random for Counter {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError> {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(5).wrapping_add(17);
            *byte = self.0;
        }
        Ok(())
    }
}

/// Generates random bytes, and returns them in hexadecimal.
pub(super) fn hexadecimal(count: usize, random: &mut dyn Random) -> Result<SecretValue, GenerateError> {
    let bytes = random_bytes(count, random)?;
    Ok(encoded(bytes.len() * 2, |text| {
        hex::encode_to_slice(&bytes, text).expect("a byte is two digits");
    }))
}

/// Checks the range of a number in the spec. The API server should have rejected a number out of range.
pub(super) fn in_range(
    source_name: &'static str,
    field: &'static str,
    given: i32,
    least: i32,
    most: i32,
) -> Result<usize, GenerateError> {
    let refused = GenerateError::OutOfRange { source_name, field, given, least, most };
    if (least..=most).contains(&given) { usize::try_from(given).map_err(|_| refused) } else { Err(refused) }
}

/// Generates this many random bytes.
pub(super) fn random_bytes(
    count: usize,
    random: &mut dyn Random,
) -> Result<Zeroizing<Vec<u8>>, GenerateError> {
    let mut bytes = Zeroizing::new(vec![0; count]);
    random.fill(&mut bytes)?;
    Ok(bytes)
}

/// Makes a value of exactly this many ASCII characters, written in place, so that no copy is left behind.
pub(super) fn encoded(length: usize, write: impl FnOnce(&mut [u8])) -> SecretValue {
    let mut text = Zeroizing::new(vec![0; length]);
    write(&mut text);
    secret(&text)
}

/// Makes a value of these ASCII characters.
pub(super) fn secret(text: &[u8]) -> SecretValue {
    // The capacity is exact, so the String becomes the value without another copy.
    let mut value = String::with_capacity(text.len());
    value.extend(text.iter().map(|byte| char::from(*byte)));
    SecretValue::new(value)
}
