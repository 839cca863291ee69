//! Reasons for findings, and their names in reports.

/// The reason for a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    AwsKey,
    GitHubToken,
    GitLabToken,
    SlackToken,
    StripeKey,
    CloudflareToken,
    NpmToken,
    PyPiToken,
    OtherToken,
    Jwt,
    PrivateKey,
    FernetKey,
    UrlPassword,
    CommandCredential,
    SecretName,
    ManagedValue,
}

impl Rule {
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
