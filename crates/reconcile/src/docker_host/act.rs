//! Acts on a host: asks the plan for the next step, starts a run or deletes a Job to make room for another, and deletes
//! the Jobs that are not needed any more.

mod scrubbing;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Utc};
use keyturn_api::conditions::{READY, find as find_condition};
use keyturn_api::consent::{self, Purpose};
use keyturn_api::docker_host::{DockerHostStatus, HostRun, RunMode};
use keyturn_api::grants::{self, Grants, Verdict};
use keyturn_api::{DockerHost, ManagedSecret, Reason, Trouble};
use keyturn_image_audit::managed::{ManagedValues, Unsearched};
use kube::ResourceExt;

use super::DockerHosts;
use super::status::StartFailure;
use crate::deploy::fingerprint::{KEY_BYTES, fingerprint};
use crate::deploy::job;
use crate::deploy::plan::{self, Decision, Input, Run};
use crate::deploy::task::TaskParameter;
use crate::deploy::wish::{self, Wish};
use crate::deploy_jobs::{DeployJob, JobState};
use crate::objects::{ObjectError, Source};
use crate::parameter_store::{ParameterStore, StoreError};
use crate::source::RandomError;

/// Maximum number of values that images are searched for. With the fingerprints of more values, the Secret with the
/// task would be too large.
const MOST_SEARCHED: usize = 512;
/// Number of ended Jobs of each mode that are kept, for their logs and to recover lost results.
const KEPT_JOBS: usize = 3;

/// The reason why the task of a run could not be made.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error(
        "version {version} of {path} is not in SSM: it was deleted, or SSM reads do not show it yet (eventual \
         consistency); retrying"
    )]
    VersionMissing { path: String, version: i64 },
}

impl From<TaskError> for StartFailure {
    fn from(error: TaskError) -> Self {
        let passing = |reason| Trouble::passing(reason, error.to_string());
        let (trouble, unreadable) = match &error {
            TaskError::Store(store) if store.needs_a_person() => (store.trouble(), Some(store.path())),
            TaskError::Store(store) => (store.trouble(), None),
            TaskError::Random(_) => (passing(Reason::NoRandomness), None),
            TaskError::VersionMissing { path, .. } => (passing(Reason::VersionMissing), Some(path.as_str())),
        };
        // The path of a store error may end in `:` and a version.
        let unreadable = unreadable.map(|path| path.split(':').next().unwrap_or(path).to_owned());
        Self { trouble, unreadable }
    }
}

/// The outcome of acting on a decision.
pub(super) enum Acted {
    /// Nothing had to be done, or it was done.
    Done,
    Started(HostRun),
    Failed(StartFailure),
    /// A collection could not be started, for a reason that is not a fault of the host.
    Postponed,
    /// The host, a grant, a role or the leadership changed in the meantime: decide again.
    Overtaken,
}

impl DockerHosts {
    /// Decides and acts. If a parameter could not be read in two consecutive passes, it is left out and the decision
    /// is made again, so that the other parameters do not wait for it. The status reports the parameter.
    pub(super) async fn decide_and_act(
        &self,
        input: &Input<'_>,
        secrets: &[ManagedSecret],
        before: &DockerHostStatus,
    ) -> Result<(Decision, Acted, Option<StartFailure>), ObjectError> {
        let mut readable = input.wishes.to_vec();
        let mut left_out: Option<StartFailure> = None;
        loop {
            let decision = plan::decide(&Input { wishes: &readable, ..input.clone() });
            let failure = match self.act(input.host, &decision, &readable, secrets, input.now).await? {
                Acted::Failed(failure) => failure,
                acted => {
                    let left_out = left_out.map(StartFailure::beside_others);
                    return Ok((decision, acted, left_out));
                }
            };
            let others = readable.iter().filter(|wish| Some(&wish.path) != failure.unreadable.as_ref());
            let others: Vec<Wish> = others.cloned().collect();
            let goes_on = !others.is_empty() && others.len() < readable.len() && is_known(&failure, before);
            left_out = Some(failure.after(left_out));
            if !goes_on {
                return Ok((decision, Acted::Done, left_out));
            }
            readable = others;
        }
    }

    async fn act(
        &self,
        host: &DockerHost,
        decision: &Decision,
        wishes: &[Wish],
        secrets: &[ManagedSecret],
        now: DateTime<Utc>,
    ) -> Result<Acted, ObjectError> {
        match decision {
            Decision::Settled | Decision::Watch | Decision::Hold { .. } => Ok(Acted::Done),
            Decision::Abandon { job } => {
                tracing::info!(
                    host = host.name_any(),
                    job,
                    "deleting a Job to make room for another: its pod does not start, or it only collects log lines"
                );
                if self.ports.leadership.is_leader() {
                    self.ports.jobs.delete(host, job).await?;
                }
                Ok(Acted::Done)
            }
            Decision::Start(run) => {
                if let Some(refused) = self.refused_key(host).await? {
                    return Ok(Acted::Failed(refused));
                }
                match self.start(host, run, wishes, secrets, now).await? {
                    Acted::Failed(failure) if run.mode == RunMode::Collect => {
                        let (host, message) = (host.name_any(), failure.trouble.message);
                        tracing::warn!(host, message, "a {} could not be started", plan::describe(run));
                        Ok(Acted::Postponed)
                    }
                    acted => Ok(acted),
                }
            }
        }
    }

    /// Returns the reason why an SSH key may not be used for this host. The kubelet mounts every Secret that a Job
    /// names, without a check, so keyturn checks before it creates a Job. It checks before it reads any value, since a
    /// refusal may last long.
    async fn refused_key(&self, host: &DockerHost) -> Result<Option<StartFailure>, ObjectError> {
        let namespace = host.namespace().unwrap_or_default();
        let (key, jump_key) = job::keys(host);
        let names: BTreeSet<&str> =
            [Some(key), jump_key].into_iter().flatten().map(|key| key.name.as_str()).collect();
        for name in names {
            let labels = self.ports.objects.secret_labels(&namespace, name).await?;
            if let Err(refusal) = consent::check(&namespace, name, labels.as_ref(), Purpose::SSH) {
                return Ok(Some(refusal.trouble().into()));
            }
        }
        Ok(None)
    }

    /// Starts a run. The host, the grants and the leadership are read again at the last moment, since reading the
    /// values may have taken a while.
    async fn start(
        &self,
        host: &DockerHost,
        run: &Run,
        wishes: &[Wish],
        secrets: &[ManagedSecret],
        now: DateTime<Utc>,
    ) -> Result<Acted, ObjectError> {
        let fingerprints = match &run.collection {
            Some(collection) => {
                self.secret_in_logs(collection, wishes, secrets).await.map(|managed| (Vec::new(), managed))
            }
            None => self.fingerprints(run, secrets).await,
        };
        let task = match fingerprints {
            Ok((parameters, managed)) => job::task(host, run, parameters, managed),
            Err(error) => return Ok(Acted::Failed(error.into())),
        };
        let objects = &self.ports.objects;
        let namespace = host.namespace().unwrap_or_default();
        let fresh = objects.docker_host(&namespace, &host.name_any()).await?;
        let unchanged = fresh.is_some_and(|fresh| {
            fresh.metadata.uid == host.metadata.uid
                && fresh.metadata.generation == host.metadata.generation
                && fresh.metadata.deletion_timestamp.is_none()
        });
        if !unchanged {
            return Ok(Acted::Overtaken);
        }
        let may_be_held = run.mode == RunMode::Deploy && !plan::is_urgent(run);
        if may_be_held && self.changes_in_place(&namespace, run, now).await? {
            return Ok(Acted::Overtaken);
        }
        let grants = objects.grants(Source::ApiServer).await?;
        if !self.is_still_granted(&grants, host, run, wishes, secrets) {
            return Ok(Acted::Overtaken);
        }
        if !self.ports.leadership.is_leader() {
            return Ok(Acted::Overtaken);
        }
        tracing::info!(host = host.name_any(), namespace, "starting {}", plan::describe(run));
        match self.ports.jobs.start(host, run, &task).await {
            Ok(name) => Ok(Acted::Started(started(host, run, &name, now))),
            Err(ObjectError::Forbidden(right)) => Ok(Acted::Failed(self.missing_right(&right))),
            Err(ObjectError::Api { object, detail }) => {
                let message = format!("{object} could not be created: {detail}; retrying");
                Ok(Acted::Failed(Trouble::passing(Reason::JobNotCreated, message).into()))
            }
            Err(error) => Err(error),
        }
    }

    /// True when the grants still allow the run on the host and every secret that the run is about. For a collection
    /// these include all secrets of the host, since log lines are searched for all of their values.
    fn is_still_granted(
        &self,
        grants: &Grants,
        host: &DockerHost,
        run: &Run,
        wishes: &[Wish],
        secrets: &[ManagedSecret],
    ) -> bool {
        let collected = run.collection.as_ref();
        let searched_for = collected.map_or(&[][..], |_| wishes);
        let about = collected.map(|collection| collection.about.secret.as_str());
        let named = run.parameters.iter().chain(searched_for).map(|wish| wish.secret.as_str());
        let verdict = grants::docker_host(grants, host);
        let is_granted = |name: &str| {
            let secret = secrets.iter().find(|secret| secret.name_any() == name);
            secret.is_some_and(|secret| self.takes_part(grants, secret, &verdict))
        };
        verdict == Verdict::Rotate && named.chain(about).all(is_granted)
    }

    /// True when a secret of the run has begun to change its role in place since the secrets were listed.
    async fn changes_in_place(
        &self,
        namespace: &str,
        run: &Run,
        now: DateTime<Utc>,
    ) -> Result<bool, ObjectError> {
        let names: BTreeSet<&str> =
            run.parameters.iter().filter(|wish| wish.in_place).map(|wish| wish.secret.as_str()).collect();
        for name in names {
            let fresh = self.ports.objects.managed_secret(namespace, name, Source::ApiServer).await?;
            if fresh.and_then(|secret| wish::holds_until(&secret)).is_some_and(|until| now < until) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the Parameter Store of the region that holds the parameter of a wish.
    fn store_of(&self, wish: &Wish) -> Arc<dyn ParameterStore> {
        self.ports.regions.store(wish.region.as_deref().unwrap_or(&self.settings.region))
    }

    /// Reads every value of the run and returns only fingerprints. For each value, one fingerprint is compared with
    /// the variables of the containers. Others serve to find the value in images, and to redact it from the output of
    /// the scripts.
    async fn fingerprints(
        &self,
        run: &Run,
        secrets: &[ManagedSecret],
    ) -> Result<(Vec<TaskParameter>, ManagedValues), TaskError> {
        let mut parameters = Vec::with_capacity(run.parameters.len());
        let mut values = Vec::new();
        let mut hidden = Vec::new();
        for wish in &run.parameters {
            let missing = || TaskError::VersionMissing { path: wish.path.clone(), version: wish.version };
            let store = self.store_of(wish);
            let value = store.read(&wish.path, Some(wish.version)).await?.ok_or_else(missing)?;
            let fingerprint = fingerprint(&value, &self.key()?);
            parameters.push(TaskParameter {
                path: wish.path.clone(),
                version: wish.version,
                published_at: wish.published_at.timestamp(),
                env: wish.env.clone(),
                key: fingerprint.key,
                mac: fingerprint.mac,
                trimmed_mac: fingerprint.trimmed_mac,
            });
            hidden.extend(scrubbing::within(secrets, wish, &value).map(|within| (wish.path.clone(), within)));
            values.push((wish.path.clone(), value));
        }
        let left_out = values.len().saturating_sub(MOST_SEARCHED);
        values.truncate(MOST_SEARCHED);
        hidden.truncate(MOST_SEARCHED);
        let managed = ManagedValues::new(&values, &self.key()?).hiding(&hidden);
        let managed = if left_out > 0 { managed.without(Unsearched::TooMany) } else { managed };
        Ok((parameters, self.without_admin_secrets(managed, &run.parameters, secrets).await))
    }

    fn key(&self) -> Result<[u8; KEY_BYTES], RandomError> {
        let mut key = [0; KEY_BYTES];
        self.ports.random.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut key)?;
        Ok(key)
    }

    /// Deletes the Jobs of interrupted starts, and all ended Jobs except the last few of each mode. Of the ended Jobs
    /// that are kept, deletes the tasks. The status already contains the results of all ended Jobs. Returns false if a
    /// task could not be deleted.
    pub(super) async fn tidy(&self, host: &DockerHost, jobs: &[DeployJob]) -> Result<bool, ObjectError> {
        let current = host.status.as_ref().and_then(|status| status.run.as_ref()).map(|run| run.job.as_str());
        let superfluous = superfluous(jobs);
        for name in superfluous.iter().filter(|name| Some(**name) != current) {
            if self.ports.leadership.is_leader() {
                self.ports.jobs.delete(host, name).await?;
            }
        }
        let mut is_tidy = true;
        let kept = jobs.iter().filter(|job| !superfluous.contains(job.name.as_str()));
        for job in kept.filter(|job| job.holds_task) {
            if self.ports.leadership.is_leader()
                && let Err(error) = self.ports.jobs.delete_task(host, &job.name).await
            {
                // The deletion failed, for example because the role may not delete Secrets. Nothing else on the host
                // depends on it.
                tracing::warn!(
                    host = host.name_any(),
                    %error,
                    "the task of Job {} could not be deleted; retrying",
                    job.name
                );
                is_tidy = false;
            }
        }
        Ok(is_tidy)
    }
}

/// True when the last pass could not read the parameter either, as the condition Ready shows. A single failure may be a
/// stale read of SSM.
fn is_known(failure: &StartFailure, before: &DockerHostStatus) -> bool {
    let ready = find_condition(&before.conditions, READY);
    let told = ready.filter(|ready| ready.status == "False").map_or("", |ready| ready.message.as_str());
    failure.unreadable.as_ref().is_some_and(|path| told.contains(path.as_str()))
}

fn superfluous(jobs: &[DeployJob]) -> BTreeSet<&str> {
    let mut names: BTreeSet<&str> =
        jobs.iter().filter(|job| job.state == JobState::Unstarted).map(|job| job.name.as_str()).collect();
    for mode in [RunMode::Deploy, RunMode::Verify, RunMode::Collect] {
        let ended = jobs.iter().rev().filter(|job| {
            job.mode == mode && matches!(job.state, JobState::Ended { .. } | JobState::Lost { .. })
        });
        names.extend(ended.skip(KEPT_JOBS).map(|job| job.name.as_str()));
    }
    names
}

fn started(host: &DockerHost, run: &Run, job: &str, now: DateTime<Utc>) -> HostRun {
    HostRun {
        revision: run.revision.clone(),
        mode: run.mode,
        job: job.to_owned(),
        attempt: run.attempt,
        started_at: keyturn_api::time::to_kubernetes(now),
        finished_at: None,
        result: None,
        message: None,
        generation: host.metadata.generation.unwrap_or_default(),
        failures: 0,
        rejections: 0,
        retry_after: None,
        parameters: run.parameters.iter().map(Wish::line).collect(),
    }
}
