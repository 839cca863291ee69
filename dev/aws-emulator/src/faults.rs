//! Faults on demand: which request they hit, and what they do to it.

use serde::{Deserialize, Serialize};

use crate::error::AwsError;

/// Hits requests that match, after skipping some, so many times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `PutParameter`; any operation when absent.
    #[serde(default)]
    pub operation: Option<String>,
    /// The parameter's path, or a folder with its closing slash; any when absent. A version after the path is ignored.
    #[serde(default)]
    pub path: Option<String>,
    /// Lets so many matching requests pass first.
    #[serde(default)]
    pub skip: u32,
    /// Hits so many; `null` until faults are cleared. Once, unless said otherwise.
    #[serde(default = "once")]
    pub times: Option<u32>,
    pub fault: Fault,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn once() -> Option<u32> {
    Some(1)
}

impl Rule {
    /// A rule for one request of an operation.
    pub fn once(operation: &str, fault: Fault) -> Self {
        Self { operation: Some(operation.to_owned()), path: None, skip: 0, times: Some(1), fault }
    }

    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    pub fn always(self) -> Self {
        Self { times: None, ..self }
    }

    pub fn skipping(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    pub fn on(self, path: &str) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    fn matches(&self, operation: &str, path: &str) -> bool {
        let path_matches = |wanted: &String| {
            let name = path.split(':').next().unwrap_or_default();
            if wanted.ends_with('/') { name.starts_with(wanted.as_str()) } else { name == wanted }
        };
        self.operation.as_ref().is_none_or(|wanted| wanted == operation)
            && self.path.as_ref().is_none_or(path_matches)
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// Any error answer, after the request was applied or instead.
    Error {
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default = "client_error")]
        status: u16,
        #[serde(default)]
        applied: bool,
    },
    /// ThrottlingException.
    Throttle,
    /// TooManyUpdates, which the SDK does not retry.
    TooManyUpdates,
    AccessDenied,
    /// HTTP 500.
    ServerError {
        #[serde(default)]
        applied: bool,
    },
    /// No answer while the client waits.
    Hang {
        #[serde(default)]
        applied: bool,
    },
    /// The connection closes without an answer.
    Drop {
        #[serde(default)]
        applied: bool,
    },
    /// No answer, and applied later: after this time, or when released.
    Late {
        #[serde(default)]
        after_ms: Option<u64>,
    },
    /// Applied and answered, and applied once more: after this time, or when released.
    Duplicate {
        #[serde(default)]
        after_ms: Option<u64>,
    },
    /// Answers a read from the state so many writes ago.
    Stale {
        writes: usize,
    },
    /// Answers after this time.
    Slow {
        ms: u64,
    },
}

fn client_error() -> u16 {
    400
}

impl Fault {
    /// The error that is answered, and whether the request is applied all the same.
    pub fn error(&self, operation: &str, path: &str) -> Option<(AwsError, bool)> {
        let error = |status, code: &str, message: &str| AwsError {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        };
        Some(match self {
            Self::Error { code, message, status, applied } => (error(*status, code, message), *applied),
            Self::Throttle => (throttled(), false),
            Self::TooManyUpdates => (
                error(
                    400,
                    "TooManyUpdates",
                    "There are concurrent updates for a resource that supports one update at \
                                              a time.",
                ),
                false,
            ),
            Self::AccessDenied => {
                let message = format!(
                    "User: arn:aws:iam::{}:user/emulated is not authorized to perform: ssm:{operation} on resource: \
                     {path} because no identity-based policy allows the ssm:{operation} action",
                    crate::ssm::ACCOUNT
                );
                (error(400, "AccessDeniedException", &message), false)
            }
            Self::ServerError { applied } => {
                (error(500, "InternalServerError", "An error occurred on the server side."), *applied)
            }
            _ => return None,
        })
    }
}

pub fn throttled() -> AwsError {
    AwsError::new("ThrottlingException", "Rate exceeded")
}

/// The rules in force, oldest first; the first that matches hits.
#[derive(Default)]
pub struct Faults(Vec<Rule>);

impl Faults {
    pub fn add(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// The fault that hits this request, if any; counts it.
    pub fn hit(&mut self, operation: &str, path: &str) -> Option<Fault> {
        let index = self.0.iter().position(|rule| rule.matches(operation, path))?;
        let rule = &mut self.0[index];
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        let fault = rule.fault.clone();
        if let Some(times) = &mut rule.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.0.remove(index);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_hits_what_it_names_after_its_skips_and_then_is_used_up() {
        let mut faults = Faults::default();
        faults.add(Rule::once("PutParameter", Fault::Throttle).on("/a/").skipping(1).times(2));
        let hits = |faults: &mut Faults, path: &str| faults.hit("PutParameter", path).is_some();
        assert!(!hits(&mut faults, "/b"));
        assert!(faults.hit("GetParameter", "/a/x").is_none());
        let hit: Vec<bool> = (0..4).map(|_| hits(&mut faults, "/a/x")).collect();
        assert_eq!(hit, [false, true, true, false]);
    }

    #[test]
    fn rules_are_written_as_json() {
        let rule: Rule = serde_json::from_str(
            r#"{"operation":"PutParameter","path":"/a","times":null,"fault":{"kind":"late","afterMs":50}}"#,
        )
        .unwrap();
        let expected = Rule::once("PutParameter", Fault::Late { after_ms: Some(50) }).on("/a").always();
        assert_eq!(rule, expected);
        let plain: Rule = serde_json::from_str(r#"{"fault":{"kind":"tooManyUpdates"}}"#).unwrap();
        assert_eq!((plain.times, plain.fault), (Some(1), Fault::TooManyUpdates));
        assert!(serde_json::from_str::<Rule>(r#"{"fault":{"kind":"thunder"}}"#).is_err());
    }
}
