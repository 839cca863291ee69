//! Implements the port [`DeployJobs`] with a kube client.
//!
//! A start is three writes, and the process may die after each of them: the Job, suspended; the Secret with its task,
//! owned by the Job; the Job's release. Nothing runs before the release. A controller that finds a suspended Job
//! deletes it, and its Secret with it, and starts again.
//!
//! When the Job is over, the Secret is deleted first and the Job is annotated second, so that a crash in between is
//! safe.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use keyturn_reconcile::deploy_jobs::{DeployJob, DeployJobs};
use keyturn_reconcile::objects::ObjectError;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::job_state::{NotSaid, deploy_job, holds_task, is_active, is_suspended, pod_trouble};
use super::lease::Leadership;
use super::objects::call;
use crate::api::DockerHost;
use crate::api::time::from_kubernetes;
use crate::deploy::job::{
    HOST_LABEL, JobTemplate, TASK_DELETED, is_controlled_by, job, label_of, task_secret, task_secret_of,
};
use crate::deploy::plan::Run;
use crate::deploy::task::Task;

/// Time after which a pod that has not started counts as slow; its Events are then read for the reason.
const SLOW: TimeDelta = TimeDelta::seconds(5);
/// Number of attempts to create a new object in place of one that is being deleted.
const REPLACEMENTS: usize = 10;
const REPLACEMENT_PAUSE: Duration = Duration::from_millis(200);

/// The adapter. It refuses writes once this replica no longer leads.
pub struct KubeDeployJobs {
    client: Client,
    leadership: Leadership,
    template: JobTemplate,
}

impl KubeDeployJobs {
    /// Creates the adapter. `template` has the part that all Jobs have in common.
    pub fn new(client: Client, leadership: Leadership, template: JobTemplate) -> Self {
        Self { client, leadership, template }
    }

    fn api<K>(&self, host: &DockerHost) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &host.namespace().unwrap_or_default())
    }

    fn must_lead(&self, object: &str) -> Result<(), ObjectError> {
        if self.leadership.is_leader() {
            return Ok(());
        }
        Err(ObjectError::Api {
            object: object.to_owned(),
            detail: "not written, since this replica does not lead any more".to_owned(),
        })
    }

    /// Creates the suspended Job, replacing a Job whose start was interrupted. `None` if a Job of ours already runs or
    /// has run.
    async fn create_job(&self, host: &DockerHost, new: &Job) -> Result<Option<Job>, ObjectError> {
        let name = new.name_any();
        let what = || format!("Job {name}");
        let jobs = self.api::<Job>(host);
        for _ in 0..REPLACEMENTS {
            self.must_lead(&what())?;
            match call(what, jobs.create(&PostParams::default(), new)).await {
                Ok(created) => return Ok(Some(created)),
                Err(ObjectError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
            let Some(existing) = call(what, jobs.get_opt(&name)).await? else { continue };
            if !is_controlled_by(&existing, host) {
                return Err(ObjectError::Api {
                    object: what(),
                    detail: "a Job of that name exists and does not belong to the DockerHost: delete it"
                        .to_owned(),
                });
            }
            if !is_suspended(&existing) {
                return Ok(None);
            }
            if existing.metadata.deletion_timestamp.is_none() {
                let this_one = Preconditions { uid: existing.uid(), resource_version: None };
                let deletion = DeleteParams::background().preconditions(this_one);
                ignore_gone(call(what, jobs.delete(&name, &deletion)).await.map(drop))?;
            }
            tokio::time::sleep(REPLACEMENT_PAUSE).await;
        }
        Err(ObjectError::Conflict(what()))
    }

    async fn create_secret(&self, host: &DockerHost, new: &Secret) -> Result<(), ObjectError> {
        let what = || format!("Secret {}", new.name_any());
        self.must_lead(&what())?;
        call(what, self.api::<Secret>(host).create(&PostParams::default(), new)).await.map(drop)
    }

    /// Deletes the Secret of this name only if this Job owns it. A Job can name any Secret, so otherwise everybody who
    /// can create Jobs could make keyturn delete any Secret.
    async fn delete_secret(&self, host: &DockerHost, name: &str, job: &Job) -> Result<(), ObjectError> {
        let what = || format!("Secret {name}");
        let secrets = self.api::<Secret>(host);
        let Some(secret) = call(what, secrets.get_metadata_opt(name)).await? else { return Ok(()) };
        let owners = secret.metadata.owner_references.iter().flatten();
        if !owners.into_iter().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref()) {
            return Ok(());
        }
        self.must_lead(&what())?;
        let this_one = Preconditions { uid: secret.metadata.uid, resource_version: None };
        let deletion = DeleteParams::default().preconditions(this_one);
        ignore_gone(call(what, secrets.delete(name, &deletion)).await.map(drop))
    }

    fn is_of_this_image(&self, job: &Job) -> bool {
        let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        pod.is_some_and(|pod| pod.containers.iter().all(|c| c.image.as_ref() == Some(&self.template.image)))
    }

    async fn release(&self, host: &DockerHost, job: &Job) -> Result<(), ObjectError> {
        let name = job.name_any();
        let what = || format!("Job {name}");
        self.must_lead(&what())?;
        // With the UID, the API server refuses the patch for another Job of the same name.
        let patch = json!({"metadata": {"uid": job.uid()}, "spec": {"suspend": false}});
        let jobs = self.api::<Job>(host);
        call(what, jobs.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await.map(drop)
    }

    /// Returns the reason why an active Job has no running pod, if it is known.
    async fn trouble(&self, host: &DockerHost, job: &Job, pods: &[&Pod]) -> Option<String> {
        let is_slow = |of: &kube::api::ObjectMeta| {
            of.creation_timestamp.as_ref().is_some_and(|at| Utc::now() - from_kubernetes(at) > SLOW)
        };
        let Some(pod) = pods.last() else {
            if !is_slow(&job.metadata) || job.status.as_ref().is_some_and(|s| s.failed.unwrap_or(0) > 0) {
                return None;
            }
            let told = self.warning(host, job.uid()).await;
            let told = told.map(|text| without_pod_names(&text, &job.name_any()));
            return Some(told.unwrap_or_else(|| {
                format!("no pod was created for it; `kubectl describe job {}` may say why", job.name_any())
            }));
        };
        match pod_trouble(pod) {
            Ok(trouble) => trouble,
            Err(NotSaid) if is_slow(&pod.metadata) => self.warning(host, pod.uid()).await,
            Err(NotSaid) => None,
        }
    }

    /// Returns the newest Warning about an object. Events are best effort: if they cannot be read, the answer is
    /// `None`.
    async fn warning(&self, host: &DockerHost, uid: Option<String>) -> Option<String> {
        let selector = format!("involvedObject.uid={},type=Warning", uid?);
        let events = self.api::<Event>(host);
        let what = || "Events".to_owned();
        let found = call(what, events.list(&ListParams::default().fields(&selector).limit(50))).await;
        let found = found.inspect_err(|error| tracing::debug!(%error, "cannot read Events")).ok()?;
        let seen = |event: &Event| {
            event.last_timestamp.as_ref().map(|t| t.0).or(event.event_time.as_ref().map(|t| t.0))
        };
        let newest = found.items.into_iter().max_by_key(seen)?;
        let reason = newest.reason.unwrap_or_default();
        Some(format!("{reason}: {}", newest.message.unwrap_or_default().trim()))
    }
}

#[async_trait]
impl DeployJobs for KubeDeployJobs {
    async fn of_host(&self, host: &DockerHost) -> Result<Vec<DeployJob>, ObjectError> {
        let namespace = host.namespace().unwrap_or_default();
        let of_host = ListParams::default().labels(&format!("{HOST_LABEL}={}", label_of(host)));
        let list = call(|| format!("Jobs in {namespace}"), self.api::<Job>(host).list(&of_host)).await?;
        let mut jobs: Vec<Job> = list.items.into_iter().filter(|job| is_controlled_by(job, host)).collect();
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let list = call(|| format!("Pods in {namespace}"), self.api::<Pod>(host).list(&of_host)).await?;
        let mut pods = list.items;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|at| at.0));
        jobs.sort_by_key(|job| (job.metadata.creation_timestamp.as_ref().map(|at| at.0), job.name_any()));
        let mut found = Vec::with_capacity(jobs.len());
        for job in &jobs {
            let own: Vec<&Pod> = pods.iter().filter(|pod| is_of(pod, job)).collect();
            let trouble = if is_active(job) { self.trouble(host, job, &own).await } else { None };
            let is_stuck = trouble.is_some();
            let mut seen = deploy_job(job, &own, trouble);
            if let Some(seen) = seen.as_mut().filter(|_| is_stuck && !self.is_of_this_image(job)) {
                // If somebody corrects the image in the chart, the next run must not wait for this Job's deadline: with
                // generation 0 the Job counts as created from an older spec, and is replaced.
                seen.generation = 0;
            }
            found.extend(seen);
        }
        Ok(found)
    }

    async fn start(&self, host: &DockerHost, run: &Run, task: &Task) -> Result<String, ObjectError> {
        let new = job(host, run, task, &self.template);
        let name = new.name_any();
        if let Some(created) = self.create_job(host, &new).await? {
            self.create_secret(host, &task_secret(&created, task)).await?;
            self.release(host, &created).await?;
        }
        Ok(name)
    }

    async fn delete_task(&self, host: &DockerHost, job: &str) -> Result<(), ObjectError> {
        let what = || format!("Job {job}");
        let jobs = self.api::<Job>(host);
        let Some(existing) = call(what, jobs.get_opt(job)).await? else { return Ok(()) };
        // Somebody may have created another Job of this name.
        if !is_controlled_by(&existing, host) || !holds_task(&existing) {
            return Ok(());
        }
        if let Some(secret) = task_secret_of(&existing) {
            self.delete_secret(host, secret, &existing).await?;
        }
        // The annotation is written last. If keyturn stops before that, the next controller repeats the deletion of the
        // Secret.
        self.must_lead(&what())?;
        let patch = json!({"metadata": {"uid": existing.uid(), "annotations": {TASK_DELETED: "true"}}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        ignore_gone(call(what, jobs.patch(job, &params, &patch)).await.map(drop))
    }

    async fn delete(&self, host: &DockerHost, job: &str) -> Result<(), ObjectError> {
        let what = || format!("Job {job}");
        self.must_lead(&what())?;
        // Foreground deletion keeps the Job listed until its pods are gone, so that no other Job starts beside them.
        let jobs = self.api::<Job>(host);
        ignore_gone(call(what, jobs.delete(job, &DeleteParams::foreground())).await.map(drop))
    }
}

fn is_of(pod: &Pod, job: &Job) -> bool {
    let mut owners = pod.owner_references().iter();
    owners.any(|owner| owner.controller == Some(true) && Some(&owner.uid) == job.metadata.uid.as_ref())
}

/// Removes pod names: each attempt to create a pod has another name, and the same refusal has to give the same text.
fn without_pod_names(text: &str, job: &str) -> String {
    let quoted = format!("\"{job}-");
    let Some((before, rest)) = text.split_once(&quoted) else { return text.to_owned() };
    let after = rest.split_once('"').map_or("", |(_, after)| after);
    format!("{before}\"{job}-…\"{after}")
}

fn ignore_gone(answer: Result<(), ObjectError>) -> Result<(), ObjectError> {
    match answer {
        Err(ObjectError::Gone(_)) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_two_pods_are_the_same_text() {
        let text = |pod: &str| format!("FailedCreate: pods \"{pod}\" is forbidden: exceeded quota");
        let expected = text("web-d1-…");
        for pod in ["web-d1-6x6hc", "web-d1-l62hk"] {
            assert_eq!(without_pod_names(&text(pod), "web-d1"), expected);
        }
        assert_eq!(without_pod_names("no such image", "web-d1"), "no such image");
    }
}
