//! Selects the secrets that an incident is about, and computes the times that follow from the incident.

use chrono::{DateTime, Utc};
use keyturn_api::time::from_kubernetes;
use keyturn_api::{ManagedSecret, SecretIncident};
use kube::ResourceExt;

use crate::deploy::wish;

/// True when the incident suspects this secret.
pub fn concerns(incident: &SecretIncident, secret: &ManagedSecret) -> bool {
    if incident.namespace() != secret.namespace() || incident.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let spec = &incident.spec;
    if let Some(refs) = &spec.managed_secret_refs {
        return refs.iter().any(|one| one.name == secret.name_any());
    }
    if let Some(selector) = &spec.selector {
        return !selector.match_labels.is_empty()
            && selector.match_labels.iter().all(|(key, value)| secret.labels().get(key) == Some(value));
    }
    if let Some(host) = &spec.host_ref {
        return wish::names_host(secret, &host.name);
    }
    spec.all_secrets == Some(true)
}

/// Creation time of the object, by the API server's clock.
pub fn created_at(incident: &SecretIncident) -> DateTime<Utc> {
    incident.metadata.creation_timestamp.as_ref().map_or(DateTime::UNIX_EPOCH, from_kubernetes)
}

/// Time of the report: every value that was made before it has to be replaced. A report that is dated after
/// the creation of the object counts from the creation, since otherwise every new value would be suspected
/// again.
pub fn reported_at(incident: &SecretIncident) -> DateTime<Utc> {
    from_kubernetes(&incident.spec.reported_at).min(created_at(incident))
}

/// Time from which the old credentials are revoked, even if hosts still use them.
pub fn revoke_at(incident: &SecretIncident) -> DateTime<Utc> {
    created_at(incident) + incident.spec.revoke_within()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn incident(selection: Value) -> SecretIncident {
        let mut spec = json!({"reportedAt": "2026-11-23T12:00:00Z"});
        spec.as_object_mut().unwrap().extend(selection.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
            "metadata": {"name": "leak", "namespace": "shop", "creationTimestamp": "2026-11-23T12:05:00Z"},
            "spec": spec,
        }))
        .unwrap()
    }

    fn secret(namespace: &str, name: &str) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": namespace, "labels": {"tier": "db"}},
            "spec": {
                "ssm": {"parameters": [{"path": format!("/shop/{name}")}]}, "generate": {},
                "hosts": [{"name": "web"}], "rotation": {},
            },
        }))
        .unwrap()
    }

    #[test]
    fn an_incident_is_about_what_it_selects_in_its_own_namespace() {
        let token = secret("shop", "token");
        for (selection, concerned) in [
            (json!({"managedSecretRefs": [{"name": "token"}]}), true),
            (json!({"managedSecretRefs": [{"name": "other"}]}), false),
            (json!({"selector": {"matchLabels": {"tier": "db"}}}), true),
            (json!({"selector": {"matchLabels": {"tier": "db", "more": "labels"}}}), false),
            (json!({"hostRef": {"name": "web"}}), true),
            (json!({"hostRef": {"name": "other"}}), false),
            (json!({"allSecrets": true}), true),
        ] {
            let incident = incident(selection.clone());
            assert_eq!(concerns(&incident, &token), concerned, "{selection}");
            assert!(!concerns(&incident, &secret("elsewhere", "token")), "{selection}");
        }
    }

    #[test]
    fn a_report_from_the_future_counts_from_the_creation_of_the_object() {
        let mut late = incident(json!({"allSecrets": true}));
        assert_eq!(reported_at(&late), from_kubernetes(&late.spec.reported_at));
        late.spec.reported_at = serde_json::from_value(json!("2036-11-23T12:00:00Z")).unwrap();
        assert_eq!(reported_at(&late), created_at(&late));
    }
}
