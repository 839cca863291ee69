//! Schema rules that several kinds share: a CEL expression, and the message for people who break the rule.
//!
//! They use CEL instead of `pattern`, since the API server's message for a broken pattern is just the pattern.

use serde_json::{Value, json};

/// CEL expression that must hold, and the message when it does not.
pub(crate) type CelRule = (&'static str, &'static str);

/// Full name of an SSM parameter.
pub(crate) const PATH: CelRule = (
    r"self.matches('^(/[A-Za-z0-9_.-]+){1,15}$') && !self.matches('/[.]+(/|$)')",
    "must be an absolute parameter name such as /musehub/production/RUNNER_TOKEN: at most 15 segments of letters, \
     digits and ._- after a single / each, without a / at the end",
);
/// Parameter name without a prefix that SSM reserves for AWS.
pub(crate) const PATH_NOT_RESERVED: CelRule =
    ("!self.matches('^/(?i:aws|ssm)')", "must not begin with /aws or /ssm: SSM reserves those names");
/// Path prefix of a grant.
pub(crate) const PREFIX: CelRule = (
    r"self.matches('^(/[A-Za-z0-9_.-]+){0,14}/$') && !self.matches('/[.]+/')",
    "must begin and end with / and hold whole segments, such as /musehub/production/",
);
/// Name of an AWS region.
pub(crate) const REGION: CelRule =
    ("self.matches('^[a-z]+(-[a-z]+)+-[0-9]+$')", "must be the name of an AWS region such as us-east-1");
/// Names of AWS regions in a list.
pub(crate) const REGIONS: CelRule =
    ("self.all(r, r.matches('^[a-z]+(-[a-z]+)+-[0-9]+$'))", "must be names of AWS regions such as us-east-1");
/// KMS key in a form that `PutParameter` accepts.
pub(crate) const KMS_KEY: CelRule = (
    "self.matches('^(alias/[A-Za-z0-9/_-]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}|arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+)$')",
    "must be a KMS alias (alias/musehub), key id or ARN",
);
/// KMS keys in a list, in a form that `PutParameter` accepts.
pub(crate) const KMS_KEYS: CelRule = (
    "self.all(k, k.matches('^(alias/[A-Za-z0-9/_-]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}|arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+)$'))",
    "must be KMS aliases (alias/musehub), key ids or ARNs",
);
/// Host name, IPv4 address or IPv6 address. It cannot be mistaken for a command-line option.
pub(crate) const HOST: CelRule = (
    r"self.matches('^[A-Za-z0-9:]([A-Za-z0-9.:_-]*[A-Za-z0-9:])?$')",
    "must be a host name or an address, without user, port or brackets",
);
/// Name of a POSIX account.
pub(crate) const USER: CelRule =
    (r"self.matches('^[A-Za-z_][A-Za-z0-9_.-]*[$]?$')", "must be the name of an account, such as deploy");
/// Absolute path of a program on a docker host.
pub(crate) const PROGRAM: CelRule = (
    "self.matches('^(/[A-Za-z0-9_.+-]+)+$')",
    "must be the absolute path of a program, such as /usr/local/bin/docker: letters, digits and _.+- between each /",
);
/// Name of a Kubernetes object.
pub(crate) const OBJECT_NAME: CelRule = (
    r"self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",
    "must be the name of an object: lower case letters, digits, - and .",
);
/// Names of Kubernetes objects in a list.
pub(crate) const OBJECT_NAMES: CelRule = (
    r"self.all(n, n.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$'))",
    "must be names of objects: lower case letters, digits, - and .",
);
/// Names of environment variables in a list.
pub(crate) const VARIABLES: CelRule = (
    "self.all(v, v.matches('^[A-Za-z_][A-Za-z0-9_.-]*$'))",
    "must be names of variables, such as PYTHONPATH, without values",
);
/// Fingerprint of a finding in an image.
pub(crate) const FINDING: CelRule = (
    "self.matches('^[0-9a-f]{16}$')",
    "must be the fingerprint of a finding: 16 lower case hexadecimal digits, as status.imageFindings shows it",
);
/// Script that is not blank.
pub(crate) const SCRIPT: CelRule = (r"self.matches('[^\\s]')", "must not be empty");
/// Maximum length of an object's name: names become labels and parts of Job names and SSM paths.
pub(crate) const SHORT_NAME: CelRule =
    ("self.metadata.name.size() <= 63", "metadata.name must have at most 63 characters");

/// Form of [`super::duration::Duration`].
pub(crate) const DURATION: CelRule = (
    "self.matches('^[1-9][0-9]{0,3}[mhd]$')",
    "must be one number of at most four digits and one unit, m, h or d: 15m, 2h, 90d",
);

/// `x-kubernetes-validations` for types whose schema is not derived by `KubeSchema`.
pub(crate) fn validations(rules: &[CelRule]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}
