//! What is counted.

use std::collections::BTreeMap;

use keyturn_reconcile::managed_secret::Requeue;

pub type Counts = BTreeMap<&'static str, usize>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests to SSM, by operation. Each page of a listing is one.
    pub ssm: Counts,
    /// Requests to the API server. What a cache answers is none.
    pub api: Counts,
    /// What ports have handed out, caches too: whoever is given all objects has to look at all of them.
    pub given: Counts,
}

impl Tally {
    pub fn asks_ssm(&mut self, operation: &'static str, requests: usize) {
        add(&mut self.ssm, operation, requests);
    }

    pub fn asks_api(&mut self, what: &'static str) {
        add(&mut self.api, what, 1);
    }

    pub fn gives(&mut self, what: &'static str, number: usize) {
        add(&mut self.given, what, number);
    }

    /// Both together.
    pub fn and(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        other.ssm.iter().for_each(|(what, number)| add(&mut sum.ssm, what, *number));
        other.api.iter().for_each(|(what, number)| add(&mut sum.api, what, *number));
        other.given.iter().for_each(|(what, number)| add(&mut sum.given, what, *number));
        sum
    }
}

/// What never happened is not listed, so that an empty tally is one of nothing.
fn add(counts: &mut Counts, what: &'static str, number: usize) {
    if number > 0 {
        *counts.entry(what).or_default() += number;
    }
}

/// What one pass comes to, and when it wants the next one: an object that is looked at twice as often costs twice as much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub tally: Tally,
    pub again: Requeue,
}
