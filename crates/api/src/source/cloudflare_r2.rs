//! `generate.cloudflareR2`: the key pair of a Cloudflare R2 API token.

mod reason;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::reason::CloudflareR2Reason;
use super::{SourceSchema, SourceSpec};
use crate::consent::Purpose;
use crate::docker_host::SecretKeyRef;
use crate::grants::{Grants, Verdict, denied, nothing};
use crate::managed_secret::ManagedSecret;
use crate::rotation_grant::RotationGrantSpec;
use crate::rules::CelRule;
use crate::words::Word;

/// Placeholder of the access key id in `ssm.parameters[].value`.
pub const ACCESS_KEY_ID: &str = "{accessKeyId}";
/// Placeholder of the secret access key in `ssm.parameters[].value`.
pub const SECRET_ACCESS_KEY: &str = "{secretAccessKey}";
/// Purpose of a Secret that holds the administering token.
pub const ADMINISTRATOR: Purpose = Purpose::new("cloudflare");

/// Maximum sizes of the parts of an R2 key pair: Cloudflare's ids have 32 characters, a SHA-256 in hexadecimal has 64.
const ACCESS_KEY_ID_SIZE: usize = 32;
const SECRET_ACCESS_KEY_SIZE: usize = 64;

/// Id of a Cloudflare account.
const ACCOUNT: CelRule = (
    "self.matches('^[0-9a-f]{32}$')",
    "must be the id of a Cloudflare account: 32 lower case hexadecimal digits",
);
/// Name of an R2 bucket.
const BUCKET: CelRule = (
    "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
    "must be the name of a bucket: lower case letters, digits and -",
);
/// Names of R2 buckets in a list.
const BUCKETS: CelRule = (
    "self.all(b, b.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'))",
    "must be names of buckets: lower case letters, digits and -",
);
/// The whole pair is published.
const PUBLISHED: CelRule = (
    "!has(self.generate.cloudflareR2) || \
     self.ssm.parameters.all(p, has(p.value)) && \
     self.ssm.parameters.exists(p, has(p.value) && p.value.contains('{accessKeyId}')) && \
     self.ssm.parameters.exists(p, has(p.value) && p.value.contains('{secretAccessKey}'))",
    "with generate.cloudflareR2 every parameter needs a value, and {accessKeyId} and {secretAccessKey} must both be \
     published: in one parameter or in two",
);
/// A pair that works cannot be deleted together with the object.
const NOT_DELETED: CelRule = (
    "!has(self.generate.cloudflareR2) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'",
    "deletionPolicy: Delete would delete the only copy of a key pair that still works; delete the token first, then the \
     parameters by hand",
);

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
    "a token for every bucket is tested by listing one bucket: set probeBucket to the name of an existing bucket"
))]
#[x_kube(validation = (
    "!has(self.probeBucket) || !has(self.buckets)",
    "probeBucket is only for tokens for every bucket: leave it out, since a token for buckets is tested by listing \
     each of them"
))]
pub struct CloudflareR2Spec {
    /// The Cloudflare account that holds the buckets, 32 hexadecimal digits. A RotationGrant must list it.
    #[schemars(length(min = 32, max = 32))]
    #[x_kube(validation = ACCOUNT)]
    pub account_id: String,
    /// Buckets that the token may use; all buckets of the account when absent. keyturn lists each of them to prove that
    /// a new token works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = BUCKETS)]
    pub buckets: Option<Vec<String>>,
    /// Name of an existing bucket that keyturn lists to prove that a new token works; needed where buckets is absent,
    /// unless permission is an Admin one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 63))]
    #[x_kube(validation = BUCKET)]
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

/// Cloudflare account whose R2 tokens are granted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudflareGrant {
    /// Id of the account, 32 hexadecimal digits.
    #[schemars(length(min = 32, max = 32))]
    #[x_kube(validation = ACCOUNT)]
    pub account_id: String,
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

impl SourceSchema for CloudflareR2Spec {
    const PLACEHOLDERS: &'static [&'static str] = &[ACCESS_KEY_ID, SECRET_ACCESS_KEY];
    const RULES: &'static [CelRule] = &[PUBLISHED, NOT_DELETED];
    const PURPOSES: &'static [Purpose] = &[ADMINISTRATOR];
    const REASONS: &'static [Word] = CloudflareR2Reason::WORDS;
}

impl SourceSpec for CloudflareR2Spec {
    fn longest(&self, placeholder: &str) -> usize {
        if placeholder == ACCESS_KEY_ID { ACCESS_KEY_ID_SIZE } else { SECRET_ACCESS_KEY_SIZE }
    }

    fn has_target(&self) -> bool {
        true
    }

    /// A template must also be readable back out of the published text.
    fn problem_of_template(&self, template: &str) -> Option<String> {
        // Both parts are letters and digits, so the characters beside them must show where they begin and end.
        let bare = template.replace(ACCESS_KEY_ID, "{}").replace(SECRET_ACCESS_KEY, "{}");
        let places = bare
            .match_indices("{}")
            .map(|(at, place)| (bare[..at].chars().next_back(), bare[at + place.len()..].chars().next()));
        let closed = |beside: Option<char>| beside.is_none_or(|c| !c.is_ascii_alphanumeric());
        let mut places = places.peekable();
        if places.peek().is_none() {
            return Some(format!("must contain {ACCESS_KEY_ID} or {SECRET_ACCESS_KEY}"));
        }
        let ambiguous =
            places.any(|(before, after)| !closed(before) || !closed(after)) || bare.contains("{}{}");
        ambiguous.then(|| {
            format!(
                "must not have a letter, a digit or another placeholder directly beside {ACCESS_KEY_ID} or \
                 {SECRET_ACCESS_KEY}: keyturn could not read the pair back"
            )
        })
    }

    fn verdict(&self, grants: &Grants, secret: &ManagedSecret) -> Verdict {
        let account = &self.account_id;
        let namespace = secret.metadata.namespace.as_deref();
        let lists = |grant: &RotationGrantSpec| grant.cloudflare.iter().any(|g| g.account_id == *account);
        if grants.of_namespace(namespace).any(|(_, grant)| lists(grant)) {
            return Verdict::allowed(grants.observed(namespace, lists));
        }
        let grant = CloudflareGrant { account_id: account.clone() };
        let lacking = RotationGrantSpec { cloudflare: vec![grant], ..nothing(&secret.metadata) };
        denied(&secret.metadata, &format!("the Cloudflare account {account}"), lacking)
    }
}
