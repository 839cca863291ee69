//! Validation beyond the schema. The object's `Stalled` condition shows the problems that it finds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chrono::{DateTime, TimeDelta};

use super::docker_host::{DockerHostSpec, known_hosts_lines};
use super::managed_secret::ManagedSecretSpec;
use super::source::{self, Named, VALUE};
use super::window::Window;

/// Maximum size of a value in a standard parameter, in bytes. Larger values would need the advanced tier, which costs
/// money.
const MAX_VALUE: usize = 4096;
/// Maximum length of a window. A longer window would be pointless.
const MAX_WINDOW: TimeDelta = TimeDelta::days(366);

/// Maximum timeout of a script. A longer timeout is probably a wrong unit.
const MAX_TIMEOUT: TimeDelta = TimeDelta::days(1);

/// Problem that somebody must fix in an object before keyturn can act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `spec.rotation.windows[0].schedule`.
    pub field: String,
    /// Description of what is wrong, and what to write instead.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Returns the problems of a ManagedSecret that the API server accepted; empty if there are none.
pub fn managed_secret(spec: &ManagedSecretSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    windows("spec.rotation.windows", &spec.rotation.windows, &mut problems);
    if spec.rotation.period.as_ref().is_some_and(|period| period.to_delta().is_none()) {
        problems.push(problem("spec.rotation.period", "is not a duration such as 90d"));
    }
    let source = spec.generate.source();
    problems.extend(source.iter().flat_map(|source| source.spec.problems(&spec.ssm.parameters)));
    for (i, parameter) in spec.ssm.parameters.iter().enumerate() {
        let template = parameter.value.as_deref().unwrap_or(VALUE);
        if let Some(message) = source.as_ref().and_then(|source| problem_of_template(source, template)) {
            problems.push(problem(&format!("spec.ssm.parameters[{i}].value"), &message));
        }
        let length = source.as_ref().map_or(0, |source| longest_text(source, template));
        if length > MAX_VALUE {
            let message = format!(
                "the published text would have {length} bytes, and a parameter holds at most {MAX_VALUE}: generate \
                 fewer bytes or shorten the text"
            );
            problems.push(problem(&format!("spec.ssm.parameters[{i}].value"), &message));
        }
    }
    problems
}

/// Returns the problem of a template: a placeholder that only other sources know, or what the source itself objects to.
fn problem_of_template(source: &Named<'_>, template: &str) -> Option<String> {
    let known = source.placeholders;
    let other = source::placeholders().find(|other| template.contains(other) && !known.contains(other));
    match other {
        Some(other) => {
            Some(format!("{other} is not known with generate.{}: use {}", source.name, known.join(" or ")))
        }
        None => source.spec.problem_of_template(template),
    }
}

/// Returns the maximum size of the text to publish, in bytes.
fn longest_text(source: &Named<'_>, template: &str) -> usize {
    source.placeholders.iter().fold(template.len(), |length, placeholder| {
        let places = template.matches(placeholder).count();
        length - places * placeholder.len() + places * source.spec.longest(placeholder)
    })
}

/// Returns the problems of a DockerHost that the API server accepted; empty if there are none.
pub fn docker_host(spec: &DockerHostSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    windows("spec.deploy.windows", &spec.deploy.windows, &mut problems);
    let timeouts = [
        ("spec.deploy.timeout", spec.deploy.timeout.as_ref()),
        ("spec.verify.timeout", spec.verify.as_ref().and_then(|verify| verify.timeout.as_ref())),
    ];
    for (field, timeout) in timeouts {
        if timeout.is_some_and(|timeout| timeout.to_delta().is_none_or(|length| length > MAX_TIMEOUT)) {
            problems.push(problem(field, "must be at most 1d"));
        }
    }
    known_hosts(&spec.ssh.known_hosts, &mut problems);
    problems
}

pub(crate) fn problem(field: &str, message: &str) -> Problem {
    Problem { field: field.to_owned(), message: message.to_owned() }
}

fn windows(field: &str, windows: &[Window], problems: &mut Vec<Problem>) {
    for (i, window) in windows.iter().enumerate() {
        let mut wrong = |name: &str, message: &str| {
            problems.push(problem(&format!("{field}[{i}].{name}"), message));
        };
        // Any start instant will do: if a schedule ever occurs, it occurs within the years that croner searches.
        match window.cron().map(|cron| cron.find_next_occurrence(&DateTime::UNIX_EPOCH, true)) {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => {
                wrong("schedule", &format!("{:?} never occurs: there is no such day", window.schedule));
            }
            Err(detail) => {
                let message = format!(
                    "{:?} is not a cron expression of five fields (minute, hour, day of month, month, day of week): \
                     {detail}",
                    window.schedule
                );
                wrong("schedule", &message);
            }
        }
        if window.duration.to_delta().is_none_or(|length| length > MAX_WINDOW) {
            wrong(
                "duration",
                &format!("{} is not a duration of at most 366 days, such as 2h", window.duration),
            );
        }
        if window.zone().is_none() {
            let name = window.time_zone.as_deref().unwrap_or_default();
            wrong("timeZone", &format!("{name:?} is not an IANA time zone such as Europe/Berlin"));
        }
    }
}

fn known_hosts(items: &[String], problems: &mut Vec<Problem>) {
    for (i, item) in items.iter().enumerate() {
        for (number, line) in known_hosts_lines(item) {
            if let Err(message) = known_hosts_line(line) {
                let line = if item.lines().count() > 1 { format!("line {number}: ") } else { String::new() };
                problems.push(problem(&format!("spec.ssh.knownHosts[{i}]"), &format!("{line}{message}")));
            }
        }
    }
    if !items.iter().any(|item| known_hosts_lines(item).next().is_some()) {
        let message = "holds no host key, only comments and blank lines: put the lines that ssh-keyscan prints, several \
                       of them below a - |, since YAML joins the lines of a quoted text";
        problems.push(problem("spec.ssh.knownHosts", message));
    }
}

/// Checks a line of known_hosts. An invalid line is most often half a line, or a fingerprint instead of a key.
fn known_hosts_line(line: &str) -> Result<(), &'static str> {
    let mut fields = line.split_ascii_whitespace().peekable();
    if let Some(marker) = fields.next_if(|field| field.starts_with('@'))
        && !matches!(marker, "@cert-authority" | "@revoked")
    {
        return Err(
            "begins with a marker that OpenSSH does not know: @cert-authority and @revoked are known",
        );
    }
    let (Some(_names), Some(kind), Some(key)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("needs three parts: host names, kind of key, key, as ssh-keyscan prints them");
    };
    let blob = STANDARD_NO_PAD.decode(key.trim_end_matches('=')).map_err(
        |_| "its key is not base64: paste the whole line that ssh-keyscan prints, not a fingerprint",
    )?;
    // The key begins with its own kind: four bytes of length, then the name.
    let named = blob.split_at_checked(4).and_then(|(length, rest)| {
        let length = u32::from_be_bytes(length.try_into().ok()?);
        rest.get(..usize::try_from(length).ok()?)
    });
    match named {
        Some(name) if name == kind.as_bytes() => Ok(()),
        Some(_) => Err("its key is of another kind than the line says"),
        None => Err("its key is cut off: paste the whole line that ssh-keyscan prints"),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
