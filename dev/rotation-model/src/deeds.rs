//! Effects of an event on a world: the acts of a controller, the deeds of other people, the passing of time.

use keyturn::api::managed_secret::OnDrift;

use crate::creation;
use crate::decision::Deed;
use crate::stories::{Source, Story};
use crate::world::{
    Age, Deleting, Effect, FOREIGN, Host, Id, Outside, PATHS, Record, Refusal, Report, Server, Stamp,
    Version, Why, World,
};

/// Updates the process's memory of whether it has seen records.
pub(super) fn look_for_records(world: &mut World, seen: &Outside) {
    let object = &mut world.outside.object;
    if !seen.records.is_empty() || !object.finalizer {
        object.settled = None;
    } else {
        object.settled.get_or_insert(Age::New);
    }
    if !seen.records.is_empty() {
        object.preflight = false;
    }
}

pub(super) fn perform(story: &Story, world: &mut World, seen: &Outside, deed: Deed) {
    world.outside.object.settled = None;
    match deed {
        Deed::Hold => world.outside.object.finalizer = true,
        Deed::AskPreflight => {
            world.outside.object.preflight = true;
            let proofs = world.outside.hosts.iter_mut().flat_map(|host| host.proofs.iter_mut().flatten());
            proofs.for_each(|proof| proof.asked = false);
        }
        Deed::Release => {
            world.outside.object.finalizer = false;
            world.outside.object.gone = world.outside.object.deleting.is_some();
        }
        Deed::Abandon => let_go(world),
        // This Put is answered at once and changes nothing.
        Deed::ProveWritable { .. } => {}
        Deed::Record { id, why, request } => begin(story, world, seen, (id, why, request)),
        Deed::RollBack { id, failed, kept } => {
            judge_roll_back(story, world, seen, failed);
            roll_back(world, seen, id, (failed, kept));
        }
        Deed::Install { id } => install(story, world, seen, id),
        Deed::Promote { id, path, expected } => promote(story, world, seen, (id, path, expected)),
        Deed::Create { id, request, .. } => creation::send(story, world, id, request),
        Deed::Mark { id } => world.send(Effect::Mark(id)),
        Deed::DropRecord { id } => world.send(Effect::DropRecord(id)),
        Deed::DropMarker { id } => world.send(Effect::DropMarker(id)),
        Deed::DropParameter { path } => world.send(Effect::DropParameter(path)),
        Deed::Retire { id, role } => world.send(Effect::Retire { id, role }),
        Deed::EndSessions { role } => world.send(Effect::EndSessions { role }),
    }
}

fn base(story: &Story, seen: &Outside) -> [u8; PATHS] {
    std::array::from_fn(|path| if path < story.paths { seen.latest_number(path) } else { 0 })
}

fn begin(story: &Story, world: &mut World, seen: &Outside, (id, why, request): (Id, Why, u8)) {
    if why != Why::Incident {
        world.fault_unless_open(request);
    }
    let published = seen.latest(0).map(|version| version.role);
    let value = world.draw(id);
    // The role that is in use. The published role may be retired, if somebody has restored its version.
    let can_log_in = |role: u8| seen.roles[usize::from(role)].can_log_in;
    let published = published.map(|role| {
        let left = story.source == Source::Alternating && !can_log_in(role) && can_log_in(1 - role);
        if left { 1 - role } else { role }
    });
    let role = match story.source {
        Source::Alternating => published.map_or(0, |role| 1 - role),
        _ => 0,
    };
    let record = Record {
        why,
        values: std::array::from_fn(|path| if path < story.paths { value } else { 0 }),
        role,
        replaces: published,
        base: base(story, seen),
        kept: [false; PATHS],
        request,
        suspected: false,
        age: Age::New,
    };
    world.outside.object.preflight = false;
    world.send(Effect::Record(id, record));
}

/// Checks that a rollback does not change a role with one password under a host that already uses the new password, or
/// may be about to.
fn judge_roll_back(story: &Story, world: &mut World, seen: &Outside, failed: Id) {
    let Some(failed) = seen.records.get(&failed) else { return };
    let follows = |host: &Host| {
        let login = seen.login_of(host);
        host.deploying.is_some() || login.is_some_and(|login| login.value == failed.values[0])
    };
    if story.is_in_place() && seen.hosts.iter().any(follows) {
        world.fault("I2: a role is rolled back in place under a host that has followed");
    }
}

fn roll_back(world: &mut World, seen: &Outside, id: Id, (failed, kept): (Id, [bool; PATHS])) {
    let Some(failed) = seen.records.get(&failed) else { return };
    let previous = |path: usize| world.outside.version(path, failed.base[path]).copied();
    let Some(login) = previous(0) else { return };
    let record = Record {
        why: Why::RollBack,
        values: std::array::from_fn(|path| {
            if path < seen.paths.len() { previous(path).map_or(0, |version| version.value) } else { 0 }
        }),
        role: login.role,
        replaces: Some(failed.role),
        base: std::array::from_fn(|path| if path < seen.paths.len() { seen.latest_number(path) } else { 0 }),
        kept,
        request: failed.request,
        // A restored value keeps its old age.
        suspected: previous(0).is_some_and(|version| version.suspected),
        age: Age::New,
    };
    world.outside.object.preflight = false;
    world.send(Effect::Record(id, record));
}

fn install(story: &Story, world: &mut World, seen: &Outside, id: Id) {
    let Some(record) = seen.records.get(&id) else { return };
    // SSM can no longer refuse a value that is already published, even if these reads do not show it.
    let published = (0..story.paths).all(|path| {
        let latest = world.outside.latest(path);
        record.kept[path] || latest.is_some_and(|version| version.stamp.is_some_and(|stamp| stamp.id == id))
    });
    let refused = seen.refusals.contains(&Refusal::Shown);
    // A rollback restores the password that hosts run: a refused Put is the smaller problem.
    let gives_back = record.why == Why::RollBack;
    if story.is_in_place() && refused && !published && !gives_back && !seen.is_due() {
        world.fault("A role is changed in place although SSM shows that it will refuse the Put");
    }
    world.send(Effect::Install { id, role: record.role, value: record.values[0] });
}

fn promote(story: &Story, world: &mut World, seen: &Outside, (id, path, expected): (Id, u8, u8)) {
    let Some(record) = seen.records.get(&id) else { return };
    let changed = story.is_in_place() && seen.accepts(record.role, record.values[0]);
    // Here only versions of other people count as foreign. While a rotation is open, a version of ours that somebody
    // puts again looks the same as one that arrived late.
    let foreign = seen.latest(usize::from(path)).is_some_and(|latest| latest.value >= FOREIGN);
    let after = seen.latest_number(usize::from(path)) > record.base[usize::from(path)];
    let kept = !seen.is_due() && !seen.has_to_go(usize::from(path), story.has_target());
    if foreign && after && !changed && story.on_drift == OnDrift::Alert && kept {
        world.fault("I11: a foreign write is overwritten though a person has to decide");
    }
    let works = seen.accepts(record.role, record.values[0]);
    if story.has_target() && seen.server == Server::There && !works {
        world.fault("I5: a login is published that its server was not given");
    }
    let version = Version {
        value: record.values[usize::from(path)],
        role: record.role,
        stamp: Some(Stamp { id, expected, request: record.request }),
        age: Age::New,
        suspected: record.suspected,
        by_us: true,
    };
    world.send(Effect::Put { path, version });
}

pub(super) fn let_go(world: &mut World) {
    world.outside.object.finalizer = false;
    world.outside.object.gone = true;
    world.past.abandoned = true;
}

pub(super) fn delete(world: &mut World) {
    world.left.deletions -= 1;
    let object = &mut world.outside.object;
    object.deleting = Some(Deleting { age: Age::New, overdue: false });
    object.gone = !object.finalizer;
}

pub(super) fn lose_status(world: &mut World) {
    world.left.losses -= 1;
    let object = &mut world.outside.object;
    object.settled = None;
    object.preflight = false;
    object.publication_refused = false;
    object.last_answered = 0;
    // A request that came with an object which the controller had never seen is only recorded, unless it is being
    // executed.
    let executed = world.outside.records.values().any(|record| record.request == object.asked);
    object.handled = if executed { 0 } else { 1 << object.asked };
}

pub(super) fn write_foreign(world: &mut World, path: usize, keeps_description: bool) {
    world.left.foreign -= 1;
    world.past.foreign_writes += 1;
    let value = FOREIGN + world.past.foreign_writes;
    let Some(latest) = world.outside.latest(path).copied() else { return };
    let stamp = latest.stamp.filter(|_| keeps_description);
    let version = Version { value, stamp, age: Age::New, suspected: false, by_us: false, ..latest };
    world.outside.paths[path].push(version);
}

pub(super) fn restore(world: &mut World, path: usize, version: Version) {
    world.left.restored -= 1;
    world.past.foreign_writes += 1;
    world.outside.paths[path].push(Version { age: Age::New, by_us: false, ..version });
}

pub(super) fn report(story: &Story, world: &mut World) {
    world.left.reports -= 1;
    let before = world.values();
    world.outside.report = Some(Report { age: Age::New, due: false, before });
    world.outside.paths.iter_mut().flatten().for_each(|version| version.suspected = true);
    world.outside.records.values_mut().for_each(|record| record.suspected = true);
    for request in &mut world.flight {
        match &mut request.effect {
            Effect::Record(_, record) => record.suspected = true,
            Effect::Put { version, .. } | Effect::Create { version, .. } => version.suspected = true,
            _ => {}
        }
    }
    let stolen = world.outside.latest(0).map(|version| version.role);
    world.outside.thief = stolen.filter(|_| story.has_target());
}

pub(super) fn tick(world: &mut World, requests_die: bool) {
    let outside = &mut world.outside;
    outside.paths.iter_mut().flatten().for_each(|version| version.age = version.age.grown());
    outside.records.values_mut().for_each(|record| record.age = record.age.grown());
    outside.markers.values_mut().for_each(|age| *age = age.grown());
    outside.roles.iter_mut().for_each(|role| role.changed = role.changed.grown());
    let object = &mut outside.object;
    object.settled = object.settled.map(Age::grown);
    object.deleting = object.deleting.map(|deleting| Deleting { age: deleting.age.grown(), ..deleting });
    outside.report = outside.report.map(|report| Report { age: report.age.grown(), ..report });
    if requests_die {
        world.flight.retain(|request| request.age == Age::New);
    }
    world.flight.iter_mut().for_each(|request| request.age = request.age.grown());
    world.flight.sort_unstable();
    world.flight.dedup();
}
