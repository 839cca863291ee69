//! Collects, for an incident, the log lines about clients that authenticated with a secret. The report shows only
//! scrubbed lines; all lines stay in a file on the host.

use super::host::{self, HostError, Logs, Request};
use super::{Run, report};
use crate::api::docker_host::RunResult;
use crate::api::text::is_visible;
use crate::audit::managed::Matcher;
use crate::audit::scrub::scrubbed;
use crate::deploy::report::{LogsReport, Report};
use crate::deploy::task::TaskCollection;
use crate::secret_value::SecretValue;

/// Number of first lines that are shown, and of last lines.
const SHOWN: usize = 10;
/// Longest line that is shown, in characters.
const LONGEST_LINE: usize = 300;
/// Longest error output of a failed command that is shown, in characters.
const LONGEST_COMPLAINT: usize = 600;

impl Run<'_> {
    /// Runs the user's command on the host. Returns `Err` if it did not succeed.
    pub(super) async fn collect(&mut self) -> Result<Report, Report> {
        let bad = |why: &str| report(RunResult::BadInput, why);
        let task = self.task;
        let Some(collection) = &task.collection else {
            return Err(bad("the task does not say what to collect"));
        };
        let matcher = self.matcher.clone();
        self.phase(format!("collecting log lines on {}", task.ssh.host));
        match self.ask_for_logs(collection).await? {
            Logs::Unfit(why) => Err(report(RunResult::HostUnfit, why.to_string())),
            Logs::Failed { code, errors } => Err(failed(collection, code, &errors, &matcher)),
            Logs::Found { file, bytes, cut, lines, digest, first, last } => {
                let (first, last, all_is_there) = ends(&first, &last, lines);
                // Runs on a blocking thread: scrubbing may take long, and the connection must be kept alive meanwhile.
                let shown = tokio::task::spawn_blocking(move || {
                    (self::shown(&first, &matcher), self::shown(&last, &matcher))
                });
                let (mut first, mut last) = shown.await.map_err(|_| {
                    report(RunResult::CollectFailed, "the redaction of the log lines was aborted")
                })?;
                if all_is_there {
                    first.append(&mut last);
                    last = first.split_off(first.len().min(SHOWN));
                }
                first.truncate(SHOWN);
                last.drain(..last.len().saturating_sub(SHOWN));
                let message = format!("{lines} log lines were collected");
                let logs = LogsReport { lines, bytes, cut, digest, file: file.into(), first, last };
                Ok(Report { logs: Some(Box::new(logs)), ..report(RunResult::Succeeded, message) })
            }
        }
    }

    async fn ask_for_logs(&mut self, collection: &TaskCollection) -> Result<Logs, Report> {
        let (task, output, deadline) = (self.task, self.output, self.deadline);
        let request = Request::Logs { task, collection };
        let host = &task.ssh.host;
        let connection = self.connect().await.map_err(|error| report(error.outcome(), error.to_string()))?;
        let answer = host::ask_for_logs(connection, &request, output);
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(logs)) => Ok(logs),
            Ok(Err(HostError::Ssh(error))) => Err(report(error.outcome(), error.to_string())),
            Ok(Err(HostError::NoAnswer(exit))) => Err(report(
                RunResult::HostUnfit,
                format!("the account's shell on {host} ended without an answer ({exit:?})"),
            )),
            Err(_) => Err(report(
                RunResult::CollectFailed,
                format!(
                    "{host} did not answer within the time of this run; check whether the script leaves a \
                     process behind"
                ),
            )),
        }
    }
}

fn failed(collection: &TaskCollection, code: i32, errors: &SecretValue, matcher: &Matcher) -> Report {
    let complaint = scrubbed(errors, matcher).lines().map(str::trim).collect::<Vec<_>>().join(" / ");
    let complaint: String = complaint.chars().filter(|c| is_visible(*c)).take(LONGEST_COMPLAINT).collect();
    let said = if complaint.is_empty() { String::new() } else { format!("; its error output: {complaint}") };
    let message = match code {
        // Exit codes of `timeout`, with and without the kill.
        124 | 137 | 143 => {
            format!(
                "the script did not end within {} s (accessLog.timeout){said}",
                collection.timeout_seconds
            )
        }
        code => format!("the script ended with the exit code {code}{said}"),
    };
    Report { script_exit: Some(code), ..report(RunResult::CollectFailed, message) }
}

/// Returns the first lines, the last lines without those that are among the first, and true if these are all lines.
/// `all` is the number of lines in the file.
fn ends(first: &SecretValue, last: &SecretValue, all: u64) -> (SecretValue, SecretValue, bool) {
    let count = |text: &SecretValue| text.expose().lines().count();
    let (all, sent) = (usize::try_from(all).unwrap_or(usize::MAX), count(first));
    let begin_of_last = all.saturating_sub(count(last));
    let known = sent.saturating_sub(begin_of_last);
    let rest: String = last.expose().split_inclusive('\n').skip(known).collect();
    let all_is_there = sent >= begin_of_last;
    (first.duplicate(), SecretValue::new(rest), all_is_there)
}

/// Returns the lines in a form that everybody who may read the incident can see.
fn shown(text: &SecretValue, matcher: &Matcher) -> Vec<String> {
    let printable = |c: char| if is_visible(c) { c } else { ' ' };
    let line = |line: &str| {
        let mut shown: String = line.trim_end().chars().map(printable).take(LONGEST_LINE).collect();
        if line.trim_end().chars().nth(LONGEST_LINE).is_some() {
            shown.push('…');
        }
        shown
    };
    scrubbed(text, matcher).lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: std::ops::Range<usize>) -> SecretValue {
        SecretValue::new(lines.map(|n| format!("line {n}\n")).collect())
    }

    #[test]
    fn no_line_is_shown_twice() {
        for (all, sent, rest) in
            [(0, 0, 0), (5, 5, 0), (60, 60, 0), (61, 60, 1), (100, 60, 40), (500, 60, 60)]
        {
            let (first, last) = (text(0..sent), text(all - sent..all));
            let (kept, others, all_is_there) = ends(&first, &last, all as u64);
            assert_eq!(all_is_there, all == sent + rest, "{all} lines");
            assert!(kept.same_as(&first));
            assert!(others.same_as(&text(all - rest..all)), "{all} lines");
        }
    }
}
