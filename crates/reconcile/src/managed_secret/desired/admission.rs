//! Admission: decides if an object may be acted on at all. Its spec must be valid, the grants of its namespace must
//! allow it, and no older object may claim the same parameter or role.

use std::collections::BTreeSet;

use keyturn_api::grants::{self, Grants, Verdict};
use keyturn_api::{DockerHost, ManagedSecret, Reason, Trouble, validate};

use super::claims;
use crate::managed_secret::status::progress::Blocked;
use crate::settings::Settings;
use crate::source::{self, Account};

/// Permission of an admitted object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::managed_secret) enum Leave {
    Rotate,
    /// keyturn decides and reports, but changes nothing. The text names the grant that only observes.
    Observe(String),
}

/// Input of the admission, beside the object itself.
pub(in crate::managed_secret) struct Scene<'a> {
    /// Other objects that claim something that this object claims.
    pub rivals: &'a [ManagedSecret],
    pub grants: &'a Grants,
    /// The DockerHost through which the object's server is reached, if there is one.
    pub on_the_way: Option<&'a DockerHost>,
}

/// Returns the permission that the grants give, or the obstacle that prevents any act.
pub(in crate::managed_secret) fn admit(
    object: &ManagedSecret,
    region: &str,
    scene: &Scene<'_>,
    settings: &Settings,
) -> Result<Leave, Blocked> {
    let rivals = scene.rivals;
    let permanent = |reason: Reason, message: String| Blocked::unseen(Trouble::permanent(reason, message));
    let problems = validate::managed_secret(&object.spec);
    if !problems.is_empty() {
        let listed: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(permanent(Reason::InvalidSpec, listed.join("; ")));
    }
    if let Some((path, other)) = claimed_before(object, region, rivals, settings) {
        let message = format!(
            "parameter {path} is managed by the older ManagedSecret {other} of this namespace: delete one of the two, \
             or give them different paths"
        );
        return Err(permanent(Reason::Conflict, message));
    }
    if let Some((what, name, other)) = account_in_use(object, rivals) {
        let message = format!(
            "{what} {name} is already rotated by the older ManagedSecret {other}. A role has one password: publish \
             it in several parameters of one object, and make a pair from a role that no other object rotates"
        );
        return Err(permanent(Reason::RoleInUse, message));
    }
    let verdict = settings.verdict(scene.grants, object, region);
    // A connection through a host also needs the grant for that host.
    let verdict = match scene.on_the_way {
        Some(host) => verdict.and(grants::docker_host(scene.grants, host)),
        None => verdict,
    };
    match verdict {
        Verdict::Rotate => Ok(Leave::Rotate),
        Verdict::Observe(why) => Ok(Leave::Observe(why)),
        Verdict::Denied(lacking) => Err(permanent(Reason::NotGranted, lacking)),
    }
}

/// Returns the first account of the object that an older object of the installation also changes or retires: its kind
/// in words, its name, and the namespace and name of the older object.
fn account_in_use(
    object: &ManagedSecret,
    rivals: &[ManagedSecret],
) -> Option<(&'static str, String, String)> {
    let what = source::installed(&object.spec.generate)?.account_in_words();
    let own = claims::accounts(object);
    let older = rivals.iter().filter(|o| o.metadata.uid != object.metadata.uid && age(o) < age(object));
    older.into_iter().find_map(|other| {
        let theirs: BTreeSet<Account> = claims::accounts(other).into_iter().collect();
        let shared = own.iter().find(|account| theirs.contains(account))?;
        Some((what, shared.name.clone(), full_name(other)))
    })
}

type Age = (Option<jiff::Timestamp>, Option<String>, Option<String>);

/// Sort key: the order in which objects were created.
fn age(object: &ManagedSecret) -> Age {
    let metadata = &object.metadata;
    (metadata.creation_timestamp.clone().map(|t| t.0), metadata.namespace.clone(), metadata.name.clone())
}

fn full_name(object: &ManagedSecret) -> String {
    let metadata = &object.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}

/// Returns the first path that an older object of the same namespace and region names too, with that object's name.
fn claimed_before(
    object: &ManagedSecret,
    region: &str,
    rivals: &[ManagedSecret],
    settings: &Settings,
) -> Option<(String, String)> {
    let older = rivals.iter().filter(|other| {
        other.metadata.uid != object.metadata.uid
            && other.metadata.namespace == object.metadata.namespace
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
    use serde_json::json;

    use super::*;

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

    fn role_in_use(object: &ManagedSecret, all: &[ManagedSecret]) -> Option<(String, String)> {
        account_in_use(object, all).map(|(_, name, other)| (name, other))
    }

    #[test]
    fn of_two_objects_on_one_role_the_newer_is_told() {
        let older = object("older", "2026-01-01T00:00:00Z", "app");
        let newer = object("newer", "2026-02-01T00:00:00Z", "app");
        let other = object("other", "2026-02-01T00:00:00Z", "reports");
        let all = [older.clone(), newer.clone(), other.clone()];
        let found = Some(("app".to_owned(), "shop/older".to_owned()));
        assert_eq!(role_in_use(&newer, &all), found);
        assert_eq!((role_in_use(&older, &all), role_in_use(&other, &all)), (None, None));
    }

    fn elsewhere(object: &ManagedSecret) -> ManagedSecret {
        let mut moved = object.clone();
        moved.metadata.namespace = Some("reports".to_owned());
        moved.metadata.uid = Some("elsewhere".to_owned());
        moved
    }

    #[test]
    fn a_role_is_in_use_where_an_object_of_another_namespace_rotates_it() {
        let older = elsewhere(&object("older", "2026-01-01T00:00:00Z", "app"));
        let newer = object("newer", "2026-02-01T00:00:00Z", "app");
        let found = Some(("app".to_owned(), "reports/older".to_owned()));
        assert_eq!(role_in_use(&newer, &[older.clone(), newer.clone()]), found);
        let through = |mut object: ManagedSecret| {
            let postgres = object.spec.generate.postgres.as_mut().unwrap();
            postgres.host = None;
            postgres.via = serde_json::from_value(json!({"dockerHost": "production"})).unwrap();
            object
        };
        assert_eq!(role_in_use(&through(newer), &[through(older)]), None, "two hosts of one name");
    }

    #[test]
    fn a_pair_is_made_from_no_role_that_another_object_rotates() {
        let older = object("older", "2026-01-01T00:00:00Z", "app");
        let mut pair = object("pair", "2026-02-01T00:00:00Z", "");
        let postgres = pair.spec.generate.postgres.as_mut().unwrap();
        postgres.single_role = None;
        postgres.alternating_roles = serde_json::from_value(json!({
            "names": ["app_a", "app_b"], "owner": "app_owner", "bootstrap": {"from": "app", "mode": "Plan"},
        }))
        .unwrap();
        let found = |name: &str| Some(("app".to_owned(), name.to_owned()));
        assert_eq!(role_in_use(&pair, &[older.clone(), pair.clone()]), found("shop/older"));
        let later = object("later", "2026-03-01T00:00:00Z", "app");
        assert_eq!(role_in_use(&later, &[later.clone(), pair]), found("shop/pair"));
    }
}
