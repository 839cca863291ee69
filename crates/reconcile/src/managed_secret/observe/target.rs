//! Gathers the evidence from the target of one secret.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use keyturn_api::ManagedSecret;
use keyturn_api::time::to_text;
use keyturn_rotation::observed::{
    Acceptance, IssuedLogin, KnownLogin, Lifetime, Observed, Parameter, Seen, TargetEvidence,
};

use super::{logins, pairs};
use crate::parameter_store::{ParameterStore, StoreError};
use crate::source;
use crate::target::{Login, SetUp, SetUpMode, Target, TargetError};

/// Asks the target of a secret for its evidence. `observed` is the evidence of the full read of Parameter Store that
/// has just been done.
pub(super) async fn observe(
    target: Result<&dyn Target, &TargetError>,
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    now: DateTime<Utc>,
) -> Result<TargetEvidence, StoreError> {
    let mut evidence = TargetEvidence::unasked(now);
    let recorded = observed.records.values().next_back().and_then(|record| record.credential.as_ref());
    match target {
        Err(error) => {
            let unknown = || Some(Acceptance::Unknown(error.trouble.clone()));
            evidence.unseen = Some(error.trouble.clone());
            evidence.recorded = recorded.and_then(|_| unknown());
            evidence.published = if recorded.is_none() { unknown() } else { None };
        }
        Ok(target) => {
            let mut lifetimes = BTreeMap::new();
            match target.observe().await {
                Ok(roles) => {
                    evidence.fenced = roles.fenced;
                    evidence.fences = roles.fences;
                    evidence.can_log_in = roles.can_log_in;
                    evidence.superusers = roles.superusers;
                    evidence.sessions = roles.sessions;
                    evidence.notes = roles.notes;
                    if let Some(found) = roles.issued {
                        let lifetime =
                            |login: &IssuedLogin| Some((login.username.clone(), login.lifetime()?));
                        lifetimes = found.iter().filter_map(lifetime).collect();
                        evidence.issued = Some(known_of(object, store, observed, found).await?);
                    }
                }
                Err(error) => evidence.unseen = Some(error.trouble),
            }
            match recorded {
                Some(credential) => {
                    let login = logins::login_of(credential);
                    evidence.recorded = Some(target.try_login(&login).await);
                    observe_as_itself(target, object, &login, &mut evidence).await;
                    evidence.replaced = end_of_replaced(target, object, store, observed, &evidence).await?;
                    // The pair that the record replaces may differ from a pair that somebody has published since.
                    let newest = observed.records.values().next_back();
                    let is_published = newest.is_some_and(|record| observed.is_published(record));
                    if source::issued(&object.spec.generate).is_some() && !is_published {
                        let login = logins::published_login(object, store, observed, None).await?;
                        evidence.published = Some(published_acceptance(target, object, login.as_ref()).await);
                    }
                }
                None if observed.parameters.iter().all(|p| !p.versions.is_empty()) => {
                    let login = logins::published_login(object, store, observed, None).await?;
                    evidence.lifetime =
                        login.as_ref().and_then(|login| lifetimes.get(&login.username)).copied();
                    evidence.notes.extend(evidence.lifetime.and_then(|lifetime| near_end(&lifetime, now)));
                    evidence.published = Some(published_acceptance(target, object, login.as_ref()).await);
                    if login.is_some_and(|login| is_to_be_replaced(object, &login)) {
                        match planned(target).await {
                            Ok(plan) => {
                                evidence.notes.extend(plan.notes);
                                evidence.set_up = plan.statements;
                            }
                            Err(error) => evidence.unseen = Some(error.trouble),
                        }
                    }
                }
                None => {}
            }
        }
    }
    Ok(evidence)
}

/// Lists the sessions of a role as the role itself sees them, if there is no administrator and its new password works.
async fn observe_as_itself(
    target: &dyn Target,
    object: &ManagedSecret,
    login: &Login,
    evidence: &mut TargetEvidence,
) {
    if !logins::changes_itself(object) || evidence.recorded != Some(Acceptance::Accepted) {
        return;
    }
    let Some(sessions) = target.kind().sessions() else { return };
    match sessions.list_own(login).await {
        Ok(sessions) => {
            evidence.sessions = sessions;
            evidence.can_log_in.insert(login.username.clone());
        }
        // Only an incident needs the sessions, and it treats sessions that it cannot see as open.
        Err(error) => tracing::info!(reason = error.trouble.reason.name(), "{error}"),
    }
}

/// Lists the statements that create the owner and the pair from the role in use.
async fn planned(target: &dyn Target) -> Result<SetUp, TargetError> {
    match target.kind().sets_up() {
        Some(part) => part.set_up(SetUpMode::Plan).await,
        None => Ok(SetUp::default()),
    }
}

/// Tries the logins that open records replace, once the target's list no longer contains them. Returns the answers by
/// username.
async fn end_of_replaced(
    target: &dyn Target,
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    seen: &TargetEvidence,
) -> Result<BTreeMap<String, Acceptance>, StoreError> {
    let mut answers = BTreeMap::new();
    if source::issued(&object.spec.generate).is_none() || seen.unseen.is_some() {
        return Ok(answers);
    }
    for record in observed.records.values() {
        let Some(credential) = &record.credential else { continue };
        let replaced = credential.replaces.iter().chain(&credential.accepted);
        let gone: BTreeSet<&String> = replaced.filter(|id| !seen.can_log_in.contains(*id)).collect();
        for pair in pairs::of_ids(&gone, object, store, observed, &record.base).await? {
            let answer = target.try_login(&pair).await;
            answers.insert(pair.username, answer);
        }
    }
    Ok(answers)
}

/// Adds to each login that the target made the evidence of Parameter Store: if the login is published, and if it was
/// published before.
async fn known_of(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    issued: Vec<IssuedLogin>,
) -> Result<Vec<KnownLogin>, StoreError> {
    let mut known = Vec::new();
    for login in issued {
        let newest_of_ours = |parameter: &Parameter, seen: &Seen| parameter.newest_of_ours() == Some(seen);
        let latest_or_of_rotation = |parameter: &Parameter, seen: &Seen| {
            let stamped = seen.version.stamp.as_ref().is_some_and(|stamp| stamp.id == login.id);
            stamped || parameter.latest() == Some(seen)
        };
        let is_published = publishes(object, store, observed, &login.username, newest_of_ours).await?;
        let was_published = is_published
            || publishes(object, store, observed, &login.username, latest_or_of_rotation).await?;
        known.push(KnownLogin { login, is_published, was_published });
    }
    Ok(known)
}

/// True when a version that `counts` selects publishes the login of this username. A version that cannot be read, or
/// in which no username is found, counts as publishing it.
async fn publishes(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    username: &str,
    counts: impl Fn(&Parameter, &Seen) -> bool,
) -> Result<bool, StoreError> {
    let Some(source) = source::issued(&object.spec.generate) else { return Ok(false) };
    for spec in &object.spec.ssm.parameters {
        let Some(parameter) = observed.parameters.iter().find(|p| p.path == spec.path) else { continue };
        let template = spec.value.as_deref().unwrap_or_default();
        if !source.names_the_login(template) {
            continue;
        }
        for seen in parameter.versions.iter().filter(|seen| counts(parameter, seen)) {
            let value = super::readable(store, &spec.path, seen.version.number).await?;
            let found = value.and_then(|value| source.username_in(template, &value));
            if found.is_none_or(|found| found == username) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns a note for people if the published token expires soon: something has prevented its rotation.
fn near_end(lifetime: &Lifetime, now: DateTime<Utc>) -> Option<String> {
    let end = to_text(lifetime.ends);
    (now > lifetime.replace_by())
        .then(|| format!("The published token expires at {end}: rotate it before that"))
}

/// True when the login is of the role from which the pair of roles has to be created.
fn is_to_be_replaced(object: &ManagedSecret, login: &Login) -> bool {
    let bootstrap = source::installed(&object.spec.generate).and_then(|source| source.bootstrap());
    bootstrap.is_some_and(|bootstrap| bootstrap.from == login.username)
}

async fn published_acceptance(
    target: &dyn Target,
    object: &ManagedSecret,
    login: Option<&Login>,
) -> Acceptance {
    match login {
        Some(login) => target.try_login(login).await,
        None => Acceptance::Refused(logins::unreadable(object)),
    }
}
