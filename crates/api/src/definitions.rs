//! CustomResourceDefinitions, generated from the types of this crate.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::{DockerHost, ManagedSecret, RotationGrant, SecretIncident, source};

/// Maximum length of a text in a status, the same that Kubernetes sets for the messages of its own conditions.
const MAX_STATUS_TEXT: i64 = 32768;

/// Returns every definition of keyturn, ordered by name.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let secret = with_rules_of_sources(ManagedSecret::crd());
    [DockerHost::crd(), secret, RotationGrant::crd(), SecretIncident::crd()].map(finish).into()
}

/// Renders every definition as one YAML stream for `kubectl apply -f -`.
///
/// # Errors
/// A definition cannot be written as YAML: a bug in its type.
pub fn render() -> Result<String, serde_saphyr::SerializeError> {
    crds().iter().map(|crd| Ok(format!("---\n{}", serde_saphyr::to_string(crd)?))).collect()
}

/// Adds the rules that sources make for the whole spec, and for the texts around their values.
fn with_rules_of_sources(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let Some(spec) = schema.and_then(|schema| property(schema, "spec")) else { continue };
        add_rules(spec, source::rules().copied());
        let parameters = property(spec, "ssm").and_then(|ssm| property(ssm, "parameters"));
        let item = match parameters.and_then(|parameters| parameters.items.as_mut()) {
            Some(JSONSchemaPropsOrArray::Schema(item)) => item,
            _ => continue,
        };
        if let Some(value) = property(item, "value") {
            let contains: Vec<String> =
                source::placeholders().map(|name| format!("self.contains('{name}')")).collect();
            let others: Vec<&str> = source::placeholders().filter(|name| *name != source::VALUE).collect();
            let message = format!(
                "must contain {}, where the generated value is put, or another placeholder of its source: {}",
                source::VALUE,
                others.join(", ")
            );
            add_rules(value, [(contains.join(" || ").as_str(), message.as_str())]);
        }
    }
    crd
}

fn add_rules<'a>(schema: &mut JSONSchemaProps, rules: impl IntoIterator<Item = (&'a str, &'a str)>) {
    schema.x_kubernetes_validations.get_or_insert_default().extend(rules.into_iter().map(
        |(rule, message)| ValidationRule {
            rule: rule.to_owned(),
            message: Some(message.to_owned()),
            ..Default::default()
        },
    ));
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

/// Applies the changes to a definition that the derive macro cannot express.
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) else {
            continue;
        };
        forbid_null(schema);
        no_defaults_in_items(schema);
        join_lines(schema);
        if let Some(spec) = schema.properties.as_mut().and_then(|p| p.get_mut("spec")) {
            spec.description = Some("Desired state, written by the author of the object.".into());
        }
        let Some(status) = schema.properties.as_mut().and_then(|p| p.get_mut("status")) else { continue };
        status.description = Some("Observed state and actions, written only by the controller.".into());
        // kstatus considers an object without `status.observedGeneration` current, so `flux` and similar tools would
        // continue before the controller has seen the object.
        bound_strings(status);
        status.default = Some(JSON(json!({"observedGeneration": -1})));
    }
    crd
}

/// Applies `change` to a schema and to every schema nested in it.
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

/// Removes null from optional fields: they must be left out instead, since rules that ask `has(self.field)` would
/// accept null as a value.
fn forbid_null(schema: &mut JSONSchemaProps) {
    each(schema, &mut |schema| {
        schema.nullable = None;
        if let Some(values) = &mut schema.enum_ {
            values.retain(|value| !value.0.is_null());
        }
    });
}

/// Joins the lines of descriptions. Doc comments are wrapped to the width of the source; `kubectl explain` wraps lines
/// itself.
fn join_lines(schema: &mut JSONSchemaProps) {
    each(schema, &mut |schema| {
        let paragraphs = schema.description.iter().flat_map(|text| text.split("\n\n"));
        let joined: Vec<String> = paragraphs.map(|paragraph| paragraph.replace('\n', " ")).collect();
        schema.description = schema.description.is_some().then(|| joined.join("\n\n"));
    });
}

/// Removes defaults inside list items. Tools that apply an object would show the filled-in fields as changes that
/// nobody made.
fn no_defaults_in_items(schema: &mut JSONSchemaProps) {
    each(schema, &mut |schema| {
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
            each(items, &mut |schema| schema.default = None);
        }
    });
}

/// Bounds every string in the status. The controller writes far shorter texts.
fn bound_strings(status: &mut JSONSchemaProps) {
    each(status, &mut |schema| {
        let open = schema.max_length.is_none() && schema.enum_.is_none() && schema.format.is_none();
        if open && schema.type_.as_deref() == Some("string") {
            schema.max_length = Some(MAX_STATUS_TEXT);
        }
    });
}
