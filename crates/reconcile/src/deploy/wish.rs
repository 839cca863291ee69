//! Wishes: the published parameters that a docker host has to run, read from the spec and the status of the ManagedSecrets
//! of its namespace.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_api::ManagedSecret;
use keyturn_api::conditions::{self, STALLED};
use keyturn_api::managed_secret::{HostRef, IfMissing, Origin, RotationStatus, Step, Trigger};
use keyturn_api::time::from_kubernetes;
use keyturn_rotation::protocol::Strategy;
use kube::ResourceExt;

use crate::source;

/// One published parameter that one host has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Name of the ManagedSecret.
    pub secret: String,
    /// Path of the parameter.
    pub path: String,
    /// The published version.
    pub version: i64,
    /// Time at which the value of that version was made.
    pub published_at: DateTime<Utc>,
    /// Origin of that version: published by keyturn, adopted, or written by somebody else.
    pub origin: Origin,
    /// Names of the environment variable in the containers.
    pub env: Vec<String>,
    /// Region that holds the parameter; the controller's own when `None`.
    pub region: Option<String>,
    /// Start of the rotation that waits for the secret's hosts; `None` while none waits.
    pub rotation_since: Option<DateTime<Utc>>,
    /// Time at which the secret requested a preflight, the check of its hosts before a rotation starts. Older proofs do
    /// not count for it. `None` if no preflight is requested.
    pub preflight: Option<DateTime<Utc>>,
    /// Names of the DockerHosts in the secret's spec.
    pub hosts: Vec<String>,
    /// True when rotations change the password of the secret's only role. After the change, a host has no working
    /// password until it is deployed to.
    pub in_place: bool,
    /// True while an incident about the secret is not contained: somebody may be using the value that this version
    /// replaces.
    pub urgent: bool,
}

impl Wish {
    /// The line `path=version`, for `KEYTURN_PARAMETERS` and for people.
    pub fn line(&self) -> String {
        format!("{}={}", self.path, self.version)
    }
}

/// A secret of the host whose next version is about to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Name of the ManagedSecret.
    pub secret: String,
    /// Start of its rotation, or of the preflight before the rotation. If there is neither and nothing is published
    /// yet, the creation time of the object.
    pub since: DateTime<Utc>,
    /// Time until which deployments of other secrets are held; `None` if they are not. It is set while the password of
    /// a role is being changed and is not published yet: a container that starts meanwhile would get a password that
    /// does not work.
    pub holds_until: Option<DateTime<Utc>>,
}

/// Maximum time for which the change of a role's password in place holds deployments of other secrets. Install and
/// Promote normally follow each other at once, but a fault between them may last.
const LONGEST_HOLD: TimeDelta = TimeDelta::minutes(5);

/// True when the secret has to run on this host: its spec names the host, or a rotation in progress still includes the
/// host although the spec has changed.
pub fn names_host(secret: &ManagedSecret, host: &str) -> bool {
    let in_status = || {
        secret
            .status
            .as_ref()
            .is_some_and(|s| s.rotation.is_some() && s.hosts.iter().any(|known| known.name == host))
    };
    secret.spec.hosts.iter().any(|named| named.name == host) || in_status()
}

/// Returns what is published for this host, by path. If two secrets claim one path, the older object counts; the newer
/// object reports the conflict in its own status.
pub fn wishes(host: &str, secrets: &[ManagedSecret]) -> Vec<Wish> {
    let mut oldest_first: Vec<&ManagedSecret> = secrets.iter().filter(|s| names_host(s, host)).collect();
    oldest_first.sort_by_key(|s| (created(s), s.name_any()));
    let mut by_path = BTreeMap::new();
    for secret in oldest_first {
        for wish in wishes_of(host, secret) {
            by_path.entry(wish.path.clone()).or_insert(wish);
        }
    }
    by_path.into_values().collect()
}

fn wishes_of(host: &str, secret: &ManagedSecret) -> Vec<Wish> {
    let Some(status) = &secret.status else { return Vec::new() };
    let named = secret.spec.hosts.iter().find(|named| named.name == host);
    let urgent = status.compromise.as_ref().is_some_and(|compromise| compromise.contained_at.is_none());
    // In an incident the old login may be revoked before all hosts have the new one.
    let deploys = |step: Step| step == Step::Deploy || urgent && step == Step::Retire;
    let rotation_since =
        status.rotation.as_ref().filter(|r| deploys(r.step)).map(|r| from_kubernetes(&r.started_at));
    // The grants were checked against the spec only, so a path that only the status names does not count.
    let is_named = |path: &str| secret.spec.ssm.parameters.iter().any(|parameter| parameter.path == path);
    let published = status.parameters.iter().filter(|published| is_named(&published.path));
    published
        .map(|published| Wish {
            secret: secret.name_any(),
            path: published.path.clone(),
            version: published.version,
            published_at: from_kubernetes(&published.published_at),
            origin: published.origin,
            env: variables(named, secret, &published.path),
            region: secret.region().map(str::to_owned),
            rotation_since,
            preflight: status.preflight.as_ref().map(|p| from_kubernetes(&p.requested_at)),
            hosts: secret.spec.hosts.iter().map(|named| named.name.clone()).collect(),
            in_place: is_in_place(secret),
            urgent,
        })
        .collect()
}

/// Returns the names of the environment variable that holds the value of a path. If the secret has one parameter, these
/// are all names that the host reference lists. If it has several, it is the listed name at the parameter's position.
/// Without a listed name, it is the usual name for the path's last segment.
fn variables(named: Option<&HostRef>, secret: &ManagedSecret, path: &str) -> Vec<String> {
    let listed = named.map_or(&[][..], |named| &named.env);
    let parameters = &secret.spec.ssm.parameters;
    let position = parameters.iter().position(|p| p.path == path);
    match (parameters.len(), position.and_then(|at| listed.get(at))) {
        (1, Some(_)) => listed.to_vec(),
        (_, Some(one)) => vec![one.clone()],
        (_, None) => vec![usual_variable(path.rsplit('/').next().unwrap_or(path))],
    }
}

/// Returns the usual variable name for a path segment: the segment itself if it has only letters, digits and `_`. Names
/// such as `db-password` and `spring.datasource.password` are not valid for a variable; people then write capitals and
/// `_`.
fn usual_variable(segment: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if segment.chars().all(is_allowed) {
        return segment.to_owned();
    }
    segment.chars().map(|c| if is_allowed(c) { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Returns the secrets of this host that are about to publish a version. A deployment that waits for them also deploys
/// their versions.
pub fn arrivals(host: &str, secrets: &[ManagedSecret]) -> Vec<Arrival> {
    secrets
        .iter()
        .filter(|secret| names_host(secret, host))
        .filter_map(|secret| {
            let since = arriving_since(secret)?;
            Some(Arrival { secret: secret.name_any(), since, holds_until: holds_until(secret) })
        })
        .collect()
}

/// Time until which the secret holds deployments of other secrets; `None` if it does not. It holds them from before the
/// password of its role is changed until that password is published, or until the role has its old password again. A
/// failed change leaves the role as it was, so it holds nothing.
pub fn holds_until(secret: &ManagedSecret) -> Option<DateTime<Utc>> {
    let rotation =
        secret.status.as_ref().and_then(|s| s.rotation.as_ref()).filter(|_| is_in_place(secret))?;
    let installed_at = rotation.installed_at.as_ref().map(from_kubernetes);
    // The rotation before a rollback may have changed the role, so a failed rollback holds deployments, too.
    let has_failed = rotation.attempts > 0 && installed_at.is_none() && rotation.trigger != Trigger::RollBack;
    // Before the first value is published, no container uses the role.
    let holds = leaves_the_published(rotation) && rotation.trigger != Trigger::Missing && !has_failed;
    holds.then(|| installed_at.unwrap_or(from_kubernetes(&rotation.started_at)) + LONGEST_HOLD)
}

/// True when a value other than the published one works, or soon will. It stays true after SSM has refused the new
/// password of a role permanently, until a rollback has restored the previous password. The status first shows such a
/// rollback as step Abort.
fn leaves_the_published(rotation: &RotationStatus) -> bool {
    let is_taken_back = || rotation.installed_at.is_some() || rotation.trigger == Trigger::RollBack;
    is_unpublished(rotation.step) || rotation.step == Step::Abort && is_taken_back()
}

fn is_unpublished(step: Step) -> bool {
    matches!(step, Step::Record | Step::Install | Step::Promote)
}

fn is_in_place(secret: &ManagedSecret) -> bool {
    source::strategy(&secret.spec.generate) == Some(Strategy::InPlace)
}

fn arriving_since(secret: &ManagedSecret) -> Option<DateTime<Utc>> {
    let status = secret.status.as_ref();
    if let Some(rotation) = status.and_then(|s| s.rotation.as_ref()) {
        return leaves_the_published(rotation).then(|| from_kubernetes(&rotation.started_at));
    }
    let stalled = status.is_some_and(|s| conditions::is_true(&s.conditions, STALLED));
    if stalled || secret.spec.suspend {
        return None;
    }
    // Its rotation starts as soon as the preflight of its hosts has passed.
    if let Some(preflight) = status.and_then(|s| s.preflight.as_ref()) {
        return Some(from_kubernetes(&preflight.requested_at));
    }
    let published = status.is_some_and(|s| !s.parameters.is_empty());
    let waits_for_a_person = secret.spec.ssm.if_missing == Some(IfMissing::Stall);
    (!published && !waits_for_a_person).then(|| created(secret)).flatten()
}

fn created(secret: &ManagedSecret) -> Option<DateTime<Utc>> {
    secret.metadata.creation_timestamp.as_ref().map(from_kubernetes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::testing::{at, preflight, published, rotating, secret};

    #[test]
    fn the_variable_is_the_last_segment_unless_the_reference_names_others() {
        let mut one =
            published(secret("token", &["/app/prod/TOKEN"]), &[("/app/prod/TOKEN", 3, Origin::Rotated)]);
        assert_eq!(wishes("web", &[one.clone()])[0].env, ["TOKEN"]);
        one.spec.hosts[0].env = vec!["RUNNER_TOKEN".into(), "APP_TOKEN".into()];
        assert_eq!(wishes("web", &[one])[0].env, ["RUNNER_TOKEN", "APP_TOKEN"]);

        let paths = ["/app/ID", "/app/KEY"];
        let mut two = published(
            secret("pair", &paths),
            &[("/app/ID", 1, Origin::Rotated), ("/app/KEY", 1, Origin::Rotated)],
        );
        two.spec.hosts[0].env = vec!["ACCESS_ID".into()];
        let env: Vec<_> = wishes("web", &[two]).into_iter().map(|w| w.env).collect();
        assert_eq!(env, [["ACCESS_ID"], ["KEY"]]);
    }

    #[test]
    fn a_segment_that_is_no_name_of_a_variable_has_the_usual_one() {
        for (path, expected) in [
            ("/app/prod/db-password", "DB_PASSWORD"),
            ("/app/spring.datasource.password", "SPRING_DATASOURCE_PASSWORD"),
            ("/app/db_password", "db_password"),
        ] {
            let secret = published(secret("db", &[path]), &[(path, 3, Origin::Rotated)]);
            assert_eq!(wishes("web", &[secret])[0].env, [expected]);
        }
    }

    #[test]
    fn a_role_that_is_changed_in_place_holds_others_until_it_is_published_has_failed_or_takes_too_long() {
        let path = "/app/DB_PASSWORD";
        let mut role = published(secret("db", &[path]), &[(path, 3, Origin::Rotated)]);
        role.spec.generate = serde_json::from_value(serde_json::json!({
            "postgres": {"via": {"dockerHost": "web"}, "database": "app", "singleRole": {"name": "app"}}
        }))
        .unwrap();
        let held = |secret: ManagedSecret| {
            arrivals("web", &[secret]).iter().find_map(|a| a.holds_until).map(|until| until.timestamp())
        };
        for step in [Step::Record, Step::Install, Step::Promote] {
            assert_eq!(held(rotating(role.clone(), step, 60)), Some(360), "{step}");
        }
        assert_eq!(held(rotating(role.clone(), Step::Deploy, 60)), None, "published");
        assert_eq!(held(preflight(role.clone(), 60)), None, "nothing is touched yet");
        let changed = |change: fn(&mut keyturn_api::managed_secret::RotationStatus)| {
            let mut role = rotating(role.clone(), Step::Install, 60);
            change(role.status.as_mut().unwrap().rotation.as_mut().unwrap());
            held(role)
        };
        assert_eq!(changed(|r| r.trigger = Trigger::Missing), None, "nothing runs yet");
        assert_eq!(changed(|r| r.attempts = 1), None, "the role is as it was");
        let installed = changed(|r| {
            r.attempts = 1;
            r.installed_at = Some(at(90));
        });
        assert_eq!(installed, Some(390), "the role was changed");
        let given_back = changed(|r| {
            r.attempts = 1;
            r.trigger = Trigger::RollBack;
        });
        assert_eq!(given_back, Some(360), "the role is as the rotation before has left it");
        let marked = changed(|r| r.step = Step::Abort);
        assert_eq!(marked, None, "the role was never changed");
        let taken_back = changed(|r| {
            r.step = Step::Abort;
            r.installed_at = Some(at(90));
        });
        assert_eq!(taken_back, Some(390), "the role has yet to be given back");
        assert!(wishes("web", &[role])[0].in_place);
    }

    #[test]
    fn of_two_secrets_on_one_path_the_older_counts() {
        let path = "/app/TOKEN";
        let mut older = published(secret("older", &[path]), &[(path, 3, Origin::Rotated)]);
        let mut newer = published(secret("a-newer", &[path]), &[(path, 9, Origin::Rotated)]);
        older.metadata.creation_timestamp = Some(at(0));
        newer.metadata.creation_timestamp = Some(at(60));
        let wishes = wishes("web", &[newer, older]);
        assert_eq!(wishes.iter().map(|w| w.secret.as_str()).collect::<Vec<_>>(), ["older"]);
    }

    #[test]
    fn a_host_that_left_the_spec_counts_until_the_rotation_ends() {
        let mut moved = rotating(
            published(secret("token", &["/app/TOKEN"]), &[("/app/TOKEN", 3, Origin::Rotated)]),
            Step::Deploy,
            0,
        );
        moved.spec.hosts.clear();
        assert!(!names_host(&moved, "web"));
        if let Some(status) = &mut moved.status {
            status.hosts.push(keyturn_api::managed_secret::SecretOnHost {
                name: "web".into(),
                version: None,
                proven: false,
            });
        }
        assert!(names_host(&moved, "web"));
    }

    #[test]
    fn a_secret_arrives_from_its_preflight_to_its_publication_or_while_nothing_is_published() {
        let path = "/app/TOKEN";
        let known = || published(secret("token", &[path]), &[(path, 3, Origin::Rotated)]);
        for (step, arrives) in [
            (Step::Record, true),
            (Step::Install, true),
            (Step::Promote, true),
            (Step::Deploy, false),
            (Step::Close, false),
        ] {
            let arrivals = arrivals("web", &[rotating(known(), step, 60)]);
            assert_eq!(arrivals.iter().map(|a| a.since.timestamp()).next(), arrives.then_some(60), "{step}");
        }
        assert_eq!(arrivals("web", &[known()]), []);
        assert_eq!(arrivals("web", &[preflight(known(), 70)])[0].since.timestamp(), 70);
        assert_eq!(arrivals("web", &[preflight(rotating(known(), Step::Deploy, 60), 70)]), []);

        let mut missing = secret("token", &[path]);
        missing.metadata.creation_timestamp = Some(at(30));
        assert_eq!(arrivals("web", &[missing.clone()]).len(), 1);
        let mut suspended = missing.clone();
        suspended.spec.suspend = true;
        assert_eq!(arrivals("web", &[suspended]), []);
        missing.spec.ssm.if_missing = Some(IfMissing::Stall);
        assert_eq!(arrivals("web", &[missing]), []);
    }
}
