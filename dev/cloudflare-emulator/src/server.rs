//! HTTP: Cloudflare's API below `/client/v4/`, R2 below `/s3/`, and administration below `/_emulator/`. In addition to
//! the requests that every emulator answers ([`Administration`]):
//!
//! | | |
//! |---|---|
//! | `PUT /_emulator/accounts/{id}` | `{"admin": "…", "buckets": [{"name": "media", "jurisdiction": "eu"}]}` |
//! | `GET /_emulator/accounts/{id}/tokens` | `{"made": 3, "tokens": [{"id", "name", "issuedOn", "expiresOn"}]}` |
//! | `POST /_emulator/accounts/{id}/tokens` | `{"name", "policies"}`: creates a person's token and answers the pair |
//! | `DELETE /_emulator/accounts/{id}/tokens/{token}` | deletes a token as a person would |
//! | `POST /_emulator/settings` | `{"propagationMs": 2000, "mostTokens": 500, "offsetSeconds": 0}` |
//! | `DELETE /_emulator/accounts/{id}/faults` | clears the rules that name this account |
//! | `GET /_emulator/health` | 200 |

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use keyturn_emulator::{Administration, no_answer};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::s3::{self, S3Request};
use crate::tokens::{self, Operation};
use crate::world::{Bucket, Call, Settings, World};

pub(crate) fn router(world: Arc<World>) -> Router {
    let administration = Administration {
        faults: World::faults,
        add_fault: |world: &World, rule| {
            world.add_fault(rule);
            Ok(())
        },
        clear_faults: World::clear_faults,
        calls: World::calls,
        clear_calls: World::clear_calls,
        reset: World::reset,
    };
    Router::new()
        .merge(administration.router())
        .route("/_emulator/health", get(|| async { StatusCode::OK }))
        .route("/_emulator/accounts/{id}", put(put_account))
        .route("/_emulator/accounts/{id}/tokens", get(list_tokens).post(make_token))
        .route("/_emulator/accounts/{id}/tokens/{token}", delete(delete_token))
        .route("/_emulator/accounts/{id}/faults", delete(clear_faults_of))
        .route("/_emulator/settings", post(settings))
        .fallback(outside)
        .with_state(world)
}

/// Answers everything that Cloudflare would answer.
async fn outside(
    State(world): State<Arc<World>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
    let api = path.strip_prefix("/client/v4/accounts/").and_then(|rest| rest.split_once('/'));
    let api = api.map(|(account, rest)| (account.to_owned(), Operation::of(method.as_str(), rest)));
    let (name, about) = match &api {
        Some((_, Some(operation))) => (operation.name(), about(operation, &body)),
        Some((_, None)) => return reply(tokens::failure(404, 7003, "Could not route to this path")),
        None => match s3::place(&path) {
            Some((_, _, "")) => ("ListBuckets", String::new()),
            Some((_, _, bucket)) => ("ListObjects", bucket.to_owned()),
            None => return reply(tokens::failure(404, 7003, "Could not route to this path")),
        },
    };
    let account = match &api {
        Some((account, _)) => account.as_str(),
        None => s3::place(&path).map_or("", |(account, ..)| account),
    };
    let fault = world.hit(name, account);
    let is_s3 = api.is_none();
    let answer = || match &api {
        Some((account, Some(operation))) => {
            reply(tokens::handle(&world, account, bearer(&headers), operation, &query, &body))
        }
        _ => {
            let (method, path, query) = (method.as_str(), path.as_str(), query.as_str());
            xml(s3::handle(&world, &S3Request { method, path, query, headers: &headers, body: &body }))
        }
    };
    let applied = fault.as_ref().is_none_or(Fault::applies).then(answer);
    let log = |status: u16| {
        world.log(Call { at: world.now(), operation: name.to_owned(), about: about.clone(), status });
    };
    let failed = |status: u16, code: u32, message: &str| {
        if is_s3 {
            xml(s3::error(status, "InternalError", message))
        } else {
            reply(tokens::failure(status, code, message))
        }
    };
    let response = match &fault {
        None | Some(Fault::Slow { .. }) => {
            applied.unwrap_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())
        }
        Some(Fault::Throttle { retry_after }) => {
            let mut response =
                failed(429, 10429, "Rate limited. Please wait and consider throttling your request rate");
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            }
            response
        }
        Some(Fault::ServerError { .. }) => failed(500, 10001, "Internal server error"),
        Some(Fault::Error { status, code, message }) => failed(*status, *code, message),
        Some(Fault::Garbage) => (StatusCode::OK, "<html>not what you asked for</html>").into_response(),
        Some(Fault::Drop { .. }) => {
            log(0);
            return no_answer();
        }
        Some(Fault::Hang { .. }) => {
            log(0);
            return std::future::pending().await;
        }
    };
    log(response.status().as_u16());
    if let Some(Fault::Slow { ms }) = fault {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
    response
}

fn about(operation: &Operation, body: &[u8]) -> String {
    match operation {
        Operation::Get(id) | Operation::Delete(id) => id.clone(),
        Operation::Create => {
            let asked: Value = serde_json::from_slice(body).unwrap_or_default();
            asked["name"].as_str().unwrap_or_default().to_owned()
        }
        Operation::List | Operation::Groups | Operation::Verify => String::new(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn reply((status, body): tokens::Reply) -> Response {
    (code(status), Json(body)).into_response()
}

fn xml((status, body): (u16, String)) -> Response {
    (code(status), [(header::CONTENT_TYPE, "application/xml")], body).into_response()
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccount {
    admin: String,
    #[serde(default)]
    buckets: Vec<Bucket>,
}

async fn put_account(
    State(world): State<Arc<World>>,
    Path(id): Path<String>,
    Json(new): Json<NewAccount>,
) -> StatusCode {
    world.put_account(&id, &new.admin, &new.buckets);
    StatusCode::NO_CONTENT
}

async fn list_tokens(State(world): State<Arc<World>>, Path(id): Path<String>) -> Json<Value> {
    let tokens: Vec<Value> = world
        .tokens(&id)
        .into_iter()
        .map(|t| json!({"id": t.id, "name": t.name, "issuedOn": t.issued_on, "expiresOn": t.expires_on}))
        .collect();
    Json(json!({"made": world.made(&id), "tokens": tokens}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    policies: Value,
}

async fn make_token(
    State(world): State<Arc<World>>,
    Path(id): Path<String>,
    Json(new): Json<NewToken>,
) -> Response {
    match world.make_token(&id, &new.name, new.policies) {
        Some(token) => {
            let secret = token.secret_access_key();
            Json(json!({"accessKeyId": token.id, "secretAccessKey": secret})).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such account\n").into_response(),
    }
}

async fn delete_token(
    State(world): State<Arc<World>>,
    Path((id, token)): Path<(String, String)>,
) -> StatusCode {
    if world.delete_token(&id, &token) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn settings(State(world): State<Arc<World>>, Json(settings): Json<Settings>) -> StatusCode {
    world.set_settings(settings);
    StatusCode::NO_CONTENT
}

async fn clear_faults_of(State(world): State<Arc<World>>, Path(account): Path<String>) -> StatusCode {
    world.clear_faults_of(&account);
    StatusCode::NO_CONTENT
}
