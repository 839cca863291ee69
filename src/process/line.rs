//! The order in which the objects of one queue are processed, and the times at which they come up again.
//!
//! Each known object is waiting, due later, or being processed: never two of these. Of the waiting objects, the one
//! that has waited longest comes first. An object that should have been processed at an earlier time counts as waiting
//! since then, so that the most overdue one goes first, however many there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

use super::pace::Name;

/// State of one object. The numbers order places with the same time by their arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting(DateTime<Utc>, u64),
    Later(Instant, u64),
    /// Being processed. If it was requested again in the meantime, with the time since which it waits.
    Busy(Option<DateTime<Utc>>),
}

/// All objects of one queue.
#[derive(Default)]
pub(super) struct Line {
    places: HashMap<Arc<Name>, Place>,
    waiting: BTreeMap<(DateTime<Utc>, u64), Arc<Name>>,
    later: BTreeMap<(Instant, u64), Arc<Name>>,
    arrivals: u64,
}

impl Line {
    /// Adds an object that has been waiting since this time. If it already waits, the earlier time counts; if it is
    /// being processed, it is added afterwards.
    pub(super) fn push(&mut self, name: &Name, since: DateTime<Utc>) {
        let known = self.places.get_key_value(name).map(|(name, place)| (name.clone(), *place));
        let name = match known {
            Some((name, Place::Busy(again))) => {
                let again = again.map_or(since, |earlier| earlier.min(since));
                self.places.insert(name, Place::Busy(Some(again)));
                return;
            }
            Some((_, Place::Waiting(earlier, _))) if earlier <= since => return,
            Some((name, place)) => {
                self.leave(place);
                name
            }
            None => Arc::new(name.clone()),
        };
        self.line_up(name, since);
    }

    /// Moves everything that is due to the waiting objects. `since` returns the time since which an object has been
    /// waiting.
    pub(super) fn wake(&mut self, now: Instant, since: impl Fn(&Name) -> DateTime<Utc>) {
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            let name = entry.remove();
            let since = since(&name);
            self.line_up(name, since);
        }
    }

    /// Returns the time of the next call to [`Self::wake`]; `None` if nothing is due later.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn is_anybody_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes out the object that is to be processed next. It is busy until [`Self::done`] or [`Self::forget`].
    pub(super) fn next(&mut self) -> Option<Arc<Name>> {
        let (_, name) = self.waiting.pop_first()?;
        self.places.insert(name.clone(), Place::Busy(None));
        Some(name)
    }

    /// Ends the processing of an object. It comes up again at this time, or at once if it was requested meanwhile.
    pub(super) fn done(&mut self, name: Arc<Name>, again_at: Instant) {
        if let Some(Place::Busy(Some(since))) = self.places.get(&name).copied() {
            self.line_up(name, since);
            return;
        }
        let place = (again_at, self.arrive());
        self.places.insert(name.clone(), Place::Later(place.0, place.1));
        self.later.insert(place, name);
    }

    /// Drops an object that does not exist any more.
    pub(super) fn forget(&mut self, name: &Name) {
        if let Some(place) = self.places.remove(name) {
            self.leave(place);
        }
    }

    fn line_up(&mut self, name: Arc<Name>, since: DateTime<Utc>) {
        let place = (since, self.arrive());
        self.places.insert(name.clone(), Place::Waiting(place.0, place.1));
        self.waiting.insert(place, name);
    }

    fn leave(&mut self, place: Place) {
        match place {
            Place::Waiting(since, number) => drop(self.waiting.remove(&(since, number))),
            Place::Later(at, number) => drop(self.later.remove(&(at, number))),
            Place::Busy(_) => {}
        }
    }

    fn arrive(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(name: &str) -> Name {
        ("a".to_owned(), name.to_owned())
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn next(line: &mut Line) -> Option<String> {
        line.next().map(|name| name.1.clone())
    }

    #[test]
    fn who_waits_for_longest_comes_first_and_those_of_one_time_as_they_came() {
        let mut line = Line::default();
        for (one, since) in [("new", 9), ("newer", 9), ("overdue", 5), ("long overdue", 1)] {
            line.push(&name(one), at(since));
        }
        let order: Vec<String> = std::iter::from_fn(|| next(&mut line)).collect();
        assert_eq!(order, ["long overdue", "overdue", "new", "newer"]);
    }

    #[test]
    fn an_object_waits_once_and_since_the_earliest_of_its_times() {
        let mut line = Line::default();
        line.push(&name("twice"), at(9));
        line.push(&name("other"), at(5));
        line.push(&name("twice"), at(1));
        line.push(&name("twice"), at(7));
        assert_eq!(next(&mut line).as_deref(), Some("twice"));
        assert_eq!(next(&mut line).as_deref(), Some("other"));
        assert_eq!(next(&mut line), None);
    }

    #[test]
    fn what_is_asked_for_while_it_is_processed_comes_afterwards() {
        let (mut line, now) = (Line::default(), Instant::now());
        line.push(&name("one"), at(1));
        let one = line.next().unwrap();
        line.push(&one, at(2));
        assert!(!line.is_anybody_waiting(), "it would be processed twice at the same time");
        line.done(one, now + Duration::from_secs(60));
        assert_eq!(next(&mut line).as_deref(), Some("one"));
        assert_eq!(line.wakes_at(), None, "the request takes the place of the later time");
    }

    #[test]
    fn an_object_comes_up_at_its_time_unless_somebody_asks_for_it_before() {
        let (mut line, now) = (Line::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        for (one, seconds) in [("first", 10), ("second", 20), ("asked", 30)] {
            line.push(&name(one), at(1));
            let taken = line.next().unwrap();
            line.done(taken, later(seconds));
        }
        assert_eq!(line.wakes_at(), Some(later(10)));
        line.push(&name("asked"), at(1));
        assert_eq!(next(&mut line).as_deref(), Some("asked"));
        line.wake(later(10), |_| at(1));
        assert_eq!((next(&mut line).as_deref(), line.wakes_at()), (Some("first"), Some(later(20))));
        line.wake(later(40), |_| at(1));
        assert_eq!(next(&mut line).as_deref(), Some("second"));
        assert_eq!((next(&mut line), line.wakes_at()), (None, None));
    }

    #[test]
    fn what_is_forgotten_does_not_come_up() {
        let (mut line, now) = (Line::default(), Instant::now());
        line.push(&name("gone"), at(1));
        line.forget(&name("gone"));
        line.push(&name("gone later"), at(1));
        let taken = line.next().unwrap();
        line.done(taken, now);
        line.forget(&name("gone later"));
        assert_eq!((next(&mut line), line.wakes_at()), (None, None));
        assert!(line.places.is_empty());
    }
}
