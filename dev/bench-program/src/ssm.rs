//! The emulated SSM of one measurement: parameters that exist beforehand, and the log of requests.

use chrono::{DateTime, Utc};
use keyturn_aws_emulator::{Call, Emulator, Quota};

use crate::counts::Counts;
use crate::failure::{Failure, Result};
use crate::objects::{folder, path};

pub(crate) const REGION: &str = "us-east-1";
const PUT: &str = "PutParameter";
const DESCRIBE: &str = "DescribeParameters";
const THROTTLED: &str = "ThrottlingException";

/// Starts an emulator without quotas and without parameters.
pub(crate) async fn start() -> Result<Emulator> {
    Emulator::start().await.map_err(Failure::io("start the emulated SSM"))
}

/// Sets a quota for Puts; the emulator throttles Puts above it.
pub(crate) fn limit_puts(emulator: &Emulator, per_second: u32) {
    let quota = Quota { per_second: f64::from(per_second), burst: per_second };
    emulator.set_quotas([(PUT.to_owned(), quota)]);
}

/// Creates the parameter of a secret as if somebody had put it at this time.
pub(crate) fn seed(emulator: &Emulator, name: &str, at: DateTime<Utc>) -> Result<()> {
    let put = emulator.seed(REGION, &path(name), &format!("a value of {name}"), at);
    put.map_err(|error| Failure::Seed { name: name.to_owned(), message: error.message })
}

/// Returns the requests after the one with this number, oldest first.
pub(crate) fn calls_after(emulator: &Emulator, number: u64) -> Vec<Call> {
    emulator.calls().into_iter().filter(|call| call.number > number).collect()
}

pub(crate) fn by_operation(calls: &[Call]) -> Counts {
    calls.iter().map(|call| call.operation.as_str()).collect()
}

/// Counts by operation. Pages of the shared listing are counted apart from DescribeParameters calls for this secret.
pub(crate) fn by_operation_for(calls: &[Call], name: &str) -> Counts {
    let named = |call: &Call| match call.operation.as_str() {
        DESCRIBE if call.path != path(name) => format!("{DESCRIBE} (shared listing)"),
        operation => operation.to_owned(),
    };
    calls.iter().map(named).collect()
}

/// Counts the Puts that were throttled by the quota.
pub(crate) fn throttled_puts(calls: &[Call]) -> usize {
    calls.iter().filter(|call| is_put(call) && call.outcome == THROTTLED).count()
}

/// Returns the name of the secret whose value this request published, and the time; `None` for other requests.
pub(crate) fn publication(call: &Call) -> Option<(&str, DateTime<Utc>)> {
    let name = call.path.strip_prefix(folder().as_str())?;
    (is_put(call) && call.outcome == "ok").then_some((name, call.at))
}

pub(crate) fn is_put(call: &Call) -> bool {
    call.operation == PUT
}

/// True for requests that change parameters.
pub(crate) fn is_write(call: &Call) -> bool {
    is_put(call) || call.operation.starts_with("Delete") || call.operation.starts_with("Label")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::name;

    fn call(operation: &str, path: String, outcome: &str, second: i64) -> Call {
        Call {
            number: 1,
            at: DateTime::from_timestamp(second, 0).unwrap(),
            region: REGION.to_owned(),
            access_key: String::new(),
            operation: operation.to_owned(),
            path,
            version: None,
            outcome: outcome.to_owned(),
            applied: true,
            fault: None,
        }
    }

    #[test]
    fn a_value_is_published_by_a_put_of_its_own_path_that_is_taken() {
        let own = name(1);
        let record = format!("/keyturn/bench/keyturn-bench/{own}/1");
        let calls = [
            call(PUT, record, "ok", 1),
            call(PUT, path(&own), THROTTLED, 2),
            call("GetParameter", path(&own), "ok", 3),
            call(PUT, path(&own), "ok", 4),
        ];
        let published: Vec<_> = calls.iter().filter_map(publication).collect();
        assert_eq!(published, [(own.as_str(), DateTime::from_timestamp(4, 0).unwrap())]);
        assert_eq!(throttled_puts(&calls), 1);
    }

    #[test]
    fn pages_are_told_apart_from_looks_at_one_secret() {
        let own = name(1);
        let calls = [
            call(DESCRIBE, path(&own), "ok", 1),
            call(DESCRIBE, format!("{},{}", path(&own), path(&name(2))), "ok", 1),
            call("GetParameterHistory", path(&own), "ok", 1),
        ];
        let expected = "DescribeParameters 1, DescribeParameters (shared listing) 1, GetParameterHistory 1";
        assert_eq!(by_operation_for(&calls, &own).to_string(), expected);
        assert_eq!(by_operation(&calls).get(DESCRIBE), 2);
    }
}
