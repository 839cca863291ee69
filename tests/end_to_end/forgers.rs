//! Tests an attacker who may write a parameter, and nothing else, while an incident is handled.

use chrono::{SecondsFormat, TimeDelta, Utc};

use super::cloudflare_r2::{Account, ID, Pair};
use super::incidents::{INCIDENT, Trail, report_of, state_is};
use super::project::Project;
use super::ssm;
use super::world::eventually;

/// Returns keyturn's description of a version, changed as if it were the next version and made after every
/// later report.
fn as_if_made_later(genuine: &str) -> String {
    let (before, seal) = genuine.split_at(genuine.find(" req=").expect("a stamp"));
    let made = before.rsplit_once(" at=").expect("a stamp").0;
    let at = (Utc::now() + TimeDelta::days(365)).to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("{made} at={at}{seal}").replace(" id=1 v=", " id=2 v=")
}

#[test]
#[ignore = "needs the world"]
fn what_somebody_writes_in_the_name_of_keyturn_contains_no_incident() {
    let project = Project::new("forged");
    project.apply(&project.secret("token", "TOKEN", "  hosts: [{name: web}]\n"));
    project.settled("token");
    let path = project.path("TOKEN");
    let (stolen, genuine) = (ssm::value(&path).unwrap(), ssm::description(&path));
    report_of(&project, "token", "15m");
    // This is all that is needed to claim that nothing from before is left.
    let forged = as_if_made_later(&genuine).replace(" v=1 ", " v=2 ");
    assert_ne!(forged, genuine);
    ssm::put_described(&path, &stolen, &forged);
    state_is(&project, "Contained");
    let running = project.running("TOKEN");
    assert!(running.is_some() && running != Some(stolen), "the host does not run what was stolen");
    assert_eq!(running, ssm::value(&path));
    eventually("it is told", || {
        let events = project.kubectl(&["get", "events", "--output", "jsonpath={.items[*].reason}"]);
        let told = ["ForgedStamp", "ForeignWriteReplaced"].iter().any(|reason| events.contains(reason));
        if told { Ok(()) } else { Err(events) }
    });
}

/// Asserts that the incident is not contained, since the stolen pair works.
fn is_not_said_to_be_contained(account: &Account, stolen: &Pair, after: &str) {
    let state = account.project.field(INCIDENT, "/status/state");
    assert_ne!(state, "Contained", "after {after}");
    assert_eq!(account.list(stolen), "200", "after {after}: its deletion fails");
}

#[test]
#[ignore = "needs the world"]
fn who_may_write_a_parameter_falsifies_no_incident_and_has_no_token_of_others_deleted() {
    let account = Account::with_a_pair_in_use("forger", 8, "");
    let project = &account.project;
    let trail = Trail::start();
    // Without this, the attacker's write over a new value would wait for a person, until the time of the
    // revocation.
    let replaces = r#"{"spec": {"rotation": {"onDrift": "Rotate"}}}"#;
    project.kubectl(&["patch", "managedsecret", "r2", "--type", "merge", "--patch", replaces]);
    project.request("r2", "once");
    assert_eq!(project.answered("r2", "once"), "Succeeded");
    project.settled("r2");
    let (path, stolen, others) = (project.path(ID), account.published(), account.token_of_somebody_else());
    let genuine = ssm::description(&path);
    let of_another_owner = as_if_made_later(&genuine).replace("owner=world/", "owner=elsewhere/");
    assert_ne!(of_another_owner, as_if_made_later(&genuine));

    // The stolen pair works during all of the attacker's attempts.
    account.deletions_fail();
    report_of(project, "r2", "15m");
    let tries = [
        ("the stolen pair in keyturn's name, made after the report", &stolen.id, as_if_made_later(&genuine)),
        ("the stolen pair with what keyturn wrote about it", &stolen.id, genuine.clone()),
        ("the stolen pair in the name of another owner", &stolen.id, of_another_owner),
        ("the token of somebody else, in keyturn's name", &others, as_if_made_later(&genuine)),
        ("no token at all, so that the stolen one is not named anywhere", &"none".to_owned(), String::new()),
    ];
    let mallory = ssm::User::new("mallory");
    for (what, id, description) in &tries {
        mallory.put(&path, id, description);
        eventually(&format!("keyturn publishes a pair of its own after {what}"), || {
            is_not_said_to_be_contained(&account, &stolen, what);
            let now = account.published();
            if now != stolen && now.id != **id && account.list(&now) == "200" { Ok(()) } else { Err(now.id) }
        });
    }
    account.no_fault();
    state_is(project, "Contained");
    account.refused(&stolen);
    project.settled("r2");
    account.only_the_published_lives();
    let report = trail.report(project);
    let his: Vec<&str> = report.lines().filter(|line| line.contains("user/mallory")).collect();
    let writes = his.iter().filter(|line| line.contains("PutParameter")).count();
    assert!(writes >= tries.len(), "{writes} of {} writes are in the report:\n{report}", tries.len());
}
