//! What lies in Parameter Store, as one shared snapshot per region that is refreshed by pages: thousands of secrets
//! cost a handful of DescribeParameters calls a minute, and none of their own.
//!
//! A snapshot knows what it was asked for, so "does not exist" and "was not looked for" are different answers. It is
//! metadata as of [`Inventory::taken_at`], and SSM's reads lag: enough to see that nothing is to be done, or that nobody has
//! written since, and never enough to write a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use keyturn_rotation::observed::Version;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Listed, NAMES_IN_A_CALL, ParameterStore, StoreError};

/// So long a pause for each page of a whole listing keeps a day's listings at 8,640 pages, however many parameters there are:
/// less than one call a day for each of 10,000.
const PAUSE_PER_PAGE: Duration = Duration::from_secs(10);

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// When the first page of the whole was asked for: everything that was visible in SSM before then is in it. Of what was
    /// asked for since then it may show more.
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

    /// The same, with what a later listing of these entries has shown.
    fn with(&self, wanted: BTreeSet<String>, asked: &BTreeSet<String>, listed: Vec<Listed>) -> Self {
        let is_asked = |path: &String| covers(asked, path);
        let kept = self.by_path.iter().filter(|(path, _)| !is_asked(path) && covers(&wanted, path));
        let kept = kept.map(|(path, version)| (path.clone(), version.clone()));
        let by_path = kept.chain(listed.into_iter().map(|listed| (listed.path, listed.latest))).collect();
        Self { taken_at: self.taken_at, wanted, by_path }
    }

    /// The time between two listings of the whole, where they are wanted this often.
    pub fn pause(&self, every: Duration) -> Duration {
        let pages = self.by_path.len().max(self.wanted.len()).div_ceil(NAMES_IN_A_CALL);
        every.max(PAUSE_PER_PAGE * u32::try_from(pages).unwrap_or(u32::MAX))
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
        covers(&self.wanted, path)
    }

    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// The paths on which this snapshot says something else than an older one.
    pub fn changes_since(&self, older: &Self) -> BTreeSet<String> {
        let exact = self.wanted.iter().filter(|entry| !entry.ends_with('/'));
        let shown = self.by_path.keys().chain(older.by_path.keys());
        shown.chain(exact).filter(|path| self.look(path) != older.look(path)).cloned().collect()
    }
}

fn covers(wanted: &BTreeSet<String>, path: &str) -> bool {
    wanted.contains(path) || path.match_indices('/').any(|(slash, _)| wanted.contains(&path[..=slash]))
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
    /// Whether somebody waits for a snapshot of the whole.
    whole: AtomicBool,
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
    let shared = Arc::new(Shared {
        wanted: Mutex::default(),
        whole: AtomicBool::new(true),
        begun: AtomicU64::new(0),
        asked: watch::Sender::new(0),
    });
    let (publish, published) =
        watch::channel(Published { inventory: Arc::new(Inventory::none()), ended: 0, error: None });
    (InventoryPoller { store, every, shared: shared.clone(), publish }, InventoryView { shared, published })
}

/// A snapshot that was taken, or could not be.
struct Refreshed {
    number: u64,
    /// Whether everything was asked for.
    whole: bool,
    failed: bool,
}

/// Takes the snapshots. Run it as a task of its own; views stop being refreshed when it is dropped.
pub struct InventoryPoller {
    store: Arc<dyn ParameterStore>,
    every: Duration,
    shared: Arc<Shared>,
    publish: watch::Sender<Published>,
}

impl InventoryPoller {
    /// Refreshes the whole at the interval, or less often where that takes many pages; and when asked, what no snapshot covers
    /// yet. Ends only by being dropped, which is safe at any moment.
    pub async fn run(self) {
        let mut asked = self.shared.asked.subscribe();
        let mut due = Instant::now();
        loop {
            let Refreshed { number, whole, failed } = self.refresh(due <= Instant::now()).await;
            let again = Instant::now() + self.every;
            if whole {
                let pause = self.publish.borrow().inventory.pause(self.every);
                due = if failed { again } else { Instant::now() + pause };
            }
            let until = if failed { due.min(again) } else { due };
            // Either its time has come or somebody asked; the channel cannot close, since `self` holds its sender.
            let _ = tokio::time::timeout_at(until, asked.wait_for(|asked| *asked > number)).await;
        }
    }

    /// Takes one snapshot, of the whole where that is due or somebody waits for it. With anything new the folders are listed too:
    /// what lies in them tells most of an object that has just come.
    async fn refresh(&self, is_due: bool) -> Refreshed {
        let number = self.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let whole = self.shared.whole.swap(false, Ordering::SeqCst) || is_due;
        let wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let latest = self.publish.borrow().inventory.clone();
        let is_new = |entry: &String| !entry.ends_with('/') && !latest.covers(entry);
        let anything_new = wanted.iter().any(is_new);
        let is_asked = |entry: &&String| whole || anything_new && (entry.ends_with('/') || is_new(entry));
        let asked: BTreeSet<String> = wanted.iter().filter(is_asked).cloned().collect();
        let taken_at = Utc::now();
        let entries: Vec<String> = asked.iter().cloned().collect();
        let result = self.store.list(&entries).await;
        self.publish.send_modify(|published| {
            published.ended = number;
            match result {
                Ok(listed) => {
                    published.inventory = Arc::new(if whole {
                        Inventory::new(taken_at, wanted, listed)
                    } else {
                        latest.with(wanted, &asked, listed)
                    });
                    // Where nothing was asked for, SSM has answered nothing.
                    published.error.take_if(|_| !asked.is_empty());
                }
                Err(error) => {
                    if published.error.is_none() {
                        tracing::warn!(%error, "Parameter Store could not be listed; what it showed last counts for a while");
                    }
                    published.error = Some(error);
                }
            }
        });
        Refreshed { number, whole, failed: self.publish.borrow().error.is_some() }
    }
}

/// What everybody sees of one region's inventory. Clones see the same.
#[derive(Clone)]
pub struct InventoryView {
    shared: Arc<Shared>,
    published: watch::Receiver<Published>,
}

impl InventoryView {
    /// Says what snapshots shall cover from now on: folders end in `/`, other entries are exact paths. What the latest one
    /// does not cover is looked at at once.
    pub fn want(&self, wanted: BTreeSet<String>) {
        let latest = self.latest();
        // What nobody wants is forgotten at once: it may be another parameter by the time that it is wanted again.
        let is_known = wanted.iter().all(|entry| latest.covers(entry)) && latest.wanted.is_subset(&wanted);
        *self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        if !is_known {
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

    /// A snapshot of the whole that was begun after this call. Callers who ask at the same time share one.
    pub async fn refresh_now(&self) -> Result<Arc<Inventory>, StoreError> {
        self.shared.whole.store(true, Ordering::SeqCst);
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
    fn a_later_listing_of_a_part_says_nothing_of_the_rest() {
        let first = snapshot(&["/staged/", "/a", "/gone"], &[("/staged/old", 1), ("/a", 1), ("/gone", 1)]);
        let entries = |entries: &[&str]| entries.iter().map(|&entry| entry.to_owned()).collect();
        let (wanted, asked): (BTreeSet<String>, BTreeSet<String>) =
            (entries(&["/staged/", "/a", "/b"]), entries(&["/staged/", "/b"]));
        let listed = snapshot(&[], &[("/staged/new", 1), ("/b", 4)]).by_path;
        let listed = listed.into_iter().map(|(path, latest)| Listed { path, latest }).collect();
        let later = first.with(wanted, &asked, listed);
        assert_eq!(below(&later, "/"), ["/a", "/b", "/staged/new"]);
        assert_eq!(later.look("/gone"), Look::NotCovered, "nobody wants it any more");
        assert_eq!(later.taken_at, first.taken_at, "the rest is as old as it was");
    }

    #[test]
    fn a_whole_listing_is_taken_less_often_the_more_pages_it_has() {
        let paths: Vec<String> = (0..10_000).map(|number| format!("/{number}")).collect();
        let minute = Duration::from_secs(60);
        let pause = |count: usize| {
            let wanted = paths.iter().take(count).cloned().collect();
            Inventory::new(DateTime::UNIX_EPOCH, wanted, Vec::new()).pause(minute)
        };
        assert_eq!((pause(0), pause(300)), (minute, minute));
        assert_eq!((pause(301), pause(10_000)), (Duration::from_secs(70), Duration::from_secs(2_000)));
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
