//! Names of the cause, the steps and the end of a rotation in status, Events and metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::words::words;

words! {
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
}

words! {
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
}

words! {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_stored() {
        fn are_stored_as_shown<T: Serialize + Copy>(all: &[T], names: impl Iterator<Item = &'static str>) {
            let stored: Vec<_> = all.iter().map(|value| serde_json::to_value(value).unwrap()).collect();
            assert_eq!(stored, names.collect::<Vec<_>>());
        }
        are_stored_as_shown(Trigger::ALL, Trigger::ALL.iter().map(|trigger| trigger.name()));
        are_stored_as_shown(Step::ALL, Step::ALL.iter().map(|step| step.name()));
        are_stored_as_shown(RotationResult::ALL, RotationResult::ALL.iter().map(|result| result.name()));
    }
}
