//! Bugs that a person could write into keyturn, one at a time, with the check of the simulation that finds each.
//!
//! keyturn's sources do not contain them: `bugs.yaml` says which text is replaced by which. `dev/seeded-bugs` writes
//! all of them into a copy of the sources, each behind its name in KEYTURN_SEEDED_BUG, and runs the stories over that
//! copy until one of them fails. The result is `docs/seeded-bugs.md`.
//!
//! `tests/guards.yaml` is a list of the same kind: the guards against the attacks of `docs/security.md`, and the tests
//! that fail without each guard. `dev/guards` removes them one at a time, and writes `docs/guards.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::faults::{Fault, Plan};
use crate::harness::{Attention, Ending, run};
use crate::invariants;
use crate::pairs::root;
use crate::scenarios::Scenario;

/// The variable that names the bug to switch on in the copy of the sources.
const BUG: &str = "KEYTURN_SEEDED_BUG";
/// The variable with the list to write into the copy, if it is not `bugs.yaml`.
const LIST: &str = "KEYTURN_SEEDED_LIST";
/// The list of guards against attacks, and the page about it.
const GUARDS: &str = "tests/guards.yaml";
const PAGE_OF_GUARDS: &str = "docs/guards.md";
/// The variable with the folder of the copy.
const TREE: &str = "KEYTURN_SEEDED_TREE";
/// The least number of bugs in the list.
const FEWEST: usize = 80;
/// The module of the copy that knows which bug is switched on.
const SWITCH: &str = "//! Written by dev/seeded-bugs.

use std::sync::LazyLock;

static BUG: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(\"KEYTURN_SEEDED_BUG\").ok());

pub fn is(name: &str) -> bool {
    BUG.as_deref() == Some(name)
}
";
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bug {
    /// The behaviour of the program with the bug, in a sentence.
    name: String,
    file: String,
    /// The text to replace: an expression, a statement, or a text that ends with the `{` of a block. It must occur once
    /// in the file; spaces and line breaks do not matter.
    from: String,
    /// The replacement. If `from` opens a block, this is inserted at the beginning of the block.
    to: String,
    /// The stories that show the bug; all are tried if this is empty.
    #[serde(default)]
    stories: Vec<String>,
    /// The check that finds the bug.
    #[serde(default)]
    invariant: String,
    /// The tests that fail with it, for a list whose bugs no story shows.
    #[serde(default)]
    tests: Vec<String>,
}

fn bugs() -> Vec<Bug> {
    serde_saphyr::from_str(include_str!("bugs.yaml")).expect("bugs.yaml is a list of bugs")
}

fn listed_in(path: &str) -> Vec<Bug> {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

impl Bug {
    /// Returns the positions of `from` in a source.
    fn places(&self, source: &str) -> Vec<Range<usize>> {
        let wanted: Vec<&str> = self.from.split_whitespace().collect();
        let Some(first) = wanted.first() else { return Vec::new() };
        let starts = source.match_indices(first).map(|(start, _)| start);
        starts.filter_map(|start| Some(start..end_of(source, start, &wanted)?)).collect()
    }

    fn opens_a_block(&self) -> bool {
        self.from.trim_end().ends_with('{')
    }

    /// Returns the condition under which the bug happens.
    fn condition(&self) -> String {
        format!("if crate::seeded::is(\"{}\")", self.name)
    }
}

/// Returns the end of the words that begin here, with any whitespace between them; `None` if the text differs.
fn end_of(source: &str, start: usize, words: &[&str]) -> Option<usize> {
    let mut at = start;
    for (number, word) in words.iter().enumerate() {
        if number > 0 {
            let space = source[at..].len() - source[at..].trim_start().len();
            if space == 0 {
                return None;
            }
            at += space;
        }
        at += source[at..].starts_with(word).then_some(word.len())?;
    }
    Some(at)
}

/// Returns a source with these bugs in it, each behind its name.
fn seeded(source: &str, bugs: &[&Bug]) -> Result<String, String> {
    let mut by_place: BTreeMap<(usize, usize), Vec<&Bug>> = BTreeMap::new();
    for bug in bugs {
        let places = bug.places(source);
        let [place] = places.as_slice() else {
            return Err(format!("{}: its text stands {} times in {}", bug.name, places.len(), bug.file));
        };
        by_place.entry((place.start, place.end)).or_default().push(bug);
    }
    let (mut text, mut done) = (String::new(), 0);
    for ((start, end), bugs) in by_place {
        if start < done {
            return Err(format!("{}: another bug changes a part of its text", bugs[0].name));
        }
        let from = &source[start..end];
        text.push_str(&source[done..start]);
        let cases: String =
            bugs.iter().map(|bug| format!("{} {{ {} }} else ", bug.condition(), bug.to)).collect();
        let switch = if bugs[0].opens_a_block() {
            let cases = bugs.iter().map(|bug| format!("{} {{ {} }} ", bug.condition(), bug.to));
            format!("{from} {}", cases.collect::<String>())
        } else if from.ends_with([';', '}']) {
            format!("{cases}{{ {from} }}")
        } else {
            format!("({cases}{{ {from} }})")
        };
        text.push_str(&switch);
        done = end;
    }
    text.push_str(&source[done..]);
    Ok(text)
}

/// Returns every file with all its bugs.
fn seeded_files(bugs: &[Bug]) -> Result<BTreeMap<&str, String>, String> {
    let mut by_file: BTreeMap<&str, Vec<&Bug>> = BTreeMap::new();
    for bug in bugs {
        by_file.entry(&bug.file).or_default().push(bug);
    }
    let mut files = BTreeMap::new();
    for (file, bugs) in by_file {
        let source = fs::read_to_string(root().join(file)).map_err(|error| format!("{file}: {error}"))?;
        files.insert(file, seeded(&source, &bugs)?);
    }
    Ok(files)
}

/// The result of a run with one bug.
struct Found {
    invariant: &'static str,
    story: &'static str,
    plan: Plan,
    problem: String,
}

fn found(scenario: &Scenario, plan: Plan, problem: String) -> Found {
    Found { invariant: invariants::check_of(&problem), story: scenario.name, plan, problem }
}

/// Judges a run without faults as `single_faults` does.
fn without_faults(scenario: &Scenario, calm: &Ending) -> Result<(), String> {
    match calm.violations.first() {
        Some(violation) => Err(violation.clone()),
        None if (scenario.ends)(&calm.summary) => Ok(()),
        None => Err(format!("{}: without a fault", invariants::SAME_END)),
    }
}

/// Returns the failing case with the fewest faults and the earliest effect, of the first story that has one.
fn search(stories: &[Scenario], faults: usize) -> Option<Found> {
    let calm = |scenario: &Scenario| run(scenario, &Plan::none(), Attention::Watches, None);
    stories.iter().find_map(|scenario| {
        let calm = calm(scenario);
        if faults == 0 {
            return without_faults(scenario, &calm)
                .err()
                .map(|problem| found(scenario, Plan::none(), problem));
        }
        let cases = calm.effects.iter().enumerate().flat_map(|(at, kind)| {
            let faults = Fault::ALL.into_iter().filter(|fault| fault.concerns(*kind));
            faults.map(move |fault| Plan::single(at, fault))
        });
        let fails = |plan: Plan| {
            let problem = run(scenario, &plan, Attention::Watches, None).check(scenario, &calm).err()?;
            Some(found(scenario, plan, problem))
        };
        cases.into_iter().find_map(fails)
    })
}

#[test]
fn bugs_can_be_seeded_and_their_table_tells_of_them() {
    let bugs = bugs();
    assert!(bugs.len() >= FEWEST, "only {} bugs", bugs.len());
    let names: BTreeSet<&str> = bugs.iter().map(|bug| bug.name.as_str()).collect();
    assert_eq!(names.len(), bugs.len(), "two bugs have one name");
    seeded_files(&bugs).unwrap_or_else(|problem| panic!("{problem}"));
    let stories = crate::all_scenarios();
    for bug in &bugs {
        let known = |name: &String| stories.iter().any(|story| story.name == name);
        assert!(bug.stories.iter().all(known), "{}: no such story", bug.name);
        assert!(invariants::NAMES.contains(&bug.invariant.as_str()), "{}: no such check", bug.name);
    }
    let page = fs::read_to_string(root().join("docs/seeded-bugs.md")).expect("docs/seeded-bugs.md is there");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let there: BTreeSet<(&str, &str)> =
        bugs.iter().map(|bug| (bug.name.as_str(), bug.invariant.as_str())).collect();
    for row in &rows {
        assert!(there.contains(&(row[0], row[2])), "{row:?}: `make seeded-bugs` writes docs/seeded-bugs.md");
    }
}

#[test]
fn guards_can_be_taken_away_and_their_page_tells_of_all() {
    let guards = listed_in(GUARDS);
    let names: BTreeSet<&str> = guards.iter().map(|guard| guard.name.as_str()).collect();
    assert_eq!(names.len(), guards.len(), "two guards have one name");
    seeded_files(&guards).unwrap_or_else(|problem| panic!("{problem}"));
    let page = fs::read_to_string(root().join(PAGE_OF_GUARDS)).expect("the page is there");
    for guard in &guards {
        assert!(!guard.tests.is_empty(), "{}: no test", guard.name);
        for test in &guard.tests {
            let row = page.lines().find(|line| line.contains(&guard.name) && line.contains(test));
            assert!(row.is_some(), "{} {test}: `make guards` writes {PAGE_OF_GUARDS}", guard.name);
        }
    }
}

#[test]
fn a_text_is_found_whatever_its_spaces_and_only_where_it_stands_once() {
    let bug = |name: &str, from: &str, to: &str| Bug {
        name: name.into(),
        file: "a.rs".into(),
        from: from.into(),
        to: to.into(),
        stories: Vec::new(),
        invariant: "I1".into(),
        tests: Vec::new(),
    };
    let (one, two) = (bug("one", "a + b", "a"), bug("two", "a + b", "b"));
    let both = seeded("x(a\n    + b)", &[&one, &two]).unwrap();
    let is = |name: &str| format!("if crate::seeded::is(\"{name}\")");
    assert_eq!(both, format!("x(({} {{ a }} else {} {{ b }} else {{ a\n    + b }}))", is("one"), is("two")));
    assert!(seeded("a + b; a + b", &[&one]).is_err());
    assert!(seeded("a+b", &[&one]).is_err());
    let block = bug("block", "fn f() {", "return;");
    assert_eq!(
        seeded("fn f() {}", &[&block]).unwrap(),
        format!("fn f() {{ {} {{ return; }} }}", is("block"))
    );
    assert!(seeded("x(a + b)", &[&one, &bug("part", "b)", "c)")]).is_err());
}

/// Writes a whole list into the copy of the sources, for `dev/seeded-bugs` and `dev/guards`.
#[test]
#[ignore = "for dev/seeded-bugs and dev/guards"]
fn all_bugs_are_written_into_a_copy() {
    let Some(tree) = std::env::var_os(TREE) else { return };
    let tree = Path::new(&tree);
    let bugs = std::env::var(LIST).map_or_else(|_| bugs(), |list| listed_in(&list));
    let files = seeded_files(&bugs).unwrap_or_else(|problem| panic!("{problem}"));
    for (file, text) in &files {
        fs::write(tree.join(file), text).unwrap();
    }
    // Each crate has its own switch: <crate>/src.
    let of_crate = |file: &&str| file.split_inclusive("src/").next().map(PathBuf::from).expect("a source");
    let sources: BTreeSet<PathBuf> = files.keys().map(of_crate).collect();
    for folder in sources.into_iter().map(|folder| tree.join(folder)) {
        fs::write(folder.join("seeded.rs"), SWITCH).unwrap();
        let library = folder.join("lib.rs");
        let before = fs::read_to_string(&library).unwrap();
        fs::write(library, before + "\npub mod seeded;\n").unwrap();
    }
}

/// Prints the check that finds the bug which is switched on, and the case, for `dev/seeded-bugs`. Fails if no check
/// finds it.
#[test]
#[ignore = "for dev/seeded-bugs"]
fn one_bug_is_found() {
    let Ok(name) = std::env::var(BUG) else { return };
    let bug = bugs().into_iter().find(|bug| bug.name == name).expect("the name of a bug");
    let shows_it = |story: &Scenario| bug.stories.is_empty() || bug.stories.iter().any(|n| n == story.name);
    let stories: Vec<Scenario> = crate::all_scenarios().into_iter().filter(shows_it).collect();
    let found = [0, 1].into_iter().find_map(|faults| search(&stories, faults));
    let Found { invariant, story, plan, problem } = found.expect("nothing notices it");
    println!("found\t{name}\t{invariant}\t{story}\t{plan}\t{}", problem.lines().next().unwrap_or_default());
    assert_eq!(invariant, bug.invariant, "another check than expected finds {name}: {problem}");
}
