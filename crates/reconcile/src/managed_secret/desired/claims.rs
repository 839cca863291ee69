//! Claims: the parameters of a ManagedSecret and the accounts of its server, which no other ManagedSecret may change.
//! An index by claim finds the rivals of an object without a search through all objects.

use keyturn_api::ManagedSecret;

use crate::source::{self, Account};

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
    /// An account of a server. The claim counts across all namespaces.
    Account(Account),
}

/// Lists everything that the object claims.
pub fn of(object: &ManagedSecret) -> impl Iterator<Item = Claim> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let parameter = |path: &str| Claim::Parameter { namespace: namespace.to_owned(), path: path.to_owned() };
    let parameters = object.spec.ssm.parameters.iter().map(move |p| parameter(&p.path));
    parameters.chain(accounts(object).into_iter().map(Claim::Account))
}

/// Lists the accounts that the object changes or retires.
pub(super) fn accounts(object: &ManagedSecret) -> Vec<Account> {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    source::installed(&object.spec.generate).map(|source| source.accounts(namespace)).unwrap_or_default()
}
