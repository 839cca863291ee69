//! The stored state: parameters with their versions by region, and enough of the past to answer stale reads.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Maximum number of versions of a parameter that SSM keeps.
pub(crate) const MAX_VERSIONS: usize = 100;
/// Maximum number of Standard parameters of one account and region.
pub(crate) const MAX_STANDARD_PARAMETERS: usize = 10_000;
/// Maximum number of writes that a stale read can go back.
const MAX_UNDO: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    String,
    StringList,
    SecureString,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Tier {
    Standard,
    Advanced,
    #[serde(rename = "Intelligent-Tiering")]
    Intelligent,
}

#[derive(Clone)]
pub(crate) struct Version {
    pub number: i64,
    pub value: String,
    pub kind: Kind,
    pub tier: Tier,
    pub description: Option<String>,
    pub key_id: Option<String>,
    pub allowed_pattern: Option<String>,
    pub modified: DateTime<Utc>,
    pub modified_by: String,
    pub labels: BTreeSet<String>,
}

#[derive(Clone)]
pub(crate) struct Parameter {
    pub name: String,
    /// The versions, oldest first; never empty.
    pub versions: VecDeque<Version>,
}

impl Parameter {
    pub(crate) fn latest(&self) -> &Version {
        self.versions.back().expect("a parameter has at least the version that created it")
    }
}

pub(crate) type Parameters = BTreeMap<String, Arc<Parameter>>;

/// The parameters of one region.
#[derive(Default)]
pub(crate) struct Region {
    pub parameters: Parameters,
    /// The parameters that the latest writes replaced, oldest first.
    undo: VecDeque<(String, Option<Arc<Parameter>>)>,
}

impl Region {
    /// Replaces or removes a parameter.
    pub(crate) fn write(&mut self, name: &str, parameter: Option<Parameter>) {
        let before = match parameter {
            Some(parameter) => self.parameters.insert(name.to_owned(), Arc::new(parameter)),
            None => self.parameters.remove(name),
        };
        self.undo.push_back((name.to_owned(), before));
        if self.undo.len() > MAX_UNDO {
            self.undo.pop_front();
        }
    }

    /// Returns the parameters as they were before the last `writes_ago` writes.
    pub(crate) fn as_of(&self, writes_ago: usize) -> Parameters {
        let mut parameters = self.parameters.clone();
        for (name, before) in self.undo.iter().rev().take(writes_ago) {
            match before {
                Some(parameter) => parameters.insert(name.clone(), parameter.clone()),
                None => parameters.remove(name),
            };
        }
        parameters
    }
}

/// Settings for tests.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// KMS keys and aliases that exist.
    pub kms_keys: BTreeSet<String>,
    /// Answers DescribeParameters with an empty page before each page, as AWS does if a filter skips many
    /// parameters.
    pub empty_pages: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { kms_keys: BTreeSet::from([DEFAULT_KEY.to_owned()]), empty_pages: false }
    }
}

/// The account's default key for parameters.
pub(crate) const DEFAULT_KEY: &str = "alias/aws/ssm";

/// Parameter Store of all regions.
#[derive(Default)]
pub(crate) struct Ssm {
    pub regions: HashMap<String, Region>,
    pub settings: Settings,
}
