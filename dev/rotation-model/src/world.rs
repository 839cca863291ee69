//! What there is in the world of one secret: Parameter Store, the target, the hosts, the object, and requests under way.
//!
//! Time is abstracted to the age of things. One half of the grace is one tick: what is [`Age::New`] may be missing from a
//! read, what is [`Age::Recent`] is younger than the grace, and what is [`Age::Old`] is not. A request dies with its second
//! tick, so that nothing is alive that was decided before something became old.

use std::collections::BTreeMap;

/// Most parameters of a secret.
pub const PATHS: usize = 2;

/// A value that was drawn or written; equal numbers are equal secrets.
pub type Value = u8;
pub type Id = u8;

/// What was published before keyturn came.
pub const FIRST: Value = 0;
/// The password of a server that nobody has published.
pub const UNKNOWN: Value = 62;
/// The password of a role that cannot log in.
pub const NONE: Value = 63;
/// From here on: what other people write.
pub const FOREIGN: Value = 56;
/// So many values one rotation may draw, by controllers that do not know of each other.
pub const DRAWS: u8 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Age {
    New,
    Recent,
    Old,
}

impl Age {
    pub fn grown(self) -> Self {
        match self {
            Age::New => Age::Recent,
            Age::Recent | Age::Old => Age::Old,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    pub id: Id,
    /// The number that the writer expected the version to get.
    pub expected: u8,
    /// The request that the rotation answers, or 0.
    pub request: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub value: Value,
    /// The role whose login it is.
    pub role: u8,
    pub stamp: Option<Stamp>,
    pub age: Age,
    /// Whether it was made before the incident was reported.
    pub suspected: bool,
    /// Whether the controller put it, which evidence has to find out.
    pub by_us: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    Missing,
    Request,
    Drift,
    RollBack,
    Incident,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    pub why: Why,
    /// By path; of a login they are one password.
    pub values: [Value; PATHS],
    pub role: u8,
    pub replaces: Option<u8>,
    /// By path: the number of the version that it replaces, 0 for none.
    pub base: [u8; PATHS],
    pub kept: [bool; PATHS],
    pub request: u8,
    pub suspected: bool,
    pub age: Age,
}

/// What SSM says to a Put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It is taken.
    None,
    /// It is refused, and the parameter shows why: its type, a label on its oldest version.
    Shown,
    /// It is denied, which only another Put shows.
    Hidden,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Role {
    pub password: Value,
    pub can_log_in: bool,
    /// The rotation that has changed it last.
    pub fence: Id,
    pub changed: Age,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// It takes its first password from what is deployed.
    NotThereYet,
    There,
    /// The controller cannot reach it. Hosts can.
    Silent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shows {
    Proven,
    Differs,
    Incomparable,
}

/// What a run has shown of one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proof {
    pub version: u8,
    pub shows: Shows,
    /// Whether a deployment of this version ended well.
    pub deployed: bool,
    /// Whether it is younger than the preflight.
    pub asked: bool,
}

/// How the last deployment failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    pub versions: [u8; PATHS],
    /// Whether the host has shown it, and not only the connection.
    pub rejected: bool,
    /// Whether nothing was compared since.
    pub unseen: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// By path: the version that its containers run, 0 for none.
    pub runs: [u8; PATHS],
    pub proofs: [Option<Proof>; PATHS],
    pub failed: Option<Failure>,
    pub deploying: Option<[u8; PATHS]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deleting {
    pub age: Age,
    /// Whether the time for finishing is over.
    pub overdue: bool,
}

/// The ManagedSecret: its metadata, its status, and what the process remembers of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    pub gone: bool,
    pub deleting: Option<Deleting>,
    pub finalizer: bool,
    /// Whether a RotationGrant covers it.
    pub granted: bool,
    /// Whether the spec names another source than the one that began.
    pub other_source: bool,
    /// The number of the request in the annotation, or 0.
    pub asked: u8,
    /// Bit by bit: the requests that status remembers.
    pub handled: u8,
    /// What the rotation that ended last has answered.
    pub last_answered: u8,
    pub preflight: bool,
    /// Whether its status is empty: what is in the annotation came with it.
    pub unseen: bool,
    /// Whether the spec names the hosts.
    pub names_hosts: bool,
    /// Whether what failed last was a publication, for good.
    pub publication_refused: bool,
    /// Since when the process has seen no record.
    pub settled: Option<Age>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    pub age: Age,
    /// Whether the old login has to be dead by now.
    pub due: bool,
    /// Bit by bit: the values there were when it was made.
    pub before: u64,
}

/// Everything outside of the controller, as evidence could show it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outside {
    pub paths: Vec<Vec<Version>>,
    pub refusals: [Refusal; PATHS],
    pub records: BTreeMap<Id, Record>,
    pub markers: BTreeMap<Id, Age>,
    pub roles: [Role; 2],
    pub server: Server,
    /// The role as which somebody who stole the login has a session.
    pub thief: Option<u8>,
    pub hosts: Vec<Host>,
    pub object: Object,
    pub report: Option<Report>,
}

/// A request of some controller that has been sent and may be applied at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    pub effect: Effect,
    pub age: Age,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    Record(Id, Record),
    Mark(Id),
    DropRecord(Id),
    DropMarker(Id),
    Put {
        path: u8,
        version: Version,
    },
    /// The first version of the only parameter, for which there is no record, and the request that it answers, or 0.
    Create {
        version: Version,
        request: u8,
    },
    DropParameter(u8),
    Install {
        id: Id,
        role: u8,
        value: Value,
    },
    Retire {
        id: Id,
        role: u8,
    },
    EndSessions {
        role: u8,
    },
}

/// What may still happen, by how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// New requests for a rotation.
    pub asks: u8,
    /// The annotation goes back to the request before.
    pub reverts: u8,
    /// Decisions on reads that miss the newest.
    pub stale: u8,
    /// Requests that are applied twice.
    pub twice: u8,
    /// Foreign writes: under a description that SSM keeps, or without one.
    pub foreign: u8,
    /// An older version is put again, description and all.
    pub restored: u8,
    /// SSM begins to refuse Puts, visibly or not.
    pub refusals: u8,
    /// The server cannot be asked for a while.
    pub silences: u8,
    /// A deployment that the host rejects.
    pub rejections: u8,
    /// A deployment of which nobody knows how it ended.
    pub unknowns: u8,
    pub reports: u8,
    /// The incident is deleted.
    pub retractions: u8,
    pub deletions: u8,
    /// The grant is withdrawn.
    pub withdrawals: u8,
    /// The spec names another source.
    pub edits: u8,
    /// The spec names its hosts, or none of them any more.
    pub host_edits: u8,
    /// Somebody puts a parameter that is not there.
    pub puts: u8,
    /// Somebody deletes a parameter.
    pub removals: u8,
    /// Status and memory are lost.
    pub losses: u8,
}

/// What has happened, which nothing that decides can see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// By request: the rotations that were begun for it.
    pub begun: [u8; 4],
    /// Bit by bit: values that must never be accepted again.
    pub retired: u64,
    /// The highest rotation that was published and closed.
    pub closed: Id,
    pub abandoned: bool,
    pub foreign_writes: u8,
    /// What a step did that no step may do.
    pub flaw: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub outside: Outside,
    pub flight: Vec<Request>,
    pub left: Budget,
    pub past: Past,
}

impl Outside {
    pub fn latest(&self, path: usize) -> Option<&Version> {
        self.paths[path].last()
    }

    /// Number of the latest version, 0 where there is none.
    pub fn latest_number(&self, path: usize) -> u8 {
        u8::try_from(self.paths[path].len()).unwrap_or(u8::MAX)
    }

    pub fn version(&self, path: usize, number: u8) -> Option<&Version> {
        self.paths[path].get(usize::from(number).checked_sub(1)?)
    }

    /// Whether this login works.
    pub fn accepts(&self, role: u8, value: Value) -> bool {
        let role = self.roles[usize::from(role)];
        self.server != Server::NotThereYet && role.can_log_in && role.password == value
    }

    /// What a host logs in with.
    pub fn login_of(&self, host: &Host) -> Option<&Version> {
        self.version(0, host.runs[0])
    }

    pub fn is_suspected(&self, value: Value) -> bool {
        self.report.is_some_and(|report| report.before & bit(value) != 0)
    }

    /// Whether a report wants another value in the place of what is published. A target accepts the last of ours still,
    /// whatever somebody wrote over it.
    pub fn has_to_go(&self, path: usize, has_target: bool) -> bool {
        let from_the_latest_down = || self.paths[path].iter().rev();
        let written_over = from_the_latest_down().take_while(|version| !version.by_us).count();
        let alive = if has_target { written_over + 1 } else { 1 };
        from_the_latest_down().take(alive).any(|version| self.is_suspected(version.value))
    }

    /// Whether anything tells the controller of the hosts: the spec, or a record.
    pub fn knows_hosts(&self) -> bool {
        self.object.names_hosts || !self.records.is_empty()
    }

    pub fn is_due(&self) -> bool {
        self.report.is_some_and(|report| report.due)
    }
}

impl World {
    pub fn send(&mut self, effect: Effect) {
        self.flight.push(Request { effect, age: Age::New });
        self.flight.sort_unstable();
    }

    /// Every value there is anywhere.
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

    /// A value that nobody has seen before.
    pub fn draw(&self, id: Id) -> Value {
        let known = self.values() | self.outside.report.map_or(0, |report| report.before);
        let first = (id * DRAWS).min(FOREIGN - DRAWS);
        (first..first + DRAWS).find(|value| known & bit(*value) == 0).unwrap_or(first)
    }

    /// What status remembers is not executed.
    pub fn fault_unless_open(&mut self, request: u8) {
        if request > 0 && self.outside.object.handled & (1 << request) != 0 {
            self.fault("I3: a request that was answered or recorded is executed");
        }
    }

    pub fn fault(&mut self, flaw: &'static str) {
        self.past.flaw.get_or_insert(flaw);
    }
}

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
