//! What the outside world says about one secret: the evidence that decisions are made from.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::docker_host::Proof;
use keyturn_secret_value::SecretValue;

use super::adoption;

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
    /// When the rotation drew the value, or began to bring one back.
    pub at: DateTime<Utc>,
    /// Hash of the request (annotation token) that asked for the rotation.
    pub request: Option<String>,
    /// When the value was made, where a roll back has brought back an older one.
    pub made: Option<DateTime<Utc>>,
}

/// One version of a parameter, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub number: i64,
    /// SSM's LastModifiedDate.
    pub modified: DateTime<Utc>,
    /// The user's own part of the description.
    pub text: String,
    /// keyturn's part of the description, where this installation has made it.
    pub stamp: Option<Stamp>,
    /// The owner that a description names in keyturn's form, and this installation has not written so: another one has, or
    /// somebody who would like to be taken for keyturn.
    pub claim: Option<String>,
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
    /// When SSM took that version of each path, which tells it from one of the same number after the parameter was created
    /// again. Records of earlier versions of keyturn have none.
    pub base_at: BTreeMap<String, DateTime<Utc>>,
    /// DockerHosts that had to run it when it began.
    pub hosts: Vec<String>,
    /// Of a roll back: the paths whose base version holds the value already, since the failed rotation never published
    /// there.
    pub kept: BTreeSet<String>,
    /// What a target has to accept before the values are published; `None` where there is none.
    pub credential: Option<Credential>,
}

/// A login of a target.
#[derive(Debug)]
pub struct Credential {
    pub username: String,
    pub password: SecretValue,
    /// The username that was in use when the rotation began.
    pub replaces: Option<String>,
    /// Usernames that the target accepted with the password that was published beside them when the rotation began. Whoever
    /// put such a login there had it, and was not only pointing at one of others.
    pub accepted: BTreeSet<String>,
}

impl Record {
    /// Whether this version was there when the rotation began.
    ///
    /// Its number alone does not tell: it begins anew where somebody deletes the parameter and creates it again. Where the
    /// record does not say when its base was taken, the grace does: no rotation but an incident's starts on a version that is
    /// younger, and half of it leaves room for a grace that was changed meanwhile.
    pub fn replaces(&self, path: &str, version: &Version, grace: TimeDelta) -> bool {
        let base = self.base.get(path).copied().unwrap_or(0);
        let was_there = match self.base_at.get(path) {
            Some(base_at) => version.modified <= *base_at,
            None => version.modified + grace / 2 <= self.at,
        };
        version.number <= base && was_there
    }

    /// The newest version that holds what this rotation publishes here: its own, or the one that a roll back has kept.
    pub fn version_in<'a>(&self, parameter: &'a Parameter) -> Option<&'a Seen> {
        parameter.published_by(self.id).or_else(|| parameter.latest().filter(|_| self.keeps(parameter)))
    }

    /// Whether what this rotation publishes is the latest version here.
    pub fn is_published_in(&self, parameter: &Parameter) -> bool {
        parameter.is_published_by(self.id) || self.keeps(parameter)
    }

    /// Whether a roll back has left this parameter as it was: no host was given anything else.
    pub fn keeps(&self, parameter: &Parameter) -> bool {
        let base = self.base.get(&parameter.path).copied().filter(|base| *base > 0);
        self.kept.contains(&parameter.path) && base == Some(parameter.latest_number())
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
    /// The stamp of our version whose value somebody has put once more with a description of theirs.
    pub taken_over: Option<Stamp>,
}

impl Seen {
    /// When the value was made: what our stamp says, else when SSM took it.
    pub fn made_at(&self) -> DateTime<Utc> {
        self.our_stamp().map_or(self.version.modified, |stamp| stamp.made.unwrap_or(stamp.at))
    }

    /// When its rotation began, else when SSM took it. Of two versions of the same number, before a parameter was created
    /// again and after, it tells one from the other.
    pub fn published_at(&self) -> DateTime<Utc> {
        self.our_stamp().map_or(self.version.modified, |stamp| stamp.at)
    }

    /// When a roll back brought this value back.
    pub fn brought_back_at(&self) -> Option<DateTime<Utc>> {
        self.our_stamp().filter(|stamp| stamp.made.is_some()).map(|stamp| stamp.at)
    }

    fn our_stamp(&self) -> Option<&Stamp> {
        let stamp = self.version.stamp.as_ref().or(self.taken_over.as_ref());
        stamp.filter(|_| matches!(self.author, Author::Ours(_)))
    }
}

/// What is known of one parameter: the versions that SSM keeps, oldest first, or at least the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub path: String,
    pub versions: Vec<Seen>,
    /// What SSM holds the next Put to; `None` where the parameter does not exist, or was not looked at closely.
    pub shape: Option<Shape>,
}

/// What SSM holds a Put over the latest version to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// `SecureString`, `String` or `StringList`.
    pub kind: String,
    /// The key that it is encrypted with, as whoever put it named it.
    pub key_id: Option<String>,
    /// AllowedPattern, which the whole value has to match.
    pub pattern: Option<String>,
    /// Whether its tier holds long values.
    pub is_advanced: bool,
    /// Labels that keep SSM from dropping the oldest version, where it keeps no more.
    pub labels_in_the_way: Vec<String>,
}

/// The account's default key, by the name that SSM gives it.
pub const DEFAULT_KEY: &str = "alias/aws/ssm";

impl Shape {
    /// The key that it is encrypted with, unless that is the account's default one.
    pub fn customer_key(&self) -> Option<&str> {
        self.key_id.as_deref().filter(|key| *key != DEFAULT_KEY)
    }
}

impl Parameter {
    /// Names the author of every version.
    ///
    /// `base` is the version that an open rotation replaces: what follows it and is not ours is foreign, even where
    /// keyturn never published before. `duplicates` are versions whose stamp does not fit their number but whose value
    /// is that of the record, or of a fitting version of the same id: our own Put, applied twice. No request is that late
    /// that it comes when a later rotation is over: then somebody has brought the value of an earlier one back.
    ///
    /// Those without a stamp have the value of our last version: somebody has put it once more, as Terraform does to bring its
    /// description back. It is as old as that version.
    ///
    /// What names another owner belongs to that one, unless keyturn has published here before: then somebody wrote it who
    /// wants keyturn to keep its hands off.
    pub fn classify(
        path: &str,
        owner: &str,
        versions: Vec<Version>,
        base: Option<i64>,
        duplicates: &BTreeSet<i64>,
    ) -> Self {
        let mut published_before = false;
        let mut highest = 0;
        let mut ours: Option<Stamp> = None;
        let versions = versions
            .into_iter()
            .map(|version| {
                let same_value = duplicates.contains(&version.number);
                let taken_over = ours.clone().filter(|_| same_value && version.stamp.is_none());
                let author = match &version.stamp {
                    Some(stamp) if stamp.owner != owner => Author::OtherOwner(stamp.owner.clone()),
                    Some(stamp) if stamp.version == version.number => Author::Ours(stamp.id),
                    Some(stamp) if same_value && (base.is_some() || stamp.id >= highest) => {
                        Author::Ours(stamp.id)
                    }
                    Some(_) => Author::Foreign,
                    None => match (&taken_over, &version.claim) {
                        (Some(stamp), _) => Author::Ours(stamp.id),
                        (None, Some(claim)) if claim != owner && !published_before && base.is_none() => {
                            Author::OtherOwner(claim.clone())
                        }
                        // Written in our name, and not by us.
                        (None, Some(_)) => Author::Foreign,
                        _ if published_before || base.is_some_and(|base| version.number > base) => {
                            Author::Foreign
                        }
                        _ => Author::Original,
                    },
                };
                if let Author::Ours(id) = author {
                    published_before = true;
                    highest = highest.max(id);
                    let fits = |stamp: &&Stamp| stamp.version == version.number;
                    ours = version.stamp.as_ref().filter(fits).cloned().or(ours.take());
                }
                Seen { version, author, taken_over }
            })
            .collect();
        Self { path: path.to_owned(), versions, shape: None }
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

    /// The newest version that keyturn has published, whatever somebody has put above it.
    pub fn newest_of_ours(&self) -> Option<&Seen> {
        self.versions.iter().rev().find(|seen| matches!(seen.author, Author::Ours(_)))
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
    /// Reason and message of what keeps any run from starting on it until a person acts.
    pub stalled: Option<(String, String)>,
}

impl HostEvidence {
    /// What the host has shown of a version of the parameter, if there is that version.
    pub fn shown_of(&self, parameter: &Parameter, seen: Option<&Seen>) -> Option<&HostProof> {
        let proof = self.proofs.get(&parameter.path)?;
        proof.is_of(seen?).then_some(proof)
    }

    /// The comparison alone.
    pub fn proof_of(&self, parameter: &Parameter, seen: Option<&Seen>) -> Option<Proof> {
        self.shown_of(parameter, seen).map(|shown| shown.proof)
    }

    /// Whether the host has adopted a version of the parameter.
    pub fn has_adopted(&self, parameter: &Parameter, seen: Option<&Seen>) -> bool {
        self.shown_of(parameter, seen).is_some_and(|shown| adoption::has_adopted(shown.proof, shown.deployed))
    }

    /// Whether the host has left the credential of the version before.
    pub fn has_left_the_old(
        &self,
        parameter: &Parameter,
        seen: Option<&Seen>,
        verify_is_enough: bool,
    ) -> bool {
        let left =
            |shown: &HostProof| adoption::has_left_the_old(shown.proof, shown.deployed, verify_is_enough);
        self.shown_of(parameter, seen).is_some_and(left)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostProof {
    pub version: i64,
    /// [`Seen::published_at`] of that version, in whole seconds.
    pub published_at: DateTime<Utc>,
    pub proof: Proof,
    pub at: DateTime<Utc>,
    /// Whether a deployment of this version ended well here, with verify passed.
    pub deployed: bool,
}

impl HostProof {
    /// Whether it speaks of this version, and not of one of the same number before the parameter was created again.
    pub fn is_of(&self, seen: &Seen) -> bool {
        self.version == seen.version.number
            && self.published_at.timestamp() == seen.published_at().timestamp()
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
    /// Whether the host itself has shown that often that it does not work with these versions.
    pub rejected: bool,
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
    /// Paths that this pass has shown to be writable for the controller.
    pub writable: BTreeSet<String>,
    /// In the order of the spec, then those that only a record names.
    pub hosts: Vec<HostEvidence>,
    /// What the target showed at the last closer look; `None` where there is none, or none was taken.
    pub target: Option<TargetEvidence>,
    /// How many keys the published ring holds, the newest first; `None` where it is no ring, or nobody looked.
    pub keys: Option<usize>,
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
    /// Whether a role was changed since: then somebody may have logged in between, with the password before.
    pub changed_since: bool,
    /// What it said to the login of the newest record.
    pub recorded: Option<Acceptance>,
    /// What it said to the published login, where no record lies open, or one of a login that the target made is not
    /// published yet.
    pub published: Option<Acceptance>,
    /// By username: what it said to the logins that open records replace, where that is asked: after their end.
    pub replaced: BTreeMap<String, Acceptance>,
    /// Logins that it made for this secret; `None` where it makes none, or was not asked.
    pub issued: Option<Vec<IssuedLogin>>,
    /// For how long the published login works, where no record lies open and the target ends it by itself.
    pub lifetime: Option<Lifetime>,
    /// Things that a person should know.
    pub notes: Vec<String>,
    /// Statements that make the roles from the published one, where that is asked for and not done.
    pub set_up: Vec<String>,
}

impl TargetEvidence {
    /// Nothing is known yet at the time of a look.
    pub fn unasked(at: DateTime<Utc>) -> Self {
        Self {
            at,
            unseen: None,
            fenced: false,
            fences: BTreeMap::new(),
            can_log_in: BTreeSet::new(),
            superusers: BTreeSet::new(),
            sessions: Vec::new(),
            changed_since: false,
            recorded: None,
            published: None,
            replaced: BTreeMap::new(),
            issued: None,
            lifetime: None,
            notes: Vec::new(),
            set_up: Vec::new(),
        }
    }
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
    /// Whether the newest version of keyturn's publishes it, as far as can be told.
    pub is_published: bool,
    /// Whether it is published, or any version that is kept of the rotation's publishes it, as far as can be told.
    pub was_published: bool,
}

/// From when to when a login works that its target ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub begins: DateTime<Utc>,
    pub ends: DateTime<Utc>,
}

impl Lifetime {
    /// When the login has to be replaced: a quarter of its life is left for a rotation that does not succeed at once.
    pub fn replace_by(&self) -> DateTime<Utc> {
        self.begins + (self.ends - self.begins) * 3 / 4
    }
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

    /// Whether the target accepted this login, as it was published, when one of the open records began.
    pub fn has_accepted(&self, username: &str) -> bool {
        let mut credentials = self.records.values().filter_map(|record| record.credential.as_ref());
        credentials.any(|credential| credential.accepted.contains(username))
    }

    /// Whether what the rotation publishes is the latest version of every path.
    pub fn is_published(&self, record: &Record) -> bool {
        self.parameters.iter().all(|parameter| record.is_published_in(parameter))
    }

    /// Whether the latest version of every path is of the rotation of this id. A listing shows no more than that one, which may be
    /// our own Put, applied twice.
    pub fn ends_with(&self, id: RotationId) -> bool {
        let is_of = |seen: &Seen| seen.author == Author::Ours(id);
        self.parameters.iter().all(|parameter| parameter.latest().is_some_and(is_of))
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

    /// When the oldest key of the published ring was made: each rotation before added one. `None` where it is no ring.
    pub fn oldest_key_made_at(&self) -> Option<DateTime<Utc>> {
        let keys = self.keys.filter(|keys| *keys > 1)?;
        let versions = &self.parameters.first()?.versions;
        // Each rotation has added a key, the first one to what it found. What others wrote between may be the same ring
        // again, and adds nothing.
        let mut made: BTreeMap<RotationId, &Seen> = BTreeMap::new();
        for seen in versions {
            if let Author::Ours(id) = seen.author {
                made.insert(id, seen);
            }
        }
        let first_of_ours = versions.iter().find(|seen| matches!(seen.author, Author::Ours(_)));
        let found = versions
            .iter()
            .rfind(|seen| first_of_ours.is_none_or(|first| seen.version.number < first.version.number));
        let rotations: Vec<&Seen> = made.into_values().rev().chain(found).collect();
        // SSM keeps a hundred versions; a key from before them is older than anything.
        Some(rotations.get(keys - 1).map_or(DateTime::UNIX_EPOCH, |seen| seen.made_at()))
    }

    /// When the youngest published version was taken by SSM.
    pub fn published_at(&self) -> Option<DateTime<Utc>> {
        self.parameters.iter().filter_map(|p| p.latest()).map(|seen| seen.version.modified).max()
    }
}
