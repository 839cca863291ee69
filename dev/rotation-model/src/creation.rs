//! A first value that one Put creates without a record, and foreign changes of its parameter meanwhile.
//!
//! Without a record, only the Put's refusal to overwrite keeps two controllers from publishing two values, and only the
//! published version proves that the value was made.

use crate::seeds::Seed;
use crate::stories::Story;
use crate::world::{Age, Effect, FOREIGN, Id, Outside, Stamp, Version, World};

/// Generates a value and sends it. A controller that sends again generates another value.
pub fn send(story: &Story, world: &mut World, id: Id, request: u8) {
    world.fault_unless_open(request);
    let told = if story.seed == Some(Seed::CreationsUnanswered) { 0 } else { request };
    let version = Version {
        value: world.draw(id),
        role: 0,
        stamp: Some(Stamp { id, expected: 1, request: told }),
        age: Age::New,
        suspected: false,
        by_us: true,
    };
    world.send(Effect::Create { version, request });
}

/// Records in status, as an observation does, that the request in the annotation is handled: either the published
/// version answers it, or it came with an object whose parameter already existed. For a rotation with a record, its end
/// does that.
pub fn remember_the_request(story: &Story, world: &mut World, seen: &Outside) {
    if !story.begins_with_one_put() {
        return;
    }
    let object = &mut world.outside.object;
    let first_sight = std::mem::take(&mut object.unseen);
    let asked = object.asked;
    if asked == 0 || seen.records.values().any(|record| record.request == asked) {
        return;
    }
    let mut versions = seen.paths.iter().flatten().peekable();
    let recorded = first_sight && versions.peek().is_some();
    let answers =
        |version: &Version| version.by_us && version.stamp.is_some_and(|stamp| stamp.request == asked);
    if recorded || versions.any(answers) {
        object.handled |= 1 << asked;
        object.last_answered = asked;
    }
}

/// Returns true when the parameter may be deleted. It must stay while a record exists or is being sent, because the
/// model takes the properties of the replaced version from the parameter.
pub fn may_be_removed(world: &World, path: usize) -> bool {
    let outside = &world.outside;
    let is_of_a_record = |effect: &Effect| matches!(effect, Effect::Record(..) | Effect::Put { .. });
    !outside.paths[path].is_empty()
        && outside.records.is_empty()
        && !world.flight.iter().any(|request| is_of_a_record(&request.effect))
}

/// Deletes the parameter together with its stamps. Ids start again from the beginning, and a request that a deleted
/// version answered may be answered once more.
pub fn remove(world: &mut World, path: usize) {
    world.left.removals -= 1;
    world.past.closed = 0;
    let removed = std::mem::take(&mut world.outside.paths[path]);
    for stamp in removed.iter().filter_map(|version| version.stamp) {
        world.past.begun[usize::from(stamp.request)] = 0;
    }
}

/// Puts the first version of a parameter in the name of somebody else, without a stamp.
pub fn put_first(world: &mut World, path: usize) {
    world.left.puts -= 1;
    world.past.foreign_writes += 1;
    let value = FOREIGN + world.past.foreign_writes;
    let version = Version { value, role: 0, stamp: None, age: Age::New, suspected: false, by_us: false };
    world.outside.paths[path].push(version);
}
