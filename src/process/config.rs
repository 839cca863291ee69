//! How an operator sets up the controller: flags, each with an environment variable `KEYTURN_…` that the chart sets.
//! Everything is checked here, before anything is connected to.

use chrono::TimeDelta;
use clap::{Args, ValueEnum};
use keyturn_reconcile::settings::Settings;

use crate::api::readers::{self, ExpectedReader};
use crate::cluster::lease::Timing;
use crate::deploy::job::JobTemplate;
use crate::notification::{self, Sink};
use crate::target::cloudflare_r2::Endpoints;

/// The controller's own arguments. A flag wins over its environment variable.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Name of this installation, one path segment. It owns its records and descriptions in Parameter Store for
    /// ever: two installations never share one, and re-installing keeps it
    #[arg(long, env = "KEYTURN_CLUSTER", value_parser = cluster)]
    pub cluster: String,

    /// Namespace that the controller runs in; its lease lies there
    #[arg(long, env = "KEYTURN_NAMESPACE", value_parser = dns_label)]
    pub namespace: String,

    /// Name of the controller's pod, part of its identity in the lease and in Events; the host name when absent
    #[arg(long, env = "KEYTURN_POD_NAME")]
    pub pod_name: Option<String>,

    /// Namespaces to work in, separated by commas; all when absent
    #[arg(long, env = "KEYTURN_WATCH_NAMESPACES", value_delimiter = ',', value_parser = optional_dns_label)]
    pub watch_namespaces: Vec<String>,

    /// AWS region of secrets that name none; AWS_REGION when absent. Credentials, endpoints and proxies come from the
    /// AWS SDK's own variables, such as AWS_ENDPOINT_URL_SSM
    #[arg(long, env = "KEYTURN_AWS_REGION", value_parser = region)]
    pub aws_region: Option<String>,

    /// Parameter Store path below which records of rotations lie; `/keyturn/<cluster>` when absent. It must not lie
    /// under a path that hosts fetch
    #[arg(long, env = "KEYTURN_STAGING", value_parser = staging)]
    pub staging: Option<String>,

    /// Longer than any request of keyturn can live, and than Parameter Store's reads can lag
    #[arg(long, env = "KEYTURN_GRACE", value_parser = duration, default_value = "15m")]
    pub grace: TimeDelta,

    /// Least time between the adoption of an existing parameter and its first rotation
    #[arg(long, env = "KEYTURN_FIRST_ROTATION_DELAY", value_parser = duration, default_value = "1d")]
    pub first_rotation_delay: TimeDelta,

    /// Secrets that are overdue at the same time start spread over a span of this length
    #[arg(long, env = "KEYTURN_BACKLOG_SPREAD", value_parser = duration, default_value = "1h")]
    pub backlog_spread: TimeDelta,

    /// How long the previous credential keeps working where a ManagedSecret sets no `retire.after`
    #[arg(long, env = "KEYTURN_RETIRE_AFTER", value_parser = duration, default_value = "1h")]
    pub retire_after: TimeDelta,

    /// How old an R2 token that a rotation left behind without a record must be before it is deleted; never younger than
    /// the grace
    #[arg(long, env = "KEYTURN_ORPHANS_AFTER", value_parser = duration, default_value = "15m")]
    pub orphans_after: TimeDelta,

    /// How long a deleted ManagedSecret is held, at the most, to finish its rotation; never shorter than four times the
    /// grace
    #[arg(long, env = "KEYTURN_DELETION", value_parser = duration, default_value = "1h")]
    pub deletion: TimeDelta,

    /// Take http:// addresses of Cloudflare's API and of sinks, which show tokens and messages to everybody on the way
    #[arg(long, env = "KEYTURN_ALLOW_HTTP", action = clap::ArgAction::Set, default_value_t = false)]
    pub allow_http: bool,

    /// Address of Cloudflare's API
    #[arg(long, env = "KEYTURN_CLOUDFLARE_API_URL", value_parser = url, default_value = "https://api.cloudflare.com/client/v4")]
    pub cloudflare_api_url: String,

    /// Address of R2's S3 endpoint; `{account}` and `{jurisdiction}` (empty, `.eu` or `.fedramp`) are put in
    #[arg(
        long,
        env = "KEYTURN_R2_ENDPOINT",
        value_parser = r2_endpoint,
        default_value = "https://{account}{jurisdiction}.r2.cloudflarestorage.com"
    )]
    pub r2_endpoint: String,

    /// Wait after a first failure; it doubles with each further one
    #[arg(long, env = "KEYTURN_BACKOFF_INITIAL", value_parser = positive_duration, default_value = "1m")]
    pub backoff_initial: TimeDelta,

    /// Longest wait between two attempts
    #[arg(long, env = "KEYTURN_BACKOFF_MAX", value_parser = positive_duration, default_value = "1h")]
    pub backoff_max: TimeDelta,

    /// How long a deployment waits for other secrets of its host that are about to be published
    #[arg(long, env = "KEYTURN_COALESCE", value_parser = duration, default_value = "30s")]
    pub coalesce: TimeDelta,

    /// Failed attempts after which a deployment has failed for good
    #[arg(long, env = "KEYTURN_ATTEMPTS", value_parser = clap::value_parser!(i32).range(1..=100), default_value_t = 3)]
    pub attempts: i32,

    /// How long an event may take to show in CloudTrail: a search is complete up to so long ago
    #[arg(long, env = "KEYTURN_TRAIL_DELAY", value_parser = duration, default_value = "15m")]
    pub trail_delay: TimeDelta,

    /// Who may read every parameter, as JSON: a list of principal (ARN of a role, a user or sessions, in which * stands for
    /// any text), networks, or both. Incidents report all other readers as unexpected
    #[arg(long, env = "KEYTURN_EXPECTED_READERS", value_parser = readers, default_value = "")]
    pub expected_readers: Readers,

    /// How often Parameter Store is listed for changes that others made; ten seconds apart for each page of 50 parameters
    /// where that is longer
    #[arg(long, env = "KEYTURN_INVENTORY_INTERVAL", value_parser = positive_duration, default_value = "5m")]
    pub inventory_interval: TimeDelta,

    /// Most PutParameter calls a second, per account and region. AWS allows 3, or 10 with higher throughput, to
    /// everyone in the account together
    #[arg(long, env = "KEYTURN_PUTS_PER_SECOND", value_parser = rate, default_value = "1")]
    pub puts_per_second: f64,

    /// Longest time until an object is looked at again when nothing happens
    #[arg(long, env = "KEYTURN_RESYNC", value_parser = positive_duration, default_value = "10m")]
    pub resync: TimeDelta,

    /// Objects of one kind that are worked on at the same time
    #[arg(long, env = "KEYTURN_CONCURRENCY", value_parser = clap::value_parser!(u16).range(1..=256), default_value_t = 8)]
    pub concurrency: u16,

    /// Name of the ClusterRole with the rights that the controller needs in a namespace it works in; conditions name it
    /// where it is not bound
    #[arg(long, env = "KEYTURN_NAMESPACE_ROLE", value_parser = non_empty, default_value = "keyturn-namespace")]
    pub namespace_role: String,

    /// Image of deploy Jobs: keyturn's own
    #[arg(long, env = "KEYTURN_JOB_IMAGE", value_parser = non_empty)]
    pub job_image: String,

    /// When nodes pull the image of deploy Jobs
    #[arg(long, env = "KEYTURN_JOB_IMAGE_PULL_POLICY", value_enum, default_value = "IfNotPresent")]
    pub job_image_pull_policy: PullPolicy,

    /// Secrets, in the namespace of each DockerHost, with which that image is pulled, separated by commas
    #[arg(long, env = "KEYTURN_JOB_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub job_image_pull_secrets: Vec<String>,

    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "KEYTURN_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: std::net::SocketAddr,

    /// Where people are told what they must know: a JSON list of `{name, format, topics}`, with format CloudEvents or
    /// Slack. All topics where none is named
    #[arg(long, env = "KEYTURN_SINKS", value_parser = sinks, default_value = "")]
    pub sinks: Sinks,

    /// Directory that holds one for each sink, by its name, with its address in the file `url` and, where events are to
    /// be signed, a key in `signingKey`
    #[arg(long, env = "KEYTURN_SINK_FILES", default_value = "/etc/keyturn/sinks")]
    pub sink_files: std::path::PathBuf,

    /// Name of the Lease that elects the one replica that works
    #[arg(long, env = "KEYTURN_LEASE_NAME", value_parser = non_empty, default_value = "keyturn")]
    pub lease_name: String,

    /// How long a leader that has gone silent keeps the others waiting; whole seconds
    #[arg(long, env = "KEYTURN_LEASE_DURATION", value_parser = positive_duration, default_value = "15s")]
    pub lease_duration: TimeDelta,

    /// A leader that could not renew its lease for this long stops working
    #[arg(long, env = "KEYTURN_LEASE_RENEW_DEADLINE", value_parser = positive_duration, default_value = "10s")]
    pub lease_renew_deadline: TimeDelta,

    /// How often the lease is renewed by its holder, and looked at by the others
    #[arg(long, env = "KEYTURN_LEASE_RETRY_PERIOD", value_parser = positive_duration, default_value = "2s")]
    pub lease_retry_period: TimeDelta,

    /// How long steps that are under way may take to finish when the controller is told to stop
    #[arg(long, env = "KEYTURN_SHUTDOWN_TIMEOUT", value_parser = positive_duration, default_value = "10s")]
    pub shutdown_timeout: TimeDelta,
}

/// All sinks are one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sinks(pub Vec<Sink>);

/// All expected readers are one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readers(pub Vec<ExpectedReader>);

/// `imagePullPolicy` of deploy Jobs, spelled as Kubernetes does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// Arguments that cannot stand beside each other, or lack something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "no AWS region: set --aws-region (KEYTURN_AWS_REGION, chart value aws.region) or AWS_REGION to the region of secrets that name none"
    )]
    NoRegion,
    #[error("{shorter} must be shorter than {longer}")]
    Order { shorter: &'static str, longer: &'static str },
    #[error("--lease-duration must be a whole number of seconds, since a Lease holds seconds")]
    LeaseSeconds,
    #[error(
        "{flag} is an http address, which shows tokens to everybody on the way: use https, or set --allow-http=true (chart value allowHttp)"
    )]
    Http { flag: &'static str },
}

impl ControllerArgs {
    /// What the reconcilers read, after a check of what the single arguments cannot say.
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

    /// Where Cloudflare answers.
    pub fn cloudflare(&self) -> Endpoints {
        Endpoints { api: self.cloudflare_api_url.clone(), s3: self.r2_endpoint.clone() }
    }

    /// What every deploy Job has in common.
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

    /// Times of the leader election.
    pub fn lease_timing(&self) -> Timing {
        Timing {
            duration: span(self.lease_duration),
            renew_deadline: span(self.lease_renew_deadline),
            retry_period: span(self.lease_retry_period),
        }
    }

    /// Name of this process in the lease and in Events.
    pub fn pod(&self) -> String {
        let given = self.pod_name.clone().filter(|name| !name.is_empty());
        given.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "keyturn".to_owned())
    }

    /// Namespaces to work in; none means all.
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
        for (flag, address) in
            [("--cloudflare-api-url", &self.cloudflare_api_url), ("--r2-endpoint", &self.r2_endpoint)]
        {
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

/// The span for a timer. Arguments are never negative.
pub fn span(delta: TimeDelta) -> std::time::Duration {
    delta.to_std().unwrap_or_default()
}

/// A span of time as an operator writes it: a whole number and one of `ms`, `s`, `m`, `h`, `d`; or `0`.
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
    // A bound that no sensible value reaches keeps every later sum of times far from overflowing.
    delta.filter(|delta| *delta <= TimeDelta::days(3650)).ok_or_else(wrong)
}

fn positive_duration(text: &str) -> Result<TimeDelta, String> {
    let delta = duration(text)?;
    if delta.is_zero() { Err("must be longer than nothing".into()) } else { Ok(delta) }
}

fn cluster(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(
            "must be set: choose a name that no other keyturn installation uses and keep it for ever".into(),
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
    // AWS keeps names that begin so for itself, see the naming rules of Parameter Store.
    if ["aws", "ssm"].iter().any(|reserved| segments[0].to_ascii_lowercase().starts_with(reserved)) {
        return Err("must not begin with `aws` or `ssm`: AWS keeps those names for itself".into());
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

// A chart value that is not set arrives as an empty variable.
fn optional_dns_label(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { dns_label(text) }
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    if rest.is_empty() || rest.contains(char::is_whitespace) {
        return Err("must be a URL such as https://api.cloudflare.com/client/v4".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn r2_endpoint(text: &str) -> Result<String, String> {
    if text.matches("{account}").count() != 1 || text.matches("{jurisdiction}").count() > 1 {
        return Err(
            "must name {account} once, such as https://{account}{jurisdiction}.r2.cloudflarestorage.com"
                .into(),
        );
    }
    url(text)
}

fn readers(json: &str) -> Result<Readers, String> {
    readers::from_json(json).map(Readers)
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (0.01..=1000.0).contains(&rate) { Ok(rate) } else { Err("must lie between 0.01 and 1000".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ControllerArgs,
    }

    fn parse(extra: &[&str]) -> Result<ControllerArgs, String> {
        let base = ["keyturn", "--namespace=keyturn", "--job-image=keyturn:dev", "--aws-region=us-east-1"];
        Cli::try_parse_from(base.iter().chain(extra)).map(|cli| cli.args).map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_those_that_the_reconcilers_ship_with() {
        let settings = parse(&["--cluster=prod"]).unwrap().settings().unwrap();
        let shipped = Settings::new("prod", "us-east-1");
        assert_eq!(format!("{settings:?}"), format!("{shipped:?}"));
    }

    #[test]
    fn an_http_address_is_refused_unless_it_is_allowed() {
        for (flag, address) in
            [("--cloudflare-api-url", "http://10.0.0.1/v4"), ("--r2-endpoint", "http://10.0.0.1/{account}")]
        {
            let argument = format!("{flag}={address}");
            let refused = parse(&["--cluster=c", &argument]).unwrap().settings().unwrap_err().to_string();
            assert!(refused.contains(flag) && refused.contains("use https"), "{refused}");
            parse(&["--cluster=c", &argument, "--allow-http=true"]).unwrap().settings().unwrap();
        }
    }

    #[test]
    fn every_time_reaches_its_setting() {
        let times = [
            "--cluster=c",
            "--staging=/st/c",
            "--grace=3s",
            "--first-rotation-delay=0",
            "--backlog-spread=0s",
            "--retire-after=250ms",
            "--orphans-after=20m",
            "--deletion=2h",
            "--backoff-initial=1s",
            "--backoff-max=4s",
            "--coalesce=2s",
            "--attempts=2",
        ];
        let settings = parse(&times).unwrap().settings().unwrap();
        assert_eq!(settings.staging, "/st/c");
        assert_eq!(settings.grace, TimeDelta::seconds(3));
        assert_eq!(settings.first_rotation_delay, TimeDelta::zero());
        assert_eq!(settings.backlog_spread, TimeDelta::zero());
        assert_eq!(settings.retire_after, TimeDelta::milliseconds(250));
        assert_eq!(settings.orphans_after, TimeDelta::minutes(20));
        assert_eq!(settings.deletion, TimeDelta::hours(2));
        assert_eq!(settings.backoff_initial, TimeDelta::seconds(1));
        assert_eq!(settings.backoff_max, TimeDelta::seconds(4));
        assert_eq!(settings.coalesce, TimeDelta::seconds(2));
        assert_eq!(settings.attempts, 2);
    }

    #[test]
    fn cloudflare_answers_where_the_operator_says_and_otherwise_at_its_own_addresses() {
        assert_eq!(parse(&["--cluster=c"]).unwrap().cloudflare(), Endpoints::default());
        let own = [
            "--cluster=c",
            "--cloudflare-api-url=http://10.0.0.1:1/v4/",
            "--r2-endpoint=http://10.0.0.1/{account}",
        ];
        let endpoints = parse(&own).unwrap().cloudflare();
        assert_eq!(
            (endpoints.api.as_str(), endpoints.s3.as_str()),
            ("http://10.0.0.1:1/v4", "http://10.0.0.1/{account}")
        );
        for bad in [
            "--cloudflare-api-url=api.cloudflare.com",
            "--r2-endpoint=https://r2.example",
            "--r2-endpoint={account}",
        ] {
            assert!(parse(&["--cluster=c", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_cluster_is_required_and_one_path_segment() {
        assert!(parse(&[]).unwrap_err().contains("--cluster"));
        for bad in ["", "a/b", "/a", "a b", "ü", &"x".repeat(64)] {
            let error = parse(&[&format!("--cluster={bad}")]).unwrap_err();
            assert!(error.contains("path segment") || error.contains("must be set"), "{bad}: {error}");
        }
    }

    #[test]
    fn staging_is_an_absolute_path_outside_of_what_aws_reserves() {
        for bad in ["", "/", "keyturn", "/keyturn/", "/a//b", "/aws/x", "/SSM-x", "/a b"] {
            assert!(staging(bad).is_err(), "{bad}");
        }
        assert_eq!(staging("/keyturn/prod"), Ok("/keyturn/prod".into()));
    }

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        assert_eq!(duration("250ms"), Ok(TimeDelta::milliseconds(250)));
        assert_eq!(duration("3s"), Ok(TimeDelta::seconds(3)));
        assert_eq!(duration("15m"), Ok(TimeDelta::minutes(15)));
        assert_eq!(duration("1d"), Ok(TimeDelta::days(1)));
        for bad in
            ["", "s", "15", "-1s", "+1s", "1.5h", "1h30m", "9999999999999999999s", "3651d", "1 s", "1S", "1ü"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lease_times_that_would_let_two_replicas_work_are_refused() {
        let order = |args: &[&str]| {
            parse(&[&["--cluster=c"], args].concat()).unwrap().settings().unwrap_err().to_string()
        };
        assert!(order(&["--lease-renew-deadline=15s"]).contains("--lease-duration"));
        assert!(order(&["--lease-retry-period=10s"]).contains("--lease-renew-deadline"));
        assert!(order(&["--lease-duration=15500ms"]).contains("whole number of seconds"));
        assert!(order(&["--backoff-initial=2h"]).contains("--backoff-max"));
    }

    #[test]
    fn an_expected_reader_that_cloudtrail_cannot_name_is_refused() {
        let readers = |text: &str| {
            let settings = parse(&["--cluster=c", &format!("--expected-readers={text}")])?.settings();
            Ok::<_, String>(settings.unwrap().expected_readers)
        };
        assert_eq!(readers(""), Ok(Vec::new()));
        let keyturn = r#"[{"principal": "arn:aws:sts::123456789012:assumed-role/keyturn/*", "networks": ["10.0.0.0/8"]}]"#;
        assert_eq!(
            readers(keyturn).map(|readers| readers[0].networks.clone()),
            Ok(vec!["10.0.0.0/8".to_owned()])
        );
        let error = readers(r#"[{"principal": "arn:aws:iam::123456789012:policy/x"}]"#).unwrap_err();
        assert!(error.contains("policy/x") && error.contains("must be the ARN of a role"), "{error}");
    }

    #[test]
    fn an_empty_list_of_namespaces_means_all() {
        assert_eq!(
            parse(&["--cluster=c", "--watch-namespaces="]).unwrap().namespaces(),
            Vec::<String>::new()
        );
        assert_eq!(parse(&["--cluster=c", "--watch-namespaces=a,b"]).unwrap().namespaces(), ["a", "b"]);
        assert!(parse(&["--cluster=c", "--watch-namespaces=A"]).is_err());
    }
}
