//! Tests the shared inventory: the cost of a refresh, and the state after a failed one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use keyturn::parameter_store::StoreError;
use keyturn::parameter_store::inventory::{InventoryView, Lookup, inventory};
use keyturn_aws_emulator::{Emulator, Fault, Rule};
use tokio::task::JoinHandle;

use crate::endpoint::{Endpoint, emulator, value, write};

/// An interval that is never over within a test.
const NEVER: Duration = Duration::from_secs(86_400);

struct Watched {
    emulator: Emulator,
    ssm: Endpoint,
    view: InventoryView,
    poller: JoinHandle<()>,
}

/// Sets up 120 parameters in a folder, three more elsewhere, and an inventory that has listed the wanted
/// ones.
async fn watched(wanted: &[&str]) -> Watched {
    let emulator = emulator().await;
    let ssm = Endpoint::new(&emulator.url(), "inventory");
    let store = ssm.store();
    let secret = value("x");
    let paths: Vec<String> = (0..120)
        .map(|n| format!("/musehub/{n:03}"))
        .chain(["/other/a".to_owned(), "/other/b".to_owned(), "/unwanted/c".to_owned()])
        .collect();
    join_all(paths.iter().map(|path| store.create(write(path, &secret, "")))).await;
    let (poller, view) = inventory(store, NEVER);
    view.want(wanted.iter().map(|&entry| entry.to_owned()).collect());
    let poller = tokio::spawn(poller.run());
    view.refresh_now().await.unwrap();
    emulator.clear_calls();
    Watched { emulator, ssm, view, poller }
}

/// Returns the operations in the log, each with its number of calls.
fn operations(emulator: &Emulator) -> Vec<(String, usize)> {
    let calls = emulator.calls();
    let kinds: BTreeSet<String> = calls.iter().map(|call| call.operation.clone()).collect();
    kinds
        .into_iter()
        .map(|kind| {
            let count = calls.iter().filter(|call| call.operation == kind).count();
            (kind, count)
        })
        .collect()
}

fn describes(count: usize) -> Vec<(String, usize)> {
    vec![("DescribeParameters".to_owned(), count)]
}

#[tokio::test]
async fn a_refresh_costs_pages_and_nothing_per_parameter() {
    let world = watched(&["/musehub/", "/musehub/007", "/musehub/008"]).await;
    let snapshot = world.view.refresh_now().await.unwrap();
    assert_eq!(snapshot.len(), 120);
    assert_eq!(operations(&world.emulator), describes(3));
}

#[tokio::test]
async fn exact_paths_outside_the_folders_cost_one_page_more() {
    let world = watched(&["/musehub/", "/other/a", "/other/b", "/other/missing"]).await;
    let snapshot = world.view.refresh_now().await.unwrap();
    assert_eq!(operations(&world.emulator), describes(4));
    assert!(matches!(snapshot.lookup("/other/a"), Lookup::Present(_)));
    assert_eq!(snapshot.lookup("/other/missing"), Lookup::Absent);
    assert_eq!(snapshot.lookup("/unwanted/c"), Lookup::NotCovered);
}

#[tokio::test]
async fn those_who_ask_at_the_same_time_share_a_refresh() {
    let world = watched(&["/musehub/"]).await;
    let snapshots = join_all((0..50).map(|_| world.view.refresh_now())).await;
    assert!(snapshots.iter().all(Result::is_ok));
    let calls = world.emulator.calls().len();
    assert!(calls <= 6, "{calls} calls for 50 who asked at once");
}

#[tokio::test]
async fn a_refresh_that_was_under_way_is_not_taken_for_a_fresh_one() {
    let world = watched(&["/musehub/"]).await;
    world.emulator.add_fault(Rule::once("DescribeParameters", Fault::Slow { ms: 200 })).unwrap();
    let earlier = tokio::spawn({
        let view = world.view.clone();
        async move { view.refresh_now().await.unwrap() }
    });
    wait_until(|| !world.emulator.calls().is_empty()).await;
    let asked_at = chrono::Utc::now();
    let fresh = world.view.refresh_now().await.unwrap();
    let earlier = earlier.await.unwrap();
    assert!(earlier.taken_at < asked_at && fresh.taken_at >= asked_at);
}

#[tokio::test]
async fn only_what_changed_is_told() {
    let world = watched(&["/musehub/", "/other/a"]).await;
    let store = world.ssm.store();
    let mut changes = world.view.changes();
    store.overwrite(write("/musehub/007", &value("y"), "")).await.unwrap();
    store.create(write("/musehub/new", &value("y"), "")).await.unwrap();
    store.delete("/musehub/008").await.unwrap();
    store.overwrite(write("/unwanted/c", &value("y"), "")).await.unwrap();
    world.view.refresh_now().await.unwrap();
    let changed = within(changes.next()).await.unwrap();
    assert!(changed.iter().eq(["/musehub/007", "/musehub/008", "/musehub/new"]), "{changed:?}");
}

#[tokio::test]
async fn what_is_newly_wanted_is_looked_up_at_once() {
    let world = watched(&["/musehub/"]).await;
    let mut changes = world.view.changes();
    world.view.want(["/musehub/".to_owned(), "/other/a".to_owned()].into());
    let changed = within(changes.next()).await.unwrap();
    assert!(changed.iter().eq(["/other/a"]), "{changed:?}");
    world.emulator.clear_calls();
    world.view.want(["/musehub/".to_owned(), "/other/a".to_owned(), "/other/b".to_owned()].into());
    within(changes.next()).await.unwrap();
    assert_eq!(
        operations(&world.emulator),
        describes(4),
        "three pages of the folder, and one of what is new"
    );
    world.emulator.clear_calls();
    world.view.want(["/musehub/".to_owned()].into());
    world.view.want(["/musehub/".to_owned(), "/musehub/007".to_owned()].into());
    world.view.refresh_now().await.unwrap();
    assert_eq!(
        operations(&world.emulator),
        describes(3),
        "wanting less, or what is covered, asks for nothing"
    );
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_old_snapshot_and_is_reported() {
    let world = watched(&["/musehub/"]).await;
    let before = world.view.latest();
    let denied = Rule::once("DescribeParameters", Fault::AccessDenied).skipping(1).always();
    world.emulator.add_fault(denied).unwrap();
    assert!(matches!(world.view.refresh_now().await, Err(StoreError::Denied { .. })));
    assert!(matches!(world.view.error(), Some(StoreError::Denied { .. })));
    assert!(Arc::ptr_eq(&before, &world.view.latest()), "half a list is no snapshot");
    world.emulator.clear_faults();
    let after = world.view.refresh_now().await.unwrap();
    assert!(after.taken_at > before.taken_at);
    assert_eq!(world.view.error(), None);
}

#[tokio::test]
async fn a_poller_that_is_gone_leaves_nobody_waiting() {
    let world = watched(&["/musehub/"]).await;
    let mut changes = world.view.changes();
    world.poller.abort();
    assert_eq!(within(changes.next()).await, None);
    assert!(matches!(within(world.view.refresh_now()).await, Err(StoreError::Unavailable { .. })));
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it happens within a minute")
}

async fn wait_until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
