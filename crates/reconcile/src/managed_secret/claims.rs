//! What a ManagedSecret changes and no other may: its parameters, and the roles of its server. Whoever claims the same is
//! found by it, without a look at all the others.

use keyturn_api::ManagedSecret;
use keyturn_api::postgres::PostgresSpec;

/// One thing that a single ManagedSecret at a time is responsible for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    /// A parameter of a namespace, in whichever region.
    Parameter { namespace: String, path: String },
    /// A role of a server, in whichever namespace.
    Role { server: Server, name: String },
}

/// A Postgres server, by the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    host: Option<String>,
    /// Namespace and name: a DockerHost of the same name is another one in another namespace.
    docker_host: Option<(String, String)>,
    port: u16,
}

/// Everything that the object claims.
pub fn of(object: &ManagedSecret) -> impl Iterator<Item = Claim> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let parameter = |path: &str| Claim::Parameter { namespace: namespace.to_owned(), path: path.to_owned() };
    object.spec.ssm.parameters.iter().map(move |p| parameter(&p.path)).chain(roles(object))
}

/// The roles that the object changes, and the one that it retires once a pair was made from it.
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
