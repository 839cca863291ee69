//! Tests what a person reads: the columns of `kubectl get`, and `kubectl explain` for every field.

use std::collections::BTreeSet;
use std::process::Command;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::Value;

use crate::namespace::within;

fn kubectl(arguments: &[&str]) -> String {
    let output =
        Command::new("kubectl").args(arguments).output().expect("kubectl is on PATH: `dev/world env`");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the headers of `kubectl get`, which prints none if there is no object.
fn headers(kind: &str, namespace: &str, wide: bool) -> Vec<String> {
    let format = if wide { "wide" } else { "" };
    let table = kubectl(&["get", kind, "-n", namespace, "-o", format]);
    // A header may have two words; columns are three spaces apart.
    let columns = table.lines().next().unwrap_or_default().split("   ").map(str::trim);
    columns.filter(|column| !column.is_empty()).map(str::to_owned).collect()
}

const OBJECTS: &str = "
apiVersion: keyturn.dev/v1alpha1
kind: ManagedSecret
metadata: {name: token}
spec:
  suspend: true
  ssm: {parameters: [{path: /shop/prod/TOKEN}]}
  generate: {hex: {bytes: 32}}
  rotation: {period: 90d}
---
apiVersion: keyturn.dev/v1alpha1
kind: DockerHost
metadata: {name: web}
spec:
  suspend: true
  ssh:
    host: shop.example
    user: deploy
    keySecretRef: {name: key, key: id}
    knownHosts: [shop.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl]
  docker: {composeProject: shop}
  deploy: {script: \"true\"}
---
apiVersion: keyturn.dev/v1alpha1
kind: SecretIncident
metadata: {name: stolen}
spec: {managedSecretRefs: [{name: another}], reportedAt: \"2026-01-02T03:04:05Z\"}
";

#[tokio::test]
#[ignore = "needs the world"]
async fn the_columns_are_the_ones_that_a_person_looks_for() {
    within("reading", |_, namespace| async move {
        let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(file.path(), OBJECTS).unwrap();
        kubectl(&["apply", "-n", &namespace, "-f", file.path().to_str().unwrap()]);
        let secrets = ["NAME", "PATH", "PERIOD", "READY", "STATUS", "ROTATED", "NEXT", "AGE"];
        assert_eq!(headers("managedsecrets", &namespace, false), secrets);
        let more = ["VERSION", "DEPLOYED", "MESSAGE"];
        assert_eq!(headers("managedsecrets", &namespace, true), [&secrets[..], &more].concat());
        let hosts = ["NAME", "HOST", "PROJECT", "READY", "STATUS", "LAST RUN", "RESULT", "IMAGES", "AGE"];
        assert_eq!(headers("dockerhosts", &namespace, false), hosts);
        assert_eq!(headers("dockerhosts", &namespace, true), [&hosts[..], &["RUNNING", "MESSAGE"]].concat());
        let incidents = ["NAME", "STATE", "SECRETS", "UNEXPECTED", "CONTAINED", "AGE"];
        assert_eq!(headers("secretincidents", &namespace, false), incidents);
        let more = ["AUDIT", "MESSAGE"];
        assert_eq!(headers("secretincidents", &namespace, true), [&incidents[..], &more].concat());
        // Includes the short names, and all kinds together by their category.
        for name in ["msec", "dhost", "sinc", "keyturn"] {
            assert!(headers(name, &namespace, false).contains(&"AGE".to_owned()), "{name}");
        }
    })
    .await;
}

/// Checks what the API server serves for a field, which `kubectl explain` reads: every field below it has a
/// description.
fn described(place: &str, schema: &JSONSchemaProps, served: &Value, names: &mut BTreeSet<String>) {
    let (schema, served) = match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => (items.as_ref(), &served["items"]),
        _ => (schema, served),
    };
    for (name, field) in schema.properties.iter().flatten() {
        let (place, served) = (format!("{place}.{name}"), &served["properties"][name]);
        let description = served["description"].as_str().unwrap_or_default();
        assert!(!description.is_empty(), "{place} has no description: {served}");
        described(&place, field, served, names);
        names.insert(name.clone());
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn every_field_is_explained() {
    let request = http::Request::get("/openapi/v3/apis/keyturn.dev/v1alpha1").body(Vec::new()).unwrap();
    let document: Value = crate::client().await.request(request).await.unwrap();
    for crd in keyturn::api::crds() {
        let (kind, name) = (&crd.spec.names.kind, crd.spec.names.singular.as_ref().unwrap());
        let served = &document["components"]["schemas"][format!("dev.keyturn.v1alpha1.{kind}")];
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let mut names = BTreeSet::new();
        for (part, schema) in schema.properties.iter().flatten().filter(|(part, _)| *part != "metadata") {
            described(&format!("{name}.{part}"), schema, &served["properties"][part], &mut names);
        }
        assert!(names.len() > 2, "{name}: {names:?}");
        let tree = kubectl(&["explain", name, "--recursive"]);
        for field in &names {
            assert!(
                tree.contains(&format!("  {field}\t")),
                "kubectl explain {name} --recursive lacks {field}"
            );
        }
        let text = kubectl(&["explain", &format!("{name}.spec")]);
        for answer in [&tree, &text] {
            assert!(answer.contains("DESCRIPTION:"), "{answer}");
            assert!(!answer.contains("<no description>") && !answer.contains("<empty>"), "{answer}");
        }
    }
}
