//! Tests that people get their notifications, whatever happens to the controller or to the receiver.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::prelude::{BASE64_STANDARD, Engine};

use super::controller;
use super::kills::kill_controller;
use super::project::Project;
use super::ssm;
use super::world::{eventually, run, run_with, variable};

const KEY: &str = "the key of this test";

/// One request to a sink.
#[derive(Clone)]
struct Request {
    sink: String,
    headers: HeaderMap,
    body: String,
    /// True if the receiver accepted it.
    taken: bool,
}

impl Request {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

/// A server on the machine that accepts or refuses notifications.
#[derive(Clone, Default)]
struct Receiver {
    open: Arc<AtomicBool>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// Starts the receiver, which ends with the process. Also returns its address for pods.
    fn start() -> (Self, String) {
        let receiver = Self::default();
        let own = receiver.clone();
        // Pods reach the receiver at the address at which they reach SSM.
        let ssm = variable("AWS_ENDPOINT_URL_SSM");
        let host = ssm.trim_start_matches("http://").split(':').next().unwrap().to_owned();
        let (bound, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
                bound.send(listener.local_addr().unwrap().port()).unwrap();
                let routes = Router::new().route("/{sink}", post(take)).with_state(own);
                axum::serve(listener, routes).await.unwrap();
            });
        });
        (receiver, format!("http://{host}:{}", address.recv().unwrap()))
    }

    fn of(&self, sink: &str) -> Vec<Request> {
        self.requests.lock().unwrap().iter().filter(|request| request.sink == sink).cloned().collect()
    }

    /// Waits for an accepted or refused request that `matches`.
    fn waits_for(&self, what: &str, sink: &str, taken: bool, matches: impl Fn(&str) -> bool) -> Request {
        eventually(what, || {
            let requests = self.of(sink);
            let found = requests.iter().find(|request| request.taken == taken && matches(&request.body));
            found.cloned().ok_or_else(|| {
                requests.iter().map(|r| format!("{}: {}", r.taken, r.body)).collect::<Vec<_>>().join("\n")
            })
        })
    }
}

async fn take(
    State(receiver): State<Receiver>,
    Path(sink): Path<String>,
    headers: HeaderMap,
    body: String,
) -> StatusCode {
    let taken = receiver.open.load(Ordering::SeqCst);
    receiver.requests.lock().unwrap().push(Request { sink, headers, body, taken });
    if taken { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// A guard that configures two sinks by Secrets and values until it is dropped.
struct Sinks {
    _values: controller::Values,
    secrets: Vec<String>,
}

impl Sinks {
    fn set_up(address: &str) -> Self {
        let secrets: Vec<String> =
            ["events", "chat"].map(|sink| format!("e2e-sink-{}-{sink}", std::process::id())).into();
        for (secret, sink) in secrets.iter().zip(["events", "chat"]) {
            let yaml = format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: {secret}, namespace: {}, labels: {{keyturn.dev/usable-by: \
                 notification}}}}\nstringData: {{url: \
                 \"{address}/{sink}\", signingKey: \"{KEY}\"}}\n",
                controller::NAMESPACE
            );
            run_with("kubectl", &["apply", "-f", "-"], &yaml);
        }
        let values = controller::Values::keep();
        let sinks = format!(
            r#"notifications.sinks=[{{"name": "events", "format": "CloudEvents", "secret": "{}"}},
            {{"name": "chat", "format": "Slack", "secret": "{}", "topics": ["Stalled"]}}]"#,
            secrets[0], secrets[1]
        );
        controller::upgrade(&["--reuse-values", "--set-json", &sinks]);
        Self { _values: values, secrets }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        for secret in &self.secrets {
            controller::kubectl(&["delete", "secret", secret, "--ignore-not-found"]);
        }
    }
}

#[test]
#[ignore = "needs the world"]
fn people_are_told_though_the_sink_is_away_and_the_controller_is_killed() {
    let project = Project::new("notices");
    let (receiver, address) = Receiver::start();
    let _sinks = Sinks::set_up(&address);

    let notice = "  hosts: [{name: web}]\n  notice: Tell the users.\n";
    project.apply(&project.secret("token", "TOKEN", notice));
    project.settled("token");
    project.request("token", "once");
    assert_eq!(project.answered("token", "once"), "Succeeded");
    project.settled("token");
    let told = |body: &str| body.contains(&project.name) && body.contains("Tell the users.");
    let refused = receiver.waits_for("a notification is turned away", "events", false, told);
    assert!(
        !project.field("managedsecret/token", "/status/pendingNotifications").is_empty(),
        "it waits in the status"
    );
    kill_controller();
    controller::rolled_out();
    receiver.open.store(true, Ordering::SeqCst);

    let taken = receiver.waits_for("it is told after all", "events", true, told);
    let event = taken.json();
    assert_eq!(event["type"], "dev.keyturn.managedsecret.rotated");
    assert_eq!(event["subject"], format!("{}/token", project.name));
    assert_eq!(event["id"], refused.json()["id"], "under the same id");
    assert_eq!(taken.header("webhook-id"), event["id"]);
    let signed =
        format!("{}.{}.{}", taken.header("webhook-id"), taken.header("webhook-timestamp"), taken.body);
    let signature = taken.header("webhook-signature").strip_prefix("v1,").unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &BASE64_STANDARD.decode(signature).unwrap())
        .expect("the receiver can verify the signature");
    eventually("nothing waits any more", || {
        let left = project.field("managedsecret/token", "/status/pendingNotifications");
        if left.is_empty() { Ok(()) } else { Err(left) }
    });

    run("kubectl", &["delete", "rotationgrant", &project.name]);
    let of_this = |body: &str| body.contains(&format!("{}/token", project.name));
    let stalled = |body: &str| of_this(body) && body.contains("Stalled");
    let chat = receiver.waits_for("the chat is told", "chat", true, stalled);
    assert!(chat.json()["text"].as_str().unwrap().starts_with("*Stalled*: ManagedSecret"));
    project.apply(&project.grant("Rotate"));
    let recovered = |body: &str| of_this(body) && body.contains("managedsecret.recovered");
    receiver.waits_for("and that it is over", "events", true, recovered);
    assert!(
        !receiver.of("chat").iter().any(|request| request.body.contains("Tell the users.")),
        "a sink hears of its topics only"
    );

    let bodies: String = receiver.requests.lock().unwrap().iter().map(|r| r.body.clone()).collect();
    for value in ssm::all_values(&project.path("TOKEN")) {
        assert!(!bodies.contains(&value), "no value is told");
    }
}
