//! Tests about the versions that readers found published together, rendered as sentences.

use chrono::{DateTime, TimeDelta};
use keyturn_rotation::observed::Version;

use super::*;

/// A parameter whose versions 1, 2, … were put at these minutes.
fn put_at(path: &str, minutes: &[i64], author: impl Fn(i64) -> Author) -> Parameter {
    let versions = minutes.iter().zip(1..).map(|(minutes, number)| Seen {
        version: Version {
            number,
            modified: DateTime::UNIX_EPOCH + TimeDelta::minutes(*minutes),
            text: String::new(),
            stamp: None,
            claim: None,
        },
        author: author(number),
        taken_over: None,
    });
    Parameter { path: path.to_owned(), versions: versions.collect(), shape: None }
}

fn numbers(states: &[State<'_>]) -> Vec<Vec<i64>> {
    states.iter().map(|state| state.versions().into_values().collect()).collect()
}

#[test]
fn every_version_of_one_parameter_is_a_state_of_its_own() {
    let one = [put_at("/a", &[1, 2, 3], |_| Author::Original)];
    assert_eq!(numbers(&states(&one, None)), [[3], [2], [1]]);
    assert_eq!(numbers(&states(&one, Some(&BTreeMap::from([("/a".to_owned(), 2)])))), [[2], [1]]);
}

#[test]
fn halves_belong_together_by_the_time_at_which_they_were_put() {
    let both =
        [put_at("/a", &[1, 10, 30], |_| Author::Original), put_at("/b", &[2, 11, 20], |_| Author::Original)];
    assert_eq!(numbers(&states(&both, None)), [[3, 3], [2, 3], [2, 2], [2, 1], [1, 1]]);
    let base = BTreeMap::from([("/a".to_owned(), 2), ("/b".to_owned(), 2)]);
    assert_eq!(numbers(&states(&both, Some(&base))), [[2, 2], [2, 1], [1, 1]]);
    let missing = [put_at("/a", &[1], |_| Author::Original), put_at("/b", &[], |_| Author::Original)];
    assert_eq!(numbers(&states(&missing, None)), Vec::<Vec<i64>>::new());
}

#[test]
fn a_state_is_of_one_rotation_where_all_of_it_is() {
    let both = [
        put_at("/a", &[1, 10], |number| Author::Ours(number.unsigned_abs())),
        put_at("/b", &[2, 11], |number| Author::Ours(number.unsigned_abs())),
    ];
    let of_one: Vec<bool> = states(&both, None).iter().map(State::is_of_one_rotation).collect();
    assert_eq!(of_one, [true, false, true]);
    let foreign = [put_at("/a", &[1], |_| Author::Foreign)];
    assert!(states(&foreign, None).iter().all(|state| !state.is_of_one_rotation() && !state.is_ours()));
}
