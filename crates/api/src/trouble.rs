//! What keeps keyturn from going on with an object, for the person who reads `kubectl describe`.

use crate::reason::Reason;

/// What keeps keyturn from going on with an object. Never holds a value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trouble {
    /// Reason of the condition that reports it.
    pub reason: Reason,
    /// Description of what failed, on which object, why, and what to do next.
    pub message: String,
    /// What ends it.
    pub remedy: Remedy,
}

/// What ends a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It may pass by itself: keyturn retries, or waits.
    Time,
    /// Only a person can end it. keyturn still retries where that is harmless.
    Person,
}

impl Trouble {
    /// Creates a trouble that may pass by itself.
    pub fn passing(reason: impl Into<Reason>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), remedy: Remedy::Time }
    }

    /// Creates a trouble that only a person can end.
    pub fn permanent(reason: impl Into<Reason>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), remedy: Remedy::Person }
    }

    /// Creates a trouble that only a person can end where `permanent` is true.
    pub fn new(reason: impl Into<Reason>, message: impl Into<String>, permanent: bool) -> Self {
        let remedy = if permanent { Remedy::Person } else { Remedy::Time };
        Self { reason: reason.into(), message: message.into(), remedy }
    }

    /// Returns true when only a person can end it.
    pub fn is_permanent(&self) -> bool {
        self.remedy == Remedy::Person
    }
}
