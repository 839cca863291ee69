//! A docker host for a test: a real sshd with its own state folder, and the world's docker.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use keyturn::api::docker_host::RunMode;
use keyturn::audit::managed::ManagedValues;
use keyturn::deploy::fingerprint::fingerprint;
use keyturn::deploy::report::Report;
use keyturn::deploy::runner::{Progress, Settings, run};
use keyturn::deploy::task::{Task, TaskParameter};
use keyturn::secret_value::SecretValue;
use tempfile::TempDir;

use crate::sshd::Sshd;

/// Returns the address at which docker listens.
pub(crate) fn docker_host() -> String {
    std::env::var("DOCKER_HOST")
        .expect("these tests need a docker daemon: bring the world up and run `eval \"$(dev/world env)\"`")
}

pub(crate) struct Host {
    pub sshd: Sshd,
    /// The name of the compose project and of the state folder.
    pub project: String,
    state_home: PathBuf,
    _dir: TempDir,
}

impl Host {
    /// Starts a host whose `sh` is that of the machine.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts a host whose search path begins with a folder that `fill` puts programs into.
    pub(crate) fn start_with(fill: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::new().unwrap();
        let (programs, state_home) = (dir.path().join("programs"), dir.path().join("state"));
        fs::create_dir(&programs).unwrap();
        fs::create_dir(&state_home).unwrap();
        fill(&programs);
        Self::start_in(dir, &format!("{}:{}", programs.display(), search_path()), state_home)
    }

    /// Starts a host that has only these programs.
    pub(crate) fn with_programs_only(programs: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let folder = dir.path().join("programs");
        fs::create_dir(&folder).unwrap();
        for program in programs {
            symlink(which(program), folder.join(program)).unwrap();
        }
        let state_home = dir.path().join("state");
        Self::start_in(dir, folder.to_str().unwrap(), state_home)
    }

    /// Starts a host whose state is in this folder.
    pub(crate) fn with_state_in(state_home: &Path) -> Self {
        Self::start_in(TempDir::new().unwrap(), &search_path(), state_home.to_owned())
    }

    fn start_in(dir: TempDir, path: &str, state_home: PathBuf) -> Self {
        let environment = format!(
            "SetEnv XDG_STATE_HOME={} DOCKER_HOST={} PATH={path}",
            state_home.display(),
            docker_host()
        );
        let project =
            format!("keyturn-test-{}", dir.path().file_name().unwrap().to_string_lossy().replace('.', ""));
        Self { sshd: Sshd::start_with(&environment), project: project.to_lowercase(), state_home, _dir: dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sshd.path(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.state_home.join("keyturn").join(&self.project)
    }

    /// Returns a task that runs `script`; each call creates another run.
    pub(crate) fn task(&self, revision: &str, script: &str) -> Task {
        Task {
            mode: RunMode::Deploy,
            revision: revision.to_owned(),
            attempt: 1,
            ssh: self.sshd.endpoint(),
            jump: None,
            known_hosts: vec![self.sshd.known_hosts_line("host_ed25519")],
            sudo: false,
            docker_path: None,
            compose_project: self.project.clone(),
            deploy_script: script.to_owned(),
            deploy_timeout_seconds: 300,
            verify_script: None,
            verify_timeout_seconds: 60,
            parameters: vec![parameter("/test/TOKEN", 1, "TOKEN", "value")],
            managed: ManagedValues::new(&[], &[9; 32]),
            audit: None,
            collection: None,
        }
    }

    pub(crate) async fn run(&self, task: &Task) -> (Report, Watch) {
        self.run_with(task, &quick()).await
    }

    pub(crate) async fn run_with(&self, task: &Task, settings: &Settings) -> (Report, Watch) {
        let watch = Watch::default();
        let report = self.run_watched(task, settings, &watch).await;
        (report, watch)
    }

    pub(crate) async fn run_watched(&self, task: &Task, settings: &Settings, watch: &Watch) -> Report {
        run(task, &self.sshd.client_key(), None, settings, watch).await
    }

    /// Returns the lines of a file that scripts of a test append to.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Returns the folders of the runs, oldest first.
    pub(crate) fn runs(&self) -> Vec<PathBuf> {
        let Ok(folder) = fs::read_dir(self.state().join("runs")) else { return Vec::new() };
        let number = |path: &PathBuf| {
            path.file_name().unwrap().to_string_lossy().split('.').next().unwrap().parse::<u32>().unwrap()
        };
        let mut runs: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).collect();
        runs.sort_by_key(number);
        runs
    }

    /// Returns every file below the state folder, with its permissions and content.
    pub(crate) fn state_files(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.state()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    let content = fs::read(entry.path()).unwrap();
                    found.insert(entry.path(), (metadata.permissions().mode() & 0o777, content));
                }
            }
        }
        found
    }
}

/// Returns limits for tests: no waiting for other deployments.
pub(crate) fn quick() -> Settings {
    Settings { busy_wait: Duration::ZERO, ..Settings::default() }
}

fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", std::env::var("PATH").unwrap())
}

pub(crate) fn which(program: &str) -> PathBuf {
    search_path()
        .split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{program} is needed for this test"))
}

/// Returns a parameter with the fingerprint of a value under a new key.
pub(crate) fn parameter(path: &str, version: i64, variable: &str, value: &str) -> TaskParameter {
    let mut key = [0; 32];
    getrandom::fill(&mut key).unwrap();
    let fingerprint = fingerprint(&SecretValue::new(value.to_owned()), &key);
    TaskParameter {
        path: path.to_owned(),
        version,
        published_at: 1_700_000_000,
        env: vec![variable.to_owned()],
        key: fingerprint.key,
        mac: fingerprint.mac,
        trimmed_mac: fingerprint.trimmed_mac,
    }
}

/// Records what a run shows.
#[derive(Default)]
pub(crate) struct Watch {
    pub phases: Mutex<Vec<Report>>,
    pub results: Mutex<Vec<Report>>,
    pub output: Mutex<Vec<u8>>,
}

impl Watch {
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    pub(crate) fn phases(&self) -> Vec<String> {
        self.phases.lock().unwrap().iter().map(|report| report.message.clone()).collect()
    }
}

impl Progress for Watch {
    fn phase(&self, report: &Report) {
        self.phases.lock().unwrap().push(report.clone());
    }

    fn result(&self, report: &Report) {
        self.results.lock().unwrap().push(report.clone());
    }

    fn output(&self, data: &[u8]) {
        self.output.lock().unwrap().extend_from_slice(data);
    }
}
