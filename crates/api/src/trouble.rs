//! Troubles: the problems that stop the work on an object, described for the person who reads `kubectl describe`.

use crate::reason::Reason;

/// A problem that stops the work on an object. It never contains the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trouble {
    /// Reason of the condition that reports the trouble.
    pub reason: Reason,
    /// Description of what failed, on which object, why, and what to do next.
    pub message: String,
    /// The way in which the trouble can end.
    pub remedy: Remedy,
}

/// The ways in which a trouble can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The trouble may pass without a person: keyturn retries or waits.
    Time,
    /// Only a person can end the trouble. keyturn still retries if that is harmless.
    Person,
}

impl Trouble {
    /// Creates a trouble that may pass without a person.
    pub fn passing(reason: impl Into<Reason>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), remedy: Remedy::Time }
    }

    /// Creates a trouble that only a person can end.
    pub fn permanent(reason: impl Into<Reason>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), remedy: Remedy::Person }
    }

    /// Creates a trouble: if `permanent` is true, only a person can end it; otherwise it may pass without a person.
    pub fn new(reason: impl Into<Reason>, message: impl Into<String>, permanent: bool) -> Self {
        let remedy = if permanent { Remedy::Person } else { Remedy::Time };
        Self { reason: reason.into(), message: message.into(), remedy }
    }

    /// Returns true when only a person can end the trouble.
    pub fn is_permanent(&self) -> bool {
        self.remedy == Remedy::Person
    }
}
