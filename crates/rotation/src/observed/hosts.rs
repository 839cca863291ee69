//! The evidence about hosts.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use keyturn_api::Trouble;
use keyturn_api::docker_host::Proof;

use super::{Parameter, Seen};
use crate::adoption;

/// The evidence of one DockerHost about the parameters of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEvidence {
    /// Name of the DockerHost.
    pub name: String,
    /// True when the DockerHost object exists.
    pub exists: bool,
    /// True while a deployment runs on the host.
    pub deploying: bool,
    /// The result and time of the last comparison, and the version that it compared, by path.
    pub proofs: BTreeMap<String, HostProof>,
    /// The last run on this host, if it concerned these parameters and failed.
    pub failure: Option<HostFailure>,
    /// The last deployment on this host, if it concerned these parameters and failed.
    pub failed_deploy: Option<HostFailure>,
    /// The trouble that prevents every run on this host until a person acts.
    pub stalled: Option<Trouble>,
}

impl HostEvidence {
    /// Returns what the host has shown about this version of the parameter; `None` if `seen` is `None` or the host has
    /// shown nothing about it.
    pub fn shown_of(&self, parameter: &Parameter, seen: Option<&Seen>) -> Option<&HostProof> {
        let proof = self.proofs.get(&parameter.path)?;
        proof.is_of(seen?).then_some(proof)
    }

    /// Returns only the result of the comparison for this version.
    pub fn proof_of(&self, parameter: &Parameter, seen: Option<&Seen>) -> Option<Proof> {
        self.shown_of(parameter, seen).map(|shown| shown.proof)
    }

    /// Returns true when the host has adopted this version of the parameter.
    pub fn has_adopted(&self, parameter: &Parameter, seen: Option<&Seen>) -> bool {
        self.shown_of(parameter, seen).is_some_and(|shown| adoption::has_adopted(shown.proof, shown.deployed))
    }

    /// Returns true when the host no longer uses the credential of the version before this one.
    pub fn has_left_the_old(
        &self,
        parameter: &Parameter,
        seen: Option<&Seen>,
        verify_is_enough: bool,
    ) -> bool {
        let left =
            |shown: &HostProof| adoption::has_left_the_old(shown.proof, shown.deployed, verify_is_enough);
        self.shown_of(parameter, seen).is_some_and(left)
    }
}

/// The result that a host has shown for one version of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostProof {
    /// Number of the version that was compared.
    pub version: i64,
    /// [`Seen::published_at`] of that version, in whole seconds.
    pub published_at: DateTime<Utc>,
    /// Result of comparing the running containers with the version.
    pub proof: Proof,
    /// Time when the run that compared them ended.
    pub at: DateTime<Utc>,
    /// True when a deployment of this version succeeded on this host and its verify script passed.
    pub deployed: bool,
}

impl HostProof {
    /// Returns true when this proof is about the given version, and not about one with the same number from before the
    /// parameter was deleted and created again.
    pub fn is_of(&self, seen: &Seen) -> bool {
        self.version == seen.version.number
            && self.published_at.timestamp() == seen.published_at().timestamp()
    }
}

/// A failed run or deployment on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFailure {
    /// The failure, with the result of the run as its reason and the run's own message, which may be empty. It counts
    /// as permanent after enough failed attempts.
    pub trouble: Trouble,
    /// The version of each path that the failed run was about.
    pub versions: BTreeMap<String, i64>,
    /// Time when the run ended; the Unix epoch if the DockerHost's status has none.
    pub finished_at: DateTime<Utc>,
    /// True when the host has shown in enough attempts that it does not work with these versions.
    pub rejected: bool,
}
