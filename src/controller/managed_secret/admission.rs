//! Whether an object may be acted on at all: it is sound, its namespace's grants allow it, and no older object claims
//! the same parameter.

use super::progress::Blocked;
use crate::api::rotation_grant::GrantMode;
use crate::api::{ManagedSecret, RotationGrant, grants, validate};
use crate::controller::settings::Settings;

/// The mode that the grants allow, or what stands against acting.
pub fn admit(
    object: &ManagedSecret,
    region: &str,
    neighbours: &[ManagedSecret],
    given: &[RotationGrant],
    settings: &Settings,
) -> Result<GrantMode, Blocked> {
    let permanent = |reason: &str, message: String| Blocked {
        reason: reason.to_owned(),
        message,
        permanent: true,
        unseen: true,
    };
    let problems = validate::managed_secret(&object.spec);
    if !problems.is_empty() {
        let listed: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(permanent("InvalidSpec", listed.join("; ")));
    }
    if let Some((path, other)) = claimed_before(object, region, neighbours, settings) {
        let message = format!(
            "parameter {path} is managed by the older ManagedSecret {other} of this namespace: delete one of the two, \
             or give them different paths"
        );
        return Err(permanent("Conflict", message));
    }
    match grants::managed_secret(given, object, region, &settings.staging) {
        grants::Verdict::Allowed(mode) => Ok(mode),
        grants::Verdict::Denied(lacking) => Err(permanent("NotGranted", lacking)),
    }
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
