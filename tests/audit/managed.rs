//! Tests of managed values in images.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyturn::audit::managed::{ManagedValues, Matcher};
use keyturn::audit::{self, Allowances, Finding, Fingerprints, image};
use keyturn::secret_value::SecretValue;

use super::corpus::{cases, env, run};
use super::image::{Builder, Step, built};

const PATH: &str = "/musehub/production/WEBHOOK_KEY";
const VALUE: &str = "Correct horse A=1 & \"staple\"";

fn matcher() -> Matcher {
    let values = [(PATH.to_owned(), SecretValue::new(VALUE.to_owned()))];
    Matcher::new(&ManagedValues::new(&values, &[3; 32])).unwrap()
}

fn findings(steps: &[Step], builder: Builder, allowances: &Allowances) -> Vec<Finding> {
    let outputs = built("registry.example/team/app", steps, builder);
    let image = image::parse(&SecretValue::new(outputs.inspect), &SecretValue::new(outputs.history)).unwrap();
    audit::audit(&image, allowances, &Fingerprints::default(), Some(&matcher())).findings
}

#[test]
fn a_managed_value_is_one_finding_that_names_its_parameter() {
    let encoded = STANDARD.encode(format!("build of {VALUE} at noon"));
    let percent = "Correct%20horse%20A%3D1%20%26%20%22staple%22";
    let steps = [
        ("label", vec![Step::Label("org.example.build", encoded)], "label org.example.build"),
        ("env", vec![env("GREETING", VALUE)], "env GREETING"),
        ("url", vec![env("CALLBACK", format!("https://x.example/?k={percent}"))], "env CALLBACK"),
        ("hex", vec![run(format!("echo {} | xxd -r -p", hex::encode(VALUE)))], "history layer 1"),
        ("password", vec![env("DB_PASSWORD", VALUE)], "env DB_PASSWORD"),
    ];
    for (case, steps, place) in steps {
        for builder in [Builder::Classic, Builder::BuildKit] {
            let found = findings(&steps, builder, &Allowances::default());
            assert_eq!(found.len(), 1, "{case}: {found:#?}");
            let described = (found[0].to_string(), found[0].rule.id(), found[0].parameter.as_deref());
            assert_eq!(described, (place.to_owned(), "managed-value", Some(PATH)), "{case}");
        }
    }
}

#[test]
fn a_build_argument_that_is_torn_apart_is_found_all_the_same() {
    // The value contains a word that looks like the next argument.
    let steps = [Step::Arg("GREETING", VALUE.to_owned(), false), run("make")];
    for builder in [Builder::Classic, Builder::BuildKit] {
        let found = findings(&steps, builder, &Allowances::default());
        assert!(found.iter().any(|f| f.parameter.as_deref() == Some(PATH)), "{found:#?}");
    }
}

#[test]
fn an_allowed_variable_does_not_hide_a_managed_value() {
    let allowances = Allowances { variables: ["DB_PASSWORD".to_owned()].into(), ..Allowances::default() };
    let of = |value: &str| findings(&[env("DB_PASSWORD", value)], Builder::BuildKit, &allowances).len();
    assert_eq!((of("Winter-Garden-91"), of(VALUE)), (0, 1));
}

#[test]
fn no_clean_image_has_a_managed_value() {
    for case in cases() {
        let image = image::parse(
            &SecretValue::new(case.outputs.inspect.clone()),
            &SecretValue::new(case.outputs.history.clone()),
        );
        let found =
            audit::audit(&image.unwrap(), &Allowances::default(), &Fingerprints::default(), Some(&matcher()));
        assert!(found.findings.iter().all(|f| f.parameter.is_none()), "{}: {found:#?}", case.name);
    }
}
