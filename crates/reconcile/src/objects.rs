//! The port to keyturn's own objects in Kubernetes. Reads before an external write come from the API server; lists may
//! come from a cache and be slightly stale.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use keyturn_api::grants::Grants;
use keyturn_api::{DockerHost, ManagedSecret, Reason, SecretIncident, Trouble};

/// An Event for a person. Kubernetes aggregates repeated Events of the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// True for an Event of type Warning, false for type Normal.
    pub warning: bool,
    /// Reason of the Event, such as `RotationCompleted`.
    pub reason: Reason,
    /// Action of the Event, such as `Rotate`.
    pub action: &'static str,
    /// Text for a person; it is cut if it is longer than Kubernetes accepts.
    pub note: String,
}

/// The object an Event is about.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    /// A ManagedSecret.
    Secret(&'a ManagedSecret),
    /// A DockerHost.
    Host(&'a DockerHost),
    /// A SecretIncident.
    Incident(&'a SecretIncident),
}

/// The DockerHosts of a namespace.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// The DockerHosts that can be decoded.
    pub decoded: Vec<DockerHost>,
    /// Names of the DockerHosts that exist but cannot be decoded. They have proven nothing.
    pub undecodable: Vec<String>,
}

/// Source of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A cache, which may be slightly stale.
    Cache,
    /// The API server itself, right before an effect.
    ApiServer,
}

/// keyturn's objects in the API server. Every write carries the resourceVersion of the object on which the decision was
/// based.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Reads a ManagedSecret. `None` if it does not exist, or if a cache does not show it yet. A read from a cache is
    /// never older than this process' own last write.
    async fn managed_secret(
        &self,
        namespace: &str,
        name: &str,
        source: Source,
    ) -> Result<Option<ManagedSecret>, ObjectError>;
    /// Reads from the API server itself; `None` if the object does not exist.
    async fn docker_host(&self, namespace: &str, name: &str) -> Result<Option<DockerHost>, ObjectError>;
    /// Reads from the API server itself; `None` if the object does not exist.
    async fn secret_incident(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<SecretIncident>, ObjectError>;
    /// Lists all SecretIncidents of a namespace.
    async fn secret_incidents(
        &self,
        namespace: &str,
        source: Source,
    ) -> Result<Vec<SecretIncident>, ObjectError>;
    /// Replaces the status; fails with [`ObjectError::Conflict`] if the object has changed since it was read.
    async fn write_incident_status(&self, object: &SecretIncident) -> Result<SecretIncident, ObjectError>;
    /// Returns all RotationGrants of the cluster, with those that cannot be decoded.
    async fn grants(&self, source: Source) -> Result<Arc<Grants>, ObjectError>;
    /// Lists all ManagedSecrets of a namespace; may be slightly stale.
    async fn managed_secrets(&self, namespace: &str) -> Result<Vec<ManagedSecret>, ObjectError>;
    /// Lists the ManagedSecrets of a namespace that run on a host or have to run there, by [`ManagedSecret::is_on`];
    /// may be slightly stale.
    async fn managed_secrets_on(
        &self,
        namespace: &str,
        host: &str,
    ) -> Result<Vec<ManagedSecret>, ObjectError> {
        let mut secrets = self.managed_secrets(namespace).await?;
        secrets.retain(|secret| secret.is_on(host));
        Ok(secrets)
    }
    /// Lists the other ManagedSecrets that have a [claim](crate::managed_secret::claims) in common with this one, in
    /// all namespaces that have been listed. May be slightly stale.
    async fn rivals(&self, object: &ManagedSecret) -> Result<Vec<ManagedSecret>, ObjectError>;
    /// Lists all DockerHosts of a namespace, and the names of those that cannot be decoded.
    async fn docker_hosts(&self, namespace: &str, source: Source) -> Result<Hosts, ObjectError>;
    /// Reads the labels of a Secret, and nothing else of it, from the API server itself. `None` if it does not exist.
    async fn secret_labels(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, ObjectError>;
    /// Replaces the status; fails with [`ObjectError::Conflict`] if the object has changed since it was read.
    async fn write_secret_status(&self, object: &ManagedSecret) -> Result<ManagedSecret, ObjectError>;
    /// Replaces the status; fails with [`ObjectError::Conflict`] if the object has changed since it was read.
    async fn write_host_status(&self, object: &DockerHost) -> Result<DockerHost, ObjectError>;
    /// Adds or removes keyturn's finalizer; fails with [`ObjectError::Conflict`] if the object has changed.
    async fn set_finalizer(
        &self,
        object: &ManagedSecret,
        present: bool,
    ) -> Result<ManagedSecret, ObjectError>;
    /// Writes an Event. Best effort: an Event that cannot be written is logged and dropped.
    async fn write_event(&self, subject: Subject<'_>, event: Event);
}

/// The reason why an object could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Somebody else wrote the object in between; read it again and decide again.
    #[error("{0} changed while it was being worked on")]
    Conflict(String),
    /// The object does not exist; it may have been deleted in the meantime.
    #[error("{0} does not exist any more")]
    Gone(String),
    /// Any other failure, such as no answer in time, a cache that is not filled yet, or lost leadership.
    #[error("{object} could not be read or written: {detail}")]
    Api {
        /// Kind and name of the object, for people.
        object: String,
        /// The reason, for people.
        detail: String,
    },
    /// keyturn's role is not bound in the namespace. Only a person can change that.
    #[error(transparent)]
    Forbidden(MissingRight),
}

/// A right that keyturn's account lacks in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{account} may not {action} in namespace {namespace}")]
pub struct MissingRight {
    /// Name of the account in the API server: `system:serviceaccount:keyturn-system:keyturn`.
    pub account: String,
    /// Verb and resource, such as `list jobs`.
    pub action: String,
    /// Namespace in which the account lacks the right.
    pub namespace: String,
}

impl MissingRight {
    /// Returns the trouble for a condition. `role` is the ClusterRole with the rights that keyturn needs in a
    /// namespace.
    pub fn trouble(&self, role: &str) -> Trouble {
        let namespace = &self.namespace;
        let subject = match self.account.strip_prefix("system:serviceaccount:") {
            Some(account) => format!("--serviceaccount={account}"),
            None => format!("--user={}", self.account),
        };
        let message = format!(
            "{self}: ClusterRole {role} is not bound to it there. Name the namespace in a grant or in rbac.namespaces of \
             keyturn's chart and upgrade the release, or: kubectl create rolebinding {role} -n {namespace} \
             --clusterrole={role} {subject}"
        );
        Trouble::permanent(Reason::RoleMissing, message)
    }
}
