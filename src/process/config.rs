//! Configuration of the controller: flags, each with an environment variable `KEYTURN_…` that the chart sets. All
//! values are checked here, before the controller connects to anything.

use chrono::TimeDelta;
use clap::{Args, ValueEnum};
use keyturn_reconcile::settings::Settings;

use crate::api::readers::{self, ExpectedReader};
use crate::cluster::lease::Timing;
use crate::deploy::job::JobTemplate;
use crate::notification::{self, Sink};
use crate::source;

/// Arguments of the controller. A flag wins over its environment variable.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Name of this installation, one path segment. It marks the installation's records and descriptions in Parameter
    /// Store permanently: no two installations may share a name, and a re-installation must use the same name
    #[arg(long, env = "KEYTURN_CLUSTER", value_parser = cluster)]
    pub cluster: String,

    /// Namespace of the controller and of its lease
    #[arg(long, env = "KEYTURN_NAMESPACE", value_parser = dns_label)]
    pub namespace: String,

    /// Name of the controller's pod, part of its identity in the lease and in Events; the host name when absent
    #[arg(long, env = "KEYTURN_POD_NAME")]
    pub pod_name: Option<String>,

    /// Namespaces to watch, separated by commas; all when absent
    #[arg(long, env = "KEYTURN_WATCH_NAMESPACES", value_delimiter = ',', value_parser = optional_dns_label)]
    pub watch_namespaces: Vec<String>,

    /// AWS region of secrets that set none; AWS_REGION when absent. Credentials, endpoints and proxies come from the
    /// AWS SDK's own variables, such as AWS_ENDPOINT_URL_SSM
    #[arg(long, env = "KEYTURN_AWS_REGION", value_parser = region)]
    pub aws_region: Option<String>,

    /// Parameter Store path below which the records of rotations are stored; `/keyturn/<cluster>` when absent. It must
    /// not lie below a path that hosts fetch
    #[arg(long, env = "KEYTURN_STAGING", value_parser = staging)]
    pub staging: Option<String>,

    /// Time after which no earlier request of keyturn can still take effect. It must be longer than any request can
    /// last and than Parameter Store's reads can lag (eventual consistency)
    #[arg(long, env = "KEYTURN_GRACE", value_parser = duration, default_value = "15m")]
    pub grace: TimeDelta,

    /// Minimum time between the adoption of an existing parameter and its first rotation
    #[arg(long, env = "KEYTURN_FIRST_ROTATION_DELAY", value_parser = duration, default_value = "1d")]
    pub first_rotation_delay: TimeDelta,

    /// Span of time over which rotations start when several secrets are overdue at the same time
    #[arg(long, env = "KEYTURN_BACKLOG_SPREAD", value_parser = duration, default_value = "1h")]
    pub backlog_spread: TimeDelta,

    /// Time that the previous credential keeps working when a ManagedSecret sets no `retire.after`
    #[arg(long, env = "KEYTURN_RETIRE_AFTER", value_parser = duration, default_value = "1h")]
    pub retire_after: TimeDelta,

    /// Minimum age of an orphaned credential before it is deleted. A credential is orphaned if a source issued it for a
    /// rotation and no record names it. Never less than the grace period
    #[arg(long, env = "KEYTURN_ORPHANS_AFTER", value_parser = duration, default_value = "15m")]
    pub orphans_after: TimeDelta,

    /// Maximum time that a deleted ManagedSecret is kept so that its rotation can finish. Never less than four times
    /// the grace period
    #[arg(long, env = "KEYTURN_DELETION", value_parser = duration, default_value = "1h")]
    pub deletion: TimeDelta,

    /// Accept http:// addresses of sources of credentials and of sinks. They expose tokens and messages to everybody on
    /// the network path
    #[arg(long, env = "KEYTURN_ALLOW_HTTP", action = clap::ArgAction::Set, default_value_t = false)]
    pub allow_http: bool,

    /// Arguments of the sources that issue credentials.
    #[command(flatten)]
    pub sources: source::Arguments,

    /// Backoff after the first failure; it doubles with each further failure
    #[arg(long, env = "KEYTURN_BACKOFF_INITIAL", value_parser = positive_duration, default_value = "1m")]
    pub backoff_initial: TimeDelta,

    /// Maximum backoff between two attempts
    #[arg(long, env = "KEYTURN_BACKOFF_MAX", value_parser = positive_duration, default_value = "1h")]
    pub backoff_max: TimeDelta,

    /// Time that a deployment waits for other secrets of its host that are about to be published
    #[arg(long, env = "KEYTURN_COALESCE", value_parser = duration, default_value = "30s")]
    pub coalesce: TimeDelta,

    /// Number of failed attempts after which a deployment counts as failed
    #[arg(long, env = "KEYTURN_ATTEMPTS", value_parser = clap::value_parser!(i32).range(1..=100), default_value_t = 3)]
    pub attempts: i32,

    /// Maximum delay until an event appears in CloudTrail. A search is complete up to this long ago
    #[arg(long, env = "KEYTURN_TRAIL_DELAY", value_parser = duration, default_value = "15m")]
    pub trail_delay: TimeDelta,

    /// Principals and networks that may read every parameter, as a JSON list. Each item has `principal` (ARN of a role,
    /// a user or sessions, in which * stands for any text), `networks`, or both. Incidents report all other readers as
    /// unexpected
    #[arg(long, env = "KEYTURN_EXPECTED_READERS", value_parser = readers, default_value = "")]
    pub expected_readers: Readers,

    /// Interval at which Parameter Store is listed to find changes by others. At least ten seconds per page of 50
    /// parameters
    #[arg(long, env = "KEYTURN_INVENTORY_INTERVAL", value_parser = positive_duration, default_value = "5m")]
    pub inventory_interval: TimeDelta,

    /// Maximum rate of PutParameter calls per second, for each account and region. AWS allows 3, or 10 with higher
    /// throughput, for all callers in the account together
    #[arg(long, env = "KEYTURN_PUTS_PER_SECOND", value_parser = rate, default_value = "1")]
    pub puts_per_second: f64,

    /// Maximum time until an object is reconciled again when nothing changes
    #[arg(long, env = "KEYTURN_RESYNC", value_parser = positive_duration, default_value = "10m")]
    pub resync: TimeDelta,

    /// Number of objects of one kind that are reconciled at the same time
    #[arg(long, env = "KEYTURN_CONCURRENCY", value_parser = clap::value_parser!(u16).range(1..=256), default_value_t = 8)]
    pub concurrency: u16,

    /// Name of the ClusterRole with the rights that the controller needs in each namespace it works in. Conditions show
    /// this name where the role is not bound
    #[arg(long, env = "KEYTURN_NAMESPACE_ROLE", value_parser = non_empty, default_value = "keyturn-namespace")]
    pub namespace_role: String,

    /// Image of deploy Jobs: keyturn's own image
    #[arg(long, env = "KEYTURN_JOB_IMAGE", value_parser = non_empty)]
    pub job_image: String,

    /// Pull policy for the image of deploy Jobs
    #[arg(long, env = "KEYTURN_JOB_IMAGE_PULL_POLICY", value_enum, default_value = "IfNotPresent")]
    pub job_image_pull_policy: PullPolicy,

    /// Names of the image pull secrets of deploy Jobs, separated by commas. They must exist in the namespace of each
    /// DockerHost
    #[arg(long, env = "KEYTURN_JOB_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub job_image_pull_secrets: Vec<String>,

    /// Address that serves /healthz, /readyz and /metrics
    #[arg(long, env = "KEYTURN_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: std::net::SocketAddr,

    /// Notification sinks as a JSON list of `{name, format, topics}`. `format` is CloudEvents or Slack; all topics when
    /// `topics` is empty
    #[arg(long, env = "KEYTURN_SINKS", value_parser = sinks, default_value = "")]
    pub sinks: Sinks,

    /// Directory with one subdirectory per sink, named after the sink. Its file `url` holds the sink's address; its
    /// file `signingKey`, if events are to be signed, holds the key
    #[arg(long, env = "KEYTURN_SINK_FILES", default_value = "/etc/keyturn/sinks")]
    pub sink_files: std::path::PathBuf,

    /// Name of the Lease that elects the leader, the only replica that works
    #[arg(long, env = "KEYTURN_LEASE_NAME", value_parser = non_empty, default_value = "keyturn")]
    pub lease_name: String,

    /// Time that other replicas wait after the leader's last renewal before they take over the lease; whole seconds
    #[arg(long, env = "KEYTURN_LEASE_DURATION", value_parser = positive_duration, default_value = "15s")]
    pub lease_duration: TimeDelta,

    /// Time after which a leader that cannot renew its lease stops working
    #[arg(long, env = "KEYTURN_LEASE_RENEW_DEADLINE", value_parser = positive_duration, default_value = "10s")]
    pub lease_renew_deadline: TimeDelta,

    /// Interval at which the leader renews the lease, and the other replicas check it
    #[arg(long, env = "KEYTURN_LEASE_RETRY_PERIOD", value_parser = positive_duration, default_value = "2s")]
    pub lease_retry_period: TimeDelta,

    /// Time that steps in progress may take to finish when the controller is asked to stop
    #[arg(long, env = "KEYTURN_SHUTDOWN_TIMEOUT", value_parser = positive_duration, default_value = "10s")]
    pub shutdown_timeout: TimeDelta,
}

/// Notification sinks, which are one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sinks(pub Vec<Sink>);

/// Expected readers, which are one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readers(pub Vec<ExpectedReader>);

/// `imagePullPolicy` of deploy Jobs, spelled as in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// Pull the image for each Job
    Always,
    /// Pull the image only where the node does not have it yet
    IfNotPresent,
    /// Never pull the image; each node must have it already
    Never,
}

impl PullPolicy {
    /// Returns the policy as it is written in a pod's spec.
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// Error in arguments that contradict each other, or in one that is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No argument and no variable of AWS names a region.
    #[error(
        "no AWS region: set --aws-region (KEYTURN_AWS_REGION, chart value aws.region) or AWS_REGION to the region of secrets that name none"
    )]
    NoRegion,
    /// The time in argument `shorter` is too long: it must be shorter than the time in argument `longer`.
    #[error("{shorter} must be shorter than {longer}")]
    Order {
        /// The argument that must be shorter.
        shorter: &'static str,
        /// The argument that must be longer.
        longer: &'static str,
    },
    /// The lease duration has a fraction of a second.
    #[error("--lease-duration must be a whole number of seconds, since a Lease holds seconds")]
    LeaseSeconds,
    /// The address in this argument is http, and http is not allowed.
    #[error(
        "{flag} is an http address, which exposes tokens to everybody on the network path: use https, or \
         set --allow-http=true (chart value allowHttp)"
    )]
    Http {
        /// The argument.
        flag: &'static str,
    },
}

impl ControllerArgs {
    /// Returns the settings of the reconcilers, after the checks that concern several arguments.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        self.check()?;
        let mut settings = Settings::new(&self.cluster, &self.region()?);
        if let Some(staging) = &self.staging {
            settings.staging.clone_from(staging);
        }
        settings.grace = self.grace;
        settings.first_rotation_delay = self.first_rotation_delay;
        settings.backlog_spread = self.backlog_spread;
        settings.retire_after = self.retire_after;
        settings.orphans_after = self.orphans_after;
        settings.deletion = self.deletion;
        settings.backoff_initial = self.backoff_initial;
        settings.backoff_max = self.backoff_max;
        settings.coalesce = self.coalesce;
        settings.attempts = self.attempts;
        settings.trail_delay = self.trail_delay;
        settings.expected_readers.clone_from(&self.expected_readers.0);
        settings.sinks.clone_from(&self.sinks.0);
        settings.namespace_role.clone_from(&self.namespace_role);
        Ok(settings)
    }

    /// Returns the part that all deploy Jobs have in common.
    pub fn job_template(&self) -> JobTemplate {
        JobTemplate {
            image: self.job_image.clone(),
            image_pull_policy: Some(self.job_image_pull_policy.as_str().to_owned()),
            image_pull_secrets: self
                .job_image_pull_secrets
                .iter()
                .filter(|text| !text.is_empty())
                .cloned()
                .collect(),
            env: Vec::new(),
        }
    }

    /// Returns the times of the leader election.
    pub fn lease_timing(&self) -> Timing {
        Timing {
            duration: span(self.lease_duration),
            renew_deadline: span(self.lease_renew_deadline),
            retry_period: span(self.lease_retry_period),
        }
    }

    /// Returns the name of this process in the lease and in Events.
    pub fn pod(&self) -> String {
        let given = self.pod_name.clone().filter(|name| !name.is_empty());
        given.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "keyturn".to_owned())
    }

    /// Returns the namespaces to watch; empty means all.
    pub fn namespaces(&self) -> Vec<String> {
        self.watch_namespaces.iter().filter(|name| !name.is_empty()).cloned().collect()
    }

    fn region(&self) -> Result<String, ConfigError> {
        let from_aws = || {
            ["AWS_REGION", "AWS_DEFAULT_REGION"]
                .iter()
                .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()))
        };
        self.aws_region.clone().filter(|text| !text.is_empty()).or_else(from_aws).ok_or(ConfigError::NoRegion)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let order = |shorter, longer, holds: bool| {
            if holds { Ok(()) } else { Err(ConfigError::Order { shorter, longer }) }
        };
        if self.lease_duration.subsec_nanos() != 0 {
            return Err(ConfigError::LeaseSeconds);
        }
        for (flag, address) in self.sources.addresses() {
            if address.starts_with("http://") && !self.allow_http {
                return Err(ConfigError::Http { flag });
            }
        }
        order("--lease-renew-deadline", "--lease-duration", self.lease_renew_deadline < self.lease_duration)?;
        order(
            "--lease-retry-period",
            "--lease-renew-deadline",
            self.lease_retry_period < self.lease_renew_deadline,
        )?;
        order("--backoff-initial", "--backoff-max (or equal to it)", self.backoff_initial <= self.backoff_max)
    }
}

/// Converts a duration for timers. Arguments are never negative.
pub fn span(delta: TimeDelta) -> std::time::Duration {
    delta.to_std().unwrap_or_default()
}

/// Parses a duration as an operator writes it: a whole number and one of `ms`, `s`, `m`, `h`, `d`; or `0`.
pub fn duration(text: &str) -> Result<TimeDelta, String> {
    let wrong =
        || format!("`{text}` is not a duration: write a whole number and one of ms, s, m, h, d, such as 15m");
    if text == "0" {
        return Ok(TimeDelta::zero());
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let delta = match unit {
        "ms" => TimeDelta::try_milliseconds(number),
        "s" => TimeDelta::try_seconds(number),
        "m" => TimeDelta::try_minutes(number),
        "h" => TimeDelta::try_hours(number),
        "d" => TimeDelta::try_days(number),
        _ => None,
    };
    // This limit, far above any sensible value, keeps later sums of times from overflowing.
    delta.filter(|delta| *delta <= TimeDelta::days(3650)).ok_or_else(wrong)
}

fn positive_duration(text: &str) -> Result<TimeDelta, String> {
    let delta = duration(text)?;
    if delta.is_zero() { Err("must be longer than 0".into()) } else { Ok(delta) }
}

fn cluster(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(
            "must be set: choose a name that no other keyturn installation uses, and never change it".into(),
        );
    }
    if text.len() > 63 || !segment(text) {
        return Err(
            "must be one path segment of Parameter Store: 1 to 63 letters, digits, `-`, `_` or `.`".into()
        );
    }
    Ok(text.to_owned())
}

fn staging(text: &str) -> Result<String, String> {
    let segments: Vec<&str> = text.strip_prefix('/').unwrap_or_default().split('/').collect();
    if !segments.iter().all(|s| segment(s)) {
        return Err(
            "must be an absolute Parameter Store path without a slash at its end, such as /keyturn/prod"
                .into(),
        );
    }
    // AWS reserves names with these prefixes, see the naming rules of Parameter Store.
    if ["aws", "ssm"].iter().any(|reserved| segments[0].to_ascii_lowercase().starts_with(reserved)) {
        return Err("must not begin with `aws` or `ssm`: AWS reserves these prefixes".into());
    }
    // Parameter Store allows 15 levels; a record adds namespace, name and id.
    if segments.len() > 12 || text.len() > 512 {
        return Err("must have at most 12 segments and 512 characters".into());
    }
    Ok(text.to_owned())
}

fn segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn sinks(json: &str) -> Result<Sinks, String> {
    notification::sinks(json).map(Sinks)
}

fn region(text: &str) -> Result<String, String> {
    let valid = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if valid { Ok(text.to_owned()) } else { Err("must be an AWS region such as us-east-1".into()) }
}

fn dns_label(text: &str) -> Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if valid { Ok(text.to_owned()) } else { Err("must be the name of a namespace".into()) }
}

// The chart passes a value that is not set as an empty variable.
fn optional_dns_label(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { dns_label(text) }
}

fn readers(json: &str) -> Result<Readers, String> {
    readers::from_json(json).map(Readers)
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (0.01..=1000.0).contains(&rate) { Ok(rate) } else { Err("must be between 0.01 and 1000".into()) }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
