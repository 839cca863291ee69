//! Percentiles, and the percentage of pairs that are in order.

use crate::format::real;

/// Returns the smallest value that is not exceeded by at least `percent` % of the values; `None` without values.
pub(crate) fn percentile<T: PartialOrd + Copy>(values: &[T], percent: usize) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Returns the middle value; of an even number of values the lower of the two.
pub(crate) fn median<T: PartialOrd + Copy>(values: &[T]) -> Option<T> {
    percentile(values, 50)
}

/// Returns the percentage of all pairs of values in which the later one is not smaller; `None` if there is no pair.
pub(crate) fn in_order<T: PartialOrd>(values: &[T]) -> Option<f64> {
    let pairs = values.len() * values.len().saturating_sub(1) / 2;
    let ordered: usize = values
        .iter()
        .enumerate()
        .map(|(place, value)| values[place + 1..].iter().filter(|later| value <= later).count())
        .sum();
    (pairs > 0).then(|| 100.0 * real(ordered) / real(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(percentile(&values, 50), Some(100));
        assert_eq!(percentile(&values, 99), Some(198));
        assert_eq!(percentile(&values, 100), Some(200));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4, 1]), Some(1));
        assert_eq!(median::<u32>(&[]), None);
    }

    #[test]
    fn order_is_a_share_of_all_pairs() {
        assert_eq!(in_order(&[1, 2, 3]), Some(100.0));
        assert_eq!(in_order(&[3, 2, 1]), Some(0.0));
        assert_eq!(in_order(&[2, 1, 3, 4]), Some(100.0 * 5.0 / 6.0));
        assert_eq!(in_order(&[1]), None);
    }
}
