//! The role that logs in to a server, and its name in messages. The name of an administrator may come from a Secret.
//! People who read messages may not read that Secret, and with a wrong key its content is not a name at all, so such a
//! name is sent to the server only.

use std::fmt;

use super::failure::{self, ident};
use crate::api::source::postgres::PostgresReason;
use crate::secret_value::SecretValue;
use crate::source::{Login, TargetError};

/// Longest name of a role, in bytes. A server cuts a longer name, which then means another role.
const LONGEST_NAME: usize = 63;
/// Replaces a name that is not shown.
pub(super) const PLACEHOLDER: &str = "<administrator>";

/// The role that changes the other roles.
pub struct Administrator {
    username: SecretValue,
    password: SecretValue,
    /// The Secret that contains name and password; `None` if the name is in the spec.
    secret: Option<String>,
}

impl Administrator {
    /// Creates an administrator whose name may be shown.
    pub fn named(login: Login) -> Self {
        Self { username: SecretValue::new(login.username), password: login.password, secret: None }
    }

    /// Creates an administrator whose name and password are keys of a Secret. A text that cannot be the name of a role
    /// is something else, so it is refused before it is sent anywhere.
    pub fn of_secret(
        secret: &str,
        username_key: &str,
        username: SecretValue,
        password: SecretValue,
    ) -> Result<Self, TargetError> {
        let sound =
            (1..=LONGEST_NAME).contains(&username.len()) && !username.expose().chars().any(char::is_control);
        if !sound {
            return Err(failure::permanent(
                PostgresReason::AdministratorUnusable,
                format!(
                    "key {username_key} of Secret {secret} is not the name of a role, so keyturn did not \
                     send it: a name has 1 to {LONGEST_NAME} bytes and no control character, such as a line \
                     end; correct it, or adminSecretRef.usernameKey"
                ),
            ));
        }
        Ok(Self { username, password, secret: Some(secret.to_owned()) })
    }

    /// Returns a group as the catalogue names it, or a placeholder if the group is this role and its name may not be
    /// shown.
    pub fn hidden_in_group(&self, group: &str) -> String {
        let own = self.hidden_name().and_then(|name| group.strip_prefix(name.expose()));
        match own.filter(|options| options.is_empty() || options.starts_with(" without ")) {
            Some(options) => format!("{PLACEHOLDER}{options}"),
            None => group.to_owned(),
        }
    }

    /// Returns the password, which has to be hidden in the output of a host.
    pub fn into_password(self) -> SecretValue {
        self.password
    }

    /// Returns the name if it may not be shown.
    pub fn hidden_name(&self) -> Option<&SecretValue> {
        self.secret.as_ref().map(|_| &self.username)
    }
}

/// The role that logs in. Its `Display` text can be shown to everybody: `role app`, `the administrator of Secret
/// db-admin`.
#[derive(Clone, Copy)]
pub(super) enum Who<'a> {
    /// A role of the spec.
    Role(&'a Login),
    Administrator(&'a Administrator),
}

impl<'a> Who<'a> {
    /// Returns the name, for the server only.
    pub(super) fn expose_name(self) -> &'a str {
        match self {
            Who::Role(login) => &login.username,
            Who::Administrator(administrator) => administrator.username.expose(),
        }
    }

    pub(super) fn password(self) -> &'a SecretValue {
        match self {
            Who::Role(login) => &login.password,
            Who::Administrator(administrator) => &administrator.password,
        }
    }

    /// Returns the name for a line in a file of the server.
    pub(super) fn shown_name(self) -> &'a str {
        if self.is_hidden() { PLACEHOLDER } else { self.expose_name() }
    }

    /// Returns the name for an SQL statement.
    pub(super) fn shown_ident(self) -> String {
        if self.is_hidden() { PLACEHOLDER.to_owned() } else { ident(self.expose_name()) }
    }

    fn is_hidden(self) -> bool {
        matches!(self, Who::Administrator(Administrator { secret: Some(_), .. }))
    }
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Administrator(Administrator { secret: Some(secret), .. }) => {
                write!(f, "the administrator of Secret {secret}")
            }
            Who::Administrator(_) | Who::Role(_) => write!(f, "role {}", self.expose_name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> SecretValue {
        SecretValue::new(text.to_owned())
    }

    #[test]
    fn a_name_from_a_secret_is_shown_nowhere() {
        let administrator =
            Administrator::of_secret("db-admin", "username", value("postgres"), value("pw")).unwrap();
        let who = Who::Administrator(&administrator);
        assert_eq!(who.to_string(), "the administrator of Secret db-admin");
        assert_eq!((who.shown_name(), who.shown_ident().as_str()), ("<administrator>", "<administrator>"));
        assert_eq!(who.expose_name(), "postgres", "the server is told");
    }

    #[test]
    fn a_name_of_the_spec_is_shown() {
        let login = Login { username: "app\"x".to_owned(), password: value("pw") };
        let administrator = Administrator::named(login.duplicate());
        for who in [Who::Role(&login), Who::Administrator(&administrator)] {
            assert_eq!(who.to_string(), "role app\"x");
            assert_eq!((who.shown_name(), who.shown_ident().as_str()), ("app\"x", "\"app\"\"x\""));
        }
    }

    #[test]
    fn what_cannot_be_the_name_of_a_role_is_refused_and_not_shown() {
        let (longest, too_long) = ("ä".repeat(31) + "x", "ä".repeat(32));
        let of = |text: &str| Administrator::of_secret("web-key", "id.pem", value(text), value("pw"));
        for text in
            ["", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r", "postgres\n", "a\u{7f}b", &too_long]
        {
            let error = of(text).err().unwrap();
            assert_eq!(
                (error.trouble.reason.name(), error.trouble.is_permanent()),
                ("AdministratorUnusable", true)
            );
            assert!(error.trouble.message.contains("key id.pem of Secret web-key"), "{error}");
            assert!(text.is_empty() || !error.trouble.message.contains(text.trim()), "{error}");
        }
        assert_eq!(longest.len(), LONGEST_NAME);
        assert!(of(&longest).is_ok() && of("a role").is_ok());
    }
}
