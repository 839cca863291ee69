//! DockerHost: the host on which values are deployed, and the proof that its containers run them.

// The printer columns repeat their types, which clippy reports as duplicated attributes.
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
use super::words::words;

/// Docker host that keyturn reaches by SSH. A script deploys to it, and a comparison with the running containers proves
/// the result.
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
    doc = "Docker host that keyturn reaches by SSH. A script deploys to it, and a comparison with the running containers proves the result.",
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
        description = "Name or address that keyturn connects to"
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
        description = "True when the host answered and verify passed in the last run"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Reason of the Ready condition"
    ),
    printcolumn(
        name = "Last Run",
        type_ = "date",
        json_path = ".status.lastRun.finishedAt",
        description = "Time since the last run ended"
    ),
    printcolumn(
        name = "Result",
        type_ = "string",
        json_path = ".status.lastRun.result",
        description = "Result of the last run"
    ),
    printcolumn(
        name = "Images",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"ImagesClean\")].reason",
        description = "Result of the last search for secrets in the images"
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
        description = "Job of the run in progress"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1,
        description = "State of the host, and what to do if something is wrong"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DockerHostSpec {
    /// SSH endpoint of the host.
    pub ssh: SshSpec,
    /// Containers on the host that run the secrets.
    pub docker: DockerSpec,
    /// Script that deploys new values to the containers, and the times when it may run.
    pub deploy: DeploySpec,
    /// Check of the product after a deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifySpec>,
    /// Search for secrets in the images that the containers run. Every run does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSpec>,
    /// Starts no run on this host while true. A run in progress is finished.
    #[serde(default)]
    pub suspend: bool,
}

/// SSH endpoint and the host keys that it must present.
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
    /// Secret of this namespace that holds the private key. keyturn uses it only if it has the label
    /// `keyturn.dev/usable-by: ssh`.
    pub key_secret_ref: SecretKeyRef,
    /// Lines in the format of OpenSSH's known_hosts, as ssh-keyscan prints them. One item may hold several lines,
    /// comments and blank lines. A host key that matches no line is refused.
    #[schemars(length(min = 1, max = 64), inner(length(max = 8192)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = (
        r"self.exists(text, text.matches('(^|\\n)[ \\t]*[^#\\s]\\S*[ \\t]+\\S+[ \\t]+\\S'))",
        "must hold a host key: at least one line of known_hosts that is no comment, such as musehub.example ssh-ed25519 \
         AAAA…, as ssh-keyscan prints it; write several lines below a - |, since YAML joins the lines of a quoted text"
    ))]
    pub known_hosts: Vec<String>,
    /// Jump host that the connection goes through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<JumpSpec>,
}

impl SshSpec {
    /// Returns the TCP port: 22 where the spec sets none or one that is no port number.
    pub fn port(&self) -> u16 {
        self.port.and_then(|p| u16::try_from(p).ok()).unwrap_or(22)
    }
}

/// Returns the lines of an item of `knownHosts` with their numbers, counted from 1. Comments and blank lines are left
/// out, as OpenSSH does.
pub fn known_hosts_lines(item: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = item.lines().map(|line| line.trim_end_matches('\r').trim_start_matches([' ', '\t']));
    (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Jump host that the connection goes through. Its host key is checked against `ssh.knownHosts` too.
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
    /// Secret of this namespace that holds the private key, with the same label as the Secret of `ssh`; the Secret of
    /// `ssh` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret_ref: Option<SecretKeyRef>,
}

/// Key of a Secret in the same namespace.
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

/// Containers of a compose project that run the secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerSpec {
    /// Calls docker through `sudo -n` when true.
    #[serde(default)]
    pub sudo: bool,
    /// Path of the docker program on the host, such as `/opt/docker/bin/docker`. When absent, keyturn searches the PATH
    /// of a non-login session, then /usr/local/bin, /snap/bin, /opt/bin, ~/bin and ~/.local/bin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 256))]
    #[x_kube(validation = rules::PROGRAM)]
    pub path: Option<String>,
    /// Compose project whose containers run the secrets.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9][a-z0-9_-]*$')",
        "must be the name of a compose project: lower case letters, digits, - and _, as docker compose ls prints it"
    ))]
    pub compose_project: String,
}

/// Script that deploys new values to the containers, and the times when it may run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploySpec {
    /// POSIX shell script that fetches the published values and recreates the containers.
    #[schemars(length(min = 1, max = 16384))]
    #[x_kube(validation = rules::SCRIPT)]
    pub script: String,
    /// Time limit of the script; 15m when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Time windows in which a deployment may start; any time when empty. They apply to every secret of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub windows: Vec<Window>,
    /// DockerHosts of this namespace that must prove a version before it is deployed to this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::OBJECT_NAMES)]
    pub after: Vec<String>,
}

/// Check of the product after a deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifySpec {
    /// POSIX shell script that exits 0 when the product works.
    #[schemars(length(min = 1, max = 16384))]
    #[x_kube(validation = rules::SCRIPT)]
    pub script: String,
    /// Time within which the script must succeed; it is retried until then. 2m when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// Search for secrets in the images of the containers. A finding never fails a deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.layers) || !self.layers || has(self.interval)",
    "layers are read once per interval: set interval"
))]
pub struct AuditSpec {
    /// Names of variables (ENV and ARG) that may have a literal value although the name suggests a secret. keyturn
    /// still reports a token of a known format in them, and a value that it manages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::VARIABLES)]
    pub allow_env: Vec<String>,
    /// Findings that are known and accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub allow: Vec<AllowedImageFinding>,
    /// Maximum time between two searches of the images. When no run has searched them for this long, keyturn starts a
    /// verification. When absent, only the deployments and verifications that happen anyway search them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Also searches the files in the images' layers, once per `interval`. Each search transfers all images over the
    /// network, as `docker save` does, and takes ten minutes at most.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub layers: bool,
}

/// Finding in an image that is known and accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedImageFinding {
    /// Fingerprint of the finding, as status and `keyturn audit image` show it.
    #[schemars(length(min = 16, max = 16))]
    #[x_kube(validation = rules::FINDING)]
    pub fingerprint: String,
    /// Image in which the finding is accepted: a name with a tag, a name without a tag (all its tags), or a digest.
    /// Every image when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Reason why the finding is accepted, for people who read this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub reason: Option<String>,
}

/// State of the host as of the last runs. If it is lost, one verify run restores it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerHostStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready, Deploying, ImagesClean, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Results for each parameter on this host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["path".into()]))]
    pub parameters: Vec<HostParameter>,
    /// Run in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<HostRun>,
    /// Last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<HostRun>,
    /// Last deployment that ended; a later run that only verified does not replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_deploy: Option<HostRun>,
    /// Last search of the images that the containers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_audit: Option<ImageAudit>,
    /// Secrets in the images that the containers run, except those that `audit` allows. It never contains a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub image_findings: Vec<ImageFinding>,
    /// Log lines that the host collected for incidents, kept until the SecretIncidents have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub access_logs: Vec<HostAccessLog>,
    /// Hash of the endpoint and compose project that `parameters` describes. When either changes, all versions must be
    /// proven again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Earliest time of the next attempt after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
    /// Notifications that a sink of `notifications` in the chart's values has not accepted yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub pending_notifications: Vec<PendingNotification>,
}

/// Result for one parameter on this host. Once proven, it stays proven until a newer version is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostParameter {
    /// Path of the parameter.
    pub path: String,
    /// Version that was compared or deployed.
    pub version: i64,
    /// Time when this version's value was generated. It distinguishes the version from the same number of a parameter
    /// that was deleted and created again.
    pub published_at: Time,
    /// Result of comparing the containers with that version.
    pub proof: Proof,
    /// Time of the result.
    pub at: Time,
    /// True when a deployment of this version ended well here. It matters where nothing can be compared.
    #[serde(default)]
    pub deployed: bool,
}

/// Result of comparing the running containers with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Proof {
    /// Every container that has the variable runs the value, at least one container has it, and verify passed.
    Proven,
    /// At least one container runs another value.
    Differs,
    /// No container has the variable, so nothing can be compared.
    Incomparable,
}

/// Search of the images of the compose project's containers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageAudit {
    /// Time of the search.
    pub at: Time,
    /// Number of images that the containers ran.
    pub images: i32,
    /// Number of findings that `audit` allows.
    #[serde(default)]
    pub allowed: i32,
    /// Number of findings left out of `imageFindings` for lack of room. The total is this number plus the findings
    /// listed there.
    #[serde(default)]
    pub left_out: i32,
    /// Reason why some image could not be searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Hash of `audit` at the time of the search. When `audit` changes, the images are searched again at once.
    #[serde(default)]
    pub settings: String,
    /// Last search of the files in the layers, where `audit.layers` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersAudit>,
}

/// Search of the files in the images' layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayersAudit {
    /// Time of the search.
    pub at: Time,
    /// Number of files searched.
    #[serde(default)]
    pub files: i64,
    /// Reason why some files were not searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Secret found in an image. It never contains the secret's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageFinding {
    /// Image name with which the container was started.
    pub image: String,
    /// The image's ID, `sha256:…`.
    pub digest: String,
    /// Location in the image: `env DB_PASSWORD`, `label build-info`, `history layer 4 NPM_TOKEN`, `file app/.env`.
    pub place: String,
    /// Rule that the finding matched, see docs/image-audit.md.
    pub rule: String,
    /// Fingerprint that identifies the finding in `audit.allow`, 16 hexadecimal digits. It does not depend on the
    /// value.
    pub fingerprint: String,
    /// Parameter that publishes the value that was found, where keyturn manages it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

/// Run of a deploy Job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostRun {
    /// Hash of the `path=version` lines and the script.
    pub revision: String,
    /// Deploy, Verify (changes nothing) or Collect (collects log lines for an incident).
    pub mode: RunMode,
    /// Name of the Job.
    pub job: String,
    /// Number of this attempt for the revision, counted from 1.
    pub attempt: i32,
    /// Time when the Job was created.
    pub started_at: Time,
    /// Time when the Job ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// `Succeeded`, or the reason of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
    /// Outcome of the run, and what to do if something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec from which the Job was created.
    #[serde(default)]
    pub generation: i64,
    /// Consecutive failed runs of this mode, revision and generation, this one included; 0 after a success.
    #[serde(default)]
    pub failures: i32,
    /// Number of these failures that the host itself reported: by its deploy script, its verify script or what its
    /// containers run. The outcome of the other failures is unknown, so they cause no rollback.
    #[serde(default)]
    pub rejections: i32,
    /// Earliest time of another run of the same revision and generation after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Time>,
    /// Parameters of the run, as `path=version` lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(max = 1100)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub parameters: Vec<String>,
}

words! {
    /// Result of a run: `Succeeded`, or the reason of the failure.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    pub enum RunResult {
        /// The scripts succeeded and no container was seen to run another value, or the log lines were collected.
        Succeeded,
        /// No TCP connection or no SSH handshake in time.
        Unreachable,
        /// The connection broke, and the outcome of the deployment is not known.
        ConnectionLost,
        /// Another deployment holds the host's lock.
        Busy,
        /// No line of known_hosts matches the key that the host offered.
        HostKeyRefused,
        /// The host did not accept the client key.
        AuthenticationFailed,
        /// The task or a key in it cannot be used.
        BadInput,
        /// The host cannot run the work: no docker, no sudo, disk full.
        HostUnfit,
        /// The host's journal already has a newer version of some path.
        Outdated,
        /// The deploy script exited with a code other than 0.
        DeployFailed,
        /// The deploy script ran longer than its timeout.
        DeployTimedOut,
        /// The deploy script was killed, or the host went down while it ran; its result is not known.
        DeployInterrupted,
        /// The verify script failed or did not end within its timeout, or a container keeps restarting.
        VerifyFailed,
        /// At least one container runs a value other than the published one.
        NotAdopted,
        /// The log lines could not be collected.
        CollectFailed,
        // A report holds this result for as long as the run goes on, so that a pod which is killed leaves it. What another
        // version of keyturn writes, and this one does not know, is read as this result too.
        /// The pod ended without a report: evicted, out of memory, or past its deadline.
        #[serde(other)]
        Lost,
    }
}

/// Kind of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum RunMode {
    Deploy,
    Verify,
    Collect,
}
