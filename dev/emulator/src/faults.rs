//! Rules that select the requests that a fault hits.

use serde::{Deserialize, Serialize};

/// A rule for requests that match: it skips some, then hits a number of them. `F` is the effect on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule<F> {
    /// The operation, such as `PutParameter` or `CreateToken`; any operation if missing.
    #[serde(default)]
    pub operation: Option<String>,
    /// The subject of the request, any subject if missing: an account, a parameter's path, or a folder with its closing
    /// slash. A version after the path is ignored. In JSON also `account` and `path`.
    #[serde(default, alias = "account", alias = "path")]
    pub on: Option<String>,
    /// Number of matching requests that pass first.
    #[serde(default)]
    pub skip: u32,
    /// Number of requests to hit; `null` for all until faults are cleared. The default is one.
    #[serde(default = "once")]
    pub times: Option<u32>,
    /// Effect on the requests that the rule hits.
    pub fault: F,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
fn once() -> Option<u32> {
    Some(1)
}

impl<F> Rule<F> {
    /// Creates a rule for one request of an operation.
    pub fn once(operation: &str, fault: F) -> Self {
        Self { operation: Some(operation.to_owned()), on: None, skip: 0, times: Some(1), fault }
    }

    /// Sets the number of requests that the rule hits, after those that it skips.
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Makes the rule hit every matching request until faults are cleared.
    pub fn always(self) -> Self {
        Self { times: None, ..self }
    }

    /// Sets the number of matching requests that pass first.
    pub fn skipping(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// Restricts the rule to requests about this account, path or folder.
    pub fn on(self, what: &str) -> Self {
        Self { on: Some(what.to_owned()), ..self }
    }

    fn matches(&self, operation: &str, about: &str) -> bool {
        let is_about = |wanted: &String| {
            let name = about.split(':').next().unwrap_or_default();
            if wanted.ends_with('/') { name.starts_with(wanted.as_str()) } else { name == wanted }
        };
        self.operation.as_ref().is_none_or(|wanted| wanted == operation)
            && self.on.as_ref().is_none_or(is_about)
    }
}

/// The rules in force, oldest first; the first rule that matches is used.
#[derive(Debug, Serialize, Deserialize)]
pub struct Faults<F>(Vec<Rule<F>>);

impl<F> Default for Faults<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<F: Clone> Faults<F> {
    /// Adds a rule after the others.
    pub fn add(&mut self, rule: Rule<F>) {
        self.0.push(rule);
    }

    /// Removes all rules.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Clears the rules that name this account, path or folder.
    pub fn clear_on(&mut self, what: &str) {
        self.0.retain(|rule| rule.on.as_deref() != Some(what));
    }

    /// Returns the rules in force, oldest first. Their `skip` and `times` are the numbers that remain.
    pub fn rules(&self) -> &[Rule<F>] {
        &self.0
    }

    /// Returns the fault for this request, if any; counts the request.
    pub fn hit(&mut self, operation: &str, about: &str) -> Option<F> {
        let index = self.0.iter().position(|rule| rule.matches(operation, about))?;
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
        faults.add(Rule::once("PutParameter", ()).on("/a/").skipping(1).times(2));
        let hits = |faults: &mut Faults<()>, path: &str| faults.hit("PutParameter", path).is_some();
        assert!(!hits(&mut faults, "/b"));
        assert!(faults.hit("GetParameter", "/a/x").is_none());
        let hit: Vec<bool> = (0..4).map(|_| hits(&mut faults, "/a/x:3")).collect();
        assert_eq!(hit, [false, true, true, false]);
    }

    #[test]
    fn the_rules_of_one_account_are_cleared_without_those_of_others() {
        let mut faults = Faults::default();
        faults.add(Rule::once("CreateToken", ()).on("a").always());
        faults.add(Rule::once("CreateToken", ()).on("b").always());
        faults.clear_on("a");
        assert_eq!(faults.rules(), [Rule::once("CreateToken", ()).on("b").always()]);
    }

    #[test]
    fn rules_are_written_as_json_and_misspelt_ones_are_refused() {
        let expected = Rule { operation: None, ..Rule::once("", 7) }.on("a").always();
        for name in ["account", "path", "on"] {
            let rule: Rule<u8> =
                serde_json::from_str(&format!(r#"{{"{name}": "a", "times": null, "fault": 7}}"#)).unwrap();
            assert_eq!(rule, expected);
        }
        let plain: Rule<u8> = serde_json::from_str(r#"{"fault": 7}"#).unwrap();
        assert_eq!(plain.times, Some(1));
        assert!(serde_json::from_str::<Rule<u8>>(r#"{"acount": "a", "fault": 7}"#).is_err());
    }
}
