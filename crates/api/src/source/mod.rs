//! Sources of new values, one module for each. It has the source's part of the schema, and the answers that validation
//! and grants need.
//!
//! A new source is a module and one line of `sources!`. If its target needs a grant of its own, it also needs a field
//! of [`RotationGrantSpec`](super::rotation_grant::RotationGrantSpec).

pub mod cloudflare_r2;
pub mod fernet;
pub mod postgres;
pub mod random;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::consent::Purpose;
use super::grants::{Grants, Verdict};
use super::managed_secret::{ManagedSecret, ParameterSpec};
use super::rules::CelRule;
use super::validate::Problem;
use super::words::Word;

/// Placeholder of the generated value in `ssm.parameters[].value`.
pub const VALUE: &str = "{value}";
/// Another name of the placeholder of the generated value, for sources that make passwords.
pub const PASSWORD: &str = "{password}";
/// Placeholder of the username that the generated password belongs to.
pub const USERNAME: &str = "{username}";

/// The part that a source adds to the schema of ManagedSecrets.
trait SourceSchema {
    /// Placeholders that a template may hold.
    const PLACEHOLDERS: &'static [&'static str];
    /// Rules about the whole spec of a ManagedSecret that has this source.
    const RULES: &'static [CelRule] = &[];
    /// Purposes of the Secrets that the source uses.
    const PURPOSES: &'static [Purpose] = &[];
    /// Reasons of conditions and failures that only this source has.
    const REASONS: &'static [Word] = &[];
}

/// The spec of a source, as validation, grants and the reconcilers use it.
pub trait SourceSpec: Sync {
    /// Maximum size in bytes of the text that replaces a placeholder of this source.
    fn longest(&self, placeholder: &str) -> usize;

    /// True when an external system has to accept the published value.
    fn has_target(&self) -> bool {
        false
    }

    /// Returns the problems of the source and of the parameters that publish it, beyond what the schema refuses.
    fn problems(&self, _parameters: &[ParameterSpec]) -> Vec<Problem> {
        Vec::new()
    }

    /// Returns the problem of a template that holds only placeholders of this source.
    fn problem_of_template(&self, _template: &str) -> Option<String> {
        None
    }

    /// Decides if the grants allow what the source touches in addition to the published parameters.
    fn verdict(&self, _grants: &Grants, _secret: &ManagedSecret) -> Verdict {
        Verdict::Rotate
    }

    /// Returns the path of a parameter that is read in addition to the published ones.
    fn reads(&self) -> Option<&str> {
        None
    }

    /// Returns the name of the DockerHost through which the target is reached.
    fn docker_host(&self) -> Option<&str> {
        None
    }
}

/// A source that a spec names.
#[derive(Clone, Copy)]
pub struct Named<'a> {
    /// The source's field in `spec.generate`.
    pub name: &'static str,
    /// Placeholders that its templates may hold.
    pub placeholders: &'static [&'static str],
    /// The source's part of the spec.
    pub spec: &'a dyn SourceSpec,
}

/// Registers the sources: documentation, field, name in YAML and type of each.
macro_rules! sources {
    (
        $(#[$first_doc:meta])* $first:ident $first_name:literal $first_spec:ty;
        $($(#[$doc:meta])* $field:ident $name:literal $spec:ty;)*
    ) => {
        const ONE_SOURCE: CelRule = (
            concat!(
                "[has(self.", $first_name, ")", $(", has(self.", $name, ")",)*
                "].filter(source, source).size() == 1"
            ),
            concat!("exactly one source is needed: ", $first_name $(, ", ", $name)*),
        );

        /// Source of new values. Exactly one is needed.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
        #[serde(rename_all = "camelCase")]
        #[x_kube(validation = ONE_SOURCE)]
        pub struct GenerateSpec {
            $(#[$first_doc])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub $first: Option<$first_spec>,
            $(
                $(#[$doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$spec>,
            )*
        }

        impl GenerateSpec {
            /// Names of all sources, as users write them.
            pub const NAMES: &'static [&'static str] = &[$first_name $(, $name)*];

            /// Returns the sources that the spec names. The schema accepts exactly one.
            pub fn named(&self) -> impl Iterator<Item = Named<'_>> {
                let first = self.$first.as_ref().map(|spec| Named {
                    name: $first_name,
                    placeholders: <$first_spec as SourceSchema>::PLACEHOLDERS,
                    spec,
                });
                let others = [$(self.$field.as_ref().map(|spec| Named {
                    name: $name,
                    placeholders: <$spec as SourceSchema>::PLACEHOLDERS,
                    spec,
                })),*];
                first.into_iter().chain(others.into_iter().flatten())
            }
        }

        /// Placeholders of each source.
        const PLACEHOLDERS: &[&[&str]] =
            &[<$first_spec as SourceSchema>::PLACEHOLDERS, $(<$spec as SourceSchema>::PLACEHOLDERS),*];

        /// Purposes of the Secrets that each source uses.
        const PURPOSES: &[&[Purpose]] =
            &[<$first_spec as SourceSchema>::PURPOSES, $(<$spec as SourceSchema>::PURPOSES),*];

        /// Reasons that only this source has, of each source.
        const REASONS: &[&[Word]] =
            &[<$first_spec as SourceSchema>::REASONS, $(<$spec as SourceSchema>::REASONS),*];

        /// Rules of each source about the whole spec of a ManagedSecret.
        const RULES: &[&[CelRule]] = &[<$first_spec as SourceSchema>::RULES, $(<$spec as SourceSchema>::RULES),*];
    };
}

sources! {
    /// Random bytes in hexadecimal, as `openssl rand -hex` prints them.
    hex "hex" random::HexSpec;
    /// Random bytes in standard base64 with padding.
    base64 "base64" random::Base64Spec;
    /// Password of letters, digits and chosen symbols.
    password "password" random::PasswordSpec;
    /// Fernet key: 32 random bytes in URL-safe base64 with padding.
    fernet "fernet" fernet::FernetSpec;
    /// Password of a Postgres role. keyturn changes it on the server before it publishes it.
    postgres "postgres" postgres::PostgresSpec;
    /// Key pair of a new Cloudflare R2 API token.
    cloudflare_r2 "cloudflareR2" cloudflare_r2::CloudflareR2Spec;
}

impl GenerateSpec {
    /// Returns the source, where the spec names exactly one.
    pub fn source(&self) -> Option<Named<'_>> {
        let mut named = self.named();
        named.next().filter(|_| named.next().is_none())
    }

    /// True when an external system has to accept the published value.
    pub fn has_target(&self) -> bool {
        self.named().any(|source| source.spec.has_target())
    }

    /// Returns the name of the DockerHost through which the target is reached.
    pub fn docker_host(&self) -> Option<&str> {
        self.named().find_map(|source| source.spec.docker_host())
    }
}

/// Returns every placeholder that some source knows, each once.
pub(crate) fn placeholders() -> impl Iterator<Item = &'static str> {
    let all = || PLACEHOLDERS.iter().copied().flatten().copied();
    all()
        .enumerate()
        .filter(move |(place, name)| !all().take(*place).any(|other| other == *name))
        .map(|(_, name)| name)
}

/// Returns the rules of all sources about the whole spec of a ManagedSecret.
pub(crate) fn rules() -> impl Iterator<Item = &'static CelRule> {
    RULES.iter().copied().flatten()
}

/// Returns the purposes of the Secrets that any source uses.
pub fn purposes() -> impl Iterator<Item = Purpose> {
    PURPOSES.iter().copied().flatten().copied()
}

/// Returns the reasons that only one source has.
pub(crate) fn reasons() -> impl Iterator<Item = Word> {
    REASONS.iter().copied().flatten().copied()
}
