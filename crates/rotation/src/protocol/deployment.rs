//! Decides how far the deployment of a rotation has come: do the hosts run the published version?

use keyturn_api::Trouble;

use super::Desired;
use crate::observed::{HostEvidence, HostFailure, Observed, Parameter, Record};

pub(super) enum Deployment {
    Proven,
    Pending {
        host: String,
    },
    /// This DockerHost does not exist; every other host has adopted the version.
    Missing {
        host: String,
    },
    Failed {
        host: String,
        /// It needs a person once enough attempts have failed.
        trouble: Trouble,
        /// True when the host itself has shown the failure; false when the cause is unknown, as after a broken
        /// connection.
        rejected: bool,
    },
}

pub(super) fn deployment(desired: &Desired<'_>, observed: &Observed, record: &Record) -> Deployment {
    let (mut pending, mut missing) = (None, None);
    for host in &observed.hosts {
        let wanted = desired.hosts.contains(&host.name);
        if !host.exists {
            // The host was removed from the spec and deleted, so it cannot prove anything any more.
            if wanted {
                missing = missing.or(Some(host.name.clone()));
            }
            continue;
        }
        if (wanted || record.hosts.contains(&host.name)) && !has_adopted(host, observed, record) {
            match host.failed_deploy.as_ref().filter(|f| is_about(f, observed, record)) {
                Some(failure) => {
                    return Deployment::Failed {
                        host: host.name.clone(),
                        trouble: failure.trouble.clone(),
                        rejected: failure.rejected,
                    };
                }
                None => pending = pending.or(Some(host.name.clone())),
            }
        }
    }
    match (pending, missing) {
        (Some(host), _) => Deployment::Pending { host },
        (None, Some(host)) => Deployment::Missing { host },
        (None, None) => Deployment::Proven,
    }
}

fn has_adopted(host: &HostEvidence, observed: &Observed, record: &Record) -> bool {
    let adopted = |p: &Parameter| record.keeps(p) || host.has_adopted(p, record.version_in(p));
    observed.parameters.iter().all(adopted)
}

fn is_about(failure: &HostFailure, observed: &Observed, record: &Record) -> bool {
    observed.parameters.iter().any(|parameter| {
        let version = record.version_in(parameter).map(|seen| seen.version.number);
        version.is_some() && failure.versions.get(&parameter.path).copied() == version
    })
}
