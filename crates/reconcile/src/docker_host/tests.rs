use std::collections::BTreeMap;

use async_trait::async_trait;
use keyturn_api::RotationGrant;
use keyturn_api::SecretIncident;
use keyturn_api::conditions::{self, DEPLOYING, IMAGES_CLEAN, READY, STALLED};
use keyturn_api::consent;
use keyturn_api::docker_host::{DockerHostStatus, Proof, RunMode, RunResult};
use keyturn_api::managed_secret::{Origin, Step};
use keyturn_api::rotation_grant::{GrantMode, HostGrant, ParameterGrant, RotationGrantSpec};
use keyturn_rotation::observed::Version;
use keyturn_secret_value::SecretValue;
use kube::ResourceExt;
use serde_json::json;

use super::*;
use crate::deploy::fingerprint::{KEY_BYTES, fingerprint};
use crate::deploy::job;
use crate::deploy::plan::Run;
use crate::deploy::report::{
    ImageReport, ImagesReport, LayersReport, LogsReport, Report, ReportFinding, ReportParameter,
};
use crate::deploy::revision;
use crate::deploy::task::{Layers, Task};
use crate::deploy::testing::{at, host, published, rotating, secret};
use crate::deploy_jobs::{DeployJob, JobParameter, JobState};
use crate::objects::{Event, Hosts, Source};
use crate::parameter_store::{Created, FolderEntry, Kept, Listed, NewVersion, ParameterStore, StoreError};
use crate::target::{Target, TargetError};

const TOKEN: &str = "/app/TOKEN";
const VALUE: &str = "the value of version 3\n";

/// A namespace `prod` with host `web`, kept in memory. The reconciler under test acts on nothing else.
#[derive(Default)]
struct World {
    now: i64,
    hosts: Vec<DockerHost>,
    secrets: Vec<ManagedSecret>,
    grants: Vec<RotationGrant>,
    /// Labels of the Secrets with SSH keys.
    keys: BTreeMap<&'static str, BTreeMap<String, String>>,
    /// Names of the Secrets whose labels were read.
    asked: Vec<String>,
    jobs: Vec<DeployJob>,
    tasks: Vec<Task>,
    deleted: Vec<String>,
    tasks_deleted: usize,
    /// True to make the next deletion of a task fail.
    api_server_away: bool,
    /// Administrator's credential of every target; `Err` where it cannot be read.
    admin: Option<Result<&'static str, ()>>,
    /// Versions of every parameter before the third, with their values.
    older: BTreeMap<i64, Result<&'static str, ()>>,
    events: Vec<Event>,
    status_writes: usize,
    reads: Vec<String>,
    store_error: Option<StoreError>,
    /// Change of the world at the moment when a value is read.
    meanwhile: Option<fn(&mut World)>,
    follower: bool,
    /// True when the controller's role is not bound in the namespace.
    no_role: bool,
    incidents: Vec<SecretIncident>,
    /// The log lines in every report.
    logs: Option<LogsReport>,
    /// The image audit in every report.
    images: Option<ImagesReport>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl Clock for Shared {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.lock().now, 0).unwrap()
    }
}

impl Leadership for Shared {
    fn is_leader(&self) -> bool {
        !self.lock().follower
    }
}

impl Regions for Shared {
    fn store(&self, _region: &str) -> Arc<dyn ParameterStore> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl ParameterStore for Shared {
    async fn list(&self, _: &[String]) -> Result<Vec<Listed>, StoreError> {
        unreachable!("a deployment lists nothing")
    }
    async fn read_folder(&self, _: &str) -> Result<Vec<FolderEntry>, StoreError> {
        unreachable!("a deployment reads no records")
    }
    async fn kept(&self, _: &str) -> Result<Kept, StoreError> {
        let modified = DateTime::from_timestamp(777, 0).unwrap();
        let older = self.lock().older.keys().copied().collect::<Vec<_>>();
        let versions = older.into_iter().chain([3]).map(|number| Version {
            number,
            modified,
            text: String::new(),
            stamp: None,
            claim: None,
        });
        Ok(Kept { versions: versions.collect(), shape: None })
    }
    async fn keeps(&self, _: &str, _: &[&Version]) -> Result<bool, StoreError> {
        unreachable!("a deployment ends no rotation")
    }
    async fn read(&self, path: &str, version: Option<i64>) -> Result<Option<SecretValue>, StoreError> {
        let mut world = self.lock();
        world.reads.push(path.to_owned());
        if let Some(change) = world.meanwhile.take() {
            change(&mut world);
        }
        match world.store_error.clone().filter(|error| error.path() == path) {
            Some(error) => return Err(error),
            None if version == Some(3) => return Ok(Some(SecretValue::new(VALUE.into()))),
            None => {}
        }
        match version.and_then(|version| world.older.get(&version)) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(SecretValue::new((*value).to_owned()))),
            Some(Err(())) => Err(StoreError::Denied {
                operation: "GetParameter",
                path: path.to_owned(),
                detail: "the key is disabled".to_owned(),
            }),
        }
    }
    async fn create(&self, _: NewVersion<'_>) -> Result<Created, StoreError> {
        unreachable!("a deployment writes nothing")
    }
    async fn overwrite(&self, _: NewVersion<'_>) -> Result<i64, StoreError> {
        unreachable!("a deployment writes nothing")
    }
    async fn delete(&self, _: &str) -> Result<(), StoreError> {
        unreachable!("a deployment deletes nothing")
    }
}

#[async_trait]
impl Targets for Shared {
    async fn open(&self, _: &ManagedSecret, _: &str) -> Result<Option<Arc<dyn Target>>, TargetError> {
        unreachable!("a deployment changes no target")
    }
    async fn admin_secret(&self, _: &ManagedSecret, _: &str) -> Result<Option<SecretValue>, TargetError> {
        match self.lock().admin {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(SecretValue::new(text.to_owned()))),
            Some(Err(())) => {
                Err(Trouble::permanent(Reason::TargetNotConfigured, "Secret admin does not exist").into())
            }
        }
    }
}

#[async_trait]
impl Objects for Shared {
    async fn managed_secret(
        &self,
        _: &str,
        name: &str,
        _: Source,
    ) -> Result<Option<ManagedSecret>, ObjectError> {
        Ok(self.lock().secrets.iter().find(|secret| secret.name_any() == name).cloned())
    }
    async fn docker_host(&self, _: &str, name: &str) -> Result<Option<DockerHost>, ObjectError> {
        Ok(self.lock().hosts.iter().find(|host| host.name_any() == name).cloned())
    }
    async fn secret_incident(&self, _: &str, _: &str) -> Result<Option<SecretIncident>, ObjectError> {
        Ok(None)
    }
    async fn secret_incidents(&self, _: &str, _: Source) -> Result<Vec<SecretIncident>, ObjectError> {
        Ok(self.lock().incidents.clone())
    }
    async fn write_incident_status(&self, _: &SecretIncident) -> Result<SecretIncident, ObjectError> {
        unreachable!("a host writes no incident's status")
    }
    async fn grants(&self, _: Source) -> Result<Arc<Grants>, ObjectError> {
        Ok(Arc::new(self.lock().grants.iter().cloned().collect()))
    }
    async fn managed_secrets(&self, _: &str) -> Result<Vec<ManagedSecret>, ObjectError> {
        Ok(self.lock().secrets.clone())
    }
    async fn rivals(&self, _: &ManagedSecret) -> Result<Vec<ManagedSecret>, ObjectError> {
        unreachable!("a host claims nothing")
    }
    async fn docker_hosts(&self, _: &str, _: Source) -> Result<Hosts, ObjectError> {
        Ok(Hosts { decoded: self.lock().hosts.clone(), undecodable: Vec::new() })
    }
    async fn secret_labels(
        &self,
        _: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, ObjectError> {
        let mut world = self.lock();
        world.asked.push(name.to_owned());
        Ok(world.keys.get(name).cloned())
    }
    async fn write_secret_status(&self, _: &ManagedSecret) -> Result<ManagedSecret, ObjectError> {
        unreachable!("a host writes no secret's status")
    }
    async fn write_host_status(&self, object: &DockerHost) -> Result<DockerHost, ObjectError> {
        let mut world = self.lock();
        world.status_writes += 1;
        let stored = world.hosts.iter_mut().find(|host| host.name_any() == object.name_any()).unwrap();
        stored.status.clone_from(&object.status);
        Ok(stored.clone())
    }
    async fn set_finalizer(&self, _: &ManagedSecret, _: bool) -> Result<ManagedSecret, ObjectError> {
        unreachable!("a host holds no secret")
    }
    async fn write_event(&self, _: Subject<'_>, event: Event) {
        self.lock().events.push(event);
    }
}

#[async_trait]
impl DeployJobs for Shared {
    async fn of_host(&self, _: &DockerHost) -> Result<Vec<DeployJob>, ObjectError> {
        let world = self.lock();
        if world.no_role { Err(ObjectError::Forbidden(missing_right())) } else { Ok(world.jobs.clone()) }
    }
    async fn start(&self, host: &DockerHost, run: &Run, task: &Task) -> Result<String, ObjectError> {
        let mut world = self.lock();
        let name = job::job_name(&host.name_any(), &task.revision, task.mode, task.attempt);
        assert!(world.jobs.iter().all(|job| job.name != name), "{name} was started twice");
        assert!(!world.jobs.iter().any(is_running), "{name} was started beside another");
        let parameters = run.parameters.iter().map(|wish| JobParameter {
            path: wish.path.clone(),
            version: wish.version,
            published_at: wish.published_at.timestamp(),
        });
        let started = DeployJob {
            name: name.clone(),
            mode: task.mode,
            revision: task.revision.clone(),
            attempt: task.attempt,
            parameters: parameters.collect(),
            generation: host.metadata.generation.unwrap(),
            target: revision::target(&host.spec),
            audit: revision::audit_settings(&host.spec),
            about: run.collection.as_ref().map(|collection| collection.about.clone()),
            layers: run.layers,
            holds_task: false,
            created: DateTime::from_timestamp(world.now, 0).unwrap(),
            state: JobState::Running { trouble: None },
        };
        world.jobs.push(started);
        world.tasks.push(task.clone());
        Ok(name)
    }
    async fn delete_task(&self, _: &DockerHost, job: &str) -> Result<(), ObjectError> {
        let mut world = self.lock();
        if std::mem::take(&mut world.api_server_away) {
            return Err(ObjectError::Conflict(job.to_owned()));
        }
        let job = world.jobs.iter_mut().find(|known| known.name == job).unwrap();
        assert!(!is_running(job), "the pod of {} needs its task", job.name);
        job.holds_task = false;
        world.tasks_deleted += 1;
        Ok(())
    }
    async fn delete(&self, _: &DockerHost, job: &str) -> Result<(), ObjectError> {
        let mut world = self.lock();
        world.jobs.retain(|existing| existing.name != job);
        world.deleted.push(job.to_owned());
        Ok(())
    }
}

fn missing_right() -> MissingRight {
    MissingRight {
        account: "system:serviceaccount:keyturn-system:keyturn".into(),
        action: "list jobs".into(),
        namespace: "prod".into(),
    }
}

fn is_running(job: &DeployJob) -> bool {
    matches!(job.state, JobState::Running { .. })
}

impl Shared {
    /// The world at second 1000, in which a rotation that began at second 900 waits for host `web`.
    fn new() -> Self {
        let world = Self::default();
        {
            let mut state = world.lock();
            state.now = 1000;
            state.hosts = vec![host("web")];
            state.secrets = vec![rotating(
                published(secret("token", &[TOKEN]), &[(TOKEN, 3, Origin::Rotated)]),
                Step::Deploy,
                900,
            )];
            state.grants = vec![grant(GrantMode::Rotate)];
            state.keys = BTreeMap::from([("web-key", usable_by("ssh"))]);
        }
        world
    }

    async fn pass(&self) -> Requeue {
        let ports = Ports {
            clock: Arc::new(self.clone()),
            objects: Arc::new(self.clone()),
            jobs: Arc::new(self.clone()),
            regions: Arc::new(self.clone()),
            targets: Arc::new(self.clone()),
            leadership: Arc::new(self.clone()),
            random: Mutex::new(Box::new(crate::source::OperatingSystem)),
        };
        let settings = Settings { attempts: 3, ..Settings::new("test", "us-east-1") };
        DockerHosts::new(ports, settings).reconcile("prod", "web").await.unwrap()
    }

    /// Ends the running Job ten seconds after the last event, and reconciles again.
    async fn end(&self, outcome: RunResult, proof: Option<Proof>) -> Requeue {
        self.finish(outcome, proof);
        self.pass().await
    }

    fn finish(&self, outcome: RunResult, proof: Option<Proof>) {
        {
            let mut world = self.lock();
            world.now += 10;
            let finished = DateTime::from_timestamp(world.now, 0).unwrap();
            let images = world.images.clone().map(Box::new);
            let logs = world.logs.clone().map(Box::new);
            let job = world.jobs.iter_mut().find(|job| is_running(job)).expect("a Job runs");
            let report =
                |proof| ReportParameter { path: TOKEN.into(), version: 3, proof, differs_in: vec![] };
            let report = Report {
                outcome,
                message: "said by the pod".into(),
                script_exit: None,
                verified: matches!(outcome, RunResult::Succeeded | RunResult::NotAdopted),
                deploy: None,
                parameters: proof.map(report).into_iter().collect(),
                others: None,
                images,
                logs,
            };
            job.state = JobState::Ended { report, finished };
            job.holds_task = true;
        }
    }

    fn advance(&self, seconds: i64) {
        self.lock().now += seconds;
    }

    fn status(&self) -> DockerHostStatus {
        self.lock().hosts[0].status.clone().unwrap()
    }

    /// Returns status, reason and message of a condition.
    fn condition(&self, kind: &str) -> Option<(String, String, String)> {
        let found = conditions::find(&self.status().conditions, kind).cloned()?;
        Some((found.status, found.reason, found.message))
    }

    fn reason(&self, kind: &str) -> Option<String> {
        self.condition(kind).map(|(_, reason, _)| reason)
    }

    fn started(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Returns the reasons of the Events, oldest first.
    fn event_reasons(&self) -> Vec<&'static str> {
        self.lock().events.iter().map(|event| event.reason.name()).collect()
    }
}

fn grant(mode: GrantMode) -> RotationGrant {
    RotationGrant::new(
        "prod",
        RotationGrantSpec {
            namespaces: vec!["prod".into()],
            mode,
            parameters: vec![ParameterGrant { prefix: Some("/app/".into()), ..ParameterGrant::default() }],
            hosts: vec![HostGrant { host: "web.example".into(), port: None }],
            ..RotationGrantSpec::default()
        },
    )
}

fn usable_by(purpose: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(consent::USABLE_BY.to_owned(), purpose.to_owned())])
}

#[tokio::test]
async fn a_rotation_is_deployed_proven_and_then_left_alone() {
    let world = Shared::new();
    world.pass().await;
    assert_eq!(world.started(), 1);
    assert_eq!(world.condition(DEPLOYING).unwrap().0, "True");
    assert_eq!(world.condition(READY).unwrap().0, "False");
    let run = world.status().run.unwrap();
    assert_eq!((run.mode, run.attempt, run.parameters), (RunMode::Deploy, 1, vec![format!("{TOKEN}=3")]));

    let writes = world.lock().status_writes;
    world.pass().await;
    assert_eq!((world.started(), world.lock().status_writes), (1, writes), "nothing new, nothing written");

    let next = world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    let status = world.status();
    assert_eq!(status.parameters[0].proof, Proof::Proven);
    assert_eq!(status.run, None);
    assert_eq!(status.last_run.as_ref().unwrap().result, Some(RunResult::Succeeded));
    assert_eq!(world.condition(READY).unwrap().0, "True");
    assert_eq!(world.condition(DEPLOYING).unwrap().0, "False");
    assert_eq!(world.condition(STALLED), None);
    assert_eq!(next, Requeue::After(RESYNC));

    let writes = world.lock().status_writes;
    world.advance(86_400);
    world.pass().await;
    assert_eq!((world.started(), world.lock().status_writes), (1, writes));
    assert_eq!(world.event_reasons(), ["DeployStarted", "DeploySucceeded"]);
}

#[tokio::test]
async fn the_pod_is_told_fingerprints_and_when_the_value_was_made() {
    let world = Shared::new();
    world.pass().await;
    let task = world.lock().tasks[0].clone();
    let parameter = &task.parameters[0];
    let made_at = world.lock().secrets[0].status.as_ref().unwrap().parameters[0].published_at.0.as_second();
    assert_eq!((parameter.path.as_str(), parameter.version, parameter.published_at), (TOKEN, 3, made_at));
    assert_eq!(parameter.env, ["TOKEN"]);
    let key: [u8; KEY_BYTES] = hex::decode(&parameter.key).unwrap().try_into().unwrap();
    let expected = fingerprint(&SecretValue::new(VALUE.into()), &key);
    assert_eq!(parameter.mac, expected.mac);
    assert_eq!(parameter.trimmed_mac, expected.trimmed_mac);
    assert!(!serde_json::to_string(&task).unwrap().contains(VALUE.trim()));
    assert!(!serde_json::to_string(&world.lock().hosts).unwrap().contains(&parameter.mac));
}

#[tokio::test]
async fn an_emptied_status_starts_nothing_that_has_been_started_or_shown() {
    let world = Shared::new();
    let forget = || world.lock().hosts[0].status = None;
    world.pass().await;
    forget();
    world.pass().await;
    assert_eq!(world.started(), 1, "the Job under way is found again");
    assert!(world.status().run.is_some());
    forget();
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    forget();
    world.pass().await;
    assert_eq!(world.started(), 1, "the result is found again");
    assert_eq!(world.condition(READY).unwrap().0, "True");

    // When the Jobs are gone too, and the rotation is over, the containers are compared and nothing is deployed.
    world.lock().jobs.clear();
    world.lock().secrets[0].status.as_mut().unwrap().rotation = None;
    forget();
    world.pass().await;
    let modes: Vec<RunMode> = world.lock().tasks.iter().map(|task| task.mode).collect();
    assert_eq!(modes, [RunMode::Deploy, RunMode::Verify]);
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(world.condition(READY).unwrap().0, "True");
    assert_eq!(world.started(), 2);
}

#[tokio::test]
async fn failures_are_retried_with_a_growing_pause_and_said_to_need_a_person_after_some() {
    let world = Shared::new();
    world.pass().await;
    for (failures, pause) in [(1, 60), (2, 120), (3, 240), (4, 480)] {
        let next = world.end(RunResult::DeployFailed, None).await;
        assert_eq!(next, Requeue::After(TimeDelta::seconds(pause)), "after {failures}");
        let (status, reason, message) = world.condition(READY).unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("False", "DeployFailed"));
        let job = world.status().last_run.unwrap().job;
        for part in ["said by the pod", &format!("kubectl -n prod logs job/{job}")] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        assert_eq!(world.reason(STALLED), (failures >= 3).then(|| "DeployFailed".to_owned()));
        world.advance(pause - 1);
        world.pass().await;
        assert_eq!(world.started(), failures, "not before its time");
        world.advance(1);
        world.pass().await;
        assert_eq!(world.started(), failures + 1);
    }
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(world.condition(READY).unwrap().0, "True");
    assert_eq!(world.condition(STALLED), None);
    assert_eq!(world.lock().tasks.last().unwrap().attempt, 5);
}

#[tokio::test]
async fn a_refused_host_key_stalls_at_once_and_an_edit_starts_at_once() {
    let world = Shared::new();
    world.pass().await;
    world.end(RunResult::HostKeyRefused, None).await;
    assert_eq!(world.reason(STALLED).as_deref(), Some("HostKeyRefused"));
    assert_eq!(world.event_reasons(), ["DeployStarted", "HostKeyRefused", "Stalled"]);
    world.advance(600);
    world.pass().await;
    assert_eq!(world.started(), 1);
    world.lock().hosts[0].metadata.generation = Some(2);
    world.pass().await;
    assert_eq!(world.started(), 2);
    assert_eq!(world.condition(STALLED), None);
    assert_eq!(world.lock().tasks[1].attempt, 2);
}

#[tokio::test]
async fn a_namespace_without_the_controllers_role_is_told_which_role_to_bind_and_a_run_under_way_is_kept() {
    let world = Shared::new();
    world.pass().await;
    assert_eq!(world.started(), 1);
    let run = world.status().run.expect("a run is under way");

    world.lock().no_role = true;
    world.pass().await;
    let (_, reason, message) = world.condition(STALLED).unwrap();
    assert_eq!(reason, "RoleMissing");
    for part in
        ["may not list jobs in namespace prod", "kubectl create rolebinding keyturn-namespace -n prod"]
    {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert_eq!(world.reason(READY).as_deref(), Some("RoleMissing"));
    assert_eq!(world.status().run, Some(run), "it may be running still");
    let writes = world.lock().status_writes;
    world.pass().await;
    assert_eq!(world.lock().status_writes, writes, "it is said once");

    world.lock().no_role = false;
    world.pass().await;
    assert_eq!(world.condition(STALLED), None);
    assert_eq!(world.started(), 1, "the run goes on");
}

#[tokio::test]
async fn a_namespace_without_a_grant_is_told_the_grant_it_lacks_rather_than_the_role() {
    let world = Shared::new();
    {
        let mut world = world.lock();
        world.no_role = true;
        world.grants.clear();
    }
    world.pass().await;
    let (_, reason, message) = world.condition(STALLED).unwrap();
    assert_eq!(reason, "NotGranted");
    assert!(message.contains("kind: RotationGrant"), "{message}");
}

#[tokio::test]
async fn without_a_grant_nothing_is_read_or_started() {
    let world = Shared::new();
    world.lock().grants[0].spec.hosts.clear();
    world.pass().await;
    let (_, reason, message) = world.condition(STALLED).unwrap();
    assert_eq!(reason, "NotGranted");
    assert!(message.contains("kind: RotationGrant") && message.contains("host: web.example"), "{message}");

    world.lock().grants = vec![grant(GrantMode::Observe)];
    world.pass().await;
    assert_eq!(world.condition(STALLED), None);
    let (_, reason, message) = world.condition(READY).unwrap();
    assert_eq!(reason, "Observe");
    assert!(message.contains("would be: deployment"), "{message}");

    assert_eq!((world.started(), world.lock().reads.len()), (0, 0));
}

#[tokio::test]
async fn a_secret_that_is_not_granted_is_neither_read_nor_deployed() {
    let world = Shared::new();
    let other = rotating(
        published(secret("other", &["/other/TOKEN"]), &[("/other/TOKEN", 3, Origin::Rotated)]),
        Step::Deploy,
        900,
    );
    world.lock().secrets.push(other);
    world.pass().await;
    assert_eq!(world.lock().reads, [TOKEN]);
    assert_eq!(world.lock().tasks[0].parameters.len(), 1);
}

#[tokio::test]
async fn what_a_status_names_beside_its_spec_is_neither_read_nor_deployed() {
    let world = Shared::new();
    let versions = [(TOKEN, 3, Origin::Rotated), ("/other/TOKEN", 3, Origin::Rotated)];
    world.lock().secrets = vec![rotating(published(secret("token", &[TOKEN]), &versions), Step::Deploy, 900)];
    world.pass().await;
    assert_eq!(world.lock().reads, [TOKEN]);
    assert_eq!(world.lock().tasks[0].parameters.len(), 1);
}

#[tokio::test]
async fn what_ssm_says_is_said_and_tried_again() {
    let world = Shared::new();
    let denied = StoreError::Denied { operation: "GetParameter", path: TOKEN.into(), detail: "no".into() };
    world.lock().store_error = Some(denied);
    let next = world.pass().await;
    assert_eq!(world.started(), 0);
    assert_eq!(world.reason(READY).as_deref(), Some("SSMDenied"));
    assert_eq!(world.reason(STALLED).as_deref(), Some("SSMDenied"));
    assert_eq!(next, Requeue::After(TimeDelta::minutes(1)));

    let writes = world.lock().status_writes;
    world.pass().await;
    assert_eq!(world.lock().status_writes, writes);

    world.lock().store_error = None;
    world.pass().await;
    assert_eq!((world.started(), world.condition(STALLED)), (1, None));
}

#[tokio::test]
async fn a_value_that_cannot_be_read_keeps_no_other_from_the_host() {
    let world = Shared::new();
    let path = "/app/OTHER";
    let other =
        rotating(published(secret("other", &[path]), &[(path, 3, Origin::Rotated)]), Step::Deploy, 900);
    world.lock().secrets.push(other);
    let denied = StoreError::Denied { operation: "GetParameter", path: path.into(), detail: "no".into() };
    world.lock().store_error = Some(denied);
    world.pass().await;
    assert_eq!((world.started(), world.reason(STALLED).as_deref()), (0, Some("SSMDenied")), "it may pass");

    world.pass().await;
    let deployed: Vec<String> = world.lock().tasks[0].parameters.iter().map(|p| p.path.clone()).collect();
    assert_eq!(deployed, [TOKEN]);
    let (_, reason, message) = world.condition(READY).unwrap();
    assert!(reason == "SSMDenied" && message.contains(path), "{reason}: {message}");
    assert_eq!(world.condition(STALLED), None, "another secret's deployment goes on");

    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    for _ in 0..3 {
        world.pass().await;
    }
    assert_eq!((world.started(), world.reason(READY).as_deref()), (1, Some("SSMDenied")));

    world.lock().store_error = None;
    world.pass().await;
    assert_eq!(world.lock().tasks[1].parameters.len(), 2);
}

#[tokio::test]
async fn what_changes_while_the_values_are_read_stops_the_start() {
    let changes: [fn(&mut World); 7] = [
        |world| world.hosts[0].metadata.generation = Some(2),
        |world| world.hosts[0].metadata.uid = Some("another".into()),
        |world| world.hosts.clear(),
        |world| world.grants.clear(),
        |world| world.grants[0].spec.parameters.clear(),
        |world| {
            let mut stop = grant(GrantMode::Observe);
            stop.spec.hosts.clear();
            world.grants.push(stop);
        },
        |world| world.follower = true,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let world = Shared::new();
        world.lock().meanwhile = Some(change);
        world.pass().await;
        assert_eq!((world.started(), world.lock().status_writes), (0, 0), "change {index}");
    }
}

#[tokio::test]
async fn no_job_mounts_a_secret_that_does_not_allow_its_use_for_ssh() {
    let unlabelled = [
        (Some(BTreeMap::new()), "SecretNotLabelled"),
        (Some(usable_by("postgres-admin")), "SecretNotLabelled"),
        (None, "SecretMissing"),
    ];
    for (labels, expected) in unlabelled {
        let world = Shared::new();
        let given = usable_by("ssh");
        match labels.clone() {
            Some(labels) => world.lock().keys.insert("web-key", labels),
            None => world.lock().keys.remove("web-key"),
        };
        let next = world.pass().await;
        assert_eq!((world.started(), world.lock().reads.len()), (0, 0), "{labels:?}");
        for kind in [READY, STALLED] {
            let (_, reason, message) = world.condition(kind).unwrap();
            assert_eq!(reason, expected, "{labels:?}");
            assert!(message.contains("keyturn.dev/usable-by=ssh"), "{message}");
        }
        // Labels of Secrets are not watched.
        assert_eq!(next, Requeue::After(Settings::new("test", "us-east-1").backoff_initial));
        world.lock().keys.insert("web-key", given);
        world.pass().await;
        assert_eq!((world.started(), world.condition(STALLED)), (1, None), "{labels:?}");
    }
}

#[tokio::test]
async fn the_key_of_the_host_on_the_way_must_allow_it_too() {
    for own in [true, false] {
        let world = Shared::new();
        let mut jump = json!({"host": "jump.example", "user": "hop"});
        if own {
            jump["keySecretRef"] = json!({"name": "jump-key", "key": "id"});
        }
        world.lock().hosts[0].spec.ssh.jump = Some(serde_json::from_value(jump).unwrap());
        let granted = HostGrant { host: "jump.example".into(), port: None };
        world.lock().grants[0].spec.hosts.push(granted);
        world.lock().keys.insert("jump-key", usable_by("cloudflare"));
        world.pass().await;
        assert_eq!(world.started(), usize::from(!own));
        if own {
            let (_, _, message) = world.condition(STALLED).unwrap();
            assert!(message.contains("Secret jump-key"), "{message}");
            world.lock().keys.insert("jump-key", usable_by("ssh"));
            world.pass().await;
            assert_eq!(world.started(), 1);
        } else {
            assert_eq!(world.lock().asked, ["web-key"], "one Secret is asked once");
        }
    }
}

#[tokio::test]
async fn a_pod_that_cannot_come_up_is_said_and_replaced_when_the_spec_changes() {
    let world = Shared::new();
    world.pass().await;
    let trouble = "FailedMount: secret \"web-key\" not found";
    world.lock().jobs[0].state = JobState::Running { trouble: Some(trouble.into()) };
    world.pass().await;
    let (_, reason, message) = world.condition(READY).unwrap();
    assert_eq!(reason, "PodNotRunning");
    assert!(message.contains(trouble), "{message}");
    assert_eq!(world.condition(STALLED), None, "it may just be slow");
    world.advance(PATIENCE.num_seconds());
    world.pass().await;
    assert_eq!(world.reason(STALLED).as_deref(), Some("PodNotRunning"));

    world.lock().hosts[0].metadata.generation = Some(2);
    world.pass().await;
    assert_eq!(world.lock().deleted.len(), 1);
    world.pass().await;
    assert_eq!(world.started(), 2);
}

#[tokio::test]
async fn the_last_three_ended_jobs_stay_and_interrupted_starts_go() {
    let world = Shared::new();
    world.pass().await;
    for _ in 0..4 {
        world.end(RunResult::DeployFailed, None).await;
        world.advance(3600);
        world.pass().await;
    }
    let attempts: Vec<i32> = world.lock().jobs.iter().map(|job| job.attempt).collect();
    assert_eq!(attempts, [2, 3, 4, 5]);
    assert_eq!(world.status().last_deploy.unwrap().failures, 4, "what was deleted is remembered");

    let mut unstarted = world.lock().jobs[0].clone();
    unstarted.state = JobState::Unstarted;
    unstarted.name = "web-interrupted".into();
    world.lock().jobs.push(unstarted);
    world.pass().await;
    assert!(world.lock().deleted.contains(&"web-interrupted".to_owned()));
}

#[tokio::test]
async fn what_nobody_wants_on_the_host_any_more_is_forgotten() {
    let world = Shared::new();
    world.pass().await;
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    world.lock().secrets.clear();
    world.pass().await;
    assert_eq!(world.status().parameters, []);
    assert_eq!(world.reason(READY).as_deref(), Some("NothingToRun"));
}

#[tokio::test]
async fn adopted_containers_that_run_something_else_are_said_and_nothing_is_deployed() {
    let world = Shared::new();
    world.lock().secrets = vec![published(secret("token", &[TOKEN]), &[(TOKEN, 3, Origin::Adopted)])];
    world.pass().await;
    world.end(RunResult::NotAdopted, Some(Proof::Differs)).await;
    assert_eq!(world.reason(READY).as_deref(), Some("NotAdopted"));
    world.advance(60);
    world.pass().await;
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(world.condition(READY).unwrap().0, "True", "somebody has put it right");
    let modes: BTreeMap<String, usize> =
        world.lock().tasks.iter().fold(BTreeMap::new(), |mut modes, task| {
            *modes.entry(format!("{:?}", task.mode)).or_default() += 1;
            modes
        });
    assert_eq!(modes, BTreeMap::from([("Verify".to_owned(), 2)]));
}

/// A report of three images; one of them has findings with these fingerprints.
fn images(fingerprints: &[&str], problem: Option<&str>) -> ImagesReport {
    let findings: Vec<ReportFinding> = fingerprints
        .iter()
        .map(|fingerprint| ReportFinding {
            rule: "secret-name".into(),
            fingerprint: (*fingerprint).into(),
            parameter: None,
            place: "env DB_PASSWORD".into(),
        })
        .collect();
    let image = ImageReport { name: "app:1".into(), digest: "sha256:0a".into(), findings };
    ImagesReport {
        images: 3,
        found: Some(image).into_iter().filter(|image| !image.findings.is_empty()).collect(),
        problem: problem.map(str::to_owned),
        ..ImagesReport::default()
    }
}

fn fingerprints_of(world: &Shared) -> Vec<String> {
    world.status().image_findings.into_iter().map(|finding| finding.fingerprint).collect()
}

fn ask_for_audits(world: &Shared, audit: serde_json::Value) {
    world.lock().hosts[0].spec.audit = Some(serde_json::from_value(audit).unwrap());
}

#[tokio::test]
async fn a_secret_in_an_image_is_told_and_fails_no_deployment() {
    let world = Shared::new();
    world.pass().await;
    assert_eq!(world.condition(IMAGES_CLEAN).unwrap().0, "Unknown", "nobody has looked");
    world.lock().images = Some(images(&["0000000000000001"], None));
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(world.condition(READY).unwrap().0, "True");
    let (truth, reason, message) = world.condition(IMAGES_CLEAN).unwrap();
    assert_eq!((truth.as_str(), reason.as_str()), ("False", "SecretsFound"));
    assert!(message.contains("env DB_PASSWORD of app:1"), "{message}");
    let finding = world.status().image_findings.remove(0);
    assert_eq!((finding.image.as_str(), finding.digest.as_str()), ("app:1", "sha256:0a"));
    assert_eq!((finding.place.as_str(), finding.rule.as_str()), ("env DB_PASSWORD", "secret-name"));
    assert!(world.event_reasons().contains(&"SecretInImage"), "{:?}", world.event_reasons());
}

#[tokio::test]
async fn images_are_looked_at_again_in_every_interval_and_what_is_gone_is_cleared() {
    let world = Shared::new();
    ask_for_audits(&world, serde_json::json!({"interval": "2h"}));
    world.pass().await;
    world.lock().images = Some(images(&["0000000000000001"], None));
    let next = world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!((world.started(), next), (1, Requeue::After(RESYNC)), "the deployment has looked");
    world.advance(2 * 3600 - 60);
    assert_eq!(world.pass().await, Requeue::After(TimeDelta::seconds(60)));
    world.advance(60);
    world.pass().await;
    assert_eq!(world.started(), 2);
    assert_eq!(world.status().run.unwrap().mode, RunMode::Verify, "it changes nothing on the host");

    world.lock().images = Some(images(&["0000000000000002"], Some("app:2: too large")));
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(fingerprints_of(&world), ["0000000000000002"], "the image itself was looked at");
    world.advance(2 * 3600);
    world.pass().await;
    world.lock().images = Some(images(&[], Some("the connection broke")));
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(fingerprints_of(&world), ["0000000000000002"], "not seen is not gone");
    world.advance(2 * 3600);
    world.pass().await;
    world.lock().images = Some(images(&[], None));
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(fingerprints_of(&world), [] as [String; 0]);
    assert_eq!(world.condition(IMAGES_CLEAN).unwrap().0, "True");
    let told = world.event_reasons();
    assert_eq!(told.iter().filter(|reason| **reason == "SecretInImage").count(), 2, "{told:?}");
    assert_eq!(told.iter().filter(|reason| **reason == "ImagesClean").count(), 1, "{told:?}");
}

#[tokio::test]
async fn a_change_of_what_is_allowed_is_acted_on_at_once() {
    let world = Shared::new();
    world.lock().images = Some(images(&["0000000000000001"], None));
    world.pass().await;
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(world.started(), 1);
    ask_for_audits(
        &world,
        serde_json::json!({
            "allowEnv": ["SEED_KEY"],
            "allow": [{"fingerprint": "0000000000000001", "image": "app", "reason": "until 2.0"}]
        }),
    );
    world.pass().await;
    assert_eq!(world.started(), 2);
    let allowances = world.lock().tasks[1].audit.clone().unwrap().allowances;
    assert!(allowances.variables.contains("SEED_KEY"));
    assert_eq!(allowances.findings[0].image.as_deref(), Some("app"));
    world.lock().images = Some(ImagesReport { allowed: 1, ..images(&[], None) });
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(world.condition(IMAGES_CLEAN).unwrap().0, "True");
    world.advance(86_400);
    world.pass().await;
    assert_eq!(world.started(), 2, "without an interval no run is started for it");
}

#[tokio::test]
async fn a_run_that_says_nothing_of_images_is_not_repeated_for_them() {
    let world = Shared::new();
    ask_for_audits(&world, serde_json::json!({"interval": "2h"}));
    world.pass().await;
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    world.advance(60);
    world.pass().await;
    assert_eq!(world.started(), 1);
    let (truth, reason, _) = world.condition(IMAGES_CLEAN).unwrap();
    assert_eq!((truth.as_str(), reason.as_str()), ("Unknown", "NotAudited"));
}

#[tokio::test]
async fn the_pod_can_find_the_published_values_in_images_and_is_not_told_them() {
    let world = Shared::new();
    world.pass().await;
    let task = world.lock().tasks[0].clone();
    let matcher = keyturn_image_audit::managed::Matcher::new(&task.managed).unwrap();
    let text = SecretValue::new(format!("--label x={}", hex::encode(VALUE.trim())));
    let found: Vec<String> = matcher.find(&text).into_iter().map(|hit| hit.name).collect();
    assert_eq!(found, [TOKEN]);
}

/// Redacts a text with the fingerprints that the last run was given.
fn shown(world: &Shared, text: &str) -> String {
    let task = world.lock().tasks.last().unwrap().clone();
    let matcher = keyturn_image_audit::managed::Matcher::new(&task.managed).unwrap();
    keyturn_image_audit::scrub::scrubbed(&SecretValue::new(text.to_owned()), &matcher)
}

#[tokio::test]
async fn the_pod_can_take_out_of_what_scripts_print_the_published_values_and_administrators_passwords() {
    let world = Shared::new();
    world.lock().admin = Some(Ok("Postgres-Admin-91"));
    world.pass().await;
    let printed = format!("TOKEN={} PGPASSWORD=Postgres-Admin-91", VALUE.trim());
    assert_eq!(shown(&world, &printed), format!("TOKEN=[value:{TOKEN}] PGPASSWORD=[value:administrator]"));
}

#[tokio::test]
async fn a_deployment_goes_on_without_showing_what_is_printed_where_a_password_cannot_be_searched_for() {
    for (admin, why) in [(Err(()), "cannot be read"), (Ok("1234"), "too short")] {
        let world = Shared::new();
        world.lock().admin = Some(admin);
        world.pass().await;
        assert_eq!(world.started(), 1);
        let shown = shown(&world, "password 1234");
        assert!(shown.starts_with("[not shown: ") && shown.contains(why), "{shown}");
    }
}

#[tokio::test]
async fn the_task_of_a_run_is_deleted_once_it_has_ended_and_its_job_stays() {
    let world = Shared::new();
    world.pass().await;
    world.pass().await;
    assert_eq!(world.lock().tasks_deleted, 0, "the pod needs it");
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    world.pass().await;
    let state = world.lock();
    assert_eq!((state.tasks_deleted, state.jobs.len()), (1, 1));
}

#[tokio::test]
async fn a_task_that_could_not_be_deleted_is_tried_again_and_nothing_waits_for_it() {
    let world = Shared::new();
    world.pass().await;
    world.lock().api_server_away = true;
    world.finish(RunResult::Succeeded, Some(Proof::Proven));
    let Requeue::After(wait) = world.pass().await else { panic!("another pass follows") };
    assert!(wait <= TimeDelta::minutes(1), "{wait}");
    assert_eq!(world.status().parameters[0].proof, Proof::Proven, "what was shown is kept all the same");
    world.pass().await;
    assert_eq!(world.lock().tasks_deleted, 1);
}

impl Shared {
    /// The same world, in which everything is proven and an incident about the token was contained at second 1050. The
    /// log window begins at second 500.
    async fn contained() -> Self {
        let world = Self::new();
        world.pass().await;
        world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
        let mut state = world.lock();
        state.now = 1100;
        state.tasks.clear();
        state.secrets[0].status.as_mut().unwrap().rotation = None;
        state.secrets[0].spec.access_log = Some(
            serde_json::from_value(serde_json::json!({"script": "journalctl", "timeout": "3m"})).unwrap(),
        );
        let secret = serde_json::json!({"name": "token", "state": "Contained", "containedAt": at(1050)});
        let incident = serde_json::json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
            "metadata": {"name": "leak", "namespace": "prod", "uid": "uid-of-leak", "creationTimestamp": at(1000)},
            "spec": {"allSecrets": true, "reportedAt": at(1000), "suspectedSince": at(500)},
            "status": {"state": "Contained", "secrets": [secret]},
        });
        state.incidents = vec![serde_json::from_value(incident).unwrap()];
        drop(state);
        world
    }

    fn collections(&self) -> Vec<Task> {
        let state = self.lock();
        state.tasks.iter().filter(|task| task.mode == RunMode::Collect).cloned().collect()
    }
}

#[tokio::test]
async fn log_lines_are_not_collected_with_a_key_that_does_not_allow_it_and_the_host_says_so() {
    let world = Shared::contained().await;
    world.lock().keys.insert("web-key", BTreeMap::new());
    world.pass().await;
    assert_eq!(world.collections().len(), 0);
    assert_eq!(world.reason(STALLED).as_deref(), Some("SecretNotLabelled"));
}

#[tokio::test]
async fn the_log_lines_of_an_incident_are_collected_once_whatever_is_forgotten() {
    let world = Shared::contained().await;
    world.lock().logs = Some(LogsReport { lines: 2, first: vec!["a login".into()], ..LogsReport::default() });
    world.pass().await;
    let tasks = world.collections();
    let collection = tasks[0].collection.as_ref().unwrap();
    assert_eq!((collection.script.as_str(), collection.timeout_seconds), ("journalctl", 180));
    assert_eq!((collection.about.since, collection.about.until), (500, 1051));
    assert!(!serde_json::to_string(&tasks).unwrap().contains(VALUE.trim()), "the pod is told no value");
    assert_eq!(world.reason(DEPLOYING).as_deref(), Some("Collecting"));

    world.end(RunResult::Succeeded, None).await;
    let status = world.status();
    let found = status.access_logs[0].found.as_ref().unwrap();
    assert_eq!((found.lines, found.excerpt.len()), (2, 2), "{found:?}");
    assert_eq!(world.lock().events.last().unwrap().reason, "LogsCollected");
    assert_eq!(status.last_run.unwrap().mode, RunMode::Deploy, "it is no run that proves anything");
    assert_eq!(world.reason(READY).as_deref(), Some("Proven"));

    world.lock().hosts[0].status = None;
    world.pass().await;
    assert_eq!(world.status().access_logs, status.access_logs, "the Job tells it again");

    let log = serde_json::json!({
        "host": "web", "secret": "token", "since": at(500), "until": at(1051), "found": found,
    });
    world.lock().incidents[0].status.as_mut().unwrap().logs = vec![serde_json::from_value(log).unwrap()];
    world.pass().await;
    assert_eq!(world.status().access_logs, [], "the incident has it");
    assert_eq!(world.collections().len(), 1);

    world.lock().incidents[0].spec.suspected_since = Some(at(400));
    world.pass().await;
    assert_eq!(world.collections()[1].collection.as_ref().unwrap().about.since, 400, "the window has grown");
}

#[tokio::test]
async fn every_version_that_ssm_has_is_taken_out_of_log_lines_and_so_is_the_administrators_password() {
    let world = Shared::contained().await;
    {
        let mut world = world.lock();
        world.older = (-40..3).map(|version| (version, Ok("the value long before"))).collect();
        world.older.insert(-41, Ok("the oldest value"));
        world.admin = Some(Ok("Postgres-Admin-91"));
    }
    world.pass().await;
    for secret in [VALUE.trim(), "the value long before", "the oldest value", "Postgres-Admin-91"] {
        let shown = shown(&world, &format!("login failed with {secret}"));
        assert!(!shown.contains(secret) && shown.starts_with("login failed with [value:"), "{shown}");
    }
}

#[tokio::test]
async fn lines_are_collected_and_not_shown_where_an_older_version_cannot_be_searched_for() {
    let many = (-2000..3).map(|version| (version, Ok("the value long before"))).collect();
    for (older, why) in [
        (BTreeMap::from([(1, Err(())), (2, Ok("the value before"))]), "cannot be read"),
        (BTreeMap::from([(1, Ok("hunter2"))]), "too short"),
        (many, "more values"),
    ] {
        let world = Shared::contained().await;
        world.lock().older = older;
        world.pass().await;
        assert_eq!(world.collections().len(), 1);
        let shown = shown(&world, "login failed with hunter2");
        assert!(shown.starts_with("[not shown: ") && shown.contains(why), "{shown}");
    }
}

#[tokio::test]
async fn a_host_that_is_down_is_asked_when_it_is_back_and_nothing_waits_for_that() {
    let world = Shared::contained().await;
    world.pass().await;
    world.end(RunResult::Unreachable, None).await;
    let log = world.status().access_logs[0].clone();
    assert_eq!((log.failures, log.problem.as_deref()), (1, Some("Unreachable: said by the pod")));
    assert_eq!(world.reason(READY).as_deref(), Some("Proven"));
    assert_eq!(world.lock().events.last().unwrap().reason, "CollectFailed");
    world.pass().await;
    assert_eq!(world.collections().len(), 1, "not at once");

    world.lock().now = log.retry_after.unwrap().0.as_second();
    world.pass().await;
    assert_eq!(world.collections().len(), 2);
    // A rotation publishes while the collection is under way.
    world.lock().secrets[0] =
        rotating(published(secret("token", &[TOKEN]), &[(TOKEN, 4, Origin::Rotated)]), Step::Deploy, 1100);
    world.pass().await;
    assert_eq!(world.lock().deleted.len(), 1, "the collection makes room");
}

#[tokio::test]
async fn layers_are_looked_into_once_in_every_interval_and_never_by_a_deployment() {
    let world = Shared::new();
    ask_for_audits(&world, serde_json::json!({"interval": "2h", "layers": true}));
    let layers_of = |run: usize| world.lock().tasks[run].audit.clone().unwrap().layers;
    world.pass().await;
    assert_eq!(layers_of(0), Layers::Skip, "a deployment does not wait for them");
    world.lock().images = Some(images(&[], None));
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    world.pass().await;
    assert_eq!((world.started(), layers_of(1)), (2, Layers::Look));
    assert_eq!(world.status().run.unwrap().mode, RunMode::Verify);
    let mut found = images(&["0000000000000001"], None);
    found.found[0].findings[0].place = "file srv/.env DB_PASSWORD".into();
    found.layers = Some(LayersReport { files: 4711, problem: None });
    world.lock().images = Some(found);
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    assert_eq!(world.status().image_audit.unwrap().layers.unwrap().files, 4711);
    assert!(world.condition(IMAGES_CLEAN).unwrap().2.contains("file srv/.env DB_PASSWORD of app:1"));
    world.advance(2 * 3600 - 60);
    world.pass().await;
    assert_eq!(world.started(), 2);
    world.advance(60);
    world.pass().await;
    assert_eq!((world.started(), layers_of(2)), (3, Layers::Look));
    // A run that reports nothing about layers is not repeated at once, and does not count as an audit.
    world.lock().images = Some(images(&[], None));
    world.end(RunResult::Succeeded, Some(Proof::Proven)).await;
    world.pass().await;
    assert_eq!(world.started(), 3);
    let (truth, reason, message) = world.condition(IMAGES_CLEAN).unwrap();
    assert_eq!((truth.as_str(), reason.as_str()), ("Unknown", "NotAudited"), "{message}");
    assert!(message.contains("layers"), "{message}");
}
