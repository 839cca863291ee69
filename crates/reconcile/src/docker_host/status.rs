//! The conditions of a DockerHost. They show in `kubectl describe` if the host runs the published versions, and if
//! not, why.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::conditions::{self, DEPLOYING, IMAGES_CLEAN, READY, STALLED, Truth};
use keyturn_api::docker_host::{DockerHostStatus, HostRun, ImageFinding, Proof, RunMode, RunResult};
use keyturn_api::managed_secret::Origin;
use keyturn_api::time::{from_kubernetes, to_kubernetes, to_text};
use keyturn_api::{DockerHost, Reason, Remedy, Trouble};
use keyturn_rotation::adoption::has_adopted;
use kube::ResourceExt;

use super::observe::takes_a_person;
use crate::deploy::plan::{self, Decision, Hold};
use crate::deploy::revision;
use crate::deploy::wish::Wish;
use crate::settings::Settings;

/// Time that a pod may take to start. After that the host is Stalled; until then the pod may just be slow.
pub(super) const PATIENCE: TimeDelta = TimeDelta::seconds(60);

/// The reason why a run that was decided on could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StartFailure {
    pub trouble: Trouble,
    /// Path of the parameter that cannot be read, if this may last; otherwise `None`. Other parameters do not have to
    /// wait for this one.
    pub unreadable: Option<String>,
}

impl From<Trouble> for StartFailure {
    /// Makes a failure that does not concern a single parameter.
    fn from(trouble: Trouble) -> Self {
        Self { trouble, unreadable: None }
    }
}

impl StartFailure {
    /// Marks the failure as temporary, since the host continues without the parameter that could not be read. So the
    /// host is not Stalled.
    pub(super) fn beside_others(self) -> Self {
        Self { trouble: Trouble { remedy: Remedy::Time, ..self.trouble }, ..self }
    }

    /// Combines this failure with an earlier one.
    pub(super) fn after(self, earlier: Option<Self>) -> Self {
        match earlier {
            None => self,
            Some(earlier) => {
                let message = format!("{}; {}", earlier.trouble.message, self.trouble.message);
                let permanent = self.trouble.is_permanent() && earlier.trouble.is_permanent();
                Self { trouble: Trouble::new(earlier.trouble.reason, message, permanent), ..earlier }
            }
        }
    }
}

/// Input of the conditions, beside the host and its status.
pub(super) struct View<'a> {
    pub wishes: &'a [Wish],
    pub decision: &'a Decision,
    pub start_failure: Option<&'a StartFailure>,
    pub settings: &'a Settings,
    pub now: DateTime<Utc>,
}

/// A condition's status, reason and message.
type Verdict = (Truth, Reason, String);

/// Sets all conditions, and the other status fields that follow from the decision.
pub(super) fn set(status: &mut DockerHostStatus, host: &DockerHost, view: &View) {
    let generation = host.metadata.generation;
    let failed = failed_run(status, host, view).cloned();
    let verdicts = [
        (READY, Some(ready(status, host, view, failed.as_ref()))),
        (DEPLOYING, Some(deploying(status, view))),
        (IMAGES_CLEAN, Some(images_clean(status))),
        (
            STALLED,
            stalled(status, host, view, failed.as_ref())
                .map(|trouble| (Truth::True, trouble.reason, trouble.message)),
        ),
    ];
    for (kind, verdict) in verdicts {
        match verdict {
            Some((truth, reason, message)) => {
                conditions::set(&mut status.conditions, kind, truth, reason, &message, generation, view.now);
            }
            None => conditions::clear(&mut status.conditions, kind),
        }
    }
    status.observed_generation = generation;
    status.next_attempt_time = match view.decision {
        Decision::Hold { hold: Hold { trouble, until: Some(until), .. }, .. }
            if trouble.reason == Reason::BackingOff =>
        {
            Some(to_kubernetes(*until))
        }
        _ => None,
    };
}

/// Returns the failed run to report: the last deployment, if a deployment is still needed and the last one failed,
/// otherwise the last run. A run counts only if it failed with the versions and the script that are wanted now.
fn failed_run<'a>(status: &'a DockerHostStatus, host: &DockerHost, view: &View) -> Option<&'a HostRun> {
    let wanted: Vec<Wish> =
        view.wishes.iter().filter(|wish| wish.origin != Origin::Foreign).cloned().collect();
    let revision = revision::revision(&wanted, &host.spec.deploy.script);
    let deploy_is_needed =
        wanted.iter().any(|wish| plan::need(wish, plan::known(status, wish)) == plan::Need::Deploy);
    let of_the_deployment = status.last_deploy.as_ref().filter(|_| deploy_is_needed);
    [of_the_deployment, status.last_run.as_ref()]
        .into_iter()
        .flatten()
        .find(|run| run.failures > 0 && run.revision == revision)
}

fn ready(status: &DockerHostStatus, host: &DockerHost, view: &View, failed: Option<&HostRun>) -> Verdict {
    let not_ready = |reason: Reason, message: String| (Truth::False, reason, message);
    if let Some(failure) = view.start_failure {
        return not_ready(failure.trouble.reason, failure.trouble.message.clone());
    }
    if let Some((run, trouble)) = trouble(status) {
        return not_ready(Reason::PodNotRunning, pod_trouble(host, run, trouble));
    }
    if let Some(run) = failed {
        return not_ready(result(run).into(), failure(host, run));
    }
    if let Decision::Hold { hold, .. } = view.decision
        && hold.trouble.is_permanent()
    {
        return not_ready(hold.trouble.reason, hold.trouble.message.clone());
    }
    let open: Vec<String> =
        view.wishes.iter().filter(|wish| !is_shown(status, wish)).map(Wish::line).collect();
    if !open.is_empty() {
        let open = open.join(", ");
        return match (&status.run, view.decision) {
            (Some(run), _) => not_ready(
                match run.mode {
                    RunMode::Deploy => Reason::Deploying,
                    RunMode::Verify => Reason::Verifying,
                    RunMode::Collect => Reason::Collecting,
                },
                format!("not proven yet: {open}"),
            ),
            (None, Decision::Hold { hold, .. }) => {
                not_ready(hold.trouble.reason, format!("not proven yet: {open}. {}", hold.trouble.message))
            }
            (None, _) => not_ready(Reason::NotProven, format!("not proven yet: {open}")),
        };
    }
    all_is_well(status, view.wishes)
}

/// True when the host has shown everything that it can show about the published version. A version that somebody else
/// wrote needs no proof, and neither does an adopted value that cannot be compared.
fn is_shown(status: &DockerHostStatus, wish: &Wish) -> bool {
    if wish.origin == Origin::Foreign {
        return true;
    }
    plan::known(status, wish).is_some_and(|known| {
        let as_found = wish.origin == Origin::Adopted && known.proof == Proof::Incomparable;
        as_found || has_adopted(known.proof, known.deployed)
    })
}

fn all_is_well(status: &DockerHostStatus, wishes: &[Wish]) -> Verdict {
    let well = |reason: Reason, message: String| (Truth::True, reason, message);
    if wishes.is_empty() {
        return well(Reason::NothingToRun, "no ManagedSecret names this host".to_owned());
    }
    let lines = |keep: &dyn Fn(&&Wish) -> bool| -> Vec<String> {
        wishes.iter().filter(keep).map(Wish::line).collect()
    };
    let is_proven =
        |wish: &&Wish| plan::known(status, wish).is_some_and(|known| known.proof == Proof::Proven);
    let foreign = lines(&|wish| wish.origin == Origin::Foreign);
    let unseen = lines(&|wish| wish.origin != Origin::Foreign && !is_proven(wish));
    let proven = wishes.len() - foreign.len() - unseen.len();
    let mut message =
        format!("the containers run the published value of {proven} of {} parameters", wishes.len());
    if !unseen.is_empty() {
        message.push_str(&format!("; no container has a variable to compare for {}", unseen.join(", ")));
    }
    if !foreign.is_empty() {
        message.push_str(&format!(
            "; neither compared nor deployed, since somebody else wrote it: {}",
            foreign.join(", ")
        ));
    }
    well(if unseen.is_empty() && foreign.is_empty() { Reason::Proven } else { Reason::PartlyProven }, message)
}

fn deploying(status: &DockerHostStatus, view: &View) -> Verdict {
    match (&status.run, view.decision) {
        (Some(run), _) if run.mode == RunMode::Deploy => {
            (Truth::True, Reason::Running, format!("Job {} deploys {}", run.job, run.parameters.join(", ")))
        }
        (Some(run), _) if run.mode == RunMode::Collect => (
            Truth::False,
            Reason::Collecting,
            format!("Job {} collects log lines for an incident; it changes nothing", run.job),
        ),
        (Some(run), _) => (
            Truth::False,
            Reason::Verifying,
            format!("Job {} compares what the containers run; it changes nothing", run.job),
        ),
        (None, Decision::Hold { hold, .. }) => {
            (Truth::False, hold.trouble.reason, hold.trouble.message.clone())
        }
        (None, _) => (Truth::False, Reason::Idle, String::new()),
    }
}

/// Returns the condition ImagesClean: False when the images that the containers run contain secrets. No run waits for
/// this condition.
fn images_clean(status: &DockerHostStatus) -> Verdict {
    let verdict = |truth, reason: Reason, message: String| (truth, reason, message);
    let Some(audit) = &status.image_audit else {
        return verdict(Truth::Unknown, Reason::NotAudited, "no run has audited the images yet".to_owned());
    };
    let of_layers = || audit.layers.as_ref().and_then(|layers| layers.problem.as_ref());
    let problem = audit.problem.as_ref().or_else(of_layers);
    let left_out = usize::try_from(audit.left_out).unwrap_or_default();
    let found = status.image_findings.len() + left_out;
    if found > 0 {
        let shown: Vec<String> = status.image_findings.iter().take(3).map(describe_finding).collect();
        let more =
            if found > shown.len() { format!(" and {} more", found - shown.len()) } else { String::new() };
        let incomplete = problem.map_or_else(String::new, |why| format!(". {}", not_all(why)));
        let message = format!(
            "secrets in images: {}{more}. Rotate each secret and remove it from the Dockerfile, or accept it in \
             spec.audit.allow{incomplete}",
            shown.join("; "),
        );
        return verdict(Truth::False, Reason::SecretsFound, message);
    }
    if let Some(why) = problem {
        return verdict(Truth::Unknown, Reason::NotAudited, not_all(why));
    }
    let allowed =
        if audit.allowed > 0 { format!(", {} findings allowed", audit.allowed) } else { String::new() };
    verdict(Truth::True, Reason::Clean, format!("{} images, no secret found{allowed}", audit.images))
}

fn not_all(why: &str) -> String {
    format!("Not every image could be audited: {}", why.trim_end_matches('.'))
}

/// Describes a finding in a few words.
pub(super) fn describe_finding(finding: &ImageFinding) -> String {
    let value = finding.parameter.as_ref().map_or_else(String::new, |path| format!(", the value of {path}"));
    format!("{} of {} ({} {}{value})", finding.place, finding.image, finding.rule, finding.fingerprint)
}

/// Returns the trouble that stops the host until a person acts; `None` if there is none.
fn stalled(
    status: &DockerHostStatus,
    host: &DockerHost,
    view: &View,
    failed: Option<&HostRun>,
) -> Option<Trouble> {
    if let Some(failure) = view.start_failure.filter(|failure| failure.trouble.is_permanent()) {
        return Some(failure.trouble.clone());
    }
    if let Some((run, trouble)) = trouble(status) {
        let is_slow = view.now < from_kubernetes(&run.started_at) + PATIENCE;
        return (!is_slow)
            .then(|| Trouble::permanent(Reason::PodNotRunning, pod_trouble(host, run, trouble)));
    }
    if let Decision::Hold { hold, .. } = view.decision
        && hold.trouble.is_permanent()
    {
        return Some(hold.trouble.clone());
    }
    let run = failed.filter(|run| host.metadata.generation.is_none_or(|now| now == run.generation))?;
    let result = result(run);
    (run.failures >= view.settings.attempts || takes_a_person(result))
        .then(|| Trouble::permanent(result, failure(host, run)))
}

/// Returns the result of a run that has ended.
fn result(run: &HostRun) -> RunResult {
    run.result.unwrap_or(RunResult::Lost)
}

fn trouble(status: &DockerHostStatus) -> Option<(&HostRun, &str)> {
    let run = status.run.as_ref()?;
    Some((run, run.message.as_deref()?))
}

fn pod_trouble(host: &DockerHost, run: &HostRun, trouble: &str) -> String {
    let namespace = host.namespace().unwrap_or_default();
    format!(
        "the pod of Job {} does not start: {}. See `kubectl -n {namespace} describe pods -l \
         batch.kubernetes.io/job-name={}`; a changed spec starts another Job at once",
        run.job,
        trouble.trim_end_matches('.'),
        run.job
    )
}

/// Describes what failed, where its output is, and what happens next. The text has no relative time, so it stays the
/// same from pass to pass.
fn failure(host: &DockerHost, run: &HostRun) -> String {
    let what = match run.mode {
        RunMode::Deploy => "deployment",
        RunMode::Verify => "verification",
        RunMode::Collect => "collection of log lines",
    };
    let message = run.message.as_deref().unwrap_or("it left no message").trim_end_matches('.');
    let retry = run.retry_after.as_ref().map_or_else(String::new, |at| {
        format!("; retried from {} on, or at once when the spec changes", to_text(from_kubernetes(at)))
    });
    format!(
        "{what} failed{}: {message}. Output: `kubectl -n {} logs job/{}`{retry}",
        if run.failures == 1 { String::new() } else { format!(" {} times in a row", run.failures) },
        host.namespace().unwrap_or_default(),
        run.job,
    )
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
