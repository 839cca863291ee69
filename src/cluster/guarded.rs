//! An object as a list or a watch delivers it: decoded, or with its metadata and the reason why it cannot be decoded. One
//! object that this version cannot decode then hides no other.
//!
//! kube's `DeserializeGuard` does the same, and holds two trees of each object while it decodes it. With thousands of
//! objects that is most of what a start costs. So keyturn has its own type: it decodes from one tree, from which it
//! first removes what keyturn never reads.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// kubectl's annotation with a copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object, whether it could be decoded or not. It lacks `metadata.managedFields` and kubectl's copy of it.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Undecodable>);

/// An object that cannot be decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Undecodable {
    /// The reason. It may quote a value of the object.
    pub error: String,
    /// The object's metadata, which can be decoded.
    pub metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    /// Fails only if the metadata cannot be decoded either.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        prune(&mut object);
        let undecodable = match K::deserialize(&object) {
            Ok(decoded) => return Ok(Self(Ok(decoded))),
            Err(error) => error.to_string(),
        };
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        let metadata = ObjectMeta::deserialize(metadata).map_err(D::Error::custom)?;
        Ok(Self(Err(Undecodable { error: undecodable, metadata })))
    }
}

/// Removes fields that keyturn never reads.
fn prune(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|undecodable| &undecodable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|undecodable| &mut undecodable.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::api::RotationGrant;

    fn grant(namespaces: Value) -> Guarded<RotationGrant> {
        let object = json!({
            "apiVersion": "keyturn.dev/v1alpha1",
            "kind": "RotationGrant",
            "metadata": {
                "name": "shop", "resourceVersion": "7",
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
                "annotations": {LAST_APPLIED: "{}", "kept": "yes"},
            },
            "spec": {"namespaces": namespaces},
        });
        serde_json::from_str(&object.to_string()).unwrap()
    }

    #[test]
    fn an_object_lacks_only_what_nobody_reads() {
        let decoded = grant(json!(["shop"])).0.unwrap();
        assert_eq!(
            (decoded.name_any(), &decoded.spec.namespaces[..]),
            ("shop".into(), &["shop".to_owned()][..])
        );
        assert_eq!(decoded.annotations().keys().collect::<Vec<_>>(), ["kept"]);
        assert_eq!(decoded.metadata.managed_fields, None);
    }

    #[test]
    fn an_object_that_cannot_be_decoded_keeps_its_metadata_and_says_why() {
        let undecodable = grant(json!(7)).0.unwrap_err();
        assert_eq!(undecodable.metadata.resource_version.as_deref(), Some("7"));
        assert!(undecodable.error.contains("invalid type: integer `7`"), "{}", undecodable.error);
    }

    #[test]
    fn what_has_no_metadata_is_no_object() {
        for text in [r#"{"spec": {"namespaces": 7}}"#, r#"{"metadata": {"name": 7}}"#, "[]"] {
            assert!(serde_json::from_str::<Guarded<RotationGrant>>(text).is_err(), "{text}");
        }
    }
}
