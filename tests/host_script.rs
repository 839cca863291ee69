//! Tests a key with a forced command: what `host.sh serve` does for the owner of the key, and what it refuses. There
//! is one test for each sentence of docs/docker-hosts.md, "A key that can do nothing else".
//!
//! The real script runs, under every shell of the machine, in a separate folder and with a fake docker.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keyturn::deploy::runner::HOST_SCRIPT;
use tempfile::TempDir;

const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A docker with two projects: a container of `app`, which runs sha256:0a, and one of `other`, which runs sha256:0b.
const DOCKER: &str = r#"
for argument do case $argument in label=*) project=${argument##*=} ;; esac; done
case $1:$2:$5 in
  ps:*) [ "$project" != app ] || echo container-of-app; [ "$project" != other ] || echo container-of-other ;;
  inspect:*:'{{.Image}}'*)
    case $6 in *app) image=sha256:0a ;; *) image=sha256:0b ;; esac
    case $5 in *oneoff*) echo "$image |named:1" ;; *) echo "$image" ;; esac
    ;;
  inspect:*:'{{.Name}}'*) echo "/$6 running 0 |TOKEN " ;;
  inspect:*) echo value. ;;
  image:inspect:*) echo '{"Id":"about"}' ;;
  image:save:*) echo "files of $3" ;;
  history:*) echo '{}' ;;
esac
"#;

/// All variables of a forced command. The commands record that they ran, and their arguments.
const EVERYTHING: [(&str, &str); 4] = [
    ("KEYTURN_PROJECT", "app"),
    ("KEYTURN_DEPLOY", r#"echo "deployed $KEYTURN_PARAMETERS" >>"$HOME/ran""#),
    ("KEYTURN_VERIFY", r#"echo "verified $KEYTURN_PARAMETERS" >>"$HOME/ran""#),
    ("KEYTURN_ACCESS_LOG", r#"echo "collected for $KEYTURN_SECRET" >>"$HOME/ran""#),
];

/// Returns the same variables without some of them, and with others.
fn command<'a>(without: &[&str], with: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = EVERYTHING.iter().filter(|(name, _)| !without.contains(name));
    kept.chain(with).copied().collect()
}

struct Machine {
    dir: TempDir,
    shell: &'static str,
}

/// Runs a test once for each shell.
fn on_every_shell(test: impl Fn(&Machine)) {
    let installed =
        |shell: &str| SEARCH_PATH.split(':').map(|folder| Path::new(folder).join(shell)).find(|p| p.exists());
    let mut shells = 0;
    for shell in ["dash", "bash", "busybox"] {
        let Some(program) = installed(shell) else { continue };
        let machine = Machine { dir: TempDir::new().unwrap(), shell };
        fs::create_dir_all(machine.path("programs")).unwrap();
        fs::create_dir_all(machine.path("home")).unwrap();
        symlink(program, machine.path("programs/sh")).unwrap();
        machine.put("docker", DOCKER);
        fs::write(machine.path("host.sh"), HOST_SCRIPT).unwrap();
        test(&machine);
        shells += 1;
    }
    assert!(shells > 0, "none of the shells is installed");
}

impl Machine {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Installs a program that runs these lines and records that it was called.
    fn put(&self, name: &str, lines: &str) {
        let path = self.path("programs").join(name);
        let called = self.path("called");
        fs::write(&path, format!("#!/bin/sh\necho \"{name} $*\" >>{}\n{lines}\n", called.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Sets the host's clock, in seconds.
    fn set_clock(&self, seconds: u64) {
        let real = if Path::new("/bin/date").exists() { "/bin/date" } else { "/usr/bin/date" };
        let lines = format!("[ \"$1\" = +%s ] || exec {real} \"$@\"; echo {seconds}");
        self.put("date", &lines);
    }

    /// Returns the host's answer to a key with this forced command.
    fn serve(&self, environment: &[(&str, &str)], request: &str) -> String {
        // The pod first sends a copy of the script.
        self.answer(&["serve"], environment, &format!("4\ncopy{request}"))
    }

    fn answer(&self, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> String {
        self.answer_and_output(arguments, environment, input).0
    }

    /// Returns the answer and the output of the scripts.
    fn answer_and_output(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        input: &str,
    ) -> (String, String) {
        let mut child = Command::new(self.path("programs/sh"))
            .arg(self.path("host.sh"))
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:{SEARCH_PATH}", self.path("programs").display()))
            .env("HOME", self.path("home"))
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The script may refuse before it has read everything.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }

    /// Asserts that the answer refuses with a message that contains `why`, and that nothing of the request has run.
    fn refuses(&self, environment: &[(&str, &str)], request: &str, why: &str) {
        let said = self.serve(environment, request);
        assert!(
            said.starts_with("keyturn: unfit ") && said.contains(why),
            "{}: {request}\n{said}",
            self.shell
        );
        assert_eq!(self.ran(), [""; 0], "{}: {request}", self.shell);
    }

    /// Returns the records of the commands, one per line.
    fn ran(&self) -> Vec<String> {
        self.lines("home/ran")
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// A script in a request that records that it ran.
const SCRIPT: &str = "echo 'script of the request' >>\"$HOME/ran\"";

fn sent() -> String {
    format!("script {}\n{SCRIPT}end\n", SCRIPT.len())
}

fn deploy(run: &str, more: &str) -> String {
    format!("verb deploy\nproject app\nsudo no\nrevision abc\nrun {run}\ntimeout 900\n{more}{}", sent())
}

fn verify(more: &str) -> String {
    format!("verb verify\nproject app\nsudo no\nrevision abc\ntimeout 20\n{more}{}", sent())
}

fn logs(more: &str) -> String {
    format!(
        "verb logs\nproject app\nsudo no\nincident leak\nsecret token\nsince 2026-11-23T12:00:00Z\n\
         until 2026-11-24T12:00:00Z\ntimeout 120\n{more}{}",
        sent()
    )
}

fn images(verb: &str, more: &str) -> String {
    format!("verb {verb}\nproject app\nsudo no\n{more}end\n")
}

/// Returns a comparison of a variable: index, variable, pads, and fingerprints that match nothing.
fn check(variable: &str) -> String {
    let fingerprint = "0a".repeat(32);
    format!("check 0 {variable} {pad} {pad} {fingerprint} -\n", pad = r"\066".repeat(63) + "%%")
}

#[test]
fn the_commands_of_the_key_are_run_and_not_the_scripts_of_a_request() {
    on_every_shell(|machine| {
        assert!(machine.serve(&EVERYTHING, &deploy("1", "parameter /a=1@100\n")).contains("result 0"));
        assert!(machine.serve(&EVERYTHING, &verify("parameter /a=1@100\n")).contains("verify 0"));
        assert!(machine.serve(&EVERYTHING, &logs("")).contains("collected 0"));
        assert_eq!(
            machine.ran(),
            ["deployed /a=1", "verified /a=1", "collected for token"],
            "{}",
            machine.shell
        );
    });
}

#[test]
fn a_request_for_a_command_that_the_key_does_not_have_is_refused() {
    on_every_shell(|machine| {
        for (request, variable) in [
            (deploy("1", ""), "KEYTURN_DEPLOY"),
            (verify(""), "KEYTURN_VERIFY"),
            (logs(""), "KEYTURN_ACCESS_LOG"),
        ] {
            machine.refuses(&command(&[variable], &[]), &request, variable);
            machine.refuses(&[("KEYTURN_PROJECT", "app")], &request, variable);
        }
    });
}

#[test]
fn a_key_is_for_the_project_that_it_names() {
    let all = [deploy("1", ""), verify(""), logs(""), images("prove", &check("TOKEN")), images("images", "")];
    let of_images = ["image", "save"].map(|verb| images(verb, "image sha256:0b\n"));
    on_every_shell(|machine| {
        for request in all.iter().chain(&of_images) {
            let other = request.replace("project app", "project other");
            machine.refuses(&EVERYTHING, &other, "docker.composeProject of the DockerHost is other");
            machine.refuses(&command(&["KEYTURN_PROJECT"], &[]), request, "add KEYTURN_PROJECT");
        }
        assert_eq!(machine.lines("called"), [""; 0], "docker is not asked about another project");
        assert!(!machine.path("home/.local/state/keyturn/other").exists());
        let said = machine.serve(&EVERYTHING, &images("prove", &check("TOKEN")));
        assert!(said.contains("differs 0 container-of-app"), "{said}");
    });
}

#[test]
fn only_images_that_the_projects_containers_run_are_shown() {
    on_every_shell(|machine| {
        let ask = |verb: &str, id: &str| machine.serve(&EVERYTHING, &images(verb, &format!("image {id}\n")));
        assert!(ask("image", "sha256:0a").contains("inspect {\"Id\":\"about\"}"));
        assert!(ask("save", "sha256:0a").contains("files of sha256:0a"));
        for id in ["sha256:0b", "sha256:0", "named:1", "a"] {
            for verb in ["image", "save"] {
                let said = ask(verb, id);
                assert!(said.starts_with("keyturn: unfit no container of the project app runs"), "{said}");
                assert!(!said.contains("files of") && !said.contains("about"), "{said}");
            }
        }
    });
}

#[test]
fn whether_docker_is_called_by_sudo_and_where_it_lies_is_the_keys_to_say() {
    on_every_shell(|machine| {
        machine.put("sudo", "shift; exec \"$@\"");
        machine.put("docker-of-the-request", "");
        let path = |name: &str| machine.path("programs").join(name).to_str().unwrap().to_owned();
        let named = images("images", &format!("docker {}\n", path("docker-of-the-request")));
        machine.serve(&EVERYTHING, &named.replace("sudo no", "sudo yes"));
        let called = machine.lines("called");
        assert!(!called.is_empty() && called.iter().all(|line| line.starts_with("docker ")), "{called:?}");

        machine.put("docker-of-the-key", "");
        fs::remove_file(machine.path("called")).unwrap();
        let docker = path("docker-of-the-key");
        machine.serve(&command(&[], &[("KEYTURN_SUDO", "yes"), ("KEYTURN_DOCKER", &docker)]), &named);
        assert!(
            machine.lines("called")[0].starts_with(&format!("sudo -n {docker} ps")),
            "{:?}",
            machine.lines("called")
        );
    });
}

#[test]
fn what_is_to_be_changed_about_docker_is_said_of_the_key() {
    on_every_shell(|machine| {
        machine.put("docker", "echo 'permission denied while trying to connect' >&2; exit 1");
        machine.refuses(
            &EVERYTHING,
            &images("images", ""),
            "set KEYTURN_SUDO=yes in the key's forced command",
        );
        let nowhere = command(&[], &[("KEYTURN_DOCKER", "/nowhere/docker")]);
        machine.refuses(
            &nowhere,
            &images("images", ""),
            "KEYTURN_DOCKER of the key's forced command names /nowhere/docker",
        );
    });
}

#[test]
fn a_request_can_neither_cut_a_deployment_off_nor_let_anything_run_for_ever() {
    on_every_shell(|machine| {
        for seconds in ["1", "899", "901"] {
            let request = deploy("1", "").replace("timeout 900", &format!("timeout {seconds}"));
            machine.refuses(&EVERYTHING, &request, "KEYTURN_DEPLOY_TIMEOUT");
        }
        machine.refuses(
            &command(&[], &[("KEYTURN_DEPLOY_TIMEOUT", "60")]),
            &deploy("1", ""),
            "allows a deployment 60 s",
        );
        let long = |request: String| {
            request.replace("timeout 20\n", "timeout 121\n").replace("timeout 120\n", "timeout 121\n")
        };
        machine.refuses(
            &EVERYTHING,
            &long(verify("")),
            "raise KEYTURN_VERIFY_TIMEOUT there, or lower verify.timeout",
        );
        machine.refuses(
            &EVERYTHING,
            &long(logs("")),
            "raise KEYTURN_ACCESS_LOG_TIMEOUT there, or lower accessLog.timeout",
        );

        let longer = [("KEYTURN_VERIFY_TIMEOUT", "121"), ("KEYTURN_ACCESS_LOG_TIMEOUT", "121")];
        assert!(machine.serve(&command(&[], &longer), &long(verify(""))).contains("verify 0"));
        assert!(machine.serve(&command(&[], &longer), &long(logs(""))).contains("collected 0"));
    });
}

/// Returns the answers to a request for log lines, with and without a forced command.
fn collect(machine: &Machine) -> [String; 2] {
    [machine.serve(&EVERYTHING, &logs("")), machine.answer(&[], &[], &logs(""))]
}

#[test]
fn collected_log_lines_do_not_fill_the_disk() {
    on_every_shell(|machine| {
        machine.put("du", "printf '1048575\\t%s\\n' \"$2\"");
        for said in collect(machine) {
            assert!(said.contains("collected 0"), "{}: {said}", machine.shell);
        }
        fs::remove_file(machine.path("home/ran")).unwrap();
        machine.put("du", "printf '1048576\\t%s\\n' \"$2\"");
        for said in collect(machine) {
            assert!(said.starts_with("keyturn: unfit "), "{}: {said}", machine.shell);
            assert!(said.contains("delete those of closed incidents"), "{}: {said}", machine.shell);
        }
        assert_eq!(machine.ran(), [""; 0], "{}", machine.shell);
    });
}

/// Returns df's output for a disk with this many KiB left.
fn df(free: &str) -> String {
    format!(
        "echo 'Filesystem 1024-blocks Used Available Capacity Mounted on'; echo '/dev/vda1 9999999 1 {free} 99% /data'"
    )
}

#[test]
fn log_lines_are_collected_only_where_the_disk_has_room_for_more_than_them() {
    on_every_shell(|machine| {
        machine.put("df", &df("589824"));
        for said in collect(machine) {
            assert!(said.contains("collected 0"), "{}: {said}", machine.shell);
        }
        fs::remove_file(machine.path("home/ran")).unwrap();
        for free in ["589823", "0", "-", ""] {
            machine.put("df", &df(free));
            for said in collect(machine) {
                assert!(said.starts_with("keyturn: unfit "), "{}: {free}: {said}", machine.shell);
                assert!(said.contains("free some space"), "{}: {free}: {said}", machine.shell);
            }
        }
        assert_eq!(machine.ran(), [""; 0], "{}", machine.shell);
    });
}

#[test]
fn what_is_shown_of_a_long_output_begins_with_a_whole_line() {
    // The script writes more than is shown at once, while the script on the host waits before its next check.
    let writes = "read -r _ <\"$HOME/go\"; i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); \
                  echo \"the beginning of a line that nobody may be shown without it $i\"; done; : >\"$HOME/done\"";
    let sent = format!("script {}\n{writes}end\n", writes.len());
    on_every_shell(|machine| {
        for name in ["go", "done"] {
            assert!(Command::new("mkfifo").arg(machine.path("home").join(name)).status().unwrap().success());
        }
        let waits = "[ -e \"$HOME/slept\" ] || { : >\"$HOME/slept\"; echo >\"$HOME/go\"; read -r _ <\"$HOME/done\"; }";
        machine.put("sleep", waits);
        let request = deploy("1", "").replace(&self::sent(), &sent);
        let (said, shown) = machine.answer_and_output(&[], &[], &request);
        assert!(said.contains("result 0"), "{}: {said}", machine.shell);
        let mut lines = shown.lines();
        assert!(lines.next().unwrap().contains("left out here"), "{}", machine.shell);
        assert!(lines.all(|line| line.starts_with("the beginning ")), "{}", machine.shell);
    });
}

const NOON: u64 = 1_700_000_000;
const HOUR: u64 = 3600;

/// Returns true if a version of /a that was made at this time was deployed.
fn deploys(machine: &Machine, version: u32, made: u64) -> bool {
    let run = format!("{version}-{made}-{}", machine.ran().len());
    let request = deploy(&run, &format!("replay no\nparameter /a={version}@{made}\n"));
    let said = machine.serve(&EVERYTHING, &request);
    let (deployed, refused) =
        (said.contains("result 0"), said.contains("outdated /a ") || said.contains("in the future"));
    assert!(deployed != refused, "{}: {said}", machine.shell);
    deployed
}

#[test]
fn a_late_request_brings_no_older_version() {
    on_every_shell(|machine| {
        machine.set_clock(NOON);
        assert!(deploys(machine, 8, NOON - HOUR));
        machine.set_clock(NOON + 23 * HOUR);
        assert!(!deploys(machine, 7, NOON - 2 * HOUR));
        assert!(deploys(machine, 8, NOON - HOUR));
        assert_eq!(machine.ran(), ["deployed /a=8", "deployed /a=8"]);
    });
}

#[test]
fn made_up_versions_hold_honest_ones_up_for_a_day_at_most() {
    on_every_shell(|machine| {
        machine.set_clock(NOON);
        assert!(deploys(machine, 8, NOON - HOUR));
        assert!(deploys(machine, 999_999, NOON + 60), "nobody can tell that it is made up");
        assert!(!deploys(machine, 8, NOON - HOUR));
        machine.set_clock(NOON + 23 * HOUR);
        assert!(!deploys(machine, 8, NOON - HOUR));
        machine.set_clock(NOON + 24 * HOUR);
        assert!(deploys(machine, 8, NOON - HOUR));
        assert!(!deploys(machine, 7, NOON - 2 * HOUR), "the journal counts from there");
    });
}

#[test]
fn made_up_versions_do_not_hold_up_a_value_that_is_made_after_them() {
    on_every_shell(|machine| {
        machine.set_clock(NOON);
        for version in [999_999, 9] {
            assert!(!deploys(machine, version, 9_999_999_999), "no value is made in the future");
            assert!(!deploys(machine, version, NOON + 301));
        }
        assert!(deploys(machine, 999_999, NOON + 300));
        machine.set_clock(NOON + HOUR);
        assert!(deploys(machine, 9, NOON + HOUR));
    });
}

#[test]
fn what_an_earlier_version_of_the_script_wrote_down_holds_nothing_up() {
    on_every_shell(|machine| {
        machine.set_clock(NOON);
        assert!(deploys(machine, 8, NOON - HOUR));
        let versions = machine.path("home/.local/state/keyturn/app/versions");
        fs::write(&versions, "/a 999999 9999999999\n/b 999999 9999999999\n").unwrap();
        assert!(deploys(machine, 9, NOON));
        assert_eq!(fs::read_to_string(versions).unwrap(), format!("/a 9 {NOON} {NOON}\n"));
    });
}

#[test]
fn the_result_of_a_revision_stands_only_for_the_versions_that_it_was_got_with() {
    on_every_shell(|machine| {
        machine.set_clock(NOON);
        let ask = |run: &str, version: u32| {
            let said = machine.serve(&EVERYTHING, &deploy(run, &format!("parameter /a={version}@{NOON}\n")));
            assert!(said.contains("result 0"), "{said}");
            said
        };
        ask("1", 8);
        assert!(ask("2", 9).contains("deploy started"), "another set under the same name");
        assert!(ask("1", 10).contains("deploy started"), "and as the same run");
        assert!(ask("3", 10).contains("deploy replayed"));
        assert_eq!(machine.ran(), ["deployed /a=8", "deployed /a=9", "deployed /a=10"]);
    });
}

#[test]
fn a_deployment_that_runs_is_joined_only_by_requests_for_its_versions() {
    on_every_shell(|machine| {
        for name in ["begun", "go"] {
            assert!(Command::new("mkfifo").arg(machine.path("home").join(name)).status().unwrap().success());
        }
        let waits = r#"echo "$KEYTURN_PARAMETERS" >>"$HOME/ran"; : >"$HOME/begun"; read -r _ <"$HOME/go""#;
        let key = command(&["KEYTURN_DEPLOY"], &[("KEYTURN_DEPLOY", waits)]);
        let request = |run: &str, version: u32| deploy(run, &format!("parameter /a={version}@{NOON}\n"));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| machine.serve(&key, &request("1", 8)));
            fs::read(machine.path("home/begun")).unwrap();
            for run in ["2", "1"] {
                let said = machine.serve(&key, &request(run, 9));
                assert!(said.starts_with("keyturn: busy another deployment"), "{said}");
            }
            fs::write(machine.path("home/go"), "\n").unwrap();
            assert!(first.join().unwrap().contains("result 0"));
        });
        assert_eq!(machine.ran(), ["/a=8"]);
    });
}

#[test]
fn a_request_that_is_not_keyturns_is_refused() {
    let parameter = |value: &str| deploy("1", &format!("parameter {value}\n"));
    let compared = |from: &str, to: &str| images("prove", &check("TOKEN").replacen(from, to, 1));
    let requests = [
        deploy("1", "").replace("end\n", ""),
        deploy("1", "unknown word\n"),
        deploy("1", "verb steal\n"),
        deploy("../1", ""),
        deploy("1", "revision abc.1\n"),
        deploy("1", "timeout 9x\n"),
        deploy("1", "timeout 99999999999999999999\n"),
        deploy("1", "wait 1+1\n"),
        verify("timeout a[$(id)]\n"),
        images("images", "docker docker\n"),
        images("save", ""),
        images("save", "image --output=/tmp/x\n"),
        images("image", "image ../x\n"),
        logs("secret ../x\n"),
        logs("incident a/b\n"),
        logs("since $(id)\n"),
        // The shell would treat a number that it cannot parse as lower than any other.
        parameter("/a=3x@100"),
        parameter("/a=3@1e9"),
        parameter("/a=99999999999999999999@100"),
        parameter("/a=3@99999999999999999999"),
        parameter("/a=3"),
        parameter("/a=1=3@100"),
        parameter("a=3@100"),
        parameter("/a$(id)=3@100"),
        // Only the first parameter would be compared with the last deployment.
        parameter("/a=9@100\nparameter /a=3@100"),
        compared("check 0 ", "check * "),
        compared("check 0 ", "check 0 /* "),
        compared("TOKEN", "TOKEN\"}}{{json"),
        compared(r"\066", "%s"),
        compared(r"\066", "%999999999d"),
        compared(r"\066", "-vPATH"),
        compared(r"\066", r"\06"),
        compared("0a", "*"),
        compared(" -\n", "\n"),
    ];
    on_every_shell(|machine| {
        for request in &requests {
            machine.refuses(&EVERYTHING, request, "keyturn's request cannot be read");
        }
        assert_eq!(machine.lines("called"), [""; 0], "docker is asked nothing then");
        assert!(!machine.path("home/.local").exists());
        for length in ["", "x", "1x", "-1"] {
            let said = machine.answer(&["serve"], &EVERYTHING, &format!("{length}\n{}", verify("")));
            assert!(said.contains("keyturn's request cannot be read"), "{said}");
        }
    });
}

/// Without a forced command the pod's copy of the script runs, and the request sets everything.
#[test]
fn a_key_without_a_forced_command_obeys_no_environment() {
    on_every_shell(|machine| {
        let request = verify("").replace("project app", "project other").replace("timeout 20", "timeout 300");
        assert!(machine.answer(&[], &EVERYTHING, &request).contains("verify 0"));
        assert!(machine.answer(&[], &EVERYTHING, &deploy("1", "timeout 5\n")).contains("result 0"));
        assert!(machine.answer(&[], &EVERYTHING, &logs("")).contains("collected 0"));
        assert_eq!(machine.ran(), ["script of the request"; 3]);
        let image = images("save", "image sha256:0b\n");
        assert!(machine.answer(&[], &[], &image).contains("files of sha256:0b"));
    });
}

#[test]
fn no_script_is_in_the_arguments_of_a_process() {
    // The script records the arguments of its own process and of all its parents, as every account of the host can
    // read them.
    let script = "id=$$; while [ $id -gt 1 ]; do tr '\\0' ' ' </proc/$id/cmdline; \
                  while read -r word value; do [ \"$word\" != PPid: ] || id=$value; done </proc/$id/status; \
                  done >>\"$HOME/arguments\"; [ -z \"${keyturn_script:-}\" ] # a word of the script";
    let sent = format!("script {}\n{script}end\n", script.len());
    on_every_shell(|machine| {
        for request in [deploy("1", ""), verify(""), logs("")] {
            let request = request.replace(&self::sent(), &sent);
            let said = machine.answer(&[], &[], &request);
            assert!(
                ["result 0", "verify 0", "collected 0"].iter().any(|ended| said.contains(ended)),
                "{said}"
            );
            let arguments = fs::read_to_string(machine.path("home/arguments")).unwrap();
            assert!(arguments.contains("timeout"), "{arguments}");
            assert!(!arguments.contains("a word of the script"), "{}: {arguments}", machine.shell);
        }
    });
}
