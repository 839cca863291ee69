//! The API calls for Cloudflare's account-owned tokens that a rotation needs.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::connection::{Connection, Reply};
use super::failure::{self, ApiError, Call};
use crate::api::Reason;
use crate::api::source::cloudflare_r2::CloudflareR2Reason;
use crate::api::source::cloudflare_r2::CloudflareR2Spec;
use crate::secret_value::SecretValue;
use crate::source::{Login, TargetError};

/// Tokens per page; Cloudflare allows no more.
const PER_PAGE: usize = 50;
/// Maximum number of pages that are read; an account has ten.
const MOST_PAGES: usize = 100;
/// Maximum number of times that the list is read: it is read again from the start if it changed between two pages.
const MOST_LISTINGS: usize = 3;

/// The API with the rights of one administering token.
pub(super) struct Api {
    connection: Arc<Connection>,
    account: String,
    bearer: HeaderValue,
}

/// A token as a list returns it.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub id: String,
    #[serde(default)]
    pub name: String,
    pub issued_on: DateTime<Utc>,
    #[serde(default)]
    pub expires_on: Option<DateTime<Utc>>,
}

#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(default)]
    success: bool,
    #[serde(default = "Vec::new")]
    errors: Vec<ApiError>,
    result: Option<T>,
    #[serde(default)]
    result_info: Option<ResultInfo>,
}

#[derive(Deserialize)]
struct ResultInfo {
    #[serde(default)]
    total_count: Option<usize>,
}

#[derive(Deserialize)]
struct Created {
    id: String,
    value: TokenValue,
}

/// A token's value. The parser puts it straight into a [`SecretValue`].
struct TokenValue(SecretValue);

impl<'de> Deserialize<'de> for TokenValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|value| Self(SecretValue::new(value)))
    }
}

#[derive(Deserialize)]
struct Group {
    id: String,
    name: String,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Api {
    /// # Errors
    /// Returns an error if the administering token cannot be sent in a header.
    pub(super) fn new(
        connection: Arc<Connection>,
        account: String,
        admin: SecretValue,
    ) -> Result<Self, TargetError> {
        let bearer = zeroize::Zeroizing::new(format!("Bearer {}", admin.expose()));
        let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| {
            failure::unusable(
                Reason::AdministratorRefused,
                "the Secret of spec.generate.cloudflareR2.tokenSecretRef holds no API token: it contains \
                 line breaks or control characters"
                    .to_owned(),
            )
        })?;
        bearer.set_sensitive(true);
        Ok(Self { connection, account, bearer })
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn call<'a>(&'a self, what: &'a str, changes: bool) -> Call<'a> {
        Call { what, account: &self.account, changes }
    }

    async fn send(
        &self,
        call: &Call<'_>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, TargetError> {
        let url = format!("{}/accounts/{}/{path}", self.connection.endpoints.api, self.account);
        let mut request =
            self.connection.http().request(method, url).header(AUTHORIZATION, self.bearer.clone());
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        self.connection.send(&self.account, call, request).await
    }

    /// Returns the token with this ID, if it exists.
    pub(super) async fn find(&self, id: &str) -> Result<Option<Listed>, TargetError> {
        let call = self.call("the lookup of a token", false);
        let reply = self.send(&call, Method::GET, &format!("tokens/{}", segment(id)), None).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        understand::<Listed>(&call, &reply).map(|(token, _)| Some(token))
    }

    /// Returns every token of the account.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, TargetError> {
        for _ in 0..MOST_LISTINGS {
            if let Some(tokens) = self.list_once().await? {
                return Ok(tokens);
            }
        }
        Err(failure::keeps_changing(&self.call("the list of tokens", false)))
    }

    /// Reads the list once. Returns `None` if it changed between two pages: when somebody deletes a token, the tokens
    /// after it move forward, so that one of them is on no page, and a token that is not listed would count as deleted.
    async fn list_once(&self) -> Result<Option<Vec<Listed>>, TargetError> {
        let call = self.call("the list of tokens", false);
        let mut tokens: Vec<Listed> = Vec::new();
        let mut count = None;
        for page in 1..=MOST_PAGES {
            let path = format!("tokens?page={page}&per_page={PER_PAGE}");
            let reply = self.send(&call, Method::GET, &path, None).await?;
            let (found, info) = understand::<Vec<Listed>>(&call, &reply)?;
            let last = found.is_empty();
            tokens.extend(found);
            let total = info.and_then(|info| info.total_count);
            if page > 1 && total != count {
                return Ok(None);
            }
            count = total;
            if last || count.is_some_and(|count| tokens.len() >= count) {
                return Ok(Some(tokens));
            }
        }
        Err(failure::not_understood(&call, StatusCode::OK))
    }

    /// Creates a token and returns the key pair that it is for R2.
    pub(super) async fn create(
        &self,
        name: &str,
        spec: &CloudflareR2Spec,
        expires_on: Option<DateTime<Utc>>,
    ) -> Result<Login, TargetError> {
        let group = self.group(spec.permission().group()).await?;
        let mut body = json!({
            "name": name,
            "policies": [{"effect": "allow", "permission_groups": [{"id": group}], "resources": resources(spec)}],
        });
        if let Some(at) = expires_on {
            body["expires_on"] = Value::String(at.format("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        let call = self.call("the creation of a token", true);
        let reply = self.send(&call, Method::POST, "tokens", Some(&body)).await?;
        let (created, _) = understand::<Created>(&call, &reply)?;
        if created.id.is_empty() || created.value.0.is_empty() {
            return Err(failure::not_understood(&call, reply.status));
        }
        let secret = hex::encode(digest(&SHA256, created.value.0.expose().as_bytes()));
        Ok(Login { username: created.id, password: SecretValue::new(secret) })
    }

    /// Deletes a token. A token that does not exist counts as deleted.
    pub(super) async fn delete(&self, id: &str) -> Result<(), TargetError> {
        let call = self.call("the deletion of a token", true);
        let reply = self.send(&call, Method::DELETE, &format!("tokens/{}", segment(id)), None).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        understand::<Value>(&call, &reply).map(|_| ())
    }

    /// Returns the ID of a permission group.
    async fn group(&self, name: &str) -> Result<String, TargetError> {
        let call = self.call("the list of permission groups", false);
        let reply = self.send(&call, Method::GET, "tokens/permission_groups", None).await?;
        let (groups, _) = understand::<Vec<Group>>(&call, &reply)?;
        groups.into_iter().find(|group| group.name == name).map(|group| group.id).ok_or_else(|| {
            failure::unusable(
                CloudflareR2Reason::PermissionGroupMissing,
                format!(
                    "Cloudflare has no permission group {name} in account {}: check that R2 is enabled there",
                    self.account
                ),
            )
        })
    }
}

/// Encodes an ID as one segment of a path. A published value may be any text that a person put there.
fn segment(id: &str) -> String {
    id.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

fn understand<T: DeserializeOwned>(
    call: &Call<'_>,
    reply: &Reply,
) -> Result<(T, Option<ResultInfo>), TargetError> {
    // The parser's own error would quote the text that it cannot parse.
    let envelope: Option<Envelope<T>> = serde_json::from_slice(&reply.body).ok();
    if !reply.status.is_success() {
        #[derive(Deserialize)]
        struct Errors {
            #[serde(default)]
            errors: Vec<ApiError>,
        }
        let errors = serde_json::from_slice::<Errors>(&reply.body).map(|e| e.errors).unwrap_or_default();
        return Err(failure::of_status(call, reply.status, &errors));
    }
    match envelope {
        Some(Envelope { success: true, result: Some(result), result_info, .. }) => Ok((result, result_info)),
        Some(Envelope { success: false, errors, .. }) if !errors.is_empty() => {
            Err(failure::of_status(call, StatusCode::BAD_REQUEST, &errors))
        }
        _ => Err(failure::not_understood(call, reply.status)),
    }
}

/// Returns the resources that a token gives access to.
fn resources(spec: &CloudflareR2Spec) -> Value {
    let (account, jurisdiction) = (&spec.account_id, spec.jurisdiction().name());
    let whole = format!("com.cloudflare.api.account.{account}");
    let mut resources = Map::new();
    if spec.permission().is_of_account() {
        resources.insert(whole, json!("*"));
    } else if let Some(buckets) = &spec.buckets {
        for bucket in buckets {
            let bucket = format!("com.cloudflare.edge.r2.bucket.{account}_{jurisdiction}_{bucket}");
            resources.insert(bucket, json!("*"));
        }
    } else {
        resources.insert(whole, json!({"com.cloudflare.edge.r2.bucket.*": "*"}));
    }
    Value::Object(resources)
}
