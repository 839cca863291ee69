//! Subcommands other than the controller and the deploy Job.

pub mod audit;
pub mod check;
pub mod incident;
pub mod uninstall;
