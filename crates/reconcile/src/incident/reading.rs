//! How far a reading of CloudTrail has come: which event of which region is asked for, and down to which moment. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::ManagedSecret;
use keyturn_api::secret_incident::ReadingStatus;
use kube::ResourceExt;

use super::event::{CHANGES, Call, DECRYPT, READS};
use crate::parameter_store::records;

/// CloudTrail's LookupEvents answers nothing older.
pub const KEPT: TimeDelta = TimeDelta::days(90);
/// How long before the search the addresses count from which expected principals call.
const BEFORE: TimeDelta = TimeDelta::days(7);
const MAX_SEEN: usize = 500;

/// One suspected secret, as CloudTrail knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    pub secret: String,
    pub region: String,
    pub paths: Vec<String>,
    /// Where the records of its rotations lie, with its closing slash; `None` where nobody knows.
    pub folder: Option<String>,
}

impl Watched {
    /// What the calls about a secret name. `staging` is the path below which the records of rotations lie.
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

/// What is asked of CloudTrail next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub region: String,
    pub event: String,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

/// Every region and event name, in the order in which they are asked.
fn queries(watched: &[Watched], before: bool) -> Vec<String> {
    let mut regions: Vec<&str> = watched.iter().map(|w| w.region.as_str()).collect();
    regions.sort_unstable();
    regions.dedup();
    let more: &[&str] = if before { &[] } else { &[CHANGES.as_slice(), &[DECRYPT]].concat() };
    let names = || READS.iter().chain(more);
    regions.iter().flat_map(|region| names().map(move |name| format!("{region} {name}"))).collect()
}

/// A reading of these times; `before` asks for reads alone. `None` where nothing is watched.
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

/// A reading of the time before a search, for the addresses that were used then. `None` where CloudTrail has forgotten it.
pub fn before(watched: &[Watched], since: DateTime<Utc>, now: DateTime<Utc>) -> Option<ReadingStatus> {
    let from = (since - BEFORE).max(now - KEPT);
    let to = since - TimeDelta::seconds(1);
    (from < to).then(|| start(watched, from, to, true)).flatten()
}

/// What a reading asks for now.
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

/// Whether this reading has not come to a call yet; from then on it has.
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

/// The same reading after the last page of a query: at its next one, or `None` at the end.
pub fn next(mut reading: ReadingStatus, watched: &[Watched]) -> Option<ReadingStatus> {
    let mut all = queries(watched, reading.before).into_iter();
    all.find(|query| *query == reading.query)?;
    reading.query = all.next()?;
    reading.down_to = reading.to;
    reading.seen.clear();
    Some(reading)
}

/// The secrets that a call is about.
pub fn concerned<'a>(call: &Call, watched: &'a [Watched]) -> Vec<&'a str> {
    let changes = CHANGES.contains(&call.name.as_str());
    let touches = |w: &Watched| w.folder.as_ref().is_some_and(|folder| call.about.touches(folder));
    let is_about =
        |w: &&Watched| w.paths.iter().any(|path| call.about.covers(path)) || !changes && touches(w);
    watched.iter().filter(is_about).map(|w| w.secret.as_str()).collect()
}
