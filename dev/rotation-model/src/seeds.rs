//! Deliberate bugs: for each one there is a search that has to find a violation.
//!
//! The protocol is the real one. Its behaviour before a fix is simulated by removing the evidence that the fix added;
//! other seeds remove something that the protocol relies on.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn::api::docker_host::Proof;
use keyturn::api::{Reason, Trouble};
use keyturn::rotation::observed::{Acceptance, Author, Observed};

use crate::evidence::{duplicates, now};
use crate::stories::{self, Story};
use crate::world::{Object, Outside};

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seed {
    /// A run that deployed nothing counts as adoption if nothing can be compared (A1).
    LooksAdopt,
    /// The constraints of SSM are not checked before a role is changed (A3).
    ShapesUnread,
    /// A publication that SSM permanently refuses is retried forever (A3).
    RefusalsForgotten,
    /// The first password is deployed before an existing server has it (A4).
    HostsBeforeServer,
    /// Status remembers only the request of the last rotation (A6).
    RequestsForgotten,
    /// The value of an earlier rotation, put back by somebody, counts as a duplicate of ours (B1).
    RestoredIsOurs,
    /// A record does not contain the time of its base version (B2).
    BaseWithoutTime,
    /// A deployment with an unknown end counts as rejected by the host (B3).
    UnknownIsRejected,
    /// A foreign write holds back a role that was changed in place, after its publication (B6).
    DriftHoldsChangedRoles,
    /// A record is finished with the source that the spec names now (B7).
    SourceFollowsSpec,
    /// A deletion that cannot be finished has no time limit (B8).
    DeletionUnbounded,
    /// The grace period is zero.
    NoGrace,
    /// Requests live forever.
    NoEndOfRequests,
    /// A second record of an id overwrites the first.
    RecordsOverwritten,
    /// Every host counts as having adopted the published version.
    NoProof,
    /// The Put of a first value overwrites an existing version.
    CreationsOverwrite,
    /// The deletion of an object does not wait for first values that were sent shortly before.
    CreationsUnwaited,
    /// A first value that has to be deleted with its object is sent before the object has a finalizer.
    CreationsUnheld,
    /// The stamp of a first value does not contain the request that it answers.
    CreationsUnanswered,
}

/// Returns every seed with a story in which it has to be found.
pub fn all() -> Vec<Story> {
    use Seed::{
        BaseWithoutTime, CreationsOverwrite, CreationsUnanswered, CreationsUnheld, CreationsUnwaited,
        DeletionUnbounded, DriftHoldsChangedRoles, HostsBeforeServer, LooksAdopt, NoEndOfRequests, NoGrace,
        NoProof, RecordsOverwritten, RefusalsForgotten, RequestsForgotten, RestoredIsOurs, ShapesUnread,
        SourceFollowsSpec, UnknownIsRejected,
    };
    let table = [
        (LooksAdopt, "alternating, nothing to compare"),
        (ShapesUnread, "in place, SSM refuses"),
        (RefusalsForgotten, "in place, SSM refuses"),
        (HostsBeforeServer, "in place, the first password"),
        (RequestsForgotten, "a random value, an incident after a recorded request"),
        (RestoredIsOurs, "alternating, an old version put back"),
        (BaseWithoutTime, "a random value, an incident on a foreign write, deleted"),
        (UnknownIsRejected, "in place, deployments fail"),
        (DriftHoldsChangedRoles, "in place, a foreign write"),
        (SourceFollowsSpec, "in place, another source"),
        (DeletionUnbounded, "a random value, deleted without a grant"),
        (NoGrace, "in place, two controllers"),
        (NoEndOfRequests, "a random value, two controllers"),
        (RecordsOverwritten, "in place, two controllers"),
        (NoProof, "alternating, two controllers"),
        (CreationsOverwrite, "a first value, two controllers"),
        (CreationsUnwaited, "a first value, deleted with its parameter"),
        (CreationsUnheld, "a first value, deleted with its parameter"),
        (CreationsUnanswered, "a first value, a request that came with it"),
    ];
    let stories = stories::small();
    let seeded = |(seed, name): (Seed, &str)| {
        let story = stories.iter().find(|story| story.name == name)?;
        Some(Story { seed: Some(seed), ..story.clone() })
    };
    table.into_iter().filter_map(seeded).collect()
}

/// Changes the evidence as the seed requires.
pub fn distort(story: &Story, seen: &Outside, observed: &mut Observed) {
    match story.seed {
        Some(Seed::LooksAdopt) => {
            observed
                .hosts
                .iter_mut()
                .flat_map(|host| host.proofs.values_mut())
                .for_each(|proof| proof.deployed = true);
        }
        Some(Seed::ShapesUnread) => {
            observed.parameters.iter_mut().for_each(|parameter| parameter.shape = None);
            observed.writable.extend(observed.parameters.iter().map(|parameter| parameter.path.clone()));
        }
        Some(Seed::HostsBeforeServer) => hide_the_server(observed),
        Some(Seed::RestoredIsOurs) => take_restored_for_ours(seen, observed),
        Some(Seed::BaseWithoutTime) => {
            observed.records.values_mut().for_each(|record| record.base_at = BTreeMap::new());
        }
        Some(Seed::UnknownIsRejected) => reject_the_unknown(observed),
        Some(Seed::DriftHoldsChangedRoles) => {
            let drifted =
                observed.parameters.iter().any(|p| p.latest().is_some_and(|s| s.author == Author::Foreign));
            if drifted {
                prove(observed);
            }
        }
        Some(Seed::SourceFollowsSpec) if seen.object.other_source => {
            observed.records.values_mut().for_each(|record| record.credential = None);
        }
        Some(Seed::NoProof) => prove(observed),
        _ => {}
    }
}

fn hide_the_server(observed: &mut Observed) {
    let first = observed.records.values().all(|record| record.base.values().all(|base| *base == 0));
    let adopted =
        observed.hosts.iter().all(|host| observed.parameters.iter().all(|p| host.has_adopted(p, p.latest())));
    let Some(target) = observed.target.as_mut().filter(|_| first && !adopted) else { return };
    if matches!(target.recorded, Some(Acceptance::Refused(_))) {
        let problem = Trouble::passing(Reason::TargetUnreachable, "");
        target.recorded = Some(Acceptance::Unknown(problem));
    }
}

fn take_restored_for_ours(seen: &Outside, observed: &mut Observed) {
    for (path, parameter) in observed.parameters.iter_mut().enumerate() {
        let duplicates = duplicates(seen, path);
        for seen in parameter.versions.iter_mut().filter(|seen| duplicates.contains(&seen.version.number)) {
            if let Some(stamp) = &seen.version.stamp {
                seen.author = Author::Ours(stamp.id);
            }
        }
    }
}

fn reject_the_unknown(observed: &mut Observed) {
    for host in &mut observed.hosts {
        let Some(failure) = host.failed_deploy.as_mut().filter(|failure| !failure.rejected) else { continue };
        failure.rejected = true;
        for parameter in &observed.parameters {
            let Some(version) = parameter.latest() else { continue };
            let shown = keyturn::rotation::observed::HostProof {
                version: version.version.number,
                published_at: version.published_at(),
                proof: Proof::Differs,
                at: now(),
                deployed: false,
            };
            host.proofs
                .entry(parameter.path.clone())
                .and_modify(|known| {
                    if known.proof != Proof::Proven || !known.is_of(version) {
                        *known = shown;
                    }
                })
                .or_insert(shown);
        }
    }
}

/// Makes every host prove the newest rotation's version or, without one, the latest.
fn prove(observed: &mut Observed) {
    let newest = observed.records.keys().next_back().copied();
    for host in &mut observed.hosts {
        for parameter in &observed.parameters {
            let published = newest.and_then(|id| parameter.published_by(id)).or_else(|| parameter.latest());
            let Some(version) = published else { continue };
            let proof = keyturn::rotation::observed::HostProof {
                version: version.version.number,
                published_at: version.published_at(),
                proof: Proof::Proven,
                at: now(),
                deployed: true,
            };
            host.proofs.insert(parameter.path.clone(), proof);
        }
    }
}

/// Returns true when the request in the annotation counts as handled; with the seed `RequestsForgotten` only the
/// request of the last rotation does.
pub fn handled(story: &Story, object: &Object) -> bool {
    match story.seed {
        Some(Seed::RequestsForgotten) => object.last_answered == object.asked,
        _ => object.handled & (1 << object.asked) != 0,
    }
}

/// Returns the time of deletion that the protocol sees; with the seed `DeletionUnbounded` it never reaches the time
/// limit.
pub fn deleting(story: &Story, at: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    let unbounded = story.seed == Some(Seed::DeletionUnbounded);
    at.map(|at| if unbounded { at.max(now() - TimeDelta::minutes(30)) } else { at })
}

/// Returns the time since which the protocol believes that there is no record; with the seed `CreationsUnwaited` it is
/// at least an hour ago.
pub fn settled_since(story: &Story, at: DateTime<Utc>) -> DateTime<Utc> {
    let forgets = story.seed == Some(Seed::CreationsUnwaited);
    if forgets { at.min(now() - TimeDelta::hours(1)) } else { at }
}

/// Returns true when the object counts as having the finalizer; with the seed `CreationsUnheld` it always does.
pub fn is_held(story: &Story, object: &Object) -> bool {
    object.finalizer || story.seed == Some(Seed::CreationsUnheld)
}

/// Returns true when the protocol does not learn of a refused publication: with the seed `RefusalsForgotten`.
pub fn forgets_refusals(story: &Story) -> bool {
    story.seed == Some(Seed::RefusalsForgotten)
}
