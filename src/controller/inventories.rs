//! The inventories of Parameter Store, one per region: which paths they cover follows from the ManagedSecrets that
//! exist, and a path that somebody changed brings its ManagedSecret into the queue.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;

use super::cache::Cache;
use super::managed_secret::ports::{Glimpse, Inventory, Regions};
use super::settings::Settings;
use crate::api::grants::Grants;
use crate::parameter_store::ParameterStore;
use crate::parameter_store::aws::Stores;
use crate::parameter_store::budget::{Urgency, with_urgency};
use crate::parameter_store::inventory::{InventoryView, Look, inventory};
use crate::parameter_store::records;

/// Changes of ManagedSecrets within this time lead to one new listing. Who brings many of them leaves the request
/// budget to their own first look, which waits for no listing.
const SETTLE: Duration = Duration::from_secs(2);
/// How often a replica that waits for its first listings says so.
const STILL_WAITING: Duration = Duration::from_secs(30);
/// A listing that is older than this, and than so many intervals, says nothing any more: SSM could not be asked for a
/// while, and each object then looks, and says why it cannot.
const STALE_AFTER: TimeDelta = TimeDelta::minutes(15);
const STALE_INTERVALS: i32 = 10;
/// The routine listing yields to what an object waits for.
const ROUTINE: Urgency = Urgency(-1);

/// Namespace and name of a ManagedSecret.
type Name = (String, String);
/// The ManagedSecrets that a path is of interest to.
type Readers = HashMap<String, BTreeSet<Name>>;

/// Takes namespace and name of a ManagedSecret.
type Changed = Box<dyn Fn(&str, &str) + Send + Sync>;

/// Parameter Store as the reconcilers see it.
pub struct Inventories {
    stores: Stores,
    settings: Settings,
    interval: Duration,
    cache: Cache,
    regions: Mutex<HashMap<String, Region>>,
    /// The ManagedSecrets or RotationGrants have changed.
    dirty: Notify,
    /// Called for a ManagedSecret that something was changed about.
    changed: Changed,
}

#[derive(Clone)]
struct Region {
    view: InventoryView,
    readers: Arc<Mutex<Readers>>,
}

impl Inventories {
    pub fn new(
        stores: Stores,
        settings: Settings,
        interval: Duration,
        cache: Cache,
        changed: impl Fn(&str, &str) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            stores,
            settings,
            interval,
            cache,
            regions: Mutex::default(),
            dirty: Notify::new(),
            changed: Box::new(changed),
        })
    }

    /// ManagedSecrets or RotationGrants have come, gone or changed.
    pub fn desires_changed(&self) {
        self.dirty.notify_one();
    }

    /// Starts to list what the ManagedSecrets are about, and waits until every region has answered, well or not.
    /// Without the listings each object would be read by calls of its own: 10,000 objects are 200 pages.
    pub async fn start(self: &Arc<Self>) {
        self.cover();
        let views: Vec<InventoryView> = self.lock().values().map(|region| region.view.clone()).collect();
        let mut first =
            std::pin::pin!(futures::future::join_all(views.iter().map(InventoryView::refresh_now)));
        let answers = loop {
            match tokio::time::timeout(STILL_WAITING, &mut first).await {
                Ok(answers) => break answers,
                Err(_) => tracing::info!("still waiting for the first listing of Parameter Store"),
            }
        };
        for error in answers.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "the first listing of Parameter Store failed; each object is looked at by itself");
        }
    }

    /// Keeps what is listed in step with the ManagedSecrets. Ends only by being dropped.
    pub async fn follow(self: Arc<Self>) {
        loop {
            self.dirty.notified().await;
            tokio::time::sleep(SETTLE).await;
            self.cover();
        }
    }

    /// Tells every region what to list.
    fn cover(self: &Arc<Self>) {
        // One that cannot be read allows nothing, and looks are not stopped by it.
        let grants: Grants =
            self.cache.grants.state().iter().filter_map(|grant| grant.0.as_ref().ok().cloned()).collect();
        let mut wanted: BTreeMap<String, Readers> = BTreeMap::new();
        for guarded in self.cache.scopes.iter().flat_map(|scope| scope.secrets.state()) {
            let Ok(secret) = &guarded.0 else { continue };
            let (Some(namespace), Some(name)) = (&secret.metadata.namespace, &secret.metadata.name) else {
                continue;
            };
            let region = self.settings.region_of(secret).to_owned();
            // Not even metadata is read of what no grant allows.
            if !self.settings.verdict(&grants, secret, &region).allows_looks() {
                continue;
            }
            let readers = wanted.entry(region).or_default();
            for parameter in &secret.spec.ssm.parameters {
                readers.entry(parameter.path.clone()).or_default().insert((namespace.clone(), name.clone()));
            }
        }
        let known: Vec<String> = self.lock().keys().cloned().collect();
        for region in known {
            wanted.entry(region).or_default();
        }
        for (region, readers) in wanted {
            let mut entries: BTreeSet<String> = readers.keys().cloned().collect();
            entries.insert(format!("{}/", self.settings.staging));
            let region = self.region(&region);
            *region.readers.lock().unwrap_or_else(PoisonError::into_inner) = readers;
            region.view.want(entries);
        }
    }

    /// The inventory of a region, started at its first use.
    fn region(self: &Arc<Self>, name: &str) -> Region {
        let mut regions = self.lock();
        if let Some(region) = regions.get(name) {
            return region.clone();
        }
        let (poller, view) = inventory(self.stores.region(name), self.interval);
        let region = Region { view, readers: Arc::default() };
        regions.insert(name.to_owned(), region.clone());
        drop(regions);
        tokio::spawn(with_urgency(ROUTINE, poller.run()));
        tokio::spawn(self.clone().tell(region.clone()));
        region
    }

    /// Brings the ManagedSecrets of changed paths into the queue.
    async fn tell(self: Arc<Self>, region: Region) {
        let mut changes = region.view.changes();
        while let Some(paths) = changes.next().await {
            let mut names = BTreeSet::new();
            {
                let readers = region.readers.lock().unwrap_or_else(PoisonError::into_inner);
                for path in &paths {
                    names.extend(readers.get(path).into_iter().flatten().cloned());
                    if let Some(staged) = records::parse_path(&self.settings.staging, path) {
                        names.insert((staged.namespace, staged.name));
                    }
                }
            }
            tracing::debug!(paths = paths.len(), secrets = names.len(), "Parameter Store has changed");
            for (namespace, name) in names {
                (self.changed)(&namespace, &name);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Region>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Regions for Inventories {
    fn store(&self, region: &str) -> Arc<dyn ParameterStore> {
        self.stores.region(region)
    }
}

impl Inventory for Inventories {
    fn glimpse(&self, region: &str, paths: &[String], folder: &str) -> Option<Glimpse> {
        let latest = self.lock().get(region)?.view.latest();
        if !latest.covers(folder) || is_stale(latest.taken_at, Utc::now(), self.interval) {
            return None;
        }
        let mut found = BTreeMap::new();
        for path in paths {
            let version = match latest.look(path) {
                Look::Present(version) => Some(version.clone()),
                Look::Absent => None,
                Look::NotCovered => return None,
            };
            found.insert(path.clone(), version);
        }
        let staged = latest.below(folder).map(|(path, _)| path.to_owned()).collect();
        Some(Glimpse { taken_at: latest.taken_at, latest: found, staged })
    }
}

fn is_stale(taken_at: DateTime<Utc>, now: DateTime<Utc>, interval: Duration) -> bool {
    let interval = TimeDelta::from_std(interval).unwrap_or(TimeDelta::zero());
    now - taken_at > STALE_AFTER.max(interval * STALE_INTERVALS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_says_nothing_once_several_others_have_failed() {
        let now = Utc::now();
        let stale = |minutes, interval: u64| {
            is_stale(now - TimeDelta::minutes(minutes), now, Duration::from_secs(interval * 60))
        };
        assert!(!stale(15, 1) && stale(16, 1));
        assert!(!stale(49, 5) && stale(51, 5), "a long interval is waited for");
    }
}
