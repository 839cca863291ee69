//! Tests `keyturn audit image` as a pipeline calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::archive::{Layout, classic, config, tar};
use super::corpus::env;
use super::image::{Builder, Step, built};

const PASSWORD: &str = "Winter-Garden-91";

/// Writes the files of an image with these steps.
fn files(steps: &[Step]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let outputs = built("registry.example:5000/team/app", steps, Builder::BuildKit);
    fs::write(folder.path().join("inspect.json"), outputs.inspect).unwrap();
    fs::write(folder.path().join("history.json"), outputs.history).unwrap();
    folder
}

fn audit(folder: &TempDir, more: &[&str]) -> Output {
    let file = |name: &str| folder.path().join(name).display().to_string();
    keyturn(&[&["--inspect", &file("inspect.json"), "--history", &file("history.json")], more].concat())
}

fn keyturn(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyturn")).args(["audit", "image"]).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap()
}

fn result(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", said(output)))
}

fn with_password() -> TempDir {
    files(&[env("PATH", "/bin"), env("DB_PASSWORD", PASSWORD)])
}

fn fingerprint_of(folder: &TempDir, more: &[&str]) -> String {
    let output = audit(folder, &[&["--format", "json"], more].concat());
    result(&output)["findings"][0]["fingerprint"].as_str().unwrap().to_owned()
}

#[test]
fn the_exit_code_says_clean_found_or_unknown() {
    let clean = audit(&files(&[env("PATH", "/bin"), env("PYTHONUNBUFFERED", "1")]), &[]);
    assert_eq!(code(&clean), 0, "{}", said(&clean));
    let found = audit(&with_password(), &[]);
    assert_eq!(code(&found), 1, "{}", said(&found));
    assert!(said(&found).contains("env DB_PASSWORD"), "{}", said(&found));
    for arguments in [
        &["--inspect", "/nowhere", "--history", "/nowhere"] as &[&str],
        &["--inspect", "/dev/null"],
        &["-x"],
        &[],
        &["app", "--docker", "/nowhere/docker"],
        &["app", "--docker", "false"],
    ] {
        let unknown = keyturn(arguments);
        assert_eq!(code(&unknown), 2, "{arguments:?}: {}", said(&unknown));
    }
}

#[test]
fn what_is_no_image_or_no_full_history_is_not_called_clean() {
    let whole = with_password();
    let read = |name: &str| fs::read_to_string(whole.path().join(name)).unwrap();
    let (inspect, history) = (read("inspect.json"), read("history.json"));
    let shortened = r#"{"CreatedBy":"/bin/sh -c #(nop)  ENV DB_PASSWORD=Winter-Ga…"}"#;
    for (inspect, history) in [
        ("[]", history.as_str()),
        ("{", history.as_str()),
        (r#"[{"Id":"a","State":{},"Config":{"Env":["DB_PASSWORD=Winter-Garden-91"]}}]"#, history.as_str()),
        (r#"[{"Id":"a"}]"#, history.as_str()),
        (r#"[{"Id":"a","Config":{"Env":"DB_PASSWORD=Winter-Garden-91"}}]"#, history.as_str()),
        (inspect.as_str(), ""),
        (inspect.as_str(), "IMAGE CREATED CREATED BY\nabc now ENV DB_PASSWORD=Winter-Garden-91"),
        (inspect.as_str(), shortened),
    ] {
        fs::write(whole.path().join("inspect.json"), inspect).unwrap();
        fs::write(whole.path().join("history.json"), history).unwrap();
        let output = audit(&whole, &[]);
        assert_eq!(code(&output), 2, "{inspect} {history}: {}", said(&output));
        assert!(!said(&output).contains("Winter"), "{}", said(&output));
    }
}

#[test]
fn an_allowed_variable_passes_and_a_token_in_it_does_not() {
    let password = audit(&with_password(), &["--allow-env", "DB_PASSWORD"]);
    assert_eq!(code(&password), 0, "{}", said(&password));
    assert!(said(&password).contains("1 allowed"), "{}", said(&password));
    assert_eq!(code(&audit(&with_password(), &["--allow-env", "PASSWORD"])), 1);
    let token = files(&[env("DB_PASSWORD", "ghp_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6")]);
    assert_eq!(code(&audit(&token, &["--allow-env", "DB_PASSWORD"])), 1);
}

#[test]
fn a_finding_is_allowed_everywhere_or_in_one_image() {
    let folder = with_password();
    let fingerprint = fingerprint_of(&folder, &[]);
    let digest = "sha256:1f0c7b0f0ad6c3f3b7c5f9cf8f0b1d5be5f2e6f8c0a9d3b5e7f1a2c4d6e8f0a1";
    for (image, expected) in [
        ("", 0),
        ("registry.example:5000/team/app=", 0),
        ("registry.example:5000/team/app:1=", 0),
        (&format!("{digest}="), 0),
        ("registry.example:5000/team/app:2=", 1),
        ("registry.example=", 1),
        ("app=", 1),
    ] {
        let entry = format!("{image}{fingerprint}");
        assert_eq!(code(&audit(&folder, &["--allow", &entry])), expected, "{entry}");
        let list = folder.path().join("allowed");
        fs::write(&list, format!("# known\n\n{entry}  # until the next release\n")).unwrap();
        assert_eq!(code(&audit(&folder, &["--allow-list", list.to_str().unwrap()])), expected, "{entry}");
    }
    assert_eq!(code(&audit(&folder, &["--allow", "0000000000000000"])), 1);
    assert_eq!(code(&audit(&folder, &["--allow", "DB_PASSWORD"])), 2);
}

#[test]
fn a_fingerprint_says_where_and_with_a_key_also_what() {
    let one = files(&[env("DB_PASSWORD", "Winter-Garden-91")]);
    let other = files(&[env("A", "b"), env("DB_PASSWORD", "Summer-Garden-92")]);
    assert_eq!(fingerprint_of(&one, &[]), fingerprint_of(&other, &[]));
    let key = |name: &str, content: &str| -> PathBuf {
        let path = one.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let keyed =
        |folder: &TempDir, key: &Path| fingerprint_of(folder, &["--fingerprint-key", key.to_str().unwrap()]);
    let (first, second) = (key("first", "0123456789abcdef"), key("second", "fedcba9876543210"));
    assert_eq!(keyed(&one, &first), keyed(&one, &first));
    assert_ne!(keyed(&one, &first), keyed(&other, &first));
    assert_ne!(keyed(&one, &first), keyed(&one, &second));
    let short = key("short", "0123");
    assert_eq!(code(&audit(&one, &["--fingerprint-key", short.to_str().unwrap()])), 2);
}

#[test]
fn the_same_finding_is_in_text_json_and_sarif() {
    let folder = with_password();
    let fingerprint = fingerprint_of(&folder, &[]);
    let text = said(&audit(&folder, &[]));
    assert!(text.contains(&fingerprint) && text.contains("set in layer 2"), "{text}");
    let json = result(&audit(&folder, &["--format", "json"]));
    assert_eq!(json["clean"], false);
    assert_eq!(json["findings"].as_array().unwrap().len(), 1);
    assert_eq!(json["findings"][0]["place"], "env");
    assert_eq!(json["findings"][0]["name"], "DB_PASSWORD");
    assert_eq!(json["findings"][0]["rule"], "secret-name");
    assert_eq!(json["findings"][0]["layers"], serde_json::json!([2]));
    let sarif = result(&audit(&folder, &["--format", "sarif"]));
    let run = &sarif["runs"][0];
    let found = &run["results"][0];
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(found["partialFingerprints"]["keyturnImageFinding/v1"], fingerprint.as_str());
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["id"] == found["ruleId"]), "{rules:?}");
    assert_eq!(found["suppressions"], serde_json::json!([]));
    let allowed = result(&audit(&folder, &["--format", "sarif", "--allow", &fingerprint]));
    assert_eq!(allowed["runs"][0]["results"][0]["suppressions"][0]["kind"], "external");
}

#[test]
fn the_last_step_of_a_build_is_not_taken_for_the_images_command() {
    // The classic builder of docker 20.10 leaves this in the image.
    let folder =
        files(&[Step::Arg("NPM_TOKEN", "6ceb499471ae1078e3bd".into(), false), Step::Run("make".into())]);
    let path = folder.path().join("inspect.json");
    let mut inspect: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    inspect[0]["ContainerConfig"] = serde_json::json!({
        "Cmd": ["|1", "NPM_TOKEN=6ceb499471ae1078e3bd", "/bin/sh", "-c", "make"],
        "Env": ["LEFT_TOKEN=0f1e2d3c4b5a69788796"],
    });
    fs::write(&path, inspect.to_string()).unwrap();
    let output = audit(&folder, &["--format", "json"]);
    let findings = result(&output)["findings"].as_array().unwrap().clone();
    let places: Vec<&str> = findings.iter().map(|finding| finding["place"].as_str().unwrap()).collect();
    assert_eq!(places, ["env", "history"], "{findings:#?}");
}

/// Writes an archive with one file in a layer, and one variable.
fn archive(folder: &TempDir, path: &str, content: &str, variable: &str) -> String {
    let file = folder.path().join("image.tar");
    let layer = tar([(path, content.as_bytes())]);
    fs::write(&file, classic(&[layer], &config(1, &[variable]))).unwrap();
    file.display().to_string()
}

#[test]
fn an_archive_is_looked_into_with_its_configuration_and_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = archive(&folder, "app/.env", "API_TOKEN=8f3a1c9d7e5b", "PATH=/bin");
    let text = keyturn(&["--archive", &file]);
    assert_eq!(code(&text), 1, "{}", said(&text));
    assert!(said(&text).contains("team/app:1: file app/.env API_TOKEN"), "{}", said(&text));
    assert!(said(&text).contains("in layer 2"), "{}", said(&text));
    assert!(said(&text).contains("looked into 1 files of 1 layers"), "{}", said(&text));
    let json = result(&keyturn(&["--archive", &file, "--format", "json"]));
    let finding = &json["findings"][0];
    assert_eq!((&finding["place"], &finding["path"]), (&Value::from("file"), &Value::from("app/.env")));
    assert_eq!((&json["files"]["files"], &json["clean"]), (&Value::from(1), &Value::from(false)));
    let sarif = result(&keyturn(&["--archive", &file, "--format", "sarif"]));
    let location = &sarif["runs"][0]["results"][0]["locations"][0]["logicalLocations"][0];
    assert_eq!(location["fullyQualifiedName"], "file app/.env API_TOKEN");
    assert_eq!(sarif["runs"][0]["invocations"][0]["executionSuccessful"], true);
    for output in [said(&text), json.to_string(), sarif.to_string()] {
        assert!(!output.contains("8f3a1c9d7e5b"), "{output}");
    }

    let fingerprint = finding["fingerprint"].as_str().unwrap();
    for (entry, expected) in
        [(fingerprint.to_owned(), 0), (format!("team/app={fingerprint}"), 0), (format!("x={fingerprint}"), 1)]
    {
        assert_eq!(code(&keyturn(&["--archive", &file, "--allow", &entry])), expected, "{entry}");
    }
    let elsewhere = archive(&folder, "srv/.env", "API_TOKEN=8f3a1c9d7e5b", "PATH=/bin");
    assert_eq!(code(&keyturn(&["--archive", &elsewhere, "--allow", fingerprint])), 1, "of another file");

    let configured = archive(&folder, "app/main.py", "import os", "DB_PASSWORD=hunter2-prod");
    let output = keyturn(&["--archive", &configured]);
    assert_eq!(code(&output), 1, "{}", said(&output));
    assert!(said(&output).contains("env DB_PASSWORD"), "{}", said(&output));
    let clean = archive(&folder, "app/main.py", "import os", "PATH=/bin");
    assert_eq!(code(&keyturn(&["--archive", &clean])), 0);
    let input = Command::new(env!("CARGO_BIN_EXE_keyturn"))
        .args(["audit", "image", "--archive", "-"])
        .stdin(fs::File::open(&elsewhere).unwrap())
        .output()
        .unwrap();
    assert_eq!(code(&input), 0, "{}", said(&input));
}

#[test]
fn each_platform_of_an_archive_is_reported_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.tar").display().to_string();
    let archived = |variable: &str| {
        let mut layout = Layout::default();
        let layer = tar([("app/main.py", b"import os".as_slice())]);
        let mut manifests = Vec::new();
        for (architecture, variable) in [("amd64", "PATH=/bin"), ("arm64", variable)] {
            let mut config = config(1, &[variable]);
            config["architecture"] = architecture.into();
            manifests.push(layout.image(std::slice::from_ref(&layer), &config));
        }
        let mut index = layout.json(&serde_json::json!({"manifests": manifests}));
        index["annotations"] = serde_json::json!({"io.containerd.image.name": "team/app:1"});
        fs::write(&file, layout.archive(&[index])).unwrap();
    };
    archived("DB_PASSWORD=hunter2-prod");
    let text = keyturn(&["--archive", &file]);
    assert_eq!(code(&text), 1, "{}", said(&text));
    for line in ["team/app:1 (linux/amd64): clean", "team/app:1 (linux/arm64): env DB_PASSWORD"] {
        assert!(said(&text).contains(line), "{}", said(&text));
    }
    let json = result(&keyturn(&["--archive", &file, "--format", "json"]));
    assert_eq!((&json["clean"], json["images"].as_array().unwrap().len()), (&Value::from(false), 2));
    assert_eq!(json["images"][1]["findings"][0]["name"], "DB_PASSWORD");
    let sarif = result(&keyturn(&["--archive", &file, "--format", "sarif"]));
    assert_eq!(sarif["runs"].as_array().unwrap().len(), 1);
    assert_eq!(sarif["runs"][0]["artifacts"].as_array().unwrap().len(), 2);
    let fingerprint = json["images"][1]["findings"][0]["fingerprint"].as_str().unwrap();
    assert_eq!(code(&keyturn(&["--archive", &file, "--allow", &format!("team/app={fingerprint}")])), 0);
    archived("PATH=/usr/bin");
    assert_eq!(code(&keyturn(&["--archive", &file])), 0);
}

#[test]
fn an_archive_that_could_not_be_looked_at_in_full_is_not_called_clean() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("image.tar");
    let good = tar([("app/main.py", b"import os".as_slice())]);
    fs::write(&file, classic(&[good.clone(), b"no layer".to_vec()], &config(2, &[]))).unwrap();
    let output = keyturn(&["--archive", file.to_str().unwrap(), "--format", "json"]);
    assert_eq!(code(&output), 2, "{}", said(&output));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["clean"], false);
    assert!(String::from_utf8(output.stderr).unwrap().contains("layer 4"));
    let secret = classic(&[good, b"no layer".to_vec()], &config(2, &["DB_PASSWORD=hunter2-prod"]));
    fs::write(&file, &secret).unwrap();
    assert_eq!(code(&keyturn(&["--archive", file.to_str().unwrap()])), 1);
    fs::write(&file, &secret[..secret.len() / 2]).unwrap();
    assert_eq!(code(&keyturn(&["--archive", file.to_str().unwrap()])), 2);
    assert_eq!(code(&keyturn(&["--archive", "/nowhere"])), 2);
}

/// Writes a program that answers as docker does for one image, with this archive; its `image save` runs
/// `save`.
fn docker(folder: &TempDir, archive: &str, save: &str) -> String {
    let script = format!(
        "#!/bin/sh\ncase \"$1 $2\" in\n'image inspect') cat {0}/inspect.json;;\n'image save') {save};;\n\
         history*) cat {0}/history.json;;\nesac\n",
        folder.path().display(),
    );
    let path = folder.path().join("docker");
    fs::write(&path, script.replace("ARCHIVE", archive)).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn layers_are_looked_into_only_when_asked_for_and_a_save_that_fails_is_no_result() {
    let folder = files(&[env("PATH", "/bin")]);
    let file = archive(&folder, "app/.env", "API_TOKEN=8f3a1c9d7e5b", "PATH=/bin");
    let working = docker(&folder, &file, "cat ARCHIVE");
    assert_eq!(code(&keyturn(&["app", "--docker", &working])), 0);
    let found = keyturn(&["app", "--docker", &working, "--layers"]);
    assert_eq!(code(&found), 1, "{}", said(&found));
    assert!(said(&found).contains("app: file app/.env API_TOKEN"), "{}", said(&found));
    let failing = docker(&folder, &file, "head -c 3000 ARCHIVE; echo no space left >&2; exit 1");
    let failed = keyturn(&["app", "--docker", &failing, "--layers"]);
    assert_eq!(code(&failed), 2, "{}", said(&failed));
    assert!(said(&failed).contains("no space left"), "{}", said(&failed));
}
