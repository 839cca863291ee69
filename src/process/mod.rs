//! The controller process: its settings, its life from start to stop, the queues, and what turns a change into an entry of a
//! queue.

pub mod config;
pub mod dispatch;
pub mod health;
pub mod inventories;
mod line;
pub mod links;
pub mod logging;
pub mod memory;
pub mod notifications;
mod pace;
pub mod queue;
pub mod run;
