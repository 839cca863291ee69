//! RotationGrant: permissions of namespaces on parameters, hosts, Postgres servers and Cloudflare accounts.

// Several printer columns have the same type, which clippy reports as duplicated attributes.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use super::source::cloudflare_r2::CloudflareGrant;
use super::source::postgres::PostgresGrant;

/// Permissions of the ManagedSecrets and DockerHosts of some namespaces. Everything that no grant lists is denied.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyturn.dev",
    version = "v1alpha1",
    kind = "RotationGrant",
    plural = "rotationgrants",
    shortname = "rgrant",
    category = "keyturn",
    doc = "Permissions of the ManagedSecrets and DockerHosts of some namespaces. Everything that no grant lists is denied.",
    selectable = ".spec.mode",
    printcolumn(
        name = "Namespaces",
        type_ = "string",
        json_path = ".spec.namespaces",
        description = "Namespaces that this grant is for"
    ),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "Rotate acts, Observe changes nothing"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Age of this object"
    ),
    printcolumn(
        name = "Parameters",
        type_ = "string",
        json_path = ".spec.parameters[*].prefix",
        priority = 1,
        description = "First path that is granted"
    ),
    printcolumn(
        name = "Hosts",
        type_ = "string",
        json_path = ".spec.hosts[*].host",
        priority = 1,
        description = "First SSH endpoint that is granted"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(has(self.mode) && self.mode == 'Observe') || !has(self.parameters) || \
     self.parameters.all(p, !has(p.prefix) || p.prefix != '/')",
    "the prefix / covers the whole account, which cannot be granted: name the folders or the parameters. With mode: \
     Observe it stops everything"
))]
pub struct RotationGrantSpec {
    /// Namespaces that the grant is for.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = (
        "self.all(n, n.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'))",
        "must be names of namespaces; there are no wildcards"
    ))]
    pub namespaces: Vec<String>,
    /// `Rotate` lets keyturn act. `Observe` only lets it decide and report what it would do; it changes nothing. Where
    /// several grants cover the same thing, `Observe` wins, so that a single object stops everything below a path.
    #[serde(default)]
    pub mode: GrantMode,
    /// Parameters that keyturn may read and write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub parameters: Vec<ParameterGrant>,
    /// SSH endpoints that keyturn may connect to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub hosts: Vec<HostGrant>,
    /// Postgres servers, and the roles on them whose passwords keyturn may change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub postgres: Vec<PostgresGrant>,
    /// Cloudflare accounts whose R2 tokens keyturn may create and delete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub cloudflare: Vec<CloudflareGrant>,
}

/// Mode of a grant: act, or only observe and report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum GrantMode {
    #[default]
    Rotate,
    Observe,
}

/// All parameters below a path, or a single parameter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.prefix) != has(self.path)",
    "exactly one of prefix (all parameters below it) and path (a single one) is needed"
))]
pub struct ParameterGrant {
    /// Path prefix that ends in `/`, matched by whole segments. Paths below keyturn's own staging path are never
    /// granted. `/` alone is only accepted with `mode: Observe`, where it stops everything and allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 900))]
    #[x_kube(validation = rules::PREFIX)]
    pub prefix: Option<String>,
    /// Full name of a single parameter, such as `/RUNNER_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 900))]
    #[x_kube(validation = rules::PATH)]
    pub path: Option<String>,
    /// AWS regions. When empty, the installation's own region; with `mode: Observe`, every region is stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::REGIONS)]
    pub regions: Vec<String>,
    /// KMS keys or aliases that may be used, spelled as in the ManagedSecrets. The account's default key is always
    /// allowed; when empty, only that key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::KMS_KEYS)]
    pub kms_keys: Vec<String>,
    /// Texts that may be published around a value, spelled exactly as in `spec.ssm.parameters[].value` of the
    /// ManagedSecrets. They are restricted because a host in the text decides where every login is sent, and a shell
    /// may execute the text. A text that consists of placeholders only, such as `{value}`, need not be listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 2048)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub templates: Vec<String>,
}

/// SSH endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostGrant {
    /// Host name or address, spelled as in the DockerHost.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub host: String,
    /// TCP port; 22 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}
