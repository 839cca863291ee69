//! Tests that a role's password is changed only if SSM then accepts the new one, and restored if SSM does
//! not.

use keyturn_aws_emulator::{Fault, Rule};

use super::controller::Environment;
use super::faults::proxy;
use super::postgres::Database;
use super::ssm;
use super::world::{eventually, on_host};

const SECRET: &str = "managedsecret/db-password";
const FIRST: &str = "first-0123456789abcdef";

/// A database whose superuser's password is in SSM as `DB_PASSWORD`, and a client of it on a host.
struct Shop(Database);

impl Shop {
    fn open(subject: &str) -> Self {
        let database = Database::new(subject, &["web"]);
        database.start(FIRST);
        Self(database)
    }

    fn manage(&self) {
        let (project, port) = (&self.0.project, self.0.port);
        on_host(&format!(
            "cd ~/e2e/{} && bash deploy/secrets.sh && bash deploy/clients.sh web",
            project.name
        ));
        project.apply(&project.secret(
            "db-password",
            "DB_PASSWORD",
            &format!(
                "  hosts: [{{name: web}}]\n  generate: {{postgres: {{via: {{dockerHost: web}}, port: {port}, database: \
                 musehub, singleRole: {{name: musehub}}}}}}\n"
            ),
        ));
        project.looked_at("db-password");
    }

    fn path(&self) -> String {
        self.0.project.path("DB_PASSWORD")
    }

    fn accepts(&self, password: &str) -> bool {
        self.0.accepts(&format!("postgresql://musehub:{password}@postgres/musehub"))
    }

    /// Waits until the rotation is held with this in its message, and checks that the role still has its old
    /// password.
    fn holds(&self, reason: &str, part: &str) {
        let held = format!("the rotation is held, {reason}: {part}");
        eventually(&held, || match self.0.project.condition(SECRET, "Stalled") {
            (status, now, message) if status == "True" && now == reason && message.contains(part) => Ok(()),
            (_, now, message) => Err(format!("{now}: {message}")),
        });
        assert!(self.accepts(FIRST), "{part}: the password is as it was");
        assert_eq!(ssm::records(&self.0.project.name), "", "{part}: nothing was begun");
    }
}

#[test]
#[ignore = "needs the world"]
fn a_password_that_ssm_would_refuse_to_publish_is_not_changed() {
    let shop = Shop::open("refused");
    let project = &shop.0.project;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = proxy(&runtime);
    let _detour = Environment::set(&[("AWS_ENDPOINT_URL_SSM", &proxy.url())]);
    ssm::put_as_string(&shop.path(), FIRST);
    shop.manage();
    project.request("db-password", "once");
    shop.holds("NotPublishable", "is a String");

    ssm::delete(&shop.path());
    (0..100).for_each(|_| ssm::put(&shop.path(), FIRST));
    ssm::label(&shop.path(), 1, "as-delivered");
    shop.holds("NotPublishable", "as-delivered");

    proxy.add_fault(Rule::once("PutParameter", Fault::AccessDenied).on(&shop.path()).always()).unwrap();
    ssm::label(&shop.path(), 100, "as-delivered");
    shop.holds("SSMDenied", "PutParameter");

    proxy.clear_faults();
    assert_eq!(project.answered("db-password", "once"), "Succeeded");
    project.settled("db-password");
    assert!(shop.accepts(&ssm::value(&shop.path()).unwrap()) && !shop.accepts(FIRST));
}

#[test]
#[ignore = "needs the world"]
fn a_password_whose_publication_is_refused_after_all_is_taken_back() {
    let shop = Shop::open("taken-back");
    let project = &shop.0.project;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = proxy(&runtime);
    let _detour = Environment::set(&[("AWS_ENDPOINT_URL_SSM", &proxy.url())]);
    ssm::put(&shop.path(), FIRST);
    shop.manage();
    project.settled("db-password");
    // Such a policy is not visible before the Put itself.
    proxy.add_fault(Rule::once("PutParameter", Fault::OverwriteDenied).on(&shop.path()).always()).unwrap();
    project.request("db-password", "once");
    eventually("the role has another password", || {
        if shop.accepts(FIRST) { Err("not yet".into()) } else { Ok(()) }
    });
    let began = std::time::Instant::now();
    eventually("it is said", || {
        let (_, _, message) = project.condition(SECRET, "Rotating");
        if message.contains("SSM permanently refused to publish") { Ok(()) } else { Err(message) }
    });
    eventually("the role has its password again", || {
        if shop.accepts(FIRST) { Ok(()) } else { Err("not yet".into()) }
    });
    println!("a refused publication: the old password is back after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(project.answered("db-password", "once"), "RolledBack");
    assert_eq!(ssm::value(&shop.path()).as_deref(), Some(FIRST));

    proxy.clear_faults();
    project.request("db-password", "twice");
    assert_eq!(project.answered("db-password", "twice"), "Succeeded");
    project.settled("db-password");
    assert!(shop.accepts(&ssm::value(&shop.path()).unwrap()) && !shop.accepts(FIRST));
    assert_eq!(ssm::records(&project.name), "", "no record or marker is left");
}
