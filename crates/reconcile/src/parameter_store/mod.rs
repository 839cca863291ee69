//! AWS SSM Parameter Store: the trait through which reconcilers call it, the formats that keyturn writes there, and the
//! request budget.

pub mod budget;
pub mod description;
pub mod inventory;
pub mod records;
pub mod seal;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keyturn_api::{Reason, Trouble};
use keyturn_rotation::observed::{Shape, Stamp, Version};
use keyturn_secret_value::SecretValue;

/// Metadata of the latest version of a parameter, from a page of DescribeParameters. Nothing is decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path of the parameter.
    pub path: String,
    /// The latest version, without its value.
    pub latest: Version,
}

/// One parameter below a folder, with its value.
#[derive(Debug)]
pub struct FolderEntry {
    /// Path of the parameter.
    pub path: String,
    /// LastModifiedDate of the latest version in SSM.
    pub modified: DateTime<Utc>,
    /// Value of the latest version.
    pub value: SecretValue,
}

/// Everything that SSM keeps of one parameter, except the values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The versions, oldest first.
    pub versions: Vec<Version>,
    /// Rules that SSM applies to the next Put; `None` if the parameter is missing.
    pub shape: Option<Shape>,
}

/// True when both lists have the same versions, ignoring the time of the latest one. A parameter that was deleted and
/// created again with the same descriptions is recognised by the times of its earlier versions. If there are no earlier
/// versions it cannot be recognised, so the result is false.
pub fn are_the_same(kept: &[Version], known: &[&Version]) -> bool {
    let untimed = |version: &Version| Version { modified: DateTime::UNIX_EPOCH, ..version.clone() };
    let (Some((latest, earlier)), Some((known_latest, known_earlier))) =
        (kept.split_last(), known.split_last())
    else {
        return false;
    };
    !earlier.is_empty()
        && untimed(latest) == untimed(known_latest)
        && earlier.iter().eq(known_earlier.iter().copied())
}

/// Maximum number of names in one DescribeParameters call, and of parameters in its answer.
pub const NAMES_IN_A_CALL: usize = 50;
/// Maximum number of versions that SSM keeps of a parameter.
pub const MOST_VERSIONS: usize = 100;

/// A SecureString to write.
pub struct NewVersion<'a> {
    /// Path of the parameter.
    pub path: &'a str,
    /// Value to write; nothing is added to it.
    pub value: &'a SecretValue,
    /// The user's part of the description.
    pub text: String,
    /// keyturn's part of the description; the store adds the seal.
    pub stamp: Option<Stamp>,
    /// Key id, ARN or alias; the account's default key when `None`.
    pub kms_key_id: Option<&'a str>,
}

/// Result of a create that must not overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// This call created version 1.
    Created,
    /// The parameter already existed. Somebody else, or an earlier attempt of this call, created it.
    Exists,
}

/// Parameter Store in one account and region. Every call has a timeout well below the grace period, and takes its turn
/// in the request budget of that account and region.
///
/// A returned version has a stamp only if this installation made the stamp (see [`seal`]). A stamp that somebody else
/// has put into a description is returned as a claim.
#[async_trait]
pub trait ParameterStore: Send + Sync {
    /// Lists the latest version of every wanted parameter, by pages of metadata. An entry that ends in `/` is a folder and
    /// stands for everything below it at any depth; any other entry stands for the one parameter of exactly that path. Each
    /// parameter is listed once, in no particular order. A parameter that does not exist is left out.
    async fn list(&self, wanted: &[String]) -> Result<Vec<Listed>, StoreError>;
    /// Reads everything below a folder (with its closing slash) at any depth, with values, in no particular order. It
    /// counts against the quota of value reads, which is much higher than the quota of metadata pages.
    async fn read_folder(&self, folder: &str) -> Result<Vec<FolderEntry>, StoreError>;
    /// Returns all versions that SSM keeps (at most 100), oldest first, without values, and the rules that the next Put
    /// has to follow. Empty if the parameter is missing. If the stamp of the latest version has the version's own
    /// number, it was made for the version's value.
    async fn kept(&self, path: &str) -> Result<Kept, StoreError>;
    /// True when SSM certainly keeps these versions and no others: see [`are_the_same`]. The time of the latest version
    /// is not compared: keyturn has put that version itself, and SSM may show a more exact time.
    async fn keeps(&self, path: &str, versions: &[&Version]) -> Result<bool, StoreError> {
        Ok(are_the_same(&self.kept(path).await?.versions, versions))
    }
    /// Returns the versions of [`ParameterStore::kept`], without the rules for the next Put.
    async fn history(&self, path: &str) -> Result<Vec<Version>, StoreError> {
        Ok(self.kept(path).await?.versions)
    }
    /// Reads the value of one version, or of the latest. `None` if the parameter or version does not exist.
    async fn read(&self, path: &str, version: Option<i64>) -> Result<Option<SecretValue>, StoreError>;
    /// Creates a SecureString unless the path exists.
    async fn create(&self, new: NewVersion<'_>) -> Result<Created, StoreError>;
    /// Writes a new version of an existing parameter and returns its number.
    async fn overwrite(&self, new: NewVersion<'_>) -> Result<i64, StoreError>;
    /// Deletes a parameter. A parameter that does not exist is a success.
    async fn delete(&self, path: &str) -> Result<(), StoreError>;
}

/// The reason why a call to Parameter Store failed. Messages never hold a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// SSM throttled the call; nothing was applied.
    #[error("SSM throttled {operation} of {path}: {detail}; retrying")]
    Throttled {
        /// Name of the SSM operation, such as `PutParameter`.
        operation: &'static str,
        /// The path, or the paths, that the call was about; a version may follow after a colon.
        path: String,
        /// SSM's error code and message.
        detail: String,
    },
    /// The call was not sent: keyturn's request budget for this account and region was exhausted.
    #[error(
        "{operation} of {path} was not sent within {seconds} s: keyturn's own request budget, which protects the \
         account from throttling, was exhausted; retrying. Raise putsPerSecond of the chart if this lasts and the \
         account's quota allows it"
    )]
    OutOfBudget {
        /// Name of the SSM operation, such as `PutParameter`.
        operation: &'static str,
        /// The path, or the paths, that the call was about; a version may follow after a colon.
        path: String,
        /// Time limit of the call in seconds.
        seconds: u64,
    },
    /// The controller's credentials lack the right to do this; nothing was applied.
    #[error(
        "AWS refused {operation} of {path}: {detail}. Allow it in the controller's IAM policy (docs/aws.md)"
    )]
    Denied {
        /// Name of the SSM operation, such as `PutParameter`.
        operation: &'static str,
        /// The path, or the paths, that the call was about; a version may follow after a colon.
        path: String,
        /// AWS's error code and message, or the reason why there are no usable credentials.
        detail: String,
    },
    /// SSM will always reject this call as it stands; nothing was applied.
    #[error("SSM rejected {operation} of {path}: {detail}")]
    Rejected {
        /// Name of the SSM operation, such as `PutParameter`.
        operation: &'static str,
        /// The path, or the paths, that the call was about; a version may follow after a colon.
        path: String,
        /// SSM's error code and message; it never quotes the value.
        detail: String,
    },
    /// SSM could not be reached, or failed before it accepted the call; nothing was applied.
    #[error("SSM could not be reached for {operation} of {path}: {detail}; retrying")]
    Unavailable {
        /// Name of the SSM operation, such as `PutParameter`.
        operation: &'static str,
        /// The path, or the paths, that the call was about; a version may follow after a colon.
        path: String,
        /// The reason why there is no answer, or why the call was not sent.
        detail: String,
    },
    /// The call may or may not have been applied; only a read can tell.
    #[error(
        "SSM gave no usable answer to {operation} of {path}: {detail}; keyturn checks the outcome with a read"
    )]
    Unknown {
        /// Name of the SSM operation, such as `PutParameter`.
        operation: &'static str,
        /// The path, or the paths, that the call was about; a version may follow after a colon.
        path: String,
        /// The reason why the outcome is not known.
        detail: String,
    },
}

impl StoreError {
    /// Returns the path, or the paths, that the call was about.
    pub fn path(&self) -> &str {
        match self {
            StoreError::Throttled { path, .. }
            | StoreError::OutOfBudget { path, .. }
            | StoreError::Denied { path, .. }
            | StoreError::Rejected { path, .. }
            | StoreError::Unavailable { path, .. }
            | StoreError::Unknown { path, .. } => path,
        }
    }

    /// Returns the error as the trouble that a condition shows.
    pub fn trouble(&self) -> Trouble {
        let reason = match self {
            StoreError::Throttled { .. } => Reason::SSMThrottled,
            StoreError::OutOfBudget { .. } => Reason::RequestBudgetSpent,
            StoreError::Denied { .. } => Reason::SSMDenied,
            StoreError::Rejected { .. } => Reason::SSMRejected,
            StoreError::Unavailable { .. } => Reason::SSMUnavailable,
            StoreError::Unknown { .. } => Reason::SSMNoAnswer,
        };
        Trouble::new(reason, self.to_string(), self.needs_a_person())
    }

    /// True when the failed write may still have been applied.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, StoreError::Unknown { .. })
    }

    /// True when the error lasts until a person changes something. keyturn still retries.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, StoreError::Rejected { .. } | StoreError::Denied { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: i64, minute: i64) -> Version {
        let modified = DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(minute);
        Version { number, modified, text: String::new(), stamp: None, claim: None }
    }

    #[test]
    fn a_parameter_that_was_created_again_is_told_by_what_lies_below_its_latest_version() {
        let known = [version(1, 10), version(2, 20)];
        let is_known = |kept: &[Version]| are_the_same(kept, &known.iter().collect::<Vec<_>>());
        assert!(is_known(&[version(1, 10), version(2, 21)]), "a better time of what keyturn has put itself");
        for other in [
            vec![version(1, 30), version(2, 31)],
            vec![version(1, 10)],
            vec![version(1, 10), version(3, 20)],
            vec![version(1, 10), version(2, 20), version(3, 30)],
            Vec::new(),
        ] {
            assert!(!is_known(&other), "{other:?}");
        }
        assert!(!are_the_same(&[version(1, 10)], &[&version(1, 10)]), "nothing lies below it");
    }
}
