//! Tests that docs/troubleshooting.md explains every reason that users may see, and no other, and that its index is
//! written from the enums.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use keyturn::api::Reason;
use keyturn::api::managed_secret::{RotationResult, Step, Trigger};
use keyturn::api::secret_incident::{IncidentState, SuspectState};
use keyturn::api::words::Word;

const FILE: &str = "docs/troubleshooting.md";
const REGENERATE: &str = "UPDATE=1 cargo test --test reasons";
/// The heading of the index. Everything behind it is generated.
const INDEX: &str = "\n## Index\n";

#[test]
fn the_index_is_that_of_the_enums() {
    let (path, page) = (path(), read());
    let (written, index) = page.split_once(INDEX).expect("the page has an index");
    let current = index_of(written);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, format!("{written}{INDEX}{current}")).unwrap();
    } else {
        assert!(index == current, "the index of {FILE} is not current: run `{REGENERATE}`");
    }
}

#[test]
fn every_reason_is_explained_and_nothing_else_is() {
    let page = read();
    let (written, _) = page.split_once(INDEX).expect("the page has an index");
    let explained = explained(written);
    let missing: Vec<&str> =
        reasons().into_keys().filter(|reason| !explained.contains_key(*reason)).collect();
    assert!(missing.is_empty(), "{FILE} does not explain {missing:?}");
    let known = reasons();
    let entries = entries(written).flat_map(|(_, entry)| entry).collect::<Vec<_>>();
    assert!(entries.len() > 100, "only {} entries were found: the page is not read rightly", entries.len());
    let unknown: Vec<&&str> = entries.iter().filter(|entry| !known.contains_key(**entry)).collect();
    assert!(unknown.is_empty(), "{FILE} explains {unknown:?}, which nothing says");
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)
}

fn read() -> String {
    fs::read_to_string(path()).unwrap()
}

/// Returns the meanings of each reason, by name.
fn reasons() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for word in Reason::all().map(Reason::word) {
        reasons.entry(word.name).or_default().push(word.meaning());
    }
    reasons
}

/// Returns the entries of the page's lists, which begin with reasons in bold, each with its nearest heading.
fn entries(page: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    lines_with_headings(page).filter_map(|(heading, line)| {
        let (names, _) = line.strip_prefix("- **")?.split_once("**: ").or_else(|| {
            // The bold part may be followed by a remark in parentheses.
            line.strip_prefix("- **")?.split_once("** (")
        })?;
        Some((heading, quoted(names)))
    })
}

/// Returns the heading under which each reason is explained: in an entry of a list, else in the rows of a table.
fn explained(page: &str) -> BTreeMap<&str, &str> {
    let rows = lines_with_headings(page).filter(|(_, line)| line.starts_with('|'));
    let mut explained = BTreeMap::new();
    for (heading, names) in entries(page).chain(rows.map(|(heading, row)| (heading, quoted(row)))) {
        for name in names {
            explained.entry(name).or_insert(heading);
        }
    }
    explained
}

fn lines_with_headings(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.lines().scan("", |heading, line| {
        if line.starts_with("##") {
            *heading = line.trim_start_matches('#').trim();
        }
        Some((*heading, line))
    })
}

/// Returns the texts in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn index_of(page: &str) -> String {
    let explained = explained(page);
    let mut index = format!("\n<!-- Made from crates/api by `{REGENERATE}`. Do not edit. -->\n");
    index.push_str("\n### All reasons\n\n| Reason | Meaning | More |\n|---|---|---|\n");
    for (name, meanings) in reasons() {
        let heading = explained.get(name).copied().unwrap_or_default();
        let meaning = meanings.join(" Or: ");
        writeln!(index, "| `{name}` | {meaning} | [{heading}](#{}) |", anchor(heading)).unwrap();
    }
    table(&mut index, "Steps of a rotation", "Step", Step::WORDS);
    table(&mut index, "Causes of a rotation", "Trigger", Trigger::WORDS);
    table(&mut index, "Ends of a rotation", "Result", RotationResult::WORDS);
    table(&mut index, "States of a SecretIncident", "State", IncidentState::WORDS);
    table(&mut index, "States of a suspected secret", "State", SuspectState::WORDS);
    index
}

fn table(index: &mut String, title: &str, column: &str, words: &[Word]) {
    write!(index, "\n### {title}\n\n| {column} | Meaning |\n|---|---|\n").unwrap();
    for word in words {
        writeln!(index, "| `{}` | {} |", word.name, word.meaning()).unwrap();
    }
}

/// Returns the anchor of a heading, as the forge makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || *c == ' ').collect::<String>().replace(' ', "-")
}
