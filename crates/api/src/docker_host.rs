//! DockerHost: where values are deployed, and how that is proven.

// The columns repeat their types, which the lint takes for a slip.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access_log::HostAccessLog;
use super::duration::Duration;
use super::notification::PendingNotification;
use super::rules;
use super::window::Window;

/// A docker host that is reached by SSH, deployed to by a script, and proven by comparing what its containers run.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "keyturn.dev",
    version = "v1alpha1",
    kind = "DockerHost",
    plural = "dockerhosts",
    shortname = "dhost",
    category = "keyturn",
    namespaced,
    status = "DockerHostStatus",
    doc = "A docker host that is reached by SSH, deployed to by a script, and proven by comparing what its containers run.",
    validation = rules::SHORT_NAME,
    validation = Rule::new("!has(self.spec.deploy.after) || !(self.metadata.name in self.spec.deploy.after)")
        .message("a host cannot wait for itself: remove its own name from deploy.after")
        .field_path(".spec.deploy.after"),
    selectable = ".spec.suspend",
    selectable = ".spec.ssh.host",
    printcolumn(
        name = "Host",
        type_ = "string",
        json_path = ".spec.ssh.host",
        description = "Name or address that is connected to"
    ),
    printcolumn(
        name = "Project",
        type_ = "string",
        json_path = ".spec.docker.composeProject",
        description = "Compose project whose containers run the secrets"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the host answered and verify passed as of the last run"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why"
    ),
    printcolumn(
        name = "Last Run",
        type_ = "date",
        json_path = ".status.lastRun.finishedAt",
        description = "When the last run ended"
    ),
    printcolumn(
        name = "Result",
        type_ = "string",
        json_path = ".status.lastRun.result",
        description = "How the last run ended"
    ),
    printcolumn(
        name = "Images",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"ImagesClean\")].reason",
        description = "Whether the images that the containers run carry secrets"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Age of this object"
    ),
    printcolumn(
        name = "Running",
        type_ = "string",
        json_path = ".status.run.job",
        priority = 1,
        description = "Job of the run under way"
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
pub struct DockerHostSpec {
    /// How the host is reached.
    pub ssh: SshSpec,
    /// Which containers on it run the secrets.
    pub docker: DockerSpec,
    /// How new values are brought to the containers.
    pub deploy: DeploySpec,
    /// How the host is checked after a deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// How the images that the containers run are searched for secrets, which every run does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSpec>,
    /// Start nothing on this host while true. A run under way is finished.
    #[serde(default)]
    pub suspend: bool,
}

/// An SSH endpoint, and who it must prove to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshSpec {
    /// Host name or address.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub host: String,
    /// TCP port; 22 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Account to log in as.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::USER)]
    pub user: String,
    /// Secret of this namespace that holds the private key; it is used where it has the label `keyturn.dev/usable-by: ssh`.
    pub key_secret_ref: SecretKeyRef,
    /// Lines in the format of OpenSSH's known_hosts, as ssh-keyscan prints them; an item may hold several, comments and
    /// blank lines among them. A host key that no line vouches for is refused.
    #[schemars(length(min = 1, max = 64), inner(length(max = 8192)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = (
        r"self.exists(text, text.matches('(^|\\n)[ \\t]*[^#\\s]\\S*[ \\t]+\\S+[ \\t]+\\S'))",
        "must hold a host key: at least one line of known_hosts that is no comment, such as musehub.example ssh-ed25519 \
         AAAA…, as ssh-keyscan prints it; write several lines below a - |, since YAML joins the lines of a quoted text"
    ))]
    pub known_hosts: Vec<String>,
    /// Host to connect through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<JumpSpec>,
}

impl SshSpec {
    pub fn port(&self) -> u16 {
        self.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(22)
    }
}

/// The lines of an item of `knownHosts` with their numbers from 1. Comments and blank lines are left out, as OpenSSH does.
pub fn known_hosts_lines(item: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = item.lines().map(|line| line.trim_end_matches('\r').trim_start_matches([' ', '\t']));
    (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// A host that the connection goes through. Its key is looked up in `ssh.knownHosts` too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JumpSpec {
    /// Host name or address.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub host: String,
    /// TCP port; 22 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Account to log in as.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::USER)]
    pub user: String,
    /// Secret of this namespace that holds the private key, labelled as that of `ssh`, which is used when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret_ref: Option<SecretKeyRef>,
}

/// One key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,
    /// Key within the Secret's data.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = ("self.matches('^[-._A-Za-z0-9]+$')", "must be a key of a Secret: letters, digits and -._"))]
    pub key: String,
}

/// Containers that run the secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerSpec {
    /// Whether docker is called through `sudo -n`.
    #[serde(default)]
    pub sudo: bool,
    /// Where docker lies on the host, such as `/opt/docker/bin/docker`. When absent it is looked for on the search path of a
    /// session without a login, and then in /usr/local/bin, /snap/bin, /opt/bin, ~/bin and ~/.local/bin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 256))]
    #[x_kube(validation = rules::PROGRAM)]
    pub path: Option<String>,
    /// The compose project whose containers run the secrets.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9][a-z0-9_-]*$')",
        "must be the name of a compose project: lower case letters, digits, - and _, as docker compose ls prints it"
    ))]
    pub compose_project: String,
}

/// How new values are brought to the containers, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploySpec {
    /// POSIX shell script that fetches the published values and recreates the containers.
    #[schemars(length(min = 1, max = 16384))]
    #[x_kube(validation = rules::SCRIPT)]
    pub script: String,
    /// How long the script may run; 15m when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// When a deployment may start; always when empty. These count for every secret of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub windows: Vec<Window>,
    /// DockerHosts of this namespace that must have proven a version before this one gets it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::OBJECT_NAMES)]
    pub after: Vec<String>,
}

/// How the product is checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifySpec {
    /// POSIX shell script that exits 0 when the product works.
    #[schemars(length(min = 1, max = 16384))]
    #[x_kube(validation = rules::SCRIPT)]
    pub script: String,
    /// How long it may take until the script succeeds; 2m when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// How the images are searched for secrets. A finding never fails a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.layers) || !self.layers || has(self.interval)",
    "layers are looked into once in every interval: set interval"
))]
pub struct AuditSpec {
    /// Variables (ENV and ARG) that may hold a literal although their names sound secret. A token of a known form in one
    /// of them is reported all the same, and so is a value that keyturn manages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::VARIABLES)]
    pub allow_env: Vec<String>,
    /// Findings that are known and accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub allow: Vec<AllowedImageFinding>,
    /// The longest that the images go without being looked at. When absent they are looked at by the deployments and
    /// verifications that happen anyway; otherwise a verification is started where none did in this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Also look into the files of the images' layers, once in every `interval`. It takes what `docker save` of all of
    /// them takes over the network, and ten minutes at most.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub layers: bool,
}

/// A finding in an image that is known and accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedImageFinding {
    /// Fingerprint of the finding, as status and `keyturn audit image` show it.
    #[schemars(length(min = 16, max = 16))]
    #[x_kube(validation = rules::FINDING)]
    pub fingerprint: String,
    /// Only in this image: a name with its tag, one without (all of its tags), or a digest. In every image when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Why it is accepted, for whoever reads this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub reason: Option<String>,
}

/// What is known of the host. Losing it costs one verify run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerHostStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready, Deploying, ImagesClean, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What is known of each parameter on this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub parameters: Vec<HostParameter>,
    /// The run under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<HostRun>,
    /// The last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<HostRun>,
    /// The last deployment that ended; a later run that only verified does not replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_deploy: Option<HostRun>,
    /// The last look at the images that the containers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_audit: Option<ImageAudit>,
    /// Secrets in the images that the containers run, but for those that `audit` allows. Never a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub image_findings: Vec<ImageFinding>,
    /// Log lines that the host was asked for in incidents, until the SecretIncidents have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub access_logs: Vec<HostAccessLog>,
    /// Hash of the endpoint and compose project that `parameters` speaks of: another host or project proves anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Earliest time of the next attempt after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// What people are to be told and a sink of `notifications` in the chart's values has not taken yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub pending_notifications: Vec<PendingNotification>,
}

/// What is known of one parameter on this host. Once proven, it stays so until a newer version is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostParameter {
    /// Path of the parameter.
    pub path: String,
    /// Version that was compared or deployed.
    pub version: i64,
    /// When that version's value was made. It tells it from the same number of a parameter that was created again.
    pub published_at: Time,
    /// What the comparison of the containers with that version showed.
    pub proof: Proof,
    /// When it was shown.
    pub at: Time,
    /// Whether a deployment of this version ended well here, which matters where nothing can be compared.
    #[serde(default)]
    pub deployed: bool,
}

/// What a comparison of running containers with a version showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Proof {
    /// Every container that has the variable runs the value, at least one has it, and verify passed.
    Proven,
    /// At least one container runs another value.
    Differs,
    /// No container has the variable, so nothing can be compared.
    Incomparable,
}

/// A look at the images of the compose project's containers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageAudit {
    /// When it was.
    pub at: Time,
    /// How many images the containers ran.
    pub images: i32,
    /// Findings that `audit` allows.
    #[serde(default)]
    pub allowed: i32,
    /// Findings that there was no room for: in all images there are these and those in `imageFindings`.
    #[serde(default)]
    pub left_out: i32,
    /// Why not every image could be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Hash of `audit` as it was then. A change is acted on at once.
    #[serde(default)]
    pub settings: String,
    /// The last look into the files of the layers, where `audit.layers` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersAudit>,
}

/// A look into the files of the images' layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayersAudit {
    /// When it was.
    pub at: Time,
    /// How many files were looked into.
    #[serde(default)]
    pub files: i64,
    /// Why not all of them were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A secret in an image, without the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageFinding {
    /// Name of the image as the container was started with it.
    pub image: String,
    /// The image's ID, `sha256:…`.
    pub digest: String,
    /// Where in the image: `env DB_PASSWORD`, `label build-info`, `history layer 4 NPM_TOKEN`, `file app/.env`.
    pub place: String,
    /// What makes it a finding, see docs/image-audit.md.
    pub rule: String,
    /// What identifies the finding in `audit.allow`, 16 hexadecimal digits. It does not depend on the value.
    pub fingerprint: String,
    /// The parameter whose published value it is, where keyturn manages it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

/// A run of a deploy Job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostRun {
    /// Hash of the `path=version` lines and the script.
    pub revision: String,
    /// Deploy; Verify, where nothing is changed; Collect, where log lines are collected for an incident.
    pub mode: RunMode,
    /// Name of the Job.
    pub job: String,
    /// How often this revision was tried, from 1.
    pub attempt: i32,
    /// When the Job was created.
    pub started_at: Time,
    /// When the Job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// `Succeeded`, or the reason of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// What happened, and what to do where something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that the Job was made from.
    #[serde(default)]
    pub generation: i64,
    /// Consecutive failed runs of this mode, revision and generation, this one included; 0 after a success.
    #[serde(default)]
    pub failures: i32,
    /// How many of these failures the host itself has shown: by its deploy script, its verify script or what its containers
    /// run. What came of the others is not known, so nothing is rolled back for them.
    #[serde(default)]
    pub rejections: i32,
    /// After a failure, the earliest time of another run of the same revision and generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Time>,
    /// `path=version` lines of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 1100)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub parameters: Vec<String>,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunMode {
    Deploy,
    Verify,
    Collect,
}
