//! The evidence of a pass. It comes from the shared listing and the memory of the last full read, without a call to
//! SSM, or from a full read of Parameter Store and the target.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::time::from_kubernetes;
use keyturn_api::{ManagedSecret, Reason, Trouble};
use keyturn_rotation::observed::{Observed, Record, TargetEvidence, Trigger, Version};
use keyturn_rotation::protocol::{Act, Incident, Step};

use super::{ObserveError, Remembered, target};
use crate::managed_secret::act::Pass;
use crate::managed_secret::act::effects::Newer;
use crate::managed_secret::status::progress::Blocked;
use crate::managed_secret::{ACCEPTED_POLL, REFUSED_POLL};
use crate::objects::Source;
use crate::parameter_store::StoreError;
use crate::source;
use crate::target::{Target, TargetError};

/// Maximum age of a new object that still waits for the shared listing.
const UNLISTED_AT_MOST: TimeDelta = TimeDelta::minutes(2);
/// A listing is acted on only if it is younger than the grace period divided by this number. Its age and the life of a
/// request together must stay below the grace period.
const LISTINGS_PER_GRACE: i32 = 3;

/// Result of opening the target of a secret.
#[derive(Default)]
pub(in crate::managed_secret) enum Opened {
    #[default]
    Not,
    Target(Arc<dyn Target>),
    Failed(TargetError),
}

impl Opened {
    pub(in crate::managed_secret) fn get(&self) -> Option<&dyn Target> {
        match self {
            Opened::Target(target) => Some(target.as_ref()),
            Opened::Not | Opened::Failed(_) => None,
        }
    }
}

pub(in crate::managed_secret) fn unseen(error: &ObserveError) -> Blocked {
    Blocked::unseen(match error {
        ObserveError::Store(error) => error.trouble(),
        ObserveError::Record(error) => Trouble::permanent(Reason::RecordUnreadable, error.to_string()),
    })
}

/// Origin of the evidence that a pass works with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::managed_secret) enum Basis {
    /// The shared listing, which the next pass can use too.
    #[default]
    Listing,
    /// Memory of an earlier pass. `told` is true when the status reports that pass.
    Memory { told: bool },
    /// A full read in this very pass, updated by the acts since.
    FullRead,
}

/// State of the evidence of a pass: the opened target, the origin of the evidence, and what the next read has to show.
#[derive(Default)]
pub(in crate::managed_secret) struct Sight {
    pub target: Opened,
    pub basis: Basis,
    /// True when hosts and incidents are read from the API server. A cache may be stale, so an object that it lacks may
    /// exist.
    pub exact: bool,
    /// State that SSM must show in the next full read, according to its answer to our last write.
    pub newer: Option<Newer>,
    /// True when this pass has closed a rotation. The deletion of a record that had reappeared does not count.
    pub closed: bool,
    /// Start of the listing that confirms the memory of an earlier pass; `None` if that memory is younger than the
    /// listing.
    pub confirmed_at: Option<DateTime<Utc>>,
}

impl Pass<'_> {
    /// Gathers evidence without a call to SSM, from the shared listing and the memory of the last full read. `None` if
    /// another full read is needed.
    pub(in crate::managed_secret) fn read_inventory(&mut self, incidents: &[Incident]) -> Option<Observed> {
        if self.target_is_to_be_asked() || asks_for_history(self.object, incidents) {
            return None;
        }
        let read_at = self.remembered.as_ref().map(|remembered| remembered.at);
        let inventory = &self.secrets.ports.inventory;
        let excerpt = inventory.excerpt(self.region, self.place.paths, &self.place.folder())?;
        let taken_at = excerpt.taken_at;
        self.progress.read_at = read_at.max(Some(taken_at));
        let told = self.remembered.as_ref().map(|remembered| remembered.told);
        let seen = super::from_inventory(self.object, self.place, excerpt, self.remembered);
        self.sight.basis = match told {
            Some(told) if self.remembered.is_none() => Basis::Memory { told },
            _ => Basis::Listing,
        };
        self.sight.confirmed_at = Some(taken_at).filter(|taken_at| read_at.is_some_and(|at| at <= *taken_at));
        seen
    }

    /// True when a new object waits for the listing that is about to cover it, since thousands of objects may be
    /// created at once. An object with an incident does not wait.
    pub(in crate::managed_secret) fn waits_for_the_listing(&self, incidents: &[Incident]) -> bool {
        let inventory = &self.secrets.ports.inventory;
        let metadata = &self.object.metadata;
        let created = metadata.creation_timestamp.as_ref().map(from_kubernetes);
        let is_new = created.is_some_and(|created| self.now < created + UNLISTED_AT_MOST);
        let is_told = self.object.status.as_ref().is_some_and(|status| !status.conditions.is_empty());
        is_new
            && !is_told
            && metadata.deletion_timestamp.is_none()
            && incidents.is_empty()
            && self.remembered.is_none()
            && inventory.excerpt(self.region, self.place.paths, &self.place.folder()).is_none()
            && inventory.is_coming(self.region)
    }

    /// True when SSM keeps only versions that the rotation found or made. If that cannot be read, the result is false
    /// and a full read follows.
    pub(in crate::managed_secret) async fn is_undisturbed(&self, observed: &Observed) -> bool {
        let store = self.store();
        for parameter in &observed.parameters {
            let known: Vec<&Version> = parameter.versions.iter().map(|seen| &seen.version).collect();
            if !matches!(store.keeps(&parameter.path, &known).await, Ok(true)) {
                return false;
            }
        }
        true
    }

    /// True when the rotation can end with this act without a full read: memory and a recent listing show that no
    /// record was created and that nobody has written since the rotation was published. A request takes some time to
    /// arrive, and by then its evidence must still be younger than the grace period. So the listing has to be much
    /// younger than that.
    pub(in crate::managed_secret) fn is_known_well_enough(&self, act: &Act, observed: &Observed) -> bool {
        let oldest = self.now - self.secrets.settings.grace / LISTINGS_PER_GRACE;
        let is_confirmed = self.sight.confirmed_at.is_some_and(|at| at >= oldest)
            && matches!(self.sight.basis, Basis::Memory { .. });
        let ends_well = match act {
            Act::DeleteRecord { id } => {
                let is_published =
                    |record: &Record| record.trigger != Trigger::RollBack && observed.is_published(record);
                observed.records.len() == 1 && observed.records.get(id).is_some_and(is_published)
            }
            Act::Release => self.sight.closed && observed.records.is_empty(),
            _ => false,
        };
        let is_simple = !self.object.spec.generate.has_target() && observed.aborts.is_empty();
        self.source == Source::ApiServer && is_confirmed && is_simple && ends_well
    }

    /// True when the target's last answer about the published login is too old.
    fn target_is_to_be_asked(&self) -> bool {
        let target = self.object.status.as_ref().and_then(|status| status.target.as_ref());
        self.object.spec.generate.has_target()
            && target.is_some_and(|target| {
                let poll = if target.accepts { ACCEPTED_POLL } else { REFUSED_POLL };
                from_kubernetes(&target.checked_at) + poll <= self.secrets.ports.clock.now()
            })
    }

    /// True when the first full read of this pass would come too soon after a full read that failed.
    pub(in crate::managed_secret) fn is_read_put_off(&self) -> bool {
        self.sight.basis != Basis::FullRead && self.progress.backs_off_from(Step::Observe, self.now)
    }

    /// Does a full read, unless the backoff of a failed one has not passed. `None` if it was not done; `progress` says
    /// why.
    pub(in crate::managed_secret) async fn read_unless_put_off(
        &mut self,
        incidents: &[Incident],
    ) -> Option<Observed> {
        if self.is_read_put_off() {
            self.progress.blocked = self.progress.failure.as_ref().map(Blocked::again);
            return None;
        }
        match self.read_in_full(incidents).await {
            Ok(observed) => {
                self.sight.basis = Basis::FullRead;
                *self.remembered = None;
                self.progress.read_at = Some(self.secrets.ports.clock.now());
                Some(observed)
            }
            Err(blocked) => {
                self.fail(Step::Observe, blocked);
                None
            }
        }
    }

    /// Drops the evidence, so that a full read follows. Until then the evidence is kept as memory, since it contains
    /// more than a listing, and a listing may be older. Evidence that came from a listing is not kept.
    pub(in crate::managed_secret) fn require_full_read(&mut self, seen: &mut Option<Observed>) {
        let seen = seen.take();
        let told = match self.sight.basis {
            Basis::Listing => return,
            Basis::Memory { told } => told,
            Basis::FullRead => false,
        };
        let untold = Remembered::untold(self.object, seen, self.progress, self.now);
        *self.remembered = Some(Remembered { told, ..untold });
        self.sight.basis = Basis::Listing;
    }

    /// Does a full read: Parameter Store first, then the target.
    async fn read_in_full(&mut self, incidents: &[Incident]) -> Result<Observed, Blocked> {
        let store = self.store();
        let mut observed =
            super::read_in_full(store.as_ref(), self.place).await.map_err(|error| unseen(&error))?;
        if self.sight.newer.as_ref().is_some_and(|newer| !newer.is_shown_by(&observed, self.place.owner)) {
            let message = "SSM reads do not show keyturn's last write yet (eventual consistency); retrying";
            return Err(Blocked::unseen(Trouble::passing(Reason::SSMReadsLag, message)));
        }
        if !incidents.is_empty() && source::keeps_previous(&self.object.spec.generate) {
            let keys = super::published_keys(store.as_ref(), self.object, &observed).await;
            observed.keys = keys.map_err(|error| unseen(&error.into()))?;
        }
        self.sight.target = match self.secrets.ports.targets.open(self.object, self.region).await {
            Ok(None) => Opened::Not,
            Ok(Some(target)) => Opened::Target(target),
            Err(error) => Opened::Failed(error),
        };
        let seen = self.observe_target(&observed).await;
        observed.target = seen.map_err(|error| unseen(&error.into()))?;
        Ok(observed)
    }

    pub(in crate::managed_secret) async fn observe_target(
        &self,
        observed: &Observed,
    ) -> Result<Option<TargetEvidence>, StoreError> {
        let target = match &self.sight.target {
            Opened::Not => return Ok(None),
            Opened::Target(target) => Ok(target.as_ref()),
            Opened::Failed(error) => Err(error),
        };
        let (store, now) = (self.store(), self.secrets.ports.clock.now());
        target::observe(target, self.object, store.as_ref(), observed, now).await.map(Some)
    }
}

/// True when an incident needs evidence that the inventory does not have: the number of keys in a key ring, and the
/// versions before a value that somebody else has put, since a target may accept their logins. The incident needs the
/// evidence until it is contained.
fn asks_for_history(object: &ManagedSecret, incidents: &[Incident]) -> bool {
    let reported_at = incidents.iter().map(|incident| incident.reported_at).max();
    let compromise = object.status.as_ref().and_then(|status| status.compromise.as_ref());
    let contained = compromise.filter(|compromise| compromise.contained_at.is_some());
    let generate = &object.spec.generate;
    (source::keeps_previous(generate) || generate.has_target())
        && reported_at.is_some()
        && contained.map(|contained| from_kubernetes(&contained.reported_at)) != reported_at
}
