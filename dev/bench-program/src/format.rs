//! Markdown tables, and numbers formatted for people.

use std::fmt;
use std::time::Duration;

/// A Markdown table.
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { header: header.map(str::to_owned).into(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.header.join(" | "))?;
        writeln!(f, "|{}", "---|".repeat(self.header.len()))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// Formats a time as `12.3 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{} s", decimal(seconds)) }
}

/// Formats the time divided by the number of objects, as `1.23 ms`.
pub(crate) fn each(time: Duration, objects: usize) -> String {
    format!("{:.2} ms", milliseconds_each(time, objects))
}

pub(crate) fn milliseconds_each(time: Duration, objects: usize) -> f64 {
    1000.0 * time.as_secs_f64() / real(objects).max(1.0)
}

/// Formats a number of KiB as `101 MiB`, rounded up.
pub(crate) fn mebibytes(kibibytes: u64) -> String {
    format!("{} MiB", kibibytes.div_ceil(1024))
}

/// Formats the ratio of two times as `1.50 ×`.
pub(crate) fn times(time: Duration, of: Duration) -> String {
    if of.is_zero() { "–".to_owned() } else { format!("{:.2} ×", time.as_secs_f64() / of.as_secs_f64()) }
}

/// Formats a number as `10,000`.
pub(crate) fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Formats a number as `1,234.5`.
pub(crate) fn decimal(number: f64) -> String {
    let text = format!("{number:.1}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    whole.parse::<u64>().map_or_else(|_| text.clone(), |whole| format!("{}.{fraction}", grouped(whole)))
}

/// Converts a count to a float; counts above 32 bits are capped.
pub(crate) fn real(number: impl TryInto<u32>) -> f64 {
    f64::from(number.try_into().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_small_times_keep_two_digits() {
        assert_eq!([0_u64, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(decimal(1234.56), "1,234.6");
        assert_eq!(seconds(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(seconds(Duration::from_millis(1_234_567)), "1,234.6 s");
        assert_eq!(each(Duration::from_secs(5), 2000), "2.50 ms");
        assert_eq!(mebibytes(1025), "2 MiB");
        assert_eq!(times(Duration::from_secs(3), Duration::from_secs(2)), "1.50 ×");
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(["a", "b"]);
        table.row(["1".to_owned(), "2".to_owned()]);
        assert_eq!(table.to_string(), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
