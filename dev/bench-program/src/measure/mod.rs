//! The measurements. Each one opens its own stage and returns figures; the table for them is in the same file.

pub(crate) mod budget;
pub(crate) mod creation;
pub(crate) mod due;
pub(crate) mod existing;
pub(crate) mod failover;
pub(crate) mod fleet;
pub(crate) mod rotation;

use crate::controller::Program;

/// The highest rate that keyturn accepts. The other budgets grow with it: 2,000 DescribeParameters and 10,000 reads a
/// second.
pub(crate) const BUDGETS_OFF: &str = "--puts-per-second=1000";

/// Returns keyturn with its default settings, but without effective budgets for SSM.
pub(crate) fn without_budgets() -> Program {
    Program::keyturn(&[BUDGETS_OFF])
}
