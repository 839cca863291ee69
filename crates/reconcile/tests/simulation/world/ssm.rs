//! Parameter Store: versions, descriptions that stay if a Put omits them, no conditional writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta};
use keyturn_api::ManagedSecret;
use keyturn_api::time::from_kubernetes;
use keyturn_reconcile::managed_secret::coverage::{self, Coverage};
use keyturn_reconcile::parameter_store::inventory::Inventory as Listing;
use keyturn_reconcile::parameter_store::seal::{Said, Seal};
use keyturn_reconcile::parameter_store::{
    Created, FolderEntry, Kept, Listed, MOST_VERSIONS, NewVersion, ParameterStore, StoreError, are_the_same,
};
use keyturn_reconcile::ports::{Excerpt, Inventory, Regions};
use keyturn_reconcile::settings::Settings;
use keyturn_rotation::observed::{Shape, Stamp, Version};
use keyturn_secret_value::SecretValue;

use super::{Answer, At, CLUSTER, Key, Lag, REGION, STAGING, STALENESS, Sabotage, Sent, State, World};
use crate::faults::Kind;
use crate::invariants;

/// Number of versions that SSM keeps.
pub(crate) const KEPT: usize = MOST_VERSIONS;
/// The only AllowedPattern that this SSM implements.
pub(crate) const DIGITS: &str = "^[0-9]+$";
/// Interval of the shared inventory.
const INVENTORY_EVERY: Duration = Duration::from_secs(60);
/// Time until the inventory covers a new object.
pub(crate) const LISTED_AFTER: TimeDelta = TimeDelta::seconds(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Person,
    Keyturn,
}

/// The installation's seal. Its key existed before everything else.
static SEAL: LazyLock<Seal> =
    LazyLock::new(|| Seal::new(&SecretValue::new("the key of the stamps".to_owned()), DateTime::UNIX_EPOCH));

#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub number: i64,
    pub value: String,
    pub description: String,
    /// The content of the description for a reader with the key.
    pub said: Said,
    /// True if its stamp was made for another value.
    pub is_of_another_value: bool,
    pub modified: At,
    pub by: By,
    /// Number of the change that created it.
    pub sequence: u64,
}

pub(crate) type Content = BTreeMap<String, Arc<Vec<Stored>>>;

/// Conditions that SSM sets for a Put to a path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// True for a String, which SSM does not convert into a SecureString.
    pub plain: bool,
    /// AllowedPattern.
    pub pattern: Option<String>,
    /// True if the policy of the controller's role does not include the path.
    pub denied: bool,
    /// Labels of the oldest version that is kept: with 100 versions, SSM refuses a Put if the oldest one has a label.
    pub labels_on_oldest: Vec<String>,
    /// True if SSM refuses a Put for a reason that no metadata shows.
    pub frozen: bool,
    /// True while SSM throttles requests.
    pub throttled: bool,
    /// The key that encrypts it, if it is not the default one.
    pub key: Option<String>,
    /// Versions under a key that was disabled later.
    pub unreadable: BTreeSet<i64>,
}

#[derive(Default)]
pub(crate) struct Ssm {
    pub content: Content,
    /// Rules by path.
    pub rules: BTreeMap<String, Rules>,
    /// True while the controller cannot read folders, because the requests of others are too many.
    pub unread: bool,
    /// Number of the last change.
    pub sequence: u64,
    /// The content before each change, with the time of the change.
    past: Vec<(At, Content)>,
    lag: Option<(Lag, At, Content, u64)>,
}

impl Ssm {
    pub(crate) fn latest(&self, path: &str) -> Option<&Stored> {
        self.content.get(path).and_then(|versions| versions.last())
    }

    pub(crate) fn versions(&self, path: &str) -> &[Stored] {
        self.content.get(path).map_or(&[], |versions| versions)
    }

    /// Returns the paths of all records and markers.
    pub(crate) fn staged(&self) -> impl Iterator<Item = &str> {
        self.content.keys().map(String::as_str).filter(|path| path.starts_with(STAGING))
    }

    /// Returns what the history of a path with this many versions shows of the rules.
    fn shape(&self, path: &str, versions: usize) -> Shape {
        let rules = self.rules.get(path).cloned().unwrap_or_default();
        Shape {
            kind: if rules.plain { "String" } else { "SecureString" }.to_owned(),
            key_id: rules.key,
            pattern: rules.pattern,
            is_advanced: false,
            labels_in_the_way: if versions == KEPT { rules.labels_on_oldest } else { Vec::new() },
        }
    }

    /// Returns the reason why SSM refuses this value for the path. `overwrite`: true if the Put may replace a version.
    fn refusal(&self, path: &str, value: &str, overwrite: bool) -> Option<StoreError> {
        let rules = self.rules.get(path)?;
        let rejected = |detail: &str| {
            let (path, detail) = (path.to_owned(), detail.to_owned());
            Some(StoreError::Rejected { operation: "PutParameter", path, detail })
        };
        if rules.denied {
            let (path, detail) = (path.to_owned(), "AccessDeniedException".to_owned());
            return Some(StoreError::Denied { operation: "PutParameter", path, detail });
        }
        if rules.throttled {
            return Some(StoreError::refused(path));
        }
        if !overwrite && self.content.contains_key(path) {
            return None;
        }
        if rules.frozen {
            return rejected("ValidationException");
        }
        if rules.plain {
            return rejected("HierarchyTypeMismatchException");
        }
        let digits = |value: &str| value.bytes().all(|b| b.is_ascii_digit());
        if rules.pattern.as_deref().is_some_and(|pattern| pattern == DIGITS && !digits(value)) {
            return rejected("ParameterPatternMismatchException");
        }
        if self.versions(path).len() == KEPT && !rules.labels_on_oldest.is_empty() {
            return rejected("ParameterMaxVersionLimitExceeded");
        }
        None
    }

    fn change(&mut self, now: At) -> &mut Content {
        self.past.push((now, self.content.clone()));
        self.sequence += 1;
        &mut self.content
    }

    /// Writes a version. A missing description leaves the old one.
    fn put(&mut self, now: At, path: &str, value: &str, description: Option<&str>, by: By) -> i64 {
        let before = self.content.get(path).cloned();
        let content = self.change(now);
        let number = before.as_ref().and_then(|b| b.last()).map_or(0, |last| last.number) + 1;
        let kept = before.as_ref().and_then(|b| b.last()).map(|last| last.description.clone());
        let mut versions = before.map_or_else(Vec::new, |b| b.to_vec());
        let description = description.map(str::to_owned).or(kept).unwrap_or_default();
        let said = SEAL.read(path, &description, now);
        let is_of = |tag: &String| SEAL.is_of(path, &SecretValue::new(value.to_owned()), tag);
        versions.push(Stored {
            number,
            value: value.to_owned(),
            description,
            is_of_another_value: said.value.as_ref().is_some_and(|tag| !is_of(tag)),
            said,
            modified: now,
            by,
            sequence: 0,
        });
        if versions.len() > KEPT {
            versions.remove(0);
        }
        content.insert(path.to_owned(), Arc::new(versions));
        let sequence = self.sequence;
        if let Some(last) = self.content.get_mut(path).and_then(|v| Arc::make_mut(v).last_mut()) {
            last.sequence = sequence;
        }
        number
    }

    fn remove(&mut self, now: At, path: &str) {
        if self.content.contains_key(path) {
            self.change(now).remove(path);
        }
    }

    /// Makes reads miss the last change from now on, for as long as reads may be stale.
    pub(crate) fn lag_behind_the_last_change(&mut self, now: At, lag: Lag) {
        if let Some((changed, before)) = self.past.last()
            && *changed + STALENESS > now
        {
            self.lag = Some((lag, *changed + STALENESS, before.clone(), self.sequence - 1));
        }
    }

    /// True if the last change is so recent that reads may miss it.
    pub(crate) fn may_lag(&self, now: At) -> bool {
        self.past.last().is_some_and(|(changed, _)| *changed + STALENESS > now)
    }

    fn view(&self, now: At, what: Lag) -> &Content {
        match &self.lag {
            Some((lag, until, before, _)) if now < *until && (*lag == Lag::All || *lag == what) => before,
            _ => &self.content,
        }
    }

    /// Returns the number of the last change that some read shows.
    pub(crate) fn visible(&self, now: At) -> u64 {
        match &self.lag {
            Some((Lag::All, until, _, sequence)) if now < *until => *sequence,
            // A close look lists records only; it sees published versions in histories.
            Some((Lag::Histories, until, before, sequence))
                if now < *until && same_records(before, &self.content) =>
            {
                *sequence
            }
            _ => self.sequence,
        }
    }

    fn as_of(&self, at: At) -> &Content {
        self.past.iter().find(|(changed, _)| *changed > at).map_or(&self.content, |(_, before)| before)
    }
}

/// True if both have the same content below the staging path.
fn same_records(before: &Content, now: &Content) -> bool {
    let staged = |content: &Content| -> Vec<(String, usize)> {
        let below = content.iter().filter(|(path, _)| path.starts_with(STAGING));
        below.map(|(path, versions)| (path.clone(), versions.len())).collect()
    };
    staged(before) == staged(now)
}

impl State {
    /// Writes a value as a person does, with the console or the CLI: the description stays.
    pub(crate) fn person_puts(&mut self, path: &str, value: &str) {
        let now = self.now;
        self.ssm.put(now, path, value, None, By::Person);
        invariants::value_is_known(self, value);
        self.inventory_will_tell(path);
    }

    pub(crate) fn person_describes(&mut self, path: &str, value: &str, description: &str) {
        let now = self.now;
        self.ssm.put(now, path, value, Some(description), By::Person);
        invariants::value_is_known(self, value);
        self.inventory_will_tell(path);
    }

    /// Writes the value that an earlier rotation has published.
    pub(crate) fn has_published(&mut self, path: &str, value: &str, stamp: &Stamp) {
        let secret = SecretValue::new(value.to_owned());
        self.person_describes(path, value, &SEAL.describe(path, &secret, "Signing key", stamp));
    }

    /// Writes the first version of keyturn's again, including its description, as a restore from a backup does.
    pub(crate) fn person_restores(&mut self, path: &str) {
        let Some(first) = self.ssm.versions(path).iter().find(|version| version.by == By::Keyturn) else {
            return;
        };
        let (value, description) = (first.value.clone(), first.description.clone());
        self.person_describes(path, &value, &description);
    }

    /// Writes the value of keyturn's newest version, as a person does.
    pub(crate) fn person_puts_back(&mut self, path: &str) {
        let newest = self.ssm.versions(path).iter().rev().find(|version| version.by == By::Keyturn);
        let Some(value) = newest.map(|version| version.value.clone()) else { return };
        self.person_puts(path, &value);
    }

    /// Writes it with a person's own description, as Terraform does.
    pub(crate) fn person_describes_anew(&mut self, path: &str, description: &str) {
        let newest = self.ssm.versions(path).iter().rev().find(|version| version.by == By::Keyturn);
        let Some(value) = newest.map(|version| version.value.clone()) else { return };
        self.person_describes(path, &value, description);
    }

    pub(crate) fn person_deletes_parameter(&mut self, path: &str) {
        let now = self.now;
        self.ssm.remove(now, path);
        self.inventory_will_tell(path);
    }

    /// Checks the key: a Put that names none would move the parameter to the account's default key.
    fn key_is_kept(&mut self, new: &NewVersion<'_>) {
        let key = self.ssm.rules.get(new.path).and_then(|rules| rules.key.clone());
        if key.is_some() && key.as_deref() != new.kms_key_id {
            self.violate(format!("I11: {} is put under another key than it was", new.path));
        }
    }

    /// Queues the objects that a change of the path concerns for the time of the next listing.
    fn inventory_will_tell(&mut self, path: &str) {
        let at = next_listing(self.now);
        let coverage = self.coverage(at);
        let keys = coverage.concerned(path).map(|(_, name)| (at, Key::Secret(name)));
        self.cluster.wake_later.extend(keys);
    }

    /// Returns the coverage of a listing that begins at this time: the secrets that exist by then.
    fn coverage(&self, at: At) -> Coverage {
        let created = |secret: &&ManagedSecret| {
            secret.metadata.creation_timestamp.as_ref().is_some_and(|created| from_kubernetes(created) <= at)
        };
        let secrets = self.cluster.secrets().filter(created);
        let mut regions = coverage::coverage(secrets, &self.cluster.given(), &Settings::new(CLUSTER, REGION));
        regions.remove(REGION).unwrap_or_else(|| Coverage::none(STAGING))
    }

    /// Returns a full listing with later additions: the parameters of objects that came later, and staged records and
    /// markers.
    fn listing(&self, taken_at: At) -> Listing {
        let created =
            |secret: &ManagedSecret| secret.metadata.creation_timestamp.as_ref().map(from_kubernetes);
        let is_listed = |created: &At| *created > taken_at && *created + LISTED_AFTER <= self.now;
        let newest = self.cluster.secrets().filter_map(created).filter(is_listed).max();
        let later = newest.map_or(taken_at, |created| created + LISTED_AFTER);
        let (covered, wanted) = (self.coverage(taken_at).wanted(), self.coverage(later).wanted());
        let shown = |at: At, is_wanted: &dyn Fn(&str) -> bool| -> Vec<Listed> {
            let content = self.ssm.as_of(at).iter().filter(|(path, _)| is_wanted(path));
            let latest = content.filter_map(|(path, versions)| Some((path, versions.last()?)));
            latest.map(|(path, latest)| Listed { path: path.clone(), latest: version(latest) }).collect()
        };
        let is_new = |path: &str| is_staged(path) || wanted.contains(path) && !covered.contains(path);
        let mut listed = shown(taken_at, &|path| wanted.contains(path) && !is_new(path));
        listed.extend(shown(later, &is_new));
        Listing::new(taken_at, wanted.clone(), listed)
    }
}

fn listing_at(now: At) -> At {
    let past = now.timestamp().rem_euclid(INVENTORY_EVERY.as_secs() as i64);
    now - TimeDelta::seconds(past)
}

fn next_listing(now: At) -> At {
    listing_at(now) + INVENTORY_EVERY
}

fn version(stored: &Stored) -> Version {
    let Said { text, stamp, claim, .. } = stored.said.clone();
    Version { number: stored.number, modified: stored.modified, text, stamp, claim }
}

/// Returns the version with its stamp compared with the value.
fn compared(stored: &Stored) -> Version {
    let version = version(stored);
    match &version.stamp {
        Some(stamp) if stamp.version == version.number && stored.is_of_another_value => {
            Version { claim: Some(stamp.owner.clone()), stamp: None, ..version }
        }
        _ => version,
    }
}

impl Answer for StoreError {
    fn refused(what: &str) -> Self {
        Self::Throttled { operation: "call", path: what.to_owned(), detail: "Rate exceeded".into() }
    }

    fn rejected(what: &str) -> Self {
        Self::Denied { operation: "call", path: what.to_owned(), detail: "not authorized".into() }
    }

    fn no_answer(what: &str) -> Self {
        Self::Unknown { operation: "call", path: what.to_owned(), detail: "no answer in time".into() }
    }
}

fn is_staged(path: &str) -> bool {
    path.starts_with(&format!("{STAGING}/"))
}

#[async_trait]
impl ParameterStore for World {
    async fn list(&self, _wanted: &[String]) -> Result<Vec<Listed>, StoreError> {
        unreachable!("only the shared inventory lists: see `State::listing`")
    }

    async fn read_folder(&self, folder: &str) -> Result<Vec<FolderEntry>, StoreError> {
        let folder = folder.to_owned();
        self.effect(Kind::Observe, format!("look below {folder}"), move |state, _| {
            if state.sabotage == Some(Sabotage::RecordsHidden) {
                return Ok(Vec::new());
            }
            if state.ssm.unread {
                return Err(StoreError::refused(&folder));
            }
            let below = |path: &str| path.starts_with(&folder);
            let view = state.ssm.view(state.now, Lag::Listing);
            let found = view.iter().filter(|(path, _)| below(path));
            let staged = found.filter_map(|(path, versions)| {
                let latest = versions.last()?;
                let value = SecretValue::new(latest.value.clone());
                Some(FolderEntry { path: path.clone(), modified: latest.modified, value })
            });
            Ok(staged.collect())
        })
        .await
    }

    async fn kept(&self, path: &str) -> Result<Kept, StoreError> {
        let state = self.lock();
        let view = state.ssm.view(state.now, Lag::Histories);
        let Some(versions) = view.get(path) else { return Ok(Kept::default()) };
        let shape = state.ssm.shape(path, versions.len());
        let mut shown: Vec<Version> = versions.iter().map(version).collect();
        if let Some((latest, stored)) = shown.last_mut().zip(versions.last()) {
            *latest = compared(stored);
        }
        Ok(Kept { versions: shown, shape: Some(shape) })
    }

    async fn keeps(&self, path: &str, versions: &[&Version]) -> Result<bool, StoreError> {
        let state = self.lock();
        let view = state.ssm.view(state.now, Lag::Histories);
        let kept = view.get(path).into_iter().flat_map(|versions| versions.iter().map(version));
        Ok(are_the_same(&kept.collect::<Vec<_>>(), versions))
    }

    async fn read(&self, path: &str, number: Option<i64>) -> Result<Option<SecretValue>, StoreError> {
        let state = self.lock();
        let rules = state.ssm.rules.get(path);
        if rules.zip(number).is_some_and(|(rules, number)| rules.unreadable.contains(&number)) {
            let (path, detail) = (path.to_owned(), "the key is disabled".to_owned());
            return Err(StoreError::Denied { operation: "GetParameter", path, detail });
        }
        let view = state.ssm.view(state.now, Lag::Histories);
        let found = view.get(path).and_then(|versions| match number {
            Some(number) => versions.iter().find(|v| v.number == number),
            None => versions.last(),
        });
        Ok(found.map(|stored| SecretValue::new(stored.value.clone())))
    }

    async fn create(&self, new: NewVersion<'_>) -> Result<Created, StoreError> {
        self.lock().key_is_kept(&new);
        let (path, value, description) = owned(new);
        let kind = if is_staged(&path) { Kind::Stage } else { Kind::Publish };
        self.effect(kind, format!("create {path}"), move |state, sent| {
            if let Some(refusal) = state.ssm.refusal(&path, &value, false) {
                return Err(refusal);
            }
            let exists = state.ssm.content.contains_key(&path);
            if exists && state.sabotage != Some(Sabotage::CreateOverwrites) {
                let lie = state.sabotage == Some(Sabotage::CreateAlwaysSaysCreated);
                return Ok(if lie { Created::Created } else { Created::Exists });
            }
            if state.sabotage == Some(Sabotage::RecordsVanish) && kind == Kind::Stage {
                return Ok(Created::Created);
            }
            write(state, sent, &path, &value, &description);
            Ok(Created::Created)
        })
        .await
    }

    async fn overwrite(&self, new: NewVersion<'_>) -> Result<i64, StoreError> {
        self.lock().key_is_kept(&new);
        let (path, value, description) = owned(new);
        self.effect(Kind::Publish, format!("overwrite {path}"), move |state, sent| {
            if let Some(refusal) = state.ssm.refusal(&path, &value, true) {
                return Err(refusal);
            }
            Ok(write(state, sent, &path, &value, &description))
        })
        .await
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let kind = if is_staged(path) { Kind::Unstage } else { Kind::DeleteParameter };
        let path = path.to_owned();
        self.effect(kind, format!("delete {path}"), move |state, sent| {
            invariants::delete(state, sent, &path);
            let now = state.now;
            state.ssm.remove(now, &path);
            state.inventory_will_tell(&path);
            Ok(())
        })
        .await
    }
}

fn owned(new: NewVersion<'_>) -> (String, String, String) {
    let description = match &new.stamp {
        Some(stamp) => SEAL.describe(new.path, new.value, &new.text, stamp),
        None => new.text,
    };
    (new.path.to_owned(), new.value.expose().to_owned(), description)
}

fn write(state: &mut State, sent: Sent, path: &str, value: &str, description: &str) -> i64 {
    let description =
        if state.sabotage == Some(Sabotage::NoDescription) && !is_staged(path) { "" } else { description };
    invariants::write(state, sent, path, value, description);
    let now = state.now;
    let number = state.ssm.put(now, path, value, Some(description), By::Keyturn);
    state.inventory_will_tell(path);
    number
}

impl Regions for World {
    fn store(&self, _region: &str) -> Arc<dyn ParameterStore> {
        Arc::new(self.clone())
    }
}

impl Inventory for World {
    fn is_coming(&self, _region: &str) -> bool {
        let state = self.lock();
        state.sabotage != Some(Sabotage::RecordsHidden) && state.started.contains_key(&self.process)
    }

    fn excerpt(&self, _region: &str, paths: &[String], folder: &str) -> Option<Excerpt> {
        let state = self.lock();
        if state.sabotage == Some(Sabotage::RecordsHidden) {
            return None;
        }
        let started = state.started.get(&self.process).copied()?;
        let taken_at = listing_at(state.now).max(started);
        let listing = state.listing(taken_at);
        coverage::excerpt(&listing, paths, folder, state.now, INVENTORY_EVERY)
    }
}
