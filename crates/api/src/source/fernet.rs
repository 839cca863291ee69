//! `generate.fernet`: a Fernet key, or a ring of them.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{PASSWORD, SourceSchema, SourceSpec, VALUE};

/// Number of characters of a key.
const KEY_CHARACTERS: usize = 44;

/// Fernet key, and the number of previous keys published with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FernetSpec {
    /// Number of previous keys to publish after the new key, separated by commas, for applications that use
    /// MultiFernet. None when absent: `Fernet("new,old")` silently acts as `new` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub keep_previous: Option<i32>,
}

impl FernetSpec {
    /// Returns the number of previous keys that are published after the new one.
    pub fn kept(&self) -> i32 {
        self.keep_previous.unwrap_or(0)
    }
}

impl SourceSchema for FernetSpec {
    const PLACEHOLDERS: &'static [&'static str] = &[VALUE, PASSWORD];
}

impl SourceSpec for FernetSpec {
    fn longest(&self, _: &str) -> usize {
        // Each previous key follows after a comma.
        KEY_CHARACTERS + (KEY_CHARACTERS + 1) * usize::try_from(self.kept()).unwrap_or(0)
    }
}
