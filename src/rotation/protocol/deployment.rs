//! Whether the hosts run what a rotation published.

use super::Desired;
use crate::api::docker_host::Proof;
use crate::rotation::observed::{HostEvidence, HostFailure, Observed, Record, RotationId};

pub(super) enum Deployment {
    Proven,
    Pending { host: String },
    Missing { host: String },
    Failed { host: String, reason: String, message: String, for_good: bool },
}

pub(super) fn deployment(desired: &Desired<'_>, observed: &Observed, record: &Record) -> Deployment {
    let mut pending = None;
    for host in &observed.hosts {
        let wanted = desired.hosts.contains(&host.name);
        if !host.exists {
            // A host that was taken out of the spec and deleted can prove nothing any more.
            if wanted {
                return Deployment::Missing { host: host.name.clone() };
            }
            continue;
        }
        if (wanted || record.hosts.contains(&host.name)) && !has_adopted(host, observed, record.id) {
            match host.failed_deploy.as_ref().filter(|f| is_about(f, observed, record.id)) {
                Some(failure) => {
                    return Deployment::Failed {
                        host: host.name.clone(),
                        reason: failure.reason.clone(),
                        message: failure.message.clone(),
                        for_good: failure.for_good,
                    };
                }
                None => pending = pending.or(Some(host.name.clone())),
            }
        }
    }
    pending.map_or(Deployment::Proven, |host| Deployment::Pending { host })
}

fn has_adopted(host: &HostEvidence, observed: &Observed, id: RotationId) -> bool {
    observed.parameters.iter().all(|parameter| {
        let proof = host.proof_of(parameter, parameter.published_by(id));
        matches!(proof, Some(Proof::Proven | Proof::Incomparable))
    })
}

fn is_about(failure: &HostFailure, observed: &Observed, id: RotationId) -> bool {
    observed.parameters.iter().any(|parameter| {
        let version = parameter.published_by(id).map(|seen| seen.version.number);
        version.is_some() && failure.versions.get(&parameter.path).copied() == version
    })
}
