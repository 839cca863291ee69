//! Notifications for people about a change in a SecretIncident's status.

use chrono::{DateTime, Utc};
use keyturn_api::conditions as c;
use keyturn_api::notification::Topic;
use keyturn_api::secret_incident::SecretIncidentStatus;

use crate::notification::{self, News, Trouble, Watched, turns};

/// Returns the news between two statuses of one incident: it was opened, contained or held up.
pub(super) fn news(
    before: &SecretIncidentStatus,
    after: &SecretIncidentStatus,
    now: DateTime<Utc>,
) -> Vec<News> {
    let message = |kind| c::find(&after.conditions, kind).map(|c| c.message.clone()).unwrap_or_default();
    let mut news = Vec::new();
    // An incident is opened once and contained once, so these keys are fixed: after a lost status the news
    // keep their ids.
    if before.state.is_none() && after.state.is_some() {
        news.push(News { topic: Topic::Opened, key: "1".into(), message: message(c::CONTAINED) });
    }
    news.extend(turns(&troubles(before), &troubles(after), now));
    if before.contained_at.is_none() && after.contained_at.is_some() {
        news.push(News { topic: Topic::Contained, key: "1".into(), message: message(c::CONTAINED) });
    }
    news
}

fn troubles(status: &SecretIncidentStatus) -> Vec<Trouble> {
    const WATCHED: [Watched; 1] = [(c::STALLED, "True", Topic::Stalled)];
    notification::troubles(&status.conditions, &WATCHED).map(notification::trouble).collect()
}

#[cfg(test)]
mod tests {
    use keyturn_api::time::to_kubernetes;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000, 0).unwrap()
    }

    fn status(state: &str, contained: bool) -> SecretIncidentStatus {
        let mut status = SecretIncidentStatus { state: Some(state.into()), ..Default::default() };
        status.contained_at = contained.then(|| to_kubernetes(now()));
        let stalled = c::Truth::from(state == "Stalled");
        c::set(&mut status.conditions, c::STALLED, stalled, "NotGranted", "no grant", None, now());
        status
    }

    fn told(before: &SecretIncidentStatus, after: &SecretIncidentStatus) -> Vec<(Topic, String)> {
        news(before, after, now()).into_iter().map(|news| (news.topic, news.key)).collect()
    }

    #[test]
    fn an_incident_is_told_when_it_is_opened_held_up_and_contained() {
        let none = SecretIncidentStatus::default();
        let (open, held, over) =
            (status("Responding", false), status("Stalled", false), status("Contained", true));
        assert_eq!(told(&none, &open), [(Topic::Opened, "1".to_owned())]);
        assert_eq!(told(&open, &open), []);
        assert_eq!(told(&open, &held)[0].0, Topic::Stalled);
        assert_eq!(told(&held, &open)[0].0, Topic::Recovered);
        assert_eq!(told(&open, &over), [(Topic::Contained, "1".to_owned())]);
    }

    #[test]
    fn a_lost_status_tells_the_same_ids_again() {
        let none = SecretIncidentStatus::default();
        let over = status("Contained", true);
        let keys: Vec<_> = told(&none, &over);
        assert_eq!(keys, [(Topic::Opened, "1".to_owned()), (Topic::Contained, "1".to_owned())]);
    }
}
