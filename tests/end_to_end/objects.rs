//! Reads the present objects of the cluster.

use kube::Client;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::world::{variable, wait_for};

async fn client() -> &'static Client {
    static CLIENT: OnceCell<Client> = OnceCell::const_new();
    let connect = || async {
        variable("KUBECONFIG");
        Client::try_default().await.expect("the cluster that KUBECONFIG names cannot be reached")
    };
    CLIENT.get_or_init(connect).await
}

/// Returns `managedsecret/token`, or another object of keyturn's, or a pod. `None` if it does not exist or
/// there is no answer.
pub(crate) fn get(namespace: &str, object: &str) -> Option<Value> {
    let (kind, name) = object.split_once('/').expect("kind/name");
    let group = if kind == "pod" { "api/v1" } else { "apis/keyturn.dev/v1alpha1" };
    let path = format!("/{group}/namespaces/{namespace}/{kind}s/{name}");
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    wait_for(async { client().await.request(request).await.ok() })
}

/// Returns the text of a field, by its JSON Pointer, as kubectl prints it; empty if the field is missing.
pub(crate) fn field(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
