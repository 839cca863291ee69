//! Tests a person's own shell: KUBECONFIG and the proxy variables. This file plays the cluster.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::json;

const OPEN: &str = "200 OK";
const SHUT: &str = "503 Service Unavailable";

/// An HTTP proxy with an API server behind it that speaks plain HTTP and has one SecretIncident.
struct Proxy {
    port: u16,
    /// First lines of the requests, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts a proxy that answers `CONNECT` with this text.
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that disconnects in the middle needs no answer.
                let _ = serve(&stream.unwrap(), answer, &heard);
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: &TcpStream, answer: &str, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        heard.lock().unwrap().push(head[0].clone());
        if head[0].starts_with("CONNECT ") {
            stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes())?;
            if answer == OPEN {
                continue;
            }
            return Ok(());
        }
        let incident = json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
            "metadata": {"name": "stolen-laptop", "namespace": "shop"},
            "spec": {"managedSecretRefs": [{"name": "token"}], "reportedAt": "2026-01-02T03:04:05Z"},
        });
        let body = incident.to_string();
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes())?;
    }
}

/// Runs `keyturn incident report` with a kubeconfig that contains this cluster, and with these variables.
fn report(cluster: &str, variables: &[(&str, String)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: prod\nclusters: [{{name: prod, cluster: {cluster}}}]\n\
         contexts: [{{name: prod, context: {{cluster: prod, user: me}}}}]\nusers: [{{name: me, user: {{token: t}}}}]\n"
    );
    fs::write(&kubeconfig, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyturn"));
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
        .args(["incident", "report", "stolen-laptop", "-n", "shop", "--status-only"])
        .env("KUBECONFIG", &kubeconfig)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap()
}

#[test]
fn a_report_comes_through_the_proxy_of_the_kubeconfig() {
    let proxy = Proxy::start(OPEN);
    let cluster =
        format!("{{server: 'http://api.invalid:6443', proxy-url: 'http://127.0.0.1:{}'}}", proxy.port);
    let output = report(&cluster, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("# Incident stolen-laptop (shop)"));
    let incident = "GET /apis/keyturn.dev/v1alpha1/namespaces/shop/secretincidents/stolen-laptop HTTP/1.1";
    assert_eq!(proxy.asked(), ["CONNECT api.invalid:6443 HTTP/1.1", incident]);
}

#[test]
fn the_environments_proxy_is_asked_unless_no_proxy_names_the_api_server() {
    let cluster = "{server: 'https://api.invalid:6443'}";
    for (no_proxy, expected) in [
        ("10.0.0.0/8,other.invalid", &["CONNECT api.invalid:6443 HTTP/1.1"][..]),
        ("10.0.0.0/8,api.invalid", &[]),
    ] {
        let proxy = Proxy::start(SHUT);
        let variables =
            [("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port)), ("NO_PROXY", no_proxy.to_owned())];
        // The proxy is closed and api.invalid does not exist, so neither way leads to a report.
        assert!(!report(cluster, &variables).status.success());
        assert_eq!(proxy.asked(), expected, "NO_PROXY={no_proxy}");
    }
}
