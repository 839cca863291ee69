//! Notifications: their texts and their delivery.

mod delivery;
mod message;

pub use delivery::{Courier, DeliveryError};
pub use keyturn_reconcile::notification::*;
pub use message::Subject;
