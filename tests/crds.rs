//! Tests that the definitions in `crds/` and in the chart are those of the Rust types, and say what a user
//! needs.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};

/// Folders that hold one file per definition.
const FOLDERS: [&str; 2] = ["crds", "charts/keyturn/files/crds"];
const REGENERATE: &str = "UPDATE=1 cargo test --test crds";

fn files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = format!("# Made from crates/api by `{REGENERATE}`. Do not edit.\n");
    let crds = keyturn::api::crds();
    let file = |folder: &str, crd: &CustomResourceDefinition| {
        let name = format!("{}.yaml", crd.metadata.name.as_deref().unwrap());
        (root.join(folder).join(name), format!("{header}{}", serde_saphyr::to_string(crd).unwrap()))
    };
    FOLDERS.iter().flat_map(|folder| crds.iter().map(move |crd| file(folder, crd))).collect()
}

#[test]
fn the_files_are_those_of_the_types() {
    for (path, text) in files() {
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        } else {
            let stored = fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == text, "{} is not current: run `{REGENERATE}`", path.display());
        }
    }
    for folder in FOLDERS {
        let stored = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap().count();
        assert_eq!(stored, keyturn::api::crds().len(), "{folder} holds a file that no type makes");
    }
}

#[test]
fn all_definitions_come_as_one_yaml_stream() {
    let stream = keyturn::api::render().unwrap();
    let crds: Vec<CustomResourceDefinition> = serde_saphyr::from_multiple(&stream).unwrap();
    let names: Vec<String> = crds.into_iter().map(|crd| crd.metadata.name.unwrap()).collect();
    assert_eq!(
        names,
        [
            "dockerhosts.keyturn.dev",
            "managedsecrets.keyturn.dev",
            "rotationgrants.keyturn.dev",
            "secretincidents.keyturn.dev"
        ]
    );
}

/// Calls `visit` for a schema and every schema in it.
fn walk(path: &str, schema: &JSONSchemaProps, visit: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    visit(path, schema);
    for (name, property) in schema.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        walk(&format!("{path}[]"), items, visit);
    }
}

fn schemas(mut visit: impl FnMut(&str, &JSONSchemaProps)) {
    for crd in keyturn::api::crds() {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        walk(&crd.spec.names.kind, schema, &mut visit);
    }
}

#[test]
fn every_field_and_every_kind_has_a_description_of_its_own() {
    schemas(|path, schema| {
        let text = schema.description.as_deref().unwrap_or_default();
        let item = path.ends_with("[]");
        assert!(item || text.len() > 3, "{path} has no description");
        assert!(!text.contains("Auto-generated"), "{path} has the derive's own description");
        assert!(!text.contains("wrapper around time"), "{path} has the description of its type");
    });
}

#[test]
fn every_list_and_string_has_a_bound() {
    schemas(|path, schema| {
        let bounded_elsewhere = schema.enum_.is_some() || schema.format.is_some();
        if !path.contains('.') || bounded_elsewhere {
            return;
        }
        match schema.type_.as_deref() {
            Some("string") if !path.ends_with(".apiVersion") && !path.ends_with(".kind") => {
                assert!(schema.max_length.is_some(), "{path} is an unbounded string");
            }
            Some("array") => assert!(schema.max_items.is_some(), "{path} is an unbounded list"),
            _ => {}
        }
    });
}

#[test]
fn lists_say_how_they_merge() {
    schemas(|path, schema| {
        if schema.type_.as_deref() == Some("array") {
            assert!(schema.x_kubernetes_list_type.is_some(), "{path} does not say how it merges");
        }
    });
}

#[test]
fn items_of_lists_have_no_defaults() {
    schemas(|path, schema| assert!(!path.contains("[]") || schema.default.is_none(), "{path} has a default"));
}

#[test]
fn numbers_have_formats_that_api_servers_know() {
    schemas(|path, schema| {
        if let Some(format) = &schema.format {
            let known = ["int32", "int64", "date-time"].contains(&format.as_str());
            assert!(known, "{path} has format {format}, of which API servers warn");
        }
    });
}

#[test]
fn a_status_that_nobody_has_written_says_so() {
    for crd in keyturn::api::crds() {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        let Some(status) = schema.properties.as_ref().unwrap().get("status") else { continue };
        let default = status.default.as_ref().unwrap();
        assert_eq!(default.0, serde_json::json!({"observedGeneration": -1}), "{}", crd.spec.names.kind);
    }
}

#[test]
fn every_rule_has_a_message() {
    schemas(|path, schema| {
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            assert!(rule.message.is_some(), "{path}: {}", rule.rule);
        }
    });
}
