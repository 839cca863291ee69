//! Opens the targets of ManagedSecrets: reads the credentials and addresses to log in there, and checks the grants once
//! more.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use keyturn_reconcile::objects::{MissingRight, ObjectError, Objects, Source};
use keyturn_reconcile::ports::{Regions, Targets};
use keyturn_reconcile::settings::Settings;
use kube::Client;

use super::config::span;
use crate::api::cloudflare_r2::CloudflareR2Spec;
use crate::api::consent::Purpose;
use crate::api::docker_host::SecretKeyRef;
use crate::api::grants::{self, Verdict};
use crate::api::postgres::PostgresSpec;
use crate::api::{DockerHost, ManagedSecret};
use crate::cluster::user_secrets::{self, SecretError};
use crate::deploy::job;
use crate::deploy::ssh::client_key::ClientKey;
use crate::deploy::ssh::known_hosts::KnownHosts;
use crate::deploy::task::Endpoint;
use crate::secret_value::SecretValue;
use crate::target::cloudflare_r2::{CloudflareR2, Connection};
use crate::target::postgres::{Administrator, Dial, Direct, Limits, Postgres, ThroughHost};
use crate::target::{Login, Target, TargetError};

/// The adapter for the API server and Parameter Store.
pub(super) struct ClusterTargets {
    client: Client,
    objects: Arc<dyn Objects>,
    regions: Arc<dyn Regions>,
    cluster: String,
    namespace_role: String,
    limits: Limits,
    cloudflare: Arc<Connection>,
}

impl ClusterTargets {
    pub(super) fn new(
        client: Client,
        objects: Arc<dyn Objects>,
        regions: Arc<dyn Regions>,
        cloudflare: Arc<Connection>,
        settings: &Settings,
    ) -> Self {
        let limits = Limits::below(span(settings.grace));
        let (cluster, namespace_role) = (settings.cluster.clone(), settings.namespace_role.clone());
        Self { client, objects, regions, cluster, namespace_role, limits, cloudflare }
    }

    async fn cloudflare_r2(
        &self,
        object: &ManagedSecret,
        spec: &CloudflareR2Spec,
    ) -> Result<CloudflareR2, TargetError> {
        let (namespace, name) = names(object);
        let admin = self.cloudflare_token(namespace, spec).await?;
        let admin = SecretValue::new(admin.expose().trim().to_owned());
        let owner = format!("{}/{namespace}/{name}", self.cluster);
        // A token that is never rotated again expires, but late enough for an overdue rotation.
        let period = object.spec.rotation.period.as_ref().and_then(|period| period.to_delta());
        let lifetime = period.map(|period| period * 2);
        CloudflareR2::new(spec, self.cloudflare.clone(), admin, owner, lifetime)
    }

    async fn cloudflare_token(
        &self,
        namespace: &str,
        spec: &CloudflareR2Spec,
    ) -> Result<SecretValue, TargetError> {
        let SecretKeyRef { name, key } = &spec.token_secret_ref;
        text(name, &self.secret(namespace, name, Purpose::Cloudflare).await?, key)
    }

    async fn postgres(
        &self,
        object: &ManagedSecret,
        spec: &PostgresSpec,
        region: &str,
    ) -> Result<Postgres, TargetError> {
        let (namespace, name) = names(object);
        // The way to the server first: nothing is read for a host that no grant covers.
        let dial = self.dial(namespace, spec).await?;
        let admin = self.admin(namespace, spec, region).await?;
        let grants = self.objects.grants(Source::ApiServer).await.map_err(unavailable)?;
        let superuser = grants::allows_superuser(&grants, object);
        let owner = format!("{}/{namespace}/{name}", self.cluster);
        Ok(Postgres::new(spec, dial, admin, owner, superuser)?.with_limits(self.limits))
    }

    async fn admin(
        &self,
        namespace: &str,
        spec: &PostgresSpec,
        region: &str,
    ) -> Result<Option<Administrator>, TargetError> {
        if let Some(reference) = &spec.admin_secret_ref {
            let name = &reference.name;
            let secret = self.secret(namespace, name, Purpose::PostgresAdmin).await?;
            let username_key = reference.username_key.as_deref().unwrap_or("username");
            let username = text(name, &secret, username_key)?;
            let password = text(name, &secret, reference.password_key.as_deref().unwrap_or("password"))?;
            return Administrator::of_secret(name, username_key, username, password).map(Some);
        }
        let Some(parameter) = &spec.admin_parameter else { return Ok(None) };
        let read = self.regions.store(region).read(&parameter.path, None).await;
        let password = read.map_err(|error| TargetError {
            reason: "AdminUnreadable",
            message: format!("the administrator's password at {} cannot be read: {error}", parameter.path),
            permanent: error.needs_a_person(),
            outcome_unknown: false,
        })?;
        let Some(password) = password else {
            return Err(unusable(format!(
                "the parameter {} of spec.generate.postgres.adminParameter does not exist: put the administrator's \
                 password there",
                parameter.path
            )));
        };
        // A trailing newline comes from the file with which the parameter was put, never from the password.
        let password = SecretValue::new(password.expose().trim_end_matches(['\n', '\r']).to_owned());
        Ok(Some(Administrator::named(Login { username: parameter.username.clone(), password })))
    }

    async fn dial(&self, namespace: &str, spec: &PostgresSpec) -> Result<Arc<dyn Dial>, TargetError> {
        if let Some(host) = &spec.host {
            return Ok(Arc::new(Direct { host: host.clone(), port: spec.port() }));
        }
        let name = spec.via.as_ref().map(|via| via.docker_host.as_str()).unwrap_or_default();
        let Some(host) = self.objects.docker_host(namespace, name).await.map_err(unavailable)? else {
            return Err(unusable(format!(
                "DockerHost {name} of spec.generate.postgres.via does not exist in this namespace: create it"
            )));
        };
        self.permit(&host).await?;
        let (endpoint, jump) = job::endpoints(&host);
        let (key, jump_key) = job::keys(&host);
        let key = self.key(namespace, key).await?;
        let through = match (jump, jump_key) {
            (Some(endpoint), Some(key)) => Some((endpoint, self.key(namespace, key).await?)),
            _ => None,
        };
        let known_hosts = Arc::new(KnownHosts::parse(&host.spec.ssh.known_hosts));
        let login: (Endpoint, ClientKey) = (endpoint, key);
        Ok(Arc::new(ThroughHost::new(name.to_owned(), login, through, known_hosts, spec.port())))
    }

    async fn permit(&self, host: &DockerHost) -> Result<(), TargetError> {
        let grants = self.objects.grants(Source::ApiServer).await.map_err(unavailable)?;
        match grants::docker_host(&grants, host) {
            // Reads may go through a host that is only observed; admission prevents changes through it.
            Verdict::Rotate | Verdict::Observe(_) => Ok(()),
            Verdict::Denied(lacking) => Err(TargetError {
                reason: "NotGranted",
                message: lacking,
                permanent: true,
                outcome_unknown: false,
            }),
        }
    }

    async fn key(&self, namespace: &str, reference: &SecretKeyRef) -> Result<ClientKey, TargetError> {
        let SecretKeyRef { name, key } = reference;
        let text = text(name, &self.secret(namespace, name, Purpose::Ssh).await?, key)?;
        ClientKey::parse(text.expose().as_bytes())
            .map_err(|error| unusable(format!("key {key} of Secret {name} {error}")))
    }

    async fn secret(&self, namespace: &str, name: &str, purpose: Purpose) -> Result<Secret, TargetError> {
        user_secrets::read(&self.client, namespace, name, purpose).await.map_err(|error| match error {
            SecretError::Refused(refusal) => {
                TargetError { reason: refusal.reason(), ..unusable(refusal.to_string()) }
            }
            SecretError::Api(ObjectError::Forbidden(right)) => {
                let message = format!("Secret {name}: {}", right.explain(&self.namespace_role));
                TargetError { reason: MissingRight::REASON, ..unusable(message) }
            }
            SecretError::Api(error) => unavailable(error),
        })
    }
}

/// Returns one key of a Secret, which must be text.
fn text(name: &str, secret: &Secret, key: &str) -> Result<SecretValue, TargetError> {
    let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Err(unusable(format!("Secret {name} has no key {key}: add it")));
    };
    match std::str::from_utf8(&bytes.0) {
        Ok(text) => Ok(SecretValue::new(text.to_owned())),
        Err(_) => Err(unusable(format!("key {key} of Secret {name} is not text"))),
    }
}

#[async_trait]
impl Targets for ClusterTargets {
    async fn open(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<Arc<dyn Target>>, TargetError> {
        if let Some(spec) = &object.spec.generate.postgres {
            return Ok(Some(Arc::new(self.postgres(object, spec, region).await?)));
        }
        match &object.spec.generate.cloudflare_r2 {
            Some(spec) => Ok(Some(Arc::new(self.cloudflare_r2(object, spec).await?))),
            None => Ok(None),
        }
    }

    async fn admin_secret(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<SecretValue>, TargetError> {
        let (namespace, _) = names(object);
        if let Some(spec) = &object.spec.generate.postgres {
            return Ok(self.admin(namespace, spec, region).await?.map(Administrator::into_password));
        }
        match &object.spec.generate.cloudflare_r2 {
            Some(spec) => self.cloudflare_token(namespace, spec).await.map(Some),
            None => Ok(None),
        }
    }
}

fn names(object: &ManagedSecret) -> (&str, &str) {
    let metadata = &object.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// An error in the cluster's configuration that only a person can fix.
fn unusable(message: String) -> TargetError {
    TargetError { reason: "TargetNotConfigured", message, permanent: true, outcome_unknown: false }
}

fn unavailable(error: ObjectError) -> TargetError {
    TargetError {
        reason: "TargetNotConfigured",
        message: error.to_string(),
        permanent: false,
        outcome_unknown: false,
    }
}
