//! The emulator's state, and the handling of one request: fault, quota, then the parameters or the upstream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use keyturn_emulator::Faults;

use crate::Rule;
use crate::calls::{Call, Calls};
use crate::cloudtrail::{self, Trail};
use crate::error::AwsError;
use crate::faults::{Fault, throttled};
use crate::quota::{Quota, Quotas};
use crate::ssm::{self, Settings, Ssm};
use crate::upstream::Upstream;
use crate::wire::{self, Answer, Request};

/// The end of a request for the client.
pub enum End {
    Answer(Answer),
    /// The connection closes without an answer.
    Dropped,
    /// There is no answer while the client waits.
    Never,
}

/// The emulator's state, and the upstream if it is a proxy.
pub struct World {
    state: Mutex<State>,
    upstream: Option<Upstream>,
}

#[derive(Default)]
struct State {
    ssm: Ssm,
    faults: Faults<Fault>,
    quotas: Quotas,
    calls: Calls,
    trail: Trail,
    clock_offset: TimeDelta,
    /// Requests that are applied on release, each with the number of its log entry.
    held: Vec<(u64, Request)>,
}

impl State {
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.clock_offset
    }
}

impl World {
    /// Creates a world without faults. It has no parameters; with an upstream, the upstream has them.
    pub fn new(upstream: Option<Upstream>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), upstream })
    }

    /// Returns the SSM to which requests are forwarded; `None` if the emulator keeps the parameters.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.upstream.as_ref()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule after the others. Returns the reason if it is refused: an upstream has no stale reads.
    pub fn add_fault(&self, rule: Rule) -> Result<(), &'static str> {
        if self.upstream.is_some() && matches!(rule.fault, Fault::Stale { .. }) {
            return Err("stale reads need the emulator's own parameters; an upstream keeps no past");
        }
        self.state().faults.add(rule);
        Ok(())
    }

    /// Returns the rules in force, oldest first.
    pub fn faults(&self) -> Vec<Rule> {
        self.state().faults.rules().to_vec()
    }

    /// Removes all rules. Requests that are held already stay held.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Replaces all quotas by these.
    pub fn set_quotas(&self, quotas: impl IntoIterator<Item = (String, Quota)>) {
        self.state().quotas.replace(quotas);
    }

    /// Sets the offset of the emulator's clock from the system's: ahead, or behind if it is negative.
    pub fn set_clock_offset(&self, offset: TimeDelta) {
        self.state().clock_offset = offset;
    }

    /// Replaces all settings.
    pub fn set_settings(&self, settings: Settings) {
        self.state().ssm.settings = settings;
    }

    /// Returns a copy of the log, oldest request first.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.all().to_vec()
    }

    /// Returns the number of the last request. This is cheap, unlike a copy of the log.
    pub fn last_call(&self) -> u64 {
        self.state().calls.count()
    }

    /// Clears the log. The numbers of later requests continue.
    pub fn clear_calls(&self) {
        self.state().calls.clear();
    }

    /// Writes a SecureString in the name of somebody else and at a given time. The write is not logged and counts
    /// against no quota.
    pub fn seed(&self, region: &str, name: &str, value: &str, at: DateTime<Utc>) -> Result<(), AwsError> {
        let body = serde_json::json!({"Name": name, "Value": value, "Type": "SecureString"}).to_string();
        let put = ssm::Request {
            operation: "PutParameter",
            region,
            access_key: "somebody",
            body: body.as_bytes(),
            now: at,
            stale_by: 0,
        };
        ssm::call(&mut self.state().ssm, &put).map(drop)
    }

    /// Returns the number of versions that each parameter below a path has had.
    pub fn versions(&self, region: &str, path: &str) -> BTreeMap<String, i64> {
        let state = self.state();
        let parameters =
            state.ssm.regions.get(region).into_iter().flat_map(|region| region.parameters.values());
        let below = parameters.filter(|parameter| parameter.name.starts_with(path));
        below.map(|parameter| (parameter.name.clone(), parameter.latest().number)).collect()
    }

    /// Adds an event to the trail, for actions of others and for other services.
    pub fn add_event(&self, event: serde_json::Value) {
        self.state().trail.add(event);
    }

    /// Deletes everything: parameters, faults, quotas, calls, clock, settings and held requests.
    pub fn reset(&self) {
        *self.state() = State::default();
    }

    /// Applies all held requests in the order in which they came. Returns their number.
    pub async fn release(self: &Arc<Self>) -> usize {
        let held = std::mem::take(&mut self.state().held);
        let count = held.len();
        for (number, request) in held {
            self.apply(number, &request, 0).await;
        }
        count
    }

    /// Handles a request to its end, even if its client does not wait.
    pub async fn handle(self: &Arc<Self>, request: Request) -> End {
        let (number, fault, passes) = self.admit(&request);
        let Some(fault) = fault else {
            let answer = if passes { self.apply(number, &request, 0).await } else { throttled().into() };
            return self.answer(number, answer);
        };
        if let Some((error, applied)) = fault.error(&request.operation, &request.path) {
            if applied {
                self.apply(number, &request, 0).await;
            }
            return self.answer(number, error.into());
        }
        match fault {
            Fault::Hang { applied } | Fault::Drop { applied } if applied => {
                self.apply(number, &request, 0).await;
            }
            Fault::Late { after_ms } => self.apply_later(number, request.clone(), after_ms),
            Fault::Slow { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            _ => {}
        }
        match fault {
            Fault::Hang { .. } | Fault::Late { .. } => End::Never,
            Fault::Drop { .. } => End::Dropped,
            Fault::Stale { writes } => {
                let answer = self.apply(number, &request, writes).await;
                self.answer(number, answer)
            }
            Fault::Duplicate { after_ms } => {
                let answer = self.apply(number, &request, 0).await;
                let again = enter(&mut self.state(), &request, Some(&fault));
                self.apply_later(again, request, after_ms);
                self.answer(number, answer)
            }
            _ => {
                let answer = self.apply(number, &request, 0).await;
                self.answer(number, answer)
            }
        }
    }

    /// Logs a request, and returns its fault and whether its quota allows it.
    fn admit(&self, request: &Request) -> (u64, Option<Fault>, bool) {
        let mut state = self.state();
        let fault = state.faults.hit(&request.operation, &request.path);
        let fault = fault.filter(|fault| *fault != Fault::OverwriteDenied || request.overwrites());
        let passes = fault.is_some() || state.quotas.passes(&request.operation, Instant::now());
        let number = enter(&mut state, request, fault.as_ref());
        (number, fault, passes)
    }

    fn apply_later(self: &Arc<Self>, number: u64, request: Request, after_ms: Option<u64>) {
        let Some(after_ms) = after_ms else {
            self.state().held.push((number, request));
            return;
        };
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            world.apply(number, &request, 0).await;
        });
    }

    /// Applies the request to the parameters, here or upstream.
    async fn apply(&self, number: u64, request: &Request, stale_by: usize) -> Answer {
        let answer = match &self.upstream {
            _ if request.operation == wire::LOOKUP_EVENTS => self.look_up(request).await,
            Some(upstream) => upstream.call(request).await,
            None => self.apply_here(request, stale_by),
        };
        self.state().calls.update(number, |call| {
            call.applied = answer.status < 300;
            call.version = wire::version(&answer);
        });
        answer
    }

    /// Looks up events, including those of moto's own calls if it keeps a list of them.
    async fn look_up(&self, request: &Request) -> Answer {
        let of_upstream = match &self.upstream {
            Some(upstream) => {
                let none = axum::http::HeaderMap::new();
                let calls = upstream.send(axum::http::Method::GET, "/world/calls", &none, Default::default());
                cloudtrail::of_world(&serde_json::from_slice(&calls.await.body).unwrap_or_default())
            }
            None => Vec::new(),
        };
        let mut state = self.state();
        let answer = if of_upstream.is_empty() {
            state.trail.lookup(&request.region, &request.body)
        } else {
            let mut all = std::mem::take(&mut state.trail);
            let answer = all.with(of_upstream, |trail| trail.lookup(&request.region, &request.body));
            state.trail = all;
            answer
        };
        match answer {
            Ok(body) => Answer { status: 200, body: body.to_string().into() },
            Err(error) => error.into(),
        }
    }

    fn apply_here(&self, request: &Request, stale_by: usize) -> Answer {
        let mut state = self.state();
        let call = ssm::Request {
            operation: &request.operation,
            region: &request.region,
            access_key: &request.access_key,
            body: &request.body,
            now: state.now(),
            stale_by,
        };
        match ssm::call(&mut state.ssm, &call) {
            Ok(body) => Answer { status: 200, body: body.to_string().into() },
            Err(error) => error.into(),
        }
    }

    fn answer(&self, number: u64, answer: Answer) -> End {
        let outcome = wire::outcome(&answer);
        let mut state = self.state();
        state.trail.ended(number, &outcome);
        state.calls.update(number, |call| call.outcome = outcome);
        drop(state);
        End::Answer(answer)
    }

    /// Answers and logs a request that is not valid.
    pub fn refuse(&self, error: AwsError) -> Answer {
        let mut state = self.state();
        let now = state.now();
        let number = state.calls.begin(now, "", "", "", "");
        state.calls.update(number, |call| call.outcome.clone_from(&error.code));
        error.into()
    }
}

/// Logs a request and returns the number of its entry.
fn enter(state: &mut State, request: &Request, fault: Option<&Fault>) -> u64 {
    let now = state.now();
    let Request { region, access_key, operation, path, .. } = request;
    let number = state.calls.begin(now, region, access_key, operation, path);
    if request.operation != wire::LOOKUP_EVENTS {
        state.trail.enter(number, now, request);
    }
    let kind = fault.and_then(|fault| serde_json::to_value(fault).ok());
    let kind = kind.and_then(|fault| fault["kind"].as_str().map(str::to_owned));
    state.calls.update(number, |call| call.fault = kind);
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_parameter_is_as_old_as_was_said_and_nobody_asked_for_it() {
        let world = World::new(None);
        let at = DateTime::UNIX_EPOCH;
        world.seed("us-east-1", "/a/x", "one", at).unwrap();
        world.seed("us-east-1", "/b/x", "two", at).unwrap();
        assert_eq!(world.versions("us-east-1", "/a/"), BTreeMap::from([("/a/x".to_owned(), 1)]));
        assert_eq!(world.versions("eu-west-1", "/a/"), BTreeMap::new());
        let state = world.state();
        let parameter = &state.ssm.regions["us-east-1"].parameters["/a/x"];
        assert_eq!(parameter.latest().modified, at);
        assert_eq!((state.calls.count(), state.calls.all()), (0, [].as_slice()));
    }

    #[test]
    fn what_exists_is_not_seeded_over() {
        let world = World::new(None);
        world.seed("us-east-1", "/a", "one", DateTime::UNIX_EPOCH).unwrap();
        let error = world.seed("us-east-1", "/a", "two", DateTime::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.code, "ParameterAlreadyExists");
    }
}
