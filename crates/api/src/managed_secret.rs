//! ManagedSecret: a secret to renew, and the schedule for it.

// The printer columns repeat their types, which clippy reports as duplicated attributes.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access_log::AccessLogSpec;
use super::duration::Duration;
use super::rules;
use super::source::GenerateSpec;
use super::window::Window;

pub(crate) mod rotation;
mod status;

pub use rotation::*;
pub use status::*;

/// Secret in AWS SSM Parameter Store that keyturn renews on a schedule, and on the docker hosts that run it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyturn.dev",
    version = "v1alpha1",
    kind = "ManagedSecret",
    plural = "managedsecrets",
    shortname = "msec",
    category = "keyturn",
    namespaced,
    status = "ManagedSecretStatus",
    doc = "Secret in AWS SSM Parameter Store that keyturn renews on a schedule, and on the docker hosts that run it.",
    validation = rules::SHORT_NAME,
    selectable = ".spec.suspend",
    selectable = ".spec.rotation.mode",
    printcolumn(
        name = "Path",
        type_ = "string",
        json_path = ".spec.ssm.parameters[0].path",
        description = "First parameter that holds the value"
    ),
    printcolumn(
        name = "Period",
        type_ = "string",
        json_path = ".spec.rotation['period','mode']",
        description = "Maximum age of a value, or OnDemand"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "True when the value is published and its target accepted it at the last check"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Reason of the Ready condition"
    ),
    printcolumn(
        name = "Rotated",
        type_ = "date",
        json_path = ".status.lastRotationTime",
        description = "Age of the published value"
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextRotationTime",
        description = "Time when the next rotation may start"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Age of this object"
    ),
    printcolumn(
        name = "Version",
        type_ = "integer",
        json_path = ".status.parameters[0].version",
        priority = 1,
        description = "Published version of the first parameter"
    ),
    printcolumn(
        name = "Deployed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Deployed\")].status",
        priority = 1,
        description = "True when every host has proven that it runs the published version"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1,
        description = "State of the secret, and what to do if something is wrong"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.ssm.parameters.size() == 1 || !has(self.hosts) || self.hosts.all(h, !has(h.env))",
    "hosts[].env can be set for a single parameter only: with several, the variable of each is the last segment of \
     its path"
))]
pub struct ManagedSecretSpec {
    /// SSM parameters that publish the value. Their paths and the region cannot be changed after creation.
    pub ssm: SsmSpec,
    /// Source of new values. Exactly one source is needed.
    pub generate: GenerateSpec,
    /// Schedule of the rotations, and reactions to failures and drift.
    pub rotation: RotationSpec,
    /// DockerHosts of this namespace that must run the value. When empty, the value is only published in SSM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hosts: Vec<HostRef>,
    /// Time and condition for retiring the previous credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire: Option<RetireSpec>,
    /// Search of the hosts' logs, in an incident, for requests that authenticated with the secret. When absent, no logs
    /// are collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogSpec>,
    /// Text that Events and notifications show whenever the secret is rotated, such as what its users must do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub notice: Option<String>,
    /// Starts no rotation while true. A rotation in progress is finished.
    #[serde(default)]
    pub suspend: bool,
    /// Fate of the parameters when this object is deleted: Retain keeps them, Delete deletes them.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// SSM parameters that publish a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.parameters.size() == oldSelf.parameters.size() && \
     self.parameters.all(p, oldSelf.parameters.exists(o, o.path == p.path))",
    "the paths of ssm.parameters cannot be changed: create another ManagedSecret for another parameter \
     (deleting this one keeps its parameters, unless its deletionPolicy is Delete)"
))]
#[x_kube(validation = (
    "has(self.region) == has(oldSelf.region) && (!has(self.region) || self.region == oldSelf.region)",
    "ssm.region cannot be changed, set or removed after creation: create another ManagedSecret for another region"
))]
pub struct SsmSpec {
    /// SecureString parameters that hold the value. Their paths cannot be changed after creation.
    #[schemars(length(min = 1, max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub parameters: Vec<ParameterSpec>,
    /// AWS region, such as `us-east-1`; the controller's own when absent. Cannot be changed, set or removed after
    /// creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::REGION)]
    pub region: Option<String>,
    /// KMS key id, ARN or alias that encrypts the value; the account's default key when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::KMS_KEY)]
    pub kms_key_id: Option<String>,
    /// Reaction to a parameter that does not exist: Create publishes a first value, Stall waits for a person. When
    /// absent, Create for random values, and Stall where another system has to accept the value: a typo in the path must
    /// not change a credential in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_missing: Option<IfMissing>,
}

/// Parameter that holds the value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSpec {
    /// Full name of the parameter, such as `/musehub/production/RUNNER_TOKEN`.
    #[schemars(length(min = 2, max = 900))]
    #[x_kube(validation = rules::PATH, validation = rules::PATH_NOT_RESERVED)]
    pub path: String,
    /// Text to publish, in which `{value}` stands for the generated value; only `{value}` when absent. With
    /// generate.postgres, `{password}` means the same as `{value}`, and `{username}` stands for the role; both are
    /// percent-encoded where the text is a URL. With generate.cloudflareR2, `{accessKeyId}` and `{secretAccessKey}`
    /// stand for the key pair, in one parameter or in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = (r"!self.matches('[\\r\\n]')", "must be a single line"))]
    pub value: Option<String>,
}

/// Reaction to a parameter that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum IfMissing {
    Create,
    Stall,
}

impl ManagedSecret {
    /// Returns the region in the spec, or the controller's region that was pinned in status when it first saw the
    /// object; `None` when it has not seen the object yet.
    pub fn region(&self) -> Option<&str> {
        let pinned = || self.status.as_ref().and_then(|status| status.region.as_deref());
        self.spec.ssm.region.as_deref().or_else(pinned)
    }

    /// Returns the names of the hosts that the spec lists, and of those in the status.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        let listed = self.spec.hosts.iter().map(|host| host.name.as_str());
        listed.chain(self.status.iter().flat_map(|status| &status.hosts).map(|host| host.name.as_str()))
    }

    /// True when the secret should run on this host, or is known to run there.
    pub fn is_on(&self, host: &str) -> bool {
        self.host_names().any(|name| name == host)
    }
}

/// Schedule of the rotations, and reactions to failures and drift.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.period) != has(self.mode)",
    "set exactly one of period (such as 90d) and mode: OnDemand"
))]
pub struct RotationSpec {
    /// Maximum age of a value, such as `90d`. The value is rotated in the last window before it reaches this age. Set
    /// exactly one of period and mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
    /// Rotation mode without a period. With `OnDemand`, only a new value of the annotation
    /// `keyturn.dev/rotate-requested-at` starts a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RotationMode>,
    /// Time windows in which a rotation may start; any time when empty. A rotation requested by annotation does not
    /// wait for a window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub windows: Vec<Window>,
    /// Reaction to a deployment that fails for good: Hold keeps the new value and stalls, RollBack publishes and
    /// deploys the previous value again. Hold when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// Reaction to a parameter that somebody else writes (drift): Alert only reports it, Adopt accepts that value,
    /// Rotate replaces it. Alert when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_drift: Option<OnDrift>,
}

/// Rotation mode without a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum RotationMode {
    OnDemand,
}

/// Reaction to a deployment that fails for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum OnFailure {
    #[default]
    Hold,
    RollBack,
}

/// Reaction to a parameter that somebody else writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum OnDrift {
    #[default]
    Alert,
    Adopt,
    Rotate,
}

/// DockerHost that runs the value, and the names of the value's environment variable there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostRef {
    /// Name of a DockerHost in this namespace.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,
    /// Names of the environment variable in the containers. When absent, the last segment of each path, converted to a
    /// variable name if needed: `DB_PASSWORD` for `db-password`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
        "must be names of environment variables: letters, digits and _"
    ))]
    pub env: Vec<String>,
}

/// Time and condition for retiring the previous credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetireSpec {
    /// Time that the previous credential keeps working after the proof; the chart value `times.retireAfter` (1h) when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
    /// Proof that is needed where no container has the variable. `Verify` accepts a passed verify script as proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<RetireRequirement>,
}

/// Proof that is accepted where nothing can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum RetireRequirement {
    Verify,
}

/// Fate of the parameters when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}
