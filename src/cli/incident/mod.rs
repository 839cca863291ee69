//! `keyturn incident report`: what happened, who read which secret, and how keyturn responded, for a team's incident
//! log.
//!
//! The cluster stores the SecretIncident's status, whose lists are bounded. CloudTrail has every call; the command
//! reads it itself, with the AWS credentials of its user.

mod calls;
mod markup;
mod report;
mod search;

use std::io;

use chrono::Utc;
use clap::{Args, Subcommand};
use kube::Api;
use kube::api::ListParams;

use crate::api::{ManagedSecret, SecretIncident};
use crate::cluster::client_config;
use crate::incident::cloudtrail::CloudTrail;
pub use calls::write_calls;
pub use report::Format;
pub use search::{Patience, Search};

/// Arguments of `keyturn incident`.
#[derive(Args, Clone, Debug)]
pub struct IncidentArgs {
    /// The subcommand that was given.
    #[command(subcommand)]
    pub command: IncidentCommand,
}

/// Subcommands of `keyturn incident`.
#[derive(Subcommand, Clone, Debug)]
pub enum IncidentCommand {
    /// Print a SecretIncident and every call in CloudTrail that concerns it. The report contains no value
    Report(ReportArgs),
}

/// Arguments of `keyturn incident report`.
#[derive(Args, Clone, Debug)]
pub struct ReportArgs {
    /// Name of the SecretIncident
    pub name: String,

    /// Namespace of the SecretIncident; the namespace of the current context when absent
    #[arg(long, short)]
    pub namespace: Option<String>,

    /// Format of the report
    #[arg(long, short, value_enum, default_value = "markdown")]
    pub output: Format,

    /// Print only the SecretIncident's status, without reading CloudTrail
    #[arg(long)]
    pub status_only: bool,
}

/// The reason why there is no report, or why it is incomplete.
#[derive(Debug, thiserror::Error)]
pub enum IncidentError {
    /// No client could be created: no cluster is configured, or the credentials cannot be used.
    #[error("cannot connect to Kubernetes: {0}")]
    Connect(#[source] kube::Error),
    /// The SecretIncident does not exist or cannot be read.
    #[error("SecretIncident {namespace}/{name}: {source}")]
    Read {
        /// Namespace of the SecretIncident.
        namespace: String,
        /// Name of the SecretIncident.
        name: String,
        /// The reason.
        source: kube::Error,
    },
    /// Standard output cannot be written, or the status cannot be encoded as JSON.
    #[error("the report cannot be written: {0}")]
    Write(#[from] io::Error),
    /// Some calls are missing in the report, which is printed nevertheless; holds the reasons.
    #[error(
        "the report contains the SecretIncident's status, but not every call in CloudTrail: {0}. Run it \
         with AWS credentials that allow cloudtrail:LookupEvents, or with --status-only"
    )]
    NotEveryCall(String),
}

/// Prints the report.
///
/// # Errors
/// The object could not be read, or some calls could not. The known part is printed before the error is returned.
pub async fn run(args: &IncidentArgs) -> Result<(), IncidentError> {
    let IncidentCommand::Report(args) = &args.command;
    let client = client_config::client().await.map_err(IncidentError::Connect)?;
    let namespace = args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let api: Api<SecretIncident> = Api::namespaced(client.clone(), &namespace);
    let read = |source| IncidentError::Read { namespace: namespace.clone(), name: args.name.clone(), source };
    let incident = api.get(&args.name).await.map_err(read)?;
    let mut out = io::stdout();
    report::write(&mut out, &incident, args.output)?;
    if args.status_only {
        return Ok(report::close(&mut out, args.output)?);
    }
    let secrets: Api<ManagedSecret> = Api::namespaced(client, &namespace);
    let now = Utc::now();
    let search = match secrets.list(&ListParams::default()).await {
        Ok(secrets) => Search::of(&incident, &secrets.items, now),
        Err(error) => {
            Search::without_secrets(&incident, format!("the ManagedSecrets cannot be listed: {error}"), now)
        }
    };
    let trail = CloudTrail::from_environment().await;
    let missing = write_calls(&mut out, args.output, &search, &trail, Patience::default()).await?;
    match missing.as_slice() {
        [] => Ok(()),
        _ => Err(IncidentError::NotEveryCall(missing.join("; "))),
    }
}
