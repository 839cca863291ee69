//! Report of a SecretIncident's status, as Markdown or JSON.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::ValueEnum;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::markup::{longest_run, one_line, quoted};
use crate::api::SecretIncident;
use crate::api::access_log::IncidentLog;
use crate::api::secret_incident::{AddressIs, Reader};
use crate::api::time::{from_kubernetes, to_text};

/// Format of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, and for a team's incident log
    Markdown,
    /// For programs: one JSON object
    Json,
}

/// Writes the status. The JSON object stays open so that the calls can follow; [`close`] ends it without calls.
pub(super) fn write(out: &mut impl Write, incident: &SecretIncident, format: Format) -> io::Result<()> {
    match format {
        Format::Markdown => write!(out, "{}", markdown(incident)),
        Format::Json => {
            let object = json(incident)?;
            write!(out, "{}", object.strip_suffix("\n}").unwrap_or(&object))
        }
    }
}

/// Ends a report without calls.
pub(super) fn close(out: &mut impl Write, format: Format) -> io::Result<()> {
    match format {
        Format::Markdown => writeln!(out, "\nCloudTrail was not read for this report."),
        Format::Json => writeln!(out, "\n}}"),
    }
}

fn json(incident: &SecretIncident) -> Result<String, serde_json::Error> {
    let mut status = incident.status.clone().unwrap_or_default();
    // The position of the search is of no use outside the controller.
    if let Some(audit) = &mut status.audit {
        audit.reading = None;
    }
    serde_json::to_string_pretty(&serde_json::json!({
        "name": incident.name_any(), "namespace": incident.namespace(), "spec": incident.spec, "status": status,
    }))
}

/// Formats the report as Markdown.
pub(super) fn markdown(incident: &SecretIncident) -> String {
    let status = incident.status.clone().unwrap_or_default();
    let spec = &incident.spec;
    let mut text = String::new();
    // Writing into a String cannot fail.
    let mut line = |written: String| {
        let _ = writeln!(text, "{written}");
    };
    let at = |time: Option<&Time>| time.map_or_else(|| "–".to_owned(), |time| to_text(from_kubernetes(time)));
    line(format!("# Incident {} ({})\n", incident.name_any(), incident.namespace().unwrap_or_default()));
    line(format!("- Reported: {}", at(Some(&spec.reported_at))));
    if spec.suspected_since.is_some() {
        line(format!("- Suspected since: {}", at(spec.suspected_since.as_ref())));
    }
    if let Some(reason) = &spec.reason {
        line(format!("- Reason: {}", quoted(reason)));
    }
    line(format!("- State: {}", status.state.map_or("not processed yet", |state| state.name())));
    line(format!("- Contained: {}", at(status.contained_at.as_ref())));
    line(format!("- From report to containment: {}", status.time_to_containment.as_deref().unwrap_or("–")));
    line("\n## Secrets\n".to_owned());
    line("| Secret | State | New value | Every host runs it | Old login revoked | Contained | |".to_owned());
    line("|---|---|---|---|---|---|---|".to_owned());
    for secret in &status.secrets {
        line(format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            secret.name,
            secret.state,
            at(secret.rotated_at.as_ref()),
            at(secret.adopted_at.as_ref()),
            at(secret.revoked_at.as_ref()),
            at(secret.contained_at.as_ref()),
            quoted(&secret.message)
        ));
    }
    line("\n## Who read the values\n".to_owned());
    let audited = status.conditions.iter().find(|c| c.type_ == crate::api::conditions::AUDIT_COMPLETE);
    line(format!("{}\n", audited.map_or_else(|| NOT_READ.to_owned(), |said| quoted(&said.message))));
    readers(&mut line, &status.readers);
    line("\n## Who changed or deleted the parameters\n".to_owned());
    readers(&mut line, &status.tampering);
    line("\n## Requests that authenticated with the secret\n".to_owned());
    let collected = status.conditions.iter().find(|c| c.type_ == crate::api::conditions::LOGS_COLLECTED);
    line(match collected {
        Some(said) => sentence(&said.message),
        None => NOBODY_LOOKED.to_owned(),
    });
    status.logs.iter().for_each(|log| requests(&mut line, log));
    line("\n## Timeline\n".to_owned());
    for entry in &status.timeline {
        line(format!("- {} {}", entry.at, quoted(&entry.what)));
    }
    text
}

const NOT_READ: &str = "CloudTrail has not been read yet.";
const NOBODY_LOOKED: &str = "The logs of the hosts were not searched.";

fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    quoted(&first.into_iter().chain(letters).collect::<String>())
}

/// Writes the log lines of one host about one secret.
fn requests(line: &mut impl FnMut(String), log: &IncidentLog) {
    line(format!("\n### {} on {}\n", log.secret, log.host));
    let at = |time: &Time| to_text(from_kubernetes(time));
    line(format!("- Window: {} to {}", at(&log.since), at(&log.until)));
    if let Some(problem) = &log.problem {
        line(format!("- Not collected: {}", quoted(problem)));
    }
    let Some(found) = &log.found else { return };
    let more = if found.cut { ", and more that was not kept" } else { "" };
    let when = log.collected_at.as_ref().map_or_else(|| "–".to_owned(), at);
    line(format!("- Lines: {} ({} bytes{more}), collected {when}", found.lines, found.bytes));
    let (file, digest) = (quoted(&found.file), quoted(&found.digest));
    line(format!("- All lines: {file} on the host, SHA-256 {digest}"));
    if !found.excerpt.is_empty() {
        // The fence starts at the margin, which ends the list, and is longer than any run of backticks in the log.
        let fence =
            "`".repeat(found.excerpt.iter().map(|text| longest_run(text)).max().unwrap_or(0).max(2) + 1);
        line(format!("\n{fence}text"));
        found.excerpt.iter().for_each(|text| line(one_line(text)));
        line(fence);
    }
}

fn readers(line: &mut impl FnMut(String), readers: &[Reader]) {
    if readers.is_empty() {
        line("The search found none.".to_owned());
        return;
    }
    line(
        "| Expected | Principal | Sessions | Address | Clients | Calls | Number | First | Last | Secrets |"
            .to_owned(),
    );
    line("|---|---|---|---|---|---|---|---|---|---|".to_owned());
    for reader in readers {
        line(format!(
            "| {}{} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            expected(reader),
            if reader.denied { ", refused" } else { "" },
            quoted(&reader.principal),
            quoted(&reader.sessions.join(", ")),
            quoted(&reader.address),
            clients(reader),
            quoted(&reader.calls.join(", ")),
            reader.count,
            to_text(from_kubernetes(&reader.first)),
            to_text(from_kubernetes(&reader.last)),
            quoted(&reader.secrets.join(", "))
        ));
    }
}

fn expected(reader: &Reader) -> &'static str {
    match reader.address_is {
        Some(AddressIs::NotListed) => "**unexpected network**",
        Some(AddressIs::New) => "yes, **new address**",
        _ if reader.expected => "yes",
        _ => "**no**",
    }
}

fn clients(reader: &Reader) -> String {
    let named = quoted(&reader.user_agents.join(", "));
    match reader.by_other_agents {
        0 => named,
        more => format!("{named} and others in {more} calls"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Asserts on the rendered HTML: text from others stays text, and the report continues after it.
    fn takes_no_markup(report: &str) {
        let options = pulldown_cmark::Options::ENABLE_TABLES | pulldown_cmark::Options::ENABLE_GFM;
        let mut html = String::new();
        pulldown_cmark::html::push_html(&mut html, pulldown_cmark::Parser::new_ext(report, options));
        for markup in ["<script", "<img", "<!--", "<a ", "onerror=alert(2)>"] {
            assert!(!html.contains(markup), "{markup}\n{html}");
        }
        assert!(html.contains("<td><code>x \u{2502} &lt;script&gt;alert(1)"), "{html}");
        let (before, block) =
            html.split_once("<pre><code class=\"language-text\">").expect("a block of code");
        let (block, after) = block.split_once("</code></pre>").expect("its end");
        assert!(block.contains("&lt;!-- hidden\n~~~\n") && !before.contains("hidden"), "{html}");
        assert!(after.contains("<h2>Timeline</h2>") && after.contains("token on second"), "{html}");
    }

    #[test]
    fn the_report_names_who_read_what_and_takes_no_markup_from_them() {
        let incident: SecretIncident = serde_json::from_value(json!({
            "apiVersion": "keyturn.dev/v1alpha1", "kind": "SecretIncident",
            "metadata": {"name": "leak", "namespace": "shop"},
            "spec": {"allSecrets": true, "reportedAt": "2026-11-23T12:00:00Z", "reason": "a laptop\nwas stolen"},
            "status": {
                "state": "Contained", "timeToContainment": "4m12s", "unexpectedReaders": 1,
                "secrets": [{"name": "token", "state": "Contained", "rotatedAt": "2026-11-23T12:01:00Z"}],
                "readers": [{
                    "principal": "arn:aws:iam::1:role/laptop", "sessions": ["ada", "i-0abc"], "address": "203.0.113.9",
                    "userAgents": ["x | <script>alert(1)</script> ``` [click](https://evil.example) @everyone"], "byOtherAgents": 2, "expected": false, "denied": true, "calls": ["GetParameter"],
                    "count": 3, "recent": 0, "first": "2026-11-22T12:00:00Z", "last": "2026-11-22T13:00:00Z",
                    "secrets": ["token"],
                }],
                "conditions": [{
                    "type": "LogsCollected", "status": "True", "reason": "Collected",
                    "message": "700 log lines were collected", "lastTransitionTime": "2026-11-23T12:05:00Z",
                }],
                "logs": [
                    {
                        "host": "web", "secret": "token", "since": "2026-11-20T12:00:00Z",
                        "until": "2026-11-23T12:03:00Z", "collectedAt": "2026-11-23T12:04:00Z",
                        "found": {
                            "lines": 700, "bytes": 70_000, "digest": "0a0b", "file": "/home/deploy/leak.log",
                            "excerpt": [
                                "first ```", "[698 lines are left out here]", "# last", "````", "<img src=x onerror=alert(2)>",
                                "<!-- hidden", "~~~",
                            ],
                        },
                    },
                    {
                        "host": "second", "secret": "token", "since": "2026-11-20T12:00:00Z",
                        "until": "2026-11-23T12:03:00Z", "problem": "the script ended with the exit code 7",
                    },
                ],
                "timeline": [{"at": "2026-11-23T12:00:00Z", "what": "reported"}],
            },
        }))
        .unwrap();
        let report = markdown(&incident);
        for expected in [
            "# Incident leak (shop)",
            "- Reason: `a laptop was stolen`",
            "- From report to containment: 4m12s",
            "| **no**, refused | `arn:aws:iam::1:role/laptop` | `ada, i-0abc` | `203.0.113.9` | ````x \u{2502} <script>",
            "- 2026-11-23T12:00:00Z `reported`",
            "The search found none.",
            "## Requests that authenticated with the secret\n\n`700 log lines were collected`\n\n### token on web\n",
            "- Window: 2026-11-20T12:00:00Z to 2026-11-23T12:03:00Z\n- Lines: 700 (70000 bytes), collected 2026-11-23",
            "- All lines: `/home/deploy/leak.log` on the host, SHA-256 `0a0b`\n",
            "\n`````text\nfirst ```\n[698 lines are left out here]\n# last\n````\n<img",
            "\n~~~\n`````\n",
            "- Not collected: `the script ended with the exit code 7`",
        ] {
            assert!(report.contains(expected), "{expected}\n{report}");
        }
        takes_no_markup(&report);
        let parsed: serde_json::Value = serde_json::from_str(&json(&incident).unwrap()).unwrap();
        assert_eq!(parsed["status"]["readers"][0]["count"], 3);
        assert_eq!(parsed["status"]["logs"][0]["found"]["lines"], 700);
        let untouched = SecretIncident { status: None, ..incident };
        assert!(markdown(&untouched).contains(NOBODY_LOOKED));
    }
}
