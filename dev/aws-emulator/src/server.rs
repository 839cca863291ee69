//! HTTP: AWS's protocol at `/`, and administration below `/_emulator/`. In addition to the requests that every emulator
//! answers ([`Administration`]):
//!
//! | | |
//! |---|---|
//! | `POST /_emulator/release` | applies the requests that `late` and `duplicate` hold; `{"released": n}` |
//! | `POST /_emulator/quotas` | `{"PutParameter": {"perSecond": 3, "burst": 3}}`: replaces all quotas |
//! | `POST /_emulator/clock` | `{"offsetSeconds": -8640000}`: writes from now on are 100 days old |
//! | `POST /_emulator/settings` | `{"kmsKeys": ["alias/aws/ssm", "alias/musehub"], "emptyPages": true}` |
//! | `POST /_emulator/events` | an event of CloudTrail or a list of them, as `CloudTrailEvent` has them |

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use chrono::TimeDelta;
use keyturn_emulator::{Administration, no_answer};
use serde::Deserialize;
use serde_json::json;

use crate::quota::Quota;
use crate::ssm::Settings;
use crate::wire::{Answer, Request};
use crate::world::{End, World};

pub(crate) fn router(world: Arc<World>) -> Router {
    let administration = Administration {
        faults: World::faults,
        add_fault: World::add_fault,
        clear_faults: World::clear_faults,
        calls: World::calls,
        clear_calls: World::clear_calls,
        reset: World::reset,
    };
    Router::new()
        .merge(administration.router())
        .route("/_emulator/release", post(release))
        .route("/_emulator/quotas", post(quotas))
        .route("/_emulator/clock", post(clock))
        .route("/_emulator/settings", post(settings))
        .route("/_emulator/events", post(events))
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
    // The task is separate, so that a disconnected client does not cancel its request.
    match tokio::spawn(async move { world.handle(request).await }).await {
        Ok(End::Answer(given)) => answer(given),
        Ok(End::Never) => std::future::pending().await,
        Ok(End::Dropped) | Err(_) => no_answer(),
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

async fn release(State(world): State<Arc<World>>) -> Json<serde_json::Value> {
    Json(json!({"released": world.release().await}))
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
