use super::*;
use crate::parameter_store::budget::Rates;

fn wanted(entries: &[&str]) -> (Vec<String>, Vec<String>) {
    let Wanted { folders, names } =
        Wanted::new(&entries.iter().map(|&s| s.to_owned()).collect::<Vec<String>>());
    (folders, names)
}

#[test]
fn a_parameter_is_asked_for_once() {
    let cases: [(&[&str], &[&str], &[&str]); 6] = [
        (&[], &[], &[]),
        (&["/a/", "/a/b/", "/a/", "/a/c"], &["/a"], &[]),
        (&["/a/", "/ab/", "/abc", "/a"], &["/a", "/ab"], &["/a", "/abc"]),
        (&["/x/y", "/x/y", "/x"], &[], &["/x", "/x/y"]),
        (&["/", "/a/", "/b"], &["/"], &[]),
        (&["/a/b/", "/a/bc/", "/a/b"], &["/a/b", "/a/bc"], &["/a/b"]),
    ];
    for (entries, folders, names) in cases {
        assert_eq!(
            wanted(entries),
            (folders.iter().map(|&s| s.to_owned()).collect(), names.iter().map(|&s| s.to_owned()).collect()),
            "{entries:?}"
        );
    }
}

#[test]
fn every_call_ends_well_below_the_grace() {
    for seconds in [1, 5, 10, 60, 900, 86400] {
        let grace = Duration::from_secs(seconds);
        let limits = CallLimits::below(grace);
        assert!(limits.longest() <= grace.mul_f64(0.6), "{seconds} s");
        assert!(limits.connect < limits.attempt && limits.attempt < limits.total);
    }
    assert_eq!(CallLimits::below(Duration::from_secs(900)), CallLimits::default());
}

#[test]
fn pauses_grow_and_stay_in_their_range() {
    for retry in 1..=RETRIES {
        let full = FIRST_RETRY_AFTER * 2_u32.pow(retry - 1);
        let pause = pause_before(retry);
        assert!(pause <= full && pause * 2 >= full, "{retry}: {pause:?}");
    }
}

#[tokio::test]
async fn a_write_whose_guard_says_no_is_never_sent_and_a_read_is() {
    let calls = SsmCalls::default();
    let config = aws_sdk_ssm::Config::builder()
        .behavior_version_latest()
        .region(aws_sdk_ssm::config::Region::new("us-east-1"))
        .credentials_provider(aws_sdk_ssm::config::Credentials::new("id", "key", None, None, "test"))
        // Nobody listens there: every request fails and is counted.
        .endpoint_url("http://127.0.0.1:1");
    let limits = CallLimits { total: Duration::from_secs(1), ..CallLimits::default() };
    let store = SsmParameterStore::new(
        config,
        "/keyturn/test",
        limits,
        Arc::new(Budget::new(Rates::default())),
        calls.clone(),
    )
    .guarded_by(Arc::new(|| false));
    let refused = store.delete("/a/b").await.unwrap_err();
    assert!(refused.to_string().contains("does not lead"), "{refused}");
    assert_eq!(calls.get("DeleteParameter", "unavailable"), 0);
    store.read("/a/b", None).await.unwrap_err();
    assert!(calls.get("GetParameter", "unavailable") > 0);
}
