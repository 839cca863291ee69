//! Incidents: the secrets that an incident is about, and the readers of these secrets according to
//! CloudTrail.

pub mod audit;
pub mod event;
pub mod expected;
pub mod logs;
pub mod readers;
pub mod reading;
pub mod scope;
pub mod trail;
