//! Search of CloudTrail for a report: the calls to look for, and reading them page by page with retries.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use chrono::{DateTime, Utc};
use kube::ResourceExt;

use crate::api::readers::ExpectedReader;
use crate::api::secret_incident::ReadingStatus;
use crate::api::time::from_kubernetes;
use crate::api::{ManagedSecret, SecretIncident};
use crate::incident::audit;
use crate::incident::event::Call;
use crate::incident::reading::{self, Query, Watched};
use crate::incident::scope;
use crate::incident::trail::{Page, Trail, TrailError};

/// Calls to look for, and the expected readers to compare them with.
pub struct Search {
    pub(super) watched: Vec<Watched>,
    pub(super) expected: Vec<ExpectedReader>,
    /// Callers listed in the status: principal and address.
    pub(super) listed: BTreeSet<(String, String)>,
    /// Parts that cannot be searched, and the reasons.
    pub(super) missing: Vec<String>,
    pub(super) since: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
}

impl Search {
    /// Creates the search for all secrets of an incident. Grants do not restrict it: AWS decides what the credentials
    /// may read.
    pub fn of(incident: &SecretIncident, secrets: &[ManagedSecret], now: DateTime<Utc>) -> Self {
        let mut search = Self::of_nothing(incident, now);
        let status = incident.status.clone().unwrap_or_default();
        let staging = status.audit.and_then(|audit| audit.staging);
        let concerned: Vec<_> = secrets.iter().filter(|secret| scope::concerns(incident, secret)).collect();
        for secret in &concerned {
            match secret.region() {
                Some(region) => search.watched.push(Watched::of(secret, region, staging.as_deref())),
                None => search
                    .missing
                    .push(format!("the region of {} is not known: set spec.ssm.region", secret.name_any())),
            }
        }
        if staging.is_none() && !search.watched.is_empty() {
            let why =
                "reads of the records of rotations, since the status does not show yet where they are stored";
            search.missing.push(why.to_owned());
        }
        for secret in status.secrets.iter().filter(|s| !concerned.iter().any(|c| c.name_any() == s.name)) {
            search.missing.push(format!(
                "the ManagedSecret {} does not exist any more, so its parameters are unknown",
                secret.name
            ));
        }
        search
    }

    /// Creates the search of an incident whose secrets could not be read.
    pub fn without_secrets(incident: &SecretIncident, why: String, now: DateTime<Utc>) -> Self {
        Self { missing: vec![why], ..Self::of_nothing(incident, now) }
    }

    fn of_nothing(incident: &SecretIncident, now: DateTime<Utc>) -> Self {
        let status = incident.status.clone().unwrap_or_default();
        let audit = status.audit.clone().unwrap_or_default();
        let since = audit::since(incident, &status, now);
        let both = status.readers.iter().chain(&status.tampering);
        Self {
            watched: Vec::new(),
            expected: [incident.spec.expected_readers.as_slice(), &audit.expected_readers].concat(),
            listed: both.map(|reader| (reader.principal.clone(), reader.address.clone())).collect(),
            missing: Vec::new(),
            since: audit.since.as_ref().map_or(since, |read| since.min(from_kubernetes(read))),
            until: now,
        }
    }

    pub(super) fn regions(&self) -> BTreeSet<&str> {
        self.watched.iter().map(|watched| watched.region.as_str()).collect()
    }
}

/// Retry policy for CloudTrail when it is throttled or fails.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Pause after the first failure; it doubles up to `longest`.
    pub first: Duration,
    /// Longest pause between two attempts.
    pub longest: Duration,
    /// Consecutive failures after which reading a region is given up.
    pub attempts: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30), attempts: 20 }
    }
}

impl Patience {
    async fn page(self, trail: &dyn Trail, query: &Query, token: Option<&str>) -> Result<Page, TrailError> {
        let mut pause = self.first;
        for _ in 1..self.attempts {
            match trail.page(query, token).await {
                Err(TrailError::Throttled { .. } | TrailError::Failed { .. }) => {}
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause = self.longest.min(pause * 2);
        }
        trail.page(query, token).await
    }
}

pub(super) enum Failure {
    Trail(TrailError),
    Write(io::Error),
}

/// Reads to the end, or until `each` returns false. Only one page is held in memory at a time.
pub(super) async fn follow(
    trail: &dyn Trail,
    watched: &[Watched],
    mut reading: Option<ReadingStatus>,
    patience: Patience,
    mut each: impl FnMut(Option<&Call>) -> io::Result<bool>,
) -> Result<(), Failure> {
    while let Some(now) = reading {
        let Some(query) = reading::query(&now) else { return Ok(()) };
        eprintln!("keyturn: reading CloudTrail in {}: {}", query.region, query.event);
        let mut token = None;
        loop {
            let page = patience.page(trail, &query, token.as_deref()).await.map_err(Failure::Trail)?;
            for call in &page.calls {
                if !each(call.as_ref()).map_err(Failure::Write)? {
                    return Ok(());
                }
            }
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        reading = reading::next(now, watched);
    }
    Ok(())
}
