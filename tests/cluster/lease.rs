//! Tests leader election with a real API server, on whose resourceVersions it depends.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use keyturn::cluster::lease::{Candidate, Heartbeat, LeaseError, Timing};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::namespace::within;

const NAME: &str = "election";
/// Longest wait for any event, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn timing(duration: u64, deadline: u64) -> Timing {
    Timing {
        duration: Duration::from_secs(duration),
        renew_deadline: Duration::from_secs(deadline),
        retry_period: Duration::from_millis(200),
    }
}

fn candidate(client: &Client, namespace: &str, pod: &str, timing: Timing) -> Candidate {
    Candidate::new(client.clone(), namespace, NAME, pod, timing)
}

async fn holder(client: &Client, namespace: &str) -> String {
    let lease = Api::<Lease>::namespaced(client.clone(), namespace).get(NAME).await.unwrap();
    lease.spec.unwrap().holder_identity.unwrap()
}

#[tokio::test]
#[ignore = "needs the world"]
async fn of_many_candidates_that_start_at_once_one_leads() {
    within("lease-race", |client, namespace| async move {
        let leaders = (0..8).map(|number| {
            let mut candidate = candidate(&client, &namespace, &format!("pod-{number}"), timing(3600, 1800));
            tokio::spawn(async move {
                let heartbeat = Heartbeat::default();
                let acquired = candidate.acquire(&heartbeat);
                // The others would wait for an hour, so they are stopped after every one of them has made a
                // few attempts.
                tokio::time::timeout(Duration::from_secs(5), acquired).await.is_ok().then_some(candidate)
            })
        });
        let ended = futures::future::join_all(leaders.collect::<Vec<_>>()).await;
        let leaders: Vec<Candidate> = ended.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(leaders.len(), 1);
        assert!(leaders[0].leadership().is_leader());
        assert_eq!(holder(&client, &namespace).await, leaders[0].identity());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_lease_that_is_given_back_passes_on_long_before_it_runs_out() {
    within("lease-release", |client, namespace| async move {
        let mut first = candidate(&client, &namespace, "first", timing(3600, 1800));
        let mut second = candidate(&client, &namespace, "second", timing(3600, 1800));
        first.acquire(&Heartbeat::default()).await;
        let leadership = first.leadership();
        let heartbeat = Heartbeat::default();
        let (acquired, ()) =
            tokio::join!(tokio::time::timeout(PATIENCE, second.acquire(&heartbeat)), async {
                first.release().await
            });
        acquired.expect("the second candidate did not get the lease that was given back");
        assert!(!leadership.is_leader());
        assert_eq!(holder(&client, &namespace).await, second.identity());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the world"]
async fn when_a_silent_leader_is_replaced_it_has_stopped_leading_before() {
    within("lease-silent", |client, namespace| async move {
        // This one is never renewed, as if its process were stopped.
        let mut silent = candidate(&client, &namespace, "silent", timing(3, 2));
        silent.acquire(&Heartbeat::default()).await;
        let mut next = candidate(&client, &namespace, "next", timing(3, 2));
        let heartbeat = Heartbeat::default();
        tokio::time::timeout(PATIENCE, next.acquire(&heartbeat)).await.expect("nobody took over");
        assert!(!silent.leadership().is_leader());
        assert!(next.leadership().is_leader());
        // When it continues, it learns that it has lost the lease.
        let (_stop, mut stopped) = watch::channel(false);
        let kept = silent.keep(&mut stopped, &Heartbeat::default()).await;
        assert!(matches!(kept, Err(LeaseError::Lost { .. })), "{kept:?}");
        assert_eq!(holder(&client, &namespace).await, next.identity());
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_leader_whose_lease_somebody_else_wrote_stops() {
    within("lease-stolen", |client, namespace| async move {
        let mut leader = candidate(&client, &namespace, "leader", timing(3600, 1800));
        leader.acquire(&Heartbeat::default()).await;
        let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
        let theft = serde_json::json!({"spec": {"holderIdentity": "somebody-else"}});
        leases.patch(NAME, &PatchParams::default(), &Patch::Merge(&theft)).await.unwrap();
        let (_stop, mut stopped) = watch::channel(false);
        let heartbeat = Heartbeat::default();
        let kept = tokio::time::timeout(PATIENCE, leader.keep(&mut stopped, &heartbeat)).await;
        assert!(matches!(kept, Ok(Err(LeaseError::Lost { .. }))), "{kept:?}");
        assert!(!leader.leadership().is_leader());
        leader.release().await;
        assert_eq!(holder(&client, &namespace).await, "somebody-else", "released what it does not hold");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_leader_that_goes_on_renewing_keeps_the_lease_for_many_times_its_duration() {
    within("lease-renewed", |client, namespace| async move {
        let mut leader = candidate(&client, &namespace, "leader", timing(2, 1));
        leader.acquire(&Heartbeat::default()).await;
        let identity = leader.identity().to_owned();
        let leadership = leader.leadership();
        let (stop, mut stopped) = watch::channel(false);
        let keeping = tokio::spawn(async move {
            let kept = leader.keep(&mut stopped, &Heartbeat::default()).await;
            (leader, kept)
        });
        let mut other = candidate(&client, &namespace, "other", timing(2, 1));
        let heartbeat = Heartbeat::default();
        let taken = tokio::time::timeout(Duration::from_secs(8), other.acquire(&heartbeat)).await;
        assert!(taken.is_err(), "the lease was taken from a leader that renews it");
        assert!(leadership.is_leader());
        assert_eq!(holder(&client, &namespace).await, identity);
        stop.send_replace(true);
        let (_, kept) = keeping.await.unwrap();
        kept.unwrap();
    })
    .await;
}
