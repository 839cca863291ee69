//! Opens a Postgres server for a secret: finds the route to it, and reads the administrator's login.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;

use super::{Administrator, Dial, Direct, Limits, Postgres, ThroughHost};
use crate::api::source::postgres::PostgresReason;
use crate::api::source::postgres::{ADMINISTRATOR, PostgresSpec};
use crate::api::{ManagedSecret, Trouble};
use crate::secret_value::SecretValue;
use crate::source::access::{Access, namespace_of, text, unusable};
use crate::source::{Login, Open, Target, TargetError};

/// Arguments of the Postgres sources: none, since each ManagedSecret names its own server.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Arguments {}

impl Arguments {
    /// Returns the flags that take an address, each with its address.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, &str)> {
        Vec::new()
    }
}

/// Opens the servers of all Postgres sources, with the same timeouts.
pub(crate) struct Opener {
    limits: Limits,
}

impl Opener {
    pub(crate) fn new(_arguments: &Arguments, grace: Duration) -> Result<Self, TargetError> {
        Ok(Self { limits: Limits::below(grace) })
    }
}

#[async_trait]
impl Open for Opener {
    type Spec = PostgresSpec;

    async fn open(
        &self,
        access: &Access,
        object: &ManagedSecret,
        spec: &PostgresSpec,
        region: &str,
    ) -> Result<Arc<dyn Target>, TargetError> {
        let namespace = namespace_of(object);
        // The route to the server comes first, so that nothing is read for a host that no grant covers.
        let dial = dial(access, namespace, spec).await?;
        let admin = administrator(access, namespace, spec, region).await?;
        let grants = access.grants().await?;
        let superuser = spec.allows_superuser(&grants, object);
        let target = Postgres::new(spec, dial, admin, access.owner(object), superuser)?;
        Ok(Arc::new(target.with_limits(self.limits)))
    }

    async fn admin_secret(
        &self,
        access: &Access,
        object: &ManagedSecret,
        spec: &PostgresSpec,
        region: &str,
    ) -> Result<Option<SecretValue>, TargetError> {
        let admin = administrator(access, namespace_of(object), spec, region).await?;
        Ok(admin.map(Administrator::into_password))
    }
}

async fn administrator(
    access: &Access,
    namespace: &str,
    spec: &PostgresSpec,
    region: &str,
) -> Result<Option<Administrator>, TargetError> {
    if let Some(reference) = &spec.admin_secret_ref {
        let name = &reference.name;
        let secret = access.secret(namespace, name, ADMINISTRATOR).await?;
        let username_key = reference.username_key.as_deref().unwrap_or("username");
        let username = text(name, &secret, username_key)?;
        let password = text(name, &secret, reference.password_key.as_deref().unwrap_or("password"))?;
        return Administrator::of_secret(name, username_key, username, password).map(Some);
    }
    let Some(parameter) = &spec.admin_parameter else { return Ok(None) };
    let read = access.parameter(region, &parameter.path).await;
    let password = read.map_err(|error| {
        let message = format!("the administrator's password at {} cannot be read: {error}", parameter.path);
        Trouble::new(PostgresReason::AdminUnreadable, message, error.needs_a_person())
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

async fn dial(access: &Access, namespace: &str, spec: &PostgresSpec) -> Result<Arc<dyn Dial>, TargetError> {
    if let Some(host) = &spec.host {
        return Ok(Arc::new(Direct { host: host.clone(), port: spec.port() }));
    }
    let name = spec.via.as_ref().map(|via| via.docker_host.as_str()).unwrap_or_default();
    let Some(login) = access.docker_host(namespace, name).await? else {
        return Err(unusable(format!(
            "DockerHost {name} of spec.generate.postgres.via does not exist in this namespace: create it"
        )));
    };
    let way = ThroughHost::new(name.to_owned(), login.host, login.jump, login.known_hosts, spec.port());
    Ok(Arc::new(way))
}
