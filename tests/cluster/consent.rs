//! Tests Secrets on a real API server: those that consent are read; of others only the labels are read.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use keyturn::api::consent::{Purpose, USABLE_BY};
use keyturn::cluster::user_secrets::{SecretError, labels, read};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::namespace::within;

const NAME: &str = "db-admin";
const PURPOSE: Purpose = keyturn::api::source::postgres::ADMINISTRATOR;

async fn refusal(client: &Client, namespace: &str) -> String {
    match read(client, namespace, NAME, PURPOSE).await {
        Err(SecretError::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn a_secret_is_read_once_the_printed_command_was_run_and_until_the_label_is_taken_away() {
    within("consent", |client, namespace| async move {
        assert_eq!(labels(&client, &namespace, NAME).await.unwrap(), None);
        assert!(refusal(&client, &namespace).await.contains("does not exist"));

        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let secret = json!({"metadata": {"name": NAME}, "stringData": {"username": "root"}});
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
        assert_eq!(labels(&client, &namespace, NAME).await.unwrap(), Some(BTreeMap::new()));
        let refused = refusal(&client, &namespace).await;
        let command = refused.split('`').nth(1).unwrap().to_owned();
        assert_eq!(
            command,
            format!("kubectl label secret -n {namespace} {NAME} keyturn.dev/usable-by=postgres-admin")
        );

        let words: Vec<&str> = command.split(' ').collect();
        let ran = std::process::Command::new(words[0]).args(&words[1..]).status().unwrap();
        assert!(ran.success(), "{command}");
        let found = read(&client, &namespace, NAME, PURPOSE).await.unwrap();
        assert_eq!(found.data.unwrap()["username"].0, b"root");
        assert!(
            read(&client, &namespace, NAME, Purpose::SSH).await.is_err(),
            "it consents to nothing but its purpose"
        );

        let away = json!({"metadata": {"labels": {USABLE_BY: null}}});
        secrets.patch(NAME, &PatchParams::default(), &Patch::Merge(&away)).await.unwrap();
        assert_eq!(refusal(&client, &namespace).await, refused);
    })
    .await;
}
