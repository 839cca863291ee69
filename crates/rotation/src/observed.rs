//! The observed state of one secret: the evidence from Parameter Store, hosts and target on which every decision is
//! based.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
pub use keyturn_api::managed_secret::Trigger;
use keyturn_secret_value::SecretValue;

mod hosts;
mod target;

pub use hosts::{HostEvidence, HostFailure, HostProof};
pub use target::{Acceptance, IssuedLogin, KnownLogin, Lifetime, OpenSession, TargetEvidence};

/// Number of a rotation of one secret. A new rotation gets the highest id found in the evidence plus one; ids are never
/// taken from a clock.
pub type RotationId = u64;

/// The stamp: keyturn's part of the description of every version that it publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `<cluster>/<namespace>/<name>` of the ManagedSecret.
    pub owner: String,
    /// Id of the rotation that published the version.
    pub id: RotationId,
    /// The version number that the writer expected to create. When a Put gives no description, SSM keeps the previous
    /// one, so a stamp proves who wrote a version only when this number equals the version's own.
    pub version: i64,
    /// Time when the rotation generated the value or, for a rollback, when the rollback began.
    pub at: DateTime<Utc>,
    /// Hash of the request (annotation token) that asked for the rotation.
    pub request: Option<String>,
    /// Time when the value was first made; set only if a rollback has published an older value again.
    pub made: Option<DateTime<Utc>>,
}

/// One version of a parameter, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Number that SSM gave the version; the first one of a parameter is 1.
    pub number: i64,
    /// SSM's LastModifiedDate.
    pub modified: DateTime<Utc>,
    /// The user's own part of the description.
    pub text: String,
    /// keyturn's part of the description; `None` unless this installation wrote it.
    pub stamp: Option<Stamp>,
    /// The owner that the description names in keyturn's format although this installation did not write it: either
    /// another installation wrote it, or somebody forged it.
    pub claim: Option<String>,
}

/// The immutable record of one rotation, kept as a SecureString below the staging path while the rotation runs.
#[derive(Debug)]
pub struct Record {
    /// Id of the rotation, which is also part of the record's path.
    pub id: RotationId,
    /// The reason why the rotation was started.
    pub trigger: Trigger,
    /// Time when the values were made.
    pub at: DateTime<Utc>,
    /// The annotation token that asked for the rotation.
    pub request: Option<String>,
    /// The values to publish, by path.
    pub values: BTreeMap<String, SecretValue>,
    /// The version of each path that the values replace; 0 if the parameter did not exist.
    pub base: BTreeMap<String, i64>,
    /// SSM's time of the base version of each path. It distinguishes that version from one with the same number in a
    /// parameter that was deleted and created again. Records written by earlier releases of keyturn have none.
    pub base_at: BTreeMap<String, DateTime<Utc>>,
    /// The DockerHosts that had to run the secret when the rotation began.
    pub hosts: Vec<String>,
    /// Paths that a rollback does not publish again, since the failed rotation never published there: their base
    /// version still holds the value.
    pub kept: BTreeSet<String>,
    /// The credential that a target has to accept before the values are published; `None` if there is no target.
    pub credential: Option<Credential>,
}

/// A login at a target.
#[derive(Debug)]
pub struct Credential {
    /// Name of the login: a Postgres role, or the access key id at Cloudflare R2.
    pub username: String,
    /// Password of the login: of the Postgres role, or the secret access key at Cloudflare R2.
    pub password: SecretValue,
    /// The username that was in use when the rotation began.
    pub replaces: Option<String>,
    /// Usernames that the target accepted, with the password published next to them, when the rotation began. This
    /// proves that whoever published such a login knew its password, and did not merely write down somebody else's
    /// username.
    pub accepted: BTreeSet<String>,
}

impl Record {
    /// Returns true when this version already existed when the rotation began.
    ///
    /// The version number alone does not prove it: numbering starts again at 1 when somebody deletes the parameter and
    /// creates it again. If the record has no time for its base version, the grace period decides: only an incident
    /// starts a rotation on a version younger than the grace period. Half of the grace period is used, in case the
    /// setting was changed in the meantime.
    pub fn replaces(&self, path: &str, version: &Version, grace: TimeDelta) -> bool {
        let base = self.base.get(path).copied().unwrap_or(0);
        let was_there = match self.base_at.get(path) {
            Some(base_at) => version.modified <= *base_at,
            None => version.modified + grace / 2 <= self.at,
        };
        version.number <= base && was_there
    }

    /// Returns the newest version that holds the value of this rotation: the version that it published or, for a path
    /// in `kept`, the latest version.
    pub fn version_in<'a>(&self, parameter: &'a Parameter) -> Option<&'a Seen> {
        parameter.published_by(self.id).or_else(|| parameter.latest().filter(|_| self.keeps(parameter)))
    }

    /// Returns true when the latest version of this parameter holds the value of this rotation.
    pub fn is_published_in(&self, parameter: &Parameter) -> bool {
        parameter.is_published_by(self.id) || self.keeps(parameter)
    }

    /// Returns true when a rollback leaves this parameter as it is, because the failed rotation did not publish there.
    pub fn keeps(&self, parameter: &Parameter) -> bool {
        let base = self.base.get(&parameter.path).copied().filter(|base| *base > 0);
        self.kept.contains(&parameter.path) && base == Some(parameter.latest_number())
    }
}

/// The author of a version, as far as the evidence shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// keyturn wrote it, in the rotation with this id.
    Ours(RotationId),
    /// Somebody wrote it before keyturn published here: the version that keyturn adopted.
    Original,
    /// Somebody else wrote it, after a version of keyturn's or during a rotation.
    Foreign,
    /// Another ManagedSecret or another installation of keyturn wrote it.
    OtherOwner(String),
}

/// A version and its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The version, without its value.
    pub version: Version,
    /// The author of the version, as far as the evidence shows.
    pub author: Author,
    /// The stamp of our version, if this version is a copy: somebody else put the same value again with another
    /// description.
    pub taken_over: Option<Stamp>,
}

impl Seen {
    /// Returns the time when the value was made: from our stamp or, without one, SSM's time of the version.
    pub fn made_at(&self) -> DateTime<Utc> {
        self.our_stamp().map_or(self.version.modified, |stamp| stamp.made.unwrap_or(stamp.at))
    }

    /// Returns the time when the rotation of this version began or, without our stamp, SSM's time of the version. It
    /// tells apart two versions with the same number when the parameter was deleted and created again.
    pub fn published_at(&self) -> DateTime<Utc> {
        self.our_stamp().map_or(self.version.modified, |stamp| stamp.at)
    }

    /// Returns the time when a rollback began to publish this value again; `None` if no rollback did.
    pub fn brought_back_at(&self) -> Option<DateTime<Utc>> {
        self.our_stamp().filter(|stamp| stamp.made.is_some()).map(|stamp| stamp.at)
    }

    fn our_stamp(&self) -> Option<&Stamp> {
        let stamp = self.version.stamp.as_ref().or(self.taken_over.as_ref());
        stamp.filter(|_| matches!(self.author, Author::Ours(_)))
    }
}

/// The known state of one parameter: all versions that SSM keeps, oldest first, or at least the latest one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Path of the parameter, as in the spec.
    pub path: String,
    /// The versions by ascending number; empty if the parameter does not exist.
    pub versions: Vec<Seen>,
    /// The constraints that SSM applies to the next Put; `None` if the parameter does not exist or only a listing was
    /// read.
    pub shape: Option<Shape>,
}

/// The constraints that SSM applies to a Put over the latest version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// `SecureString`, `String` or `StringList`.
    pub kind: String,
    /// The KMS key that encrypts it, as named by whoever put the version.
    pub key_id: Option<String>,
    /// The AllowedPattern (a regular expression), which the whole value has to match.
    pub pattern: Option<String>,
    /// True in the advanced tier, which holds values of up to 8 KB.
    pub is_advanced: bool,
    /// Labels on the oldest version that make SSM refuse the next Put. SSM keeps at most 100 versions, and does not
    /// delete a version that has a label.
    pub labels_in_the_way: Vec<String>,
}

/// The account's default KMS key, as SSM names it.
pub const DEFAULT_KEY: &str = "alias/aws/ssm";

impl Shape {
    /// Returns the KMS key that encrypts the parameter, or `None` if that is the account's default key.
    pub fn customer_key(&self) -> Option<&str> {
        self.key_id.as_deref().filter(|key| *key != DEFAULT_KEY)
    }
}

impl Parameter {
    /// Determines the author of every version.
    ///
    /// `base` is the version that an open rotation replaces: every later version that is not ours is foreign, even if
    /// keyturn never published before. `duplicates` are versions whose stamp does not fit their number but whose value
    /// equals the record's, or that of a fitting version with the same id: our own Put, applied twice. A request cannot
    /// arrive so late that a later rotation has already ended; a version that looks like it means that somebody
    /// published an earlier value again.
    ///
    /// Duplicates without a stamp hold the value of our last version: somebody has put it again, as Terraform does to
    /// restore its own description. Such a version counts as being as old as ours.
    ///
    /// A version whose description names another owner belongs to that owner, unless keyturn has published here before.
    /// In that case it is foreign: somebody may name another owner only to stop keyturn.
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
                        // The description claims our owner, but we did not write it.
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

    /// Returns the versions that carry our stamp with a number that does not fit: either a foreign Put kept our
    /// description, or our own Put was applied twice. Only their values can decide which.
    pub fn misfits<'a>(
        owner: &'a str,
        versions: &'a [Version],
    ) -> impl Iterator<Item = (&'a Version, &'a Stamp)> {
        versions.iter().filter_map(move |version| {
            let stamp = version.stamp.as_ref()?;
            (stamp.owner == owner && stamp.version != version.number).then_some((version, stamp))
        })
    }

    /// Returns the latest version; `None` if the parameter does not exist.
    pub fn latest(&self) -> Option<&Seen> {
        self.versions.last()
    }

    /// Returns the newest version that keyturn published, even if somebody else has put later versions.
    pub fn newest_of_ours(&self) -> Option<&Seen> {
        self.versions.iter().rev().find(|seen| matches!(seen.author, Author::Ours(_)))
    }

    /// Returns the number of the latest version, or 0 if the parameter does not exist.
    pub fn latest_number(&self) -> i64 {
        self.latest().map_or(0, |seen| seen.version.number)
    }

    /// Returns the newest version that the rotation with this id published.
    pub fn published_by(&self, id: RotationId) -> Option<&Seen> {
        self.versions.iter().rev().find(|seen| seen.author == Author::Ours(id))
    }

    /// Returns true when the latest version belongs to this rotation and at least one of its versions carries a stamp
    /// that fits, so that the evidence remains complete once the record is deleted.
    pub fn is_published_by(&self, id: RotationId) -> bool {
        self.latest().is_some_and(|seen| seen.author == Author::Ours(id))
            && self.versions.iter().any(|seen| {
                seen.version.stamp.as_ref().is_some_and(|s| s.id == id && s.version == seen.version.number)
            })
    }
}

/// All evidence about one secret.
#[derive(Debug, Default)]
pub struct Observed {
    /// The parameters, in the order of the spec.
    pub parameters: Vec<Parameter>,
    /// Open records, by rotation id.
    pub records: BTreeMap<RotationId, Record>,
    /// Times at which abort markers were written, by rotation id.
    pub aborts: BTreeMap<RotationId, DateTime<Utc>>,
    /// Paths whose latest version carries the id of the newest record but holds another value than the record.
    pub mismatched: BTreeSet<String>,
    /// Paths to which the controller has proven in this pass that it may write.
    pub writable: BTreeSet<String>,
    /// The hosts in the order of the spec, followed by those that only a record names.
    pub hosts: Vec<HostEvidence>,
    /// The evidence from the last full observation of the target; `None` if there is no target, or it was not observed.
    pub target: Option<TargetEvidence>,
    /// Number of keys in the published key ring; `None` if the value is no ring, or has not been read.
    pub keys: Option<usize>,
}

impl Observed {
    /// Returns the highest rotation id in all evidence, including the target's fences.
    pub fn highest_id(&self, owner: &str) -> RotationId {
        let fences = self.target.iter().flat_map(|target| target.fences.values().map(|(id, _)| *id));
        fences.chain([self.highest_id_in_store(owner)]).max().unwrap_or(0)
    }

    /// Returns the highest rotation id in Parameter Store: in stamps, records and abort markers.
    pub fn highest_id_in_store(&self, owner: &str) -> RotationId {
        let stamped = self.parameters.iter().flat_map(|p| &p.versions).filter_map(|seen| {
            seen.version.stamp.as_ref().filter(|stamp| stamp.owner == owner).map(|stamp| stamp.id)
        });
        stamped.chain(self.records.keys().copied()).chain(self.aborts.keys().copied()).max().unwrap_or(0)
    }

    /// Returns true when the target accepted this login, as published, at the time when one of the open records was
    /// made.
    pub fn has_accepted(&self, username: &str) -> bool {
        let mut credentials = self.records.values().filter_map(|record| record.credential.as_ref());
        credentials.any(|credential| credential.accepted.contains(username))
    }

    /// Returns true when the latest version of every path holds the value of this rotation.
    pub fn is_published(&self, record: &Record) -> bool {
        self.parameters.iter().all(|parameter| record.is_published_in(parameter))
    }

    /// Returns true when the latest version of every path belongs to the rotation with this id. Unlike
    /// [`Self::is_published`] this needs only a listing, which shows the latest version alone; that version may be our
    /// own Put, applied twice.
    pub fn ends_with(&self, id: RotationId) -> bool {
        let is_of = |seen: &Seen| seen.author == Author::Ours(id);
        self.parameters.iter().all(|parameter| parameter.latest().is_some_and(is_of))
    }

    /// Returns true when the rotation with this id published at least one path.
    pub fn is_partly_published_by(&self, id: RotationId) -> bool {
        self.parameters.iter().any(|parameter| parameter.published_by(id).is_some())
    }

    /// Returns the ids of published rotations whose request has this hash, lowest first.
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

    /// Returns the time when the oldest key of the published key ring was made. Each rotation adds one key, so the
    /// versions show it. `None` if the value is no ring.
    pub fn oldest_key_made_at(&self) -> Option<DateTime<Utc>> {
        let keys = self.keys.filter(|keys| *keys > 1)?;
        let versions = &self.parameters.first()?.versions;
        // Each rotation has added one key; the first rotation added its key to the value that it found. Foreign
        // versions in between may repeat the same ring, and add no key.
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
        // SSM keeps 100 versions; a key from before those counts as older than anything.
        Some(rotations.get(keys - 1).map_or(DateTime::UNIX_EPOCH, |seen| seen.made_at()))
    }

    /// Returns SSM's time of the youngest published version.
    pub fn published_at(&self) -> Option<DateTime<Utc>> {
        self.parameters.iter().filter_map(|p| p.latest()).map(|seen| seen.version.modified).max()
    }
}
