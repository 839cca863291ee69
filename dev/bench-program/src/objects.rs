//! The objects under measurement: a namespace, its RotationGrant and ManagedSecrets. A run removes the objects that an
//! earlier run left behind when it was killed.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use keyturn_api::managed_secret::{DeletionPolicy, IfMissing, ParameterSpec, RotationSpec, SsmSpec};
use keyturn_api::rotation_grant::{GrantMode, ParameterGrant};
use keyturn_api::source::GenerateSpec;
use keyturn_api::source::random::HexSpec;
use keyturn_api::{
    ManagedSecret, ManagedSecretSpec, ROTATE_REQUESTED_AT, RotationGrant, RotationGrantSpec, duration,
};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::failure::{Failure, Result, within};

/// Name of the namespace, the grant and the lease.
pub(crate) const NAME: &str = "keyturn-bench";
/// Greatest age of a value, in days.
pub(crate) const PERIOD_DAYS: u16 = 90;
/// Number of requests at the same time.
const CONCURRENCY: usize = 32;
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Longest time that the deletion of a namespace takes.
const NAMESPACE_PATIENCE: Duration = Duration::from_secs(180);
const DELETION_PATIENCE: Duration = Duration::from_secs(600);
/// Label selector for the chart's controller pods.
const CONTROLLERS: &str = "app.kubernetes.io/name=keyturn,app.kubernetes.io/component=controller";

/// Returns the name of the ManagedSecret with this number.
pub(crate) fn name(number: usize) -> String {
    format!("token-{number:05}")
}

/// Returns the path of a ManagedSecret's parameter.
pub(crate) fn path(name: &str) -> String {
    format!("{}{name}", folder())
}

/// Returns the folder of all parameters.
pub(crate) fn folder() -> String {
    format!("/{NAME}/")
}

#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
    secrets: Api<ManagedSecret>,
}

impl Objects {
    pub(crate) fn new(client: Client) -> Self {
        Self { secrets: Api::namespaced(client.clone(), NAME), client }
    }

    pub(crate) fn secrets(&self) -> Api<ManagedSecret> {
        self.secrets.clone()
    }

    /// Refuses to measure while another keyturn runs, since that would work on the same objects.
    pub(crate) async fn no_other_keyturn(&self) -> Result<()> {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let found = pods.list_metadata(&ListParams::default().labels(CONTROLLERS)).await;
        match found.map_err(Failure::api("look for pods of keyturn"))?.items.first() {
            Some(pod) => Err(Failure::AnotherKeyturn {
                namespace: pod.namespace().unwrap_or_default(),
                pod: pod.name_any(),
            }),
            None => Ok(()),
        }
    }

    /// Creates the namespace and the grant.
    pub(crate) async fn prepare(&self) -> Result<()> {
        within(NAMESPACE_PATIENCE, format!("the namespace {NAME} to be made"), self.make_namespace()).await?;
        let grants: Api<RotationGrant> = Api::all(self.client.clone());
        let made = grants.create(&PostParams::default(), &grant()).await;
        exists(made).map_err(Failure::api(format!("create the RotationGrant {NAME}")))?;
        self.clear().await
    }

    async fn make_namespace(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        loop {
            let found = namespaces.get_opt(NAME).await;
            match found.map_err(Failure::api(format!("read the namespace {NAME}")))? {
                Some(namespace) if namespace.metadata.deletion_timestamp.is_some() => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Some(_) => return Ok(()),
                None => {
                    let namespace = Namespace { metadata: named(NAME), ..Namespace::default() };
                    let made = namespaces.create(&PostParams::default(), &namespace).await;
                    exists(made).map_err(Failure::api(format!("create the namespace {NAME}")))?;
                }
            }
        }
    }

    /// Creates `count` ManagedSecrets.
    pub(crate) async fn create(&self, count: usize, if_missing: IfMissing) -> Result<()> {
        let create = |number| async move {
            let secret = ManagedSecret::new(&name(number), spec(number, if_missing));
            self.secrets.create(&PostParams::default(), &secret).await
        };
        let created = stream::iter(0..count).map(create).buffer_unordered(CONCURRENCY);
        let created = created.try_for_each(|_| std::future::ready(Ok(())));
        created.await.map_err(Failure::api("create ManagedSecrets"))
    }

    /// Requests a rotation of a secret now.
    pub(crate) async fn request_rotation(&self, name: &str, token: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {ROTATE_REQUESTED_AT: token}}});
        let patched = self.secrets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).map_err(Failure::api(format!("request a rotation of {name}")))
    }

    /// Returns the identity that holds the lease, or an empty string.
    pub(crate) async fn leader(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAME);
        let found = leases.get_opt(NAME).await.map_err(Failure::api(format!("read the lease {NAME}")))?;
        let holder = found.and_then(|lease| lease.spec?.holder_identity);
        Ok(holder.unwrap_or_default())
    }

    /// Deletes all ManagedSecrets and the lease, while no controller runs.
    pub(crate) async fn clear(&self) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), NAME);
        let deleted = gone(leases.delete(NAME, &DeleteParams::default()).await);
        deleted.map_err(Failure::api(format!("delete the lease {NAME}")))?;
        within(DELETION_PATIENCE, "all ManagedSecrets to be deleted", self.delete_all()).await
    }

    async fn delete_all(&self) -> Result<()> {
        loop {
            let left = self.secrets.list_metadata(&ListParams::default()).await;
            let left = left.map_err(Failure::api("list ManagedSecrets"))?.items;
            if left.is_empty() {
                return Ok(());
            }
            let deleted = stream::iter(left).map(|secret| async move {
                self.delete(&secret.name_any(), !secret.finalizers().is_empty()).await
            });
            let deleted = deleted.buffer_unordered(CONCURRENCY).try_for_each(|()| std::future::ready(Ok(())));
            deleted.await.map_err(Failure::api("delete ManagedSecrets"))?;
        }
    }

    /// Deletes a secret, even during a rotation.
    async fn delete(&self, name: &str, is_held: bool) -> kube::Result<()> {
        if is_held {
            let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            gone(self.secrets.patch_metadata(name, &PatchParams::default(), &patch).await)?;
        }
        gone(self.secrets.delete(name, &DeleteParams::default()).await)
    }

    /// Deletes everything. Waits for the ManagedSecrets to be gone; the namespace may still be terminating afterwards.
    pub(crate) async fn remove(&self) -> Result<()> {
        self.clear().await?;
        let grants: Api<RotationGrant> = Api::all(self.client.clone());
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let deleted = gone(grants.delete(NAME, &DeleteParams::default()).await);
        deleted.map_err(Failure::api(format!("delete the RotationGrant {NAME}")))?;
        let deleted = gone(namespaces.delete(NAME, &DeleteParams::default()).await);
        deleted.map_err(Failure::api(format!("delete the namespace {NAME}")))
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn grant() -> RotationGrant {
    let parameters = ParameterGrant { prefix: Some(folder()), ..ParameterGrant::default() };
    RotationGrant::new(
        NAME,
        RotationGrantSpec {
            namespaces: vec![NAME.to_owned()],
            mode: GrantMode::Rotate,
            parameters: vec![parameters],
            ..RotationGrantSpec::default()
        },
    )
}

/// Returns the spec of a random value without hosts.
fn spec(number: usize, if_missing: IfMissing) -> ManagedSecretSpec {
    let parameter = ParameterSpec { path: path(&name(number)), value: None };
    ManagedSecretSpec {
        ssm: SsmSpec {
            parameters: vec![parameter],
            region: None,
            kms_key_id: None,
            if_missing: Some(if_missing),
        },
        generate: GenerateSpec { hex: Some(HexSpec { bytes: 32 }), ..GenerateSpec::default() },
        rotation: RotationSpec {
            period: Some(duration::Duration(format!("{PERIOD_DAYS}d"))),
            ..RotationSpec::default()
        },
        hosts: Vec::new(),
        retire: None,
        access_log: None,
        notice: None,
        suspend: false,
        deletion_policy: DeletionPolicy::Retain,
    }
}

/// Treats an object that already exists as created.
fn exists<T>(created: kube::Result<T>) -> kube::Result<()> {
    match created {
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(()),
        created => created.map(drop),
    }
}

/// Treats an object that does not exist as deleted.
fn gone<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
        deleted => deleted.map(drop),
    }
}
