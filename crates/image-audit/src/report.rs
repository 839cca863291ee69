//! Writes the result of an audit as text, JSON and SARIF. Reports cannot leak a secret, since findings contain no
//! values.

use std::fmt::Write;

use serde_json::{Value, json};

use super::image::Image;
use super::layers::Looked;
use super::rule::Rule;
use super::{Audit, Finding, Place};

/// An image and its findings.
pub struct Audited {
    /// The name in the report.
    pub name: String,
    /// The audited part of the image.
    pub image: Image,
    /// The findings, and the allowed findings.
    pub audit: Audit,
    /// The extent of the search, if its layers were searched.
    pub looked: Option<Looked>,
}

impl Audited {
    fn is_clean(&self) -> bool {
        self.audit.findings.is_empty() && self.is_complete()
    }

    fn is_complete(&self) -> bool {
        self.looked.as_ref().is_none_or(|looked| looked.problems.is_empty())
    }
}

/// Formats the result for people: for each image one line per finding, and a summary line.
pub fn text(audited: &[Audited]) -> String {
    audited.iter().map(text_of).collect()
}

fn text_of(audited: &Audited) -> String {
    let Audited { name: image, image: inspected, audit, looked } = audited;
    let mut text = String::new();
    for finding in &audit.findings {
        let place = finding.to_string();
        let what = finding.rule.description();
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{image}: {place}: {what} [{} {}]{}",
            finding.rule.id(),
            finding.fingerprint,
            also(finding)
        );
    }
    let _ = match audit.findings.len() {
        0 => write!(text, "{image}: clean"),
        1 => write!(text, "{image}: 1 finding"),
        more => write!(text, "{image}: {more} findings"),
    };
    if !audit.allowed.is_empty() {
        let _ = write!(text, ", {} allowed", audit.allowed.len());
    }
    if inspected.unrecorded_layers > 0 {
        let _ = write!(text, "; layers without a recorded command: {}", inspected.unrecorded_layers);
    }
    text.push('\n');
    if let Some(looked) = looked {
        let Looked { layers, files, bytes, .. } = looked;
        let _ =
            writeln!(text, "{image}: looked into {files} files of {layers} layers, {} MB", bytes / 1_000_000);
        for missed in not_looked_at(looked) {
            let _ = writeln!(text, "{image}: not looked at: {missed}");
        }
    }
    text
}

/// Describes for people which parts of the layers were not searched.
pub fn not_looked_at(looked: &Looked) -> Vec<String> {
    let mut missed = looked.problems.clone();
    if looked.cut > 0 {
        missed.push(format!("the ends of {} large files", looked.cut));
    }
    if looked.examples > 0 {
        missed.push(format!("{} files of documentation and tests of packages", looked.examples));
    }
    if looked.left_out > 0 {
        missed.push(format!("{} further findings in files are not listed", looked.left_out));
    }
    missed
}

fn also(finding: &Finding) -> String {
    let layers: Vec<String> = finding.layers.iter().map(ToString::to_string).collect();
    match (&finding.place, layers.len()) {
        (_, 0) | (Place::History(_), 1) => String::new(),
        (Place::File(_), 1) => format!(", in layer {}", layers[0]),
        (_, 1) => format!(", set in layer {}", layers[0]),
        _ => format!(", in layers {}", layers.join(", ")),
    }
}

/// Formats the result for programs: one object; for an archive with several images, an object with a list of such
/// objects.
pub fn json(audited: &[Audited]) -> Value {
    match audited {
        [one] => json_of(one),
        several => json!({
            "clean": several.iter().all(Audited::is_clean),
            "images": several.iter().map(json_of).collect::<Vec<_>>(),
        }),
    }
}

fn json_of(audited: &Audited) -> Value {
    let Audited { name, image, audit, looked } = audited;
    let listed = |findings: &[Finding]| findings.iter().map(finding_json).collect::<Vec<_>>();
    json!({
        "image": name,
        "digest": image.id,
        "clean": audited.is_clean(),
        "findings": listed(&audit.findings),
        "allowed": listed(&audit.allowed),
        "layersWithoutCommand": image.unrecorded_layers,
        "files": looked.as_ref().map(|looked| json!({
            "layers": looked.layers,
            "files": looked.files,
            "bytes": looked.bytes,
            "examples": looked.examples,
            "cut": looked.cut,
            "findingsLeftOut": looked.left_out,
            "problems": looked.problems,
        })),
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "place": finding.place.kind(),
        "path": match &finding.place {
            Place::File(path) => Some(path),
            _ => None,
        },
        "name": finding.name,
        "layers": finding.layers,
        "rule": finding.rule.id(),
        "message": finding.rule.description(),
        "fingerprint": finding.fingerprint,
    })
}

/// Formats the result for code scanning: SARIF 2.1.0 with one run for any number of images, since code scanning accepts
/// one run per tool. Allowed findings are included as suppressed.
pub fn sarif(audited: &[Audited]) -> Value {
    let rules: Vec<Value> = Rule::ALL
        .iter()
        .map(|rule| json!({"id": rule.id(), "shortDescription": {"text": rule.description()}}))
        .collect();
    let results: Vec<Value> = audited.iter().flat_map(results).collect();
    let notifications: Vec<Value> = audited.iter().flat_map(notifications).collect();
    let artifact =
        |one: &Audited| json!({"location": {"uri": uri(&one.name)}, "description": {"text": one.image.id}});
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "keyturn",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "invocations": [{
                "executionSuccessful": audited.iter().all(Audited::is_complete),
                "toolExecutionNotifications": notifications,
            }],
            "artifacts": audited.iter().map(artifact).collect::<Vec<_>>(),
            "results": results,
        }],
    })
}

fn results(audited: &Audited) -> Vec<Value> {
    let Audited { name, audit, .. } = audited;
    let all = audit.findings.iter().map(|f| (f, false)).chain(audit.allowed.iter().map(|f| (f, true)));
    let result = |(finding, allowed): (&Finding, bool)| {
        json!({
            "ruleId": finding.rule.id(),
            "level": "error",
            "message": {"text": format!("{name}: {finding}: {}", finding.rule.description())},
            "locations": [{
                "physicalLocation": {"artifactLocation": {"uri": uri(name)}},
                "logicalLocations": [{"fullyQualifiedName": finding.to_string(), "kind": "member"}],
            }],
            "partialFingerprints": {"keyturnImageFinding/v1": finding.fingerprint},
            "suppressions": if allowed { json!([{"kind": "external"}]) } else { json!([]) },
        })
    };
    all.map(result).collect()
}

fn notifications(audited: &Audited) -> Vec<Value> {
    let name = &audited.name;
    let missed = audited.looked.as_ref().map(not_looked_at).unwrap_or_default().into_iter();
    let note =
        |missed| json!({"level": "note", "message": {"text": format!("{name}: not looked at: {missed}")}});
    missed.map(note).collect()
}

/// Returns the name as a relative reference: otherwise the part of `name:tag` before the colon would be taken for the
/// scheme of a URL.
fn uri(image: &str) -> String {
    image
        .bytes()
        .map(|byte| match byte {
            byte if byte.is_ascii_alphanumeric() || b"-_./".contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
