//! Parameter Store that throttles, refuses or hangs: a condition with the cause, and recovery by itself.
//!
//! For the length of this test the controller reaches the world's SSM through a proxy that disturbs calls about this
//! test's own parameters. Other tests see a restart of the controller, which they have to survive anyway.

use keyturn_aws_emulator::{Emulator, Fault, Quota, Rule, Upstream};

use crate::controller::Environment;
use crate::project::Project;
use crate::ssm;
use crate::world::variable;

const SECRET: &str = "managedsecret/token";

/// A proxy before the world's SSM, at an address that pods reach.
pub fn proxy(runtime: &tokio::runtime::Runtime) -> Emulator {
    let world_ssm = variable("AWS_ENDPOINT_URL_SSM");
    let machine = world_ssm.trim_start_matches("http://").split(':').next().unwrap();
    let upstream = Upstream::new(&world_ssm).unwrap();
    runtime.block_on(Emulator::listen(&format!("{machine}:0"), Some(upstream))).unwrap()
}

#[test]
#[ignore = "needs the world"]
fn an_ssm_that_throttles_refuses_or_hangs_is_told_and_the_rotation_ends_once_it_works() {
    let project = Project::without_host("ssm");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = proxy(&runtime);
    let _detour = Environment::set(&[("AWS_ENDPOINT_URL_SSM", &proxy.url())]);

    project.apply(&project.secret("token", "TOKEN", ""));
    project.wait(SECRET, "Ready", "True");
    project.wait(SECRET, "Rotating", "False");
    let path = project.path("TOKEN");
    let faults = [
        (Fault::Throttle, "SSMThrottled"),
        (Fault::AccessDenied, "SSMDenied"),
        (Fault::Hang { applied: false }, "SSMNoAnswer"),
        (Fault::Hang { applied: true }, "SSMNoAnswer"),
    ];
    for (round, (fault, reason)) in faults.into_iter().enumerate() {
        let (token, values) = (format!("round-{round}"), round + 2);
        proxy.add_fault(Rule::once("PutParameter", fault.clone()).on(&path).always()).unwrap();
        project.request("token", &token);
        if matches!(fault, Fault::Hang { applied: true }) {
            // Found by reading back what the call without an answer has done.
            assert_eq!(project.answered("token", &token), "Succeeded", "{fault:?}");
            proxy.clear_faults();
        } else {
            let message = crate::world::eventually(&format!("{fault:?} is told"), || {
                let (_, now, message) = project.condition(SECRET, "Ready");
                if now == reason { Ok(message) } else { Err(format!("{now}: {message}")) }
            });
            assert!(message.contains(&path), "{message}");
            proxy.clear_faults();
            assert_eq!(project.answered("token", &token), "Succeeded", "{fault:?}");
        }
        project.wait(SECRET, "Rotating", "False");
        assert_eq!(project.condition(SECRET, "Stalled").0, "", "{fault:?}");
        let mut distinct = ssm::all_values(&path);
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), values, "{fault:?}: one value for each request");
    }
    assert_eq!(ssm::records(&project.name), "");
}

#[test]
#[ignore = "needs the world"]
fn an_ssm_that_takes_one_call_a_second_is_waited_for() {
    // The quotas hold for whoever calls.
    let project = Project::alone_without_host("quota");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = proxy(&runtime);
    // The chart's own pace rather than the world's, and a grace that leaves time to try a call again.
    let _detour = Environment::set(&[
        ("AWS_ENDPOINT_URL_SSM", &proxy.url()),
        ("KEYTURN_GRACE", "30s"),
        ("KEYTURN_PUTS_PER_SECOND", "1"),
        ("KEYTURN_INVENTORY_INTERVAL", "5m"),
    ]);
    let slow = Quota { per_second: 1.0, burst: 1 };
    let operations =
        ["PutParameter", "GetParameter", "GetParameterHistory", "DescribeParameters", "DeleteParameter"];
    proxy.set_quotas(operations.map(|operation| (operation.to_owned(), slow)));

    let names = [("one", "ONE"), ("two", "TWO"), ("three", "THREE")];
    for (name, parameter) in names {
        project.apply(&project.secret(name, parameter, ""));
    }
    for (name, _) in names {
        let object = format!("managedsecret/{name}");
        project.wait(&object, "Ready", "True");
        project.wait(&object, "Rotating", "False");
        project.request(name, "t1");
    }
    for (name, parameter) in names {
        assert_eq!(project.answered(name, "t1"), "Succeeded");
        project.wait(&format!("managedsecret/{name}"), "Rotating", "False");
        let mut values = ssm::all_values(&project.path(parameter));
        values.sort();
        values.dedup();
        assert_eq!(values.len(), 2, "{parameter}: the first value, and one for the request");
    }
    assert_eq!(ssm::records(&project.name), "");
    let refused = proxy.calls().iter().filter(|call| call.outcome == "ThrottlingException").count();
    assert!(refused > 0, "nothing was throttled");
}
