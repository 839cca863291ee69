//! The counts of requests.

use std::collections::BTreeMap;

use keyturn_reconcile::ports::Requeue;

pub(crate) type Counts = BTreeMap<&'static str, usize>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Requests to SSM by operation. Each page of a listing counts as one.
    pub ssm: Counts,
    /// Requests to the API server. An answer from a cache does not count.
    pub api: Counts,
    /// Objects that ports have returned, including caches: whoever receives all objects has to process them all.
    pub given: Counts,
}

impl Tally {
    pub(crate) fn asks_ssm(&mut self, operation: &'static str, requests: usize) {
        add(&mut self.ssm, operation, requests);
    }

    pub(crate) fn asks_api(&mut self, what: &'static str) {
        add(&mut self.api, what, 1);
    }

    pub(crate) fn gives(&mut self, what: &'static str, number: usize) {
        add(&mut self.given, what, number);
    }

    /// Returns the sum of both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        other.ssm.iter().for_each(|(what, number)| add(&mut sum.ssm, what, *number));
        other.api.iter().for_each(|(what, number)| add(&mut sum.api, what, *number));
        other.given.iter().for_each(|(what, number)| add(&mut sum.given, what, *number));
        sum
    }
}

/// Adds to a count. Operations that never happened are not listed, so that an empty tally has no operations.
fn add(counts: &mut Counts, what: &'static str, number: usize) {
    if number > 0 {
        *counts.entry(what).or_default() += number;
    }
}

/// The cost of one pass, and the time until the next one: an object that is reconciled twice as often costs twice as
/// much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub tally: Tally,
    pub again: Requeue,
}
