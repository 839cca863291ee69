//! The systems that issue credentials, behind one port.

pub mod cloudflare_r2;
pub mod postgres;

pub use keyturn_reconcile::target::*;
