//! What a person reads: the columns of `kubectl get`, and `kubectl explain` for every field.

use std::process::Command;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};

use crate::namespace::within;

fn kubectl(arguments: &[&str]) -> String {
    let output =
        Command::new("kubectl").args(arguments).output().expect("kubectl is on PATH: `dev/world env`");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The headers of `kubectl get`, which shows none where there is no object.
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
        // The short names, and all kinds at once by their category.
        for name in ["msec", "dhost", "sinc", "keyturn"] {
            assert!(headers(name, &namespace, false).contains(&"AGE".to_owned()), "{name}");
        }
    })
    .await;
}

/// A field that has fields of its own, as `kubectl explain` names it, and all below it.
fn objects(place: &str, schema: &JSONSchemaProps, found: &mut Vec<(String, Vec<String>)>) {
    let schema = match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => items,
        _ => schema,
    };
    let Some(fields) = &schema.properties else { return };
    found.push((place.to_owned(), fields.keys().cloned().collect()));
    for (name, field) in fields {
        objects(&format!("{place}.{name}"), field, found);
    }
}

#[tokio::test]
#[ignore = "needs the world"]
async fn every_field_is_explained() {
    let _ = crate::client().await;
    for crd in keyturn::api::crds() {
        let name = crd.spec.names.singular.clone().unwrap();
        let tree = kubectl(&["explain", &name, "--recursive"]);
        assert!(tree.contains("DESCRIPTION:") && !tree.contains("<empty>"), "{name}: {tree}");
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let mut found = Vec::new();
        for (part, schema) in schema.properties.iter().flatten().filter(|(part, _)| *part != "metadata") {
            objects(&format!("{name}.{part}"), schema, &mut found);
        }
        assert!(found.len() > 2, "{name}: {found:?}");
        for (place, fields) in found {
            let text = kubectl(&["explain", &place]);
            assert!(!text.contains("<no description>") && !text.contains("<empty>"), "{place}: {text}");
            for field in fields {
                assert!(text.contains(&format!("  {field}\t")), "{place} does not explain {field}: {text}");
                assert!(tree.contains(&format!("  {field}\t")), "{name} --recursive lacks {place}.{field}");
            }
        }
    }
}
