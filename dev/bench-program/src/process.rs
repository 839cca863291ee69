//! Processor time and peak memory of a process, read from `/proc`.

use std::time::Duration;

use crate::failure::{Failure, Result};

/// Linux shows times of processes in hundredths of a second, whatever the frequency of its own clock.
const TICKS_PER_SECOND: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time, including the kernel's time for the process.
    pub cpu: Duration,
    /// Peak resident memory, in KiB.
    pub peak: u64,
}

/// Reads the usage of a process since its start.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).map_err(Failure::io(format!("read {path}")))
    };
    let (stat, status) = (read("stat")?, read("status")?);
    let usage = cpu(&stat).zip(peak(&status)).map(|(cpu, peak)| Usage { cpu, peak });
    usage.ok_or_else(|| Failure::Unexpected(format!("/proc/{pid} has no processor time or no VmHWM")))
}

/// Adds fields 14 and 15 of `stat`. Field 2 is the program's name in parentheses, which may contain anything, so the
/// fields after the last parenthesis are read.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_that_looks_like_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu("42 (a) S"), None);
    }

    #[test]
    fn the_peak_is_in_kibibytes() {
        assert_eq!(peak("Name:\ta\nVmHWM:\t   12345 kB\nVmRSS:\t  1 kB\n"), Some(12345));
        assert_eq!(peak("Name:\ta\n"), None);
    }

    #[test]
    fn this_very_process_has_used_memory() {
        assert!(usage(std::process::id()).unwrap().peak > 0);
    }
}
