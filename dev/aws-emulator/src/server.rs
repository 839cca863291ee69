//! HTTP: AWS's protocol at `/`, administration below `/_emulator/`.
//!
//! | | |
//! |---|---|
//! | `POST /_emulator/faults` | a rule or a list of rules ([`Rule`](crate::Rule)) |
//! | `GET`, `DELETE /_emulator/faults` | the rules in force; clears them |
//! | `POST /_emulator/release` | applies what `late` and `duplicate` hold; `{"released": n}` |
//! | `GET`, `DELETE /_emulator/calls` | the log ([`Call`](crate::Call)); clears it |
//! | `POST /_emulator/quotas` | `{"PutParameter": {"perSecond": 3, "burst": 3}}`: these quotas and no others |
//! | `POST /_emulator/clock` | `{"offsetSeconds": -8640000}`: what is written now is 100 days old |
//! | `POST /_emulator/settings` | `{"kmsKeys": ["alias/aws/ssm", "alias/musehub"], "emptyPages": true}` |
//! | `POST /_emulator/events` | an event of CloudTrail or a list of them, as `CloudTrailEvent` has them |
//! | `POST /_emulator/reset` | everything as after the start |

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::TimeDelta;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

use crate::faults::Rule;
use crate::quota::Quota;
use crate::ssm::Settings;
use crate::wire::{Answer, Request};
use crate::world::{End, World};

/// Marks a response that must not be sent: the connection is closed instead.
#[derive(Clone)]
struct Dropped;

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, world: Arc<World>) {
    let router = router(world);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A failed accept concerns one client only.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve_connection(stream, router.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut router = router.clone();
        async move {
            let response = match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            if response.extensions().get::<Dropped>().is_some() {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            }
            Ok(response)
        }
    });
    // A client that goes away, and a dropped connection, end here as an error that concerns nobody.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/_emulator/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/_emulator/release", post(release))
        .route("/_emulator/calls", get(calls).delete(clear_calls))
        .route("/_emulator/quotas", post(quotas))
        .route("/_emulator/clock", post(clock))
        .route("/_emulator/settings", post(settings))
        .route("/_emulator/events", post(events))
        .route("/_emulator/reset", post(reset))
        .fallback(aws)
        .with_state(world)
}

async fn aws(
    State(world): State<Arc<World>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if method != Method::POST || uri.path() != "/" {
        return match world.upstream() {
            Some(upstream) => {
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                answer(upstream.send(method, path, &headers, body).await)
            }
            None => (StatusCode::NOT_FOUND, "AWS's protocol is POST /\n").into_response(),
        };
    }
    let request = match Request::new(headers, body) {
        Ok(request) => request,
        Err(error) => return answer(world.refuse(error)),
    };
    // A task of its own, so that a client that goes away does not undo what it has asked for.
    match tokio::spawn(async move { world.handle(request).await }).await {
        Ok(End::Answer(given)) => answer(given),
        Ok(End::Never) => std::future::pending().await,
        Ok(End::Dropped) | Err(_) => {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(Dropped);
            response
        }
    }
}

fn answer(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], answer.body).into_response()
}

async fn events(State(world): State<Arc<World>>, Json(events): Json<serde_json::Value>) -> StatusCode {
    match events {
        serde_json::Value::Array(events) => events.into_iter().for_each(|event| world.add_event(event)),
        event => world.add_event(event),
    }
    StatusCode::NO_CONTENT
}

async fn faults(State(world): State<Arc<World>>) -> Json<Vec<Rule>> {
    Json(world.faults())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<serde_json::Value>),
    One(serde_json::Value),
}

async fn add_faults(State(world): State<Arc<World>>, Json(rules): Json<OneOrMany>) -> Response {
    let rules = match rules {
        OneOrMany::Many(rules) => rules,
        OneOrMany::One(rule) => vec![rule],
    };
    let rules: Result<Vec<Rule>, _> = rules.into_iter().map(serde_json::from_value).collect();
    let added = rules.map_err(|error| error.to_string()).and_then(|rules| {
        rules.into_iter().try_for_each(|rule| world.add_fault(rule)).map_err(str::to_owned)
    });
    match added {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

async fn clear_faults(State(world): State<Arc<World>>) -> StatusCode {
    world.clear_faults();
    StatusCode::NO_CONTENT
}

async fn release(State(world): State<Arc<World>>) -> Json<serde_json::Value> {
    Json(json!({"released": world.release().await}))
}

async fn calls(State(world): State<Arc<World>>) -> Json<Vec<crate::Call>> {
    Json(world.calls())
}

async fn clear_calls(State(world): State<Arc<World>>) -> StatusCode {
    world.clear_calls();
    StatusCode::NO_CONTENT
}

async fn quotas(State(world): State<Arc<World>>, Json(quotas): Json<HashMap<String, Quota>>) -> StatusCode {
    world.set_quotas(quotas);
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Clock {
    offset_seconds: i64,
}

async fn clock(State(world): State<Arc<World>>, Json(clock): Json<Clock>) -> Response {
    match TimeDelta::try_seconds(clock.offset_seconds) {
        Some(offset) => {
            world.set_clock_offset(offset);
            StatusCode::NO_CONTENT.into_response()
        }
        None => (StatusCode::BAD_REQUEST, "the offset is out of range\n").into_response(),
    }
}

async fn settings(State(world): State<Arc<World>>, Json(settings): Json<Settings>) -> StatusCode {
    world.set_settings(settings);
    StatusCode::NO_CONTENT
}

async fn reset(State(world): State<Arc<World>>) -> StatusCode {
    world.reset();
    StatusCode::NO_CONTENT
}
