//! The port to keyturn's own objects in Kubernetes. Reads that end in an external write come from the API server;
//! lists may come from a cache that is a moment old.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use keyturn_api::grants::Grants;
use keyturn_api::{DockerHost, ManagedSecret, SecretIncident};

use crate::links::is_on;

/// An Event for a person. Aggregated by the API over repeats of the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Shown as a Warning rather than Normal.
    pub warning: bool,
    /// CamelCase, such as `RotationCompleted`.
    pub reason: &'static str,
    /// What was done, such as `Rotate`.
    pub action: &'static str,
    pub note: String,
}

/// The object an Event is about.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    Secret(&'a ManagedSecret),
    Host(&'a DockerHost),
    Incident(&'a SecretIncident),
}

/// What a secret is decided on beside itself: all of its namespace.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub hosts: Vec<DockerHost>,
    /// Names of the DockerHosts that are there and cannot be decoded: they have proven nothing.
    pub undecodable_hosts: Vec<String>,
    pub incidents: Vec<SecretIncident>,
}

/// Where a read comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// May be a moment old.
    Cache,
    /// The API server itself, right before an effect.
    ApiServer,
}

/// keyturn's objects in the API server. Every write carries the resourceVersion of the object it was decided on.
#[async_trait]
pub trait Objects: Send + Sync {
    /// `None` where it does not exist, or is not shown yet. Where it may come from a cache it is no older than what this
    /// process has written itself.
    async fn managed_secret(
        &self,
        namespace: &str,
        name: &str,
        source: Source,
    ) -> Result<Option<ManagedSecret>, ObjectError>;
    /// Read from the API server itself; `None` where it does not exist.
    async fn docker_host(&self, namespace: &str, name: &str) -> Result<Option<DockerHost>, ObjectError>;
    /// Read from the API server itself; `None` where it does not exist.
    async fn secret_incident(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<SecretIncident>, ObjectError>;
    /// All of a namespace; may be a moment old.
    async fn secret_incidents(&self, namespace: &str) -> Result<Vec<SecretIncident>, ObjectError>;
    /// Replaces the status; refused with [`ObjectError::Conflict`] where the object has changed since it was read.
    async fn write_incident_status(&self, object: &SecretIncident) -> Result<SecretIncident, ObjectError>;
    async fn grants(&self, source: Source) -> Result<Arc<Grants>, ObjectError>;
    /// All of a namespace; may be a moment old.
    async fn managed_secrets(&self, namespace: &str) -> Result<Vec<ManagedSecret>, ObjectError>;
    /// Those of a namespace that have to do with a host, by [`is_on`]; may be a moment old.
    async fn managed_secrets_on(
        &self,
        namespace: &str,
        host: &str,
    ) -> Result<Vec<ManagedSecret>, ObjectError> {
        let mut secrets = self.managed_secrets(namespace).await?;
        secrets.retain(|secret| is_on(secret, host));
        Ok(secrets)
    }
    /// The others, of all namespaces that have been listed, that [claim](crate::managed_secret::claims) what this one
    /// claims; may be a moment old.
    async fn rivals(&self, object: &ManagedSecret) -> Result<Vec<ManagedSecret>, ObjectError>;
    /// All of a namespace; may be a moment old.
    async fn docker_hosts(&self, namespace: &str) -> Result<Vec<DockerHost>, ObjectError>;
    /// The hosts and incidents of a namespace.
    async fn surroundings(&self, namespace: &str, source: Source) -> Result<Surroundings, ObjectError>;
    /// Labels of a Secret of the cluster, of which nothing else is read; `None` where it does not exist. Read from the API
    /// server itself.
    async fn secret_labels(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, ObjectError>;
    /// Replaces the status; refused with [`ObjectError::Conflict`] where the object has changed since it was read.
    async fn write_secret_status(&self, object: &ManagedSecret) -> Result<ManagedSecret, ObjectError>;
    /// Replaces the status; refused with [`ObjectError::Conflict`] where the object has changed since it was read.
    async fn write_host_status(&self, object: &DockerHost) -> Result<DockerHost, ObjectError>;
    /// Adds or removes keyturn's finalizer; refused with [`ObjectError::Conflict`] where the object has changed.
    async fn set_finalizer(
        &self,
        object: &ManagedSecret,
        present: bool,
    ) -> Result<ManagedSecret, ObjectError>;
    /// Best effort: an Event that cannot be written is logged and forgotten.
    async fn notify(&self, subject: Subject<'_>, notice: Notice);
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Somebody wrote in between; read again and decide again.
    #[error("{0} changed while it was being worked on")]
    Conflict(String),
    #[error("{0} does not exist any more")]
    Gone(String),
    #[error("the API server did not answer for {object}: {detail}")]
    Api { object: String, detail: String },
    /// keyturn's role is not bound in the namespace. Only a person can change that.
    #[error(transparent)]
    Forbidden(MissingRight),
}

/// A right that keyturn's account lacks in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{account} may not {action} in namespace {namespace}")]
pub struct MissingRight {
    /// As the API server names it: `system:serviceaccount:keyturn-system:keyturn`.
    pub account: String,
    /// Verb and resource: `list jobs`.
    pub action: String,
    pub namespace: String,
}

impl MissingRight {
    /// Reason of conditions that say so.
    pub const REASON: &str = "RoleMissing";

    /// State, cause and remedy. `role` is the ClusterRole with the rights that keyturn needs in a namespace.
    pub fn explain(&self, role: &str) -> String {
        let namespace = &self.namespace;
        let subject = match self.account.strip_prefix("system:serviceaccount:") {
            Some(account) => format!("--serviceaccount={account}"),
            None => format!("--user={}", self.account),
        };
        format!(
            "{self}: ClusterRole {role} is not bound to it there. Name the namespace in a grant or in rbac.namespaces of \
             keyturn's chart and upgrade the release, or: kubectl create rolebinding {role} -n {namespace} \
             --clusterrole={role} {subject}"
        )
    }
}
