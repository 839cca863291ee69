//! Access to parameters in the world's SSM.

use aws_config::BehaviorVersion;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{Parameter, ParameterType};
use tokio::sync::OnceCell;

use super::world::{run, variable, wait_for};

async fn client() -> &'static Client {
    static CLIENT: OnceCell<Client> = OnceCell::const_new();
    let connect = || async {
        variable("AWS_ENDPOINT_URL_SSM");
        Client::new(&aws_config::defaults(BehaviorVersion::latest()).load().await)
    };
    CLIENT.get_or_init(connect).await
}

pub(crate) fn put(path: &str, value: &str) {
    wait_for(async {
        let put = client().await.put_parameter().name(path).value(value);
        put.r#type(ParameterType::SecureString).overwrite(true).send().await.unwrap();
    });
}

pub(crate) fn put_described(path: &str, value: &str, description: &str) {
    wait_for(async { put_by(client().await, path, value, description).await });
}

/// A user of the account other than that of the tests.
pub(crate) struct User(Client);

impl User {
    /// Creates a user, who has this name in CloudTrail.
    pub(crate) fn new(name: &str) -> Self {
        let keys = aws_sdk_ssm::config::Credentials::new(name, "none", None, None, "a test");
        let user = async { client().await.config().to_builder().credentials_provider(keys).build() };
        Self(Client::from_conf(wait_for(user)))
    }

    pub(crate) fn put(&self, path: &str, value: &str, description: &str) {
        wait_for(put_by(&self.0, path, value, description));
    }
}

async fn put_by(client: &Client, path: &str, value: &str, description: &str) {
    let put = client.put_parameter().name(path).value(value).description(description);
    put.r#type(ParameterType::SecureString).overwrite(true).send().await.unwrap();
}

/// Returns the description of the latest version.
pub(crate) fn description(path: &str) -> String {
    wait_for(async {
        let history = client().await.get_parameter_history().name(path).send().await.unwrap();
        let latest = history.parameters().iter().max_by_key(|version| version.version());
        latest.and_then(|version| version.description()).unwrap_or_default().to_owned()
    })
}

pub(crate) fn put_as_string(path: &str, value: &str) {
    wait_for(async {
        let put = client().await.put_parameter().name(path).value(value);
        put.r#type(ParameterType::String).overwrite(true).send().await.unwrap();
    });
}

pub(crate) fn delete(path: &str) {
    wait_for(async { client().await.delete_parameter().name(path).send().await.unwrap() });
}

/// Deletes everything below a path.
pub(crate) fn delete_below(path: &str) {
    wait_for(async {
        let below = client().await.get_parameters_by_path().path(path).recursive(true);
        let pages = below.into_paginator().send().try_collect().await.unwrap();
        for name in
            pages.into_iter().flat_map(|page| page.parameters.unwrap_or_default()).filter_map(|p| p.name)
        {
            client().await.delete_parameter().name(name).send().await.unwrap();
        }
    });
}

/// Moves a label to a version.
pub(crate) fn label(path: &str, version: i64, label: &str) {
    wait_for(async {
        let labels = client().await.label_parameter_version().name(path).parameter_version(version);
        labels.labels(label).send().await.unwrap();
    });
}

/// Returns the value; `None` if the parameter does not exist.
pub(crate) fn value(path: &str) -> Option<String> {
    get(path)?.value
}

pub(crate) fn version(path: &str) -> Option<i64> {
    Some(get(path)?.version)
}

pub(crate) fn kind(path: &str) -> Option<String> {
    get(path)?.r#type.map(|kind| kind.as_str().to_owned())
}

fn get(path: &str) -> Option<Parameter> {
    let answer =
        wait_for(async { client().await.get_parameter().name(path).with_decryption(true).send().await });
    match answer {
        Ok(found) => found.parameter,
        Err(e) if e.as_service_error().is_some_and(|e| e.is_parameter_not_found()) => None,
        Err(e) => panic!("{path}: {}", aws_sdk_ssm::error::DisplayErrorContext(e)),
    }
}

/// Returns the values of all versions that still exist, newest last.
pub(crate) fn all_values(path: &str) -> Vec<String> {
    wait_for(async {
        let history = client().await.get_parameter_history().name(path).with_decryption(true);
        let pages = history.into_paginator().send().try_collect().await.unwrap();
        let versions = pages.into_iter().flat_map(|page| page.parameters.unwrap_or_default());
        versions.filter_map(|version| version.value).collect()
    })
}

/// Returns the names of everything below keyturn's staging path for a namespace, one per line.
pub(crate) fn records(namespace: &str) -> String {
    let names = staged(namespace).into_iter().filter_map(|parameter| parameter.name);
    names.collect::<Vec<_>>().join("\n")
}

/// Returns the values of everything below keyturn's staging path for a namespace.
pub(crate) fn record_values(namespace: &str) -> Vec<String> {
    staged(namespace).into_iter().filter_map(|parameter| parameter.value).collect()
}

fn staged(namespace: &str) -> Vec<Parameter> {
    wait_for(async {
        let below = client().await.get_parameters_by_path().path(format!("/keyturn/world/{namespace}"));
        let pages = below.recursive(true).with_decryption(true).into_paginator().send().try_collect().await;
        pages.unwrap().into_iter().flat_map(|page| page.parameters.unwrap_or_default()).collect()
    })
}

/// Returns the parameters of the calls of one operation that the world's SSM received since that call, and the
/// number to continue from.
pub(crate) fn calls_since(from: u64, operation: &str) -> (Vec<String>, u64) {
    let address = format!("{}/world/calls?from={from}", variable("AWS_ENDPOINT_URL_SSM"));
    let log: serde_json::Value = serde_json::from_str(&run("curl", &["-sf", &address])).unwrap();
    let of_operation = log["calls"].as_array().unwrap().iter().filter(|call| call["operation"] == operation);
    (of_operation.map(|call| call["names"].to_string()).collect(), log["next"].as_u64().unwrap())
}

/// Makes the newest version of a parameter this many days old.
pub(crate) fn backdate(path: &str, days: u32) {
    let address = format!("{}/world/backdate", variable("AWS_ENDPOINT_URL_SSM"));
    let body = format!("{{\"name\":\"{path}\",\"days\":{days}}}");
    run("curl", &["-sf", "-X", "POST", &address, "-d", &body]);
}
