//! Tests that `docs/fields.md` is generated from the definitions, so that it says what the API server checks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};

const FILE: &str = "docs/fields.md";
const REGENERATE: &str = "UPDATE=1 cargo test --test field_reference";
/// The message of the rule of durations, which have a type name of their own on this page.
const DURATION: &str = "must be one number of at most four digits";
/// The kinds in the order in which a user needs them.
const KINDS: [&str; 4] = ["ManagedSecret", "DockerHost", "SecretIncident", "RotationGrant"];

#[test]
fn the_page_is_that_of_the_definitions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, page).unwrap();
    } else {
        let stored = fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == page, "{FILE} is not current: run `{REGENERATE}`");
    }
}

#[test]
fn every_definition_has_a_chapter() {
    let mut kinds: Vec<String> = keyturn::api::crds().into_iter().map(|crd| crd.spec.names.kind).collect();
    kinds.sort();
    let mut chapters = KINDS.to_vec();
    chapters.sort_unstable();
    assert_eq!(kinds, chapters);
}

fn page() -> String {
    let crds = keyturn::api::crds();
    let mut page = format!(
        "<!-- Made from crates/api by `{REGENERATE}`. Do not edit. -->\n\
         # Fields\n\n\
         Every field of keyturn's objects, as the API server checks them. `kubectl explain managedsecret.spec` says \
         the same on a cluster. A **bold** field is there wherever the object that holds it is. Durations are \
         one number and one unit: `15m`, `2h`, `90d`.\n"
    );
    for kind in KINDS {
        let crd = crds.iter().find(|crd| crd.spec.names.kind == kind).unwrap();
        chapter(&mut page, crd);
    }
    page
}

fn chapter(page: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    let version = &crd.spec.versions[0];
    let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    write!(page, "\n## {}\n\n{}\n\n", names.kind, description(schema)).unwrap();
    let scope = if crd.spec.scope == "Namespaced" { "namespaced" } else { "of the whole cluster" };
    let short = names.short_names.iter().flatten().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    writeln!(page, "`apiVersion: {}/{}`, {scope}, short name {short}.", crd.spec.group, version.name)
        .unwrap();
    let rules_of_kind = rules(schema);
    if !rules_of_kind.is_empty() {
        page.push('\n');
    }
    rules_of_kind.iter().for_each(|rule| writeln!(page, "- {rule}").unwrap());
    for part in ["spec", "status"] {
        let Some(schema) = schema.properties.as_ref().and_then(|p| p.get(part)) else { continue };
        write!(page, "\n### {} {part}\n\n", names.kind).unwrap();
        let rules = rules(schema);
        rules.iter().for_each(|rule| writeln!(page, "- {rule}").unwrap());
        if !rules.is_empty() {
            page.push('\n');
        }
        page.push_str("| Field | Type | What it is |\n|---|---|---|\n");
        rows(page, "", schema, &mut Vec::new());
    }
}

/// Adds a row for each field, and the fields of an object after it, under the path as a user would write it.
/// An object that was printed before (`seen` has the path and fields of those) is referred to.
fn rows<'a>(
    page: &mut String,
    prefix: &str,
    schema: &'a JSONSchemaProps,
    seen: &mut Vec<(String, &'a JSONSchemaProps)>,
) {
    let required = schema.required.clone().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{prefix}{name}");
        let shown = if required.contains(name) { format!("**`{path}`**") } else { format!("`{path}`") };
        let mut text = description(field);
        if let Some(items) = items(field) {
            extend(&mut text, rules(items));
        }
        extend(&mut text, rules(field));
        let (inner, inside) = match items(field) {
            Some(items) => (format!("{path}[]"), items),
            None => (path, field),
        };
        let before = seen.iter().find(|(_, other)| other.properties == inside.properties);
        let conditions = name == "conditions";
        if conditions {
            text += " See [troubleshooting](troubleshooting.md).";
        } else if let Some((other, _)) = before {
            write!(text, " Its fields are those of `{other}`.").unwrap();
        }
        writeln!(page, "| {shown} | {} | {} |", kind(field), text.replace('|', "\\|")).unwrap();
        if !conditions && before.is_none() && inside.properties.is_some() {
            seen.push((inner.clone(), inside));
            rows(page, &format!("{inner}."), inside, seen);
        }
    }
}

fn items(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        _ => None,
    }
}

fn extend(text: &mut String, sentences: Vec<String>) {
    for sentence in sentences {
        write!(text, " {sentence}").unwrap();
    }
}

/// Returns the description on one line.
fn description(schema: &JSONSchemaProps) -> String {
    schema.description.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the messages of rules as sentences.
fn rules(schema: &JSONSchemaProps) -> Vec<String> {
    let messages =
        schema.x_kubernetes_validations.iter().flatten().filter_map(|rule| rule.message.as_deref());
    messages
        // This message is the same for every duration, so the page says it once at the top.
        .filter(|message| !message.starts_with(DURATION))
        .map(|message| {
            let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut letters = message.chars();
            let names_a_field = message.split(' ').next().is_some_and(|word| word.contains(['.', '[']));
            let first = match letters.next() {
                Some(letter) if !names_a_field => letter.to_uppercase().to_string(),
                letter => letter.map(String::from).unwrap_or_default(),
            };
            let end = if message.ends_with('.') { "" } else { "." };
            format!("{first}{}{end}", letters.as_str())
        })
        .collect()
}

/// Returns the type with its limits.
fn kind(schema: &JSONSchemaProps) -> String {
    let values = |schema: &JSONSchemaProps| {
        let values = schema.enum_.iter().flatten().map(|v| format!("`{}`", v.0.as_str().unwrap_or_default()));
        values.collect::<Vec<_>>().join(" or ")
    };
    let bounds = match (schema.minimum, schema.maximum) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) => format!(", at least {least}"),
        _ => String::new(),
    };
    let default = match schema.default.as_ref().map(|default| &default.0) {
        Some(default) if !default.is_object() => {
            format!(", default `{}`", default.as_str().map_or_else(|| default.to_string(), str::to_owned))
        }
        _ => String::new(),
    };
    let is_duration = schema
        .x_kubernetes_validations
        .iter()
        .flatten()
        .any(|rule| rule.message.as_deref().is_some_and(|message| message.starts_with(DURATION)));
    let name = match (schema.type_.as_deref(), items(schema)) {
        _ if schema.enum_.is_some() => values(schema),
        _ if schema.format.as_deref() == Some("date-time") => "time".to_owned(),
        _ if is_duration => "duration".to_owned(),
        (Some("array"), Some(items)) => {
            let most = schema.max_items.map(|most| format!("at most {most} ")).unwrap_or_default();
            format!("list of {most}{}", kind(items).replace("object", "objects").replace("string", "strings"))
        }
        (Some("string"), _) => match schema.max_length {
            Some(most) if most < 32768 => format!("string of at most {most} characters"),
            _ => "string".to_owned(),
        },
        (other, _) => other.unwrap_or("any").to_owned(),
    };
    format!("{name}{bounds}{default}")
}
