//! Tests a Parameter Store that throttles, refuses or hangs: a condition with the cause, and recovery without a
//! person.
//!
//! During this test the controller reaches the world's SSM through a proxy that disturbs calls about this test's own
//! parameters. Other tests only see a restart of the controller, which they must survive anyway.

use keyturn_aws_emulator::{Emulator, Fault, Rule, Upstream};

use crate::controller::Environment;
use crate::project::Project;
use crate::ssm;
use crate::world::variable;

const SECRET: &str = "managedsecret/token";

/// Starts a proxy in front of the world's SSM, at an address that pods reach.
pub(crate) fn proxy(runtime: &tokio::runtime::Runtime) -> Emulator {
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
            // keyturn reads the history to see what the call without an answer has done.
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
