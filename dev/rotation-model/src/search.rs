//! Reaches every world of a story, breadth first, and checks each of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::decision::Decisions;
use crate::invariants;
use crate::moves;
use crate::stories::Story;
use crate::world::World;

/// Hashes a value with two hashes of 64 bits. With ten million worlds, the chance of a collision is one in 10^24.
pub fn fingerprint(of: &impl Hash) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        of.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// The results of a search.
#[derive(Debug, Default)]
pub struct Found {
    /// Number of different worlds that were reached.
    pub states: usize,
    /// Number of moves that were made, including those to worlds that were reached before.
    pub transitions: usize,
    /// The largest distance of a world from the first one, in moves.
    pub depth: usize,
    /// The shortest path to each kind of violation.
    pub violations: Vec<Violation>,
    /// True when there were more worlds than the search may hold.
    pub cut_short: bool,
}

/// A violation, with the shortest path to it.
#[derive(Debug)]
pub struct Violation {
    /// Name of the violation, as in [`Story::known`].
    pub what: &'static str,
    /// The path, one move a line.
    pub trace: Vec<String>,
}

/// The violation of a world from which no sequence of moves without faults leads to an end.
pub const STUCK: &str = "I6: no way leads from here to an end";

/// A search in progress.
struct Search<'a> {
    story: &'a Story,
    decisions: Decisions,
    known: HashMap<u128, u32>,
    /// For each world, by number: the world from which it was reached, and the number of the move.
    reached: Vec<(u32, u16)>,
    /// Moves in worlds that have no more faults: from and to.
    good: Vec<(u32, u32)>,
    ends: Vec<u32>,
    broken: Vec<(&'static str, u32)>,
    transitions: usize,
    depth: usize,
}

/// Searches a story. `most` limits the number of worlds; with `all` the search continues after the first violation that
/// is not known, to the first one of each kind.
pub fn search(story: &Story, most: usize, all: bool) -> Found {
    let mut search = Search {
        story,
        decisions: Decisions::default(),
        known: HashMap::new(),
        reached: Vec::new(),
        good: Vec::new(),
        ends: Vec::new(),
        broken: Vec::new(),
        transitions: 0,
        depth: 0,
    };
    let cut_short = search.run(most, all);
    let has_news = search.broken.iter().any(|(what, _)| !story.known.contains(what));
    if !cut_short && (all || !has_news) {
        search.find_stuck();
    }
    let violations =
        search.broken.iter().map(|(what, at)| Violation { what, trace: search.trace(*at) }).collect();
    Found {
        states: search.reached.len(),
        transitions: search.transitions,
        depth: search.depth,
        violations,
        cut_short,
    }
}

impl Search<'_> {
    /// Returns true when the search was cut short.
    fn run(&mut self, most: usize, all: bool) -> bool {
        let first = self.story.begin();
        let mut waiting = VecDeque::new();
        self.reach(&first, (0, 0));
        waiting.push_back((0_u32, 0_usize, first));
        while let Some((at, depth, world)) = waiting.pop_front() {
            self.depth = self.depth.max(depth);
            let sight = self.decisions.of(self.story, &world.outside);
            if let Some(what) = invariants::broken(self.story, &world, sight) {
                if self.broken.iter().all(|(known, _)| *known != what) {
                    self.broken.push((what, at));
                }
                if !all && !self.story.known.contains(&what) {
                    return false;
                }
                // The successors of a broken world show nothing new.
                self.ends.push(at);
                continue;
            }
            if invariants::is_an_end(self.story, &world, sight) {
                self.ends.push(at);
            }
            for (ordinal, (step, next)) in (0_u16..).zip(moves::all(self.story, &mut self.decisions, &world))
            {
                self.transitions += 1;
                let (to, is_new) = self.reach(&next, (at, ordinal));
                if step.is_good() {
                    self.good.push((at, to));
                }
                if is_new {
                    waiting.push_back((to, depth + 1, next));
                }
            }
            if self.reached.len() > most {
                return true;
            }
        }
        false
    }

    fn reach(&mut self, world: &World, from: (u32, u16)) -> (u32, bool) {
        let next = u32::try_from(self.reached.len()).unwrap_or(u32::MAX);
        let at = *self.known.entry(fingerprint(world)).or_insert(next);
        if at == next {
            self.reached.push(from);
        }
        (at, at == next)
    }

    /// Finds the first world from which no good moves lead to an end.
    fn find_stuck(&mut self) {
        self.good.sort_unstable_by_key(|(_, to)| *to);
        let from = |to: u32| {
            let first = self.good.partition_point(|(_, known)| *known < to);
            self.good[first..].iter().take_while(move |(_, known)| *known == to).map(|(from, _)| *from)
        };
        let mut leads_to_an_end = vec![false; self.reached.len()];
        let mut waiting = self.ends.clone();
        while let Some(at) = waiting.pop() {
            if !std::mem::replace(&mut leads_to_an_end[at as usize], true) {
                waiting.extend(from(at));
            }
        }
        let stuck = leads_to_an_end.iter().position(|leads| !leads);
        if let Some(at) = stuck.and_then(|at| u32::try_from(at).ok()) {
            self.broken.push((STUCK, at));
        }
    }

    /// Returns the shortest path to a world, by making its moves again.
    fn trace(&self, to: u32) -> Vec<String> {
        let mut way = Vec::new();
        let mut at = to;
        while at != 0 {
            let (from, ordinal) = self.reached[at as usize];
            way.push(ordinal);
            at = from;
        }
        let mut decisions = Decisions::default();
        let mut world = self.story.begin();
        let mut lines = Vec::new();
        for ordinal in way.into_iter().rev() {
            let mut all = moves::all(self.story, &mut decisions, &world);
            let (step, next) = all.swap_remove(usize::from(ordinal));
            lines.push(format!("{step:?}"));
            world = next;
        }
        let sight = decisions.of(self.story, &world.outside);
        lines.push(format!("=> {:?}\n{world}", sight.answer));
        lines
    }
}

/// Returns the kinds of violations that a search found.
pub fn kinds(found: &Found) -> HashSet<&'static str> {
    found.violations.iter().map(|violation| violation.what).collect()
}
