//! Gathers the evidence about one secret. The shared inventory is enough as long as it shows that nothing has to be
//! done; before an act, Parameter Store is read in full.

pub mod coverage;
pub(super) mod logins;
pub(super) mod pairs;
pub(super) mod sight;
pub(super) mod target;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use keyturn_api::docker_host::{HostRun, RunMode, RunResult};
use keyturn_api::managed_secret::{LastRotation, Origin};
use keyturn_api::time::from_kubernetes;
use keyturn_api::{DockerHost, ManagedSecret, Reason, Trouble, conditions};
use keyturn_rotation::observed::{
    Author, HostEvidence, HostFailure, HostProof, Observed, Parameter, Record, RotationId, Seen, Version,
};
use keyturn_secret_value::SecretValue;

use super::desired;
use super::status::progress::{Login, Progress};
use crate::objects::Hosts;
use crate::parameter_store::records::{self, RecordError, StagedKind};
use crate::parameter_store::{FolderEntry, Kept, ParameterStore, StoreError};
use crate::ports::Excerpt;
use crate::source;

#[derive(Debug, thiserror::Error)]
pub(super) enum ObserveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Names and paths of one secret in Parameter Store.
pub(super) struct Place<'a> {
    pub owner: &'a str,
    pub staging: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub paths: &'a [String],
}

impl Place<'_> {
    pub(super) fn folder(&self) -> String {
        records::folder(self.staging, self.namespace, self.name)
    }
}

/// Does a full read of Parameter Store: the open records, and the history of each parameter.
async fn read_in_full(store: &dyn ParameterStore, place: &Place<'_>) -> Result<Observed, ObserveError> {
    let mut observed = Observed::default();
    for FolderEntry { path, modified, value } in store.read_folder(&place.folder()).await? {
        match records::parse_path(place.staging, &path) {
            Some(what) if what.kind == StagedKind::Record => {
                observed.records.insert(what.id, records::decode(&path, &value)?);
            }
            Some(what) => {
                observed.aborts.insert(what.id, modified);
            }
            None => {}
        }
    }
    for path in place.paths {
        let Kept { versions, shape } = store.kept(path).await?;
        let duplicates = duplicates(store, place.owner, path, &versions, &observed.records).await?;
        let base = observed.records.values().next_back().map(|r| r.base.get(path).copied().unwrap_or(0));
        let parameter = Parameter::classify(path, place.owner, versions, base, &duplicates);
        observed.parameters.push(Parameter { shape, ..parameter });
    }
    observed.mismatched = mismatched(store, &observed).await?;
    Ok(observed)
}

/// Returns the versions that have a value of keyturn although no stamp with their own number shows this. There are two
/// cases:
/// - The stamp has another number, but the value is that of the stamp's rotation: SSM has applied our Put twice.
/// - The latest version has no stamp, but the value of our newest stamped version: somebody has put that value again.
///
/// Versions before our newest stamped version do not matter any more and are left out. So are versions that cannot be
/// read, for example because their key was disabled.
async fn duplicates(
    store: &dyn ParameterStore,
    owner: &str,
    path: &str,
    versions: &[Version],
    records: &BTreeMap<RotationId, Record>,
) -> Result<BTreeSet<i64>, StoreError> {
    let mut duplicates = BTreeSet::new();
    let fits = |v: &Version| v.stamp.as_ref().is_some_and(|s| s.owner == owner && s.version == v.number);
    let newest = versions.iter().filter(|v| fits(v)).map(|v| v.number).max().unwrap_or(0);
    for (version, stamp) in Parameter::misfits(owner, versions).filter(|(v, _)| v.number > newest) {
        let Some(value) = readable(store, path, version.number).await? else { continue };
        let recorded = records.get(&stamp.id).and_then(|record| record.values.get(path));
        let of_the_same_id = |v: &&Version| v.stamp.as_ref().is_some_and(|s| s.id == stamp.id);
        let fitting = versions.iter().filter(|v| fits(v)).find(of_the_same_id);
        let mut same = recorded.is_some_and(|recorded| recorded.same_as(&value));
        // Compare with the published version too: if somebody has restored the record, it may contain another value.
        if let Some(fitting) = fitting.filter(|_| !same) {
            let published = store.read(path, Some(fitting.number)).await?;
            same = published.is_some_and(|published| published.same_as(&value));
        }
        if same {
            duplicates.insert(version.number);
        }
    }
    if newest > 0
        && let Some(latest) = versions.last().filter(|v| v.number > newest && v.stamp.is_none())
        && let Some(value) = readable(store, path, latest.number).await?
        && let Some(published) = readable(store, path, newest).await?
        && published.same_as(&value)
    {
        duplicates.insert(latest.number);
    }
    Ok(duplicates)
}

/// Reads the value of a version; `None` if the version does not exist, or if SSM denies or rejects the read.
async fn readable(
    store: &dyn ParameterStore,
    path: &str,
    number: i64,
) -> Result<Option<SecretValue>, StoreError> {
    match store.read(path, Some(number)).await {
        Err(StoreError::Denied { .. } | StoreError::Rejected { .. }) => Ok(None),
        answer => answer,
    }
}

/// Returns the number of keys in the published key ring; `None` if nothing is published.
async fn published_keys(
    store: &dyn ParameterStore,
    object: &ManagedSecret,
    observed: &Observed,
) -> Result<Option<usize>, StoreError> {
    let Some(spec) = object.spec.ssm.parameters.first() else { return Ok(None) };
    let seen = observed.parameters.iter().find(|p| p.path == spec.path).and_then(Parameter::latest);
    let Some(seen) = seen else { return Ok(None) };
    let published = store.read(&spec.path, Some(seen.version.number)).await?;
    let source = source::of(&object.spec.generate).ok();
    let ring = published.zip(source).and_then(|(published, source)| source.extract(spec, &published));
    Ok(Some(ring.map_or(1, |ring| ring.expose().split(',').count())))
}

/// Returns the paths whose latest version has the newest record's id but another value: two values were generated for
/// one id.
async fn mismatched(store: &dyn ParameterStore, observed: &Observed) -> Result<BTreeSet<String>, StoreError> {
    let mut mismatched = BTreeSet::new();
    let Some((id, record)) = observed.records.last_key_value() else { return Ok(mismatched) };
    for parameter in &observed.parameters {
        let Some(latest) = parameter.latest().filter(|seen| seen.author == Author::Ours(*id)) else {
            continue;
        };
        let Some(recorded) = record.values.get(&parameter.path) else { continue };
        if let Some(published) = store.read(&parameter.path, Some(latest.version.number)).await?
            && !published.same_as(recorded)
        {
            mismatched.insert(parameter.path.clone());
        }
    }
    Ok(mismatched)
}

/// Gathers evidence without a call to SSM, from the inventory and the memory of earlier passes. `None` if a full read
/// is needed.
///
/// With an open record, the inventory shows if the evidence of the last full read is still valid. Records and versions
/// are immutable, so it is valid as long as the same records and versions exist.
fn from_inventory(
    object: &ManagedSecret,
    place: &Place<'_>,
    excerpt: Excerpt,
    remembered: &mut Option<Remembered>,
) -> Option<Observed> {
    let holds = remembered.as_ref().is_some_and(|remembered| remembered.holds(place, &excerpt));
    let listing_suffices =
        remembered.as_ref().is_none_or(|kept| kept.is_of_rest() && excerpt.taken_at > kept.at);
    let listed = if holds && !listing_suffices { None } else { from_listing(object, place, &excerpt) };
    listed.or_else(|| remembered.take_if(|_| holds)?.observed)
}

/// Returns the evidence of a listing, completed from the status. `None` if something is still unknown.
fn from_listing(object: &ManagedSecret, place: &Place<'_>, excerpt: &Excerpt) -> Option<Observed> {
    if !excerpt.staged.is_empty() {
        return None;
    }
    let status = object.status.as_ref();
    // Only the full history shows if a request was answered, and by which version.
    let is_told = |handled| handled && status.is_some_and(|status| status.last_rotation.is_some());
    if desired::request(object).is_some_and(|request| !is_told(request.handled)) {
        return None;
    }
    let is_seen_first = status.is_none_or(|status| status.parameters.is_empty());
    let has_target = object.spec.generate.has_target();
    let mut parameters = Vec::new();
    for path in place.paths {
        let Some(version) = excerpt.latest.get(path).cloned()? else {
            parameters.push(Parameter { path: path.clone(), versions: Vec::new(), shape: None });
            continue;
        };
        let author = match &version.stamp {
            Some(stamp) if stamp.owner != place.owner => Author::OtherOwner(stamp.owner.clone()),
            Some(stamp) if stamp.version == version.number => Author::Ours(stamp.id),
            None if is_seen_first && is_the_first(&version) && !has_target => Author::Original,
            _ => {
                let known =
                    status?.parameters.iter().find(|p| p.path == *path && p.version == version.number)?;
                match known.origin {
                    Origin::Adopted if version.stamp.is_none() => Author::Original,
                    // Only the full history distinguishes a version of another installation from a forged stamp.
                    Origin::Foreign if is_of_other_owner(object) => {
                        Author::OtherOwner(version.claim.clone()?)
                    }
                    Origin::Adopted | Origin::Foreign => Author::Foreign,
                    // Our own Put, applied twice; a full read has recognised it by its value.
                    Origin::Rotated => Author::Ours(version.stamp.as_ref()?.id),
                }
            }
        };
        let versions = vec![Seen { version, author, taken_over: None }];
        parameters.push(Parameter { path: path.clone(), versions, shape: None });
    }
    Some(Observed { parameters, ..Observed::default() })
}

/// True for a version 1 without a claim: there is no older version, and its description does not name keyturn.
fn is_the_first(version: &Version) -> bool {
    version.number == 1 && version.claim.is_none()
}

/// True when the last full read found that another installation owns the parameter (Stalled, OwnedByOther).
fn is_of_other_owner(object: &ManagedSecret) -> bool {
    let conditions = object.status.as_ref().map_or(&[][..], |status| &status.conditions);
    conditions::find(conditions, conditions::STALLED).is_some_and(|stalled| stalled.reason == "OwnedByOther")
}

/// Memory of the passes over one secret, for the next pass.
#[derive(Debug)]
pub(super) struct Remembered {
    /// UID of the object: another object of the same name must not use this memory.
    pub uid: Option<String>,
    /// Evidence of the last full read.
    pub observed: Option<Observed>,
    /// Time at which the evidence was read, or last updated by the answer to an act.
    pub at: DateTime<Utc>,
    /// True when the status reports the evidence. Until then the status is rendered from this memory, even if a listing
    /// shows something else.
    pub told: bool,
    /// State of the published login at the end of the pass: see [`Progress::login`].
    pub login: Option<Login>,
    /// Rotations that had ended by then, oldest first. Their records are deleted, so nothing else shows that they
    /// ended.
    pub ended: Vec<LastRotation>,
}

impl Remembered {
    /// Makes the memory of a pass whose results the status does not report yet.
    pub(super) fn untold(
        object: &ManagedSecret,
        observed: Option<Observed>,
        progress: &Progress,
        now: DateTime<Utc>,
    ) -> Self {
        // A pass that read nothing does not make the evidence newer: a listing that was begun since must still be able
        // to refute it.
        let at = progress.read_at.unwrap_or(now);
        let uid = object.metadata.uid.clone();
        let ended = progress.untold.iter().chain(&progress.ended).cloned().collect();
        Self { uid, observed, at, told: false, login: progress.login.clone(), ended }
    }

    /// Gives the next pass the results that could not be written to the status. `last` is the last rotation that the
    /// status reports.
    pub(super) fn go_on(&self, progress: &mut Progress, last: Option<&LastRotation>) {
        progress.login = self.login.clone();
        progress.untold = self.ended_since(last);
    }

    /// Returns the rotations that ended after the last one that the status reports.
    fn ended_since(&self, last: Option<&LastRotation>) -> Vec<LastRotation> {
        let told_at = last.and_then(|last| last.finished_at.as_ref());
        self.ended.iter().filter(|ended| ended.finished_at.as_ref() > told_at).cloned().collect()
    }

    /// Returns the remembered evidence about these parameters, for a pass that could not read anything itself.
    pub(super) fn of(self, place: &Place<'_>, progress: &mut Progress) -> Option<Observed> {
        let observed = self.observed.filter(|observed| is_about(observed, place))?;
        progress.read_at = Some(self.at);
        Some(observed)
    }

    /// True when the evidence is about these parameters, and is still valid as far as the listing shows.
    fn holds(&self, place: &Place<'_>, excerpt: &Excerpt) -> bool {
        let about_these = self.observed.as_ref().filter(|observed| is_about(observed, place));
        about_these.is_some_and(|seen| excerpt.taken_at <= self.at || still_holds(seen, place, excerpt))
    }

    /// True when a later listing and the status together contain as much as this memory: the status reports the
    /// evidence, no rotation is in progress, and no target is involved. The next pass then uses the listing, since the
    /// histories of thousands of idle secrets would take too much memory.
    fn is_of_rest(&self) -> bool {
        let is_at_rest =
            |seen: &Observed| seen.records.is_empty() && seen.aborts.is_empty() && seen.target.is_none();
        self.told && self.observed.as_ref().is_none_or(is_at_rest)
    }
}

/// Keeps the results of a pass for the next one. Results that come only from a listing are kept only until the status
/// reports them.
pub(super) fn keep(remembered: &mut Option<Remembered>, latest: Remembered, is_listed: bool) {
    if latest.observed.is_some() {
        *remembered = Some(latest).filter(|latest| !latest.told || !is_listed);
    } else if !latest.told {
        // The pass read nothing: earlier evidence is still valid, and the status still has to report it.
        let observed = remembered.take().and_then(|kept| Some((kept.at, kept.observed?)));
        *remembered = Some(match observed {
            Some((at, observed)) => Remembered { at, observed: Some(observed), ..latest },
            None => latest,
        });
    }
}

/// True when the evidence is about exactly the parameters of the present spec.
fn is_about(observed: &Observed, place: &Place<'_>) -> bool {
    observed.parameters.iter().map(|parameter| &parameter.path).eq(place.paths)
}

fn still_holds(observed: &Observed, place: &Place<'_>, excerpt: &Excerpt) -> bool {
    let records = observed
        .records
        .keys()
        .map(|id| records::record_path(place.staging, place.namespace, place.name, *id))
        .chain(
            observed
                .aborts
                .keys()
                .map(|id| records::abort_path(place.staging, place.namespace, place.name, *id)),
        );
    let same_records =
        records.collect::<BTreeSet<_>>() == excerpt.staged.iter().cloned().collect::<BTreeSet<_>>();
    let same_versions = observed.parameters.iter().all(|p| {
        // Until our own Put is read back, its time comes from our clock, so times are not compared.
        let identity = |version: &Version| (version.number, version.stamp.clone());
        excerpt.latest.get(&p.path).is_some_and(|latest| {
            latest.as_ref().map(identity) == p.latest().map(|seen| identity(&seen.version))
        })
    });
    same_records && same_versions
}

/// Returns the names of the hosts that must run a secret: first the hosts of the spec, then those that only a record
/// names.
pub(super) fn host_names(object: &ManagedSecret, records: &BTreeMap<RotationId, Record>) -> Vec<String> {
    let mut names: Vec<String> = object.spec.hosts.iter().map(|h| h.name.clone()).collect();
    for name in records.values().flat_map(|record| &record.hosts) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Returns the evidence of the DockerHosts with these names about the parameters of the secret.
pub(super) fn host_evidence(
    object: &ManagedSecret,
    names: &[String],
    hosts: &Hosts,
    attempts: i32,
) -> Vec<HostEvidence> {
    let evidence = |name: &String| {
        let host = hosts.decoded.iter().find(|h| h.metadata.name.as_ref() == Some(name));
        let mut evidence = evidence_of(object, name, host, attempts);
        evidence.exists |= hosts.undecodable.contains(name);
        evidence
    };
    names.iter().map(evidence).collect()
}

/// Returns the trouble that prevents every run on the host with its present spec. A failed run is no such trouble,
/// since another run follows it.
fn stalled(host: &DockerHost) -> Option<Trouble> {
    if host.spec.suspend {
        return Some(Trouble::permanent(
            Reason::Suspended,
            "spec.suspend is set, so nothing is started there",
        ));
    }
    let status = host.status.as_ref().filter(|s| s.observed_generation == host.metadata.generation)?;
    let stalled = conditions::find(&status.conditions, conditions::STALLED).filter(|c| c.status == "True")?;
    let mut runs = [&status.last_run, &status.last_deploy].into_iter().flatten();
    if runs.any(|run| run.result.is_some_and(|result| result.name() == stalled.reason)) {
        return None;
    }
    Some(Trouble::permanent(Reason::named(&stalled.reason), stalled.message.clone()))
}

fn evidence_of(object: &ManagedSecret, name: &str, host: Option<&DockerHost>, attempts: i32) -> HostEvidence {
    let status = host.and_then(|h| h.status.as_ref());
    let ours = |path: &str| object.spec.ssm.parameters.iter().any(|p| p.path == path);
    let proofs = status.map(|status| {
        status
            .parameters
            .iter()
            .filter(|p| ours(&p.path))
            .map(|p| {
                let at = from_kubernetes(&p.at);
                (
                    p.path.clone(),
                    HostProof {
                        version: p.version,
                        published_at: from_kubernetes(&p.published_at),
                        proof: p.proof,
                        at,
                        deployed: p.deployed,
                    },
                )
            })
            .collect()
    });
    let failed = |run: &HostRun| {
        let result = run.result.filter(|result| *result != RunResult::Succeeded)?;
        let versions: BTreeMap<String, i64> = run
            .parameters
            .iter()
            .filter_map(|line| line.rsplit_once('='))
            .filter(|(path, _)| ours(path))
            .filter_map(|(path, version)| Some((path.to_owned(), version.parse().ok()?)))
            .collect();
        (!versions.is_empty()).then(|| HostFailure {
            trouble: Trouble::new(result, run.message.clone().unwrap_or_default(), run.failures >= attempts),
            versions,
            finished_at: run.finished_at.as_ref().map_or(DateTime::UNIX_EPOCH, from_kubernetes),
            rejected: run.rejections >= attempts,
        })
    };
    HostEvidence {
        name: name.to_owned(),
        exists: host.is_some(),
        deploying: status.and_then(|s| s.run.as_ref()).is_some_and(|run| run.mode == RunMode::Deploy),
        proofs: proofs.unwrap_or_default(),
        failure: status.and_then(|s| s.last_run.as_ref()).and_then(failed),
        failed_deploy: status.and_then(|s| s.last_deploy.as_ref()).and_then(failed),
        stalled: host.and_then(stalled),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;

    use super::*;

    const PATH: &str = "/shop/TOKEN";

    fn version(number: i64) -> Version {
        Version { number, modified: DateTime::UNIX_EPOCH, text: String::new(), stamp: None, claim: None }
    }

    #[test]
    fn a_pass_that_read_nothing_does_not_make_what_is_remembered_younger() {
        let object: ManagedSecret = serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": "token", "namespace": "shop"},
            "spec": {"ssm": {"parameters": [{"path": PATH}]}, "generate": {}, "rotation": {}},
        }))
        .unwrap();
        let paths = [PATH.to_owned()];
        let place = Place {
            owner: "prod/shop/token",
            staging: "/keyturn/prod",
            namespace: "shop",
            name: "token",
            paths: &paths,
        };
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let seen = Parameter::classify(PATH, place.owner, vec![version(1)], None, &BTreeSet::new());
        let observed = Observed { parameters: vec![seen], ..Observed::default() };
        let read = Progress { read_at: Some(at(0)), ..Progress::default() };
        let mut remembered = Some(Remembered::untold(&object, Some(observed), &read, at(0)));

        let read_nothing = Remembered::untold(&object, None, &Progress::default(), at(20));
        keep(&mut remembered, read_nothing, false);
        let listing = |taken_at, number| Excerpt {
            taken_at,
            latest: BTreeMap::from([(PATH.to_owned(), Some(version(number)))]),
            staged: Vec::new(),
        };
        let holds = |listing| remembered.as_ref().is_some_and(|kept| kept.holds(&place, &listing));
        assert!(holds(listing(at(10), 1)), "nobody has written");
        assert!(
            !holds(listing(at(10), 2)),
            "a listing that was begun after the read shows what somebody wrote"
        );
        assert!(holds(listing(at(0), 0)), "a listing that is no younger than the read says nothing new");
    }
}
