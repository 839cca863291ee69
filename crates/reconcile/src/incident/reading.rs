//! Progress of a reading of CloudTrail: the region and event name that are queried, and the time down to which events were
//! read. The functions are pure.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::ManagedSecret;
use keyturn_api::secret_incident::ReadingStatus;
use kube::ResourceExt;

use super::event::{CHANGES, Call, DECRYPT, READS};
use crate::parameter_store::records;

/// Age of the oldest events that CloudTrail's LookupEvents returns.
pub const KEPT: TimeDelta = TimeDelta::days(90);
/// Length of the time before the search that is read for known addresses: an address that an expected principal used in
/// this time counts as known.
const BEFORE: TimeDelta = TimeDelta::days(7);
const MAX_SEEN: usize = 500;

/// One suspected secret, by the names that CloudTrail events use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Name of the ManagedSecret.
    pub secret: String,
    /// Region of its parameters.
    pub region: String,
    /// Paths of its parameters.
    pub paths: Vec<String>,
    /// Folder of the records of its rotations, with its closing slash; `None` if it is not known.
    pub folder: Option<String>,
}

impl Watched {
    /// Returns the names by which CloudTrail events refer to a secret. `staging` is the path below which the records of
    /// rotations are stored.
    pub fn of(secret: &ManagedSecret, region: &str, staging: Option<&str>) -> Self {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        Self {
            region: region.to_owned(),
            paths: secret.spec.ssm.parameters.iter().map(|parameter| parameter.path.clone()).collect(),
            folder: staging.map(|staging| records::folder(staging, &namespace, &name)),
            secret: name,
        }
    }
}

/// The next query to CloudTrail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Region to query.
    pub region: String,
    /// Name of the events, such as `GetParameter`.
    pub event: String,
    /// Earliest time of the events, in whole seconds.
    pub from: DateTime<Utc>,
    /// Latest time of the events, in whole seconds. It moves back as events are read, since the latest come first.
    pub to: DateTime<Utc>,
}

/// Returns every region and event name, in the order in which they are queried. If `before` is true, these are only the
/// events of reads.
fn queries(watched: &[Watched], before: bool) -> Vec<String> {
    let mut regions: Vec<&str> = watched.iter().map(|w| w.region.as_str()).collect();
    regions.sort_unstable();
    regions.dedup();
    let more: &[&str] = if before { &[] } else { &[CHANGES.as_slice(), &[DECRYPT]].concat() };
    let names = || READS.iter().chain(more);
    regions.iter().flat_map(|region| names().map(move |name| format!("{region} {name}"))).collect()
}

/// Starts a reading of this time span; `None` if no secret is watched. `before` marks a reading of the time before the
/// search, which covers only calls that read values.
pub fn start(
    watched: &[Watched],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    before: bool,
) -> Option<ReadingStatus> {
    let query = queries(watched, before).into_iter().next()?;
    let (from, to) = (from.timestamp(), to.timestamp());
    Some(ReadingStatus { from, to, query, down_to: to, before, ..ReadingStatus::default() })
}

/// Starts a reading of the time before a search, for the addresses that were used then. `None` if no secret is watched,
/// or if CloudTrail keeps no events of that time any more.
pub fn before(watched: &[Watched], since: DateTime<Utc>, now: DateTime<Utc>) -> Option<ReadingStatus> {
    let from = (since - BEFORE).max(now - KEPT);
    let to = since - TimeDelta::seconds(1);
    (from < to).then(|| start(watched, from, to, true)).flatten()
}

/// Returns the current query of a reading; `None` if its fields cannot be parsed.
pub fn query(reading: &ReadingStatus) -> Option<Query> {
    let (region, event) = reading.query.split_once(' ')?;
    let at = |seconds| DateTime::from_timestamp(seconds, 0);
    Some(Query {
        region: region.to_owned(),
        event: event.to_owned(),
        from: at(reading.from)?,
        to: at(reading.down_to)?,
    })
}

/// True when this reading sees the call for the first time. The call is then marked as seen.
pub fn is_fresh(reading: &mut ReadingStatus, call: &Call) -> bool {
    let at = call.at.timestamp();
    if at > reading.down_to || reading.seen.contains(&call.id) {
        return false;
    }
    if at < reading.down_to {
        reading.down_to = at;
        reading.seen.clear();
    }
    if reading.seen.len() < MAX_SEEN {
        reading.seen.push(call.id.clone());
    }
    true
}

/// Moves the reading to its next query, after the last page of a query. `None` at the end.
pub fn next(mut reading: ReadingStatus, watched: &[Watched]) -> Option<ReadingStatus> {
    let mut all = queries(watched, reading.before).into_iter();
    all.find(|query| *query == reading.query)?;
    reading.query = all.next()?;
    reading.down_to = reading.to;
    reading.seen.clear();
    Some(reading)
}

/// Returns the names of the secrets that a call is about. A read of the records of a secret's rotations is about the
/// secret, too.
pub fn concerned<'a>(call: &Call, watched: &'a [Watched]) -> Vec<&'a str> {
    let changes = CHANGES.contains(&call.name.as_str());
    let touches = |w: &Watched| w.folder.as_ref().is_some_and(|folder| call.about.touches(folder));
    let is_about =
        |w: &&Watched| w.paths.iter().any(|path| call.about.covers(path)) || !changes && touches(w);
    watched.iter().filter(is_about).map(|w| w.secret.as_str()).collect()
}
