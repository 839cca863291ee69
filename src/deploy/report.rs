//! What a deploy Job answers: one JSON document in the termination message (at most 4096 bytes), and an exit code.

use serde::{Deserialize, Serialize};

use crate::api::docker_host::Proof;

/// How a run ended. Each has an exit code of its own (remote exit codes never pass through), so that the Job's
/// podFailurePolicy can tell what is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The run is still going on; a message that stays here means that the pod was killed.
    Running,
    Succeeded,
    /// No TCP connection or no SSH handshake in time.
    Unreachable,
    /// The connection broke and the deployment's outcome could not be learned.
    ConnectionLost,
    /// Another deployment holds the host's lock.
    Busy,
    /// No line of known_hosts vouches for the key that the host offered.
    HostKeyRefused,
    /// The host did not accept the client key.
    AuthenticationFailed,
    /// The task or a key in it cannot be used.
    BadInput,
    /// The host cannot run the work: no docker, no sudo, disk full.
    HostUnfit,
    /// The journal holds a newer version of some path.
    Outdated,
    /// The deploy script exited with a code other than 0.
    DeployFailed,
    /// The deploy script ran longer than it may.
    DeployTimedOut,
    /// The deploy script was running when the host went away; whether it ended well is not known.
    DeployInterrupted,
    /// The verify script did not succeed in its time.
    VerifyFailed,
    /// At least one container runs another value than the one published.
    NotAdopted,
}

impl Outcome {
    pub fn exit_code(self) -> i32 {
        match self {
            Outcome::Succeeded => 0,
            Outcome::Running => 1,
            Outcome::Unreachable => 10,
            Outcome::ConnectionLost => 11,
            Outcome::Busy => 12,
            Outcome::HostKeyRefused => 20,
            Outcome::AuthenticationFailed => 21,
            Outcome::BadInput => 22,
            Outcome::HostUnfit => 23,
            Outcome::Outdated => 24,
            Outcome::DeployFailed => 30,
            Outcome::VerifyFailed => 31,
            Outcome::DeployTimedOut => 32,
            Outcome::DeployInterrupted => 33,
            Outcome::NotAdopted => 34,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub outcome: Outcome,
    /// For a person: what happened and what to do. Never a value, never output of the scripts.
    pub message: String,
    /// Exit code of the script that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_exit: Option<i32>,
    /// Whether the script ran in this Job's time, was joined while it ran, or had succeeded before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<DeployKind>,
    /// What the containers run, by parameter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<ReportParameter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeployKind {
    Started,
    Attached,
    Replayed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportParameter {
    pub path: String,
    pub version: i64,
    pub proof: Proof,
    /// Names of the containers that run another value, at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs_in: Vec<String>,
}
