//! `generate.cloudflareR2`: the key pair of a Cloudflare R2 API token.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::docker_host::SecretKeyRef;
use super::rules;

/// Placeholder of the access key id in `ssm.parameters[].value`.
pub const ACCESS_KEY_ID: &str = "{accessKeyId}";
/// Placeholder of the secret access key in `ssm.parameters[].value`.
pub const SECRET_ACCESS_KEY: &str = "{secretAccessKey}";

/// R2 key pair. Every rotation creates a new account-owned API token, whose id is the access key id, and deletes the
/// previous token once no host runs it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(self.buckets) || !has(self.permission) || !self.permission.startsWith('Admin')",
    "AdminReadWrite and AdminReadOnly are for every bucket of the account: leave buckets out, or choose ObjectReadWrite \
     or ObjectReadOnly"
))]
#[x_kube(validation = (
    "has(self.buckets) || has(self.probeBucket) || has(self.permission) && self.permission.startsWith('Admin')",
    "a token for every bucket is proven by listing one of them: name any bucket that exists in probeBucket"
))]
#[x_kube(validation = (
    "!has(self.probeBucket) || !has(self.buckets)",
    "probeBucket is for tokens of every bucket; each one of buckets is listed anyway"
))]
pub struct CloudflareR2Spec {
    /// The Cloudflare account that holds the buckets, 32 hexadecimal digits. A RotationGrant must list it.
    #[schemars(length(min = 32, max = 32))]
    #[x_kube(validation = rules::CLOUDFLARE_ACCOUNT)]
    pub account_id: String,
    /// Buckets that the token may use; all buckets of the account when absent. keyturn lists each of them to prove that
    /// a new token works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = rules::BUCKETS)]
    pub buckets: Option<Vec<String>>,
    /// Name of an existing bucket that keyturn lists to prove that a new token works; needed where buckets is absent,
    /// unless permission is an Admin one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = rules::BUCKET)]
    pub probe_bucket: Option<String>,
    /// Jurisdiction of the buckets, which decides the address of their S3 endpoint; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jurisdiction: Option<Jurisdiction>,
    /// Permission of the token, by its name in Cloudflare's dashboard; ObjectReadWrite when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<Permission>,
    /// Key of a Secret of this namespace that holds the administering token: account-owned, with the permission Account
    /// API Tokens Write. It can create any token of the account. keyturn reads the Secret only if it has the label
    /// `keyturn.dev/usable-by: cloudflare`.
    pub token_secret_ref: SecretKeyRef,
}

/// Jurisdiction in which buckets are stored, as R2 spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum Jurisdiction {
    #[default]
    Default,
    Eu,
    Fedramp,
}

impl Jurisdiction {
    /// Name of the jurisdiction in the resources of a token.
    pub fn name(self) -> &'static str {
        match self {
            Jurisdiction::Default => "default",
            Jurisdiction::Eu => "eu",
            Jurisdiction::Fedramp => "fedramp",
        }
    }

    /// Part of the S3 endpoint's host name that follows the account.
    pub fn subdomain(self) -> &'static str {
        match self {
            Jurisdiction::Default => "",
            Jurisdiction::Eu => ".eu",
            Jurisdiction::Fedramp => ".fedramp",
        }
    }
}

/// Permission of a token, as Cloudflare's dashboard names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum Permission {
    #[default]
    ObjectReadWrite,
    ObjectReadOnly,
    AdminReadWrite,
    AdminReadOnly,
}

impl Permission {
    /// Name of Cloudflare's permission group; its id is looked up through the API.
    pub fn group(self) -> &'static str {
        match self {
            Permission::ObjectReadWrite => "Workers R2 Storage Bucket Item Write",
            Permission::ObjectReadOnly => "Workers R2 Storage Bucket Item Read",
            Permission::AdminReadWrite => "Workers R2 Storage Write",
            Permission::AdminReadOnly => "Workers R2 Storage Read",
        }
    }

    /// True when the permission is for the whole account rather than for buckets.
    pub fn is_of_account(self) -> bool {
        matches!(self, Permission::AdminReadWrite | Permission::AdminReadOnly)
    }
}

impl CloudflareR2Spec {
    /// Buckets that a working pair can list; empty where it can list all buckets of the account.
    pub fn proven_by(&self) -> Vec<&str> {
        let named = self.buckets.iter().flatten().map(String::as_str);
        named.chain(self.probe_bucket.as_deref()).collect()
    }

    /// Returns the permission of the token, ObjectReadWrite where the spec sets none.
    pub fn permission(&self) -> Permission {
        self.permission.unwrap_or_default()
    }

    /// Returns the jurisdiction of the buckets, `default` where the spec sets none.
    pub fn jurisdiction(&self) -> Jurisdiction {
        self.jurisdiction.unwrap_or_default()
    }
}
