//! Coverage of the shared listing of a region: the paths to list, the ManagedSecrets that a change concerns, and the
//! state of one secret in the listing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::ManagedSecret;
use keyturn_api::grants::Grants;

use crate::parameter_store::inventory::{Inventory, Lookup};
use crate::parameter_store::records;
use crate::ports::Excerpt;
use crate::settings::Settings;

/// A listing is stale when it is older than each of three limits: this time, `STALE_INTERVALS` intervals, and
/// `STALE_PAUSES` pauses. A stale listing means that SSM could not be reached for a while. Each object then reads
/// Parameter Store itself and reports why it cannot.
const STALE_AFTER: TimeDelta = TimeDelta::minutes(15);
const STALE_INTERVALS: i32 = 10;
/// Age at which a listing is stale, as a number of pauses between whole listings. A listing of many pages has long
/// pauses.
const STALE_PAUSES: i32 = 2;

/// Namespace and name of a ManagedSecret.
pub type Name = (String, String);

/// Paths to list in one region, each with the ManagedSecrets that depend on it, and the staging path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    staging: String,
    readers: BTreeMap<String, Vec<Name>>,
}

impl Coverage {
    /// Returns the coverage without any ManagedSecret: the staging path alone.
    pub fn none(staging: &str) -> Self {
        Self { staging: staging.to_owned(), readers: BTreeMap::new() }
    }

    /// Returns the paths to list; folders end in `/`.
    pub fn wanted(&self) -> BTreeSet<String> {
        let staged = format!("{}/", self.staging);
        self.readers.keys().cloned().chain([staged]).collect()
    }

    /// Returns the ManagedSecrets that a path belongs to, as their parameter, record or abort marker.
    pub fn concerned<'a>(&self, path: &'a str) -> impl Iterator<Item = Name> + use<'_, 'a> {
        let staged = records::parse_path(&self.staging, path).map(|staged| (staged.namespace, staged.name));
        self.readers.get(path).into_iter().flatten().cloned().chain(staged)
    }
}

/// Returns the paths to list, for each region in which a ManagedSecret has its parameters. If no grant allows a path,
/// not even its metadata is read.
pub fn coverage<'a>(
    secrets: impl Iterator<Item = &'a ManagedSecret>,
    grants: &Grants,
    settings: &Settings,
) -> BTreeMap<String, Coverage> {
    let mut regions: BTreeMap<String, Coverage> = BTreeMap::new();
    for secret in secrets {
        let (Some(namespace), Some(name)) = (&secret.metadata.namespace, &secret.metadata.name) else {
            continue;
        };
        let region = settings.region_of(secret);
        if !settings.verdict(grants, secret, region).allows_reads() {
            continue;
        }
        let coverage = regions.entry(region.to_owned()).or_insert_with(|| Coverage::none(&settings.staging));
        for parameter in &secret.spec.ssm.parameters {
            let readers = coverage.readers.entry(parameter.path.clone()).or_default();
            readers.push((namespace.clone(), name.clone()));
        }
    }
    regions
}

/// Returns the state of these paths, and of everything below this folder, in a listing. `None` if the listing does not
/// cover all of them, or is stale. `interval` is the configured time between two listings.
pub fn excerpt(
    listing: &Inventory,
    paths: &[String],
    folder: &str,
    now: DateTime<Utc>,
    interval: Duration,
) -> Option<Excerpt> {
    if !listing.covers(folder) || is_stale(listing, now, interval) {
        return None;
    }
    let mut latest = BTreeMap::new();
    for path in paths {
        let version = match listing.lookup(path) {
            Lookup::Present(version) => Some(version.clone()),
            Lookup::Absent => None,
            Lookup::NotCovered => return None,
        };
        latest.insert(path.clone(), version);
    }
    let staged = listing.below(folder).map(|(path, _)| path.to_owned()).collect();
    Some(Excerpt { taken_at: listing.taken_at, latest, staged })
}

fn is_stale(listing: &Inventory, now: DateTime<Utc>, interval: Duration) -> bool {
    let times = |number, pause| TimeDelta::from_std(pause).unwrap_or(TimeDelta::zero()) * number;
    let pauses = times(STALE_PAUSES, listing.pause(interval));
    now - listing.taken_at > STALE_AFTER.max(times(STALE_INTERVALS, interval)).max(pauses)
}

#[cfg(test)]
mod tests {
    use keyturn_api::RotationGrant;
    use keyturn_rotation::observed::Version;
    use serde_json::json;

    use super::*;
    use crate::parameter_store::Listed;

    const MINUTE: Duration = Duration::from_secs(60);

    fn secret(namespace: &str, name: &str, path: &str) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"ssm": {"parameters": [{"path": path}]}, "generate": {}, "rotation": {}},
        }))
        .unwrap()
    }

    fn granted() -> Grants {
        let grant = json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "RotationGrant", "metadata": {"name": "shop"},
            "spec": {"namespaces": ["shop"], "mode": "Rotate", "parameters": [{"prefix": "/shop/"}]},
        });
        [serde_json::from_value::<RotationGrant>(grant).unwrap()].into_iter().collect()
    }

    fn settings() -> Settings {
        Settings::new("prod", "eu-central-1")
    }

    fn listing(wanted: BTreeSet<String>, paths: &[&str]) -> Inventory {
        let version = Version {
            number: 1,
            modified: DateTime::UNIX_EPOCH,
            text: String::new(),
            stamp: None,
            claim: None,
        };
        let listed = paths.iter().map(|path| Listed { path: (*path).to_owned(), latest: version.clone() });
        Inventory::new(DateTime::UNIX_EPOCH, wanted, listed.collect())
    }

    #[test]
    fn what_no_grant_allows_is_not_listed() {
        let secrets = [secret("shop", "token", "/shop/TOKEN"), secret("shop", "theirs", "/bank/TOKEN")];
        let regions = coverage(secrets.iter(), &granted(), &settings());
        let wanted: Vec<String> = regions["eu-central-1"].wanted().into_iter().collect();
        assert_eq!(wanted, ["/keyturn/prod/", "/shop/TOKEN"]);
    }

    #[test]
    fn a_change_concerns_those_who_name_the_path_and_whose_record_it_is() {
        let secrets = [secret("shop", "one", "/shop/TOKEN"), secret("shop", "other", "/shop/TOKEN")];
        let regions = coverage(secrets.iter(), &granted(), &settings());
        let concerned = |path: &str| {
            let names = regions["eu-central-1"].concerned(path).map(|(_, name)| name);
            names.collect::<Vec<_>>()
        };
        assert_eq!(concerned("/shop/TOKEN"), ["one", "other"]);
        assert_eq!(
            concerned("/keyturn/prod/shop/gone/7"),
            ["gone"],
            "though nobody knows the object any more"
        );
        assert_eq!(concerned("/shop/OTHER"), Vec::<String>::new());
    }

    #[test]
    fn a_listing_tells_absent_from_not_looked_for() {
        let wanted = BTreeSet::from(["/keyturn/prod/".to_owned(), "/a".to_owned(), "/b".to_owned()]);
        let listing = listing(wanted, &["/a", "/keyturn/prod/shop/token/1", "/keyturn/prod/shop/other/1"]);
        let look = |paths: &[&str], folder: &str| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            excerpt(&listing, &paths, folder, DateTime::UNIX_EPOCH, MINUTE)
        };
        let seen = look(&["/a", "/b"], "/keyturn/prod/shop/token/").unwrap();
        assert_eq!(seen.latest.values().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
        assert_eq!(seen.staged, ["/keyturn/prod/shop/token/1"]);
        assert_eq!(look(&["/a", "/c"], "/keyturn/prod/shop/token/"), None, "nobody looked for /c");
        assert_eq!(look(&["/a"], "/keyturn/else/shop/token/"), None);
    }

    #[test]
    fn a_listing_says_nothing_once_several_others_have_failed() {
        let now = Utc::now();
        let of = |parameters: usize, minutes, interval: u32| {
            let wanted = (0..parameters).map(|number| format!("/{number}")).collect();
            let listing = Inventory::new(now - TimeDelta::minutes(minutes), wanted, Vec::new());
            is_stale(&listing, now, MINUTE * interval)
        };
        assert!(!of(1, 15, 1) && of(1, 16, 1));
        assert!(!of(1, 49, 5) && of(1, 51, 5), "a long interval is waited for");
        assert!(!of(10_000, 66, 5) && of(10_000, 67, 5), "200 pages come every 33 minutes");
    }
}
