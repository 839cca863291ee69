//! A separate namespace for a test, deleted at the end of the test, even if it fails.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

/// Runs a test in a new namespace.
pub(crate) async fn within<F>(what: &str, test: impl FnOnce(kube::Client, String) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let client = crate::client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let name = format!("{what}-test-{}", std::process::id());
    let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let outcome = tokio::spawn(test(client, name.clone())).await;
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
    outcome.unwrap();
}
