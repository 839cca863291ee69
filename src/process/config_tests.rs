use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ControllerArgs,
}

fn parse(extra: &[&str]) -> Result<ControllerArgs, String> {
    let base = ["keyturn", "--namespace=keyturn", "--job-image=keyturn:dev", "--aws-region=us-east-1"];
    Cli::try_parse_from(base.iter().chain(extra)).map(|cli| cli.args).map_err(|e| e.to_string())
}

#[test]
fn the_defaults_are_those_that_the_reconcilers_ship_with() {
    let settings = parse(&["--cluster=prod"]).unwrap().settings().unwrap();
    let shipped = Settings::new("prod", "us-east-1");
    assert_eq!(format!("{settings:?}"), format!("{shipped:?}"));
}

#[test]
fn an_http_address_is_refused_unless_it_is_allowed() {
    let shipped = parse(&["--cluster=c"]).unwrap();
    assert!(!shipped.sources.addresses().is_empty());
    for (flag, address) in shipped.sources.addresses() {
        let argument = format!("{flag}={}", address.replace("https://", "http://"));
        let refused = parse(&["--cluster=c", &argument]).unwrap().settings().unwrap_err().to_string();
        assert!(refused.contains(flag) && refused.contains("use https"), "{refused}");
        parse(&["--cluster=c", &argument, "--allow-http=true"]).unwrap().settings().unwrap();
    }
}

#[test]
fn every_time_reaches_its_setting() {
    let times = [
        "--cluster=c",
        "--staging=/st/c",
        "--grace=3s",
        "--first-rotation-delay=0",
        "--backlog-spread=0s",
        "--retire-after=250ms",
        "--orphans-after=20m",
        "--deletion=2h",
        "--backoff-initial=1s",
        "--backoff-max=4s",
        "--coalesce=2s",
        "--attempts=2",
    ];
    let settings = parse(&times).unwrap().settings().unwrap();
    assert_eq!(settings.staging, "/st/c");
    assert_eq!(settings.grace, TimeDelta::seconds(3));
    assert_eq!(settings.first_rotation_delay, TimeDelta::zero());
    assert_eq!(settings.backlog_spread, TimeDelta::zero());
    assert_eq!(settings.retire_after, TimeDelta::milliseconds(250));
    assert_eq!(settings.orphans_after, TimeDelta::minutes(20));
    assert_eq!(settings.deletion, TimeDelta::hours(2));
    assert_eq!(settings.backoff_initial, TimeDelta::seconds(1));
    assert_eq!(settings.backoff_max, TimeDelta::seconds(4));
    assert_eq!(settings.coalesce, TimeDelta::seconds(2));
    assert_eq!(settings.attempts, 2);
}

#[test]
fn the_cluster_is_required_and_one_path_segment() {
    assert!(parse(&[]).unwrap_err().contains("--cluster"));
    for bad in ["", "a/b", "/a", "a b", "ü", &"x".repeat(64)] {
        let error = parse(&[&format!("--cluster={bad}")]).unwrap_err();
        assert!(error.contains("path segment") || error.contains("must be set"), "{bad}: {error}");
    }
}

#[test]
fn staging_is_an_absolute_path_outside_of_what_aws_reserves() {
    for bad in ["", "/", "keyturn", "/keyturn/", "/a//b", "/aws/x", "/SSM-x", "/a b"] {
        assert!(staging(bad).is_err(), "{bad}");
    }
    assert_eq!(staging("/keyturn/prod"), Ok("/keyturn/prod".into()));
}

#[test]
fn a_duration_is_a_whole_number_and_a_unit() {
    assert_eq!(duration("250ms"), Ok(TimeDelta::milliseconds(250)));
    assert_eq!(duration("3s"), Ok(TimeDelta::seconds(3)));
    assert_eq!(duration("15m"), Ok(TimeDelta::minutes(15)));
    assert_eq!(duration("1d"), Ok(TimeDelta::days(1)));
    for bad in
        ["", "s", "15", "-1s", "+1s", "1.5h", "1h30m", "9999999999999999999s", "3651d", "1 s", "1S", "1ü"]
    {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn lease_times_that_would_let_two_replicas_work_are_refused() {
    let order = |args: &[&str]| {
        parse(&[&["--cluster=c"], args].concat()).unwrap().settings().unwrap_err().to_string()
    };
    assert!(order(&["--lease-renew-deadline=15s"]).contains("--lease-duration"));
    assert!(order(&["--lease-retry-period=10s"]).contains("--lease-renew-deadline"));
    assert!(order(&["--lease-duration=15500ms"]).contains("whole number of seconds"));
    assert!(order(&["--backoff-initial=2h"]).contains("--backoff-max"));
}

#[test]
fn an_expected_reader_that_cloudtrail_cannot_name_is_refused() {
    let readers = |text: &str| {
        let settings = parse(&["--cluster=c", &format!("--expected-readers={text}")])?.settings();
        Ok::<_, String>(settings.unwrap().expected_readers)
    };
    assert_eq!(readers(""), Ok(Vec::new()));
    let keyturn =
        r#"[{"principal": "arn:aws:sts::123456789012:assumed-role/keyturn/*", "networks": ["10.0.0.0/8"]}]"#;
    assert_eq!(
        readers(keyturn).map(|readers| readers[0].networks.clone()),
        Ok(vec!["10.0.0.0/8".to_owned()])
    );
    let error = readers(r#"[{"principal": "arn:aws:iam::123456789012:policy/x"}]"#).unwrap_err();
    assert!(error.contains("policy/x") && error.contains("must be the ARN of a role"), "{error}");
}

#[test]
fn an_empty_list_of_namespaces_means_all() {
    assert_eq!(parse(&["--cluster=c", "--watch-namespaces="]).unwrap().namespaces(), Vec::<String>::new());
    assert_eq!(parse(&["--cluster=c", "--watch-namespaces=a,b"]).unwrap().namespaces(), ["a", "b"]);
    assert!(parse(&["--cluster=c", "--watch-namespaces=A"]).is_err());
}
