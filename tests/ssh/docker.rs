//! Tests how the script on the host finds docker, and its messages if docker or sudo fails. It needs no world: `sh`
//! of this machine runs the real script, with a fake docker and messages of the real sudo.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keyturn::deploy::runner::HOST_SCRIPT;
use tempfile::TempDir;

use crate::host::which;

/// A machine with these programs on the search path and without docker.
struct Machine {
    dir: TempDir,
    script: String,
}

impl Machine {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for folder in ["programs", "usual", "elsewhere", "home/bin"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        // The script must not search this machine's own folders.
        let usual = dir.path().join("usual");
        let script = HOST_SCRIPT.replace("/usr/local/bin /snap/bin /opt/bin", usual.to_str().unwrap());
        assert_ne!(script, HOST_SCRIPT);
        let machine = Self { dir, script };
        machine.install(&["sh", "dd", "id", "head", "tail", "grep"]);
        machine
    }

    fn install(&self, programs: &[&str]) {
        for program in programs {
            symlink(which(program), self.path("programs").join(program)).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Adds a program that runs these lines.
    fn put(&self, name: &str, lines: &str) {
        program(&self.path(name), lines);
    }

    /// Returns the answer to a request for images, which asks docker first.
    fn ask(&self, more: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        // As a forced command, the script skips the copy that the pod sends.
        let sent = if arguments == ["serve"] { "0\n" } else { "" };
        self.answer(&format!("{sent}verb images\nproject app\n{more}end\n"), arguments, environment)
    }

    fn answer(&self, request: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
        let mut child = Command::new(which("sh"))
            .args(["-c", &self.script, "sh"])
            .args(arguments)
            .env_clear()
            .env("PATH", self.path("programs"))
            .env("HOME", self.path("home"))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }
}

fn program(path: &Path, lines: &str) {
    fs::write(path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Returns a sudo that runs its command with another search path, as `secure_path` sets it.
fn sudo(search_path: &Path) -> String {
    format!(
        "[ \"$1\" = -n ] || exit 9; shift; PATH={}; command -v \"$1\" >/dev/null || \
         {{ echo \"sudo: $1: command not found\" >&2; exit 1; }}; exec \"$@\"",
        search_path.display()
    )
}

const DONE: &str = "keyturn: done\n";

#[test]
fn docker_is_found_where_installers_put_it() {
    for place in ["programs/docker", "usual/docker", "home/bin/docker"] {
        let machine = Machine::new();
        machine.put(place, "exit 0");
        assert_eq!(machine.ask("sudo no\n", &[], &[]), DONE, "{place}");
        machine.put("programs/sudo", &sudo(&machine.path("elsewhere")));
        assert_eq!(machine.ask("sudo yes\n", &[], &[]), DONE, "{place}, which sudo does not search");
    }
    let machine = Machine::new();
    machine.put("elsewhere/docker", "exit 0");
    machine.put("programs/sudo", &sudo(&machine.path("elsewhere")));
    assert_eq!(machine.ask("sudo yes\n", &[], &[]), DONE, "where sudo alone searches");
}

#[test]
fn scripts_find_the_docker_that_keyturn_found() {
    let machine = Machine::new();
    machine.install(&["timeout", "flock", "setsid", "sha256sum", "mkdir", "chmod", "touch", "date", "cat"]);
    machine.put("usual/docker", "exit 0");
    let script = "docker compose ls";
    let request =
        format!("verb verify\nproject app\nrevision a\ntimeout 5\nscript {}\n{script}end\n", script.len());
    let output = machine.answer(&request, &[], &[]);
    assert_eq!(output, format!("keyturn: verify 0\n{DONE}"));
}

#[test]
fn where_docker_is_not_found_the_message_says_where_it_was_looked_for_and_which_field_names_it() {
    let machine = Machine::new();
    for sudo_or_not in ["no", "yes"] {
        machine.put("programs/sudo", &sudo(&machine.path("programs")));
        let said = machine.ask(&format!("sudo {sudo_or_not}\n"), &[], &[]);
        assert!(said.starts_with("keyturn: unfit docker is not on the search path"), "{said}");
        for place in ["programs", "usual", "home/bin"] {
            assert!(said.contains(machine.path(place).to_str().unwrap()), "{said}");
        }
        assert!(said.contains("docker.path of the DockerHost"), "{said}");
    }
    let said = machine.ask("sudo no\ndocker /nowhere/docker\n", &[], &[]);
    assert!(said.contains("docker.path of the DockerHost names /nowhere/docker"), "{said}");
}

#[test]
fn the_docker_that_the_spec_names_is_called() {
    let machine = Machine::new();
    machine.put("programs/docker", "exit 1");
    machine.put("elsewhere/docker", "exit 0");
    let named = format!("sudo no\ndocker {}\n", machine.path("elsewhere/docker").display());
    assert_eq!(machine.ask(&named, &[], &[]), DONE);
    machine.put("programs/sudo", &sudo(&machine.path("programs")));
    assert_eq!(machine.ask(&named.replace("sudo no", "sudo yes"), &[], &[]), DONE);
    assert!(machine.ask("docker bin/docker\n", &[], &[]).contains("cannot be read (docker)"));
}

#[test]
fn a_key_with_a_forced_command_cannot_name_another_program() {
    let machine = Machine::new();
    machine.put("programs/docker", "exit 0");
    machine.put("elsewhere/docker", &format!("touch {}", machine.path("called").display()));
    let named = format!("docker {}\n", machine.path("elsewhere/docker").display());
    let project = ("KEYTURN_PROJECT", "app");
    assert_eq!(machine.ask(&named, &["serve"], &[project]), DONE);
    assert!(!machine.path("called").exists());
    // The command itself may come from there.
    machine.put("programs/docker", "exit 1");
    machine.put("elsewhere/docker", "exit 0");
    let elsewhere = machine.path("elsewhere/docker");
    let docker = ("KEYTURN_DOCKER", elsewhere.to_str().unwrap());
    assert_eq!(machine.ask("", &["serve"], &[project, docker]), DONE);
}

/// The messages of sudo and docker when they fail, and the resulting report.
const FAILURES: [(&str, &str, &str, &str); 15] = [
    (
        "yes",
        "sudo: a password is required",
        "does not allow the account to call docker without a password",
        "NOPASSWD: ",
    ),
    (
        "yes",
        "sudo: unable to resolve host web-1: Name or service not known\nsudo: a password is required",
        "without a password (sudo: a password is required)",
        "NOPASSWD: ",
    ),
    (
        "yes",
        "sudo: a terminal is required to read the password; either use the -S option to read from standard input or \
         configure an askpass helper\nsudo: a password is required",
        "without a password (sudo: a password is required)",
        "NOPASSWD: ",
    ),
    (
        "yes",
        "sudo: interactive authentication is required",
        "without a password (sudo: interactive authentication is required)",
        "NOPASSWD: ",
    ),
    (
        "yes",
        "Sorry, user deploy is not allowed to execute '/usr/bin/docker ps -q' as root on web-1.",
        "without a password (Sorry, user deploy is not allowed",
        "NOPASSWD: ",
    ),
    (
        "yes",
        "deploy is not in the sudoers file.  This incident will be reported.",
        "without a password (deploy is not in the sudoers file",
        "NOPASSWD: ",
    ),
    ("yes", "sudo: sorry, you must have a tty to run sudo", "sudo requires a terminal", "!requiretty"),
    (
        "yes",
        "sudo: unable to resolve host web-1: Temporary failure in name resolution\n\
         sudo: sorry, you must have a tty to run sudo",
        "sudo requires a terminal",
        "!requiretty",
    ),
    (
        "yes",
        "/etc/sudoers:12:9: syntax error\nsudo: no valid sudoers sources found, quitting",
        "sudo does not work on the host (sudo: no valid sudoers sources found, quitting)",
        "fix it there",
    ),
    (
        "yes",
        "sudo: The \"no new privileges\" flag is set, which prevents sudo from running as root.",
        "sudo does not work on the host",
        "fix it there",
    ),
    (
        "yes",
        "sudo: unable to resolve host web-1: Name or service not known\n\
         Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "docker does not answer (Cannot connect to the Docker daemon",
        "start it on the host",
    ),
    (
        "no",
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
        "the account may not use docker (permission denied",
        "docker.sudo",
    ),
    (
        "no",
        "WARNING: Error loading config file: open /root/.docker/config.json: permission denied\n\
         Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "docker does not answer (Cannot connect to the Docker daemon",
        "start it on the host",
    ),
    (
        "no",
        "Cannot connect to the Docker daemon at tcp://10.0.0.1:2376. Is the docker daemon running?\n\n",
        "docker does not answer (Cannot connect to the Docker daemon",
        "start it on the host",
    ),
    (
        "no",
        "Error response from daemon: client version 1.24 is too old.",
        "docker does not answer (Error response from daemon: client version",
        "start it on the host",
    ),
];

#[test]
fn the_cause_is_told_and_not_the_warning_before_it() {
    for (with_sudo, printed, cause, remedy) in FAILURES {
        let machine = Machine::new();
        fs::write(machine.path("printed"), printed).unwrap();
        let fails = format!(
            "while read -r line || [ -n \"$line\" ]; do echo \"$line\" >&2; done <{}; exit 1",
            machine.path("printed").display()
        );
        machine.put("programs/docker", if with_sudo == "yes" { "exit 0" } else { &fails });
        machine.put("programs/sudo", &fails);
        let said = machine.ask(&format!("sudo {with_sudo}\n"), &[], &[]);
        assert!(said.starts_with("keyturn: unfit ") && said.ends_with(DONE), "{said}");
        assert!(said.contains(cause) && said.contains(remedy), "{printed}\n{said}");
    }
}

#[test]
fn sudo_is_asked_to_answer_in_english() {
    let machine = Machine::new();
    machine.put("programs/docker", "exit 0");
    machine.put(
        "programs/sudo",
        "case $LC_ALL in C) echo 'sudo: a password is required' ;; *) echo 'sudo: Ein Passwort ist notwendig' ;; esac >&2; \
         exit 1",
    );
    let said = machine.ask("sudo yes\n", &[], &[("LANG", "de_DE.UTF-8"), ("LC_ALL", "de_DE.UTF-8")]);
    assert!(said.contains("NOPASSWD"), "{said}");
}
