//! AWS SSM Parameter Store: the port that decisions act through, what is written there, and how often it is asked.

pub mod budget;
pub mod description;
pub mod inventory;
pub mod records;
pub mod seal;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keyturn_rotation::observed::{Shape, Stamp, Version};
use keyturn_secret_value::SecretValue;

/// The latest version of a parameter as a page of DescribeParameters shows it: metadata only, nothing decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub path: String,
    pub latest: Version,
}

/// One of the parameters below a folder, with its value.
#[derive(Debug)]
pub struct FolderEntry {
    pub path: String,
    /// SSM's LastModifiedDate of the latest version.
    pub modified: DateTime<Utc>,
    pub value: SecretValue,
}

/// What SSM keeps of one parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Oldest first.
    pub versions: Vec<Version>,
    pub shape: Option<Shape>,
}

/// Whether both are the same versions, whatever the time of the latest one. That a parameter was created again, with the
/// descriptions of before, is told by the times of those below it, and by nothing where there are none.
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

/// Most names that one DescribeParameters asks for, and most parameters that it shows.
pub const NAMES_IN_A_CALL: usize = 50;
/// Most versions that SSM keeps of a parameter.
pub const MOST_VERSIONS: usize = 100;

/// A SecureString to be written.
pub struct NewVersion<'a> {
    pub path: &'a str,
    pub value: &'a SecretValue,
    /// The user's part of the description.
    pub text: String,
    /// keyturn's part, which the store seals.
    pub stamp: Option<Stamp>,
    /// Key id, ARN or alias; the account's default key when `None`.
    pub kms_key_id: Option<&'a str>,
}

/// Answer to a create that must not overwrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// This call made version 1.
    Created,
    /// Somebody, perhaps an earlier try of this very call, made it before.
    Exists,
}

/// Parameter Store in one account and region. Every call has a timeout well below the grace and takes its turn in
/// the request budget of that account and region.
///
/// The stamps of versions that it shows are this installation's own ([`seal`]): what somebody else has put into a description
/// is a claim.
#[async_trait]
pub trait ParameterStore: Send + Sync {
    /// The latest version of every parameter that is wanted, by pages of metadata. An entry that ends in `/` is a
    /// folder and wants everything below it, however deep; any other entry wants the one parameter of exactly that
    /// path. Each parameter is listed once, in no particular order; what does not exist is simply not there.
    async fn list(&self, wanted: &[String]) -> Result<Vec<Listed>, StoreError>;
    /// Everything below a folder (with its closing slash), however deep, with values, in no particular order. It counts
    /// against the quota of value reads, of which SSM grants many more than of pages of metadata.
    async fn read_folder(&self, folder: &str) -> Result<Vec<FolderEntry>, StoreError>;
    /// All versions that SSM keeps (at most 100), oldest first, without values, and what the next Put is held to; nothing
    /// where the parameter is missing. A stamp of the latest one that is of that version was made for its value.
    async fn kept(&self, path: &str) -> Result<Kept, StoreError>;
    /// Whether SSM surely keeps these versions and no others: see [`are_the_same`]. Of the latest one, which keyturn has put
    /// itself, it may know a better time.
    async fn keeps(&self, path: &str, versions: &[&Version]) -> Result<bool, StoreError> {
        Ok(are_the_same(&self.kept(path).await?.versions, versions))
    }
    /// The versions alone.
    async fn history(&self, path: &str) -> Result<Vec<Version>, StoreError> {
        Ok(self.kept(path).await?.versions)
    }
    /// The value of one version, or of the latest. `None` where parameter or version does not exist.
    async fn read(&self, path: &str, version: Option<i64>) -> Result<Option<SecretValue>, StoreError>;
    /// Creates a SecureString unless the path exists.
    async fn create(&self, new: NewVersion<'_>) -> Result<Created, StoreError>;
    /// Writes a further version over an existing parameter and answers its number.
    async fn overwrite(&self, new: NewVersion<'_>) -> Result<i64, StoreError>;
    /// Deletes a parameter; one that is not there is a success.
    async fn delete(&self, path: &str) -> Result<(), StoreError>;
}

/// Why a call to Parameter Store failed. Messages never hold a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// SSM said no for now; nothing was applied.
    #[error("SSM throttled {operation} of {path}: {detail}; keyturn tries again by itself")]
    Throttled { operation: &'static str, path: String, detail: String },
    /// It was not sent: keyturn's own requests to this account and region were too many.
    #[error(
        "{operation} of {path} got no turn within {seconds} s in keyturn's own request budget, which keeps others of the \
         account from being throttled; keyturn tries again by itself. Raise putsPerSecond of the chart if this lasts and \
         the account's quota allows it"
    )]
    OutOfBudget { operation: &'static str, path: String, seconds: u64 },
    /// The credentials of the controller may not do this; nothing was applied.
    #[error(
        "AWS refused {operation} of {path}: {detail}. Allow it in the controller's IAM policy (docs/aws.md)"
    )]
    Denied { operation: &'static str, path: String, detail: String },
    /// SSM will refuse this call for ever as it stands; nothing was applied.
    #[error("SSM rejected {operation} of {path}: {detail}")]
    Rejected { operation: &'static str, path: String, detail: String },
    /// SSM could not be reached or failed before it took the call; nothing was applied.
    #[error("SSM could not be reached for {operation} of {path}: {detail}; keyturn tries again by itself")]
    Unavailable { operation: &'static str, path: String, detail: String },
    /// The call may or may not have been applied; only reading back can tell.
    #[error("SSM gave no usable answer to {operation} of {path}: {detail}; keyturn reads back what happened")]
    Unknown { operation: &'static str, path: String, detail: String },
}

impl StoreError {
    /// The parameter that the call was about, or the paths.
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

    /// The reason of the condition that reports this error.
    pub fn reason(&self) -> &'static str {
        match self {
            StoreError::Throttled { .. } => "SSMThrottled",
            StoreError::OutOfBudget { .. } => "RequestBudgetSpent",
            StoreError::Denied { .. } => "SSMDenied",
            StoreError::Rejected { .. } => "SSMRejected",
            StoreError::Unavailable { .. } => "SSMUnavailable",
            StoreError::Unknown { .. } => "SSMNoAnswer",
        }
    }

    /// Whether the write may have been applied all the same.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, StoreError::Unknown { .. })
    }

    /// Whether trying the same again without a change by a person is pointless.
    pub fn is_permanent(&self) -> bool {
        matches!(self, StoreError::Rejected { .. })
    }

    /// Whether it stays so until somebody changes something, though it is tried again all the same.
    pub fn needs_a_person(&self) -> bool {
        self.is_permanent() || matches!(self, StoreError::Denied { .. })
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
