//! Whether an object may be acted on at all: it is sound, its namespace's grants allow it, and no older object claims
//! the same parameter.

use super::progress::Blocked;
use crate::api::postgres::PostgresSpec;
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
    if let Some((role, other)) = role_in_use(object, neighbours) {
        let message = format!(
            "the Postgres role {role} is already rotated by the older ManagedSecret {other} of this namespace: a role has \
             one password, so publish it in several parameters of one object instead"
        );
        return Err(permanent("RoleInUse", message));
    }
    match grants::managed_secret(given, object, region, &settings.staging) {
        grants::Verdict::Allowed(mode) => Ok(mode),
        grants::Verdict::Denied(lacking) => Err(permanent("NotGranted", lacking)),
    }
}

/// The first role of the object that an older one changes on the same server, and that object's name.
fn role_in_use(object: &ManagedSecret, neighbours: &[ManagedSecret]) -> Option<(String, String)> {
    let age =
        |o: &ManagedSecret| (o.metadata.creation_timestamp.clone().map(|t| t.0), o.metadata.name.clone());
    let postgres = object.spec.generate.postgres.as_ref()?;
    let server = |p: &PostgresSpec| (p.host.clone(), p.via.clone(), p.port());
    let older = neighbours.iter().filter(|o| o.metadata.uid != object.metadata.uid && age(o) < age(object));
    older.into_iter().find_map(|other| {
        let theirs = other.spec.generate.postgres.as_ref().filter(|p| server(p) == server(postgres))?;
        let role = postgres.roles().into_iter().find(|role| theirs.roles().contains(role))?;
        Some((role.to_owned(), other.metadata.name.clone().unwrap_or_default()))
    })
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
    let older = neighbours.iter().filter(|other| {
        other.metadata.uid != object.metadata.uid
            && age(other) < age(object)
            && settings.region_of(other) == region
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, created: &str, role: &str) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "creationTimestamp": created},
            "spec": {
                "ssm": {"parameters": [{"path": format!("/shop/{name}")}]},
                "generate": {"postgres": {"host": "db", "database": "shop", "singleRole": {"name": role}}},
                "rotation": {"period": "90d"},
            },
        }))
        .unwrap()
    }

    #[test]
    fn of_two_objects_on_one_role_the_newer_is_told() {
        let older = object("older", "2026-01-01T00:00:00Z", "app");
        let newer = object("newer", "2026-02-01T00:00:00Z", "app");
        let other = object("other", "2026-02-01T00:00:00Z", "reports");
        let all = [older.clone(), newer.clone(), other.clone()];
        let found = Some(("app".to_owned(), "older".to_owned()));
        assert_eq!(role_in_use(&newer, &all), found);
        assert_eq!((role_in_use(&older, &all), role_in_use(&other, &all)), (None, None));
    }
}
