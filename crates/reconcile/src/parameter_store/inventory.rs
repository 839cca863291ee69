//! The inventory: a shared snapshot of Parameter Store per region, refreshed by paging through DescribeParameters.
//! Thousands of secrets cost a handful of these calls a minute; a secret needs no calls of its own.
//!
//! A snapshot knows which paths it covers, so "does not exist" and "was not listed" are different answers. It holds
//! metadata as of [`Inventory::taken_at`], and SSM's reads are eventually consistent. So a snapshot is enough to see
//! that nothing has to be done, or that nobody has written since. It is never enough to write a value.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use keyturn_rotation::observed::Version;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Listed, NAMES_IN_A_CALL, ParameterStore, StoreError};

/// Pause for each page of a whole listing. It limits a day's listings to 8,640 pages, however many parameters there are:
/// less than one call a day for each of 10,000.
const PAUSE_PER_PAGE: Duration = Duration::from_secs(10);

/// Number of new paths that are listed before the snapshot is published. A listing of thousands takes minutes, and their
/// objects need not all wait for its last page.
const NEW_AT_ONCE: usize = 1000;

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Time at which the first page of the whole listing was requested. Everything that SSM showed before then is included.
    /// Paths that were listed later may be newer.
    pub taken_at: DateTime<Utc>,
    wanted: BTreeSet<String>,
    /// Latest version of each parameter. The entries are shared with the snapshots that [`Inventory::with`] makes from
    /// this one.
    by_path: BTreeMap<Arc<str>, Arc<Version>>,
}

/// Answer of a snapshot about one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    /// The parameter exists, and this is its latest version.
    Present(&'a Version),
    /// The parameter does not exist, as far as the listing shows.
    Absent,
    /// The snapshot does not cover the path; a later one will if the path is wanted.
    NotCovered,
}

impl Inventory {
    /// The empty snapshot before the first listing: it covers nothing.
    fn none() -> Self {
        Self { taken_at: DateTime::UNIX_EPOCH, wanted: BTreeSet::new(), by_path: BTreeMap::new() }
    }

    /// Makes a snapshot of a listing of `wanted` that began at `taken_at`.
    pub fn new(taken_at: DateTime<Utc>, wanted: BTreeSet<String>, listed: Vec<Listed>) -> Self {
        Self { taken_at, wanted, by_path: listed.into_iter().map(entry).collect() }
    }

    /// Makes a snapshot that covers `wanted`: for the entries `asked` from a later listing, and for the others from
    /// this snapshot.
    fn with(&self, wanted: BTreeSet<String>, asked: &BTreeSet<String>, listed: Vec<Listed>) -> Self {
        let kept = self.by_path.iter().filter(|(path, _)| !covers(asked, path) && covers(&wanted, path));
        let kept = kept.map(|(path, version)| (path.clone(), version.clone()));
        let by_path = kept.chain(listed.into_iter().map(entry)).collect();
        Self { taken_at: self.taken_at, wanted, by_path }
    }

    /// Returns the pause between two whole listings: `every`, or more if a listing has many pages.
    pub fn pause(&self, every: Duration) -> Duration {
        let pages = self.by_path.len().max(self.wanted.len()).div_ceil(NAMES_IN_A_CALL);
        every.max(PAUSE_PER_PAGE * u32::try_from(pages).unwrap_or(u32::MAX))
    }

    /// Returns the wanted entries that this snapshot does not cover.
    fn uncovered<'a>(&'a self, wanted: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
        wanted.difference(&self.wanted).filter(|entry| !self.covers(entry))
    }

    /// Prepares a listing of only the new paths. Returns the entries to request, and the entries that are covered
    /// afterwards. At most [`NEW_AT_ONCE`] new paths are requested, together with all folders. If no path is new,
    /// nothing is requested.
    fn next_part(&self, wanted: &BTreeSet<String>) -> (BTreeSet<String>, BTreeSet<String>) {
        let new: Vec<&String> = self.uncovered(wanted).filter(|entry| !entry.ends_with('/')).collect();
        let (now, later) = new.split_at(new.len().min(NEW_AT_ONCE));
        let mut asked: BTreeSet<String> = now.iter().copied().cloned().collect();
        if !asked.is_empty() {
            asked.extend(wanted.iter().filter(|entry| entry.ends_with('/')).cloned());
        }
        let later: BTreeSet<&String> = later.iter().copied().collect();
        (asked, wanted.iter().filter(|entry| !later.contains(entry)).cloned().collect())
    }

    /// Looks up the latest version of one parameter.
    pub fn lookup(&self, path: &str) -> Lookup<'_> {
        match self.by_path.get(path) {
            Some(version) => Lookup::Present(version),
            None if self.covers(path) => Lookup::Absent,
            None => Lookup::NotCovered,
        }
    }

    /// Lists everything below a folder (with its closing slash), in order of path. Empty if the snapshot does not cover
    /// the folder: check with [`Inventory::covers`].
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a Version)> {
        self.by_path
            .range::<str, _>((Bound::Included(folder), Bound::Unbounded))
            .take_while(move |(path, _)| path.starts_with(folder))
            .map(|(path, version)| (&**path, &**version))
    }

    /// True when the snapshot covers this path, or all of this folder (with its closing slash).
    pub fn covers(&self, path: &str) -> bool {
        covers(&self.wanted, path)
    }

    /// Returns the number of parameters in the snapshot.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// True when no parameter is in the snapshot, for example before the first listing.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Returns the paths on which this snapshot differs from an older one. It walks both in order of path, since a
    /// lookup for each of thousands of paths would be the most expensive part of a listing.
    pub fn changes_since(&self, older: &Self) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        let mut before = older.by_path.iter().peekable();
        for (path, version) in &self.by_path {
            while let Some((gone, _)) = before.next_if(|(old, _)| *old < path) {
                changed.insert(gone.to_string());
            }
            match before.next_if(|(old, _)| *old == path) {
                Some((_, old)) if Arc::ptr_eq(old, version) || old == version => {}
                _ => _ = changed.insert(path.to_string()),
            }
        }
        changed.extend(before.map(|(gone, _)| gone.to_string()));
        changed.extend(self.absent().filter(|path| older.lookup(path) != Lookup::Absent).cloned());
        changed
    }

    /// Returns the requested paths that do not exist; folders are not included.
    fn absent(&self) -> impl Iterator<Item = &String> {
        let mut present = self.by_path.keys().peekable();
        self.wanted.iter().filter(move |entry| {
            while present.next_if(|path| ***path < ***entry).is_some() {}
            !entry.ends_with('/') && present.peek().is_none_or(|path| ***path != ***entry)
        })
    }
}

fn entry(listed: Listed) -> (Arc<str>, Arc<Version>) {
    (listed.path.into(), Arc::new(listed.latest))
}

fn covers(wanted: &BTreeSet<String>, path: &str) -> bool {
    wanted.contains(path) || path.match_indices('/').any(|(slash, _)| wanted.contains(&path[..=slash]))
}

/// State that the poller publishes to all views.
#[derive(Clone)]
struct Published {
    inventory: Arc<Inventory>,
    /// Number of the last refresh that ended, successful or not.
    ended: u64,
    /// Error of the last refresh that called SSM; `None` if it succeeded. After a failure the inventory of an earlier
    /// refresh stays.
    error: Option<StoreError>,
}

struct Shared {
    wanted: Mutex<BTreeSet<String>>,
    /// True while somebody waits for a whole listing.
    whole: AtomicBool,
    /// Number of the last refresh that has begun.
    begun: AtomicU64,
    /// Highest number of a refresh that somebody waits for.
    asked: watch::Sender<u64>,
}

impl Shared {
    /// Requests a refresh that begins after this call, and returns its number.
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

/// Makes the poller of one region, and the view through which everybody else reads its snapshots.
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

/// Result of a refresh, successful or not.
struct Refreshed {
    number: u64,
    /// True when the refresh listed everything.
    whole: bool,
    failed: bool,
}

/// Takes the snapshots. Run it as its own task; after it is dropped, views are no longer refreshed.
pub struct InventoryPoller {
    store: Arc<dyn ParameterStore>,
    every: Duration,
    shared: Arc<Shared>,
    publish: watch::Sender<Published>,
}

impl InventoryPoller {
    /// Refreshes the whole snapshot at the interval, or less often if that takes many pages. On request it also lists
    /// paths that no snapshot covers yet. It ends only when it is dropped, which is safe at any moment.
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
            // Waits for the next listing's time or for a request. The channel cannot close, since `self` holds its sender.
            let _ = tokio::time::timeout_at(until, asked.wait_for(|asked| *asked > number)).await;
        }
    }

    /// Takes one snapshot: a whole listing if one is due or requested, otherwise only the new paths. Together with new
    /// paths the folders are listed again too, since their content decides most about an object that has just been
    /// created.
    async fn refresh(&self, is_due: bool) -> Refreshed {
        let number = self.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let whole = self.shared.whole.swap(false, Ordering::SeqCst) || is_due;
        let wanted = self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let latest = self.publish.borrow().inventory.clone();
        let (asked, covered) =
            if whole { (wanted.clone(), wanted.clone()) } else { latest.next_part(&wanted) };
        let taken_at = Utc::now();
        let entries: Vec<String> = asked.iter().cloned().collect();
        let result = self.store.list(&entries).await;
        let goes_on = result.is_ok() && covered.len() < wanted.len();
        self.publish.send_modify(|published| {
            published.ended = number;
            match result {
                Ok(listed) => {
                    published.inventory = Arc::new(if whole {
                        Inventory::new(taken_at, covered, listed)
                    } else {
                        latest.with(covered, &asked, listed)
                    });
                    // An empty list sends no request, so it does not show that SSM works again.
                    published.error.take_if(|_| !asked.is_empty());
                }
                Err(error) => {
                    if published.error.is_none() {
                        tracing::warn!(
                            %error,
                            "Parameter Store could not be listed; the last listing stays in use for a while"
                        );
                    }
                    published.error = Some(error);
                }
            }
        });
        if goes_on {
            self.shared.ask();
        }
        Refreshed { number, whole, failed: self.publish.borrow().error.is_some() }
    }
}

/// A view of one region's inventory. All clones show the same snapshots.
#[derive(Clone)]
pub struct InventoryView {
    shared: Arc<Shared>,
    published: watch::Receiver<Published>,
}

impl InventoryView {
    /// Sets the paths that snapshots have to cover from now on: folders end in `/`, other entries are exact paths. Paths
    /// that the latest snapshot does not cover are listed at once.
    pub fn want(&self, wanted: BTreeSet<String>) {
        let latest = self.latest();
        // A path that is no longer wanted is dropped at once: its parameter may be another one by the time it is wanted
        // again.
        let is_known = latest.uncovered(&wanted).next().is_none() && latest.wanted.is_subset(&wanted);
        *self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        if !is_known {
            self.shared.ask();
        }
    }

    /// Returns the latest snapshot. It is stale while SSM cannot be reached: see [`InventoryView::error`].
    pub fn latest(&self) -> Arc<Inventory> {
        self.published.borrow().inventory.clone()
    }

    /// Returns the error of the latest refresh that called SSM; `None` if it succeeded.
    pub fn error(&self) -> Option<StoreError> {
        self.published.borrow().error.clone()
    }

    /// Waits for a listing of all wanted entries that begins after this call. Concurrent callers share one listing.
    pub async fn refresh_now(&self) -> Result<Arc<Inventory>, StoreError> {
        self.shared.whole.store(true, Ordering::SeqCst);
        let number = self.shared.ask();
        self.ended(number).await
    }

    /// Waits until the first refresh has ended. Returns the latest snapshot, or [`InventoryView::error`].
    pub async fn first(&self) -> Result<Arc<Inventory>, StoreError> {
        self.ended(1).await
    }

    /// Waits until the refresh with this number, or a later one, has ended.
    async fn ended(&self, number: u64) -> Result<Arc<Inventory>, StoreError> {
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

    /// Subscribes to the changes from now on.
    pub fn changes(&self) -> InventoryChanges {
        let mut published = self.published.clone();
        let seen = published.borrow_and_update().inventory.clone();
        InventoryChanges { published, seen }
    }
}

/// A subscription to the paths that change from snapshot to snapshot. A slow reader misses no change; it gets several
/// changes as one.
pub struct InventoryChanges {
    published: watch::Receiver<Published>,
    seen: Arc<Inventory>,
}

impl InventoryChanges {
    /// Waits for a snapshot with changes, and returns the changed paths. `None` once the poller is gone.
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
        assert!(matches!(inventory.lookup("/a/b/x"), Lookup::Present(version) if version.number == 3));
        assert!(matches!(inventory.lookup("/c"), Lookup::Present(_)));
        for absent in ["/a/b/y", "/a/b/x/z"] {
            assert_eq!(inventory.lookup(absent), Lookup::Absent, "{absent}");
        }
        for unseen in ["/a/b", "/a/bc", "/a", "/c/d", "/cc", "", "/"] {
            assert_eq!(inventory.lookup(unseen), Lookup::NotCovered, "{unseen}");
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
        let listed = listed.into_iter();
        let listed =
            listed.map(|(path, latest)| Listed { path: path.to_string(), latest: (*latest).clone() });
        let listed = listed.collect();
        let later = first.with(wanted, &asked, listed);
        assert_eq!(below(&later, "/"), ["/a", "/b", "/staged/new"]);
        assert_eq!(later.lookup("/gone"), Lookup::NotCovered, "nobody wants it any more");
        assert_eq!(later.taken_at, first.taken_at, "the rest is as old as it was");
    }

    #[test]
    fn new_paths_are_listed_a_part_at_a_time_until_all_are_covered() {
        let mut wanted: BTreeSet<String> = (0..2 * NEW_AT_ONCE + 1).map(|n| format!("/new/{n:05}")).collect();
        wanted.extend(["/staged/".to_owned(), "/old".to_owned()]);
        let mut latest = snapshot(&["/staged/", "/old"], &[("/old", 1)]);
        let mut sizes = Vec::new();
        loop {
            let (asked, covered) = latest.next_part(&wanted);
            if asked.is_empty() {
                break;
            }
            assert!(
                asked.contains("/staged/") && !asked.contains("/old"),
                "each part lists the folders again"
            );
            sizes.push(asked.len() - 1);
            let unlisted = wanted.difference(&covered).next().cloned();
            latest = latest.with(covered, &asked, Vec::new());
            assert!(
                unlisted.is_none_or(|path| latest.lookup(&path) == Lookup::NotCovered),
                "nobody looked for it"
            );
        }
        assert_eq!(sizes, [NEW_AT_ONCE, NEW_AT_ONCE, 1]);
        assert!(wanted.iter().all(|entry| latest.covers(entry)));
        assert!(matches!(latest.lookup("/old"), Lookup::Present(_)), "what was listed before stays");
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

    #[test]
    fn changes_are_the_paths_that_are_looked_up_differently() {
        // Every pair of these snapshots, of which each has some of three paths, and covers some of them.
        let paths = ["/a", "/b/x", "/c"];
        let covers =
            [vec![], vec!["/"], vec!["/a"], vec!["/a", "/b/", "/c"], vec!["/b/x", "/c"], vec!["/b/"]];
        let numbers = |mut code: usize| {
            let mut listed = Vec::new();
            for path in paths {
                if !code.is_multiple_of(3) {
                    listed.push((path, i64::try_from(code % 3).unwrap()));
                }
                code /= 3;
            }
            listed
        };
        let all: Vec<Inventory> = covers
            .iter()
            .flat_map(|wanted| (0..27).map(move |code| (wanted, numbers(code))))
            .map(|(wanted, listed)| {
                let covered = |path: &str| snapshot(wanted, &[]).covers(path);
                let listed: Vec<_> = listed.into_iter().filter(|(path, _)| covered(path)).collect();
                snapshot(wanted, &listed)
            })
            .collect();
        for (newer, older) in all.iter().flat_map(|newer| all.iter().map(move |older| (newer, older))) {
            let shown =
                |snapshot: &Inventory| snapshot.by_path.keys().map(ToString::to_string).collect::<Vec<_>>();
            let exact = newer.wanted.iter().filter(|entry| !entry.ends_with('/')).cloned();
            let looked_up = shown(newer).into_iter().chain(shown(older)).chain(exact);
            let differing: BTreeSet<String> =
                looked_up.filter(|path| newer.lookup(path) != older.lookup(path)).collect();
            assert_eq!(newer.changes_since(older), differing, "{newer:?}\n{older:?}");
        }
    }
}
