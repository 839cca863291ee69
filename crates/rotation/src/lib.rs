//! When a secret is due and what happens next: pure functions over (desired, observed, now).
//! Nothing here knows a Kubernetes client, AWS or a clock.

pub mod adoption;
pub mod observed;
pub mod protocol;
pub mod request;
pub mod schedule;
pub mod window;
