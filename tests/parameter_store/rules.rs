//! Tests AWS's rules that moto does not have: the refused requests, and the messages of the refusals.

use aws_sdk_ssm::types::{ParameterTier, ParameterType};
use keyturn::parameter_store::{Created, NewVersion, StoreError};
use keyturn_aws_emulator::Settings;

use crate::endpoint::{Endpoint, emulator, value, write};

#[tokio::test]
async fn what_ssm_will_never_take_is_rejected_and_explained() {
    let emulator = emulator().await;
    let ssm = Endpoint::new(&emulator.url(), "rules");
    let (store, client) = (ssm.store(), ssm.client());
    client.put_parameter().name("/plain").value("x").r#type(ParameterType::String).send().await.unwrap();
    client
        .put_parameter()
        .name("/patterned")
        .value("123")
        .r#type(ParameterType::SecureString)
        .allowed_pattern("[0-9]+")
        .send()
        .await
        .unwrap();
    let labelled = value("x");
    store.create(write("/labelled", &labelled, "")).await.unwrap();
    client
        .label_parameter_version()
        .name("/labelled")
        .parameter_version(1)
        .labels("keep")
        .send()
        .await
        .unwrap();
    for _ in 0..99 {
        store.overwrite(write("/labelled", &labelled, "")).await.unwrap();
    }

    let (long, description) = ("t0ps3cret".repeat(456), "d".repeat(1025));
    let deep = "/a".repeat(16);
    let cases: [(&str, &str, &str, &str); 9] = [
        ("/long", &long, "", "4096 characters"),
        ("/empty", "", "", "length"),
        ("/described", "t0ps3cret", &description, "1024"),
        ("/a b", "t0ps3cret", "", "letters, numbers"),
        ("a/b", "t0ps3cret", "", "fully qualified"),
        (&deep, "t0ps3cret", "", "15 levels"),
        ("/plain", "t0ps3cret", "", "another type"),
        ("/patterned", "t0ps3cret", "", "AllowedPattern"),
        ("/labelled", "t0ps3cret", "", "move or remove that label"),
    ];
    for (path, text, description, says) in cases {
        let error = store.overwrite(write(path, &value(text), description)).await.unwrap_err();
        assert!(matches!(&error, StoreError::Rejected { .. }), "{path}: {error:?}");
        assert!(error.needs_a_person() && error.to_string().contains(says), "{path}: {error}");
    }
    assert_eq!(store.history("/plain").await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_unknown_kms_key_is_denied_and_a_known_one_is_used() {
    let emulator = emulator().await;
    let ssm = Endpoint::new(&emulator.url(), "kms");
    emulator.set_settings(Settings { kms_keys: ["alias/musehub".to_owned()].into(), ..Settings::default() });
    let store = ssm.store();
    let secret = value("x");
    let with_key =
        |key| NewVersion { path: "/a", value: &secret, text: String::new(), stamp: None, kms_key_id: key };
    let error = store.create(with_key(Some("alias/typo"))).await.unwrap_err();
    assert!(matches!(&error, StoreError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("alias/typo") && error.to_string().contains("spec.ssm.kmsKeyId"));
    assert_eq!(store.create(with_key(Some("alias/musehub"))).await, Ok(Created::Created));
    let described = ssm.client().describe_parameters().send().await.unwrap();
    assert_eq!(described.parameters()[0].key_id(), Some("alias/musehub"));
}

#[tokio::test]
async fn an_advanced_parameter_stays_advanced_and_a_new_one_is_standard() {
    let emulator = emulator().await;
    let ssm = Endpoint::new(&emulator.url(), "tier");
    let (store, client) = (ssm.store(), ssm.client());
    client
        .put_parameter()
        .name("/advanced")
        .value("x")
        .r#type(ParameterType::SecureString)
        .tier(ParameterTier::Advanced)
        .send()
        .await
        .unwrap();
    assert_eq!(store.overwrite(write("/advanced", &value(&"x".repeat(5000)), "")).await, Ok(2));
    store.create(write("/new", &value("x"), "")).await.unwrap();
    let described = client.describe_parameters().send().await.unwrap();
    let tiers: Vec<_> =
        described.parameters().iter().map(|p| (p.name().unwrap(), p.tier().unwrap())).collect();
    assert_eq!(tiers, [("/advanced", &ParameterTier::Advanced), ("/new", &ParameterTier::Standard)]);
}

#[tokio::test]
async fn a_list_goes_on_over_empty_pages() {
    let emulator = emulator().await;
    let ssm = Endpoint::new(&emulator.url(), "empty");
    let store = ssm.store();
    for n in 0..60 {
        store.create(write(&ssm.path(&format!("{n}")), &value("x"), "")).await.unwrap();
    }
    emulator.set_settings(Settings { empty_pages: true, ..Settings::default() });
    assert_eq!(store.list(&[ssm.folder().to_owned()]).await.unwrap().len(), 60);
}

#[tokio::test]
async fn a_list_of_nothing_asks_for_nothing() {
    let emulator = emulator().await;
    let store = Endpoint::new(&emulator.url(), "nothing").store();
    assert_eq!(store.list(&[]).await, Ok(vec![]));
    assert_eq!(emulator.calls(), []);
}
