//! Notifications for people. Each one stays in the object's status from the event until every sink has accepted it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Maximum number of notifications that wait in one object's status; new ones replace the oldest.
pub const MAX_PENDING: usize = 20;

/// Subject of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Topic {
    /// A rotation ended whose object has a `notice`: people have to act.
    Rotated,
    /// The value is older than its period.
    Overdue,
    /// A step failed repeatedly; keyturn keeps retrying.
    Failing,
    /// keyturn waits until a person acts.
    Stalled,
    /// Somebody else wrote the parameter.
    Drifted,
    /// An image that a host runs contains a secret.
    ImagesNotClean,
    /// A SecretIncident was created, and the response has started.
    Opened,
    /// Nobody can use the suspected values any more.
    Contained,
    /// The problem of an earlier notification is solved.
    Recovered,
}

impl Topic {
    /// Name of the topic in status and in the chart's values.
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

/// Notification that at least one sink has not accepted yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingNotification {
    /// Id of the notification, the same at every attempt, so that receivers can drop duplicates.
    pub id: String,
    /// Subject of the notification.
    pub topic: Topic,
    /// Time of the event.
    pub time: Time,
    /// Description of the event for people. It never contains a value.
    pub message: String,
    /// Names of the sinks, as in the chart's values, that have not accepted the notification yet.
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub sinks: Vec<String>,
}
