//! What the outside world says about one secret: the evidence that decisions are made from.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::api::docker_host::Proof;
use crate::secret_value::SecretValue;

/// Number of a rotation of one secret. One more than every id that is in evidence, never a clock.
pub type RotationId = u64;

/// What keyturn writes into the description of every version that it publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `<cluster>/<namespace>/<name>` of the ManagedSecret.
    pub owner: String,
    pub id: RotationId,
    /// The version that the writer expected to create. SSM keeps a description over a Put that omits it, so only a
    /// version that fits proves who wrote it.
    pub version: i64,
    /// When the value was made.
    pub at: DateTime<Utc>,
    /// Hash of the request (annotation token) that asked for the rotation.
    pub request: Option<String>,
}

/// One version of a parameter, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: i64,
    /// SSM's LastModifiedDate.
    pub modified: DateTime<Utc>,
    /// The user's own part of the description.
    pub text: String,
    /// keyturn's part of the description.
    pub stamp: Option<Stamp>,
}

/// Why a rotation was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Trigger {
    /// The parameter did not exist.
    Missing,
    /// The age reached the period.
    Period,
    /// The annotation asked for it.
    Request,
    /// Somebody else wrote the parameter and `onDrift: Rotate` is set.
    Drift,
    /// A deployment failed for good and `onFailure: RollBack` is set: publishes the previous value again.
    RollBack,
    /// A SecretIncident says that somebody may have read the value.
    Incident,
}

impl Trigger {
    /// The word for it in status and Events.
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

/// The immutable record of one rotation, kept as a SecureString below the staging path while the rotation runs.
#[derive(Debug)]
pub struct Record {
    pub id: RotationId,
    pub trigger: Trigger,
    /// When the values were made.
    pub at: DateTime<Utc>,
    /// The annotation token that asked for it.
    pub request: Option<String>,
    /// What is to be published, by path.
    pub values: BTreeMap<String, SecretValue>,
    /// The version of each path that the values replace; 0 where the path did not exist.
    pub base: BTreeMap<String, i64>,
    /// DockerHosts that had to run it when it began.
    pub hosts: Vec<String>,
    /// What a target has to accept before the values are published; `None` where there is none.
    pub credential: Option<Credential>,
}

/// A login of a target.
#[derive(Debug)]
pub struct Credential {
    pub username: String,
    pub password: SecretValue,
    /// The username that was published when the rotation began.
    pub replaces: Option<String>,
}

impl Record {
    /// Whether this version was there when the rotation began.
    ///
    /// Its number does not tell: it begins anew where somebody deletes the parameter and creates it again. But no
    /// rotation starts on a version that is younger than the grace, so one that is has come since; half of it leaves
    /// room for a grace that was changed meanwhile.
    pub fn replaces(&self, path: &str, version: &Version, grace: TimeDelta) -> bool {
        let base = self.base.get(path).copied().unwrap_or(0);
        version.number <= base && version.modified + grace / 2 <= self.at
    }
}

/// Who wrote a version, as far as the evidence tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// keyturn, in the rotation of this id.
    Ours(RotationId),
    /// Somebody, before keyturn wrote here: the version that was adopted.
    Original,
    /// Somebody else, over a version of keyturn's or in the middle of a rotation.
    Foreign,
    /// Another ManagedSecret or another installation of keyturn.
    OtherOwner(String),
}

/// One version and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub version: Version,
    pub author: Author,
}

impl Seen {
    /// When the value was made: what our stamp says, else when SSM took it.
    pub fn made_at(&self) -> DateTime<Utc> {
        match (&self.author, &self.version.stamp) {
            (Author::Ours(_), Some(stamp)) => stamp.at,
            _ => self.version.modified,
        }
    }
}

/// What is known of one parameter: the versions that SSM keeps, oldest first, or at least the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub path: String,
    pub versions: Vec<Seen>,
}

impl Parameter {
    /// Names the author of every version.
    ///
    /// `base` is the version that an open rotation replaces: what follows it and is not ours is foreign, even where
    /// keyturn never published before. `duplicates` are versions whose stamp does not fit their number but whose value
    /// is that of the record, or of a fitting version of the same id: our own Put, applied twice.
    pub fn classify(
        path: &str,
        owner: &str,
        versions: Vec<Version>,
        base: Option<i64>,
        duplicates: &BTreeSet<i64>,
    ) -> Self {
        let mut published_before = false;
        let versions = versions
            .into_iter()
            .map(|version| {
                let author = match &version.stamp {
                    Some(stamp) if stamp.owner != owner => Author::OtherOwner(stamp.owner.clone()),
                    Some(stamp)
                        if stamp.version == version.number || duplicates.contains(&version.number) =>
                    {
                        Author::Ours(stamp.id)
                    }
                    Some(_) => Author::Foreign,
                    None if published_before || base.is_some_and(|base| version.number > base) => {
                        Author::Foreign
                    }
                    None => Author::Original,
                };
                published_before |= matches!(author, Author::Ours(_));
                Seen { version, author }
            })
            .collect();
        Self { path: path.to_owned(), versions }
    }

    /// Versions that carry our stamp but do not fit it: either a foreign Put that kept our description, or our own Put
    /// applied twice. Only their values can tell.
    pub fn misfits<'a>(
        owner: &'a str,
        versions: &'a [Version],
    ) -> impl Iterator<Item = (&'a Version, &'a Stamp)> {
        versions.iter().filter_map(move |version| {
            let stamp = version.stamp.as_ref()?;
            (stamp.owner == owner && stamp.version != version.number).then_some((version, stamp))
        })
    }

    pub fn latest(&self) -> Option<&Seen> {
        self.versions.last()
    }

    /// Number of the latest version, 0 where the parameter does not exist.
    pub fn latest_number(&self) -> i64 {
        self.latest().map_or(0, |seen| seen.version.number)
    }

    /// The newest version that the rotation of this id published.
    pub fn published_by(&self, id: RotationId) -> Option<&Seen> {
        self.versions.iter().rev().find(|seen| seen.author == Author::Ours(id))
    }

    /// Whether the latest version is of this rotation, and some version of it carries a stamp that fits, so that what
    /// happened can still be told once the record is gone.
    pub fn is_published_by(&self, id: RotationId) -> bool {
        self.latest().is_some_and(|seen| seen.author == Author::Ours(id))
            && self.versions.iter().any(|seen| {
                seen.version.stamp.as_ref().is_some_and(|s| s.id == id && s.version == seen.version.number)
            })
    }
}

/// What one DockerHost says about the parameters of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEvidence {
    pub name: String,
    /// Whether the DockerHost exists.
    pub exists: bool,
    /// Whether a deployment runs on it.
    pub deploying: bool,
    /// By path: the version that was compared last, what that showed, and when.
    pub proofs: BTreeMap<String, HostProof>,
    /// The last run on this host, where it was about these parameters and failed.
    pub failure: Option<HostFailure>,
    /// The last deployment on this host, where it was about these parameters and failed.
    pub failed_deploy: Option<HostFailure>,
}

impl HostEvidence {
    /// What the host has shown of a version of the parameter, if there is that version.
    pub fn proof_of(&self, parameter: &Parameter, seen: Option<&Seen>) -> Option<Proof> {
        let proof = self.proofs.get(&parameter.path)?;
        proof.is_of(seen?).then_some(proof.proof)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostProof {
    pub version: i64,
    /// When the value of that version was made, in whole seconds.
    pub made_at: DateTime<Utc>,
    pub proof: Proof,
    pub at: DateTime<Utc>,
}

impl HostProof {
    /// Whether it speaks of this version, and not of one of the same number before the parameter was created again.
    pub fn is_of(&self, seen: &Seen) -> bool {
        self.version == seen.version.number && self.made_at.timestamp() == seen.made_at().timestamp()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFailure {
    pub reason: String,
    pub message: String,
    /// By path: the versions that the failed run was about.
    pub versions: BTreeMap<String, i64>,
    pub finished_at: DateTime<Utc>,
    /// Whether enough attempts have failed to call it final.
    pub for_good: bool,
}

/// All evidence about one secret.
#[derive(Debug, Default)]
pub struct Observed {
    /// In the order of the spec.
    pub parameters: Vec<Parameter>,
    /// Open records, by id.
    pub records: BTreeMap<RotationId, Record>,
    /// Abort markers and when they were written, by id.
    pub aborts: BTreeMap<RotationId, DateTime<Utc>>,
    /// Paths whose latest version is of the newest record's id but holds another value than it.
    pub mismatched: BTreeSet<String>,
    /// In the order of the spec, then those that only a record names.
    pub hosts: Vec<HostEvidence>,
    /// What the target showed at the last closer look; `None` where there is none, or none was taken.
    pub target: Option<TargetEvidence>,
}

/// What a target showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetEvidence {
    /// When it was looked at.
    pub at: DateTime<Utc>,
    /// Why its roles could not be seen.
    pub unseen: Option<TargetProblem>,
    /// Whether it can refuse requests of older rotations.
    pub fenced: bool,
    /// By username: the rotation that changed it last, and when.
    pub fences: BTreeMap<String, (RotationId, DateTime<Utc>)>,
    /// Usernames that can log in at all.
    pub can_log_in: BTreeSet<String>,
    /// Usernames that are never shut out.
    pub superusers: BTreeSet<String>,
    pub sessions: Vec<OpenSession>,
    /// What it said to the login of the newest record.
    pub recorded: Option<Acceptance>,
    /// What it said to the published login, where no record lies open.
    pub published: Option<Acceptance>,
    /// By username: what it said to the logins that open records replace, where that is asked: after their end.
    pub replaced: BTreeMap<String, Acceptance>,
    /// Logins that it made for this secret; `None` where it makes none, or was not asked.
    pub issued: Option<Vec<IssuedLogin>>,
    /// Things that a person should know.
    pub notes: Vec<String>,
    /// Statements that make the roles from the published one, where that is asked for and not done.
    pub set_up: Vec<String>,
}

/// A session that a login has opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    pub username: String,
    /// Who that is, for people.
    pub client: String,
    /// By the target's clock, as fences are; `None` where it does not tell.
    pub since: Option<DateTime<Utc>>,
}

/// A login that the target made for a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedLogin {
    pub username: String,
    /// The rotation that it is named after.
    pub id: RotationId,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// Whether it is published, or any version that is kept of the rotation's publishes it, as far as can be told.
    pub was_published: bool,
}

/// What a target said to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Accepted,
    Refused(TargetProblem),
    /// It could not be asked.
    Unknown(TargetProblem),
}

/// Why a target could not be asked, or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetProblem {
    pub reason: String,
    pub message: String,
    /// Only a person can end it.
    pub permanent: bool,
}

impl Observed {
    /// The highest id in evidence anywhere.
    pub fn highest_id(&self, owner: &str) -> RotationId {
        let fences = self.target.iter().flat_map(|target| target.fences.values().map(|(id, _)| *id));
        fences.chain([self.highest_id_in_store(owner)]).max().unwrap_or(0)
    }

    /// The highest id in evidence in Parameter Store.
    pub fn highest_id_in_store(&self, owner: &str) -> RotationId {
        let stamped = self.parameters.iter().flat_map(|p| &p.versions).filter_map(|seen| {
            seen.version.stamp.as_ref().filter(|stamp| stamp.owner == owner).map(|stamp| stamp.id)
        });
        stamped.chain(self.records.keys().copied()).chain(self.aborts.keys().copied()).max().unwrap_or(0)
    }

    /// Whether every path is published by the rotation of this id.
    pub fn is_published_by(&self, id: RotationId) -> bool {
        self.parameters.iter().all(|parameter| parameter.is_published_by(id))
    }

    /// Whether any path was published by the rotation of this id.
    pub fn is_partly_published_by(&self, id: RotationId) -> bool {
        self.parameters.iter().any(|parameter| parameter.published_by(id).is_some())
    }

    /// The ids of published versions whose rotation was asked for by a request with this hash, lowest first.
    pub fn ids_of_request(&self, hash: &str) -> BTreeSet<RotationId> {
        self.parameters
            .iter()
            .flat_map(|p| &p.versions)
            .filter(|seen| matches!(seen.author, Author::Ours(_)))
            .filter_map(|seen| seen.version.stamp.as_ref())
            .filter(|stamp| stamp.request.as_deref() == Some(hash))
            .map(|stamp| stamp.id)
            .collect()
    }

    /// When the youngest published version was taken by SSM.
    pub fn published_at(&self) -> Option<DateTime<Utc>> {
        self.parameters.iter().filter_map(|p| p.latest()).map(|seen| seen.version.modified).max()
    }
}
