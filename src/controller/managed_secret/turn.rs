//! What the protocol's answer leads to where it is no act: rest, wait, stop, try again later.

use chrono::{DateTime, TimeDelta, Utc};

use super::progress::{Blocked, Progress};
use super::{ManagedSecrets, request_token};
use crate::api::ManagedSecret;
use crate::api::managed_secret::{FailureStatus, PreflightStatus};
use crate::api::time::{from_kubernetes, to_kubernetes};
use crate::rotation::observed::TargetProblem;
use crate::rotation::protocol::{Act, Next, Step, Waiting};

/// While somebody may use what was read, nothing is put off for longer.
const LONGEST_BACKOFF_IN_AN_INCIDENT: TimeDelta = TimeDelta::minutes(1);

/// What a pass does next.
pub(super) enum Turn {
    Act(Step, Act),
    /// Nothing more; `progress` tells why.
    Quiet,
    /// The evidence is too old to wait on it.
    LookCloser,
}

impl ManagedSecrets {
    /// `fresh`: whether the answer rests on a close look of this very pass.
    pub(super) fn turn(
        &self,
        next: Next,
        object: &ManagedSecret,
        progress: &mut Progress,
        fresh: bool,
        now: DateTime<Utc>,
    ) -> Turn {
        match next {
            Next::Act { step, act } => return Turn::Act(step, act),
            Next::Stall(stalled) => {
                progress.blocked = Some(Blocked {
                    reason: stalled.reason().into(),
                    message: stalled.to_string(),
                    permanent: true,
                    unseen: stalled.is_not_ours(),
                });
            }
            Next::Wait { why: Waiting::PreflightFailed { host, reason, message }, .. } => {
                self.preflight_failed(object, progress, &host, &reason, &message, now);
            }
            Next::Wait { step, why, .. } if why.is_for_the_target() && !fresh => {
                if !progress.backs_off_from(step.name(), now) {
                    return Turn::LookCloser;
                }
                progress.blocked = progress.failure.as_ref().map(Blocked::again);
            }
            Next::Wait { step, why: Waiting::Target(problem), .. } => {
                let TargetProblem { reason, message, permanent } = problem;
                let blocked = Blocked { reason, message, permanent, unseen: false };
                self.fail(object, progress, step.name(), blocked, now);
            }
            Next::Rest { .. } => {
                progress.preflight = None;
                progress.failure = None;
            }
            Next::Wait { step: Step::Preflight, .. } => {}
            Next::Wait { .. } => progress.failure = None,
        }
        Turn::Quiet
    }

    /// Counts a failure of a step and sets the time of the next attempt.
    pub(super) fn fail(
        &self,
        object: &ManagedSecret,
        progress: &mut Progress,
        step: &str,
        blocked: Blocked,
        now: DateTime<Utc>,
    ) {
        let attempts = progress.failure.as_ref().filter(|f| f.step == step).map_or(0, |f| f.attempts) + 1;
        let backoff = self.settings.backoff(attempts);
        let next = now + if progress.urgent { backoff.min(LONGEST_BACKOFF_IN_AN_INCIDENT) } else { backoff };
        tracing::warn!(
            namespace = object.metadata.namespace,
            name = object.metadata.name,
            step,
            reason = blocked.reason,
            attempts,
            next_attempt = %next,
            "{}",
            blocked.message
        );
        progress.failure = Some(FailureStatus {
            step: step.to_owned(),
            reason: blocked.reason.clone(),
            message: blocked.message.clone(),
            attempts,
            permanent: blocked.permanent,
            next_attempt_time: to_kubernetes(next + TimeDelta::milliseconds(999)),
            generation: object.metadata.generation.unwrap_or_default(),
            incident: progress.reported_at.map(to_kubernetes),
            request: request_token(object),
        });
        progress.blocked = Some(blocked);
    }

    /// A failed preflight is asked for again after the backoff.
    fn preflight_failed(
        &self,
        object: &ManagedSecret,
        progress: &mut Progress,
        host: &str,
        reason: &str,
        message: &str,
        now: DateTime<Utc>,
    ) {
        let asked = progress.preflight.as_ref().map(|p| from_kubernetes(&p.requested_at));
        let counted = progress
            .failure
            .as_ref()
            .filter(|f| f.step == "Preflight")
            .map(|f| from_kubernetes(&f.next_attempt_time));
        match (asked, counted) {
            (Some(asked), Some(next)) if next > asked => {
                if now >= next {
                    progress.preflight = Some(PreflightStatus { requested_at: to_kubernetes(now) });
                    progress.next =
                        Some(Next::Wait { step: Step::Preflight, until: None, why: Waiting::Preflight });
                }
            }
            _ => {
                let message = format!("DockerHost {host}: {message}");
                let blocked = Blocked { reason: reason.to_owned(), message, permanent: false, unseen: false };
                self.fail(object, progress, "Preflight", blocked, now);
                progress.blocked = None;
            }
        }
    }
}
