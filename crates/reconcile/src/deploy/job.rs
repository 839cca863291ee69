//! The Kubernetes objects of one run: a Job whose pod runs `keyturn deploy-host`, and the Secret with its task.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, KeyToPath, LocalObjectReference, PodSecurityContext, PodSpec,
    PodTemplateSpec, ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use keyturn_api::DockerHost;
use keyturn_api::docker_host::{RunMode, RunResult, SecretKeyRef};
use keyturn_api::duration::Duration;
use keyturn_image_audit::managed::ManagedValues;
use keyturn_image_audit::{Allowances, AllowedFinding};
use kube::{Resource, ResourceExt};

use super::collection::Collection;
use super::plan::Run;
use super::report::exit_code;
use super::revision::{audit_settings, target};
use super::task::{
    Endpoint, JUMP_KEY_FILE, KEY_FILE, Layers, TASK_DIR, TASK_FILE, TERMINATION_LOG, Task, TaskAudit,
    TaskCollection, TaskParameter,
};
use super::wish::Wish;

/// Label with the name of the DockerHost, on Jobs, their pods and Secrets.
pub const HOST_LABEL: &str = "keyturn.dev/host";
/// Annotation with the mode of the run: `Deploy`, `Verify` or `Collect`.
pub const MODE: &str = "keyturn.dev/mode";
/// Annotation with the revision of the run, 16 hexadecimal digits.
pub const REVISION: &str = "keyturn.dev/revision";
/// Annotation with the number of this attempt of the revision, from 1.
pub const ATTEMPT: &str = "keyturn.dev/attempt";
/// Annotation with the generation of the DockerHost from which the Job was made.
pub const GENERATION: &str = "keyturn.dev/generation";
/// Annotation with the hash of the endpoint and compose project that the Job is for.
pub const TARGET: &str = "keyturn.dev/target";
/// Annotation with the hash of `spec.audit` of the DockerHost: the settings of the search for secrets in images.
pub const AUDIT: &str = "keyturn.dev/audit";
/// Annotation: `true` when the run reads the files of the images' layers, else `false`.
pub const LAYERS: &str = "keyturn.dev/layers";
/// Annotation with one line `<path>=<version>@<seconds since 1970>` for each parameter. The time is that of its value.
pub const PARAMETERS: &str = "keyturn.dev/parameters";
/// Annotation with the incident, secret and window that a collection is for, as JSON. Other runs do not have it.
pub const ABOUT: &str = "keyturn.dev/about";
/// Annotation that a Job gets when it has ended and the Secret with its task was deleted.
pub const TASK_DELETED: &str = "keyturn.dev/task-deleted";
/// Name of the container whose termination message is the report.
pub const CONTAINER: &str = "deploy-host";

const DEPLOY_TIMEOUT_SECONDS: u64 = 15 * 60;
const VERIFY_TIMEOUT_SECONDS: u64 = 2 * 60;
/// Part of a Job's deadline for scheduling, pulling the image, connecting, and reading the containers. The other parts
/// are twice the timeouts of the scripts, and the time of the image audit. When the deadline passes, Kubernetes deletes
/// the running pod, and its report may be lost. So the process must have given up long before.
const DEADLINE_SLACK_SECONDS: u64 = 10 * 60;
/// Number of retries of the pod, for failures that may pass within moments. The reconciler retries after longer
/// failures.
const MORE_PODS: i32 = 2;
/// Time in seconds for which an ended Job is kept, so that people can read its log. The status of the DockerHost has
/// the result long before.
const KEEP_SECONDS: i32 = 24 * 60 * 60;
/// User id `nonroot` of distroless images.
const USER: i64 = 65532;
/// File mode of the task and the SSH keys in the pod. The group may read them, since the kubelet makes root the owner
/// of the files and `fsGroup` their group.
const KEY_MODE: i32 = 0o440;
const MAX_NAME: usize = 63;

/// Settings of the controller that apply to every Job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobTemplate {
    /// keyturn's own image.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`; the cluster's default when `None`.
    pub image_pull_policy: Option<String>,
    /// Secrets, in the namespace of each DockerHost, with which the image is pulled.
    pub image_pull_secrets: Vec<String>,
    /// Environment variables of the pod, such as the log level.
    pub env: Vec<(String, String)>,
}

/// Builds the task of the pod. It holds fingerprints of the run's parameters, and fingerprints of the values that are
/// redacted from the output.
pub fn task(host: &DockerHost, run: &Run, parameters: Vec<TaskParameter>, managed: ManagedValues) -> Task {
    let (ssh, jump) = endpoints(host);
    let layers = match host.spec.audit.as_ref().is_some_and(|audit| audit.layers) {
        false => Layers::Ignore,
        true if run.layers => Layers::Look,
        true => Layers::Skip,
    };
    let (audit, collection) = match &run.collection {
        None => (Some(TaskAudit { allowances: allowances(host), layers }), None),
        Some(Collection { about, script, timeout_seconds }) => {
            let (about, script, timeout_seconds) = (about.clone(), script.clone(), *timeout_seconds);
            (None, Some(TaskCollection { about, script, timeout_seconds }))
        }
    };
    Task {
        mode: run.mode,
        revision: run.revision.clone(),
        attempt: run.attempt,
        ssh,
        jump,
        known_hosts: host.spec.ssh.known_hosts.clone(),
        sudo: host.spec.docker.sudo,
        docker_path: host.spec.docker.path.clone(),
        compose_project: host.spec.docker.compose_project.clone(),
        deploy_script: host.spec.deploy.script.clone(),
        deploy_timeout_seconds: seconds(host.spec.deploy.timeout.as_ref(), DEPLOY_TIMEOUT_SECONDS),
        verify_script: host.spec.verify.as_ref().map(|verify| verify.script.clone()),
        verify_timeout_seconds: seconds(
            host.spec.verify.as_ref().and_then(|verify| verify.timeout.as_ref()),
            VERIFY_TIMEOUT_SECONDS,
        ),
        parameters,
        managed,
        audit,
        collection,
    }
}

/// The findings and variables that the image audit of this host does not report.
fn allowances(host: &DockerHost) -> Allowances {
    let audit = host.spec.audit.clone().unwrap_or_default();
    let allowed = audit.allow.into_iter();
    Allowances {
        variables: audit.allow_env.into_iter().collect(),
        findings: allowed
            .map(|allowed| AllowedFinding { image: allowed.image, fingerprint: allowed.fingerprint })
            .collect(),
    }
}

/// The address of the host, and the address of its jump host if it has one.
pub fn endpoints(host: &DockerHost) -> (Endpoint, Option<Endpoint>) {
    let ssh = &host.spec.ssh;
    let port = |port: Option<i32>| port.and_then(|p| u16::try_from(p).ok()).unwrap_or(22);
    let jump = ssh.jump.as_ref().map(|jump| Endpoint {
        host: jump.host.clone(),
        port: port(jump.port),
        user: jump.user.clone(),
    });
    (Endpoint { host: ssh.host.clone(), port: ssh.port(), user: ssh.user.clone() }, jump)
}

/// The SSH keys: the key of the host, and the key of its jump host if it has one.
pub fn keys(host: &DockerHost) -> (&SecretKeyRef, Option<&SecretKeyRef>) {
    let ssh = &host.spec.ssh;
    let jump = ssh.jump.as_ref().map(|jump| jump.key_secret_ref.as_ref().unwrap_or(&ssh.key_secret_ref));
    (&ssh.key_secret_ref, jump)
}

fn seconds(duration: Option<&Duration>, default: u64) -> u64 {
    duration.and_then(Duration::to_delta).and_then(|d| u64::try_from(d.num_seconds()).ok()).unwrap_or(default)
}

/// Returns the name of the Job: a DNS label made of host, revision, mode and attempt. Two controllers that decide on
/// the same run use the same name, so only one Job is created. A host name that is too long is cut, and a hash of the
/// whole name is added.
pub fn job_name(host: &str, revision: &str, mode: RunMode, attempt: i32) -> String {
    let mode = match mode {
        RunMode::Deploy => 'd',
        RunMode::Verify => 'v',
        RunMode::Collect => 'c',
    };
    let tail = format!("-{revision}-{mode}{attempt}");
    format!("{}{tail}", label(host, MAX_NAME - tail.len()))
}

/// Returns the name itself if it is a DNS label of at most this length, otherwise its beginning and a hash of the whole
/// name.
fn label(name: &str, longest: usize) -> String {
    if name.len() <= longest && !name.contains('.') {
        return name.to_owned();
    }
    let hash = hex::encode(&digest(&SHA256, name.as_bytes()).as_ref()[..4]);
    let kept: String = name.replace('.', "-").chars().take(longest - hash.len() - 1).collect();
    format!("{}-{hash}", kept.trim_end_matches('-'))
}

/// Builds the Job of a task. The Job is suspended until the Secret with its task exists. If a Job is still suspended
/// later, its start was interrupted.
pub fn job(host: &DockerHost, run: &Run, task: &Task, template: &JobTemplate) -> Job {
    let name = job_name(&host.name_any(), &task.revision, task.mode, task.attempt);
    let labels = labels(host);
    let scripts = match task.mode {
        RunMode::Deploy => task.deploy_timeout_seconds + task.verify_timeout_seconds,
        RunMode::Verify => task.verify_timeout_seconds,
        RunMode::Collect => task.collection.as_ref().map_or(0, |collection| collection.timeout_seconds),
    };
    let deadline = 2 * scripts + task.audit_seconds() + DEADLINE_SLACK_SECONDS;
    Job {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: host.namespace(),
            labels: Some(labels.clone()),
            annotations: Some(annotations(host, run)),
            owner_references: Some(vec![controlled_by(host)]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            suspend: Some(true),
            parallelism: Some(1),
            completions: Some(1),
            backoff_limit: Some(MORE_PODS),
            active_deadline_seconds: i64::try_from(deadline).ok(),
            ttl_seconds_after_finished: Some(KEEP_SECONDS),
            pod_failure_policy: Some(pod_failure_policy()),
            template: PodTemplateSpec {
                metadata: Some(without_sidecars(labels)),
                spec: Some(pod(host, &task_secret_name(&name, task), template)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// Builds the Secret that the pod of this Job mounts. It is immutable. keyturn deletes it when the Job is over; otherwise
/// Kubernetes deletes it together with the Job.
pub fn task_secret(job: &Job, task: &Task) -> Secret {
    let json = serde_json::to_vec(task).expect("a task has string keys only");
    Secret {
        metadata: ObjectMeta {
            name: Some(task_secret_name(&job.name_any(), task)),
            namespace: job.metadata.namespace.clone(),
            labels: job.metadata.labels.clone(),
            owner_references: job.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(TASK_KEY.to_owned(), ByteString(json))])),
        ..Secret::default()
    }
}

/// The name of the Secret that the pod of this Job mounts its task from.
pub fn task_secret_of(job: &Job) -> Option<&str> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    let task = pod.volumes.iter().flatten().find(|volume| volume.name == TASK_VOLUME)?;
    task.secret.as_ref()?.secret_name.as_deref()
}

/// Returns the name of the Secret with the task. It contains a hash of the task, and the fingerprint keys in a task are
/// new every time. So a Secret that an interrupted start left behind never has the same name, and does not have to be
/// checked.
fn task_secret_name(job: &str, task: &Task) -> String {
    let json = serde_json::to_vec(task).expect("a task has string keys only");
    format!("{job}-{}", hex::encode(&digest(&SHA256, &json).as_ref()[..4]))
}

const TASK_KEY: &str = "task.json";
const TASK_VOLUME: &str = "task";

/// Returns the value of [`HOST_LABEL`] for a host.
pub fn label_of(host: &DockerHost) -> String {
    let name = host.name_any();
    if name.len() <= MAX_NAME { name } else { label(&name, MAX_NAME) }
}

/// Adds the labels and annotations that keep service meshes from injecting a sidecar. A sidecar would not end with the
/// run, and the run has no use for it.
fn without_sidecars(mut labels: BTreeMap<String, String>) -> ObjectMeta {
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let annotations = pairs(&[
        ("sidecar.istio.io/inject", "false"),
        ("linkerd.io/inject", "disabled"),
        ("consul.hashicorp.com/connect-inject", "false"),
    ]);
    labels.extend(pairs(&[("sidecar.istio.io/inject", "false"), ("kuma.io/sidecar-injection", "disabled")]));
    ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

fn labels(host: &DockerHost) -> BTreeMap<String, String> {
    let host_label = label_of(host);
    [
        ("app.kubernetes.io/name", "keyturn"),
        ("app.kubernetes.io/component", "deploy-host"),
        ("app.kubernetes.io/managed-by", "keyturn"),
        (HOST_LABEL, &host_label),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn annotations(host: &DockerHost, run: &Run) -> BTreeMap<String, String> {
    let line = |wish: &Wish| format!("{}@{}", wish.line(), wish.published_at.timestamp());
    let lines: Vec<String> = run.parameters.iter().map(line).collect();
    let about = run.collection.as_ref().and_then(|collection| serde_json::to_string(&collection.about).ok());
    let mut annotations: BTreeMap<String, String> = [
        (MODE, format!("{:?}", run.mode)),
        (REVISION, run.revision.clone()),
        (ATTEMPT, run.attempt.to_string()),
        (GENERATION, host.metadata.generation.unwrap_or_default().to_string()),
        (TARGET, target(&host.spec)),
        (AUDIT, audit_settings(&host.spec)),
        (LAYERS, run.layers.to_string()),
        (PARAMETERS, lines.join("\n")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    annotations.extend(about.map(|about| (ABOUT.to_owned(), about)));
    annotations
}

/// Returns the reference that makes the DockerHost the owner of an object. Kubernetes deletes the object when its owner
/// is deleted. The reference does not set `blockOwnerDeletion`, which needs a further permission in clusters that check
/// owner references.
fn controlled_by(host: &DockerHost) -> OwnerReference {
    OwnerReference {
        api_version: DockerHost::api_version(&()).into_owned(),
        kind: DockerHost::kind(&()).into_owned(),
        name: host.name_any(),
        uid: host.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// True when this DockerHost controls the Job, and not another DockerHost with the same name.
pub fn is_controlled_by(job: &Job, host: &DockerHost) -> bool {
    let owners = job.metadata.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.controller == Some(true))
        .any(|owner| owner.kind == DockerHost::kind(&()) && Some(&owner.uid) == host.metadata.uid.as_ref())
}

/// The Job's rules for a failed pod. A failure that another pod cannot fix ends the Job. After a failure that may pass
/// within moments, Kubernetes starts another pod. An eviction does not count as a failure.
fn pod_failure_policy() -> PodFailurePolicy {
    let finals = RunResult::ALL.iter().filter(|result| ends_the_job(**result));
    let mut final_codes: Vec<i32> = finals.map(|result| exit_code(*result)).collect();
    // The API server accepts exit codes in ascending order only.
    final_codes.sort_unstable();
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: final_codes,
                }),
                on_pod_conditions: None,
            },
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_exit_codes: None,
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: "True".to_owned(),
                }]),
            },
        ],
    }
}

fn ends_the_job(result: RunResult) -> bool {
    match result {
        // The process died, the network failed, or another deployment is running: another pod joins the running
        // deployment, or starts one.
        RunResult::Lost | RunResult::Unreachable | RunResult::ConnectionLost | RunResult::Busy => false,
        RunResult::Succeeded => false,
        // A person has to act, or the reconciler has to decide on another attempt.
        RunResult::HostKeyRefused
        | RunResult::AuthenticationFailed
        | RunResult::BadInput
        | RunResult::HostUnfit
        | RunResult::Outdated
        | RunResult::DeployFailed
        | RunResult::DeployTimedOut
        | RunResult::DeployInterrupted
        | RunResult::VerifyFailed
        | RunResult::NotAdopted
        | RunResult::CollectFailed => true,
    }
}

fn pod(host: &DockerHost, task_secret: &str, template: &JobTemplate) -> PodSpec {
    let (key, jump_key) = keys(host);
    let mut mounts = vec![mounted(TASK_VOLUME, TASK_DIR), mounted("ssh-key", folder(KEY_FILE))];
    let mut volumes = vec![
        secret_volume(TASK_VOLUME, task_secret, TASK_KEY, file(TASK_FILE)),
        key_volume("ssh-key", key, KEY_FILE),
    ];
    if let Some(key) = jump_key {
        mounts.push(mounted("jump-key", folder(JUMP_KEY_FILE)));
        volumes.push(key_volume("jump-key", key, JUMP_KEY_FILE));
    }
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: (!template.image_pull_secrets.is_empty()).then(|| {
            template
                .image_pull_secrets
                .iter()
                .map(|name| LocalObjectReference { name: name.clone() })
                .collect()
        }),
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(template.image.clone()),
            image_pull_policy: template.image_pull_policy.clone(),
            args: Some(vec!["deploy-host".to_owned()]),
            env: Some(
                template
                    .env
                    .iter()
                    .map(|(name, value)| EnvVar {
                        name: name.clone(),
                        value: Some(value.clone()),
                        value_from: None,
                    })
                    .collect(),
            ),
            // Never FallbackToLogsOnError: the log holds the output of the scripts, and many people may read pods.
            termination_message_policy: Some("File".to_owned()),
            termination_message_path: Some(TERMINATION_LOG.to_owned()),
            volume_mounts: Some(mounts),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                run_as_non_root: Some(true),
                capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
                ..SecurityContext::default()
            }),
            resources: Some(ResourceRequirements {
                requests: Some(quantities(&[("cpu", "10m"), ("memory", "16Mi")])),
                limits: Some(quantities(&[("memory", "64Mi")])),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        }],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn quantities(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(folder, _)| folder)
}

fn file(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, file)| file)
}

fn mounted(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn key_volume(name: &str, key: &SecretKeyRef, path: &str) -> Volume {
    secret_volume(name, &key.name, &key.key, file(path))
}

/// Mounts one item of a Secret as one file; its other items stay out of the pod.
fn secret_volume(name: &str, secret: &str, key: &str, file: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(KEY_MODE),
            items: Some(vec![KeyToPath { key: key.to_owned(), path: file.to_owned(), mode: Some(KEY_MODE) }]),
            optional: None,
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
