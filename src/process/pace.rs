//! A rate limit for the reconciliation of one object. Normal work stays below it. It slows down conflicts: two
//! installations that watch one namespace, or a tool that reverts the status, would otherwise react to each other
//! without a pause.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Reconciliations that an object may have at once: more than a rotation with its deployment takes.
const BURST: u32 = 40;
/// Time after which an object may have one more.
const EARN: Duration = Duration::from_secs(4);

/// Namespace and name.
pub(super) type Name = (String, String);

/// The recent reconciliations of all objects.
#[derive(Default)]
pub(super) struct Pace {
    /// Time at which the allowance of an object is full again. A reconciliation moves it by [`EARN`] into the future.
    full_at: HashMap<Name, Instant>,
    /// Size of `full_at` at which the entries of idle objects are removed from it.
    purge_at: usize,
}

impl Pace {
    /// Takes one reconciliation from the object's allowance, or returns the time until the next one is allowed.
    pub(super) fn take(&mut self, name: &Name, now: Instant) -> Result<(), Duration> {
        if self.full_at.len() > self.purge_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.purge_at = (self.full_at.len() * 2).max(1024);
        }
        let full_at = self.full_at.get(name).copied().filter(|at| *at > now).unwrap_or(now) + EARN;
        let excess = full_at.saturating_duration_since(now).saturating_sub(EARN * BURST);
        if excess.is_zero() {
            self.full_at.insert(name.clone(), full_at);
            Ok(())
        } else {
            Err(excess)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        ("a".to_owned(), name.to_owned())
    }

    #[test]
    fn a_quarrel_is_slowed_down_and_nobody_else_is() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at_once = (0..1000).filter(|_| pace.take(&name("quarrel"), start).is_ok()).count();
        assert_eq!(at_once, 40);
        assert_eq!(pace.take(&name("quarrel"), start), Err(EARN));
        assert_eq!(pace.take(&name("calm"), start), Ok(()));
        let minute: usize = (1..=60)
            .filter(|second| pace.take(&name("quarrel"), start + Duration::from_secs(*second)).is_ok())
            .count();
        assert_eq!(minute, 15);
    }

    #[test]
    fn after_a_rest_the_whole_allowance_is_there_again() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        while pace.take(&name("a"), start).is_ok() {}
        let later = start + EARN * BURST;
        assert_eq!((0..1000).filter(|_| pace.take(&name("a"), later).is_ok()).count(), 40);
    }

    #[test]
    fn objects_at_rest_are_forgotten() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for number in 0..5000 {
            pace.take(&name(&number.to_string()), start + EARN * number).unwrap();
        }
        assert!(pace.full_at.len() <= 1025, "{}", pace.full_at.len());
    }
}
