//! Checks that SSM will accept the next Put, before a rotation changes anything else. SSM shows in advance most of what
//! it would refuse, and a role whose password was already changed cannot wait until somebody has fixed the parameter.

use regex_lite::Regex;

use super::{Act, Desired, Next, Step, Waiting};
use crate::observed::{DEFAULT_KEY, Observed, Parameter, Record, Shape};

/// Longest value in bytes, by tier.
const STANDARD_BYTES: usize = 4096;
const ADVANCED_BYTES: usize = 8192;
const SECURE_STRING: &str = "SecureString";

/// A parameter and the value that will be put there.
struct View<'a> {
    desired: &'a Desired<'a>,
    path: &'a str,
    shape: &'a Shape,
    /// The value, or an example of it.
    value: Option<&'a str>,
}

/// Returns the reason why SSM would refuse the Put, as a sentence with its remedy; `None` if nothing is wrong.
type Check = fn(&View<'_>) -> Option<String>;

const CHECKS: &[Check] = &[
    it_is_no_secure_string,
    it_is_under_a_key_that_nobody_named,
    its_pattern_does_not_match,
    the_value_is_too_long_for_its_tier,
    its_oldest_version_is_labelled,
];

/// Returns the first reason why SSM would refuse a newly generated value. Without a full read of the parameter nothing
/// can be checked, and the answer is `None`.
pub(super) fn before_the_start(desired: &Desired<'_>, observed: &Observed) -> Option<Waiting> {
    first(desired, observed, |path| desired.samples.get(path).map(String::as_str))
}

/// Like [`before_the_start`], for the value in a record.
pub(super) fn before_install(desired: &Desired<'_>, observed: &Observed, record: &Record) -> Option<Waiting> {
    first(desired, observed, |path| record.values.get(path).map(|value| value.expose()))
}

fn first<'a>(
    desired: &'a Desired<'a>,
    observed: &'a Observed,
    value: impl Fn(&str) -> Option<&'a str>,
) -> Option<Waiting> {
    observed.parameters.iter().find_map(|Parameter { path, shape, .. }| {
        let view = View { desired, path, shape: shape.as_ref()?, value: value(path) };
        CHECKS.iter().find_map(|check| check(&view)).map(|message| Waiting::Unpublishable { message })
    })
}

/// Proves that this controller may write the paths at all, if a rotation changes more than the parameters: before the
/// hosts are asked, and once more before anything is changed. `None` once this pass has proven it.
pub(super) fn prove(desired: &Desired<'_>, observed: &Observed) -> Option<Next> {
    desired.strategy?;
    let unproven = observed
        .parameters
        .iter()
        .find(|parameter| !parameter.versions.is_empty() && !observed.writable.contains(&parameter.path))?;
    let act = Act::ProveWritable { path: unproven.path.clone() };
    Some(Next::Act { step: Step::Preflight, act })
}

fn it_is_no_secure_string(view: &View<'_>) -> Option<String> {
    let View { path, shape, .. } = view;
    (shape.kind != SECURE_STRING).then(|| {
        format!(
            "{path} is a {}, which SSM does not allow keyturn to change to a SecureString: put its value under \
             another path, or delete it and create it as a SecureString",
            shape.kind
        )
    })
}

/// A Put without a key would use the account's default key, which readers with access to the current key may not be
/// allowed to use.
fn it_is_under_a_key_that_nobody_named(view: &View<'_>) -> Option<String> {
    let key = view.shape.customer_key()?;
    view.desired.kms_key.is_none().then(|| {
        format!(
            "{} is encrypted with {key}, and spec.ssm.kmsKeyId is not set: name that key there to keep it, or {DEFAULT_KEY} \
             to change to the account's default key",
            view.path
        )
    })
}

fn its_pattern_does_not_match(view: &View<'_>) -> Option<String> {
    let View { path, shape, .. } = view;
    let pattern = shape.pattern.as_deref()?;
    match Regex::new(&format!("^(?:{pattern})$")) {
        Ok(regex) => {
            let refused = view.value.is_some_and(|value| !regex.is_match(value));
            refused.then(|| {
                format!(
                    "{path} has an AllowedPattern that the values of this object do not match ({pattern}): put the \
                     parameter with another pattern, or change spec.generate or the template in spec.ssm.parameters"
                )
            })
        }
        // For a random value the Put itself shows whether the pattern matches, and nothing is lost if it is refused.
        Err(_) => view.desired.strategy.map(|_| {
            format!(
                "{path} has an AllowedPattern that keyturn cannot read ({pattern}), so keyturn cannot check that SSM \
                 accepts the new value: put the parameter with a simpler pattern, or without one"
            )
        }),
    }
}

fn the_value_is_too_long_for_its_tier(view: &View<'_>) -> Option<String> {
    let View { path, shape, .. } = view;
    let limit = if shape.is_advanced { ADVANCED_BYTES } else { STANDARD_BYTES };
    let length = view.value?.len();
    (length > limit).then(|| {
        format!(
            "the values of this object take {length} bytes, and {path} holds {limit}: publish shorter ones, or make it an \
             Advanced parameter"
        )
    })
}

fn its_oldest_version_is_labelled(view: &View<'_>) -> Option<String> {
    let View { path, shape, .. } = view;
    (!shape.labels_in_the_way.is_empty()).then(|| {
        format!(
            "SSM keeps 100 versions of {path} and does not drop the oldest while it has a label ({}): move that label to a \
             later version, or remove it",
            shape.labels_in_the_way.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keyturn_secret_value::SecretValue;

    use super::super::target_tests::{in_place, installed, refused, target};
    use super::super::tests::*;
    use super::*;
    use crate::observed::{Credential, TargetEvidence};
    use crate::protocol::{Incident, Strategy};

    fn shape() -> Shape {
        Shape { kind: SECURE_STRING.into(), ..Shape::default() }
    }

    fn wanted() -> Desired<'static> {
        Desired {
            request: request("now"),
            preflight_requested: Some(at(NOW - 1)),
            samples: BTreeMap::from([(PATH.to_owned(), "0123abc".to_owned())]),
            ..in_place()
        }
    }

    fn seen(shape: Shape) -> Observed {
        let mut observed = observed(vec![ours(1, 1, 0)]);
        observed.parameters[0].shape = Some(shape);
        Observed { target: Some(target()), writable: [PATH.to_owned()].into(), ..observed }
    }

    /// Builds a rotation 2 that gives role `b` another password, over version 1.
    fn changing_in_place(target: TargetEvidence) -> Observed {
        let password = SecretValue::new("x".into());
        let credential =
            Credential { username: "b".into(), password, replaces: Some("b".into()), accepted: [].into() };
        let record = Record { credential: Some(credential), ..record(2, 1) };
        Observed { target: Some(target), ..rotating(vec![ours(1, 1, 0)], record) }
    }

    #[test]
    fn what_ssm_would_refuse_is_found_before_anything_is_recorded() {
        let labels = vec!["pinned".to_owned()];
        let table = [
            (Shape { kind: "String".into(), ..shape() }, Some("is a String")),
            (Shape { key_id: Some("alias/shop".into()), ..shape() }, Some("alias/shop")),
            (Shape { key_id: Some(DEFAULT_KEY.into()), ..shape() }, None),
            (Shape { pattern: Some("[0-9]+".into()), ..shape() }, Some("AllowedPattern")),
            (Shape { pattern: Some("[0-9a-f]+".into()), ..shape() }, None),
            (Shape { pattern: Some("(?=x)".into()), ..shape() }, Some("cannot read")),
            (Shape { labels_in_the_way: labels, ..shape() }, Some("pinned")),
            (shape(), None),
        ];
        for (shape, expected) in table {
            let next = decide(&wanted(), &seen(shape.clone()));
            match (expected, &next) {
                (None, Next::Act { act: Act::Record { .. }, .. }) => {}
                (
                    Some(text),
                    Next::Wait { step: Step::Preflight, why: Waiting::Unpublishable { message }, .. },
                ) if message.contains(text) => {}
                _ => panic!("{shape:?}: {next:?}"),
            }
        }
        let named = Desired { kms_key: Some("alias/other"), ..wanted() };
        let other_key = seen(Shape { key_id: Some("alias/shop".into()), ..shape() });
        assert!(matches!(act(&named, &other_key), Act::Record { .. }), "somebody said so");
        let long = Desired { samples: BTreeMap::from([(PATH.to_owned(), "x".repeat(4097))]), ..wanted() };
        assert!(matches!(
            decide(&long, &seen(shape())),
            Next::Wait { why: Waiting::Unpublishable { .. }, .. }
        ));
        let advanced = seen(Shape { is_advanced: true, ..shape() });
        assert!(matches!(act(&long, &advanced), Act::Record { .. }));
    }

    #[test]
    fn the_right_to_write_is_proven_where_more_than_the_parameter_is_changed() {
        let unproven = || Observed { writable: [].into(), ..seen(shape()) };
        assert_eq!(act(&wanted(), &unproven()), Act::ProveWritable { path: PATH.into() });
        let unasked = Desired { preflight_requested: None, ..wanted() };
        assert_eq!(act(&unasked, &unproven()), Act::ProveWritable { path: PATH.into() });
        assert_eq!(act(&unasked, &seen(shape())), Act::AskPreflight);
        let random = Desired { strategy: None, ..wanted() };
        assert!(matches!(act(&random, &unproven()), Act::Record { .. }));
    }

    #[test]
    fn a_role_is_not_changed_in_place_for_what_cannot_be_published_unless_the_old_password_has_to_go() {
        let untouched = TargetEvidence { recorded: refused(), ..target() };
        let mut seen = changing_in_place(untouched);
        seen.parameters[0].shape = Some(Shape { kind: "String".into(), ..shape() });
        let next = decide(&in_place(), &seen);
        assert!(
            matches!(next, Next::Wait { step: Step::Install, why: Waiting::Unpublishable { .. }, .. }),
            "{next:?}"
        );
        let alternating = Desired { strategy: Some(Strategy::Alternating), ..in_place() };
        assert_eq!(act(&alternating, &seen), Act::Install { id: 2 }, "the published login goes on working");
        let incident = Incident { reported_at: at(NOW - 5), revoke_at: at(NOW) };
        let stolen = Desired { incidents: vec![incident], ..in_place() };
        assert_eq!(act(&stolen, &seen), Act::Install { id: 2 });
        let not_yet = Incident { revoke_at: at(NOW + 1), ..incident };
        let stolen = Desired { incidents: vec![not_yet], ..in_place() };
        assert!(matches!(decide(&stolen, &seen), Next::Wait { why: Waiting::Unpublishable { .. }, .. }));
    }

    #[test]
    fn a_password_that_ssm_refuses_for_good_is_taken_back_after_marker_and_grace() {
        let stuck = || changing_in_place(installed(2));
        let refused_for_good = || Desired { promotion_refused: true, ..in_place() };
        assert!(matches!(act(&in_place(), &stuck()), Act::Promote { .. }));
        assert_eq!(act(&refused_for_good(), &stuck()), Act::MarkAbort { id: 2 });
        let marked = |minutes: i64| Observed { aborts: BTreeMap::from([(2, at(NOW - minutes))]), ..stuck() };
        assert!(matches!(decide(&in_place(), &marked(14)), Next::Wait { why: Waiting::TakenBack, .. }));
        let Act::RecordRollBack { id: 3, failed: 2, kept, .. } = act(&in_place(), &marked(15)) else {
            panic!("no roll back")
        };
        assert!(kept.contains(PATH), "what is published is the old value already");
        let somebodys = observed(vec![ours(1, 1, 0), foreign(2, NOW - 20)]);
        let written = Observed { parameters: somebodys.parameters, ..marked(15) };
        let Act::RecordRollBack { kept, base, .. } = act(&in_place(), &written) else {
            panic!("what somebody wrote keeps a role from being given back")
        };
        assert!(kept.contains(PATH) && base[PATH] == 2, "what they wrote stays: {kept:?}, {base:?}");
        // Both logins of a pair go on working, and a stolen password is never restored.
        let alternating = Desired { strategy: Some(Strategy::Alternating), ..refused_for_good() };
        assert!(matches!(act(&alternating, &stuck()), Act::Promote { .. }));
        let incident = Incident { reported_at: at(NOW - 5), revoke_at: at(NOW + 5) };
        let stolen = Desired { incidents: vec![incident], ..refused_for_good() };
        assert!(matches!(act(&stolen, &stuck()), Act::Promote { .. }));
    }
}
