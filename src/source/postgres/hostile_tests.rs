//! The harm that a malicious database server can do to the controller: it makes its own secrets fail, and
//! nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::hostile::{Bytes, Hostile, OWNER, PASSWORD, Plan, begun, message, ready, refusal, row, table};
use super::{Administrator, Limits, Postgres};
use crate::rotation::observed::Acceptance;
use crate::secret_value::SecretValue;
use crate::source::{Installs, Login, Roles, Sessions, SetUpMode, SetsUp, Target, TargetError};

const SESSION: usize = 16 << 20;
/// Bytes that may be in transit in addition to the counted ones: one read of the client library.
const READ: usize = 1 << 16;
/// The first query of every login.
const FIRST: &str = "pg_is_in_recovery";

fn login() -> Login {
    Login { username: "app".to_owned(), password: SecretValue::new(PASSWORD.to_owned()) }
}

fn target(server: Arc<Hostile>) -> Postgres {
    let yaml = "{via: {dockerHost: h}, database: d, singleRole: {name: app}, probes: [SELECT probe]}";
    let spec = serde_saphyr::from_str(yaml).unwrap();
    let admin = Administrator::named(login());
    Postgres::new(&spec, server, Some(admin), OWNER.to_owned(), false).unwrap()
}

const HIDDEN: &str = "name-that-only-the-secret-holds";

/// Builds a target whose administrator comes from a Secret.
fn target_of_secret(server: Arc<Hostile>) -> Postgres {
    let yaml = "{via: {dockerHost: h}, database: d, alternatingRoles: {names: [app_a, app_b], owner: app, bootstrap: \
                {from: app_old, mode: Apply}}}";
    let value = |text: &str| SecretValue::new(text.to_owned());
    let admin = Administrator::of_secret("db-admin", "username", value(HIDDEN), value(PASSWORD)).unwrap();
    let spec = serde_saphyr::from_str(yaml).unwrap();
    Postgres::new(&spec, server, Some(admin), OWNER.to_owned(), false).unwrap()
}

/// Returns the result of every call of a target, as conditions, Events and logs show it.
async fn said(target: &Postgres) -> Vec<String> {
    let app = Login { username: "app_a".to_owned(), password: SecretValue::new(PASSWORD.to_owned()) };
    vec![
        format!("{:?}", target.try_login(&app).await),
        format!("{:?}", target.observe().await),
        format!("{:?}", target.install(1, &app, &[]).await),
        format!("{:?}", target.retire(1, "app_a").await),
        format!("{:?}", target.end("app_a", None).await),
        format!("{:?}", target.set_up(SetUpMode::Apply).await),
    ]
}

#[tokio::test]
async fn the_name_of_an_administrator_from_a_secret_is_not_said_when_the_server_refuses_it() {
    for state in ["28P01", "28000", "42501", "3D000", "08P01", "53300", "XX000", "none"] {
        let said = said(&target_of_secret(Hostile::new(Plan::Refuses(state)).await)).await;
        assert!(said.iter().all(|text| !text.contains(HIDDEN)), "{state}: {said:#?}");
    }
    let said = said(&target_of_secret(Hostile::new(Plan::Refuses("28P01")).await)).await;
    let told = "refuses the login of the administrator of Secret db-admin (28P01)";
    assert!(said[1..].iter().all(|text| text.contains(told)), "{said:#?}");
}

#[tokio::test]
async fn the_name_of_an_administrator_from_a_secret_is_not_said_when_it_lacks_a_right() {
    let denied: Bytes = || refusal("42501");
    let mut lacking = 0;
    for asked in ["rolcanlogin", "'fence'", "ALTER ROLE", "pg_terminate_backend", "BEGIN", "keyturn.fence"] {
        let said = said(&target_of_secret(Hostile::new(Plan::Answers(asked, denied)).await)).await;
        assert!(said.iter().all(|text| !text.contains(HIDDEN)), "{asked}: {said:#?}");
        lacking +=
            said.iter().filter(|text| text.contains("the administrator of Secret db-admin may not")).count();
    }
    assert!(lacking >= 2, "a role that may not be altered, and sessions that may not be ended: {lacking}");
}

/// Returns the result of a login, and the number of bytes that were taken from the server for it.
async fn logged_in(plan: Plan) -> (Acceptance, usize) {
    let server = Hostile::new(plan).await;
    let answer = target(server.clone()).try_login(&login()).await;
    (answer, server.taken.load(Ordering::SeqCst))
}

async fn looked(plan: Plan) -> (Result<Roles, TargetError>, usize) {
    let server = Hostile::new(plan).await;
    let roles = target(server.clone()).observe().await;
    (roles, server.taken.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_message_of_a_gigabyte_is_not_waited_for() {
    let header: Bytes = || [begun(&[25]), vec![b'D', 0x40, 0, 0, 0, 0, 1]].concat();
    let (answer, taken) = logged_in(Plan::Floods(FIRST, header, || vec![0; READ])).await;
    assert!(taken <= READ, "{taken} bytes were taken");
    assert_eq!(answer.unknown().unwrap().reason, "TargetTooTalkative");
}

#[tokio::test]
async fn a_server_that_talks_for_ever_is_hung_up_on() {
    let parsed: Bytes = || message(b'1', b"").repeat(1000);
    let notices: Bytes = || message(b'N', b"SNOTICE\0C00000\0Mx\0\0").repeat(1000);
    let parameters: Bytes = || message(b'S', b"a\0b\0").repeat(1000);
    for plan in [
        Plan::Floods(FIRST, Vec::new, parsed),
        Plan::Floods(FIRST, Vec::new, notices),
        Plan::Floods(FIRST, Vec::new, parameters),
        Plan::FloodsTheLogin(notices),
        Plan::FloodsTheLogin(parameters),
    ] {
        let (answer, taken) = logged_in(plan).await;
        // These messages are small, so they count more than their bytes.
        assert!(taken <= SESSION / 8, "{plan:?}: {taken} bytes were taken");
        assert_eq!(answer.unknown().unwrap().reason, "TargetTooTalkative", "{plan:?}");
    }
}

#[tokio::test]
async fn rows_without_end_are_not_collected() {
    let sessions = "pg_stat_activity";
    let columns: Bytes = || begun(&[25, 25, 25, 20]);
    let narrow: Bytes = || row(&[b"app", b"::1", b"psql", &[0; 8]]).repeat(1000);
    let wide: Bytes = || row(&[b"app", b"::1", &[b'x'; 100_000], &[0; 8]]).repeat(5);
    for (rows, most) in [(narrow, SESSION / 4), (wide, SESSION + READ)] {
        let (roles, taken) = looked(Plan::Floods(sessions, columns, rows)).await;
        assert!(taken <= most, "{taken} bytes were taken");
        assert_eq!(roles.unwrap_err().trouble.reason, "TargetTooTalkative");
    }
}

#[tokio::test]
async fn types_that_are_made_of_each_other_without_end_do_not_exhaust_the_stack() {
    for asked in ["SELECT probe", FIRST] {
        let (answer, taken) = logged_in(Plan::NestsTypes(asked)).await;
        assert!(taken < READ, "{asked}: {taken} bytes were taken");
        assert_eq!(answer.unknown().unwrap().reason, "TargetNotUnderstood", "{asked}");
    }
}

#[tokio::test]
async fn an_answer_of_another_kind_than_was_asked_for_is_an_error() {
    let point: Bytes = || table(&[600], &[&[&[0; 16]]]);
    let null: Bytes = || {
        let nothing = message(b'D', b"\0\x01\xff\xff\xff\xff");
        [begun(&[16]), nothing, message(b'C', b"SELECT 1\0"), ready()].concat()
    };
    let short: Bytes = || table(&[16], &[&[&[]]]);
    let no_column: Bytes = || table(&[], &[&[]]);
    let no_row: Bytes = || table(&[16], &[]);
    for answer in [point, null, short, no_column, no_row] {
        let (answer, _) = logged_in(Plan::Answers(FIRST, answer)).await;
        assert_eq!(answer.unknown().unwrap().reason, "TargetNotUnderstood");
    }
    for asked in ["rolcanlogin", "'fence'", "role::text, id", "pg_stat_activity"] {
        let (roles, _) = looked(Plan::Answers(asked, point)).await;
        assert_eq!(roles.unwrap_err().trouble.reason, "TargetNotUnderstood", "{asked}");
    }
}

#[tokio::test]
async fn sessions_of_roles_that_were_not_asked_about_are_not_believed() {
    let other: Bytes = || table(&[25, 25, 25, 20], &[&[b"other", b"::1", b"psql", &[0; 8]]]);
    let (roles, _) = looked(Plan::Answers("pg_stat_activity", other)).await;
    assert_eq!(roles.unwrap_err().trouble.reason, "TargetNotUnderstood");
}

#[tokio::test]
async fn names_of_a_client_are_cut_and_steer_no_terminal() {
    let long: Bytes = || {
        let text = "\u{1b}[2J\u{202e}".repeat(10_000);
        table(&[25, 25, 25, 20], &[&[b"app", text.as_bytes(), text.as_bytes(), &[0; 8]]])
    };
    let (roles, _) = looked(Plan::Answers("pg_stat_activity", long)).await;
    let client = &roles.unwrap().sessions[0].client;
    assert!(client.chars().count() < 150 && !client.contains(['\u{1b}', '\u{202e}']), "{client}");
}

#[tokio::test]
async fn the_owner_in_the_fence_is_cut_and_steers_no_terminal() {
    let long: Bytes = || table(&[20, 25], &[&[&[0; 8], "\u{1b}[2J".repeat(10_000).as_bytes()]]);
    let server = Hostile::new(Plan::Answers("SELECT id, owner", long)).await;
    let error = target(server).install(1, &login(), &[]).await.unwrap_err();
    assert_eq!(error.trouble.reason, "RoleOwnedByOther");
    assert!(
        error.trouble.message.chars().count() < 1000 && !error.trouble.message.contains('\u{1b}'),
        "{error}"
    );
}

#[tokio::test]
async fn an_sqlstate_that_is_none_is_told_as_such() {
    let (short, split): (Bytes, Bytes) = (|| refusal("4"), || refusal("4ü000"));
    let long: Bytes = || refusal(&"\u{1b}[2J".repeat(1000));
    for answer in [short, split, long] {
        let (answer, _) = logged_in(Plan::Answers(FIRST, answer)).await;
        let error = answer.unknown().unwrap();
        assert!(error.message.len() < 500 && !error.message.contains('\u{1b}'), "{error}");
        assert!(error.message.contains("no SQLSTATE"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let server = Hostile::new(Plan::IsSilent).await;
    let limits = Limits { operation: Duration::from_millis(200), ..Limits::default() };
    let error = target(server).with_limits(limits).try_login(&login()).await.unknown().unwrap();
    assert_eq!(error.reason, "TimedOut");
}
