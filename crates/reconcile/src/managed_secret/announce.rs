//! Notifications for people about a change in a ManagedSecret's status.

use chrono::{DateTime, Utc};
use keyturn_api::conditions as c;
use keyturn_api::managed_secret::ManagedSecretStatus;
use keyturn_api::managed_secret::RotationResult;
use keyturn_api::notification::Topic;

use super::notices::is_routine;
use crate::notification::{self, News, Trouble, Watched, turns};

/// Returns the news between two statuses of one secret. `patience` is the number of consecutive failures after which
/// people are notified. `notice` is `spec.notice`; without it the end of a rotation is no news.
pub(super) fn news(
    before: &ManagedSecretStatus,
    after: &ManagedSecretStatus,
    notice: Option<&str>,
    patience: i32,
    now: DateTime<Utc>,
) -> Vec<News> {
    let mut news = turns(&troubles(before, patience), &troubles(after, patience), now);
    news.extend(rotated(before, after, notice));
    news
}

fn troubles(status: &ManagedSecretStatus, patience: i32) -> Vec<Trouble> {
    const WATCHED: [Watched; 5] = [
        (c::STALLED, "True", Topic::Stalled),
        (c::OVERDUE, "True", Topic::Overdue),
        (c::DRIFTED, "True", Topic::Drifted),
        (c::PREFLIGHT, "False", Topic::Failing),
        (c::DEPLOYED, "False", Topic::Failing),
    ];
    let found = notification::troubles(&status.conditions, &WATCHED);
    let mut troubles: Vec<Trouble> =
        found.filter(|(_, condition)| !is_routine(condition)).map(notification::trouble).collect();
    if let Some(failure) = status.failure.as_ref().filter(|failure| failure.attempts >= patience) {
        troubles.push((Topic::Failing, failure.reason.clone(), failure.message.clone()));
    }
    troubles
}

fn rotated(before: &ManagedSecretStatus, after: &ManagedSecretStatus, notice: Option<&str>) -> Option<News> {
    let ended = after.last_rotation.as_ref().filter(|ended| ended.result == RotationResult::Succeeded)?;
    let (notice, id) = (notice?, ended.id?);
    if before.last_rotation.as_ref().is_some_and(|known| known.id == ended.id) {
        return None;
    }
    let message = format!("Rotation {id} completed. {notice}");
    Some(News { topic: Topic::Rotated, key: id.to_string(), message })
}

#[cfg(test)]
mod tests {
    use keyturn_api::managed_secret::{FailureStatus, LastRotation, Step};
    use keyturn_api::time::to_kubernetes;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn with(kind: &str, truth: c::Truth, reason: &str) -> ManagedSecretStatus {
        let mut status = ManagedSecretStatus::default();
        c::set(&mut status.conditions, kind, truth, reason, "why", None, now());
        status
    }

    fn failing(attempts: i32) -> ManagedSecretStatus {
        let failure = FailureStatus {
            step: Step::Promote,
            reason: "SSMThrottled".into(),
            message: "SSM throttles".into(),
            attempts,
            permanent: false,
            next_attempt_time: to_kubernetes(now()),
            generation: 1,
            incident: None,
            request: None,
        };
        ManagedSecretStatus { failure: Some(failure), ..ManagedSecretStatus::default() }
    }

    fn ended(id: i64, result: RotationResult) -> ManagedSecretStatus {
        let last = LastRotation {
            id: Some(id),
            request: None,
            trigger: None,
            result,
            finished_at: None,
            window_seconds: None,
        };
        ManagedSecretStatus { last_rotation: Some(last), ..ManagedSecretStatus::default() }
    }

    fn topics(before: &ManagedSecretStatus, after: &ManagedSecretStatus) -> Vec<Topic> {
        news(before, after, Some("Tell the users."), 3, now()).into_iter().map(|n| n.topic).collect()
    }

    #[test]
    fn conditions_that_call_for_a_person_are_told_and_so_is_their_end() {
        let quiet = ManagedSecretStatus::default();
        for (kind, truth, topic) in [
            (c::STALLED, c::Truth::True, Topic::Stalled),
            (c::OVERDUE, c::Truth::True, Topic::Overdue),
            (c::DRIFTED, c::Truth::True, Topic::Drifted),
            (c::PREFLIGHT, c::Truth::False, Topic::Failing),
            (c::DEPLOYED, c::Truth::False, Topic::Failing),
        ] {
            let trouble = with(kind, truth, "Because");
            assert_eq!(topics(&quiet, &trouble), [topic], "{kind}");
            assert_eq!(topics(&trouble, &trouble), [], "{kind}");
            assert_eq!(topics(&trouble, &quiet), [Topic::Recovered], "{kind}");
        }
        assert_eq!(topics(&quiet, &with(c::DEPLOYED, c::Truth::False, "Deploying")), []);
        assert_eq!(topics(&quiet, &with(c::READY, c::Truth::False, "Creating")), []);
    }

    #[test]
    fn a_step_that_fails_is_told_once_it_has_failed_often_enough() {
        let quiet = ManagedSecretStatus::default();
        assert_eq!(topics(&quiet, &failing(2)), []);
        assert_eq!(topics(&failing(2), &failing(3)), [Topic::Failing]);
        assert_eq!(topics(&failing(3), &failing(4)), []);
        assert_eq!(topics(&failing(4), &quiet), [Topic::Recovered]);
    }

    #[test]
    fn a_rotation_is_told_with_its_notice_and_not_without_one() {
        let quiet = ManagedSecretStatus::default();
        let told = news(&quiet, &ended(7, RotationResult::Succeeded), Some("Tell the users."), 3, now());
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].topic, told[0].key.as_str()), (Topic::Rotated, "7"));
        assert_eq!(told[0].message, "Rotation 7 completed. Tell the users.");
        assert_eq!(topics(&ended(7, RotationResult::Succeeded), &ended(7, RotationResult::Succeeded)), []);
        assert_eq!(topics(&quiet, &ended(7, RotationResult::Aborted)), []);
        assert_eq!(news(&quiet, &ended(7, RotationResult::Succeeded), None, 3, now()), []);
    }
}
