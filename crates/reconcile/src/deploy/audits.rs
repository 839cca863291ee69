//! When the images of a host are audited next, by the interval in its spec.

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::DockerHost;
use keyturn_api::docker_host::DockerHostStatus;
use keyturn_api::time::from_kubernetes;

use super::revision::audit_settings;

/// Maximum delay of the first image audit after the creation of a host. Meanwhile people can finish setting it up.
const FIRST_AUDIT: TimeDelta = TimeDelta::minutes(15);

/// Time of the next image audit that needs a run of its own. `None` if images are audited only together with other
/// runs.
pub fn audit_due(host: &DockerHost, status: &DockerHostStatus) -> Option<DateTime<Utc>> {
    [configurations_due(host, status), layers_due(host, status)].into_iter().flatten().min()
}

/// Time of the next run that reads the files of the images' layers: one interval after the last such run, or at once if
/// there was none with these settings. `None` if the host does not ask for it, has no interval, or has no image audit
/// yet.
pub(super) fn layers_due(host: &DockerHost, status: &DockerHostStatus) -> Option<DateTime<Utc>> {
    let audit = host.spec.audit.as_ref().filter(|audit| audit.layers)?;
    let interval = audit.interval.as_ref()?.to_delta()?;
    // The configurations are audited first; that also shows that the images of the host can be read.
    let last = status.image_audit.as_ref()?;
    match &last.layers {
        Some(layers) if last.settings == audit_settings(&host.spec) => {
            Some(from_kubernetes(&layers.at) + interval)
        }
        _ => Some(DateTime::UNIX_EPOCH),
    }
}

fn configurations_due(host: &DockerHost, status: &DockerHostStatus) -> Option<DateTime<Utc>> {
    let audit = host.spec.audit.as_ref()?;
    let interval = || audit.interval.as_ref()?.to_delta();
    match &status.image_audit {
        Some(last) if last.settings == audit_settings(&host.spec) => {
            Some(from_kubernetes(&last.at) + interval()?)
        }
        // The last audit used other settings.
        Some(_) => Some(DateTime::UNIX_EPOCH),
        // No audit yet. A new host is left alone for a while: before the first deployment, its verification would only
        // fail.
        None => {
            let created = from_kubernetes(host.metadata.creation_timestamp.as_ref()?);
            Some(created + interval()?.min(FIRST_AUDIT))
        }
    }
}
