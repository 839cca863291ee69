use serde_json::{Value, json};

use super::*;

fn secret(spec: Value) -> ManagedSecretSpec {
    let mut whole = json!({
        "ssm": {"parameters": [{"path": "/shop/TOKEN"}]},
        "generate": {"hex": {"bytes": 32}}, "rotation": {"period": "90d"},
    });
    for (name, value) in spec.as_object().unwrap() {
        whole[name] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn host(line: &str) -> DockerHostSpec {
    let spec = json!({
        "ssh": {
            "host": "shop.example", "user": "deploy", "keySecretRef": {"name": "key", "key": "id"},
            "knownHosts": [line],
        },
        "docker": {"composeProject": "shop"}, "deploy": {"script": "true"},
    });
    serde_json::from_value(spec).unwrap()
}

fn text(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn windows_are_checked_beyond_their_form() {
    let cases = [
        ("0 3 * * 1-4", "2h", "Europe/Berlin", ""),
        ("0 3 * * MON-THU", "2h", "UTC", ""),
        ("0 0 29 2 *", "1d", "Etc/GMT+5", ""),
        ("*/15 0-4 1,15 * *", "10m", "America/New_York", ""),
        ("5/15 0-59/2 LW * *", "10m", "UTC", "schedule"),
        ("5/15 0-23/2 LW * *", "10m", "UTC", ""),
        ("61 3 * * *", "2h", "UTC", "schedule"),
        ("0 24 * * *", "2h", "UTC", "schedule"),
        ("0 3 30 2 *", "2h", "UTC", "schedule"),
        ("0 3 * 13 *", "2h", "UTC", "schedule"),
        ("0 3 * *", "2h", "UTC", "schedule"),
        ("0 0 3 * * *", "2h", "UTC", "schedule"),
        ("0 3 * * *", "9999d", "UTC", "duration"),
        ("0 3 * * *", "2h", "Mars/Phobos", "timeZone"),
        ("0 3 * * *", "2h", "posixrules", "timeZone"),
        ("0 3 * * *", "2h", "europe/berlin", "timeZone"),
        ("0 3 * * *", "2h", "Etc/Unknown", "timeZone"),
    ];
    for (schedule, duration, zone, wrong) in cases {
        let window = json!({"schedule": schedule, "duration": duration, "timeZone": zone});
        let problems = managed_secret(&secret(json!({"rotation": {"period": "90d", "windows": [window]}})));
        let fields: Vec<&str> = problems.iter().map(|p| p.field.as_str()).collect();
        let expected: Vec<String> =
            if wrong.is_empty() { vec![] } else { vec![format!("spec.rotation.windows[0].{wrong}")] };
        assert_eq!(fields, expected, "{schedule} {duration} {zone}: {}", text(&problems));
    }
}

#[test]
fn a_problem_says_where_and_what_instead() {
    let window = json!({"schedule": "0 3 30 2 *", "duration": "2h"});
    let problems = managed_secret(&secret(json!({"rotation": {"mode": "OnDemand", "windows": [window]}})));
    assert_eq!(
        text(&problems),
        r#"spec.rotation.windows[0].schedule: "0 3 30 2 *" never occurs: there is no such day"#
    );
}

#[test]
fn what_is_published_must_fit_into_a_parameter() {
    let parameter = |value: &str| json!({"parameters": [{"path": "/shop/TOKEN", "value": value}]});
    let fits = |generate: Value, value: &str| {
        managed_secret(&secret(json!({"generate": generate, "ssm": parameter(value)}))).is_empty()
    };
    assert!(fits(json!({"hex": {"bytes": 1024}}), &format!("{{value}}{}", "x".repeat(2048))));
    assert!(!fits(json!({"hex": {"bytes": 1024}}), &format!("{{value}}{}", "x".repeat(2049))));
    assert!(fits(json!({"hex": {"bytes": 1024}}), "{value}{value}"));
    assert!(!fits(json!({"hex": {"bytes": 1024}}), "{value}{value}{value}"));
    assert!(fits(json!({"base64": {"bytes": 1024}}), "{value}{value}"));
    assert!(fits(json!({"password": {"length": 256}}), &"{value}".repeat(16)));
    assert!(!fits(json!({"password": {"length": 256}}), &format!("{} ", "{value}".repeat(16))));
    assert!(!fits(json!({"fernet": {"keepPrevious": 9}}), &"{value}".repeat(10)));
}

#[test]
fn known_hosts_lines_must_be_able_to_vouch_for_somebody() {
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let cases = [
        (format!("shop.example ssh-ed25519 {key}"), ""),
        (format!("[shop.example]:2222,10.0.0.7 ssh-ed25519 {key} a comment"), ""),
        (format!("|1|c2FsdA==|aGFzaA== ssh-ed25519 {key}"), ""),
        (format!("@cert-authority *.example ssh-ed25519 {key}"), ""),
        (format!("@revoked * ssh-ed25519 {key}"), ""),
        (format!("@trusted * ssh-ed25519 {key}"), "marker"),
        ("shop.example ssh-ed25519".to_owned(), "three parts"),
        (format!("ssh-ed25519 {key}"), "three parts"),
        (format!("shop.example ssh-rsa {key}"), "another kind"),
        ("shop.example ssh-ed25519 SHA256:x/y".to_owned(), "not base64"),
        ("shop.example ssh-ed25519 AAAAC3Nz".to_owned(), "cut off"),
        ("shop.example ssh-ed25519 AA".to_owned(), "cut off"),
        // Output of ssh-keyscan, and the forms that editors and people give it.
        (format!("# shop.example:22 SSH-2.0-OpenSSH_9.9\nshop.example ssh-ed25519 {key}\n"), ""),
        (format!("# a\r\n\r\n \tshop.example\tssh-ed25519\t{key}\r\n\r\n"), ""),
        (format!("shop.example ssh-ed25519 {key}\nwww.example ssh-ed25519 {key}"), ""),
        (format!("shop.example ssh-ed25519 {key}\n\n@trusted * ssh-ed25519 {key}\n"), "line 3: begins with"),
        (String::new(), "holds no host key"),
        (" \r\n\t\n".to_owned(), "holds no host key"),
        (format!("# shop.example ssh-ed25519 {key}"), "holds no host key"),
        // Double-quoted text in YAML: its two lines have become one comment.
        (format!("# shop.example:22 SSH-2.0-OpenSSH_9.9 shop.example ssh-ed25519 {key}"), "below a - |"),
    ];
    for (line, expected) in cases {
        let problems = text(&docker_host(&host(&line)));
        assert_eq!(problems.is_empty(), expected.is_empty(), "{line}: {problems}");
        assert!(problems.contains(expected), "{line}: {problems}");
    }
}

#[test]
fn scripts_are_given_a_day_at_most() {
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let mut spec = host(&format!("shop.example ssh-ed25519 {key}"));
    spec.deploy.timeout = Some(crate::duration::Duration("24h".into()));
    assert_eq!(docker_host(&spec), []);
    spec.deploy.timeout = Some(crate::duration::Duration("15d".into()));
    assert_eq!(text(&docker_host(&spec)), "spec.deploy.timeout: must be at most 1d");
}

fn login(postgres: Value, templates: &[Option<&str>]) -> String {
    let parameters: Vec<Value> = templates
        .iter()
        .enumerate()
        .map(|(i, value)| json!({"path": format!("/app/P{i}"), "value": value}))
        .collect();
    let mut source = json!({"host": "db.internal", "database": "app"});
    source.as_object_mut().unwrap().extend(postgres.as_object().unwrap().clone());
    let spec = json!({
        "ssm": {"parameters": parameters}, "generate": {"postgres": source}, "rotation": {"period": "90d"},
    });
    text(&managed_secret(&serde_json::from_value(spec).unwrap()))
}

#[test]
fn a_login_must_be_published_with_what_changes() {
    let single = || json!({"singleRole": {"name": "app"}});
    let pair = || json!({"alternatingRoles": {"names": ["a", "b"], "owner": "app"}});
    assert_eq!(login(single(), &[None]), "");
    assert_eq!(login(pair(), &[Some("postgresql://{username}:{password}@db/app")]), "");
    assert_eq!(login(pair(), &[Some("{username}"), None]), "");
    assert!(login(single(), &[Some("{username}")]).contains("no parameter holds the password"));
    assert!(login(pair(), &[None]).contains("a parameter must hold {username}"));
    let hex = json!({
        "ssm": {"parameters": [{"path": "/app/A", "value": "{username}:{value}"}]}, "generate": {"hex": {"bytes": 32}},
        "rotation": {"period": "90d"},
    });
    let said = text(&managed_secret(&serde_json::from_value(hex).unwrap()));
    assert!(said.contains("{username} is not known with generate.hex: use {value} or {password}"), "{said}");
}

#[test]
fn a_server_that_is_reached_directly_is_spoken_to_over_tls_only() {
    let single = json!({"singleRole": {"name": "app"}, "tls": {"mode": "Disable"}});
    assert!(login(single, &[None]).contains("spec.generate.postgres.tls.mode"));
    let through = |tls: Value| {
        let mut source = json!({"singleRole": {"name": "app"}, "via": {"dockerHost": "web"}, "tls": tls});
        source["host"] = Value::Null;
        login(source, &[None])
    };
    assert_eq!(through(json!({})), "");
    assert!(through(json!({"mode": "VerifyFull"})).contains("serverName"));
    assert_eq!(through(json!({"mode": "VerifyFull", "serverName": "db.internal"})), "");
}

#[test]
fn a_key_pair_is_published_so_that_it_can_be_read_back() {
    let problems = |source: Value, template: &str| {
        let spec = json!({
            "ssm": {"parameters": [{"path": "/shop/R2", "value": template}]},
            "generate": source, "rotation": {"period": "90d"},
        });
        text(&managed_secret(&serde_json::from_value(spec).unwrap()))
    };
    let r2 = || {
        json!({"cloudflareR2": {
            "accountId": "0123456789abcdef0123456789abcdef", "buckets": ["media"],
            "tokenSecretRef": {"name": "cloudflare", "key": "token"},
        }})
    };
    for sound in [
        "{accessKeyId}",
        "{accessKeyId}:{secretAccessKey}",
        "s3://{accessKeyId}:{secretAccessKey}@media",
        r#"{"id": "{accessKeyId}", "secret": "{secretAccessKey}"}"#,
    ] {
        assert_eq!(problems(r2(), sound), "", "{sound}");
    }
    for blurred in ["{accessKeyId}{secretAccessKey}", "key{accessKeyId}", "{secretAccessKey}0"] {
        assert!(problems(r2(), blurred).contains("keyturn could not read the pair back"), "{blurred}");
    }
    assert!(problems(r2(), "{value}").contains("{value} is not known with generate.cloudflareR2"));
    let hex = json!({"hex": {"bytes": 32}});
    assert!(problems(hex, "{value}{accessKeyId}").contains("{accessKeyId} is not known with generate.hex"));
}
