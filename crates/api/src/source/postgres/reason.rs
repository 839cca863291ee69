//! Reasons that only a Postgres role has.

use crate::reason::Reason;
use crate::words::words;

words! {
    /// Reason of a condition or a failure that only this source has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum PostgresReason {
        /// The password of the administrator cannot be read.
        AdminUnreadable,
        /// The name of the administrator cannot be the name of a role.
        AdministratorUnusable,
        /// The Postgres server is starting or shutting down.
        TargetStarting,
        /// The Postgres server lacks memory, disk space or another resource.
        TargetOverloaded,
        /// The Postgres server accepts no more connections.
        TooManyConnections,
        /// The Postgres server did not answer in time.
        TimedOut,
        /// The connection to the Postgres server broke.
        ConnectionLost,
        /// The docker host on the way to the Postgres server offers another host key.
        HostKeyRefused,
        /// The docker host on the way to the Postgres server refuses the SSH key.
        HostLoginRefused,
        /// The Postgres server accepts no writes.
        TargetReadOnly,
        /// The database does not exist.
        DatabaseMissing,
        /// The Postgres server asked for the password in another way than SCRAM-SHA-256 with enough iterations.
        AuthenticationNotScram,
        /// The Postgres server sent more than keyturn reads.
        TargetTooTalkative,
        /// The answer of the Postgres server does not fit the question.
        TargetNotUnderstood,
        /// The Postgres server did not prove that it knows the password, or the login could not be bound to the TLS
        /// channel.
        ServerNotProven,
        /// The certificate of the Postgres server is not trusted.
        TlsNotTrusted,
        /// The certificate of the Postgres server is for another name.
        TlsWrongName,
        /// TLS with the Postgres server failed.
        TlsFailed,
        /// The Postgres server offers no TLS.
        TlsNotOffered,
        /// The `VALID UNTIL` of the role is in the past.
        RoleExpired,
        /// The two alternating roles do not have the same rights.
        RolesDiffer,
        /// The account that makes the change lacks a privilege for it.
        NotPermitted,
        /// A pooler in front of Postgres refuses the time limits of the session.
        SessionSettingsRefused,
        /// The role is a superuser or a replication role, and no RotationGrant allows that.
        SuperuserNotAllowed,
        /// keyturn does not lock out a superuser.
        SuperuserKept,
        /// The role is not one that this ManagedSecret rotates.
        NotOurRole,
        /// Another ManagedSecret or installation rotates the role.
        RoleOwnedByOther,
        /// There is a schema or table `keyturn.fence` that keyturn did not make.
        FenceNotOurs,
        /// A newer rotation has changed the role.
        Fenced,
        /// A role can be retired, and roles can be set up, by an administrator only.
        NoAdministrator,
        /// None of the passwords in SSM works for the role.
        NoLoginWorks,
        /// Somebody else holds a lock on the role.
        Locked,
        /// Somebody else changed the role at the same time.
        ChangedConcurrently,
        /// The connection broke during the change of the role.
        OutcomeUnknown,
        /// The login works, but a probe failed.
        ProbeFailed,
        /// A probe was cancelled.
        ProbeInterrupted,
        /// The password cannot be given to a Postgres role.
        PasswordUnusable,
        /// The Postgres server refused a statement.
        StatementRefused,
        /// Sessions of the old role could not be ended.
        SessionsRemain,
    }
}

impl From<PostgresReason> for Reason {
    fn from(reason: PostgresReason) -> Self {
        Self::Source(reason.word())
    }
}
