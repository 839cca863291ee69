//! Request quotas per operation, as AWS enforces them: a token bucket that refuses requests and never delays
//! them.

use std::collections::HashMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Requests per second, and the burst after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// Requests per second that are allowed in the long run.
    pub per_second: f64,
    /// Largest number of requests that are allowed at once.
    pub burst: u32,
}

struct Bucket {
    quota: Quota,
    level: f64,
    at: Instant,
}

#[derive(Default)]
pub(crate) struct Quotas(HashMap<String, Bucket>);

impl Quotas {
    /// Replaces all quotas by these, with full buckets.
    pub(crate) fn replace(&mut self, quotas: impl IntoIterator<Item = (String, Quota)>) {
        let now = Instant::now();
        let bucket = |quota: Quota| Bucket { quota, level: f64::from(quota.burst), at: now };
        self.0 = quotas.into_iter().map(|(operation, quota)| (operation, bucket(quota))).collect();
    }

    /// True if a request of this operation is allowed now; the request is counted.
    pub(crate) fn passes(&mut self, operation: &str, now: Instant) -> bool {
        let Some(bucket) = self.0.get_mut(operation) else { return true };
        let earned = now.saturating_duration_since(bucket.at).as_secs_f64() * bucket.quota.per_second;
        bucket.level = (bucket.level + earned).min(f64::from(bucket.quota.burst));
        bucket.at = now;
        let passes = bucket.level >= 1.0;
        if passes {
            bucket.level -= 1.0;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_quota_refuses_beyond_its_burst_and_recovers_at_its_rate() {
        let mut quotas = Quotas::default();
        quotas.replace([("PutParameter".to_owned(), Quota { per_second: 2.0, burst: 2 })]);
        let start = Instant::now();
        let passed: Vec<bool> = (0..3).map(|_| quotas.passes("PutParameter", start)).collect();
        assert_eq!(passed, [true, true, false]);
        assert!(quotas.passes("GetParameter", start));
        assert!(quotas.passes("PutParameter", start + Duration::from_secs(1)));
    }
}
