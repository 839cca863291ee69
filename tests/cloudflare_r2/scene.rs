//! An account with two buckets, and a target for it.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use keyturn::api::source::cloudflare_r2::CloudflareR2Spec;
use keyturn::rotation::observed::Acceptance;
use keyturn::secret_value::SecretValue;
use keyturn::source::cloudflare_r2::{CloudflareR2, Connection, Endpoints, Limits};
use keyturn::source::{Login, TargetError};
use keyturn_cloudflare_emulator::{Bucket, Emulator, Settings};
use serde_json::{Value, json};

pub(crate) const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const ADMIN: &str = "canary-administering-token";
pub(crate) const OWNER: &str = "test/shop/r2";
/// Time limit of a request here.
const PATIENCE: Duration = Duration::from_millis(800);

pub(crate) struct Scene {
    pub cloudflare: Emulator,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let cloudflare = Emulator::start().await.unwrap();
        let bucket =
            |name: &str, jurisdiction: &str| Bucket { name: name.into(), jurisdiction: jurisdiction.into() };
        let buckets = [bucket("media", "default"), bucket("backups", "default"), bucket("records", "eu")];
        cloudflare.put_account(ACCOUNT, ADMIN, &buckets);
        Self { cloudflare }
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        Endpoints { api: self.cloudflare.api_url(), s3: self.cloudflare.s3_endpoint() }
    }

    /// Returns a target of `media` and `backups` with some fields changed; `null` removes a field.
    pub(crate) fn target_with(&self, changes: Value, admin: &str) -> CloudflareR2 {
        self.target_at(self.endpoints(), changes, admin)
    }

    pub(crate) fn target_at(&self, endpoints: Endpoints, changes: Value, admin: &str) -> CloudflareR2 {
        let limits = Limits { connect: PATIENCE, request: PATIENCE };
        let connection = Connection::new(endpoints, limits).unwrap();
        let lifetime = Some(TimeDelta::days(180));
        let admin = SecretValue::new(admin.to_owned());
        CloudflareR2::new(&spec(changes), connection, admin, OWNER.to_owned(), lifetime).unwrap()
    }

    pub(crate) fn target(&self) -> CloudflareR2 {
        self.target_with(json!({}), ADMIN)
    }

    pub(crate) fn propagate_after(&self, delay_ms: i64) {
        self.cloudflare.set_settings(Settings { propagation_ms: delay_ms, ..Settings::default() });
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.cloudflare.tokens(ACCOUNT).into_iter().map(|token| token.name).collect()
    }
}

pub(crate) fn spec(changes: Value) -> CloudflareR2Spec {
    let mut spec = json!({
        "accountId": ACCOUNT, "buckets": ["media", "backups"],
        "tokenSecretRef": {"name": "cloudflare", "key": "token"},
    });
    for (name, value) in changes.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    serde_json::from_value(spec).unwrap()
}

pub(crate) fn copy(login: &Login) -> Login {
    login.duplicate()
}

pub(crate) fn reason(answer: &Acceptance) -> &'static str {
    match answer {
        Acceptance::Accepted => "Accepted",
        Acceptance::Refused(trouble) | Acceptance::Unknown(trouble) => trouble.reason.name(),
    }
}

/// Asserts that an error contains nothing that must stay secret.
pub(crate) fn says_no_secret(scene: &Scene, error: &TargetError) {
    let text = format!("{error} {error:?}");
    assert!(!text.contains("canary"), "{text}");
    for token in scene.cloudflare.tokens(ACCOUNT) {
        assert!(!text.contains(&token.value) && !text.contains(&token.secret_access_key()), "{text}");
    }
}

pub(crate) fn shared(connection_of: &Scene) -> Arc<Connection> {
    Connection::new(connection_of.endpoints(), Limits { connect: PATIENCE, request: PATIENCE }).unwrap()
}
