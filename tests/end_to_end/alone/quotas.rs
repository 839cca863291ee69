//! Tests an account whose Parameter Store accepts one call per second: keyturn waits, and does nothing twice.

use keyturn_aws_emulator::Quota;

use crate::controller::Environment;
use crate::faults;
use crate::project::Project;
use crate::ssm;

#[test]
#[ignore = "needs the world"]
fn an_ssm_that_takes_one_call_a_second_is_waited_for() {
    // The quotas apply to every caller.
    let project = Project::alone_without_host("quota");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = faults::proxy(&runtime);
    // The rates are the chart's and not the world's, and the grace leaves time to retry a call.
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
