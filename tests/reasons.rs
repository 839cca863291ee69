//! Tests that docs/troubleshooting.md explains every reason that users may see, and no other reason, and that its index
//! is generated from the enums.

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
/// The heading of the index. Everything after it is generated.
const INDEX: &str = "\n## Index\n";
/// The heading of the table of Events.
const EVENTS: &str = "Events";

#[test]
fn the_index_is_that_of_the_enums() {
    let (path, page) = (path(), read());
    let (written, index) = page.split_once(INDEX).expect("the page has an index");
    let current = index_of(written);
    if std::env::var_os("UPDATE").is_some() {
        // The other test may read the page at this moment.
        let whole = path.with_extension("new");
        fs::write(&whole, format!("{written}{INDEX}{current}")).unwrap();
        fs::rename(&whole, &path).unwrap();
    } else {
        assert!(index == current, "the index of {FILE} is not current: run `{REGENERATE}`");
    }
}

#[test]
fn every_reason_is_explained_and_nothing_else_is() {
    let page = read();
    let (written, _) = page.split_once(INDEX).expect("the page has an index");
    let explained: Vec<&str> = explanations(written).map(|(name, _)| name).collect();
    assert!(explained.len() > 100, "only {explained:?} were found: the page is not read rightly");
    let known = reasons();
    let missing: Vec<&&str> = known.keys().filter(|reason| !explained.contains(reason)).collect();
    assert!(missing.is_empty(), "{FILE} does not explain {missing:?}");
    let unknown: Vec<&&str> = explained.iter().filter(|name| !known.contains_key(**name)).collect();
    assert!(unknown.is_empty(), "{FILE} explains {unknown:?}, which nothing says");
}

#[test]
fn an_explanation_begins_an_entry_of_a_list_or_a_row_of_the_events() {
    let page = "## A\n- **`One`**, **`Two`**: see `Three`.\n- **`Four`** (of `Five`): six.\n- `Six`: no.\n\
                ### Events\n| `Seven`; `Eight` | `Nine` |\n## B\n| `Ten` | |\n- **`One`, `Ten`**: two.";
    let found: Vec<_> = explanations(page).collect();
    let expected = [
        ("One", "A"),
        ("Two", "A"),
        ("Four", "A"),
        ("Seven", EVENTS),
        ("Eight", EVENTS),
        ("One", "B"),
        ("Ten", "B"),
    ];
    assert_eq!(found, expected);
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

/// Returns each reason that the page explains, with the heading above it. An explanation is a list entry that begins
/// with the reason in bold, or a row of the table of Events with the reason in the first column.
fn explanations(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let names = |heading: &str, line: &'_ str| -> Option<usize> {
        if heading == EVENTS && line.starts_with('|') {
            return line[1..].find('|').map(|end| 1 + end);
        }
        // The bold names are followed by a colon, or by a remark in parentheses.
        let ends = [line.find("**: "), line.find("** (")];
        line.starts_with("- **").then(|| ends.into_iter().flatten().min())?
    };
    lines_with_headings(page).flat_map(move |(heading, line)| {
        let names = names(heading, line).map_or_else(Vec::new, |end| quoted(&line[..end]));
        names.into_iter().map(move |name| (name, heading))
    })
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
    let mut index = format!("\n<!-- Made from crates/api by `{REGENERATE}`. Do not edit. -->\n");
    index.push_str("\n### All reasons\n\n| Reason | Meaning | More |\n|---|---|---|\n");
    for (name, meanings) in reasons() {
        let mut headings: Vec<&str> = Vec::new();
        for (_, heading) in explanations(page).filter(|(explained, _)| *explained == name) {
            if !headings.contains(&heading) {
                headings.push(heading);
            }
        }
        let more: Vec<String> =
            headings.iter().map(|heading| format!("[{heading}](#{})", anchor(heading))).collect();
        writeln!(index, "| `{name}` | {} | {} |", meanings.join(" Or: "), more.join(", ")).unwrap();
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
