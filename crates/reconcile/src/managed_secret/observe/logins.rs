//! Logins of one secret: the published and the recorded login, and the logins with which a role can change its own
//! password.

use std::collections::BTreeMap;

use keyturn_api::{ManagedSecret, Reason, Trouble};
use keyturn_rotation::observed::{Credential, Observed, Parameter};
use keyturn_secret_value::SecretValue;

use crate::parameter_store::{ParameterStore, StoreError};
use crate::source;
use crate::target::Login;

/// Maximum number of older versions whose passwords are tried if a role has to change its own password.
const OLDER_VERSIONS: usize = 5;

/// True when only the role itself can change its password, since there is no administrator.
pub(in crate::managed_secret) fn changes_itself(object: &ManagedSecret) -> bool {
    source::installed(&object.spec.generate).is_some_and(|source| source.changes_itself())
}

pub(in crate::managed_secret) fn login_of(credential: &Credential) -> Login {
    Login { username: credential.username.clone(), password: credential.password.duplicate() }
}

/// Reads the login that is published now or, if `versions` is given, the login that these versions published. `None`
/// if a version does not exist, or if the texts contain no login of this source.
pub(in crate::managed_secret) async fn published_login(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    versions: Option<&BTreeMap<String, i64>>,
) -> Result<Option<Login>, StoreError> {
    let mut values: Vec<SecretValue> = Vec::new();
    for parameter in &object.spec.ssm.parameters {
        let latest =
            observed.parameters.iter().find(|p| p.path == parameter.path).map(Parameter::latest_number);
        let version = versions.map_or(latest, |versions| versions.get(&parameter.path).copied());
        match store.read(&parameter.path, version).await? {
            Some(value) => values.push(value),
            None => return Ok(None),
        }
    }
    let pairs: Vec<_> = object.spec.ssm.parameters.iter().zip(&values).collect();
    Ok(source::login(&object.spec.generate).and_then(|source| source.published(&pairs)))
}

/// Returns the logins of the role that may work at the moment, the most likely first: the published login, those in
/// records, and those of older versions. Empty if an administrator changes the role's password.
pub(in crate::managed_secret) async fn own_logins(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    username: &str,
) -> Result<Vec<Login>, StoreError> {
    if !changes_itself(object) {
        return Ok(Vec::new());
    }
    let mut logins: Vec<Login> = Vec::new();
    let mut add = |login: Login| {
        let known = logins.iter().any(|l| l.password.same_as(&login.password));
        if login.username == username && !known {
            logins.push(login);
        }
    };
    if let Some(login) = published_login(object, store, observed, None).await? {
        add(login);
    }
    for credential in observed.records.values().rev().filter_map(|record| record.credential.as_ref()) {
        add(login_of(credential));
    }
    // With several parameters it is not known which of their older versions belong together.
    if let [parameter] = observed.parameters.as_slice() {
        for seen in parameter.versions.iter().rev().skip(1).take(OLDER_VERSIONS) {
            let versions = BTreeMap::from([(parameter.path.clone(), seen.version.number)]);
            if let Some(login) = published_login(object, store, observed, Some(&versions)).await? {
                add(login);
            }
        }
    }
    Ok(logins)
}

/// Returns the trouble to report if the published texts contain no login of this source.
pub(in crate::managed_secret) fn unreadable(object: &ManagedSecret) -> Trouble {
    source::login(&object.spec.generate).map(|source| source.unreadable()).unwrap_or_else(|| {
        Trouble::permanent(
            Reason::PublishedLoginUnreadable,
            "what is published is not a login of this source",
        )
    })
}
