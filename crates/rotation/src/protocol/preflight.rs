//! Preflight: the checks that must pass before a rotation changes anything.

use chrono::{DateTime, Utc};
use keyturn_api::docker_host::{Proof, RunResult};
use keyturn_api::{Reason, Trouble};

use super::Desired;
use crate::observed::{Acceptance, HostEvidence, HostFailure, HostProof, Observed, Parameter};

pub(super) enum Preflight {
    NotAsked,
    Pending,
    Passed,
    Failed {
        host: String,
        trouble: Trouble,
    },
    /// The target has not been asked since the preflight was requested.
    TargetUnseen,
    /// The target refuses the published credential, or could not be asked.
    Target(Trouble),
    /// The roles have to be created from the published one first.
    SetUp {
        statements: usize,
    },
}

/// Checks that the target accepts the published value, and that the hosts run it and work, before anything is changed.
pub(super) fn preflight(desired: &Desired<'_>, observed: &Observed) -> Preflight {
    if desired.hosts.is_empty() && desired.strategy.is_none() {
        return Preflight::Passed;
    }
    let Some(requested) = desired.preflight_requested else { return Preflight::NotAsked };
    if desired.strategy.is_some() {
        let seen = observed.target.as_ref().filter(|target| target.at >= requested);
        if let Some(target) = seen
            && target.published == Some(Acceptance::Accepted)
            && !target.set_up.is_empty()
        {
            return Preflight::SetUp { statements: target.set_up.len() };
        }
        match seen.map(|target| (&target.unseen, &target.published)) {
            None | Some((_, None)) => return Preflight::TargetUnseen,
            Some(
                (_, Some(Acceptance::Refused(problem) | Acceptance::Unknown(problem))) | (Some(problem), _),
            ) => {
                return Preflight::Target(problem.clone());
            }
            Some((None, Some(Acceptance::Accepted))) => {}
        }
    }
    let mut pending = false;
    for host in observed.hosts.iter().filter(|h| desired.hosts.contains(&h.name)) {
        let failure = host.failure.as_ref().filter(|f| f.finished_at >= requested);
        if let Some(failure) = failure.filter(|f| !is_another_secrets(f, host, observed, requested)) {
            return Preflight::Failed { host: host.name.clone(), trouble: failure.trouble.clone() };
        }
        for parameter in &observed.parameters {
            match host.proofs.get(&parameter.path) {
                Some(proof)
                    if proof.at >= requested && parameter.latest().is_some_and(|seen| proof.is_of(seen)) =>
                {
                    if proof.proof == Proof::Differs {
                        return Preflight::Failed {
                            host: host.name.clone(),
                            trouble: value_differs(proof, parameter),
                        };
                    }
                }
                _ => {
                    if let Some(trouble) = host.stalled.clone() {
                        return Preflight::Failed { host: host.name.clone(), trouble };
                    }
                    pending = true;
                }
            }
        }
    }
    if pending { Preflight::Pending } else { Preflight::Passed }
}

fn value_differs(proof: &HostProof, parameter: &Parameter) -> Trouble {
    let message = format!(
        "a running container does not hold version {} of {}: deploy the published value, or put the value that is in \
         use. The rotation then continues",
        proof.version, parameter.path
    );
    Trouble::passing(Reason::ValueDiffers, message)
}

/// Returns true when the run failed only because containers run a wrong value of another secret: the run has shown that
/// they run ours.
fn is_another_secrets(
    failure: &HostFailure,
    host: &HostEvidence,
    observed: &Observed,
    requested: DateTime<Utc>,
) -> bool {
    let ours_is_shown = |parameter: &Parameter| {
        let shown = host.shown_of(parameter, parameter.latest());
        shown.is_some_and(|shown| shown.at >= requested && shown.proof != Proof::Differs)
    };
    failure.trouble.reason == Reason::Run(RunResult::NotAdopted)
        && observed.parameters.iter().all(ours_is_shown)
}
