//! What is known of an incident: which secrets it is about, and who read them, as CloudTrail tells it.

pub mod audit;
pub mod event;
pub mod expected;
pub mod logs;
pub mod readers;
pub mod reading;
pub mod scope;
pub mod trail;
