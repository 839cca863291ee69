//! What keyturn reaches is down, slow or refuses: conditions with cause and remedy, and recovery by itself.

mod host;
pub mod ssm;
