//! The subject of one search: the secret, its hosts, and the events that may happen to them.

use keyturn::api::managed_secret::{OnDrift, OnFailure};

use crate::search::STUCK;
use crate::seeds::Seed;
use crate::world::{
    Age, Budget, FIRST, Host, NONE, Object, Outside, PATHS, Past, Refusal, Role, Server, UNKNOWN, Version,
    World,
};

/// The source of the secret's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A random value: only the hosts have to accept it.
    Random,
    /// One role, whose password is changed in place.
    InPlace,
    /// One role changed in place without an administrator, and so without a fence.
    InPlaceUnfenced,
    /// Two roles that alternate.
    Alternating,
}

/// The subject of one search.
#[derive(Clone, Debug)]
pub struct Story {
    /// Name by which the command line and the seeds select the story.
    pub name: &'static str,
    /// Source of the value at the beginning of the story.
    pub source: Source,
    /// Number of parameters, one or two.
    pub paths: usize,
    /// Number of hosts, at most two. A random value without hosts is created by one Put, without a record.
    pub hosts: usize,
    /// True when the spec names these hosts at the beginning of the story.
    pub names_hosts: bool,
    /// True when the comparison can see the values that containers run.
    pub comparable: bool,
    /// True with `retire.requires: Verify`: a passed verify script is enough if containers cannot be compared.
    pub verify_is_enough: bool,
    /// The spec's `onFailure`: the reaction to a deployment that fails for good.
    pub on_failure: OnFailure,
    /// The spec's `onDrift`: the reaction to a foreign write.
    pub on_drift: OnDrift,
    /// True with `deletionPolicy: Delete`.
    pub delete_parameters: bool,
    /// True when something was published before the story begins.
    pub published: bool,
    /// State of the server at the beginning of the story.
    pub server: Server,
    /// True when deploy scripts fetch the version that they are given, and not the latest one.
    pub pinned: bool,
    /// True when a request was recorded at the time when the object was first seen, and is still in the annotation.
    pub recorded_request: bool,
    /// True when a request came with the object, which the controller has not seen yet.
    pub request_came_with_it: bool,
    /// Largest number of requests under way at the same time.
    pub in_flight: usize,
    /// Number of times that each event may happen.
    pub may: Budget,
    /// Deliberate bug that the story has to find; `None` in the ordinary stories.
    pub seed: Option<Seed>,
    /// Known violations in this story, which `docs/model.md` describes.
    pub known: &'static [&'static str],
}

impl Story {
    const fn new(name: &'static str, source: Source) -> Self {
        Self {
            name,
            source,
            paths: 1,
            hosts: 1,
            names_hosts: true,
            comparable: true,
            verify_is_enough: false,
            on_failure: OnFailure::Hold,
            on_drift: OnDrift::Alert,
            delete_parameters: false,
            published: true,
            server: Server::There,
            pinned: true,
            recorded_request: false,
            request_came_with_it: false,
            in_flight: 1,
            may: NOTHING,
            seed: None,
            known: &[],
        }
    }

    /// Returns true when the value is a login, which a server has to accept.
    pub fn has_target(&self) -> bool {
        self.source != Source::Random
    }

    /// Returns true when the first value is created by one Put, as long as the spec names no host.
    pub fn begins_with_one_put(&self) -> bool {
        self.source == Source::Random && self.paths == 1 && !self.published
    }

    /// Returns true when a rotation changes the password of the role that is in use.
    pub fn is_in_place(&self) -> bool {
        matches!(self.source, Source::InPlace | Source::InPlaceUnfenced)
    }

    /// Returns true when the server refuses to change a role for a rotation older than the role's fence.
    pub fn is_fenced(&self) -> bool {
        matches!(self.source, Source::InPlace | Source::Alternating)
    }

    /// Returns the world before the first move.
    pub fn begin(&self) -> World {
        let first =
            Version { value: FIRST, role: 0, stamp: None, age: Age::Old, suspected: false, by_us: true };
        let number = u8::from(self.published);
        let runs = std::array::from_fn(|path| if path < self.paths { number } else { 0 });
        let host = Host { runs, proofs: [None; PATHS], failed: None, deploying: None };
        let role = |password, can_log_in| Role { password, can_log_in, fence: 0, changed: Age::Old };
        let outside = Outside {
            paths: vec![if self.published { vec![first] } else { Vec::new() }; self.paths],
            refusals: [Refusal::None; PATHS],
            records: Default::default(),
            markers: Default::default(),
            roles: [role(if self.published { FIRST } else { UNKNOWN }, self.has_target()), role(NONE, false)],
            server: self.server,
            thief: None,
            hosts: vec![host; self.hosts],
            object: Object {
                gone: false,
                deleting: None,
                // An object that existed before already has its finalizer.
                finalizer: self.delete_parameters && self.published,
                granted: true,
                other_source: false,
                asked: u8::from(self.recorded_request || self.request_came_with_it),
                handled: u8::from(self.recorded_request) << 1,
                last_answered: u8::from(self.recorded_request),
                preflight: false,
                unseen: self.request_came_with_it,
                names_hosts: self.names_hosts,
                publication_refused: false,
                settled: None,
            },
            report: None,
        };
        World { outside, flight: Vec::new(), left: self.may, past: Past::default() }
    }
}

const NOTHING: Budget = Budget {
    asks: 0,
    reverts: 0,
    stale: 0,
    twice: 0,
    foreign: 0,
    restored: 0,
    refusals: 0,
    silences: 0,
    rejections: 0,
    unknowns: 0,
    reports: 0,
    retractions: 0,
    deletions: 0,
    withdrawals: 0,
    edits: 0,
    host_edits: 0,
    puts: 0,
    removals: 0,
    losses: 0,
};
const ONE: Budget = Budget { asks: 1, ..NOTHING };
const TWO: Budget = Budget { asks: 2, ..NOTHING };

/// Returns the stories that a test searches, in seconds.
pub fn small() -> Vec<Story> {
    [rotations(), first_values()].concat()
}

fn rotations() -> Vec<Story> {
    use Source::{Alternating, InPlace, InPlaceUnfenced, Random};
    let of = Story::new;
    let roll_back = |story: Story| Story { on_failure: OnFailure::RollBack, ..story };
    vec![
        Story { may: ONE, hosts: 2, ..of("a random value, two hosts", Random) },
        Story { may: ONE, in_flight: 2, ..of("a random value, two controllers", Random) },
        Story { may: ONE, in_flight: 2, ..of("in place, two controllers", InPlace) },
        Story { may: ONE, in_flight: 2, ..of("alternating, two controllers", Alternating) },
        Story { may: Budget { foreign: 1, ..ONE }, ..of("in place, a foreign write", InPlace) },
        Story {
            may: Budget { restored: 1, ..TWO },
            ..of("alternating, an old version put back", Alternating)
        },
        Story { may: Budget { refusals: 1, ..ONE }, ..of("in place, SSM refuses", InPlace) },
        Story {
            may: Budget { refusals: 1, ..ONE },
            paths: 2,
            ..of("in place, SSM refuses one of two", InPlace)
        },
        roll_back(Story {
            may: Budget { rejections: 1, unknowns: 1, ..ONE },
            ..of("in place, deployments fail", InPlace)
        }),
        roll_back(Story {
            may: Budget { rejections: 1, unknowns: 1, ..ONE },
            ..of("alternating, deployments fail", Alternating)
        }),
        Story {
            may: Budget { unknowns: 1, ..ONE },
            comparable: false,
            verify_is_enough: true,
            ..of("alternating, nothing to compare", Alternating)
        },
        Story {
            published: false,
            server: Server::There,
            may: ONE,
            ..of("in place, the first password", InPlace)
        },
        Story {
            published: false,
            server: Server::NotThereYet,
            may: ONE,
            ..of("in place, an empty environment", InPlace)
        },
        Story { may: Budget { edits: 1, silences: 1, ..ONE }, ..of("in place, another source", InPlace) },
        Story { may: Budget { reports: 1, ..NOTHING }, in_flight: 2, ..of("in place, an incident", InPlace) },
        Story { may: Budget { reports: 1, ..NOTHING }, ..of("alternating, an incident", Alternating) },
        Story {
            may: Budget { reports: 1, foreign: 1, ..NOTHING },
            ..of("alternating, an incident on a foreign write", Alternating)
        },
        Story {
            may: Budget { reports: 1, retractions: 1, foreign: 1, ..NOTHING },
            ..of("a random value, an incident on a foreign write, deleted", Random)
        },
        Story {
            may: Budget { reports: 1, ..NOTHING },
            recorded_request: true,
            ..of("a random value, an incident after a recorded request", Random)
        },
        Story { may: Budget { deletions: 1, ..ONE }, ..of("in place, deleted", InPlace) },
        Story {
            may: Budget { deletions: 1, withdrawals: 1, ..ONE },
            ..of("a random value, deleted without a grant", Random)
        },
        Story { may: ONE, ..of("in place, unfenced", InPlaceUnfenced) },
    ]
}

/// Returns stories of a random value without hosts, where no parameter exists.
fn first_values() -> Vec<Story> {
    let empty = |name: &'static str| Story {
        hosts: 0,
        published: false,
        in_flight: 2,
        ..Story::new(name, Source::Random)
    };
    let late = Budget { stale: 1, twice: 1, ..NOTHING };
    vec![
        Story { may: late, ..empty("a first value, two controllers") },
        Story { may: Budget { asks: 1, ..late }, ..empty("a first value, asked for at any time") },
        Story {
            may: Budget { puts: 1, foreign: 1, removals: 1, ..late },
            ..empty("a first value, written and removed by others")
        },
        Story {
            may: Budget { foreign: 1, removals: 1, stale: 1, ..NOTHING },
            on_drift: OnDrift::Rotate,
            ..empty("a first value, written over and rotated")
        },
        Story {
            may: Budget { puts: 1, removals: 1, ..late },
            request_came_with_it: true,
            ..empty("a first value, a request that came with it")
        },
        Story {
            may: Budget { asks: 1, deletions: 1, ..late },
            ..empty("a first value, whose object is deleted")
        },
        Story {
            may: Budget { deletions: 1, puts: 1, removals: 1, ..late },
            delete_parameters: true,
            ..empty("a first value, deleted with its parameter")
        },
        Story {
            may: Budget { asks: 1, deletions: 1, stale: 1, ..NOTHING },
            delete_parameters: true,
            ..empty("a first value, rotated and deleted with its parameter")
        },
        Story {
            may: Budget { refusals: 1, deletions: 1, ..NOTHING },
            delete_parameters: true,
            ..empty("a first value, SSM refuses")
        },
        Story { may: Budget { reports: 1, ..late }, ..empty("a first value, an incident") },
        // A controller that reads the spec with hosts makes a record, one that reads the other spec does not: both
        // count as rotation 1.
        Story {
            may: Budget { host_edits: 2, stale: 1, deletions: 1, ..NOTHING },
            hosts: 1,
            names_hosts: false,
            ..empty("a first value, hosts that come and go")
        },
    ]
}

/// Returns the stories of `make model`, which take minutes: several events happen in one run.
pub fn large() -> Vec<Story> {
    [rotations_in_trouble(), incidents_and_ends()].concat()
}

fn rotations_in_trouble() -> Vec<Story> {
    use Source::{Alternating, InPlace, InPlaceUnfenced, Random};
    let of = Story::new;
    let roll_back = |story: Story| Story { on_failure: OnFailure::RollBack, ..story };
    let late = Budget { stale: 1, twice: 1, ..TWO };
    vec![
        Story { may: late, in_flight: 2, ..of("a random value, late requests and stale reads", Random) },
        Story { may: late, in_flight: 2, ..of("in place, late requests and stale reads", InPlace) },
        Story { may: late, in_flight: 2, ..of("alternating, late requests and stale reads", Alternating) },
        Story {
            may: Budget { stale: 1, ..TWO },
            in_flight: 2,
            ..of("unfenced, stale reads", InPlaceUnfenced)
        },
        Story {
            may: Budget { losses: 1, reverts: 1, ..TWO },
            ..of("in place, status lost, an older request", InPlace)
        },
        Story {
            may: TWO,
            hosts: 2,
            pinned: false,
            ..of("alternating, two hosts that fetch the latest", Alternating)
        },
        Story {
            may: Budget { foreign: 1, restored: 1, ..TWO },
            ..of("in place, foreign and restored versions", InPlace)
        },
        Story {
            may: Budget { foreign: 1, restored: 1, ..TWO },
            on_drift: OnDrift::Rotate,
            ..of("alternating, foreign versions replaced", Alternating)
        },
        Story {
            may: Budget { foreign: 1, restored: 1, ..TWO },
            on_drift: OnDrift::Adopt,
            ..of("a random value, foreign versions adopted", Random)
        },
        Story {
            may: Budget { refusals: 2, foreign: 1, silences: 1, ..ONE },
            known: &[STUCK],
            ..of("in place, refused, foreign and silent", InPlace)
        },
        Story {
            may: Budget { refusals: 2, stale: 1, ..ONE },
            paths: 2,
            in_flight: 2,
            known: &[STUCK],
            ..of("in place, one of two refused", InPlace)
        },
        Story {
            may: Budget { refusals: 2, ..ONE },
            paths: 2,
            ..of("alternating, one of two refused", Alternating)
        },
        roll_back(Story {
            may: Budget { rejections: 2, unknowns: 1, stale: 1, foreign: 1, ..ONE },
            in_flight: 2,
            ..of("in place, rolled back", InPlace)
        }),
        roll_back(Story {
            may: Budget { rejections: 2, unknowns: 1, stale: 1, ..ONE },
            hosts: 2,
            ..of("alternating, two hosts, rolled back", Alternating)
        }),
        roll_back(Story {
            may: Budget { rejections: 1, unknowns: 1, ..ONE },
            comparable: false,
            verify_is_enough: true,
            hosts: 2,
            ..of("alternating, two hosts, nothing to compare", Alternating)
        }),
    ]
}

fn incidents_and_ends() -> Vec<Story> {
    use Source::{Alternating, InPlace, InPlaceUnfenced};
    let of = Story::new;
    let roll_back = |story: Story| Story { on_failure: OnFailure::RollBack, ..story };
    let incident = Budget { reports: 1, ..ONE };
    vec![
        Story {
            may: Budget { silences: 1, stale: 1, ..incident },
            ..of("in place, an incident in mid-rotation", InPlace)
        },
        Story {
            may: Budget { silences: 1, stale: 1, ..incident },
            in_flight: 2,
            ..of("alternating, an incident in mid-rotation", Alternating)
        },
        roll_back(Story {
            may: Budget { rejections: 1, unknowns: 1, refusals: 1, ..incident },
            known: &[STUCK],
            ..of("in place, an incident and failures", InPlace)
        }),
        roll_back(Story {
            may: Budget { rejections: 1, foreign: 1, ..incident },
            ..of("alternating, an incident and failures", Alternating)
        }),
        Story { may: incident, ..of("unfenced, an incident", InPlaceUnfenced) },
        roll_back(Story {
            may: Budget { deletions: 1, rejections: 1, silences: 1, refusals: 1, ..ONE },
            known: &[STUCK],
            ..of("in place, deleted while things fail", InPlace)
        }),
        roll_back(Story {
            may: Budget { deletions: 1, rejections: 1, withdrawals: 1, stale: 1, ..ONE },
            delete_parameters: true,
            in_flight: 2,
            known: &[
                "I10: the object is gone and its rotation is not",
                "I1: a live password is neither published nor recorded",
            ],
            ..of("alternating, deleted with its parameters", Alternating)
        }),
        Story {
            published: false,
            server: Server::NotThereYet,
            may: Budget { silences: 1, refusals: 1, unknowns: 1, stale: 1, ..ONE },
            in_flight: 2,
            ..of("in place, an empty environment in trouble", InPlace)
        },
        Story {
            published: false,
            may: Budget { silences: 1, refusals: 1, foreign: 1, ..ONE },
            known: &[STUCK],
            ..of("in place, the first password in trouble", InPlace)
        },
    ]
}
