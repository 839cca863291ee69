//! Generates new values from random bytes, and renders the text that is published around them.
//!
//! Random bytes come from the trait [`Random`]: the operating system's generator in the controller, fixed bytes in tests.
//! Every buffer that holds a value is overwritten when it is dropped.

mod fernet;
mod pair;
mod password;
mod template;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyturn_api::managed_secret::{BytesSpec, GenerateSpec, ManagedSecretSpec};
use keyturn_api::postgres::PASSWORD_BYTES;
use keyturn_secret_value::SecretValue;
pub use pair::{access_key_id, pair, render_pair};
pub use template::{Fields, extract, login, render};
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
    /// The spec names no source, or more than one. Holds their number.
    #[error(
        "spec.generate names {0} sources; set exactly one of hex, base64, password, fernet, postgres and cloudflareR2"
    )]
    Sources(usize),
    /// Only Cloudflare can make the tokens that R2 accepts.
    #[error("the values of spec.generate.cloudflareR2 are issued by Cloudflare and not drawn")]
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
    /// A working source practically never leads to this error.
    #[error("the source of random bytes repeats itself: no password came of {0} tries")]
    NotRandom(usize),
}

impl GenerateError {
    /// True when only a change of the object can help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, GenerateError::Random(_) | GenerateError::NotRandom(_))
    }
}

/// True when [`generate`] uses the previous value, so that the caller has to read it first.
pub fn needs_previous(spec: &GenerateSpec) -> bool {
    spec.fernet.as_ref().is_some_and(|fernet| fernet.keep_previous.unwrap_or(0) > 0)
}

/// Generates a new value.
///
/// `previous` is the published value (not the text around it, see [`extract`]). It is used only where [`needs_previous`]
/// says so; with `None` no old key is kept.
///
/// # Errors
/// A spec that the API server should have rejected, or a source of random bytes that fails.
pub fn generate(
    spec: &GenerateSpec,
    previous: Option<&SecretValue>,
    source: &mut dyn Random,
) -> Result<SecretValue, GenerateError> {
    if spec.cloudflare_r2.is_some() {
        return Err(GenerateError::Issued);
    }
    match (&spec.hex, &spec.base64, &spec.password, &spec.fernet, &spec.postgres) {
        (Some(hex), None, None, None, None) => hexadecimal(count("hex", hex)?, source),
        (None, None, None, None, Some(postgres)) => {
            let bytes = postgres.password_bytes.unwrap_or(PASSWORD_BYTES);
            hexadecimal(in_range("postgres", "passwordBytes", bytes, 16, 64)?, source)
        }
        (None, Some(base64), None, None, None) => {
            let bytes = random_bytes(count("base64", base64)?, source)?;
            Ok(encoded(bytes.len().div_ceil(3) * 4, |text| {
                STANDARD.encode_slice(&bytes, text).expect("every three bytes begun are four characters");
            }))
        }
        (None, None, Some(password), None, None) => password::generate(password, source),
        (None, None, None, Some(fernet), None) => {
            let kept = in_range("fernet", "keepPrevious", fernet.keep_previous.unwrap_or(0), 0, 9)?;
            fernet::generate(previous.map_or("", SecretValue::expose), kept, source)
        }
        (hex, base64, password, fernet, postgres) => {
            let named =
                [hex.is_some(), base64.is_some(), password.is_some(), fernet.is_some(), postgres.is_some()];
            Err(GenerateError::Sources(named.into_iter().filter(|named| *named).count()))
        }
    }
}

/// Returns by path a sample of the text that each parameter would get. A sample is never a real value. Empty where nothing
/// can be drawn, such as a token that Cloudflare issues.
pub fn samples(spec: &ManagedSecretSpec) -> BTreeMap<String, String> {
    // The sample has the maximum number of keys.
    let kept = spec.generate.fernet.as_ref().and_then(|fernet| fernet.keep_previous).unwrap_or(0);
    let ring = |source: &mut Counter| -> Result<SecretValue, GenerateError> {
        let mut value = generate(&spec.generate, None, source)?;
        for _ in 0..kept {
            value = generate(&spec.generate, Some(&value), source)?;
        }
        Ok(value)
    };
    let Ok(value) = ring(&mut Counter(0)) else { return BTreeMap::new() };
    let username =
        spec.generate.postgres.as_ref().and_then(|p| p.roles().into_iter().max_by_key(|r| r.len()));
    let fields = Fields { value: &value, username };
    let text = |template: Option<&str>| render(template, &fields).expose().to_owned();
    spec.ssm.parameters.iter().map(|p| (p.path.clone(), text(p.value.as_deref()))).collect()
}

/// Source of predictable bytes, for samples only.
struct Counter(u8);

impl Random for Counter {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError> {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(5).wrapping_add(17);
            *byte = self.0;
        }
        Ok(())
    }
}

fn hexadecimal(count: usize, source: &mut dyn Random) -> Result<SecretValue, GenerateError> {
    let bytes = random_bytes(count, source)?;
    Ok(encoded(bytes.len() * 2, |text| {
        hex::encode_to_slice(&bytes, text).expect("a byte is two digits");
    }))
}

fn count(source_name: &'static str, spec: &BytesSpec) -> Result<usize, GenerateError> {
    in_range(source_name, "bytes", spec.bytes, 16, 1024)
}

fn in_range(
    source_name: &'static str,
    field: &'static str,
    given: i32,
    least: i32,
    most: i32,
) -> Result<usize, GenerateError> {
    let refused = GenerateError::OutOfRange { source_name, field, given, least, most };
    if (least..=most).contains(&given) { usize::try_from(given).map_err(|_| refused) } else { Err(refused) }
}

fn random_bytes(count: usize, source: &mut dyn Random) -> Result<Zeroizing<Vec<u8>>, GenerateError> {
    let mut bytes = Zeroizing::new(vec![0; count]);
    source.fill(&mut bytes)?;
    Ok(bytes)
}

/// Makes a value of exactly this many ASCII characters, written in place, so that no copy is left behind.
fn encoded(length: usize, write: impl FnOnce(&mut [u8])) -> SecretValue {
    let mut text = Zeroizing::new(vec![0; length]);
    write(&mut text);
    secret(&text)
}

/// Makes a value of these ASCII characters.
fn secret(text: &[u8]) -> SecretValue {
    // The capacity is exact, so the String becomes the value without another copy.
    let mut value = String::with_capacity(text.len());
    value.extend(text.iter().map(|byte| char::from(*byte)));
    SecretValue::new(value)
}

#[cfg(test)]
mod tests;
