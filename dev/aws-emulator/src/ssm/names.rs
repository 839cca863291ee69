//! The rules for parameter names, and the ways to write a name in a request.

use super::ACCOUNT;
use crate::error::AwsError;

/// Maximum length of a name. AWS limits the whole ARN to 1011 characters; this is what remains for the name in the
/// region with the longest name.
const MAX_LENGTH: usize = 946;
const MAX_LEVELS: usize = 15;

/// Checks the name for a parameter that a request writes.
pub(crate) fn check(name: &str) -> Result<(), AwsError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if name.is_empty() {
        return Err(AwsError::validation(
            "1 validation error detected: Value '' at 'name' failed to satisfy constraint: Member must have length \
             greater than or equal to 1",
        ));
    }
    if name.contains('/') && !name.starts_with('/') {
        return Err(AwsError::validation("Parameter name must be a fully qualified name."));
    }
    let segments: Vec<&str> = name.trim_start_matches('/').split('/').collect();
    let reserved = segments[0].to_ascii_lowercase();
    if reserved.starts_with("aws") {
        return Err(AwsError::new(
            "AccessDeniedException",
            format!("No access to reserved parameter name: {name}."),
        ));
    }
    if reserved.starts_with("ssm")
        || name.len() > MAX_LENGTH
        || !name.chars().all(allowed)
        || name.starts_with("//")
        || segments.iter().any(|segment| segment.is_empty())
    {
        return Err(AwsError::validation(
            "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of \
             sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the \
             following 3 symbols .-_",
        ));
    }
    if name.starts_with('/') && segments.len() > MAX_LEVELS {
        return Err(AwsError::new(
            "HierarchyLevelLimitExceededException",
            format!("A hierarchy can have a maximum of {MAX_LEVELS} levels."),
        ));
    }
    Ok(())
}

/// The version of a parameter that a request means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    Latest,
    Number(i64),
    Label(String),
}

/// Parses `name`, `name:3`, `name:label` and the ARN forms of these.
pub(crate) fn parse(text: &str) -> (String, Selector) {
    let (arn, rest) = match text.split_once(":parameter") {
        Some((arn, rest)) if arn.starts_with("arn:") => (true, rest),
        _ => (false, text),
    };
    let (name, selector) = match rest.split_once(':') {
        None => (rest, Selector::Latest),
        Some((name, selector)) => {
            (name, selector.parse().map_or_else(|_| Selector::Label(selector.to_owned()), Selector::Number))
        }
    };
    // The ARN contains a slash even if the name has none.
    let simple = arn && name.matches('/').count() == 1;
    (if simple { name.trim_start_matches('/') } else { name }.to_owned(), selector)
}

pub(crate) fn arn(region: &str, name: &str) -> String {
    let slash = if name.starts_with('/') { "" } else { "/" };
    format!("arn:aws:ssm:{region}:{ACCOUNT}:parameter{slash}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_aws() {
        let deep = "/a".repeat(15);
        for name in ["/a/b", "RUNNER_TOKEN", "/A.b-c_d/1", &deep, "/x/aws", "/x/ssm"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let too_deep = "/a".repeat(16);
        let too_long = format!("/{}", "a".repeat(MAX_LENGTH));
        let cases = [
            ("", "ValidationException"),
            ("a/b", "ValidationException"),
            ("/a b", "ValidationException"),
            ("/a//b", "ValidationException"),
            ("/a/", "ValidationException"),
            ("/", "ValidationException"),
            ("/é", "ValidationException"),
            ("/ssm/x", "ValidationException"),
            ("SSMx", "ValidationException"),
            (&too_long, "ValidationException"),
            ("/aws/x", "AccessDeniedException"),
            ("awsx", "AccessDeniedException"),
            (&too_deep, "HierarchyLevelLimitExceededException"),
        ];
        for (name, code) in cases {
            assert_eq!(check(name).map_err(|error| error.code), Err(code.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_version_or_label_may_follow_the_name_and_the_arn() {
        let cases = [
            ("/a/b", "/a/b", Selector::Latest),
            ("/a/b:3", "/a/b", Selector::Number(3)),
            ("/a/b:live", "/a/b", Selector::Label("live".into())),
            ("arn:aws:ssm:us-east-1:1:parameter/a/b:3", "/a/b", Selector::Number(3)),
            ("arn:aws:ssm:us-east-1:1:parameter/a", "a", Selector::Latest),
        ];
        for (text, name, selector) in cases {
            assert_eq!(parse(text), (name.to_owned(), selector), "{text}");
        }
    }
}
