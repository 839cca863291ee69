//! Failures at a Postgres server: their meaning for the rotation and for the person who reads about them.
//!
//! The server's own words are never passed on, since the message of a failed statement may quote it. Its SQLSTATE says
//! what is needed, and the words are ours. Names from the server are shortened and made harmless, see [`told`].

use std::io;

use rustls::CertificateError;
use tokio_postgres::error::{Error, Severity, SqlState};

use super::administrator::Who;
use super::framing::HungUp;
use super::scram_only::{LEAST_ITERATIONS, NotScram};
use crate::api::source::postgres::PostgresReason;
use crate::api::text::is_visible;
use crate::api::{Reason, Trouble};
use crate::source::TargetError;

/// The reason why there is no session.
#[derive(Debug)]
pub(super) enum LoginFailure {
    /// The server answered and refused this login.
    Refused(TargetError),
    /// The login could not be tried.
    Failed(TargetError),
}

/// The reason why a statement has no result.
#[derive(Debug)]
pub(super) enum StatementError {
    /// The server refused the statement, or the connection was lost.
    Failed(Error),
    /// We ended the session.
    HungUp(HungUp),
    /// The server's answer does not fit the statement.
    NotUnderstood,
}

impl From<Error> for StatementError {
    fn from(error: Error) -> Self {
        if error.code().is_some() || error.is_closed() { Self::Failed(error) } else { Self::NotUnderstood }
    }
}

impl StatementError {
    /// Returns the server's error code, if the server sent one.
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Failed(error) => error.code(),
            Self::HungUp(_) | Self::NotUnderstood => None,
        }
    }
}

/// Finds an error of ours inside an error of a library.
pub(super) fn cause_of<E>(error: &(dyn std::error::Error + 'static)) -> Option<E>
where
    E: std::error::Error + Copy + 'static,
{
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(*found);
        }
        if let Some(found) = error.downcast_ref::<io::Error>().and_then(|error| cause_of(error.get_ref()?)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Maximum number of characters of a name, or of another text from outside, in a message.
pub(super) const NAME: usize = 400;

/// Returns a text from outside for people: at most `most` characters, with each invisible character replaced, since it
/// might control a terminal or change the direction of a line.
pub(super) fn told(text: &str, most: usize) -> String {
    let mut characters = text.chars();
    let mut told: String =
        characters.by_ref().take(most).map(|c| if is_visible(c) { c } else { '\u{fffd}' }).collect();
    if characters.next().is_some() {
        told.push('…');
    }
    told
}

/// Returns the SQLSTATE for messages. A server may send any text in its place.
pub(super) fn state(code: &SqlState) -> &str {
    let code = code.code();
    let sound =
        code.len() == 5 && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if sound { code } else { "no SQLSTATE" }
}

/// Returns the first two characters of the SQLSTATE.
pub(super) fn class(code: &SqlState) -> &str {
    code.code().get(..2).unwrap_or_default()
}

/// Returns an error that may pass without a person, so it is worth a retry.
pub(super) fn passing(reason: impl Into<Reason>, message: String) -> TargetError {
    Trouble::passing(reason, message).into()
}

/// Returns an error that only a person can resolve.
pub(super) fn permanent(reason: impl Into<Reason>, message: String) -> TargetError {
    Trouble::permanent(reason, message).into()
}

pub(super) fn unreachable(server: &str, cause: &str) -> TargetError {
    let cause = told(cause, NAME);
    passing(Reason::TargetUnreachable, format!("the Postgres server {server} cannot be reached: {cause}"))
}

/// Converts a failed login.
pub(super) fn of_login(server: &str, who: Who<'_>, database: &str, error: &Error) -> LoginFailure {
    let refused = |reason, message| LoginFailure::Refused(permanent(reason, message));
    let failed = LoginFailure::Failed;
    if let Some(why) = cause_of(error) {
        return failed(not_scram(server, who, why));
    }
    if let Some(why) = cause_of(error) {
        return failed(hung_up(server, &format!("the login of {who}"), why));
    }
    let Some(code) = error.code() else {
        return failed(no_session(server, who, error));
    };
    match code {
        &SqlState::INVALID_PASSWORD => refused(
            Reason::LoginRefused,
            format!(
                "the Postgres server {server} refuses the login of {who} (28P01): the password is wrong, \
                 the role has no password or does not exist, or its VALID UNTIL has passed"
            ),
        ),
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => refused(
            Reason::LoginRefused,
            format!(
                "the Postgres server {server} refuses the login of {who} (28000): the role has NOLOGIN, or \
                 no line of pg_hba.conf matches; add a line such as `host {database} {} <our address> \
                 scram-sha-256`",
                who.shown_name()
            ),
        ),
        &SqlState::INSUFFICIENT_PRIVILEGE => refused(
            Reason::LoginRefused,
            format!(
                "{who} may not connect to the database {database} of the Postgres server {server} (42501); \
                 run: GRANT CONNECT ON DATABASE {} TO {}",
                ident(database),
                who.shown_ident()
            ),
        ),
        &SqlState::INVALID_CATALOG_NAME => failed(permanent(
            PostgresReason::DatabaseMissing,
            format!(
                "the Postgres server {server} has no database {database} (3D000); create it, or correct `database`"
            ),
        )),
        &SqlState::PROTOCOL_VIOLATION => failed(permanent(
            PostgresReason::SessionSettingsRefused,
            format!(
                "{server} refuses the settings of a session (08P01), as poolers do: set host and port to \
                 the Postgres server itself. The application can keep using the pooler"
            ),
        )),
        code => failed(of_state(server, &format!("the login of {who} failed"), code)),
    }
}

fn not_scram(server: &str, who: Who<'_>, why: NotScram) -> TargetError {
    let remedy = match why {
        NotScram::Md5 => {
            "in its pg_hba.conf, set scram-sha-256 in the line for this role; if the line already has \
             scram-sha-256 or md5, set the role's password again with password_encryption = 'scram-sha-256'"
        }
        NotScram::NoChannelBinding => {
            "terminate TLS in Postgres itself, with a certificate of an RSA or ECDSA key"
        }
        NotScram::Iterations(few) if few < LEAST_ITERATIONS => {
            "set scram_iterations to 4096 or more there, then set the role's password again"
        }
        NotScram::Iterations(_) => "lower scram_iterations there, then set the role's password again",
        NotScram::Protocol => "check host and port",
        _ => "in its pg_hba.conf, set scram-sha-256 in the line for this role",
    };
    permanent(
        PostgresReason::AuthenticationNotScram,
        format!(
            "keyturn sent nothing of the password of {who} to the Postgres server {server}, since {why}; \
             keyturn logs in by SCRAM-SHA-256 only: {remedy}. If that is already so, find out which server \
             answers there"
        ),
    )
}

/// Converts an error of the connection: it ended before the server answered, or TLS was not established.
fn no_session(server: &str, who: Who<'_>, error: &Error) -> TargetError {
    if let Some(tls) = tls_error(error) {
        return of_tls(server, tls);
    }
    let text = std::error::Error::source(error)
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    if text.starts_with("authentication error") {
        let why = if text.contains("channel binding") {
            "the login cannot be bound to the TLS channel; the server's certificate must be signed with RSA \
             or ECDSA"
        } else {
            "the server does not prove that it knows the password, so it is not the server that it claims \
             to be"
        };
        return permanent(
            PostgresReason::ServerNotProven,
            format!("keyturn aborted the login of {who} at the Postgres server {server}: {why}"),
        );
    }
    if text.contains("server does not support TLS") {
        return permanent(
            PostgresReason::TlsNotOffered,
            format!(
                "the Postgres server {server} offers no TLS; set ssl = on there with a certificate, or reach it through \
                 via.dockerHost"
            ),
        );
    }
    unreachable(server, &cause(error))
}

/// Returns the cause that the operating system or the connection gave. It never contains a text of the server, since
/// the server's errors are of another type.
fn cause(error: &Error) -> String {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.to_string();
        }
        next = error.source();
    }
    "the connection was closed".to_owned()
}

fn tls_error(error: &Error) -> Option<&rustls::Error> {
    let source = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    source.get_ref()?.downcast_ref()
}

fn of_tls(server: &str, error: &rustls::Error) -> TargetError {
    let (reason, why) = match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                PostgresReason::TlsWrongName,
                "its certificate is for another name; set `host` or tls.serverName to a name of the \
                 certificate",
            ),
            // Another authority of the same name signed it, or an authority that keyturn does not know.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                PostgresReason::TlsNotTrusted,
                "no trusted authority signed its certificate; put the certificate of its authority into \
                 tls.ca",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                (PostgresReason::TlsNotTrusted, "its certificate has expired; renew it")
            }
            _ => (PostgresReason::TlsNotTrusted, "its certificate is not acceptable"),
        },
        _ => (PostgresReason::TlsFailed, "TLS could not be established"),
    };
    permanent(
        reason,
        format!(
            "the Postgres server {server} does not prove its identity, so keyturn sent no login: {why} ({})",
            told(&error.to_string(), NAME)
        ),
    )
}

/// Converts a failed statement about which nothing more is known. `what` names what failed.
pub(super) fn of_statement(server: &str, what: &str, error: &StatementError) -> TargetError {
    match error {
        StatementError::HungUp(why) => hung_up(server, what, *why),
        StatementError::NotUnderstood => not_understood(server, what),
        StatementError::Failed(error) => match error.code() {
            Some(code) => of_state(server, what, code),
            None => passing(
                PostgresReason::ConnectionLost,
                format!("{what}: the connection to the Postgres server {server} was lost ({})", cause(error)),
            ),
        },
    }
}

/// Reports a server whose messages [`super::framing`] refused.
fn hung_up(server: &str, what: &str, why: HungUp) -> TargetError {
    if why == HungUp::Malformed {
        return not_understood(server, what);
    }
    let closed =
        format!("{what}: keyturn closed the connection to the Postgres server {server}, since {why}");
    if why == HungUp::Together {
        return passing(PostgresReason::TargetTooTalkative, format!("{closed}; keyturn retries"));
    }
    permanent(
        PostgresReason::TargetTooTalkative,
        format!(
            "{closed}; make the probe read less, or set up the roles of a very large database by hand. If \
             neither is the cause, find out which server answers there"
        ),
    )
}

fn not_understood(server: &str, what: &str) -> TargetError {
    permanent(
        PostgresReason::TargetNotUnderstood,
        format!(
            "{what}: the Postgres server {server} sent an unexpected answer; set host and port to a \
             Postgres server. If they are already correct, find out which server answers there"
        ),
    )
}

/// True if a failed COMMIT may have been done: only a plain error proves that it was not. A session that is ended while
/// it waits for its standby, for example, has committed.
pub(super) fn commit_is_unknown(error: &StatementError) -> bool {
    let StatementError::Failed(error) = error else { return true };
    error.as_db_error().is_none_or(|error| error.parsed_severity() != Some(Severity::Error))
}

/// True if the error is temporary and not caused by the statement.
pub(super) fn is_of_the_moment(error: &StatementError) -> bool {
    let Some(code) = error.code() else { return true };
    ["08", "40", "53", "57"].contains(&class(code))
        || [SqlState::LOCK_NOT_AVAILABLE, SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT].contains(code)
}

/// Converts a temporary error of a statement that somebody else wrote: the statement may have chosen its SQLSTATE.
pub(super) fn of_the_moment(server: &str, what: &str, error: &StatementError) -> TargetError {
    match error.code() {
        None | Some(&SqlState::LOCK_NOT_AVAILABLE) => of_statement(server, what, error),
        Some(_) => {
            let message = format!("{what} at the Postgres server {server}; keyturn retries");
            passing(PostgresReason::ProbeInterrupted, message)
        }
    }
}

fn of_state(server: &str, what: &str, code: &SqlState) -> TargetError {
    let at = format!("{what} at the Postgres server {server} ({})", state(code));
    let class = class(code);
    match *code {
        SqlState::TOO_MANY_CONNECTIONS => passing(
            PostgresReason::TooManyConnections,
            format!(
                "{at}: it has no free connection; raise max_connections or the limit of the role or database"
            ),
        ),
        SqlState::CANNOT_CONNECT_NOW => {
            passing(PostgresReason::TargetStarting, format!("{at}: it is starting up or shutting down"))
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => read_only(server),
        SqlState::LOCK_NOT_AVAILABLE => passing(
            PostgresReason::Locked,
            format!("{at}: another transaction holds a lock on the role or its fence; keyturn retries"),
        ),
        SqlState::QUERY_CANCELED => {
            passing(PostgresReason::TimedOut, format!("{at}: it took too long; keyturn retries"))
        }
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => passing(
            PostgresReason::ConnectionLost,
            format!("{at}: the server ended the session, since keyturn was too slow"),
        ),
        // "tuple concurrently updated": two ALTER ROLE at the same time.
        SqlState::INTERNAL_ERROR => passing(
            PostgresReason::ChangedConcurrently,
            format!("{at}: most likely somebody else changed the role at the same time; keyturn retries"),
        ),
        _ if class == "40" => passing(
            PostgresReason::ChangedConcurrently,
            format!("{at}: a conflict with another transaction; keyturn retries"),
        ),
        _ if class == "08" || class == "57" => {
            passing(PostgresReason::ConnectionLost, format!("{at}: the session was ended"))
        }
        _ if class == "53" => passing(
            PostgresReason::TargetOverloaded,
            format!("{at}: it is out of memory, disk space or another resource"),
        ),
        _ => permanent(PostgresReason::StatementRefused, format!("{at}; the server's log has the details")),
    }
}

/// A standby, or a primary that is closed for writing.
pub(super) fn read_only(server: &str) -> TargetError {
    permanent(
        PostgresReason::TargetReadOnly,
        format!(
            "the Postgres server {server} is a read-only replica: nothing can be changed there, and the \
             logins that it accepts may be stale; set `host` to the primary"
        ),
    )
}

/// Reports an ALTER ROLE that was not permitted, with the statement that permits it.
pub(super) fn not_permitted(server: &str, role: &str, who: Who<'_>, version: u32) -> TargetError {
    let (admin_name, role_name) = (who.shown_ident(), ident(role));
    let grant = if version >= 16 {
        format!(
            "ALTER ROLE {admin_name} CREATEROLE; GRANT {role_name} TO {admin_name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;"
        )
    } else {
        format!("ALTER ROLE {admin_name} CREATEROLE;")
    };
    permanent(
        PostgresReason::NotPermitted,
        format!(
            "{who} may not change role {role} at the Postgres server {server} (42501); run there as a \
             superuser: {grant} Only a superuser can change a superuser's role"
        ),
    )
}

/// Quotes a name for SQL.
pub(super) fn ident(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_somebody_else_is_cut_and_steers_nothing() {
        for (text, told_) in [
            ("app_owner", "app_owner"),
            ("größer", "größer"),
            ("a\u{1b}[2J\r\nb", "a\u{fffd}[2J\u{fffd}\u{fffd}b"),
            ("a\u{202e}b\u{200b}", "a\u{fffd}b\u{fffd}"),
            ("0123456789ab", "0123456789…"),
        ] {
            assert_eq!(told(text, 10), told_);
        }
    }

    #[test]
    fn an_error_that_a_library_has_wrapped_is_found() {
        let wrapped = io::Error::other(io::Error::other(HungUp::Session));
        assert_eq!(cause_of(&wrapped), Some(HungUp::Session));
        assert_eq!(cause_of::<NotScram>(&wrapped), None);
    }
}
