//! The measurements. Each one opens its own stage and returns figures; the table for them is in the same file.

pub mod budget;
pub mod creation;
pub mod due;
pub mod existing;
pub mod failover;
pub mod fleet;
pub mod rotation;

use crate::controller::Program;

/// The highest rate that keyturn accepts. The other budgets grow with it: 2,000 DescribeParameters and 10,000 reads a
/// second.
pub const BUDGETS_OFF: &str = "--puts-per-second=1000";

/// Returns keyturn with its default settings, but without effective budgets for SSM.
pub fn without_budgets() -> Program {
    Program::keyturn(&[BUDGETS_OFF])
}
