//! `generate.hex`, `generate.base64` and `generate.password`: random values that no external system has to accept.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{PASSWORD, SourceSchema, SourceSpec, VALUE};

/// Length of a random value that is published in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HexSpec {
    /// Number of random bytes, from 16 to 1024. The published text is longer: twice as long in hexadecimal.
    #[schemars(range(min = 16, max = 1024))]
    pub bytes: i32,
}

/// Length of a random value that is published in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Base64Spec {
    /// Number of random bytes, from 16 to 1024. The published text is longer: four characters for every three bytes.
    #[schemars(range(min = 16, max = 1024))]
    pub bytes: i32,
}

/// Length and symbols of a random password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSpec {
    /// Number of characters, from 16 to 256.
    #[schemars(range(min = 16, max = 256))]
    pub length: i32,
    /// Symbols that may occur beside letters and digits, such as `-_.`; none when absent. Many readers of .env files
    /// change quotes, `$`, `#` and `\`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = (
        r"self.matches('^[!-/:-@\\[-`{-~]+$')",
        "must be ASCII punctuation: letters and digits are always used, spaces never"
    ))]
    #[x_kube(validation = (
        "self.split('').all(symbol, self.indexOf(symbol) == self.lastIndexOf(symbol))",
        "must not name a symbol twice"
    ))]
    pub symbols: Option<String>,
}

impl SourceSchema for HexSpec {
    const PLACEHOLDERS: &'static [&'static str] = &[VALUE, PASSWORD];
}

impl SourceSpec for HexSpec {
    fn longest(&self, _: &str) -> usize {
        2 * size(self.bytes)
    }
}

impl SourceSchema for Base64Spec {
    const PLACEHOLDERS: &'static [&'static str] = &[VALUE, PASSWORD];
}

impl SourceSpec for Base64Spec {
    fn longest(&self, _: &str) -> usize {
        4 * size(self.bytes).div_ceil(3)
    }
}

impl SourceSchema for PasswordSpec {
    const PLACEHOLDERS: &'static [&'static str] = &[VALUE, PASSWORD];
}

impl SourceSpec for PasswordSpec {
    fn longest(&self, _: &str) -> usize {
        size(self.length)
    }
}

fn size(given: i32) -> usize {
    usize::try_from(given).unwrap_or(0)
}
