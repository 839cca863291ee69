//! Performs one act of the protocol and updates the evidence with its result.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use keyturn_api::ManagedSecret;
use keyturn_api::managed_secret::ParameterSpec;
use keyturn_rotation::observed::{
    Acceptance, Author, Credential, Observed, Parameter, Record, RotationId, Seen, Stamp, Trigger, Version,
};
use keyturn_rotation::protocol::{Act, has_come_back, made_at};
use keyturn_rotation::request;
use keyturn_secret_value::SecretValue;

use crate::managed_secret::Ports;
use crate::managed_secret::observe::pairs::{self, InUse};
use crate::managed_secret::observe::{Place, logins};
use crate::objects::ObjectError;
use crate::parameter_store::records::{self, RecordError};
use crate::parameter_store::{Created, NewVersion, ParameterStore, StoreError};
use crate::source::{self, GenerateError, Turn};
use crate::target::{Claim, Kind, Login, SetUpMode, Target, TargetError};

#[derive(Debug, thiserror::Error)]
pub(in crate::managed_secret) enum ActError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A target failed, or a login is refused there, cannot be read, or cannot be checked.
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(
        "SSM no longer keeps version {version} of {path}, the value before the failed rotation: the rotation cannot \
         be rolled back, and continues when the deployment succeeds"
    )]
    PreviousGone { path: String, version: i64 },
}

/// Result of an act.
pub(super) enum Done {
    /// The evidence was updated from the answer: decide again.
    Applied,
    /// The object in Kubernetes was changed as well.
    Object(Box<ManagedSecret>),
    /// The answer leaves the result open, for example because somebody else wrote at the same time: read again before
    /// deciding.
    ReadAgain(Option<Newer>),
}

/// State that Parameter Store must have, according to the answer to a write. A read that does not show it is stale.
/// Acting on a stale read would repeat the write again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::managed_secret) enum Newer {
    Record(RotationId),
    Abort(RotationId),
    /// The record of this id was deleted.
    Gone(RotationId),
    Version {
        path: String,
        number: i64,
    },
}

impl Newer {
    pub(in crate::managed_secret) fn is_shown_by(&self, observed: &Observed, owner: &str) -> bool {
        match self {
            // A record that does not exist any more was closed in the meantime.
            Newer::Record(id) => observed.highest_id(owner) >= *id,
            Newer::Abort(id) => observed.aborts.contains_key(id),
            Newer::Gone(id) => !observed.records.contains_key(id),
            Newer::Version { path, number } => {
                observed.parameters.iter().any(|p| p.path == *path && p.latest_number() >= *number)
            }
        }
    }
}

pub(super) struct Actor<'a> {
    pub ports: &'a Ports,
    pub store: &'a dyn ParameterStore,
    /// The target that has to accept the value; `None` if there is none, or if it could not be opened.
    pub target: Option<&'a dyn Target>,
    pub place: &'a Place<'a>,
    pub object: &'a ManagedSecret,
    pub now: DateTime<Utc>,
}

impl Actor<'_> {
    pub(super) async fn perform(&self, act: &Act, observed: &mut Observed) -> Result<Done, ActError> {
        match act {
            Act::Hold => {
                Ok(Done::Object(Box::new(self.ports.objects.set_finalizer(self.object, true).await?)))
            }
            Act::Release | Act::Abandon => {
                Ok(Done::Object(Box::new(self.ports.objects.set_finalizer(self.object, false).await?)))
            }
            // A preflight request is kept in the status only, which the reconciler writes.
            Act::AskPreflight => Ok(Done::Applied),
            Act::Record { .. } => self.record(act, observed).await,
            Act::Create { id, path, request } => self.create(*id, path, request.as_deref(), observed).await,
            Act::RecordRollBack { .. } => self.record_roll_back(act, observed).await,
            Act::ProveWritable { path } => self.prove_writable(path, observed).await,
            Act::Install { id } => self.install(*id, observed).await,
            Act::EndSessions { username, opened_before } => {
                self.end_sessions(username, *opened_before, observed).await
            }
            Act::SetUp | Act::Retire { .. } | Act::SweepOrphan { .. } => {
                let Some(target) = self.target else { return Ok(Done::ReadAgain(None)) };
                change_target(target, act, observed).await
            }
            Act::Promote { id, path, expected } => self.promote(*id, path, *expected, observed).await,
            Act::MarkAbort { id } => {
                let path = self.abort_path(*id);
                let value = SecretValue::new(records::ABORT_VALUE.to_owned());
                self.store.create(self.staged(&path, &value)).await?;
                Ok(Done::ReadAgain(Some(Newer::Abort(*id))))
            }
            Act::DeleteRecord { id } => {
                let path = self.record_path(*id);
                self.store.delete(&path).await?;
                // The target's answers are about the login of this record. If the record had reappeared, that is not
                // the published login. For a login that the target issued, the answers lack its lifetime. So the target
                // has to be asked again.
                let came_back =
                    observed.records.get(id).is_some_and(|record| has_come_back(observed, record));
                if came_back || source::issued(&self.object.spec.generate).is_some() {
                    observed.target = None;
                }
                observed.records.remove(id);
                observed.mismatched.clear();
                Ok(Done::Applied)
            }
            Act::SweepMarker { id } => {
                let path = self.abort_path(*id);
                self.store.delete(&path).await?;
                observed.aborts.remove(id);
                Ok(Done::Applied)
            }
            Act::DeleteParameter { path } => {
                self.store.delete(path).await?;
                if let Some(parameter) = observed.parameters.iter_mut().find(|p| p.path == *path) {
                    parameter.versions.clear();
                }
                Ok(Done::Applied)
            }
        }
    }

    fn record_path(&self, id: RotationId) -> String {
        records::record_path(self.place.staging, self.place.namespace, self.place.name, id)
    }

    fn abort_path(&self, id: RotationId) -> String {
        records::abort_path(self.place.staging, self.place.namespace, self.place.name, id)
    }

    /// Performs [`Act::Record`]: generates a value, or lets the target issue one.
    async fn record(&self, act: &Act, observed: &mut Observed) -> Result<Done, ActError> {
        let Act::Record { id, trigger, request, base, hosts, keep_previous } = act else {
            return Ok(Done::ReadAgain(None));
        };
        let base_at = taken_at(observed);
        let record = |(values, credential)| Record {
            id: *id,
            trigger: *trigger,
            at: self.now,
            request: request.clone(),
            values,
            credential,
            base: base.clone(),
            base_at: base_at.clone(),
            hosts: hosts.clone(),
            kept: BTreeSet::new(),
        };
        let Some(issued) = source::issued(&self.object.spec.generate) else {
            let drawn = self.draw(observed, *keep_previous).await?;
            return self.create_record(record(drawn), observed).await;
        };
        let Some((target, issuer)) = self.target.and_then(|target| Some((target, target.kind().issues()?)))
        else {
            return Ok(Done::ReadAgain(None));
        };
        let all = *trigger == Trigger::Incident;
        let in_use = pairs::in_use(self.object, self.store, target, observed, all).await?;
        let in_use = in_use.map_err(TargetError::from)?;
        // A record that is too large has to be found before the target issues a login.
        records::encode(&record(self.rendered(issued.longest_login(), &in_use)?))?;
        // The evidence about the target's logins is outdated from here on, even if issuing fails.
        if let Some(seen) = &mut observed.target {
            seen.issued = None;
        }
        let issued = issuer.issue(*id).await?;
        self.create_record(record(self.rendered(issued, &in_use)?), observed).await
    }

    /// Performs [`Act::RecordRollBack`].
    async fn record_roll_back(&self, act: &Act, observed: &mut Observed) -> Result<Done, ActError> {
        let Act::RecordRollBack { id, failed, base, hosts, kept } = act else {
            return Ok(Done::ReadAgain(None));
        };
        let Some(failed) = observed.records.get(failed) else { return Ok(Done::ReadAgain(None)) };
        let record = Record {
            id: *id,
            trigger: Trigger::RollBack,
            at: self.now,
            request: failed.request.clone(),
            values: self.previous_values(&failed.base).await?,
            credential: self.previous_credential(failed, observed).await?,
            base: base.clone(),
            base_at: taken_at(observed),
            hosts: hosts.clone(),
            kept: kept.clone(),
        };
        self.create_record(record, observed).await
    }

    fn staged<'v>(&'v self, path: &'v str, value: &'v SecretValue) -> NewVersion<'v> {
        NewVersion {
            path,
            value,
            text: format!("Rotation of {}, kept by keyturn while it runs", self.place.owner),
            stamp: None,
            kms_key_id: self.object.spec.ssm.kms_key_id.as_deref(),
        }
    }

    /// Returns the KMS key for the next version: the key of the spec, or the customer key that the parameter has now.
    /// For a Put without a key, SSM takes the account's default key, and the readers of the parameter may have no
    /// right to use that one. So a rotation keeps the present key: it may run without a person who could correct the
    /// key, for example in an incident.
    fn key_for(&self, parameter: &Parameter) -> Option<String> {
        let kept = || parameter.shape.as_ref().and_then(|shape| shape.customer_key()).map(str::to_owned);
        self.object.spec.ssm.kms_key_id.clone().or_else(kept)
    }

    async fn install(&self, id: RotationId, observed: &mut Observed) -> Result<Done, ActError> {
        let (Some(target), Some(record)) = (self.target, observed.records.get(&id)) else {
            return Ok(Done::ReadAgain(None));
        };
        let Kind::Installs(installer) = target.kind() else { return Ok(Done::ReadAgain(None)) };
        let Some(login) = record.credential.as_ref().map(logins::login_of) else {
            return Ok(Done::ReadAgain(None));
        };
        let own = logins::own_logins(self.object, self.store, observed, &login.username).await?;
        installer.install(id, &login, &own).await?;
        let answer = target.try_login(&login).await;
        if let Acceptance::Refused(problem) = answer {
            return Err(TargetError::from(problem).into());
        }
        if let Some(seen) = &mut observed.target {
            seen.recorded = Some(answer);
            seen.changed_since = true;
            if seen.fenced {
                seen.fences.insert(login.username, (id, self.now));
            }
        }
        Ok(Done::Applied)
    }

    /// Ends sessions as the administrator, or as the role itself if there is no administrator.
    async fn end_sessions(
        &self,
        username: &str,
        opened_before: Option<DateTime<Utc>>,
        observed: &Observed,
    ) -> Result<Done, ActError> {
        let Some(sessions) = self.target.and_then(|target| target.kind().sessions()) else {
            return Ok(Done::ReadAgain(None));
        };
        let newest = observed.records.values().next_back().and_then(|record| record.credential.as_ref());
        let own = newest.filter(|own| own.username == username && logins::changes_itself(self.object));
        match (own, opened_before) {
            (Some(own), Some(before)) => sessions.end_own(&logins::login_of(own), before).await?,
            _ => sessions.end(username, opened_before).await?,
        }
        Ok(Done::ReadAgain(None))
    }

    /// Proves that keyturn may write the parameter: sends a Put of the published value that does not overwrite an
    /// existing parameter. SSM answers that the parameter exists only if the caller may write it, and changes nothing.
    /// If somebody deletes the parameter at that moment, the Put creates it again with the published value.
    async fn prove_writable(&self, path: &str, observed: &mut Observed) -> Result<Done, ActError> {
        let parameter = observed.parameters.iter().find(|p| p.path == path);
        let key = parameter.and_then(|parameter| self.key_for(parameter));
        let latest = parameter.and_then(Parameter::latest);
        let Some(Version { number, text, stamp, .. }) = latest.map(|seen| seen.version.clone()) else {
            return Ok(Done::ReadAgain(None));
        };
        let Some(value) = self.store.read(path, Some(number)).await? else {
            return Ok(Done::ReadAgain(None));
        };
        let new = NewVersion {
            path,
            value: &value,
            // If somebody deletes the parameter at this moment, the Put creates version 1 with our stamp, so that it
            // counts as ours.
            text,
            stamp: stamp.map(|stamp| Stamp { version: 1, ..stamp }),
            kms_key_id: key.as_deref(),
        };
        match self.store.create(new).await? {
            Created::Exists => {
                observed.writable.insert(path.to_owned());
                Ok(Done::Applied)
            }
            Created::Created => {
                Ok(Done::ReadAgain(Some(Newer::Version { path: path.to_owned(), number: 1 })))
            }
        }
    }

    /// Returns the login that the failed rotation replaced; the rollback restores it.
    async fn previous_credential(
        &self,
        failed: &Record,
        observed: &Observed,
    ) -> Result<Option<Credential>, ActError> {
        let Some(credential) = &failed.credential else { return Ok(None) };
        let previous = logins::published_login(self.object, self.store, observed, Some(&failed.base)).await?;
        let previous = previous.ok_or_else(|| TargetError::from(logins::unreadable(self.object)))?;
        Ok(Some(Credential {
            username: previous.username,
            password: previous.password,
            replaces: Some(credential.username.clone()),
            accepted: BTreeSet::new(),
        }))
    }

    /// Generates one value and renders it for every parameter. If a target has to accept the value, also returns the
    /// login that it belongs to.
    async fn draw(
        &self,
        observed: &Observed,
        keep_previous: bool,
    ) -> Result<(BTreeMap<String, SecretValue>, Option<Credential>), ActError> {
        let spec = &self.object.spec;
        let source = source::of(&spec.generate)?;
        let previous = match spec.ssm.parameters.first() {
            Some(first) if keep_previous && source.keeps() > 0 => {
                // Read the version on which the decision was based. A value that somebody has written since must not be
                // kept in the ring.
                let seen = observed.parameters.iter().find(|p| p.path == first.path);
                let version = seen.map(Parameter::latest_number).filter(|number| *number > 0);
                let published = match version {
                    Some(version) => self.store.read(&first.path, Some(version)).await?,
                    None => None,
                };
                published.and_then(|published| source.extract(first, &published))
            }
            _ => None,
        };
        let value = {
            let mut random = self.ports.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            source.draw(previous.as_ref(), random.as_mut())?
        };
        let turn = match source::installed(&spec.generate) {
            Some(source) => {
                let published = logins::published_login(self.object, self.store, observed, None).await?;
                let published = published.map(|login| login.username);
                Some(source.turn(published, observed).map_err(TargetError::from)?)
            }
            None => None,
        };
        let username = turn.as_ref().map(|turn| turn.username.as_str());
        let text = |parameter: &ParameterSpec| source.render(parameter.value.as_deref(), &value, username);
        let values = spec.ssm.parameters.iter().map(|p| (p.path.clone(), text(p))).collect();
        let credential = turn.map(|Turn { username, replaces }| Credential {
            username,
            password: value.duplicate(),
            replaces,
            accepted: BTreeSet::new(),
        });
        Ok((values, credential))
    }

    /// Renders an issued login into the text of every parameter.
    fn rendered(
        &self,
        login: Login,
        in_use: &InUse,
    ) -> Result<(BTreeMap<String, SecretValue>, Option<Credential>), ActError> {
        let spec = &self.object.spec;
        let source = source::of(&spec.generate)?;
        let text =
            |p: &ParameterSpec| source.render(p.value.as_deref(), &login.password, Some(&login.username));
        let values = spec.ssm.parameters.iter().map(|p| (p.path.clone(), text(p))).collect();
        let credential = Credential {
            username: login.username,
            password: login.password,
            replaces: in_use.replaces.clone(),
            accepted: in_use.accepted.clone(),
        };
        Ok((values, Some(credential)))
    }

    async fn previous_values(
        &self,
        base: &BTreeMap<String, i64>,
    ) -> Result<BTreeMap<String, SecretValue>, ActError> {
        let mut values = BTreeMap::new();
        for (path, version) in base {
            let value = self.store.read(path, Some(*version)).await?;
            let value =
                value.ok_or_else(|| ActError::PreviousGone { path: path.clone(), version: *version })?;
            values.insert(path.clone(), value);
        }
        Ok(values)
    }

    async fn create_record(&self, record: Record, observed: &mut Observed) -> Result<Done, ActError> {
        let encoded = records::encode(&record)?;
        let path = self.record_path(record.id);
        match self.store.create(self.staged(&path, &encoded)).await? {
            Created::Created => {
                // The target's answer was about the login of another record.
                if let Some(target) = &mut observed.target {
                    target.recorded = None;
                }
                observed.records.insert(record.id, record);
                Ok(Done::Applied)
            }
            Created::Exists => Ok(Done::ReadAgain(Some(Newer::Record(record.id)))),
        }
    }

    /// Performs [`Act::Create`]. A value that was generated but not published is dropped; nobody has read it.
    async fn create(
        &self,
        id: RotationId,
        path: &str,
        request: Option<&str>,
        observed: &mut Observed,
    ) -> Result<Done, ActError> {
        let (values, _) = self.draw(observed, false).await?;
        let Some(value) = values.get(path) else { return Ok(Done::ReadAgain(None)) };
        let stamp = Stamp {
            owner: self.place.owner.to_owned(),
            id,
            version: 1,
            at: self.now,
            request: request.map(request::hash),
            made: None,
        };
        self.publish(path, value, stamp, &mut observed.parameters).await
    }

    async fn promote(
        &self,
        id: RotationId,
        path: &str,
        expected: i64,
        observed: &mut Observed,
    ) -> Result<Done, ActError> {
        let Some(record) = observed.records.get(&id) else { return Ok(Done::ReadAgain(None)) };
        let made = Some(made_at(observed, record)).filter(|made| *made != record.at);
        let Some(value) = record.values.get(path) else { return Ok(Done::ReadAgain(None)) };
        let stamp = Stamp {
            owner: self.place.owner.to_owned(),
            id,
            version: expected,
            at: record.at,
            request: record.request.as_deref().map(request::hash),
            made,
        };
        self.publish(path, value, stamp, &mut observed.parameters).await
    }

    /// Writes a version, and checks that SSM gives it the number in the stamp. Version 1 is written only if the
    /// parameter does not exist.
    async fn publish(
        &self,
        path: &str,
        value: &SecretValue,
        stamp: Stamp,
        parameters: &mut [Parameter],
    ) -> Result<Done, ActError> {
        let Some(parameter) = parameters.iter_mut().find(|parameter| parameter.path == path) else {
            return Ok(Done::ReadAgain(None));
        };
        let (id, expected) = (stamp.id, stamp.version);
        let text = parameter.latest().map(|seen| seen.version.text.clone()).unwrap_or_default();
        let key = self.key_for(parameter);
        let new = NewVersion {
            path,
            value,
            text: text.clone(),
            stamp: Some(stamp.clone()),
            kms_key_id: key.as_deref(),
        };
        let number = if expected == 1 {
            match self.store.create(new).await? {
                Created::Created => 1,
                Created::Exists => {
                    return Ok(Done::ReadAgain(Some(Newer::Version { path: path.to_owned(), number: 1 })));
                }
            }
        } else {
            self.store.overwrite(new).await?
        };
        if number != expected {
            return Ok(Done::ReadAgain(Some(Newer::Version { path: path.to_owned(), number })));
        }
        // This time is not earlier than SSM's own time of the version, so that the end of the grace period is not
        // calculated too early.
        let modified = self.ports.clock.now();
        parameter.versions.push(Seen {
            version: Version { number, modified, text, stamp: Some(stamp), claim: None },
            author: Author::Ours(id),
            taken_over: None,
        });
        Ok(Done::Applied)
    }
}

/// Performs the acts that change only the target. The result of most of them is known only after another read.
async fn change_target(target: &dyn Target, act: &Act, observed: &mut Observed) -> Result<Done, ActError> {
    match (act, target.kind()) {
        (Act::SetUp, kind) => {
            if let Some(part) = kind.sets_up() {
                part.set_up(SetUpMode::Apply).await?;
            }
        }
        (Act::Retire { id, username }, Kind::Installs(installer)) => installer.retire(*id, username).await?,
        (Act::Retire { id, username }, Kind::Issues(issuer)) => {
            let claim = if observed.has_accepted(username) { Claim::Accepted } else { Claim::Name };
            issuer.retire(*id, username, claim).await?;
        }
        (Act::SweepOrphan { id, username }, Kind::Issues(issuer)) => {
            issuer.retire(*id, username, Claim::Name).await?;
            if let Some(issued) = observed.target.as_mut().and_then(|target| target.issued.as_mut()) {
                issued.retain(|known| known.login.username != *username);
            }
            return Ok(Done::Applied);
        }
        _ => {}
    }
    Ok(Done::ReadAgain(None))
}

/// Returns, by path, the time at which SSM accepted the latest version.
fn taken_at(observed: &Observed) -> BTreeMap<String, DateTime<Utc>> {
    let latest =
        observed.parameters.iter().filter_map(|p| Some((p.path.clone(), p.latest()?.version.modified)));
    latest.collect()
}
