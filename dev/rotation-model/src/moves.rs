//! The possible next events in a world: controllers decide, their requests are applied, time passes, hosts deploy, and
//! other people do what the story allows.

use keyturn::api::managed_secret::OnDrift;

use crate::creation;
use crate::decision::{Answer, Decisions, Deed, Sight};
use crate::effects;
use crate::hosts::{self, End};
use crate::seeds::Seed;
use crate::stories::{Source, Story};
use crate::world::{
    Age, Deleting, Effect, FOREIGN, Host, Id, Outside, PATHS, Record, Refusal, Report, Server, Stamp,
    Version, Why, World,
};

/// The reads on which a decision is based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    Fresh,
    /// Stale reads that miss the newest version of this path.
    WithoutVersion(usize),
    WithoutRecord,
    WithoutMarker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    Decide(View, Answer),
    /// A request that was sent is applied; requests may be applied in any order.
    Apply(Effect),
    ApplyTwice(Effect),
    /// Half of the grace passes.
    Tick,
    /// The time limit for a deleted object to finish its rotation passes.
    DeadlinePasses,
    /// The object is released after its time limit although no grant covers it any more.
    LetGo,
    StartDeployment(usize),
    EndDeployment(usize, End),
    Look(usize),
    Answers,
    Ask,
    AskAgain,
    Foreign {
        path: usize,
        keeps_description: bool,
    },
    Restore {
        path: usize,
        number: u8,
    },
    Refuse(usize, Refusal),
    Mend(usize),
    /// Somebody deletes the parameter.
    Remove(usize),
    /// Somebody puts a parameter that does not exist.
    PutFirst(usize),
    FallSilent,
    ReportIncident,
    RevocationIsDue,
    DeleteIncident,
    ThiefLogsIn,
    Delete,
    WithdrawGrant,
    NameOtherSource,
    PutSourceBack,
    EditHosts,
    LoseStatus,
}

impl Move {
    /// Returns true for moves that still happen once faults have stopped and people do only what the status asks for.
    pub fn is_good(self) -> bool {
        matches!(
            self,
            Move::Decide(View::Fresh, _)
                | Move::Apply(_)
                | Move::Tick
                | Move::DeadlinePasses
                | Move::LetGo
                | Move::StartDeployment(_)
                | Move::EndDeployment(_, End::Done)
                | Move::Look(_)
                | Move::Answers
                | Move::RevocationIsDue
                | Move::PutSourceBack
        )
    }
}

/// Returns every possible move with the world that results, in a fixed order.
pub fn all(story: &Story, decisions: &mut Decisions, world: &World) -> Vec<(Move, World)> {
    let mut next = Moves { story, world, found: Vec::new() };
    let sight = decisions.of(story, &world.outside);
    next.decide(decisions);
    next.apply();
    next.time();
    next.on_hosts(sight);
    next.of_people();
    next.of_ssm_and_server();
    next.in_an_incident();
    next.of_a_first_value();
    next.found
}

struct Moves<'a> {
    story: &'a Story,
    world: &'a World,
    found: Vec<(Move, World)>,
}

impl Moves<'_> {
    fn push(&mut self, what: Move, change: impl FnOnce(&mut World)) {
        let mut world = self.world.clone();
        change(&mut world);
        if world != *self.world {
            self.found.push((what, world));
        }
    }

    fn decide(&mut self, decisions: &mut Decisions) {
        let (story, world) = (self.story, self.world);
        let object = world.outside.object;
        if object.gone {
            return;
        }
        if !object.granted {
            let overdue = object.finalizer && object.deleting.is_some_and(|deleting| deleting.overdue);
            if overdue && story.seed != Some(Seed::DeletionUnbounded) {
                self.push(Move::LetGo, let_go);
            }
            return;
        }
        for (view, seen) in views(world) {
            let sight = decisions.of(story, &seen);
            self.push(Move::Decide(view, sight.answer), |next| {
                if view != View::Fresh {
                    next.left.stale -= 1;
                }
                look_for_records(next, &seen);
                creation::remember_the_request(story, next, &seen);
                match sight.answer {
                    Answer::Rest => next.outside.object.preflight = false,
                    Answer::Wait | Answer::Told(_) => {}
                    Answer::Do(deed) => perform(story, next, &seen, deed),
                }
                if next.flight.len() > story.in_flight {
                    *next = world.clone();
                }
            });
        }
    }

    fn apply(&mut self) {
        for (at, request) in self.world.flight.iter().enumerate() {
            let story = self.story;
            self.push(Move::Apply(request.effect), |next| {
                next.flight.remove(at);
                effects::apply(story, next, request.effect);
            });
            if self.world.left.twice > 0 {
                self.push(Move::ApplyTwice(request.effect), |next| {
                    next.left.twice -= 1;
                    effects::apply(story, next, request.effect);
                });
            }
        }
    }

    fn time(&mut self) {
        let requests_die = self.story.seed != Some(Seed::NoEndOfRequests);
        self.push(Move::Tick, |next| tick(next, requests_die));
        let deleting = self.world.outside.object.deleting;
        if deleting.is_some_and(|deleting| deleting.age == Age::Old && !deleting.overdue) {
            self.push(Move::DeadlinePasses, |next| {
                tick(next, requests_die);
                tick(next, requests_die);
                next.outside.object.deleting = Some(Deleting { age: Age::Old, overdue: true });
            });
        }
    }

    fn on_hosts(&mut self, sight: Sight) {
        let (story, world) = (self.story, self.world);
        for (at, host) in world.outside.hosts.iter().enumerate() {
            if world.outside.object.granted && hosts::may_start(&world.outside, host, sight.deploys) {
                self.push(Move::StartDeployment(at), |next| hosts::start(next, at));
            }
            if host.deploying.is_none() {
                self.push(Move::Look(at), |next| hosts::look(story, next, at));
                continue;
            }
            self.push(Move::EndDeployment(at, End::Done), |next| hosts::end(story, next, at, End::Done));
            for how in [End::Failed, End::Broken] {
                if world.left.rejections > 0 {
                    self.push(Move::EndDeployment(at, how), |next| {
                        next.left.rejections -= 1;
                        hosts::end(story, next, at, how);
                    });
                }
            }
            for how in [End::Unknown { applied: true }, End::Unknown { applied: false }] {
                if world.left.unknowns > 0 {
                    self.push(Move::EndDeployment(at, how), |next| {
                        next.left.unknowns -= 1;
                        hosts::end(story, next, at, how);
                    });
                }
            }
        }
    }

    fn of_people(&mut self) {
        let (world, object) = (self.world, self.world.outside.object);
        if object.gone {
            return;
        }
        if world.left.asks > 0 && object.deleting.is_none() && !object.other_source {
            self.push(Move::Ask, |next| {
                next.left.asks -= 1;
                next.outside.object.asked += 1;
            });
        }
        if world.left.reverts > 0 && object.asked > 1 {
            self.push(Move::AskAgain, |next| {
                next.left.reverts -= 1;
                next.outside.object.asked -= 1;
            });
        }
        if world.left.deletions > 0 {
            self.push(Move::Delete, delete);
        }
        if world.left.withdrawals > 0 {
            self.push(Move::WithdrawGrant, |next| {
                next.left.withdrawals -= 1;
                next.outside.object.granted = false;
            });
        }
        if world.left.edits > 0 && !world.outside.records.is_empty() {
            self.push(Move::NameOtherSource, |next| {
                next.left.edits -= 1;
                next.outside.object.other_source = true;
            });
        }
        if object.other_source {
            self.push(Move::PutSourceBack, |next| next.outside.object.other_source = false);
        }
        if world.left.losses > 0 {
            self.push(Move::LoseStatus, lose_status);
        }
    }

    fn of_ssm_and_server(&mut self) {
        let world = self.world;
        for path in 0..self.story.paths {
            let refused = world.outside.refusals[path] != Refusal::None;
            if refused {
                self.push(Move::Mend(path), |next| next.outside.refusals[path] = Refusal::None);
            } else if world.left.refusals > 0 {
                // A parameter that does not exist cannot show why SSM would refuse.
                let is_there = !world.outside.paths[path].is_empty();
                for refusal in [Refusal::Hidden, Refusal::Shown].into_iter().take(1 + usize::from(is_there)) {
                    self.push(Move::Refuse(path, refusal), |next| {
                        next.left.refusals -= 1;
                        next.outside.refusals[path] = refusal;
                    });
                }
            }
            if world.left.foreign > 0 && !world.outside.paths[path].is_empty() {
                for keeps_description in [true, false] {
                    self.push(Move::Foreign { path, keeps_description }, |next| {
                        write_foreign(next, path, keeps_description);
                    });
                }
            }
            if world.left.restored > 0 {
                let last = usize::from(world.outside.latest_number(path)).saturating_sub(1);
                let older = world.outside.paths[path].iter().take(last).zip(1_u8..);
                for (version, number) in older.filter(|(version, _)| version.stamp.is_some()) {
                    self.push(Move::Restore { path, number }, |next| restore(next, path, *version));
                }
            }
        }
        match world.outside.server {
            Server::There if world.left.silences > 0 => self.push(Move::FallSilent, |next| {
                next.left.silences -= 1;
                next.outside.server = Server::Silent;
            }),
            Server::Silent => self.push(Move::Answers, |next| next.outside.server = Server::There),
            _ => {}
        }
    }

    fn in_an_incident(&mut self) {
        let (story, world) = (self.story, self.world);
        if world.left.reports > 0 && !world.outside.object.gone {
            self.push(Move::ReportIncident, |next| report(story, next));
        }
        if world.left.retractions > 0 && world.outside.report.is_some() {
            self.push(Move::DeleteIncident, |next| {
                next.left.retractions -= 1;
                next.outside.report = None;
            });
        }
        if world.outside.report.is_some_and(|report| !report.due) {
            self.push(Move::RevocationIsDue, |next| {
                if let Some(report) = &mut next.outside.report {
                    report.due = true;
                }
            });
        }
        if world.outside.report.is_some() && world.outside.thief.is_none() && story.has_target() {
            let stolen = |role: &u8| {
                let known = world.outside.roles[usize::from(*role)];
                known.can_log_in && world.outside.is_suspected(known.password)
            };
            if let Some(role) = [0, 1].into_iter().find(stolen) {
                self.push(Move::ThiefLogsIn, |next| next.outside.thief = Some(role));
            }
        }
    }

    fn of_a_first_value(&mut self) {
        let world = self.world;
        if world.outside.object.gone {
            return;
        }
        for path in 0..self.story.paths {
            if world.left.removals > 0 && creation::may_be_removed(world, path) {
                self.push(Move::Remove(path), |next| creation::remove(next, path));
            }
            if world.left.puts > 0 && world.outside.paths[path].is_empty() {
                self.push(Move::PutFirst(path), |next| creation::put_first(next, path));
            }
        }
        if world.left.host_edits > 0 {
            self.push(Move::EditHosts, |next| {
                next.left.host_edits -= 1;
                next.outside.object.names_hosts = !world.outside.object.names_hosts;
            });
        }
    }
}

/// Returns the possible reads of a controller: everything, or everything but the newest item of one kind (stale reads).
fn views(world: &World) -> Vec<(View, Outside)> {
    let outside = &world.outside;
    let mut views = vec![(View::Fresh, outside.clone())];
    if world.left.stale == 0 {
        return views;
    }
    for path in 0..outside.paths.len() {
        if outside.latest(path).is_some_and(|latest| latest.age == Age::New) {
            let mut seen = outside.clone();
            seen.paths[path].pop();
            views.push((View::WithoutVersion(path), seen));
        }
    }
    let newest = outside.records.iter().find(|(_, record)| record.age == Age::New);
    if let Some((id, _)) = newest {
        let mut seen = outside.clone();
        seen.records.remove(id);
        views.push((View::WithoutRecord, seen));
    }
    if let Some((id, _)) = outside.markers.iter().find(|(_, age)| **age == Age::New) {
        let mut seen = outside.clone();
        seen.markers.remove(id);
        views.push((View::WithoutMarker, seen));
    }
    views
}

/// Updates the process's memory of whether it has seen records.
fn look_for_records(world: &mut World, seen: &Outside) {
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

fn perform(story: &Story, world: &mut World, seen: &Outside, deed: Deed) {
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
    // The role that is in use. The published one may be retired, where somebody has put its version back.
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

/// Checks that a roll back does not change a role with one password under a host that already uses the new password, or
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
    // SSM cannot refuse a value any more that is already published, even if these reads do not show it.
    let published = (0..story.paths).all(|path| {
        let latest = world.outside.latest(path);
        record.kept[path] || latest.is_some_and(|version| version.stamp.is_some_and(|stamp| stamp.id == id))
    });
    let refused = seen.refusals.contains(&Refusal::Shown);
    // A roll back restores the password that hosts run: a refused Put is the smaller problem.
    let gives_back = record.why == Why::RollBack;
    if story.is_in_place() && refused && !published && !gives_back && !seen.is_due() {
        world.fault("A role is changed in place although SSM shows that it will refuse the Put");
    }
    world.send(Effect::Install { id, role: record.role, value: record.values[0] });
}

fn promote(story: &Story, world: &mut World, seen: &Outside, (id, path, expected): (Id, u8, u8)) {
    let Some(record) = seen.records.get(&id) else { return };
    let changed = story.is_in_place() && seen.accepts(record.role, record.values[0]);
    // Here only versions of other people count as foreign. While a rotation is open, a version of ours that is put back
    // equals one that arrived late.
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

fn let_go(world: &mut World) {
    world.outside.object.finalizer = false;
    world.outside.object.gone = true;
    world.past.abandoned = true;
}

fn delete(world: &mut World) {
    world.left.deletions -= 1;
    let object = &mut world.outside.object;
    object.deleting = Some(Deleting { age: Age::New, overdue: false });
    object.gone = !object.finalizer;
}

fn lose_status(world: &mut World) {
    world.left.losses -= 1;
    let object = &mut world.outside.object;
    object.settled = None;
    object.preflight = false;
    object.publication_refused = false;
    object.last_answered = 0;
    // A request that came with an object which was never seen is only recorded, unless it is being executed.
    let executed = world.outside.records.values().any(|record| record.request == object.asked);
    object.handled = if executed { 0 } else { 1 << object.asked };
}

fn write_foreign(world: &mut World, path: usize, keeps_description: bool) {
    world.left.foreign -= 1;
    world.past.foreign_writes += 1;
    let value = FOREIGN + world.past.foreign_writes;
    let Some(latest) = world.outside.latest(path).copied() else { return };
    let stamp = latest.stamp.filter(|_| keeps_description);
    let version = Version { value, stamp, age: Age::New, suspected: false, by_us: false, ..latest };
    world.outside.paths[path].push(version);
}

fn restore(world: &mut World, path: usize, version: Version) {
    world.left.restored -= 1;
    world.past.foreign_writes += 1;
    world.outside.paths[path].push(Version { age: Age::New, by_us: false, ..version });
}

fn report(story: &Story, world: &mut World) {
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

fn tick(world: &mut World, requests_die: bool) {
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
