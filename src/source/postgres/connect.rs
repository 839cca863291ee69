//! A session with a Postgres server. It uses a stream of [`super::dial`], TLS if the user wants it, and only SCRAM for
//! the login. keyturn and the server both limit its time, and keyturn limits the number of bytes that the server may
//! send. The server ends an idle session, so a controller that was paused for a minute cannot send an outdated change
//! in it.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::Error;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Config, Connection, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::administrator::Who;
use super::dial::{Dial, Wire};
use super::failure::{self, LoginFailure, StatementError};
use super::framing::Verdict;
use super::scram_only::{ScramOnly, ScramOverTls};
use crate::api::source::postgres::{PostgresSpec, TlsMode};
use crate::api::{Reason, Trouble};
use crate::source::TargetError;

/// Timeouts. All are well below the grace period of the rotation protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from the first byte to a session, including SSH and TLS.
    pub connect: Duration,
    /// Time of one call of the target, including the connection; the set-up of roles has six times as much. No change
    /// of a password is committed after this time.
    pub operation: Duration,
    /// The server's `lock_timeout`.
    pub lock: Duration,
    /// The server's `statement_timeout`.
    pub statement: Duration,
    /// The server's `idle_in_transaction_session_timeout` and `idle_session_timeout`.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            operation: Duration::from_secs(20),
            lock: Duration::from_secs(5),
            statement: Duration::from_secs(10),
            idle: Duration::from_secs(5),
        }
    }
}

/// Shortest operation: a login through SSH on a busy machine takes seconds. Only tests use a grace period that leaves
/// less.
const LEAST_OPERATION: Duration = Duration::from_secs(5);

impl Limits {
    /// Returns limits well below the grace period, and never longer than a server needs.
    pub fn below(grace: Duration) -> Self {
        let ample = Self::default();
        let operation = ample.operation.min((grace / 3).max(LEAST_OPERATION));
        Self {
            connect: ample.connect.min(operation / 2),
            operation,
            lock: ample.lock.min(operation / 2),
            statement: ample.statement.min(operation / 2),
            idle: ample.idle.min(operation / 2),
        }
    }

    /// Returns the session's settings for the login, so that they apply from its first moment. A connection pooler
    /// refuses them at the login, which is intended: settings made later would remain in the sessions that it shares.
    fn options(self, more: &str) -> String {
        let (lock, statement, idle) =
            (self.lock.as_millis(), self.statement.as_millis(), self.idle.as_millis());
        format!(
            "-c lock_timeout={lock} -c statement_timeout={statement} -c idle_in_transaction_session_timeout={idle} \
             -c idle_session_timeout={idle}{more}"
        )
    }
}

/// Name of keyturn's sessions in `pg_stat_activity`.
pub(super) const APPLICATION_NAME: &str = "keyturn";

/// TLS with the user's options.
#[derive(Clone)]
pub(super) struct Tls {
    connector: MakeRustlsConnect,
    server_name: String,
}

impl Tls {
    /// Returns TLS as the spec asks for it; `None` without TLS.
    pub(super) fn of(spec: &PostgresSpec) -> Result<Option<Self>, TargetError> {
        if spec.tls_mode() == TlsMode::Disable {
            // Without SSH around it nothing would prove the identity of the server.
            return if spec.via.is_some() {
                Ok(None)
            } else {
                Err(unusable("tls.mode: Disable is for a server behind via.dockerHost only; leave it out"))
            };
        }
        let tls = spec.tls.as_ref();
        let server_name = tls.and_then(|tls| tls.server_name.clone()).or_else(|| spec.host.clone());
        let server_name = server_name.ok_or_else(|| {
            unusable(
                "the certificate of a server behind a docker host cannot be checked without a name; set \
                 tls.serverName, or leave tls out, since SSH protects the connection",
            )
        })?;
        let roots = match tls.and_then(|tls| tls.ca.as_deref()) {
            Some(pem) => own_authorities(pem)?,
            None => public_authorities()?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&format!("TLS cannot be set up: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(Self { connector: MakeRustlsConnect::new(config), server_name }))
    }
}

fn unusable(message: &str) -> TargetError {
    Trouble::permanent(Reason::TlsNotUsable, message).into()
}

fn own_authorities(pem: &str) -> Result<RootCertStore, TargetError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added =
            certificate.map_err(|_| ()).and_then(|certificate| roots.add(certificate).map_err(|_| ()));
        added.map_err(|()| unusable("tls.ca holds something that is not a certificate in PEM"))?;
    }
    if roots.is_empty() {
        return Err(unusable("tls.ca holds no certificate in PEM"));
    }
    Ok(roots)
}

fn public_authorities() -> Result<RootCertStore, TargetError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(unusable(
            "the machine that keyturn runs on has no public certificate authorities; set tls.ca",
        ));
    }
    Ok(roots)
}

/// The route to one database of one server.
#[derive(Clone)]
pub(super) struct Route {
    pub dial: Arc<dyn Dial>,
    pub tls: Option<Tls>,
    pub database: String,
    pub limits: Limits,
}

impl Route {
    /// Logs in. The role's search path on the server applies.
    pub(super) async fn log_in(&self, who: Who<'_>) -> Result<Session, LoginFailure> {
        self.bounded(who, "").await
    }

    /// Logs in with a search path that contains only the catalogue: otherwise the owner of the database could place
    /// functions and operators of their own there, which an administrator would then run.
    pub(super) async fn log_in_safely(&self, who: Who<'_>) -> Result<Session, LoginFailure> {
        self.bounded(who, " -c search_path=pg_catalog,pg_temp").await
    }

    async fn bounded(&self, who: Who<'_>, names: &str) -> Result<Session, LoginFailure> {
        let limit = self.limits.connect;
        let opened = timeout(limit, self.open(who, names)).await;
        opened.unwrap_or_else(|_| {
            let cause = format!("no session within {} s", limit.as_secs());
            Err(LoginFailure::Failed(failure::unreachable(&self.dial.server(), &cause)))
        })
    }

    async fn open(&self, who: Who<'_>, names: &str) -> Result<Session, LoginFailure> {
        let stream = self.dial.dial().await.map_err(LoginFailure::Failed)?;
        let mut config = Config::new();
        config
            .user(who.expose_name())
            .password(who.password().expose())
            .dbname(&self.database)
            .application_name(APPLICATION_NAME)
            .options(self.limits.options(names));
        let opened = match &self.tls {
            None => start_plain(config, stream).await,
            Some(tls) => start_tls(config, tls.clone(), stream).await,
        };
        opened.map_err(|error| failure::of_login(&self.dial.server(), who, &self.database, &error))
    }
}

async fn start_plain(mut config: Config, stream: Wire) -> Result<Session, Error> {
    config.ssl_mode(SslMode::Disable);
    let verdict = Verdict::default();
    let guarded = ScramOnly::new(stream, false, verdict.clone());
    let (client, connection) = config.connect_raw(guarded, NoTls).await?;
    Ok(Session::new(client, connection, verdict))
}

async fn start_tls(mut config: Config, mut tls: Tls, stream: Wire) -> Result<Session, Error> {
    config.ssl_mode(SslMode::Require).channel_binding(ChannelBinding::Require);
    let Ok(connect) = MakeTlsConnect::<Wire>::make_tls_connect(&mut tls.connector, &tls.server_name);
    let verdict = Verdict::default();
    let guarded = ScramOverTls(connect, verdict.clone());
    let (client, connection) = config.connect_raw(stream, guarded).await?;
    Ok(Session::new(client, connection, verdict))
}

/// Returns the major version, `15` for `15.18 (Debian 15.18-0+deb12u1)`; 0 if it cannot be parsed.
fn major(version: Option<&str>) -> u32 {
    let digits = version.unwrap_or_default().split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// A session. Dropping it closes the connection, and the server rolls back what was not committed.
pub(super) struct Session {
    pub client: Client,
    /// Major version of the server.
    pub version: u32,
    verdict: Verdict,
    driver: Driver,
}

/// The task that moves the bytes; dropping this ends it.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Parameters of a statement, each with its type, so that the server need not be asked for the types first.
type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl Session {
    fn new<S, T>(client: Client, mut connection: Connection<S, T>, verdict: Verdict) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let version = major(connection.parameter("server_version"));
        // The connection is itself a future that would do this, but it would then log the server's notices.
        let driver = tokio::spawn(async move {
            while let Some(Ok(_notice)) = poll_fn(|context| connection.poll_message(context)).await {}
        });
        Self { client, version, verdict, driver: Driver(driver) }
    }

    /// Runs a query.
    pub(super) async fn rows(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        self.client.query_typed(sql, parameters).await.map_err(|error| self.failed(error))
    }

    /// Runs a query that returns at most one row.
    pub(super) async fn row_if_any(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Option<Row>, StatementError> {
        self.client.query_typed_opt(sql, parameters).await.map_err(|error| self.failed(error))
    }

    /// Runs a query that returns one row.
    pub(super) async fn row(&self, sql: &str, parameters: Parameters<'_>) -> Result<Row, StatementError> {
        self.client.query_typed_one(sql, parameters).await.map_err(|error| self.failed(error))
    }

    /// Runs statements and ignores their results.
    pub(super) async fn run(&self, sql: &str) -> Result<(), StatementError> {
        self.client.batch_execute(sql).await.map_err(|error| self.failed(error))
    }

    /// Converts an error: either keyturn ended the session, or the server did.
    pub(super) fn failed(&self, error: Error) -> StatementError {
        match self.verdict.why() {
            Some(why) if error.is_closed() => StatementError::HungUp(why),
            _ => error.into(),
        }
    }

    /// Closes the session and waits until the server has closed it too: only then is it gone from the server's list.
    pub(super) async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        // If the server does not close it, the connection is cut.
        let _ = timeout(Duration::from_secs(1), &mut driver.0).await;
    }
}

/// Returns a column of a row. `Row::get` would panic if the server answers with an unexpected type.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, StatementError> {
    row.try_get(index).map_err(StatementError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> PostgresSpec {
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn refusal(yaml: &str) -> String {
        Tls::of(&spec(yaml)).err().unwrap().trouble.message
    }

    #[test]
    fn a_server_that_is_reached_directly_is_never_spoken_to_without_tls() {
        let error = refusal("{host: db, database: d, singleRole: {name: r}, tls: {mode: Disable}}");
        assert!(error.contains("via.dockerHost only"), "{error}");
    }

    #[test]
    fn through_a_docker_host_there_is_no_tls_unless_the_name_to_check_is_given() {
        let via = "via: {dockerHost: h}, database: d, singleRole: {name: r}";
        assert!(Tls::of(&spec(&format!("{{{via}}}"))).unwrap().is_none());
        let error = refusal(&format!("{{{via}, tls: {{mode: VerifyFull}}}}"));
        assert!(error.contains("tls.serverName"), "{error}");
    }

    #[test]
    fn authorities_that_are_none_are_refused() {
        for ca in ["nothing", "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n"] {
            let error = refusal(&format!(
                "{{host: db, database: d, singleRole: {{name: r}}, tls: {{ca: \"{ca}\"}}}}"
            ));
            assert!(error.starts_with("tls.ca holds"), "{error}");
        }
    }

    #[test]
    fn the_major_version_is_read_from_any_form() {
        for (text, version) in [("15.18 (Debian 15.18-0)", 15), ("17beta1", 17), ("", 0), ("devel", 0)] {
            assert_eq!(major(Some(text)), version, "{text}");
        }
    }
}
