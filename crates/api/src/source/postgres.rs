//! `generate.postgres`: the password of a Postgres role.

mod reason;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::reason::PostgresReason;
use super::{PASSWORD, SourceSchema, SourceSpec, USERNAME, VALUE};
use crate::consent::Purpose;
use crate::grants::{Grants, Verdict, denied, nothing};
use crate::managed_secret::{ManagedSecret, ParameterSpec};
use crate::rotation_grant::RotationGrantSpec;
use crate::rules::{self, CelRule};
use crate::validate::{Problem, problem};
use crate::words::Word;

/// Default port of a Postgres server.
pub const PORT: i32 = 5432;
/// Default number of random bytes in a password: 48 hexadecimal digits.
pub const PASSWORD_BYTES: i32 = 24;
/// Purpose of a Secret that holds the administrator's name and password.
pub const ADMINISTRATOR: Purpose = Purpose::new("postgres-admin");

/// Name of a Postgres role or database. Postgres accepts any quoted text; the rule refuses names that nobody chooses on
/// purpose.
const NAME: CelRule = (
    r"!self.matches('[[:cntrl:]]') && !self.startsWith('pg_')",
    "must be the name of a role or database as Postgres stores it, not quoted and not beginning with pg_",
);
/// Names of Postgres roles in a list.
const NAMES: CelRule = (
    r"self.all(n, !n.matches('[[:cntrl:]]') && !n.startsWith('pg_'))",
    "must be names of roles as Postgres stores them, not quoted and not beginning with pg_",
);
/// A password that a role has cannot be deleted together with the object.
const NOT_DELETED: CelRule = (
    "!has(self.generate.postgres) || !has(self.deletionPolicy) || self.deletionPolicy != 'Delete'",
    "deletionPolicy: Delete would delete the only copy of a password that the role still has; delete the role first, \
     then the parameter by hand",
);

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
    #[x_kube(validation = NAME)]
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
    #[x_kube(validation = NAME)]
    pub username: String,
}

/// Role whose password is changed in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SingleRole {
    /// Name of the role. Without an administrator, the role changes its own password.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = NAME)]
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
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = NAMES)]
    pub names: Vec<String>,
    /// Name of the role without login that owns the objects. Both login roles are members of it and act as it.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = NAME)]
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
    #[x_kube(validation = NAME)]
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

/// Roles of a Postgres server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.host) != has(self.dockerHost)",
    "exactly one of host and dockerHost is needed"
))]
pub struct PostgresGrant {
    /// Host name or address, spelled as in the ManagedSecret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = rules::HOST)]
    pub host: Option<String>,
    /// Name of the DockerHost; the server listens on the loopback address of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = rules::OBJECT_NAME)]
    pub docker_host: Option<String>,
    /// TCP port; 5432 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Roles whose passwords may be changed, including the owner of alternating roles and the role that a bootstrap
    /// starts from.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = NAMES)]
    pub roles: Vec<String>,
    /// Allows the roles to be superusers or replication roles when true. The role that POSTGRES_USER of the official
    /// image names is a superuser.
    #[serde(default)]
    pub allow_superuser: bool,
    /// Allows the `probes` of ManagedSecrets to run as these roles when true. Probes are SQL statements written by
    /// people who may edit ManagedSecrets, and conditions show if they succeed. They run in read-only transactions, and
    /// never as a superuser.
    #[serde(default)]
    pub probes: bool,
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

    /// Returns every role that the source touches.
    fn touched(&self) -> Vec<&str> {
        let owner = self.alternating_roles.as_ref().map(|pair| pair.owner.as_str());
        self.roles().into_iter().chain(owner).chain(self.bootstrap_from()).collect()
    }

    /// True when the grant is for this server.
    fn is_on(&self, grant: &PostgresGrant) -> bool {
        let same_host = match (&grant.host, &self.host) {
            (Some(granted), Some(wanted)) => granted.eq_ignore_ascii_case(wanted),
            _ => false,
        };
        let via = self.via.as_ref().map(|via| &via.docker_host);
        let same_via = via.is_some() && grant.docker_host.as_ref() == via;
        (same_host || same_via) && grant.port.unwrap_or(PORT) == i32::from(self.port())
    }

    /// Returns the roles that grants list for this server, in entries for which `of` is true.
    fn granted<'a>(
        &self,
        grants: &'a Grants,
        secret: &'a ManagedSecret,
        of: fn(&PostgresGrant) -> bool,
    ) -> Vec<&'a str> {
        grants
            .of_namespace(secret.metadata.namespace.as_deref())
            .flat_map(|(_, grant)| grant.postgres.iter().filter(|entry| of(entry) && self.is_on(entry)))
            .flat_map(|entry| entry.roles.iter().map(String::as_str))
            .collect()
    }

    /// True when grants allow every role of the source to be a superuser or a replication role.
    pub fn allows_superuser(&self, grants: &Grants, secret: &ManagedSecret) -> bool {
        let allowed = self.granted(grants, secret, |grant| grant.allow_superuser);
        self.touched().iter().all(|role| allowed.contains(role))
    }
}

impl SourceSchema for PostgresSpec {
    const PLACEHOLDERS: &'static [&'static str] = &[VALUE, PASSWORD, USERNAME];
    const RULES: &'static [CelRule] = &[NOT_DELETED];
    const PURPOSES: &'static [Purpose] = &[ADMINISTRATOR];
    const REASONS: &'static [Word] = PostgresReason::WORDS;
}

impl SourceSpec for PostgresSpec {
    fn longest(&self, placeholder: &str) -> usize {
        if placeholder == USERNAME {
            // Every byte of a name may be percent-encoded.
            return 3 * self.roles().iter().map(|role| role.len()).max().unwrap_or(0);
        }
        2 * usize::try_from(self.password_bytes.unwrap_or(PASSWORD_BYTES)).unwrap_or(0)
    }

    fn has_target(&self) -> bool {
        true
    }

    fn problems(&self, parameters: &[ParameterSpec]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let templates = || parameters.iter().map(|p| p.value.as_deref().unwrap_or(VALUE));
        if !templates().any(|text| text.contains(VALUE) || text.contains(PASSWORD)) {
            let message = "no parameter holds the password: use {password} in one of them";
            problems.push(problem("spec.ssm.parameters", message));
        }
        if self.alternating_roles.is_some() && !templates().any(|text| text.contains(USERNAME)) {
            let message = "alternatingRoles change the user name with every rotation, so a parameter must hold {username}: \
                           one text such as postgresql://{username}:{password}@db/app, or a parameter of its own";
            problems.push(problem("spec.ssm.parameters", message));
        }
        if self.host.is_some() && self.tls_mode() == TlsMode::Disable {
            let message = "must not be Disable for a server that the controller reaches directly, since keyturn \
                           connects to it over TLS only: remove the field, and set tls.ca to the server's \
                           certificate authority";
            problems.push(problem("spec.generate.postgres.tls.mode", message));
        }
        if self.via.is_some()
            && self.tls_mode() == TlsMode::VerifyFull
            && self.tls.as_ref().is_none_or(|tls| tls.server_name.is_none())
        {
            let message =
                "is needed for TLS through a docker host: set it to the name in the server's certificate";
            problems.push(problem("spec.generate.postgres.tls.serverName", message));
        }
        problems
    }

    fn verdict(&self, grants: &Grants, secret: &ManagedSecret) -> Verdict {
        let roles = self.touched();
        let namespace = secret.metadata.namespace.as_deref();
        let granted = |of: fn(&PostgresGrant) -> bool| self.granted(grants, secret, of);
        let (changed, probed) = (granted(|_| true), granted(|grant| grant.probes));
        let asks = !self.probes.is_empty();
        let is_lacking = |role: &&str| !changed.contains(role) || asks && !probed.contains(role);
        let lacking: Vec<&str> = roles.iter().copied().filter(is_lacking).collect();
        if lacking.is_empty() {
            let observes = |grant: &RotationGrantSpec| grant.postgres.iter().any(|entry| self.is_on(entry));
            return Verdict::allowed(grants.observed(namespace, observes));
        }
        let docker_host = self.via.as_ref().map(|via| via.docker_host.clone());
        let place = match (&self.host, &docker_host) {
            (Some(host), _) => host.clone(),
            (None, host) => format!("DockerHost {}", host.as_deref().unwrap_or_default()),
        };
        let only_probes = lacking.iter().all(|role| changed.contains(role));
        let use_of = if only_probes { "probes as the roles" } else { "the roles" };
        let what = format!("{use_of} {} of the Postgres server {place}", lacking.join(", "));
        let grant = PostgresGrant {
            host: self.host.clone(),
            docker_host,
            port: Some(i32::from(self.port())),
            roles: lacking.into_iter().map(str::to_owned).collect(),
            allow_superuser: false,
            probes: asks,
        };
        denied(
            &secret.metadata,
            &what,
            RotationGrantSpec { postgres: vec![grant], ..nothing(&secret.metadata) },
        )
    }

    fn reads(&self) -> Option<&str> {
        self.admin_parameter.as_ref().map(|admin| admin.path.as_str())
    }

    fn docker_host(&self) -> Option<&str> {
        self.via.as_ref().map(|via| via.docker_host.as_str())
    }
}
