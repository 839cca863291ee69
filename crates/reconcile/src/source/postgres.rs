//! Passwords of Postgres roles.

use keyturn_api::managed_secret::ParameterSpec;
use keyturn_api::source::postgres::{BootstrapMode, PASSWORD_BYTES, PostgresSpec};
use keyturn_api::{Reason, Trouble};
use keyturn_rotation::observed::{Author, Observed, Parameter};
use keyturn_rotation::protocol::Strategy;
use keyturn_secret_value::SecretValue;

use super::draw::{hexadecimal, in_range};
use super::{
    Account, Bootstrap, GenerateError, InstalledSource, Kind, LoginSource, Random, Turn, ValueSource,
    template,
};
use crate::target::Login;

impl ValueSource for PostgresSpec {
    fn draw(&self, _: Option<&SecretValue>, random: &mut dyn Random) -> Result<SecretValue, GenerateError> {
        let bytes = self.password_bytes.unwrap_or(PASSWORD_BYTES);
        hexadecimal(in_range("postgres", "passwordBytes", bytes, 16, 64)?, random)
    }

    fn longest_username(&self) -> Option<&str> {
        self.roles().into_iter().max_by_key(|role| role.len())
    }

    fn extract(&self, parameter: &ParameterSpec, published: &SecretValue) -> Option<SecretValue> {
        let login = template::login(&self.roles(), &[(parameter, published)]);
        login.map(|(_, password)| password)
    }

    fn login(&self) -> Option<&dyn LoginSource> {
        Some(self)
    }
}

impl LoginSource for PostgresSpec {
    fn kind(&self) -> Kind<'_> {
        Kind::Installed(self)
    }

    fn published(&self, parameters: &[(&ParameterSpec, &SecretValue)]) -> Option<Login> {
        let (username, password) = template::login(&publishable(self), parameters)?;
        Some(Login { username: username.to_owned(), password })
    }

    fn unreadable(&self) -> Trouble {
        Trouble::permanent(
            Reason::PublishedLoginUnreadable,
            format!(
                "what is published does not match spec.ssm.parameters[].value with the role {}: put a login of that \
                 role, or correct the template",
                publishable(self).join(" or ")
            ),
        )
    }

    fn retired(&self, username: &str) -> String {
        format!("Role {username} cannot log in any more")
    }
}

impl InstalledSource for PostgresSpec {
    fn strategy(&self) -> Strategy {
        if self.alternating_roles.is_some() { Strategy::Alternating } else { Strategy::InPlace }
    }

    fn usernames(&self) -> Vec<&str> {
        self.roles()
    }

    /// Returns the roles that are changed, and the role that is retired after a pair was made from it.
    fn accounts(&self, namespace: &str) -> Vec<Account> {
        let server = server(self, namespace);
        let names = self.roles().into_iter().chain(self.bootstrap_from());
        names.map(|name| Account { server: server.clone(), name: name.to_owned() }).collect()
    }

    fn account_in_words(&self) -> &'static str {
        "the Postgres role"
    }

    fn turn(&self, published: Option<String>, observed: &Observed) -> Result<Turn, Trouble> {
        let unpublished = observed.parameters.iter().all(|parameter| parameter.versions.is_empty());
        if published.is_none() && !unpublished && self.alternating_roles.is_some() {
            return Err(self.unreadable());
        }
        let replaces = in_use(self, published, observed)?;
        let mut names = self.roles().into_iter();
        let next = match self.strategy() {
            Strategy::Alternating => names.find(|name| Some(*name) != replaces.as_deref()),
            _ => names.next(),
        };
        Ok(Turn { username: next.unwrap_or_default().to_owned(), replaces })
    }

    fn changes_itself(&self) -> bool {
        self.admin_secret_ref.is_none() && self.admin_parameter.is_none()
    }

    fn bootstrap(&self) -> Option<Bootstrap<'_>> {
        let bootstrap = self.alternating_roles.as_ref()?.bootstrap.as_ref()?;
        Some(Bootstrap { from: &bootstrap.from, applies: bootstrap.mode == BootstrapMode::Apply })
    }
}

/// Lists the usernames that may be published: the roles of the source, and the role from which they are created.
fn publishable(spec: &PostgresSpec) -> Vec<&str> {
    spec.roles().into_iter().chain(spec.bootstrap_from()).collect()
}

/// Returns the username that is in use; `None` if none is published. Normally it is the published one. It is the other
/// role of the pair if only that one can log in: then somebody has restored the version of an earlier rotation, which
/// hosts no longer use. Only the server can show that. So if somebody else has written the parameter and the server
/// does not show its roles, the server's problem is returned.
fn in_use(
    spec: &PostgresSpec,
    published: Option<String>,
    observed: &Observed,
) -> Result<Option<String>, Trouble> {
    let (Some(roles), Some(published)) = (&spec.alternating_roles, &published) else {
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

/// Returns a text that identifies a server by the route to it. A DockerHost of the same name in another namespace is
/// another host.
fn server(spec: &PostgresSpec, namespace: &str) -> String {
    let host = spec.host.as_deref().unwrap_or_default();
    let through = spec.via.as_ref().map(|via| format!(" through {namespace}/{}", via.docker_host));
    format!("postgres {host}{} port {}", through.unwrap_or_default(), spec.port())
}
