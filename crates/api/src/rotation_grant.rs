//! RotationGrant: what a namespace may touch.

// The columns repeat their types, which the lint takes for a slip.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// What the ManagedSecrets and DockerHosts of some namespaces may touch. Nothing is allowed that no grant lists.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyturn.dev",
    version = "v1alpha1",
    kind = "RotationGrant",
    plural = "rotationgrants",
    shortname = "rgrant",
    category = "keyturn",
    doc = "What the ManagedSecrets and DockerHosts of some namespaces may touch. Nothing is allowed that no grant lists.",
    selectable = ".spec.mode",
    printcolumn(
        name = "Namespaces",
        type_ = "string",
        json_path = ".spec.namespaces",
        description = "Namespaces this grant is for"
    ),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "Rotate acts, Observe touches nothing"
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
    "the prefix / is the whole account, which no namespace is given: name the folders or the parameters. With mode: \
     Observe it stops everything"
))]
pub struct RotationGrantSpec {
    /// Namespaces this grant is for.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = (
        "self.all(n, n.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'))",
        "must be names of namespaces; there are no wildcards"
    ))]
    pub namespaces: Vec<String>,
    /// `Rotate` acts; `Observe` decides and reports what would be done, and touches nothing. Where several grants
    /// cover the same thing, one that observes wins, so that a single object stops everything below a path.
    #[serde(default)]
    pub mode: GrantMode,
    /// Parameters that may be read and written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub parameters: Vec<ParameterGrant>,
    /// SSH endpoints that may be connected to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub hosts: Vec<HostGrant>,
    /// Postgres servers and the roles whose passwords may be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub postgres: Vec<PostgresGrant>,
    /// Cloudflare accounts whose R2 tokens may be made and deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub cloudflare: Vec<CloudflareGrant>,
}

/// Whether a grant lets keyturn act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GrantMode {
    #[default]
    Rotate,
    Observe,
}

/// Parameters below a path, or a single one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.prefix) != has(self.path)",
    "exactly one of prefix (all parameters below it) and path (a single one) is needed"
))]
pub struct ParameterGrant {
    /// Path prefix that ends in `/`; matched by whole segments. What lies under keyturn's own staging path is never
    /// granted. `/` alone is only taken with `mode: Observe`, where it stops everything and allows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 900))]
    #[x_kube(validation = rules::PREFIX)]
    pub prefix: Option<String>,
    /// Full name of a single parameter, such as `/RUNNER_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 900))]
    #[x_kube(validation = rules::PATH)]
    pub path: Option<String>,
    /// AWS regions; empty: the installation's own, and with `mode: Observe` every region is stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::REGIONS)]
    pub regions: Vec<String>,
    /// KMS keys or aliases that may be used, written as the ManagedSecrets write them; the account's default key is
    /// always allowed. Empty: only that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::KMS_KEYS)]
    pub kms_keys: Vec<String>,
    /// Texts that may be published around a value, exactly as `spec.ssm.parameters[].value` of the ManagedSecrets has
    /// them: a host in a text is where every login goes, and a shell may run what a text holds. One of placeholders alone,
    /// such as `{value}`, needs no mention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 2048)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub templates: Vec<String>,
}

/// One SSH endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostGrant {
    /// Host name or address, as the DockerHost writes it.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub host: String,
    /// TCP port; 22 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// The R2 tokens of one Cloudflare account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudflareGrant {
    /// Id of the account, 32 hexadecimal digits.
    #[schemars(length(min = 32, max = 32))]
    #[x_kube(validation = rules::CLOUDFLARE_ACCOUNT)]
    pub account_id: String,
}

/// Roles of one Postgres server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.host) != has(self.dockerHost)",
    "exactly one of host and dockerHost is needed"
))]
pub struct PostgresGrant {
    /// Host name or address, as the ManagedSecret writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub host: Option<String>,
    /// Name of the DockerHost whose loopback address the server listens on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub docker_host: Option<String>,
    /// TCP port; 5432 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Roles whose passwords may be changed, the owner of alternating roles and the role that a bootstrap starts from
    /// among them.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::POSTGRES_NAMES)]
    pub roles: Vec<String>,
    /// Whether they may be superusers or replication roles. The role that POSTGRES_USER of the official image names is
    /// a superuser.
    #[serde(default)]
    pub allow_superuser: bool,
    /// Whether the `probes` of ManagedSecrets may be run as them: statements that whoever may edit a ManagedSecret writes,
    /// and whose success or failure its conditions show. They are run in read-only transactions, and never as a superuser.
    #[serde(default)]
    pub probes: bool,
}
