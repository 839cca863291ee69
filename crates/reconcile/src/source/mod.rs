//! Sources of values, one module for each: how a source generates values, how they are published and read back, and its
//! messages for people. The spec of a source is in `keyturn_api::source`. The code that calls its target (the system
//! that has to accept the values) is in the controller.
//!
//! A source makes random values, or logins that another system has to accept. There are two kinds of logins: those that
//! keyturn generates and installs in the other system, and those that the other system issues.

mod cloudflare_r2;
mod draw;
mod fernet;
mod password;
mod postgres;
mod random;
mod template;

use std::collections::BTreeMap;

pub use draw::{GenerateError, OperatingSystem, Random, RandomError};
use keyturn_api::Trouble;
use keyturn_api::managed_secret::{ManagedSecretSpec, ParameterSpec};
use keyturn_api::source::GenerateSpec;
use keyturn_rotation::observed::Observed;
use keyturn_rotation::protocol::Strategy;
use keyturn_secret_value::SecretValue;

use crate::target::Login;

/// A source of values: the code of one field of `spec.generate`.
pub trait ValueSource: Sync {
    /// Generates a new value.
    ///
    /// `previous` is the published value, without the text around it. It is used only if [`ValueSource::keeps`] is
    /// above 0; with `None` no previous value is kept.
    ///
    /// # Errors
    /// The spec has a value that the API server should have rejected, no random bytes can be read, or another system
    /// issues the values of this source.
    fn draw(
        &self,
        previous: Option<&SecretValue>,
        random: &mut dyn Random,
    ) -> Result<SecretValue, GenerateError>;

    /// Returns the maximum number of previous values that are published together with a new one.
    fn keeps(&self) -> usize {
        0
    }

    /// Returns the longest username with which a generated value may be published; `None` if generated values have no
    /// username.
    fn longest_username(&self) -> Option<&str> {
        None
    }

    /// Renders the text to publish.
    fn render(&self, template: Option<&str>, value: &SecretValue, username: Option<&str>) -> SecretValue {
        template::render(template, value, username)
    }

    /// Extracts the value from a published text; `None` if the text does not fit the template.
    fn extract(&self, parameter: &ParameterSpec, published: &SecretValue) -> Option<SecretValue> {
        template::extract(parameter.value.as_deref(), published)
    }

    /// Returns this source as a source of logins; `None` if no other system has to accept its values.
    fn login(&self) -> Option<&dyn LoginSource> {
        None
    }
}

/// A source whose values are logins of another system.
pub trait LoginSource: Sync {
    /// Returns the kind of the logins: installed by keyturn, or issued by the other system.
    fn kind(&self) -> Kind<'_>;

    /// Reads the login that is published. `None` if the texts hold no login of this source.
    fn published(&self, parameters: &[(&ParameterSpec, &SecretValue)]) -> Option<Login>;

    /// Returns the problem of published texts that hold no login of this source.
    fn unreadable(&self) -> Trouble;

    /// Describes, for an Event, that a login has been retired.
    fn retired(&self, username: &str) -> String;
}

/// The two kinds of logins.
#[derive(Clone, Copy)]
pub enum Kind<'a> {
    /// keyturn generates the password, and installs it in the other system.
    Installed(&'a dyn InstalledSource),
    /// The other system makes a new login for every rotation.
    Issued(&'a dyn IssuedSource),
}

/// A source of logins that keyturn generates and installs in another system.
pub trait InstalledSource: Sync {
    /// Returns the way in which a rotation replaces the login.
    fn strategy(&self) -> Strategy;

    /// Returns the usernames whose passwords are changed.
    fn usernames(&self) -> Vec<&str>;

    /// Returns the accounts that no other object may change.
    fn accounts(&self, namespace: &str) -> Vec<Account>;

    /// Returns the words for an account of this source, such as `the Postgres role`.
    fn account_in_words(&self) -> &'static str;

    /// Decides which username gets the new password, and which one it replaces. `published` is the username that is
    /// published.
    ///
    /// # Errors
    /// It is not known which login is in use.
    fn turn(&self, published: Option<String>, observed: &Observed) -> Result<Turn, Trouble>;

    /// True if only the login itself can change its password, since there is no administrator.
    fn changes_itself(&self) -> bool;

    /// Returns the username from which the others are created, and whether keyturn creates them; `None` if the spec
    /// does not ask for it.
    fn bootstrap(&self) -> Option<Bootstrap<'_>> {
        None
    }
}

/// The username that a rotation gives a password to, and the one that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Username of the new login.
    pub username: String,
    /// Username of the login that is in use; `None` if none is known.
    pub replaces: Option<String>,
}

/// The creation of new usernames from a single one that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bootstrap<'a> {
    /// The username that is in use.
    pub from: &'a str,
    /// True if keyturn creates the new usernames itself; otherwise it only lists the statements that do so.
    pub applies: bool,
}

/// An account of another system, which has one password.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Text that identifies the server by the route to it. Servers of two different sources never have the same text.
    pub server: String,
    /// Name of the account.
    pub name: String,
}

/// A source whose logins another system issues.
pub trait IssuedSource: Sync {
    /// True when a template publishes the username.
    fn names_the_login(&self, template: &str) -> bool;

    /// Reads the username from one text; `None` if the text does not fit the template.
    fn username_in(&self, template: &str, published: &SecretValue) -> Option<String>;

    /// Returns a login at least as long as any real one.
    fn longest_login(&self) -> Login;

    /// Describes where a person deletes a login that keyturn must not delete.
    fn deleted_by_hand(&self) -> &'static str;
}

/// Registers the sources by their fields in `spec.generate`. The compiler refuses a list that lacks one.
macro_rules! sources {
    ($($field:ident)*) => {
        fn named(generate: &GenerateSpec) -> impl Iterator<Item = &dyn ValueSource> {
            let GenerateSpec { $($field),* } = generate;
            [$($field.as_ref().map(|source| source as &dyn ValueSource)),*].into_iter().flatten()
        }
    };
}

sources! { hex base64 password fernet postgres cloudflare_r2 }

/// Returns the source that a spec names.
///
/// # Errors
/// It names none or several, which the schema refuses.
pub fn of(generate: &GenerateSpec) -> Result<&dyn ValueSource, GenerateError> {
    let mut named = named(generate);
    match (named.next(), named.count()) {
        (Some(source), 0) => Ok(source),
        (first, others) => Err(GenerateError::Sources {
            given: others + usize::from(first.is_some()),
            known: GenerateSpec::NAMES.join(", "),
        }),
    }
}

/// Returns the source of logins that a spec names; `None` if no other system has to accept the values.
pub fn login(generate: &GenerateSpec) -> Option<&dyn LoginSource> {
    named(generate).find_map(ValueSource::login)
}

/// Returns the source of logins that a spec names, if keyturn generates and installs them; otherwise `None`.
pub fn installed(generate: &GenerateSpec) -> Option<&dyn InstalledSource> {
    match login(generate)?.kind() {
        Kind::Installed(source) => Some(source),
        Kind::Issued(_) => None,
    }
}

/// Returns the source of logins that a spec names, if another system issues them; otherwise `None`.
pub fn issued(generate: &GenerateSpec) -> Option<&dyn IssuedSource> {
    match login(generate)?.kind() {
        Kind::Installed(_) => None,
        Kind::Issued(source) => Some(source),
    }
}

/// Returns the way in which a rotation replaces the login; `None` if no other system has to accept the value.
pub fn strategy(generate: &GenerateSpec) -> Option<Strategy> {
    Some(match login(generate)?.kind() {
        Kind::Installed(source) => source.strategy(),
        Kind::Issued(_) => Strategy::Issued,
    })
}

/// True if a new value is published together with previous ones, so that these have to be read first.
pub fn keeps_previous(generate: &GenerateSpec) -> bool {
    named(generate).any(|source| source.keeps() > 0)
}

/// Returns, by path, a sample of the text that each parameter would get. A sample is never a real value. Empty if
/// keyturn cannot generate the value, as for a token that another system issues.
pub fn samples(spec: &ManagedSecretSpec) -> BTreeMap<String, String> {
    let Ok(source) = of(&spec.generate) else { return BTreeMap::new() };
    // The sample has the maximum number of keys.
    let ring = |random: &mut draw::Counter| -> Result<SecretValue, GenerateError> {
        let mut value = source.draw(None, random)?;
        for _ in 0..source.keeps() {
            value = source.draw(Some(&value), random)?;
        }
        Ok(value)
    };
    let Ok(value) = ring(&mut draw::Counter(0)) else { return BTreeMap::new() };
    let text = |template: Option<&str>| source.render(template, &value, source.longest_username());
    let texts = spec.ssm.parameters.iter().map(|p| (p.path.clone(), text(p.value.as_deref())));
    texts.map(|(path, text)| (path, text.expose().to_owned())).collect()
}

#[cfg(test)]
mod tests;
