//! All reasons, including those of the sources, and the lookup of a reason by the name that a status contains.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use crate::docker_host::RunResult;
use crate::managed_secret::rotation::Step;
use crate::reason::Reason;
use crate::source;

impl Reason {
    /// Returns all reasons except the steps: first the general ones, then the results of runs, then the reasons of the
    /// sources.
    pub fn all() -> impl Iterator<Item = Self> {
        let results = RunResult::ALL.iter().copied().map(Self::Run);
        Self::ALL.iter().copied().chain(results).chain(source::reasons().map(Self::Source))
    }

    /// Returns the reason with this name; [`Reason::Unknown`] if there is none.
    pub fn named(name: &str) -> Self {
        let steps = Step::ALL.iter().copied().map(Self::Step);
        Self::all().chain(steps).find(|reason| reason.name() == name).unwrap_or(Self::Unknown)
    }
}

/// Another version of keyturn may have written a reason that this version does not know. The object has to stay
/// readable, so such a reason is read as [`Reason::Unknown`].
impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer).map(|name| Self::named(&name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;
    use crate::secret_incident::{IncidentState, SuspectState};
    use crate::source::postgres::PostgresReason;

    #[test]
    fn a_reason_is_read_as_it_was_written() {
        let steps = Step::ALL.iter().copied().map(Reason::Step);
        for reason in Reason::all().chain(steps) {
            let written = serde_json::to_value(reason).unwrap();
            assert_eq!(written, reason.name());
            assert_eq!(serde_json::from_value::<Reason>(written).unwrap(), reason);
        }
        assert_eq!(Reason::from(PostgresReason::RoleExpired), "RoleExpired");
    }

    #[test]
    fn no_enum_has_a_word_twice_and_every_word_has_a_meaning() {
        let all = [Reason::WORDS, Step::WORDS, RunResult::WORDS, PostgresReason::WORDS];
        for words in all {
            let names: BTreeSet<&str> = words.iter().map(|word| word.name).collect();
            assert_eq!(names.len(), words.len());
            assert!(words.iter().all(|word| word.meaning().ends_with('.')), "{words:?}");
        }
    }

    #[test]
    fn a_word_of_another_version_leaves_the_object_readable() {
        fn read<T: DeserializeOwned>() -> T {
            serde_json::from_value(json!("OfAnotherVersion")).unwrap()
        }
        assert_eq!(read::<Reason>(), Reason::Unknown);
        assert_eq!(read::<RunResult>(), RunResult::Lost);
        assert_eq!(read::<IncidentState>(), IncidentState::Responding);
        assert_eq!(read::<SuspectState>(), SuspectState::Rotating);
    }
}
