//! Tests the rules of the layout that no compiler holds: which folder may name which, what the deciding crates may not name,
//! what the files of a reconciler are called, and how long files and functions are.

use std::fs;
use std::path::Path;

mod repository;

use repository::{files, read, root};

/// Lines of a file that can be read in one sitting.
const LINES_OF_A_FILE: usize = 600;
/// Lines of a function.
const LINES_OF_A_FUNCTION: usize = 80;

/// The folders of the reconcilers, one for each kind of object.
const KINDS: [&str; 3] = ["docker_host", "managed_secret", "secret_incident"];
/// The names of the files of a kind. A kind leaves out what it has no use for.
const NAMES_IN_A_KIND: [&str; 6] = ["mod", "observe", "desired", "act", "status", "tell"];

/// A crate whose modules are stacked in floors, the lowest one first. Modules of one floor do not know each other.
struct House {
    sources: &'static str,
    floors: &'static [&'static [&'static str]],
}

const HOUSES: [House; 2] = [
    House {
        sources: "crates/reconcile/src",
        floors: &[
            &["notification", "parameter_store", "target"],
            &["settings", "source"],
            &["objects"],
            &["deploy", "ports", "telling"],
            &["deploy_jobs", "incident"],
            &["links"],
            &KINDS,
        ],
    },
    House {
        sources: "src",
        floors: &[
            &["text"],
            &["deploy", "notification", "parameter_store"],
            &["incident"],
            &["cluster"],
            &["source"],
            &["cli", "process"],
        ],
    },
];

/// What a crate may not name, although it would compile.
const UNNAMED: [(&str, &[&str]); 2] = [
    ("crates/rotation/src", &["Utc::now", "SystemTime", "Instant", "std::fs", "std::net", "std::env"]),
    (
        "crates/reconcile/src",
        &["kube::Client", "kube::Api", "Client::", "tokio::net", "TcpStream", "std::fs", "std::env"],
    ),
];

/// The folders whose code is shipped, or runs beside it in the world.
fn sources() -> Vec<String> {
    let mut sources = vec!["src".to_owned(), "dev/lib".to_owned()];
    for parent in ["crates", "dev"] {
        for entry in fs::read_dir(root().join(parent)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let folder = format!("{parent}/{name}/src");
            if root().join(&folder).is_dir() {
                sources.push(folder);
            }
        }
    }
    sources
}

fn is_of_tests(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name == "tests" || name.ends_with("_tests")
}

/// Returns the code of a file without its tests, which stand at its end.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\n").next().unwrap_or_default()
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Returns the names of the modules from the root of a crate down to this file.
fn modules(file: &Path, sources: &Path) -> Vec<String> {
    let relative = file.strip_prefix(sources).unwrap().with_extension("");
    let mut modules: Vec<String> =
        relative.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    if modules.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        modules.pop();
    }
    modules
}

/// Returns the modules at the root of the crate that this line names, by `crate::` or by `super::`.
fn named_in(line: &str, own: &[String]) -> Vec<String> {
    let identifier = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut named: Vec<String> = line.split("crate::").skip(1).map(identifier).collect();
    let mut rest = line;
    while let Some(at) = rest.find("super::") {
        let chain = &rest[at..];
        let steps = chain.split("super::").skip(1).take_while(|part| part.is_empty()).count() + 1;
        let after = &chain[(steps * "super::".len()).min(chain.len())..];
        if steps == own.len() {
            named.push(identifier(after));
        }
        rest = after;
    }
    named
}

/// Fails with everything that breaks a rule.
fn none_breaks(rule: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

#[test]
fn a_module_names_only_modules_of_lower_floors() {
    for House { sources, floors } in &HOUSES {
        let folder = root().join(sources);
        let floor_of = |module: &str| floors.iter().position(|floor| floor.contains(&module));
        let (mut seen, mut wrong) = (0, Vec::new());
        for file in files(&root().join(sources), &[".rs"]) {
            let own = modules(&file, &folder);
            let Some(module) = own.first() else { continue };
            let floor = floor_of(module);
            assert!(floor.is_some(), "{} is on no floor: name it in HOUSES", shown(&file));
            for line in without_tests(&read(&file)).lines().map(without_comment) {
                let others = named_in(line, &own).into_iter().filter(|other| other != module);
                for (other, below) in others.filter_map(|other| floor_of(&other).map(|floor| (other, floor)))
                {
                    seen += 1;
                    if Some(below) >= floor {
                        wrong.push(format!("{} names {other}: {}", shown(&file), line.trim()));
                    }
                }
            }
        }
        none_breaks("a module names only modules of lower floors", &wrong);
        assert!(seen > 20, "{sources}: only {seen} imports were found: the files are not read rightly");
    }
}

#[test]
fn what_decides_names_neither_a_clock_nor_a_connection() {
    let mut wrong = Vec::new();
    for (sources, unnamed) in UNNAMED {
        for file in files(&root().join(sources), &[".rs"]).iter().filter(|file| !is_of_tests(file)) {
            for line in without_tests(&read(file)).lines().map(without_comment) {
                let names = unnamed.iter().filter(|name| line.contains(**name));
                wrong.extend(names.map(|name| format!("{} names {name}: {}", shown(file), line.trim())));
            }
        }
    }
    none_breaks("clocks and connections come through ports", &wrong);
}

/// Returns the names of vendors, each with the wing that may say it: the folders of the controller's wings, and the parts of
/// their names.
fn vendors() -> Vec<(String, String)> {
    let wings = fs::read_dir(root().join("src/source")).unwrap().map(|entry| entry.unwrap());
    let wings = wings.filter(|entry| entry.path().is_dir());
    let wings = wings.map(|entry| entry.file_name().into_string().unwrap());
    wings
        .flat_map(|wing| wing.split('_').map(|part| (part.to_owned(), wing.clone())).collect::<Vec<_>>())
        .collect()
}

/// Where the sources are registered, and the grants that they need.
const REGISTERS: [&str; 4] = [
    "crates/api/src/source/mod.rs",
    "crates/reconcile/src/source/mod.rs",
    "src/source/mod.rs",
    "crates/api/src/rotation_grant.rs",
];

fn names_vendor(line: &str, vendor: &str) -> bool {
    let line = line.to_lowercase();
    // A short name is only meant where it is a whole word.
    let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
    if vendor.len() > 2 { line.contains(vendor) } else { words.any(|word| word == vendor) }
}

#[test]
fn a_vendor_is_named_in_its_wing_only() {
    let vendors = vendors();
    let (mut seen, mut wrong) = (0, Vec::new());
    for folder in ["crates/api/src", "crates/rotation/src", "crates/reconcile/src", "src"] {
        for file in files(&root().join(folder), &[".rs"]).iter().filter(|file| !is_of_tests(file)) {
            let path = shown(file);
            for line in without_tests(&read(file)).lines().map(without_comment) {
                for (vendor, wing) in vendors.iter().filter(|(vendor, _)| names_vendor(line, vendor)) {
                    seen += 1;
                    let is_of_wing = path.contains(&format!("/source/{wing}"));
                    if !is_of_wing && !REGISTERS.contains(&path.as_str()) {
                        wrong.push(format!("{path} names {vendor}: {}", line.trim()));
                    }
                }
            }
        }
    }
    none_breaks("a vendor is named in its wing, and where the wing is registered", &wrong);
    assert!(seen > 50, "only {seen} names were found: the files are not read rightly");
}

/// True for a file or folder that may stand directly in the folder of a kind.
fn is_named_as_in_every_kind(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default();
    is_of_tests(path) || NAMES_IN_A_KIND.iter().any(|known| name == *known)
}

#[test]
fn the_files_of_every_kind_have_the_same_six_names() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for kind in KINDS {
        for entry in fs::read_dir(root().join("crates/reconcile/src").join(kind)).unwrap() {
            let path = entry.unwrap().path();
            seen += 1;
            if !is_named_as_in_every_kind(&path) {
                wrong.push(shown(&path));
            }
        }
    }
    wrong.sort();
    let names = NAMES_IN_A_KIND.join(", ");
    let rule = format!(
        "the files of a kind are called {names}: move what has another name into the folder of the one that it is a part of, \
         as status/conditions.rs is a part of status.rs"
    );
    none_breaks(&rule, &wrong);
    assert!(seen > 12, "only {seen} files were found: the folders are not read rightly");
}

#[test]
fn a_file_can_be_read_in_one_sitting() {
    let mut wrong = Vec::new();
    for file in sources().iter().flat_map(|folder| files(&root().join(folder), &[".rs", ".sh"])) {
        let lines = read(&file).lines().count();
        if lines > LINES_OF_A_FILE && !is_of_tests(&file) {
            wrong.push(format!("{} has {lines} lines", shown(&file)));
        }
    }
    none_breaks("a file is cut where its subjects part", &wrong);
}

/// Returns the first line of each function with its number of lines. A function ends with the brace below its beginning.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let place = words.iter().position(|word| *word == "fn");
        place.is_some_and(|place| {
            let is_modifier = |word: &&str| {
                word.starts_with("pub")
                    || matches!(*word, "async" | "const" | "unsafe")
                    || word.ends_with(')')
            };
            words[..place].iter().all(is_modifier)
        })
    };
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| begins(line)) {
        let indent = line.len() - line.trim_start().len();
        let is_at = |line: &&str, end: &str| line.trim_end() == format!("{}{end}", " ".repeat(indent));
        let own = &lines[number..];
        let length = own.iter().position(|line| is_at(line, "}")).map_or(1, |end| end + 1);
        let is_declared = line.trim_end().ends_with(';') || line.trim_end().ends_with('}');
        found.push(((*line).trim().to_owned(), if is_declared { 1 } else { length }));
    }
    found
}

#[test]
fn a_function_fits_on_two_screens() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in sources().iter().flat_map(|folder| files(&root().join(folder), &[".rs"])) {
        if is_of_tests(&file) {
            continue;
        }
        for (first, lines) in functions(without_tests(&read(&file))) {
            seen += 1;
            if lines > LINES_OF_A_FUNCTION {
                wrong.push(format!("{}: {lines} lines: {first}", shown(&file)));
            }
        }
    }
    none_breaks("a function fits on two screens", &wrong);
    assert!(seen > 1000, "only {seen} functions were found: the files are not read rightly");
}

#[test]
fn what_these_rules_forbid_is_noticed() {
    let own = ["managed_secret".to_owned(), "act".to_owned()];
    assert_eq!(named_in("use crate::deploy::plan;", &own), ["deploy"]);
    assert_eq!(named_in("use super::super::docker_host::runs;", &own), ["docker_host"]);
    assert!(named_in("use super::observe::Place;", &own).is_empty(), "a neighbour in the same folder");
    assert!(
        names_vendor("generate.cloudflare_r2.is_some()", "cloudflare") && names_vendor("an R2 key", "r2")
    );
    assert!(!names_vendor("let r25 = 1;", "r2"));
    assert!(vendors().contains(&("r2".to_owned(), "cloudflare_r2".to_owned())));
    for (name, is_right) in [("act.rs", true), ("act", true), ("status_tests.rs", true), ("pass.rs", false)] {
        assert_eq!(is_named_as_in_every_kind(&Path::new("managed_secret").join(name)), is_right, "{name}");
    }
    let long = format!("    pub async fn long() {{\n{}    }}\n", "        step();\n".repeat(90));
    assert_eq!(functions(&long), [("pub async fn long() {".to_owned(), 92)]);
    assert_eq!(functions("    fn short(&self) -> u8;\n    fn one() -> u8 { 1 }\n").len(), 2);
}
