//! The commit and the machine of a measurement.

use std::process::Command;

use chrono::Utc;

/// Returns one sentence with commit, date, processors and load.
pub(crate) fn description() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "Commit {} on {}: {processors} processors ({}), load average before the run: {}.",
        commit(),
        Utc::now().format("%F"),
        file("/proc/cpuinfo").as_deref().and_then(model).unwrap_or("of a model that Linux does not name"),
        file("/proc/loadavg").as_deref().map_or_else(|| "unknown".to_owned(), load),
    )
}

fn commit() -> String {
    let hash = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    // Only the sources count: each run changes the page itself.
    let changed = git(&["status", "--porcelain", "--", "src", "crates", "Cargo.lock", "dev/bench-program"]);
    if changed.is_none_or(|files| files.is_empty()) { hash } else { format!("{hash}, changed since,") }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn file(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Returns the load averages over one, five and fifteen minutes.
fn load(loadavg: &str) -> String {
    loadavg.split(' ').take(3).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_named_and_load_is_that_of_three_times() {
        assert_eq!(model("processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n"), Some("A CPU @ 2 GHz"));
        assert_eq!(model("processor\t: 0\n"), None);
        assert_eq!(load("0.50 0.25 0.10 1/200 4242\n"), "0.50, 0.25, 0.10");
    }
}
