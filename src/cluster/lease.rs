//! Leader election with a `coordination.k8s.io` Lease, so that only one of several replicas works.
//!
//! Every write of the lease replaces the object at the resourceVersion that was read: of two candidates, the API server
//! accepts one. The clocks of two machines are never compared: a lease counts as abandoned once this process has not
//! seen it change for the time for which it was granted, as in client-go.
//!
//! Election alone fences nothing: a leader that was paused continues with what it was about to do. So [`Leadership`] is
//! checked again immediately before each effect, and the protocol tolerates what slips through.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;

/// Times of the election. `retry_period` < `renew_deadline` < `duration`; otherwise two replicas could work at once.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Time for which the other replicas wait for a silent leader.
    pub duration: Duration,
    /// Time without a renewal after which a leader stops, well before another replica starts.
    pub renew_deadline: Duration,
    /// Time between two renewals.
    pub retry_period: Duration,
}

/// Heartbeat of the election loop, on which all work depends.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Mutex<Instant>>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heartbeat {
    /// Records a sign of life.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns the time since the last sign of life.
    pub fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Shows if this process leads right now. It is cheap, and is checked before every effect.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// Returns true until the renewal deadline, which counts from the start of the last successful renewal.
    pub fn is_leader(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = until;
    }

    /// Creates a leadership that never ends, for tools and tests without an election.
    pub fn permanent() -> Self {
        let leadership = Self::default();
        leadership.set(Instant::now().checked_add(Duration::from_secs(10 * 365 * 86_400)));
        leadership
    }
}

/// The lease as a candidate last saw it.
#[derive(Clone, Debug)]
struct Seen {
    lease: Lease,
    /// Time when this process first saw this state of the lease.
    since: Instant,
}

/// A candidate's next action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// There is no lease: create it.
    Create,
    /// This process holds it: renew it.
    Renew,
    /// It is free, or its holder is silent: take it.
    Take,
    /// Another replica leads; read the lease again after this time at the latest.
    Wait(Duration),
}

fn decide(seen: Option<&Seen>, me: &str, now: Instant, granted: Duration) -> Decision {
    let Some(seen) = seen else { return Decision::Create };
    let spec = seen.lease.spec.as_ref();
    match holder(&seen.lease) {
        "" => Decision::Take,
        holder if holder == me => Decision::Renew,
        _ => {
            let granted = spec
                .and_then(|spec| spec.lease_duration_seconds)
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map_or(granted, Duration::from_secs);
            let left = granted.saturating_sub(now.saturating_duration_since(seen.since));
            if left.is_zero() { Decision::Take } else { Decision::Wait(left) }
        }
    }
}

/// Returns the lease as this process will write it.
fn held(current: Option<&Lease>, name: &str, me: &str, granted: Duration, at: MicroTime) -> Lease {
    let old = current.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let mine = old.holder_identity.as_deref() == Some(me);
    let transitions = old.lease_transitions.unwrap_or(0);
    Lease {
        metadata: current.map_or_else(
            || ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            |lease| ObjectMeta { managed_fields: None, ..lease.metadata.clone() },
        ),
        spec: Some(LeaseSpec {
            holder_identity: Some(me.to_owned()),
            lease_duration_seconds: Some(i32::try_from(granted.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: if mine { old.acquire_time } else { Some(at.clone()) },
            renew_time: Some(at),
            lease_transitions: Some(match (mine, current) {
                (true, _) | (_, None) => transitions,
                _ => transitions.saturating_add(1),
            }),
            ..old
        }),
    }
}

/// The reason why the lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server did not answer in time. A write may have been applied nevertheless.
    #[error("lease {name}: the API server did not answer within {}s", after.as_secs())]
    Timeout {
        /// Name of the lease.
        name: String,
        /// Time after which the call was given up.
        after: Duration,
    },
    /// Another process has created or changed the lease since it was read; nothing was written.
    #[error("lease {name}: another process wrote it first")]
    Conflict {
        /// Name of the lease.
        name: String,
    },
    /// The API server cannot be reached, or answered with an error. A write may have been applied.
    #[error("lease {name}: {source}")]
    Api {
        /// Name of the lease.
        name: String,
        /// The reason.
        source: Box<kube::Error>,
    },
    /// Another process holds the lease, or it could not be renewed in time. This process must stop working.
    #[error("lease {name}: lost, {why}")]
    Lost {
        /// Name of the lease.
        name: String,
        /// The reason, for people.
        why: &'static str,
    },
}

/// A candidate in the election.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    me: String,
    timing: Timing,
    leadership: Leadership,
    seen: Option<Seen>,
    /// The last write failed, but may have been applied: read the lease before the next write.
    doubtful: bool,
}

impl Candidate {
    /// Creates a candidate. `pod` becomes part of its identity; a random part distinguishes restarts of the same pod.
    pub fn new(client: Client, namespace: &str, name: &str, pod: &str, timing: Timing) -> Self {
        let mut random = [0_u8; 6];
        // Without random numbers the start time still differs between restarts of the pod.
        if getrandom::fill(&mut random).is_err() {
            random.copy_from_slice(&jiff::Timestamp::now().as_microsecond().to_be_bytes()[2..]);
        }
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: format!("{pod}_{}", hex::encode(random)),
            timing,
            leadership: Leadership::default(),
            seen: None,
            doubtful: false,
        }
    }

    /// Returns the identity in the lease.
    pub fn identity(&self) -> &str {
        &self.me
    }

    /// Returns the handle to check before each effect.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Waits until this process leads.
    pub async fn acquire(&mut self, heartbeat: &Heartbeat) {
        loop {
            heartbeat.beat();
            let pause = match self.step().await {
                Ok(None) => return,
                Ok(Some(wait)) => wait.min(self.timing.retry_period / 2),
                Err(LeaseError::Conflict { .. }) => Duration::from_millis(50),
                Err(error) => {
                    tracing::warn!(%error, "cannot take part in the leader election; retrying");
                    self.timing.retry_period / 2
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews the lease until it is lost (an error) or `stop` turns true.
    pub async fn keep(
        &mut self,
        stop: &mut watch::Receiver<bool>,
        heartbeat: &Heartbeat,
    ) -> Result<(), LeaseError> {
        let mut pause = self.timing.retry_period;
        loop {
            heartbeat.beat();
            let deadline = self.leadership.until().unwrap_or_else(Instant::now).into();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                () = tokio::time::sleep_until(deadline) => return Err(self.lost("it could not be renewed in time")),
                () = tokio::time::sleep(pause) => {}
            }
            pause = match tokio::time::timeout_at(deadline, self.step()).await {
                Err(_) => return Err(self.lost("it could not be renewed in time")),
                Ok(Ok(None)) => self.timing.retry_period,
                Ok(Ok(Some(_))) => return Err(self.lost("another replica holds it")),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot renew the lease; retrying");
                    self.timing.retry_period / 4
                }
            };
        }
    }

    /// Releases the lease, so that another replica need not wait for it to expire.
    pub async fn release(&mut self) {
        self.leadership.set(None);
        let Some(seen) = self.seen.take().filter(|seen| holder(&seen.lease) == self.me) else { return };
        let mut lease = held(Some(&seen.lease), &self.name, &self.me, Duration::from_secs(1), now());
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        match self.call(self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            Ok(_) => tracing::info!(lease = self.name, "released the lease"),
            Err(error) => tracing::warn!(%error, "the lease could not be released; it will expire"),
        }
    }

    fn lost(&self, why: &'static str) -> LeaseError {
        self.leadership.set(None);
        LeaseError::Lost { name: self.name.clone(), why }
    }

    /// Reads the lease at most once and writes it at most once. `None` means that this process leads; otherwise the
    /// result is the time for which another process still leads.
    async fn step(&mut self) -> Result<Option<Duration>, LeaseError> {
        // A leader knows the lease from its own last write; every other candidate has to read it.
        if self.doubtful || self.seen.as_ref().is_none_or(|seen| holder(&seen.lease) != self.me) {
            self.look().await?;
        }
        let asked = Instant::now();
        let decision = decide(self.seen.as_ref(), &self.me, asked, self.timing.duration);
        if let Decision::Wait(left) = decision {
            return Ok(Some(left));
        }
        let current = self.seen.as_ref().map(|seen| &seen.lease);
        let lease = held(current, &self.name, &self.me, self.timing.duration, now());
        self.doubtful = true;
        let written = match decision {
            Decision::Create => self.call(self.api.create(&PostParams::default(), &lease)).await?,
            _ => self.call(self.api.replace(&self.name, &PostParams::default(), &lease)).await?,
        };
        self.doubtful = false;
        self.seen = Some(Seen { lease: written, since: asked });
        // This deadline counts from before the request, while other replicas count from after it.
        self.leadership.set(Some(asked + self.timing.renew_deadline));
        Ok(None)
    }

    async fn look(&mut self) -> Result<(), LeaseError> {
        let found = self.call(self.api.get_opt(&self.name)).await?;
        self.seen = found.map(|lease| match self.seen.take() {
            Some(seen) if seen.lease.metadata.resource_version == lease.metadata.resource_version => seen,
            _ => Seen { lease, since: Instant::now() },
        });
        Ok(())
    }

    async fn call<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
        let name = self.name.clone();
        let after = self.timing.renew_deadline / 2;
        match tokio::time::timeout(after, request).await {
            Err(_) => Err(LeaseError::Timeout { name, after }),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(LeaseError::Conflict { name }),
            Ok(Err(source)) => Err(LeaseError::Api { name, source: Box::new(source) }),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, seconds: i32) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(seconds),
                lease_transitions: Some(3),
                ..LeaseSpec::default()
            }),
            metadata: ObjectMeta { resource_version: Some("7".into()), ..ObjectMeta::default() },
        }
    }

    #[test]
    fn a_candidate_takes_only_what_is_free_its_own_or_unchanged_for_as_long_as_it_was_granted() {
        let since = Instant::now();
        let s = Duration::from_secs;
        let cases = [
            ("no lease", None, 0, Decision::Create),
            ("given back", Some(lease("", 1)), 0, Decision::Take),
            ("our own", Some(lease("me", 15)), 0, Decision::Renew),
            ("our own, long ago", Some(lease("me", 15)), 99, Decision::Renew),
            ("just renewed by another", Some(lease("other", 15)), 0, Decision::Wait(s(15))),
            ("silent for less than granted", Some(lease("other", 15)), 14, Decision::Wait(s(1))),
            ("silent for as long as granted", Some(lease("other", 15)), 15, Decision::Take),
            ("granted for longer than we would", Some(lease("other", 60)), 15, Decision::Wait(s(45))),
            ("a nonsensical grant falls back on ours", Some(lease("other", -5)), 14, Decision::Wait(s(1))),
            ("no specification", Some(Lease::default()), 0, Decision::Take),
        ];
        for (case, found, later, expected) in cases {
            let seen = found.map(|lease| Seen { lease, since });
            assert_eq!(decide(seen.as_ref(), "me", since + s(later), s(15)), expected, "{case}");
        }
    }

    #[test]
    fn the_clock_of_the_holder_plays_no_part() {
        let mut ancient = lease("other", 15);
        ancient.spec.as_mut().unwrap().renew_time = Some(MicroTime(jiff::Timestamp::UNIX_EPOCH));
        let since = Instant::now();
        let seen = Seen { lease: ancient, since };
        let wait = Decision::Wait(Duration::from_secs(15));
        assert_eq!(decide(Some(&seen), "me", since, Duration::from_secs(15)), wait);
    }

    #[test]
    fn taking_over_counts_a_transition_and_carries_the_resource_version() {
        let granted = Duration::from_secs(15);
        let taken = held(Some(&lease("other", 15)), "l", "me", granted, now());
        let spec = taken.spec.clone().unwrap();
        assert_eq!(spec.lease_transitions, Some(4));
        assert_eq!(spec.acquire_time, spec.renew_time);
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));

        let renewed = held(Some(&taken), "l", "me", granted, now()).spec.unwrap();
        assert_eq!(renewed.lease_transitions, Some(4));
        assert_eq!(renewed.acquire_time, spec.acquire_time);

        let first = held(None, "l", "me", granted, now()).spec.unwrap();
        assert_eq!(first.lease_transitions, Some(0));
    }

    #[test]
    fn leadership_ends_by_itself_at_its_deadline() {
        let leadership = Leadership::default();
        assert!(!leadership.is_leader());
        leadership.set(Some(Instant::now() + Duration::from_secs(3600)));
        assert!(leadership.is_leader());
        leadership.set(Some(Instant::now()));
        assert!(!leadership.is_leader());
    }
}
