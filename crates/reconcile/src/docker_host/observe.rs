//! Updates the status of a docker host from its Jobs.
//!
//! The update is idempotent. As long as the Jobs exist, it gives the same facts from an empty status as from its own
//! earlier result.

use chrono::{DateTime, Utc};
use keyturn_api::DockerHost;
use keyturn_api::access_log::{HostAccessLog, LogLines};
use keyturn_api::docker_host::{
    DockerHostStatus, HostParameter, HostRun, ImageAudit, ImageFinding, LayersAudit, Proof, RunMode,
    RunResult,
};
use keyturn_api::time::{from_kubernetes, to_kubernetes};

use crate::deploy::plan::MOST_COLLECTIONS;
use crate::deploy::report::{ImageReport, ImagesReport, Report, UNDER_WAY, short_id};
use crate::deploy::revision::target;
use crate::deploy_jobs::{DeployJob, JobParameter, JobState};
use crate::settings::Settings;

/// Maximum number of findings in a status; the schema allows no more.
const MOST_FINDINGS: usize = 128;

/// True for results that no retry can fix: somebody has to act. keyturn still retries, but rarely, since the fix may
/// happen outside Kubernetes.
pub(super) fn takes_a_person(result: RunResult) -> bool {
    matches!(
        result,
        RunResult::HostKeyRefused
            | RunResult::AuthenticationFailed
            | RunResult::BadInput
            | RunResult::Outdated
    )
}

/// Returns the host's status with everything that its Jobs (oldest first) show.
pub(super) fn fold(host: &DockerHost, jobs: &[DeployJob], settings: &Settings) -> DockerHostStatus {
    let mut status = host.status.clone().unwrap_or_default();
    let here = target(&host.spec);
    if status.target.as_ref() != Some(&here) {
        // The host now points to other containers than those that the status is about.
        status.parameters.clear();
        status.image_audit = None;
        status.image_findings.clear();
        status.target = Some(here.clone());
    }
    status.run = jobs.iter().find_map(running).map(|run| as_it_was_known(run, status.run.as_ref()));
    let ended: Vec<(&DeployJob, Ending)> =
        jobs.iter().filter_map(|job| Some((job, Ending::of(job)?))).collect();
    for (job, ending) in ended.iter().filter(|(job, _)| job.target == here) {
        show(&mut status, job, ending);
        show_images(&mut status, host, job, ending);
    }
    for (job, ending) in &ended {
        show_logs(&mut status, job, ending, settings);
    }
    status.access_logs.sort_by(|a, b| (&a.incident_uid, &a.secret).cmp(&(&b.incident_uid, &b.secret)));
    let ended: Vec<(&DeployJob, Ending)> =
        ended.into_iter().filter(|(job, _)| job.mode != RunMode::Collect).collect();
    let known = status.last_run.clone();
    for (job, ending) in ended.iter().skip(first_unknown(&ended, known.as_ref())) {
        let run = ended_run(job, ending, previous(&status, job.mode), settings);
        if run.mode == RunMode::Deploy {
            status.last_deploy = Some(run.clone());
        }
        status.last_run = Some(run);
    }
    status.parameters.sort_by(|a, b| a.path.cmp(&b.path));
    status
}

/// The end of a Job.
struct Ending<'a> {
    result: RunResult,
    report: Option<&'a Report>,
    message: String,
    finished: DateTime<Utc>,
}

impl<'a> Ending<'a> {
    fn of(job: &'a DeployJob) -> Option<Self> {
        match &job.state {
            JobState::Unstarted | JobState::Running { .. } => None,
            JobState::Lost { reason, finished } => Some(Self {
                result: RunResult::Lost,
                report: None,
                message: reason.clone(),
                finished: *finished,
            }),
            JobState::Ended { report, finished } if report.outcome == UNDER_WAY => Some(Self {
                result: RunResult::Lost,
                report: None,
                message: format!(
                    "the pod ended before its work was done; its last report: {}",
                    report.message
                ),
                finished: *finished,
            }),
            JobState::Ended { report, finished } => {
                let differs = report.parameters.iter().any(|p| p.proof == Proof::Differs);
                let result = match report.outcome {
                    RunResult::Succeeded if differs => RunResult::NotAdopted,
                    result => result,
                };
                Some(Self { result, report: Some(report), message: message(report), finished: *finished })
            }
        }
    }

    fn succeeded(&self) -> bool {
        self.result == RunResult::Succeeded
    }

    /// True when the host itself has shown that the new values do not work. No other failure says anything about the
    /// values.
    fn is_rejection(&self) -> bool {
        matches!(
            self.result,
            RunResult::DeployFailed
                | RunResult::DeployTimedOut
                | RunResult::VerifyFailed
                | RunResult::NotAdopted
        )
    }

    /// True when the run compared the containers.
    fn compared(&self) -> bool {
        matches!(
            self.result,
            RunResult::Succeeded
                | RunResult::NotAdopted
                | RunResult::DeployFailed
                | RunResult::DeployTimedOut
        )
    }

    /// True when the verify script passed. Only then can a comparison prove that the host runs a version. If the
    /// script did not pass, a comparison can still prove that the host does not run it.
    fn verified(&self) -> bool {
        self.succeeded() || self.compared() && self.report.is_some_and(|report| report.verified)
    }
}

fn message(report: &Report) -> String {
    let mut message = report.message.clone();
    for parameter in report.parameters.iter().filter(|p| !p.differs_in.is_empty()) {
        let names = parameter.differs_in.join(", ");
        // The report may already name them in its message.
        if !parameter.differs_in.iter().all(|name| message.contains(name.as_str())) {
            let line = format!("{}={}", parameter.path, parameter.version);
            message.push_str(&format!(" Another value than {line} runs in {names}."));
        }
    }
    message
}

fn running(job: &DeployJob) -> Option<HostRun> {
    match &job.state {
        JobState::Running { trouble } => Some(HostRun { message: trouble.clone(), ..as_run(job) }),
        _ => None,
    }
}

/// Keeps the known start time and message, so that the status is not rewritten when only the clock source or the
/// kubelet's wording about an image pull has changed.
fn as_it_was_known(run: HostRun, known: Option<&HostRun>) -> HostRun {
    let Some(known) = known.filter(|known| known.job == run.job) else { return run };
    let about_the_image =
        |message: &Option<String>| message.as_ref().is_some_and(|text| text.contains("ImagePull"));
    let message = if about_the_image(&known.message) && about_the_image(&run.message) {
        known.message.clone()
    } else {
        run.message
    };
    HostRun { started_at: known.started_at.clone(), message, ..run }
}

/// Returns the run of a Job with the facts that are known from its creation on, so without a result.
pub(super) fn as_run(job: &DeployJob) -> HostRun {
    HostRun {
        revision: job.revision.clone(),
        mode: job.mode,
        job: job.name.clone(),
        attempt: job.attempt,
        started_at: to_kubernetes(job.created),
        finished_at: None,
        result: None,
        message: None,
        generation: job.generation,
        failures: 0,
        rejections: 0,
        retry_after: None,
        parameters: job.parameters.iter().map(line).collect(),
    }
}

fn line(parameter: &JobParameter) -> String {
    format!("{}={}", parameter.path, parameter.version)
}

fn ended_run(job: &DeployJob, ending: &Ending, previous: Option<&HostRun>, settings: &Settings) -> HostRun {
    let of_the_same = previous.filter(|previous| {
        previous.revision == job.revision && previous.generation == job.generation && previous.failures > 0
    });
    let (failures, rejections) = if ending.succeeded() {
        (0, 0)
    } else {
        let (failures, rejections) = of_the_same.map_or((0, 0), |p| (p.failures, p.rejections));
        (failures + 1, rejections + i32::from(ending.is_rejection()))
    };
    let pause = if takes_a_person(ending.result) { settings.backoff_max } else { settings.backoff(failures) };
    HostRun {
        finished_at: Some(to_kubernetes(ending.finished)),
        message: (!ending.message.is_empty()).then(|| ending.message.clone()),
        failures,
        rejections,
        retry_after: (failures > 0).then(|| to_kubernetes(ending.finished + pause)),
        result: Some(ending.result),
        ..as_run(job)
    }
}

/// Returns the previous run of this mode.
fn previous(status: &DockerHostStatus, mode: RunMode) -> Option<&HostRun> {
    match mode {
        RunMode::Deploy => status.last_deploy.as_ref(),
        RunMode::Verify => status.last_run.as_ref().filter(|run| run.mode == RunMode::Verify),
        // Collections are stored for each incident and secret.
        RunMode::Collect => None,
    }
}

/// Returns the position in the list of the first Job that the status does not know yet.
fn first_unknown(ended: &[(&DeployJob, Ending)], last: Option<&HostRun>) -> usize {
    let Some(last) = last else { return 0 };
    if let Some(at) = ended.iter().position(|(job, _)| job.name == last.job) {
        return at + 1;
    }
    let finished = last.finished_at.as_ref().map_or(DateTime::UNIX_EPOCH, from_kubernetes);
    ended.iter().position(|(job, _)| job.created >= finished).unwrap_or(ended.len())
}

/// Writes into the status what a run has shown about each parameter, unless a newer result is known.
fn show(status: &mut DockerHostStatus, job: &DeployJob, ending: &Ending) {
    let Some(report) = ending.report.filter(|_| ending.compared()) else { return };
    for parameter in &job.parameters {
        let reported =
            report.parameters.iter().find(|r| r.path == parameter.path && r.version == parameter.version);
        let proof = match reported {
            Some(reported) => reported.proof,
            None => match report.others {
                Some(others) if ending.succeeded() => others,
                // The deploy runner of an earlier keyturn version did not report parameters that cannot be compared.
                None if ending.succeeded() => Proof::Incomparable,
                _ => continue,
            },
        };
        let speaks_for_it = proof != Proof::Differs;
        if speaks_for_it && !ending.verified() {
            continue;
        }
        let known = status.parameters.iter().position(|known| known.path == parameter.path);
        let before = known.map(|at| &status.parameters[at]);
        if before.is_some_and(|before| from_kubernetes(&before.at) > ending.finished) {
            continue;
        }
        let published_at =
            to_kubernetes(DateTime::from_timestamp(parameter.published_at, 0).unwrap_or_default());
        let deployed_before = before.is_some_and(|before| {
            before.deployed && before.version == parameter.version && before.published_at == published_at
        });
        let shown = HostParameter {
            path: parameter.path.clone(),
            version: parameter.version,
            published_at,
            proof,
            at: to_kubernetes(ending.finished),
            deployed: job.mode == RunMode::Deploy && speaks_for_it || deployed_before,
        };
        match known {
            Some(at) => status.parameters[at] = shown,
            None => status.parameters.push(shown),
        }
    }
}

/// Writes the log lines that a collection has found into the status, unless the result of a later collection is known.
/// If a later attempt fails, the lines of an earlier attempt are kept.
fn show_logs(status: &mut DockerHostStatus, job: &DeployJob, ending: &Ending, settings: &Settings) {
    let Some(about) = &job.about else { return };
    let at = to_kubernetes(ending.finished);
    let known = status.access_logs.iter().position(|known| about.is_that_of(known));
    let before = known.map(|at| status.access_logs.remove(at));
    if let Some(before) = before.as_ref().filter(|before| from_kubernetes(&before.at) >= ending.finished) {
        status.access_logs.push(before.clone());
        return;
    }
    let found = ending.report.and_then(|report| report.logs.as_ref()).map(|logs| LogLines {
        lines: i64::try_from(logs.lines).unwrap_or(i64::MAX),
        bytes: i64::try_from(logs.bytes).unwrap_or(i64::MAX),
        cut: logs.cut,
        digest: logs.digest.clone(),
        file: logs.file.clone(),
        excerpt: logs.excerpt(),
    });
    let of_the_same = before.as_ref().filter(|before| before.revision == job.revision);
    let failures = if found.is_some() { 0 } else { 1 + of_the_same.map_or(0, |before| before.failures) };
    let pause = if takes_a_person(ending.result) { settings.backoff_max } else { settings.backoff(failures) };
    let second = |seconds| to_kubernetes(DateTime::from_timestamp(seconds, 0).unwrap_or_default());
    let mut log = HostAccessLog {
        incident: about.incident.clone(),
        incident_uid: about.incident_uid.clone(),
        secret: about.secret.clone(),
        since: second(about.since),
        until: second(about.until),
        at,
        job: job.name.clone(),
        revision: job.revision.clone(),
        attempt: job.attempt,
        failures,
        retry_after: (failures > 0).then(|| to_kubernetes(ending.finished + pause)),
        problem: found.is_none().then(|| format!("{}: {}", ending.result, ending.message)),
        found,
    };
    if let Some(before) = before.filter(|before| log.found.is_none() && before.found.is_some()) {
        (log.since, log.until, log.found) = (before.since, before.until, before.found);
    }
    status.access_logs.push(log);
    status.access_logs.truncate(MOST_COLLECTIONS);
}

/// Writes the secrets that a run has found in the images into the status, unless a later audit is known. A finding
/// that the run did not find again is removed, with two exceptions: the run could not audit every image and found
/// nothing in this one, or the finding is in a file that the run did not read.
fn show_images(status: &mut DockerHostStatus, host: &DockerHost, job: &DeployJob, ending: &Ending) {
    let Some(report) = ending.report else { return };
    let silence = ImagesReport {
        problem: Some("the run reported nothing about images".to_owned()),
        ..ImagesReport::default()
    };
    let images = match &report.images {
        Some(images) => images,
        // A run without a report about images counts as an audit too. Otherwise the host would be audited again and
        // again.
        None if host.spec.audit.is_some() && ending.compared() => &silence,
        None => return,
    };
    if status.image_audit.as_ref().is_some_and(|last| from_kubernetes(&last.at) > ending.finished) {
        return;
    }
    let mut findings: Vec<ImageFinding> = images.found.iter().flat_map(of_image).collect();
    let known = std::mem::take(&mut status.image_findings).into_iter();
    let unseen =
        |digest: &str| images.problem.is_some() && !images.found.iter().any(|image| image.digest == digest);
    // A finding in a file is kept if this run did not read files and the image still exists, or if the run could not
    // read all files.
    let unread = |finding: &ImageFinding| {
        let still = match &images.layers {
            None => images.ids.contains(&short_id(&finding.digest)),
            Some(layers) => layers.problem.is_some(),
        };
        let again = findings
            .iter()
            .any(|found| found.digest == finding.digest && found.fingerprint == finding.fingerprint);
        finding.place.starts_with("file ") && still && !again
    };
    let kept: Vec<ImageFinding> = known.filter(|known| unseen(&known.digest) || unread(known)).collect();
    findings.extend(kept);
    let found = findings.len();
    findings.truncate(MOST_FINDINGS);
    let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let layers = if job.layers {
        let silent = || Some("the run reported nothing about layers".to_owned());
        Some(LayersAudit {
            at: to_kubernetes(ending.finished),
            files: images.layers.as_ref().map_or(0, |l| i64::try_from(l.files).unwrap_or(i64::MAX)),
            problem: images.layers.as_ref().map_or_else(silent, |layers| layers.problem.clone()),
        })
    } else {
        let last = status.image_audit.take().filter(|last| last.settings == job.audit);
        last.and_then(|last| last.layers)
    };
    status.image_audit = Some(ImageAudit {
        at: to_kubernetes(ending.finished),
        images: number(images.images),
        allowed: number(images.allowed),
        left_out: number(images.left_out + found - findings.len()),
        problem: images.problem.clone(),
        settings: job.audit.clone(),
        layers,
    });
    status.image_findings = findings;
}

fn of_image(image: &ImageReport) -> impl Iterator<Item = ImageFinding> + '_ {
    image.findings.iter().map(|finding| ImageFinding {
        image: image.name.clone(),
        digest: image.digest.clone(),
        place: finding.place.clone(),
        rule: finding.rule.clone(),
        fingerprint: finding.fingerprint.clone(),
        parameter: finding.parameter.clone(),
    })
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
