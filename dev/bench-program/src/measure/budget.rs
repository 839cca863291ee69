//! Measures existing parameters at the default SSM budgets, compared to the time that the shared listing's pages take.

use std::time::Duration;

use super::existing::{Round, begin, round};
use crate::bench::Bench;
use crate::controller::Program;
use crate::failure::Result;
use crate::format::{Table, grouped, mebibytes, real, seconds, times};

/// Number of parameters in a page of DescribeParameters.
const PAGE: usize = 50;
/// Pages a second: keyturn's own budget, `Rates::default()`.
const PAGES_PER_SECOND: f64 = 2.0;

pub(crate) struct AtBudget {
    count: usize,
    round: Round,
}

pub(crate) async fn measure(bench: &Bench, count: usize) -> Result<AtBudget> {
    let (stage, mut controller) = begin(bench, &Program::keyturn(&[]), count).await?;
    let round = round(&stage, &mut controller, count, patience(count)).await?;
    bench.say(&format!("{} existing at the default budgets: {}", grouped(count), seconds(round.ready)));
    controller.stop().await?;
    Ok(AtBudget { count, round })
}

/// Returns twice the time that two DescribeParameters for each object take.
fn patience(count: usize) -> Duration {
    Duration::from_secs(120) + Duration::from_secs(2) * u32::try_from(count).unwrap_or(u32::MAX)
}

fn pages(count: usize) -> usize {
    count.div_ceil(PAGE)
}

fn time_of_pages(count: usize) -> Duration {
    Duration::from_secs_f64(real(pages(count)) / PAGES_PER_SECOND)
}

pub(crate) fn costs(at_budget: &AtBudget) -> Table {
    let AtBudget { count, round } = at_budget;
    let header = ["Objects", "All Ready", "Pages alone", "Ratio", "CPU", "Peak memory", "API server", "SSM"];
    let mut table = Table::new(header);
    let alone = time_of_pages(*count);
    table.row([
        grouped(*count),
        seconds(round.ready),
        format!("{} ({} pages)", seconds(alone), grouped(pages(*count))),
        times(round.ready, alone),
        seconds(round.cpu),
        mebibytes(round.peak),
        round.requests.to_string(),
        round.calls.to_string(),
    ]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parameters_are_two_hundred_pages() {
        assert_eq!((pages(10_000), pages(51)), (200, 2));
        assert_eq!(time_of_pages(10_000), Duration::from_secs(100));
    }
}
