//! RotationGrant: what a namespace may touch.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the ManagedSecrets and DockerHosts of some namespaces may touch. Nothing is allowed that no grant lists.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "keyturn.dev",
    version = "v1alpha1",
    kind = "RotationGrant",
    plural = "rotationgrants",
    shortname = "rgrant",
    category = "keyturn"
)]
#[serde(rename_all = "camelCase")]
pub struct RotationGrantSpec {
    /// Namespaces this grant is for.
    #[schemars(length(min = 1, max = 64))]
    pub namespaces: Vec<String>,
    /// `Rotate` acts; `Observe` decides and reports what would be done, and touches nothing.
    #[serde(default)]
    pub mode: GrantMode,
    /// Parameters that may be read and written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub parameters: Vec<ParameterGrant>,
    /// SSH endpoints that may be connected to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub hosts: Vec<HostGrant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrantMode {
    #[default]
    Rotate,
    Observe,
}

/// Parameters below a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParameterGrant {
    /// Path prefix that ends in `/`; matched by whole segments.
    pub prefix: String,
    /// AWS regions; empty: every region.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// KMS keys or aliases that may be used; empty: only the account's default key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kms_keys: Vec<String>,
}

/// One SSH endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostGrant {
    /// Host name or address, as the DockerHost writes it.
    pub host: String,
    /// TCP port; 22 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}
