//! Invariants of every world. Their ids (I1, I2, …) are those in the design's list.

use crate::decision::{Answer, Deed, Sight};
use crate::stories::{Source, Story};
use crate::world::{
    FOREIGN, Host, Outside, Record, Refusal, Role, Server, UNKNOWN, Version, Why, World, bit,
};

/// Returns the first violated invariant of this world; `None` if all hold.
pub fn broken(story: &Story, world: &World, sight: Sight) -> Option<&'static str> {
    world
        .past
        .flaw
        .or_else(|| CHECKS.iter().find(|(_, holds)| !holds(story, world, sight)).map(|(name, _)| *name))
}

/// The server does not accept what a host logs in with.
pub const LOCKED_OUT: &str = "I2: a host is locked out";
/// A Put that creates a parameter took effect where there already was a version.
pub const FIRST_OF_ALL: &str = "I11: a first value lies above what was there";
/// With `deletionPolicy: Delete`, a version that the controller put is left after its object.
pub const TAKEN_ALONG: &str = "I10: the object is gone and a parameter that was to go with it is not";
/// The server does not accept what the controller has published.
pub const PUBLISHED: &str = "I5: what is published does not work";
/// An incident counts as contained while a suspected value can still be used.
pub const CONTAINED: &str = "Contained is claimed of a value that still works";

type Check = fn(&Story, &World, Sight) -> bool;

const CHECKS: &[(&str, Check)] = &[
    ("I1: a live password is neither published nor recorded", live_passwords_can_be_read_back),
    (LOCKED_OUT, hosts_can_log_in),
    ("I4: a value that was retired is accepted again", what_was_retired_stays_so),
    ("I4: a version of an earlier rotation counts as the latest", nothing_older_is_published),
    (PUBLISHED, what_is_published_works),
    ("I6: nothing is left to do, and not all is well", rest_is_deserved),
    ("I10: the object is gone and its rotation is not", what_is_gone_leaves_nothing),
    (TAKEN_ALONG, parameters_go_with_their_object),
    (FIRST_OF_ALL, first_values_overwrite_nothing),
    ("I11: somebody's write is told where nobody wrote", drift_is_somebody_s),
    (CONTAINED, contained_is_true),
];

/// Returns the latest version if the controller put it.
fn ours(outside: &Outside, path: usize) -> Option<&Version> {
    outside.latest(path).filter(|latest| latest.by_us)
}

fn live_passwords_can_be_read_back(story: &Story, world: &World, _: Sight) -> bool {
    let outside = &world.outside;
    let known = |value| {
        let published = outside.paths.iter().flatten().any(|version| version.value == value);
        published || outside.records.values().any(|record| record.values[0] == value)
    };
    // The controller cannot know a password whose version somebody deleted, or that was never published before keyturn.
    let is_known = |role: &Role| role.password == UNKNOWN || known(role.password);
    let deleted = outside.object.deleting.is_some() && outside.paths.iter().any(Vec::is_empty);
    !story.has_target() || deleted || outside.roles.iter().all(|role| !role.can_log_in || is_known(role))
}

/// A due revocation is the exception: in an incident it does not wait for hosts.
fn hosts_can_log_in(story: &Story, world: &World, _: Sight) -> bool {
    let outside = &world.outside;
    if !story.has_target() || outside.is_due() || world.past.abandoned {
        return true;
    }
    // A role with one password is changed before its hosts are deployed to, so only the end of the rotation can be
    // checked.
    if story.is_in_place() && !(outside.records.is_empty() && world.flight.is_empty()) {
        return true;
    }
    outside.hosts.iter().all(|host| can_log_in(outside, host))
}

fn can_log_in(outside: &Outside, host: &Host) -> bool {
    outside
        .login_of(host)
        .is_none_or(|login| login.value >= FOREIGN || outside.accepts(login.role, login.value))
}

fn what_was_retired_stays_so(_: &Story, world: &World, _: Sight) -> bool {
    world.outside.roles.iter().all(|role| !role.can_log_in || world.past.retired & bit(role.password) == 0)
}

fn nothing_older_is_published(_: &Story, world: &World, sight: Sight) -> bool {
    !world.outside.records.is_empty() || sight.published.is_none_or(|id| id >= world.past.closed)
}

fn what_is_published_works(story: &Story, world: &World, _: Sight) -> bool {
    let outside = &world.outside;
    if !story.has_target()
        || outside.is_due()
        || world.past.abandoned
        || outside.server == Server::NotThereYet
    {
        return true;
    }
    if !outside.records.is_empty() && (story.is_in_place() || story.paths > 1) {
        return true;
    }
    if story.is_in_place() && !world.flight.is_empty() {
        return true;
    }
    let works = |path| ours(outside, path).is_none_or(|version| outside.accepts(version.role, version.value));
    (0..story.paths).all(works)
}

fn rest_is_deserved(story: &Story, world: &World, sight: Sight) -> bool {
    let object = world.outside.object;
    if sight.answer != Answer::Rest || object.gone || !object.granted || !world.flight.is_empty() {
        return true;
    }
    let ours_everywhere = (0..story.paths).all(|path| ours(&world.outside, path).is_some());
    let published = world.outside.paths.iter().flatten().filter_map(|version| version.stamp);
    // The object was never seen: a request that came with it may be an old one.
    let answered = object.unseen
        || object.handled & (1 << object.asked) != 0
        || published.map(|stamp| stamp.request).chain([0]).any(|request| request == object.asked);
    world.outside.records.is_empty()
        && answered
        && (!ours_everywhere || is_served(story, world) && old_roles_are_shut(story, world))
}

/// Returns true when the published value works, and hosts can log in with what they run.
pub fn is_served(story: &Story, world: &World) -> bool {
    let outside = &world.outside;
    let works = |path| ours(outside, path).is_none_or(|version| outside.accepts(version.role, version.value));
    let after_revocation = outside.is_due();
    !story.has_target()
        || outside.server == Server::NotThereYet
        || (0..story.paths).all(works)
            && (after_revocation || outside.hosts.iter().all(|host| can_log_in(outside, host)))
}

fn old_roles_are_shut(story: &Story, world: &World) -> bool {
    let outside = &world.outside;
    story.source != Source::Alternating || outside.roles.iter().filter(|role| role.can_log_in).count() == 1
}

fn what_is_gone_leaves_nothing(_: &Story, world: &World, _: Sight) -> bool {
    let outside = &world.outside;
    !outside.object.gone || world.past.abandoned || outside.records.is_empty() && outside.markers.is_empty()
}

/// With `deletionPolicy: Delete`, versions that the controller put are deleted with the object.
fn parameters_go_with_their_object(story: &Story, world: &World, _: Sight) -> bool {
    let is_left = world.outside.paths.iter().flatten().any(|version| version.by_us);
    !story.delete_parameters || !world.outside.object.gone || world.past.abandoned || !is_left
}

/// A Put that creates a parameter must not take effect where there already is a version.
fn first_values_overwrite_nothing(_: &Story, world: &World, _: Sight) -> bool {
    let creates = |version: &Version| version.by_us && version.stamp.is_some_and(|stamp| stamp.expected == 1);
    !world.outside.paths.iter().any(|versions| versions.iter().skip(1).any(creates))
}

fn drift_is_somebody_s(story: &Story, world: &World, sight: Sight) -> bool {
    let outside = &world.outside;
    let is_newer =
        |record: &Record| (0..story.paths).any(|path| outside.latest_number(path) > record.base[path]);
    // The version that a rotation replaces existed before, so a person has no drift to decide about.
    let held = sight.answer == Answer::Told("Drift");
    let rightly = outside.records.values().next_back().is_none_or(is_newer);
    (world.past.foreign_writes > 0 || !sight.drifted) && (rightly || !held)
}

fn contained_is_true(story: &Story, world: &World, sight: Sight) -> bool {
    let outside = &world.outside;
    if !sight.contained || outside.report.is_none() {
        return true;
    }
    let runs_suspected = |host: &Host| outside.login_of(host).is_some_and(|v| outside.is_suspected(v.value));
    match story.source {
        // Without hosts the published value is the only copy.
        Source::Random if outside.hosts.is_empty() => {
            outside.latest(0).is_none_or(|latest| !outside.is_suspected(latest.value))
        }
        Source::Random => !outside.hosts.iter().any(runs_suspected),
        _ => {
            let stolen = outside.roles.iter().any(|r| r.can_log_in && outside.is_suspected(r.password));
            !stolen && outside.thief.is_none()
        }
    }
}

/// Returns true when a run may end here: nothing is left to do, or the status shows what a person has to do and no host
/// lacks a working login in the meantime.
pub fn is_an_end(story: &Story, world: &World, sight: Sight) -> bool {
    let outside = &world.outside;
    if outside.object.gone {
        return true;
    }
    if !world.flight.is_empty() {
        return false;
    }
    if outside.object.deleting.is_some() {
        // The object has to be released in the end, no matter what the deletion waits for.
        return false;
    }
    if !outside.object.granted {
        return true;
    }
    let refused = |path: u8| outside.refusals[usize::from(path)] != Refusal::None;
    match sight.answer {
        Answer::Rest => true,
        Answer::Wait => false,
        // Only a change of the spec can end this, and the status says so.
        Answer::Told("SourceChanged") => true,
        Answer::Told(_) => is_served(story, world) && is_not_suspected(world),
        Answer::Do(Deed::Promote { path, .. } | Deed::Create { path, .. } | Deed::ProveWritable { path }) => {
            let rolls_back = outside.records.values().next_back().is_some_and(|r| r.why == Why::RollBack);
            let hosts_work = rolls_back && outside.hosts.iter().all(|host| can_log_in(outside, host));
            refused(path) && (is_served(story, world) || hosts_work)
        }
        Answer::Do(_) => false,
    }
}

/// Returns true when no latest version holds a suspected value. In an incident, a run that waits for a person may end
/// only if a later foreign write has replaced that value.
fn is_not_suspected(world: &World) -> bool {
    let suspected = |version: &Version| world.outside.is_suspected(version.value);
    (0..world.outside.paths.len()).all(|path| !world.outside.latest(path).is_some_and(suspected))
}
