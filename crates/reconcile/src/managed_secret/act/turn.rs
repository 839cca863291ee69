//! Handles the protocol's answers that are not acts: rest, wait and stall. Also counts failures and sets their
//! backoff.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::{FailureStatus, PreflightStatus};
use keyturn_api::time::{from_kubernetes, to_kubernetes};
use keyturn_api::{ManagedSecret, Reason, Trouble};
use keyturn_rotation::observed::Observed;
use keyturn_rotation::protocol::{Act, Next, Step, Waiting};

use crate::managed_secret::status::progress::{Blocked, Progress};
use crate::managed_secret::{HOST_POLL, ManagedSecrets, desired};

/// Maximum backoff in an incident, while somebody may be using a stolen value.
const LONGEST_BACKOFF_IN_AN_INCIDENT: TimeDelta = TimeDelta::minutes(1);

/// Divisor for the pause until a target is asked again: the pause is the length of the wait so far, divided by this
/// number.
const LOOKS_PER_WAIT: i32 = 20;
/// The longest pause until a target is asked again.
const LONGEST_PAUSE: TimeDelta = TimeDelta::minutes(5);

/// Returns the time at which the target is asked again, if only a change at the target can end the wait. The pauses
/// grow with the length of the wait, since such a wait may last for days and each question costs logins and calls to
/// Parameter Store.
pub(super) fn asks_target_at(next: &Next, observed: &Observed, urgent: bool) -> Option<DateTime<Utc>> {
    let Next::Wait { why, until: None, .. } = next else { return None };
    let asked_at = observed.target.as_ref().filter(|_| why.is_for_the_target())?.at;
    let begun_at = observed.records.values().next_back()?.at;
    let longest = if urgent { LONGEST_BACKOFF_IN_AN_INCIDENT } else { LONGEST_PAUSE };
    Some(asked_at + ((asked_at - begun_at) / LOOKS_PER_WAIT).clamp(HOST_POLL, longest))
}

/// Next action of a pass.
pub(super) enum Turn {
    Act(Step, Act),
    /// Nothing more to do; `progress` says why.
    Quiet,
    /// The evidence is too old to base a wait on it: a full read is needed.
    ReadInFull,
}

impl ManagedSecrets {
    /// Handles the protocol's answer. `fresh` is true when the answer is based on a full read in this pass.
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
                progress.failure = None;
                progress.blocked =
                    Some(Blocked { trouble: stalled.trouble(), unseen: stalled.is_not_ours() });
            }
            Next::Wait { why: Waiting::PreflightFailed { host, trouble }, .. } => {
                self.preflight_failed(object, progress, &host, &trouble, now);
            }
            Next::Wait { .. } if !fresh && progress.asks_target_at.is_some_and(|at| at > now) => {}
            Next::Wait { step, why, .. } if why.needs_a_full_read() && !fresh => {
                if !progress.backs_off_from(step, now) {
                    return Turn::ReadInFull;
                }
                progress.blocked = progress.failure.as_ref().map(Blocked::again);
            }
            Next::Wait { step, why: Waiting::Unpublishable { message }, .. } => {
                let trouble = Trouble::permanent(Reason::NotPublishable, message);
                self.fail(object, progress, step, trouble.into(), now);
            }
            Next::Wait { step, why: Waiting::Target(trouble), .. } => {
                self.fail(object, progress, step, trouble.into(), now);
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

    /// Counts a failure of a step, and sets the time of the next attempt.
    pub(super) fn fail(
        &self,
        object: &ManagedSecret,
        progress: &mut Progress,
        step: Step,
        blocked: Blocked,
        now: DateTime<Utc>,
    ) {
        // A refused publication and the acts that take it back count as one series of failures. In an incident, a
        // revocation and the other steps count as one series too. They do not delay each other, so their failures
        // alternate: if each failure began a new series, the backoff would never grow.
        let takes_back = |step: Step| step == Step::Promote || step == Step::Abort;
        let revokes = |step: Step| step == Step::Retire;
        let urgent = progress.urgent;
        let of_the_same = |f: &&FailureStatus| {
            let takes_turns = urgent && revokes(f.step) != revokes(step);
            f.step == step || takes_back(f.step) && takes_back(step) || takes_turns
        };
        let attempts = progress.failure.as_ref().filter(of_the_same).map_or(0, |f| f.attempts) + 1;
        // The acts that follow from a publication that was refused permanently start without backoff: hosts may have no
        // working password.
        let is_news = step == Step::Promote && blocked.trouble.is_permanent() && attempts == 1;
        let backoff = if is_news { TimeDelta::zero() } else { self.settings.backoff(attempts) };
        let next = now + if progress.urgent { backoff.min(LONGEST_BACKOFF_IN_AN_INCIDENT) } else { backoff };
        tracing::warn!(
            namespace = object.metadata.namespace,
            name = object.metadata.name,
            step = step.name(),
            reason = blocked.trouble.reason.name(),
            attempts,
            next_attempt = %next,
            "{}",
            blocked.trouble
        );
        progress.failure = Some(FailureStatus {
            step,
            reason: blocked.trouble.reason,
            message: blocked.trouble.message.clone(),
            attempts,
            permanent: blocked.trouble.is_permanent(),
            next_attempt_time: to_kubernetes(next + TimeDelta::milliseconds(999)),
            generation: object.metadata.generation.unwrap_or_default(),
            incident: progress.reported_at.map(to_kubernetes),
            request: desired::request_token(object).map(str::to_owned),
        });
        progress.blocked = Some(blocked);
    }

    /// Counts the failure of a preflight, and requests the preflight again after the backoff.
    fn preflight_failed(
        &self,
        object: &ManagedSecret,
        progress: &mut Progress,
        host: &str,
        trouble: &Trouble,
        now: DateTime<Utc>,
    ) {
        let asked = progress.preflight.as_ref().map(|p| from_kubernetes(&p.requested_at));
        let counted = progress
            .failure
            .as_ref()
            .filter(|f| f.step == Step::Preflight)
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
                // The host retries too, so the trouble counts as passing.
                let trouble = Trouble::passing(trouble.reason, format!("DockerHost {host}: {trouble}"));
                self.fail(object, progress, Step::Preflight, trouble.into(), now);
                progress.blocked = None;
            }
        }
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
