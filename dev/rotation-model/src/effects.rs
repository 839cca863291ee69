//! Applies the effect of a request, whether it arrives on time, late or for the second time.

use crate::seeds::Seed;
use crate::stories::Story;
use crate::world::{Age, Effect, Id, Record, Refusal, Role, Server, Value, Version, Why, World, bit};

/// Applies an effect as SSM or the server does when the request arrives; they may refuse it.
pub fn apply(story: &Story, world: &mut World, effect: Effect) {
    let outside = &mut world.outside;
    match effect {
        Effect::Record(id, record) => create_record(story, world, id, record),
        Effect::Mark(id) => {
            outside.markers.entry(id).or_insert(Age::New);
        }
        Effect::DropRecord(id) => drop_record(story, world, id),
        Effect::DropMarker(id) => {
            outside.markers.remove(&id);
        }
        Effect::Put { path, version } => {
            put(world, usize::from(path), version, false);
        }
        Effect::Create { version, request } => create(story, world, version, request),
        Effect::DropParameter(path) => outside.paths[usize::from(path)].clear(),
        Effect::Install { id, role, value } => install(story, world, id, (role, value)),
        Effect::Retire { id, role } => retire(story, world, id, role),
        Effect::EndSessions { role } => {
            if outside.server == Server::There && outside.thief == Some(role) {
                outside.thief = None;
            }
        }
    }
}

/// Creates a record without Overwrite: the first record of an id stays.
fn create_record(story: &Story, world: &mut World, id: Id, record: Record) {
    let records = &mut world.outside.records;
    if records.contains_key(&id) && story.seed != Some(Seed::RecordsOverwritten) {
        return;
    }
    let is_new = records.insert(id, Record { age: Age::New, ..record }).is_none();
    // A rollback has the request of the rotation that failed, and an incident may continue any request.
    if is_new && record.request > 0 && !matches!(record.why, Why::RollBack | Why::Incident) {
        begin_for(world, record.request);
    }
}

fn begin_for(world: &mut World, request: u8) {
    let begun = &mut world.past.begun[usize::from(request)];
    *begun += 1;
    if *begun > 1 {
        world.fault("I3: two rotations answer one request");
    }
}

/// Creates a first value. No record decides between two generated values: the Put that arrives first wins.
fn create(story: &Story, world: &mut World, version: Version, request: u8) {
    let overwrites = story.seed == Some(Seed::CreationsOverwrite);
    if put(world, 0, version, overwrites) && request > 0 {
        begin_for(world, request);
    }
}

fn drop_record(story: &Story, world: &mut World, id: Id) {
    let Some(record) = world.outside.records.remove(&id) else { return };
    let of_it = |version: &Version| version.by_us && version.stamp.is_some_and(|stamp| stamp.id == id);
    let was_published = world.outside.paths.iter().all(|versions| versions.iter().any(of_it));
    if was_published && record.why != Why::RollBack {
        world.past.closed = world.past.closed.max(id);
    }
    let came_back = has_come_back(world, id, &record);
    let object = &mut world.outside.object;
    let later_answers = world.outside.records.values().any(|later| later.request == record.request);
    if !later_answers {
        object.handled |= 1 << record.request;
        object.last_answered = record.request;
    }
    // The controller that closed it knows that no other record is open. If a record has reappeared, others may follow.
    if world.outside.records.is_empty() && !came_back {
        object.settled = Some(Age::Old);
    }
    if story.is_in_place() {
        retire_what_was(world, &record);
    }
}

/// Returns true when a newer rotation is published, or another value with the same id.
fn has_come_back(world: &World, id: Id, record: &Record) -> bool {
    let is_another = |(versions, recorded): (&Vec<Version>, &Value)| {
        let latest = versions.last().filter(|latest| latest.by_us);
        let stamped = latest.and_then(|latest| Some((latest.value, latest.stamp?)));
        stamped.is_some_and(|(value, stamp)| stamp.id > id || stamp.id == id && value != *recorded)
    };
    world.outside.paths.iter().zip(&record.values).any(is_another)
}

/// Marks the earlier passwords of a role as retired. A role has one password, so all others end with the rotation.
fn retire_what_was(world: &mut World, closed: &Record) {
    let current = bit(world.outside.roles[0].password);
    let published = world.outside.paths.iter().flatten().filter(|version| version.by_us);
    let over = match world.outside.records.is_empty() {
        true => published.map(|version| bit(version.value)).fold(0, |all, one| all | one),
        false => 0,
    };
    world.past.retired |= (over | bit(closed.values[0])) & !current;
}

/// Applies a Put, and returns true if SSM accepts it. If the parameter exists, a Put of version 1 is refused unless
/// `overwrites` is true.
fn put(world: &mut World, path: usize, version: Version, overwrites: bool) -> bool {
    if world.outside.refusals[path] != Refusal::None {
        world.outside.object.publication_refused = true;
        return false;
    }
    let versions = &mut world.outside.paths[path];
    let creates = version.stamp.is_some_and(|stamp| stamp.expected == 1);
    if creates && !overwrites && !versions.is_empty() {
        return false;
    }
    versions.push(Version { age: Age::New, ..version });
    world.outside.object.publication_refused = false;
    true
}

/// Returns true when the server does not accept the change: it is unavailable, or the role's fence is of a newer
/// rotation. The change and its fence are one transaction.
fn is_fenced_off(story: &Story, world: &World, role: &Role, id: Id) -> bool {
    world.outside.server != Server::There || story.is_fenced() && role.fence > id
}

fn install(story: &Story, world: &mut World, id: Id, (role, value): (u8, Value)) {
    let known = world.outside.roles[usize::from(role)];
    if is_fenced_off(story, world, &known, id) {
        return;
    }
    // A rollback restores the old password on purpose.
    if world.outside.records.get(&id).is_some_and(|record| record.why == Why::RollBack) {
        world.past.retired &= !bit(value);
    }
    let fence = known.fence.max(id);
    world.outside.roles[usize::from(role)] =
        Role { password: value, can_log_in: true, fence, changed: Age::New };
}

fn retire(story: &Story, world: &mut World, id: Id, role: u8) {
    let known = world.outside.roles[usize::from(role)];
    if is_fenced_off(story, world, &known, id) {
        return;
    }
    if known.can_log_in {
        world.past.retired |= bit(known.password);
    }
    let fence = known.fence.max(id);
    world.outside.roles[usize::from(role)] = Role { can_log_in: false, fence, changed: Age::New, ..known };
}
