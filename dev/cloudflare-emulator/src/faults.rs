//! Faults on demand: which request they hit, and what they do to it.

use serde::{Deserialize, Serialize};

/// Hits requests of an operation, after skipping some, so many times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `CreateToken`, `ListTokens`, `GetToken`, `DeleteToken`, `PermissionGroups`, `VerifyToken`, `ListObjects`,
    /// `ListBuckets`; any when absent.
    #[serde(default)]
    pub operation: Option<String>,
    /// Only requests of this account; any when absent.
    #[serde(default)]
    pub account: Option<String>,
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
        Self { operation: Some(operation.to_owned()), account: None, skip: 0, times: Some(1), fault }
    }

    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    pub fn always(self) -> Self {
        Self { times: None, ..self }
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// HTTP 429, with `Retry-After` where it says so.
    Throttle {
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// HTTP 500, after the request was applied or instead.
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
    /// Applied at once, and answered after this time.
    Slow { ms: u64 },
    /// Applied, and answered with something that is not JSON.
    Garbage,
    /// Any error of Cloudflare's API; nothing is applied.
    Error { status: u16, code: u32, message: String },
}

impl Fault {
    /// Whether the request is applied all the same.
    pub fn applies(&self) -> bool {
        match self {
            Fault::ServerError { applied } | Fault::Hang { applied } | Fault::Drop { applied } => *applied,
            Fault::Slow { .. } | Fault::Garbage => true,
            Fault::Throttle { .. } | Fault::Error { .. } => false,
        }
    }
}

/// The rules in force, oldest first; the first that matches hits.
#[derive(Default, Serialize, Deserialize)]
pub struct Faults(Vec<Rule>);

impl Faults {
    pub fn add(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    /// Clears the rules that name this account, or all.
    pub fn clear(&mut self, account: Option<&str>) {
        self.0.retain(|rule| account.is_some() && rule.account.as_deref() != account);
    }

    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// The fault that hits this request, if any; counts it.
    pub fn hit(&mut self, operation: &str, account: &str) -> Option<Fault> {
        let matches = |rule: &Rule| {
            rule.operation.as_ref().is_none_or(|wanted| wanted == operation)
                && rule.account.as_ref().is_none_or(|wanted| wanted == account)
        };
        let index = self.0.iter().position(matches)?;
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
        let rule: Rule = serde_json::from_str(
            r#"{"operation":"DeleteToken","skip":1,"times":2,"fault":{"kind":"throttle","retryAfter":3}}"#,
        )
        .unwrap();
        faults.add(rule);
        assert!(faults.hit("CreateToken", "a").is_none());
        let hit: Vec<bool> = (0..4).map(|_| faults.hit("DeleteToken", "a").is_some()).collect();
        assert_eq!(hit, [false, true, true, false]);
    }

    #[test]
    fn the_rules_of_one_account_are_cleared_without_those_of_others() {
        let mut faults = Faults::default();
        let of = |account: &str| Rule {
            account: Some(account.to_owned()),
            ..Rule::once("CreateToken", Fault::Garbage).always()
        };
        faults.add(of("a"));
        faults.add(of("b"));
        faults.clear(Some("a"));
        assert_eq!(faults.rules(), [of("b")]);
        faults.clear(None);
        assert!(faults.rules().is_empty());
    }
}
