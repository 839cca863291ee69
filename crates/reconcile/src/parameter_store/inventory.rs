//! What lies in Parameter Store, as one shared snapshot per region that is refreshed by pages: thousands of secrets
//! cost a handful of DescribeParameters calls a minute, and none of their own.
//!
//! A snapshot knows what it was asked for, so "does not exist" and "was not looked for" are different answers. It is
//! metadata as of [`Inventory::taken_at`], and SSM's reads lag: enough to see that nothing is to be done, never enough
//! to write. Before a write, [`InventoryView::refresh_now`] or the history tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use keyturn_rotation::observed::Version;
use tokio::sync::watch;

use super::{Listed, ParameterStore, StoreError};

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// When its first page was asked for: everything that was visible in SSM before then is in it.
    pub taken_at: DateTime<Utc>,
    wanted: BTreeSet<String>,
    by_path: BTreeMap<String, Version>,
}

/// What a snapshot says about one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<'a> {
    Present(&'a Version),
    Absent,
    /// The snapshot did not look there; the next one will if the path is wanted.
    NotCovered,
}

impl Inventory {
    /// The snapshot before the first: it covers nothing.
    fn none() -> Self {
        Self { taken_at: DateTime::UNIX_EPOCH, wanted: BTreeSet::new(), by_path: BTreeMap::new() }
    }

    /// What a listing of `wanted` has shown that was begun at this time.
    pub fn new(taken_at: DateTime<Utc>, wanted: BTreeSet<String>, listed: Vec<Listed>) -> Self {
        let by_path = listed.into_iter().map(|listed| (listed.path, listed.latest)).collect();
        Self { taken_at, wanted, by_path }
    }

    /// The latest version of one parameter.
    pub fn look(&self, path: &str) -> Look<'_> {
        match self.by_path.get(path) {
            Some(version) => Look::Present(version),
            None if self.covers(path) => Look::Absent,
            None => Look::NotCovered,
        }
    }

    /// Everything below a folder (with its closing slash), in order of path. Nothing where the snapshot did not look:
    /// ask [`Inventory::covers`].
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a Version)> {
        self.by_path
            .range(folder.to_owned()..)
            .take_while(move |(path, _)| path.starts_with(folder))
            .map(|(path, version)| (path.as_str(), version))
    }

    /// Whether the snapshot looked for this path, or for all of this folder (with its closing slash).
    pub fn covers(&self, path: &str) -> bool {
        self.wanted.contains(path)
            || path.match_indices('/').any(|(slash, _)| self.wanted.contains(&path[..=slash]))
    }

    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// The paths on which this snapshot says something else than an older one.
    pub fn changes_since(&self, older: &Self) -> BTreeSet<String> {
        let exact = |snapshot: &Self| {
            snapshot.wanted.iter().filter(|entry| !entry.ends_with('/')).cloned().collect::<Vec<String>>()
        };
        self.by_path
            .keys()
            .chain(older.by_path.keys())
            .cloned()
            .chain(exact(self))
            .filter(|path| self.look(path) != older.look(path))
            .collect()
    }
}

/// The state that the poller publishes.
#[derive(Clone)]
struct Published {
    inventory: Arc<Inventory>,
    /// Number of the last refresh that ended, well or not.
    ended: u64,
    /// Why the last refresh failed; the inventory is then older.
    error: Option<StoreError>,
}

struct Shared {
    wanted: Mutex<BTreeSet<String>>,
    /// Number of the last refresh that was begun.
    begun: AtomicU64,
    /// Number of the refresh that somebody waits for.
    asked: watch::Sender<u64>,
}

impl Shared {
    /// Asks for a refresh that begins from now on, and answers its number.
    fn ask(&self) -> u64 {
        let next = self.begun.load(Ordering::SeqCst) + 1;
        self.asked.send_if_modified(|asked| {
            let later = *asked < next;
            *asked = next.max(*asked);
            later
        });
        next
    }
}

/// Makes the poller of one region and the view that everybody else holds.
pub fn inventory(store: Arc<dyn ParameterStore>, every: Duration) -> (InventoryPoller, InventoryView) {
    let shared =
        Arc::new(Shared { wanted: Mutex::default(), begun: AtomicU64::new(0), asked: watch::Sender::new(0) });
    let (publish, published) =
        watch::channel(Published { inventory: Arc::new(Inventory::none()), ended: 0, error: None });
    (InventoryPoller { store, every, shared: shared.clone(), publish }, InventoryView { shared, published })
}

/// Takes the snapshots. Run it as a task of its own; views stop being refreshed when it is dropped.
pub struct InventoryPoller {
    store: Arc<dyn ParameterStore>,
    every: Duration,
    shared: Arc<Shared>,
    publish: watch::Sender<Published>,
}

impl InventoryPoller {
    /// Refreshes at the interval, and at once when asked. Ends only by being dropped, which is safe at any moment.
    pub async fn run(self) {
        let mut asked = self.shared.asked.subscribe();
        loop {
            let number = self.refresh().await;
            // Either the interval is over or somebody asked; the channel cannot close, since `self` holds its sender.
            let _ = tokio::time::timeout(self.every, asked.wait_for(|asked| *asked > number)).await;
        }
    }

    /// Takes one snapshot; answers its number.
    async fn refresh(&self) -> u64 {
        let number = self.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let taken_at = Utc::now();
        let entries: Vec<String> = wanted.iter().cloned().collect();
        let result = self.store.list(&entries).await;
        self.publish.send_modify(|published| {
            published.ended = number;
            published.error = match result {
                Ok(listed) => {
                    published.inventory = Arc::new(Inventory::new(taken_at, wanted, listed));
                    None
                }
                Err(error) => Some(error),
            };
        });
        number
    }
}

/// What everybody sees of one region's inventory. Clones see the same.
#[derive(Clone)]
pub struct InventoryView {
    shared: Arc<Shared>,
    published: watch::Receiver<Published>,
}

impl InventoryView {
    /// Says what snapshots shall cover from now on: folders end in `/`, other entries are exact paths. A snapshot is
    /// taken at once if the latest one does not cover all of it.
    pub fn want(&self, wanted: BTreeSet<String>) {
        let covered = {
            let latest = self.latest();
            wanted.iter().all(|entry| latest.covers(entry))
        };
        *self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        if !covered {
            self.shared.ask();
        }
    }

    /// The latest snapshot. It may be old while SSM cannot be asked: see [`InventoryView::error`].
    pub fn latest(&self) -> Arc<Inventory> {
        self.published.borrow().inventory.clone()
    }

    /// Why the latest refresh failed, if it did.
    pub fn error(&self) -> Option<StoreError> {
        self.published.borrow().error.clone()
    }

    /// A snapshot that was begun after this call. Callers who ask at the same time share one.
    pub async fn refresh_now(&self) -> Result<Arc<Inventory>, StoreError> {
        let number = self.shared.ask();
        let mut published = self.published.clone();
        let ended = published.wait_for(|published| published.ended >= number).await;
        let published = ended.map_err(|_| StoreError::Unavailable {
            operation: "DescribeParameters",
            path: "the inventory".to_owned(),
            detail: "keyturn is shutting down".to_owned(),
        })?;
        match &published.error {
            Some(error) => Err(error.clone()),
            None => Ok(published.inventory.clone()),
        }
    }

    /// Follows what changes from here on.
    pub fn changes(&self) -> InventoryChanges {
        let mut published = self.published.clone();
        let seen = published.borrow_and_update().inventory.clone();
        InventoryChanges { published, seen }
    }
}

/// The paths that changed, snapshot after snapshot. A slow reader misses none: it sees several changes as one.
pub struct InventoryChanges {
    published: watch::Receiver<Published>,
    seen: Arc<Inventory>,
}

impl InventoryChanges {
    /// Waits for a snapshot that says something new, and tells about which paths. `None` once the poller is gone.
    pub async fn next(&mut self) -> Option<BTreeSet<String>> {
        loop {
            self.published.changed().await.ok()?;
            let latest = self.published.borrow_and_update().inventory.clone();
            let changed = latest.changes_since(&self.seen);
            self.seen = latest;
            if !changed.is_empty() {
                return Some(changed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(wanted: &[&str], listed: &[(&str, i64)]) -> Inventory {
        let listed = listed.iter().map(|&(path, number)| Listed {
            path: path.to_owned(),
            latest: Version {
                number,
                modified: DateTime::UNIX_EPOCH,
                text: String::new(),
                stamp: None,
                claim: None,
            },
        });
        let wanted = wanted.iter().map(|&entry| entry.to_owned()).collect();
        Inventory::new(DateTime::UNIX_EPOCH, wanted, listed.collect())
    }

    fn below(inventory: &Inventory, folder: &str) -> Vec<String> {
        inventory.below(folder).map(|(path, _)| path.to_owned()).collect()
    }

    #[test]
    fn absent_is_told_apart_from_not_looked_for() {
        let inventory = snapshot(&["/a/b/", "/c"], &[("/a/b/x", 3), ("/c", 1)]);
        assert!(matches!(inventory.look("/a/b/x"), Look::Present(version) if version.number == 3));
        assert!(matches!(inventory.look("/c"), Look::Present(_)));
        for absent in ["/a/b/y", "/a/b/x/z"] {
            assert_eq!(inventory.look(absent), Look::Absent, "{absent}");
        }
        for unseen in ["/a/b", "/a/bc", "/a", "/c/d", "/cc", "", "/"] {
            assert_eq!(inventory.look(unseen), Look::NotCovered, "{unseen}");
        }
        assert!(inventory.covers("/a/b/") && inventory.covers("/a/b/deeper/"));
        assert!(!inventory.covers("/a/") && !inventory.covers("/c/"));
    }

    #[test]
    fn a_folder_holds_what_lies_below_it_and_nothing_beside_it() {
        let paths = [("/a/b", 1), ("/a/b/x", 1), ("/a/b/y/z", 1), ("/a/b-c/x", 1), ("/a/bb", 1)];
        assert_eq!(below(&snapshot(&["/"], &paths), "/a/b/"), ["/a/b/x", "/a/b/y/z"]);
    }

    #[test]
    fn changes_are_what_came_went_moved_on_or_was_looked_for_first() {
        let older = snapshot(&["/a/"], &[("/a/same", 1), ("/a/newer", 1), ("/a/gone", 1)]);
        let newer = snapshot(&["/a/", "/b", "/a/never"], &[("/a/same", 1), ("/a/newer", 2), ("/a/came", 1)]);
        let changed: Vec<String> = newer.changes_since(&older).into_iter().collect();
        assert_eq!(changed, ["/a/came", "/a/gone", "/a/newer", "/b"]);
        assert!(newer.changes_since(&newer).is_empty());
    }
}
