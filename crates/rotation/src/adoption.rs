//! What counts as a host's adoption of a version. The plan of deployments, the protocol and the response to an incident
//! all go by this, so that none of them waits for what another one has done, or ends what another one still needs.

use keyturn_api::docker_host::Proof;

/// Whether the host runs the version as far as can be known: its containers were seen to, or, where nothing can be compared,
/// a deployment of this very version ended well and verify passed after it.
pub fn has_adopted(proof: Proof, deployed: bool) -> bool {
    match proof {
        Proof::Proven => true,
        Proof::Incomparable => deployed,
        Proof::Differs => false,
    }
}

/// Whether the host has left the credential of the version before. Where nothing can be compared a person has to say that
/// the verify script is enough.
pub fn has_left_the_old(proof: Proof, deployed: bool, verify_is_enough: bool) -> bool {
    has_adopted(proof, deployed) && (proof == Proof::Proven || verify_is_enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_compared_is_adopted_by_a_deployment_only() {
        // (proof, deployed, has adopted it, has left the old one, the same where verify is enough)
        let table = [
            (Proof::Proven, false, true, true, true),
            (Proof::Proven, true, true, true, true),
            (Proof::Incomparable, false, false, false, false),
            (Proof::Incomparable, true, true, false, true),
            (Proof::Differs, false, false, false, false),
            (Proof::Differs, true, false, false, false),
        ];
        for (proof, deployed, adopted, left, left_by_verify) in table {
            assert_eq!(has_adopted(proof, deployed), adopted, "{proof:?} {deployed}");
            assert_eq!(has_left_the_old(proof, deployed, false), left, "{proof:?} {deployed}");
            assert_eq!(has_left_the_old(proof, deployed, true), left_by_verify, "{proof:?} {deployed}");
        }
    }
}
