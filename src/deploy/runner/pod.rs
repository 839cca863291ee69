//! The process of the pod: its files, its termination message and its exit.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};

use super::{Progress, Settings, report, run, termination};
use crate::api::docker_host::RunResult;
use crate::deploy::report::{Report, UNDER_WAY, exit_code};
use crate::deploy::ssh::client_key::ClientKey;
use crate::deploy::task::{JUMP_KEY_FILE, KEY_FILE, TASK_FILE, TERMINATION_LOG, Task};

/// The paths of the pod's files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The task, as JSON.
    pub task: PathBuf,
    /// The private key for the docker host.
    pub key: PathBuf,
    /// The private key for the jump host. If the file does not exist, the jump host gets `key` too.
    pub jump_key: PathBuf,
    /// The file from which the kubelet takes the termination message.
    pub termination_log: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            task: TASK_FILE.into(),
            key: KEY_FILE.into(),
            jump_key: JUMP_KEY_FILE.into(),
            termination_log: TERMINATION_LOG.into(),
        }
    }
}

/// Runs `keyturn deploy-host` and returns the exit code of the process.
pub async fn main() -> i32 {
    main_with(&Files::default(), &Settings::default()).await
}

/// Like [`main`], with other files and limits.
pub async fn main_with(files: &Files, settings: &Settings) -> i32 {
    let pod =
        Pod { termination_log: &files.termination_log, last: Mutex::new(report(UNDER_WAY, "starting")) };
    let last = tokio::select! {
        last = do_task(files, settings, &pod) => last,
        () = told_to_stop() => pod.stopped(),
    };
    pod.tell(&last);
    exit_code(last.outcome)
}

async fn do_task(files: &Files, settings: &Settings, pod: &Pod<'_>) -> Report {
    let (task, key, jump_key) = match read(files) {
        Ok(read) => read,
        Err(wrong) => return report(RunResult::BadInput, wrong),
    };
    pod.phase(&report(UNDER_WAY, format!("connecting to {}", task.ssh.host)));
    run(&task, &key, jump_key.as_ref(), settings, pod).await
}

fn read(files: &Files) -> Result<(Task, ClientKey, Option<ClientKey>), String> {
    let content = |path: &Path| {
        std::fs::read(path).map_err(|error| format!("the file {} cannot be read: {error}", path.display()))
    };
    // serde_json's own message may quote the document, which contains fingerprints and their keys.
    let task: Task = serde_json::from_slice(&content(&files.task)?).map_err(|error| {
        format!("the task cannot be read: {:?} error in line {}", error.classify(), error.line())
    })?;
    let key = |path: &Path, field: &str| {
        ClientKey::parse(&content(path)?).map_err(|error| format!("the Secret's entry of {field} {error}"))
    };
    let main_key = key(&files.key, "ssh.keySecretRef")?;
    let jump_key = match &task.jump {
        Some(_) if files.jump_key.exists() => Some(key(&files.jump_key, "ssh.jump.keySecretRef")?),
        _ => None,
    };
    Ok((task, main_key, jump_key))
}

async fn told_to_stop() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        // Without a signal handler, only the kubelet's kill after the grace period ends the process.
        Err(_) => std::future::pending().await,
    }
}

struct Pod<'a> {
    termination_log: &'a Path,
    /// The report that was written last.
    last: Mutex<Report>,
}

impl Pod<'_> {
    /// Returns the report for a pod that has to end now. A result stays unchanged.
    fn stopped(&self) -> Report {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if last.outcome != UNDER_WAY {
            return last;
        }
        report(
            RunResult::ConnectionLost,
            format!(
                "the pod was stopped while {}; a deployment that runs on the host continues, and the next \
                 run joins it",
                last.message
            ),
        )
    }

    /// Writes the report to the log and keeps it for Kubernetes.
    fn tell(&self, report: &Report) {
        self.output(format!("keyturn: {:?}: {}\n", report.outcome, report.message).as_bytes());
        if let Err(error) = termination::write(self.termination_log, report) {
            self.output(format!("keyturn: the termination message cannot be written: {error}\n").as_bytes());
        }
    }
}

impl Progress for Pod<'_> {
    fn phase(&self, report: &Report) {
        report.clone_into(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
        self.tell(report);
    }

    fn result(&self, report: &Report) {
        self.phase(report);
        self.output(b"keyturn: searching the images for secrets\n");
    }

    fn output(&self, data: &[u8]) {
        let mut log = std::io::stdout().lock();
        // Errors are ignored: if the log cannot be written, there is no other place to report that.
        let _ = log.write_all(data).and_then(|()| log.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_stays_what_it_is_whatever_ends_the_pod_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let termination_log = &folder.path().join("termination-log");
        let pod = Pod { termination_log, last: Mutex::new(report(UNDER_WAY, "starting")) };
        pod.phase(&report(UNDER_WAY, "verifying web"));
        assert_eq!(pod.stopped().outcome, RunResult::ConnectionLost);
        assert!(pod.stopped().message.contains("stopped while verifying web"));
        let result =
            Report { verified: true, ..report(RunResult::Succeeded, "1 of 1 parameters are proven") };
        pod.result(&result);
        let told: Report = serde_json::from_slice(&std::fs::read(termination_log).unwrap()).unwrap();
        assert_eq!((&told, &pod.stopped()), (&result, &result), "whether it is killed or told to stop");
    }
}
