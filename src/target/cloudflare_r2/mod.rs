//! Cloudflare R2: every rotation makes an account-owned API token of its own, and deletes the one before it.
//!
//! The access key id of S3 is the token's id, the secret access key the SHA-256 of its value. Cloudflare shows the value
//! once and takes no value of ours, so that a token exists before its record does; its name carries the id of the
//! rotation, by which one that a crash left behind is found. `docs/cloudflare-r2.md` is the user's side of it.

mod api;
mod connection;
mod failure;
mod s3;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use self::api::Api;
pub use self::connection::{Connection, Endpoints, Limits};
use super::{Answer, Claim, Issued, Login, Roles, Target, TargetError};
use crate::api::cloudflare_r2::CloudflareR2Spec;
use crate::rotation::observed::RotationId;
use crate::secret_value::SecretValue;

/// Longest name of a token that Cloudflare takes.
const LONGEST_NAME: usize = 120;
/// Digits of an id that the name of a token has to have room for.
const ID_DIGITS: usize = 6;

/// The tokens of one secret in one account.
pub struct CloudflareR2 {
    spec: CloudflareR2Spec,
    api: Api,
    /// `<cluster>/<namespace>/<name>` of the secret: what the names of its tokens begin with.
    owner: String,
    /// After which a token expires by itself.
    lifetime: Option<TimeDelta>,
}

impl CloudflareR2 {
    /// Nothing is connected yet. `admin` is the administering token. Without a `lifetime` tokens live until they are
    /// deleted.
    ///
    /// # Errors
    /// The names of cluster, namespace and object are too long together for the name of a token.
    pub fn new(
        spec: &CloudflareR2Spec,
        connection: Arc<Connection>,
        admin: SecretValue,
        owner: String,
        lifetime: Option<TimeDelta>,
    ) -> Result<Self, TargetError> {
        if owner.len() + 1 + ID_DIGITS > LONGEST_NAME {
            return Err(failure::unusable(
                "NameTooLong",
                format!(
                    "the names of installation, namespace and object ({owner}) are part of the names of Cloudflare's \
                     tokens, which have at most {LONGEST_NAME} characters: choose a shorter name for the object"
                ),
            ));
        }
        let api = Api::new(connection, spec.account_id.clone(), admin)?;
        Ok(Self { spec: spec.clone(), api, owner, lifetime })
    }

    /// The id of the rotation in the name of a token of ours.
    fn id_in(&self, name: &str) -> Option<RotationId> {
        let digits = name.strip_prefix(&self.owner)?.strip_prefix('/')?;
        let id: RotationId = digits.parse().ok()?;
        (id > 0 && id.to_string() == digits).then_some(id)
    }
}

#[async_trait]
impl Target for CloudflareR2 {
    async fn try_login(&self, login: &Login) -> Result<Answer, TargetError> {
        s3::prove(self.api.connection(), &self.spec, login).await
    }

    async fn look(&self) -> Result<Roles, TargetError> {
        let tokens = self.api.list().await?;
        let can_log_in: BTreeSet<String> = tokens.iter().map(|token| token.id.clone()).collect();
        let issued = tokens.into_iter().filter_map(|token| {
            let id = self.id_in(&token.name)?;
            Some(Issued { username: token.id, id, at: token.issued_on, expires_at: token.expires_on })
        });
        Ok(Roles { can_log_in, issued: Some(issued.collect()), ..Roles::default() })
    }

    async fn issue(&self, id: RotationId) -> Result<Login, TargetError> {
        let expires_on = self.lifetime.map(|lifetime| Utc::now() + lifetime);
        self.api.create(&format!("{}/{id}", self.owner), &self.spec, expires_on).await
    }

    /// There is nothing to install: the token works by itself once R2 has heard of it.
    async fn install(&self, _id: RotationId, _login: &Login, _own: &[Login]) -> Result<(), TargetError> {
        Ok(())
    }

    /// The administering token can delete any token of the account, and the id may come from a text that anybody has put:
    /// so the token is looked at right before.
    async fn retire(&self, _id: RotationId, username: &str, claim: Claim) -> Result<(), TargetError> {
        let Some(token) = self.api.find(username).await? else { return Ok(()) };
        if claim == Claim::Name && self.id_in(&token.name).is_none() {
            return Err(failure::unusable(
                "TokenOfAnotherName",
                format!(
                    "the token {username} is not named {}/… as keyturn names the tokens of this object, and its pair was not \
                     accepted when the rotation began: it may belong to others, so it is not deleted. Delete it by hand if \
                     it was in use here",
                    self.owner
                ),
            ));
        }
        self.api.delete(username).await
    }

    /// R2 keeps no sessions: every request is signed.
    async fn end_sessions(
        &self,
        _username: &str,
        _opened_before: Option<DateTime<Utc>>,
    ) -> Result<(), TargetError> {
        Ok(())
    }
}
