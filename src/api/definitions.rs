//! The CustomResourceDefinitions, made from the types of this module.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::{DockerHost, ManagedSecret, RotationGrant};

/// Every definition that keyturn brings, in the order of their names.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [DockerHost::crd(), ManagedSecret::crd(), RotationGrant::crd()].map(finish).into()
}

/// Every definition as one YAML stream, as `kubectl apply -f -` takes it.
///
/// # Errors
/// Where a definition cannot be written as YAML: a bug in its type.
pub fn render() -> Result<String, serde_yaml_ng::Error> {
    crds().iter().map(|crd| Ok(format!("---\n{}", serde_yaml_ng::to_string(crd)?))).collect()
}

/// What the derive cannot say.
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        forbid_null(schema);
        let Some(status) = schema.properties.as_mut().and_then(|p| p.get_mut("status")) else { continue };
        status.description = Some("What was observed and done. Written by the controller only.".into());
        // kstatus takes an object whose status has no observedGeneration for current: before the controller has seen
        // it, `flux` and `kubectl wait`-like tools would go on.
        status.default = Some(JSON(json!({"observedGeneration": -1})));
    }
    crd
}

/// An optional field is left out rather than null: rules that ask `has(self.field)` would take null for a value.
fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        forbid_null(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => forbid_null(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(forbid_null),
        None => {}
    }
}
