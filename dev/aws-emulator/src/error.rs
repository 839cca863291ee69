//! Errors in the format of AWS's JSON 1.1 protocol.

use serde_json::json;

/// An error answer of AWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsError {
    /// HTTP status of the answer.
    pub status: u16,
    /// AWS's error code, such as `ParameterNotFound`.
    pub code: String,
    /// Text of the error for people.
    pub message: String,
}

impl AwsError {
    /// A client's error, which AWS answers with 400.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { status: 400, code: code.to_owned(), message: message.into() }
    }

    /// Creates a `ValidationException`, which AWS answers with 400.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// Returns the body of the answer: JSON with `__type` and `message`.
    pub fn body(&self) -> String {
        json!({"__type": self.code, "message": self.message}).to_string()
    }
}
