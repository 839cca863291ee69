//! Parses one CloudTrail event: who called which operation on which parameters. An event holds no values, since
//! CloudTrail leaves them out.

use chrono::{DateTime, Utc};
use serde_json::Value;

/// Calls that return values.
pub const READS: [&str; 4] = ["GetParameter", "GetParameters", "GetParametersByPath", "GetParameterHistory"];
/// Calls that change parameters.
pub const CHANGES: [&str; 5] = [
    "PutParameter",
    "DeleteParameter",
    "DeleteParameters",
    "LabelParameterVersion",
    "UnlabelParameterVersion",
];
/// Name of the event that KMS records for every value that is decrypted. These events are queried last, since an
/// account has many of them.
pub const DECRYPT: &str = "Decrypt";

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `eventID`, by which an event that is returned twice is recognised.
    pub id: String,
    /// Time of the call, from `eventTime`.
    pub at: DateTime<Utc>,
    /// Name of the operation, such as `GetParameter`.
    pub name: String,
    /// ARN of the user, or of the role that a session belongs to. If the event has no ARN, another name of the caller,
    /// such as the account's id.
    pub principal: String,
    /// Name of the session, chosen by the caller who assumed the role: for example a person of IAM Identity Center, or
    /// an instance's id.
    pub session: Option<String>,
    /// IP address of the caller, or the name of the AWS service that made the call.
    pub address: String,
    /// User agent, which the caller chooses freely.
    pub user_agent: String,
    /// Result of the call.
    pub answer: Answer,
    /// The parameters that the call is about.
    pub about: About,
}

/// Result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// AWS executed the call: the event has no error code.
    Done,
    /// The caller lacks the right. Every error code that is not known to have another meaning counts as this.
    Denied,
    /// The call failed for a reason other than rights, for example throttling or a missing parameter. Nobody was
    /// refused and nothing was read.
    Failed,
}

/// Error codes of failures other than a missing right. An event may contain a code of this list with `Exception` added
/// at the end.
const FAILURES: [&str; 19] = [
    "Throttling",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "TooManyUpdates",
    "ParameterNotFound",
    "ParameterVersionNotFound",
    "ParameterAlreadyExists",
    "ParameterMaxVersionLimitExceeded",
    "ParameterVersionLabelLimitExceeded",
    "ParameterPatternMismatchException",
    "HierarchyTypeMismatchException",
    "HierarchyLevelLimitExceededException",
    "UnsupportedParameterType",
    "InvalidFilterKey",
    "InvalidNextToken",
    "ValidationException",
    "InternalServerError",
    "InternalFailure",
    "ServiceUnavailable",
];

fn answer(event: &Value) -> Answer {
    match event["errorCode"].as_str() {
        None => Answer::Done,
        Some(code) if FAILURES.contains(&code.trim_end_matches("Exception")) || FAILURES.contains(&code) => {
            Answer::Failed
        }
        Some(_) => Answer::Denied,
    }
}

/// The parameters that a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// These parameters, by name without version or label.
    Parameters(Vec<String>),
    /// All parameters below a path (`recursive`), or only those directly below it.
    Below {
        /// The path, with or without a closing slash.
        path: String,
        /// True for everything below the path at any depth.
        recursive: bool,
    },
    /// The event does not name any parameter.
    Unknown,
}

impl About {
    /// True when the call is about this parameter.
    pub fn covers(&self, parameter: &str) -> bool {
        match self {
            About::Parameters(names) => names.iter().any(|name| name == parameter),
            About::Below { path, recursive } => {
                let folder = if path.ends_with('/') { path.clone() } else { format!("{path}/") };
                let below = parameter.strip_prefix(folder.as_str());
                below.is_some_and(|rest| !rest.is_empty() && (*recursive || !rest.contains('/')))
            }
            About::Unknown => false,
        }
    }

    /// True when the call is about anything below this folder (with its closing slash).
    pub fn touches(&self, folder: &str) -> bool {
        match self {
            About::Parameters(names) => names.iter().any(|name| name.starts_with(folder)),
            About::Below { path, recursive } => {
                let path = if path.ends_with('/') { path.clone() } else { format!("{path}/") };
                path.starts_with(folder) || *recursive && folder.starts_with(path.as_str())
            }
            About::Unknown => false,
        }
    }
}

/// Parses the JSON of `CloudTrailEvent`; `None` if it is not an event.
pub fn read(json: &str) -> Option<Call> {
    let event: Value = serde_json::from_str(json).ok()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let at = DateTime::parse_from_rfc3339(event["eventTime"].as_str()?).ok()?.with_timezone(&Utc);
    let name = event["eventName"].as_str()?.to_owned();
    let about = about(&event, &name);
    Some(Call {
        id: text(&event["eventID"]),
        at,
        name,
        principal: principal(&event["userIdentity"]),
        session: session(&event["userIdentity"]),
        address: text(&event["sourceIPAddress"]),
        user_agent: text(&event["userAgent"]),
        answer: answer(&event),
        about,
    })
}

fn principal(identity: &Value) -> String {
    let of = [
        &identity["sessionContext"]["sessionIssuer"]["arn"],
        &identity["arn"],
        &identity["invokedBy"],
        &identity["accountId"],
        &identity["principalId"],
        &identity["type"],
    ];
    of.into_iter().find_map(Value::as_str).unwrap_or("unknown").to_owned()
}

/// Returns the session of `arn:aws:sts::123456789012:assumed-role/<role>/<session>` or `…:federated-user/<session>`.
fn session(identity: &Value) -> Option<String> {
    let (_, resource) = identity["arn"].as_str()?.split_once(":sts::")?;
    let (kind, name) = resource.split_once(':')?.1.split_once('/')?;
    match kind {
        "assumed-role" => name.split_once('/').map(|(_, session)| session.to_owned()),
        "federated-user" => Some(name.to_owned()),
        _ => None,
    }
}

fn about(event: &Value, name: &str) -> About {
    let request = &event["requestParameters"];
    // Emulators and older events write the names of the fields with a capital letter.
    let field =
        |small: &str, large: &str| if request[small].is_null() { &request[large] } else { &request[small] };
    if name == DECRYPT {
        let context = &request["encryptionContext"];
        return context["PARAMETER_ARN"]
            .as_str()
            .map_or(About::Unknown, |arn| About::Parameters(vec![normal(arn)]));
    }
    if name == "GetParametersByPath" {
        let recursive = field("recursive", "Recursive").as_bool().unwrap_or(false);
        if let Some(path) = field("path", "Path").as_str() {
            return About::Below { path: normal(path), recursive };
        }
        // A refused call may name its path only in the error message, which does not tell whether the call was
        // recursive.
        return denied_resource(event).map_or(About::Unknown, |path| About::Below { path, recursive: true });
    }
    let names: Vec<String> = match (field("name", "Name").as_str(), field("names", "Names").as_array()) {
        (Some(name), _) => vec![normal(name)],
        (None, Some(names)) => names.iter().filter_map(Value::as_str).map(normal).collect(),
        (None, None) => event["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|resource| resource["ARN"].as_str())
            .filter(|arn| arn.contains(":parameter/"))
            .map(normal)
            .chain(denied_resource(event))
            .collect(),
    };
    if names.is_empty() { About::Unknown } else { About::Parameters(names) }
}

/// Finds the ARN in `… is not authorized to perform: ssm:GetParameter on resource: arn:aws:ssm:…:parameter/app/TOKEN
/// because …`
fn denied_resource(event: &Value) -> Option<String> {
    let message = event["errorMessage"].as_str()?;
    let arn =
        message.split_whitespace().find(|word| word.starts_with("arn:") && word.contains(":parameter/"))?;
    Some(normal(arn.trim_end_matches(['.', ',', '"'])))
}

/// Returns the full name of a parameter, from a name or an ARN, without version or label.
fn normal(name: &str) -> String {
    let name = match name.split_once(":parameter/") {
        Some((_, rest)) => format!("/{}", rest.trim_start_matches('/')),
        None => name.to_owned(),
    };
    match name.split_once(':') {
        Some((name, _)) => name.to_owned(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, request: Value) -> Value {
        json!({
            "eventVersion": "1.11", "eventID": "9d8f", "eventTime": "2026-11-23T10:00:00Z",
            "eventSource": "ssm.amazonaws.com", "eventName": name, "awsRegion": "us-east-1",
            "sourceIPAddress": "203.0.113.9", "userAgent": "aws-cli/2.0",
            "userIdentity": {
                "type": "AssumedRole", "arn": "arn:aws:sts::123456789012:assumed-role/ci/session-1",
                "sessionContext": {"sessionIssuer": {"arn": "arn:aws:iam::123456789012:role/ci"}},
            },
            "requestParameters": request,
        })
    }

    fn about_of(event: &Value) -> About {
        read(&event.to_string()).unwrap().about
    }

    #[test]
    fn a_session_counts_as_its_role() {
        let call = read(&event("GetParameter", json!({"name": "/app/TOKEN"})).to_string()).unwrap();
        assert_eq!(call.principal, "arn:aws:iam::123456789012:role/ci");
        assert_eq!(call.session.as_deref(), Some("session-1"));
        assert_eq!((call.address.as_str(), call.answer), ("203.0.113.9", Answer::Done));
    }

    #[test]
    fn every_way_to_name_a_parameter_is_the_same_parameter() {
        for (name, request) in [
            ("GetParameter", json!({"name": "/app/TOKEN", "withDecryption": true})),
            ("GetParameter", json!({"name": "/app/TOKEN:3"})),
            ("GetParameter", json!({"Name": "arn:aws:ssm:us-east-1:123456789012:parameter/app/TOKEN:live"})),
            ("GetParameters", json!({"names": ["/other", "/app/TOKEN"]})),
            ("GetParameterHistory", json!({"name": "/app/TOKEN"})),
            ("GetParametersByPath", json!({"path": "/app"})),
            ("GetParametersByPath", json!({"path": "/", "recursive": true})),
            (
                "Decrypt",
                json!({"encryptionContext": {"PARAMETER_ARN": "arn:aws:ssm:us-east-1:1:parameter/app/TOKEN"}}),
            ),
        ] {
            assert!(about_of(&event(name, request.clone())).covers("/app/TOKEN"), "{name} {request}");
        }
        for (name, request) in [
            ("GetParameter", json!({"name": "/app/TOKEN2"})),
            ("GetParametersByPath", json!({"path": "/"})),
            ("GetParametersByPath", json!({"path": "/ap", "recursive": true})),
            ("Decrypt", json!({"encryptionContext": {"SecretARN": "arn:aws:secretsmanager:x"}})),
        ] {
            assert!(!about_of(&event(name, request.clone())).covers("/app/TOKEN"), "{name} {request}");
        }
    }

    #[test]
    fn a_refused_call_names_its_parameter_in_the_message_only() {
        let mut refused = event("GetParameter", Value::Null);
        refused["errorCode"] = json!("AccessDenied");
        refused["errorMessage"] = json!(
            "User: arn:aws:sts::1:assumed-role/x/y is not authorized to perform: ssm:GetParameter on resource: \
             arn:aws:ssm:us-east-1:1:parameter/app/TOKEN because no identity-based policy allows it"
        );
        let call = read(&refused.to_string()).unwrap();
        assert!(call.answer == Answer::Denied && call.about.covers("/app/TOKEN"));
        refused["eventName"] = json!("GetParametersByPath");
        refused["errorMessage"] = json!("not authorized on resource: arn:aws:ssm:us-east-1:1:parameter/app");
        assert!(about_of(&refused).covers("/app/TOKEN"));
        refused["errorMessage"] = json!("something else");
        assert_eq!(about_of(&refused), About::Unknown);
    }

    #[test]
    fn an_error_that_says_nothing_of_rights_is_no_refusal() {
        let answer_of = |code: &str| {
            let mut failed = event("GetParameter", json!({"name": "/app/TOKEN"}));
            failed["errorCode"] = json!(code);
            read(&failed.to_string()).unwrap().answer
        };
        for code in
            ["ThrottlingException", "ParameterNotFound", "ParameterNotFoundException", "InternalServerError"]
        {
            assert_eq!(answer_of(code), Answer::Failed, "{code}");
        }
        for code in ["AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation", "SomethingNew"]
        {
            assert_eq!(answer_of(code), Answer::Denied, "{code}");
        }
    }

    #[test]
    fn records_below_the_staging_path_hold_values_too() {
        let below = |path: &str, recursive| About::Below { path: path.into(), recursive };
        let folder = "/keyturn/prod/shop/token/";
        assert!(About::Parameters(vec!["/keyturn/prod/shop/token/7".into()]).touches(folder));
        assert!(below("/keyturn/prod", true).touches(folder));
        assert!(below("/keyturn/prod/shop/token", false).touches(folder));
        assert!(!below("/keyturn/prod", false).touches(folder));
    }
}
