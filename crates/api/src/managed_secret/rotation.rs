//! Names of the cause, the steps and the end of a rotation in status, Events and metrics.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Cause of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Trigger {
    /// A parameter did not exist.
    Missing,
    /// The age of the value reached the period.
    Period,
    /// The rotate annotation asked for it.
    Request,
    /// Somebody else wrote the parameter and `onDrift: Rotate` is set.
    Drift,
    /// A deployment failed for good and `onFailure: RollBack` is set: this rotation publishes the previous value again.
    RollBack,
    /// A SecretIncident reports that somebody may have read the value.
    Incident,
}

/// Step of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Step {
    /// keyturn reads what Parameter Store, the target and the hosts show.
    Observe,
    /// keyturn checks that the hosts, the target and SSM are ready, before it changes anything.
    Preflight,
    /// keyturn generates the values and creates the record.
    Record,
    /// keyturn makes the target accept the recorded credential.
    Install,
    /// keyturn publishes the recorded values in Parameter Store.
    Promote,
    /// The hosts have to prove that they run the published version.
    Deploy,
    /// keyturn makes the target refuse the old credential.
    Retire,
    /// keyturn deletes the record, sweeps orphans, and does what a deletion of the object needs.
    Close,
    /// The record has an abort marker: keyturn gives the rotation up, unless the reason for that passes in time.
    Abort,
}

/// End of a rotation or of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationResult {
    /// The new value is published, and every host has proven it.
    Succeeded,
    /// The previous value is published again, since a deployment or a publication failed permanently.
    RolledBack,
    /// The rotation published nothing.
    Aborted,
    /// The request already existed when the controller first saw the object, so it was not executed.
    Recorded,
}

impl Trigger {
    /// Returns the name as status and Events show it.
    pub fn name(self) -> &'static str {
        match self {
            Trigger::Missing => "Missing",
            Trigger::Period => "Period",
            Trigger::Request => "Request",
            Trigger::Drift => "Drift",
            Trigger::RollBack => "RollBack",
            Trigger::Incident => "Incident",
        }
    }
}

impl Step {
    /// Returns the name as status and Events show it.
    pub fn name(self) -> &'static str {
        match self {
            Step::Observe => "Observe",
            Step::Preflight => "Preflight",
            Step::Record => "Record",
            Step::Install => "Install",
            Step::Promote => "Promote",
            Step::Deploy => "Deploy",
            Step::Retire => "Retire",
            Step::Close => "Close",
            Step::Abort => "Abort",
        }
    }
}

impl RotationResult {
    /// Returns the name as status and metrics show it.
    pub fn name(self) -> &'static str {
        match self {
            RotationResult::Succeeded => "Succeeded",
            RotationResult::RolledBack => "RolledBack",
            RotationResult::Aborted => "Aborted",
            RotationResult::Recorded => "Recorded",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for RotationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares a name with the form in which the value is stored.
    fn is_stored_as_it_is_shown<T: Serialize + fmt::Display>(value: &T) {
        assert_eq!(serde_json::to_value(value).unwrap(), value.to_string());
    }

    #[test]
    fn names_are_those_that_are_stored() {
        use Step::*;
        [Observe, Preflight, Record, Install, Promote, Deploy, Retire, Close, Abort]
            .iter()
            .for_each(is_stored_as_it_is_shown);
        [
            Trigger::Missing,
            Trigger::Period,
            Trigger::Request,
            Trigger::Drift,
            Trigger::RollBack,
            Trigger::Incident,
        ]
        .iter()
        .for_each(is_stored_as_it_is_shown);
        [
            RotationResult::Succeeded,
            RotationResult::RolledBack,
            RotationResult::Aborted,
            RotationResult::Recorded,
        ]
        .iter()
        .for_each(is_stored_as_it_is_shown);
    }
}
