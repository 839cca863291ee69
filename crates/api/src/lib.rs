//! The custom resources of group `keyturn.dev`: types, schema rules and conditions. No I/O.

#![expect(
    unreachable_pub,
    reason = "the derive of the schema makes items in private modules, as visible as the type"
)]

pub mod access_log;
pub mod conditions;
pub mod consent;
mod definitions;
pub mod docker_host;
pub mod duration;
pub mod grants;
pub mod managed_secret;
pub mod notification;
pub mod readers;
pub mod reason;
mod reasons;
pub mod rotation_grant;
mod rules;
pub mod secret_incident;
pub mod source;
pub mod text;
pub mod time;
mod trouble;
pub mod validate;
pub mod window;
pub mod words;

pub use definitions::{crds, render};
pub use docker_host::{DockerHost, DockerHostSpec, DockerHostStatus};
pub use managed_secret::{ManagedSecret, ManagedSecretSpec, ManagedSecretStatus};
pub use reason::Reason;
pub use rotation_grant::{RotationGrant, RotationGrantSpec};
pub use secret_incident::{SecretIncident, SecretIncidentSpec, SecretIncidentStatus};
pub use trouble::{Remedy, Trouble};

/// The API group of every keyturn object.
pub const GROUP: &str = "keyturn.dev";
/// Annotation whose new value requests one rotation now.
pub const ROTATE_REQUESTED_AT: &str = "keyturn.dev/rotate-requested-at";
/// Finalizer of a ManagedSecret, held from the first record of a rotation until its close, and for `deletionPolicy:
/// Delete`.
pub const FINALIZER: &str = "keyturn.dev/rotation";
