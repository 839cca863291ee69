//! Cloudflare: only Cloudflare can create a token, and R2 learns of its creation and deletion some time later.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use keyturn_api::{ManagedSecret, Reason, Trouble};
use keyturn_reconcile::target::{Claim, Issues, Kind as TargetKind, Login, Roles, Target, TargetError};
use keyturn_rotation::observed::{Acceptance, IssuedLogin, RotationId};
use keyturn_secret_value::SecretValue;

use super::{Answer, At, CLUSTER, NAMESPACE, Sabotage, State, World};
use crate::faults::Kind;
use crate::invariants;

/// Tokens that keyturn must not touch: somebody else's, another object's, and the administering token itself.
pub(crate) const THEIRS: [&str; 3] = ["others", "alike", "administering"];
/// Delay until R2 knows of a new or a deleted token.
const PROPAGATION: TimeDelta = TimeDelta::seconds(40);

/// One token.
#[derive(Clone, Debug)]
pub(crate) struct SimToken {
    pub name: String,
    pub secret: String,
    made_at: At,
    /// Time at which the token expires.
    pub expires_at: Option<At>,
    pub deleted_at: Option<At>,
}

impl SimToken {
    fn made(name: &str, secret: &str, made_at: At) -> Self {
        Self { name: name.into(), secret: secret.into(), made_at, expires_at: None, deleted_at: None }
    }

    /// True if it was created for the secret of the stories.
    pub(crate) fn is_ours(&self) -> bool {
        self.rotation().is_some()
    }

    fn rotation(&self) -> Option<RotationId> {
        self.name.strip_prefix(&owner())?.strip_prefix('/')?.parse().ok()
    }

    /// True if it is a token of ours from before this time that still works.
    pub(crate) fn is_left_from_before(&self, at: At, now: At) -> bool {
        let ended = self.deleted_at.is_some() || self.expires_at.is_some_and(|end| end <= now);
        self.is_ours() && self.made_at < at && !ended
    }
}

/// One account.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimCloudflare {
    pub tokens: BTreeMap<String, SimToken>,
    /// Pairs of tokens that do not belong to the account: a user's own.
    pub elsewhere: BTreeMap<String, String>,
    pub unreachable: bool,
    /// True if tokens cannot be deleted.
    pub keeps_tokens: bool,
    made: u64,
}

impl SimCloudflare {
    /// Creates an account with a token that a person made long ago.
    pub(crate) fn with(id: &str, secret: &str, now: At) -> Self {
        let token = |name: &str, secret: &str| SimToken::made(name, secret, now - TimeDelta::days(10));
        let tokens = BTreeMap::from([
            (id.to_owned(), token("made by hand", secret)),
            ("others".to_owned(), token("of somebody else", "a-secret-of-somebody-else")),
            ("alike".to_owned(), token("sim/prod/token2/2", "a-secret-of-another-object")),
            ("administering".to_owned(), token("keyturn's own", "the-secret-of-the-administering-token")),
        ]);
        Self { tokens, ..Self::default() }
    }

    /// Adds a token that a person made some time ago, and returns its pair.
    pub(crate) fn is_given_a_token_by_hand(&mut self, id: &str, secret: &str, now: At) -> String {
        let token = SimToken::made("made by hand", secret, now - TimeDelta::hours(1));
        self.tokens.insert(id.to_owned(), token);
        format!("{id}:{secret}")
    }

    /// Adds a token that no version publishes any more: of an object of the same name, or from before the parameter was
    /// created again.
    pub(crate) fn has_kept_a_token(&mut self, id: &str, name: &str) {
        let made_at = self.tokens["others"].made_at;
        self.tokens.insert(id.to_owned(), SimToken::made(name, "a-secret-that-nobody-has", made_at));
    }

    /// True if R2 accepts `id:secret` now.
    pub(crate) fn accepts(&self, pair: &str, now: At) -> bool {
        let Some((id, secret)) = pair.trim_end().split_once(':') else { return false };
        let here = self.tokens.get(id).is_some_and(|token| {
            token.secret == secret
                && token.made_at + PROPAGATION <= now
                && token.deleted_at.is_none_or(|at| at + PROPAGATION > now)
                && token.expires_at.is_none_or(|at| at > now)
        });
        here || self.elsewhere.get(id).is_some_and(|known| known == secret)
    }

    /// Returns the IDs of the tokens that are not deleted, except those that keyturn must never touch.
    pub(crate) fn live(&self) -> impl Iterator<Item = &String> {
        let ours =
            |(id, token): &(&String, &SimToken)| token.deleted_at.is_none() && !THEIRS.contains(&id.as_str());
        self.tokens.iter().filter(ours).map(|(id, _)| id)
    }
}

/// The account as one secret sees it.
pub(crate) struct SimR2 {
    world: World,
    /// Time for which a new token works.
    lifetime: Option<TimeDelta>,
}

fn owner() -> String {
    format!("{CLUSTER}/{NAMESPACE}/token")
}

impl SimR2 {
    pub(crate) fn open(world: &World, object: &ManagedSecret) -> Arc<dyn Target> {
        let period = object.spec.rotation.period.as_ref().and_then(|period| period.to_delta());
        Arc::new(Self { world: world.clone(), lifetime: period.map(|period| period * 2) })
    }
}

fn account(state: &mut State) -> Result<&mut SimCloudflare, TargetError> {
    let account = state.cloudflare.as_mut().filter(|account| !account.unreachable);
    account.ok_or_else(|| TargetError::refused("reach Cloudflare"))
}

#[async_trait]
impl Target for SimR2 {
    async fn try_login(&self, login: &Login) -> Acceptance {
        let mut state = self.world.lock();
        let now = state.now;
        let pair = format!("{}:{}", login.username, login.password.expose());
        let refused = Trouble::permanent(Reason::LoginRefused, "R2 refused the pair");
        let accepted = match account(&mut state) {
            Ok(account) => account.accepts(&pair, now),
            Err(error) => return error.into(),
        };
        invariants::login_is_answered(&mut state, self.world.process, &pair, accepted);
        if accepted { Acceptance::Accepted } else { Acceptance::Refused(refused) }
    }

    async fn observe(&self) -> Result<Roles, TargetError> {
        let look = move |state: &mut State, _| {
            let hidden = state.sabotage == Some(Sabotage::TokensHidden);
            let account = account(state)?;
            let live = account.tokens.iter().filter(|(_, token)| token.deleted_at.is_none());
            let issued = live.clone().filter_map(|(username, token)| {
                Some(IssuedLogin {
                    username: username.clone(),
                    id: token.rotation()?,
                    at: token.made_at,
                    expires_at: token.expires_at,
                })
            });
            let issued = Some(if hidden { Vec::new() } else { issued.collect() });
            Ok(Roles { can_log_in: live.map(|(id, _)| id.clone()).collect(), issued, ..Roles::default() })
        };
        self.world.effect(Kind::LookAtTarget, "look at the tokens".to_owned(), look).await
    }

    fn kind(&self) -> TargetKind<'_> {
        TargetKind::Issues(self)
    }
}

#[async_trait]
impl Issues for SimR2 {
    async fn issue(&self, id: RotationId) -> Result<Login, TargetError> {
        let lifetime = self.lifetime;
        let issue = move |state: &mut State, _| {
            let now = state.now;
            let account = account(state)?;
            account.made += 1;
            let username = format!("made{:04}", account.made);
            let secret = format!(
                "{:064x}",
                u128::from(account.made).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            );
            let name = format!("{}/{id}", owner());
            let expires_at = lifetime.map(|lifetime| now + lifetime);
            let token = SimToken { name, secret: secret.clone(), made_at: now, expires_at, deleted_at: None };
            account.tokens.insert(username.clone(), token);
            invariants::value_is_known(state, &secret);
            Ok::<_, TargetError>((username, secret))
        };
        let what = format!("make a token for rotation {id}");
        let (username, secret) = self.world.effect(Kind::Issue, what, issue).await?;
        Ok(Login { username, password: SecretValue::new(secret) })
    }

    async fn retire(&self, id: RotationId, username: &str, claim: Claim) -> Result<(), TargetError> {
        let token = username.to_owned();
        let delete = move |state: &mut State, _| {
            let now = state.now;
            if account(state)?.keeps_tokens {
                return Err(TargetError::refused("delete a token"));
            }
            let known = account(state)?.tokens.get_mut(&token).filter(|known| known.deleted_at.is_none());
            if let Some(known) = known {
                if claim == Claim::Name && !known.is_ours() {
                    return Err(TargetError::refused("delete a token of another name"));
                }
                known.deleted_at = Some(now);
                invariants::token_is_deleted(state, &token);
            }
            Ok(())
        };
        let what = format!("delete token {username} in rotation {id}");
        self.world.effect(Kind::Retire, what, delete).await
    }
}
