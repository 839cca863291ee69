//! Durations as users write them: one number, one unit (`15m`, `2h`, `90d`).

use std::fmt;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Duration as one number of at most four digits and one unit: `m` minutes, `h` hours, `d` days of 24 hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-kubernetes-validations" = rules::validations(&[rules::DURATION])))]
pub struct Duration(#[schemars(length(max = 16))] pub String);

impl Duration {
    /// Returns the duration, or `None` if the text does not have the form that the schema requires.
    pub fn to_delta(&self) -> Option<TimeDelta> {
        let (number, unit) = self.0.split_at_checked(self.0.len().checked_sub(1)?)?;
        if number.is_empty()
            || number.len() > 4
            || number.starts_with('0')
            || !number.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let number: i64 = number.parse().ok()?;
        match unit {
            "m" => TimeDelta::try_minutes(number),
            "h" => TimeDelta::try_hours(number),
            "d" => TimeDelta::try_days(number),
            _ => None,
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_and_one_unit_is_a_duration_and_nothing_else_is() {
        let delta = |s: &str| Duration(s.into()).to_delta();
        assert_eq!(delta("15m"), Some(TimeDelta::minutes(15)));
        assert_eq!(delta("2h"), Some(TimeDelta::hours(2)));
        assert_eq!(delta("90d"), Some(TimeDelta::days(90)));
        for bad in ["", "d", "0d", "090d", "90", "1h30m", "-1d", "+1d", "12345d", "9w", "9ü"] {
            assert_eq!(delta(bad), None, "{bad}");
        }
    }
}
