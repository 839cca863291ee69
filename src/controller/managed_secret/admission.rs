//! Whether an object may be acted on at all: it is sound, its namespace's grants allow it, and no older object claims
//! the same parameter.

use super::progress::Blocked;
use crate::api::ManagedSecret;
use crate::api::RotationGrant;
use crate::api::rotation_grant::GrantMode;
use crate::controller::settings::Settings;

pub fn admit(
    object: &ManagedSecret,
    region: &str,
    neighbours: &[ManagedSecret],
    _grants: &[RotationGrant],
    settings: &Settings,
) -> Result<GrantMode, Blocked> {
    let permanent = |reason: &str, message: String| Blocked {
        reason: reason.to_owned(),
        message,
        permanent: true,
        unseen: true,
    };
    if let Some((path, other)) = claimed_before(object, region, neighbours, settings) {
        let message = format!(
            "parameter {path} is managed by the older ManagedSecret {other} of this namespace: delete one of the two, \
             or give them different paths"
        );
        return Err(permanent("Conflict", message));
    }
    Ok(GrantMode::Rotate)
}

/// The first path that an older object of the namespace names too, and that object's name.
fn claimed_before(
    object: &ManagedSecret,
    region: &str,
    neighbours: &[ManagedSecret],
    settings: &Settings,
) -> Option<(String, String)> {
    let age =
        |o: &ManagedSecret| (o.metadata.creation_timestamp.clone().map(|t| t.0), o.metadata.name.clone());
    let region_of = |o: &ManagedSecret| o.spec.ssm.region.clone().unwrap_or_else(|| settings.region.clone());
    let older = neighbours.iter().filter(|other| {
        other.metadata.uid != object.metadata.uid && age(other) < age(object) && region_of(other) == region
    });
    older.into_iter().find_map(|other| {
        let path = object
            .spec
            .ssm
            .parameters
            .iter()
            .find(|p| other.spec.ssm.parameters.iter().any(|o| o.path == p.path))?;
        Some((path.path.clone(), other.metadata.name.clone().unwrap_or_default()))
    })
}
