//! Validation beyond the schema. The object's `Stalled` condition shows the problems that it finds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chrono::{DateTime, TimeDelta};

use super::cloudflare_r2::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};
use super::docker_host::{DockerHostSpec, known_hosts_lines};
use super::managed_secret::{GenerateSpec, ManagedSecretSpec};
use super::postgres::{PASSWORD_BYTES, PostgresSpec, TlsMode};
use super::window::Window;

/// Maximum size of a value in a standard parameter, in bytes. Larger values would need the advanced tier, which costs
/// money.
const MAX_VALUE: usize = 4096;
/// Maximum length of a window. A longer window would be pointless.
const MAX_WINDOW: TimeDelta = TimeDelta::days(366);

/// Maximum sizes of the parts of an R2 key pair: Cloudflare's ids have 32 characters, a SHA-256 in hexadecimal has 64.
const ACCESS_KEY_ID_SIZE: usize = 32;
const SECRET_ACCESS_KEY_SIZE: usize = 64;

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
    let generated = longest(&spec.generate);
    let postgres = spec.generate.postgres.as_ref();
    if let Some(postgres) = postgres {
        problems.extend(postgres_source(spec, postgres));
    }
    for (i, parameter) in spec.ssm.parameters.iter().enumerate() {
        let template = parameter.value.as_deref().unwrap_or("{value}");
        if postgres.is_none() && template.contains("{username}") {
            let message = "{username} is known with generate.postgres only";
            problems.push(problem(&format!("spec.ssm.parameters[{i}].value"), message));
        }
        let problem_of_r2 = match &spec.generate.cloudflare_r2 {
            Some(_) => r2_template(template),
            None => [ACCESS_KEY_ID, SECRET_ACCESS_KEY]
                .into_iter()
                .find(|field| template.contains(field))
                .map(|field| format!("{field} is known with generate.cloudflareR2 only")),
        };
        if let Some(message) = problem_of_r2 {
            problems.push(problem(&format!("spec.ssm.parameters[{i}].value"), &message));
        }
        // Every byte of a name may be percent-encoded.
        let longest_name = postgres.map_or(0, |p| 3 * p.roles().iter().map(|r| r.len()).max().unwrap_or(0));
        let fields = [
            ("{value}", generated),
            ("{password}", generated),
            ("{username}", longest_name),
            (ACCESS_KEY_ID, ACCESS_KEY_ID_SIZE),
            (SECRET_ACCESS_KEY, SECRET_ACCESS_KEY_SIZE),
        ];
        let length = fields.iter().fold(template.len(), |length, (place, size)| {
            let places = template.matches(place).count();
            length - places * place.len() + places * size
        });
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

/// Returns the problem of a template for an R2 key pair, which must also be readable back out of the published text.
fn r2_template(template: &str) -> Option<String> {
    let other = ["{value}", "{password}", "{username}"].into_iter().find(|field| template.contains(field));
    if let Some(field) = other {
        return Some(format!(
            "{field} is not known with generate.cloudflareR2: use {ACCESS_KEY_ID} or {SECRET_ACCESS_KEY}"
        ));
    }
    // Both parts are letters and digits, so the characters beside them must show where they begin and end.
    let bare = template.replace(ACCESS_KEY_ID, "{}").replace(SECRET_ACCESS_KEY, "{}");
    let places = bare
        .match_indices("{}")
        .map(|(at, place)| (bare[..at].chars().next_back(), bare[at + place.len()..].chars().next()));
    let closed = |beside: Option<char>| beside.is_none_or(|c| !c.is_ascii_alphanumeric());
    let mut places = places.peekable();
    if places.peek().is_none() {
        return Some(format!("must contain {ACCESS_KEY_ID} or {SECRET_ACCESS_KEY}"));
    }
    let ambiguous = places.any(|(before, after)| !closed(before) || !closed(after)) || bare.contains("{}{}");
    ambiguous.then(|| {
        format!("a letter or digit directly beside {ACCESS_KEY_ID} or {SECRET_ACCESS_KEY} would blur where it begins or ends")
    })
}

/// Returns the problems of the parameters and TLS settings of a Postgres source.
fn postgres_source(spec: &ManagedSecretSpec, postgres: &PostgresSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let templates = || spec.ssm.parameters.iter().map(|p| p.value.as_deref().unwrap_or("{value}"));
    if !templates().any(|text| text.contains("{value}") || text.contains("{password}")) {
        let message = "no parameter holds the password: use {password} in one of them";
        problems.push(problem("spec.ssm.parameters", message));
    }
    if postgres.alternating_roles.is_some() && !templates().any(|text| text.contains("{username}")) {
        let message = "alternatingRoles change the user name with every rotation, so a parameter must hold {username}: \
                       one text such as postgresql://{username}:{password}@db/app, or a parameter of its own";
        problems.push(problem("spec.ssm.parameters", message));
    }
    if postgres.host.is_some() && postgres.tls_mode() == TlsMode::Disable {
        let message = "a server that the controller reaches directly is spoken to over TLS only: remove the field, and \
                       name the server's certificate authority in tls.ca";
        problems.push(problem("spec.generate.postgres.tls.mode", message));
    }
    if postgres.via.is_some()
        && postgres.tls_mode() == TlsMode::VerifyFull
        && postgres.tls.as_ref().is_none_or(|tls| tls.server_name.is_none())
    {
        let message =
            "is needed for TLS through a docker host: the name that the server's certificate is for";
        problems.push(problem("spec.generate.postgres.tls.serverName", message));
    }
    problems
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

fn problem(field: &str, message: &str) -> Problem {
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
                wrong("schedule", &format!("{:?} never comes: there is no such day", window.schedule));
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
            wrong("duration", &format!("{} is no length of at most 366 days, such as 2h", window.duration));
        }
        if window.zone().is_none() {
            let name = window.time_zone.as_deref().unwrap_or_default();
            wrong("timeZone", &format!("{name:?} is not an IANA time zone such as Europe/Berlin"));
        }
    }
}

/// Returns the maximum size of a value from this source, in bytes.
fn longest(generate: &GenerateSpec) -> usize {
    let size = |n: i32| usize::try_from(n).unwrap_or(0);
    if let Some(hex) = &generate.hex {
        2 * size(hex.bytes)
    } else if let Some(base64) = &generate.base64 {
        4 * size(base64.bytes).div_ceil(3)
    } else if let Some(password) = &generate.password {
        size(password.length)
    } else if let Some(fernet) = &generate.fernet {
        // A key has 44 characters; each previous key follows after a comma.
        44 + 45 * size(fernet.keep_previous.unwrap_or(0))
    } else if let Some(postgres) = &generate.postgres {
        2 * size(postgres.password_bytes.unwrap_or(PASSWORD_BYTES))
    } else {
        0
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
