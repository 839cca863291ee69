//! Numbers by name, such as requests by verb and resource.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(crate) fn add(&mut self, name: impl Into<String>, number: u64) {
        *self.0.entry(name.into()).or_default() += number;
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Subtracts other counts, name by name. A counter that was reset gives zero instead of a negative number.
    pub(crate) fn without(&self, others: &Self) -> Self {
        let left =
            self.0.iter().map(|(name, number)| (name.clone(), number.saturating_sub(others.get(name))));
        Self(left.filter(|(_, number)| *number > 0).collect())
    }

    /// Keeps the names for which `takes` is true.
    pub(crate) fn only(&self, takes: impl Fn(&str) -> bool) -> Self {
        let taken = self.0.iter().filter(|(name, _)| takes(name));
        Self(taken.map(|(name, number)| (name.clone(), *number)).collect())
    }
}

/// Formats as `GET managedsecrets 3, PUT managedsecrets/status 2`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let parts: Vec<String> = self.0.iter().map(|(name, number)| format!("{name} {number}")).collect();
        f.write_str(&parts.join(", "))
    }
}

impl<N: Into<String>> FromIterator<N> for Counts {
    /// Counts how often each name occurs.
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        let mut counts = Self::default();
        names.into_iter().for_each(|name| counts.add(name, 1));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_no_zeros_and_a_counter_that_was_reset_counts_nothing() {
        let before: Counts = ["GET", "GET", "PUT", "DELETE"].into_iter().collect();
        let after: Counts = ["GET", "GET", "GET", "PUT"].into_iter().collect();
        let between = after.without(&before);
        assert_eq!(between.to_string(), "GET 1");
        assert_eq!((between.total(), between.get("PUT")), (1, 0));
        assert_eq!(before.without(&before).to_string(), "none");
    }
}
