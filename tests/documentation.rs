//! The pages in `docs/` keep up with the code: links lead somewhere, and every reason is explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a folder whose name ends so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), ".md");
    pages.extend(files(&root().join("examples"), ".md"));
    pages.extend(
        fs::read_dir(root())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md")),
    );
    pages
}

/// The anchors that headings of a page get: lower case, spaces to hyphens, punctuation dropped.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut checked = 0;
    for page in pages() {
        let text = read(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(' ') {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(file.exists(), "{} links to {target}, which does not exist", page.display());
            let known = anchor.is_empty() || anchors(&read(&file)).contains(anchor);
            assert!(known, "{} links to {target}, and there is no such heading", page.display());
            checked += 1;
        }
    }
    assert!(checked > 10, "only {checked} links were found: the pages are not read rightly");
}

/// Words in quotes that stand right behind `before`.
fn quoted_behind(text: &str, before: &str) -> Vec<String> {
    let behind = text.split(before).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
    behind.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// The body of every function of this name.
fn bodies<'a>(text: &'a str, function: &str) -> Vec<&'a str> {
    let start = format!("fn {function}(");
    text.split(start.as_str()).skip(1).map(|rest| rest.split("\n    }\n").next().unwrap_or(rest)).collect()
}

/// Reasons of conditions and Events as the sources spell them: what `reason()` functions return, what is handed to the
/// functions that set them, how a run ends.
fn reasons() -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for path in files(&root().join("src"), ".rs") {
        let text = read(&path);
        if path.to_string_lossy().ends_with("tests.rs") {
            continue;
        }
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for before in ["Hold::new(", "permanent(", "not_ready(", "well(", "reason: ", "normal(", "warning("] {
            reasons.extend(quoted_behind(text, before));
        }
        for body in bodies(text, "reason") {
            reasons.extend(quoted_behind(body, "=> "));
        }
    }
    let report = read(&root().join("src/deploy/report.rs"));
    let outcomes =
        report.split("pub enum Outcome {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
    let names = outcomes.lines().map(|line| line.trim().trim_end_matches(','));
    let variants = names.filter(|name| !name.is_empty() && name.chars().all(char::is_alphanumeric));
    reasons.extend(variants.filter(|name| !["Running", "Succeeded"].contains(name)).map(str::to_owned));
    reasons
}

#[test]
fn every_reason_is_explained() {
    let page = read(&root().join("docs/troubleshooting.md"));
    let reasons = reasons();
    for known in [
        "SSMDenied",
        "OwnedByOther",
        "BackingOff",
        "HostKeyRefused",
        "NotGranted",
        "RotationStarted",
        "NothingToRun",
    ] {
        assert!(reasons.contains(known), "{known} is not found in the sources: they are not read rightly");
    }
    let unexplained: Vec<&String> =
        reasons.iter().filter(|reason| !page.contains(&format!("`{reason}`"))).collect();
    assert!(unexplained.is_empty(), "docs/troubleshooting.md does not explain {unexplained:?}");
}

#[test]
fn alerts_lead_to_a_heading() {
    let rules = read(&root().join("charts/keyturn/templates/prometheusrule.yaml"));
    let known = anchors(&read(&root().join("docs/troubleshooting.md")));
    let wanted: Vec<&str> = rules.split("\"%s#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(!wanted.is_empty(), "no alert names a runbook");
    for anchor in wanted {
        assert!(known.contains(anchor), "docs/troubleshooting.md has no heading for the alerts' #{anchor}");
    }
}
