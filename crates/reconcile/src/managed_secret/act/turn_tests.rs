use std::collections::{BTreeMap, BTreeSet};

use keyturn_rotation::observed::{Record, TargetEvidence, Trigger};

use super::*;

fn begun() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// Evidence of a rotation whose target was asked at this time.
fn asked(at: DateTime<Utc>) -> Observed {
    let record = Record {
        id: 2,
        trigger: Trigger::Period,
        at: begun(),
        request: None,
        values: BTreeMap::new(),
        base: BTreeMap::new(),
        base_at: BTreeMap::new(),
        hosts: Vec::new(),
        kept: BTreeSet::new(),
        credential: None,
    };
    let target = TargetEvidence::unasked(at);
    Observed { records: BTreeMap::from([(2, record)]), target: Some(target), ..Observed::default() }
}

fn waits(why: Waiting) -> Next {
    Next::Wait { step: Step::Retire, until: None, why }
}

fn sessions() -> Next {
    waits(Waiting::Sessions { username: "app_a".into(), clients: vec!["203.0.113.9".into()] })
}

/// Counts how often the target is asked in a wait of this length.
fn looks_within(length: TimeDelta, urgent: bool) -> usize {
    let mut at = begun();
    let mut looks = 0;
    while at < begun() + length {
        at = asks_target_at(&sessions(), &asked(at), urgent).unwrap();
        looks += 1;
    }
    looks
}

#[test]
fn a_session_that_stays_open_for_days_is_not_looked_at_four_times_a_minute() {
    assert_eq!(looks_within(TimeDelta::minutes(1), false), 4, "one that ends soon is seen to end soon");
    let looks = looks_within(TimeDelta::days(3), false);
    assert!((800..1000).contains(&looks), "{looks} looks in three days");
    let urgent = looks_within(TimeDelta::hours(3), true);
    assert!((180..300).contains(&urgent), "{urgent} looks in three hours of an incident");
}

#[test]
fn what_a_host_or_the_time_ends_is_not_put_off() {
    let host = waits(Waiting::Deploy { host: "web".into(), held: None });
    assert_eq!(asks_target_at(&host, &asked(begun()), false), None);
    let until = Next::Wait { step: Step::Close, until: Some(begun()), why: Waiting::Grace };
    assert_eq!(asks_target_at(&until, &asked(begun()), false), None);
    let never_asked = Observed { target: None, ..asked(begun()) };
    assert_eq!(asks_target_at(&waits(Waiting::TargetUnseen), &never_asked, false), None);
}
