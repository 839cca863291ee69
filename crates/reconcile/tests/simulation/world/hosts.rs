//! Docker hosts and the Jobs that deploy to them: the script fetches the published values and recreates the containers,
//! and the pod compares what they run with the fingerprints of its task.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use chrono::TimeDelta;
use keyturn_api::DockerHost;
use keyturn_api::docker_host::RunResult;
use keyturn_api::docker_host::{Proof, RunMode};
use keyturn_reconcile::deploy::fingerprint::{KEY_BYTES, fingerprint};
use keyturn_reconcile::deploy::job::job_name;
use keyturn_reconcile::deploy::plan::Run;
use keyturn_reconcile::deploy::report::{DeployKind, Report, ReportParameter};
use keyturn_reconcile::deploy::revision::target;
use keyturn_reconcile::deploy::task::{Task, TaskParameter};
use keyturn_reconcile::deploy_jobs::{DeployJob, DeployJobs, JobParameter, JobState};
use keyturn_reconcile::objects::ObjectError;
use keyturn_secret_value::SecretValue;
use kube::ResourceExt;

use super::{At, Key, Sabotage, State, World};
use crate::faults::Kind;
use crate::invariants;

/// Time from the creation of a Job until the deploy script fetches the values, and until the run ends.
const UNTIL_SCRIPT: TimeDelta = TimeDelta::seconds(8);
const UNTIL_END: TimeDelta = TimeDelta::seconds(20);

/// One docker host.
#[derive(Clone, Default)]
pub(crate) struct SimHost {
    /// Paths that the deploy script fetches.
    pub fetches: Vec<String>,
    /// The values that the containers run, by path.
    pub running: BTreeMap<String, String>,
    /// Paths for which no container has a variable.
    pub unseen: BTreeSet<String>,
    /// By path, the last deployment: the time at which SSM took the value, and its version.
    pub journal: BTreeMap<String, (i64, i64)>,
    pub succeeded: BTreeSet<String>,
    pub script_fails: bool,
    pub verify_fails: bool,
    pub unreachable: bool,
    /// True if the connection breaks once the script is done, so that its result is unknown.
    pub breaks_off: bool,
    /// Number of runs of the script.
    pub deploys: usize,
}

impl SimHost {
    fn compare(&self, wanted: &TaskParameter) -> Proof {
        let mut key = [0; KEY_BYTES];
        hex::decode_to_slice(&wanted.key, &mut key).expect("the task's key is 64 hexadecimal digits");
        let Some(running) = self.running.get(&wanted.path).filter(|_| !self.unseen.contains(&wanted.path))
        else {
            return Proof::Incomparable;
        };
        let seen = fingerprint(&SecretValue::new(running.clone()), &key).mac;
        let same = seen == wanted.mac || Some(&seen) == wanted.trimmed_mac.as_ref();
        if same { Proof::Proven } else { Proof::Differs }
    }
}

enum Stage {
    Created,
    ScriptDone(Result<Option<DeployKind>, RunResult>),
    Ended(Report),
    Lost,
}

pub(crate) struct SimJob {
    pub host: String,
    pub name: String,
    task: Task,
    parameters: Vec<JobParameter>,
    target: String,
    generation: i64,
    pub host_uid: Option<String>,
    created: At,
    pub finished: Option<At>,
    stage: Stage,
    evicted_after_script: bool,
    /// True if the Secret with its task is deleted.
    pub task_deleted: bool,
}

impl SimJob {
    pub(crate) fn next_at(&self) -> Option<At> {
        match self.stage {
            Stage::Created => Some(self.created + UNTIL_SCRIPT),
            Stage::ScriptDone(_) => Some(self.created + UNTIL_END),
            Stage::Ended(_) | Stage::Lost => None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.finished.is_none()
    }

    /// True if the result of this Job will never be known.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.stage, Stage::Lost)
    }

    pub(crate) fn deploys(&self) -> bool {
        self.task.mode == RunMode::Deploy
    }

    /// Returns the time of its failure, if it was an attempt at the same task on the same host.
    pub(crate) fn failed_at(&self, host: &DockerHost, task: &Task) -> Option<At> {
        let same = self.host_uid == host.uid()
            && host.metadata.generation == Some(self.generation)
            && (self.task.mode, &self.task.revision) == (task.mode, &task.revision);
        let succeeded = matches!(&self.stage, Stage::Ended(report) if report.outcome == RunResult::Succeeded);
        self.finished.filter(|_| same && !succeeded)
    }
}

impl State {
    pub(crate) fn run_jobs(&mut self) {
        let mut jobs = std::mem::take(&mut self.jobs);
        for job in &mut jobs {
            while job.next_at().is_some_and(|at| at <= self.now) {
                self.last_activity = self.now;
                self.advance(job);
                if !job.is_running() {
                    self.touched.insert(Key::Host(job.host.clone()));
                }
            }
        }
        jobs.append(&mut self.jobs);
        self.jobs = jobs;
    }

    fn advance(&mut self, job: &mut SimJob) {
        job.stage = match std::mem::replace(&mut job.stage, Stage::Lost) {
            Stage::Created => {
                let done = self.script_runs(job);
                if job.evicted_after_script {
                    job.finished = Some(self.now);
                    Stage::Lost
                } else {
                    Stage::ScriptDone(done)
                }
            }
            Stage::ScriptDone(done) => {
                job.finished = Some(self.now);
                Stage::Ended(self.report(job, done))
            }
            ended => ended,
        };
    }

    /// True if the product works: its verify script passes unless it runs a login that the target refuses.
    fn works(&self, host: &SimHost) -> bool {
        let let_in = |value: &String| {
            let is_login = value.contains(':');
            let server = self.postgres.as_ref().is_none_or(|server| server.accepts(value));
            let account = self.cloudflare.as_ref().is_none_or(|account| account.accepts(value, self.now));
            !is_login || server && account
        };
        !host.verify_fails && host.running.values().all(let_in)
    }

    fn script_runs(&mut self, job: &SimJob) -> Result<Option<DeployKind>, RunResult> {
        let works = self.hosts.get(&job.host).is_some_and(|host| self.works(host));
        let Some(host) = self.hosts.get_mut(&job.host) else { return Err(RunResult::Unreachable) };
        if host.unreachable {
            return Err(RunResult::Unreachable);
        }
        if job.task.mode == RunMode::Verify {
            return Ok(None);
        }
        let older = |p: &TaskParameter| {
            host.journal.get(&p.path).is_some_and(|known| (p.published_at, p.version) < *known)
        };
        if job.task.parameters.iter().any(older) {
            return Err(RunResult::Outdated);
        }
        // An earlier success counts as long as the containers confirm it.
        let shows = |host: &SimHost| {
            let proofs = job.task.parameters.iter().map(|p| host.compare(p));
            works && proofs.into_iter().all(|proof| proof != Proof::Differs)
        };
        if host.succeeded.contains(&job.task.revision) && shows(host) {
            return Ok(Some(DeployKind::Replayed));
        }
        for p in &job.task.parameters {
            host.journal.insert(p.path.clone(), (p.published_at, p.version));
        }
        host.deploys += 1;
        if host.script_fails {
            return Err(RunResult::DeployFailed);
        }
        invariants::script_runs(self, &job.host);
        let Some(host) = self.hosts.get_mut(&job.host) else { return Err(RunResult::Unreachable) };
        for path in &host.fetches {
            if let Some(latest) = self.ssm.latest(path) {
                host.running.insert(path.clone(), latest.value.trim_end().to_owned());
                if let Some(server) = &mut self.postgres {
                    server.initialise(latest.value.trim_end());
                }
            }
        }
        host.succeeded.insert(job.task.revision.clone());
        Ok(Some(DeployKind::Started))
    }

    fn report(&self, job: &SimJob, done: Result<Option<DeployKind>, RunResult>) -> Report {
        let failed = |outcome, deploy| Report {
            outcome,
            message: format!("{outcome:?}: look at the host"),
            script_exit: (outcome == RunResult::DeployFailed).then_some(3),
            verified: false,
            deploy,
            parameters: Vec::new(),
            images: None,
            others: None,
            logs: None,
        };
        let Some(host) = self.hosts.get(&job.host) else { return failed(RunResult::Unreachable, None) };
        if host.breaks_off {
            return failed(RunResult::ConnectionLost, None);
        }
        let mut parameters: Vec<ReportParameter> = job
            .task
            .parameters
            .iter()
            .map(|p| {
                let proof = host.compare(p);
                ReportParameter { path: p.path.clone(), version: p.version, proof, differs_in: Vec::new() }
            })
            .collect();
        let deploy = match done {
            Ok(deploy) => deploy,
            // Differences still count; nothing else is proven by it.
            Err(outcome @ (RunResult::DeployFailed | RunResult::DeployTimedOut)) => {
                parameters.retain(|p| p.proof == Proof::Differs);
                return Report { parameters, ..failed(outcome, None) };
            }
            Err(outcome) => return failed(outcome, None),
        };
        // The pod judges in this order too: a differing value is reported first, whatever the result of the verify
        // script.
        let differs = parameters.iter().any(|p| p.proof == Proof::Differs);
        let outcome = match (differs, self.works(host)) {
            (true, _) => RunResult::NotAdopted,
            (false, false) => RunResult::VerifyFailed,
            (false, true) => RunResult::Succeeded,
        };
        if outcome != RunResult::Succeeded {
            parameters.retain(|p| p.proof != Proof::Proven);
        }
        Report {
            outcome,
            message: match outcome {
                RunResult::NotAdopted => "a container runs another value",
                RunResult::VerifyFailed => "the verify script failed: look at the host",
                _ => "",
            }
            .to_owned(),
            script_exit: None,
            verified: self.works(host),
            deploy,
            parameters,
            images: None,
            others: None,
            logs: None,
        }
    }

    pub(crate) fn evict_the_youngest_job(&mut self, after_script: bool) {
        let now = self.now;
        let Some(job) = self.jobs.iter_mut().rev().find(|job| job.is_running()) else { return };
        if after_script {
            job.evicted_after_script = true;
        } else {
            job.stage = Stage::Lost;
            job.finished = Some(now);
            let host = job.host.clone();
            self.touched.insert(Key::Host(host));
        }
    }
}

#[async_trait]
impl DeployJobs for World {
    async fn of_host(&self, host: &DockerHost) -> Result<Vec<DeployJob>, ObjectError> {
        let state = self.lock();
        let jobs = state.jobs.iter().filter(|job| job.host == host.name_any() && job.host_uid == host.uid());
        Ok(jobs
            .map(|job| DeployJob {
                name: job.name.clone(),
                mode: job.task.mode,
                revision: job.task.revision.clone(),
                attempt: job.task.attempt,
                parameters: job.parameters.clone(),
                generation: job.generation,
                target: job.target.clone(),
                audit: String::new(),
                about: job.task.collection.as_ref().map(|collection| collection.about.clone()),
                layers: false,
                holds_task: job.finished.is_some() && !job.task_deleted,
                created: job.created,
                state: match (&job.stage, job.finished) {
                    (Stage::Ended(report), Some(finished)) => {
                        JobState::Ended { report: report.clone(), finished }
                    }
                    (Stage::Lost, Some(finished)) => JobState::Lost { reason: "Evicted".into(), finished },
                    _ => JobState::Running { trouble: None },
                },
            })
            .collect())
    }

    async fn start(&self, host: &DockerHost, run: &Run, task: &Task) -> Result<String, ObjectError> {
        let name = job_name(&host.name_any(), &task.revision, task.mode, task.attempt);
        let what = format!("start Job {name}");
        let (run, task, host) = (run.clone(), task.clone(), host.clone());
        self.effect(Kind::StartJob, what, move |state, sent| {
            let host_name = host.name_any();
            if let Some(job) = state.jobs.iter().find(|job| job.name == name) {
                return if job.host_uid == host.uid() {
                    Ok(name.clone())
                } else {
                    Err(ObjectError::Api { object: name.clone(), detail: "another one's Job".into() })
                };
            }
            // Kubernetes garbage collects a Job at once if its owner does not exist.
            if state.cluster.host(&host_name).is_none_or(|known| known.uid() != host.uid()) {
                return Ok(name.clone());
            }
            // A Job is created suspended, and the leader's next request starts it once the leader knows that it was
            // created. Nobody starts a Job whose creation comes late; the process that finds it deletes it.
            if state.log.len() > sent.after {
                return Ok(name.clone());
            }
            let mut text = serde_json::to_string(&task).unwrap_or_default();
            text.push_str(&name);
            invariants::no_value_in(state, "the task of a Job", &text);
            invariants::job_starts(state, &host_name, &task);
            let copies = if state.sabotage == Some(Sabotage::TwoDeploys) { 2 } else { 1 };
            for copy in 0..copies {
                if copy > 0 {
                    invariants::job_starts(state, &host_name, &task);
                }
                state.jobs.push(SimJob {
                    host: host_name.clone(),
                    name: if copy == 0 { name.clone() } else { format!("{name}-copy") },
                    task: task.clone(),
                    parameters: run
                        .parameters
                        .iter()
                        .map(|wish| JobParameter {
                            path: wish.path.clone(),
                            version: wish.version,
                            published_at: wish.published_at.timestamp(),
                        })
                        .collect(),
                    target: target(&host.spec),
                    generation: host.metadata.generation.unwrap_or_default(),
                    host_uid: host.uid(),
                    created: state.now,
                    finished: None,
                    stage: Stage::Created,
                    evicted_after_script: false,
                    task_deleted: false,
                });
            }
            state.touched.insert(Key::Host(host_name));
            Ok(name.clone())
        })
        .await
    }

    async fn delete_task(&self, _host: &DockerHost, job: &str) -> Result<(), ObjectError> {
        let job = job.to_owned();
        self.effect(Kind::DeleteTask, format!("delete the task of Job {job}"), move |state, _| {
            let known = state.jobs.iter_mut().find(|known| known.name == job);
            known.into_iter().for_each(|job| job.task_deleted = true);
            Ok(())
        })
        .await
    }

    async fn delete(&self, _host: &DockerHost, job: &str) -> Result<(), ObjectError> {
        let job = job.to_owned();
        self.effect(Kind::DeleteJob, format!("delete Job {job}"), move |state, _| {
            state.jobs.retain(|known| known.name != job);
            Ok(())
        })
        .await
    }
}
