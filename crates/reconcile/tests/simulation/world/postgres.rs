//! A Postgres server: roles with one password each, behind a fence if there is an administrator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use keyturn_api::source::postgres::PostgresReason;
use keyturn_api::{ManagedSecret, Reason, Trouble};
use keyturn_reconcile::ports::Targets;
use keyturn_reconcile::target::{
    Installs, Kind as TargetKind, Login, Roles, Sessions, SetUp, SetUpMode, SetsUp, Target, TargetError,
};
use keyturn_rotation::observed::{Acceptance, OpenSession, RotationId};
use keyturn_secret_value::SecretValue;

use super::cloudflare::SimR2;
use super::hosts::SimHost;
use super::{Answer, At, State, World};
use crate::faults::Kind;
use crate::invariants;

/// One role that may log in.
#[derive(Clone, Debug)]
pub(crate) struct SimRole {
    pub password: String,
    pub can_log_in: bool,
    fence: Option<(RotationId, At)>,
    /// Time of the last change, with or without a fence.
    changed_at: Option<At>,
}

/// The server. The initialisation of the database creates a role that does not exist yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimPostgres {
    pub roles: BTreeMap<String, SimRole>,
    pub unreachable: bool,
    /// Roles that the administrator may not change.
    pub not_permitted: BTreeSet<String>,
    /// The role whose password the database takes from the first deployment. Until then there is no server.
    pub initialised_by: Option<String>,
    /// Time at which the sessions of a login were last ended. A client whose login is accepted reconnects at once.
    pub ended: BTreeMap<String, At>,
    /// True if the administrator may not read the statistics of other roles.
    pub hides_statistics: bool,
}

impl SimPostgres {
    pub(crate) fn with(roles: &[(&str, &str, bool)]) -> Self {
        let role = |(name, password, can_log_in): &(&str, &str, bool)| {
            let role = SimRole {
                password: (*password).into(),
                can_log_in: *can_log_in,
                fence: None,
                changed_at: None,
            };
            ((*name).to_owned(), role)
        };
        Self { roles: roles.iter().map(role).collect(), ..Self::default() }
    }

    /// True if `user:password` logs in.
    pub(crate) fn accepts(&self, login: &str) -> bool {
        login.trim_end().split_once(':').is_some_and(|(username, password)| {
            self.roles.get(username).is_some_and(|role| role.can_log_in && role.password == password)
        })
    }

    /// True if the controller can reach the server.
    fn answers(&self) -> bool {
        !self.unreachable && self.initialised_by.is_none()
    }

    /// Returns the time at which the clients with `user:password` connected: for a login that the server accepts, one
    /// minute after the role was changed, or when its sessions were last ended; for any other login, one minute before
    /// that change.
    fn connected_since(&self, login: &str) -> Option<At> {
        let (username, _) = login.split_once(':')?;
        let changed_at = self.roles.get(username)?.changed_at?;
        let apart = TimeDelta::minutes(1);
        if !self.accepts(login) {
            return Some(changed_at - apart);
        }
        let first = changed_at + apart;
        Some(self.ended.get(login).map_or(first, |ended_at| first.max(*ended_at)))
    }

    /// Starts the database for the first time, with the values of its container.
    pub(crate) fn initialise(&mut self, login: &str) {
        let Some(wanted) = self.initialised_by.take() else { return };
        if let Some((username, password)) = login.split_once(':').filter(|(name, _)| *name == wanted) {
            let role = SimRole { password: password.into(), can_log_in: true, fence: None, changed_at: None };
            self.roles.insert(username.into(), role);
        }
    }
}

/// The server as one secret sees it.
struct SimTarget {
    world: World,
    names: Vec<String>,
    has_admin: bool,
    bootstrap_from: Option<String>,
}

fn error(reason: impl Into<Reason>, message: &str, permanent: bool) -> TargetError {
    Trouble::new(reason, message, permanent).into()
}

impl Answer for TargetError {
    fn refused(what: &str) -> Self {
        error(Reason::TargetUnreachable, &format!("{what}: nothing answers"), false)
    }

    fn rejected(what: &str) -> Self {
        error(PostgresReason::NotPermitted, &format!("{what}: permission denied"), true)
    }

    fn no_answer(what: &str) -> Self {
        TargetError {
            outcome_unknown: true,
            ..error(PostgresReason::OutcomeUnknown, &format!("{what}: no answer"), false)
        }
    }
}

impl SimTarget {
    fn reach<T>(&self, look: impl FnOnce(&mut SimPostgres) -> T) -> Result<T, TargetError> {
        let mut state = self.world.lock();
        match state.postgres.as_mut().filter(|server| server.answers()) {
            Some(server) => Ok(look(server)),
            None => Err(TargetError::refused("connect")),
        }
    }

    fn change(
        state: &mut State,
        has_admin: bool,
        id: RotationId,
        username: &str,
        change: impl FnOnce(&mut SimRole),
    ) -> Result<(), TargetError> {
        let now = state.now;
        let Some(server) = state.postgres.as_mut().filter(|server| server.answers()) else {
            return Err(TargetError::refused("change a role"));
        };
        if server.not_permitted.contains(username) {
            return Err(error(
                PostgresReason::NotPermitted,
                &format!("GRANT {username} TO admin WITH ADMIN OPTION"),
                true,
            ));
        }
        let Some(role) = server.roles.get_mut(username) else {
            return Err(error(Reason::RoleMissing, &format!("role {username} does not exist"), true));
        };
        if has_admin {
            if role.fence.is_some_and(|(fence, _)| fence > id) {
                return Err(error(PostgresReason::Fenced, "a newer rotation has changed the role", false));
            }
            role.fence = Some((id, now));
        }
        role.changed_at = Some(now);
        change(role);
        Ok(())
    }
}

/// Returns the open sessions: every running login is connected until its session is ended and it cannot log in again.
fn open_sessions(state: &State, server: &SimPostgres) -> Vec<OpenSession> {
    let connected = |value: &&String| server.accepts(value) || !server.ended.contains_key(value.as_str());
    let of_host = |(host, sim): (&String, &SimHost)| {
        let session = |value: &String| {
            let (username, _) = value.split_once(':')?;
            let since = server.connected_since(value).filter(|_| !server.hides_statistics);
            Some(OpenSession { username: username.to_owned(), client: host.clone(), since })
        };
        sim.running.values().filter(connected).filter_map(session).collect::<Vec<_>>()
    };
    state.hosts.iter().flat_map(of_host).collect()
}

#[async_trait]
impl Target for SimTarget {
    async fn try_login(&self, login: &Login) -> Acceptance {
        let text = format!("{}:{}", login.username, login.password.expose());
        let accepted = match self.reach(|server| server.accepts(&text)) {
            Ok(accepted) => accepted,
            Err(error) => return error.into(),
        };
        invariants::login_is_answered(&mut self.world.lock(), self.world.process, &text, accepted);
        if accepted {
            return Acceptance::Accepted;
        }
        Acceptance::Refused(Trouble::permanent(Reason::LoginRefused, "password authentication failed"))
    }

    async fn observe(&self) -> Result<Roles, TargetError> {
        let (names, has_admin) = (self.names.clone(), self.has_admin);
        let asked: Vec<String> = names.iter().chain(&self.bootstrap_from).cloned().collect();
        self.world
            .effect(Kind::LookAtTarget, "look at the roles".to_owned(), move |state, _| {
                let Some(server) = state.postgres.as_ref().filter(|server| server.answers()) else {
                    return Err(TargetError::refused("look at the roles"));
                };
                if !has_admin {
                    return Ok(Roles::default());
                }
                if let Some(name) = names.iter().find(|name| !server.roles.contains_key(*name)) {
                    return Err(error(Reason::RoleMissing, &format!("role {name} does not exist"), true));
                }
                let known = server.roles.iter().filter(|(name, _)| asked.contains(name));
                let can_log_in: BTreeSet<String> =
                    known.clone().filter(|(_, role)| role.can_log_in).map(|(name, _)| name.clone()).collect();
                let fences = known.filter_map(|(name, role)| Some((name.clone(), role.fence?))).collect();
                Ok(Roles {
                    fences,
                    fenced: true,
                    can_log_in,
                    sessions: open_sessions(state, server),
                    ..Roles::default()
                })
            })
            .await
    }

    fn kind(&self) -> TargetKind<'_> {
        TargetKind::Installs(self)
    }
}

#[async_trait]
impl Installs for SimTarget {
    async fn install(&self, id: RotationId, login: &Login, own: &[Login]) -> Result<(), TargetError> {
        if !self.has_admin {
            let works = |login: &Login| format!("{}:{}", login.username, login.password.expose());
            let logins: Vec<String> = own.iter().chain([login]).map(works).collect();
            if !self.reach(|server| logins.iter().any(|login| server.accepts(login)))? {
                return Err(error(Reason::LoginRefused, "no password of the role is known", true));
            }
        }
        let (username, password) = (login.username.clone(), login.password.expose().to_owned());
        let has_admin = self.has_admin;
        let what = format!("install rotation {id} in role {username}");
        let role = username.clone();
        self.world
            .effect(Kind::Install, what, move |state, _| {
                let mut before = None;
                Self::change(state, has_admin, id, &username, |role| {
                    before = role.can_log_in.then(|| role.password.clone());
                    role.password.clone_from(&password);
                    role.can_log_in = true;
                })?;
                invariants::role_is_changed(state, id, &username, &password, before);
                Ok::<_, TargetError>(())
            })
            .await?;
        invariants::role_is_known_to_be_changed(&mut self.world.lock(), self.world.process, &role);
        Ok(())
    }

    async fn retire(&self, id: RotationId, username: &str) -> Result<(), TargetError> {
        let (username, has_admin) = (username.to_owned(), self.has_admin);
        let what = format!("retire role {username} by rotation {id}");
        let role = username.clone();
        self.world
            .effect(Kind::Retire, what, move |state, _| {
                let mut old = None;
                Self::change(state, has_admin, id, &username, |role| {
                    old = role.can_log_in.then(|| role.password.clone());
                    role.can_log_in = false;
                })?;
                if let Some(password) = old {
                    invariants::role_is_retired(state, &username, &password);
                }
                Ok::<_, TargetError>(())
            })
            .await?;
        invariants::role_is_known_to_be_changed(&mut self.world.lock(), self.world.process, &role);
        Ok(())
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        Some(self)
    }

    fn sets_up(&self) -> Option<&dyn SetsUp> {
        Some(self)
    }
}

#[async_trait]
impl SetsUp for SimTarget {
    async fn set_up(&self, mode: SetUpMode) -> Result<SetUp, TargetError> {
        if self.bootstrap_from.is_none() {
            return Ok(SetUp::default());
        }
        let names = self.names.clone();
        let missing = self.reach(|server| {
            let missing = names.iter().filter(|name| !server.roles.contains_key(*name));
            missing.map(|name| format!("CREATE ROLE {name} NOLOGIN")).collect::<Vec<_>>()
        })?;
        if mode == SetUpMode::Apply && !missing.is_empty() {
            let make = move |state: &mut State, _| {
                let Some(server) = state.postgres.as_mut().filter(|server| server.answers()) else {
                    return Err(TargetError::refused("make roles"));
                };
                for name in &names {
                    let role = SimRole {
                        password: "unset".into(),
                        can_log_in: false,
                        fence: None,
                        changed_at: None,
                    };
                    server.roles.entry(name.clone()).or_insert(role);
                }
                Ok(())
            };
            self.world.effect(Kind::SetUp, "make the roles".to_owned(), make).await?;
        }
        Ok(SetUp { statements: missing, notes: Vec::new() })
    }
}

#[async_trait]
impl Sessions for SimTarget {
    async fn list_own(&self, own: &Login) -> Result<Vec<OpenSession>, TargetError> {
        let (username, login) = (own.username.clone(), format!("{}:{}", own.username, own.password.expose()));
        let what = format!("look at the sessions of {username} as itself");
        self.world
            .effect(Kind::LookAtTarget, what, move |state, _| {
                let Some(server) = state.postgres.as_ref().filter(|server| server.answers()) else {
                    return Err(TargetError::refused("look at the sessions"));
                };
                if !server.accepts(&login) {
                    return Err(error(Reason::LoginRefused, "password authentication failed", true));
                }
                let theirs = |session: &OpenSession| session.username == username;
                Ok(open_sessions(state, server).into_iter().filter(theirs).collect())
            })
            .await
    }

    async fn end_own(&self, own: &Login, before: At) -> Result<(), TargetError> {
        let login = format!("{}:{}", own.username, own.password.expose());
        if !self.reach(|server| server.accepts(&login))? {
            return Err(error(Reason::LoginRefused, "password authentication failed", true));
        }
        self.end(&own.username, Some(before)).await
    }

    async fn end(&self, username: &str, before: Option<At>) -> Result<(), TargetError> {
        let what = format!("end the sessions of {username}");
        let username = format!("{username}:");
        self.world
            .effect(Kind::EndSessions, what, move |state, _| {
                let now = state.now;
                let running = state.hosts.values().flat_map(|host| host.running.values());
                let theirs: Vec<String> = running.filter(|v| v.starts_with(&username)).cloned().collect();
                let Some(server) = state.postgres.as_mut().filter(|server| server.answers()) else {
                    return Err(TargetError::refused("end sessions"));
                };
                let older = |login: &String| {
                    before.is_none_or(|before| {
                        server.connected_since(login).is_some_and(|since| since < before)
                    })
                };
                let theirs: Vec<String> = theirs.into_iter().filter(older).collect();
                server.ended.extend(theirs.into_iter().map(|login| (login, now)));
                Ok(())
            })
            .await
    }
}

#[async_trait]
impl Targets for World {
    async fn open(
        &self,
        object: &ManagedSecret,
        _region: &str,
    ) -> Result<Option<Arc<dyn Target>>, TargetError> {
        if object.spec.generate.cloudflare_r2.is_some() {
            return Ok(Some(SimR2::open(self, object)));
        }
        let Some(spec) = &object.spec.generate.postgres else { return Ok(None) };
        Ok(Some(Arc::new(SimTarget {
            world: self.clone(),
            names: spec.roles().into_iter().map(str::to_owned).collect(),
            has_admin: spec.admin_secret_ref.is_some(),
            bootstrap_from: spec.bootstrap_from().map(str::to_owned),
        })))
    }

    async fn admin_secret(&self, _: &ManagedSecret, _: &str) -> Result<Option<SecretValue>, TargetError> {
        Ok(None)
    }
}
