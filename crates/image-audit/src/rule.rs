//! Reasons for findings, and their names in reports.

/// The reason for a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// An access key of AWS, recognised by its ID, such as `AKIA…`.
    AwsKey,
    /// A token of GitHub, such as `ghp_…`.
    GitHubToken,
    /// A token of GitLab, such as `glpat-…`.
    GitLabToken,
    /// A token of Slack, such as `xoxb-…`, or the URL of an incoming webhook.
    SlackToken,
    /// A secret or restricted key of Stripe, such as `sk_live_…`, or a webhook secret `whsec_…`.
    StripeKey,
    /// A token of Cloudflare, such as `cfut_…`.
    CloudflareToken,
    /// A token of npm, `npm_…`.
    NpmToken,
    /// A token of PyPI, `pypi-AgE…`.
    PyPiToken,
    /// A token with the prefix or in the form of another vendor, such as `hf_…` or the token of a Discord webhook.
    OtherToken,
    /// A JSON Web Token with a signature.
    Jwt,
    /// A private key in PEM format, with at least 40 characters of base64 after its header.
    PrivateKey,
    /// 32 bytes in base64url, the form of a Fernet key, unless the text before it says that it is a digest or a public
    /// key.
    FernetKey,
    /// A password in a URL, or a token in place of its user.
    UrlPassword,
    /// A credential in the arguments of a command, or after `Authorization:`.
    CommandCredential,
    /// A literal whose name suggests a secret, such as `DB_PASSWORD`.
    SecretName,
    /// A value that keyturn manages, in any [`Form`](crate::managed::Form).
    ManagedValue,
}

impl Rule {
    /// All rules, in the order of the rules in a SARIF report.
    pub const ALL: [Self; 16] = [
        Self::AwsKey,
        Self::GitHubToken,
        Self::GitLabToken,
        Self::SlackToken,
        Self::StripeKey,
        Self::CloudflareToken,
        Self::NpmToken,
        Self::PyPiToken,
        Self::OtherToken,
        Self::Jwt,
        Self::PrivateKey,
        Self::FernetKey,
        Self::UrlPassword,
        Self::CommandCredential,
        Self::SecretName,
        Self::ManagedValue,
    ];

    /// Returns the name in reports and fingerprints.
    pub fn id(self) -> &'static str {
        match self {
            Self::AwsKey => "aws-access-key",
            Self::GitHubToken => "github-token",
            Self::GitLabToken => "gitlab-token",
            Self::SlackToken => "slack-token",
            Self::StripeKey => "stripe-key",
            Self::CloudflareToken => "cloudflare-token",
            Self::NpmToken => "npm-token",
            Self::PyPiToken => "pypi-token",
            Self::OtherToken => "vendor-token",
            Self::Jwt => "json-web-token",
            Self::PrivateKey => "private-key",
            Self::FernetKey => "fernet-key",
            Self::UrlPassword => "url-password",
            Self::CommandCredential => "command-credential",
            Self::SecretName => "secret-name",
            Self::ManagedValue => "managed-value",
        }
    }

    /// Returns the meaning for people.
    pub fn description(self) -> &'static str {
        match self {
            Self::AwsKey => "an access key of AWS",
            Self::GitHubToken => "a token of GitHub",
            Self::GitLabToken => "a token of GitLab",
            Self::SlackToken => "a token or webhook of Slack",
            Self::StripeKey => "a secret key of Stripe",
            Self::CloudflareToken => "a token of Cloudflare",
            Self::NpmToken => "a token of npm",
            Self::PyPiToken => "a token of PyPI",
            Self::OtherToken => "a token with a vendor's prefix",
            Self::Jwt => "a signed JSON Web Token",
            Self::PrivateKey => "a private key",
            Self::FernetKey => "32 bytes in base64url, the form of a Fernet key",
            Self::UrlPassword => "a password in an address",
            Self::CommandCredential => "a credential given to a command",
            Self::SecretName => "a literal under a name that says it is secret",
            Self::ManagedValue => "the published value of a parameter",
        }
    }

    /// True if the rule relies on the name, so that an allowed name silences it.
    pub fn is_by_name(self) -> bool {
        self == Self::SecretName
    }
}
