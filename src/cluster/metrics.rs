//! Prometheus metrics. Counters are incremented as things happen; gauges about objects are read from the cache at each
//! scrape, so that they disappear with their object.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::cache::{Cache, decoded};
use super::lease::Leadership;
use crate::api::{DockerHost, ManagedSecret, conditions, time};
use crate::parameter_store::budget::SsmCalls;
use crate::rotation::protocol::Step;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RotationLabels {
    namespace: String,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeployLabels {
    namespace: String,
    mode: String,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    resource: String,
    verb: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    namespace: String,
    name: String,
}

/// The counters. Clones share the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    rotations: Family<RotationLabels, Counter>,
    deploy_runs: Family<DeployLabels, Counter>,
    api_writes: Family<WriteLabels, Counter>,
    reconciles: Family<KindLabels, Counter>,
    reconcile_errors: Family<KindLabels, Counter>,
    watch_errors: Family<KindLabels, Counter>,
}

impl Metrics {
    /// Counts an ended rotation or request, by its result in status.
    pub fn rotation(&self, namespace: &str, result: &str) {
        let labels = RotationLabels { namespace: namespace.into(), result: result.into() };
        self.rotations.get_or_create(&labels).inc();
    }

    /// Counts an ended deploy Job.
    pub fn deploy_run(&self, namespace: &str, mode: &str, result: &str) {
        let labels = DeployLabels { namespace: namespace.into(), mode: mode.into(), result: result.into() };
        self.deploy_runs.get_or_create(&labels).inc();
    }

    /// Counts a write request to the API server, whether it succeeds or not.
    pub fn api_write(&self, resource: &str, verb: &str) {
        let labels = WriteLabels { resource: resource.into(), verb: verb.into() };
        self.api_writes.get_or_create(&labels).inc();
    }

    /// Counts a reconciliation of an object of this kind.
    pub fn reconcile(&self, kind: &str) {
        self.reconciles.get_or_create(&KindLabels { kind: kind.into() }).inc();
    }

    /// Counts a failed reconciliation of an object of this kind, if the object's status does not show the failure.
    pub fn reconcile_error(&self, kind: &str) {
        self.reconcile_errors.get_or_create(&KindLabels { kind: kind.into() }).inc();
    }

    /// Counts a watch that broke or could not be started.
    pub fn watch_error(&self, kind: &str) {
        self.watch_errors.get_or_create(&KindLabels { kind: kind.into() }).inc();
    }
}

/// Everything that `/metrics` returns.
pub struct Exposition(Registry);

impl Exposition {
    /// Registers all metrics. Gauges about objects are exported only while this replica leads.
    pub fn new(metrics: &Metrics, ssm: &SsmCalls, cache: Cache, leadership: Leadership) -> Self {
        let mut registry = Registry::with_prefix("keyturn");
        let m = metrics.clone();
        registry.register("rotations", "Rotations and requests that ended, by result", m.rotations);
        registry.register("deploy_runs", "Deploy Jobs that ended, by mode and result", m.deploy_runs);
        registry.register("api_writes", "Writes to the Kubernetes API, by resource and verb", m.api_writes);
        registry.register("reconciles", "Reconciliations of an object, by kind", m.reconciles);
        registry.register(
            "reconcile_errors",
            "Reconciliations that failed in a way that the object's status does not show, by kind",
            m.reconcile_errors,
        );
        registry.register("watch_errors", "Watches that failed, by kind", m.watch_errors);
        ssm.register(&mut registry);
        registry.register_collector(Box::new(Objects(Arc::new((cache, leadership)))));
        Self(registry)
    }

    /// Returns the metrics as OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// Gauges about objects. Only the leader exports them; otherwise two replicas would count every object twice.
struct Objects(Arc<(Cache, Leadership)>);

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Objects")
    }
}

/// One gauge for each secret: its name, its help text, and the function that reads it from the object.
type SecretGauge = (&'static str, &'static str, fn(&ManagedSecret) -> Option<i64>);

const SECRET_GAUGES: [SecretGauge; 8] = [
    ("secret_ready", "1 if the secret is published and in order, otherwise 0", |secret| {
        Some(i64::from(condition(secret, conditions::READY)))
    }),
    ("secret_overdue", "1 if the value is older than its period, otherwise 0", |secret| {
        Some(i64::from(condition(secret, conditions::OVERDUE)))
    }),
    ("secret_stalled", "1 if a person has to act, otherwise 0", |secret| {
        Some(i64::from(condition(secret, conditions::STALLED)))
    }),
    ("secret_pending_retirements", "Number of previous credentials that still work", |secret| {
        i64::try_from(secret.status.as_ref()?.pending_retirements.len()).ok()
    }),
    (
        "secret_retirement_failures",
        "Number of consecutive failures to retire the previous credential",
        |secret| {
            let failure = secret.status.as_ref()?.failure.as_ref();
            Some(failure.filter(|failure| failure.step == Step::Retire).map_or(0, |f| i64::from(f.attempts)))
        },
    ),
    ("secret_last_rotation_timestamp_seconds", "Time at which the published value was made", |secret| {
        Some(secret.status.as_ref()?.last_rotation_time.as_ref()?.0.as_second())
    }),
    (
        "secret_password_window_seconds",
        "Time for which the hosts had no working password in the last in-place rotation of a role",
        |secret| secret.status.as_ref()?.last_rotation.as_ref()?.window_seconds,
    ),
    ("secret_next_rotation_timestamp_seconds", "Earliest time of the next rotation", |secret| {
        Some(time::from_text(secret.status.as_ref()?.next_rotation_time.as_ref()?)?.timestamp())
    }),
];

fn condition(secret: &ManagedSecret, kind: &str) -> bool {
    secret.status.as_ref().is_some_and(|status| conditions::is_true(&status.conditions, kind))
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (cache, leadership) = &*self.0;
        let leads = leadership.is_leader();
        let leader = ConstGauge::new(i64::from(leads));
        let metric = encoder.encode_descriptor(
            "leader",
            "1 if this replica is the leader, otherwise 0",
            None,
            leader.metric_type(),
        )?;
        leader.encode(metric)?;
        if !leads {
            return Ok(());
        }
        let secrets: Vec<_> = cache.scopes.iter().flat_map(|scope| scope.secrets.state()).collect();
        for (name, help, read) in SECRET_GAUGES {
            let secrets = decoded(&secrets);
            encode_gauge(&mut encoder, name, help, secrets.map(|secret| (&secret.metadata, read(secret))))?;
        }
        let hosts: Vec<_> = cache.scopes.iter().flat_map(|scope| scope.hosts.state()).collect();
        let hosts = decoded(&hosts);
        encode_gauge(
            &mut encoder,
            "image_findings",
            "Secrets found in the images that the containers of a host run, without the allowed ones",
            hosts.map(|host| (&host.metadata, image_findings(host))),
        )
    }
}

/// Returns the number of findings; `None` if the host's images were never audited.
fn image_findings(host: &DockerHost) -> Option<i64> {
    let status = host.status.as_ref()?;
    let left_out = i64::from(status.image_audit.as_ref()?.left_out);
    Some(left_out + i64::try_from(status.image_findings.len()).ok()?)
}

/// Encodes a gauge with one number for each object that has one.
fn encode_gauge<'a>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    numbers: impl Iterator<Item = (&'a ObjectMeta, Option<i64>)>,
) -> Result<(), fmt::Error> {
    let family: Family<ObjectLabels, Gauge> = Family::default();
    for (object, value) in numbers {
        let Some(value) = value else { continue };
        let labels = ObjectLabels {
            namespace: object.namespace.clone().unwrap_or_default(),
            name: object.name.clone().unwrap_or_default(),
        };
        family.get_or_create(&labels).set(value);
    }
    let metric = encoder.encode_descriptor(name, help, None, family.metric_type())?;
    family.encode(metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::mirror::mirror;

    fn shown(leadership: Leadership) -> Vec<(String, String)> {
        let (grants, _) = mirror();
        let (metrics, ssm) = (Metrics::default(), SsmCalls::default());
        // A counter appears only after its first event.
        metrics.rotation("a", "Succeeded");
        metrics.deploy_run("a", "Deploy", "Succeeded");
        metrics.api_write("leases", "update");
        metrics.reconcile("DockerHost");
        metrics.reconcile_error("DockerHost");
        metrics.watch_error("DockerHost");
        ssm.count("PutParameter", "ok");
        let cache = Cache::new(Vec::new(), grants);
        let exposition = Exposition::new(&metrics, &ssm, cache, leadership);
        let text = exposition.text().unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types
            .map(|line| line.split_once(' ').unwrap())
            .map(|(name, kind)| (name.into(), kind.into()))
            .collect()
    }

    #[test]
    fn every_metric_is_documented() {
        let page = include_str!("../../docs/operating.md");
        let metrics = shown(Leadership::permanent());
        assert!(metrics.len() > 10, "{metrics:?}");
        for (name, kind) in metrics {
            let name = if kind == "counter" { format!("{name}_total") } else { name };
            assert!(page.contains(&format!("`{name}`")), "docs/operating.md does not explain {name}");
        }
    }

    #[test]
    fn a_replica_that_does_not_lead_shows_nothing_about_secrets() {
        let names: Vec<String> = shown(Leadership::default()).into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"keyturn_leader".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with("keyturn_secret")), "{names:?}");
    }
}
