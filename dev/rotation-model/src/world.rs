//! The world of one secret: Parameter Store, the target, the hosts, the object, and requests under way.
//!
//! Time is abstracted to ages. One tick is half of the grace period: something [`Age::New`] may be missing from a read,
//! something [`Age::Recent`] is younger than the grace period, and something [`Age::Old`] is not. A request ends with
//! its second tick, so no request survives that was decided before something became old.

use std::collections::BTreeMap;

/// Largest number of parameters of a secret.
pub const PATHS: usize = 2;

/// A value that was generated or written; equal numbers are equal secrets.
pub type Value = u8;
/// Number of a rotation, from 1; 0 for none.
pub type Id = u8;

/// The value published before keyturn.
pub const FIRST: Value = 0;
/// A password that the server has and that was never published.
pub const UNKNOWN: Value = 62;
/// The password of a role that cannot log in.
pub const NONE: Value = 63;
/// The first of the values that other people write.
pub const FOREIGN: Value = 56;
/// Number of values that one rotation may generate, by controllers that do not know of each other.
pub const DRAWS: u8 = 6;

/// Time since something was made or changed, in steps of half the grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Age {
    /// Not a tick old: a read may miss it.
    New,
    /// One tick old: younger than the grace period, and every read shows it.
    Recent,
    /// At least two ticks old, which is the grace period.
    Old,
}

impl Age {
    /// Returns the age after one more tick.
    pub fn grown(self) -> Self {
        match self {
            Age::New => Age::Recent,
            Age::Recent | Age::Old => Age::Old,
        }
    }
}

/// The controller's stamp in the description of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The rotation for which the stamp was written.
    pub id: Id,
    /// The number that the writer expected the version to get.
    pub expected: u8,
    /// The request that the rotation answers, or 0.
    pub request: u8,
}

/// A version of a parameter. Its number is its position in the list, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The secret that the version contains.
    pub value: Value,
    /// The role whose login the value is.
    pub role: u8,
    /// The stamp in its description; `None` if it has none.
    pub stamp: Option<Stamp>,
    /// Time since it was put.
    pub age: Age,
    /// True when it was made before the incident was reported.
    pub suspected: bool,
    /// True when the controller put it. The protocol does not see this, and has to find it out from the evidence.
    pub by_us: bool,
}

/// The reason for a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A parameter did not exist.
    Missing,
    /// The annotation requested it.
    Request,
    /// Somebody else wrote the parameter, and `onDrift: Rotate` is set.
    Drift,
    /// A rotation failed, and this one restores what it replaced.
    RollBack,
    /// An incident was reported.
    Incident,
}

/// The record of a rotation. The rotation is open as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// The reason for the rotation.
    pub why: Why,
    /// The values by path; for a login, all of them are one password.
    pub values: [Value; PATHS],
    /// Number of the role that the values log in with.
    pub role: u8,
    /// Number of the role that the rotation replaces; `None` if nothing was published.
    pub replaces: Option<u8>,
    /// The number of the replaced version by path, 0 for none.
    pub base: [u8; PATHS],
    /// For each path, true if a rollback leaves the parameter as it is, since the failed rotation published nothing
    /// there.
    pub kept: [bool; PATHS],
    /// The request that the rotation answers, or 0.
    pub request: u8,
    /// True when its value was made before the incident was reported.
    pub suspected: bool,
    /// Time since it was created.
    pub age: Age,
}

/// SSM's answer to a Put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// SSM accepts it.
    None,
    /// SSM refuses it, and the parameter shows why: its type, or a label on its oldest version.
    Shown,
    /// SSM denies it, which only another Put shows.
    Hidden,
}

/// A role of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Role {
    /// Its only password.
    pub password: Value,
    /// True when the role may log in.
    pub can_log_in: bool,
    /// The rotation that changed the role last.
    pub fence: Id,
    /// Time since a rotation last changed the role.
    pub changed: Age,
}

/// State of the server that the login is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// It takes its first password from the deployment.
    NotThereYet,
    /// The controller and the hosts can reach it.
    There,
    /// The controller cannot reach it, but hosts can.
    Silent,
}

/// Result of the comparison of a version with what containers run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shows {
    /// Containers run the version's value.
    Proven,
    /// Containers run another value.
    Differs,
    /// The comparison cannot see the value that containers run.
    Incomparable,
}

/// The result of a run for one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proof {
    /// Number of the version that the run was about.
    pub version: u8,
    /// Result of the comparison.
    pub shows: Shows,
    /// True when a deployment of this version succeeded.
    pub deployed: bool,
    /// True when the proof is newer than the preflight request.
    pub asked: bool,
}

/// The failure of the last deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Numbers of the versions that the deployment was given, by path; 0 for none.
    pub versions: [u8; PATHS],
    /// True when the host itself has shown the failure, and not only a broken connection.
    pub rejected: bool,
    /// True when nothing was compared since.
    pub unseen: bool,
}

/// A DockerHost that runs the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// The version that its containers run by path, 0 for none.
    pub runs: [u8; PATHS],
    /// The last results by path; `None` before the first one.
    pub proofs: [Option<Proof>; PATHS],
    /// `None` if the last deployment succeeded, or there was none.
    pub failed: Option<Failure>,
    /// Numbers of the versions that a running deployment brings, by path; `None` if none runs.
    pub deploying: Option<[u8; PATHS]>,
}

/// The deletion of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deleting {
    /// Time since somebody deleted it.
    pub age: Age,
    /// True when the time limit for finishing is over.
    pub overdue: bool,
}

/// The ManagedSecret: its metadata, its status, and the process's memory of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// True when the object no longer exists.
    pub gone: bool,
    /// `None` as long as nobody has deleted the object.
    pub deleting: Option<Deleting>,
    /// True when the object has keyturn's finalizer.
    pub finalizer: bool,
    /// True when a RotationGrant covers it.
    pub granted: bool,
    /// True when the spec names another source than at the beginning.
    pub other_source: bool,
    /// The number of the request in the annotation, or 0.
    pub asked: u8,
    /// Bit set of the requests that status remembers.
    pub handled: u8,
    /// The request that the last finished rotation answered.
    pub last_answered: u8,
    /// True while a fresh proof is requested from the hosts.
    pub preflight: bool,
    /// True when the controller has never seen the object (its status is empty): a request in the annotation came with
    /// it.
    pub unseen: bool,
    /// True when the spec names the hosts.
    pub names_hosts: bool,
    /// True when the last failure was a publication that SSM permanently refused.
    pub publication_refused: bool,
    /// Age of the time since which the process has seen no record.
    pub settled: Option<Age>,
}

/// A reported incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// Time since the report.
    pub age: Age,
    /// True when the old login has to be revoked by now.
    pub due: bool,
    /// Bit set of the values that existed when the report was made.
    pub before: u64,
}

/// Everything outside of the controller that evidence can show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outside {
    /// The versions by path, oldest first; empty for a parameter that does not exist.
    pub paths: Vec<Vec<Version>>,
    /// SSM's answer to a Put, by path.
    pub refusals: [Refusal; PATHS],
    /// The records by rotation.
    pub records: BTreeMap<Id, Record>,
    /// The ages of the abort markers, by rotation.
    pub markers: BTreeMap<Id, Age>,
    /// The roles. Only `Source::Alternating` uses the second one.
    pub roles: [Role; 2],
    /// State of the server; of no effect for a random value.
    pub server: Server,
    /// The role with which a thief of the login has an open session.
    pub thief: Option<u8>,
    /// The hosts of the story, even while the spec does not name them.
    pub hosts: Vec<Host>,
    /// The ManagedSecret.
    pub object: Object,
    /// The incident; `None` before its report and after its deletion.
    pub report: Option<Report>,
}

/// A controller's request that was sent and may be applied at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// The effect when it is applied.
    pub effect: Effect,
    /// Time since it was sent.
    pub age: Age,
}

/// Effect of a request on SSM or the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Creates the record of a rotation; an existing one stays.
    Record(Id, Record),
    /// Writes the abort marker of a rotation.
    Mark(Id),
    /// Deletes the record of a rotation.
    DropRecord(Id),
    /// Deletes the abort marker of a rotation.
    DropMarker(Id),
    /// Puts a version of a parameter.
    Put {
        /// Number of the path, from 0.
        path: u8,
        /// The version that is put.
        version: Version,
    },
    /// The first version of the only parameter, without a record, and the request that it answers, or 0.
    Create {
        /// The version that is put.
        version: Version,
        /// The request that it answers, or 0.
        request: u8,
    },
    /// Deletes the parameter with this path number, and all its versions.
    DropParameter(u8),
    /// Gives a role a password and lets it log in, unless the server is unavailable or the role's fence is newer.
    Install {
        /// The rotation that changes the role.
        id: Id,
        /// Number of the role.
        role: u8,
        /// The new password.
        value: Value,
    },
    /// Forbids a role to log in, unless the server is unavailable or the role's fence is newer.
    Retire {
        /// The rotation that changes the role.
        id: Id,
        /// Number of the role.
        role: u8,
    },
    /// Ends the open sessions of a role, unless the server is unavailable.
    EndSessions {
        /// Number of the role.
        role: u8,
    },
}

/// The number of times that each event may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// A new request for a rotation.
    pub asks: u8,
    /// The annotation goes back to the previous request.
    pub reverts: u8,
    /// A decision on stale reads, which miss the newest item.
    pub stale: u8,
    /// A request is applied twice.
    pub twice: u8,
    /// A foreign write, with the old description (which SSM keeps) or without one.
    pub foreign: u8,
    /// Somebody puts an older version again, including its description.
    pub restored: u8,
    /// SSM begins to refuse Puts, visibly or not.
    pub refusals: u8,
    /// The server cannot be asked for a while.
    pub silences: u8,
    /// A deployment that the host rejects.
    pub rejections: u8,
    /// A deployment with an unknown end.
    pub unknowns: u8,
    /// An incident is reported.
    pub reports: u8,
    /// The incident is deleted.
    pub retractions: u8,
    /// The object is deleted.
    pub deletions: u8,
    /// The grant is withdrawn.
    pub withdrawals: u8,
    /// The spec names another source.
    pub edits: u8,
    /// The spec names its hosts, or no longer names any.
    pub host_edits: u8,
    /// Somebody puts a parameter that does not exist.
    pub puts: u8,
    /// Somebody deletes a parameter.
    pub removals: u8,
    /// Status and the process's memory are lost.
    pub losses: u8,
}

/// History that only the invariants see, and no decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// Number of rotations that were begun for each request.
    pub begun: [u8; 4],
    /// Bit set of the values that must never be accepted again.
    pub retired: u64,
    /// The highest rotation that was published and closed.
    pub closed: Id,
    /// True when the object was released because its time limit was over.
    pub abandoned: bool,
    /// Number of versions that other people put.
    pub foreign_writes: u8,
    /// A forbidden act that some step performed.
    pub flaw: Option<&'static str>,
}

/// One state that a search can reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Everything that evidence can show.
    pub outside: Outside,
    /// Requests under way, sorted, so that worlds with the same requests are equal.
    pub flight: Vec<Request>,
    /// Events that may still happen.
    pub left: Budget,
    /// History for the invariants.
    pub past: Past,
}

impl Outside {
    /// Returns the latest version; `None` if the parameter does not exist.
    pub fn latest(&self, path: usize) -> Option<&Version> {
        self.paths[path].last()
    }

    /// Returns the number of the latest version, or 0 if there is none.
    pub fn latest_number(&self, path: usize) -> u8 {
        u8::try_from(self.paths[path].len()).unwrap_or(u8::MAX)
    }

    /// Returns the version with this number; `None` for 0 or a number that does not exist.
    pub fn version(&self, path: usize, number: u8) -> Option<&Version> {
        self.paths[path].get(usize::from(number).checked_sub(1)?)
    }

    /// Returns true when this login works.
    pub fn accepts(&self, role: u8, value: Value) -> bool {
        let role = self.roles[usize::from(role)];
        self.server != Server::NotThereYet && role.can_log_in && role.password == value
    }

    /// Returns the version that a host logs in with.
    pub fn login_of(&self, host: &Host) -> Option<&Version> {
        self.version(0, host.runs[0])
    }

    /// Returns true when the value existed at the time of the report.
    pub fn is_suspected(&self, value: Value) -> bool {
        self.report.is_some_and(|report| report.before & bit(value) != 0)
    }

    /// Returns true when a report requires the published value to be replaced. A target still accepts keyturn's last
    /// value, even if somebody has overwritten it in Parameter Store.
    pub fn has_to_go(&self, path: usize, has_target: bool) -> bool {
        let from_the_latest_down = || self.paths[path].iter().rev();
        let written_over = from_the_latest_down().take_while(|version| !version.by_us).count();
        let alive = if has_target { written_over + 1 } else { 1 };
        from_the_latest_down().take(alive).any(|version| self.is_suspected(version.value))
    }

    /// Returns true when the controller knows the hosts, from the spec or from a record.
    pub fn knows_hosts(&self) -> bool {
        self.object.names_hosts || !self.records.is_empty()
    }

    /// Returns true when the old login has to be revoked by now.
    pub fn is_due(&self) -> bool {
        self.report.is_some_and(|report| report.due)
    }
}

impl World {
    /// Adds a request with this effect to those under way.
    pub fn send(&mut self, effect: Effect) {
        self.flight.push(Request { effect, age: Age::New });
        self.flight.sort_unstable();
    }

    /// Returns all values that exist anywhere, as a bit set.
    pub fn values(&self) -> u64 {
        let published = self.outside.paths.iter().flatten().map(|version| version.value);
        let recorded = self.outside.records.values().flat_map(|record| record.values);
        let live = self.outside.roles.iter().map(|role| role.password);
        let sent = self.flight.iter().flat_map(|request| match request.effect {
            Effect::Record(_, record) => record.values.to_vec(),
            Effect::Put { version, .. } | Effect::Create { version, .. } => vec![version.value],
            Effect::Install { value, .. } => vec![value],
            _ => Vec::new(),
        });
        published
            .chain(recorded)
            .chain(live)
            .chain(sent)
            .map(bit)
            .fold(self.past.retired, |all, one| all | one)
    }

    /// Returns a value that was never used before.
    pub fn draw(&self, id: Id) -> Value {
        let known = self.values() | self.outside.report.map_or(0, |report| report.before);
        let first = (id * DRAWS).min(FOREIGN - DRAWS);
        (first..first + DRAWS).find(|value| known & bit(*value) == 0).unwrap_or(first)
    }

    /// Records a fault if a request is executed that status remembers.
    pub fn fault_unless_open(&mut self, request: u8) {
        if request > 0 && self.outside.object.handled & (1 << request) != 0 {
            self.fault("I3: a request that was answered or recorded is executed");
        }
    }

    /// Records a forbidden act; only the first one is kept.
    pub fn fault(&mut self, flaw: &'static str) {
        self.past.flaw.get_or_insert(flaw);
    }
}

/// Returns the bit of a value in a bit set.
pub fn bit(value: Value) -> u64 {
    1 << value
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outside = &self.outside;
        for (path, versions) in outside.paths.iter().enumerate() {
            let version = |v: &Version| {
                let id = v.stamp.map_or("-".to_owned(), |s| format!("{}v{}", s.id, s.expected));
                format!("{}({id}{}{:?})", v.value, if v.by_us { " " } else { " foreign " }, v.age)
            };
            let versions: Vec<String> = versions.iter().map(version).collect();
            writeln!(f, "    path {path}: {} SSM refuses: {:?}", versions.join(" "), outside.refusals[path])?;
        }
        for (id, record) in &outside.records {
            writeln!(f, "    record {id}: {record:?}")?;
        }
        writeln!(f, "    markers: {:?}", outside.markers)?;
        for role in outside.roles {
            writeln!(f, "    {role:?}")?;
        }
        writeln!(
            f,
            "    server: {:?}, thief: {:?}, report: {:?}",
            outside.server, outside.thief, outside.report
        )?;
        for host in &outside.hosts {
            writeln!(f, "    {host:?}")?;
        }
        writeln!(f, "    {:?}", outside.object)?;
        for request in &self.flight {
            writeln!(f, "    under way: {request:?}")?;
        }
        write!(f, "    {:?}", self.past)
    }
}
