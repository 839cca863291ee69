//! Random bytes in hexadecimal or base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyturn_api::source::random::{Base64Spec, HexSpec};
use keyturn_secret_value::SecretValue;

use super::draw::{encoded, hexadecimal, in_range, random_bytes};
use super::{GenerateError, Random, ValueSource};

/// Least and greatest number of random bytes.
const BYTES: (i32, i32) = (16, 1024);

impl ValueSource for HexSpec {
    fn draw(&self, _: Option<&SecretValue>, random: &mut dyn Random) -> Result<SecretValue, GenerateError> {
        hexadecimal(in_range("hex", "bytes", self.bytes, BYTES.0, BYTES.1)?, random)
    }
}

impl ValueSource for Base64Spec {
    fn draw(&self, _: Option<&SecretValue>, random: &mut dyn Random) -> Result<SecretValue, GenerateError> {
        let bytes = random_bytes(in_range("base64", "bytes", self.bytes, BYTES.0, BYTES.1)?, random)?;
        Ok(encoded(bytes.len().div_ceil(3) * 4, |text| {
            STANDARD.encode_slice(&bytes, text).expect("every three bytes begun are four characters");
        }))
    }
}
