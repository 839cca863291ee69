//! The verdict on a host when one parameter is wrong, for the other parameters.

use serde_json::json;

use super::host::Line;
use super::judge;
use super::proof::Proofs;
use crate::api::docker_host::Proof;
use crate::api::docker_host::RunResult;
use crate::deploy::report::Report;
use crate::deploy::task::Task;
use crate::text::HostText;

/// Builds a task of parameters with one variable each.
fn task(parameters: &[(&str, &str)]) -> Task {
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(path, variable)| {
            json!({
                "path": path, "version": 1, "publishedAt": 0, "env": [variable],
                "key": "00".repeat(32), "mac": "00".repeat(32), "trimmedMac": null,
            })
        })
        .collect();
    serde_json::from_value(json!({
        "mode": "Deploy", "revision": "a", "attempt": 1,
        "ssh": {"host": "web.example", "port": 22, "user": "deploy"}, "jump": null, "knownHosts": [],
        "sudo": false, "composeProject": "app", "deployScript": "true", "deployTimeoutSeconds": 60,
        "verifyScript": null, "verifyTimeoutSeconds": 60, "parameters": parameters,
        "managed": {"key": "00".repeat(32), "values": [], "hidden": [], "unsearched": null},
    }))
    .unwrap()
}

/// Judges a host on which the first parameter is proven and the second differs.
fn judged(task: &Task, verify_code: i32) -> Report {
    let container = || HostText::name("app");
    let lines =
        [Line::Same { check: 0, container: container() }, Line::Differs { check: 1, container: container() }];
    judge(task, &Proofs::of(task, &lines), &[], verify_code)
}

#[test]
fn a_parameter_that_differs_keeps_no_other_from_being_proven() {
    let task = task(&[("/shop/TOKEN", "TOKEN"), ("/shop/KEY", "KEY")]);
    let report = judged(&task, 0);
    assert_eq!((report.outcome, report.verified), (RunResult::NotAdopted, true));
    let proofs: Vec<Proof> = report.parameters.iter().map(|parameter| parameter.proof).collect();
    assert_eq!(proofs, [Proof::Proven, Proof::Differs]);
    let unverified = judged(&task, 1);
    assert!(unverified.parameters.iter().all(|parameter| parameter.proof != Proof::Proven));
}

#[test]
fn two_parameters_in_one_variable_are_named_with_the_way_out() {
    let apart = judged(&task(&[("/shop/TOKEN", "TOKEN"), ("/blog/TOKEN", "BLOG_TOKEN")]), 0).message;
    assert!(!apart.contains("looks for both"), "{apart}");
    let together = judged(&task(&[("/shop/TOKEN", "TOKEN"), ("/blog/TOKEN", "TOKEN")]), 0).message;
    assert!(
        together.contains("looks for both /blog/TOKEN and /shop/TOKEN in the variable TOKEN"),
        "{together}"
    );
    assert!(together.contains("hosts[].env"), "{together}");
}

#[test]
fn a_message_names_a_few_of_many_containers() {
    let names: Vec<String> = (0..5000).map(|n| format!("container-{n}")).collect();
    let task = task(&[("/shop/TOKEN", "TOKEN")]);
    let report = judge(&task, &Proofs::of(&task, &[]), &names, 0);
    assert!(report.message.ends_with("container-4 and 4995 more"), "{}", report.message);
}
