//! Objects of the cluster as they are at this moment.

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

/// `managedsecret/token`, or another object of keyturn's or a pod. `None` where there is none, or no answer.
pub fn get(namespace: &str, object: &str) -> Option<Value> {
    let (kind, name) = object.split_once('/').expect("kind/name");
    let group = if kind == "pod" { "api/v1" } else { "apis/keyturn.dev/v1alpha1" };
    let path = format!("/{group}/namespaces/{namespace}/{kind}s/{name}");
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    wait_for(async { client().await.request(request).await.ok() })
}

/// The text of a field, by its JSON Pointer, as kubectl shows it: nothing where it is absent.
pub fn field(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
