//! The possible next events in a world: controllers decide, their requests are applied, time passes, hosts deploy, and
//! other people do what the story allows.

use crate::creation;
use crate::decision::{Answer, Decisions, Sight};
use crate::deeds::{
    delete, let_go, look_for_records, lose_status, perform, report, restore, tick, write_foreign,
};
use crate::effects;
use crate::hosts::{self, End};
use crate::seeds::Seed;
use crate::stories::Story;
use crate::world::{Age, Deleting, Effect, Outside, Refusal, Server, World};

/// The reads on which a decision is based.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// Reads that miss nothing.
    Fresh,
    /// Stale reads that miss the newest version of this path.
    WithoutVersion(usize),
    /// Stale reads that miss a record of age [`Age::New`].
    WithoutRecord,
    /// Stale reads that miss an abort marker of age [`Age::New`].
    WithoutMarker,
}

/// An event that changes the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// A controller decides on these reads, and does what the answer says.
    Decide(View, Answer),
    /// A request that was sent is applied; requests may be applied in any order.
    Apply(Effect),
    /// A request is applied and stays under way, so that it may be applied again.
    ApplyTwice(Effect),
    /// Half of the grace period passes.
    Tick,
    /// The time limit expires within which a deleted object may finish its rotation.
    DeadlinePasses,
    /// The object is released after its time limit although no grant covers it any more.
    LetGo,
    /// A deployment starts on the host with this number.
    StartDeployment(usize),
    /// The deployment on the host with this number ends.
    EndDeployment(usize, End),
    /// A run without a deployment verifies and compares the host with this number.
    Look(usize),
    /// The server answers the controller again.
    Answers,
    /// Somebody requests a rotation by a new annotation.
    Ask,
    /// Somebody sets the annotation back to the previous request.
    AskAgain,
    /// Somebody else writes a parameter that exists.
    Foreign {
        /// Number of the path, from 0.
        path: usize,
        /// True when the new version keeps the description of the previous one, and so its stamp.
        keeps_description: bool,
    },
    /// Somebody puts an older version again, including its description.
    Restore {
        /// Number of the path, from 0.
        path: usize,
        /// Number of the older version, from 1.
        number: u8,
    },
    /// SSM begins to refuse Puts to the path with this number.
    Refuse(usize, Refusal),
    /// SSM accepts Puts to the path with this number again.
    Mend(usize),
    /// Somebody deletes the parameter.
    Remove(usize),
    /// Somebody puts a parameter that does not exist.
    PutFirst(usize),
    /// The controller can no longer reach the server; hosts can.
    FallSilent,
    /// An incident is reported: every value that exists is suspected, and a thief may have a session.
    ReportIncident,
    /// The time comes at which the old login has to be revoked.
    RevocationIsDue,
    /// Somebody deletes the incident.
    DeleteIncident,
    /// A thief opens a session with a suspected password.
    ThiefLogsIn,
    /// Somebody deletes the object.
    Delete,
    /// Somebody withdraws the RotationGrant that covers the object.
    WithdrawGrant,
    /// Somebody changes the spec to another source while a record is open.
    NameOtherSource,
    /// Somebody changes the spec back to the source of the record.
    PutSourceBack,
    /// Somebody adds the hosts to the spec, or removes them from it.
    EditHosts,
    /// Status and the process's memory are lost.
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
