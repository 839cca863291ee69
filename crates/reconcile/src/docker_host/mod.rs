//! The DockerHost reconciler. It gathers the versions that the host has to run and the results of its Jobs, asks the
//! plan for the next step, starts at most one Job, and writes the outcome into the status.

mod act;
mod observe;
mod status;
mod tell;

use std::sync::{Arc, Mutex};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::docker_host::{DockerHostStatus, HostRun};
use keyturn_api::grants::{self, Grants, Verdict};
use keyturn_api::{DockerHost, ManagedSecret, Reason, Trouble, validate};
use keyturn_rotation::window::Calendar;

use self::act::Acted;
use self::status::{PATIENCE, StartFailure, View};
use super::deploy_jobs::DeployJobs;
use super::objects::{MissingRight, ObjectError, Objects, Source, Subject};
use super::ports::{Clock, Leadership, Regions, Requeue, Targets};
use super::settings::Settings;
use crate::deploy::audits;
use crate::deploy::plan::{self, Decision, Input, WindowGate};
use crate::deploy::wish;
use crate::incident::logs;
use crate::notification;
use crate::source::Random;

/// Requeue interval while a run is under way. A pod that waits for an image or a Secret triggers no watch event, so the
/// host is checked often.
const RUN_POLL: TimeDelta = TimeDelta::seconds(10);
/// Requeue interval while the host waits for another object, in case the event of its change is missed.
const HELD_POLL: TimeDelta = TimeDelta::minutes(1);
/// Longest requeue interval of a host with nothing to do.
const RESYNC: TimeDelta = TimeDelta::hours(1);
/// Requeue interval after a Job was deleted to make room for another, or after somebody else changed the host first.
const SHORTLY: TimeDelta = TimeDelta::seconds(2);
/// The ports that the reconciler acts through.
pub struct Ports {
    /// Source of the time of each pass.
    pub clock: Arc<dyn Clock>,
    /// keyturn's objects in the API server.
    pub objects: Arc<dyn Objects>,
    /// The deploy Jobs of the hosts.
    pub jobs: Arc<dyn DeployJobs>,
    /// Parameter Store, by region. The values for the fingerprints are read from it.
    pub regions: Arc<dyn Regions>,
    /// Targets of the secrets. They provide the administrators' passwords and tokens, which are redacted from output.
    pub targets: Arc<dyn Targets>,
    /// Leadership, which is checked right before every effect.
    pub leadership: Arc<dyn Leadership>,
    /// Source of the fingerprint keys.
    pub random: Mutex<Box<dyn Random + Send>>,
}

/// The DockerHost reconciler. It keeps nothing in memory from one pass to the next.
pub struct DockerHosts {
    ports: Ports,
    settings: Settings,
}

impl DockerHosts {
    /// Makes the reconciler; each call of [`Self::reconcile`] does one pass.
    pub fn new(ports: Ports, settings: Settings) -> Self {
        Self { ports, settings }
    }

    /// Does one pass over one host.
    ///
    /// # Errors
    /// The API server could not be read or written, or the host was changed at the same time. Every other failure is
    /// reported in the host's status.
    pub async fn reconcile(&self, namespace: &str, name: &str) -> Result<Requeue, ObjectError> {
        let objects = &self.ports.objects;
        let Some(mut host) = objects.docker_host(namespace, name).await? else { return Ok(Requeue::Never) };
        if host.metadata.deletion_timestamp.is_some() {
            return Ok(Requeue::Never);
        }
        let now = self.ports.clock.now();
        let before = host.status.clone().unwrap_or_default();
        let jobs = match self.ports.jobs.of_host(&host).await {
            Err(ObjectError::Forbidden(right)) => return self.tell_missing_right(host, &right, now).await,
            jobs => jobs?,
        };
        let secrets = objects.managed_secrets_on(namespace, name).await?;
        let hosts = objects.docker_hosts(namespace, Source::Cache).await?.decoded;
        let grants = objects.grants(Source::ApiServer).await?;

        let mut status = observe::fold(&host, &jobs, &self.settings);
        let named = wish::wishes(name, &secrets);
        status.parameters.retain(|known| named.iter().any(|wish| wish.path == known.path));

        let verdict = grants::docker_host(&grants, &host);
        let granted: Vec<ManagedSecret> =
            secrets.into_iter().filter(|secret| self.takes_part(&grants, secret, &verdict)).collect();
        let wishes = wish::wishes(name, &granted);
        let incidents = objects.secret_incidents(namespace, Source::Cache).await?;
        let collections = logs::wanted(name, &incidents, &granted, now);
        // Log lines are dropped once an incident has them in its own status, or once no incident needs them any more.
        status.access_logs.retain(|known| collections.iter().any(|wanted| wanted.about.is_that_of(known)));
        host.status = Some(status);
        let tried: Vec<HostRun> = jobs.iter().map(observe::as_run).collect();
        let input = Input {
            host: &host,
            wishes: &wishes,
            arrivals: &wish::arrivals(name, &granted),
            collections: &collections,
            hosts: &hosts,
            tried: &tried,
            verdict,
            problems: validate::docker_host(&host.spec).iter().map(ToString::to_string).collect(),
            window: window(&host, now),
            coalesce: self.settings.coalesce,
            now,
        };
        let (decision, acted, left_out) = self.decide_and_act(&input, &granted, &before).await?;
        let mut status = host.status.clone().unwrap_or_default();
        let mut postponed = false;
        match acted {
            Acted::Overtaken => return Ok(Requeue::After(SHORTLY)),
            Acted::Done | Acted::Failed(_) => {}
            Acted::Postponed => postponed = true,
            Acted::Started(run) => status.run = Some(run),
        }
        let view = View {
            wishes: &wishes,
            decision: &decision,
            start_failure: left_out.as_ref(),
            settings: &self.settings,
            now,
        };
        status::set(&mut status, &host, &view);
        let next = [
            audits::audit_due(&host, &status),
            plan::next_collection(&status, &collections),
            logs::next_window(name, &incidents, &granted, now),
        ];
        let next = next.into_iter().flatten().min();
        let requeue = requeue(&decision, left_out.is_some() || postponed, next, &self.settings, now);
        let host = self.record(host, &before, status, &decision, now).await?;
        let is_tidy = self.tidy(&host, &jobs).await?;
        Ok(match requeue {
            Requeue::After(wait) if !is_tidy => Requeue::After(wait.min(HELD_POLL)),
            requeue => requeue,
        })
    }

    /// Writes the status if it has changed, and sends notifications and Events.
    async fn record(
        &self,
        mut host: DockerHost,
        before: &DockerHostStatus,
        mut status: DockerHostStatus,
        decision: &Decision,
        now: DateTime<Utc>,
    ) -> Result<DockerHost, ObjectError> {
        let notifications = tell::notifications(before, &status, now);
        let pending = &mut status.pending_notifications;
        notification::enqueue(pending, &self.settings.sinks, &host.metadata, notifications, now);
        host.status = Some(status);
        if host.status.as_ref() != Some(before) {
            host = self.ports.objects.write_host_status(&host).await?;
        }
        for event in tell::events(before, &host, decision) {
            self.ports.objects.write_event(Subject::Host(&host), event).await;
        }
        Ok(host)
    }

    /// Reports in the status that the controller may not list the Jobs of the host. What the status shows about the
    /// Jobs is kept, since one may be running.
    async fn tell_missing_right(
        &self,
        host: DockerHost,
        right: &MissingRight,
        now: DateTime<Utc>,
    ) -> Result<Requeue, ObjectError> {
        let grants = self.ports.objects.grants(Source::ApiServer).await?;
        let failure = match grants::docker_host(&grants, &host) {
            Verdict::Denied(message) => Trouble::permanent(Reason::NotGranted, message).into(),
            Verdict::Rotate | Verdict::Observe(_) => self.missing_right(right),
        };
        let before = host.status.clone().unwrap_or_default();
        let mut status = before.clone();
        let decision = Decision::Watch;
        let view = View {
            wishes: &[],
            decision: &decision,
            start_failure: Some(&failure),
            settings: &self.settings,
            now,
        };
        status::set(&mut status, &host, &view);
        self.record(host, &before, status, &decision, now).await?;
        Ok(Requeue::After(HELD_POLL))
    }

    fn missing_right(&self, right: &MissingRight) -> StartFailure {
        right.trouble(&self.settings.namespace_role).into()
    }

    /// True when the grants allow the secret to be rotated. If the host may only be observed, a secret that may only be
    /// observed counts too, since nothing is started then.
    fn takes_part(&self, grants: &Grants, secret: &ManagedSecret, host: &Verdict) -> bool {
        match self.settings.verdict(grants, secret, self.settings.region_of(secret)) {
            Verdict::Rotate => true,
            Verdict::Observe(_) => matches!(host, Verdict::Observe(_)),
            Verdict::Denied(_) => false,
        }
    }
}

fn window(host: &DockerHost, now: DateTime<Utc>) -> WindowGate {
    match Calendar::new([host.spec.deploy.windows.as_slice()]) {
        Err(error) => WindowGate::Unusable(error.to_string()),
        Ok(calendar) => match calendar.next(now) {
            Some(span) if span.start <= now => WindowGate::Open,
            Some(span) => WindowGate::OpensAt(span.start),
            None => WindowGate::Unusable("none of the windows ever opens".to_owned()),
        },
    }
}

fn requeue(
    decision: &Decision,
    start_failed: bool,
    next: Option<DateTime<Utc>>,
    settings: &Settings,
    now: DateTime<Utc>,
) -> Requeue {
    Requeue::After(match decision {
        _ if start_failed => settings.backoff_initial,
        Decision::Settled => next.map_or(RESYNC, |due| (due - now).clamp(TimeDelta::seconds(1), RESYNC)),
        Decision::Watch | Decision::Start(_) => RUN_POLL.min(PATIENCE),
        Decision::Abandon { .. } => SHORTLY,
        Decision::Hold { hold, .. } => match hold.until {
            Some(until) => (until - now).clamp(TimeDelta::seconds(1), RESYNC),
            None => HELD_POLL,
        },
    })
}

#[cfg(test)]
mod tests;
