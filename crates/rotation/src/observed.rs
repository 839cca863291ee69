//! The observed state of one secret: the evidence from Parameter Store, hosts and target on which every decision is
//! based.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::docker_host::Proof;
use keyturn_secret_value::SecretValue;

use super::adoption;

/// Number of a rotation of one secret. A new rotation gets the highest id found in the evidence plus one; ids are never
/// taken from a clock.
pub type RotationId = u64;

/// The stamp: keyturn's part of the description of every version that it publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `<cluster>/<namespace>/<name>` of the ManagedSecret.
    pub owner: String,
    pub id: RotationId,
    /// The version number that the writer expected to create. When a Put gives no description, SSM keeps the previous
    /// one, so a stamp proves who wrote a version only when this number equals the version's own.
    pub version: i64,
    /// Time when the rotation drew the value or, for a roll back, when the roll back began.
    pub at: DateTime<Utc>,
    /// Hash of the request (annotation token) that asked for the rotation.
    pub request: Option<String>,
    /// Time when the value was first made; set only where a roll back has published an older value again.
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
    /// keyturn's part of the description; `None` unless this installation wrote it.
    pub stamp: Option<Stamp>,
    /// The owner that the description names in keyturn's format although this installation did not write it: either
    /// another installation wrote it, or somebody forged it.
    pub claim: Option<String>,
}

/// The reason why a rotation was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
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

impl Trigger {
    /// Returns the trigger's name as shown in status and Events.
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
    /// Time when the values were made.
    pub at: DateTime<Utc>,
    /// The annotation token that asked for the rotation.
    pub request: Option<String>,
    /// The values to publish, by path.
    pub values: BTreeMap<String, SecretValue>,
    /// The version of each path that the values replace; 0 where the parameter did not exist.
    pub base: BTreeMap<String, i64>,
    /// SSM's time of the base version of each path. It tells that version from one with the same number in a parameter
    /// that was deleted and created again. Records written by earlier releases of keyturn have none.
    pub base_at: BTreeMap<String, DateTime<Utc>>,
    /// The DockerHosts that had to run the secret when the rotation began.
    pub hosts: Vec<String>,
    /// Paths that a roll back does not publish again: their base version already holds the value, since the failed
    /// rotation never published there.
    pub kept: BTreeSet<String>,
    /// The credential that a target has to accept before the values are published; `None` where there is no target.
    pub credential: Option<Credential>,
}

/// A login at a target.
#[derive(Debug)]
pub struct Credential {
    pub username: String,
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
    /// creates it again. Where the record has no time for its base version, the grace decides: only an incident starts
    /// a rotation on a version younger than the grace. Half of the grace is used, in case the grace was changed
    /// meanwhile.
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

    /// Returns true when a roll back leaves this parameter as it is, because no host was given another value.
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
    pub version: Version,
    pub author: Author,
    /// The stamp of our version whose value somebody else has put again with a description of their own.
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

    /// Returns the time when a roll back began to publish this value again; `None` if no roll back did.
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
    pub path: String,
    pub versions: Vec<Seen>,
    /// The constraints that SSM applies to the next Put; `None` where the parameter does not exist or only a listing
    /// was read.
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
    /// Labels on the oldest version that make SSM refuse the next Put, because SSM keeps no more versions and cannot
    /// drop a labelled one.
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
    /// `base` is the version that an open rotation replaces: every later version that is not ours is foreign, even
    /// where keyturn never published before. `duplicates` are versions whose stamp does not fit their number but whose
    /// value equals the record's, or that of a fitting version with the same id: our own Put, applied twice. No request
    /// lives so long that it could arrive after a later rotation has ended; such a version means that somebody
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

    pub fn latest(&self) -> Option<&Seen> {
        self.versions.last()
    }

    /// Returns the newest version that keyturn published, even if somebody else has put later versions.
    pub fn newest_of_ours(&self) -> Option<&Seen> {
        self.versions.iter().rev().find(|seen| matches!(seen.author, Author::Ours(_)))
    }

    /// Returns the number of the latest version, or 0 where the parameter does not exist.
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

/// The evidence of one DockerHost about the parameters of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEvidence {
    pub name: String,
    /// True when the DockerHost object exists.
    pub exists: bool,
    /// True while a deployment runs on the host.
    pub deploying: bool,
    /// The result and time of the last comparison, and the version that it compared, by path.
    pub proofs: BTreeMap<String, HostProof>,
    /// The last run on this host, if it concerned these parameters and failed.
    pub failure: Option<HostFailure>,
    /// The last deployment on this host, if it concerned these parameters and failed.
    pub failed_deploy: Option<HostFailure>,
    /// Reason and message of the condition that keeps every run from starting on this host until a person acts.
    pub stalled: Option<(String, String)>,
}

impl HostEvidence {
    /// Returns what the host has shown about this version of the parameter; `None` if `seen` is `None` or the host has
    /// shown nothing about it.
    pub fn shown_of(&self, parameter: &Parameter, seen: Option<&Seen>) -> Option<&HostProof> {
        let proof = self.proofs.get(&parameter.path)?;
        proof.is_of(seen?).then_some(proof)
    }

    /// Returns only the result of the comparison for this version.
    pub fn proof_of(&self, parameter: &Parameter, seen: Option<&Seen>) -> Option<Proof> {
        self.shown_of(parameter, seen).map(|shown| shown.proof)
    }

    /// Returns true when the host has adopted this version of the parameter.
    pub fn has_adopted(&self, parameter: &Parameter, seen: Option<&Seen>) -> bool {
        self.shown_of(parameter, seen).is_some_and(|shown| adoption::has_adopted(shown.proof, shown.deployed))
    }

    /// Returns true when the host no longer uses the credential of the version before this one.
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
    /// True when a deployment of this version succeeded on this host and its verify script passed.
    pub deployed: bool,
}

impl HostProof {
    /// Returns true when this proof is about the given version, and not about one with the same number from before the
    /// parameter was deleted and created again.
    pub fn is_of(&self, seen: &Seen) -> bool {
        self.version == seen.version.number
            && self.published_at.timestamp() == seen.published_at().timestamp()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFailure {
    pub reason: String,
    pub message: String,
    /// The version of each path that the failed run was about.
    pub versions: BTreeMap<String, i64>,
    pub finished_at: DateTime<Utc>,
    /// True when enough attempts have failed to call the failure final.
    pub for_good: bool,
    /// True when the host has shown in enough attempts that it does not work with these versions.
    pub rejected: bool,
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
    /// The evidence from the last full observation of the target; `None` where there is no target, or it was not
    /// observed.
    pub target: Option<TargetEvidence>,
    /// Number of keys in the published key ring; `None` where the value is no ring, or has not been read.
    pub keys: Option<usize>,
}

/// The evidence about a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetEvidence {
    /// Time of the observation.
    pub at: DateTime<Utc>,
    /// The reason why its roles could not be read; `None` if they were.
    pub unseen: Option<TargetProblem>,
    /// True when the target can refuse late requests of older rotations.
    pub fenced: bool,
    /// The rotation that last changed each username, and the time of that change.
    pub fences: BTreeMap<String, (RotationId, DateTime<Utc>)>,
    /// Usernames that are able to log in.
    pub can_log_in: BTreeSet<String>,
    /// Superusers: keyturn never takes their login away.
    pub superusers: BTreeSet<String>,
    pub sessions: Vec<OpenSession>,
    /// True when a role was changed after this observation: somebody may have logged in between with the old password.
    pub changed_since: bool,
    /// The target's answer to the login in the newest record.
    pub recorded: Option<Acceptance>,
    /// The target's answer to the published login. It is asked while no record is open, and also while a record holds a
    /// login that the target made and that is not published yet.
    pub published: Option<Acceptance>,
    /// The target's answers to the logins that open records replace, by username. They are asked only after those
    /// logins were retired.
    pub replaced: BTreeMap<String, Acceptance>,
    /// Logins that the target made for this secret; `None` where it makes none, or was not asked.
    pub issued: Option<Vec<IssuedLogin>>,
    /// Lifetime of the published login, where no record is open and the target expires logins on its own.
    pub lifetime: Option<Lifetime>,
    /// Remarks that a person should read.
    pub notes: Vec<String>,
    /// SQL statements that create the roles from the published one, where that is requested and not done yet.
    pub set_up: Vec<String>,
}

impl TargetEvidence {
    /// Creates evidence for an observation at this time, with nothing known yet.
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

/// An open session of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSession {
    pub username: String,
    /// Description of the client, for people to read.
    pub client: String,
    /// Start of the session by the target's clock, like the times in `fences`; `None` where the target does not show
    /// it.
    pub since: Option<DateTime<Utc>>,
}

/// A login that the target made for a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedLogin {
    pub username: String,
    /// The id of the rotation after which it is named.
    pub id: RotationId,
    /// Time when it was made.
    pub at: DateTime<Utc>,
    /// True when keyturn's newest version publishes it, as far as the evidence shows.
    pub is_published: bool,
    /// True when it is published, or when any version of its rotation that SSM still keeps publishes it, as far as the
    /// evidence shows.
    pub was_published: bool,
}

/// The time span in which a login works, for targets that expire logins on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub begins: DateTime<Utc>,
    pub ends: DateTime<Utc>,
}

impl Lifetime {
    /// Returns the latest time to replace the login: three quarters of its lifetime. The last quarter is left for
    /// retries.
    pub fn replace_by(&self) -> DateTime<Utc> {
        self.begins + (self.ends - self.begins) * 3 / 4
    }
}

/// A target's answer to a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Accepted,
    Refused(TargetProblem),
    /// The target could not be asked.
    Unknown(TargetProblem),
}

/// The reason why a target could not be asked, or why it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetProblem {
    pub reason: String,
    pub message: String,
    /// True when only a person can fix it, so that retries do not help.
    pub permanent: bool,
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
    /// versions show it. `None` where the value is no ring.
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
