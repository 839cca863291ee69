//! keyturn rotates the secrets that a fleet of docker hosts uses.
//!
//! Data flows one way: the reconcilers observe the [`cluster`], the [`parameter_store`] and the hosts, the pure
//! functions of [`rotation`] decide the one next step, an adapter acts, and the status records what happened.
//!
//! This is spread over three crates: [`keyturn_rotation`] decides; [`keyturn_reconcile`] observes, acts through ports
//! and writes the status; this crate has the adapters behind the ports, the program that runs in a deployment's pod,
//! and the command line. The modules of the other two crates are also available under this crate's names.

pub mod cli;
pub mod cluster;
pub mod deploy;
pub mod incident;
pub mod notification;
pub mod parameter_store;
pub mod process;
pub mod source;
pub mod text;

pub use keyturn_api as api;
pub use keyturn_image_audit as audit;
pub use keyturn_rotation as rotation;
pub use keyturn_secret_value as secret_value;
