//! Cloudflare R2: every rotation creates a new account-owned API token and deletes the previous one.
//!
//! The access key ID of S3 is the token's ID; the secret access key is the SHA-256 of the token's value. Cloudflare
//! shows the value once and accepts no value of ours, so a token exists before its record does. The token's name
//! contains the ID of the rotation, which identifies a token that a crash left without a record.
//! `docs/cloudflare-r2.md` describes this for users.

mod api;
mod connection;
mod failure;
mod open;
mod s3;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{TimeDelta, Utc};

use self::api::Api;
pub use self::connection::{Connection, Endpoints, Limits};
pub(super) use self::open::{Arguments, Opener};
use super::{Claim, Issues, Kind, Login, Roles, Target, TargetError};
use crate::api::source::cloudflare_r2::CloudflareR2Reason;
use crate::api::source::cloudflare_r2::CloudflareR2Spec;
use crate::rotation::observed::{Acceptance, IssuedLogin, RotationId};
use crate::secret_value::SecretValue;

/// Longest token name that Cloudflare accepts.
const LONGEST_NAME: usize = 120;
/// Digits of a rotation's ID that must fit into the name of a token.
const ID_DIGITS: usize = 6;

/// The tokens of one secret in one account.
pub struct CloudflareR2 {
    spec: CloudflareR2Spec,
    api: Api,
    /// `<cluster>/<namespace>/<name>` of the secret, the prefix of its tokens' names.
    owner: String,
    /// Time after which Cloudflare lets a token expire.
    lifetime: Option<TimeDelta>,
}

impl CloudflareR2 {
    /// Creates the target without connecting. `admin` is the administering token. Without a `lifetime`, tokens live
    /// until they are deleted.
    ///
    /// # Errors
    /// Returns an error if cluster, namespace and name of the object are together too long for the name of a token.
    pub fn new(
        spec: &CloudflareR2Spec,
        connection: Arc<Connection>,
        admin: SecretValue,
        owner: String,
        lifetime: Option<TimeDelta>,
    ) -> Result<Self, TargetError> {
        if owner.len() + 1 + ID_DIGITS > LONGEST_NAME {
            return Err(failure::unusable(
                CloudflareR2Reason::NameTooLong,
                format!(
                    "the names of installation, namespace and object ({owner}) are part of the names of Cloudflare's \
                     tokens, which have at most {LONGEST_NAME} characters: choose a shorter name for the object"
                ),
            ));
        }
        let api = Api::new(connection, spec.account_id.clone(), admin)?;
        Ok(Self { spec: spec.clone(), api, owner, lifetime })
    }

    /// Returns the rotation's ID from the name of a token of this secret.
    fn id_in(&self, name: &str) -> Option<RotationId> {
        let digits = name.strip_prefix(&self.owner)?.strip_prefix('/')?;
        let id: RotationId = digits.parse().ok()?;
        (id > 0 && id.to_string() == digits).then_some(id)
    }
}

#[async_trait]
impl Target for CloudflareR2 {
    async fn try_login(&self, login: &Login) -> Acceptance {
        s3::prove(self.api.connection(), &self.spec, login).await.unwrap_or_else(Acceptance::from)
    }

    async fn observe(&self) -> Result<Roles, TargetError> {
        let tokens = self.api.list().await?;
        let can_log_in: BTreeSet<String> = tokens.iter().map(|token| token.id.clone()).collect();
        let issued = tokens.into_iter().filter_map(|token| {
            let id = self.id_in(&token.name)?;
            Some(IssuedLogin { username: token.id, id, at: token.issued_on, expires_at: token.expires_on })
        });
        Ok(Roles { can_log_in, issued: Some(issued.collect()), ..Roles::default() })
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Issues(self)
    }
}

#[async_trait]
impl Issues for CloudflareR2 {
    async fn issue(&self, id: RotationId) -> Result<Login, TargetError> {
        let expires_on = self.lifetime.map(|lifetime| Utc::now() + lifetime);
        self.api.create(&format!("{}/{id}", self.owner), &self.spec, expires_on).await
    }

    /// Deletes the token after looking it up: the administering token can delete any token of the account, and the ID
    /// may come from a text that anybody has written.
    async fn retire(&self, _id: RotationId, username: &str, claim: Claim) -> Result<(), TargetError> {
        let Some(token) = self.api.find(username).await? else { return Ok(()) };
        if claim == Claim::Name && self.id_in(&token.name).is_none() {
            return Err(failure::unusable(
                CloudflareR2Reason::TokenOfAnotherName,
                format!(
                    "keyturn does not delete the token {username}, which may belong to somebody else: it is \
                     not named {}/… like the tokens of this object, and its key pair was not accepted when \
                     the rotation began. Delete it by hand if it was in use here",
                    self.owner
                ),
            ));
        }
        self.api.delete(username).await
    }
}
