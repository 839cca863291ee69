//! Notifications: what they say, and how they are delivered.

mod delivery;
mod message;

pub use delivery::{Courier, DeliveryError};
pub use keyturn_reconcile::notification::*;
pub use message::Subject;
