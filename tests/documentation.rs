//! Tests that the pages in `docs/` match the repository: links have a target, and what they name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

mod repository;

use repository::{files, read, root};

fn pages() -> Vec<PathBuf> {
    let mut pages = files(&root().join("docs"), &[".md"]);
    pages.extend(files(&root().join("examples"), &[".md"]));
    pages.push(root().join("charts/keyturn/README.md"));
    pages.extend(
        fs::read_dir(root())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md")),
    );
    pages
}

/// Returns the anchors of a page's headings: lower case, spaces to hyphens, punctuation dropped.
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

/// The site of the pages shows those that it lists, and no others: `make book`.
#[test]
fn every_page_is_in_the_summary_once() {
    let docs = root().join("docs");
    let summary = docs.join("SUMMARY.md");
    let text = read(&summary);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let mut listed: Vec<PathBuf> = targets.map(|target| docs.join(target)).collect();
    listed.sort();
    let pages: Vec<PathBuf> = files(&docs, &[".md"]).into_iter().filter(|page| *page != summary).collect();
    assert_eq!(listed, pages, "docs/SUMMARY.md lists each page of docs/ once, and nothing else");
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

/// Returns the lines of the pages that a person types, with continued lines joined, and those that the chart prints
/// after an installation.
fn commands() -> Vec<(PathBuf, String)> {
    let mut pages = pages();
    pages.push(root().join("charts/keyturn/templates/NOTES.txt"));
    let mut commands = Vec::new();
    for page in pages {
        let text = read(&page).replace("\\\n", " ");
        commands.extend(text.lines().map(|line| (page.clone(), line.trim().to_owned())));
    }
    commands
}

/// Returns the argument of the first of these options of a command.
fn option<'a>(command: &'a str, names: &[&str]) -> Option<&'a str> {
    let mut words = command.split([' ', '=']);
    words.by_ref().find(|word| names.contains(word))?;
    words.next()
}

#[test]
fn every_page_installs_into_the_same_namespace() {
    let mut checked = 0;
    for (page, command) in commands() {
        let helm =
            ["install", "upgrade", "test"].iter().any(|verb| command.starts_with(&format!("helm {verb} ")));
        let namespace = option(&command, &["-n", "--namespace"]).filter(|_| helm);
        // The chart's notes print the release's own namespace.
        if let Some(namespace) = namespace.filter(|namespace| *namespace != "{{") {
            assert_eq!(namespace, "keyturn-system", "{}: {command}", page.display());
            checked += 1;
        }
    }
    assert!(checked >= 4, "only {checked} commands of helm were found");
}

#[test]
fn dates_are_asked_for_in_a_way_that_every_date_knows() {
    let commands = commands();
    let dates: Vec<_> = commands.iter().filter(|(_, command)| command.contains("$(date ")).collect();
    assert!(dates.len() >= 4, "only {} dates were found", dates.len());
    for (page, command) in dates {
        // `-I` is a GNU option; the date of macOS has another one.
        assert!(command.contains("$(date -u +%FT%TZ)"), "{}: {command}", page.display());
    }
}

/// A rotation begins up to one grace after the previous publication, and ends one grace after its own.
#[test]
fn waits_for_a_rotation_are_longer_than_the_shipped_grace_makes_it() {
    let grace = keyturn_reconcile::settings::Settings::new("production", "us-east-1").grace;
    let mut checked = 0;
    for (page, command) in commands() {
        if command.starts_with("kubectl wait ") && command.contains("lastRotation.request") {
            let timeout =
                option(&command, &["--timeout"]).and_then(|text| text.strip_suffix('m')?.parse().ok());
            let minutes: i64 = timeout.unwrap_or_else(|| panic!("{}: {command}", page.display()));
            assert!(minutes > 2 * grace.num_minutes(), "{}: {command}", page.display());
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} waits were found");
}

/// Returns the fenced blocks of a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("\n```{language}\n");
    page.split(fence.as_str())
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_policy_of_the_readme_is_that_of_the_docs() {
    let policy = |page: &str| -> serde_json::Value {
        let blocks = blocks(&read(&root().join(page)), "json");
        let policy = blocks.iter().find(|block| block.contains("\"Version\": \"2012-10-17\""));
        serde_json::from_str(policy.unwrap_or_else(|| panic!("{page} has no policy"))).unwrap()
    };
    assert_eq!(policy("README.md"), policy("docs/aws.md"));
}

#[test]
fn a_workflow_installs_the_program_before_it_calls_it() {
    let workflows: Vec<String> = pages()
        .iter()
        .flat_map(|page| blocks(&read(page), "yaml"))
        .filter(|block| block.starts_with("jobs:"))
        .collect();
    assert!(!workflows.is_empty(), "no page shows a workflow");
    for workflow in workflows {
        let jobs: serde_json::Value = serde_saphyr::from_str(&workflow).unwrap();
        for job in jobs["jobs"].as_object().unwrap().values() {
            let runs = job["steps"].as_array().unwrap().iter().filter_map(|step| step["run"].as_str());
            let runs: Vec<&str> = runs.collect();
            let install =
                runs.iter().position(|run| run.starts_with("cargo install ") && run.contains("keyturn"));
            let call = runs.iter().position(|run| run.starts_with("keyturn ")).unwrap();
            assert!(install.is_some_and(|install| install < call), "{workflow}");
        }
    }
}

/// Returns the rows of all tables of a page whose last column is `Test`, each as its cells.
fn rows_with_tests(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = Vec::new();
    let mut wanted = false;
    for line in page.lines() {
        if !line.starts_with('|') {
            wanted = false;
        } else if cells(line).last().is_some_and(|cell| cell == "Test") {
            wanted = true;
        } else if wanted && !line.starts_with("|-") {
            rows.push(cells(line));
        }
    }
    rows
}

#[test]
fn every_promise_of_the_threat_model_names_tests_that_are_there_or_says_that_there_is_none() {
    let sources: Vec<String> = ["src", "crates", "tests", "dev"]
        .iter()
        .flat_map(|folder| files(&root().join(folder), &[".rs"]))
        .map(|path| read(&path))
        .collect();
    let is_there = |name: &str| {
        let (test, story) = (format!("fn {name}("), format!("scenario!({name},"));
        sources.iter().any(|source| source.contains(&test) || source.contains(&story))
    };
    let rows = rows_with_tests(&read(&root().join("docs/security.md")));
    assert!(rows.len() > 20, "{} promises", rows.len());
    for row in rows {
        let told = row.last().unwrap();
        let names: Vec<&str> = told.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || told.starts_with("Accepted: "), "no test and no reason: {row:?}");
        for name in names {
            assert!(is_there(name), "{name} is no test: {row:?}");
        }
    }
}
