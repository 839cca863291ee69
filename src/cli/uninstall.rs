//! `keyturn uninstall-check`: finds work that an uninstallation would leave half done. The chart runs it before `helm
//! uninstall`.

use clap::Args;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, ResourceExt};

use crate::api::{FINALIZER, ManagedSecret};
use crate::cluster::client_config;

/// Number of objects per list request.
const PAGE: u32 = 500;

/// Arguments of `keyturn uninstall-check`.
#[derive(Args, Clone, Debug)]
pub struct UninstallArgs {
    /// Namespaces that the controller watches, separated by commas; all when empty
    #[arg(long, env = "KEYTURN_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
}

/// The reason why keyturn must not be uninstalled yet, or why this is not known.
#[derive(Debug, thiserror::Error)]
pub enum UninstallError {
    /// No client could be created: no cluster is configured, or the credentials cannot be used.
    #[error("cannot connect to Kubernetes: {0}")]
    Connect(#[source] kube::Error),
    /// The ManagedSecrets cannot be listed. A missing CustomResourceDefinition is no error.
    #[error("ManagedSecrets cannot be listed: {0}")]
    List(#[source] kube::Error),
    /// keyturn's finalizer still holds ManagedSecrets; one line for each, with the reason.
    #[error(
        "{} would be left unfinished, and could not be deleted without keyturn:\n{}\nWait until none of \
         them has the finalizer {FINALIZER}, or uninstall without this check (helm uninstall --no-hooks) \
         and remove the finalizer of each by hand: kubectl patch managedsecret -n NAMESPACE NAME \
         --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'",
        if .0.len() == 1 { "a ManagedSecret".to_owned() } else { format!("{} ManagedSecrets", .0.len()) },
        .0.join("\n")
    )]
    UnderWay(Vec<String>),
}

/// Fails if keyturn's finalizer still holds a ManagedSecret, and lists each of them with the reason.
pub async fn run(args: &UninstallArgs) -> Result<(), UninstallError> {
    let client = client_config::client().await.map_err(UninstallError::Connect)?;
    let held: Vec<String> = listed(&client, args).await?.iter().filter_map(held).collect();
    if !held.is_empty() {
        return Err(UninstallError::UnderWay(held));
    }
    println!("keyturn's finalizer holds no ManagedSecret");
    Ok(())
}

/// Lists the ManagedSecrets as plain JSON, since an object that this version cannot decode may be held too.
async fn listed(client: &Client, args: &UninstallArgs) -> Result<Vec<DynamicObject>, UninstallError> {
    let resource = ApiResource::erase::<ManagedSecret>(&());
    let namespaces: Vec<&String> = args.watch_namespaces.iter().filter(|name| !name.is_empty()).collect();
    let apis: Vec<Api<DynamicObject>> = match namespaces.is_empty() {
        true => vec![Api::all_with(client.clone(), &resource)],
        false => {
            namespaces.iter().map(|name| Api::namespaced_with(client.clone(), name, &resource)).collect()
        }
    };
    let mut objects = Vec::new();
    for api in apis {
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = match api.list(&page).await {
                Ok(list) => list,
                // The definitions were deleted, and all objects with them.
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(error) => return Err(UninstallError::List(error)),
            };
            objects.extend(list.items);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(objects)
}

/// Describes why the finalizer still holds the object; `None` if keyturn's finalizer is not there.
fn held(object: &DynamicObject) -> Option<String> {
    if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return None;
    }
    let rotation = &object.data["status"]["rotation"];
    let deletes = object.data["spec"]["deletionPolicy"] == "Delete";
    let why = match (rotation["id"].as_u64(), rotation["step"].as_str()) {
        (Some(id), Some(step)) => format!("rotation {id} is in progress, at {step}"),
        _ if object.metadata.deletion_timestamp.is_some() => "its deletion is in progress".to_owned(),
        _ if deletes => {
            "its deletionPolicy is Delete, which only keyturn can carry out: set it to Retain".to_owned()
        }
        _ => "keyturn is cleaning up after a rotation".to_owned(),
    };
    Some(format!("  {}/{}: {why}", object.namespace().unwrap_or_default(), object.name_any()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(metadata: Value, spec: Value, status: Value) -> DynamicObject {
        let mut metadata = metadata;
        (metadata["name"], metadata["namespace"]) = ("token".into(), "shop".into());
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": metadata, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn what_holds_an_object_is_named() {
        let ours = || json!({"finalizers": ["other.example/x", FINALIZER]});
        let deleted = || json!({"finalizers": [FINALIZER], "deletionTimestamp": "2026-11-23T12:00:00Z"});
        let rotating = || json!({"rotation": {"id": 7, "step": "Deploy"}});
        for (metadata, spec, status, expected) in [
            (json!({}), json!({}), rotating(), None),
            (json!({"finalizers": ["other.example/x"]}), json!({}), json!({}), None),
            (ours(), json!({}), rotating(), Some("rotation 7 is in progress, at Deploy")),
            (deleted(), json!({}), rotating(), Some("rotation 7 is in progress, at Deploy")),
            (deleted(), json!({}), json!({}), Some("its deletion is in progress")),
            (ours(), json!({"deletionPolicy": "Delete"}), json!({}), Some("set it to Retain")),
            (ours(), json!({"not": ["decodable"]}), Value::Null, Some("cleaning up")),
        ] {
            let said = held(&object(metadata, spec, status));
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            let whole = said.as_deref().unwrap_or_default();
            assert!(expected.is_none_or(|part| whole.starts_with("  shop/token: ") && whole.contains(part)));
        }
    }

    #[test]
    fn the_refusal_says_how_to_go_on() {
        let said = UninstallError::UnderWay(vec!["  shop/token: x".into()]).to_string();
        for part in
            ["a ManagedSecret would be", "shop/token", "--no-hooks", r#"{"metadata":{"finalizers":null}}"#]
        {
            assert!(said.contains(part), "{said}");
        }
    }
}
