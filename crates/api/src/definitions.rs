//! The CustomResourceDefinitions, made from the types of this module.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::{DockerHost, ManagedSecret, RotationGrant, SecretIncident};

/// Longest text in a status, as Kubernetes bounds the messages of its own conditions.
const MAX_STATUS_TEXT: i64 = 32768;

/// Every definition that keyturn brings, in the order of their names.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [DockerHost::crd(), ManagedSecret::crd(), RotationGrant::crd(), SecretIncident::crd()].map(finish).into()
}

/// Every definition as one YAML stream, as `kubectl apply -f -` takes it.
///
/// # Errors
/// Where a definition cannot be written as YAML: a bug in its type.
pub fn render() -> Result<String, serde_saphyr::SerializeError> {
    crds().iter().map(|crd| Ok(format!("---\n{}", serde_saphyr::to_string(crd)?))).collect()
}

/// What the derive cannot say.
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        forbid_null(schema);
        no_defaults_in_items(schema);
        join_lines(schema);
        if let Some(spec) = schema.properties.as_mut().and_then(|p| p.get_mut("spec")) {
            spec.description = Some("What must hold. Written by whoever makes the object.".into());
        }
        let Some(status) = schema.properties.as_mut().and_then(|p| p.get_mut("status")) else { continue };
        status.description = Some("What was observed and done. Written by the controller only.".into());
        // kstatus takes an object whose status has no observedGeneration for current: before the controller has seen
        // it, `flux` and `kubectl wait`-like tools would go on.
        bound_strings(status);
        status.default = Some(JSON(json!({"observedGeneration": -1})));
    }
    crd
}

/// Changes a schema and everything in it.
fn each(schema: &mut JSONSchemaProps, change: &mut dyn FnMut(&mut JSONSchemaProps)) {
    change(schema);
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        each(property, change);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => each(item, change),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(|item| each(item, change)),
        None => {}
    }
}

/// An optional field is left out rather than null: rules that ask `has(self.field)` would take null for a value.
fn forbid_null(schema: &mut JSONSchemaProps) {
    each(schema, &mut |schema| {
        schema.nullable = None;
        if let Some(values) = &mut schema.enum_ {
            values.retain(|value| !value.0.is_null());
        }
    });
}

/// Comments are broken to the width of the source; `kubectl explain` breaks lines to its own.
fn join_lines(schema: &mut JSONSchemaProps) {
    each(schema, &mut |schema| {
        let paragraphs = schema.description.iter().flat_map(|text| text.split("\n\n"));
        let joined: Vec<String> = paragraphs.map(|paragraph| paragraph.replace('\n', " ")).collect();
        schema.description = schema.description.is_some().then(|| joined.join("\n\n"));
    });
}

/// Fields that are filled in within the items of a list show as changes that nobody made to whoever applies it.
fn no_defaults_in_items(schema: &mut JSONSchemaProps) {
    each(schema, &mut |schema| {
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
            each(items, &mut |schema| schema.default = None);
        }
    });
}

/// Nothing that the controller writes may be without bound; what it writes is far shorter.
fn bound_strings(status: &mut JSONSchemaProps) {
    each(status, &mut |schema| {
        let open = schema.max_length.is_none() && schema.enum_.is_none() && schema.format.is_none();
        if open && schema.type_.as_deref() == Some("string") {
            schema.max_length = Some(MAX_STATUS_TEXT);
        }
    });
}
