//! Claims: what a ManagedSecret changes and no other may change, namely its parameters and the roles of its server. An
//! index by claim finds the rivals of an object without a search through all objects.

use keyturn_api::ManagedSecret;
use keyturn_api::postgres::PostgresSpec;

/// One thing that only one ManagedSecret may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// A parameter of a namespace, in any region.
    Parameter {
        /// Namespace of the ManagedSecret.
        namespace: String,
        /// Path of the parameter.
        path: String,
    },
    /// A role of a server. The claim counts across all namespaces.
    Role {
        /// The server that has the role.
        server: Server,
        /// Name of the role.
        name: String,
    },
}

/// A Postgres server, identified by the way to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    host: Option<String>,
    /// Namespace and name of the DockerHost: the same name in another namespace is another host.
    docker_host: Option<(String, String)>,
    port: u16,
}

/// Lists everything that the object claims.
pub fn of(object: &ManagedSecret) -> impl Iterator<Item = Claim> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let parameter = |path: &str| Claim::Parameter { namespace: namespace.to_owned(), path: path.to_owned() };
    object.spec.ssm.parameters.iter().map(move |p| parameter(&p.path)).chain(roles(object))
}

/// Lists the roles that the object changes, and the role that it retires after a pair was made from it.
pub fn roles(object: &ManagedSecret) -> impl Iterator<Item = Claim> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    object.spec.generate.postgres.iter().flat_map(move |postgres| {
        let server = server(postgres, namespace);
        let names = postgres.roles().into_iter().chain(postgres.bootstrap_from());
        names.map(move |name| Claim::Role { server: server.clone(), name: name.to_owned() })
    })
}

fn server(postgres: &PostgresSpec, namespace: &str) -> Server {
    let docker_host = postgres.via.as_ref().map(|via| (namespace.to_owned(), via.docker_host.clone()));
    Server { host: postgres.host.clone(), docker_host, port: postgres.port() }
}
