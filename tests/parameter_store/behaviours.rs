//! The contract: the behaviour of every SSM that keyturn needs.

use std::collections::BTreeSet;

use aws_sdk_ssm::types::ParameterTier;
use futures::future::join_all;
use keyturn::parameter_store::{Created, Listed, NewVersion, ParameterStore, seal};
use keyturn::rotation::observed::Stamp;
use keyturn::rotation::request;

use crate::endpoint::{Endpoint, STAGING, value, write};

fn stamp(version: i64) -> Stamp {
    Stamp {
        owner: "prod/musehub/webhook-key".into(),
        id: 7,
        version,
        at: "2026-03-01T03:00:00Z".parse().unwrap(),
        request: Some(request::hash("now")),
        made: None,
    }
}

async fn read(store: &dyn ParameterStore, path: &str, version: Option<i64>) -> Option<String> {
    store.read(path, version).await.unwrap().map(|value| value.expose().to_owned())
}

async fn fill(store: &dyn ParameterStore, paths: &[String]) {
    for some in paths.chunks(8) {
        let creates = some.iter().map(|path| async move {
            let created = store.create(write(path, &value("x"), "")).await.unwrap();
            assert_eq!(created, Created::Created, "{path}");
        });
        join_all(creates).await;
    }
}

fn paths(listed: &[Listed]) -> BTreeSet<String> {
    let paths: BTreeSet<String> = listed.iter().map(|listed| listed.path.clone()).collect();
    assert_eq!(paths.len(), listed.len(), "a parameter is listed once");
    paths
}

pub(crate) async fn a_path_is_created_once(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    assert_eq!(store.create(write(&path, &value("first"), "one")).await, Ok(Created::Created));
    assert_eq!(store.create(write(&path, &value("second"), "two")).await, Ok(Created::Exists));
    assert_eq!(read(&*store, &path, None).await.as_deref(), Some("first"));
    let history = store.history(&path).await.unwrap();
    assert_eq!((history.len(), history[0].number, history[0].text.as_str()), (1, 1, "one"));
}

pub(crate) async fn of_many_creators_one_wins(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    let values: Vec<_> = (0..16).map(|n| value(&format!("value-{n}"))).collect();
    let created = join_all(values.iter().map(|value| store.create(write(&path, value, "")))).await;
    let winners: Vec<usize> = (0..16).filter(|&n| created[n] == Ok(Created::Created)).collect();
    assert_eq!(winners.len(), 1);
    assert!(created.iter().all(|created| created.is_ok()));
    assert_eq!(read(&*store, &path, None).await, Some(format!("value-{}", winners[0])));
}

pub(crate) async fn every_overwrite_is_a_version_with_its_own_description(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    store.create(write(&path, &value("v1"), "by hand")).await.unwrap();
    for version in 2..=3 {
        let value = value("v");
        let new = NewVersion { stamp: Some(stamp(version)), ..write(&path, &value, "by hand") };
        assert_eq!(store.overwrite(new).await, Ok(version));
    }
    let history = store.history(&path).await.unwrap();
    let seen: Vec<_> = history.iter().map(|v| (v.number, v.text.as_str(), v.stamp.clone())).collect();
    assert_eq!(seen, [(1, "by hand", None), (2, "by hand", Some(stamp(2))), (3, "by hand", Some(stamp(3)))]);
    assert!(history.is_sorted_by_key(|version| version.modified));
    let listed = store.list(std::slice::from_ref(&path)).await.unwrap();
    assert_eq!(listed, [Listed { path, latest: history[2].clone() }], "the list shows the latest version");
}

pub(crate) async fn an_identical_value_is_a_version_too(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    store.create(write(&path, &value("same"), "same")).await.unwrap();
    assert_eq!(store.overwrite(write(&path, &value("same"), "same")).await, Ok(2));
}

pub(crate) async fn old_versions_can_be_read_back(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    store.create(write(&path, &value("old"), "")).await.unwrap();
    store.overwrite(write(&path, &value("new"), "")).await.unwrap();
    assert_eq!(read(&*store, &path, Some(1)).await.as_deref(), Some("old"));
    assert_eq!(read(&*store, &path, Some(2)).await.as_deref(), Some("new"));
    assert_eq!(read(&*store, &path, None).await.as_deref(), Some("new"));
}

pub(crate) async fn what_is_not_there_is_no_error(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    assert_eq!(read(&*store, &path, None).await, None);
    assert_eq!(store.history(&path).await, Ok(vec![]));
    assert_eq!(store.delete(&path).await, Ok(()));
    assert_eq!(store.list(&[path.clone(), ssm.folder().to_owned()]).await, Ok(vec![]));
    store.create(write(&path, &value("x"), "")).await.unwrap();
    assert_eq!(read(&*store, &path, Some(2)).await, None);
}

pub(crate) async fn a_folder_is_read_with_all_that_lies_below_it_and_nothing_beside_it(ssm: &Endpoint) {
    let store = ssm.store();
    let folder = format!("{}records/", ssm.folder());
    assert_eq!(store.read_folder(&folder).await.unwrap().len(), 0);
    let below: Vec<String> = (0..23).map(|number| format!("{folder}{number:02}")).collect();
    let deeper = format!("{folder}deeper/1");
    let beside = [format!("{}records", ssm.folder()), format!("{}records-2/1", ssm.folder())];
    for path in below.iter().chain([&deeper]).chain(&beside) {
        store.create(write(path, &value(&format!("value of {path}")), "")).await.unwrap();
    }
    store.overwrite(write(&below[7], &value(&format!("newer than {}", below[7])), "")).await.unwrap();
    let mut found = store.read_folder(&folder).await.unwrap();
    found.sort_by(|one, other| one.path.cmp(&other.path));
    let expected: Vec<String> = below.iter().chain([&deeper]).cloned().collect();
    let paths: Vec<String> = found.iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(paths, expected, "three pages");
    for (number, entry) in found.iter().enumerate() {
        let of = if number == 7 { "newer than" } else { "value of" };
        assert_eq!(entry.value.expose(), format!("{of} {}", entry.path));
        let history = store.history(&entry.path).await.unwrap();
        assert_eq!(history.last().map(|latest| latest.modified), Some(entry.modified));
    }
}

pub(crate) async fn a_parameter_that_is_created_again_counts_from_1(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    store.create(write(&path, &value("x"), "")).await.unwrap();
    store.overwrite(write(&path, &value("x"), "")).await.unwrap();
    store.delete(&path).await.unwrap();
    assert_eq!(store.history(&path).await, Ok(vec![]));
    assert_eq!(store.create(write(&path, &value("y"), "")).await, Ok(Created::Created));
    assert_eq!(store.history(&path).await.unwrap()[0].number, 1);
    assert_eq!(read(&*store, &path, Some(2)).await, None);
}

pub(crate) async fn the_history_holds_the_latest_100_versions(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    store.create(write(&path, &value("x"), "")).await.unwrap();
    for version in 2..=120 {
        assert_eq!(store.overwrite(write(&path, &value("x"), &format!("{version}"))).await, Ok(version));
    }
    let history = store.history(&path).await.unwrap();
    assert!(history.iter().map(|version| version.number).eq(21..=120), "oldest first, over two pages");
    assert!(history.iter().all(|version| version.text == version.number.to_string()));
}

pub(crate) async fn values_come_back_byte_by_byte(ssm: &Endpoint) {
    let store = ssm.store();
    let values =
        ["trailing newline\n", " spaces ", "línea 🔑 \"quoted\" \\ {{braces}}", "a,b,c", &"x".repeat(4096)];
    for (n, text) in values.iter().enumerate() {
        let path = ssm.path(&format!("A{n}"));
        store.create(write(&path, &value(text), "")).await.unwrap();
        assert_eq!(read(&*store, &path, None).await.as_deref(), Some(*text));
    }
}

pub(crate) async fn a_description_of_the_full_length_is_taken(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    let (long, value) = ("é".repeat(2000), value("x"));
    let new = NewVersion { stamp: Some(stamp(1)), ..write(&path, &value, &long) };
    store.create(new).await.unwrap();
    let history = store.history(&path).await.unwrap();
    assert_eq!(history[0].stamp, Some(stamp(1)));
    let text = history[0].text.clone();
    assert!(long.starts_with(&text));
    let new = NewVersion { stamp: Some(stamp(2)), ..write(&path, &value, &text) };
    store.overwrite(new).await.unwrap();
    assert_eq!(store.history(&path).await.unwrap()[1].text, text, "a second rotation cuts no further");
}

pub(crate) async fn a_stamp_that_keyturn_did_not_make_is_a_claim(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    let (drawn, theirs) = (value("drawn"), value("theirs"));
    store.create(NewVersion { stamp: Some(stamp(1)), ..write(&path, &drawn, "by hand") }).await.unwrap();
    let shown = ssm.client().get_parameter_history().name(&path).send().await.unwrap();
    let genuine = shown.parameters()[0].description().unwrap().to_owned();
    // An attacker who may write the parameter would use the next number and a time of their choice.
    let forged = genuine.replace(" v=1 at=2026", " v=2 at=2036");
    assert_ne!(forged, genuine);
    assert_eq!(store.overwrite(write(&path, &theirs, &forged)).await, Ok(2));
    let history = store.history(&path).await.unwrap();
    assert_eq!((&history[0].stamp, &history[0].claim), (&Some(stamp(1)), &None));
    let claim = Some(stamp(1).owner);
    assert_eq!((&history[1].stamp, &history[1].claim, history[1].text.as_str()), (&None, &claim, "by hand"));
    let listed = store.list(std::slice::from_ref(&path)).await.unwrap();
    assert_eq!(listed[0].latest.claim, claim, "the listing alone shows it");
    // A parameter that is created again begins with the same number, so only its value shows the difference.
    store.delete(&path).await.unwrap();
    store.create(write(&path, &theirs, &genuine)).await.unwrap();
    let latest = store.history(&path).await.unwrap().pop().unwrap();
    assert_eq!((latest.number, latest.stamp, latest.claim), (1, None, claim.clone()));
    store.delete(&path).await.unwrap();
    store.create(write(&path, &drawn, &genuine)).await.unwrap();
    assert_eq!(store.history(&path).await.unwrap()[0].stamp, Some(stamp(1)), "that is what keyturn made");
    // Without its key keyturn treats no version as its own.
    let other = ssm.store_of("/keyturn/another");
    assert_eq!(other.history(&path).await.unwrap()[0].claim, claim);
}

pub(crate) async fn a_stamp_of_an_earlier_release_counts_from_before_the_key(ssm: &Endpoint) {
    let staging = format!("{STAGING}{}", ssm.folder());
    let (store, old, new) = (ssm.store_of(&staging), ssm.path("old"), ssm.path("new"));
    let genuine = "keyturn owner=prod/musehub/webhook-key id=7 v=1 at=2026-03-01T03:00:00Z req=-";
    store.create(write(&old, &value("x"), genuine)).await.unwrap();
    assert!(store.history(&old).await.unwrap()[0].stamp.is_some());
    let key = store.history(&seal::key_path(staging.trim_end_matches('/'))).await.unwrap();
    assert_eq!(key.len(), 1, "the first look has made it");
    // The times must differ in the unit in which SSM reports them.
    loop {
        store.create(write(&new, &value("x"), genuine)).await.unwrap();
        if store.history(&new).await.unwrap()[0].modified > key[0].modified {
            break;
        }
        store.delete(&new).await.unwrap();
    }
    for store in [store, ssm.store_of(&staging)] {
        assert!(store.history(&old).await.unwrap()[0].stamp.is_some());
        assert!(store.history(&new).await.unwrap()[0].stamp.is_none(), "anybody can write so now");
    }
}

pub(crate) async fn a_list_is_complete_over_several_pages(ssm: &Endpoint) {
    let store = ssm.store();
    let all: Vec<String> = (0..120).map(|n| ssm.path(&format!("{n:03}"))).collect();
    fill(&*store, &all).await;
    let listed = store.list(&[ssm.folder().to_owned()]).await.unwrap();
    assert_eq!(paths(&listed), all.iter().cloned().collect());
    let named = store.list(&all[..110]).await.unwrap();
    assert_eq!(paths(&named), all[..110].iter().cloned().collect(), "more names than one filter takes");
}

pub(crate) async fn a_list_takes_folders_and_exact_paths(ssm: &Endpoint) {
    let store = ssm.store();
    let all: Vec<String> =
        ["a", "a/x", "a/deep/er/y", "a-b/x", "ab", "b/x", "c"].iter().map(|name| ssm.path(name)).collect();
    fill(&*store, &all).await;
    let cases: [(&[&str], &[&str]); 7] = [
        (&["a/"], &["a/x", "a/deep/er/y"]),
        (&["a"], &["a"]),
        (&["a", "a/"], &["a", "a/x", "a/deep/er/y"]),
        (&["a/", "a/deep/", "a/x"], &["a/x", "a/deep/er/y"]),
        (&["a/", "b/", "c", "nothing", "nothing/"], &["a/x", "a/deep/er/y", "b/x", "c"]),
        (&["a/deep/"], &["a/deep/er/y"]),
        (&[], &[]),
    ];
    for (wanted, expected) in cases {
        let wanted: Vec<String> = wanted.iter().map(|name| ssm.path(name)).collect();
        let expected: BTreeSet<String> = expected.iter().map(|name| ssm.path(name)).collect();
        assert_eq!(paths(&store.list(&wanted).await.unwrap()), expected, "{wanted:?}");
    }
}

pub(crate) async fn regions_are_apart(ssm: &Endpoint) {
    let path = ssm.path("A");
    let (here, there) = (ssm.store_in("us-east-1"), ssm.store_in("eu-central-1"));
    here.create(write(&path, &value("here"), "")).await.unwrap();
    assert_eq!(read(&*there, &path, None).await, None);
    assert_eq!(there.create(write(&path, &value("there"), "")).await, Ok(Created::Created));
    assert_eq!(read(&*here, &path, None).await.as_deref(), Some("here"));
}

pub(crate) async fn what_is_written_is_a_secure_string(ssm: &Endpoint) {
    let (store, path) = (ssm.store(), ssm.path("A"));
    store.create(write(&path, &value("x"), "")).await.unwrap();
    store.overwrite(write(&path, &value("y"), "")).await.unwrap();
    let client = ssm.client();
    let described = client.get_parameter_history().name(&path).send().await.unwrap();
    for version in described.parameters() {
        assert_eq!(version.r#type().unwrap().as_str(), "SecureString");
        assert_ne!(version.value(), Some("x"), "undecrypted, it shows no value");
        assert!(version.tier().is_none_or(|tier| *tier == ParameterTier::Standard));
    }
}
