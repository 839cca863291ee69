//! Index of the claims (paths and roles) of the cached ManagedSecrets. It never omits a claimant that the cache holds.
//! It may still name an object that has given up its claim, so the caller has to look up each object that it names.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use keyturn_reconcile::managed_secret::claims::{self, Claim};
use kube::ResourceExt;

use super::guarded::Guarded;
use crate::api::ManagedSecret;

/// Namespace and name of a ManagedSecret.
type Name = (String, String);

/// The index. Clones share the same data.
#[derive(Clone, Default)]
pub struct Claims(Arc<RwLock<Index>>);

#[derive(Default)]
struct Index {
    claimants: HashMap<Arc<Claim>, BTreeSet<Arc<Name>>>,
    claimed: HashMap<Arc<Name>, Vec<Arc<Claim>>>,
}

impl Claims {
    /// Updates the claims of an object. An object that cannot be decoded claims nothing.
    pub fn note(&self, object: &Guarded<ManagedSecret>) {
        let claimed = object.0.iter().flat_map(claims::of).map(Arc::new).collect();
        self.0.write().unwrap_or_else(PoisonError::into_inner).set(name(object), claimed);
    }

    /// Removes an object that was deleted.
    pub fn forget(&self, object: &Guarded<ManagedSecret>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).set(name(object), Vec::new());
    }

    /// Returns the other objects that claim something that this one claims.
    pub fn rivals(&self, object: &ManagedSecret) -> BTreeSet<Arc<Name>> {
        let own = (object.namespace().unwrap_or_default(), object.name_any());
        let index = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let claimants = claims::of(object).filter_map(|claim| index.claimants.get(&claim)).flatten();
        claimants.filter(|name| ***name != own).cloned().collect()
    }
}

impl Index {
    fn set(&mut self, name: Name, claimed: Vec<Arc<Claim>>) {
        let name = Arc::new(name);
        for claim in self.claimed.remove(&name).unwrap_or_default() {
            if let Some(claimants) = self.claimants.get_mut(&claim) {
                claimants.remove(&name);
                if claimants.is_empty() {
                    self.claimants.remove(&claim);
                }
            }
        }
        for claim in &claimed {
            self.claimants.entry(claim.clone()).or_default().insert(name.clone());
        }
        if !claimed.is_empty() {
            self.claimed.insert(name, claimed);
        }
    }
}

fn name(object: &Guarded<ManagedSecret>) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(namespace: &str, name: &str, generate: Value) -> ManagedSecret {
        serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "ManagedSecret",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "ssm": {"parameters": [{"path": format!("/{namespace}/{name}")}, {"path": "/shared"}]},
                "generate": generate, "rotation": {},
            },
        }))
        .unwrap()
    }

    fn role(via: Value) -> Value {
        let mut postgres = json!({"database": "shop", "singleRole": {"name": "app"}});
        postgres.as_object_mut().unwrap().extend(via.as_object().unwrap().clone());
        json!({"postgres": postgres})
    }

    fn rivals(all: &[ManagedSecret], of: &ManagedSecret) -> Vec<String> {
        let index = Claims::default();
        all.iter().for_each(|secret| index.note(&Guarded(Ok(secret.clone()))));
        index.rivals(of).iter().map(|name| format!("{}/{}", name.0, name.1)).collect()
    }

    #[test]
    fn whoever_names_the_same_parameter_of_the_namespace_or_the_same_role_of_the_server_is_a_rival() {
        let random = || json!({"hex": {"bytes": 32}});
        let direct = || role(json!({"host": "db"}));
        let tunnel = || role(json!({"via": {"dockerHost": "web"}}));
        let all = [
            secret("shop", "one", random()),
            secret("shop", "two", random()),
            secret("bank", "one", direct()),
            secret("news", "one", direct()),
            secret("toys", "one", tunnel()),
            secret("cars", "one", tunnel()),
        ];
        assert_eq!(rivals(&all, &all[0]), ["shop/two"], "it is no rival of itself");
        assert_eq!(rivals(&all, &all[2]), ["news/one"]);
        assert_eq!(rivals(&all, &all[4]), Vec::<String>::new(), "two hosts of one name");
    }

    #[test]
    fn what_an_object_claimed_before_it_was_edited_or_deleted_is_free() {
        let index = Claims::default();
        let guarded = |secret: &ManagedSecret| Guarded(Ok(secret.clone()));
        let (one, two) = (secret("shop", "one", json!({})), secret("shop", "two", json!({})));
        index.note(&guarded(&one));
        assert_eq!(index.rivals(&two).len(), 1);
        let mut edited = one.clone();
        edited.spec.ssm.parameters.retain(|parameter| parameter.path != "/shared");
        index.note(&guarded(&edited));
        assert_eq!(index.rivals(&two).len(), 0);
        index.note(&guarded(&one));
        index.forget(&guarded(&one));
        assert_eq!(index.rivals(&two).len(), 0);
        assert!(index.0.read().unwrap().claimants.is_empty());
    }
}
