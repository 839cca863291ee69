//! ManagedSecret: what must be renewed, and when.

// The columns repeat their types, which the lint takes for a slip.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access_log::AccessLogSpec;
use super::cloudflare_r2::CloudflareR2Spec;
use super::duration::Duration;
use super::notification::PendingNotification;
use super::postgres::PostgresSpec;
use super::rules;
use super::window::Window;

/// A secret in AWS SSM Parameter Store that is renewed on a schedule, on the hosts that run it.
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
    doc = "A secret in AWS SSM Parameter Store that is renewed on a schedule, on the docker hosts that run it.",
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
        description = "Greatest age of a value, or OnDemand"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the value is published and was accepted by its target as of the last check"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why"
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
        description = "When the next rotation may start"
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
        description = "Whether every host has proven that it runs the published version"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1,
        description = "What is the case, and what to do about it"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.generate.cloudflareR2) || \
     self.ssm.parameters.all(p, has(p.value)) && \
     self.ssm.parameters.exists(p, has(p.value) && p.value.contains('{accessKeyId}')) && \
     self.ssm.parameters.exists(p, has(p.value) && p.value.contains('{secretAccessKey}'))",
    "with generate.cloudflareR2 every parameter needs a value, and {accessKeyId} and {secretAccessKey} must both be \
     published: in one parameter or in two"
))]
#[x_kube(validation = (
    "!has(self.generate.cloudflareR2) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'",
    "deletionPolicy: Delete would delete the only copy of a key pair that still works; delete the token first, then the \
     parameters by hand"
))]
#[x_kube(validation = (
    "self.ssm.parameters.size() == 1 || !has(self.hosts) || self.hosts.all(h, !has(h.env))",
    "hosts[].env names the variable of a single parameter; where there are several, each one's variable is the last \
     segment of its path"
))]
#[x_kube(validation = (
    "!has(self.generate.postgres) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'",
    "deletionPolicy: Delete would delete the only copy of a password that the role still has; delete the role first, \
     then the parameter by hand"
))]
pub struct ManagedSecretSpec {
    /// Where the value is published. Parameters and region are fixed once the object exists.
    pub ssm: SsmSpec,
    /// How a new value is made. Exactly one source.
    pub generate: GenerateSpec,
    /// When it is renewed.
    pub rotation: RotationSpec,
    /// DockerHosts of this namespace that must run the value. None: it is published in SSM only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hosts: Vec<HostRef>,
    /// When the previous credential is retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire: Option<RetireSpec>,
    /// How the hosts' logs are asked, in an incident, for what authenticated with the secret. Nobody looks at them when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogSpec>,
    /// Said in Events and status whenever the secret is rotated, such as what its users have to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub notice: Option<String>,
    /// Start no rotation while true. One that has begun is finished.
    #[serde(default)]
    pub suspend: bool,
    /// What happens to the parameters when this object is deleted: Retain keeps them, Delete deletes them too.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// Where a value is published.
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
    /// The SecureString parameters that hold the value. Their paths cannot be changed after creation.
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
    /// What to do when the parameter does not exist; when absent Create for random values, and Stall for generate.postgres
    /// and generate.cloudflareR2, where a slip in the path must not change a credential that is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_missing: Option<IfMissing>,
}

/// One parameter that holds the value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSpec {
    /// Full name of the parameter, such as `/musehub/production/RUNNER_TOKEN`.
    #[schemars(length(min = 2, max = 900))]
    #[x_kube(validation = rules::PATH, validation = rules::PATH_NOT_RESERVED)]
    pub path: String,
    /// Text that is published, in which `{value}` stands for the generated value; only `{value}` when absent. With
    /// generate.postgres `{password}` is the same and `{username}` is the role, percent-encoded where the text is a URL.
    /// With generate.cloudflareR2 it is `{accessKeyId}` and `{secretAccessKey}`, in one parameter or in several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = (
        "self.contains('{value}') || self.contains('{password}') || self.contains('{username}') || \
         self.contains('{accessKeyId}') || self.contains('{secretAccessKey}')",
        "must contain {value}, where the generated value is put, {username} or {password} of generate.postgres, or \
         {accessKeyId} or {secretAccessKey} of generate.cloudflareR2"
    ))]
    #[x_kube(validation = (r"!self.matches('[\\r\\n]')", "must be a single line"))]
    pub value: Option<String>,
}

/// What to do about a parameter that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IfMissing {
    Create,
    Stall,
}

/// How a value is made: exactly one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.hex), has(self.base64), has(self.password), has(self.fernet), has(self.postgres), has(self.cloudflareR2)]\
     .filter(source, source).size() == 1",
    "exactly one source is needed: hex, base64, password, fernet, postgres or cloudflareR2"
))]
pub struct GenerateSpec {
    /// Random bytes in hexadecimal, as `openssl rand -hex` prints them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hex: Option<BytesSpec>,
    /// Random bytes in standard base64 with padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<BytesSpec>,
    /// A password of letters, digits and chosen symbols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordSpec>,
    /// A Fernet key: 32 random bytes in URL-safe base64 with padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fernet: Option<FernetSpec>,
    /// The password of a Postgres role, which the server is told before it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSpec>,
    /// The key pair of a new Cloudflare R2 API token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudflare_r2: Option<CloudflareR2Spec>,
}

impl ManagedSecret {
    /// The region that it names, or that of the controller when it was first seen; `None`: not seen yet.
    pub fn region(&self) -> Option<&str> {
        let pinned = || self.status.as_ref().and_then(|status| status.region.as_deref());
        self.spec.ssm.region.as_deref().or_else(pinned)
    }
}

impl GenerateSpec {
    /// Whether a system outside has to accept what is published.
    pub fn has_target(&self) -> bool {
        self.postgres.is_some() || self.cloudflare_r2.is_some()
    }
}

/// Random bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BytesSpec {
    /// Number of random bytes, from 16 to 1024. The text is longer: twice as long in hexadecimal.
    #[schemars(range(min = 16, max = 1024))]
    pub bytes: i32,
}

/// Random characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSpec {
    /// Number of characters, from 16 to 256.
    #[schemars(range(min = 16, max = 256))]
    pub length: i32,
    /// Symbols that may occur beside letters and digits, such as `-_.`; none when absent. Quotes, `$`, `#` and `\`
    /// are changed by many readers of .env files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = (
        r"self.matches('^[!-/:-@\\[-`{-~]+$')",
        "must be ASCII punctuation: letters and digits are always used, spaces never"
    ))]
    #[x_kube(validation = (
        "self.split('').all(symbol, self.indexOf(symbol) == self.lastIndexOf(symbol))",
        "must not name a symbol twice"
    ))]
    pub symbols: Option<String>,
}

/// A Fernet key, and how many previous ones stay beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FernetSpec {
    /// How many previous keys stay behind the new one, separated by commas, for applications that use MultiFernet.
    /// None when absent: `Fernet("new,old")` silently acts as `new` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub keep_previous: Option<i32>,
}

/// When a value is renewed, and what happens when that goes wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.period) != has(self.mode)",
    "set exactly one of period (such as 90d) and mode: OnDemand"
))]
pub struct RotationSpec {
    /// Greatest age of a value, such as `90d`: it is rotated in the last window before it is that old. Exactly one
    /// of period and mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
    /// `OnDemand`: only a new value of the annotation `keyturn.dev/rotate-requested-at` rotates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RotationMode>,
    /// When a rotation may start; always when empty. One that was asked for by annotation does not wait for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub windows: Vec<Window>,
    /// What to do when a deployment fails for good: Hold keeps the new value and stalls, RollBack publishes and
    /// deploys the previous one again. Hold when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// What to do when somebody else writes the parameter: Alert only says so, Adopt takes that value over, Rotate
    /// replaces it. Alert when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_drift: Option<OnDrift>,
}

/// Rotation without a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationMode {
    OnDemand,
}

/// What to do when a deployment fails for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    #[default]
    Hold,
    RollBack,
}

/// What to do when somebody else writes a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDrift {
    #[default]
    Alert,
    Adopt,
    Rotate,
}

/// A DockerHost that runs the value, and under which names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostRef {
    /// Name of a DockerHost in this namespace.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,
    /// Names of the environment variable in the containers; when absent, the last segment of each path, as `DB_PASSWORD`
    /// where that is `db-password`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
        "must be names of environment variables: letters, digits and _"
    ))]
    pub env: Vec<String>,
}

/// When a previous credential is retired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetireSpec {
    /// How long after the proof the previous credential keeps working; 1h when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
    /// `Verify`: where no container has the variable, a passed verify script counts as proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<RetireRequirement>,
}

/// What counts as proof where nothing can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetireRequirement {
    Verify,
}

/// What happens to the parameters when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// What the outside world says. Losing it loses nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSecretStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready, Rotating, Deployed, Overdue, Drifted, Compromised, Preflight, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// AWS region that holds the parameters, pinned at first sight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub parameters: Vec<PublishedParameter>,
    /// When the published value was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_time: Option<Time>,
    /// When the next rotation may start, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<String>,
    /// The check of the hosts that comes before a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<PreflightStatus>,
    /// The rotation under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
    /// How the last request or rotation ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation: Option<LastRotation>,
    /// Values of the annotation `keyturn.dev/rotate-requested-at` that were executed or recorded, newest first, by their
    /// hash: none of them rotates again, in whatever order they come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub handled_requests: Vec<String>,
    /// What each host runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hosts: Vec<SecretOnHost>,
    /// What the system that must accept the value said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// The response to the latest SecretIncident that concerns this secret; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compromise: Option<CompromiseStatus>,
    /// Previous credentials that still work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["credential".into()]))]
    pub pending_retirements: Vec<PendingRetirement>,
    /// Consecutive failures of the same step, kept so that a restart keeps the backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureStatus>,
    /// The last ten rotations, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub history: Vec<LastRotation>,
    /// What people are to be told and a sink of `notifications` in the chart's values has not taken yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub pending_notifications: Vec<PendingNotification>,
}

/// What is published in one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedParameter {
    /// Path of the parameter.
    pub path: String,
    /// Version in SSM.
    pub version: i64,
    /// Who made this version.
    pub origin: Origin,
    /// When the value of this version was made, or SSM took it where it was there before keyturn. With the version it
    /// says which value is meant, since the versions of a parameter that is created again count from 1 anew.
    pub published_at: Time,
}

/// Who made a published version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Origin {
    /// It was there before keyturn, or is taken over with `onDrift: Adopt`.
    Adopted,
    /// keyturn published it.
    Rotated,
    /// Somebody else wrote it over a version of keyturn's.
    Foreign,
}

/// Asks the hosts to show that they still answer, pass verify and run the published version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightStatus {
    /// A host's proof counts when it is not older than this.
    pub requested_at: Time,
}

/// A rotation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// Number of the rotation.
    pub id: i64,
    /// Why it was started: Missing, Period, Request, Drift, RollBack, Incident.
    pub trigger: String,
    /// Record, Install, Promote, Deploy, Retire or Close.
    pub step: String,
    /// Value of the annotation that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub request: Option<String>,
    /// When its record was created.
    pub started_at: Time,
    /// When the role was given its new password in place, so that hosts are without a working one until the deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed_at: Option<Time>,
    /// When every host was first seen to have proven the new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Time>,
    /// Failed attempts of the step.
    #[serde(default)]
    pub attempts: i32,
    /// What it is doing or waiting for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How a request or a rotation ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRotation {
    /// Number of the rotation; absent where a request needed none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Value of the annotation that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub request: Option<String>,
    /// Why it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Succeeded, RolledBack, Aborted or Recorded (a request that was there at first sight).
    pub result: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// With generate.postgres.singleRole: how many seconds the hosts had no password that worked for new connections,
    /// from the change of the role to the last proof. Absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<i64>,
}

/// What one host runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretOnHost {
    /// Name of the DockerHost.
    pub name: String,
    /// Newest version that the host has proven to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// Whether that is the published one.
    pub proven: bool,
}

/// What the system that must accept the published value said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Whether it accepted the published login as of the last check.
    pub accepts: bool,
    /// When that was asked: before and during rotations, and when the object or what is published changes.
    pub checked_at: Time,
    /// Whether it refuses late requests of older rotations, for which an administrator of Postgres must be able to create
    /// the table `keyturn.fence`; Cloudflare cannot.
    pub fenced: bool,
    /// Why it does not accept it; empty where it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What a person should know of the roles or tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub notes: Vec<String>,
    /// The statements that make owner and pair from the role in use, where alternatingRoles.bootstrap asks for that and it
    /// is not done; at most 100 are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub set_up: Vec<String>,
}

/// A previous credential that still works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingRetirement {
    /// Which credential, by a name that is no secret.
    pub credential: String,
    /// Not before this time.
    pub not_before: Time,
    /// Why it is still there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How far the response to an incident has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompromiseStatus {
    /// Every value that was made before this time has to go: the latest reportedAt of the incidents that concern it.
    pub reported_at: Time,
    /// The old login is revoked at this time at the latest, where a system has to accept it.
    pub revoke_by: Time,
    /// When the value was made that is published instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Time>,
    /// When every host was seen to run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_at: Option<Time>,
    /// When the old login was seen to be refused, with no session of it left; absent where no system has to accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Time>,
    /// Since when nobody can use what may have been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained_at: Option<Time>,
    /// What is left to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A step that fails again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// Step that failed.
    pub step: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, and what to do.
    pub message: String,
    /// Consecutive failures.
    pub attempts: i32,
    /// Whether only a person can end it; it is tried again all the same.
    #[serde(default)]
    pub permanent: bool,
    /// Earliest time of the next attempt.
    pub next_attempt_time: Time,
    /// Generation under which it failed; a change of it or of the request resets the backoff.
    pub generation: i64,
    /// Latest report of an incident under which it failed; a later one resets the backoff too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Time>,
    /// Annotation under which it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262144))]
    pub request: Option<String>,
}
