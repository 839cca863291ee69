//! Rules for when a host counts as having adopted a version. The deployment plan, the protocol and the response to an
//! incident all use these rules, so that none of them waits for something that another one considers done, or ends
//! something that another one still needs.

use keyturn_api::docker_host::Proof;

/// Returns true when the host runs the version, as far as keyturn can know: a comparison has shown that its containers
/// run the value, or nothing can be compared and a deployment of this very version succeeded and its verify script
/// passed.
pub fn has_adopted(proof: Proof, deployed: bool) -> bool {
    match proof {
        Proof::Proven => true,
        Proof::Incomparable => deployed,
        Proof::Differs => false,
    }
}

/// Returns true when the host no longer uses the credential of the previous version. If nothing can be compared, a
/// person has to declare that the verify script is enough (`verify_is_enough`).
pub fn has_left_the_old(proof: Proof, deployed: bool, verify_is_enough: bool) -> bool {
    has_adopted(proof, deployed) && (proof == Proof::Proven || verify_is_enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_compared_is_adopted_by_a_deployment_only() {
        // (proof, deployed, has adopted it, has left the old one, has left the old one where verify is enough)
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
