//! The issuing systems behind their port.

pub mod cloudflare_r2;
pub mod postgres;

pub use keyturn_reconcile::target::*;
