//! Parses the API server's refusal of a request that an account has no right to make.

use keyturn_reconcile::objects::MissingRight;

/// Returns the right that an account lacks in a namespace; `None` for any other error, such as a refusal by an
/// admission policy or a quota, which have nothing to do with roles.
pub(super) fn missing_right(error: &kube::Error) -> Option<MissingRight> {
    let kube::Error::Api(status) = error else { return None };
    if status.code != 403 { None } else { parse(&status.message) }
}

/// Parses
/// `jobs.batch is forbidden: User "USER" cannot VERB resource "jobs" in API group "batch" in the namespace "NAMESPACE"`,
/// which the authorizer may follow with a text of its own.
fn parse(message: &str) -> Option<MissingRight> {
    let (account, rest) = message.split_once("User \"")?.1.split_once("\" cannot ")?;
    let (verb, rest) = rest.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once('"')?;
    let (namespace, _) = rest.split_once(" in the namespace \"")?.1.split_once('"')?;
    Some(MissingRight {
        account: account.to_owned(),
        action: format!("{verb} {resource}"),
        namespace: namespace.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_told_with_the_role_to_bind_and_other_refusals_are_not_taken_for_one() {
        let right = parse(
            "jobs.batch is forbidden: User \"system:serviceaccount:keyturn-system:keyturn\" cannot list resource \
             \"jobs\" in API group \"batch\" in the namespace \"shop\": RBAC: role.rbac.authorization.k8s.io \"x\" not found",
        );
        assert_eq!(
            right.unwrap().trouble("keyturn-namespace").message,
            "system:serviceaccount:keyturn-system:keyturn may not list jobs in namespace shop: ClusterRole \
             keyturn-namespace is not bound to it there. Name the namespace in a grant or in rbac.namespaces of \
             keyturn's chart and upgrade the release, or: kubectl create rolebinding keyturn-namespace -n shop \
             --clusterrole=keyturn-namespace --serviceaccount=keyturn-system:keyturn"
        );
        for other in [
            "pods \"web-d1\" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=1, limited: pods=1",
            "jobs.batch \"web\" is forbidden: ValidatingAdmissionPolicy 'keyturn' with binding 'keyturn' denied request: no",
            "jobs.batch is forbidden: User \"u\" cannot list resource \"jobs\" in API group \"batch\" at the cluster scope",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
