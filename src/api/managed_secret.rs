//! ManagedSecret: what must be renewed, and when.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::window::Window;

/// A secret in AWS SSM Parameter Store that is renewed on a schedule, on the hosts that run it.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "keyturn.dev",
    version = "v1alpha1",
    kind = "ManagedSecret",
    plural = "managedsecrets",
    shortname = "msec",
    category = "keyturn",
    namespaced,
    status = "ManagedSecretStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSecretSpec {
    /// Where the value is published.
    pub ssm: SsmSpec,
    /// How a new value is made. Exactly one source.
    pub generate: GenerateSpec,
    /// When it is renewed.
    pub rotation: RotationSpec,
    /// DockerHosts of this namespace that must run the value. None: it is published in SSM only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostRef>,
    /// When the previous credential is retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retire: Option<RetireSpec>,
    /// Said in Events and status whenever the secret is rotated, such as what its users have to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Start no rotation while true. One that has begun is finished.
    #[serde(default)]
    pub suspend: bool,
    /// What happens to the parameters when this object is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SsmSpec {
    /// The SecureString parameters that hold the value.
    pub parameters: Vec<ParameterSpec>,
    /// AWS region; the controller's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// KMS key id, ARN or alias that encrypts the value; the account's default key when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// What to do when the parameter does not exist; Create when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_missing: Option<IfMissing>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParameterSpec {
    /// Full name of the parameter, such as `/musehub/production/RUNNER_TOKEN`.
    pub path: String,
    /// Text that is published, in which `{value}` stands for the generated value. Only `{value}` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IfMissing {
    Create,
    Stall,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BytesSpec {
    /// Number of random bytes, from 16 to 1024. The text is longer: twice as long in hexadecimal.
    #[schemars(range(min = 16, max = 1024))]
    pub bytes: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSpec {
    /// Number of characters, from 16 to 256.
    #[schemars(range(min = 16, max = 256))]
    pub length: i32,
    /// Symbols that may occur beside letters and digits; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbols: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FernetSpec {
    /// How many previous keys stay behind the new one, separated by commas, for applications that use MultiFernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9))]
    pub keep_previous: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationSpec {
    /// Greatest age of a value, such as `90d`. Exactly one of period and mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
    /// `OnDemand`: only a new value of the annotation `keyturn.dev/rotate-requested-at` rotates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RotationMode>,
    /// When a rotation may start; always when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Window>,
    /// What to do when a deployment fails for good; Hold when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// What to do when somebody else writes the parameter; Alert when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_drift: Option<OnDrift>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RotationMode {
    OnDemand,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    #[default]
    Hold,
    RollBack,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDrift {
    #[default]
    Alert,
    Adopt,
    Rotate,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostRef {
    /// Name of a DockerHost in this namespace.
    pub name: String,
    /// Names of the environment variable in the containers; the last segment of each path when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetireSpec {
    /// How long after the proof the previous credential keeps working; 1h when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Duration>,
    /// `Verify`: where no container has the variable, a passed verify script counts as proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<RetireRequirement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RetireRequirement {
    Verify,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// What the outside world says. Losing it loses nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedSecretStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready, Rotating, Deployed, Overdue, Drifted, Preflight, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// AWS region that holds the parameters, pinned at first sight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// What is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    /// What each host runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<SecretOnHost>,
    /// Previous credentials that still work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending_retirements: Vec<PendingRetirement>,
    /// Consecutive failures of the same step, kept so that a restart keeps the backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureStatus>,
    /// The last ten rotations, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<LastRotation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedParameter {
    /// Path of the parameter.
    pub path: String,
    /// Version in SSM.
    pub version: i64,
    /// Who made this version.
    pub origin: Origin,
    /// When SSM took this version. Hosts refuse what is older than what they run, also where a parameter was deleted
    /// and created again and its versions count from 1 anew.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreflightStatus {
    /// A host's proof counts when it is not older than this.
    pub requested_at: Time,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatus {
    /// Number of the rotation.
    pub id: i64,
    /// Why it was started: Missing, Period, Request, Drift, RollBack.
    pub trigger: String,
    /// Record, Install, Promote, Deploy, Retire or Close.
    pub step: String,
    /// When its record was created.
    pub started_at: Time,
    /// Failed attempts of the step.
    #[serde(default)]
    pub attempts: i32,
    /// What it is doing or waiting for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRotation {
    /// Number of the rotation; absent where a request needed none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Value of the annotation that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Why it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Succeeded, RolledBack, Aborted or Recorded (a request that was there at first sight).
    pub result: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// Step that failed.
    pub step: String,
    /// Consecutive failures.
    pub attempts: i32,
    /// Earliest time of the next attempt.
    pub next_attempt_time: Time,
    /// Generation and request under which it failed; a change of either resets the backoff.
    pub generation: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}
