//! Parameter Store: the content of a region, and the number of requests that reading it takes. Everything is found by
//! its path.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use keyturn_reconcile::managed_secret::coverage;
use keyturn_reconcile::parameter_store::inventory::Inventory as Listing;
use keyturn_reconcile::parameter_store::{
    Created, FolderEntry, Kept, Listed, NewVersion, ParameterStore, StoreError,
};
use keyturn_reconcile::ports::{Excerpt, Inventory, Regions};
use keyturn_rotation::observed::{Shape, Stamp, Version};
use keyturn_secret_value::SecretValue;

use crate::world::World;

/// Most parameters per page, and most values of a filter, as the adapter requests them in `src/parameter_store/ssm.rs`.
pub(crate) const PAGE: usize = 50;
/// Interval between two listings, the default of the product.
const INTERVAL: Duration = Duration::from_secs(300);

struct Stored {
    value: String,
    version: Version,
}

#[derive(Default)]
pub(crate) struct Region {
    /// The versions by path, oldest first.
    content: BTreeMap<String, Vec<Stored>>,
    /// The last listing.
    pub listing: Option<Arc<Listing>>,
}

impl Region {
    /// Writes one more version and returns its number.
    pub(crate) fn put(
        &mut self,
        path: &str,
        value: &str,
        text: String,
        stamp: Option<Stamp>,
        modified: DateTime<Utc>,
    ) -> i64 {
        let versions = self.content.entry(path.to_owned()).or_default();
        let number = versions.last().map_or(0, |last| last.version.number) + 1;
        let version = Version { number, modified, text, stamp, claim: None };
        versions.push(Stored { value: value.to_owned(), version });
        number
    }

    /// Returns everything below a folder, which is given with its closing slash.
    fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a String, &'a Vec<Stored>)> {
        self.content.range(folder.to_owned()..).take_while(move |(path, _)| path.starts_with(folder))
    }
}

fn listed(path: &str, versions: &[Stored]) -> Option<Listed> {
    Some(Listed { path: path.to_owned(), latest: versions.last()?.version.clone() })
}

struct Store {
    world: World,
    region: String,
}

impl Store {
    fn put(&self, new: NewVersion<'_>) -> i64 {
        let mut state = self.world.lock();
        let now = state.now;
        state.region(&self.region).put(new.path, new.value.expose(), new.text, new.stamp, now)
    }
}

#[async_trait]
impl ParameterStore for Store {
    async fn list(&self, wanted: &[String]) -> Result<Vec<Listed>, StoreError> {
        let mut state = self.world.lock();
        let region = &*state.region(&self.region);
        let (folders, names): (Vec<&String>, Vec<&String>) =
            wanted.iter().partition(|entry| entry.ends_with('/'));
        let (mut found, mut pages) = (Vec::new(), 0);
        for filter in folders.chunks(PAGE) {
            let before = found.len();
            for folder in filter {
                found.extend(region.below(folder).filter_map(|(path, versions)| listed(path, versions)));
            }
            // An empty page counts as a page too.
            pages += (found.len() - before).div_ceil(PAGE).max(1);
        }
        for filter in names.chunks(PAGE) {
            for path in filter {
                found.extend(region.content.get(*path).and_then(|versions| listed(path, versions)));
            }
            pages += 1;
        }
        state.tally.asks_ssm("DescribeParameters", pages);
        state.tally.gives("versions", found.len());
        Ok(found)
    }

    async fn read_folder(&self, folder: &str) -> Result<Vec<FolderEntry>, StoreError> {
        let mut state = self.world.lock();
        let mut staged = Vec::new();
        for (path, versions) in state.region(&self.region).below(folder) {
            staged.extend(versions.last().map(|latest| FolderEntry {
                path: path.clone(),
                modified: latest.version.modified,
                value: SecretValue::new(latest.value.clone()),
            }));
        }
        state.tally.asks_ssm("GetParametersByPath", 1);
        state.tally.gives("values", staged.len());
        Ok(staged)
    }

    async fn kept(&self, path: &str) -> Result<Kept, StoreError> {
        let mut state = self.world.lock();
        state.tally.asks_ssm("GetParameterHistory", 1);
        let Some(stored) = state.region(&self.region).content.get(path) else { return Ok(Kept::default()) };
        let versions: Vec<Version> = stored.iter().map(|stored| stored.version.clone()).collect();
        state.tally.gives("versions", versions.len());
        let shape = Shape { kind: "SecureString".to_owned(), ..Shape::default() };
        Ok(Kept { versions, shape: Some(shape) })
    }

    async fn read(&self, path: &str, version: Option<i64>) -> Result<Option<SecretValue>, StoreError> {
        let mut state = self.world.lock();
        state.tally.asks_ssm("GetParameter", 1);
        let Some(stored) = state.region(&self.region).content.get(path) else { return Ok(None) };
        let found = match version {
            Some(number) => stored.iter().find(|stored| stored.version.number == number),
            None => stored.last(),
        };
        let value = found.map(|stored| SecretValue::new(stored.value.clone()));
        state.tally.gives("values", usize::from(value.is_some()));
        Ok(value)
    }

    async fn create(&self, new: NewVersion<'_>) -> Result<Created, StoreError> {
        let exists = {
            let mut state = self.world.lock();
            state.tally.asks_ssm("PutParameter", 1);
            state.region(&self.region).content.contains_key(new.path)
        };
        if exists {
            return Ok(Created::Exists);
        }
        self.put(new);
        Ok(Created::Created)
    }

    async fn overwrite(&self, new: NewVersion<'_>) -> Result<i64, StoreError> {
        self.world.lock().tally.asks_ssm("PutParameter", 1);
        Ok(self.put(new))
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let mut state = self.world.lock();
        state.tally.asks_ssm("DeleteParameter", 1);
        state.region(&self.region).content.remove(path);
        Ok(())
    }
}

impl Regions for World {
    fn store(&self, region: &str) -> Arc<dyn ParameterStore> {
        Arc::new(Store { world: self.clone(), region: region.to_owned() })
    }
}

impl Inventory for World {
    fn is_coming(&self, _region: &str) -> bool {
        false
    }

    fn excerpt(&self, region: &str, paths: &[String], folder: &str) -> Option<Excerpt> {
        let mut state = self.lock();
        let now = state.now;
        let listing = state.region(region).listing.clone()?;
        let seen = coverage::excerpt(&listing, paths, folder, now, INTERVAL)?;
        state.tally.gives("versions", seen.latest.len());
        state.tally.gives("paths", seen.staged.len());
        Some(seen)
    }
}
