//! Tests the runbook as YAML, applied as its page says. The names in it are fixed; only README's test uses them too,
//! and runs alone.

use std::path::Path;

use super::project::Project;
use super::ssm;
use super::world::{eventually, in_box, run, run_with, try_run, variable};

const ENVIRONMENTS: [&str; 2] = ["production", "staging"];
const PARAMETERS: [&str; 5] =
    ["DB_PASSWORD", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "RUNNER_TOKEN", "WEBHOOK_SECRET_KEY"];
/// Secrets of each environment.
const SECRETS: usize = 4;
const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const ADMIN: &str = "administering-token-of-the-examples";

/// Removes both environments: objects, parameters, containers and the databases' data.
pub(crate) fn empty() {
    for environment in ENVIRONMENTS {
        let namespace = format!("musehub-{environment}");
        // They are deleted before their host and grant, since without those the deletion would take longer. Incidents
        // come first, since secrets wait for them.
        for kind in ["secretincidents", "managedsecrets"] {
            let _ = try_run("kubectl", &["delete", kind, "--all", "-n", &namespace, "--timeout=180s"]);
        }
        run("kubectl", &["delete", "namespace", &namespace, "--ignore-not-found", "--timeout=180s"]);
        run("kubectl", &["delete", "rotationgrant", &namespace, "--ignore-not-found"]);
        // README's installation is called prod.
        for folder in ["keyturn/world/musehub-", "keyturn/prod/musehub-", "musehub/"] {
            ssm::delete_below(&format!("/{folder}{environment}"));
        }
        let project = if environment == "production" { "musehub" } else { "musehub-staging" };
        in_box("production", &format!("docker compose -p {project} down --volumes --timeout 2 2>&1"));
    }
}

/// Fills the reader's own host, key and choice into the files.
fn filled_in(folder: &Path) {
    let known_hosts = std::fs::read_to_string(variable("KEYTURN_HOST_KNOWN_HOSTS")).unwrap();
    let line = known_hosts.lines().next().unwrap();
    for environment in ENVIRONMENTS {
        let folder = folder.join(environment);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let text: String = text
                .lines()
                .map(|text| match text.trim_start() {
                    key if key.starts_with("- \"musehub.example ssh-") => format!("      - \"{line}\"\n"),
                    "# ifMissing: Create" => "    ifMissing: Create\n".to_owned(),
                    _ => format!("{text}\n"),
                })
                .collect();
            let text = text
                .replace("musehub.example", &variable("KEYTURN_HOST"))
                .replace("user: deploy", &format!("user: {}", variable("KEYTURN_HOST_USER")));
            std::fs::write(&path, text).unwrap();
        }
        std::fs::copy(variable("KEYTURN_HOST_KEY"), folder.join("musehub-key.pem")).unwrap();
        std::fs::write(folder.join("cloudflare.token"), ADMIN).unwrap();
    }
}

/// Applies the example incident with the present time as time of report: the app's own logins are in its report.
fn the_incident_shows_who_used_the_password(folder: &Path) {
    let text = |at: chrono::DateTime<chrono::Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let now = chrono::Utc::now();
    let yaml = std::fs::read_to_string(folder.join("incident.yaml")).unwrap();
    let yaml = yaml.replace("2026-11-23T12:00:00Z", &text(now));
    let yaml = yaml.replace("2026-11-20T00:00:00Z", &text(now - chrono::TimeDelta::hours(1)));
    // Logs are collected when the hosts' time is over, whether or not the incident is contained.
    let yaml = yaml.replace("revokeWithin: 15m", "revokeWithin: 1m");
    run_with("kubectl", &["apply", "-f", "-"], &yaml);
    let namespaced = ["-n", "musehub-production", "secretincident/stolen-laptop"];
    eventually("the log lines of the example are collected", || {
        let conditions = "jsonpath={.status.conditions[?(@.type==\"LogsCollected\")]}";
        let said = run("kubectl", &[&["get"][..], &namespaced, &["-o", conditions]].concat());
        if said.contains(r#""status":"True""#) { Ok(()) } else { Err(said) }
    });
    let report =
        run("keyturn", &["incident", "report", "stolen-laptop", "-n", "musehub-production", "--status-only"]);
    println!("{report}");
    assert!(report.contains("connection authorized: user=musehub database=musehub"), "{report}");
}

#[test]
#[ignore = "needs the world"]
fn the_whole_runbook_comes_up_in_an_empty_world_by_one_command() {
    let _shares = Project::without_host("examples");
    empty();
    let copy = tempfile::tempdir().unwrap();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/musehub");
    run("cp", &["-r", examples, copy.path().to_str().unwrap()]);
    let folder = copy.path().join("musehub");
    filled_in(&folder);

    let account = format!("{}/_emulator/accounts/{ACCOUNT}", variable("KEYTURN_CLOUDFLARE"));
    let buckets = r#"[{"name": "musehub-objects"}, {"name": "musehub-staging-objects"}]"#;
    let body = format!(r#"{{"admin": "{ADMIN}", "buckets": {buckets}}}"#);
    run("curl", &["-sf", "-X", "PUT", &account, "-H", "content-type: application/json", "-d", &body]);

    run("kubectl", &["apply", "-k", folder.to_str().unwrap()]);
    for environment in ENVIRONMENTS {
        let namespace = format!("musehub-{environment}");
        let settled = |kind: &str| {
            let conditions = format!(
                "{{range .items[*]}}{{.metadata.name}} {{.status.conditions[?(@.type==\"{kind}\")].status}}{{\"\\n\"}}{{end}}"
            );
            let query = format!("jsonpath={conditions}");
            run("kubectl", &["-n", &namespace, "get", "managedsecrets", "-o", &query])
        };
        eventually(&format!("every secret of {environment} is Ready and deployed"), || {
            let (ready, deployed) = (settled("Ready"), settled("Deployed"));
            let all = |text: &str| {
                text.lines().count() == SECRETS && text.lines().all(|line| line.ends_with(" True"))
            };
            if all(&ready) && all(&deployed) { Ok(()) } else { Err(format!("{ready}\n{deployed}")) }
        });
        for parameter in PARAMETERS {
            let path = format!("/musehub/{environment}/{parameter}");
            assert_eq!(ssm::kind(&path).as_deref(), Some("SecureString"), "{path}");
            assert_eq!(ssm::version(&path), Some(1), "{path}");
        }
    }
    // The runbook's own verification, in both environments.
    for port in [1337, 2337] {
        in_box("production", &format!("curl -skf https://localhost:{port}/explore >/dev/null"));
    }
    the_incident_shows_who_used_the_password(&folder);
    empty();
}
