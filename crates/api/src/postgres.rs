//! `generate.postgres`: the password of a Postgres role.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Port of a Postgres server where none is written.
pub const PORT: i32 = 5432;
/// Random bytes of a password where none are written: 48 hexadecimal digits.
pub const PASSWORD_BYTES: i32 = 24;

/// The password of a Postgres role. Exactly one of host and via, exactly one of singleRole and alternatingRoles.
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
    /// Host name or address of a server that the controller itself reaches. The certificate must be for this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub host: Option<String>,
    /// A server that listens on the docker host only: reached through its SSH, at 127.0.0.1 of the host.
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
    /// How the server proves who it is. The certificate is always checked where the controller connects directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PostgresTls>,
    /// Secret of this namespace with the administrator's name and password; it is read where it has the label
    /// `keyturn.dev/usable-by: postgres-admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_secret_ref: Option<AdminSecretRef>,
    /// Parameter in SSM that holds the administrator's password; it may be rotated by another ManagedSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_parameter: Option<AdminParameter>,
    /// One role whose password is changed in place. Between that and the deployment the hosts run a password that is
    /// not accepted for new connections; open ones go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_role: Option<SingleRole>,
    /// Two login roles that share one owner and take turns, so that no connection ever fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alternating_roles: Option<AlternatingRoles>,
    /// Random bytes of a new password, which is their hexadecimal form; 24 (48 characters) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 64))]
    pub password_bytes: Option<i32>,
    /// Statements that the application's login must be able to run, such as `SELECT 1 FROM orders LIMIT 1`, where a
    /// RotationGrant has `probes: true` for its roles. Each is run in a read-only transaction with a timeout, which is
    /// always rolled back: before a rotation as the published login, and with alternatingRoles as the new one before it is
    /// published. None is run as a superuser.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub probes: Vec<String>,
}

/// A way to a server through a docker host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresVia {
    /// Name of a DockerHost of this namespace, on whose loopback address the server listens.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub docker_host: String,
}

/// How the server proves who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresTls {
    /// `VerifyFull` checks certificate and name, `Disable` uses no TLS. Through a docker host Disable when absent,
    /// since SSH protects the way; directly VerifyFull, and nothing else is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Certificates in PEM that may vouch for the server; the public authorities when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub ca: Option<String>,
    /// Name that the certificate must be for; the host when absent, which a server behind a docker host has none of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub server_name: Option<String>,
}

/// Whether TLS is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    VerifyFull,
    Disable,
}

/// The administrator's name and password in a Secret.
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

/// The administrator's password in SSM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminParameter {
    /// Name of the parameter, in the region of this secret. A RotationGrant must cover it.
    #[schemars(length(min = 2, max = 900))]
    #[x_kube(validation = rules::PATH, validation = rules::PATH_NOT_RESERVED)]
    pub path: String,
    /// The administrator's role.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::POSTGRES_NAME)]
    pub username: String,
}

/// One role whose password is changed in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SingleRole {
    /// Name of the role. Without an administrator it changes its own password.
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
    /// The two login roles. Which of them is in use is told by what is published.
    #[schemars(length(min = 2, max = 2), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::POSTGRES_NAMES)]
    pub names: Vec<String>,
    /// The role without login that both are members of, act as, and that owns the objects.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::POSTGRES_NAME)]
    pub owner: String,
    /// Makes owner and pair from a role that is in use today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
}

/// How owner and pair are made from a single role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// The role that the application uses today. It keeps working until the first rotation has proven the new login;
    /// then it is retired like any other, unless it is a superuser.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::POSTGRES_NAME)]
    pub from: String,
    /// `Plan` only lists in status.target.setUp what would be done, `Apply` does it before the next rotation.
    pub mode: BootstrapMode,
}

/// Whether a bootstrap is shown or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BootstrapMode {
    Plan,
    Apply,
}

impl PostgresSpec {
    /// TCP port of the server.
    pub fn port(&self) -> u16 {
        self.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(5432)
    }

    /// Whether and how TLS is used.
    pub fn tls_mode(&self) -> TlsMode {
        let said = self.tls.as_ref().and_then(|tls| tls.mode);
        said.unwrap_or(if self.via.is_some() { TlsMode::Disable } else { TlsMode::VerifyFull })
    }

    /// The role that owner and pair were made from.
    pub fn bootstrap_from(&self) -> Option<&str> {
        Some(self.alternating_roles.as_ref()?.bootstrap.as_ref()?.from.as_str())
    }

    /// The roles whose passwords are changed.
    pub fn roles(&self) -> Vec<&str> {
        let single = self.single_role.iter().map(|role| role.name.as_str());
        let pair = self.alternating_roles.iter().flat_map(|roles| roles.names.iter().map(String::as_str));
        single.chain(pair).collect()
    }
}
