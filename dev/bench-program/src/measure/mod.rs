//! The measurements. Each opens a stage of its own and returns figures; its table is in the same file.

pub mod budget;
pub mod creation;
pub mod due;
pub mod existing;
pub mod failover;
pub mod fleet;
pub mod rotation;

use crate::controller::Program;

/// The largest rate that keyturn accepts. The others grow with it: 2,000 DescribeParameters a second, and 10,000 reads.
pub const BUDGETS_OFF: &str = "--puts-per-second=1000";

/// keyturn as it is shipped, without budgets for SSM.
pub fn without_budgets() -> Program {
    Program::keyturn(&[BUDGETS_OFF])
}
