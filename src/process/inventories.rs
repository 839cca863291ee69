//! The inventories of Parameter Store, one per region. The existing ManagedSecrets decide which paths they list; a
//! change of a path puts its ManagedSecret into the queue.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;
use keyturn_reconcile::managed_secret::coverage::{self, Coverage};
use keyturn_reconcile::ports::{Excerpt, Inventory, Regions};
use keyturn_reconcile::settings::Settings;
use tokio::sync::Notify;

use crate::api::grants::Grants;
use crate::cluster::cache::{Cache, decoded};
use crate::parameter_store::ParameterStore;
use crate::parameter_store::aws::Stores;
use crate::parameter_store::budget::{Urgency, with_urgency};
use crate::parameter_store::inventory::{InventoryView, inventory};

/// Changes of ManagedSecrets within this time lead to one listing.
const SETTLE: Duration = Duration::from_millis(500);
/// Factor of the pause after each pass over all ManagedSecrets, relative to the pass's duration: passes over thousands
/// of objects then take a small part of the time, no matter how fast changes come.
const PAUSES_PER_COVER: u32 = 50;
/// Interval of the log message that a replica still waits for its first listings.
const STILL_WAITING: Duration = Duration::from_secs(30);
/// Urgency of the routine listing: requests for an object come first.
const ROUTINE: Urgency = Urgency(-1);

/// Called with namespace and name of a ManagedSecret.
type Changed = Box<dyn Fn(&str, &str) + Send + Sync>;

/// Parameter Store for the reconcilers.
pub struct Inventories {
    stores: Stores,
    settings: Settings,
    interval: Duration,
    cache: Cache,
    regions: Mutex<HashMap<String, Region>>,
    /// Signals that ManagedSecrets or RotationGrants have changed.
    dirty: Notify,
    /// Called for each ManagedSecret with a change in Parameter Store.
    changed: Changed,
}

#[derive(Clone)]
struct Region {
    view: InventoryView,
    coverage: Arc<Mutex<Coverage>>,
}

impl Inventories {
    /// Creates the inventories; [`Self::start`] starts the listings, one in each `interval`. `changed` gets the
    /// namespace and the name of each ManagedSecret with a change in Parameter Store.
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

    /// Signals that ManagedSecrets or RotationGrants were added, removed or changed.
    pub fn desires_changed(&self) {
        self.dirty.notify_one();
    }

    /// Starts to list the parameters of the ManagedSecrets, and waits until every region has answered, with or without
    /// an error. Without listings each object would need calls of its own: for 10,000 objects a listing takes 200
    /// pages.
    pub async fn start(self: &Arc<Self>) {
        self.cover();
        let views: Vec<InventoryView> = self.lock().values().map(|region| region.view.clone()).collect();
        let mut first = std::pin::pin!(futures::future::join_all(views.iter().map(InventoryView::first)));
        let answers = loop {
            match tokio::time::timeout(STILL_WAITING, &mut first).await {
                Ok(answers) => break answers,
                Err(_) => tracing::info!("still waiting for the first listing of Parameter Store"),
            }
        };
        for error in answers.into_iter().filter_map(Result::err) {
            tracing::warn!(
                %error,
                "the first listing of Parameter Store failed; keyturn reads the parameters of each object separately"
            );
        }
    }

    /// Keeps the listed paths up to date with the ManagedSecrets. Runs until it is dropped.
    pub async fn follow(self: Arc<Self>) {
        let mut pause = SETTLE;
        loop {
            self.dirty.notified().await;
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            self.cover();
            pause = SETTLE.max(began.elapsed() * PAUSES_PER_COVER);
        }
    }

    /// Sets the paths that each region lists.
    fn cover(self: &Arc<Self>) {
        // A grant that cannot be decoded grants nothing here, and does not stop observation.
        let grants: Grants =
            self.cache.grants.state().iter().filter_map(|grant| grant.0.as_ref().ok().cloned()).collect();
        let secrets: Vec<_> = self.cache.scopes.iter().flat_map(|scope| scope.secrets.state()).collect();
        let mut wanted = coverage::coverage(decoded(&secrets), &grants, &self.settings);
        for region in self.lock().keys() {
            wanted.entry(region.clone()).or_insert_with(|| Coverage::none(&self.settings.staging));
        }
        for (region, coverage) in wanted {
            self.list(&region, coverage);
        }
    }

    /// Sets the paths that the inventory of a region has to list. If the region has no inventory yet, one is started,
    /// and its first listing covers all of them.
    fn list(self: &Arc<Self>, region: &str, coverage: Coverage) {
        let entries = coverage.wanted();
        let mut regions = self.lock();
        if let Some(known) = regions.get(region) {
            *known.coverage.lock().unwrap_or_else(PoisonError::into_inner) = coverage;
            known.view.want(entries);
            return;
        }
        let (poller, view) = inventory(self.stores.region(region), self.interval);
        view.want(entries);
        let new = Region { view, coverage: Arc::new(Mutex::new(coverage)) };
        regions.insert(region.to_owned(), new.clone());
        drop(regions);
        tokio::spawn(with_urgency(ROUTINE, poller.run()));
        tokio::spawn(self.clone().tell(new));
    }

    /// Puts the ManagedSecrets of changed paths into the queue.
    async fn tell(self: Arc<Self>, region: Region) {
        let mut changes = region.view.changes();
        while let Some(paths) = changes.next().await {
            let mut names = BTreeSet::new();
            {
                let coverage = region.coverage.lock().unwrap_or_else(PoisonError::into_inner);
                names.extend(paths.iter().flat_map(|path| coverage.concerned(path)));
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
    fn is_coming(&self, region: &str) -> bool {
        self.lock().get(region).is_none_or(|region| region.view.error().is_none())
    }

    fn excerpt(&self, region: &str, paths: &[String], folder: &str) -> Option<Excerpt> {
        let latest = self.lock().get(region)?.view.latest();
        coverage::excerpt(&latest, paths, folder, Utc::now(), self.interval)
    }
}
