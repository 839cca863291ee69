//! Finds the R2 key pairs that the parameters have published, and those that are in use.
//!
//! Everybody who may write a parameter can put any text there, such as the id of somebody else's token. So a text alone
//! never decides which token is deleted. A text counts only if keyturn has sealed it, or if R2 accepts the pair, since
//! then the writer knew its secret.

use std::collections::{BTreeMap, BTreeSet};

use keyturn_api::{ManagedSecret, Trouble};
use keyturn_rotation::observed::{Acceptance, Author, Observed, Parameter, Seen};

use super::logins;
use crate::parameter_store::{ParameterStore, StoreError};
use crate::target::{Login, Target};

/// Ids of the pairs that a rotation replaces.
#[derive(Debug, Default)]
pub(in crate::managed_secret) struct InUse {
    /// The newest pair that the target accepts or that keyturn has published.
    pub replaces: Option<String>,
    /// Every pair that was tried and that the target accepted.
    pub accepted: BTreeSet<String>,
}

/// A state of the parameters: the latest version of each parameter at one point in time.
struct State<'a>(Vec<(&'a str, &'a Seen)>);

impl State<'_> {
    fn versions(&self) -> BTreeMap<String, i64> {
        self.0.iter().map(|(path, seen)| ((*path).to_owned(), seen.version.number)).collect()
    }

    fn is_ours(&self) -> bool {
        self.0.iter().all(|(_, seen)| matches!(seen.author, Author::Ours(_)))
    }

    /// True when a single rotation has published all versions of the state.
    fn is_of_one_rotation(&self) -> bool {
        let first = self.0.first().map(|(_, seen)| &seen.author);
        self.is_ours() && self.0.iter().all(|(_, seen)| Some(&seen.author) == first)
    }

    fn holds_a_foreign_version(&self) -> bool {
        self.0.iter().any(|(_, seen)| seen.author == Author::Foreign)
    }
}

/// Returns the states in which readers could find the parameters, newest first: one state for each version that was
/// put. If `base` is given, versions later than those of `base` are ignored.
fn states<'a>(parameters: &'a [Parameter], base: Option<&BTreeMap<String, i64>>) -> Vec<State<'a>> {
    let counts = |path: &str, seen: &Seen| {
        base.is_none_or(|base| base.get(path).is_some_and(|newest| seen.version.number <= *newest))
    };
    let mut left: Vec<(&str, &[Seen])> = parameters
        .iter()
        .map(|parameter| {
            let path = parameter.path.as_str();
            let end = parameter.versions.partition_point(|seen| counts(path, seen));
            (path, &parameter.versions[..end])
        })
        .collect();
    let mut states = Vec::new();
    while let Some(state) = left.iter().map(|(path, left)| Some((*path, left.last()?))).collect() {
        states.push(State(state));
        let put_last = left.iter_mut().max_by_key(|(_, left)| left.last().map(|seen| seen.version.modified));
        let Some((_, put_last)) = put_last else { break };
        *put_last = &put_last[..put_last.len() - 1];
    }
    states
}

/// Reads the pair of a state; `None` if the texts hold no pair or cannot be read. This is not an error, since somebody
/// else may have written the texts.
async fn pair_of(
    state: &State<'_>,
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
) -> Result<Option<Login>, StoreError> {
    match logins::published_login(object, store, observed, Some(&state.versions())).await {
        Err(StoreError::Denied { .. } | StoreError::Rejected { .. }) => Ok(None),
        pair => pair,
    }
}

/// Finds the pair that is in use. The search goes from the latest version back to keyturn's newest version, or to the
/// first working pair from before keyturn. If `all` is true, the search finds every working pair that somebody else
/// has put, no matter how old, since an incident must revoke all of them. The inner error is the trouble if the target
/// cannot answer, or if no state contains a readable pair.
pub(in crate::managed_secret) async fn in_use(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    target: &dyn Target,
    observed: &Observed,
    all: bool,
) -> Result<Result<InUse, Trouble>, StoreError> {
    let mut found = InUse::default();
    let states = states(&observed.parameters, None);
    let mut unreadable = !states.is_empty();
    let mut below_ours = false;
    for state in states {
        // Older states that keyturn published need no search: the target itself lists their tokens.
        if below_ours && state.is_ours() {
            continue;
        }
        let is_newest_of_ours = state.is_of_one_rotation();
        if let Some(pair) = pair_of(&state, object, store, observed).await? {
            unreadable = false;
            let answer = target.try_login(&pair).await;
            let accepted = answer == Acceptance::Accepted;
            if let Some(trouble) = answer.unknown() {
                return Ok(Err(trouble));
            }
            if accepted {
                found.accepted.insert(pair.username.clone());
            }
            if accepted || is_newest_of_ours {
                found.replaces.get_or_insert(pair.username);
            }
            if accepted && !state.holds_a_foreign_version() && !all {
                break;
            }
        }
        below_ours |= is_newest_of_ours;
        if below_ours && !all {
            break;
        }
    }
    if unreadable {
        return Ok(Err(logins::unreadable(object)));
    }
    Ok(Ok(found))
}

/// Returns the pairs with these ids that were published in the versions of `base` or earlier ones.
pub(super) async fn of_ids(
    ids: &BTreeSet<&String>,
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    base: &BTreeMap<String, i64>,
) -> Result<Vec<Login>, StoreError> {
    let mut missing = ids.clone();
    let mut pairs = Vec::new();
    for state in states(&observed.parameters, Some(base)) {
        if missing.is_empty() {
            break;
        }
        let pair = pair_of(&state, object, store, observed).await?;
        if let Some(pair) = pair.filter(|pair| missing.remove(&pair.username)) {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
