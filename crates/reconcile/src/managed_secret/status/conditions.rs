//! The conditions of a ManagedSecret, from the evidence and the progress of the pass.

use chrono::{DateTime, Utc};
use keyturn_api::conditions::{Said, Truth};
use keyturn_api::docker_host::Proof;
use keyturn_api::managed_secret::{ManagedSecretStatus, OnDrift};
use keyturn_api::time::to_text;
use keyturn_api::{ManagedSecret, Reason, Trouble, conditions as c};
use keyturn_rotation::observed::{Author, HostEvidence, Observed};
use keyturn_rotation::protocol::{self, Desired, Next, Step, Waiting};
use keyturn_rotation::schedule::Verdict;

use super::progress::Progress;

/// Maximum number of characters of a request that a message quotes, since an annotation may be long.
const MAX_SHOWN_TOKEN: usize = 64;

/// Returns a message for people who wait for a rotation while `suspend` is true; `None` if `suspend` delays nothing.
pub(super) fn held_by_suspend(
    status: &ManagedSecretStatus,
    desired: &Desired<'_>,
    observed: Option<&Observed>,
) -> Option<String> {
    let incident = observed.is_some_and(|observed| protocol::is_suspected(desired, observed));
    if !desired.suspended || status.rotation.is_some() || incident {
        return None;
    }
    let request = observed.and_then(|observed| protocol::unhandled_request(desired, observed));
    Some(match request {
        Some(request) => {
            let token: String = request.token.chars().take(MAX_SHOWN_TOKEN).collect();
            format!("The request {token:?} waits, since spec.suspend is true: set it to false to rotate")
        }
        None => "No rotation starts while spec.suspend is true".into(),
    })
}

/// Returns the condition Ready. It follows from the evidence: the value is published, and its target accepted it at the
/// last check. The reason why the next step is not taken is added to the message.
pub(super) fn ready(
    status: &ManagedSecretStatus,
    desired: &Desired<'_>,
    observed: Option<&Observed>,
    progress: &Progress,
    held: Option<&str>,
) -> Said {
    let not_ready = |(reason, message): (Reason, String)| (c::READY, Truth::False, reason, message);
    let blocked = progress.blocked.as_ref();
    if let Some(unseen) = blocked.filter(|blocked| blocked.trouble.is_permanent() && blocked.unseen) {
        return not_ready((unseen.trouble.reason, unseen.trouble.message.clone()));
    }
    let published = match observed {
        Some(observed) => observed.parameters.iter().all(|p| !p.versions.is_empty()),
        None => c::is_true(&status.conditions, c::READY),
    };
    let next = match blocked {
        Some(blocked) => (blocked.trouble.reason, blocked.trouble.message.clone()),
        None if published => (Reason::Published, told(progress, held)),
        None => (Reason::Creating, told(progress, held)),
    };
    if !published {
        return not_ready(next);
    }
    if let Some((truth, reason, why)) = not_accepted(status, desired, observed, progress) {
        let beside =
            if next.1.is_empty() || next.0 == reason { String::new() } else { format!(". {}", next.1) };
        return (c::READY, truth, reason, format!("{why}{beside}"));
    }
    let (reason, message) = next;
    if blocked.is_some() {
        return (c::READY, Truth::True, reason, message);
    }
    let versions: Vec<String> = status.parameters.iter().map(|p| p.version.to_string()).collect();
    let message = match message {
        m if m.is_empty() => format!("Version {} is published", versions.join(", ")),
        m => format!("Version {} is published. {m}", versions.join(", ")),
    };
    (c::READY, Truth::True, reason, message)
}

/// Returns the reason why the published credential does not work, or may not work, according to the last answer of its
/// target.
fn not_accepted(
    status: &ManagedSecretStatus,
    desired: &Desired<'_>,
    observed: Option<&Observed>,
    progress: &Progress,
) -> Option<(Truth, Reason, String)> {
    let seen = observed.and_then(|observed| protocol::published_is_dead(desired, observed));
    // A change of the login in this pass counts until the target is asked again.
    let known = progress.login.as_ref().filter(|login| login.is_of(&status.parameters));
    let is_dead = match known.map(|login| login.is_dead) {
        Some(true) => Some(true),
        known => seen.or(known),
    };
    let (truth, reason, message) = match is_dead {
        Some(true) => (
            Truth::False,
            Reason::LoginReplaced,
            "The published login is not accepted any more, and the new one is not published yet",
        ),
        // Nothing shows the answer of the target. A status that was lost may have contained it.
        None if observed.is_some() => (
            Truth::Unknown,
            Reason::LoginUnseen,
            "The rotation that is under way may have replaced the published login, and its server has not answered \
             since",
        ),
        _ => {
            let target = status.target.as_ref().filter(|target| !target.accepts)?;
            (Truth::False, Reason::LoginRefused, target.message.as_str())
        }
    };
    Some((truth, reason, message.to_owned()))
}

/// Describes the present work. If there is none, returns `held`: the reason why no rotation starts.
fn told(progress: &Progress, held: Option<&str>) -> String {
    let message = progress.message();
    if message.is_empty() { held.unwrap_or_default().to_owned() } else { message }
}

pub(super) fn rotating(
    status: &ManagedSecretStatus,
    progress: &Progress,
    held: Option<(Reason, String)>,
) -> Said {
    match (&status.rotation, &progress.next) {
        (Some(rotation), _) => (c::ROTATING, Truth::True, rotation.step.into(), progress.message()),
        (None, Some(Next::Wait { step: step @ (Step::Preflight | Step::Record), why, .. }))
            if !matches!(why, Waiting::Drift { .. }) =>
        {
            (c::ROTATING, Truth::True, (*step).into(), progress.message())
        }
        _ => match held {
            Some((reason, why)) => (c::ROTATING, Truth::False, reason, why),
            None => (c::ROTATING, Truth::False, Reason::Idle, "No rotation is under way".into()),
        },
    }
}

/// Returns the conditions that need evidence: Overdue and Drifted, and Deployed and Preflight as far as they apply.
pub(super) fn facts(
    object: &ManagedSecret,
    desired: &Desired<'_>,
    observed: &Observed,
    progress: &Progress,
    now: DateTime<Utc>,
) -> Vec<Said> {
    let mut said = vec![overdue(object, desired, observed, now), drifted(desired, observed)];
    if !desired.hosts.is_empty() {
        said.push(deployed(desired, observed, progress));
    }
    if !desired.hosts.is_empty() || refused_before_the_start(progress).is_some() {
        said.push(preflight(desired, observed, progress));
    }
    said
}

fn overdue(object: &ManagedSecret, desired: &Desired<'_>, observed: &Observed, now: DateTime<Utc>) -> Said {
    match evaluate_schedule(desired, observed, now).and_then(|v| v.overdue_since) {
        Some(since) => {
            let lifetime = observed.target.as_ref().and_then(|target| target.lifetime);
            if let Some(lifetime) = lifetime.filter(|lifetime| lifetime.replace_by() <= now) {
                let message = format!(
                    "The published token expires at {} and does not work after that: it should have been rotated by \
                     {}",
                    to_text(lifetime.ends),
                    to_text(lifetime.replace_by())
                );
                return (c::OVERDUE, Truth::True, Reason::TokenEnds, message);
            }
            let period = object.spec.rotation.period.as_ref().map(ToString::to_string).unwrap_or_default();
            let message = format!("The value has been older than {period} since {}", to_text(since));
            (c::OVERDUE, Truth::True, Reason::PeriodExceeded, message)
        }
        None => (c::OVERDUE, Truth::False, Reason::WithinPeriod, "The value is not overdue".into()),
    }
}

fn drifted(desired: &Desired<'_>, observed: &Observed) -> Said {
    let foreign =
        observed.parameters.iter().find(|p| p.latest().is_some_and(|s| s.author == Author::Foreign));
    match foreign {
        Some(parameter) if desired.on_drift != OnDrift::Adopt => {
            let (path, version) = (&parameter.path, parameter.latest_number());
            let remedy = match desired.on_drift {
                OnDrift::Rotate => "keyturn replaces it, since rotation.onDrift is Rotate",
                _ => {
                    "Set rotation.onDrift to Adopt to keep that value, or to Rotate to replace it; until then nothing \
                     is rotated"
                }
            };
            let forged = parameter.latest().is_some_and(|latest| latest.version.claim.is_some());
            let in_our_name =
                if forged { ", with a description that names keyturn as its author" } else { "" };
            let message =
                format!("Version {version} of {path} was written by somebody else{in_our_name}. {remedy}");
            (c::DRIFTED, Truth::True, Reason::ForeignWrite, message)
        }
        _ => (c::DRIFTED, Truth::False, Reason::InSync, "The published value is the expected one".into()),
    }
}

fn deployed(desired: &Desired<'_>, observed: &Observed, progress: &Progress) -> Said {
    if let Some(Next::Wait { why: Waiting::DeployFailed { host, trouble }, .. }) = &progress.next {
        return (c::DEPLOYED, Truth::False, trouble.reason, format!("DockerHost {host}: {trouble}"));
    }
    let mut unknown = None;
    for host in observed.hosts.iter().filter(|h| desired.hosts.contains(&h.name)) {
        for parameter in observed.parameters.iter().filter(|p| !p.versions.is_empty()) {
            let version = parameter.latest_number();
            let ours = matches!(parameter.latest().map(|s| &s.author), Some(Author::Ours(_)));
            let path = &parameter.path;
            let shown = host.shown_of(parameter, parameter.latest());
            // If nothing can be compared, a deployment of the version counts as proof. A version that keyturn did not
            // publish was never deployed.
            let shown = shown.filter(|shown| shown.proof != Proof::Incomparable || shown.deployed || !ours);
            match shown.map(|shown| shown.proof) {
                Some(Proof::Proven) => {}
                Some(Proof::Differs) => {
                    let message = format!(
                        "DockerHost {}: a running container does not hold version {version} of {path}",
                        host.name
                    );
                    return (c::DEPLOYED, Truth::False, Reason::ValueDiffers, message);
                }
                Some(Proof::Incomparable) => {
                    let message = format!(
                        "DockerHost {}: no container has the variable of {path}, so nothing proves which value runs; \
                         name the variable in hosts[].env if it has another name",
                        host.name
                    );
                    unknown = Some((c::DEPLOYED, Truth::Unknown, Reason::NothingToCompare, message));
                }
                None if ours => {
                    if let Some(failure) =
                        host.failed_deploy.as_ref().filter(|f| f.versions.get(path) == Some(&version))
                    {
                        let Trouble { reason, message, .. } = &failure.trouble;
                        let message = format!("DockerHost {}: {message}", host.name);
                        return (c::DEPLOYED, Truth::False, *reason, message);
                    }
                    let message =
                        format!("DockerHost {} has not proven version {version} of {path} yet", host.name);
                    return (c::DEPLOYED, Truth::False, Reason::Deploying, message);
                }
                None => {
                    let message = format!(
                        "DockerHost {} has not been compared with version {version} of {path} yet",
                        host.name
                    );
                    unknown = Some((c::DEPLOYED, Truth::Unknown, Reason::Adopted, message));
                }
            }
        }
    }
    if observed.parameters.iter().all(|p| p.versions.is_empty()) {
        return (c::DEPLOYED, Truth::False, Reason::Missing, "Nothing is published yet".into());
    }
    unknown.unwrap_or((
        c::DEPLOYED,
        Truth::True,
        Reason::Proven,
        "Every host runs the published version".into(),
    ))
}

/// Returns the trouble that prevents the start of a rotation, unless it comes from a host.
fn refused_before_the_start(progress: &Progress) -> Option<&Trouble> {
    match (&progress.next, &progress.blocked) {
        (Some(Next::Wait { step: Step::Preflight, why: Waiting::Target(trouble), .. }), _) => Some(trouble),
        (
            Some(Next::Wait { step: Step::Preflight, .. } | Next::Act { step: Step::Preflight, .. }),
            Some(blocked),
        ) => Some(&blocked.trouble),
        _ => None,
    }
}

fn preflight(desired: &Desired<'_>, observed: &Observed, progress: &Progress) -> Said {
    if let Some(Next::Wait { why: Waiting::PreflightFailed { host, trouble }, .. }) = &progress.next {
        return (c::PREFLIGHT, Truth::False, trouble.reason, format!("DockerHost {host}: {trouble}"));
    }
    if let Some(trouble) = refused_before_the_start(progress) {
        return (c::PREFLIGHT, Truth::False, trouble.reason, trouble.message.clone());
    }
    let wanted = |host: &&HostEvidence| desired.hosts.contains(&host.name);
    let mut compared = true;
    for host in observed.hosts.iter().filter(wanted) {
        for parameter in observed.parameters.iter().filter(|p| !p.versions.is_empty()) {
            match host.proof_of(parameter, parameter.latest()) {
                Some(Proof::Differs) => {
                    let message = format!(
                        "DockerHost {}: a running container does not hold version {} of {}: deploy the published \
                         value, or put the value that is in use",
                        host.name,
                        parameter.latest_number(),
                        parameter.path
                    );
                    return (c::PREFLIGHT, Truth::False, Reason::ValueDiffers, message);
                }
                Some(_) => {}
                None => compared = false,
            }
        }
    }
    if compared {
        (
            c::PREFLIGHT,
            Truth::True,
            Reason::Passed,
            "The hosts ran the published value at the last check".into(),
        )
    } else {
        (c::PREFLIGHT, Truth::Unknown, Reason::Pending, "The hosts have not been compared yet".into())
    }
}

/// Returns the schedule's verdict; `None` if there is none, or if a window cannot be parsed. The protocol reports such
/// a window.
pub(super) fn evaluate_schedule(
    desired: &Desired<'_>,
    observed: &Observed,
    now: DateTime<Utc>,
) -> Option<Verdict> {
    protocol::evaluate_schedule(desired, observed, now).ok().flatten()
}
