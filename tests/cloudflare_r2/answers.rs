//! Other answers that Cloudflare may send, and the messages about them.

use std::time::{Duration, Instant};

use keyturn::rotation::observed::Acceptance;
use keyturn::secret_value::SecretValue;
use keyturn::source::cloudflare_r2::Endpoints;
use keyturn::source::{Claim, Issues, Login, Target, TargetError};
use keyturn_cloudflare_emulator::{Fault, Rule, Settings};
use serde_json::json;

use crate::scene::{ACCOUNT, ADMIN, Scene, copy, says_no_secret};

/// Checks an error: its reason, true if only a person can end it, and true if its outcome is unknown.
fn check(scene: &Scene, error: &TargetError, reason: &str, permanent: bool, unknown: bool) {
    says_no_secret(scene, error);
    let seen = (error.trouble.reason.name(), error.trouble.is_permanent(), error.outcome_unknown);
    assert_eq!(seen, (reason, permanent, unknown), "{error}");
}

#[tokio::test]
async fn a_token_that_may_not_administer_is_named_with_its_remedy() {
    let scene = Scene::new().await;
    let policies = json!([{
        "effect": "allow", "permission_groups": [{"id": "2efd5506f9c8494dacb1fa10a3e7d5b6"}],
        "resources": {format!("com.cloudflare.edge.r2.bucket.{ACCOUNT}_default_media"): "*"},
    }]);
    let weak = scene.cloudflare.make_token(ACCOUNT, "weak", policies).unwrap();
    for admin in ["canary-unknown", &weak.value] {
        let target = scene.target_with(json!({}), admin);
        for error in [target.observe().await.unwrap_err(), target.issue(1).await.unwrap_err()] {
            check(&scene, &error, "AdministratorRefused", true, false);
            assert!(error.trouble.message.contains("Account API Tokens Write"), "{error}");
        }
    }
    let elsewhere = scene.target_with(json!({"accountId": "f".repeat(32)}), ADMIN);
    check(&scene, &elsewhere.observe().await.unwrap_err(), "AdministratorRefused", true, false);
}

#[tokio::test]
async fn a_creation_without_a_usable_answer_is_told_as_unknown_and_leaves_its_token_to_be_found() {
    let faults = [
        (Fault::Hang { applied: true }, "CloudflareNoAnswer"),
        (Fault::Drop { applied: true }, "CloudflareNoAnswer"),
        (Fault::ServerError { applied: true }, "CloudflareUnavailable"),
        (Fault::Garbage, "CloudflareNotUnderstood"),
    ];
    for (fault, reason) in faults {
        let scene = Scene::new().await;
        let target = scene.target();
        scene.cloudflare.add_fault(Rule::once("CreateToken", fault.clone()));
        let error = target.issue(3).await.unwrap_err();
        check(&scene, &error, reason, false, true);
        let found = target.observe().await.unwrap().issued.unwrap();
        assert_eq!(found.iter().map(|token| token.id).collect::<Vec<_>>(), [3], "{fault:?}");
        assert_eq!(scene.cloudflare.made(ACCOUNT), 1, "{fault:?}: no request is repeated below us");
    }
}

#[tokio::test]
async fn an_account_that_throttles_is_left_alone_for_as_long_as_it_says() {
    let scene = Scene::new().await;
    let target = scene.target();
    scene.cloudflare.add_fault(Rule::once("ListTokens", Fault::Throttle { retry_after: Some(2) }));
    let begun = Instant::now();
    check(&scene, &target.observe().await.unwrap_err(), "CloudflareThrottled", false, false);
    let asked = scene.cloudflare.calls().len();
    check(&scene, &target.issue(1).await.unwrap_err(), "CloudflareThrottled", false, false);
    assert_eq!(scene.cloudflare.calls().len(), asked, "nothing is sent in the meantime");
    while let Err(error) = target.observe().await {
        assert_eq!(error.trouble.reason, "CloudflareThrottled");
        assert!(begun.elapsed() < Duration::from_secs(20), "it is left alone for too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn deletions_that_fail_say_so() {
    let scene = Scene::new().await;
    let target = scene.target();
    let login = target.issue(1).await.unwrap();
    let refused =
        Fault::Error { status: 403, code: 9109, message: "Unauthorized to access requested resource".into() };
    for (fault, reason, permanent, unknown) in [
        (Fault::ServerError { applied: false }, "CloudflareUnavailable", false, true),
        (Fault::Hang { applied: false }, "CloudflareNoAnswer", false, true),
        (refused, "AdministratorRefused", true, false),
    ] {
        scene.cloudflare.add_fault(Rule::once("DeleteToken", fault));
        let error = target.retire(2, &login.username, Claim::Name).await.unwrap_err();
        check(&scene, &error, reason, permanent, unknown);
    }
    assert_eq!(scene.names().len(), 1);
    target.retire(2, &login.username, Claim::Name).await.unwrap();
    assert_eq!(scene.names().len(), 0);
}

#[tokio::test]
async fn a_full_account_and_a_rejected_request_are_told_apart() {
    let scene = Scene::new().await;
    let target = scene.target();
    scene.cloudflare.set_settings(Settings { most_tokens: 0, ..Settings::default() });
    check(&scene, &target.issue(1).await.unwrap_err(), "TokenQuotaReached", true, false);
    let fault = Fault::Error { status: 400, code: 1001, message: "Invalid policies".into() };
    scene.cloudflare.add_fault(Rule::once("CreateToken", fault));
    let error = target.issue(1).await.unwrap_err();
    check(&scene, &error, "CloudflareRejected", true, false);
    assert!(error.trouble.message.contains("1001 Invalid policies"), "{error}");
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_named_and_is_no_refusal_of_the_pair() {
    let scene = Scene::new().await;
    let target = scene.target_with(json!({"buckets": ["media", "no-such-bucket"]}), ADMIN);
    let login = target.issue(1).await.unwrap();
    let error = target.try_login(&login).await.unknown().unwrap();
    check(&scene, &error.clone().into(), "BucketMissing", true, false);
    assert!(error.message.contains("no-such-bucket"), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_fails_is_no_refusal_of_the_pair() {
    let scene = Scene::new().await;
    let target = scene.target();
    let login = target.issue(1).await.unwrap();
    for (fault, reason) in [
        (Fault::ServerError { applied: false }, "CloudflareUnavailable"),
        (Fault::Drop { applied: false }, "CloudflareUnreachable"),
        (Fault::Hang { applied: false }, "CloudflareUnreachable"),
        (Fault::Throttle { retry_after: Some(0) }, "CloudflareThrottled"),
    ] {
        scene.cloudflare.add_fault(Rule::once("ListObjects", fault));
        let error = target.try_login(&login).await.unknown().unwrap();
        check(&scene, &error.into(), reason, false, false);
    }
    let nowhere = Endpoints { s3: "http://127.0.0.1:1/{account}".into(), ..scene.endpoints() };
    let error = scene.target_at(nowhere, json!({}), ADMIN).try_login(&login).await.unknown().unwrap();
    check(&scene, &error.into(), "CloudflareUnreachable", false, false);
}

#[tokio::test]
async fn what_a_person_published_in_place_of_a_pair_is_never_repeated() {
    let scene = Scene::new().await;
    let target = scene.target();
    let secret = "canary/../of a person?";
    let login = Login { username: secret.to_owned(), password: SecretValue::new(secret.to_owned()) };
    match target.try_login(&copy(&login)).await {
        Acceptance::Refused(refusal) => says_no_secret(&scene, &refusal.into()),
        answer => panic!("a pair of nobody: {answer:?}"),
    }
    target.retire(1, secret, Claim::Accepted).await.unwrap();
    let asked: Vec<String> = scene.cloudflare.calls().into_iter().map(|call| call.operation).collect();
    assert_eq!(asked, ["GetToken"], "R2 is not asked about what is no id");
}
