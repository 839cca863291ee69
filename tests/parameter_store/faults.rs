//! Tests every way in which a call can fail: what keyturn sends, how often, and what it concludes.

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use futures::future::join_all;
use keyturn::parameter_store::aws::Stores;
use keyturn::parameter_store::budget::{Rate, Rates, SsmCalls};
use keyturn::parameter_store::ssm::CallLimits;
use keyturn::parameter_store::{Created, ParameterStore, StoreError};
use keyturn_aws_emulator::{Call, Emulator, Fault, Quota, Rule, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::endpoint::{BRIEF, Endpoint, HASTY, Moto, REGION, STAGING, UNLIMITED, emulator, value, write};

const PATH: &str = "/musehub/A";

/// Returns an emulator with one parameter and an empty log.
async fn seeded() -> (Emulator, Endpoint) {
    let emulator = emulator().await;
    let ssm = Endpoint::new(&emulator.url(), "faults");
    ssm.store().create(write(PATH, &value("seed"), "")).await.unwrap();
    emulator.clear_calls();
    (emulator, ssm)
}

fn inject(emulator: &Emulator, rule: Rule) {
    emulator.add_fault(rule).unwrap();
}

fn calls_of(emulator: &Emulator, operation: &str) -> Vec<Call> {
    emulator.calls().into_iter().filter(|call| call.operation == operation).collect()
}

fn outcomes(emulator: &Emulator, operation: &str) -> Vec<String> {
    calls_of(emulator, operation).into_iter().map(|call| call.outcome).collect()
}

async fn versions(ssm: &Endpoint) -> usize {
    ssm.store().history(PATH).await.unwrap().len()
}

#[tokio::test]
async fn a_throttled_call_is_sent_again_until_it_passes() {
    for (fault, code) in [(Fault::Throttle, "ThrottlingException"), (Fault::TooManyUpdates, "TooManyUpdates")]
    {
        let (emulator, ssm) = seeded().await;
        let counted = SsmCalls::default();
        let store = ssm.store_with(CallLimits::default(), UNLIMITED, counted.clone());
        let operations =
            ["PutParameter", "GetParameterHistory", "GetParameter", "DescribeParameters", "DeleteParameter"];
        for operation in operations {
            inject(&emulator, Rule::once(operation, fault.clone()).times(2));
        }
        assert_eq!(store.overwrite(write(PATH, &value("new"), "")).await, Ok(2));
        assert_eq!(store.history(PATH).await.unwrap().len(), 2);
        assert!(store.read(PATH, None).await.unwrap().unwrap().same_as(&value("new")));
        assert_eq!(store.list(&["/musehub/".to_owned()]).await.unwrap().len(), 1);
        assert_eq!(store.delete(PATH).await, Ok(()));
        for operation in operations {
            assert_eq!(outcomes(&emulator, operation), [code, code, "ok"], "{operation}");
            assert_eq!((counted.get(operation, "throttled"), counted.get(operation, "ok")), (2, 1));
        }
    }
}

#[tokio::test]
async fn a_call_that_is_always_throttled_gives_up_and_was_not_applied() {
    let (emulator, ssm) = seeded().await;
    inject(&emulator, Rule::once("PutParameter", Fault::TooManyUpdates).always());
    let store = ssm.store_with(BRIEF, UNLIMITED, SsmCalls::default());
    let error = store.overwrite(write(PATH, &value("new"), "")).await.unwrap_err();
    assert!(matches!(error, StoreError::Throttled { .. }), "{error:?}");
    assert!(!error.outcome_unknown());
    assert!((2..=6).contains(&calls_of(&emulator, "PutParameter").len()));
    assert_eq!(versions(&ssm).await, 1);
}

#[tokio::test]
async fn a_write_without_an_answer_is_unknown_and_was_sent_once() {
    for applied in [false, true] {
        let faults = [Fault::Hang { applied }, Fault::Drop { applied }, Fault::ServerError { applied }];
        for fault in faults {
            let (emulator, ssm) = seeded().await;
            inject(&emulator, Rule::once("PutParameter", fault.clone()).always());
            let store = ssm.store_with(HASTY, UNLIMITED, SsmCalls::default());
            for error in [
                store.overwrite(write(PATH, &value("new"), "")).await.unwrap_err(),
                store.create(write("/musehub/B", &value("new"), "")).await.unwrap_err(),
            ] {
                assert!(error.outcome_unknown(), "{fault:?}: {error:?}");
            }
            let sent: Vec<(String, bool)> =
                emulator.calls().into_iter().map(|call| (call.path, call.applied)).collect();
            assert_eq!(sent, [(PATH.to_owned(), applied), ("/musehub/B".to_owned(), applied)], "{fault:?}");
            emulator.clear_faults();
            assert_eq!(versions(&ssm).await, if applied { 2 } else { 1 }, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_delete_without_an_answer_is_unknown_and_was_sent_once() {
    let (emulator, ssm) = seeded().await;
    inject(&emulator, Rule::once("DeleteParameter", Fault::Hang { applied: true }));
    let error = ssm.store_with(HASTY, UNLIMITED, SsmCalls::default()).delete(PATH).await.unwrap_err();
    assert!(error.outcome_unknown(), "{error:?}");
    assert_eq!(calls_of(&emulator, "DeleteParameter").len(), 1);
    assert_eq!(ssm.store().delete(PATH).await, Ok(()), "what is gone is deleted");
}

#[tokio::test]
async fn a_create_that_was_applied_unanswered_is_found_by_the_next_try() {
    let (emulator, ssm) = seeded().await;
    inject(&emulator, Rule::once("PutParameter", Fault::Drop { applied: true }));
    let store = ssm.store();
    let (path, secret) = ("/keyturn/prod/musehub/a/1", value("record"));
    assert!(store.create(write(path, &secret, "")).await.unwrap_err().outcome_unknown());
    assert_eq!(store.create(write(path, &value("another"), "")).await, Ok(Created::Exists));
    assert!(store.read(path, None).await.unwrap().unwrap().same_as(&secret));
}

#[tokio::test]
async fn a_write_that_is_applied_late_or_twice_shows_in_the_history() {
    let (emulator, ssm) = seeded().await;
    let store = ssm.store_with(HASTY, UNLIMITED, SsmCalls::default());
    inject(&emulator, Rule::once("PutParameter", Fault::Late { after_ms: None }));
    assert!(store.overwrite(write(PATH, &value("late"), "")).await.unwrap_err().outcome_unknown());
    assert_eq!(versions(&ssm).await, 1);
    assert_eq!(emulator.release().await, 1);
    assert_eq!(versions(&ssm).await, 2);

    inject(&emulator, Rule::once("PutParameter", Fault::Duplicate { after_ms: None }));
    assert_eq!(ssm.store().overwrite(write(PATH, &value("twice"), "")).await, Ok(3));
    assert_eq!(emulator.release().await, 1);
    assert_eq!(versions(&ssm).await, 4);
}

#[tokio::test]
async fn a_read_is_tried_again_whatever_became_of_it() {
    for fault in [
        Fault::ServerError { applied: false },
        Fault::Drop { applied: false },
        Fault::Hang { applied: false },
    ] {
        let (emulator, ssm) = seeded().await;
        inject(&emulator, Rule::once("GetParameterHistory", fault.clone()));
        let limits = CallLimits { attempt: Duration::from_secs(2), ..CallLimits::default() };
        let store = ssm.store_with(limits, UNLIMITED, SsmCalls::default());
        assert_eq!(store.history(PATH).await.unwrap().len(), 1, "{fault:?}");
        assert_eq!(calls_of(&emulator, "GetParameterHistory").len(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_read_that_never_has_an_answer_ends_as_unavailable() {
    let (emulator, ssm) = seeded().await;
    inject(&emulator, Rule::once("GetParameter", Fault::Hang { applied: false }).always());
    let store = ssm.store_with(HASTY, UNLIMITED, SsmCalls::default());
    let error = store.read(PATH, None).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_denied_call_is_sent_once_and_names_the_action() {
    let (emulator, ssm) = seeded().await;
    inject(&emulator, Rule { operation: None, ..Rule::once("", Fault::AccessDenied).always() });
    let store = ssm.store();
    let errors = [
        store.overwrite(write(PATH, &value("new"), "")).await.map(drop).unwrap_err(),
        store.read(PATH, None).await.map(drop).unwrap_err(),
        store.list(&["/musehub/".to_owned()]).await.map(drop).unwrap_err(),
        store.history(PATH).await.map(drop).unwrap_err(),
        store.delete(PATH).await.unwrap_err(),
    ];
    for error in &errors {
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains("not authorized to perform: ssm:"), "{error}");
    }
    assert_eq!(emulator.calls().len(), errors.len());
}

#[tokio::test]
async fn bad_credentials_are_denied_with_what_to_check() {
    for (code, remedy) in [
        ("UnrecognizedClientException", "access key"),
        ("ExpiredTokenException", "expired"),
        ("InvalidSignatureException", "clock"),
    ] {
        let (emulator, ssm) = seeded().await;
        let message = "The security token included in the request is expired".to_owned();
        let fault = Fault::Error { code: code.to_owned(), message, status: 400, applied: false };
        inject(&emulator, Rule::once("PutParameter", fault));
        let error = ssm.store().overwrite(write(PATH, &value("new"), "")).await.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
}

/// A source of credentials that has none.
#[derive(Debug)]
struct NoCredentials {
    /// True if it may have credentials later.
    for_now: bool,
}

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(if self.for_now {
            CredentialsError::provider_error("STS answers 503")
        } else {
            CredentialsError::not_loaded("no provider in the chain has credentials")
        }))
    }
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_the_reason_is_said() {
    for (for_now, says) in [(true, "STS answers 503"), (false, "no provider in the chain")] {
        let (emulator, ssm) = seeded().await;
        let config = ssm.config().to_builder();
        let config = config.credentials_provider(SharedCredentialsProvider::new(NoCredentials { for_now }));
        let store =
            Stores::new(config.build(), STAGING, BRIEF, UNLIMITED, SsmCalls::default()).region(REGION);
        let error = store.overwrite(write(PATH, &value("new"), "")).await.unwrap_err();
        match &error {
            StoreError::Unavailable { .. } if for_now => {}
            StoreError::Denied { .. } if !for_now => {}
            _ => panic!("{error:?}"),
        }
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(emulator.calls(), []);
    }
}

#[tokio::test]
async fn a_write_that_found_no_connection_was_surely_not_applied() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for url in [url.as_str(), "http://nowhere.invalid"] {
        let store = Endpoint::new(url, "closed").store_with(BRIEF, UNLIMITED, SsmCalls::default());
        let error = store.overwrite(write(PATH, &value("new"), "")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(!error.outcome_unknown());
    }
}

#[tokio::test]
async fn an_answer_that_is_not_from_ssm_proves_nothing() {
    for status in ["200 OK", "403 Forbidden", "502 Bad Gateway"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 65536];
                let _ = stream.read(&mut request).await;
                let page = "<html>proxy says hello</html>";
                let head =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close", page.len());
                let _ = stream.write_all(format!("{head}\r\n\r\n{page}").as_bytes()).await;
            }
        });
        let store = Endpoint::new(&url, "garbage").store_with(HASTY, UNLIMITED, SsmCalls::default());
        let written = store.overwrite(write(PATH, &value("new"), "")).await.unwrap_err();
        assert!(written.outcome_unknown(), "{status}: {written:?}");
        let read = store.history(PATH).await.unwrap_err();
        assert!(matches!(read, StoreError::Unavailable { .. }), "{status}: {read:?}");
        assert!(!format!("{written}{read}").contains("hello"), "{written}");
        server.abort();
    }
}

async fn put_many(store: Arc<dyn ParameterStore>, count: usize) -> usize {
    let paths: Vec<String> = (0..count).map(|n| format!("/musehub/many/{n}")).collect();
    let secret = value("x");
    let results = join_all(paths.iter().map(|path| store.create(write(path, &secret, "")))).await;
    results.into_iter().filter(Result::is_ok).count()
}

#[tokio::test]
async fn the_budget_keeps_every_write_below_the_quota() {
    let quota = || [("PutParameter".to_owned(), Quota { per_second: 30.0, burst: 8 })];
    let (emulator, ssm) = seeded().await;
    emulator.set_quotas(quota());
    let rates = Rates { put: Rate { per_second: 20.0, burst: 1 }, ..UNLIMITED };
    let store = ssm.store_with(CallLimits::default(), rates, SsmCalls::default());
    assert_eq!(put_many(store, 30).await, 30);
    assert_eq!(outcomes(&emulator, "PutParameter"), vec!["ok"; 30], "none was throttled, none sent twice");

    let (emulator, ssm) = seeded().await;
    emulator.set_quotas(quota());
    put_many(ssm.store(), 30).await;
    let throttled =
        outcomes(&emulator, "PutParameter").iter().filter(|o| *o == "ThrottlingException").count();
    assert!(throttled > 0, "without the budget the quota would have been exceeded");
}

#[tokio::test]
async fn a_call_that_has_no_turn_in_time_is_not_sent() {
    let (emulator, ssm) = seeded().await;
    let rates = Rates { put: Rate { per_second: 0.0001, burst: 1 }, ..UNLIMITED };
    let store = ssm.store_with(BRIEF, rates, SsmCalls::default());
    assert_eq!(put_many(store.clone(), 5).await, 1);
    assert_eq!(calls_of(&emulator, "PutParameter").len(), 1);
    let error = store.overwrite(write(PATH, &value("new"), "")).await.unwrap_err();
    assert!(matches!(error, StoreError::OutOfBudget { .. }), "{error:?}");
    assert!(
        error.to_string().contains("own request budget") && !error.to_string().contains("SSM"),
        "{error}"
    );
    assert!(!error.outcome_unknown() && !error.needs_a_person());
}

#[tokio::test]
async fn a_stale_read_shows_what_was_before() {
    let (emulator, ssm) = seeded().await;
    let store = ssm.store();
    store.overwrite(write(PATH, &value("new"), "")).await.unwrap();
    inject(&emulator, Rule::once("GetParameter", Fault::Stale { writes: 1 }));
    inject(&emulator, Rule::once("DescribeParameters", Fault::Stale { writes: 2 }));
    assert!(store.read(PATH, None).await.unwrap().unwrap().same_as(&value("seed")));
    assert_eq!(store.list(&[PATH.to_owned()]).await, Ok(vec![]));
    assert!(store.read(PATH, None).await.unwrap().unwrap().same_as(&value("new")));
}

#[tokio::test]
async fn the_emulator_puts_faults_before_another_ssm() {
    let moto = Moto::shared().await;
    let proxy = Emulator::listen("127.0.0.1:0", Some(Upstream::new(moto.url()).unwrap())).await.unwrap();
    let ssm = Endpoint::new(&proxy.url(), "proxied");
    let (store, path) = (ssm.store_with(BRIEF, UNLIMITED, SsmCalls::default()), ssm.path("A"));
    ssm.store().create(write(&path, &value("one"), "")).await.unwrap();
    proxy.clear_calls();
    inject(&proxy, Rule::once("PutParameter", Fault::Drop { applied: true }));
    assert!(store.overwrite(write(&path, &value("two"), "")).await.unwrap_err().outcome_unknown());
    let put = &calls_of(&proxy, "PutParameter")[..];
    assert_eq!((put.len(), put[0].applied, put[0].version), (1, true, Some(2)));
    let direct = Endpoint::new(moto.url(), "proxied").store();
    assert!(direct.read(&path, None).await.unwrap().unwrap().same_as(&value("two")));
}
