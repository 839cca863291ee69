//! Cloudflare's API of account-owned tokens: `/client/v4/accounts/{account}/tokens…`.

use chrono::{DateTime, NaiveDateTime, SubsecRound, Utc};
use serde_json::{Value, json};

use crate::world::{Account, Token, World, random_hex};

/// Maximum number of tokens per page, which is also the number if the request does not name one.
const MOST_PER_PAGE: usize = 50;
const PER_PAGE: usize = 20;
/// Longest name of a token.
const LONGEST_NAME: usize = 120;

const BUCKET_SCOPE: &str = "com.cloudflare.edge.r2.bucket";
const ACCOUNT_SCOPE: &str = "com.cloudflare.api.account";

/// Permission groups: id, name, scope. The ids of the first two are Cloudflare's own.
const GROUPS: [(&str, &str, &str); 6] = [
    ("2efd5506f9c8494dacb1fa10a3e7d5b6", "Workers R2 Storage Bucket Item Write", BUCKET_SCOPE),
    ("6a018a9f2fc74eb6b293b0c548f38b39", "Workers R2 Storage Bucket Item Read", BUCKET_SCOPE),
    ("bf7481a1826f439697cb59a20b22293e", "Workers R2 Storage Write", ACCOUNT_SCOPE),
    ("b4992e1108244f5d8bfbd5744320c2e1", "Workers R2 Storage Read", ACCOUNT_SCOPE),
    ("5bc3f8b21c554832afc660159ab75fa4", "Account API Tokens Write", ACCOUNT_SCOPE),
    ("eb56a6953c034b9d97dd838155666f06", "Account API Tokens Read", ACCOUNT_SCOPE),
];

/// An answer: HTTP status and body.
pub(crate) type Reply = (u16, Value);

fn success(result: Value) -> Reply {
    (200, json!({"success": true, "errors": [], "messages": [], "result": result}))
}

pub(crate) fn failure(status: u16, code: u32, message: &str) -> Reply {
    let errors = json!([{"code": code, "message": message}]);
    (status, json!({"success": false, "errors": errors, "messages": [], "result": null}))
}

/// An operation of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    List,
    Get(String),
    Delete(String),
    Groups,
    Verify,
}

impl Operation {
    /// Returns the operation for a method and the path after `/accounts/{account}/`.
    pub(crate) fn of(method: &str, path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        Some(match (method, segments.as_slice()) {
            ("POST", ["tokens"]) => Self::Create,
            ("GET", ["tokens"]) => Self::List,
            ("GET", ["tokens", "permission_groups"]) => Self::Groups,
            ("GET", ["tokens", "verify"]) => Self::Verify,
            ("GET", ["tokens", id]) => Self::Get((*id).to_owned()),
            ("DELETE", ["tokens", id]) => Self::Delete((*id).to_owned()),
            _ => return None,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create => "CreateToken",
            Self::List => "ListTokens",
            Self::Get(_) => "GetToken",
            Self::Delete(_) => "DeleteToken",
            Self::Groups => "PermissionGroups",
            Self::Verify => "VerifyToken",
        }
    }
}

/// Performs a request and returns its answer.
pub(crate) fn handle(
    world: &World,
    account: &str,
    bearer: Option<&str>,
    operation: &Operation,
    query: &str,
    body: &[u8],
) -> Reply {
    let Some(bearer) = bearer else { return failure(400, 9106, "Missing \"Authorization\" header") };
    let now = world.now();
    let known = world.read(|kept| {
        let account = kept.accounts.get(account)?;
        let token = account.tokens.iter().find(|t| t.value == bearer && is_live(t, now)).cloned();
        Some((account.admin == bearer, token))
    });
    let Some((is_admin, token)) = known else {
        return failure(403, 9109, "Unauthorized to access requested resource");
    };
    if *operation == Operation::Verify {
        return match token {
            Some(token) => success(json!({"id": token.id, "status": "active"})),
            None => failure(401, 1000, "Invalid API Token"),
        };
    }
    if !is_admin {
        return match token {
            Some(_) => failure(403, 9109, "Unauthorized to access requested resource"),
            None => failure(401, 10000, "Authentication error"),
        };
    }
    match operation {
        Operation::Groups => {
            let groups =
                GROUPS.iter().map(|(id, name, scope)| json!({"id": id, "name": name, "scopes": [scope]}));
            success(groups.collect())
        }
        Operation::Create => create(world, account, body, now),
        Operation::List => list(world, account, query, now),
        Operation::Get(id) => match world.tokens(account).iter().find(|token| token.id == *id) {
            Some(token) => success(shown(token, now)),
            None => failure(404, 1003, "Token not found"),
        },
        Operation::Delete(id) => {
            if world.delete_token(account, id) {
                success(json!({"id": id}))
            } else {
                failure(404, 1003, "Token not found")
            }
        }
        Operation::Verify => unreachable!("answered above"),
    }
}

fn is_live(token: &Token, now: DateTime<Utc>) -> bool {
    token.deleted_at.is_none() && token.expires_on.is_none_or(|end| end > now)
}

/// Returns a token as lists show it, with everything except its value.
fn shown(token: &Token, now: DateTime<Utc>) -> Value {
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "id": token.id, "name": token.name,
        "status": if is_live(token, now) { "active" } else { "expired" },
        "issued_on": time(token.issued_on), "modified_on": time(token.issued_on),
        "expires_on": token.expires_on.map(time), "policies": token.policies,
    })
}

fn list(world: &World, account: &str, query: &str, now: DateTime<Utc>) -> Reply {
    let number = |name: &str, otherwise: usize| {
        let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or(otherwise)
    };
    let (page, per_page) = (number("page", 1).max(1), number("per_page", PER_PAGE).clamp(1, MOST_PER_PAGE));
    let tokens = world.tokens(account);
    let shown: Vec<Value> =
        tokens.iter().skip((page - 1) * per_page).take(per_page).map(|token| shown(token, now)).collect();
    let info = json!({"page": page, "per_page": per_page, "count": shown.len(), "total_count": tokens.len()});
    let (status, mut body) = success(Value::Array(shown));
    body["result_info"] = info;
    (status, body)
}

fn create(world: &World, account_id: &str, body: &[u8], now: DateTime<Utc>) -> Reply {
    let Ok(asked) = serde_json::from_slice::<Value>(body) else {
        return failure(400, 6007, "Malformed JSON in request body");
    };
    let Some(name) = asked["name"].as_str().filter(|name| !name.is_empty() && name.len() <= LONGEST_NAME)
    else {
        return failure(400, 1001, "Invalid token name: it must have from 1 to 120 characters");
    };
    let expires_on = match &asked["expires_on"] {
        Value::Null => None,
        Value::String(text) => match NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%SZ") {
            Ok(at) if at.and_utc() > now => Some(at.and_utc()),
            _ => {
                return failure(
                    400,
                    1001,
                    "Invalid expires_on: it must be a time to come such as 2026-01-01T00:00:00Z",
                );
            }
        },
        _ => return failure(400, 1001, "Invalid expires_on"),
    };
    let policies = asked["policies"].as_array().map(Vec::as_slice).unwrap_or_default();
    if policies.is_empty() || !policies.iter().all(|policy| is_policy(policy, account_id)) {
        return failure(
            400,
            1001,
            "Invalid policies: their permission groups and resources do not go together",
        );
    }
    let most = world.read(|kept| kept.settings.most_tokens);
    let token = Token {
        id: random_hex(16),
        name: name.to_owned(),
        // The length varies, so that nobody relies on it.
        value: random_hex(20 + name.len() % 4),
        issued_on: now.trunc_subsecs(0),
        expires_on,
        deleted_at: None,
        policies: asked["policies"].clone(),
    };
    let mut answer = shown(&token, now);
    answer["value"] = Value::String(token.value.clone());
    let taken = world.change(|kept| {
        let account = kept.accounts.entry(account_id.to_owned()).or_default();
        if account.tokens.iter().filter(|token| token.deleted_at.is_none()).count() >= most {
            return false;
        }
        account.made += 1;
        account.tokens.push(token);
        true
    });
    if taken { success(answer) } else { failure(400, 1010, "The maximum number of tokens has been reached") }
}

/// True if groups and resources of a policy exist and fit together. Buckets are not looked up, since Cloudflare accepts
/// names of buckets that do not exist.
fn is_policy(policy: &Value, account: &str) -> bool {
    let groups = policy["permission_groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let scope =
        |group: &Value| GROUPS.iter().find(|(id, _, _)| group["id"] == *id).map(|(_, _, scope)| *scope);
    let Some(resources) = policy["resources"].as_object().filter(|resources| !resources.is_empty()) else {
        return false;
    };
    let of_account = format!("{ACCOUNT_SCOPE}.{account}");
    let of_buckets = format!("{BUCKET_SCOPE}.{account}_");
    let fits = |(name, value): (&String, &Value), scope: &str| match value {
        Value::Object(nested) => {
            scope == BUCKET_SCOPE && *name == of_account && nested.contains_key(&format!("{BUCKET_SCOPE}.*"))
        }
        _ if scope == BUCKET_SCOPE => name.starts_with(&of_buckets),
        _ => *name == of_account,
    };
    policy["effect"] == "allow"
        && !groups.is_empty()
        && groups.iter().all(|group| {
            scope(group).is_some_and(|scope| resources.iter().all(|resource| fits(resource, scope)))
        })
}

/// True if a token lets its holder list a bucket.
pub(crate) fn may_list(account_id: &str, token: &Token, jurisdiction: &str, bucket: &str) -> bool {
    let resource = format!("{BUCKET_SCOPE}.{account_id}_{jurisdiction}_{bucket}");
    granted(token, |scope, resources| match scope {
        BUCKET_SCOPE => {
            let nested = format!("{ACCOUNT_SCOPE}.{account_id}");
            resources.get(&resource).is_some()
                || resources[&nested].get(format!("{BUCKET_SCOPE}.*")).is_some()
        }
        _ => true,
    })
}

/// True if a token lets its holder list buckets.
pub(crate) fn may_list_buckets(token: &Token) -> bool {
    granted(token, |scope, _| scope == ACCOUNT_SCOPE)
}

fn granted(token: &Token, covers: impl Fn(&str, &Value) -> bool) -> bool {
    let policies = token.policies.as_array().into_iter().flatten();
    policies.into_iter().any(|policy| {
        let groups = policy["permission_groups"].as_array().into_iter().flatten();
        let mut scopes = groups.filter_map(|group| {
            let known = GROUPS.iter().find(|(id, name, _)| group["id"] == *id && name.contains("R2"))?;
            Some(known.2)
        });
        scopes.any(|scope| covers(scope, &policy["resources"]))
    })
}

/// Returns the token with this access key ID, if S3 knows it by now.
pub(crate) fn heard_of<'a>(
    account: &'a Account,
    id: &str,
    now: DateTime<Utc>,
    delay: chrono::TimeDelta,
) -> Option<&'a Token> {
    account.tokens.iter().find(|token| {
        token.id == id
            && token.issued_on + delay <= now
            && token.deleted_at.is_none_or(|at| at + delay > now)
            && token.expires_on.is_none_or(|end| end > now)
    })
}
