//! The requests below `/_emulator/` that every emulator answers.
//!
//! | | |
//! |---|---|
//! | `POST /_emulator/faults` | adds a rule or a list of rules ([`Rule`]) |
//! | `GET`, `DELETE /_emulator/faults` | returns the rules in force; clears them |
//! | `GET`, `DELETE /_emulator/calls` | returns the log; clears it |
//! | `POST /_emulator/reset` | restores the state of the first start |

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::faults::Rule;

/// The functions of an emulator's world `W`, with faults `F` and a log of calls `C`.
pub struct Administration<W, F, C> {
    /// Returns the rules in force, oldest first.
    pub faults: fn(&W) -> Vec<Rule<F>>,
    /// Adds a rule. Returns the reason if it cannot be kept.
    pub add_fault: fn(&W, Rule<F>) -> Result<(), &'static str>,
    /// Removes all rules.
    pub clear_faults: fn(&W),
    /// Returns the log of requests, oldest first.
    pub calls: fn(&W) -> Vec<C>,
    /// Clears the log of requests.
    pub clear_calls: fn(&W),
    /// Restores the state of the first start.
    pub reset: fn(&W),
}

impl<W, F, C> Administration<W, F, C>
where
    W: Send + Sync + 'static,
    F: Serialize + DeserializeOwned + 'static,
    C: Serialize + 'static,
{
    /// Returns the routes below `/_emulator/`, to be merged into the emulator's router.
    pub fn router(self) -> Router<Arc<W>> {
        let Self { faults, add_fault, clear_faults, calls, clear_calls, reset } = self;
        let told = |act: fn(&W)| {
            move |State(world): State<Arc<W>>| async move {
                act(&world);
                StatusCode::NO_CONTENT
            }
        };
        let list_faults = move |State(world): State<Arc<W>>| async move { Json(faults(&world)) };
        let add_faults = move |State(world): State<Arc<W>>, Json(rules): Json<Value>| async move {
            added(rules, |rule| add_fault(&world, rule))
        };
        let list_calls = move |State(world): State<Arc<W>>| async move { Json(calls(&world)) };
        Router::new()
            .route("/_emulator/faults", get(list_faults).post(add_faults).delete(told(clear_faults)))
            .route("/_emulator/calls", get(list_calls).delete(told(clear_calls)))
            .route("/_emulator/reset", post(told(reset)))
    }
}

/// Adds a rule or a list of rules; adds none if one of them cannot be parsed.
fn added<F: DeserializeOwned>(
    rules: Value,
    add: impl FnMut(Rule<F>) -> Result<(), &'static str>,
) -> Response {
    let rules = match rules {
        Value::Array(rules) => rules,
        rule => vec![rule],
    };
    let rules: Result<Vec<Rule<F>>, _> = rules.into_iter().map(serde_json::from_value).collect();
    let added = rules
        .map_err(|error| error.to_string())
        .and_then(|rules| rules.into_iter().try_for_each(add).map_err(str::to_owned));
    match added {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}
