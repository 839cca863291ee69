//! `generate.postgres`: the password of a Postgres role.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Default port of a Postgres server.
pub const PORT: i32 = 5432;
/// Default number of random bytes in a password: 48 hexadecimal digits.
pub const PASSWORD_BYTES: i32 = 24;

/// Password of a Postgres role. Set exactly one of host and via, and exactly one of singleRole and alternatingRoles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.host) != has(self.via)",
    "exactly one of host (a server that the controller reaches) and via.dockerHost (one that only the docker host \
     reaches) is needed"
))]
#[x_kube(validation = (
    "has(self.singleRole) != has(self.alternatingRoles)",
    "exactly one of singleRole and alternatingRoles is needed"
))]
#[x_kube(validation = (
    "!(has(self.adminSecretRef) && has(self.adminParameter))",
    "at most one of adminSecretRef and adminParameter names the administrator"
))]
#[x_kube(validation = (
    "!has(self.alternatingRoles) || has(self.adminSecretRef) || has(self.adminParameter)",
    "alternatingRoles need an administrator (adminSecretRef or adminParameter): a role cannot set up or retire another"
))]
pub struct PostgresSpec {
    /// Host name or address of a server that the controller reaches directly. The server's certificate must be valid
    /// for this name, unless tls.serverName is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub host: Option<String>,
    /// DockerHost in front of a server that listens on the docker host only. keyturn reaches it through the host's SSH,
    /// at 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<PostgresVia>,
    /// TCP port; 5432 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Database to log in to.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::POSTGRES_NAME)]
    pub database: String,
    /// TLS settings of the connection. If the controller connects directly, it always checks the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PostgresTls>,
    /// Secret of this namespace with the administrator's name and password. keyturn reads it only if it has the label
    /// `keyturn.dev/usable-by: postgres-admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_secret_ref: Option<AdminSecretRef>,
    /// SSM parameter that holds the administrator's password. Another ManagedSecret may rotate it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_parameter: Option<AdminParameter>,
    /// Role whose password is changed in place. From the change until the deployment, new connections with the old
    /// password fail; open connections stay open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_role: Option<SingleRole>,
    /// Two login roles that share one owner and take turns, so that no connection fails during a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternating_roles: Option<AlternatingRoles>,
    /// Number of random bytes of a new password, which is published in hexadecimal; 24 bytes (48 characters) when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 64))]
    pub password_bytes: Option<i32>,
    /// SQL statements that the application's login must be able to run, such as `SELECT 1 FROM orders LIMIT 1`. A
    /// RotationGrant must have `probes: true` for its roles. Each statement runs in a read-only transaction with a
    /// timeout, which is always rolled back: before a rotation as the published login, and with alternatingRoles also
    /// as the new login before it is published. No statement runs as a superuser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub probes: Vec<String>,
}

/// Route to a server through a docker host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresVia {
    /// Name of a DockerHost of this namespace; the server listens on the loopback address of this host.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub docker_host: String,
}

/// TLS settings of the connection to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresTls {
    /// `VerifyFull` checks the certificate and its name, `Disable` uses no TLS. Through a docker host, Disable when
    /// absent, since SSH protects the connection. For direct connections, VerifyFull is the default and the only mode
    /// allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Certificates of the authorities that are trusted to sign the server's certificate, in PEM; the public
    /// authorities when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub ca: Option<String>,
    /// Name that the certificate must be valid for; the host when absent. Needed for TLS through a docker host, where
    /// no host is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub server_name: Option<String>,
}

/// TLS mode of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum TlsMode {
    VerifyFull,
    Disable,
}

/// Secret that holds the administrator's name and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub name: String,
    /// Key that holds the role's name; `username` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: Option<String>,
    /// Key that holds the password; `password` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: Option<String>,
}

/// SSM parameter that holds the administrator's password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminParameter {
    /// Name of the parameter, in the region of this secret. A RotationGrant must cover it.
    #[schemars(length(min = 2, max = 900))]
    #[x_kube(validation = rules::PATH, validation = rules::PATH_NOT_RESERVED)]
    pub path: String,
    /// Name of the administrator's role.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::POSTGRES_NAME)]
    pub username: String,
}

/// Role whose password is changed in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SingleRole {
    /// Name of the role. Without an administrator, the role changes its own password.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::POSTGRES_NAME)]
    pub name: String,
}

/// Two login roles that take turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.names[0] != self.names[1] && !self.names.exists(n, n == self.owner)",
    "names must be two different roles, and neither may be the owner"
))]
pub struct AlternatingRoles {
    /// Names of the two login roles. The published value shows which role is in use.
    #[schemars(length(min = 2, max = 2), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::POSTGRES_NAMES)]
    pub names: Vec<String>,
    /// Name of the role without login that owns the objects. Both login roles are members of it and act as it.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::POSTGRES_NAME)]
    pub owner: String,
    /// Creation of the owner and the pair from a role that is in use today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
}

/// Creation of the owner and the pair from a single role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// Role that the application uses today. It keeps working until the first rotation has proven the new login. Then
    /// it is retired like any other role, unless it is a superuser.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::POSTGRES_NAME)]
    pub from: String,
    /// `Plan` only lists the statements in status.target.setUp; `Apply` runs them before the next rotation.
    pub mode: BootstrapMode,
}

/// Mode of a bootstrap: show the statements or run them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "a comment on a value would split the list of values in the schema")]
pub enum BootstrapMode {
    Plan,
    Apply,
}

impl PostgresSpec {
    /// TCP port of the server.
    pub fn port(&self) -> u16 {
        self.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(5432)
    }

    /// Returns the TLS mode, or the default for the route to the server.
    pub fn tls_mode(&self) -> TlsMode {
        let said = self.tls.as_ref().and_then(|tls| tls.mode);
        said.unwrap_or(if self.via.is_some() { TlsMode::Disable } else { TlsMode::VerifyFull })
    }

    /// Returns the role from which the owner and the pair are created.
    pub fn bootstrap_from(&self) -> Option<&str> {
        Some(self.alternating_roles.as_ref()?.bootstrap.as_ref()?.from.as_str())
    }

    /// Returns the roles whose passwords are changed.
    pub fn roles(&self) -> Vec<&str> {
        let single = self.single_role.iter().map(|role| role.name.as_str());
        let pair = self.alternating_roles.iter().flat_map(|roles| roles.names.iter().map(String::as_str));
        single.chain(pair).collect()
    }
}
