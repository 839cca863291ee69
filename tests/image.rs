//! Tests the Dockerfile and its build: it agrees with Cargo.toml and the chart, and gets the files that it needs.
//!
//! `dev/world image` builds from the same files, so a mistake here affects both.

use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the rest of the only line of a file that starts with `start`.
fn line(file: &str, start: &str) -> String {
    let text = read(root().join(file));
    let mut rests = text.lines().filter_map(|line| line.trim().strip_prefix(start));
    let rest = rests.next().unwrap_or_else(|| panic!("{file} has no line that starts with {start}"));
    assert_eq!(rests.next(), None, "{file} has two lines that start with {start}");
    rest.trim().trim_matches('"').to_owned()
}

/// Returns the paths that .dockerignore sends to docker's builder. It holds back everything else.
fn sent() -> Vec<String> {
    let text = read(root().join(".dockerignore"));
    let mut rules = text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(rules.next(), Some("*"), "the first rule holds everything back");
    rules.map(|rule| rule.strip_prefix('!').expect("only exceptions follow").to_owned()).collect()
}

fn assert_sent(path: &Path) {
    let sent = sent();
    assert!(
        sent.iter().any(|allowed| path.starts_with(allowed)),
        "{} is needed to build the image, and .dockerignore holds it back; it lets through {sent:?}",
        path.display()
    );
}

#[test]
fn every_file_that_the_program_is_compiled_from_is_sent() {
    // Cargo records the files that it compiled the program from, including those of include_str!.
    let record = read(Path::new(env!("CARGO_BIN_EXE_keyturn")).with_extension("d"));
    let files: Vec<&str> = record.split_whitespace().filter(|file| !file.ends_with(':')).collect();
    assert!(files.len() > 100, "{record}");
    for file in files {
        assert_sent(Path::new(file).strip_prefix(root()).unwrap());
    }
}

#[test]
fn every_manifest_of_the_workspace_is_sent() {
    let members = line("Cargo.toml", "members = ");
    let members: Vec<&str> = members.split('"').filter(|part| part.contains('/')).collect();
    assert!(!members.is_empty());
    for member in members {
        assert_sent(&Path::new(member).join("Cargo.toml"));
    }
    assert_sent(Path::new("Cargo.toml"));
    assert_sent(Path::new("Cargo.lock"));
}

#[test]
fn the_script_that_builds_it_is_sent() {
    let command = line("Dockerfile", "RUN ");
    let script = command.split(' ').next().unwrap();
    assert!(root().join(script).exists(), "{script}");
    assert_sent(Path::new(script));
}

#[test]
fn the_compiler_is_not_older_than_the_sources_need() {
    let numbers =
        |version: &str| version.split('.').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>();
    let compiler = line("Dockerfile", "ARG RUST=");
    let needed = env!("CARGO_PKG_RUST_VERSION");
    assert!(numbers(&compiler) >= numbers(needed), "{compiler} in Dockerfile, {needed} in Cargo.toml");
}

#[test]
fn the_label_says_the_version_of_the_program() {
    assert_eq!(line("Dockerfile", "LABEL org.opencontainers.image.version="), env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_user_is_the_one_that_the_chart_runs_it_as() {
    let chart = "charts/keyturn/templates/_helpers.tpl";
    let pod = format!("{}:{}", line(chart, "runAsUser:"), line(chart, "runAsGroup:"));
    assert_eq!(line("Dockerfile", "USER "), pod);
}

/// Returns the SBOM as bytes.
fn bill_of_materials() -> Vec<u8> {
    let told = Command::new(root().join("dev/lib/sbom.py")).arg("x86_64-unknown-linux-gnu").output();
    let told = told.expect("python3 is installed");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    told.stdout
}

#[test]
fn the_list_of_what_is_in_the_program_is_that_of_cargo_lock() {
    let bytes = bill_of_materials();
    assert!(bytes == bill_of_materials(), "the same lock gives the same list");
    let list: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let lock = read(root().join("Cargo.lock"));
    let mut names = Vec::new();
    for component in list["components"].as_array().unwrap() {
        let text = |key: &str| component[key].as_str().unwrap();
        let locked = format!("name = \"{}\"\nversion = \"{}\"\n", text("name"), text("version"));
        let (_, rest) = lock.split_once(&locked).unwrap_or_else(|| panic!("not in Cargo.lock: {locked}"));
        let entry = rest.split("\n\n").next().unwrap();
        match component["hashes"][0]["content"].as_str() {
            Some(checksum) => {
                assert!(entry.contains(&format!("checksum = \"{checksum}\"")), "{locked}{entry}")
            }
            None => assert!(!entry.contains("checksum"), "{locked}has a checksum that is not told"),
        }
        names.push(text("name").to_owned());
    }
    for compiled_in in ["aws-lc-rs", "kube-client", "tokio-postgres", "keyturn-reconcile"] {
        assert!(names.iter().any(|name| name == compiled_in), "{compiled_in} is missing");
    }
    for not_in_it in ["serde_derive", "pulldown-cmark", "keyturn-rotation-model"] {
        assert!(names.iter().all(|name| name != not_in_it), "{not_in_it} is only of tests or of compiling");
    }
}
