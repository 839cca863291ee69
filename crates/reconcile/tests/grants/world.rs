//! Every port of the reconcilers over one small world in memory. Each checks the rules before it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::consent::USABLE_BY;
use keyturn_api::docker_host::{Proof, RunResult};
use keyturn_api::grants::Grants;
use keyturn_api::{DockerHost, FINALIZER, ManagedSecret, Reason, RotationGrant, SecretIncident, Trouble};
use keyturn_reconcile::deploy::job::job_name;
use keyturn_reconcile::deploy::plan::Run;
use keyturn_reconcile::deploy::report::{DeployKind, Report, ReportParameter};
use keyturn_reconcile::deploy::revision;
use keyturn_reconcile::deploy::task::Task;
use keyturn_reconcile::deploy_jobs::{DeployJob, DeployJobs, JobParameter, JobState};
use keyturn_reconcile::incident::reading::Query;
use keyturn_reconcile::incident::trail::{Page, Trail, TrailError};
use keyturn_reconcile::objects::{Event, Hosts, ObjectError, Objects, Source, Subject};
use keyturn_reconcile::parameter_store::{
    Created, FolderEntry, Kept, Listed, NewVersion, ParameterStore, StoreError,
};
use keyturn_reconcile::ports::{Clock, Excerpt, Inventory, Leadership, Regions, Targets};
use keyturn_reconcile::source::{Random, RandomError};
use keyturn_reconcile::target::{
    Claim, Installs, Issues, Kind, Login, Roles, Sessions, SetUp, SetUpMode, SetsUp, Target, TargetError,
};
use keyturn_rotation::observed::{Acceptance, IssuedLogin, OpenSession, RotationId, Shape, Version};
use keyturn_secret_value::SecretValue;
use kube::ResourceExt;
use kube::api::DynamicObject;

use crate::cases::Numbers;
use crate::rules::{self, Grant, Host, Level, NAMESPACE, STAGING, Secret};

/// A fault between the grants and the reconcilers, which the rules must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// No port is guarded: the reconcilers receive grants of everything.
    Unguarded,
    /// Nothing is read again before an effect: the reconcilers receive the grants from the beginning of the
    /// pass.
    AskedOnce,
}

/// Grants as somebody has read them.
#[derive(Clone)]
struct Reading {
    grants: Arc<Vec<Grant>>,
    /// True once an effect has used it: the next effect needs another reading.
    used: bool,
}

pub(crate) struct Stored {
    value: String,
    version: Version,
}

pub(crate) struct Job {
    host: String,
    listed: DeployJob,
    created: DateTime<Utc>,
}

pub(crate) struct State {
    pub now: DateTime<Utc>,
    pub numbers: Numbers,
    pub planted: Planted,
    pub grants: Arc<Vec<Grant>>,
    pub secrets: BTreeMap<&'static str, (Secret, ManagedSecret)>,
    pub hosts: BTreeMap<&'static str, (Host, DockerHost)>,
    pub incidents: Vec<SecretIncident>,
    pub content: BTreeMap<(String, String), Vec<Stored>>,
    pub keys: BTreeMap<String, String>,
    pub logins: BTreeMap<String, String>,
    issued: Vec<IssuedLogin>,
    fences: BTreeMap<String, (RotationId, DateTime<Utc>)>,
    jobs: Vec<Job>,
    /// Number of calls of this pass after which somebody edits something.
    pub edit_after: Option<usize>,
    pub edit: fn(&mut State),
    pub subject: &'static str,
    calls_of_pass: usize,
    readings: Vec<Reading>,
    begun_with: Option<Arc<Vec<Grant>>>,
    secrets_read: Vec<Secret>,
    hosts_read: Vec<Host>,
    /// True if a token was created whose record may use the same reading.
    has_issued: bool,
    pub calls: BTreeMap<&'static str, usize>,
    pub outside: BTreeMap<&'static str, Vec<String>>,
}

impl State {
    pub(crate) fn new(numbers: Numbers, planted: Planted) -> Self {
        Self {
            now: DateTime::from_timestamp(1_772_323_200, 0).unwrap(),
            numbers,
            planted,
            grants: Arc::default(),
            secrets: BTreeMap::new(),
            hosts: BTreeMap::new(),
            incidents: Vec::new(),
            content: BTreeMap::new(),
            keys: BTreeMap::new(),
            logins: BTreeMap::new(),
            issued: Vec::new(),
            fences: BTreeMap::new(),
            jobs: Vec::new(),
            edit_after: None,
            edit: |_| {},
            subject: "",
            calls_of_pass: 0,
            readings: Vec::new(),
            begun_with: None,
            secrets_read: Vec::new(),
            hosts_read: Vec::new(),
            has_issued: false,
            calls: BTreeMap::new(),
            outside: BTreeMap::new(),
        }
    }

    pub(crate) fn begin_pass(&mut self, subject: &'static str) {
        self.subject = subject;
        self.calls_of_pass = 0;
        self.readings.clear();
        self.begun_with = None;
        self.secrets_read.clear();
        self.hosts_read.clear();
        self.has_issued = false;
    }

    pub(crate) fn put(&mut self, region: &str, path: &str, value: &str, text: &str) {
        let now = self.now;
        let versions = self.content.entry((region.to_owned(), path.to_owned())).or_default();
        let number = versions.last().map_or(0, |last| last.version.number) + 1;
        let version = Version { number, modified: now, text: text.to_owned(), stamp: None, claim: None };
        versions.push(Stored { value: value.to_owned(), version });
    }

    /// Ends every Job successfully, with all its parameters proven.
    pub(crate) fn end_jobs(&mut self) {
        for job in &mut self.jobs {
            if !matches!(job.listed.state, JobState::Running { .. }) {
                continue;
            }
            let proven = |p: &JobParameter| ReportParameter {
                path: p.path.clone(),
                version: p.version,
                proof: Proof::Proven,
                differs_in: Vec::new(),
            };
            let report = Report {
                outcome: RunResult::Succeeded,
                message: String::new(),
                script_exit: None,
                verified: true,
                deploy: Some(DeployKind::Started),
                parameters: job.listed.parameters.iter().map(proven).collect(),
                others: None,
                images: None,
                logs: None,
            };
            job.listed.state = JobState::Ended { report, finished: job.created.max(self.now) };
        }
    }

    /// Counts a call. Somebody may edit something right before it.
    fn call(&mut self, port: &'static str) {
        if self.edit_after == Some(self.calls_of_pass) {
            (self.edit)(self);
        }
        self.calls_of_pass += 1;
        *self.calls.entry(port).or_default() += 1;
    }

    fn violate(&mut self, port: &'static str, what: &str) {
        let subject = self.subject;
        let found = self.outside.entry(port).or_default();
        if found.len() < 4 {
            found.push(format!("{subject}: {port} {what}"));
        }
    }

    /// Checks a read. Any grants and objects that the pass has read may allow it, even its first ones.
    fn reads(&mut self, port: &'static str, what: &str, allows: impl Fn(&Self, &rules::Grants) -> bool) {
        self.call(port);
        if !self.readings.iter().any(|reading| allows(self, &reading.grants)) {
            self.violate(port, what);
        }
    }

    /// Checks an effect. Only the grants as read since the previous effect may allow it.
    fn changes(&mut self, port: &'static str, what: &str, allows: impl Fn(&Self, &rules::Grants) -> bool) {
        self.call(port);
        let right_before = self.readings.last().filter(|reading| !reading.used);
        if !right_before.is_some_and(|reading| allows(self, &reading.grants)) {
            self.violate(port, what);
        }
        if let Some(reading) = self.readings.last_mut() {
            reading.used = true;
        }
    }

    /// True if the secret of the pass may be read, in any form in which the pass has read it.
    fn may_look(&self, grants: &rules::Grants) -> bool {
        let ours = self.secrets_read.iter().filter(|secret| secret.name == self.subject);
        let ways = |secret: &Secret| -> Vec<Option<&Host>> {
            let named: Vec<Option<&Host>> =
                self.hosts_read.iter().filter(|host| Some(host.name) == secret.way()).map(Some).collect();
            if named.is_empty() { vec![None] } else { named }
        };
        ours.into_iter().any(|secret| {
            ways(secret).into_iter().any(|way| rules::secret(grants, secret, way) >= Level::Look)
        })
    }

    /// True if the secret of the pass may be changed, by the secret and the host on its way as they were read
    /// last.
    fn may_change(&self, grants: &rules::Grants) -> bool {
        let Some(secret) = self.secrets_read.iter().rev().find(|secret| secret.name == self.subject) else {
            return false;
        };
        let way = self.hosts_read.iter().rev().find(|host| Some(host.name) == secret.way());
        rules::secret(grants, secret, way) == Level::Change
    }

    fn is_own_record(&self, path: &str) -> bool {
        path.starts_with(&format!("{STAGING}/{NAMESPACE}/{}/", self.subject))
    }

    fn is_of_namespace(&mut self, port: &'static str, namespace: &str) {
        self.call(port);
        if namespace != NAMESPACE {
            self.violate(port, namespace);
        }
    }
}

#[derive(Clone)]
pub(crate) struct World(pub Arc<Mutex<State>>);

impl World {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Clock for World {
    fn now(&self) -> DateTime<Utc> {
        self.lock().now
    }
}

impl Leadership for World {
    fn is_leader(&self) -> bool {
        true
    }
}

impl Random for World {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), RandomError> {
        let mut state = self.lock();
        buffer.fill_with(|| u8::try_from(state.numbers.below(256)).unwrap());
        Ok(())
    }
}

// Parameter Store.

struct Store {
    world: World,
    region: String,
}

impl Regions for World {
    fn store(&self, region: &str) -> Arc<dyn ParameterStore> {
        self.lock().reads("Regions::store", region, |_, grants| rules::region(grants, region));
        Arc::new(Store { world: self.clone(), region: region.to_owned() })
    }
}

impl Store {
    fn at(&self, path: &str) -> (String, String) {
        (self.region.clone(), path.to_owned())
    }

    fn reads(&self, port: &'static str, path: &str) -> MutexGuard<'_, State> {
        let mut state = self.world.lock();
        state.reads(port, path, |state, grants| {
            let is_granted = rules::parameter(grants, path, &self.region, None, None) >= Level::Look;
            is_granted
                || state.is_own_record(path.trim_end_matches('/')) && state.may_look(grants)
                || state.is_own_record(path) && state.may_look(grants)
        });
        state
    }

    fn changes(&self, port: &'static str, path: &str, key: Option<&str>) -> MutexGuard<'_, State> {
        let mut state = self.world.lock();
        if state.has_issued && state.is_own_record(path) {
            state.has_issued = false;
            state.call(port);
            return state;
        }
        state.changes(port, path, |state, grants| {
            // A parameter may stay under its present key.
            let key = key.filter(|key| state.keys.get(path).is_none_or(|kept| kept != key));
            let is_granted = rules::parameter(grants, path, &self.region, key, None) == Level::Change;
            (is_granted || state.is_own_record(path)) && state.may_change(grants)
        });
        state
    }
}

#[async_trait]
impl ParameterStore for Store {
    async fn list(&self, _: &[String]) -> Result<Vec<Listed>, StoreError> {
        unreachable!("only the shared inventory lists")
    }

    async fn read_folder(&self, folder: &str) -> Result<Vec<FolderEntry>, StoreError> {
        let state = self.reads("ParameterStore::read_folder", folder);
        let of = |path: &str| path.starts_with(folder);
        let here = state.content.iter().filter(|((region, path), _)| *region == self.region && of(path));
        let staged = here.filter_map(|((_, path), versions)| {
            let latest = versions.last()?;
            let value = SecretValue::new(latest.value.clone());
            Some(FolderEntry { path: path.clone(), modified: latest.version.modified, value })
        });
        Ok(staged.collect())
    }

    async fn kept(&self, path: &str) -> Result<Kept, StoreError> {
        let state = self.reads("ParameterStore::kept", path);
        let Some(versions) = state.content.get(&self.at(path)) else { return Ok(Kept::default()) };
        let shape = Shape {
            kind: "SecureString".to_owned(),
            key_id: state.keys.get(path).cloned(),
            pattern: None,
            is_advanced: false,
            labels_in_the_way: Vec::new(),
        };
        let versions = versions.iter().map(|stored| stored.version.clone()).collect();
        Ok(Kept { versions, shape: Some(shape) })
    }

    async fn read(&self, path: &str, version: Option<i64>) -> Result<Option<SecretValue>, StoreError> {
        let state = self.reads("ParameterStore::read", path);
        let Some(versions) = state.content.get(&self.at(path)) else { return Ok(None) };
        let found = match version {
            Some(number) => versions.iter().find(|stored| stored.version.number == number),
            None => versions.last(),
        };
        Ok(found.map(|stored| SecretValue::new(stored.value.clone())))
    }

    async fn create(&self, new: NewVersion<'_>) -> Result<Created, StoreError> {
        let mut state = self.changes("ParameterStore::create", new.path, new.kms_key_id);
        if state.content.contains_key(&self.at(new.path)) {
            return Ok(Created::Exists);
        }
        write(&mut state, &self.region, new);
        Ok(Created::Created)
    }

    async fn overwrite(&self, new: NewVersion<'_>) -> Result<i64, StoreError> {
        let mut state = self.changes("ParameterStore::overwrite", new.path, new.kms_key_id);
        Ok(write(&mut state, &self.region, new))
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let mut state = self.changes("ParameterStore::delete", path, None);
        state.content.remove(&self.at(path));
        Ok(())
    }
}

fn write(state: &mut State, region: &str, new: NewVersion<'_>) -> i64 {
    state.put(region, new.path, new.value.expose(), &new.text);
    let key = (region.to_owned(), new.path.to_owned());
    let Some(written) = state.content.get_mut(&key).and_then(|versions| versions.last_mut()) else {
        return 0;
    };
    written.version.stamp = new.stamp;
    written.version.number
}

impl Inventory for World {
    fn is_coming(&self, _region: &str) -> bool {
        false
    }

    fn excerpt(&self, region: &str, paths: &[String], folder: &str) -> Option<Excerpt> {
        let mut state = self.lock();
        let at = |path: &String| (region.to_owned(), path.clone());
        for path in paths {
            state.reads("Inventory::excerpt", path, |_, grants| {
                rules::parameter(grants, path, region, None, None) >= Level::Look
            });
        }
        let own = folder.trim_end_matches('/').to_owned();
        state.reads("Inventory::excerpt", folder, |state, grants| {
            state.is_own_record(&format!("{own}/")) && state.may_look(grants)
        });
        let latest = |path: &String| {
            let versions = state.content.get(&at(path));
            (path.clone(), versions.and_then(|versions| versions.last()).map(|stored| stored.version.clone()))
        };
        let staged = state.content.keys().filter(|(of, path)| of == region && path.starts_with(folder));
        Some(Excerpt {
            taken_at: state.now,
            latest: paths.iter().map(latest).collect(),
            staged: staged.map(|(_, path)| path.clone()).collect(),
        })
    }
}

// Targets.

struct SimTarget {
    world: World,
    owner: String,
    is_account: bool,
    has_admin: bool,
    roles: Vec<String>,
}

#[async_trait]
impl Targets for World {
    async fn open(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<Arc<dyn Target>>, TargetError> {
        let generate = &object.spec.generate;
        if generate.postgres.is_none() && generate.cloudflare_r2.is_none() {
            return Ok(None);
        }
        self.lock().reads("Targets::open", region, State::may_look);
        let postgres = generate.postgres.as_ref();
        Ok(Some(Arc::new(SimTarget {
            world: self.clone(),
            owner: format!("sim/{NAMESPACE}/{}", object.name_any()),
            is_account: generate.cloudflare_r2.is_some(),
            has_admin: postgres
                .is_some_and(|spec| spec.admin_secret_ref.is_some() || spec.admin_parameter.is_some()),
            roles: postgres
                .map(|spec| spec.roles().into_iter().map(str::to_owned).collect())
                .unwrap_or_default(),
        })))
    }

    async fn admin_secret(
        &self,
        object: &ManagedSecret,
        region: &str,
    ) -> Result<Option<SecretValue>, TargetError> {
        let (generate, name) = (&object.spec.generate, object.name_any());
        if generate.postgres.is_none() && generate.cloudflare_r2.is_none() {
            return Ok(None);
        }
        self.lock().reads("Targets::admin_secret", region, |state, grants| {
            let mut known = state.secrets_read.iter().filter(|known| known.name == name);
            known.any(|known| rules::secret(grants, known, None) >= Level::Look)
        });
        Ok(Some(SecretValue::new("the administrator's".to_owned())))
    }
}

#[async_trait]
impl Target for SimTarget {
    async fn try_login(&self, login: &Login) -> Acceptance {
        let mut state = self.world.lock();
        state.reads("Target::try_login", &login.username, State::may_look);
        let known = state.logins.get(&login.username);
        if known.is_some_and(|password| password == login.password.expose()) {
            return Acceptance::Accepted;
        }
        let refused = Trouble::permanent(Reason::LoginRefused, "password authentication failed");
        Acceptance::Refused(refused)
    }

    async fn observe(&self) -> Result<Roles, TargetError> {
        let mut state = self.world.lock();
        state.reads("Target::look", &self.owner, State::may_look);
        if !self.is_account && !self.has_admin {
            return Ok(Roles::default());
        }
        let mut can_log_in: BTreeSet<String> = state.logins.keys().cloned().collect();
        if self.is_account {
            let issued = Some(state.issued.clone());
            return Ok(Roles { can_log_in, issued, ..Roles::default() });
        }
        can_log_in.retain(|role| self.roles.contains(role));
        Ok(Roles { can_log_in, fences: state.fences.clone(), fenced: true, ..Roles::default() })
    }

    fn kind(&self) -> Kind<'_> {
        if self.is_account { Kind::Issues(self) } else { Kind::Installs(self) }
    }
}

#[async_trait]
impl Issues for SimTarget {
    async fn issue(&self, id: RotationId) -> Result<Login, TargetError> {
        let mut state = self.world.lock();
        state.changes("Target::issue", &self.owner, State::may_change);
        state.has_issued = true;
        let number = state.issued.len();
        let username = format!("{number:032x}");
        let password = format!("{:064x}", number + 7);
        let at = state.now;
        state.issued.push(IssuedLogin { username: username.clone(), id, at, expires_at: None });
        state.logins.insert(username.clone(), password.clone());
        Ok(Login { username, password: SecretValue::new(password) })
    }

    async fn retire(&self, _: RotationId, username: &str, _: Claim) -> Result<(), TargetError> {
        let mut state = self.world.lock();
        state.changes("Target::retire", username, State::may_change);
        state.logins.remove(username);
        state.issued.retain(|issued| issued.username != username);
        Ok(())
    }
}

#[async_trait]
impl Installs for SimTarget {
    async fn install(&self, id: RotationId, login: &Login, _own: &[Login]) -> Result<(), TargetError> {
        let mut state = self.world.lock();
        state.changes("Target::install", &login.username, State::may_change);
        let changed_at = state.now;
        state.logins.insert(login.username.clone(), login.password.expose().to_owned());
        state.fences.insert(login.username.clone(), (id, changed_at));
        Ok(())
    }

    async fn retire(&self, id: RotationId, username: &str) -> Result<(), TargetError> {
        let mut state = self.world.lock();
        state.changes("Target::retire", username, State::may_change);
        let changed_at = state.now;
        state.logins.remove(username);
        state.fences.insert(username.to_owned(), (id, changed_at));
        Ok(())
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        Some(self)
    }

    fn sets_up(&self) -> Option<&dyn SetsUp> {
        Some(self)
    }
}

#[async_trait]
impl Sessions for SimTarget {
    async fn end(&self, username: &str, _: Option<DateTime<Utc>>) -> Result<(), TargetError> {
        self.world.lock().changes("Target::end_sessions", username, State::may_change);
        Ok(())
    }

    async fn list_own(&self, own: &Login) -> Result<Vec<OpenSession>, TargetError> {
        let mut state = self.world.lock();
        state.reads("Target::own_sessions", &own.username, State::may_look);
        Ok(vec![OpenSession {
            username: own.username.clone(),
            client: "web".to_owned(),
            since: Some(state.now - TimeDelta::days(30)),
        }])
    }

    async fn end_own(&self, own: &Login, _: DateTime<Utc>) -> Result<(), TargetError> {
        self.world.lock().changes("Target::end_own_sessions", &own.username, State::may_change);
        Ok(())
    }
}

#[async_trait]
impl SetsUp for SimTarget {
    async fn set_up(&self, mode: SetUpMode) -> Result<SetUp, TargetError> {
        let mut state = self.world.lock();
        match mode {
            SetUpMode::Plan => state.reads("Target::set_up", &self.owner, State::may_look),
            SetUpMode::Apply => state.changes("Target::set_up", &self.owner, State::may_change),
        }
        Ok(SetUp::default())
    }
}

// Jobs and CloudTrail.

#[async_trait]
impl DeployJobs for World {
    async fn of_host(&self, host: &DockerHost) -> Result<Vec<DeployJob>, ObjectError> {
        let mut state = self.lock();
        state.is_of_namespace("DeployJobs::of_host", &host.namespace().unwrap_or_default());
        let own = state.jobs.iter().filter(|job| job.host == host.name_any());
        Ok(own.map(|job| job.listed.clone()).collect())
    }

    async fn start(&self, host: &DockerHost, run: &Run, task: &Task) -> Result<String, ObjectError> {
        let name = job_name(&host.name_any(), &task.revision, task.mode, task.attempt);
        let mut state = self.lock();
        state.changes("DeployJobs::start", &name, |state, grants| {
            let host = state.hosts_read.iter().rev().find(|host| host.name == state.subject);
            let goes_there = host.is_some_and(|host| rules::host(grants, host) == Level::Change);
            let may_have = |secret: &str, path: Option<&str>| {
                let mut known = state.secrets_read.iter().filter(|known| known.name == secret);
                known.any(|known| {
                    path.is_none_or(|path| known.parameters.iter().any(|(own, _)| *own == path))
                        && rules::secret(grants, known, None) == Level::Change
                })
            };
            let parameters = run.parameters.iter().all(|wish| may_have(&wish.secret, Some(&wish.path)));
            let about = run.collection.as_ref().is_none_or(|asked| may_have(&asked.about.secret, None));
            goes_there && parameters && about
        });
        let parameters = run.parameters.iter().map(|wish| JobParameter {
            path: wish.path.clone(),
            version: wish.version,
            published_at: wish.published_at.timestamp(),
        });
        let listed = DeployJob {
            name: name.clone(),
            mode: task.mode,
            revision: task.revision.clone(),
            attempt: task.attempt,
            parameters: parameters.collect(),
            generation: host.metadata.generation.unwrap_or_default(),
            target: revision::target(&host.spec),
            audit: revision::audit_settings(&host.spec),
            about: run.collection.as_ref().map(|collection| collection.about.clone()),
            layers: run.layers,
            created: state.now,
            holds_task: false,
            state: JobState::Running { trouble: None },
        };
        let created = state.now;
        state.jobs.push(Job { host: host.name_any(), listed, created });
        Ok(name)
    }

    async fn delete_task(&self, host: &DockerHost, _job: &str) -> Result<(), ObjectError> {
        self.lock().is_of_namespace("DeployJobs::delete_task", &host.namespace().unwrap_or_default());
        Ok(())
    }

    // keyturn has created this Job itself, so only the namespace is checked.
    async fn delete(&self, host: &DockerHost, job: &str) -> Result<(), ObjectError> {
        let mut state = self.lock();
        state.is_of_namespace("DeployJobs::delete", &host.namespace().unwrap_or_default());
        state.jobs.retain(|known| known.listed.name != job);
        Ok(())
    }
}

#[async_trait]
impl Trail for World {
    async fn page(&self, query: &Query, _token: Option<&str>) -> Result<Page, TrailError> {
        self.lock().reads("Trail::page", &query.region, |state, grants| {
            state.secrets_read.iter().any(|secret| {
                secret.region() == query.region && rules::secret(grants, secret, None) >= Level::Look
            })
        });
        Ok(Page::default())
    }
}

// The API server.

#[async_trait]
impl Objects for World {
    async fn managed_secret(
        &self,
        namespace: &str,
        name: &str,
        _: Source,
    ) -> Result<Option<ManagedSecret>, ObjectError> {
        let mut state = self.lock();
        state.is_of_namespace("Objects::managed_secret", namespace);
        let Some((secret, object)) = state.secrets.get(name).cloned() else { return Ok(None) };
        state.secrets_read.push(secret);
        Ok(Some(object))
    }

    async fn docker_host(&self, namespace: &str, name: &str) -> Result<Option<DockerHost>, ObjectError> {
        let mut state = self.lock();
        state.is_of_namespace("Objects::docker_host", namespace);
        let Some((host, object)) = state.hosts.get(name).cloned() else { return Ok(None) };
        state.hosts_read.push(host);
        Ok(Some(object))
    }

    async fn secret_incident(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<SecretIncident>, ObjectError> {
        let mut state = self.lock();
        state.is_of_namespace("Objects::secret_incident", namespace);
        Ok(state.incidents.iter().find(|incident| incident.name_any() == name).cloned())
    }

    async fn secret_incidents(
        &self,
        namespace: &str,
        _source: Source,
    ) -> Result<Vec<SecretIncident>, ObjectError> {
        let mut state = self.lock();
        state.is_of_namespace("Objects::secret_incidents", namespace);
        Ok(state.incidents.clone())
    }

    async fn write_incident_status(&self, object: &SecretIncident) -> Result<SecretIncident, ObjectError> {
        let mut state = self.lock();
        let known = state.incidents.iter_mut().find(|incident| incident.name_any() == object.name_any());
        let known = known.ok_or_else(|| ObjectError::Gone(object.name_any()))?;
        known.status.clone_from(&object.status);
        Ok(known.clone())
    }

    async fn grants(&self, source: Source) -> Result<Arc<Grants>, ObjectError> {
        let mut state = self.lock();
        state.call("Objects::grants");
        let current = state.grants.clone();
        let first = state.begun_with.get_or_insert(current.clone()).clone();
        let shown = match state.planted {
            Planted::Nothing => current.clone(),
            Planted::Unguarded => Arc::new(crate::cases::everything()),
            Planted::AskedOnce => first,
        };
        // No effect may be based on a cache.
        state.readings.push(Reading { grants: current, used: source == Source::Cache });
        Ok(Arc::new(given(&shown)))
    }

    async fn managed_secrets(&self, namespace: &str) -> Result<Vec<ManagedSecret>, ObjectError> {
        let mut state = self.lock();
        state.is_of_namespace("Objects::managed_secrets", namespace);
        let models: Vec<Secret> = state.secrets.values().map(|(secret, _)| secret.clone()).collect();
        // The subject of a pass is judged as it was read individually.
        let subject = state.subject;
        state.secrets_read.extend(models.into_iter().filter(|secret| secret.name != subject));
        Ok(state.secrets.values().map(|(_, object)| object.clone()).collect())
    }

    async fn rivals(&self, object: &ManagedSecret) -> Result<Vec<ManagedSecret>, ObjectError> {
        let state = self.lock();
        let others = state.secrets.values().map(|(_, other)| other);
        Ok(others.filter(|other| other.metadata.uid != object.metadata.uid).cloned().collect())
    }

    async fn docker_hosts(&self, namespace: &str, _source: Source) -> Result<Hosts, ObjectError> {
        let mut state = self.lock();
        state.is_of_namespace("Objects::docker_hosts", namespace);
        let decoded = state.hosts.values().map(|(_, object)| object.clone()).collect();
        Ok(Hosts { decoded, undecodable: Vec::new() })
    }

    async fn secret_labels(
        &self,
        namespace: &str,
        _name: &str,
    ) -> Result<Option<BTreeMap<String, String>>, ObjectError> {
        self.lock().is_of_namespace("Objects::secret_labels", namespace);
        Ok(Some(BTreeMap::from([(USABLE_BY.to_owned(), "ssh".to_owned())])))
    }

    async fn write_secret_status(&self, object: &ManagedSecret) -> Result<ManagedSecret, ObjectError> {
        let mut state = self.lock();
        let known = state.secrets.get_mut(object.name_any().as_str());
        let (_, known) = known.ok_or_else(|| ObjectError::Gone(object.name_any()))?;
        known.status.clone_from(&object.status);
        Ok(known.clone())
    }

    async fn write_host_status(&self, object: &DockerHost) -> Result<DockerHost, ObjectError> {
        let mut state = self.lock();
        let known = state.hosts.get_mut(object.name_any().as_str());
        let (_, known) = known.ok_or_else(|| ObjectError::Gone(object.name_any()))?;
        known.status.clone_from(&object.status);
        Ok(known.clone())
    }

    async fn set_finalizer(
        &self,
        object: &ManagedSecret,
        present: bool,
    ) -> Result<ManagedSecret, ObjectError> {
        let mut state = self.lock();
        let known = state.secrets.get_mut(object.name_any().as_str());
        let (_, known) = known.ok_or_else(|| ObjectError::Gone(object.name_any()))?;
        known.metadata.finalizers = present.then(|| vec![FINALIZER.to_owned()]);
        let written = known.clone();
        if !present && written.metadata.deletion_timestamp.is_some() {
            state.secrets.remove(object.name_any().as_str());
        }
        Ok(written)
    }

    async fn write_event(&self, _: Subject<'_>, _: Event) {}
}

/// Returns the grants as the API server lists them.
fn given(grants: &[Grant]) -> Grants {
    let object = |(number, grant): (usize, &Grant)| -> DynamicObject {
        serde_json::from_value(grant.written(number)).unwrap()
    };
    Grants::of(grants.iter().enumerate().map(object).collect())
}

/// Checks that the reconcilers receive grants in the format of the schema.
#[test]
fn what_is_written_is_read() {
    let written = crate::cases::everything()[0].written(0);
    serde_json::from_value::<RotationGrant>(written).unwrap();
}
