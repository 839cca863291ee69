//! Gathers the evidence from the target of one secret, and selects the logins that are tried there.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use keyturn_api::ManagedSecret;
use keyturn_api::cloudflare_r2::ACCESS_KEY_ID;
use keyturn_api::postgres::{BootstrapMode, PostgresSpec};
use keyturn_api::time::to_text;
use keyturn_rotation::observed::{
    Acceptance, Author, Credential, IssuedLogin, Lifetime, Observed, OpenSession, Parameter, Seen,
    TargetEvidence, TargetProblem,
};
use keyturn_secret_value::SecretValue;

use super::{observe, pairs};
use crate::generator;
use crate::parameter_store::{ParameterStore, StoreError};
use crate::target::{Answer, Issued, Login, Session, Target, TargetError};

/// Maximum number of older versions whose passwords are tried where a role has to change its own password.
const OLDER_VERSIONS: usize = 5;

impl From<&TargetError> for TargetProblem {
    fn from(error: &TargetError) -> Self {
        Self { reason: error.reason.to_owned(), message: error.message.clone(), permanent: error.permanent }
    }
}

/// Asks the target of a secret for its evidence. `observed` is the evidence of a full read of Parameter Store just before.
pub(super) async fn look(
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
            let unknown = || Some(Acceptance::Unknown(error.into()));
            evidence.unseen = Some(error.into());
            evidence.recorded = recorded.and_then(|_| unknown());
            evidence.published = if recorded.is_none() { unknown() } else { None };
        }
        Ok(target) => {
            let mut lifetimes = BTreeMap::new();
            match target.look().await {
                Ok(roles) => {
                    evidence.fenced = roles.fenced;
                    evidence.fences =
                        roles.fences.into_iter().map(|(role, f)| (role, (f.id, f.changed_at))).collect();
                    evidence.can_log_in = roles.can_log_in;
                    evidence.superusers = roles.superusers;
                    evidence.sessions = roles.sessions.into_iter().map(session).collect();
                    evidence.notes = roles.notes;
                    if let Some(found) = roles.issued {
                        lifetimes = lifetimes_of(&found);
                        evidence.issued = Some(known_of(object, store, observed, found).await?);
                    }
                }
                Err(error) => evidence.unseen = Some((&error).into()),
            }
            match recorded {
                Some(credential) => {
                    let login = login_of(credential);
                    evidence.recorded = Some(acceptance(target, &login).await);
                    look_as_itself(target, object, &login, &mut evidence).await;
                    evidence.replaced = end_of_replaced(target, object, store, observed, &evidence).await?;
                    // The record may replace a pair other than the one that somebody has published since.
                    let newest = observed.records.values().next_back();
                    let is_published = newest.is_some_and(|record| observed.is_published(record));
                    if object.spec.generate.cloudflare_r2.is_some() && !is_published {
                        let login = published_login(object, store, observed, None).await?;
                        evidence.published = Some(published_acceptance(target, object, login.as_ref()).await);
                    }
                }
                None if observed.parameters.iter().all(|p| !p.versions.is_empty()) => {
                    let login = published_login(object, store, observed, None).await?;
                    evidence.lifetime =
                        login.as_ref().and_then(|login| lifetimes.get(&login.username)).copied();
                    evidence.notes.extend(evidence.lifetime.and_then(|lifetime| near_end(&lifetime, now)));
                    evidence.published = Some(published_acceptance(target, object, login.as_ref()).await);
                    if login.is_some_and(|login| is_to_be_replaced(object, &login)) {
                        match target.set_up(BootstrapMode::Plan).await {
                            Ok(plan) => {
                                evidence.notes.extend(plan.notes);
                                evidence.set_up = plan.statements;
                            }
                            Err(error) => evidence.unseen = Some((&error).into()),
                        }
                    }
                }
                None => {}
            }
        }
    }
    Ok(evidence)
}

/// Lists the sessions of a role as the role itself sees them, where there is no administrator and its new password works.
async fn look_as_itself(
    target: &dyn Target,
    object: &ManagedSecret,
    login: &Login,
    evidence: &mut TargetEvidence,
) {
    if !changes_itself(object) || evidence.recorded != Some(Acceptance::Accepted) {
        return;
    }
    match target.own_sessions(login).await {
        Ok(sessions) => {
            evidence.sessions = sessions.into_iter().map(session).collect();
            evidence.can_log_in.insert(login.username.clone());
        }
        // Only an incident needs the sessions, and it treats sessions that it cannot see as open.
        Err(error) => tracing::info!(reason = error.reason, "{}", error.message),
    }
}

/// True when only the role itself can change its password, since there is no administrator.
pub(super) fn changes_itself(object: &ManagedSecret) -> bool {
    let postgres = object.spec.generate.postgres.as_ref();
    postgres.is_some_and(|spec| spec.admin_secret_ref.is_none() && spec.admin_parameter.is_none())
}

fn session(of_target: Session) -> OpenSession {
    OpenSession { username: of_target.username, client: of_target.client, since: of_target.since }
}

/// Tries the logins that open records replace, once they are no longer listed as able to log in, and returns the answers.
async fn end_of_replaced(
    target: &dyn Target,
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    seen: &TargetEvidence,
) -> Result<BTreeMap<String, Acceptance>, StoreError> {
    let mut answers = BTreeMap::new();
    if object.spec.generate.cloudflare_r2.is_none() || seen.unseen.is_some() {
        return Ok(answers);
    }
    for record in observed.records.values() {
        let Some(credential) = &record.credential else { continue };
        let replaced = credential.replaces.iter().chain(&credential.accepted);
        let gone: BTreeSet<&String> = replaced.filter(|id| !seen.can_log_in.contains(*id)).collect();
        let found = if object.spec.generate.cloudflare_r2.is_some() {
            pairs::of_ids(&gone, object, store, observed, &record.base).await?
        } else {
            // The earlier password of a role is the one that was published when its rotation began.
            let login = published_login(object, store, observed, Some(&record.base)).await?;
            login.into_iter().filter(|login| gone.contains(&login.username)).collect()
        };
        for pair in found {
            let answer = acceptance(target, &pair).await;
            answers.insert(pair.username, answer);
        }
    }
    Ok(answers)
}

/// Returns the logins that the target made, and for each of them whether it is published now or was published before.
async fn known_of(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    issued: Vec<Issued>,
) -> Result<Vec<IssuedLogin>, StoreError> {
    let mut known = Vec::new();
    for Issued { username, id, at, .. } in issued {
        let newest_of_ours = |parameter: &Parameter, seen: &Seen| parameter.newest_of_ours() == Some(seen);
        let latest_or_of_rotation = |parameter: &Parameter, seen: &Seen| {
            let stamped = seen.version.stamp.as_ref().is_some_and(|stamp| stamp.id == id);
            stamped || parameter.latest() == Some(seen)
        };
        let is_published = publishes(object, store, observed, &username, newest_of_ours).await?;
        let was_published =
            is_published || publishes(object, store, observed, &username, latest_or_of_rotation).await?;
        known.push(IssuedLogin { username, id, at, is_published, was_published });
    }
    Ok(known)
}

/// True when any of these versions publishes a login. A version that cannot be read counts as publishing it.
async fn publishes(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    username: &str,
    counts: impl Fn(&Parameter, &Seen) -> bool,
) -> Result<bool, StoreError> {
    for spec in &object.spec.ssm.parameters {
        let Some(parameter) = observed.parameters.iter().find(|p| p.path == spec.path) else { continue };
        let template = spec.value.as_deref().unwrap_or_default();
        if !template.contains(ACCESS_KEY_ID) {
            continue;
        }
        for seen in parameter.versions.iter().filter(|seen| counts(parameter, seen)) {
            let value = observe::readable(store, &spec.path, seen.version.number).await?;
            let found = value.and_then(|value| generator::access_key_id(template, &value));
            if found.is_none_or(|found| found == username) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns by username the lifetime of the logins that expire.
fn lifetimes_of(issued: &[Issued]) -> BTreeMap<String, Lifetime> {
    let lifetime = |login: &Issued| {
        let lifetime = Lifetime { begins: login.at, ends: login.expires_at? };
        Some((login.username.clone(), lifetime))
    };
    issued.iter().filter_map(lifetime).collect()
}

/// Returns a note for a person where the published token expires soon: something has kept it from being rotated.
fn near_end(lifetime: &Lifetime, now: DateTime<Utc>) -> Option<String> {
    let end = to_text(lifetime.ends);
    (now > lifetime.replace_by())
        .then(|| format!("The published token ends by itself at {end}: rotate before that"))
}

/// True when this is the login of the role that a pair has to be made from.
fn is_to_be_replaced(object: &ManagedSecret, login: &Login) -> bool {
    let pair = object.spec.generate.postgres.as_ref().and_then(|p| p.alternating_roles.as_ref());
    pair.and_then(|pair| pair.bootstrap.as_ref()).is_some_and(|bootstrap| bootstrap.from == login.username)
}

/// Tries a login and returns the target's answer.
pub(super) async fn acceptance(target: &dyn Target, login: &Login) -> Acceptance {
    match target.try_login(login).await {
        Ok(Answer::Accepted) => Acceptance::Accepted,
        Ok(Answer::Refused(error)) => Acceptance::Refused((&error).into()),
        Err(error) => Acceptance::Unknown((&error).into()),
    }
}

async fn published_acceptance(
    target: &dyn Target,
    object: &ManagedSecret,
    login: Option<&Login>,
) -> Acceptance {
    match login {
        Some(login) => acceptance(target, login).await,
        None => Acceptance::Refused(unreadable(object)),
    }
}

pub(super) fn login_of(credential: &Credential) -> Login {
    Login { username: credential.username.clone(), password: credential.password.duplicate() }
}

/// Reads the login that is published now, or by these versions. `None` where the texts hold no login of this source.
pub(super) async fn published_login(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    versions: Option<&BTreeMap<String, i64>>,
) -> Result<Option<Login>, StoreError> {
    let mut values: Vec<SecretValue> = Vec::new();
    for parameter in &object.spec.ssm.parameters {
        let latest =
            observed.parameters.iter().find(|p| p.path == parameter.path).map(Parameter::latest_number);
        let version = versions.map_or(latest, |versions| versions.get(&parameter.path).copied());
        match store.read(&parameter.path, version).await? {
            Some(value) => values.push(value),
            None => return Ok(None),
        }
    }
    let pairs: Vec<_> = object.spec.ssm.parameters.iter().zip(&values).collect();
    if object.spec.generate.cloudflare_r2.is_some() {
        return Ok(generator::pair(&pairs));
    }
    let Some(postgres) = &object.spec.generate.postgres else { return Ok(None) };
    Ok(generator::login(&usernames(postgres), &pairs)
        .map(|(username, password)| Login { username: username.to_owned(), password }))
}

/// Lists the usernames that may be published: the roles of the source, and the role that a bootstrap starts from.
fn usernames(postgres: &PostgresSpec) -> Vec<&str> {
    let from =
        postgres.alternating_roles.iter().filter_map(|r| r.bootstrap.as_ref()).map(|b| b.from.as_str());
    postgres.roles().into_iter().chain(from).collect()
}

/// Returns the username that is in use. That is the published one, unless it cannot log in and the other role of the pair
/// can: then somebody has brought back the version of an earlier rotation, which hosts no longer use. Only the server can
/// show that. So where somebody has written the parameter and the server does not show its roles, the server's problem is
/// returned.
pub(super) fn username_in_use(
    postgres: &PostgresSpec,
    published: Option<String>,
    observed: &Observed,
) -> Result<Option<String>, TargetProblem> {
    let (Some(roles), Some(published)) = (&postgres.alternating_roles, &published) else {
        return Ok(published);
    };
    let latest = observed.parameters.first().and_then(Parameter::latest);
    let is_foreign = latest.is_some_and(|latest| latest.author == Author::Foreign);
    let Some(target) = &observed.target else { return Ok(Some(published.clone())) };
    if let Some(problem) = target.unseen.as_ref().filter(|_| is_foreign) {
        return Err(problem.clone());
    }
    let can_log_in = |name: &&String| target.can_log_in.contains(*name);
    let other = roles.names.iter().find(can_log_in).filter(|_| !can_log_in(&published));
    Ok(Some(other.unwrap_or(published).clone()))
}

/// Returns the username that a new rotation gives a password to, from the one that is in use.
pub(super) fn next_username(postgres: &PostgresSpec, in_use: Option<&str>) -> Option<String> {
    if let Some(single) = &postgres.single_role {
        return Some(single.name.clone());
    }
    let names = &postgres.alternating_roles.as_ref()?.names;
    names.iter().find(|name| Some(name.as_str()) != in_use).cloned()
}

/// Returns the logins that the role may have at the moment, likeliest first: published, recorded, published before.
pub(super) async fn own_logins(
    object: &ManagedSecret,
    store: &dyn ParameterStore,
    observed: &Observed,
    username: &str,
) -> Result<Vec<Login>, StoreError> {
    if !changes_itself(object) {
        return Ok(Vec::new());
    }
    let mut logins: Vec<Login> = Vec::new();
    let mut add = |login: Login| {
        let known = logins.iter().any(|l| l.password.same_as(&login.password));
        if login.username == username && !known {
            logins.push(login);
        }
    };
    if let Some(login) = published_login(object, store, observed, None).await? {
        add(login);
    }
    for credential in observed.records.values().rev().filter_map(|record| record.credential.as_ref()) {
        add(login_of(credential));
    }
    // With several parameters it is not known which of their older versions belong together.
    if let [parameter] = observed.parameters.as_slice() {
        for seen in parameter.versions.iter().rev().skip(1).take(OLDER_VERSIONS) {
            let versions = BTreeMap::from([(parameter.path.clone(), seen.version.number)]);
            if let Some(login) = published_login(object, store, observed, Some(&versions)).await? {
                add(login);
            }
        }
    }
    Ok(logins)
}

/// Returns the problem of a published text that holds no login of this source.
pub(super) fn unreadable(object: &ManagedSecret) -> TargetProblem {
    if object.spec.generate.cloudflare_r2.is_some() {
        return TargetProblem {
            reason: "PublishedLoginUnreadable".to_owned(),
            message: "what is published is no key pair in the form of spec.ssm.parameters[].value: put the access key id \
                      and secret access key that are in use there, or correct the template"
                .to_owned(),
            permanent: true,
        };
    }
    let roles = object.spec.generate.postgres.as_ref().map(|p| usernames(p).join(" or ")).unwrap_or_default();
    TargetProblem {
        reason: "PublishedLoginUnreadable".to_owned(),
        message: format!(
            "what is published does not fit spec.ssm.parameters[].value with the role {roles}: put a login of that role \
             there, or correct the template"
        ),
        permanent: true,
    }
}
