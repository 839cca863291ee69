//! The rotation protocol and its schedule, as pure functions over (desired, observed, now): they decide when a secret
//! is due and which step comes next. This crate uses no Kubernetes client, no AWS client and no clock.

pub mod adoption;
pub mod observed;
pub mod protocol;
pub mod request;
pub mod schedule;
pub mod window;
