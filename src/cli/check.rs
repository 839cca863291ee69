//! `keyturn check`: checks from inside the cluster if an installation works. The chart's `helm test` runs it.

use std::time::Duration;

use clap::Args;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::GROUP;
use crate::cluster::client_config;

/// Plural names of the custom resources that an installation needs.
const PLURALS: [&str; 4] = ["managedsecrets", "dockerhosts", "rotationgrants", "secretincidents"];

/// Arguments of `keyturn check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Namespace of the controller and its lease
    #[arg(long, env = "KEYTURN_NAMESPACE")]
    pub namespace: String,

    /// Name of the lease
    #[arg(long, env = "KEYTURN_LEASE_NAME", default_value = "keyturn")]
    pub lease_name: String,

    /// Host and port where the controller serves /readyz, such as keyturn.keyturn-system.svc:8080
    #[arg(long, env = "KEYTURN_ADDRESS")]
    pub address: String,

    /// Time to wait until all checks pass, in seconds
    #[arg(long, default_value_t = 60)]
    pub timeout_seconds: u64,
}

/// Check that failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No client could be created: no cluster is configured, or the credentials cannot be used.
    #[error("cannot connect to Kubernetes: {0}")]
    Connect(#[source] kube::Error),
    /// A CustomResourceDefinition cannot be read, or is not established.
    #[error("custom resource {name}: {why}")]
    Definition {
        /// Name of the CustomResourceDefinition.
        name: String,
        /// The reason, for people.
        why: String,
    },
    /// The Lease cannot be read, no replica holds it, or the last renewal is at least 120 seconds ago.
    #[error("lease {name}: {why}")]
    Lease {
        /// Name of the Lease.
        name: String,
        /// The reason, for people.
        why: String,
    },
    /// `/readyz` does not answer within 5 seconds, or its status is not 200.
    #[error("http://{address}/readyz: {why}")]
    Readiness {
        /// Host and port of the controller.
        address: String,
        /// The reason, for people.
        why: String,
    },
}

/// Repeats the checks until all pass or the time is over.
///
/// # Errors
/// The first check that failed in the last attempt.
pub async fn run(args: &CheckArgs) -> Result<(), CheckError> {
    let client = client_config::client().await.map_err(CheckError::Connect)?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(args.timeout_seconds);
    loop {
        match once(args, &client).await {
            Err(error) if tokio::time::Instant::now() < deadline => {
                eprintln!("not yet: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            ended => return ended,
        }
    }
}

async fn once(args: &CheckArgs, client: &Client) -> Result<(), CheckError> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for plural in PLURALS {
        let name = format!("{plural}.{GROUP}");
        let wrong = |why: String| CheckError::Definition { name: name.clone(), why };
        let definition = definitions.get(&name).await.map_err(|error| wrong(error.to_string()))?;
        let conditions = definition.status.and_then(|status| status.conditions).unwrap_or_default();
        if !conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
            return Err(wrong("not established".to_owned()));
        }
        println!("custom resource {name} is established");
    }
    let wrong = |why: String| CheckError::Lease { name: args.lease_name.clone(), why };
    let leases: Api<Lease> = Api::namespaced(client.clone(), &args.namespace);
    let lease = leases.get(&args.lease_name).await.map_err(|error| wrong(error.to_string()))?;
    let spec = lease.spec.unwrap_or_default();
    let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
    let holder = holder.ok_or_else(|| wrong("no replica holds it".to_owned()))?;
    let renewed = spec.renew_time.map(|at| jiff::Timestamp::now().duration_since(at.0).as_secs());
    match renewed {
        // The limit is generous, since this compares the clocks of two machines.
        Some(seconds) if seconds < 120 => println!("lease {} is held by {holder}", args.lease_name),
        _ => return Err(wrong(format!("{holder} has not renewed it for minutes"))),
    }
    let answer = ready(&args.address)
        .await
        .map_err(|why| CheckError::Readiness { address: args.address.clone(), why })?;
    println!("http://{}/readyz answers: {answer}", args.address);
    Ok(())
}

/// Returns the body of /readyz if its status is 200.
async fn ready(address: &str) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(64 * 1024).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), exchange)
        .await
        .map_err(|_| "no answer within 5s".to_owned())?
        .map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(body.trim().to_owned())
    } else {
        Err(format!("{status}: {}", body.trim()))
    }
}
