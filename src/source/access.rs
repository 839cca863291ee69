//! Access that a source needs to open a target: Secrets of the cluster, parameters, docker hosts and grants. All
//! sources read them through this file, so that none can skip the consent of a Secret or the grant for a host.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use keyturn_reconcile::objects::{ObjectError, Objects, Source};
use keyturn_reconcile::ports::Regions;
use keyturn_reconcile::settings::Settings;
use kube::Client;

use super::TargetError;
use crate::api::consent::Purpose;
use crate::api::docker_host::SecretKeyRef;
use crate::api::grants::{self, Grants, Verdict};
use crate::api::{DockerHost, ManagedSecret, Reason, Trouble};
use crate::cluster::user_secrets::{self, SecretError};
use crate::deploy::job;
use crate::deploy::ssh::client_key::ClientKey;
use crate::deploy::ssh::known_hosts::KnownHosts;
use crate::deploy::task::Endpoint;
use crate::parameter_store::StoreError;
use crate::secret_value::SecretValue;

/// Access to the API server and to Parameter Store.
pub(super) struct Access {
    client: Client,
    objects: Arc<dyn Objects>,
    regions: Arc<dyn Regions>,
    cluster: String,
    namespace_role: String,
}

/// Everything that a login on a docker host needs.
pub(super) struct HostLogin {
    /// SSH address of the docker host and the account on it, and the key of that account.
    pub(super) host: (Endpoint, ClientKey),
    /// The same for the jump host, if there is one.
    pub(super) jump: Option<(Endpoint, ClientKey)>,
    /// The host keys that are accepted for both hosts.
    pub(super) known_hosts: Arc<KnownHosts>,
}

impl Access {
    pub(super) fn new(
        client: Client,
        objects: Arc<dyn Objects>,
        regions: Arc<dyn Regions>,
        settings: &Settings,
    ) -> Self {
        let (cluster, namespace_role) = (settings.cluster.clone(), settings.namespace_role.clone());
        Self { client, objects, regions, cluster, namespace_role }
    }

    /// Returns `<cluster>/<namespace>/<name>` of the object, by which a target recognises the roles or tokens of the
    /// object.
    pub(super) fn owner(&self, object: &ManagedSecret) -> String {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        format!("{}/{}/{name}", self.cluster, namespace_of(object))
    }

    /// Returns the RotationGrants, from the API server itself.
    pub(super) async fn grants(&self) -> Result<Arc<Grants>, TargetError> {
        self.objects.grants(Source::ApiServer).await.map_err(unavailable)
    }

    /// Reads the value of a parameter; `None` if it does not exist.
    pub(super) async fn parameter(
        &self,
        region: &str,
        path: &str,
    ) -> Result<Option<SecretValue>, StoreError> {
        self.regions.store(region).read(path, None).await
    }

    /// Reads a Secret that consents to the purpose.
    pub(super) async fn secret(
        &self,
        namespace: &str,
        name: &str,
        purpose: Purpose,
    ) -> Result<Secret, TargetError> {
        user_secrets::read(&self.client, namespace, name, purpose).await.map_err(|error| match error {
            SecretError::Refused(refusal) => refusal.trouble().into(),
            SecretError::Api(ObjectError::Forbidden(right)) => {
                let missing = right.trouble(&self.namespace_role);
                Trouble { message: format!("Secret {name}: {missing}"), ..missing }.into()
            }
            SecretError::Api(error) => unavailable(error),
        })
    }

    /// Reads one key of a Secret that consents to the purpose. The key must be text.
    pub(super) async fn secret_text(
        &self,
        namespace: &str,
        reference: &SecretKeyRef,
        purpose: Purpose,
    ) -> Result<SecretValue, TargetError> {
        let SecretKeyRef { name, key } = reference;
        text(name, &self.secret(namespace, name, purpose).await?, key)
    }

    /// Reads everything that a login on a DockerHost needs; `None` if there is no such DockerHost. No key is read for a
    /// host that no grant covers.
    pub(super) async fn docker_host(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<HostLogin>, TargetError> {
        let Some(host) = self.objects.docker_host(namespace, name).await.map_err(unavailable)? else {
            return Ok(None);
        };
        self.permit(&host).await?;
        let (endpoint, jump) = job::endpoints(&host);
        let (key, jump_key) = job::keys(&host);
        let key = self.key(namespace, key).await?;
        let jump = match (jump, jump_key) {
            (Some(endpoint), Some(key)) => Some((endpoint, self.key(namespace, key).await?)),
            _ => None,
        };
        let known_hosts = Arc::new(KnownHosts::parse(&host.spec.ssh.known_hosts));
        Ok(Some(HostLogin { host: (endpoint, key), jump, known_hosts }))
    }

    async fn permit(&self, host: &DockerHost) -> Result<(), TargetError> {
        let grants = self.grants().await?;
        match grants::docker_host(&grants, host) {
            // Reads may go through a host that is only observed; admission prevents changes through it.
            Verdict::Rotate | Verdict::Observe(_) => Ok(()),
            Verdict::Denied(lacking) => Err(Trouble::permanent(Reason::NotGranted, lacking).into()),
        }
    }

    async fn key(&self, namespace: &str, reference: &SecretKeyRef) -> Result<ClientKey, TargetError> {
        let text = self.secret_text(namespace, reference, Purpose::SSH).await?;
        let SecretKeyRef { name, key } = reference;
        ClientKey::parse(text.expose().as_bytes())
            .map_err(|error| unusable(format!("key {key} of Secret {name} {error}")))
    }
}

/// Returns the namespace of the object, which is also the namespace of everything that its spec names.
pub(super) fn namespace_of(object: &ManagedSecret) -> &str {
    object.metadata.namespace.as_deref().unwrap_or_default()
}

/// Returns one key of a Secret, which must be text.
pub(super) fn text(name: &str, secret: &Secret, key: &str) -> Result<SecretValue, TargetError> {
    let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Err(unusable(format!("Secret {name} has no key {key}: add it")));
    };
    match std::str::from_utf8(&bytes.0) {
        Ok(text) => Ok(SecretValue::new(text.to_owned())),
        Err(_) => Err(unusable(format!("key {key} of Secret {name} is not text"))),
    }
}

/// An error in the cluster's configuration that only a person can fix.
pub(super) fn unusable(message: String) -> TargetError {
    Trouble::permanent(Reason::TargetNotConfigured, message).into()
}

fn unavailable(error: ObjectError) -> TargetError {
    Trouble::passing(Reason::TargetNotConfigured, error.to_string()).into()
}
