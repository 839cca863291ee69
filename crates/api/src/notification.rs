//! What a person is to be told, kept in an object's status from the moment it happens until every sink has taken it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most notifications that wait in one object's status; the oldest make room.
pub const MAX_PENDING: usize = 20;

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Topic {
    /// A rotation ended whose object has a `notice`: people have something to do.
    Rotated,
    /// The value is older than its period.
    Overdue,
    /// A step failed again and again, and is tried on.
    Failing,
    /// Nothing goes on until a person acts.
    Stalled,
    /// Somebody else wrote the parameter.
    Drifted,
    /// An image that a host runs has a secret in it.
    ImagesNotClean,
    /// A SecretIncident was created, and the response has begun.
    Opened,
    /// Nobody can use any more what may have been read.
    Contained,
    /// What was told before is over.
    Recovered,
}

impl Topic {
    /// As it is written in status and in the chart's values.
    pub fn as_str(self) -> &'static str {
        match self {
            Topic::Rotated => "Rotated",
            Topic::Overdue => "Overdue",
            Topic::Failing => "Failing",
            Topic::Stalled => "Stalled",
            Topic::Drifted => "Drifted",
            Topic::ImagesNotClean => "ImagesNotClean",
            Topic::Opened => "Opened",
            Topic::Contained => "Contained",
            Topic::Recovered => "Recovered",
        }
    }
}

/// A notification that a sink has not taken yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingNotification {
    /// The same at every attempt: receivers drop what they have seen.
    pub id: String,
    /// What it is about.
    pub topic: Topic,
    /// When it happened.
    pub time: Time,
    /// What happened, for a person. Never a value.
    pub message: String,
    /// Sinks that have not taken it yet, by their names in the chart's values.
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub sinks: Vec<String>,
}
