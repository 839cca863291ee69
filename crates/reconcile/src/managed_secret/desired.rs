//! Translates the spec of a ManagedSecret into the terms of the protocol.

pub(super) mod admission;
pub mod claims;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::managed_secret::{DeletionPolicy, IfMissing, RetireRequirement, RotationResult};
use keyturn_api::time::from_kubernetes;
use keyturn_api::window::Window;
use keyturn_api::{DockerHost, FINALIZER, ManagedSecret, ROTATE_REQUESTED_AT, SecretIncident};
use keyturn_rotation::protocol::{Desired, Incident, Request, Retirement, Timing};
use keyturn_rotation::request;

use crate::incident::scope;
use crate::settings::Settings;
use crate::source;

/// Maximum number of bytes of a request.
const LONGEST_REQUEST: usize = 256;

/// Returns the windows of each DockerHost that must run a secret. The list of a host is empty if it may be deployed to
/// at any time.
pub(super) fn host_windows<'a>(object: &ManagedSecret, hosts: &'a [DockerHost]) -> Vec<&'a [Window]> {
    let named = |host: &&DockerHost| {
        object.spec.hosts.iter().any(|wanted| Some(&wanted.name) == host.metadata.name.as_ref())
    };
    hosts.iter().filter(named).map(|host| host.spec.deploy.windows.as_slice()).collect()
}

pub(super) fn desired<'a>(
    object: &'a ManagedSecret,
    owner: &'a str,
    identity: &'a str,
    host_windows: &'a [&'a [Window]],
    incidents: Vec<Incident>,
    settings: &Settings,
) -> Desired<'a> {
    let spec = &object.spec;
    let rotation = &spec.rotation;
    Desired {
        owner,
        deleting: object.metadata.deletion_timestamp.as_ref().map(from_kubernetes),
        deletion_bound: settings.deletion_bound(),
        delete_parameters: spec.deletion_policy == DeletionPolicy::Delete,
        suspended: spec.suspend,
        finalizer: object.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER),
        settled_since: None,
        if_missing: if_missing(object),
        on_failure: rotation.on_failure.unwrap_or_default(),
        on_drift: rotation.on_drift.unwrap_or_default(),
        roles: source::installed(&spec.generate).map(|source| source.usernames()).unwrap_or_default(),
        kms_key: spec.ssm.kms_key_id.as_deref(),
        rings: source::keeps_previous(&spec.generate),
        samples: BTreeMap::new(),
        promotion_refused: false,
        hosts: spec.hosts.iter().map(|h| h.name.clone()).collect(),
        request: request(object),
        timing: Timing {
            period: rotation.period.as_ref().and_then(|p| p.to_delta()),
            windows: &rotation.windows,
            host_windows,
            first_rotation_delay: settings.first_rotation_delay,
            spread: settings.backlog_spread,
            created_at: created_at(object),
            rolled_back_at: rolled_back_at(object),
            identity,
        },
        preflight_requested: object
            .status
            .as_ref()
            .and_then(|s| s.preflight.as_ref())
            .map(|p| from_kubernetes(&p.requested_at)),
        strategy: source::strategy(&spec.generate),
        may_set_up: source::installed(&spec.generate)
            .and_then(|source| source.bootstrap())
            .is_some_and(|bootstrap| bootstrap.applies),
        retirement: retirement(object, settings),
        incidents,
    }
}

/// Returns the incidents that suspect the secret. A report that is dated after the creation of the incident counts
/// from the creation. An incident counts only once this process' own clock has reached the time of the report: a value
/// that is made then must be younger than the report.
pub(super) fn incidents(object: &ManagedSecret, all: &[SecretIncident], now: DateTime<Utc>) -> Vec<Incident> {
    let about_it = all.iter().filter(|incident| scope::concerns(incident, object));
    let incidents = about_it.map(|incident| Incident {
        reported_at: scope::reported_at(incident),
        revoke_at: scope::revoke_at(incident),
    });
    incidents.filter(|incident| incident.reported_at <= now).collect()
}

/// Returns `ssm.ifMissing`, or its default. The default for a secret with a target is Stall, since a typo in the path
/// must not change a login that is in use.
pub(super) fn if_missing(object: &ManagedSecret) -> IfMissing {
    let issued = object.spec.generate.has_target();
    object.spec.ssm.if_missing.unwrap_or(if issued { IfMissing::Stall } else { IfMissing::Create })
}

/// True when hosts or a target take part in a rotation: the same as [`Desired::concerns_others`], for callers that
/// have only the object.
pub(super) fn concerns_others(object: &ManagedSecret) -> bool {
    object.spec.generate.has_target() || !object.spec.hosts.is_empty()
}

fn retirement(object: &ManagedSecret, settings: &Settings) -> Retirement {
    let spec = object.spec.retire.as_ref();
    let said: Option<TimeDelta> = spec.and_then(|r| r.after.as_ref()).and_then(|after| after.to_delta());
    let rotation = object.status.as_ref().and_then(|s| s.rotation.as_ref());
    Retirement {
        after: said.unwrap_or(settings.retire_after),
        orphans_after: settings.orphans_after.max(settings.grace),
        verify_is_enough: spec.is_some_and(|r| r.requires == Some(RetireRequirement::Verify)),
        proven_since: rotation.and_then(|r| r.proven_at.as_ref()).map(from_kubernetes),
        failed: false,
    }
}

pub(super) fn request(object: &ManagedSecret) -> Option<Request<'_>> {
    let token = request_token(object)?;
    let status = object.status.as_ref();
    let hash = request::hash(token);
    let handled = status.is_some_and(|s| {
        let mut ended = s.last_rotation.iter().chain(&s.history);
        s.handled_requests.contains(&hash) || ended.any(|ended| ended.request.as_deref() == Some(token))
    });
    Some(Request { token, hash, handled, first_sight: is_first_sight(object) })
}

/// Returns the request in the annotation. A text that is too long is ignored: the request becomes part of the
/// rotation's record, which SSM limits to 4096 bytes, and an annotation must never prevent the record of an incident's
/// rotation.
pub(super) fn request_token(object: &ManagedSecret) -> Option<&str> {
    annotation(object).filter(|token| token.len() <= LONGEST_REQUEST)
}

/// Returns a message for the person whose request is ignored because it is too long.
pub(super) fn unusable_request(object: &ManagedSecret) -> Option<String> {
    let too_long = annotation(object).is_some_and(|token| token.len() > LONGEST_REQUEST);
    too_long.then(|| {
        format!(
            "The value of {ROTATE_REQUESTED_AT} is longer than {LONGEST_REQUEST} bytes, so keyturn ignores it: set a \
             shorter one, such as a time"
        )
    })
}

fn annotation(object: &ManagedSecret) -> Option<&str> {
    let value = object.metadata.annotations.as_ref()?.get(ROTATE_REQUESTED_AT)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

/// True when the object is new: the CRD gives it observedGeneration -1, and the first status sets a real one.
pub(super) fn is_first_sight(object: &ManagedSecret) -> bool {
    let generation = object.status.as_ref().and_then(|status| status.observed_generation);
    generation.is_none_or(|generation| generation < 0)
}

/// Returns the time at which the last rotation ended, if it was rolled back.
fn rolled_back_at(object: &ManagedSecret) -> Option<DateTime<Utc>> {
    let last =
        object.status.as_ref()?.history.first().filter(|last| last.result == RotationResult::RolledBack)?;
    last.finished_at.as_ref().map(from_kubernetes)
}

fn created_at(object: &ManagedSecret) -> DateTime<Utc> {
    object.metadata.creation_timestamp.as_ref().map_or(DateTime::UNIX_EPOCH, from_kubernetes)
}
