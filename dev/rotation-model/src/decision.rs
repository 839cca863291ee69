//! The protocol's answer in the model's terms: small, comparable, and without texts for people.

use std::collections::HashMap;

use keyturn::rotation::observed::{Author, Observed, Trigger};
use keyturn::rotation::protocol::{self, Act, Desired, Next, Revocation, Step, Waiting};

use crate::evidence::{self, GRACE, PATH_NAMES, now};
use crate::search::fingerprint;
use crate::seeds::Seed;
use crate::stories::Story;
use crate::world::{Id, Outside, PATHS, Why};

/// An act, with the parts that the model needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Adds the finalizer.
    Hold,
    /// Asks the hosts for a fresh proof (preflight).
    AskPreflight,
    /// Generates a value and creates record `id`; `request` is the request that the rotation answers, or 0.
    Record {
        /// Number of the rotation.
        id: Id,
        /// The reason for the rotation.
        why: Why,
        /// The request that the rotation answers, or 0.
        request: u8,
    },
    /// Creates record `id`, which restores what rotation `failed` replaced, except on paths that are `kept`.
    RollBack {
        /// Number of the new rotation.
        id: Id,
        /// The rotation that failed.
        failed: Id,
        /// For each path, true if the failed rotation published nothing there.
        kept: [bool; PATHS],
    },
    /// Proves that the controller may write the parameter, by a Put that must not overwrite it.
    ProveWritable {
        /// Number of the path, from 0.
        path: u8,
    },
    /// Makes the target accept the credential of record `id`.
    Install {
        /// Number of the rotation.
        id: Id,
    },
    /// Makes the target refuse the old login, which is that of `role`.
    Retire {
        /// Number of the rotation.
        id: Id,
        /// Number of the role.
        role: u8,
    },
    /// Ends the open sessions of a role.
    EndSessions {
        /// Number of the role.
        role: u8,
    },
    /// Publishes the value of record `id`; `expected` is the version number that the Put should get.
    Promote {
        /// Number of the rotation.
        id: Id,
        /// Number of the path, from 0.
        path: u8,
        /// The version number that the Put should get.
        expected: u8,
    },
    /// Publishes a first value without a record; `request` is the request that it answers, or 0.
    Create {
        /// Number of the rotation.
        id: Id,
        /// Number of the path, from 0.
        path: u8,
        /// The request that the rotation answers, or 0.
        request: u8,
    },
    /// Writes the abort marker of rotation `id`.
    Mark {
        /// Number of the rotation.
        id: Id,
    },
    /// Deletes the record of rotation `id`.
    DropRecord {
        /// Number of the rotation.
        id: Id,
    },
    /// Deletes the abort marker of rotation `id`.
    DropMarker {
        /// Number of the rotation.
        id: Id,
    },
    /// Deletes the parameter, for `deletionPolicy: Delete`.
    DropParameter {
        /// Number of the path, from 0.
        path: u8,
    },
    /// Removes the finalizer.
    Release,
    /// Removes the finalizer of a deleted object although its rotation could not be finished in time.
    Abandon,
}

/// The protocol's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Nothing is left to do.
    Rest,
    /// Time, a host or the target ends the wait.
    Wait,
    /// Only a person can continue, and the status says so.
    Told(&'static str),
    /// The controller performs this act.
    Do(Deed),
}

/// The controller's conclusions from a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    /// The protocol's decision.
    pub answer: Answer,
    /// True when hosts are deployed to: the latest versions are the controller's own, and nothing is about to replace
    /// them.
    pub deploys: bool,
    /// True when a latest version counts as foreign.
    pub drifted: bool,
    /// The lowest id among the rotations that count as having published a latest version.
    pub published: Option<Id>,
    /// True when the status says that nobody can use a value from before the report any more.
    pub contained: bool,
}

/// Cache of decisions: worlds differ in many things on which no decision depends.
#[derive(Default)]
pub struct Decisions(HashMap<u128, Sight>);

impl Decisions {
    /// Returns the conclusions from what a controller has read. One cache serves one story only.
    pub fn of(&mut self, story: &Story, seen: &Outside) -> Sight {
        *self.0.entry(fingerprint(seen)).or_insert_with(|| decide(story, seen))
    }
}

fn decide(story: &Story, seen: &Outside) -> Sight {
    let observed = evidence::observed(story, seen);
    let desired = evidence::desired(story, seen);
    let grace = if story.seed == Some(Seed::NoGrace) { chrono::TimeDelta::zero() } else { GRACE };
    let next = protocol::next(&desired, &observed, now(), grace);
    let latest = || observed.parameters.iter().filter_map(|parameter| parameter.latest());
    let ours = |author: &Author| match author {
        Author::Ours(id) => Id::try_from(*id).ok(),
        _ => None,
    };
    Sight {
        answer: answer(&next),
        deploys: deploys(&desired, &observed),
        drifted: latest().any(|seen| seen.author == Author::Foreign),
        published: latest().filter_map(|seen| ours(&seen.author)).min(),
        contained: contained(&desired, &observed),
    }
}

/// Returns true when hosts have to be deployed to. While a record is open, that is so in step Deploy. Without a record
/// it is so when keyturn published every latest version; hosts that have adopted them are then skipped.
fn deploys(desired: &Desired<'_>, observed: &Observed) -> bool {
    let ours = observed
        .parameters
        .iter()
        .all(|parameter| parameter.latest().is_some_and(|seen| matches!(seen.author, Author::Ours(_))));
    let kept = |record: &keyturn::rotation::observed::Record| !record.kept.is_empty();
    match observed.records.values().next_back() {
        Some(record) => {
            (ours || kept(record)) && protocol::step_of(desired, observed, record) == Step::Deploy
        }
        None => ours,
    }
}

/// Returns true when the incident's response counts the secret as contained; same rule as in its status.
fn contained(desired: &Desired<'_>, observed: &Observed) -> bool {
    let left = || {
        observed.hosts.iter().all(|host| {
            let enough = desired.retirement.verify_is_enough;
            observed.parameters.iter().all(|p| host.has_left_the_old(p, p.latest(), enough))
        })
    };
    protocol::is_rotated(desired, observed)
        && match protocol::revocation(desired, observed) {
            Revocation::None => observed.records.len() <= 1 && left(),
            Revocation::Open => false,
            Revocation::Done => true,
        }
}

fn answer(next: &Next) -> Answer {
    match next {
        Next::Rest { .. } => Answer::Rest,
        Next::Stall(stalled) => Answer::Told(stalled.trouble().reason.name()),
        Next::Act { act, .. } => Answer::Do(deed(act)),
        Next::Wait { why, .. } => match why {
            Waiting::Drift { .. } => Answer::Told("Drift"),
            Waiting::PreflightFailed { .. } => Answer::Told("PreflightFailed"),
            Waiting::Unpublishable { .. } => Answer::Told("Unpublishable"),
            Waiting::Unproven { .. } => Answer::Told("Unproven"),
            Waiting::Target(problem) if problem.is_permanent() => Answer::Told("Target"),
            _ => Answer::Wait,
        },
    }
}

fn deed(act: &Act) -> Deed {
    let id = |id: &u64| Id::try_from(*id).unwrap_or(Id::MAX);
    let path = |path: &String| u8::from(*path == PATH_NAMES[1]);
    let role = |username: &String| u8::from(*username == evidence::ROLE_NAMES[1]);
    let asked = |token: &Option<String>| token.as_deref().and_then(|token| token.parse().ok()).unwrap_or(0);
    match act {
        Act::Hold => Deed::Hold,
        Act::AskPreflight => Deed::AskPreflight,
        Act::Record { id: new, trigger, request, .. } => {
            Deed::Record { id: id(new), why: why(*trigger), request: asked(request) }
        }
        Act::RecordRollBack { id: new, failed, kept, .. } => Deed::RollBack {
            id: id(new),
            failed: id(failed),
            kept: PATH_NAMES.map(|path| kept.contains(path)),
        },
        Act::ProveWritable { path: at } => Deed::ProveWritable { path: path(at) },
        Act::Install { id: of } => Deed::Install { id: id(of) },
        Act::Retire { id: of, username } => Deed::Retire { id: id(of), role: role(username) },
        Act::EndSessions { username, .. } => Deed::EndSessions { role: role(username) },
        Act::Promote { id: of, path: at, expected } => {
            Deed::Promote { id: id(of), path: path(at), expected: u8::try_from(*expected).unwrap_or(u8::MAX) }
        }
        Act::Create { id: new, path: at, request } => {
            Deed::Create { id: id(new), path: path(at), request: asked(request) }
        }
        Act::MarkAbort { id: of } => Deed::Mark { id: id(of) },
        Act::DeleteRecord { id: of } => Deed::DropRecord { id: id(of) },
        Act::SweepMarker { id: of } => Deed::DropMarker { id: id(of) },
        Act::DeleteParameter { path: at } => Deed::DropParameter { path: path(at) },
        Act::Release => Deed::Release,
        Act::Abandon => Deed::Abandon,
        Act::SetUp | Act::SweepOrphan { .. } => {
            unreachable!("no story has a pair to be made or issued logins")
        }
    }
}

fn why(trigger: Trigger) -> Why {
    match trigger {
        Trigger::Missing => Why::Missing,
        Trigger::Request => Why::Request,
        Trigger::Drift => Why::Drift,
        Trigger::RollBack => Why::RollBack,
        Trigger::Incident => Why::Incident,
        Trigger::Period => unreachable!("every story rotates on demand"),
    }
}
