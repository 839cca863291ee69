//! Tests of creating, proving, finding and deleting tokens.

use chrono::TimeDelta;
use keyturn::rotation::observed::Acceptance;
use keyturn::secret_value::SecretValue;
use keyturn::source::cloudflare_r2::CloudflareR2;
use keyturn::source::{Claim, Issues, Login, Target};
use keyturn_cloudflare_emulator::{Fault, Rule};
use serde_json::{Value, json};

use crate::scene::{ACCOUNT, ADMIN, OWNER, Scene, reason, shared, spec};

/// Milliseconds for which R2 does not know a new token, unless the test says otherwise.
const HOUR: i64 = 3_600_000;

#[tokio::test]
async fn a_new_token_works_once_r2_has_heard_of_it_and_not_after_its_deletion() {
    let scene = Scene::new().await;
    let target = scene.target();
    scene.propagate_after(HOUR);
    let login = target.issue(7).await.unwrap();
    assert_eq!(login.password.len(), 64);
    assert_eq!(scene.names(), [format!("{OWNER}/7")]);
    assert_eq!(reason(&target.try_login(&login).await), "KeyPairRefused");
    scene.propagate_after(0);
    assert_eq!(target.try_login(&login).await, Acceptance::Accepted);

    assert!(target.observe().await.unwrap().can_log_in.contains(&login.username));
    target.retire(8, &login.username, Claim::Name).await.unwrap();
    assert!(target.observe().await.unwrap().can_log_in.is_empty());
    assert_eq!(reason(&target.try_login(&login).await), "KeyPairRefused");
    target.retire(8, &login.username, Claim::Name).await.unwrap();
}

#[tokio::test]
async fn a_token_ends_by_itself_and_is_for_its_buckets_only() {
    let scene = Scene::new().await;
    let target = scene.target();
    let login = target.issue(1).await.unwrap();
    let token = scene.cloudflare.tokens(ACCOUNT).remove(0);
    // keyturn computes the expiry by its own clock, a moment before the token is created.
    let asked_for = token.expires_on.unwrap() - TimeDelta::days(180);
    assert!(asked_for <= token.issued_on && asked_for > token.issued_on - TimeDelta::hours(1), "{asked_for}");
    let resources = &token.policies[0]["resources"];
    let bucket =
        |name: &str| resources[format!("com.cloudflare.edge.r2.bucket.{ACCOUNT}_default_{name}")].clone();
    assert_eq!((bucket("media"), bucket("backups")), (json!("*"), json!("*")));
    assert_eq!(resources.as_object().unwrap().len(), 2);
    assert_eq!(target.try_login(&login).await, Acceptance::Accepted);
    let elsewhere = scene.target_with(json!({"buckets": ["records"], "jurisdiction": "eu"}), ADMIN);
    assert_eq!(reason(&elsewhere.try_login(&login).await), "KeyPairRefused");
}

#[tokio::test]
async fn every_permission_and_jurisdiction_makes_a_token_that_is_proven() {
    let kinds = [
        json!({"permission": "ObjectReadOnly"}),
        json!({"buckets": ["records"], "jurisdiction": "eu"}),
        json!({"buckets": null, "probeBucket": "backups"}),
        json!({"buckets": null, "permission": "AdminReadWrite"}),
        json!({"buckets": null, "permission": "AdminReadOnly"}),
    ];
    for kind in kinds {
        let scene = Scene::new().await;
        let target = scene.target_with(kind.clone(), ADMIN);
        let login = target.issue(1).await.unwrap();
        assert_eq!(target.try_login(&login).await, Acceptance::Accepted, "{kind}");
        let wrong = Login { username: login.username.clone(), password: SecretValue::new("0".repeat(64)) };
        assert_eq!(reason(&target.try_login(&wrong).await), "KeyPairRefused", "{kind}");
    }
}

#[tokio::test]
async fn tokens_of_ours_are_found_by_their_exact_name_over_many_pages() {
    let scene = Scene::new().await;
    let target = scene.target();
    let policies = || scene.cloudflare.tokens(ACCOUNT)[0].policies.clone();
    let first = target.issue(1).await.unwrap();
    for n in 0..120 {
        scene.cloudflare.make_token(ACCOUNT, &format!("somebody's token {n}"), policies());
    }
    for name in [
        "test/shop/r2",
        "test/shop/r2/",
        "test/shop/r2/01",
        "test/shop/r2/x",
        "test/shop/r2/2/3",
        "test/shop/r22/4",
        "prod/shop/r2/5",
        "test/shop/r2/0",
        " test/shop/r2/6",
    ] {
        scene.cloudflare.make_token(ACCOUNT, name, policies());
    }
    let last = target.issue(9).await.unwrap();
    let roles = target.observe().await.unwrap();
    let found: Vec<(String, u64)> = roles.issued.unwrap().into_iter().map(|i| (i.username, i.id)).collect();
    assert_eq!(found, [(first.username, 1), (last.username, 9)]);
    assert_eq!(roles.can_log_in.len(), 131);
}

#[tokio::test]
async fn a_token_of_another_name_is_deleted_only_where_its_pair_was_accepted() {
    let scene = Scene::new().await;
    let target = scene.target();
    let ours = target.issue(3).await.unwrap();
    let policies = || scene.cloudflare.tokens(ACCOUNT)[0].policies.clone();
    for name in
        ["of somebody else", "test/shop/r22/2", "test/other/r2/2", "prod/shop/r2/2", "test/shop/r2/02", ""]
    {
        let victim = scene.cloudflare.make_token(ACCOUNT, name, policies()).unwrap();
        let error = target.retire(4, &victim.id, Claim::Name).await.unwrap_err();
        assert_eq!(
            (error.trouble.reason.name(), error.trouble.is_permanent(), error.outcome_unknown),
            ("TokenOfAnotherName", true, false)
        );
        assert!(
            error.trouble.message.contains(&victim.id) && error.trouble.message.contains(OWNER),
            "{error}"
        );
        assert!(scene.names().contains(&victim.name), "{name} was deleted");
        target.retire(4, &victim.id, Claim::Accepted).await.unwrap();
        assert!(!scene.names().contains(&victim.name), "{name} was in use");
    }
    target.retire(4, &ours.username, Claim::Name).await.unwrap();
    assert_eq!(scene.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_is_not_taken_for_deleted_because_another_one_is_while_the_list_is_read() {
    let scene = Scene::new().await;
    let target = scene.target();
    target.issue(1).await.unwrap();
    let policies = scene.cloudflare.tokens(ACCOUNT)[0].policies.clone();
    let made = |name: &str| scene.cloudflare.make_token(ACCOUNT, name, policies.clone()).unwrap().id;
    let ids: Vec<String> = (0..60).map(|n| made(&format!("somebody's token {n}"))).collect();
    scene.cloudflare.clear_calls();
    scene.cloudflare.add_fault(Rule::once("ListTokens", Fault::Slow { ms: 300 }));
    let deletes_one_of_the_first_page = async {
        while !scene.cloudflare.calls().iter().any(|call| call.operation == "ListTokens") {
            tokio::task::yield_now().await;
        }
        scene.cloudflare.delete_token(ACCOUNT, &ids[0]);
    };
    let (roles, ()) = tokio::join!(target.observe(), deletes_one_of_the_first_page);
    let listed = roles.unwrap().can_log_in;
    assert_eq!(ids[1..].iter().find(|id| !listed.contains(*id)), None);
}

#[tokio::test]
async fn a_secret_whose_names_are_too_long_for_a_token_is_told() {
    let scene = Scene::new().await;
    let make = |owner: String| {
        let admin = SecretValue::new(ADMIN.to_owned());
        CloudflareR2::new(&spec(Value::Object(serde_json::Map::new())), shared(&scene), admin, owner, None)
    };
    let error = make("x".repeat(114)).err().unwrap();
    assert_eq!(error.trouble.reason, "NameTooLong");
    make("x".repeat(113)).unwrap().issue(123_456).await.unwrap();
    assert_eq!(scene.cloudflare.tokens(ACCOUNT)[0].expires_on, None);
}
